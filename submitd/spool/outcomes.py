"""What came of recipients, as statements for :mod:`submitd.spool.writer`.

An outcome, its line of history and the reports about it are one transaction.  With the last
recipient the message goes, or what is kept of it is its record.  Where a damaged page of the data
base stands in the way of that, the outcome is written down in brief: without history, and the
message stays, but nobody will send it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import sqlalchemy as sa

from submitd.spool import accepting, endings, leases
from submitd.spool.prepared import Prepared
from submitd.spool.records import LeaseLost, Settlement, State, Work
from submitd.spool.rows import cutReply
from submitd.spool.schema import recipient


@attrs.frozen(kw_only=True, eq=False)
class Settling:
    """What came of some recipients.

    :param keep: seconds for which the record of a finished message is kept.
    :param isBrief: whether the rows of the recipients, and the reports, are all that is written.
    """

    work: Work
    settlements: Sequence[Settlement]
    reports: Sequence[accepting.Acceptance]
    now: float
    who: str
    keep: float
    isBrief: bool = False

    @property
    def hasFailures(self) -> bool:
        """Whether a recipient was given up: sent again then, it is not a repetition."""
        return any(each.state is State.FAILED for each in self.settlements)


_STANDING = Prepared(
    sa.select(recipient.c.position, recipient.c.state, recipient.c.token).where(
        recipient.c.message == sa.bindparam("id")
    )
)
_SETTLE = Prepared(
    sa.update(recipient)
    .where(*leases.THIS)
    .values(
        state=sa.bindparam("now_state"),
        reply=sa.bindparam("now_reply"),
        due=sa.bindparam("now_due"),
        notified=sa.func.coalesce(sa.bindparam("now_notified"), recipient.c.notified),
        attempts=recipient.c.attempts + sa.bindparam("tried"),
        token=None,
    )
)


def settle(connection: sa.Connection, settlings: list[Settling]) -> list[None]:
    """Write down what came of recipients, and queue the reports about it.

    :raise LeaseLost: when a recipient is somebody else's by now.
    """
    # In one order on all nodes, so that no two of them wait for each other's message.
    for each in sorted(_joined(settlings), key=lambda settling: settling.work.message.id):
        _settle(connection, each)
    reports = [report for each in settlings for report in each.reports]
    if reports:
        accepting.accept(connection, reports)
    return [None] * len(settlings)


def _joined(settlings: list[Settling]) -> list[Settling]:
    """Those of one lease as one: each looks at all recipients of its message."""
    leases: dict[tuple[str, str], Settling] = {}
    for each in settlings:
        key = (each.work.message.id, each.work.token)
        before = leases.get(key)
        if before is not None:
            each = attrs.evolve(before, settlements=[*before.settlements, *each.settlements])
        leases[key] = each
    return list(leases.values())


def _settle(connection: sa.Connection, settling: Settling) -> None:
    id, token = settling.work.message.id, settling.work.token
    if not settling.isBrief:
        _lock(connection, settling)
    standing = _STANDING.run(connection, {"id": id}).all()
    held = {row.position for row in standing if row.token == token}
    ours = {each.position: each.state for each in settling.settlements}
    lost = [position for position in ours if position not in held]
    if lost:
        raise LeaseLost(id, lost)
    if settling.isBrief:
        _write(connection, settling)
        return
    # What cannot be read of the others is no reason to lose what came of these.
    isFinished = all(
        ours[row.position].isFinal if row.position in ours else row.state in endings.FINAL
        for row in standing
    )
    if isFinished and not settling.keep:
        endings.drop(connection, id)
        return
    _record(connection, settling)
    if isFinished:
        endings.finish(connection, id, settling.now)


def _lock(connection: sa.Connection, settling: Settling) -> None:
    id = settling.work.message.id
    if settling.hasFailures:
        endings.forget(connection, id)
    else:
        endings.lock(connection, id)


def _write(connection: sa.Connection, settling: Settling) -> None:
    id = settling.work.message.id
    _SETTLE.run(
        connection,
        [
            {
                "id": id,
                "at": each.position,
                "now_state": each.state.value,
                "now_reply": cutReply(each.reply),
                "now_due": each.due,
                "now_notified": each.notified,
                "tried": int(each.attempted),
            }
            for each in settling.settlements
        ],
    )


def _record(connection: sa.Connection, settling: Settling) -> None:
    id = settling.work.message.id
    _write(connection, settling)
    endings.note(
        connection,
        [
            endings.historyRow(
                id, each.position, settling.now, each.state.value, each.reply, settling.who
            )
            for each in settling.settlements
            if each.attempted or each.state is not State.DELAYED
        ],
    )
