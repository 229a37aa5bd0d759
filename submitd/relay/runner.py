"""The queue runner: work comes from the spool, goes to its next hops, and is settled.

It is woken by the spool and by the time of the next attempt, and looks now and then by itself, for
what other processes have added.  As many messages are on their way at one time as the settings
allow.  More are taken, and wait for a connection to their next hop and then for a place
(:mod:`submitd.relay.lines`): so a slow next hop has as many places as it may have connections, and
no more.

An outcome and the report about it are committed together.  A crash between a delivery and that
commit repeats the delivery when the lease has ended, and the log has a line of that.  While the
data base cannot be used, outcomes wait and are tried again until the lease is lost.

At the end, work that has not begun is given back at once; what is on its way gets the time to
drain, and is then broken off and given back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from submitd import events
from submitd.counters.names import asTime
from submitd.interfaces import ISpool
from submitd.relay.attempts import Attempts, unexpected
from submitd.relay.destinations import Destinations
from submitd.relay.lines import PATIENCE, Lines
from submitd.relay.outgoing import Result, inOneLine
from submitd.relay.parts import Lease, Part, Parting
from submitd.relay.reports import Reporter
from submitd.relay.routes import Routes
from submitd.relay.schedule import Schedule
from submitd.relay.settings import RelaySettings
from submitd.relay.settlements import Settlements, logReport
from submitd.relay.verdicts import Judge, Verdict
from submitd.spool.records import (
    Damaged,
    LeaseLost,
    NewMessage,
    QueuedMessage,
    Settlement,
    State,
)
from submitd.turns import Turns
from submitd.wire.errors import Refused

POLL = 30.0
"""Seconds after which the spool is asked anyway: other processes add to it too."""

AGAIN = 5.0
"""Seconds until the data base is tried again."""

LAST = 5.0
"""Seconds that what is broken off at the end has to be given back."""

MOMENT = 0.1
"""Seconds until the spool is asked for a few where there is room for no more than these."""

STEP = 1.0
"""By how many seconds the clock must have been set; what is less does no lease any harm."""

BACK = 60.0
"""By how many seconds it must have been set back for what waits to be due earlier."""


class Runner:
    """Runs the queue.

    :param spool: where the work is.
    :param routes: where it goes.
    :param destinations: the next hops.
    :param settings: of ``[relay]``.
    :param hostname: our own name, for reports.
    :param clock: calls later.
    :param now: the time of day.
    """

    def __init__(
        self,
        spool: ISpool,
        routes: Routes,
        destinations: Destinations,
        settings: RelaySettings,
        hostname: str,
        clock: Any,
        now: Callable[[], float],
    ) -> None:
        schedule = Schedule(
            intervals=settings.retry,
            jitter=settings.jitter,
            expire=settings.expire,
            notice=settings.delay_notice,
        )
        self._spool = spool
        self._destinations = destinations
        self._parting = Parting(routes, destinations, settings.recipients_per_message)
        self._attempts = Attempts(spool=spool, hops=settings.hops, clock=clock, now=now)
        self._settings = settings
        self._judge = Judge(schedule)
        self._longest = schedule.longest
        self._settlements = Settlements(
            spool=spool,
            reporter=Reporter(hostname=hostname),
            schedule=schedule,
            reportSize=settings.report_size,
            now=now,
        )
        self._clock = clock
        self._now = now
        self._parts: dict[Part, None] = {}
        deliveries = max(1, settings.deliveries)
        self._lines = Lines(deliveries, clock.seconds)
        self._places = Turns(deliveries, self._lines.rank)
        self._leases: dict[Lease, None] = {}
        self._timer: IDelayedCall | None = None
        self._filling = False
        self._again = False
        self._running = False
        self._extending = LoopingCall(self._extend)
        self._extending.clock = clock
        self._listening = False
        self._isMore = False
        self._ahead = 0.0  # the time of day, before a clock that nobody can set
        # At once, for the clock may have been set back while we did not look; then when it is.
        self._hastenFrom = 0.0
        self._notHastened = ""  # why; it is told once

    # From the start to the end.

    def start(self) -> None:
        """Begin to work."""
        self._running = True
        self._ahead = self._now() - self._clock.seconds()
        if not self._listening:
            self._listening = True
            self._spool.whenDue(self.told)
        self._extending.start(self._settings.lease / 3, now=False).addErrback(unexpected)
        self._wakeAt(self._now())

    async def stop(self, drain: float) -> None:
        """End the work.

        :param drain: seconds for what is on its way.
        """
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for part in list(self._parts):
            if not part.isBegun:
                part.stop()
        await self._ended(drain)
        for part in list(self._parts):
            part.stop()
        await self._ended(LAST)
        if self._extending.running:
            self._extending.stop()
        await self._destinations.close()

    async def _ended(self, seconds: float) -> None:
        until = self._clock.seconds() + seconds
        while (self._parts or self._filling) and self._clock.seconds() < until:
            await deferLater(self._clock, min(0.05, seconds), lambda: None)

    # Taking work.

    def told(self, due: float) -> None:
        """The spool has something to do.

        :param due: when, in seconds since 1970.
        """
        if self._running:
            self._wakeAt(due)

    def _wakeAt(self, due: float) -> None:
        wait = max(0.0, due - self._now())
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= self._clock.seconds() + wait:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(wait, self._wake)

    def _wake(self) -> None:
        self._again = True
        if not self._filling and self._running:
            self._filling = True
            self._spawn(self._fill())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
        return Deferred.fromCoroutine(coroutine).addErrback(unexpected)

    async def _fill(self) -> None:
        due: float | None = None
        try:
            while self._again and self._running:
                self._again = False
                due = await self._take()
        except Refused as refused:
            events.emit(events.RELAY_PROBLEM, problem=str(refused))
            due = self._now() + AGAIN
        except Exception:
            # Whatever it is, it must not be the end of all deliveries.
            unexpected(Failure())
            due = self._now() + AGAIN
        finally:
            self._filling = False
        if self._running:
            latest = self._now() + POLL
            self._wakeAt(latest if due is None else min(due, latest))

    async def _take(self) -> float | None:
        """Take what is due, as much as there is room for.

        :return: when there will be more; ``None`` when nobody knows.
        """
        self._isMore = True
        await self._lookAtClock()
        while self._isRunning() and (room := self._lines.room) > 0:
            works = await self._spool.lease(room, self._settings.lease)
            if not self._isRunning():
                for work in works:
                    await self._spool.giveBack(work)
                return None
            for part in self._parting.of(works):
                self._begin(part)
            if sum(len(work.recipients) for work in works) < room:
                self._isMore = False
                return await self._spool.nextDue()
        return self._now() + PATIENCE

    async def _lookAtClock(self) -> None:
        """Where somebody has set the time of day, what is in the queue has its times by the old.

        Forward, the lease of what is on its way would be over, and we would take, and deliver, the
        same once more; back, it and all that is delayed would last for as much longer.
        """
        ahead = self._now() - self._clock.seconds()
        step, self._ahead = ahead - self._ahead, ahead
        if abs(step) > STEP:
            await self._extend()
        if step < -BACK:
            self._hastenFrom = 0.0
        if self._clock.seconds() >= self._hastenFrom:
            await self._hasten()

    async def _hasten(self) -> None:
        try:
            await self._spool.hasten(self._now() + self._longest)
            self._hastenFrom, self._notHastened = math.inf, ""
        except Refused as refused:
            # One message that cannot be read is not to keep back all that is due.
            if str(refused) != self._notHastened:
                self._notHastened = str(refused)
                events.emit(events.RELAY_PROBLEM, problem=self._notHastened)
            self._hastenFrom = self._clock.seconds() + AGAIN

    def _isRunning(self) -> bool:
        # Asked by a call where it may have changed meanwhile, which the type checker cannot see.
        return self._running

    def _begin(self, part: Part) -> None:
        self._parts[part] = None
        self._lines.join(part.key, part, part.message.id)
        part.lease.open += 1
        self._leases[part.lease] = None
        part.running = Deferred.fromCoroutine(self._run(part))
        part.running.addErrback(self._broken, part)
        part.running.addBoth(lambda _: self._spawn(self._end(part)))

    def _broken(self, failure: Failure, part: Part) -> None:
        if not failure.check(CancelledError):
            # Given back it would be due at once, and break at once, for ever; the lease ends.
            unexpected(failure)
            return
        part.lease.isBroken = True
        if part.isBegun:
            problem = "broken off at the end of the service; it may arrive twice"
            events.emit(events.RELAY_PROBLEM, id=part.message.id, problem=problem)

    async def _end(self, part: Part) -> None:
        lease = part.lease
        lease.open -= 1
        try:
            if lease.open == 0:
                self._leases.pop(lease, None)
                if lease.isBroken:
                    await self._spool.giveBack(lease.work)
        except Refused as refused:
            # The lease ends by itself.
            events.emit(events.RELAY_PROBLEM, problem=str(refused))
        finally:
            self._parts.pop(part, None)
            self._lines.leave(part.key, part)
            if part.hasPlace:
                self._places.release()
            self._wakeAfter()

    def _wakeAfter(self) -> None:
        if self._isMore and self._running:
            # Not each time: one question of the data base for a few places that are free.  Where
            # long lines leave less, there are never so many.
            isEnough = self._lines.hasRoom(min(10, max(1, self._settings.deliveries // 2)))
            self._wakeAt(self._now() + (0.0 if isEnough else MOMENT))

    async def _extend(self) -> None:
        # All at once: they are one commit.
        await gatherResults([self._spawn(self._extendOne(lease)) for lease in list(self._leases)])

    async def _extendOne(self, lease: Lease) -> None:
        try:
            lease.work = await self._spool.extend(lease.work, self._settings.lease)
        except LeaseLost:
            self._leases.pop(lease, None)
        except Refused as refused:
            events.emit(events.RELAY_PROBLEM, problem=str(refused))

    # One part.

    async def _run(self, part: Part) -> None:
        self._judgeBeforehand(part)
        if part.recipients and self._lines.isCrowded(part.key, part.message.id):
            due = self._lines.sendBack(part.key, part, self._now())
            part.verdicts += [self._judge.postponed(each, due) for each in part.recipients]
        elif part.recipients:
            await self._inTurn(part)
        if part.verdicts:
            await self._settle(part)

    def _judgeBeforehand(self, part: Part) -> None:
        """Judge those that are not to be tried."""
        recipients, part.recipients = part.recipients, []
        for each in recipients:
            verdict = (
                self._judge.noRoute(each)
                if part.hop is None
                else self._judge.beforehand(each, self._now())
            )
            if verdict is None:
                part.recipients.append(each)
            else:
                part.verdicts.append(verdict)

    async def _inTurn(self, part: Part) -> None:
        """Deliver to those that have no verdict yet, when their turn has come."""
        assert part.hop is not None, "there is a route"
        priority, turns = part.message.priority, part.hop.turns
        await turns.acquire(priority)
        try:
            # Not before: a place is for what can go out.
            await self._places.acquire((priority, part.key))
            part.hasPlace = True  # until it is settled
            self._lines.begin(part.key, part)
            # Once more: the time of some may have ended while they waited.
            self._judgeBeforehand(part)
            if part.recipients:
                outcomes = await self._attempts.make(part, part.hop)
                isMoving = any(each.result is Result.DELIVERED for each in outcomes)
                part.verdicts += [
                    self._judge.judge(part.message, each, outcome, self._now(), isMoving)
                    for each, outcome in zip(part.recipients, outcomes, strict=False)
                ]
        finally:
            turns.release()

    # Settling.

    async def _settle(self, part: Part) -> None:
        """Have what came of it written down, as far as it is still ours to say, and log it."""
        part.isSettling = True
        settlements, reports = await self._settlements.of(part.message, part.verdicts)
        try:
            lost = await self._written(part, settlements, [each.message for each in reports])
        except Damaged:  # which has been told; it is left alone, and no report is in the queue
            lost, reports = None, []
        if lost is not None:
            events.emit(events.RELAY_PROBLEM, id=lost.messageId, problem=str(lost))
            ours = _oursOf(part, lost)
            if 0 < len(ours) < len(part.verdicts):
                # What came of the others is not to be lost with it.
                part.verdicts = ours
                await self._settle(part)
            return
        for verdict in part.verdicts:
            _logVerdict(part.message, verdict)
        for report in reports:
            logReport(part.message, report)

    async def _written(
        self, part: Part, settlements: Sequence[Settlement], reports: Sequence[NewMessage]
    ) -> LeaseLost | None:
        """Wait until it is written down, for the data base may come back.

        What was delivered is not to be delivered again.

        :return: why it never will be, or ``None``.
        :raise CancelledError: when the part is told to end, and there is no data base.
        :raise Damaged: when it cannot be written down, for the queue is damaged there.
        """
        isTold = False
        while True:
            try:
                # As it is by now: it is extended meanwhile.
                await self._spool.settle(part.lease.work, settlements, reports)
                return None
            except LeaseLost as lost:
                # An answer did not arrive: then it was ourselves who have settled it.
                isOurs = isTold and not _oursOf(part, lost)
                return None if isOurs and part.lease.work.until > self._now() else lost
            except Refused as refused:
                if not isTold:
                    isTold = True
                    events.emit(events.RELAY_PROBLEM, id=part.message.id, problem=str(refused))
                if part.isStopped:
                    raise CancelledError from None
                part.isSettling = False
                await deferLater(self._clock, AGAIN, lambda: None)
                part.isSettling = True


def _oursOf(part: Part, lost: LeaseLost) -> list[Verdict]:
    return [each for each in part.verdicts if each.recipient.position not in lost.positions]


_LOGGED = {
    State.DELIVERED: events.RECIPIENT_DELIVERED,
    State.DELAYED: events.RECIPIENT_DELAYED,
    State.FAILED: events.RECIPIENT_FAILED,
}


def _logVerdict(message: QueuedMessage, verdict: Verdict) -> None:
    if verdict.state is State.DELAYED and not verdict.attempted:
        return
    event = events.RECIPIENT_EXPIRED if verdict.isExpired else _LOGGED[verdict.state]
    fields = {"due": asTime(verdict.due)} if verdict.due is not None else {}
    events.emit(
        event,
        id=message.id,
        sender=message.envelope.reversePath,
        recipient=verdict.recipient.mailbox,
        host=verdict.outcome.host,
        attempts=verdict.recipient.attempts + verdict.attempted,
        reply=inOneLine(verdict.outcome.reply),
        **fields,
    )
