"""The queue runner: work comes from the spool, goes to its next hops, and is settled.

It is woken by the spool and by the time of the next attempt, and looks now and then by itself, for
what other processes have added.  Recipients of one message at one next hop go in one transaction;
as many messages are on their way at one time as the settings allow.  More are taken, and wait for
a connection to their next hop and then for a place (:mod:`submitd.relay.lines`): so a slow next hop
has as many places as it may have connections, and no more.

An outcome and the report about it are committed together.  A crash between a delivery and that
commit repeats the delivery when the lease has ended, and the log has a line of that.  While the
data base cannot be used, outcomes wait and are tried again until the lease is lost.

At the end, work that has not begun is given back at once; what is on its way gets the time to
drain, and is then broken off and given back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events
from submitd.extensions.deliverby import KEYWORD as DELIVERBY
from submitd.extensions.deliverby import DeliverBy
from submitd.extensions.mtpriority import KEYWORD as MT_PRIORITY
from submitd.interfaces import IBody, ISpool
from submitd.relay.destinations import Destinations, Hop
from submitd.relay.lines import PATIENCE, Lines
from submitd.relay.outgoing import Outcome, Outgoing, Result, inOneLine
from submitd.relay.reports import Reporter
from submitd.relay.routes import Route, Routes
from submitd.relay.schedule import Schedule
from submitd.relay.settings import RelaySettings
from submitd.relay.settlements import Settlements
from submitd.relay.verdicts import Judge, Verdict
from submitd.spool.records import (
    Damaged,
    LeaseLost,
    QueuedMessage,
    QueuedRecipient,
    State,
    Work,
)
from submitd.turns import Turns
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, Reply

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

LOOP = Reply(554, "5.4.6", "Message is in a loop: it has too many Received fields")

Key = tuple[str, str, bool]


@attrs.define(eq=False)
class Lease:
    """One message's work, and what of it is under way.

    :param work: as it is now; extended from time to time.
    :ivar open: parts of it that have not ended.
    :ivar isBroken: whether one of them was broken off, so that there is something to give back.
    """

    work: Work
    open: int = 0
    isBroken: bool = False


@attrs.define(eq=False)
class Part:
    """Recipients of one message that go to one next hop in one transaction.

    :param key: of the next hop.
    :param hop: the next hop; ``None`` when there is no route.
    :param lease: of the message.
    :param recipients: those who have no verdict yet.
    :ivar verdicts: on the others.
    :ivar hasPlace: whether it is one of those that may be on their way.
    :ivar isBegun: whether the message has begun to go out.
    :ivar isStopped: whether it was told to end.
    :ivar isSettling: whether what came of it is being written down.
    """

    key: Key
    hop: Hop | None
    lease: Lease
    recipients: list[QueuedRecipient]
    verdicts: list[Verdict] = attrs.field(factory=list)
    hasPlace: bool = False
    isBegun: bool = False
    isStopped: bool = False
    isSettling: bool = False
    running: Deferred[None] | None = None

    def stop(self) -> None:
        """Break it off, unless what came of it is being written down: that must not get lost."""
        self.isStopped = True
        if self.running is not None and not self.isSettling:
            self.running.cancel()

    @property
    def message(self) -> QueuedMessage:
        """Which message."""
        return self.lease.work.message


@implementer(IBody)
class Peeked:
    """A body whose first chunk has been looked at.

    :param first: that chunk.
    :param rest: what follows.
    """

    def __init__(self, first: bytes, rest: IBody) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def next(self) -> Deferred[bytes]:
        """See :meth:`submitd.interfaces.IBody.next`."""
        if self._first is not None:
            first, self._first = self._first, None
            return succeed(first)
        return self._rest.next()


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
        self.schedule = Schedule(
            intervals=settings.retry,
            jitter=settings.jitter,
            expire=settings.expire,
            notice=settings.delay_notice,
        )
        self._spool = spool
        self._routes = routes
        self._destinations = destinations
        self._settings = settings
        self._judge = Judge(self.schedule)
        self._settlements = Settlements(
            spool=spool,
            reporter=Reporter(hostname=hostname),
            schedule=self.schedule,
            reportSize=settings.report_size,
            now=now,
        )
        self._clock = clock
        self._now = now
        self._parts: dict[Part, None] = {}
        deliveries = max(1, settings.deliveries)
        self._places = Turns(deliveries)
        self._lines = Lines(deliveries, clock.seconds)
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

    # From the start to the end.

    def start(self) -> None:
        """Begin to work."""
        self._running = True
        self._ahead = self._now() - self._clock.seconds()
        if not self._listening:
            self._listening = True
            self._spool.whenDue(self.told)
        self._extending.start(self._settings.lease / 3, now=False).addErrback(self._unexpected)
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
        return Deferred.fromCoroutine(coroutine).addErrback(self._unexpected)

    def _unexpected(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            problem = "the relay met an error of its own"
            events.emit(events.SERVICE_PROBLEM, problem=problem, failure=failure)

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
            self._unexpected(Failure())
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
            for part in self._parted(works):
                self._begin(part)
            if sum(len(work.recipients) for work in works) < room:
                self._isMore = False
                return await self._spool.nextDue()
        return self._now() + PATIENCE

    async def _lookAtClock(self) -> None:
        """Where somebody has set the time of day forward, what is on its way is leased by the old.

        Its lease would be over, and we would take, and deliver, the same once more.
        """
        ahead = self._now() - self._clock.seconds()
        isSet, self._ahead = ahead - self._ahead > STEP, ahead
        if isSet:
            await self._extend()

    def _isRunning(self) -> bool:
        return self._running

    def _parted(self, works: Iterable[Work]) -> Iterator[Part]:
        """Works become parts: by message, then by next hop, none with too many recipients."""
        for _, group in itertools.groupby(works, lambda work: (work.message.id, work.token)):
            lease = Lease(_joined(list(group)))
            parts: dict[Key, Part] = {}
            for recipient in lease.work.recipients:
                key, hop = self._hopFor(lease.work.message, recipient)
                parts.setdefault(key, Part(key, hop, lease, [])).recipients.append(recipient)
            for part in parts.values():
                yield from self._cut(part)

    def _cut(self, part: Part) -> Iterator[Part]:
        most = self._settings.recipients_per_message or len(part.recipients)
        for at in range(0, len(part.recipients), most):
            yield Part(part.key, part.hop, part.lease, part.recipients[at : at + most])

    def _hopFor(self, message: QueuedMessage, recipient: QueuedRecipient) -> tuple[Key, Hop | None]:
        route: Route | None = self._routes.find(
            message.login, message.envelope.reversePath, recipient.mailbox
        )
        if route is None:
            return ("", "", False), None
        return self._destinations.find(route, recipient.domain, message.envelope.requireTLS)

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
            self._unexpected(failure)
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
        now = self._now()
        self._judgeBeforehand(part)
        if part.recipients and self._lines.isCrowded(part.key, part.message.id):
            due = self._lines.sendBack(part.key, part, now)
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
            await self._places.acquire(priority)
            part.hasPlace = True  # until it is settled
            self._lines.begin(part.key, part)
            # Once more: the time of some may have ended while they waited.
            self._judgeBeforehand(part)
            if part.recipients:
                outcomes = await self._deliver(part, part.hop)
                part.verdicts += [
                    self._judge.judge(part.message, each, outcome, self._now())
                    for each, outcome in zip(part.recipients, outcomes, strict=False)
                ]
        finally:
            turns.release()

    async def _deliver(self, part: Part, hop: Hop) -> Sequence[Outcome]:
        message, recipients = part.message, part.recipients
        body = self._spool.read(message.id)
        try:
            first = await body.next()
        except (Damaged, LookupError):
            # On hold by now, with a line in the log; or an operator has deleted it.
            return ()
        except Refused as refused:
            return _delayed(recipients, refused.reply)
        if _hops(first) >= self._settings.hops > 0:
            return [Outcome(Result.FAILED, LOOP, isRemote=False)] * len(recipients)
        peeked: list[IBody] = [Peeked(first, body)]

        def read() -> IBody:
            part.isBegun = True
            return peeked.pop() if peeked else self._spool.read(message.id)

        begun = self._clock.seconds()
        try:
            outcomes = await hop.deliver(self._outgoing(message, recipients), read)
        except CancelledError:
            raise
        except Exception:
            # Given back it would be due at once, and fail at once, for ever.
            self._unexpected(Failure())
            outcomes = _delayed(recipients, LOCAL_ERROR)
        if part.isStopped and not part.isBegun:
            raise CancelledError  # an endpoint that is cancelled may call that a failure to connect
        for recipient, outcome in zip(recipients, outcomes, strict=True):
            _logAttempt(message, recipient, outcome, self._clock.seconds() - begun)
        return outcomes

    def _outgoing(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Outgoing:
        envelope = message.envelope
        parameters: dict[str, str] = {}
        deliverBy: DeliverBy | None = envelope.extensions.get(DELIVERBY)
        if deliverBy is not None:
            left = max(int(deliverBy.deadline - self._now()), -999999999)
            trace = "T" if deliverBy.trace else ""
            parameters["BY"] = f"{left};{deliverBy.mode}{trace}"
        if MT_PRIORITY in envelope.extensions:
            parameters["MT-PRIORITY"] = str(message.priority)
        return Outgoing(
            id=message.id,
            reversePath=envelope.reversePath,
            recipients=tuple(each.recipient for each in recipients),
            size=message.size,
            bodyType=envelope.bodyType,
            eightBit=message.eightBit,
            smtpUtf8=envelope.smtpUtf8,
            requireTLS=envelope.requireTLS,
            ret=envelope.ret,
            envid=envelope.envid,
            parameters=parameters,
        )

    # Settling.

    async def _settle(self, part: Part) -> None:
        part.isSettling = True
        settlements, reports = await self._settlements.of(part.message, part.verdicts)
        isTold = False
        while True:
            try:
                # As it is by now: it is extended meanwhile.
                await self._spool.settle(part.lease.work, settlements, reports)
                break
            except LeaseLost as lost:
                ours = [
                    each for each in part.verdicts if each.recipient.position not in lost.positions
                ]
                if isTold and not ours and part.lease.work.until > self._now():
                    break  # An answer did not arrive: it was ourselves who have settled it.
                events.emit(events.RELAY_PROBLEM, id=lost.messageId, problem=str(lost))
                if 0 < len(ours) < len(part.verdicts):
                    # What came of the others is not to be lost with it.
                    part.verdicts = ours
                    await self._settle(part)
                return
            except Refused as refused:
                # What was delivered is not to be delivered again: the data base may come back.
                if not isTold:
                    isTold = True
                    id = part.message.id
                    events.emit(events.RELAY_PROBLEM, id=id, problem=str(refused))
                if part.isStopped:
                    raise CancelledError from None
                part.isSettling = False
                await deferLater(self._clock, AGAIN, lambda: None)
                part.isSettling = True
        for verdict in part.verdicts:
            _logVerdict(part.message, verdict)


def _joined(works: Sequence[Work]) -> Work:
    """What is leased of one message, whatever the domains."""
    return attrs.evolve(
        works[0], recipients=tuple(each for work in works for each in work.recipients)
    )


def _delayed(recipients: Sequence[QueuedRecipient], reply: Reply) -> tuple[Outcome, ...]:
    return (Outcome(Result.DELAYED, reply, isRemote=False),) * len(recipients)


def _hops(head: bytes) -> int:
    """The Received fields at the beginning of a message."""
    header = b"\r\n" + head.partition(b"\r\n\r\n")[0]
    return header.lower().count(b"\r\nreceived:")


def _logAttempt(
    message: QueuedMessage, recipient: QueuedRecipient, outcome: Outcome, seconds: float
) -> None:
    events.emit(
        events.DELIVERY_ATTEMPTED,
        id=message.id,
        recipient=recipient.mailbox,
        host=outcome.host,
        result=outcome.result.value,
        reply=inOneLine(outcome.reply),
        seconds=round(seconds, 3),
    )


_LOGGED = {
    State.DELIVERED: events.RECIPIENT_DELIVERED,
    State.DELAYED: events.RECIPIENT_DELAYED,
    State.FAILED: events.RECIPIENT_FAILED,
}


def _logVerdict(message: QueuedMessage, verdict: Verdict) -> None:
    if verdict.state is State.DELAYED and not verdict.attempted:
        return
    event = events.RECIPIENT_EXPIRED if verdict.isExpired else _LOGGED[verdict.state]
    fields: dict[str, Any] = {"due": verdict.due} if verdict.state is State.DELAYED else {}
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
