"""Policy archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd import deliveries, events, policies, service
from submitd.config import load
from submitd.deliveries.maildir import Maildir
from submitd.envelope import Envelope
from submitd.interfaces import (
    IBringsDelivery,
    IChecked,
    IDataPolicy,
    IDelivery,
    IMayBlindCopy,
    IMessagePolicy,
    IRunning,
)
from submitd.message.copied import Copy, begin
from submitd.policies.archive import Archive
from submitd.relay.reports import Action, isWanted
from submitd.settings import Component
from submitd.typed import Table
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply
from tests.fixtures import Conversation, MemoryDelivery, MemoryMessage, makeSubmission
from tests.spool.support import SpoolCase, makeEnvelope, makeSession

STATUS = {452: "4.3.1", 550: "5.0.0"}


def copied(policy: Archive, login: str = "alice", envelope: Envelope | None = None) -> list[str]:
    """Whom a message is copied to."""
    envelope = envelope or makeEnvelope("A-1")
    policy.dataRequested(makeSession(login), envelope)
    return [str(each.mailbox) for each in envelope.blind] + ["sink" for _ in envelope.copies]


@implementer(IDelivery, IRunning, IChecked)
class RunningDelivery(MemoryDelivery):
    """A delivery that has something running, and something wrong."""

    reactor: Any = None

    def start(self, reactor: Any) -> Deferred[None]:
        self.reactor = reactor
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self.reactor = None
        return succeed(None)

    def check(self) -> list[str]:
        return ["is full"]


class WhoseTests(SynchronousTestCase):
    """Whose messages are copied."""

    def test_interfaces(self) -> None:
        """It takes part at DATA; only with an address it needs a delivery that knows of these."""
        for policy in (Archive(address="a@example.com"), Archive()):
            for interface in (IDataPolicy, IBringsDelivery, IRunning, IChecked):
                self.assertTrue(verifyObject(interface, policy))
        self.assertTrue(IMayBlindCopy.providedBy(Archive(address="a@example.com")))
        self.assertFalse(IMayBlindCopy.providedBy(Archive()))

    def test_everybody(self) -> None:
        """Without logins it is everybody, also who has none."""
        policy = Archive(address="archive@example.com")
        for login in ("alice", "bob@example.net", ""):
            self.assertEqual(copied(policy, login), ["archive@example.com"])

    def test_logins(self) -> None:
        """Logins, domains of logins, and the domains below one."""
        policy = Archive(
            address="a@example.com",
            logins=["alice", "bob@example.net", "@b.example", "@*.c.example"],
        )
        for login, expected in (
            ("alice", True),
            ("Alice", False),
            ("BOB@example.net", True),
            ("eve@example.net", False),
            ("eve@B.example", True),
            ("eve@x.c.example", True),
            ("eve@c.example", False),
            ("no address@", False),
            ("", False),
        ):
            self.assertEqual(bool(copied(policy, login)), expected, login)

    def test_file(self) -> None:
        """A file adds to them."""
        file = Path(self.mktemp())
        file.write_text("# the law\nbob\n@example.net\n")
        policy = Archive(address="a@example.com", logins=["alice"], login_file=file)
        for login, expected in (("alice", True), ("bob", True), ("x@example.net", True)):
            self.assertEqual(bool(copied(policy, login)), expected, login)
        self.assertEqual(copied(policy, "eve"), [])
        self.assertEqual(policy.check(), [])

    def test_fileMissing(self) -> None:
        """Not knowing whose is no reason to let all go without a copy, unless it is said to be."""
        file = Path(self.mktemp())
        policy = Archive(address="a@example.com", login_file=file)
        refused = self.assertRaises(Refused, copied, policy)
        self.assertEqual(refused.reply.code, 451)
        policy = Archive(address="a@example.com", login_file=file, on_failure="accept")
        self.assertEqual(copied(policy), [])
        self.assertEqual(policy.check(), [f"{file}: cannot be read: No such file or directory"])

    def test_brokenLine(self) -> None:
        """A line with two words is named."""
        file = Path(self.mktemp())
        file.write_text("alice bob\n")
        policy = Archive(address="a@example.com", login_file=file)
        self.assertEqual(policy.check(), [])
        self.assertEqual(
            policy.warnings(), [f"{file}:1: this line is left out: more than one login"]
        )

    def test_twice(self) -> None:
        """DATA again in one transaction, or a client that writes to the archive: one copy."""
        policy = Archive(address="Archive@example.com")
        policy.sink = MemoryDelivery()
        envelope = makeEnvelope("A-1")
        for _ in range(2):
            self.assertEqual(copied(policy, envelope=envelope), ["Archive@example.com", "sink"])
        envelope = makeEnvelope("A-2", "archive@Example.com")
        self.assertEqual(copied(policy, envelope=envelope), ["sink"])

    def test_wrong(self) -> None:
        """What is no address, or not one for every message, is a mistake."""
        for keys in ({"address": "nobody"}, {"address": "ä@example.com"}):
            self.assertRaises(ValueError, Archive, **keys)

    def test_wrongLogins(self) -> None:
        """A login that nobody can have would be archived never; it is named."""
        for login, why in (
            ("@", "not an address"),
            ("", "nobody has such a login"),
            ("alice ", "nobody has such a login"),
        ):
            error = self.assertRaises(ValueError, Archive, logins=["bob", login])
            self.assertEqual(str(error), f'logins: "{login}": {why}')

    def test_nobody(self) -> None:
        """A copy to nobody is a mistake."""
        self.assertEqual(
            Archive().check(), ["copies to nobody: there is neither address nor delivery"]
        )

    def test_running(self) -> None:
        """What its delivery has running is started, stopped and checked with it."""
        policy = Archive()
        self.successResultOf(policy.start(1))
        policy.sink = sink = RunningDelivery()
        self.successResultOf(policy.start(1))
        self.assertEqual(sink.reactor, 1)
        self.successResultOf(policy.stop())
        self.assertIsNone(sink.reactor)
        self.assertEqual(policy.check(), ["delivery: is full"])
        policy.sink = None
        self.successResultOf(policy.stop())

    def test_configuration(self) -> None:
        """The second delivery is a table of the policy's section, its paths where the file is."""
        table = {"use": "archive", "delivery": {"use": "maildir", "path": "archive"}}
        made, findings = Component.fromTable(table, Path("/etc/submitd")).make(
            policies.REGISTRY, "policy[0]"
        )
        self.assertEqual(findings, [])
        inner = {"use": "maildir", "path": "archive"}
        self.assertEqual(made.delivery, Table(inner, Path("/etc/submitd")))
        sink, findings = Component.fromTable(made.delivery.values, made.delivery.directory).make(
            deliveries.REGISTRY, "policy[0].delivery"
        )
        self.assertEqual((sink.path, findings), (Path("/etc/submitd/archive"), []))


class SpoolTests(SpoolCase):
    """An address, and the durable queue."""

    def test_rows(self) -> None:
        """The copy is one more recipient of the queue, about whom no report is made."""
        envelope = makeEnvelope("A-1", "bob@example.net")
        copied(Archive(address="archive@example.com"), envelope=envelope)
        message = self.spool.begin(makeSession(), envelope)
        message.dataReceived(b"Subject: x\r\n\r\nx\r\n")
        self.assertEqual(self.successResultOf(message.eomReceived()), "A-1")
        [one, two] = self.successResultOf(self.queue.lease(10, 60.0))
        found = {str(each.recipients[0].recipient.mailbox): each for each in (one, two)}
        archived = found["archive@example.com"].recipients[0].recipient
        self.assertEqual(archived.notify, ("NEVER",))
        self.assertEqual(found["bob@example.net"].recipients[0].recipient.notify, ())
        self.assertEqual(one.message.envelope.blind, ())


class DialogueTests(SynchronousTestCase):
    """What the client sees of a copy: nothing, or 451."""

    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.own = MemoryDelivery()
        self.archive = MemoryDelivery()

    def say(self, policy: Archive, lmtp: bool = False) -> str:
        """Send a message; the last reply."""
        submission = makeSubmission(
            delivery=self.own, policies=[policy], loginRequired=False, requireTLS=False, lmtp=lmtp
        )
        talk = Conversation(submission)
        hello = b"LHLO" if lmtp else b"EHLO"
        talk.protocol.dataReceived(
            hello + b" client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
            b"RCPT TO:<c@example.com>\r\nDATA\r\n"
        )
        answer: bytes = talk.transport.taken().splitlines(keepends=True)[-1]
        if not answer.startswith(b"354"):
            return answer.decode("ascii")
        talk.protocol.dataReceived(b"Subject: x\r\n\r\n" + b"line\r\n" * 1000 + b".\r\n")
        heard: bytes = talk.transport.taken()
        return heard.decode("ascii")

    def policy(self, **keys: Any) -> Archive:
        """A policy with a second delivery."""
        policy = Archive(**keys)
        policy.sink = self.archive
        return policy

    def test_both(self) -> None:
        """Both deliveries have the same octets, and the client one 250."""
        self.assertRegex(self.say(self.policy()), r"^250 2\.0\.0 Ok: queued as \S+\r\n$")
        [own], [copy] = self.own.messages, self.archive.messages
        self.assertEqual(own.octets, copy.octets)
        self.assertEqual(len(own.text), len(b"Subject: x\r\n\r\n") + 6000)

    def test_order(self) -> None:
        """The copy is safe before the message itself is committed; and each is waited for."""
        safe: Deferred[None] = Deferred()
        self.archive = MemoryDelivery(onEnd=lambda message: safe)
        self.assertEqual(self.say(self.policy()), "")
        self.assertEqual([each.state for each in self.own.begun], ["open"])
        safe.callback(None)
        self.assertEqual([each.state for each in self.own.begun], ["committed"])

    def test_copyFails(self) -> None:
        """A copy that fails at any moment is 451, and the message itself is dropped."""
        for where in ("onBegin", "onChunk", "onEnd"):
            self.own, self.archive = MemoryDelivery(), MemoryDelivery(**{where: _broken})
            self.assertStartsWith(self.say(self.policy()), "451 4.3.0", where)
            self.assertEqual([each for each in self.own.begun if each.state != "aborted"], [])

    def test_copyFailsLater(self) -> None:
        """The same when it fails behind a Deferred, or by an outcome."""
        for where in ("onBegin", "onChunk", "onEnd"):
            self.own, self.archive = MemoryDelivery(), MemoryDelivery(**{where: _brokenLater})
            self.assertStartsWith(self.say(self.policy()), "451 4.3.0", where)
            self.assertEqual([each for each in self.own.begun if each.state != "aborted"], [])

    def test_copyRefuses(self) -> None:
        """452 of a full archive is what the client is told; 550 of it is 451."""
        for code, said in ((452, "452 4.3.1"), (550, "451 4.3.0")):
            no = Reply(code, STATUS[code], "no")
            for outcome in (no, [no]):
                self.archive = MemoryDelivery(onEnd=lambda message, outcome=outcome: outcome)
                self.assertStartsWith(self.say(self.policy()), said)

    def test_accepted(self) -> None:
        """Where a copy is not required an event says that there is none, and the mail goes on."""
        for broken in (_broken, _brokenLater):
            for where in ("onBegin", "onChunk", "onEnd"):
                self.own, self.archive = MemoryDelivery(), MemoryDelivery(**{where: broken})
                self.logged.clear()
                self.assertStartsWith(self.say(self.policy(on_failure="accept")), "250 ", where)
                self.assertEqual(len(self.own.messages), 1)
                failed = [each for each in self.logged if each["event"] == "copy-failed"]
                self.assertEqual([each["copy"] for each in failed], ["archive"])
                self.assertIn("broken", failed[0]["cause"])

    def test_ownFails(self) -> None:
        """When the message itself cannot be kept, the client is told; the copy stays."""
        self.own = MemoryDelivery(onEnd=_broken)
        self.assertStartsWith(self.say(self.policy()), "451 4.3.0")
        self.assertEqual(len(self.archive.messages), 1)
        self.own, self.archive = MemoryDelivery(onBegin=_broken), MemoryDelivery()
        self.assertStartsWith(self.say(self.policy()), "451 4.3.0")
        self.assertEqual([each.state for each in self.archive.begun], ["aborted"])

    def test_lmtp(self) -> None:
        """LMTP has one reply for each of the client's recipients."""
        self.assertEqual(self.say(self.policy(), lmtp=True).count("250 2.0.0"), 2)

    def test_unableDelivery(self) -> None:
        """A delivery that would tell of the copy, or leave it out, does not get the message."""
        heard = self.say(Archive(address="archive@example.com"))
        self.assertStartsWith(heard, "451 4.3.0")
        self.assertNotIn("archive", heard)
        self.assertEqual(self.own.messages, [])

    def test_prepend(self) -> None:
        """What a policy puts in front stands in front of the copy, too."""

        @implementer(IMessagePolicy)
        class Prepending:
            def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
                message.prepend(b"X-Seen: yes\r\n")

        submission = makeSubmission(
            delivery=self.own,
            policies=[self.policy(), Prepending()],
            loginRequired=False,
            requireTLS=False,
        )
        talk = Conversation(submission)
        talk.protocol.dataReceived(
            b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
            b"DATA\r\n\r\nx\r\n.\r\n"
        )
        for delivery in (self.own, self.archive):
            self.assertTrue(delivery.messages[0].octets.startswith(b"X-Seen: yes\r\n"))

    def test_clientGone(self) -> None:
        """A client that goes leaves nothing behind in either delivery."""
        submission = makeSubmission(
            delivery=self.own, policies=[self.policy()], loginRequired=False, requireTLS=False
        )
        talk = Conversation(submission)
        talk.protocol.dataReceived(
            b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
            b"DATA\r\n\r\nx\r\n"
        )
        talk.protocol.connectionLost(Failure(ConnectionDone()))
        states = [each.state for each in (*self.own.begun, *self.archive.begun)]
        self.assertEqual(states, ["aborted", "aborted"])

    def assertStartsWith(self, text: str, start: str, message: str = "") -> None:
        """A reply begins so."""
        self.assertEqual(text[: len(start)], start, message)


class MaildirTests(SynchronousTestCase):
    """A Maildir as the archive."""

    def test_durable(self) -> None:
        """The file is in new/ when the client hears 250, with the envelope in front."""
        path = Path(self.mktemp())
        policy = Archive()
        policy.sink = maildir = Maildir(path)
        maildir.run = maybeDeferred
        submission = makeSubmission(
            delivery=MemoryDelivery(), policies=[policy], loginRequired=False, requireTLS=False
        )
        talk = Conversation(submission)
        talk.protocol.dataReceived(
            b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
            b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"
        )
        self.assertIn(b"\r\n250 2.0.0 Ok: queued as", talk.transport.taken())
        [file] = (path / "new").iterdir()
        text = file.read_bytes()
        self.assertTrue(text.startswith(b"Return-Path: <a@example.com>\r\nDelivered-To: b@"), text)


def _broken(*arguments: Any) -> Any:
    raise RuntimeError("broken")


def _brokenLater(*arguments: Any) -> Any:
    async def later() -> None:
        _broken()

    return Deferred.fromCoroutine(later())


class ConfigurationTests(SynchronousTestCase):
    """The archive of a configuration file."""

    def test_service(self) -> None:
        """Its delivery is made with the service, and started and stopped with it."""
        directory = Path(self.mktemp())
        directory.mkdir()
        file = directory / "submitd.toml"
        file.write_text(
            'hostname = "mail.example.com"\n'
            '[[listener]]\nendpoint = "tcp:0"\ntls = "off"\nrequire_tls = false\n'
            "[auth]\nrequired = false\n"
            '[[policy]]\nuse = "archive"\naddress = "journal@example.com"\n'
            'delivery = { use = "maildir", path = "archive" }\n'
            '[delivery]\nuse = "spool"\npath = "spool"\n'
        )
        loaded = load(file)
        common = service.submission(loaded.settings, Clock())
        [policy] = common.policies
        self.assertIsInstance(policy.sink, Maildir)
        self.assertEqual(policy.sink.path.name, "archive")
        self.assertFalse((directory / "archive").exists())


class WantedTests(SynchronousTestCase):
    """Reports."""

    def test_never(self) -> None:
        """Whatever becomes of a copy, no report tells of it."""
        envelope = makeEnvelope("A-1")
        copied(Archive(address="archive@example.com"), envelope=envelope)
        for action in Action:
            self.assertFalse(isWanted(action, envelope.blind[0], envelope))


class BrokenCopyTests(SynchronousTestCase):
    """A copy that fails where nothing is waited for."""

    def test_prepend(self) -> None:
        """Header fields that cannot be put in front are a failure of the copy like any other."""

        class Unprepending(MemoryMessage):
            def prepend(self, fields: bytes) -> None:
                raise RuntimeError("broken")

        class Delivery(MemoryDelivery):
            def begin(self, session: Any, envelope: Any) -> Any:
                message = Unprepending(self, session, envelope)
                self.begun.append(message)
                return message

        logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=logged.append))
        for required in (False, True):
            archive, own, envelope = Delivery(), MemoryDelivery(), makeEnvelope("A-1")
            envelope.copies = (Copy(archive, required, "archive"),)
            beginning = Deferred.fromCoroutine(begin(makeSession(), envelope, own))
            message = self.successResultOf(beginning)
            if required:
                self.assertRaises(Refused, message.prepend, b"X: y\r\n")
                message.connectionLost()
                self.assertEqual(own.begun[0].state, "aborted")
                continue
            message.prepend(b"X: y\r\n")
            message.prepend(b"X: y\r\n")
            self.assertIsNone(self.successResultOf(message.eomReceived()))
            self.assertEqual((own.begun[0].state, archive.begun[0].state), ("committed", "aborted"))
        self.assertEqual([each["event"] for each in logged], ["copy-failed"])

    def test_coroutines(self) -> None:
        """A copy and the message itself may be committed by coroutines; both are waited for."""
        waits: list[Deferred[None]] = []

        async def end(message: Any) -> str:
            waits.append(Deferred())
            await waits[-1]
            return message.envelope.id

        archive, own = MemoryDelivery(onEnd=end), MemoryDelivery(onEnd=end)
        envelope = makeEnvelope("A-1")
        envelope.copies = (Copy(archive, True, "archive"),)
        beginning = Deferred.fromCoroutine(begin(makeSession(), envelope, own))
        ending = self.successResultOf(beginning).eomReceived()
        self.assertEqual(own.begun[0].state, "open")
        waits.pop().callback(None)
        self.assertEqual(own.begun[0].state, "committed")
        self.assertNoResult(ending)
        waits.pop().callback(None)
        self.assertEqual(self.successResultOf(ending), envelope.id)
