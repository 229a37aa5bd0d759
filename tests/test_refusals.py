"""Tests of :mod:`submitd.refusals`, and of what a dialogue says and logs when it refuses."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd import events, refusals
from submitd.connections import Connections
from submitd.interfaces import IDataPolicy, ILoginPolicy, ISenderPolicy
from submitd.realm import SubmissionRealm
from submitd.refusals import RefusalFile, RefusalIds
from submitd.settings import Component, RefusalSettings
from submitd.wire.errors import Refused
from submitd.wire.reply import MAX_TEXT, Reply
from tests.fixtures import Conversation, MemoryDelivery, makeSubmission

NO = Reply(550, "5.7.1", "Not that")
WRONG = "AUTH PLAIN AGFsaWNlAHdyb25n"
ID = re.compile(r"\(id ([A-Z2-7]{8})\)$")


class Heard(SynchronousTestCase):
    """Hears the refusals that the log is told of."""

    def setUp(self) -> None:
        self.heard: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.listen)
        self.addCleanup(globalLogPublisher.removeObserver, self.listen)

    def listen(self, event: dict[str, Any]) -> None:
        if event.get("event") == "refused":
            self.heard.append(event)

    def facts(self, *names: str) -> list[Any]:
        """Fields of the last refusal."""
        return [self.heard[-1].get(name) for name in names]


@implementer(ISenderPolicy, IDataPolicy)
class Slow:
    """Consents to a sender when it is told to, and refuses the data."""

    name = "slow"

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def validateFrom(self, session: Any, envelope: Any) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def dataRequested(self, session: Any, envelope: Any) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]


class IdTests(SynchronousTestCase):
    """The ids themselves, and how a reply shows one."""

    def test_form(self) -> None:
        """Eight characters of base32, as the documentation promises to those who search for it."""
        for _ in range(100):
            self.assertRegex(RefusalIds()(), r"^[A-Z2-7]{8}$")

    def test_unique(self) -> None:
        """No id comes twice, and the next one cannot be read off the last."""
        ids = RefusalIds()
        given = [ids() for _ in range(20_000)]
        self.assertEqual(len(set(given)), len(given))
        self.assertNotEqual(given[:100], sorted(given[:100]))

    def test_workers(self) -> None:
        """Processes of one service, each with its number, never give the same id."""
        one, other = RefusalIds(worker=1), RefusalIds(worker=2)
        mine, theirs = {one() for _ in range(3000)}, {other() for _ in range(3000)}
        self.assertEqual((len(mine), len(theirs), mine & theirs), (3000, 3000, set()))

    def test_start(self) -> None:
        """Another start gives other ids, even from the worst of random numbers."""
        self.assertNotEqual(RefusalIds()(), RefusalIds()())
        ids = RefusalIds(lambda count: bytes(count))
        self.assertEqual([ids(), ids()], ["AAAAAAAB", "AAAAAAAC"])

    def test_lastLine(self) -> None:
        """Of several lines the last one has it: clients show that one, or all of them."""
        reply = Reply(550, "5.7.1", ["No.", "Really."]).marked("ABCDEFGH")
        self.assertEqual(reply.wire, b"550-5.7.1 No.\r\n550 5.7.1 Really. (id ABCDEFGH)\r\n")

    def test_long(self) -> None:
        """A text of the greatest length gives way to it."""
        [line] = Reply(550, "5.7.1", "x" * MAX_TEXT).marked("ABCDEFGH").lines
        self.assertEqual(len(line), MAX_TEXT)
        self.assertTrue(line.endswith("x (id ABCDEFGH)"))


class DialogueTests(Heard):
    """What a dialogue says, and what the log is told."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()

    def talk(self, **changes: Any) -> Conversation:
        """A client that need not log in, introduced."""
        changes = {"loginRequired": False, "requireTLS": False, **changes}
        talk = Conversation(makeSubmission(self.clock, refusalIds=RefusalIds(), **changes))
        talk.say("EHLO client.example")
        return talk

    def refused(self, said: str) -> str:
        """The id of the refusal that was said, which is the last one logged."""
        found = ID.search(said)
        assert found is not None, said
        self.assertEqual(self.heard[-1]["refusal"], found[1])
        return found[1]

    def test_every(self) -> None:
        """Each kind of refusal has an id of its own, and what is no refusal has none."""
        talk = self.talk(limits=makeSubmission().limits)
        talk.transport.clear()
        given = [
            self.refused(talk.say(line))
            for line in ("FOO", "MAIL", "MAIL FROM:<>x", "DATA", "NOOP\0", "AUTH FOO", "BDAT 0")
        ]
        self.assertEqual(len(set(given)), len(given))
        self.assertNotIn("(id", talk.say("NOOP") + talk.say("EHLO x.example") + talk.say("VRFY a"))

    def test_none(self) -> None:
        """Without a source of ids there are none, in the reply and in the log."""
        talk = self.talk()
        plain = Conversation(makeSubmission(loginRequired=False, requireTLS=False))
        plain.say("EHLO client.example")
        self.assertNotIn("(id", plain.say("FOO"))
        self.assertEqual(self.facts("refusal"), [None])
        self.assertIn("(id", talk.say("FOO"))

    def test_greeting(self) -> None:
        """A client that is turned away at the door has an id to tell."""
        full = Connections(self.clock, 1)
        submission = makeSubmission(self.clock, refusalIds=RefusalIds())
        Conversation(submission, connections=full)
        away = Conversation(submission, connections=full)
        said = away.transport.taken().decode().rstrip()
        self.assertTrue(said.startswith("421 4.7.0 Too many connections"), said)
        self.refused(said)

    def test_login(self) -> None:
        """535 is the same for every cause but for the id; the cause is in the log alone."""
        talk = self.talk(insecureLogin=True)
        said = [talk.say(WRONG), talk.say("AUTH PLAIN AG5vYm9keQB3b25kZXJsYW5k")]
        self.assertEqual(
            {ID.sub("", each) for each in said}, {"535 5.7.8 Authentication credentials invalid "}
        )
        self.refused(said[1])
        text = json.dumps([event["log_text"] for event in self.heard])
        self.assertNotIn("wrong", text)
        self.assertNotIn("nobody", text)
        self.assertNotIn("AG5", text)

    def test_address(self) -> None:
        """The address of MAIL and RCPT is in the log; what people type in a wrong place is not."""
        talk = self.talk(insecureLogin=True)
        for line, address in (
            ("MAIL FROM:<a@example.com> FOO=sesame", "<a@example.com>"),
            ("MAIL sesame", None),
            ("EHLO sesame x", None),
            (WRONG, None),
        ):
            talk.say(line)
            self.assertEqual(self.facts("command", "address"), [line.split()[0], address])
            self.assertNotIn("sesame", self.heard[-1]["log_text"])
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net> FOO=1")
        self.assertEqual(self.facts("command", "address"), ["RCPT", "b@example.net"])
        talk.say("DATA")
        self.assertEqual(self.facts("command", "address"), ["DATA", None])

    def test_message(self) -> None:
        """A refusal behind DATA says which message it was: id, sender, recipients, size."""
        talk = self.talk()
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA")
        self.refused(talk.say("a\nb", "."))
        id = f"{talk.protocol.dialogue.session.id}-1"
        self.assertEqual(
            self.facts("id", "sender", "recipients", "size"), [id, "<a@example.com>", 1, 5]
        )

    def test_chunks(self) -> None:
        """So does one behind BDAT, where the transaction is over by then."""
        talk = self.talk()
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
        self.refused(talk.send(b"BDAT 5\r\na\nb\r\n").decode().rstrip())
        self.assertEqual(self.facts("sender", "recipients", "size"), ["<a@example.com>", 1, 5])

    def test_outcomes(self) -> None:
        """What a delivery answers for a recipient is a refusal like any other."""
        replies = [Reply(250, "2.0.0", "Ok"), NO]
        delivery = MemoryDelivery(onEnd=lambda message: replies)
        for lmtp in (True, False):
            talk = self.talk(delivery=delivery, lmtp=lmtp)
            hello = "LHLO" if lmtp else "EHLO"
            talk.say(f"{hello} client.example", "MAIL FROM:<a@example.com>")
            talk.say("RCPT TO:<b@example.net>", "RCPT TO:<c@example.net>", "DATA")
            said = talk.say("hello", ".").split("\n")
            self.assertEqual(len(said), 2 if lmtp else 1)
            self.refused(said[-1])
            self.assertEqual(self.facts("cause"), ["the delivery, for c@example.net"])

    def test_times(self) -> None:
        """It is told which policy took how long, and how long this command waited."""
        slow = Slow()
        talk = self.talk(policies=[slow])
        self.clock.advance(1)
        talk.say("MAIL FROM:<a@example.com>")
        self.clock.advance(2)
        slow.waiting[-1].callback(None)
        talk.say("RCPT TO:<b@example.net>", "DATA")
        talk.transport.clear()
        self.clock.advance(3)
        slow.waiting[-1].errback(Refused(NO, "why not"))
        self.refused(talk.transport.taken().decode().rstrip())
        self.assertEqual(
            self.facts("origin", "cause", "seconds", "waited", "waits"),
            ["slow at data", "why not", 6.0, 3.0, "slow at sender 2.000 s, slow at data 3.000 s"],
        )
        talk.say("FOO")
        self.assertEqual(self.facts("waited"), [None])

    def test_manyWaits(self) -> None:
        """A session that goes on for ever does not remember every wait."""
        slow = Slow()
        talk = self.talk(policies=[slow])
        for _ in range(30):
            talk.say("MAIL FROM:<a@example.com>")
            slow.waiting[-1].callback(None)
            talk.say("RSET")
        self.assertEqual(len(talk.protocol.dialogue.session.waits), 10)


@implementer(ICredentialsChecker)
class OwnWords:
    """A checker that refuses in its own words."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def requestAvatarId(self, credentials: Any) -> Any:
        raise Refused(self.reply, "my own reason")


@implementer(ILoginPolicy)
class Told:
    """Notes the logins that failed, and perhaps refuses itself."""

    def __init__(self, objection: Reply | None = None) -> None:
        self.failed: list[bytes] = []
        self.objection = objection

    def loginRequested(self, session: Any, credentials: Any) -> None:
        pass

    def loginSucceeded(self, session: Any, avatar: Any) -> None:
        raise AssertionError("nobody logs in here")

    def loginFailed(self, session: Any, credentials: Any, failure: Any) -> None:
        self.failed.append(credentials.username)
        if self.objection is not None:
            raise Refused(self.objection)


class CheckerTests(Heard):
    """A checker, or a policy of identities, that raises Refused itself."""

    def talk(self, reply: Reply, told: Told) -> Conversation:
        """A client of a service with that checker."""
        portal = Portal(SubmissionRealm(), [OwnWords(reply)])
        talk = Conversation(
            makeSubmission(portal=portal, policies=[told], insecureLogin=True, requireTLS=False)
        )
        talk.transport.clear()
        talk.say("EHLO client.example")
        return talk

    def test_permanent(self) -> None:
        """It counts as a login that failed, for policies too, and is answered in its own words."""
        told = Told()
        talk = self.talk(Reply(550, "5.7.1", "Account closed"), told)
        self.assertEqual(talk.say(WRONG), "550 5.7.1 Account closed")
        self.assertEqual(told.failed, [b"alice"])
        self.assertEqual(talk.protocol.dialogue.session.loginFailures, 1)
        self.assertEqual(self.facts("cause"), ["my own reason"])

    def test_tooMany(self) -> None:
        """The third one ends the connection, as with any other checker."""
        talk = self.talk(Reply(550, "5.7.1", "Account closed"), Told())
        said = [talk.say(WRONG)[:3] for _ in range(3)]
        self.assertEqual(said, ["550", "550", "421"])
        self.assertTrue(talk.transport.disconnecting)

    def test_transient(self) -> None:
        """A checker that cannot tell now says nothing about the password."""
        told = Told()
        talk = self.talk(Reply(451, "4.3.0", "Away"), told)
        self.assertEqual(talk.say(WRONG), "451 4.3.0 Away")
        self.assertEqual((told.failed, talk.protocol.dialogue.session.loginFailures), ([], 0))

    def test_objection(self) -> None:
        """What a policy says to the failure goes before the checker's words."""
        talk = self.talk(Reply(550, "5.7.1", "Account closed"), Told(NO))
        self.assertEqual(talk.say(WRONG), "550 5.7.1 Not that")


class FileTests(Heard):
    """RefusalFile and find."""

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())

    def kept(self, size: int = 10_000) -> RefusalFile:
        """A file that listens."""
        kept = RefusalFile(self.path, size)
        kept.open()
        self.addCleanup(kept.close)
        return kept

    def refuse(self, *ids: str) -> None:
        for id in ids:
            events.emit(events.REFUSED, session="S", reply="550 no", cause="x", refusal=id)

    def test_found(self) -> None:
        """A refusal is found by its id, with all that the log was told; others are not."""
        self.kept()
        events.emit(events.SERVICE_STOPPED, hostname="AAAAAAAA")
        self.refuse("AAAAAAAA", "BBBBBBBB")
        [found] = refusals.find(self.path, "BBBBBBBB")
        self.assertEqual((found["session"], found["cause"]), ("S", "x"))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(len(list(refusals.find(self.path, "AAAAAAAA"))), 1)
        self.assertEqual(list(refusals.find(self.path, "CCCCCCCC")), [])

    def test_nothing(self) -> None:
        """A service that refuses nothing makes no file."""
        self.kept()
        events.emit(events.SERVICE_STOPPED, hostname="x")
        self.assertFalse(self.path.exists())

    def test_bounded(self) -> None:
        """The file is turned when it is full, and only the one before is kept."""
        self.kept(1000)
        for at in range(100):
            self.refuse(f"AAAAAA{at:02}")
        files = [self.path, refusals.previous(self.path)]
        self.assertLess(sum(file.stat().st_size for file in files if file.exists()), 2500)
        self.assertEqual(set(self.path.parent.glob(f"{self.path.name}*")) - set(files), set())
        found = [list(refusals.find(file, "AAAAAA99")) for file in files if file.exists()]
        self.assertTrue(any(found))

    def test_shared(self) -> None:
        """Of two processes that share a file, one turns it, and the other follows."""
        one, other = RefusalFile(self.path, 1000), RefusalFile(self.path, 1000)
        for at in range(40):
            self.refuse(f"AAAAAA{at:02}")
            (one if at % 2 else other)(self.heard[-1])
        self.addCleanup(one.close)
        self.addCleanup(other.close)
        files = [f for f in (self.path, refusals.previous(self.path)) if f.exists()]
        kept = [
            at for at in range(40) if any(list(refusals.find(f, f"AAAAAA{at:02}")) for f in files)
        ]
        self.assertGreater(len(kept), 4)
        self.assertEqual(kept, list(range(kept[0], 40)), "one in between was lost")

    def test_damaged(self) -> None:
        """Lines that are cut off or nonsense are passed over."""
        self.path.write_bytes(
            b'"AAAAAAAA"\n{"event": "refused", "refusal": "AAAAAAAA"\n\xffAAAAAAAA'
        )
        self.assertEqual(list(refusals.find(self.path, "AAAAAAAA")), [])

    def test_unwritable(self) -> None:
        """A file that cannot be written is said once, and again when it has worked in between."""
        problems: list[Any] = []
        globalLogPublisher.addObserver(problems.append)
        self.addCleanup(globalLogPublisher.removeObserver, problems.append)
        directory = Path(self.mktemp())
        self.path = directory / "refusals"
        self.kept()
        self.refuse("AAAAAAAA", "AAAAAAAB")
        directory.mkdir()
        self.refuse("AAAAAAAC")
        self.assertEqual(len(list(refusals.find(self.path, "AAAAAAAC"))), 1)
        said = [each["problem"] for each in problems if each.get("event") == "service-problem"]
        self.assertEqual(len(said), 1)
        self.assertIn("No such file or directory", said[0])

    def test_link(self) -> None:
        """A link in its place is not followed: the service may be root's at its start."""
        target = Path(self.mktemp())
        os.symlink(target, self.path)
        self.kept()
        self.refuse("AAAAAAAA")
        self.assertFalse(target.exists())


class SettingsTests(SynchronousTestCase):
    """Where the file is."""

    def test_spool(self) -> None:
        """Without a word it is in the directory of the spool; other deliveries have none."""
        settings = RefusalSettings()
        spool = Component("spool", {"path": "queue"}, Path("/var/spool"))
        self.assertEqual(settings.path(spool), Path("/var/spool/queue/refusals.jsonl"))
        for delivery in (Component("discard"), Component("spool", {"url": "postgresql:///x"})):
            self.assertIsNone(settings.path(delivery))

    def test_named(self) -> None:
        """A file that is named holds for any delivery."""
        settings = RefusalSettings(file=Path("/x/y"))
        self.assertEqual(settings.path(Component("discard")), Path("/x/y"))
        self.assertEqual(settings.path(Component("spool", {"path": "q"})), Path("/x/y"))
