"""Policy sender-owner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd import events
from submitd.envelope import Envelope
from submitd.interfaces import IChecked, IHeaderPolicy, ISenderPolicy
from submitd.message.header import Header
from submitd.policies import ownersquery
from submitd.policies.addresses import MAX_NAMED_LINES, WatchedFile
from submitd.policies.ownersquery import OwnersQuery
from submitd.policies.senderowner import MAX_MAILBOXES, SenderOwner, readLine
from submitd.realm import Submitter
from submitd.session import Session
from submitd.wire.address import Mailbox, ReversePath
from submitd.wire.errors import Refused


def mailbox(address: str) -> Mailbox:
    local, _, domain = address.rpartition("@")
    return Mailbox(local, domain)


def envelope(sender: str = "alice@example.com", **changes: Any) -> Envelope:
    """A transaction of a sender; empty for the null one."""
    return Envelope("ID", ReversePath(mailbox(sender) if sender else None), **changes)


EXAMPLE = Path(__file__).parents[2] / "etc" / "owners.example"


class SenderOwnerTestCase(SynchronousTestCase):
    """Has a file of owners, and the events that were emitted."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.logged: list[dict[str, Any]] = []
        log = Logger(namespace="submitd", observer=self.logged.append)
        self.patch(events, "log", log)

    def write(self, text: str | bytes) -> None:
        """A new file of owners, in place of the old one."""
        data = text.encode() if isinstance(text, str) else text
        new = self.path.with_suffix(".new")
        new.write_bytes(data)
        os.replace(new, self.path)

    def allowed(self, policy: SenderOwner, login: str | None, sender: str) -> bool:
        """Whether MAIL is accepted; a refusal must be the one that tells nothing."""
        session = Session(user=None if login is None else Submitter(login))
        try:
            self.assertIsNone(policy.validateFrom(session, envelope(sender)))
        except Refused as refused:
            expected = b"553 5.7.1 Sender address rejected: not owned by user\r\n"
            if login is None:
                expected = b"530 5.7.0 Authentication required\r\n"
            self.assertEqual(refused.reply.wire, expected)
            return False
        return True


class LoginTests(SenderOwnerTestCase):
    """Without a file."""

    def test_interfaces(self) -> None:
        """It takes part in MAIL and in the header, and can be checked."""
        self.assertTrue(verifyObject(ISenderPolicy, SenderOwner()))
        self.assertTrue(verifyObject(IHeaderPolicy, SenderOwner()))
        self.assertTrue(verifyObject(IChecked, SenderOwner()))
        self.assertEqual(SenderOwner().check(), [])

    def test_own(self) -> None:
        """A login that is an address owns it, and no other."""
        policy = SenderOwner()
        self.assertTrue(self.allowed(policy, "alice@example.com", "Alice@EXAMPLE.com"))
        self.assertFalse(self.allowed(policy, "alice@example.com", "bob@example.com"))
        self.assertFalse(self.allowed(policy, "alice", "alice@example.com"))

    def test_noLogin(self) -> None:
        """Without a login nothing is owned."""
        self.assertFalse(self.allowed(SenderOwner(), None, "alice@example.com"))
        self.assertFalse(self.allowed(SenderOwner(allow_null=True), None, ""))

    def test_null(self) -> None:
        """The null sender is refused unless the key allows it."""
        self.assertFalse(self.allowed(SenderOwner(), "alice@example.com", ""))
        self.assertTrue(self.allowed(SenderOwner(allow_null=True), "alice@example.com", ""))


class FileTests(SenderOwnerTestCase):
    """With a file."""

    def test_lines(self) -> None:
        """A line gives an address to each of its logins; several lines add up."""
        self.write("# comment\n\ninfo@example.com alice  bob@example.org\r\nINFO@example.com eve\n")
        policy = SenderOwner(map=self.path)
        for login in ("alice", "bob@example.org", "BOB@Example.ORG", "eve"):
            self.assertTrue(self.allowed(policy, login, "Info@Example.com"), login)
        self.assertFalse(self.allowed(policy, "mallory", "info@example.com"))
        self.assertFalse(self.allowed(policy, "alice", "sales@example.com"))
        [event] = self.logged
        self.assertEqual(event["log_text"], f"file read: file={self.path} entries=1")

    def test_plainLoginsKeepCase(self) -> None:
        """Two logins that differ in case may be two persons."""
        self.write("info@example.com alice\n")
        self.assertFalse(self.allowed(SenderOwner(map=self.path), "Alice", "info@example.com"))

    def test_domain(self) -> None:
        """@domain stands for all its addresses, not for those of domains below it."""
        self.write("@example.com alice\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "anything@EXAMPLE.com"))
        self.assertFalse(self.allowed(policy, "alice", "x@sub.example.com"))
        self.assertFalse(self.allowed(policy, "alice", "x@notexample.com"))

    def test_emptyLocalPart(self) -> None:
        """The address with an empty local part is one address, and no whole domain."""
        self.write('""@example.com alice\n')
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "@example.com"))
        self.assertFalse(self.allowed(policy, "alice", "bob@example.com"))

    def test_internationalDomains(self) -> None:
        """A domain in A-labels and in U-labels is the same domain."""
        self.write("info@xn--bcher-kva.example alice\n@bücher.example bob\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "info@Bücher.example"))
        self.assertTrue(self.allowed(policy, "bob", "x@XN--bcher-kva.example"))

    def test_example(self) -> None:
        """The example in etc/ has no broken line."""
        policy = SenderOwner(map=EXAMPLE)
        self.assertEqual(policy.check(), [])
        self.assertTrue(self.allowed(policy, "listmaster", "x@lists.example.com"))
        self.assertTrue(self.allowed(policy, "support", "x@a.customers.example.com"))
        self.assertTrue(self.allowed(policy, "bob", "director@example.com"))

    def test_byteOrderMark(self) -> None:
        """A mark that some editors write belongs to no address."""
        self.write(b"\xef\xbb\xbfinfo@example.com alice\n")
        self.assertTrue(self.allowed(SenderOwner(map=self.path), "alice", "info@example.com"))

    def test_brokenLines(self) -> None:
        """Broken lines are named with file and number, in the log and at a check; others work."""
        self.write(
            b"nonsense alice\ninfo@example.com\n@ bob\na@b.example \xff\nok@example.com alice\n"
        )
        policy = SenderOwner(map=self.path)
        self.assertEqual(policy.check(), [])
        self.assertEqual(
            [warning.split(": ")[0] for warning in policy.warnings()],
            [f"{self.path}:{line}" for line in (1, 2, 3, 4)],
        )
        self.assertTrue(self.allowed(policy, "alice", "ok@example.com"))
        named = [each["line"] for each in self.logged if each["event"] == "file-problem"]
        self.assertEqual(named, [1, 2, 3, 4])

    def test_commas(self) -> None:
        """A line of Postfix's with commas would name logins that nobody has: it is told."""
        self.write(
            "a@example.com alice,bob\nb@example.com alice, bob\n"
            "c@example.com alice on-behalf: bob,\nd@example.com alice bob\n"
        )
        policy = SenderOwner(map=self.path)
        told = (
            "this line is left out: a comma in a login; what is listed stands apart by blanks"
            " alone, without commas"
        )
        self.assertEqual(policy.warnings(), [f"{self.path}:{line}: {told}" for line in (1, 2, 3)])
        self.assertTrue(self.allowed(policy, "bob", "d@example.com"))

    def test_changed(self) -> None:
        """A change counts from the next message on, and an unchanged file is not read again."""
        self.write("info@example.com alice\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "info@example.com"))
        self.assertTrue(self.allowed(policy, "alice", "info@example.com"))
        self.assertEqual(len(self.logged), 1)
        self.write("info@example.com bobby\n")
        self.assertFalse(self.allowed(policy, "alice", "info@example.com"))
        self.assertTrue(self.allowed(policy, "bobby", "info@example.com"))

    def test_unreadable(self) -> None:
        """When the file goes, what it said stays, and one line says so until it is back."""
        self.write("info@example.com alice\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "info@example.com"))
        self.path.unlink()
        for _ in range(3):
            self.assertTrue(self.allowed(policy, "alice", "info@example.com"))
        self.assertEqual([each["event"] for each in self.logged], ["file-read", "file-problem"])
        self.assertIn("No such file", self.logged[1]["problem"])
        self.write("info@example.com bob\n")
        self.assertFalse(self.allowed(policy, "alice", "info@example.com"))
        self.assertEqual(len(self.logged), 3)

    def test_neverRead(self) -> None:
        """A file that was never there gives nothing to anybody, and a check says so."""
        policy = SenderOwner(map=self.path)
        self.assertFalse(self.allowed(policy, "alice", "info@example.com"))
        self.assertTrue(self.allowed(policy, "a@example.com", "a@example.com"))
        [finding] = policy.check()
        self.assertIn(f"{self.path}: cannot be read", finding)

    def test_below(self) -> None:
        """@*.domain stands for all domains below it, and not for itself or a look-alike."""
        self.write("@*.example.com alice\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "x@a.example.com"))
        self.assertTrue(self.allowed(policy, "alice", "x@b.a.EXAMPLE.com"))
        self.assertFalse(self.allowed(policy, "alice", "x@example.com"))
        self.assertFalse(self.allowed(policy, "alice", "x@notexample.com"))
        self.assertFalse(self.allowed(policy, "bob", "x@a.example.com"))

    def test_kinds(self) -> None:
        """Words that end with a colon say how those behind them may send; no other may."""
        self.write(
            "a@b.example on-behalf: alice as: bob\na@b.example as: x:y: carol\na@b.example as:\n"
        )
        policy = SenderOwner(map=self.path)
        self.assertEqual(len(policy.warnings()), 2)
        self.assertTrue(self.allowed(policy, "alice", "a@b.example"))
        self.assertTrue(self.allowed(policy, "bob", "a@b.example"))
        self.assertFalse(self.allowed(policy, "carol", "a@b.example"))

    def test_manyBrokenLines(self) -> None:
        """A file of nonsense does not fill the log."""
        self.write("nonsense\n" * (MAX_NAMED_LINES + 5))
        self.assertFalse(self.allowed(SenderOwner(map=self.path), "alice", "info@example.com"))
        self.assertEqual(len(self.logged), MAX_NAMED_LINES + 2)
        self.assertEqual(self.logged[-1]["problem"], "5 more lines are broken")

    def test_sameTick(self) -> None:
        """Two writes within one tick of the clock are two changes; old files stay as read."""
        self.write("a@b.example alice\n")
        times = os.stat(self.path).st_mtime_ns, os.stat(self.path).st_mtime_ns
        now = times[0] / 1e9
        file = WatchedFile(self.path, readLine, lambda: now)
        for login in ("bobby", "carol"):
            self.path.write_text(f"a@b.example {login}\n")
            os.utime(self.path, ns=times)
            content = file.content()
            assert content is not None
            self.assertEqual(
                [list(owned) for owned in content.find(mailbox("a@b.example"))], [[login]]
            )
        now += 10
        file.content()
        self.patch(Path, "read_bytes", lambda path: self.fail("read again"))
        self.assertIsNotNone(file.content())


class SubaddressTests(SenderOwnerTestCase):
    """user+detail."""

    def test_subaddress(self) -> None:
        """With the key the owner of user owns user+detail, in logins and in files."""
        self.write("info@example.com alice\n")
        policy = SenderOwner(map=self.path, subaddress="+")
        for login, sender, allowed in (
            ("alice@example.com", "ALICE+x+y@example.com", True),
            ("alice", "info+tag@example.com", True),
            ("alice+x@example.com", "alice@example.com", False),
            ("alice+x@example.com", "alice+x@example.com", True),
            ("bob@example.com", "alice+x@example.com", False),
            ("alice@example.com", "+x@example.com", False),
        ):
            self.assertEqual(self.allowed(policy, login, sender), allowed, (login, sender))
        self.assertFalse(self.allowed(SenderOwner(), "a@example.com", "a+x@example.com"))


class AttributeTests(SenderOwnerTestCase):
    """What the back end knows."""

    def test_attributes(self) -> None:
        """The back end may give addresses; what is none gives nothing."""
        known = {
            "addresses": ["info@example.com", "@x.example", "no address", "\ud800@y"],
            "on_behalf_of": ("boss@example.com",),
        }
        session = Session(user=Submitter("alice", known))
        policy = SenderOwner()
        for sender in ("info@example.com", "any@x.example", "boss@example.com"):
            self.assertIsNone(policy.validateFrom(session, envelope(sender)))
        self.assertRaises(Refused, policy.validateFrom, session, envelope("x@y.example"))


class HeaderTests(SenderOwnerTestCase):
    """From and Sender."""

    def setUp(self) -> None:
        super().setUp()
        self.write(
            "info@example.com alice@example.com\nboss@example.com on-behalf: alice@example.com\n"
        )
        self.policy = SenderOwner(map=self.path)

    def passed(
        self,
        octets: str,
        sender: str = "alice@example.com",
        login: str = "alice@example.com",
        **changes: Any,
    ) -> str:
        """What becomes of a header, or the reply."""
        header = Header(octets.encode("utf-8", "surrogateescape"))
        session = Session(user=Submitter(login))
        try:
            verdict = self.policy.headerReceived(session, envelope(sender, **changes), header)
        except Refused as refused:
            return str(refused.reply.wire, "ascii").strip()
        self.assertIsNone(verdict)
        return header.octets.decode("utf-8")

    def test_own(self) -> None:
        """Own addresses pass, and not a byte is changed."""
        for octets in (
            "From: Alice <ALICE@example.com>\r\n",
            "From: alice@example.com,\r\n info@example.com\r\nSender: info@EXAMPLE.com\r\n",
            "from:alice@example.com",
            "Subject: no author\r\n",
            "",
        ):
            self.assertEqual(self.passed(octets), octets)

    def test_others(self) -> None:
        """One mailbox that is not the login's is enough, wherever it hides."""
        said = "550 5.7.1 Address in From rejected: not owned by user"
        for octets in (
            "From: eve@example.com\r\n",
            "From: alice@example.com, eve@example.com\r\n",
            "From: g: alice@example.com, eve@example.com;\r\n",
            "From: alice@example.com\r\nFROM: eve@example.com\r\n",
            'From: "alice@example.com" <eve@example.com>\r\n',
            "From: (alice@example.com) eve@example.com\r\n",
            "From: =?utf-8?q?alice=40example.com?= <eve@example.com>\r\n",
        ):
            self.assertEqual(self.passed(octets), said, octets)
        self.assertEqual(
            self.passed("From: alice@example.com\r\nSender: eve@example.com\r\n"),
            "550 5.7.1 Address in Sender rejected: not owned by user",
        )

    def test_malformed(self) -> None:
        """Where the author cannot be told for certain, the message is refused."""
        for octets in (
            "From: \r\n",
            "From: g:;\r\n",
            "From: alice@example.com, <\r\n",
            "From: alice@example.com\udcff\r\n",
            "From: =?utf-8?q?broken alice@example.com\r\n",
            "From : alice@example.com\r\n",
            "X: 1\r\n \r\nFrom: eve@example.com\r\n",
            "From: " + ", ".join(["alice@example.com"] * 10_000) + "\r\n",
            "From: alice@example.com\r\n" * (MAX_MAILBOXES + 1),
        ):
            self.assertRegex(self.passed(octets), "^550 5.6.0 .* is malformed", octets[:60])

    def test_onBehalf(self) -> None:
        """Who sends on behalf is named, by the reverse-path where it is his own or by his login."""
        boss = "From: boss@example.com\r\n"
        for sender, own in (
            ("alice@example.com", "alice"),
            ("info@example.com", "info"),
            ("boss@example.com", "alice"),
            ("", "alice"),
        ):
            self.assertEqual(self.passed(boss, sender), f"{boss}Sender: <{own}@example.com>\r\n")

    def test_onBehalfWithSender(self) -> None:
        """One's own Sender stays; that of somebody one stands for is replaced in its place."""
        boss = "From: boss@example.com\r\n"
        own = f"Sender:  alice@example.com\r\n{boss}"
        self.assertEqual(self.passed(own), own)
        replaced = f"Sender: <alice@example.com>\r\n{boss}"
        self.assertEqual(self.passed(f"Sender: boss@example.com\r\n{boss}"), replaced)
        twice = f"{boss}Sender: boss@example.com\r\nSender: alice@example.com\r\n"
        self.assertEqual(self.passed(twice), f"{boss}Sender: <alice@example.com>\r\n")
        self.assertEqual(
            self.passed("From: alice@example.com\r\nSender: boss@example.com\r\n"),
            "From: alice@example.com\r\nSender: <alice@example.com>\r\n",
        )

    def test_noOwnAddress(self) -> None:
        """A login that is no address cannot be named, and so cannot send on behalf of anybody."""
        self.write("boss@example.com on-behalf: alice postmaster\n")
        for login in ("alice", "postmaster"):
            self.assertEqual(
                self.passed("From: boss@example.com\r\n", "boss@example.com", login),
                "550 5.7.1 Sending on behalf of others needs a sender of your own",
            )

    def test_utf8Sender(self) -> None:
        """An address that is not ASCII is put into Sender only where SMTPUTF8 was asked for."""
        self.write("boss@example.com on-behalf: jürgen@example.com\n")
        boss = "From: boss@example.com\r\n"
        said = self.passed(boss, "", "jürgen@example.com")
        self.assertTrue(said.startswith("553 5.6.7"), said)
        said = self.passed(boss, "", "jürgen@example.com", smtpUtf8=True)
        self.assertEqual(said, f"{boss}Sender: <jürgen@example.com>\r\n")

    def test_key(self) -> None:
        """Without the key the header is not looked at; without a login nothing passes."""
        header = Header(b"From: eve@example.com\r\n")
        policy = SenderOwner(header=False)
        self.assertIsNone(policy.headerReceived(Session(), envelope(), header))
        self.assertRaises(Refused, self.policy.headerReceived, Session(), envelope(), header)


class QueryTests(SenderOwnerTestCase):
    """A data base, SQLite here."""

    rows = (
        ("alice", "info@example.com", None),
        ("alice", "@lists.example.com", "as"),
        ("alice", "boss@example.com", "on-behalf"),
        ("alice", "nonsense", "as"),
        ("alice", "x@example.com", "sometimes"),
        ("alice", None, "as"),
        ("alice", "ALL+x@example.com", "as"),
    )

    def setUp(self) -> None:
        super().setUp()
        self.url = f"sqlite:///{self.path}"
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE owners (login, address, kind)"))
            connection.execute(
                sa.text("INSERT INTO owners VALUES (:login, :address, :kind)"),
                [dict(zip(("login", "address", "kind"), row, strict=True)) for row in self.rows],
            )
        engine.dispose()
        self.now = 0.0
        self.asked = 0

    def policy(self, where: str = "login = :login", **keys: Any) -> SenderOwner:
        query = f"SELECT address, kind FROM owners WHERE {where}"
        policy = SenderOwner(url=self.url, query=query, **keys)

        def run(call: Any, *arguments: Any) -> Deferred[Any]:
            self.asked += 1
            try:
                return succeed(call(*arguments))
            except Exception as error:
                return fail(error)

        policy._database = OwnersQuery(self.url, query, policy.cache, run, lambda: self.now)
        return policy

    def outcome(self, policy: SenderOwner, sender: str, login: str = "alice") -> str:
        """Empty, or the reply with its cause."""
        waiting = policy.validateFrom(Session(user=Submitter(login)), envelope(sender))
        if waiting is None:
            return ""
        told: list[Any] = []
        Deferred.fromCoroutine(waiting).addBoth(told.append)
        return "" if told[0] is None else str(told[0].value)

    def test_rows(self) -> None:
        """Each row that makes sense gives a right to that login; the log counts the others."""
        policy = self.policy()
        for sender in ("info@example.com", "any@lists.example.com", "boss@example.com"):
            self.assertEqual(self.outcome(policy, sender), "")
        self.assertIn("553 5.7.1", self.outcome(policy, "x@example.com"))
        self.assertIn("553 5.7.1", self.outcome(policy, "info@example.com", "bob"))
        [problem] = [each["problem"] for each in self.logged]
        self.assertEqual(problem, "3 rows of the query make no sense")

    def test_bound(self) -> None:
        """What a client says is a value and never a part of the statement."""
        policy = self.policy()
        self.assertIn("553", self.outcome(policy, "info@example.com", "x' OR '1'='1"))

    def test_parameters(self) -> None:
        """The query may name the address and its domain, as equal addresses are written."""
        policy = self.policy("login = :login AND lower(address) IN (:address, '@' || :domain)")
        self.assertEqual(self.outcome(policy, "INFO@Example.com"), "")
        self.assertEqual(self.outcome(policy, "x@LISTS.example.com"), "")
        self.assertIn("553", self.outcome(policy, "boss2@example.com"))

    def test_remembered(self) -> None:
        """The answer counts for its time, no longer, and nobody is asked for one's own address."""
        policy = self.policy(cache=60.0)
        self.outcome(policy, "info@example.com")
        self.outcome(policy, "x@example.com")
        self.assertEqual(self.asked, 1)
        self.now = 61.0
        self.outcome(policy, "info@example.com")
        self.assertEqual(self.asked, 2)
        self.assertEqual(self.outcome(policy, "a@example.com", "a@example.com"), "")
        self.assertEqual(self.asked, 2)

    def test_bounded(self) -> None:
        """No more answers are remembered than the bound says, the oldest go."""
        self.patch(ownersquery, "MAX_REMEMBERED", 2)
        policy = self.policy()
        for login in ("a", "b", "c", "c", "a"):
            self.outcome(policy, "x@example.com", login)
        self.assertEqual(self.asked, 4)

    def test_subaddress(self) -> None:
        """Both forms of a subaddress are asked for, and the greater right counts."""
        policy = self.policy("login = :login AND lower(address) = :address", subaddress="+")
        self.assertEqual(self.outcome(policy, "info+tag@example.com"), "")
        self.assertEqual(self.outcome(policy, "all+x@example.com"), "")
        self.assertIn("553", self.outcome(policy, "all+y@example.com"))

    def test_away(self) -> None:
        """A data base that does not answer is 451, its cause in the log alone; then it is back."""
        policy = self.policy()
        content = self.path.read_bytes()
        self.path.write_bytes(b"this is no data base, and not at all SQLite's kind of one" * 9)
        said = self.outcome(policy, "info@example.com")
        self.assertTrue(said.startswith("451 4.3.0"), said)
        self.assertIn("not a database", said)
        self.assertNotIn("SELECT", said)
        [finding] = policy.check()
        self.assertIn("not a database", finding)
        self.path.write_bytes(content)
        self.assertEqual(self.outcome(policy, "info@example.com"), "")
        self.assertEqual(policy.check(), [])

    def test_header(self) -> None:
        """From is looked up too, and Sender is added when the answer has come."""
        header = Header(b"From: boss@example.com\r\n")
        session = Session(user=Submitter("alice"))
        waiting = self.policy().headerReceived(session, envelope("info@example.com"), header)
        assert waiting is not None
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(waiting)))
        self.assertEqual(header.octets, b"From: boss@example.com\r\nSender: <info@example.com>\r\n")

    def test_wrong(self) -> None:
        """What cannot work is said when it is made, without the URL, which may have a password."""
        for url, query, reason in (
            (self.url, "", "belong together"),
            ("", "SELECT :login", "belong together"),
            ("no url pa55word", "SELECT :login", "url must be such as"),
            ("nonsense://x:pa55word@y/z", "SELECT :login", "url must be such as"),
            (self.url, "SELECT :login, :password", "has the parameter :password"),
            (self.url, "SELECT 1", "must have the parameter :login"),
        ):
            error = self.assertRaises(ValueError, SenderOwner, url=url, query=query)
            self.assertIn(reason, str(error))
            self.assertNotIn("pa55word", str(error))

    def test_postgresql(self) -> None:
        """PostgreSQL is asked by psycopg, and its password is not shown."""
        query = OwnersQuery("postgresql://u:pa55word@localhost:1/mail", "SELECT :login", 0)
        self.assertEqual(query.name, "postgresql+psycopg://u:***@localhost:1/mail")
        [finding] = query.check()
        self.assertNotIn("pa55word", finding)
