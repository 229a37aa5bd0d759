"""The tables, and how an older data base becomes this one.

``message`` has one row for each message, ``part`` its body in chunks, ``recipient`` its recipients,
``history`` what became of them.  ``upload`` names bodies whose message is not there yet: a large
one is written while it arrives, and nobody sees it before its message is.  ``submission`` knows
again what has been submitted a short while ago.  ``spool`` has one row: the version.

Keys are queue ids, which grow with time: so new rows are appended, and a long queue costs a new
message nothing.  ``recipient.due`` is NULL where nothing is to be done, so the index of what is due
holds waiting recipients alone; a lease is a due time in the future, and a token that begins with
its owner's name.

:func:`migrate` refuses a newer version and a data base of somebody else, with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

VERSION = 3

# Ids and addresses are compared octet by octet, as SQLite does it anyhow.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME: sa.Double[float] = sa.Double()

tables = sa.MetaData()

spool = sa.Table("spool", tables, sa.Column("version", sa.Integer, nullable=False))

message = sa.Table(
    "message",
    tables,
    sa.Column("id", _TEXT, primary_key=True),
    sa.Column("sender", _TEXT, nullable=False),  # "" is the null reverse-path
    sa.Column("login", _TEXT, nullable=False),
    sa.Column("client", _TEXT, nullable=False),
    sa.Column("arrived", _TIME, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("eight_bit", sa.Boolean, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("envelope", _TEXT, nullable=False),  # what else the envelope says, as JSON
    sa.Column("fields", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("finished", _TIME),  # when the last recipient was; the body is gone
)
_FINISHED = message.c.finished.is_not(None)
sa.Index(
    "message_finished",
    message.c.finished,
    sqlite_where=_FINISHED,
    postgresql_where=_FINISHED,
)

part = sa.Table(
    "part",
    tables,
    sa.Column("message", _TEXT, primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("checksum", sa.BigInteger),  # CRC-32 of the data; NULL before version 3
)

upload = sa.Table(
    "upload",
    tables,
    sa.Column("message", _TEXT, primary_key=True),
    sa.Column("touched", _TIME, nullable=False),
    sqlite_with_rowid=False,
)

recipient = sa.Table(
    "recipient",
    tables,
    sa.Column("message", _TEXT, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("address", _TEXT, nullable=False),
    sa.Column("domain", _TEXT, nullable=False),
    sa.Column("parameters", _TEXT, nullable=False),  # as JSON, or "" for none
    sa.Column("state", _TEXT, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),  # the message's, for the index
    sa.Column("due", _TIME),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("expires", _TIME),
    sa.Column("notified", _TIME),
    sa.Column("token", _TEXT),  # of the lease
    sa.Column("reply", _TEXT, nullable=False),
    sqlite_with_rowid=False,
)
_WAITING = recipient.c.due.is_not(None)
sa.Index(
    "recipient_due",
    recipient.c.priority,
    recipient.c.due,
    sqlite_where=_WAITING,
    postgresql_where=_WAITING,
)
sa.Index("recipient_domain", recipient.c.domain, recipient.c.message)
# For the leases of a dead process, which are known to be of one on SQLite alone.
_LEASES = sa.Index(
    "recipient_token", recipient.c.token, sqlite_where=recipient.c.token.is_not(None)
).ddl_if(dialect="sqlite")

history = sa.Table(
    "history",
    tables,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("message", _TEXT, nullable=False),
    sa.Column("position", sa.Integer),
    sa.Column("at", _TIME, nullable=False),
    sa.Column("event", _TEXT, nullable=False),
    sa.Column("text", _TEXT, nullable=False),
    sa.Column("who", _TEXT, nullable=False),
)
sa.Index("history_message", history.c.message)

submission = sa.Table(
    "submission",
    tables,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("message", _TEXT, nullable=False),
    sa.Column("at", _TIME, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("submission_at", submission.c.at)


def _indexLeases(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        _LEASES.create(connection)


def _addChecksums(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE part ADD COLUMN checksum BIGINT")


# version -> what brings a data base of that version to the next one.
MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {1: _indexLeases, 2: _addChecksums}


class SchemaMistake(Exception):
    """The data base is not one that this program can use; the text lacks the subject alone."""


def migrate(connection: sa.Connection) -> None:
    """Make the tables, or bring them up to date; within one transaction.

    :raise SchemaMistake: for a newer version, and for a data base of somebody else.
    """
    if connection.dialect.name == "postgresql":
        # Several nodes may start at once; any number will do, if only it is always the same.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(587465)"))
    version = versionOf(connection)
    if version is None:
        tables.create_all(connection)
        connection.execute(sa.insert(spool).values(version=VERSION))
        return
    for step in range(version, VERSION):
        MIGRATIONS[step](connection)
    if version < VERSION:
        connection.execute(sa.update(spool).values(version=VERSION))


def versionOf(connection: sa.Connection) -> int | None:
    """The version of a data base; ``None`` for an empty one.

    :raise SchemaMistake: for a newer version, and for a data base of somebody else.
    """
    names = set(sa.inspect(connection).get_table_names())
    if spool.name not in names:
        if names.intersection(tables.tables):
            raise SchemaMistake("is a data base of another program")
        return None
    version = connection.execute(sa.select(spool.c.version)).scalar()
    if not isinstance(version, int) or version < 1:
        raise SchemaMistake("is a data base of another program")
    if version > VERSION:
        raise SchemaMistake(
            f"has schema version {version}, and this submitd knows versions up to {VERSION}; it was"
            " written by a newer one"
        )
    return version
