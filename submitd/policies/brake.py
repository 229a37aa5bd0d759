"""Policy ``brake``: holds the mail of a login that suddenly does what it never did.

A stolen password is used for thousands of messages to strangers.  The policy learns whom each login
writes to and how much in a day.  A login that writes to more *first-time* recipients than
``first_time`` allows, or to more recipients in a day than ``factor`` times what it has on the days
when it sends (once it has sent on ``learning`` days, and never below ``at_least``), is braked for
``lasts``: all its messages are answered 250 as ever, so the thief learns nothing, and are kept in
the spool, on hold.

The operator is told once: by an event, by ``web_hook``, a URL that is sent the same facts as a JSON
object, and by ``command``.  It is run without a shell and without
arguments of anybody else; ``SUBMITD_LOGIN``, ``SUBMITD_REASON``, ``SUBMITD_ADDRESS`` and
``SUBMITD_UNTIL`` stand in its environment.  What is held is released or deleted in the spool.
:meth:`Brake.letGo` lets the login itself go, from any process (``submitd-queue release --login``).

What is learned is in the SQLite file ``path``.  When that cannot be read or written an event says
so once, and mail goes on as if the login was new: a broken disk here must not hold everybody's
mail.  For a few seconds nobody waits for the file then; after them one message tries again, and
another event says that it can be used.  Needs a delivery that holds; without a login nothing is
braked.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events
from submitd.counters.history import DAY, HistoryFile, Usual, copied, packed
from submitd.counters.memory import Memory
from submitd.counters.names import asTime, shortened
from submitd.counters.shared import SharedCounts
from submitd.counters.windows import Storage, Want, Window, parseWindows
from submitd.envelope import Envelope
from submitd.equality import sameAddress
from submitd.http import HTTPFailed, mistake
from submitd.interfaces import (
    IChecked,
    IDataPolicy,
    IMayHold,
    IRehearsed,
    IRunning,
    IShared,
)
from submitd.policies.holding import tellHeld
from submitd.policies.webhook import makeHook
from submitd.session import Session
from submitd.steady import commonSeconds, timeOfDay
from submitd.threads import Run, inThreadsOf
from submitd.turns import Turns
from submitd.typed import Count, Rates, Seconds
from submitd.writable import unwritable

# Logins whose history is in memory.
MAX_LOGINS = 2000
# Seconds between writes of what was learned.
WRITE_EVERY = 10.0
# Seconds in which nobody uses a file that could not be used.
PAUSE = 5.0
# Uses of the file that may be in threads at one time: the reactor's are for other things too.
MAX_THREADS = 2
# A command may take so long, in seconds, and so many may run.
COMMAND_TIME = 60.0
MAX_COMMANDS = 10


@implementer(IDataPolicy, IMayHold, IRunning, IShared, IRehearsed, IChecked)
@attrs.define(eq=False)
class Brake:
    """Holds the mail of a login that suddenly does what it never did.

    :raise ValueError: for rates that are none.
    """

    name: ClassVar[str] = "brake"

    path: Path = attrs.field(
        converter=Path,
        metadata={"help": "The SQLite file of what is usual; made when its directory is there."},
    )
    first_time: Rates = attrs.field(
        default=Rates("100/hour, 300/day"),
        metadata={"help": "Recipients of a login that it has never written to before."},
    )
    factor: float = attrs.field(
        default=5.0,
        validator=attrs.validators.ge(0.0),
        metadata={
            "help": "Times its usual recipients in a day that a login may have; 0 for any number."
        },
    )
    at_least: Count = attrs.field(
        default=Count(200), metadata={"help": "Recipients in a day that are never too many for it."}
    )
    learning: Count = attrs.field(
        default=Count(5),
        metadata={"help": "Days with mail after which it is known what is usual."},
    )
    lasts: Seconds = attrs.field(
        default=Seconds(86400.0),
        validator=attrs.validators.gt(Seconds(0.0)),
        metadata={"help": "How long a login is braked, unless it is let go before."},
    )
    command: tuple[str, ...] = attrs.field(
        default=(),
        converter=tuple,
        metadata={
            "help": 'A program with its arguments, such as ["/usr/local/sbin/tell-me"], that is '
            "run when a login is braked. Empty for none."
        },
    )
    web_hook: str = attrs.field(
        default="",
        repr=False,  # there may be a secret in it
        metadata={
            "help": 'A URL, such as "https://chat.example.com/hooks/KEY", that is sent a JSON '
            "object by POST when a login is braked. Empty for none."
        },
    )
    _windows: tuple[Window, ...] = attrs.field(init=False, repr=False)
    _file: HistoryFile = attrs.field(init=False, repr=False)
    _logins: OrderedDict[str, Usual] = attrs.field(init=False, repr=False, factory=OrderedDict)
    _recent: Storage = attrs.field(init=False, repr=False, factory=Memory)
    _isShared: bool = attrs.field(init=False, repr=False, default=False)
    _reactor: Any = attrs.field(init=False, repr=False, default=None)
    # What is in the file outlives the process and its clock, what is counted does not.
    _now: Callable[[], float] = attrs.field(init=False, repr=False, default=time.time)
    _seconds: Callable[[], float] = attrs.field(init=False, repr=False, default=time.monotonic)
    _run: Run = attrs.field(init=False, repr=False, default=None)
    _writing: LoopingCall = attrs.field(init=False, repr=False)
    _commands: int = attrs.field(init=False, repr=False, default=0)
    _turns: Turns = attrs.field(init=False, repr=False, factory=lambda: Turns(MAX_THREADS))
    _isBroken: bool = attrs.field(init=False, repr=False, default=False)
    _askAgain: float = attrs.field(init=False, repr=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._windows = parseWindows(self.first_time)
        self._file = HistoryFile(self.path)
        self._writing = LoopingCall(self._flush)

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        found = []
        if said := unwritable(self.path):
            found.append(f"path: {said}")
        if self.command:
            program = Path(self.command[0])
            if not program.is_absolute():
                found.append(f"command: {program} must be an absolute path")
            elif not (program.is_file() and os.access(program, os.X_OK)):
                found.append(f"command: {program} is no program")
            if any("\0" in word for word in self.command):
                found.append("command: has a NUL")
        if self.web_hook and mistake(self.web_hook):
            found.append(f"web_hook: {mistake(self.web_hook)}")
        if not self._windows and not self.factor:
            found.append("brakes nobody: there is neither first_time nor factor")
        return found

    def share(self, storage: SharedCounts) -> None:
        """See :meth:`submitd.interfaces.IShared.share`."""
        self._recent, self._isShared = storage, True

    def rehearse(self, directory: Path) -> None:
        """See :meth:`submitd.interfaces.IRehearsed.rehearse`; it learns in a copy."""
        self._file = HistoryFile(copied(self.path, directory))
        self.command = ()

    def start(self, reactor: Any, run: Run | None = None) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`.

        :param run: runs a function in a thread, in place of the reactor's own.
        """
        self._reactor = reactor
        self._now = timeOfDay(reactor)
        self._seconds = commonSeconds(reactor)
        self._run = run or inThreadsOf(reactor)
        self._writing.clock = reactor
        self._writing.start(WRITE_EVERY, now=False)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Write what was learned, and close the file."""
        if self._writing.running:
            self._writing.stop()
        return self._write(self._changed(), True).addBoth(lambda _: self._file.close())

    def letGo(self, login: str, until: float) -> bool:
        """Let a login go; blocks, and works from any process, whether the service runs or not.

        :param until: before which time it is not to be braked again, in seconds since 1970.
        :return: whether it was braked.
        :raise sqlalchemy.exc.SQLAlchemyError: when the file cannot be used.
        """
        return self._file.letGo(login, until)

    # The stage.

    def dataRequested(self, session: Session, envelope: Envelope) -> Any:
        """Have the message held, or learn from it."""
        if session.user is None:
            return None
        login = session.user.avatarId
        if self._isShared:
            # The file is the one truth: what another worker has learned or braked stands there.
            deciding = self._use(self._file.change, login, self._decision(envelope, login))
            return deciding.addCallback(self._decided, session, envelope, login)
        usual = self._logins.get(login)
        if usual is None or usual.braked > self._now():
            # Whether a braked login has been let go stands in the file.
            reading = self._use(self._file.read, login)
            return reading.addCallback(self._consider, session, envelope, login)
        self._logins.move_to_end(login)
        self._decide(usual, session, envelope, login)
        return None

    def _decision(self, envelope: Envelope, login: str) -> Callable[[Usual], Decision]:
        """What is asked of the file, in a thread."""
        recipients, now = _recipients(envelope), self._now()

        def decide(usual: Usual) -> Decision:
            return self._judge(usual, recipients, login, now)

        return decide

    def _decided(
        self, decision: Decision | None, session: Session, envelope: Envelope, login: str
    ) -> None:
        if decision is not None:
            self._act(decision, session, envelope, login)

    def _consider(
        self, read: Usual | None, session: Session, envelope: Envelope, login: str
    ) -> None:
        usual = self._logins.get(login)
        if usual is None:
            usual = self._logins[login] = read or Usual()
            self._shrink()
        elif read is not None and read.trusted > self._now():
            # Not by the brake's absence: it may not have been written yet.
            usual.braked, usual.trusted = 0.0, read.trusted
        self._logins.move_to_end(login)
        self._decide(usual, session, envelope, login)

    def _decide(self, usual: Usual, session: Session, envelope: Envelope, login: str) -> None:
        decision = self._judge(usual, _recipients(envelope), login, self._now())
        if decision.isNew:
            self._use(self._file.brake, login, usual.braked, decision.reason)
        self._act(decision, session, envelope, login)

    def _judge(self, usual: Usual, recipients: list[bytes], login: str, now: float) -> Decision:
        """Learn, or brake."""
        # Where the clock was ahead and has been set back, it would last for as long again.
        usual.braked = min(usual.braked, now + self.lasts)
        if usual.braked > now:
            return Decision(usual.reason, usual.braked)
        reason = "" if usual.trusted > now else self._objection(usual, recipients, login, now)
        if not reason:
            usual.learn(recipients, int(now // DAY))
            return Decision()
        usual.braked, usual.reason = now + self.lasts, reason
        return Decision(reason, usual.braked, isNew=True)

    def _objection(self, usual: Usual, recipients: list[bytes], login: str, now: float) -> str:
        """Why this is not usual; empty when it is."""
        new = sum(each not in usual.recipients for each in recipients)
        if new:
            wants = [
                Want(f"{window.seconds}/{shortened(login)}", window, new)
                for window in self._windows
            ]
            taken = self._recent.take(wants, self._seconds(), True)
            if taken.shortage is not None:
                window = self._windows[taken.shortage]
                return f"more than {window.text} first-time recipients"
        day = int(now // DAY)
        days, each = usual.perDay(day)
        limit = max(self.at_least, self.factor * each)
        if self.factor and days >= self.learning:
            today = usual.days.get(day, 0) + len(recipients)
            if today > limit:
                return f"{today} recipients in a day, and usually {each:.0f}"
        return ""

    def _act(self, decision: Decision, session: Session, envelope: Envelope, login: str) -> None:
        if not decision.reason:
            return
        if decision.isNew:
            events.emit(
                events.BRAKE_APPLIED,
                session=session.id,
                id=envelope.id,
                peer=session.remoteAddress,
                user=login,
                reason=decision.reason,
                until=asTime(decision.until),
            )
        envelope.hold = f"{self.name}: {decision.reason}"
        tellHeld(session, envelope)
        if decision.isNew:
            self._tell(login, decision.reason, session.remoteAddress, decision.until)
            self._tellHook(login, decision.reason, session.remoteAddress, decision.until)

    # The file.

    def _flush(self) -> Deferred[Any]:
        # What is not written in a pause stays changed.
        return succeed(None) if self._isPausing() else self._write(self._changed())

    def _changed(self) -> list[tuple[str, bytes, str]]:
        changed = {login: usual for login, usual in self._logins.items() if usual.changed}
        for usual in changed.values():
            usual.changed = False
        return [(login, *packed(usual)) for login, usual in changed.items()]

    def _write(self, rows: list[tuple[str, bytes, str]], isLast: bool = False) -> Deferred[Any]:
        return self._use(self._file.write, rows, isLast=isLast) if rows else succeed(None)

    def _shrink(self) -> None:
        while len(self._logins) > MAX_LOGINS:
            login, usual = self._logins.popitem(last=False)
            if usual.changed:
                self._write([(login, *packed(usual))])

    def _use(
        self, call: Callable[..., Any], *arguments: Any, isLast: bool = False
    ) -> Deferred[Any]:
        """Use the file in a thread.

        :param isLast: do it in a pause, too.
        :return: fires with the result; ``None`` when the file cannot be used.
        """
        # A Deferred of its own: cancelling it must not give the turn away while the thread is busy.
        answer: Deferred[Any] = Deferred()
        if self._isPausing() and not isLast:
            answer.callback(None)
        else:
            Deferred.fromCoroutine(self._inTurn(answer, isLast, call, arguments))
        return answer

    async def _inTurn(
        self, answer: Deferred[Any], isLast: bool, call: Callable[..., Any], arguments: Any
    ) -> None:
        await self._turns.acquire()
        result = None
        # While it waited for its turn, another one may have failed, or the asker have gone.
        if isLast or not (answer.called or self._isPausing()):
            result = await self._tried(call, arguments)
        self._turns.release()
        if not answer.called:
            answer.callback(result)

    async def _tried(self, call: Callable[..., Any], arguments: Any) -> Any:
        # Once it is broken, the others go on without the file while this one tries.
        self._askAgain = self._reactor.seconds() + PAUSE
        try:
            result = await self._run(call, *arguments)
        except Exception:
            self._broken(Failure())
            return None
        if self._isBroken:
            self._isBroken = False
            events.emit(events.BRAKE_BACK, file=str(self.path))
        return result

    def _isPausing(self) -> bool:
        return self._isBroken and self._reactor.seconds() < self._askAgain

    def _broken(self, failure: Failure) -> None:
        self._askAgain = self._reactor.seconds() + PAUSE
        if not self._isBroken:
            self._isBroken = True
            said = f"{self.path}: {type(failure.value).__name__}: {failure.value}"
            events.emit(events.BRAKE_PROBLEM, problem=said)

    # The operator.

    def _tell(self, login: str, reason: str, address: str, until: float) -> None:
        if not self.command:
            return
        if self._commands >= MAX_COMMANDS:
            events.emit(events.BRAKE_PROBLEM, problem=f"{MAX_COMMANDS} commands run already")
            return
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "SUBMITD_LOGIN": login,
            "SUBMITD_REASON": reason,
            "SUBMITD_ADDRESS": address,
            "SUBMITD_UNTIL": asTime(until),
        }
        # A NUL ends a string of the environment.
        environment = {name: value.replace("\0", "?") for name, value in environment.items()}
        self._commands += 1
        running = _Command(self._ended)
        try:
            process = self._reactor.spawnProcess(
                running, self.command[0], self.command, environment
            )
        except OSError as error:
            self._ended(f"cannot be run: {error.strerror}")
            return
        process.closeStdin()
        running.overdue = self._reactor.callLater(COMMAND_TIME, process.signalProcess, "KILL")

    def _tellHook(self, login: str, reason: str, address: str, until: float) -> None:
        if not self.web_hook:
            return
        facts = {
            "event": events.BRAKE_APPLIED.name,
            "login": login,
            "reason": reason,
            "address": address,
            "until": asTime(until),
        }
        try:
            telling = makeHook(self.web_hook, self._reactor).tell(facts)
        except Exception as error:  # whatever it is, the message is held all the same
            problem = type(error).__name__
            events.emit(events.BRAKE_PROBLEM, problem=f"web hook: {problem}")
            return
        telling.addErrback(_hookFailed)

    def _ended(self, problem: str) -> None:
        self._commands -= 1
        if problem:
            events.emit(events.BRAKE_PROBLEM, problem=f"{self.command[0]}: {problem}")


@attrs.frozen
class Decision:
    """What becomes of a message.

    :param reason: why it is held; empty when it is not.
    :param until: until when its login is braked.
    :param isNew: whether the login is braked with this message.
    """

    reason: str = ""
    until: float = 0.0
    isNew: bool = False


def _hookFailed(failure: Failure) -> None:
    said = str(failure.value) if failure.check(HTTPFailed) else type(failure.value).__name__
    events.emit(events.BRAKE_PROBLEM, problem=f"web hook: {said}")


class _Command(ProcessProtocol):
    """One run of the operator's command; what it says is dropped.

    :param ended: called with what went wrong, or ``""``.
    :ivar overdue: ends it when it takes too long.
    """

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self.overdue: IDelayedCall | None = None

    def processEnded(self, reason: Failure) -> None:
        """It is done."""
        if self.overdue is not None and self.overdue.active():
            self.overdue.cancel()
        self._ended("" if reason.check(ProcessDone) else str(reason.value))


def _recipients(envelope: Envelope) -> list[bytes]:
    return list(dict.fromkeys(_digest(each.mailbox) for each in envelope.recipients))


def _digest(mailbox: Any) -> bytes:
    told = "\0".join(sameAddress(mailbox)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(told, digest_size=8).digest()
