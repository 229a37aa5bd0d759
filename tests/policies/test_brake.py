"""Policy brake."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import Clock, deferLater
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from submitd import events
from submitd.counters import shared
from submitd.counters.history import HistoryFile
from submitd.counters.shared import SharedCounts
from submitd.interfaces import IChecked, IDataPolicy, IMayHold, IRunning, IShared
from submitd.policies import brake as module
from submitd.policies.brake import (
    COMMAND_TIME,
    MAX_COMMANDS,
    MAX_THREADS,
    PAUSE,
    WRITE_EVERY,
    Brake,
)
from submitd.spool.records import Action, Filter, State
from submitd.typed import Count, Rates
from tests.fixtures import Conversation, makeSubmission
from tests.spool.support import SpoolCase, makeEnvelope, makeSession

DAY = 86400.0


class Reactor(Clock):
    """A clock on which processes can be started; none is."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def spawnProcess(self, *arguments: Any) -> Process:
        self.processes.append(Process(*arguments))
        return self.processes[-1]


class Process:
    """What was asked for."""

    def __init__(self, protocol: Any, program: str, words: Any, environment: Any) -> None:
        self.protocol, self.program, self.words = protocol, program, words
        self.environment: dict[str, str] = environment
        self.signals: list[str] = []

    def closeStdin(self) -> None:
        self.signals.append("closed")

    def signalProcess(self, signal: str) -> None:
        self.signals.append(signal)


class BrakeCase(SynchronousTestCase):
    """Has a policy with its file, a clock, and the events; threads run at once."""

    def setUp(self) -> None:
        super().setUp()
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.clock = Reactor()
        self.clock.advance(1000 * DAY)
        self.file = Path(self.mktemp())
        self.number = 0

    def brake(self, **keys: Any) -> Brake:
        """A policy that runs."""
        policy = Brake(path=self.file, **keys)
        self.successResultOf(policy.start(self.clock, maybeDeferred))
        self.addCleanup(policy.stop)
        return policy

    def held(self, policy: Brake, *recipients: str, login: str = "alice") -> str | None:
        """Send a message; why it is held."""
        self.number += 1
        envelope = makeEnvelope(f"A-{self.number}", *recipients)
        waiting = policy.dataRequested(makeSession(login), envelope)
        if waiting is not None:
            self.assertIsNone(self.successResultOf(waiting))
        return envelope.hold

    def strangers(self, count: int) -> list[str]:
        """Recipients that nobody has written to."""
        self.number += count
        return [f"r{self.number - each}@example.net" for each in range(count)]

    def names(self) -> list[str]:
        """The events that were logged."""
        return [each["event"] for each in self.logged]


class FirstTimeTests(BrakeCase):
    """Recipients that a login has never written to."""

    def test_interfaces(self) -> None:
        """It takes part in DATA, runs, can be checked, and needs a delivery that holds."""
        policy = Brake(path=self.file)
        for interface in (IDataPolicy, IRunning, IChecked, IMayHold):
            self.assertTrue(verifyObject(interface, policy))

    def test_strangers(self) -> None:
        """Too many strangers brake the login: that message and all others are held, told once."""
        policy = self.brake(first_time=Rates("5/hour"))
        self.assertIsNone(self.held(policy, *self.strangers(3)))
        self.assertIsNone(self.held(policy, *self.strangers(2)))
        reason = "brake: more than 5 per hour first-time recipients"
        self.assertEqual(self.held(policy, *self.strangers(1)), reason)
        self.assertEqual(self.held(policy, "bob@example.net"), reason)
        self.assertIsNone(self.held(policy, *self.strangers(3), login="bob"))
        self.assertEqual(self.names(), ["brake-applied", "message-held", "message-held"])
        applied = self.logged[0]
        self.assertEqual((applied["user"], applied["peer"]), ("alice", "192.0.2.7"))
        self.assertEqual(applied["until"], "1972-09-28 00:00:00 UTC")

    def test_known(self) -> None:
        """Writing to the same people is never too much for this rule, nor is one of them twice."""
        policy = self.brake(first_time=Rates("5/hour"))
        same = self.strangers(5)
        for _ in range(20):
            self.assertIsNone(self.held(policy, *same, same[0].upper()))

    def test_time(self) -> None:
        """Strangers now and then are usual; when a brake is over, all begins anew."""
        policy = self.brake(first_time=Rates("5/hour"))
        for _ in range(5):
            self.assertIsNone(self.held(policy, *self.strangers(5)))
            self.clock.advance(3600)
        self.assertIsNotNone(self.held(policy, *self.strangers(6)))
        self.clock.advance(DAY)
        self.assertIsNone(self.held(policy, *self.strangers(5)))

    def test_setBack(self) -> None:
        """A brake of a clock that was far ahead lasts no longer than any when it is set back."""
        policy = self.brake(first_time=Rates("5/hour"))
        self.clock.rightNow += 3650 * DAY
        self.assertIsNotNone(self.held(policy, *self.strangers(6)))
        self.clock.rightNow -= 3650 * DAY
        self.assertIsNotNone(self.held(policy, *self.strangers(1)))
        self.clock.rightNow += DAY
        self.assertIsNone(self.held(policy, *self.strangers(5)))

    def test_clockSet(self) -> None:
        """How long a brake lasts stands in the file by the time of day, not by the reactor's."""
        alsoProvides(self.clock, IReactorCore)
        self.patch(time, "time", lambda: 2e9)
        policy = self.brake(first_time=Rates("5/hour"))
        self.assertIsNotNone(self.held(policy, *self.strangers(6)))
        read = HistoryFile(self.file).read("alice")
        self.assertEqual(read.braked, 2e9 + DAY)

    def test_anonymous(self) -> None:
        """Without a login there is nobody to be braked."""
        policy = self.brake(first_time=Rates("1/hour"))
        self.assertIsNone(self.held(policy, *self.strangers(9), login=""))

    def test_off(self) -> None:
        """Each rule can be left out."""
        policy = self.brake(first_time=Rates(""), factor=0.0)
        self.assertIsNone(self.held(policy, *self.strangers(900)))


class UsualTests(BrakeCase):
    """More than usual."""

    def policy(self) -> Brake:
        """One that only looks at the rate; ten recipients a day are learned."""
        policy = self.brake(first_time=Rates(""), at_least=Count(30), learning=Count(3))
        for _ in range(3):
            self.assertIsNone(self.held(policy, *self.strangers(10)))
            self.clock.advance(DAY)
        return policy

    def test_rate(self) -> None:
        """Several times the usual of a day brakes."""
        policy = self.policy()
        self.assertIsNone(self.held(policy, *self.strangers(50)))
        self.assertEqual(
            self.held(policy, "one@example.net"),
            "brake: 51 recipients in a day, and usually 10",
        )

    def test_atLeast(self) -> None:
        """Who usually sends next to nothing may send some more."""
        policy = self.brake(first_time=Rates(""), at_least=Count(30), learning=Count(1))
        self.held(policy, "bob@example.net")
        self.clock.advance(DAY)
        self.assertIsNone(self.held(policy, *self.strangers(30)))
        self.assertIsNotNone(self.held(policy, "bob@example.net"))

    def test_learning(self) -> None:
        """Before it is known what is usual, nothing is unusual."""
        policy = self.brake(first_time=Rates(""), at_least=Count(1), learning=Count(2))
        self.held(policy, "bob@example.net")
        self.clock.advance(DAY)
        self.assertIsNone(self.held(policy, *self.strangers(500)))


class FileTests(BrakeCase):
    """What is learned outlives the process, and the file may be broken."""

    def test_restart(self) -> None:
        """What is usual, and who is braked, is known after a restart."""
        policy = self.brake(first_time=Rates("5/hour"))
        same = self.strangers(5)
        self.held(policy, *same)
        self.successResultOf(policy.stop())
        policy = self.brake(first_time=Rates("1/hour"))
        self.assertIsNone(self.held(policy, *same))
        self.assertIsNotNone(self.held(policy, *self.strangers(2)))
        policy = self.brake(first_time=Rates("100/hour"))
        self.assertIsNotNone(self.held(policy, *same))
        self.assertEqual(self.names().count("brake-applied"), 1)

    def test_written(self) -> None:
        """It is written every few seconds: a crash forgets little."""
        policy = self.brake()
        self.held(policy, "bob@example.net")
        self.assertEqual(list(policy._file.read("alice").recipients), [])
        self.clock.advance(WRITE_EVERY)
        self.assertEqual(len(policy._file.read("alice").recipients), 1)

    def test_letGo(self) -> None:
        """An operator lets a login go from another process; it is not braked again at once."""
        policy = self.brake(first_time=Rates("1/hour"))
        strangers = self.strangers(9)
        self.assertIsNotNone(self.held(policy, *strangers))
        other = Brake(path=self.file)
        self.assertTrue(other.letGo("alice", self.clock.seconds() + DAY))
        self.successResultOf(other.stop())
        self.assertIsNone(self.held(policy, *strangers))
        self.assertIsNone(self.held(policy, *self.strangers(9)))
        self.clock.advance(DAY)
        # What was sent in that time is usual now.
        self.assertIsNone(self.held(policy, *strangers))
        self.assertIsNotNone(self.held(policy, *self.strangers(9)))

    def test_notWrittenYet(self) -> None:
        """A brake that is not in the file yet is not taken for one that was let go."""
        waiting: list[Any] = []

        def run(call: Any, *arguments: Any) -> Deferred[Any]:
            if call.__name__ == "brake":
                waiting.append(arguments)
                return Deferred()
            return maybeDeferred(call, *arguments)

        policy = Brake(path=self.file, first_time=Rates("1/hour"))
        policy.start(self.clock, run)
        self.assertIsNotNone(self.held(policy, *self.strangers(2)))
        self.assertEqual(len(waiting), 1)
        self.assertIsNotNone(self.held(policy, "bob@example.net"))

    def test_together(self) -> None:
        """Two first messages of a login at one time are both counted."""
        reads: list[tuple[Deferred[Any], Any, Any]] = []

        def run(call: Any, *arguments: Any) -> Deferred[Any]:
            reads.append((Deferred(), call, arguments))
            return reads[-1][0]

        policy = Brake(path=self.file, first_time=Rates("3/hour"))
        policy.start(self.clock, run)
        envelopes = [makeEnvelope(f"A-{at}", *self.strangers(2)) for at in range(2)]
        waiting = [policy.dataRequested(makeSession(), each) for each in envelopes]
        for result, call, arguments in list(reads):
            result.callback(call(*arguments))
        self.assertEqual([self.successResultOf(each) for each in waiting], [None, None])
        self.assertEqual([each.hold is None for each in envelopes], [True, False])

    def test_broken(self) -> None:
        """A file that cannot be used is said once; mail goes on, and brakes work without it."""
        self.file.write_bytes(b"no data base" * 100)
        policy = self.brake(first_time=Rates("3/hour"))
        self.assertIsNone(self.held(policy, *self.strangers(2)))
        self.assertIsNone(self.held(policy, *self.strangers(1), login="bob"))
        self.clock.advance(WRITE_EVERY)
        self.assertEqual(self.names(), ["brake-problem"])
        self.assertIn("file is not a database", self.logged[0]["problem"])
        self.assertIsNotNone(self.held(policy, *self.strangers(2)))
        self.assertIsNotNone(self.held(policy, "bob@example.net"))
        self.assertEqual(self.names().count("brake-problem"), 1)

    def locked(self) -> tuple[Brake, list[Deferred[Any]]]:
        """A policy, and what it does with its file, none of which has ended."""
        running: list[Deferred[Any]] = []

        def run(call: Any, *arguments: Any) -> Deferred[Any]:
            running.append(Deferred())
            return running[-1]

        policy = Brake(path=self.file)
        policy.start(self.clock, run)
        return policy, running

    def send(self, policy: Brake, login: str) -> Deferred[Any]:
        """A message that waits for the file."""
        waiting: Deferred[Any] = policy.dataRequested(makeSession(login), makeEnvelope("A-1"))
        return waiting

    def test_pause(self) -> None:
        """Who waits goes on when one fails, and so do all in the pause; then one tries again."""
        policy, running = self.locked()
        waiting = [self.send(policy, f"login{number}") for number in range(MAX_THREADS + 3)]
        self.assertEqual(len(running), MAX_THREADS)
        for each in list(running):
            each.errback(OSError("locked"))
        self.assertEqual([self.successResultOf(each) for each in waiting], [None] * len(waiting))
        self.clock.advance(PAUSE - 1)
        self.successResultOf(self.send(policy, "bob"))
        self.assertEqual(len(running), MAX_THREADS)
        self.clock.advance(1)
        tries = self.send(policy, "carol")
        self.successResultOf(self.send(policy, "dave"))
        self.assertEqual(len(running), MAX_THREADS + 1)
        self.assertEqual(self.names(), ["brake-problem"])
        running[-1].callback(None)
        self.successResultOf(tries)
        self.send(policy, "eve")
        self.assertEqual(len(running), MAX_THREADS + 2)
        self.assertEqual(self.names(), ["brake-problem", "brake-back"])

    def test_gone(self) -> None:
        """Who goes gives no turn away, and the file is not used for it later."""
        policy, running = self.locked()
        waiting = [self.send(policy, f"login{number}") for number in range(MAX_THREADS + 2)]
        for gone in (waiting[0], waiting[MAX_THREADS]):
            gone.cancel()
            self.failureResultOf(gone, CancelledError)
        self.assertEqual(len(running), MAX_THREADS)
        running[0].callback(None)
        self.assertEqual(len(running), MAX_THREADS + 1)
        running[-1].callback(None)
        self.successResultOf(waiting[-1])

    def test_learnedInPause(self) -> None:
        """What is learned in the pause is written after it, or when the service stops."""
        policy = self.brake()
        self.held(policy, "bob@example.net")
        policy._isBroken, policy._askAgain = True, self.clock.seconds() + 2 * WRITE_EVERY
        self.clock.advance(WRITE_EVERY)
        self.assertEqual(list(policy._file.read("alice").recipients), [])
        self.successResultOf(policy.stop())
        self.assertEqual(len(HistoryFile(self.file).read("alice").recipients), 1)

    def test_bounded(self) -> None:
        """So many logins are in memory; one that leaves it is written, and read again."""
        self.patch(module, "MAX_LOGINS", 2)
        policy = self.brake(first_time=Rates("100/hour"))
        for number in range(5):
            self.held(policy, "bob@example.net", login=f"login{number}")
        self.assertEqual(len(policy._logins), 2)
        self.assertEqual(len(policy._file.read("login0").recipients), 1)
        self.clock.advance(WRITE_EVERY)
        self.held(policy, "bob@example.net", login="login0")
        self.assertEqual(len(policy._logins), 2)


class CommandTests(BrakeCase):
    """The operator's command."""

    def applied(self, login: str = "alice", **keys: Any) -> Process:
        """Brake a login; the process that is started for it."""
        policy = self.brake(first_time=Rates("1/hour"), command=("/bin/tell", "me"), **keys)
        self.held(policy, *self.strangers(2), login=login)
        self.held(policy, *self.strangers(2), login=login)
        [process] = self.clock.processes
        return process

    def ended(self, process: Process, error: Exception) -> None:
        """The process is done."""
        from twisted.python.failure import Failure

        process.protocol.processEnded(Failure(error))

    def test_once(self) -> None:
        """It is run once, with its own arguments, and the facts in its environment."""
        process = self.applied("$(rm -rf /) --\0x")
        self.assertEqual((process.program, process.words), ("/bin/tell", ("/bin/tell", "me")))
        environment = process.environment
        self.assertEqual(environment.pop("PATH"), os.environ["PATH"])
        self.assertEqual(
            environment,
            {
                "SUBMITD_LOGIN": "$(rm -rf /) --?x",
                "SUBMITD_REASON": "more than 1 per hour first-time recipients",
                "SUBMITD_ADDRESS": "192.0.2.7",
                "SUBMITD_UNTIL": "1972-09-28 00:00:00 UTC",
            },
        )
        self.assertEqual(process.signals, ["closed"])

    def test_ends(self) -> None:
        """One that fails is said; one that is done is done."""
        from twisted.internet.error import ProcessDone, ProcessTerminated

        process = self.applied()
        self.ended(process, ProcessDone(0))
        self.assertNotIn("brake-problem", self.names())
        self.clock.advance(COMMAND_TIME)
        self.assertEqual(process.signals, ["closed"])
        self.ended(process, ProcessTerminated(3))
        self.assertIn("exit code 3", self.logged[-1]["problem"])

    def test_hangs(self) -> None:
        """One that takes too long is ended."""
        process = self.applied()
        self.clock.advance(COMMAND_TIME)
        self.assertEqual(process.signals, ["closed", "KILL"])

    def test_cannot(self) -> None:
        """One that cannot be started is said, and the message is held all the same."""

        def fails(*arguments: Any) -> Any:
            raise OSError(12, "Cannot allocate memory")

        self.patch(self.clock, "spawnProcess", fails)
        policy = self.brake(first_time=Rates("1/hour"), command=("/bin/tell",))
        self.assertIsNotNone(self.held(policy, *self.strangers(2)))
        self.assertEqual(
            self.logged[-1]["problem"], "/bin/tell: cannot be run: Cannot allocate memory"
        )

    def test_bounded(self) -> None:
        """Only so many run at one time."""
        policy = self.brake(first_time=Rates("1/hour"), command=("/bin/tell",))
        for number in range(MAX_COMMANDS + 2):
            self.held(policy, *self.strangers(2), login=f"login{number}")
        self.assertEqual(len(self.clock.processes), MAX_COMMANDS)
        self.assertEqual(self.logged[-1]["problem"], f"{MAX_COMMANDS} commands run already")


class CheckTests(BrakeCase):
    """What is said beforehand."""

    def said(self, **keys: Any) -> list[str]:
        """What is wrong."""
        return Brake(**{"path": self.file, **keys}).check()

    def test_good(self) -> None:
        """Nothing, where all is well."""
        self.assertEqual(self.said(command=(sys.executable, "-c", "pass")), [])

    def test_notWritable(self) -> None:
        """A file that nothing can be learned in would brake nobody by what is usual."""
        self.patch(os, "access", lambda path, mode: mode != os.W_OK)
        self.assertEqual(self.said(), [f"path: no permission to write to {self.file.parent}"])

    def test_mistakes(self) -> None:
        """Each mistake."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "text").write_text("no program")
        for keys, expected in (
            ({"path": directory}, f"path: {directory} is a directory"),
            ({"path": directory / "x" / "y"}, f"path: there is no directory {directory / 'x'}"),
            ({"command": ("tell",)}, "command: tell must be an absolute path"),
            ({"command": ("/no/such",)}, "command: /no/such is no program"),
            ({"command": ("/bin/sh", "a\0b")}, "command: has a NUL"),
            (
                {"factor": 0.0, "first_time": Rates("")},
                "brakes nobody: there is neither first_time nor factor",
            ),
        ):
            self.assertEqual(self.said(**keys), [expected])


class HoldTests(BrakeCase, SpoolCase):
    """What becomes of a held message."""

    def test_spool(self) -> None:
        """It is answered 250, waits in the spool with the reason, and goes when it is released."""
        policy = self.brake(first_time=Rates("1/hour"))
        talk = Conversation(makeSubmission(self.clock, delivery=self.spool, policies=[policy]))
        talk.login()
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>")
        talk.say("DATA")
        said = talk.say("Subject: x", "", "hello", ".")
        self.assertTrue(said.startswith("250 2.0.0 Ok: queued as "), (said, self.logged))
        reason = "brake: more than 1 per hour first-time recipients"
        [listed] = self.successResultOf(self.queue.messages(Filter(login="alice")))
        self.assertEqual(
            [(each.state, each.due, each.reply) for each in listed.recipients],
            [(State.HELD, None, reason)] * 2,
        )
        shown = self.successResultOf(self.queue.show(listed.id))
        self.assertEqual([(each.event, each.text) for each in shown.history], [("held", reason)])
        self.assertEqual(self.lease(), [])
        meant = Filter(ids=(listed.id,))
        self.assertEqual(
            self.successResultOf(self.queue.change(Action.RELEASE, meant, "operator")), 2
        )
        [work] = self.lease()
        self.assertEqual(len(work.recipients), 2)
        self.assertTrue(self.body(listed.id).endswith(b"\r\nSubject: x\r\n\r\nhello\r\n"))

    def test_otherDelivery(self) -> None:
        """A delivery that cannot hold gets nothing: sending it on would be worse."""
        policy = self.brake(first_time=Rates("1/hour"))
        submission = makeSubmission(self.clock, policies=[policy])
        talk = Conversation(submission)
        talk.login()
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>")
        talk.say("DATA")
        self.assertTrue(talk.say("Subject: x", "", "hello", ".").startswith("451 4.3.0"))
        delivery: Any = submission.delivery
        self.assertEqual((delivery.messages, delivery.begun[0].state), ([], "aborted"))


class ReactorTests(TestCase):
    """With threads and processes."""

    async def test_command(self) -> None:
        """The command runs, with what it is to be told, and without a shell."""
        directory = Path(self.mktemp())
        directory.mkdir()
        told = directory / "told"
        program = f"import os; open({str(told)!r}, 'w').write(os.environ['SUBMITD_LOGIN'])"
        policy = Brake(
            path=directory / "usual.sqlite",
            first_time=Rates("1/hour"),
            command=(sys.executable, "-c", program),
        )
        await policy.start(reactor)
        envelope = makeEnvelope("A-1", "a@example.net", "b@example.net")
        await policy.dataRequested(makeSession("alice; touch x"), envelope)
        self.assertIsNotNone(envelope.hold)
        for _ in range(1000):
            if policy._commands == 0:
                break
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        self.assertEqual(told.read_text(), "alice; touch x")
        await policy.stop()
        self.assertEqual(policy._file.read("alice; touch x").braked > 0, True)
        policy._file.close()


class SharedCase(BrakeCase):
    """Two workers with the same file and counts; messages go to one of them in turn."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        shared.prepare(self.directory)
        self.other: dict[int, Brake] = {}
        self.turn = False

    def brake(self, **keys: Any) -> Brake:
        """Both of them; the tests know one."""
        made = []
        for _ in range(2):
            counts = SharedCounts(self.directory, "0/")
            self.addCleanup(counts.close)
            policy = Brake(path=self.file, **keys)
            policy.share(counts)
            self.successResultOf(policy.start(self.clock, maybeDeferred))
            self.addCleanup(policy.stop)
            made.append(policy)
        self.other[id(made[0])] = made[1]
        return made[0]

    def held(self, policy: Brake, *recipients: str, login: str = "alice") -> str | None:
        """Send a message to whose turn it is."""
        self.turn = not self.turn
        whose = policy if self.turn else self.other.get(id(policy), policy)
        return super().held(whose, *recipients, login=login)


class SharedFirstTimeTests(SharedCase, FirstTimeTests):
    """What one process does, two do together."""

    def test_interfaces(self) -> None:
        """It can share."""
        self.assertTrue(verifyObject(IShared, Brake(path=self.file)))

    def test_unreadable(self) -> None:
        """Mail goes on where the file cannot be used, and an event says so once."""
        self.file.mkdir()
        policy = self.brake(first_time=Rates("1/hour"))
        for _ in range(3):
            self.assertIsNone(self.held(policy, *self.strangers(5)))
        self.assertEqual(self.names(), ["brake-problem"] * 2)


class SharedUsualTests(SharedCase, UsualTests):
    """The same for what is usual."""
