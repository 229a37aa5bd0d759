"""The durable queue as the rest of the service sees it: Deferreds in front, two threads behind.

One thread writes, by group commit; the other reads bodies and lists, and waits for nobody who
writes.  Both begin with :meth:`Queue.start`, for twistd may fork and change its user before.

What the data base cannot do is a ``Refused``: 452 4.3.1 when there is no room, 451 4.3.0 for all
else, with the cause for the log.  Damaged messages are put on hold and named in the log.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events
from submitd.interfaces import ISpool, ISpoolOperations
from submitd.spool import accepting, endings, leases, operations, tidying
from submitd.spool.accepting import Acceptance, Accepted, Upload
from submitd.spool.body import Body
from submitd.spool.database import Database, Link, Unusable, asRefused, cause, isDamage
from submitd.spool.keeping import Keeping
from submitd.spool.leases import Claim, Leased, Untakable
from submitd.spool.outcomes import Settling, settle
from submitd.spool.owners import Owners
from submitd.spool.records import (
    Action,
    Count,
    Damaged,
    Filter,
    Listed,
    NewMessage,
    Settlement,
    Shown,
    Totals,
    Work,
)
from submitd.spool.writer import GroupCommit, Statement, WorkThread
from submitd.threads import Run
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR

TIDY_INTERVAL = 60.0
"""Seconds between two looks for what is old enough to go."""

STOP_LIMIT = 10.0
"""Seconds that the end waits for a data base which does not answer."""

MAX_ASIDE = 1000
"""Damaged messages that can be left alone; a data base with more of them is of no use."""

LOOK_INTERVAL = 30.0
"""Seconds between two looks for processes that have died, and whose work is to be taken back."""


def ownerName() -> str:
    """Who we are, unlike any other process now or later."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@implementer(ISpool, ISpoolOperations)
class Queue:
    """One process's side of the queue.

    :param database: where it is.
    :param keep: seconds for which the record of a finished message is kept, without its body.
    :param window: seconds for which a submission is known again.
    :ivar now: what tells the time, in seconds since 1970.
    :ivar tidies: whether it clears away what is old; for an operator's look, which knows nothing of
        the service's ``keep`` and ``window``, it does not.
    """

    def __init__(self, database: Database, keep: float = 0.0, window: float = 3600.0) -> None:
        self.database = database
        self.keep = keep
        self.window = window
        self.now: Callable[[], float] = time.time
        self.tidies = True
        self._threads: list[WorkThread] = []
        self._links = (Link(database), Link(database))
        self._runs: tuple[Run, Run] = (_notStarted, _notStarted)
        self._clock: IReactorTime | None = None
        self._writer = GroupCommit(self._links[0], _notStarted)
        self._keeping = Keeping(database.name, lambda: self.now())
        self._told: list[Callable[[float], None]] = []
        self._left: set[str] = set()
        self._unheard: list[Claim] = []
        # Ids of messages that a damaged page keeps from being held, or settled.
        self._aside: set[str] = set()
        self._owner = ""
        self._owners = None if database.path is None else Owners(database.path)
        self._isPresent = False
        self._isLooking = False
        self._looked = -LOOK_INTERVAL
        self._serial = 0
        self._tidied = 0.0

    @property
    def owner(self) -> str:
        """See :attr:`submitd.interfaces.ISpool.owner`; asked for after twistd has forked."""
        if not self._owner:
            self._owner = ownerName()
        return self._owner

    # Accepting.

    def add(self, upload: Upload) -> Deferred[None]:
        """Keep a chunk of a message that is not complete yet."""
        return self._write(self._add, upload).addErrback(self._notKept)

    def _add(self, connection: sa.Connection, uploads: list[Upload]) -> list[None]:
        self.database.requireRoom(connection, sum(len(each.data) for each in uploads))
        return accepting.add(connection, uploads)

    def accept(self, acceptance: Acceptance) -> Deferred[Accepted]:
        """Keep a message; when this fires, it is durable."""
        self._tidyNowAndThen()
        waiting = self._write(self._accept, acceptance)
        waiting.addCallbacks(self._accepted, self._notKept, callbackArgs=(acceptance,))
        return waiting

    def _accept(self, connection: sa.Connection, acceptances: list[Acceptance]) -> list[Accepted]:
        size = sum(len(part) for each in acceptances for part in each.chunks)
        self.database.requireRoom(connection, size)
        return accepting.accept(connection, acceptances)

    def _notKept(self, failure: Failure) -> Failure:
        if isinstance(failure.value, Refused):
            self._keeping.failed(str(failure.value.cause))
        return failure

    def _accepted(self, accepted: Accepted, acceptance: Acceptance) -> Accepted:
        self._keeping.well()
        if not accepted.isRepeat:
            self._tell(_dueTimes([acceptance]))
        return accepted

    def abandon(self, messageId: str) -> Deferred[None]:
        """Drop the chunks of a message that will not be complete.

        When that fails it is done later: on a full disk it is they that may have filled it.
        """
        return self._write(accepting.abandon, messageId).addErrback(self._notAbandoned, messageId)

    def _notAbandoned(self, failure: Failure, messageId: str) -> Failure:
        self._left.add(messageId)
        return failure

    def _dropLeft(self) -> None:
        left, self._left = self._left, set()
        for each in left:
            self.abandon(each).addErrback(lambda _: None)

    # For the relay.

    def lease(self, limit: int, seconds: float) -> Deferred[list[Work]]:
        """See :meth:`submitd.interfaces.ISpool.lease`.

        First it takes back what dead ones had, and what it has itself without having been told.
        """
        now = self.now()
        if self._owners is not None and not (
            self._isLooking or 0 <= now - self._looked < LOOK_INTERVAL
        ):
            self._enter(self._owners, now)
        self._serial += 1
        token = f"{self.owner}/{self._serial}"
        unheard = tuple([each for each in self._unheard if each.until > now])
        self._unheard = []
        claim = Claim(token=token, limit=limit, now=now, until=now + seconds, unheard=unheard)
        self._tidyNowAndThen()
        leasing = Deferred.fromCoroutine(self._lease(claim)).addErrback(self._failed)
        return leasing.addCallbacks(_leased, self._notLeased, errbackArgs=(claim,))

    async def _lease(self, claim: Claim) -> Leased:
        held: set[str] = set()
        while True:
            try:
                claim = attrs.evolve(claim, without=tuple(self._aside))
                leased: Leased = await self._writer.submit(leases.lease, claim)
                return leased
            except Untakable as damaged:
                self._leaveAlone(damaged)
            except Damaged as damaged:
                if damaged.messageId in held:
                    self._leaveAlone(damaged)  # an index of before has it due all the same
                else:
                    held.add(damaged.messageId)
                    await self._quarantine(damaged)
            except sa.exc.DatabaseError as error:
                if claim.isCareful or not isDamage(error):
                    raise
                claim = attrs.evolve(claim, isCareful=True)

    def _notLeased(self, failure: Failure, claim: Claim) -> Failure:
        # The connection may have been lost behind the commit; then work is leased, and nobody
        # would do it until the lease ends.
        self._unheard += [*claim.unheard, attrs.evolve(claim, unheard=())]
        return failure

    def _enter(self, owners: Owners, now: float) -> None:
        self._isPresent = self._isLooking = True
        self._looked = now
        entering = self._write(leases.enter, (owners, self.owner, now))
        entering.addCallbacks(self._entered, self._notReclaimed, callbackArgs=(owners,))

    def _entered(self, problem: str, owners: Owners) -> None:
        self._isLooking = False
        owners.bury()
        if problem:
            # The leases of dead ones end by themselves.
            events.emit(events.RELAY_PROBLEM, problem=f"{self.database.path}: {problem}")

    def _notReclaimed(self, failure: Failure) -> None:
        # It is tried again with the next lease.
        self._isLooking = False
        self._looked = -LOOK_INTERVAL

    def extend(self, work: Work, seconds: float) -> Deferred[Work]:
        """See :meth:`submitd.interfaces.ISpool.extend`."""
        longer = attrs.evolve(work, until=self.now() + seconds)
        return self._write(leases.extend, longer).addCallback(lambda _: longer)

    def giveBack(self, work: Work) -> Deferred[None]:
        """See :meth:`submitd.interfaces.ISpool.giveBack`."""
        return self._write(leases.giveBack, work)

    def settle(
        self, work: Work, outcomes: Sequence[Settlement], reports: Sequence[NewMessage] = ()
    ) -> Deferred[None]:
        """See :meth:`submitd.interfaces.ISpool.settle`."""
        now = self.now()
        own = [accepting.ownMessage(report, now) for report in reports]
        settling = Settling(
            work=work,
            settlements=outcomes,
            reports=own,
            now=now,
            who=self.owner,
            keep=self.keep,
        )
        times = [each.due for each in outcomes if each.due is not None]
        times += _dueTimes(own)
        settled = self._writer.submit(settle, settling).addErrback(self._settleInBrief, settling)
        return settled.addErrback(self._failed).addCallback(lambda _: self._tell(times))

    def _settleInBrief(self, failure: Failure, settling: Settling) -> Any:
        if not isDamage(failure.value):
            return failure
        reason = cause(failure.value)
        damaged = Damaged(settling.work.message.id, f"only what came of it was written: {reason}")
        settled = self._writer.submit(settle, attrs.evolve(settling, isBrief=True))
        return settled.addCallbacks(
            lambda _: self._settledInBrief(settling, damaged),
            self._notWritten,
            errbackArgs=(damaged.messageId,),
        )

    def _settledInBrief(self, settling: Settling, damaged: Damaged) -> Deferred[None] | None:
        _logDamage(damaged)
        if not settling.hasFailures:
            return None
        # By itself, for it may be what meets the damage; the outcome stands all the same.
        forgetting = self._writer.submit(endings.forgetAll, damaged.messageId)
        return forgetting.addErrback(lambda _: None)

    def _notWritten(self, failure: Failure, id: str) -> Failure:
        if not isDamage(failure.value):
            return failure
        damaged = Damaged(id, f"nothing of it can be written: {cause(failure.value)}")
        self._leaveAlone(damaged)
        return Failure(damaged)

    def _leaveAlone(self, damaged: Damaged) -> None:
        """Have a message not leased again before the next start.

        :raise Refused: when there are too many of them.
        """
        if len(self._aside) >= MAX_ASIDE:
            raise Refused(LOCAL_ERROR, f"{self.database.name}: {damaged.reason}")
        self._aside.add(damaged.messageId)
        said = f"{damaged.reason}; it is left alone until the next start"
        _logDamage(Damaged(damaged.messageId, said))

    def hasten(self, latest: float) -> Deferred[None]:
        """See :meth:`submitd.interfaces.ISpool.hasten`."""
        return self._write(leases.hasten, (self.now(), latest))

    def nextDue(self) -> Deferred[float | None]:
        """See :meth:`submitd.interfaces.ISpool.nextDue`."""
        return self._look(leases.nextDue, tuple(self._aside))

    def whenDue(self, told: Callable[[float], None]) -> None:
        """See :meth:`submitd.interfaces.ISpool.whenDue`."""
        self._told.append(told)

    def _tell(self, times: list[float]) -> None:
        for told in self._told if times else ():
            told(min(times))

    def read(self, messageId: str, holds: bool = True) -> Body:
        """See :meth:`submitd.interfaces.ISpool.read`."""
        return Body(messageId, self._look, self._quarantine if holds else _noHold)

    def _quarantine(self, damaged: Damaged) -> Deferred[None]:
        _logDamage(damaged)
        holding = self._writer.submit(endings.quarantine, (damaged, self.now()))
        return holding.addErrback(self._holdInBrief, damaged).addErrback(self._failed)

    def _holdInBrief(self, failure: Failure, damaged: Damaged) -> Any:
        if not isDamage(failure.value):
            return failure
        holding = self._writer.submit(endings.quarantine, (damaged, None))
        return holding.addErrback(self._notWritten, damaged.messageId).addErrback(_leftAlone)

    # Starting, stopping, and clearing away.

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.ISpool.start`."""
        self._threads = [
            WorkThread(f"spool {name}", reactor.callFromThread) for name in ("writer", "reader")
        ]
        self._clock = reactor
        return self.runIn(self._threads[0].run, self._threads[1].run)

    def runIn(self, writing: Run, reading: Run) -> Deferred[None]:
        """Begin, in somebody else's threads.

        :param writing: runs a call in a thread, one at a time, and gives a Deferred.
        :param reading: the same, beside it.
        """
        self._runs = (writing, reading)
        self._writer = GroupCommit(self._links[0], writing)
        self._tidied = self.now()
        return self._tidy() if self.tidies else self._look(lambda connection: None)

    def stop(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.ISpool.stop`.

        A data base that does not answer is left behind, with the threads that wait for it.
        """
        if self._unheard:
            # Where that fails, the leases end by themselves.
            self._write(leases.disown, self._unheard).addErrback(lambda _: None)
        if self._owners is not None and self._isPresent:
            leave = self._owners.leave
            self._write(leases.reclaim, (self.owner, self.now())).addCallbacks(
                lambda _: leave(isDone=True), lambda _: leave(isDone=False)
            )
        stopping = self._writer.idle().addCallback(self._closeLinks)
        if self._clock is not None:
            stopping.addTimeout(STOP_LIMIT, self._clock)
        return stopping.addCallbacks(self._stopped, self._leftBehind)

    def _closeLinks(self, _: object) -> Deferred[None]:
        # One after the other: the last one that closes an SQLite data base ends its log.
        return self._close(0).addCallback(lambda _: self._close(1))

    def _close(self, which: int) -> Deferred[None]:
        link = self._links[which]
        return self._runs[which](link.close) if link.isOpen else succeed(None)

    def _stopped(self, _: object) -> None:
        for thread in self._threads:
            thread.stop()
        self.database.dispose()

    def _leftBehind(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        problem = f"{self.database.name} has not answered for {STOP_LIMIT:.0f} s at the end"
        events.emit(events.SERVICE_PROBLEM, problem=problem)

    def _tidyNowAndThen(self) -> None:
        if self._left:
            self._dropLeft()
        now = self.now()
        # Somebody may have set the clock back.
        if self.tidies and not 0 <= now - self._tidied < TIDY_INTERVAL:
            self._tidied = now
            # What has not been cleared away now will be the next time.
            self._tidy().addErrback(lambda _: None)

    def _tidy(self) -> Deferred[None]:
        now = self.now()
        old = tidying.Tidying(now - self.window, now - tidying.STALE, now - self.keep)
        return self._write(tidying.tidy, old).addCallback(self._tidyOn)

    def _tidyOn(self, more: bool) -> Deferred[None] | None:
        return self._tidy() if more else None

    # For operators.

    def messages(self, which: Filter, limit: int = 100, after: str = "") -> Deferred[list[Listed]]:
        """See :meth:`submitd.interfaces.ISpoolOperations.messages`."""
        page = operations.Page(which=which, now=self.now(), limit=limit, after=after)
        return self._look(operations.messages, page)

    def show(self, messageId: str) -> Deferred[Shown | None]:
        """See :meth:`submitd.interfaces.ISpoolOperations.show`."""
        return self._look(operations.show, messageId)

    def change(self, action: Action, which: Filter, who: str) -> Deferred[int]:
        """See :meth:`submitd.interfaces.ISpoolOperations.change`."""
        if which.ids is None:
            raise ValueError("a change needs the ids of the messages")
        now = self.now()
        change = operations.Change(action=action, which=which, who=who, now=now, keep=self.keep)
        return self._write(operations.change, change).addCallback(self._changed, change)

    def _changed(self, changed: dict[str, int], change: operations.Change) -> int:
        for id, recipients in changed.items():
            events.emit(
                events.QUEUE_CHANGED,
                who=change.who,
                action=change.action.value,
                id=id,
                recipients=recipients,
            )
        if changed and change.action not in (Action.HOLD, Action.DELETE):
            self._tell([change.now])
        return sum(changed.values())

    def counts(self) -> Deferred[list[Count]]:
        """See :meth:`submitd.interfaces.ISpoolOperations.counts`."""
        return self._look(operations.counts)

    def totals(self) -> Deferred[Totals]:
        """See :meth:`submitd.interfaces.ISpoolOperations.totals`."""
        return self._look(operations.totals, self.now())

    # Threads.

    def _write(self, statement: Statement, argument: Any) -> Deferred[Any]:
        return self._writer.submit(statement, argument).addErrback(self._failed)

    def _look(self, statement: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        looking = self._runs[1](
            self._links[1].look, lambda connection: statement(connection, *arguments)
        )
        return looking.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        error = failure.value
        if isinstance(error, (sa.exc.SQLAlchemyError, OSError, Unusable)):
            return Failure(asRefused(error, self.database.name))
        return failure


def _notStarted(call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    return fail(RuntimeError("the queue has not been started"))


def _dueTimes(acceptances: Sequence[Acceptance]) -> list[float]:
    """When something is to be done for their recipients; nothing is for those on hold."""
    dues = (row["due"] for each in acceptances for row in each.recipients)
    return [due for due in dues if due is not None]


def _leased(leased: Leased) -> list[Work]:
    for id, positions in leased.takenOver.items():
        events.emit(events.LEASE_TAKEN_OVER, id=id, recipients=len(positions))
    for damaged in leased.damaged:
        _logDamage(damaged)
    return leased.works


def _leftAlone(failure: Failure) -> None:
    failure.trap(Damaged)


def _noHold(damaged: Damaged) -> Deferred[None]:
    _logDamage(damaged)
    return succeed(None)


def _logDamage(damaged: Damaged) -> None:
    events.emit(events.MESSAGE_DAMAGED, id=damaged.messageId, problem=damaged.reason)
