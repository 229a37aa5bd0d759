"""What an attempt, or none, means for a recipient: delivered, delayed until, failed.  Pure."""

from __future__ import annotations

import attrs

from submitd.extensions.deliverby import KEYWORD as DELIVERBY
from submitd.extensions.deliverby import DeliverBy
from submitd.relay.outgoing import Outcome, Result, inOneLine
from submitd.relay.schedule import Schedule
from submitd.spool.records import QueuedMessage, QueuedRecipient, State
from submitd.spool.rows import dueAt
from submitd.wire.reply import Reply

NO_ROUTE = Reply(550, "5.4.4", "There is no route to this address")
CROWDED = Reply(451, "4.3.2", "Waits for its turn at the next hop")
EXPIRED = "Message could not be delivered in time"
NOT_TRIED = Outcome(Result.DELAYED, CROWDED, isRemote=False)


@attrs.frozen
class Verdict:
    """What came of one recipient, as the queue has it.

    :param state: ``DELIVERED``, ``DELAYED`` or ``FAILED``.
    :param isExpired: whether it has failed because its time was over.
    """

    recipient: QueuedRecipient
    outcome: Outcome
    state: State
    due: float | None = None
    isExpired: bool = False
    attempted: bool = True
    expiry: float = 0.0


@attrs.frozen
class Judge:
    """Makes verdicts.

    :param schedule: when it is tried again, and when it is given up.
    """

    schedule: Schedule

    def noRoute(self, recipient: QueuedRecipient) -> Verdict:
        """The verdict on a recipient that no route is for."""
        outcome = Outcome(Result.FAILED, NO_ROUTE, isRemote=False)
        return Verdict(recipient, outcome, State.FAILED)

    def beforehand(self, recipient: QueuedRecipient, now: float) -> Verdict | None:
        """The verdict on a recipient that is not to be tried any more; ``None`` for any other.

        That is a limit of its own: an operator's, or DELIVERBY.  Who is only too old is tried once
        more: the service may have been down for days, or the message on hold.
        """
        if recipient.expires is None or now < recipient.expires:
            return None
        last = recipient.reply or "never tried"
        return Verdict(recipient, _expired(last), State.FAILED, isExpired=True, attempted=False)

    def postponed(self, recipient: QueuedRecipient, due: float) -> Verdict:
        """The verdict on a recipient whose next hop has no room for it until then.

        Where its own time ends before, it comes again then, to be given up.
        """
        if recipient.expires is not None:
            due = min(due, recipient.expires)
        return Verdict(recipient, NOT_TRIED, State.DELAYED, due=due, attempted=False)

    def judge(
        self,
        message: QueuedMessage,
        recipient: QueuedRecipient,
        outcome: Outcome,
        now: float,
        isMoving: bool = False,
    ) -> Verdict:
        """The verdict on a recipient that has been tried.

        :param isMoving: whether the same transaction has delivered to others.  Then who was too
            many in it is tried again at once, and not given up: there are fewer each time.
        """
        if outcome.result is Result.DELIVERED:
            return Verdict(recipient, outcome, State.DELIVERED)
        if outcome.result is Result.FAILED:
            return Verdict(recipient, outcome, State.FAILED)
        expiry = self.schedule.expiry(sendable(message), recipient.expires)
        isNext = isMoving and outcome.isExcess
        if now >= expiry and not isNext:
            given = _expired(inOneLine(outcome.reply), outcome)
            return Verdict(recipient, given, State.FAILED, isExpired=True)
        due = now if isNext else self.schedule.next(now, recipient.attempts + 1, expiry)
        deadline = noticeBy(message)
        if deadline is not None and now < deadline < due:
            due = deadline
        return Verdict(recipient, outcome, State.DELAYED, due=due, expiry=expiry)


def _expired(last: str, outcome: Outcome = NOT_TRIED) -> Outcome:
    reply = Reply(550, "5.4.7", f"{EXPIRED}; {last}")
    saidLast = outcome.reply if outcome.isRemote else None
    return Outcome(Result.FAILED, reply, isRemote=False, host=outcome.host, saidLast=saidLast)


def sendable(message: QueuedMessage) -> float:
    """From when on it may be sent, which is when its time begins (FUTURERELEASE, RFC 4865)."""
    return dueAt(message.envelope, message.arrived)


def noticeBy(message: QueuedMessage) -> float | None:
    """When the sender is to be told that it is late (RFC 2852, by-mode N)."""
    deliverBy: DeliverBy | None = message.envelope.extensions.get(DELIVERBY)
    return deliverBy.deadline if deliverBy is not None and deliverBy.mode == "N" else None
