"""Counting, wherever the counts are kept, without ever making the service wait for long.

In memory a question is answered at once, without a Deferred, and so it is where workers share the
counts (shared.py).  A Redis is asked in a thread, a few at a time.  What it has not answered within
the time limit, or answers with nonsense, is an outage: an event says so once, and for a few seconds
nobody waits for it; then one question tries again, and another event says that it is back.

During an outage the setting decides: ``open`` goes on as if nothing was counted (``None`` is the
answer), ``closed`` refuses, with a reply that asks the client to come back.  A question whose time
is over may still be counted by a Redis that is merely slow.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from submitd import events
from submitd.counters.memory import Memory
from submitd.counters.names import asTime
from submitd.counters.redis import SCHEMES, Redis
from submitd.counters.windows import Room, Storage, Taken, Want
from submitd.steady import commonSeconds, timeOfDay
from submitd.threads import Run, inThreadsOf
from submitd.turns import InTurn
from submitd.waiting import overdue, then
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, Reply

T = TypeVar("T")
OnFailure = Literal["open", "closed"]

MEMORY = "memory"
# Seconds in which nobody asks a Redis that has failed.
PAUSE = 5.0
# Questions that may be in threads at one time: the reactor's are for other things too.
MAX_THREADS = 3


class Counters:
    """The counts of one policy.

    :param where: ``"memory"``, or the URL of a Redis.
    :param onFailure: what an outage means.
    :param timeout: seconds for one answer.
    :param name: whose they are, for the log.
    :param refusal: what ``closed`` answers.
    :raise ValueError: for what is no such URL.
    """

    def __init__(
        self,
        where: str,
        onFailure: OnFailure,
        timeout: float,
        name: str,
        refusal: Reply = LOCAL_ERROR,
    ) -> None:
        self._memory: Storage | None = Memory() if where == MEMORY else None
        self._isShared = False
        self._where = where
        self._storage: Storage | None = None
        self._timeout = timeout
        self._onFailure = onFailure
        self._name = name
        self._refusal = refusal
        self._clock: IReactorTime | None = None
        self._timeOfDay: Callable[[], float] = time.time
        self._seconds: Callable[[], float] = self._notStarted
        self._inTurn: InTurn | None = None
        self._isRehearsal = False
        self._isAway = False
        self._askAgain = 0.0
        if self._memory is None and not where.startswith(SCHEMES):
            raise ValueError(f'storage must be "{MEMORY}" or begin with {", ".join(SCHEMES)}')

    def check(self) -> list[str]:
        """What is wrong with the URL; nothing is connected."""
        if self._memory is not None:
            return []
        try:
            Redis(self._where, self._timeout)
        except Exception as error:
            return [f"storage: {error}"]
        return []

    def start(self, reactor: Any, run: Run | None = None) -> None:
        """Begin.

        :param reactor: tells the time, calls later, and has the threads.
        :param run: runs a function in a thread, in place of the reactor's own.
        """
        self._clock = reactor
        self._timeOfDay = timeOfDay(reactor)
        self._seconds = commonSeconds(reactor)
        self._inTurn = InTurn(run or inThreadsOf(reactor), MAX_THREADS)

    def share(self, storage: Storage) -> None:
        """Count together with other processes; a Redis is shared already."""
        if self._memory is not None:
            self._memory = storage
            self._isShared = True

    def rehearse(self) -> None:
        """Count nothing in a Redis, but say what would come of it."""
        self._isRehearsal = True

    @property
    def clock(self) -> IReactorTime:
        """What tells the time.

        :raise RuntimeError: before :meth:`start`.
        """
        return self._clock if self._clock is not None else self._notStarted()

    def _notStarted(self) -> NoReturn:
        raise RuntimeError(f"{self._name} has not been started")

    def now(self) -> float:
        """The time of the counts, in seconds; what it begins with is nobody's business."""
        return self._seconds()

    def shown(self, seconds: float) -> str:
        """A time of the counts as a reply shows it."""
        return asTime(seconds + (self._timeOfDay() - self.now()))

    def take(
        self, wants: Sequence[Want], together: bool = True
    ) -> Taken | Deferred[Taken | None] | None:
        """Count.

        :param together: all or none; otherwise each where it has room.
        :return: what came of it; ``None`` when the storage is away and that is no objection.
        :raise Refused: when it is away and that is one; also by the Deferred.
        """
        now = self.now()
        if self._isShared:
            return self._askShared(lambda storage: storage.take(wants, now, together))
        if self._memory is not None:
            return self._memory.take(wants, now, together)
        if self._isRehearsal:
            rehearsed: Taken | Deferred[Taken | None] | None
            rehearsed = then(self.rooms(wants), _wouldTake, wants)
            return rehearsed
        return self._ask(lambda storage: storage.take(wants, now, together))

    def rooms(self, wants: Sequence[Want]) -> list[Room] | Deferred[list[Room] | None] | None:
        """How much room there is; the same answers and refusals as from :meth:`take`."""
        now = self.now()
        if self._isShared:
            return self._askShared(lambda storage: storage.rooms(wants, now))
        if self._memory is not None:
            return self._memory.rooms(wants, now)
        return self._ask(lambda storage: storage.rooms(wants, now))

    def _askShared(self, question: Callable[[Storage], T]) -> T | None:
        assert self._memory is not None
        try:
            answer = question(self._memory)
        except (sqlite3.Error, OSError):
            self._failed(Failure())
            return None
        return self._answered(answer)

    def _ask(self, question: Callable[[Storage], T]) -> T | Deferred[T | None] | None:
        now = self.clock.seconds()
        if self._isAway and now < self._askAgain:
            self._refuse()
            return None
        # While this one tries, the others go on without it.
        self._askAgain = now + PAUSE
        assert self._inTurn is not None
        answer = self._inTurn.call(self._call, question)
        answer.addTimeout(self._timeout, self.clock, onTimeoutCancel=overdue)
        return answer.addCallbacks(self._answered, self._failed)

    def _call(self, question: Callable[[Storage], T]) -> T:
        if self._storage is None:
            self._storage = Redis(self._where, self._timeout)
        return question(self._storage)

    def _answered(self, result: T) -> T:
        if self._isAway:
            self._isAway = False
            events.emit(events.COUNTERS_BACK, policy=self._name)
        return result

    def _failed(self, failure: Failure) -> Failure | None:
        if failure.check(CancelledError):  # who asked has gone; that is nobody's fault
            return failure
        if not self._isAway:
            self._isAway = True
            cause = f"{type(failure.value).__name__}: {failure.value}"
            events.emit(
                events.COUNTERS_AWAY, policy=self._name, cause=cause, verdict=self._onFailure
            )
        self._askAgain = self.clock.seconds() + PAUSE
        self._refuse()
        return None

    def _refuse(self) -> None:
        if self._onFailure == "closed":
            raise Refused(self._refusal, f"the counters of {self._name} are away")


def _wouldTake(rooms: list[Room] | None, wants: Sequence[Want]) -> Taken | None:
    if rooms is None:
        return None
    for at, (want, room) in enumerate(zip(wants, rooms, strict=True)):
        if room.left < want.cost:
            return Taken(at, room.until)
    return Taken()
