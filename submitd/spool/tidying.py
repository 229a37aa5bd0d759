"""Tidying: what is left behind, and what is old enough to go.

A statement for :mod:`submitd.spool.writer`, which clears away so much at a time that nobody waits
long for it.
"""

from __future__ import annotations

import attrs
import sqlalchemy as sa

from submitd.spool.accepting import abandon
from submitd.spool.endings import FORGET_DIGEST, drop
from submitd.spool.prepared import Prepared
from submitd.spool.schema import message, submission, upload

STALE = 24 * 3600.0
"""Seconds without a new chunk after which a body without a message is a leftover of a crash."""

MAX_TIDIED = 500
"""Rows of one kind that are cleared away in one transaction, so that nobody waits long for it."""


@attrs.frozen
class Tidying:
    """What is old enough to go: of submissions, of uploads, of finished messages."""

    submitted: float
    touched: float
    finished: float


_OLD_SUBMISSIONS = Prepared(
    sa.select(submission.c.digest)
    .where(submission.c.at < sa.bindparam("before"))
    .order_by(submission.c.at)
    .limit(MAX_TIDIED)
)
_OLD_UPLOADS = Prepared(
    sa.select(upload.c.message).where(upload.c.touched < sa.bindparam("before"))
)
_OLD_MESSAGES = Prepared(
    sa.select(message.c.id)
    .where(message.c.finished < sa.bindparam("before"))
    .order_by(message.c.finished)
    .limit(MAX_TIDIED)
)


def tidy(connection: sa.Connection, tidyings: list[Tidying]) -> list[bool]:
    """Clear away what is old.

    :return: whether there is more of it.
    """
    return [_tidy(connection, each) for each in tidyings]


def _tidy(connection: sa.Connection, tidying: Tidying) -> bool:
    bound = {"before": tidying.submitted}
    digests = _OLD_SUBMISSIONS.run(connection, bound).scalars().all()
    if digests:
        FORGET_DIGEST.run(connection, [{"one": digest} for digest in digests])
    uploads = _OLD_UPLOADS.run(connection, {"before": tidying.touched}).scalars().all()
    abandon(connection, list(uploads))
    ids = _OLD_MESSAGES.run(connection, {"before": tidying.finished}).scalars().all()
    for id in ids:
        drop(connection, id)
    return len(digests) == MAX_TIDIED or len(ids) == MAX_TIDIED
