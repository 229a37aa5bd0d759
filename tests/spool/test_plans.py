"""However long the queue is, no statement of the service reads more than what it is about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from submitd.spool import accepting, endings, leases, operations, tidying
from submitd.spool.prepared import Prepared
from submitd.spool.records import Action, Filter, State
from tests.spool.support import NOW, PostgresCase, SpoolCase

ROWS = 20_000


def fill(engine: str) -> Iterator[str]:
    """Many messages with a recipient each, most of them delayed."""
    isSQLite = engine == "sqlite"
    numbers = (
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
        if isSQLite
        else f"WITH n(i) AS (SELECT generate_series(1, {ROWS}))"
    )
    id = "'M' || (100000000 + i)"
    false, octets = ("0", "x''") if isSQLite else ("false", "''::bytea")
    for table, values in (
        (
            "message",
            f"{id}, 'a@example.com', 'login', '', {NOW} + i, 100, {false}, 0, '', {octets},"
            " NULL, NULL",
        ),
        (
            "recipient",
            f"{id}, 0, 'b@d' || (i / 40), 'd' || (i / 40), '', 'delayed', 0, {NOW} + i, 1,"
            " NULL, NULL, NULL, ''",
        ),
        ("part", f"{id}, 0, {octets}, NULL"),
        ("history", f"i, {id}, 0, 0, '', '', ''"),
    ):
        yield f"INSERT INTO {table} {numbers} SELECT {values} FROM n"
    yield "ANALYZE"


class PlanTests(SpoolCase):
    """SQLite's plans, with many rows in the tables."""

    def setUp(self) -> None:
        super().setUp()
        self.said: list[str] = []
        for statement in fill("sqlite"):
            self.sql(statement)
        engine = self.queue.database._engine

        def note(connection: Any, cursor: Any, statement: str, *arguments: Any) -> None:
            self.said.append(statement)

        sa.event.listen(engine, "before_cursor_execute", note)

    def plan(self, statement: str) -> list[str]:
        """How SQLite goes about it."""
        engine: Any = self.queue.database._engine
        with engine.connect() as connection:
            cursor = connection.connection.cursor()
            count = statement.count("?")
            rows = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", (None,) * count).fetchall()
        return [row[3] for row in rows]

    def assertIndexed(self) -> None:
        """All statements since the last look went by keys and indexes, and sorted little."""
        statements, self.said = self.said, []
        looked = 0
        for statement in statements:
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                looked += 1
                for step in self.plan(statement):
                    # ``max`` and ``min`` of an index's column look at its end alone.
                    isEnd = "max(" in statement or "min(" in statement
                    # ``upload`` has a row for each large message under way, and no more.
                    isSmall = step == "SCAN upload"
                    if step.startswith("SCAN") and not isSmall and not (isEnd and "USING" in step):
                        self.fail(f"{statement}\n{step}")
                    self.assertNotIn("TEMP B-TREE", step, statement)
        self.assertGreater(looked, 0)

    def test_service(self) -> None:
        """Accepting, leasing, settling, reading, clearing away."""
        self.send("A-1", text=b"Message-ID: <1@x>\r\n\r\n" + b"x" * 300_000)
        self.send("A-2", text=b"Message-ID: <1@x>\r\n\r\n" + b"x" * 300_000)
        self.assertEqual(self.body("A-1")[:9], b"Received:")
        [work] = self.lease()
        self.successResultOf(self.queue.extend(work, 60))
        self.successResultOf(self.queue.giveBack(work))
        self.successResultOf(self.queue.nextDue())
        [work] = self.lease()
        self.settle(work, State.DELAYED)
        self.time.now += 300
        self.settle(self.lease(limit=1)[0], State.DELIVERED)
        self.successResultOf(self.queue._write(leases.reclaim, ("host:1:x", NOW)))
        claim = leases.Claim(token="host:1:x/1", limit=1, now=NOW, until=NOW + 60)
        self.successResultOf(self.queue._write(leases.disown, [claim]))
        self.assertIndexed()

    def test_due(self) -> None:
        """What is due is found in the order of an index, whatever is not due yet."""
        self.time.now += 1000
        self.assertEqual(len(self.lease(limit=50)), 50)
        self.assertIndexed()
        plan = self.plan(leases._DUE._compiled["sqlite"][0])
        self.assertEqual(
            plan, ["SEARCH recipient USING COVERING INDEX recipient_due (priority=? AND due<?)"]
        )

    def test_operators(self) -> None:
        """Pages by id, by domain and by recipient, one message, and changes."""
        for which in (
            Filter(),
            Filter(domain="d7"),
            Filter(recipient="b@d7"),
            Filter(ids=("M100000007",)),
        ):
            self.successResultOf(self.queue.messages(which, limit=5, after="M100000005"))
        self.successResultOf(self.queue.show("M100000007"))
        for action in (Action.HOLD, Action.RELEASE, Action.RETRY, Action.DELETE):
            which = Filter(ids=("M100000007", "M100000008"))
            self.assertEqual(self.successResultOf(self.queue.change(action, which, "root")), 2)
        self.assertIndexed()

    def test_everyStatement(self) -> None:
        """No prepared statement has been forgotten here."""
        self.test_service()
        known = {
            name
            for module in (accepting, leases, endings, tidying, operations)
            for name, value in vars(module).items()
            if isinstance(value, Prepared) and not value._compiled
        }
        self.assertLessEqual(known, {"_FINISHED", "FORGET_DIGEST"})


class PostgresPlanTests(PostgresCase):
    """PostgreSQL's plan of the one statement that is made all the time."""

    def test_due(self) -> None:
        """What is due comes from the index."""
        for statement in fill("postgresql"):
            self.sql(statement)
        rows = self.sql(
            f"EXPLAIN SELECT message FROM recipient WHERE priority = 0 AND due <= {NOW + 5}"
            " ORDER BY due LIMIT 50 FOR UPDATE SKIP LOCKED"
        )
        plan = "\n".join(row[0] for row in rows)
        self.assertIn("Index Scan using recipient_due", plan)
        self.assertNotIn("Sort", plan)
