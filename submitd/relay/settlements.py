"""What is written down of an attempt, and what its sender is told of it.

A report that cannot give back the message's header, for the data base is away or it is damaged,
goes out without.  One that an error of our own keeps from being made is left out, and logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from submitd import events
from submitd.extensions.deliverby import KEYWORD as DELIVERBY
from submitd.extensions.deliverby import DeliverBy
from submitd.interfaces import ISpool
from submitd.relay.outgoing import Outcome, inOneLine
from submitd.relay.reports import Action, Original, Reporter, Told, isWanted, returnsWhole
from submitd.relay.schedule import Schedule
from submitd.relay.verdicts import Verdict, noticeBy, sendable
from submitd.session import newId
from submitd.spool.records import (
    Damaged,
    NewMessage,
    QueuedMessage,
    QueuedRecipient,
    Settlement,
    State,
)
from submitd.wire.errors import Refused

MAX_HEADER = 64 * 1024
"""Octets of a header section that a report gives back."""


@attrs.frozen
class Report:
    """A report, and who it is about.

    :param message: to be queued.
    """

    message: NewMessage
    told: Sequence[Told]


@attrs.frozen(kw_only=True)
class Settlements:
    """Makes settlements and reports of verdicts.

    :param spool: where the messages are.
    :param reporter: writes reports.
    :param schedule: knows when a notice of delay is due.
    :param reportSize: octets of a message that a report gives back at most.
    :param now: the time of day.
    """

    spool: ISpool
    reporter: Reporter
    schedule: Schedule
    reportSize: int
    now: Callable[[], float]

    async def of(
        self, message: QueuedMessage, verdicts: Sequence[Verdict]
    ) -> tuple[list[Settlement], list[Report]]:
        """What the queue is to know of the verdicts on a message, and the reports about them."""
        now = self.now()
        told: dict[Action, list[Told]] = {}
        settlements: list[Settlement] = []
        for verdict in verdicts:
            action = self._actionOf(message, verdict, now)
            if action is not None:
                told.setdefault(action, []).append(
                    Told(
                        recipient=verdict.recipient.recipient,
                        action=action,
                        outcome=verdict.outcome,
                        retryUntil=verdict.expiry or None,
                        isLate=action is Action.DELAYED
                        and _isLate(message, verdict.recipient, now),
                    )
                )
            settlements.append(
                Settlement(
                    position=verdict.recipient.position,
                    state=verdict.state,
                    reply=_recorded(verdict),
                    due=verdict.due,
                    notified=now if action is Action.DELAYED else None,
                    attempted=verdict.attempted,
                )
            )
        reports = [await self._reportOrLog(message, each, now) for each in told.values()]
        return settlements, [each for each in reports if each is not None]

    def _actionOf(self, message: QueuedMessage, verdict: Verdict, now: float) -> Action | None:
        """What the sender is to be told of a recipient; ``None`` for nothing."""
        outcome, recipient = verdict.outcome, verdict.recipient
        if verdict.state is State.FAILED:
            action = Action.FAILED
        elif verdict.state is State.DELIVERED:
            if _isTraced(message, recipient, outcome):
                return Action.RELAYED
            if outcome.dsn:
                return None  # the next hop will (RFC 3461 5.2.2)
            action = Action.DELIVERED if outcome.isFinal else Action.RELAYED
        else:
            # Who goes in the next transaction, at once, does not wait.
            isWaiting = verdict.attempted and (verdict.due or 0.0) > now
            isDue = isWaiting and self.schedule.isNoticeDue(
                now, sendable(message), recipient.notified
            )
            if not isDue and not _isLate(message, recipient, now):
                return None
            action = Action.DELAYED
        return action if isWanted(action, recipient.recipient, message.envelope) else None

    async def _reportOrLog(
        self, message: QueuedMessage, told: Sequence[Told], now: float
    ) -> Report | None:
        try:
            return await self._report(message, told, now)
        except CancelledError:
            raise
        except Exception:
            # Unless it is written down what became of it, the message goes out again and again.
            problem = f"no report can be made on {message.id}"
            events.emit(events.SERVICE_PROBLEM, problem=problem, failure=Failure())
            return None

    async def _report(self, message: QueuedMessage, told: Sequence[Told], now: float) -> Report:
        whole = told[0].action is Action.FAILED and returnsWhole(
            message.envelope, message.size, self.reportSize
        )
        content = await self._content(message.id, whole)
        original = Original(
            envelope=message.envelope, arrived=message.arrived, content=content, isWhole=whole
        )
        envelope, octets = self.reporter.report(newId(), original, told, now)
        return Report(NewMessage(envelope=envelope, content=octets), told)

    async def _content(self, messageId: str, whole: bool) -> bytes:
        """The header section, or all of a message."""
        content = b""
        # On hold it would not be ours any more, and could not be settled: whoever has it expired
        # would find it on hold again, and its sender would be told nothing.
        body = self.spool.read(messageId, holds=False)
        try:
            while chunk := await body.next():
                content += chunk
                if not whole and (b"\r\n\r\n" in content or len(content) > MAX_HEADER):
                    break
        except (Damaged, LookupError, Refused):
            # A report without it is better than none.
            return b"\r\n"
        if whole:
            return content
        head = content.partition(b"\r\n\r\n")[0][:MAX_HEADER]
        return head.rpartition(b"\r\n")[0] + b"\r\n" if len(head) == MAX_HEADER else head + b"\r\n"


def logReport(message: QueuedMessage, report: Report) -> None:
    """Tell the log of a report that has been queued.

    :param message: what it is about.
    """
    for each in report.told:
        events.emit(
            events.REPORTED,
            id=message.id,
            report=report.message.envelope.id,
            sender=message.envelope.reversePath,
            recipient=each.recipient.mailbox,
            action=each.action.value,
        )


def _isLate(message: QueuedMessage, recipient: QueuedRecipient, now: float) -> bool:
    """Whether the time of by-mode N is over and the sender is not told yet (RFC 2852 4.1.3).

    Neither an earlier notice of delay nor a wait for a turn at the next hop stands in its way.
    """
    deadline = noticeBy(message)
    return deadline is not None and now >= deadline and not _isTold(recipient, deadline)


def _isTold(recipient: QueuedRecipient, deadline: float) -> bool:
    return recipient.notified is not None and recipient.notified >= deadline


def _isTraced(message: QueuedMessage, recipient: QueuedRecipient, outcome: Outcome) -> bool:
    """Whether the sender is told that it was passed on, because of its deadline (RFC 2852 4.1.4).

    By-trace T asks for that; in by-mode N it is also the last word when the next hop knows nothing
    of deadlines, unless the sender is told already that it is late.
    """
    envelope = message.envelope
    deliverBy: DeliverBy | None = envelope.extensions.get(DELIVERBY)
    if deliverBy is None or outcome.isFinal or envelope.reversePath.isNull:
        return False
    isOpen = deliverBy.mode == "N" and not _isTold(recipient, deliverBy.deadline)
    isUnkept = isOpen and not outcome.deliverBy
    return (deliverBy.trace or isUnkept) and "NEVER" not in recipient.recipient.notify


def _recorded(verdict: Verdict) -> str:
    """What is kept: the last reply, which a wait without an attempt does not change."""
    isWait = verdict.state is State.DELAYED and not verdict.attempted
    return (verdict.recipient.reply if isWait else "") or inOneLine(verdict.outcome.reply)
