"""Group commit: who shares a transaction, who fails alone, and the thread behind it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from submitd.spool.database import Database, Link, Unusable
from submitd.spool.writer import MAX_BATCH, GroupCommit, WorkThread
from tests.spool.support import Gate


class GroupCommitTests(SynchronousTestCase):
    """What gathers while a commit runs is the next one."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        self.link = Link(Database(directory))
        self.addCleanup(self.link.close)
        self.link.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (x UNIQUE)"))
        self.gate = Gate()
        self.commit = GroupCommit(self.link, self.gate.run)
        self.calls: list[list[Any]] = []

    def insert(self, connection: sa.Connection, values: list[Any]) -> list[Any]:
        self.calls.append(values)
        for value in values:
            if isinstance(value, Exception):
                raise value
            connection.exec_driver_sql("INSERT INTO t VALUES (?)", (value,))
        return [f"did {value}" for value in values]

    def other(self, connection: sa.Connection, values: list[Any]) -> list[Any]:
        return self.insert(connection, values)

    def rows(self) -> list[Any]:
        def look(connection: sa.Connection) -> list[Any]:
            return list(connection.exec_driver_sql("SELECT x FROM t ORDER BY x").scalars())

        return self.link.look(look)

    def test_shared(self) -> None:
        """Those that come while one is written are one transaction, in their order."""
        results = [self.commit.submit(self.insert, at) for at in range(3)]
        self.assertEqual(len(self.gate.waiting), 1)
        results.append(self.commit.submit(self.other, 3))
        self.gate.open()
        self.assertEqual(self.calls, [[0], [1, 2], [3]])
        self.assertEqual(
            [self.successResultOf(each) for each in results], [f"did {at}" for at in range(4)]
        )

    def test_notBefore(self) -> None:
        """Nobody is told before the transaction is over."""
        first, second = (self.commit.submit(self.insert, at) for at in range(2))
        self.assertNoResult(first)
        result, call, arguments = self.gate.waiting.pop(0)
        done = call(*arguments)
        self.assertNoResult(first)
        result.callback(done)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.gate.open()
        self.successResultOf(second)

    def test_bounded(self) -> None:
        """A crowd is several transactions, so that the first of it need not wait for all."""
        results = [self.commit.submit(self.insert, at) for at in range(2 * MAX_BATCH)]
        self.gate.open()
        self.assertEqual([len(each) for each in self.calls], [1, MAX_BATCH, MAX_BATCH - 1])
        for each in results:
            self.successResultOf(each)

    def test_oneFails(self) -> None:
        """One that cannot be written does not spoil the others, and leaves nothing."""
        values = [0, 1, 1, ValueError("x"), 2]
        results = [self.commit.submit(self.insert, each) for each in values]
        self.gate.open()
        self.failureResultOf(results[2], sa.exc.IntegrityError)
        self.failureResultOf(results[3], ValueError)
        for at in (0, 1, 4):
            self.successResultOf(results[at])
        self.assertEqual(self.rows(), [0, 1, 2])

    def test_allFail(self) -> None:
        """When the data base itself fails, nobody waits for it again and again."""
        broken = sa.exc.OperationalError("x", None, Exception("gone"))
        for at, error in enumerate((broken, Unusable("x"), OSError(5, "x"))):
            self.commit.submit(self.other, 10 + at)
            self.calls.clear()
            results = [self.commit.submit(self.insert, each) for each in (error, 1, 2)]
            self.gate.open()
            for each in results:
                self.failureResultOf(each, type(error))
            self.assertEqual(len([each for each in self.calls if error in each]), 1)
        self.assertNotIn(1, self.rows())

    def test_threadFails(self) -> None:
        """Should the thread itself fail, everybody is told."""
        results = [self.commit.submit(self.insert, 0)]
        result, _, _ = self.gate.waiting.pop()
        result.errback(RuntimeError("no thread"))
        self.failureResultOf(results[0], RuntimeError)

    def test_cancelled(self) -> None:
        """What is cancelled in time is not done; what is being done is done."""
        first, second, third = (self.commit.submit(self.insert, at) for at in range(3))
        for each in (first, second):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.gate.open()
        self.successResultOf(third)
        self.assertEqual(self.rows(), [0, 2])

    def test_idle(self) -> None:
        """Whoever stops it waits for what is under way, and for what waits behind that."""
        self.successResultOf(self.commit.idle())
        self.commit.submit(self.insert, 0)
        self.commit.submit(self.insert, 1)
        idle = self.commit.idle()
        self.assertNoResult(idle)
        self.gate.open()
        self.successResultOf(idle)
        self.assertEqual(self.rows(), [0, 1])


class WorkThreadTests(SynchronousTestCase):
    """Calls in a thread, one after the other."""

    def setUp(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.thread = WorkThread("test", lambda *call: self.told.append(call))

    def results(self) -> None:
        """What the reactor would do."""
        while self.told:
            call, *arguments = self.told.pop(0)
            call(*arguments)

    def test_order(self) -> None:
        """All calls are made, in order, in one thread, which is not ours."""
        threads = [self.thread.run(threading.get_ident) for _ in range(3)]
        failed: Deferred[Any] = self.thread.run(int, "x")
        cancelled = self.thread.run(int, "1")
        cancelled.cancel()
        self.thread.stop()
        self.results()
        [ident] = {self.successResultOf(each) for each in threads}
        self.assertNotEqual(ident, threading.get_ident())
        self.failureResultOf(failed, ValueError)
        self.failureResultOf(cancelled, CancelledError)

    def test_stopUnstarted(self) -> None:
        """One that had nothing to do has no thread to stop."""
        self.thread.stop()
        self.assertEqual(self.told, [])
