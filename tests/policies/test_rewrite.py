"""Policy rewrite."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd import events
from submitd.deliveries.spool import SpooledMessage
from submitd.envelope import Envelope, Recipient
from submitd.interfaces import (
    IChecked,
    IDataPolicy,
    IHeaderPolicy,
    IRecipientPolicy,
    ISenderPolicy,
    IWarns,
)
from submitd.message.header import Header
from submitd.policies.fixups import MessageFixups
from submitd.policies.recipients import Recipients
from submitd.policies.rewrite import Rewrite
from submitd.policies.senderowner import SenderOwner
from submitd.realm import Submitter
from submitd.session import Session
from submitd.spool.rows import messageRow, recipientRows
from submitd.submission import Limits
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply
from tests.fixtures import Conversation, MemoryDelivery, MemoryMessage, makeSubmission, waitingFor

ETC = Path(__file__).parents[2] / "etc"

SENDERS = """\
# devices
root@printer.local    devices@example.com
@scanner.local        scans@example.com
@*.corp.local         @example.com
@old.example          @example.com
root                  cron@example.com
"""
ALIASES = """\
root@printer.local    admin@example.com
staff@example.com     alice@example.com bob@example.com
admin@example.com     alice@example.com
keep@example.com      keep@example.com copy@example.net
@old.example          @example.com
@*.corp.local         @example.com
root                  admin@example.com
"""


def mailbox(address: str) -> Mailbox:
    local, at, domain = address.rpartition("@")
    return Mailbox(local, domain) if at else Mailbox(address, "")


class RewriteTestCase(SynchronousTestCase):
    """Has both files, and the events that were emitted."""

    def setUp(self) -> None:
        self.senders, self.aliases = Path(self.mktemp()), Path(self.mktemp())
        self.senders.write_text(SENDERS, encoding="utf-8")
        self.aliases.write_text(ALIASES, encoding="utf-8")
        self.policy = Rewrite(senders=self.senders, aliases=self.aliases)
        self.session = Session(user=Submitter("alice@example.com"))
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))

    def write(self, path: Path, text: str) -> None:
        """Put another file in the place of one."""
        new = path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)

    def rewritten(self) -> list[tuple[str, str, str]]:
        """What the log says."""
        return [
            (each["where"], each["before"], each["after"])
            for each in self.logged
            if each["event"] == "address-rewritten"
        ]

    def problems(self) -> list[str]:
        """The broken lines."""
        return [
            sentence.removeprefix(f"{path}:").replace("this line is left out: ", "")
            for sentence in self.policy.warnings()
            for path in (self.senders, self.aliases)
            if sentence.startswith(f"{path}:")
        ]

    def refusal(self, call: Any, *arguments: Any) -> str:
        """What a refusal says."""
        refused = self.assertRaises(Refused, call, *arguments)
        return refused.reply.wire.decode().removesuffix("\r\n")  # type: ignore[no-any-return]


class SenderTests(RewriteTestCase):
    """MAIL."""

    def sender(self, address: str, **changes: Any) -> str:
        """What becomes of a sender."""
        envelope = Envelope("ID", ReversePath(mailbox(address)), **changes)
        self.policy.validateFrom(self.session, envelope)
        return str(envelope.reversePath.mailbox)

    def test_interfaces(self) -> None:
        """It takes part in what it says."""
        for each in (
            *(ISenderPolicy, IRecipientPolicy, IDataPolicy, IHeaderPolicy),
            *(IChecked, IWarns),
        ):
            self.assertTrue(verifyObject(each, self.policy))
        self.assertEqual(self.policy.check() + self.policy.warnings(), [])

    def test_lines(self) -> None:
        """An address, a domain to an address, domains below one, a domain that keeps the user."""
        for before, after in (
            ("Root@Printer.LOCAL", "devices@example.com"),
            ("joe@printer.local", "joe@printer.local"),
            ("anything@scanner.local", "scans@example.com"),
            ("joe@a.b.corp.local", "joe@example.com"),
            ("joe@corp.local", "joe@corp.local"),
            ('a "b@old.example', '"a \\"b"@example.com'),
            ("bob@example.net", "bob@example.net"),
        ):
            self.assertEqual(self.sender(before), after)

    def test_log(self) -> None:
        """The log says what was rewritten, and nothing where nothing was."""
        self.sender("root@printer.local")
        self.sender("bob@example.net")
        self.assertEqual(self.rewritten(), [("MAIL", "root@printer.local", "devices@example.com")])
        self.assertEqual(
            self.logged[-1]["log_text"],
            f"address rewritten: session={self.session.id} id=ID where=MAIL "
            "before=root@printer.local after=devices@example.com",
        )

    def test_moreExact(self) -> None:
        """The more exact line wins, wherever it stands; what is new is not looked up again."""
        self.write(
            self.senders,
            "@*.example.com far@example.org\n@a.example.com @example.net\n"
            "x@a.example.com y@a.example.com\ny@a.example.com x@a.example.com\n",
        )
        self.assertEqual(self.sender("x@a.example.com"), "y@a.example.com")
        self.assertEqual(self.sender("y@a.example.com"), "x@a.example.com")
        self.assertEqual(self.sender("z@a.example.com"), "z@example.net")
        self.assertEqual(self.sender("z@b.example.com"), "far@example.org")

    def test_null(self) -> None:
        """The null sender stays."""
        envelope = Envelope("ID", NULL_PATH)
        self.policy.validateFrom(self.session, envelope)
        self.assertTrue(envelope.reversePath.isNull)

    def test_nothing(self) -> None:
        """Without a file of senders they stay."""
        self.policy = Rewrite(aliases=self.aliases)
        self.assertEqual(self.sender("root@printer.local"), "root@printer.local")

    def test_readAgain(self) -> None:
        """A changed file is read again."""
        self.sender("root@printer.local")
        self.write(self.senders, "root@printer.local other@example.com\n")
        self.assertEqual(self.sender("root@printer.local"), "other@example.com")

    def test_neverRead(self) -> None:
        """A file that has never been read is 451; one that is gone still holds."""
        self.sender("root@printer.local")
        self.senders.unlink()
        self.assertEqual(self.sender("root@printer.local"), "devices@example.com")
        self.policy = Rewrite(senders=self.senders)
        self.assertEqual(
            self.refusal(self.sender, "root@printer.local"),
            "451 4.3.0 Temporary local problem, try again later",
        )

    def test_international(self) -> None:
        """A-labels and U-labels are the same; UTF-8 goes out only where it was asked for."""
        self.write(
            self.senders,
            "jürgen@bücher.example j@example.com\n@a.example @bücher.example\n"
            "b@b.example ü@example.com\n",
        )
        self.assertEqual(self.sender("JüRGEN@XN--bcher-kva.example"), "j@example.com")
        self.assertEqual(self.sender("x@a.example", smtpUtf8=True), "x@bücher.example")
        self.assertEqual(self.sender("x@a.example"), "x@xn--bcher-kva.example")
        self.assertEqual(self.sender("b@b.example", smtpUtf8=True), "ü@example.com")
        self.assertEqual(
            self.refusal(self.sender, "b@b.example"),
            "553 5.6.7 Address is not ASCII and SMTPUTF8 was not asked for",
        )

    def test_tooLong(self) -> None:
        """What would be no address is refused."""
        self.write(self.senders, f"@a.example @{'x.' * 120}example\n")
        self.assertEqual(
            self.refusal(self.sender, "longer-than-fits@a.example"),
            "501 5.1.7 Bad sender address syntax: address too long",
        )


class RecipientTests(RewriteTestCase):
    """RCPT."""

    def recipient(self, address: str, **values: Any) -> Recipient:
        """What becomes of a recipient."""
        recipient = Recipient(mailbox(address), **values)
        envelope = Envelope("ID", NULL_PATH)
        self.policy.validateTo(self.session, envelope, recipient)
        return recipient

    def all(self, address: str) -> list[str]:
        """All addresses of it."""
        recipient = self.recipient(address)
        return [str(each.mailbox) for each in (recipient, *recipient.others)]

    def test_lines(self) -> None:
        """One becomes another one, or several, through aliases of aliases."""
        for before, after in (
            ("root@printer.local", ["alice@example.com"]),
            ("Staff@Example.COM", ["alice@example.com", "bob@example.com"]),
            ("keep@example.com", ["keep@example.com", "copy@example.net"]),
            ("staff@old.example", ["alice@example.com", "bob@example.com"]),
            ("eve@x.corp.local", ["eve@example.com"]),
            ("eve@example.net", ["eve@example.net"]),
        ):
            self.assertEqual(self.all(before), after)
        self.assertIn(
            ("RCPT", "Staff@Example.COM", "alice@example.com, bob@example.com"), self.rewritten()
        )

    def test_postmaster(self) -> None:
        """The one name that may stand alone (RFC 5321 4.5.1) can have a line."""
        self.assertEqual(self.all("Postmaster"), ["Postmaster"])
        self.write(self.aliases, "postmaster admin@example.com\n")
        self.assertEqual(self.all("Postmaster"), ["admin@example.com"])

    def test_originalRecipient(self) -> None:
        """ORCPT is kept; where there is none, it is what the client said (RFC 3461 5.2.1)."""
        recipient = self.recipient("Staff@example.com")
        for each in (recipient, *recipient.others):
            self.assertEqual(each.orcpt, ("rfc822", "Staff@example.com"))
        recipient = self.recipient("staff@example.com", orcpt=("rfc822", "first@example.org"))
        for each in (recipient, *recipient.others):
            self.assertEqual(each.orcpt, ("rfc822", "first@example.org"))
        self.assertIsNone(self.recipient("eve@example.net").orcpt)
        self.write(self.aliases, "ü@example.com u@example.com\n")
        self.assertEqual(self.recipient("ü@example.com").orcpt, ("utf-8", "ü@example.com"))

    def test_notify(self) -> None:
        """NOTIFY goes to all, and SUCCESS to the first alone (RFC 3461 5.2.7.3)."""
        for notify, others in (
            ((), ()),
            (("NEVER",), ("NEVER",)),
            (("FAILURE", "DELAY"), ("FAILURE", "DELAY")),
            (("SUCCESS", "FAILURE"), ("FAILURE",)),
            (("SUCCESS",), ("NEVER",)),
        ):
            given = {"NOTIFY": ",".join(notify)} if notify else {}
            recipient = self.recipient("staff@example.com", notify=notify, parameters=given)
            [other] = recipient.others
            self.assertEqual((recipient.notify, other.notify), (notify, others))
            self.assertEqual(other.parameters, {"NOTIFY": ",".join(others)} if others else {})
            self.assertEqual(recipient.parameters, given)

    def test_tooMany(self) -> None:
        """An alias that no message has room for is refused for good."""
        many = " ".join(f"a{number}@example.com" for number in range(10))
        self.write(self.aliases, f"all@example.com {many}\n")
        self.session.maxRecipients = 10
        self.assertEqual(len(self.all("all@example.com")), 10)
        self.session.maxRecipients = 9
        self.assertEqual(
            self.refusal(self.recipient, "all@example.com"),
            "550 5.5.3 Recipient stands for too many addresses",
        )

    def test_international(self) -> None:
        """UTF-8 goes out only where it was asked for."""
        self.write(self.aliases, "a@example.com ü@example.com\nb@example.com x@bücher.example\n")
        self.assertEqual(self.all("b@example.com"), ["x@xn--bcher-kva.example"])
        self.assertEqual(
            self.refusal(self.recipient, "a@example.com"),
            "553 5.6.7 Address is not ASCII and SMTPUTF8 was not asked for",
        )


class LineTests(RewriteTestCase):
    """Broken files."""

    def test_broken(self) -> None:
        """Each broken line is named, and the others count."""
        self.write(
            self.senders,
            "a@example.com\nb@example.com c@example.com d@example.com\n@ x@example.com\n"
            "c@example.com nobody\nd@example.com @*.example.com\nroot@a@b x@example.com\n"
            "good@example.com x@example.com\nGOOD@example.com y@example.com\n"
            "e@example.com postmaster\n",
        )
        self.write(self.aliases, "a@example.com\nb@example.com x@example.com, y@example.com\n")
        self.assertEqual(
            self.problems(),
            [
                "1: no new address behind it",
                "2: more than one new address",
                "3: not an address",
                "4: no domain",
                "5: not a domain",
                "6: not an address",
                "8: line 7 is for the same addresses",
                "9: a new address without a domain",
                "1: no new address behind it",
                "2: not a domain; what is listed stands apart by blanks alone, without commas",
            ],
        )

    def test_loops(self) -> None:
        """A line that closes a loop is broken, and found when the file is read."""
        for text, expected in (
            ("a@x.example b@x.example\nb@x.example a@x.example\n", ["2: by a@x.example it "]),
            ("@a.example @b.example\n@b.example @a.example\n", ["2: by @a.example it "]),
            ("@a.example x@b.example\n@b.example y@a.example\n", ["1: by x@b.example it "]),
            ("@*.a.example @b.example\n@b.example @x.a.example\n", ["1: by @b.example it "]),
            ("@a.example @b.example\nbob@b.example bob@a.example\n", ["1: by bob@b.example it "]),
            (
                "@y.example @x.example\n\u200d@x.example @y.example\n",
                [r"1: by \u200d@x.example it "],
            ),
            ("a@x.example a@x.example b@x.example\n", []),
            ("@a.example @a.example journal@b.example\n", []),
            ("@a.example @b.example\nbob@b.example carol@a.example\n", []),
        ):
            self.write(self.aliases, text)
            self.assertEqual(
                self.problems(), [f"{each}comes back to itself" for each in expected], text
            )

    def test_loopIsCut(self) -> None:
        """What is left of a loop works: nobody waits for ever, and nobody is lost."""
        self.write(
            self.aliases,
            "a@x.example b@x.example one@example.com\nb@x.example c@x.example\n"
            "c@x.example a@x.example\n",
        )
        recipient = Recipient(mailbox("a@x.example"))
        self.policy.validateTo(self.session, Envelope("ID", NULL_PATH), recipient)
        found = [str(each.mailbox) for each in (recipient, *recipient.others)]
        self.assertEqual(found, ["c@x.example", "one@example.com"])

    def test_longChain(self) -> None:
        """A chain of many aliases is read in one go, without recursion."""
        lines = [f"a{number}@x.example a{number + 1}@x.example\n" for number in range(5000)]
        self.write(self.aliases, "".join(lines))
        self.assertEqual(self.problems(), [])
        self.write(self.aliases, "".join([*lines, "a5000@x.example a0@x.example\n"]))
        self.assertEqual(self.problems(), ["5001: by a0@x.example it comes back to itself"])

    def test_nothing(self) -> None:
        """A section that would do nothing is a mistake, and so is half of one."""
        self.assertEqual(
            Rewrite().check(), ["rewrites nothing: there is neither senders nor aliases"]
        )
        error = self.assertRaises(ValueError, Rewrite, senders=self.senders, header_recipients=True)
        self.assertEqual(str(error), "header_recipients needs aliases")

    def test_examples(self) -> None:
        """The examples in etc/ have no broken line."""
        policy = Rewrite(senders=ETC / "senders.example", aliases=ETC / "aliases.example")
        self.assertEqual(policy.check() + policy.warnings(), [])
        envelope = Envelope("ID", ReversePath(mailbox("root@printer.local")))
        policy.validateFrom(self.session, envelope)
        self.assertEqual(str(envelope.reversePath), "<devices@example.com>")


class HeaderTests(RewriteTestCase):
    """The header section."""

    def section(self, text: str, **changes: Any) -> str:
        """What becomes of a header section."""
        header = Header(text.replace("\n", "\r\n").encode())
        self.policy.headerReceived(self.session, Envelope("ID", NULL_PATH, **changes), header)
        return header.octets.decode().replace("\r\n", "\n")

    def test_fields(self) -> None:
        """Senders are rewritten in the fields of senders, and nowhere else."""
        others = "To: root@printer.local\nX-From: root@printer.local\nSubject: root@printer.local\n"
        names = ("From", "SENDER", "Reply-To", "Resent-From", "Resent-Sender")
        for name in (*names, "Disposition-Notification-To"):
            self.assertEqual(
                self.section(f"{others}{name}: root@printer.local\n"),
                f"{others}{name}: devices@example.com\n",
            )

    def test_everythingElseStays(self) -> None:
        """Display names, comments, folding, groups and addresses without a line stay."""
        text = (
            'From: =?utf-8?q?R=C3=B6ot?= (the\n\tone) "Root, of <root@printer.local>"\n'
            " <%s> (root@printer.local), x@example.net,\n"
            "  group:%s\n\t, eve@example.net; ,\n"
            "   %s\n"
        ).replace("; ,\n", ";,\n")
        self.assertEqual(
            self.section(text % ("root@printer.local", '"a b"@old.example', "r@Scanner.local")),
            text % ("devices@example.com", '"a b"@example.com', "scans@example.com"),
        )
        self.assertEqual(
            self.rewritten(),
            [
                (
                    "From",
                    'root@printer.local, "a b"@old.example, r@Scanner.local',
                    'devices@example.com, "a b"@example.com, scans@example.com',
                )
            ],
        )

    def test_partsOfAnAddress(self) -> None:
        """What stands between the parts of an address stays as well."""
        self.assertEqual(
            self.section("From: joe (a) @\n (b) x.corp.local (c)\n"),
            "From: joe (a) @\n (b) example.com (c)\n",
        )

    def test_nameAlone(self) -> None:
        """A name without a domain, as cron writes it, can have a line."""
        for before, after in (
            ("From: root (Cron Daemon)\n", "From: cron@example.com (Cron Daemon)\n"),
            ("From: Cron <ROOT>\n", "From: Cron <cron@example.com>\n"),
            ("From: joe\n", "From: joe\n"),
        ):
            self.assertEqual(self.section(before), after)

    def test_recipients(self) -> None:
        """To and Cc are rewritten where it is wished, and not where it would tell of others."""
        text = "To: Root <%s>, keep@example.com\nCc: %s, %s\nResent-To: %s\n"
        before = text % ("root@printer.local", "root", "staff@old.example", "x@old.example")
        self.assertEqual(self.section(before), before)
        self.policy = Rewrite(aliases=self.aliases, header_recipients=True)
        alice = "alice@example.com"
        after = text % (alice, alice, "staff@example.com", "x@example.com")
        self.assertEqual(self.section(before + "From: root\n"), after + "From: root\n")

    def test_switchedOff(self) -> None:
        """With header = false the header stays."""
        self.policy = Rewrite(senders=self.senders, header=False)
        self.assertEqual(self.section("From: root\n"), "From: root\n")

    def test_malformed(self) -> None:
        """What cannot be told for certain stays as it is; the fix-ups refuse it."""
        for text in (
            "From: root@printer.local\nno field\n",
            "From: root@printer.local,\n",
            "From: root@printer.local joe@printer.local\n",
            'From: "root@printer.local\n',
            "From: (root@printer.local\n",
            "From: root.@printer.local\n",
            "From:\n",
            "From: \x01root@printer.local\n",
            f"Reply-To: {'root@printer.local,' * 4000}root@printer.local\n",
        ):
            self.assertEqual(self.section(text), text)
        header = Header(b"From: root@printer.local, \xff\r\n")
        self.policy.headerReceived(self.session, Envelope("ID", NULL_PATH), header)
        self.assertEqual(header.octets, b"From: root@printer.local, \xff\r\n")

    def test_brokenOff(self) -> None:
        """A section that ends within a line, as BDAT may have it, has its last field ended."""
        header = Header(b"From: root@printer.local")
        self.policy.headerReceived(self.session, Envelope("ID", NULL_PATH), header)
        self.assertEqual(header.octets, b"From: devices@example.com\r\n")

    def test_many(self) -> None:
        """Many addresses and fields are no trouble, and the log stays short."""
        some = ", ".join(f"u{number}@a.corp.local" for number in range(2000))
        found = self.section(f"Reply-To: {some}\n" + "From: root\n" * 2000)
        self.assertEqual(found.count("@example.com"), 4000)
        self.assertNotIn("corp.local", found)
        self.assertEqual(len(self.rewritten()), 2)
        self.assertTrue(all(len(before) <= 512 for _, before, _ in self.rewritten()))

    def test_international(self) -> None:
        """UTF-8 goes out only where it was asked for."""
        self.write(self.senders, "a@example.com ü@example.com\n@b.example @bücher.example\n")
        self.assertEqual(
            self.section("From: ü <x@b.example>\n", smtpUtf8=True),
            "From: ü <x@bücher.example>\n",
        )
        self.assertEqual(self.section("From: x@b.example\n"), "From: x@xn--bcher-kva.example\n")
        self.assertEqual(
            self.refusal(self.section, "From: a@example.com\n"),
            "553 5.6.7 Address is not ASCII and SMTPUTF8 was not asked for",
        )

    def test_tooLong(self) -> None:
        """What would be no address is refused."""
        self.write(self.senders, f"@a.example @{'x.' * 120}example\n")
        self.assertEqual(
            self.refusal(self.section, "From: longer-than-fits@a.example\n"),
            "550 5.6.0 From cannot be rewritten: address too long",
        )


@implementer(IRecipientPolicy)
class Asked:
    """A policy that tells whom it was asked about, and refuses some."""

    def __init__(self, refuse: str = "", wait: Any = None) -> None:
        self.asked: list[str] = []
        self.refuse = refuse
        self.wait = wait

    def validateTo(self, session: Any, envelope: Any, recipient: Recipient) -> Any:
        self.asked.append(str(recipient.mailbox))
        if str(recipient.mailbox) == self.refuse:
            raise Refused(Reply(550, "5.7.1", "Not him"))
        return self.wait() if self.wait is not None else None


class DialogueTests(RewriteTestCase):
    """In a dialogue, between other policies."""

    def converse(self, *policies: Any, **changes: Any) -> Conversation:
        """A client that has said who it is."""
        self.delivery = MemoryDelivery(onEnd=self.end)
        submission = makeSubmission(
            policies=policies,
            loginRequired=False,
            requireTLS=False,
            **{"delivery": self.delivery, **changes},
        )
        talk = Conversation(submission)
        talk.say("LHLO client.example" if submission.lmtp else "EHLO client.example")
        talk.say("MAIL FROM:<root@printer.local>")
        return talk

    def end(self, message: MemoryMessage) -> None:
        """A message is kept: see to whom, for it is the client's recipients that are answered."""
        message.delivery.messages.append(message)
        self.kept = [str(each.mailbox) for each in message.envelope.recipients]

    def finish(self, talk: Conversation) -> str:
        """Send the message."""
        self.assertTrue(talk.say("DATA").startswith("354"))
        return talk.say("From: root@printer.local", "", ".")

    def test_everybodyBehindIsAsked(self) -> None:
        """In front the old address is asked about, behind each new one; there is one reply."""
        front, behind = Asked(), Asked()
        talk = self.converse(front, self.policy, behind)
        self.assertEqual(talk.say("RCPT TO:<staff@example.com>"), "250 2.1.5 Recipient ok")
        self.assertEqual(front.asked, ["staff@example.com"])
        self.assertEqual(behind.asked, ["alice@example.com", "bob@example.com"])
        self.finish(talk)
        self.assertEqual(self.kept, ["alice@example.com", "bob@example.com"])
        self.assertEqual(
            str(self.delivery.messages[0].envelope.reversePath), "<devices@example.com>"
        )
        self.assertIn(b"\r\nFrom: devices@example.com\r\n", self.delivery.messages[0].octets)

    def test_oneIsRefused(self) -> None:
        """Where one of an alias is refused, none is taken."""
        for refused in ("alice@example.com", "bob@example.com"):
            talk = self.converse(self.policy, Asked(refused))
            self.assertEqual(talk.say("RCPT TO:<staff@example.com>"), "550 5.7.1 Not him")
            self.assertEqual(talk.say("RCPT TO:<eve@example.net>"), "250 2.1.5 Recipient ok")
            self.finish(talk)
            self.assertEqual(self.kept, ["eve@example.net"])

    def test_waiting(self) -> None:
        """A policy that waits has the client wait; one that goes leaves nothing behind."""
        waits: list[Deferred[Any]] = []
        talk = self.converse(self.policy, Asked(wait=waitingFor(waits)))
        self.assertEqual(talk.say("RCPT TO:<staff@example.com>"), "")
        waits[0].callback(None)
        self.assertEqual(talk.transport.taken(), b"")
        waits[1].callback(None)
        self.assertEqual(talk.transport.taken(), b"250 2.1.5 Recipient ok\r\n")
        self.assertEqual(talk.say("RCPT TO:<staff@example.com>"), "")
        waits[2].callback(None)
        talk.lose()
        self.assertEqual([each for each in self.logged if "log_failure" in each], [])

    def test_twice(self) -> None:
        """Two aliases of each other inside and out; and one that comes again through another."""
        first = Rewrite(aliases=self.aliases)
        path = Path(self.mktemp())
        path.write_text("bob@example.com bob@example.com carol@example.com\n")
        behind = Asked()
        talk = self.converse(first, Rewrite(aliases=path), behind)
        talk.say("RCPT TO:<staff@example.com>")
        self.assertEqual(
            behind.asked, ["alice@example.com", "bob@example.com", "carol@example.com"]
        )
        self.finish(talk)
        self.assertEqual(self.kept, behind.asked)

    def test_nobodyTwice(self) -> None:
        """Whoever is named by several is a recipient once; all are answered."""
        talk = self.converse(self.policy)
        for address in ("bob@example.com", "staff@example.com", "root@printer.local"):
            self.assertEqual(talk.say(f"RCPT TO:<{address}>"), "250 2.1.5 Recipient ok")
        self.assertTrue(self.finish(talk).startswith("250 2.0.0 Ok: queued as"))
        self.assertEqual(self.kept, ["bob@example.com", "alice@example.com"])

    def test_limit(self) -> None:
        """limits.recipients holds for what comes of aliases, and for what the client names."""
        talk = self.converse(self.policy, limits=Limits(recipients=3))
        full = "452 4.5.3 Too many recipients"
        self.assertEqual(talk.say("RCPT TO:<staff@example.com>"), "250 2.1.5 Recipient ok")
        self.assertEqual(talk.say("RCPT TO:<keep@example.com>"), full)
        self.assertEqual(talk.say("RCPT TO:<eve@example.net>"), "250 2.1.5 Recipient ok")
        self.assertEqual(talk.say("RCPT TO:<eve@example.org>"), full)
        self.finish(talk)
        self.assertEqual(self.kept, ["alice@example.com", "bob@example.com", "eve@example.net"])

    def test_limitOfNames(self) -> None:
        """A client names no more than there may be, though they come down to one."""
        talk = self.converse(self.policy, OnceBusy(), limits=Limits(recipients=2))
        talk.say("RCPT TO:<admin@example.com>", "RCPT TO:<root@printer.local>", "DATA")
        self.assertEqual(talk.say("RCPT TO:<eve@example.org>"), "452 4.5.3 Too many recipients")

    def test_lmtp(self) -> None:
        """LMTP answers as many as the client has named."""
        talk = self.converse(self.policy, lmtp=True)
        talk.say("RCPT TO:<staff@example.com>")
        talk.say("RCPT TO:<alice@example.com>")
        self.assertEqual(len(self.finish(talk).splitlines()), 2)
        talk.say("MAIL FROM:<a@example.com>")
        talk.say("RCPT TO:<staff@example.com>")
        talk.say("DATA")
        self.assertEqual(len(talk.send(b"a\nb\r\n.\r\n").splitlines()), 1)

    def test_outcomesOfLmtp(self) -> None:
        """Of several outcomes each name has its own; an alias fails with any of its addresses."""
        ok, full = Reply(250, "2.0.0", "Ok"), Reply(452, "4.2.2", "Mailbox full")
        gone = Reply(550, "5.2.1", "Mailbox disabled")

        def end(message: MemoryMessage) -> list[Reply]:
            kept = [str(each.mailbox) for each in message.envelope.recipients]
            return [self.outcomes.get(each, ok) for each in kept]

        alice, bob, eve = "alice@example.com", "bob@example.com", "eve@example.net"
        for self.outcomes, expected in (
            ({eve: full}, [250, 250, 452]),
            ({bob: full}, [250, 452, 250]),
            ({alice: gone}, [550, 550, 250]),
            ({alice: gone, bob: full, eve: full}, [550, 550, 452]),
            ({}, [250, 250, 250]),
        ):
            talk = self.converse(self.policy, lmtp=True, delivery=MemoryDelivery(onEnd=end))
            for address in (alice, "staff@example.com", eve):
                talk.say(f"RCPT TO:<{address}>")
            said = self.finish(talk).splitlines()
            self.assertEqual([int(line[:3]) for line in said], expected, self.outcomes)

    def test_chunksOfLmtp(self) -> None:
        """The same where the message comes in chunks and is refused (RFC 3030 2)."""
        talk = self.converse(self.policy, OnceBusy(), lmtp=True)
        talk.say("RCPT TO:<staff@example.com>")
        self.assertEqual(len(talk.send(b"BDAT 10 LAST\r\n0123456789").splitlines()), 1)

    def test_dataAgain(self) -> None:
        """A transaction that goes on behind a refused DATA still has nobody twice."""
        talk = self.converse(self.policy, OnceBusy())
        talk.say("RCPT TO:<bob@example.com>", "RCPT TO:<staff@example.com>")
        self.assertEqual(talk.say("DATA"), "451 4.3.0 Busy")
        talk.say("RCPT TO:<alice@example.com>", "RCPT TO:<eve@example.net>")
        self.finish(talk)
        self.assertEqual(self.kept, ["bob@example.com", "alice@example.com", "eve@example.net"])

    def test_senderOwner(self) -> None:
        """In front of sender-owner the new sender must belong to the login, behind it the old."""
        owners = Path(self.mktemp())
        for text, order, replies in (
            ("devices@example.com alice", (0, 1), ("250", "250")),
            ("root@printer.local alice", (0, 1), ("553", "")),
            ("root@printer.local alice", (1, 0), ("250", "250")),
            ("devices@example.com alice", (1, 0), ("553", "")),
        ):
            self.write(owners, text + "\n")
            both = (self.policy, SenderOwner(map=owners))
            self.delivery = MemoryDelivery()
            talk = Conversation(
                makeSubmission(policies=[both[at] for at in order], delivery=self.delivery)
            )
            talk.login()
            self.assertEqual(talk.say("MAIL FROM:<root@printer.local>")[:3], replies[0])
            if replies[1]:
                talk.say("RCPT TO:<bob@example.com>", "DATA")
                said = talk.say("From: root@printer.local", "Sender: root@printer.local", "", ".")
                self.assertEqual(said[:3], replies[1])
                self.assertIn(
                    b"From: devices@example.com\r\nSender: devices@example.com\r\n",
                    self.delivery.messages[0].octets,
                )

    def test_unqualified(self) -> None:
        """In front of message-fixups an address without a dot in its domain is saved."""
        self.write(self.aliases, "@printer admin@example.com\n")
        fixups = MessageFixups(refuse_unqualified=True)
        talk = self.converse(fixups, self.policy)
        self.assertEqual(
            talk.say("RCPT TO:<root@printer>"), "554 5.6.2 Domain printer is not fully qualified"
        )
        talk = self.converse(self.policy, fixups)
        self.assertEqual(talk.say("RCPT TO:<root@printer>"), "250 2.1.5 Recipient ok")

    def test_recipientsBehind(self) -> None:
        """A file of recipients that are refused holds for what comes of aliases."""
        refused = Path(self.mktemp())
        refused.write_text("bob@example.com\n")
        talk = self.converse(self.policy, Recipients(refused=refused))
        self.assertEqual(
            talk.say("RCPT TO:<staff@example.com>"),
            "550 5.7.1 Recipient address rejected: not allowed",
        )

    def test_traceField(self) -> None:
        """Received names the one recipient that there is."""
        talk = self.converse(self.policy)
        talk.say("RCPT TO:<root@printer.local>", "RCPT TO:<alice@example.com>")
        self.finish(talk)
        self.assertIn(b"for <alice@example.com>;", self.delivery.messages[0].octets)

    def test_rows(self) -> None:
        """The queue has a row for each address, with what is its own, and nothing of policies."""
        rows: list[Any] = []

        def end(message: MemoryMessage) -> None:
            envelope = message.envelope
            rows.extend([messageRow(envelope, 0.0, b"", 0), *recipientRows(envelope, 0.0)])

        self.end = end  # type: ignore[method-assign]
        talk = self.converse(self.policy)
        talk.say("RCPT TO:<staff@example.com> NOTIFY=SUCCESS,FAILURE", "RCPT TO:<eve@example.net>")
        self.finish(talk)
        message, *recipients = rows
        self.assertEqual((message["sender"], message["envelope"]), ("devices@example.com", ""))
        self.assertEqual(
            [
                (row["address"], row["parameters"] and json.loads(row["parameters"]))
                for row in recipients
            ],
            [
                (
                    "alice@example.com",
                    {
                        "parameters": {"NOTIFY": "SUCCESS,FAILURE"},
                        "notify": ["SUCCESS", "FAILURE"],
                        "orcpt": ["rfc822", "staff@example.com"],
                    },
                ),
                (
                    "bob@example.com",
                    {
                        "parameters": {"NOTIFY": "FAILURE"},
                        "notify": ["FAILURE"],
                        "orcpt": ["rfc822", "staff@example.com"],
                    },
                ),
                ("eve@example.net", ""),
            ],
        )

    def test_sameAgain(self) -> None:
        """The same submission is known again by the spool."""
        digests: list[bytes] = []
        queue: Any = None

        def end(message: MemoryMessage) -> None:
            spooled = SpooledMessage(queue, message.session, message.envelope)
            digests.append(spooled._submissionDigest())

        self.end = end  # type: ignore[method-assign]
        for address in ("admin", "admin", "staff"):
            talk = self.converse(self.policy)
            talk.say("RCPT TO:<eve@example.net>", f"RCPT TO:<{address}@example.com>")
            self.finish(talk)
        self.assertEqual(digests[0], digests[1])
        self.assertNotEqual(digests[0], digests[2])


@implementer(IDataPolicy)
class OnceBusy:
    """Refuses the first DATA."""

    def __init__(self) -> None:
        self.asked = 0

    def dataRequested(self, session: Any, envelope: Any) -> None:
        self.asked += 1
        if self.asked == 1:
            raise Refused(Reply(451, "4.3.0", "Busy"))
