"""Tests for :mod:`submitd.query`."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from submitd import query
from submitd.query import MAX_THREADS, NoAnswer, Query
from tests.spool import postgres

LOGIN = frozenset({"login"})
SLEEPS = "SELECT 'x@example.com' FROM pg_sleep(60) WHERE :login = ''"


class QueryTests(SynchronousTestCase):
    """A data base in memory, or none at all."""

    def test_together(self) -> None:
        """So many are asked at once; who goes gives no turn away, and is not asked for later."""
        most = MAX_THREADS
        running: list[Deferred[Any]] = []

        def run(call: Any, *arguments: Any) -> Deferred[Any]:
            running.append(Deferred())
            return running[-1]

        one = Query("sqlite://", "SELECT :login", LOGIN, run)
        asked = [
            Deferred.fromCoroutine(one.ask({"login": f"login{at}"}))
            for at in range(MAX_THREADS + 3)
        ]
        asked[0].cancel()
        asked[most].cancel()
        for gone in (asked[0], asked[most]):
            self.failureResultOf(gone, CancelledError)
        self.assertEqual(len(running), most)
        running[0].callback([])
        self.assertEqual(len(running), most + 1)
        running[most].callback([("info@example.com",)])
        self.assertEqual(self.successResultOf(asked[most + 1]), [("info@example.com",)])
        self.assertEqual(len(running), most + 2)


class ThreadTests(TestCase):
    """The way a service asks."""

    async def test_thread(self) -> None:
        """The question runs in another thread than the reactor's."""
        threads = await query.deferToThread(threading.get_ident)
        self.assertNotEqual(threads, threading.get_ident())

    async def test_answers(self) -> None:
        """The rows; and what went wrong, in a line without the values."""
        [[said]] = await Query("sqlite://", "SELECT :login || '!'", LOGIN).ask({"login": "alice"})
        self.assertEqual(said, "alice!")
        wrong = Query("sqlite://", "SELECT secret FROM users WHERE name = :login", LOGIN)
        with self.assertRaises(NoAnswer) as caught:
            await wrong.ask({"login": "alice"})
        self.assertEqual(str(caught.exception), "sqlite://: no such table: users")


class PostgresTests(SynchronousTestCase):
    """With a server."""

    def test_limit(self) -> None:
        """The server ends a question that takes too long."""
        postgres.require(self)
        self.patch(query, "ANSWER_TIMEOUT", 0.01)
        [finding] = Query(postgres.server().url, SLEEPS, LOGIN).check()
        self.assertIn("statement timeout", finding)

    def test_cutOff(self) -> None:
        """One that does not end it is not waited for: its connection is cut."""
        postgres.require(self)
        self.patch(query, "GRACE", 0.1 - query.ANSWER_TIMEOUT)
        [finding] = Query(postgres.server().url, SLEEPS, LOGIN).check()
        self.assertIn("server closed the connection", finding)
        # What is not over in time is cut, and nothing else; the next question has its own.
        self.patch(query, "GRACE", 2)
        good = Query(postgres.server().url, "SELECT 'x' WHERE :login = ''", LOGIN)
        self.assertEqual(good.check(), [])
