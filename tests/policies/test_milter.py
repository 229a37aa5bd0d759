"""Policy ``milter``, with a filter in memory that does as it is told."""

from __future__ import annotations

import struct
import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd import interfaces
from submitd.message.body import Aside
from submitd.policies import REGISTRY, milterchanges, miltertalk
from submitd.policies import milter as policy
from submitd.policies.milter import Milter
from submitd.policies.miltertalk import NEVER
from submitd.settings import Component
from submitd.submission import Limits
from submitd.wire import milter
from submitd.wire.errors import Refused
from submitd.wire.milter import ALL_ACTIONS, Action, Step
from submitd.wire.network import Networks
from submitd.wire.reply import STORAGE_FULL
from tests.fixtures import Conversation, MemoryDelivery, MemoryMessage, makeSubmission
from tests.policies import filters
from tests.policies.endpoints import crowded, hanging
from tests.policies.filters import (
    ACCEPT,
    COMMANDS,
    CONTINUE,
    DISCARD,
    HANG,
    REJECT,
    SKIP,
    WORDS,
    Does,
    Script,
    addHeader,
    changeHeader,
    insertHeader,
    made,
    negotiated,
    replaceBody,
    replyCode,
    text,
)

TEXT = "Subject: hello\r\nTo: bob\r\n\r\nthe body\r\n"


@implementer(interfaces.IHoldingDelivery)
class HoldingDelivery(MemoryDelivery):
    """A delivery that says it holds."""


class MilterCase(SynchronousTestCase):
    """A submission with one filter."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of a name."""
        return [event for event in self.events if event.get("event") == name]

    def make(self, *scripts: Script, **keys: Any) -> Conversation:
        """A conversation in which a policy asks each of the filters."""
        changes = {"loginRequired": False, "requireTLS": False, "delivery": HoldingDelivery()}
        for key in ("limits", "xclientFrom", "lmtp", "policies", "delivery"):
            if key in keys:
                changes[key] = keys.pop(key)
        self.policies = [made(script, **keys) for script in scripts]
        for each in self.policies:
            each.start(self.clock)
        more = changes.pop("policies", [])
        submission = makeSubmission(self.clock, policies=[*self.policies, *more], **changes)
        self.submission = submission
        return Conversation(submission)

    def again(self) -> Conversation:
        """Another client of the same service."""
        return Conversation(self.submission)

    def talk(self, talk: Conversation, *lines: str) -> list[str]:
        """Say lines one after the other; time goes by where nothing is said."""
        said = []
        for line in lines:
            answer = talk.say(*line.split("\r\n"))
            for _ in range(20):
                if answer:
                    break
                self.clock.advance(10)
                answer = talk.say()
            said.append(answer.rpartition("\n")[2])
        return said

    def send(self, talk: Conversation, message: str = TEXT) -> list[str]:
        """One message to bob; the replies."""
        begin = ("MAIL FROM:<alice@a.example>", "RCPT TO:<bob@b.example>", "DATA")
        said = self.talk(talk, *begin)
        if said[-1].startswith("354"):
            said += self.talk(talk, message + ".")
        return said

    def greet(self, talk: Conversation) -> None:
        """EHLO."""
        for _ in range(20):
            if talk.transport.value():
                break
            self.clock.advance(10)
        self.assertIn(b"220", talk.transport.taken())
        self.assertEqual(self.talk(talk, "HELO client.example")[0][:3], "250")

    def sent(self, *scripts: Script, message: str = TEXT, **keys: Any) -> str:
        """One message past filters: the last reply."""
        self.conversation = self.make(*scripts, **keys)
        self.greet(self.conversation)
        return self.send(self.conversation, message)[-1]

    @property
    def kept(self) -> str:
        """The message that was kept, without our own Received field."""
        [message] = self.submission.delivery.messages  # type: ignore[attr-defined]
        return message.text.decode()

    @property
    def envelope(self) -> Any:
        """That of the message that was kept."""
        return self.submission.delivery.messages[-1].envelope  # type: ignore[attr-defined]


class DialogueTests(MilterCase):
    """What the filter is told."""

    def test_interfaces(self) -> None:
        """It takes part in all stages, and may hold only where it may."""
        made = Milter("tcp:127.0.0.1:1")
        for each in (
            interfaces.IConnectionPolicy,
            interfaces.IHelloPolicy,
            interfaces.ISenderPolicy,
            interfaces.IRecipientPolicy,
            interfaces.IDataPolicy,
            interfaces.IHeaderPolicy,
            interfaces.IMessagePolicy,
            interfaces.IDisconnectObserver,
            interfaces.IRunning,
            interfaces.IChecked,
            interfaces.IMayHold,
        ):
            verifyObject(each, made)
        self.assertFalse(interfaces.IMayHold.providedBy(Milter("unix:/a", quarantine=False)))

    def test_everything(self) -> None:
        """The whole dialogue, in the order of the commands, with what belongs to each."""
        script = Script()
        self.assertEqual(self.sent(script)[:3], "250")
        self.assertEqual(
            script.heard,
            [
                (b"C", b"[192.0.2.7]\0004\x9c\x40192.0.2.7\0"),
                (b"H", b"client.example\0"),
                (b"M", b"<alice@a.example>\0"),
                (b"R", b"<bob@b.example>\0"),
                (b"T", b""),
                (b"L", b"Subject\0hello\0"),
                (b"L", b"To\0bob\0"),
                (b"N", b""),
                (b"B", b"the body\r\n"),
                (b"E", b""),
            ],
        )
        self.assertEqual(self.kept, TEXT)
        self.conversation.lose()
        self.assertEqual(script.letters[-1], "K")
        self.assertEqual(self.policies[0]._talks, {})

    def test_parameters(self) -> None:
        """The parameters of MAIL and RCPT are told as they were given, and null is null."""
        script = Script()
        talk = self.make(script)
        talk.say("EHLO c.example", "MAIL FROM:<> SIZE=10 SMTPUTF8")
        talk.say("RCPT TO:<b\u00fc@b.example> NOTIFY=NEVER")
        self.assertEqual(script.of(b"M"), [b"<>\0SIZE=10\0SMTPUTF8\0"])
        self.assertEqual(script.of(b"R"), ["<b\u00fc@b.example>\0NOTIFY=NEVER\0".encode()])

    def test_macros(self) -> None:
        """What a filter wants to know stands in macros, those of the setting among them."""
        script = Script()
        talk = self.make(script, macros={"{daemon_name}": "ORIGINATING", "site": "x"})
        talk.login()
        self.send(talk)
        self.assertEqual(script.macros[b"C"]["{daemon_name}"], "ORIGINATING")
        self.assertEqual(script.macros[b"C"]["{site}"], "x")
        self.assertEqual(script.macros[b"C"]["{client_addr}"], "192.0.2.7")
        self.assertEqual(script.macros[b"H"]["{tls_version}"], "TLSv1.3")
        self.assertEqual(script.macros[b"M"]["{auth_authen}"], "alice")
        self.assertEqual(script.macros[b"M"]["{auth_type}"], "PLAIN")
        self.assertEqual(script.macros[b"M"]["{mail_addr}"], "alice@a.example")
        self.assertEqual(script.macros[b"R"]["{rcpt_addr}"], "bob@b.example")
        self.assertEqual(script.macros[b"E"]["i"], self.envelope.id)

    def test_name(self) -> None:
        """The filter hears the service's name, which it may write into Authentication-Results."""
        talk = self.make(script := Script())
        self.policies[0].hostname = "mx.example.com"
        connecting = self.policies[0].connectionMade(talk.protocol.dialogue.session)
        self.successResultOf(Deferred.fromCoroutine(connecting))
        self.assertEqual(script.macros[b"C"]["j"], "mx.example.com")
        self.assertEqual(script.macros[b"C"]["{daemon_name}"], "mx.example.com")

    def test_macroNames(self) -> None:
        """A filter that says which it wants gets those."""
        names = struct.pack(">I", 2) + b"i {auth_authen} {nothing}\0"
        script = Script(macroNames=names)
        self.sent(script)
        self.assertEqual(list(script.macros[b"M"]), ["i"])
        self.assertIn("j", script.macros[b"C"])

    def test_unixClient(self) -> None:
        """A client without an address is told as one."""
        talk = self.make(script := Script())
        talk.protocol.dialogue.session.remoteAddress = ""
        connecting = self.policies[0].connectionMade(talk.protocol.dialogue.session)
        self.successResultOf(Deferred.fromCoroutine(connecting))
        self.assertEqual(script.of(b"C")[-1], b"localhost\0U")

    def test_left_out(self) -> None:
        """What the filter does not want to hear is not told."""
        no = sum(each for each in Step if (each.name or "").startswith("NO_"))
        script = Script(steps=Step(no))
        self.assertEqual(self.sent(script)[:3], "250")
        self.assertEqual(script.letters, "E")

    def test_old(self) -> None:
        """A filter of version 2 is not told what that does not know, and is not kept."""
        script = Script(version=2)
        self.assertEqual(self.sent(script)[:3], "250")
        self.assertEqual(script.letters, "CHMRLLNBE")
        self.conversation.lose()
        self.assertEqual(script.letters[-1], "Q")
        self.assertEqual(script.open, [])

    def test_quiet(self) -> None:
        """What the filter does not answer is not waited for."""
        quiet = sum(each for each in Step if (each.name or "").startswith("NR_"))
        script = Script(steps=Step(quiet))
        self.assertEqual(self.sent(script)[:3], "250")
        self.assertEqual(script.letters, "CHMRTLLNBE")
        self.assertEqual(self.clock.seconds(), 0)

    def test_leadingSpace(self) -> None:
        """Values are told, and taken, to the octet where the filter says so."""
        message = "A:  two\r\nB:none\r\nC:\tfolded\r\n  more\r\n\r\n.\r\n".replace(
            "\r\n.", "\r\n.."
        )
        for steps, told, added in (
            (NEVER, [b" two", b"none", b"\tfolded\n  more"], "X: 1\r\n"),
            (Step.LEADING_SPACE, [b"  two", b"none", b"\tfolded\n  more"], "X:1\r\n"),
        ):
            script = Script({b"E": addHeader("X", "1") + CONTINUE}, steps=steps)
            self.assertEqual(self.sent(script, message=message)[:3], "250")
            values = [each.split(b"\0")[1] for each in script.of(b"L")]
            self.assertEqual(values, told)
            head = self.kept.partition("\r\n\r\n")[0] + "\r\n"
            self.assertEqual(head, message.partition("\r\n\r\n")[0] + "\r\n" + added)

    def test_chunks(self) -> None:
        """A large body is told in parts of 65535 octets, and is whole at both ends."""
        message = "A: b\r\n\r\n" + ("x" * 500 + "\r\n") * 600
        script = Script()
        self.assertEqual(self.sent(script, message=message)[:3], "250")
        parts = script.of(b"B")
        self.assertEqual({len(each) for each in parts[:-1]}, {65535})
        self.assertEqual(b"".join(parts).decode(), message.partition("\r\n\r\n")[2])
        self.assertEqual(self.kept, message)

    def test_skip(self) -> None:
        """A filter that has seen enough of the body is told the end alone, once."""
        message = "A: b\r\n\r\n" + ("x" * 500 + "\r\n") * 600
        script = Script({b"B": SKIP})
        self.assertEqual(self.sent(script, message=message)[:3], "250")
        self.assertEqual(script.letters[-3:], "NBE")
        self.assertEqual(self.kept, message)

    def test_reset(self) -> None:
        """A transaction that ends without its message is ended for the filter, before the next."""
        script = Script()
        talk = self.make(script)
        self.greet(talk)
        begin = "MAIL FROM:<alice@a.example>"
        self.talk(talk, begin, "RSET", begin, "HELO again.example", begin)
        self.assertEqual(script.letters, "CHMAMAHM")
        talk.lose()
        self.assertEqual(script.letters, "CHMAMAHMAQ")

    def test_two(self) -> None:
        """Two messages of one client are told over one connection."""
        script = Script()
        talk = self.make(script)
        self.greet(talk)
        self.send(talk)
        self.assertEqual(self.send(talk)[-1][:3], "250")
        self.assertEqual(script.letters, "CHMRTLLNBEMRTLLNBE")
        self.assertEqual(script.connections, 1)

    def test_proxy(self) -> None:
        """Behind XCLIENT the filter is told of the client, over a connection for it."""
        script = Script()
        talk = self.make(script, xclientFrom=Networks.parse(["192.0.2.7"]))
        self.talk(talk, "EHLO c.example", "XCLIENT ADDR=192.0.2.99 NAME=real.example")
        self.assertEqual((script.letters, script.connections), ("CHQC", 2))
        self.assertIn(b"real.example\0", script.of(b"C")[1])

    def test_reused(self) -> None:
        """The next client is told over the connection of the last, where libmilter can do that."""
        for said, end in ((CONTINUE, "EKC"), (ACCEPT, "EQC"), (REJECT, "EQC")):
            script = Script({b"E": said})
            self.sent(script)
            self.conversation.lose()
            self.again()
            self.assertEqual(script.letters[-3:], end)
            self.assertEqual(script.connections, 1 + (end == "EQC"))

    def test_notReused(self) -> None:
        """Behind a transaction without its message it is ended."""
        script = Script()
        self.sent(script)
        self.talk(self.conversation, "MAIL FROM:<alice@a.example>")
        self.conversation.lose()
        self.assertEqual(script.letters[-3:], "MAQ")

    def idle(self) -> Script:
        """A filter to which there is one connection that nobody uses."""
        script = Script()
        self.sent(script)
        self.conversation.lose()
        self.assertEqual(script.letters[-1], "K")
        return script

    def test_idle(self) -> None:
        """A connection that nobody uses is ended, and at the end of the service all of them."""
        script = self.idle()
        self.clock.advance(policy.IDLE)
        self.assertEqual((script.letters[-2:], script.open), ("KQ", []))
        script = self.idle()
        self.policies[0].stop()
        self.assertEqual((script.letters[-2:], script.open), ("KQ", []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idleAgain(self) -> None:
        """One that has served in the meantime may wait as long as any."""
        script = self.idle()
        self.clock.advance(policy.IDLE - 1)
        talk = self.again()
        self.greet(talk)
        self.send(talk)
        talk.lose()
        self.clock.advance(policy.IDLE - 1)
        self.assertEqual((script.connections, len(script.open)), (1, 1))
        self.clock.advance(1)
        self.assertEqual(script.open, [])

    def test_fewIdle(self) -> None:
        """No more than a few are kept."""
        script = Script()
        talks = [self.make(script)] + [self.again() for _ in range(20)]
        for each in talks:
            self.greet(each)
            self.send(each)
        for each in talks:
            each.lose()
        self.assertEqual(len(script.open), policy.MAX_IDLE)

    def test_staleIdle(self) -> None:
        """One that has died while it was kept is nobody's trouble, whenever that shows."""
        script = self.idle()
        script.open[0].transport.loseConnection()
        self.again().lose()
        self.assertEqual(script.connections, 2)
        script = self.idle()
        script.open[0].isDeaf = True
        talk = self.again()
        self.clock.advance(20)
        self.assertIn(b"220", talk.transport.value())
        self.assertEqual(script.connections, 2)
        self.assertEqual(self.named("filter-failed"), [])

    def test_closedBetween(self) -> None:
        """A filter that closes between two messages is connected to again."""
        script = Script()
        talk = self.make(script)
        self.greet(talk)
        self.send(talk)
        script.open[0].transport.loseConnection()
        self.assertEqual(self.send(talk)[-1][:3], "250")
        self.assertEqual(script.letters[10:], "CHMRTLLNBE")


class VerdictTests(MilterCase):
    """What the filter says."""

    def test_accept(self) -> None:
        """ACCEPT at any stage lets the message through, and the filter is not asked about it."""
        for name, letter in COMMANDS.items():
            if name in ("negotiate", "eom"):
                continue
            script = Script({letter: ACCEPT})
            self.assertEqual(self.sent(script)[:3], "250", name)
            self.assertEqual(script.letters[-1:].encode(), letter)
            self.assertEqual(self.kept, TEXT)
            again = self.send(self.conversation)
            self.assertEqual(again[-1][:3], "250")
            if name in ("connect", "hello"):
                self.assertEqual(script.letters[-1:].encode(), letter)
            else:
                self.assertEqual(script.letters.count("M"), 2)

    def test_discard(self) -> None:
        """DISCARD at any stage of a message is 250, an event, and no message."""
        for name, letter in COMMANDS.items():
            if name in ("negotiate", "connect", "hello"):
                continue
            self.assertEqual(self.sent(Script({letter: DISCARD}))[:3], "250", name)
            self.assertEqual(self.submission.delivery.messages, [])  # type: ignore[attr-defined]
            self.assertEqual(self.submission.delivery.begun[-1].state, "aborted")  # type: ignore
            event = self.named("message-discarded")[-1]
            self.assertEqual((event["reason"], event["recipients"]), ("milter", 1))
        self.assertEqual(self.named("message-accepted"), [])

    def test_discardNoMessage(self) -> None:
        """There is nothing to discard before a message: the filter talks nonsense."""
        talk = self.make(Script({b"H": DISCARD}))
        self.greet(talk)
        self.assertEqual(self.send(talk)[0][:3], "451")

    def test_refusedRecipient(self) -> None:
        """A recipient that the filter refuses is out, and the others stay."""
        script = Script()
        talk = self.make(script)
        self.greet(talk)
        script.does[b"R"] = REJECT
        said = self.talk(talk, "MAIL FROM:<alice@a.example>", "RCPT TO:<eve@b.example>")
        self.assertEqual(said[1], "550 5.7.1 Refused by a filter")
        script.does = {}
        said = self.talk(talk, "RCPT TO:<bob@b.example>", "DATA", TEXT + ".")
        self.assertEqual([each[:3] for each in said], ["250", "354", "250"])

    def test_closing(self) -> None:
        """A filter may have the connection closed."""
        for does in (filters.SHUTDOWN, filters.CONNECTION_FAILURE, replyCode("421 4.7.0 Go")):
            talk = self.make(Script({b"R": does}))
            self.greet(talk)
            said = self.talk(talk, "MAIL FROM:<alice@a.example>", "RCPT TO:<bob@b.example>")
            self.assertEqual(said[1][:3], "421")
            self.assertTrue(talk.transport.disconnecting)

    def test_greeting(self) -> None:
        """In place of the greeting a client is told 554 or 421, whatever code the filter gives."""
        for said, wire in (
            (replyCode("550 5.7.9 No"), b"554 5.7.9 No\r\n"),
            (replyCode("450 4.7.9 No"), b"421 4.7.9 No\r\n"),
            (REJECT, b"554 5.7.1 No mail is taken from here\r\n"),
        ):
            talk = self.make(Script({b"C": said}))
            self.assertEqual(talk.transport.taken(), wire)
            self.assertIs(talk.transport.disconnecting, wire.startswith(b"421"))

    def test_progress(self) -> None:
        """A filter that says it is at work has its time again, as long as a stage may take."""
        script = Script({b"E": HANG})
        talk = self.make(script, message_timeout=5.0, limits=Limits(stage=30.0))
        self.greet(talk)
        self.talk(talk, "MAIL FROM:<alice@a.example>", "RCPT TO:<bob@b.example>", "DATA")
        self.assertEqual(talk.say(*TEXT.split("\r\n")[:-1], "."), "")
        for _ in range(4):
            self.clock.advance(4)
            script.open[0].transport.write(filters.PROGRESS)
        self.assertEqual(talk.transport.value(), b"")
        script.open[0].transport.write(CONTINUE)
        self.assertIn(b"250", talk.transport.value())
        self.assertEqual(self.kept, TEXT)

    def test_stageLimit(self) -> None:
        """A stage is over when limits.stage says so; the message is for later, all is in step."""
        for name, letter in COMMANDS.items():
            script = Script({letter: HANG})
            keys = {"timeout": 1000.0, "message_timeout": 1000.0, "connect_timeout": 1000.0}
            talk = self.make(script, limits=Limits(stage=30.0), on_failure="accept", **keys)
            if name in ("negotiate", "connect"):
                self.clock.advance(30)
                self.assertTrue(talk.transport.disconnecting)
                continue
            talk.transport.clear()
            said = self.talk(talk, "HELO c.example") + self.send(talk)
            self.assertIn("451 4.3.0", " ".join(said), name)
            self.assertEqual(self.submission.delivery.messages, [])  # type: ignore[attr-defined]
            self.assertEqual(script.open, [])
            self.assertEqual(self.talk(talk, "NOOP")[0][:3], "250")


class ChangeTests(MilterCase):
    """What the filter wants changed."""

    def changed(self, *changes: bytes, message: str = TEXT, **keys: Any) -> str:
        """The message behind these changes."""
        said = self.sent(Script({b"E": b"".join(changes) + CONTINUE}), message=message, **keys)
        self.assertEqual(said[:3], "250")
        return self.kept

    def test_places(self) -> None:
        """Fields are added behind all, or at a place; 0 is above our own Received field."""
        kept = self.changed(
            addHeader("Last", "1"),
            insertHeader(1, "First", "1"),
            insertHeader(3, "Third", "1"),
            insertHeader(99, "Behind", "1"),
            message="A: 1\r\nB: 1\r\n\r\n",
        )
        names = [line.partition(":")[0] for line in kept.split("\r\n") if line]
        self.assertEqual(names, ["First", "A", "Third", "B", "Last", "Behind"])

    def test_top(self) -> None:
        """At place 0, the last that is put there stands first."""
        self.sent(Script({b"E": insertHeader(0, "A", "1") + insertHeader(0, "B", "2") + ACCEPT}))
        [message] = self.submission.delivery.messages  # type: ignore[attr-defined]
        self.assertTrue(message.octets.startswith(b"B: 2\r\nA: 1\r\nReceived: "))

    def test_numbers(self) -> None:
        """A field is found by its number among those of its name, as they stand then."""
        message = "X: 1\r\nY: 1\r\nx: 2\r\nX: 3\r\n\r\n"
        for changes, head in (
            ([changeHeader(2, "X", "two")], ["X: 1", "Y: 1", "X: two", "X: 3"]),
            ([changeHeader(0, "X", "one")], ["X: one", "Y: 1", "x: 2", "X: 3"]),
            ([changeHeader(3, "x", "")], ["X: 1", "Y: 1", "x: 2"]),
            ([changeHeader(1, "X", ""), changeHeader(1, "X", "")], ["Y: 1", "X: 3"]),
            ([changeHeader(4, "X", "4")], ["X: 1", "Y: 1", "x: 2", "X: 3", "X: 4"]),
            ([changeHeader(4, "X", "")], ["X: 1", "Y: 1", "x: 2", "X: 3"]),
            ([changeHeader(1, "Z", "1\n 2\n")], ["X: 1", "Y: 1", "x: 2", "X: 3", "Z: 1", " 2"]),
        ):
            kept = self.changed(*changes, message=message)
            self.assertEqual(kept, "\r\n".join(head) + "\r\n\r\n")

    def test_body(self) -> None:
        """Another body, however it is cut, its lines ended with CRLF, the last one too."""
        for parts, body in (
            ([b"one\r\n", b"two\r\n"], "one\r\ntwo\r\n"),
            ([b"one\r", b"\ntwo"], "one\r\ntwo\r\n"),
            ([b"one\ntwo\n"], "one\r\ntwo\r\n"),
            ([b"one\r\n", b"", b"\n"], "one\r\n\r\n"),
            ([b""], ""),
        ):
            kept = self.changed(*map(replaceBody, parts))
            self.assertEqual(kept, "Subject: hello\r\nTo: bob\r\n\r\n" + body)

    def test_binary(self) -> None:
        """A message that may have any octets may get any."""
        script = Script({b"E": replaceBody(b"\0\r\n\n") + replaceBody(b"\r") + CONTINUE})
        talk = self.make(script)
        talk.say("EHLO c.example", "MAIL FROM:<> BODY=BINARYMIME", "RCPT TO:<b@c.example>")
        self.assertIn(b"250", talk.send(b"BDAT 9 LAST\r\nA: b\r\n\r\n\0"))
        self.assertEqual(self.kept, "A: b\r\n\r\n\0\r\n\n\r")

    def test_tooLarge(self) -> None:
        """A body larger than a message may be is refused, and the connection goes on."""
        script = Script({b"E": replaceBody(b"x" * 2000 + b"\r\n") + CONTINUE})
        self.assertEqual(self.sent(script, limits=Limits(messageSize=1000))[:3], "552")
        self.assertEqual(script.open, [])
        self.assertEqual(self.talk(self.conversation, "NOOP")[0][:3], "250")

    def test_envelope(self) -> None:
        """Sender and recipients; parameters of DSN are kept, and nobody is there twice."""
        self.changed(
            text(b"e", "new@a.example", "RET=HDRS ENVID=1"),
            text(b"+", "<Bob@B.example>"),
            text(b"+", "bob@b.example"),
            text(b"2", "<carol@b.example>", "NOTIFY=NEVER"),
            text(b"-", "<nobody@b.example>"),
        )
        envelope = self.envelope
        self.assertEqual(str(envelope.reversePath), "<new@a.example>")
        self.assertEqual((envelope.ret, envelope.envid), ("HDRS", "1"))

    def test_recipients(self) -> None:
        """Recipients that are added and left out, as the delivery sees them."""
        seen: list[list[str]] = []

        def end(message: MemoryMessage) -> None:
            seen.append([str(each.mailbox) for each in message.envelope.recipients])

        changes = text(b"2", "carol@b.example", "NOTIFY=NEVER") + text(b"-", "bob@b.example")
        self.sent(Script({b"E": changes + CONTINUE}), delivery=MemoryDelivery(onEnd=end))
        self.assertEqual(seen, [["carol@b.example"]])

    def test_nobody(self) -> None:
        """A message that has no recipient left is discarded."""
        said = self.sent(Script({b"E": text(b"-", "<bob@b.example>") + CONTINUE}))
        self.assertEqual(said[:3], "250")
        self.assertEqual(self.submission.delivery.messages, [])  # type: ignore[attr-defined]
        self.assertEqual(len(self.named("message-discarded")), 1)

    def test_quarantine(self) -> None:
        """Quarantine has the delivery hold the message, and is an event."""
        self.changed(text(b"q", "looks odd"), name="rspamd")
        self.assertEqual(self.envelope.hold, "rspamd: looks odd")
        [event] = self.named("message-held")
        self.assertEqual(event["reason"], "rspamd: looks odd")
        self.changed(text(b"q", "a\nb" + "x" * 1000))
        self.assertEqual(self.envelope.hold, "milter: a?b" + "x" * (milterchanges.MAX_REASON - 3))

    def test_notAllowed(self) -> None:
        """With quarantine = false a filter that wants one has failed."""
        said = self.sent(Script({b"E": text(b"q", "odd") + CONTINUE}), quarantine=False)
        self.assertEqual(said[:3], "451")

    def test_refusedAfterChanges(self) -> None:
        """Changes of a message that the filter then refuses are not done."""
        changes = addHeader("A", "1") + text(b"e", "<x@y.example>") + replaceBody(b"x")
        self.assertEqual(self.sent(Script({b"E": changes + REJECT}))[:3], "550")
        self.assertEqual(self.send(self.conversation)[-1][:3], "550")

    def test_nonsense(self) -> None:
        """A change that makes no sense fails the filter, and none of the others is done."""
        for change in (
            addHeader("A", "1\nB: 2"),
            addHeader("A", "1\rB: 2"),
            addHeader("A", "\u00fc"),
            insertHeader(1, "A", "1\n\n x"),
            changeHeader(1, "Subject", "a\nb"),
            text(b"e", "<no address>"),
            text(b"e", "<a@b.example>", "SIZE=1"),
            text(b"e", "<\u00fc@b.example>"),
            text(b"+", "<>"),
            text(b"+", "<\u00fc@b.example>"),
            text(b"2", "<a@b.example>", "NOTIFY=SOMETIMES"),
            text(b"-", "<no address>"),
            replaceBody(b"a\rb"),
            replaceBody(b"a\r"),
            replaceBody(b"a\0"),
            milter.packet(b"?"),
            milter.packet(b"O", struct.pack(">III", 6, 0, 0)),
            SKIP,
        ):
            for on_failure, code in (("tempfail", "451"), ("reject", "550"), ("accept", "250")):
                before = addHeader("X", "1") + text(b"e", "<x@y.example>") + replaceBody(b"other")
                script = Script({b"E": before + change + CONTINUE})
                self.assertEqual(self.sent(script, on_failure=on_failure)[:3], code, repr(change))
                if code == "250":
                    self.assertEqual(self.kept, TEXT)
                    self.assertEqual(str(self.envelope.reversePath), "<alice@a.example>")

    def test_notNegotiated(self) -> None:
        """A change that the filter has not negotiated fails it."""
        for change, action in (
            (addHeader("A", "1"), Action.ADD_HEADER),
            (insertHeader(1, "A", "1"), Action.ADD_HEADER),
            (changeHeader(1, "Subject", "1"), Action.CHANGE_HEADER),
            (replaceBody(b""), Action.CHANGE_BODY),
            (text(b"e", "<a@b.example>"), Action.CHANGE_SENDER),
            (text(b"-", "<a@b.example>"), Action.DELETE_RECIPIENT),
            (text(b"q", "odd"), Action.QUARANTINE),
        ):
            script = Script({b"E": change + CONTINUE}, actions=ALL_ACTIONS & ~action)
            self.assertEqual(self.sent(script)[:3], "451")

    def test_tooMany(self) -> None:
        """A filter that wants ever more has failed."""
        self.patch(milterchanges, "MAX_CHANGES", 10)
        said = self.sent(Script({b"E": addHeader("A", "1") * 11 + CONTINUE}))
        self.assertEqual(said[:3], "451")
        self.patch(milterchanges, "MAX_CHANGES", 1000)
        said = self.sent(Script({b"E": addHeader("A", "1" * 60_000) * 20 + CONTINUE}))
        self.assertEqual(said[:3], "451")

    def test_manyRecipients(self) -> None:
        """Each address is read once, however many recipients there are to compare it with."""
        asked: list[object] = []
        same = milterchanges.sameAddress
        self.patch(milterchanges, "sameAddress", lambda each: asked.append(each) or same(each))
        changes = [text(b"+", f"<{number}@b.example>") for number in range(100)]
        changes += [text(b"-", f"<{number}@b.example>") for number in range(50)]
        self.assertEqual(self.sent(Script({b"E": b"".join(changes) + CONTINUE}))[:3], "250")
        [event] = self.named("message-accepted")
        self.assertEqual(event["recipients"], 51)
        self.assertEqual(len(asked), 151)

    def test_notHeld(self) -> None:
        """A message that the filter cannot change is not kept back."""
        script = Script({b"E": HANG}, actions=Action.CHANGE_SENDER)
        talk = self.make(script)
        self.greet(talk)
        self.talk(talk, "MAIL FROM:<alice@a.example>", "RCPT TO:<bob@b.example>", "DATA")
        talk.say(*TEXT.split("\r\n")[:-1], ".")
        [message] = self.submission.delivery.begun  # type: ignore[attr-defined]
        self.assertEqual(message.text.decode(), TEXT)
        self.assertEqual(script.letters, "CHMRTLLNBE")
        script.open[0].transport.write(REJECT)
        self.assertEqual(message.state, "aborted")

    def test_order(self) -> None:
        """A second filter, and a policy behind both, see what the first has made of it."""

        @implementer(interfaces.IHeaderPolicy, interfaces.IMessagePolicy)
        class Looks:
            seen = b""

            def headerReceived(self, session: Any, envelope: Any, header: Any) -> None:
                envelope.message.observeBody(self.look)

            def look(self, octets: bytes) -> None:
                self.seen += octets

            def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
                self.whole = (message.header, self.seen)

        looks = Looks()
        one = Script({b"E": changeHeader(1, "Subject", "one") + replaceBody(b"one") + CONTINUE})
        two = Script({b"E": addHeader("Two", "2") + CONTINUE})
        self.assertEqual(self.sent(one, two, policies=[looks])[:3], "250")
        self.assertEqual(two.of(b"L"), [b"Subject\0one\0", b"To\0bob\0"])
        self.assertEqual(b"".join(two.of(b"B")), b"one\r\n")
        self.assertEqual(looks.whole, (b"Subject: one\r\nTo: bob\r\nTwo: 2\r\n", b"one\r\n"))
        self.assertEqual(self.kept, "Subject: one\r\nTo: bob\r\nTwo: 2\r\n\r\none\r\n")

    def test_orderOfFields(self) -> None:
        """A second filter counts the fields that the first has left."""
        message = "A: 1\r\nA: 2\r\nA: 3\r\n\r\nbody\r\n"
        one = Script({b"E": changeHeader(1, "A", "") + CONTINUE})
        two = Script({b"E": changeHeader(2, "A", "4") + CONTINUE}, steps=Step.NO_BODY)
        self.assertEqual(self.sent(one, two, message=message)[:3], "250")
        self.assertEqual(two.of(b"L"), [b"A\0" + b"2\0", b"A\0" + b"3\0"])
        self.assertEqual(self.kept, "A: 2\r\nA: 4\r\n\r\nbody\r\n")

    def test_orderOfVerdicts(self) -> None:
        """What a second filter says of a header section that it is shown late counts as ever."""
        large = TEXT + "x" * 70_000 + "\r\n"
        for message in (TEXT, large):
            for letter in (b"L", b"N"):
                for said, code in ((ACCEPT, "250"), (DISCARD, "250"), (REJECT, "550")):
                    one = Script({b"E": addHeader("A", "1") + CONTINUE})
                    two = Script({letter: said}, actions=Action(0))
                    self.assertEqual(self.sent(one, two, message=message)[:3], code)
                    self.assertEqual(two.letters[-1:], letter.decode())
                    kept = self.submission.delivery.messages  # type: ignore[attr-defined]
                    self.assertEqual(len(kept), said == ACCEPT)

    def test_orderInLog(self) -> None:
        """The log names the filter that has refused, also where the first lets go of the body."""
        tooLarge = "A: " + "x" * 65_600 + "\r\n"
        for letter, field in ((b"L", ""), (b"B", ""), (b"E", ""), (b"", tooLarge)):
            self.events.clear()
            one, two = Script(steps=Step.NO_HEADER), Script({letter: REJECT})
            self.make(one, two)
            self.policies[0].name, self.policies[1].name = "one", "two"
            talk = self.again()
            self.greet(talk)
            message = TEXT.replace("\r\n\r\n", f"\r\n{field}\r\n") + "x" * 70_000 + "\r\n"
            self.assertIn(self.send(talk, message)[-1][:3], ("550", "552"))
            [event] = [each for each in self.events if each.get("origin")]
            self.assertEqual(event["origin"], "two at message")

    def test_orderOfMessages(self) -> None:
        """A message that the first filter accepts at once is shown to the second as it comes."""
        one = Script({b"E": changeHeader(1, "Subject", "one") + CONTINUE})
        two = Script()
        talk = self.make(one, two)
        self.greet(talk)
        self.send(talk)
        one.does[b"M"] = ACCEPT
        two.does[b"L"] = REJECT
        begin = ("MAIL FROM:<alice@a.example>", "RCPT TO:<bob@b.example>", "DATA")
        self.talk(talk, *begin)
        talk.say("A: 1", "", "body")
        self.assertEqual(two.letters[-1], "L")


class FailureTests(MilterCase):
    """A filter that is away, hangs, dies, or talks nonsense, at every stage."""

    def test_matrix(self) -> None:
        """The setting's choice, an event, nothing half-kept; cured, it filters the next message."""
        for name, letter in COMMANDS.items():
            for word in ("hang", "close", "nonsense", "empty", "huge", "twice"):
                for on_failure, code in (("tempfail", "451"), ("reject", "550"), ("accept", "")):
                    if word == "twice" and name == "header":
                        continue  # the second is taken for the answer to the next field
                    self.check(name, letter, word, on_failure, code)

    def check(self, name: str, letter: bytes, word: Does, on_failure: str, code: str) -> None:
        what = f"{word!r} at {name}, {on_failure}"
        self.events.clear()
        script = Script({letter: word if isinstance(word, bytes) else WORDS[word]})
        talk = self.make(script, on_failure=on_failure)
        self.greet(talk)
        said = self.send(talk)
        delivery: Any = self.submission.delivery
        if name in ("connect", "hello") and word == "twice":
            pass  # whatever shows it first
        elif code:
            self.assertIn(code, {each[:3] for each in said}, what)
            self.assertEqual(delivery.messages, [], what)
        else:
            self.assertEqual(said[-1][:3], "250", what)
            self.assertEqual(self.kept, TEXT, what)
        self.assertTrue(all(each.state != "open" for each in delivery.begun), what)
        self.assertGreaterEqual(len(self.named("filter-failed")), 1, what)
        self.clock.advance(policy.PAUSE)
        script.does = {b"E": addHeader("X", "1") + CONTINUE}
        self.talk(talk, "RSET")
        self.assertEqual(self.send(talk)[-1][:3], "250", what)
        self.assertIn(b"X: 1\r\n", delivery.messages[-1].octets, what)
        talk.lose()
        self.assertEqual(self.policies[0]._talks, {}, what)
        self.policies[0].stop()
        self.assertEqual(script.open, [], what)

    def test_otherQuestion(self) -> None:
        """What answers another question is a failure at every stage, and its connection goes."""
        for name, letter in COMMANDS.items():
            for answer in (negotiated(macros=b"\0\0\0\0j\0"), addHeader("X", "1"), SKIP):
                if (name, answer[4:5]) in {("negotiate", b"O"), ("body", b"s"), ("eom", b"h")}:
                    continue  # there it is one
                self.check(name, letter, answer, "tempfail", "451")
                self.assertEqual(self.named("policy-failed"), [])

    def test_refused(self) -> None:
        """Where nobody listens it is tried again a second later, and an event says it is back."""
        script = Script(refuses=True)
        talk = self.make(script)
        self.greet(talk)
        self.assertEqual(self.send(talk)[0][:3], "451")
        script.refuses = False
        self.assertEqual(self.send(talk)[0][:3], "451")
        self.clock.advance(policy.PAUSE)
        self.assertEqual(self.send(talk)[-1][:3], "250")
        self.assertEqual(len(self.named("filter-back")), 1)
        causes = {each["cause"] for each in self.named("filter-failed")}
        self.assertIn(
            "cannot be connected to: Connection was refused by other side: nobody listens.", causes
        )

    def test_notConnected(self) -> None:
        """A connection that is never made is given up in time."""
        self.patch(Script, "connect", lambda *_: hanging())
        talk = self.make(Script())
        self.assertEqual(talk.transport.taken(), b"")
        self.clock.advance(5)
        self.assertIn(b"220", talk.transport.taken())
        [event] = self.named("filter-failed")
        self.assertEqual(event["cause"], "not connected within 5 s")

    def test_crowded(self) -> None:
        """One whose queue of new connections is full is tried again, and misses nothing."""
        patched = self.patch(Script, "connect", lambda *_: crowded())
        talk = self.make(Script())
        self.clock.pump([0.01, 0.03])
        patched.restore()
        self.clock.advance(0.1)
        self.greet(talk)
        self.assertEqual(self.send(talk)[-1][:3], "250")
        self.assertEqual(self.named("filter-failed"), [])

    def test_alwaysCrowded(self) -> None:
        """For as long as connecting may take; then it is away."""
        self.patch(Script, "connect", lambda *_: crowded())
        talk = self.make(Script())
        self.assertEqual(talk.transport.taken(), b"")
        self.clock.pump([0.01] * 500)
        self.assertIn(b"220", talk.transport.taken())
        [event] = self.named("filter-failed")
        said = "cannot be connected to: its queue of new connections is full"
        self.assertEqual(event["cause"], said)

    def test_notStarted(self) -> None:
        """A policy that no service has started is a filter that is away."""
        submission = makeSubmission(
            self.clock, policies=[made(Script())], loginRequired=False, requireTLS=False
        )
        talk = Conversation(submission)
        talk.say("EHLO c.example")
        self.assertEqual(talk.say("MAIL FROM:<>")[:3], "451")

    def test_withoutConnection(self) -> None:
        """A policy that has not seen the connection begin, as in a program, begins there."""
        script = Script()
        talk = self.make(script)
        self.policies[0]._talks.clear()
        talk.transport.clear()
        self.assertEqual(self.talk(talk, "HELO c.example")[0][:3], "250")
        self.assertEqual(self.send(talk)[-1][:3], "250")
        self.assertEqual(script.letters, "CCHMRTLLNBE")

    def test_diskFull(self) -> None:
        """A body that cannot be kept back is asked about no more; the next message is."""
        script = Script({b"B": HANG})
        talk = self.make(script)
        self.greet(talk)

        def full(aside: object, octets: bytes) -> None:
            raise Refused(STORAGE_FULL)

        patched = self.patch(Aside, "write", full)
        self.assertEqual(self.send(talk, "A: b\r\n\r\n" + "x\r\n" * 30000)[-1][:3], "452")
        patched.restore()
        script.does = {}
        self.assertEqual(self.send(talk)[-1][:3], "250")
        self.assertEqual(script.letters, "CHMRTLNAMRTLLNBE")
        self.clock.advance(100)
        self.assertEqual(self.named("filter-failed"), [])

    def test_diskFullAtEnd(self) -> None:
        """So it is where only the last octets cannot be kept: the client is answered."""
        talk = self.make(Script())
        self.greet(talk)
        patched = self.patch(
            tempfile,
            "SpooledTemporaryFile",
            lambda _: open("/dev/full", "r+b"),  # noqa: SIM115
        )
        self.assertEqual(self.send(talk)[-1][:3], "452")
        patched.restore()
        self.assertEqual(self.send(talk)[-1][:3], "250")
        self.assertEqual(self.named("policy-failed"), [])

    def test_speaksUnasked(self) -> None:
        """What nobody asked for ends the connection; the next message has another."""
        script = Script()
        talk = self.make(script)
        self.greet(talk)
        script.open[0].transport.write(CONTINUE)
        self.assertEqual(script.open, [])
        self.assertEqual(self.send(talk)[-1][:3], "250")

    def test_clientGone(self) -> None:
        """A client that goes while the filter takes its time leaves nothing behind."""
        for name, letter in COMMANDS.items():
            script = Script({letter: HANG})
            talk = self.make(script)
            for line in ("HELO c", "MAIL FROM:<a@b.c>", "RCPT TO:<b@c.d>", "DATA", TEXT + "."):
                talk.say(*line.split("\r\n"))
            talk.lose()
            self.assertEqual(script.open, [], name)
            self.assertEqual(self.policies[0]._talks, {})
            begun: Any = self.submission.delivery.begun  # type: ignore[attr-defined]
            self.assertTrue(all(each.state == "aborted" for each in begun), name)
        self.assertEqual(self.named("filter-failed"), [])
        self.assertEqual(self.named("policy-failed"), [])

    def test_readsNothing(self) -> None:
        """A filter that answers nothing and reads nothing does not fill the memory."""
        script = Script(steps=Step.NR_BODY)
        talk = self.make(script)
        self.greet(talk)
        self.talk(talk, "MAIL FROM:<alice@a.example>", "RCPT TO:<bob@b.example>", "DATA")
        [connection] = [each.connection for each in self.policies[0]._talks.values()]
        verifyObject(IPushProducer, connection)
        connection.pauseProducing()
        connection.pauseProducing()
        talk.send(b"A: b\r\n\r\n" + b"x" * 70_000 + b"\r\n")
        self.assertEqual(talk.transport.producerState, "paused")
        connection.resumeProducing()
        self.assertEqual(talk.transport.producerState, "producing")
        connection.pauseProducing()
        talk.send(b"x" * 70_000 + b"\r\n")
        self.clock.advance(20)
        self.assertEqual(talk.send(b".\r\n")[:3], b"451")
        [event] = self.named("filter-failed")
        self.assertEqual((event["cause"], event["stage"]), ("reads nothing within 20 s", "body"))

    def test_largeField(self) -> None:
        """A header field that the filter could not be shown whole is refused."""
        said = self.sent(Script(), message="A: " + "x" * 65_600 + "\r\n\r\n")
        self.assertEqual(said, "552 5.3.4 Header field too large")

    def test_bug(self) -> None:
        """A bug of ours is 451, and the connection is not used again."""
        script = Script()
        self.patch(miltertalk.Transaction, "data", lambda *_: 1 // 0)
        talk = self.make(script)
        self.greet(talk)
        said = self.send(talk)
        self.assertEqual(said[-1][:3], "451")
        self.assertEqual(script.open, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.talk(talk, "RCPT TO:<b@c.d>")[0][:3], "451")


class ClientTests(MilterCase):
    """Corners of a connection."""

    def test_notNegotiating(self) -> None:
        """What answers the negotiation with a verdict has not negotiated."""
        for said in (CONTINUE, REJECT, replyCode("550 No")):
            self.events.clear()
            self.greet(self.make(Script({b"O": said})))
            [event] = self.named("filter-failed")
            self.assertEqual(event["cause"], "it did not negotiate")

    def test_givenUpConnecting(self) -> None:
        """A client that goes while the filter is connected to fails nobody, also not the next."""
        patched = self.patch(Script, "connect", lambda *_: hanging())
        self.make(Script()).lose()
        patched.restore()
        talk = self.again()
        self.greet(talk)
        self.assertEqual(self.send(talk)[-1][:3], "250")
        self.assertEqual(self.named("filter-failed"), [])
        self.assertEqual(self.named("policy-failed"), [])

    def test_quiet(self) -> None:
        """Twisted's own lines for each connection are not in the log."""
        self.greet(self.make(Script()))
        self.assertEqual([event for event in self.events if "factory" in event], [])

    def test_atOnce(self) -> None:
        """What is sent does not wait for an acknowledgement."""
        self.greet(self.make(Script()))
        [talk] = self.policies[0]._talks.values()
        assert talk.connection is not None
        transport: Any = talk.connection.transport
        self.assertTrue(transport.isAtOnce)

    def test_slowly(self) -> None:
        """An answer may come octet by octet; what comes behind a failure is dropped."""
        script = Script({b"R": HANG})
        talk = self.make(script)
        self.greet(talk)
        self.talk(talk, "MAIL FROM:<alice@a.example>")
        talk.say("RCPT TO:<bob@b.example>")
        [filter_] = script.open
        for at in range(5):
            self.assertEqual(talk.transport.taken(), b"")
            filter_.transport.write(CONTINUE[at : at + 1])
        self.assertIn(b"250", talk.transport.taken())
        [connection] = [each.connection for each in self.policies[0]._talks.values()]
        connection.fail("enough")
        connection.dataReceived(CONTINUE)
        connection.write(CONTINUE)
        connection.end(CONTINUE)
        connection.stopProducing()
        self.assertEqual(str(connection.failed), "enough")

    def test_where(self) -> None:
        """The endpoint is made of the setting, with the reactor of the service."""
        made = Milter("inet:127.0.0.1:8891")
        made.start(self.clock)
        endpoint: Any = made.where()
        self.assertEqual((endpoint._host, endpoint._port), ("127.0.0.1", 8891))


SAYS = st.one_of(
    st.sampled_from(list(WORDS.values())),
    st.binary(max_size=30),
    st.lists(
        st.one_of(
            st.builds(
                milter.packet,
                st.sampled_from([bytes([each]) for each in b"acdrtspf4Oyhime+2-bq"]),
                st.one_of(
                    st.binary(max_size=20),
                    st.sampled_from([b"", b"A\0b\0", b"\0\0\0\1To\0\0", b"<b@c.d>\0", b"a\r\nb\n"]),
                ),
            ),
            st.sampled_from(
                [addHeader("X", "1\n 2"), changeHeader(1, "subject", ""), replaceBody(b"x\n.\n")]
            ),
        ),
        max_size=4,
    ).map(lambda packets: b"".join(packets) + CONTINUE),
)


class AnythingTests(MilterCase):
    """Filters that say anything."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.dictionaries(st.sampled_from(list(COMMANDS.values())), SAYS, max_size=4),
        st.sampled_from(["tempfail", "accept", "reject"]),
        st.sampled_from([NEVER, Step.NR_HEADER | Step.NR_BODY, Step.LEADING_SPACE]),
    )
    def test_anything(self, does: dict[bytes, Any], on_failure: str, steps: Step) -> None:
        """Each command has one reply, what is kept is well-formed, and nothing is left behind."""
        self.events.clear()
        script = Script(does, steps=steps)
        talk = self.make(script, on_failure=on_failure)
        for _ in range(20):
            self.clock.advance(5)
        greeting = talk.transport.taken()
        self.assertRegex(greeting, rb"^(220|421|554)[^\r\n]*\r\n$")
        if greeting.startswith(b"220"):  # who is turned away by 554 can only say QUIT
            self.talk(talk, "HELO client.example")
            for _ in range(2):
                self.send(talk)
                if talk.transport.disconnecting:
                    break
                self.assertEqual(self.talk(talk, "RSET"), ["250 2.0.0 Flushed"])
        talk.lose()
        delivery: Any = self.submission.delivery
        self.assertTrue(all(each.state != "open" for each in delivery.begun))
        for message in delivery.messages:
            bare = message.octets.replace(b"\r\n", b"")
            self.assertNotIn(b"\r", bare)
            self.assertNotIn(b"\n", bare)
        self.assertEqual(self.named("policy-failed"), [])
        self.assertEqual(self.policies[0]._talks, {})


class SettingsTests(SynchronousTestCase):
    """The keys."""

    def test_endpoints(self) -> None:
        """Twisted's forms and that of other mail servers; anything else is a mistake."""
        for good in ("tcp:127.0.0.1:8891", "inet:127.0.0.1:8891", "unix:/run/x.sock"):
            self.assertEqual(Milter(good).endpoint, good)
        for bad in ("", "8891", "inet:8891", "inet", "what:1", "tcp:127.0.0.1:port", "unix:"):
            self.assertRaises(ValueError, Milter, bad)

    def test_delays(self) -> None:
        """A stage that is over first would keep ``on_failure`` from deciding."""
        verifyObject(interfaces.IDelays, Milter("unix:/a"))
        self.assertEqual(Milter("unix:/a").delays(), {})
        self.assertEqual(
            Milter("unix:/a", on_failure="accept", timeout=90.0).delays(),
            {"connect_timeout": 5.0, "timeout": 90.0, "message_timeout": 50.0},
        )

    def test_macros(self) -> None:
        """A macro has a name of letters, in braces or not."""
        self.assertEqual(
            Milter("unix:/a", macros={"{a}": "1", "b": "2"}).macros, {"a": "1", "b": "2"}
        )
        self.assertRaises(ValueError, Milter, "unix:/a", macros={"a b": "1"})

    def test_made(self) -> None:
        """From a section of the configuration."""
        keys = {"endpoint": "unix:/a", "timeout": "5 s", "macros": {"daemon_name": "x"}}
        made, findings = Component("milter", keys).make(REGISTRY, "policy[0]")
        self.assertEqual(findings, [])
        self.assertEqual((made.timeout, made.check()), (5.0, []))
        self.assertEqual(len(Milter("unix:/a", name=" ").check()), 1)
