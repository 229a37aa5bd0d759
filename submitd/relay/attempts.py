"""One attempt: a message is read and looked at, and handed to its next hop.

Each recipient has an outcome then, and a line in the log where the next hop was asked.  A message
that is not there any more, or is damaged, has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events
from submitd.extensions.deliverby import KEYWORD as DELIVERBY
from submitd.extensions.deliverby import DeliverBy
from submitd.extensions.mtpriority import KEYWORD as MT_PRIORITY
from submitd.interfaces import IBody, ISpool
from submitd.relay.destinations import Hop
from submitd.relay.outgoing import Outcome, Outgoing, Result, inOneLine
from submitd.relay.parts import Part
from submitd.spool.records import Damaged, QueuedMessage, QueuedRecipient
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, Reply

LOOP = Reply(554, "5.4.6", "Message is in a loop: it has too many Received fields")


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


@attrs.frozen(kw_only=True)
class Attempts:
    """Makes attempts.

    :param spool: where the messages are.
    :param hops: Received fields at which a message is taken to be in a loop; 0 for never.
    :param clock: tells how long an attempt takes.
    :param now: the time of day.
    """

    spool: ISpool
    hops: int
    clock: IReactorTime
    now: Callable[[], float]

    async def make(self, part: Part, hop: Hop) -> Sequence[Outcome]:
        """Try to deliver to the recipients of a part.

        :return: one outcome for each; none at all where there is no message.
        """
        message, recipients = part.message, part.recipients
        body = self.spool.read(message.id)
        try:
            first = await body.next()
        except (Damaged, LookupError):
            # On hold by now, with a line in the log; or an operator has deleted it.
            return ()
        except Refused as refused:
            return _delayed(part, refused.reply)
        if _hops(first) >= self.hops > 0:
            return [Outcome(Result.FAILED, LOOP, isRemote=False)] * len(recipients)
        begun = self.clock.seconds()
        outcomes = await self._send(part, hop, Peeked(first, body))
        for recipient, outcome in zip(recipients, outcomes, strict=True):
            _log(message, recipient, outcome, self.clock.seconds() - begun)
        return outcomes

    async def _send(self, part: Part, hop: Hop, peeked: IBody) -> Sequence[Outcome]:
        bodies = [peeked]

        def read() -> IBody:
            part.isBegun = True
            return bodies.pop() if bodies else self.spool.read(part.message.id)

        try:
            outcomes: Sequence[Outcome] = await hop.deliver(self._outgoing(part), read)
        except CancelledError:
            raise
        except Exception:
            # Given back it would be due at once, and fail at once, for ever.
            unexpected(Failure())
            outcomes = _delayed(part, LOCAL_ERROR)
        if part.isStopped and not part.isBegun:
            raise CancelledError  # an endpoint that is cancelled may call that a failure to connect
        return outcomes

    def _outgoing(self, part: Part) -> Outgoing:
        message, envelope = part.message, part.message.envelope
        parameters: dict[str, str] = {}
        deliverBy: DeliverBy | None = envelope.extensions.get(DELIVERBY)
        if deliverBy is not None:
            left = max(int(deliverBy.deadline - self.now()), -999999999)
            trace = "T" if deliverBy.trace else ""
            parameters["BY"] = f"{left};{deliverBy.mode}{trace}"
        if MT_PRIORITY in envelope.extensions:
            parameters["MT-PRIORITY"] = str(message.priority)
        return Outgoing(
            id=message.id,
            reversePath=envelope.reversePath,
            recipients=tuple(each.recipient for each in part.recipients),
            size=message.size,
            bodyType=envelope.bodyType,
            eightBit=message.eightBit,
            smtpUtf8=envelope.smtpUtf8,
            requireTLS=envelope.requireTLS,
            ret=envelope.ret,
            envid=envelope.envid,
            parameters=parameters,
        )


def unexpected(failure: Failure) -> None:
    """Log an error of our own, unless it says that something was broken off."""
    if not failure.check(CancelledError):
        problem = "the relay met an error of its own"
        events.emit(events.SERVICE_PROBLEM, problem=problem, failure=failure)


def _delayed(part: Part, reply: Reply) -> tuple[Outcome, ...]:
    return (Outcome(Result.DELAYED, reply, isRemote=False),) * len(part.recipients)


def _hops(head: bytes) -> int:
    """The Received fields at the beginning of a message."""
    header = b"\r\n" + head.partition(b"\r\n\r\n")[0]
    return header.lower().count(b"\r\nreceived:")


def _log(
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
