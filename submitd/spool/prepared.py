"""Statements that are compiled once.

SQLAlchemy's way through a statement costs more than SQLite takes to run it: three times as much for
the few rows of one message.  So those on the way of every message are compiled for the data base at
their first use, and then given to its driver with their values as they are; which is right for
text, numbers, octets and NULL, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

Row = dict[str, Any]


class Prepared:
    """One statement.

    :param statement: of SQLAlchemy Core; its values have their names by ``bindparam``, or, for an
        insert without values, by the columns of the first row.
    """

    def __init__(self, statement: sa.ClauseElement) -> None:
        self._statement = statement
        # dialect -> its text, its own constants, and the order of values; none where they go by
        # their names.
        self._compiled: dict[str, tuple[str, Row, tuple[str, ...]]] = {}

    def run(self, connection: sa.Connection, values: Row | Sequence[Row]) -> sa.CursorResult[Any]:
        """Run it, for several rows when a sequence is given."""
        isOne = isinstance(values, dict)
        rows: Any = [values] if isOne else values
        known = self._compiled.get(connection.dialect.name)
        if known is None:
            known = self._compile(connection.dialect, rows[0])
        text, constants, order = known
        if constants:
            rows = [{**constants, **row} for row in rows]
        if order:
            rows = [tuple([row[name] for name in order]) for row in rows]
        return connection.exec_driver_sql(text, rows[0] if isOne else rows)

    def _compile(self, dialect: sa.Dialect, row: Row) -> tuple[str, Row, tuple[str, ...]]:
        isInsert = isinstance(self._statement, sa.Insert)
        compiled: Any = self._statement.compile(
            dialect=dialect, column_keys=list(row) if isInsert else None
        )
        constants = {name: value for name, value in compiled.params.items() if name not in row}
        known = (str(compiled), constants, tuple(compiled.positiontup or ()))
        self._compiled[dialect.name] = known
        return known
