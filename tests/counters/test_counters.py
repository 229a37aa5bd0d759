"""Counting without ever waiting for long: outages, and what a setting makes of them."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from submitd import events
from submitd.counters import counters as counting
from submitd.counters.counters import MAX_THREADS, PAUSE, Counters, then
from submitd.counters.memory import Memory
from submitd.counters.windows import Room, Taken, Want, Window
from submitd.threads import inThreadsOf
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, LOGIN_UNAVAILABLE
from tests.counters.server import MISSING, RedisServer

WANT = Want("a", Window(2, 60, "2 per minute"))
URL = "redis://127.0.0.1:1/0"


class Threads:
    """Runs what is to be run in a thread when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.calls.append((result, lambda: call(*arguments)))
        return result

    def work(self) -> None:
        """Run what waits."""
        calls, self.calls = self.calls, []
        for result, call in calls:
            try:
                value = call()
            except Exception:
                value = Failure()
            result.callback(value)


@implementer(IReactorCore)
class Reactor(Clock):
    """One whose clock began at another time of day."""


class TimeTests(SynchronousTestCase):
    """The system's clock is set while the service runs."""

    def counters(self, where: str) -> Counters:
        """Counts with three clocks of which no two agree."""
        self.patch(time, "time", lambda: 1e9)
        self.patch(time, "monotonic", lambda: 500.0)
        counters = Counters(where, "open", 1.0, "rate-limit")
        counters.start(Reactor(), Threads())
        return counters

    def test_steady(self) -> None:
        """Windows do not jump with it, and replies show the time of day all the same."""
        for where in ("memory", URL):
            counters = self.counters(where)
            self.assertEqual(counters.now(), 500.0)
            self.assertEqual(counters.shown(560.0), "2001-09-09 01:47:40 UTC")


class OutageTests(SynchronousTestCase):
    """A Redis that is away."""

    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.clock = Clock()
        self.threads = Threads()
        self.memory = Memory()
        self.broken: Exception | None = None
        self.patch(counting, "Redis", self.makeRedis)

    def makeRedis(self, url: str, timeout: float) -> Any:
        """In place of a Redis: memory, or an exception."""
        test = self

        class Storage:
            def take(self, *arguments: Any) -> Taken:
                if test.broken:
                    raise test.broken
                return test.memory.take(*arguments)

            def rooms(self, *arguments: Any) -> list[Room]:
                if test.broken:
                    raise test.broken
                return test.memory.rooms(*arguments)

        return Storage()

    def counters(self, onFailure: Any = "open", **keys: Any) -> Counters:
        """Counters of a Redis."""
        counters = Counters(URL, onFailure, 1.0, "some-policy", **keys)
        counters.start(self.clock, self.threads)
        return counters

    def names(self) -> list[str]:
        """The events that were logged."""
        return [each["event"] for each in self.logged]

    def test_answers(self) -> None:
        """A Redis is asked in a thread, and its answer is the Deferred's."""
        counters = self.counters()
        taken, rooms = counters.take([WANT]), counters.rooms([WANT])
        self.assertNoResult(taken)
        self.threads.work()
        self.assertEqual(self.successResultOf(taken), Taken())
        self.assertEqual(self.successResultOf(rooms), [Room(1, 1, 60.0)])
        self.assertEqual(self.names(), [])

    def test_open(self) -> None:
        """Away, with "open": there is no answer and no objection, and nobody waits again."""
        counters = self.counters()
        self.broken = ConnectionError("refused")
        taken = counters.take([WANT])
        self.threads.work()
        self.assertIsNone(self.successResultOf(taken))
        self.assertIsNone(counters.take([WANT]))
        self.assertIsNone(counters.rooms([WANT]))
        self.assertEqual(self.threads.calls, [])
        self.assertEqual(self.names(), ["counters-away"])
        self.assertEqual(self.logged[0]["cause"], "ConnectionError: refused")
        self.assertEqual(self.logged[0]["verdict"], "open")

    def test_closed(self) -> None:
        """Away, with "closed": all is refused with the reply that was given for it."""
        for keys, reply in (({}, LOCAL_ERROR), ({"refusal": LOGIN_UNAVAILABLE}, LOGIN_UNAVAILABLE)):
            counters = self.counters("closed", **keys)
            self.broken = ConnectionError("refused")
            taken = counters.take([WANT])
            self.threads.work()
            self.assertIs(self.failureResultOf(taken, Refused).value.reply, reply)
            with self.assertRaises(Refused) as caught:
                counters.rooms([WANT])
            self.assertIs(caught.exception.reply, reply)
            self.assertEqual(caught.exception.cause, "the counters of some-policy are away")

    def test_once(self) -> None:
        """One event for one outage, however long; and one when it is over."""
        counters = self.counters()
        self.broken = ValueError("nonsense")
        for _ in range(5):
            waiting = counters.take([WANT])
            self.threads.work()
            self.successResultOf(waiting)
            self.assertIsNone(counters.take([WANT]))
            self.clock.advance(PAUSE)
        self.assertEqual(self.names(), ["counters-away"])
        self.broken = None
        waiting = counters.take([WANT])
        # While this one tries, nobody else does.
        self.assertIsNone(counters.take([WANT]))
        self.threads.work()
        self.assertEqual(self.successResultOf(waiting), Taken())
        self.assertEqual(self.names(), ["counters-away", "counters-back"])
        again = counters.take([WANT])
        self.threads.work()
        self.assertEqual(self.successResultOf(again), Taken())

    def test_hangs(self) -> None:
        """No answer in time is an outage; few threads are held up by it."""
        counters = self.counters()
        waiting = [counters.take([WANT]) for _ in range(50)]
        self.assertEqual(len(self.threads.calls), MAX_THREADS)
        self.clock.advance(1.0)
        self.assertEqual([self.successResultOf(each) for each in waiting], [None] * 50)
        self.assertEqual(self.names(), ["counters-away"])
        self.assertEqual(self.logged[0]["cause"], "Overdue: no answer within 1 s")
        # Those whose time is over are not counted any more when the threads come to them.
        while self.threads.calls:
            self.threads.work()
        self.assertEqual(self.memory.rooms([WANT], 0.0)[0].used, 0)

    def test_clientGone(self) -> None:
        """That somebody went away while waiting is no outage."""
        counters = self.counters()
        waiting = counters.take([WANT])
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.threads.work()
        self.assertEqual(self.names(), [])


class MemoryTests(SynchronousTestCase):
    """Memory needs no thread."""

    def test_atOnce(self) -> None:
        """An answer from memory is there at once: no Deferred on the path of a message."""
        counters = Counters("memory", "closed", 1.0, "x")
        counters.start(Clock(), None)
        self.assertEqual(counters.take([WANT]), Taken())
        self.assertEqual(counters.rooms([WANT]), [Room(1, 1, 60.0)])
        self.assertEqual(counters.check(), [])

    def test_notStarted(self) -> None:
        """Before the start there is no clock, and that is said."""
        counters = Counters("memory", "open", 1.0, "rate-limit")
        with self.assertRaises(RuntimeError) as caught:
            counters.take([WANT])
        self.assertEqual(str(caught.exception), "rate-limit has not been started")

    def test_check(self) -> None:
        """A wrong URL is a mistake before the start; nothing is connected to find that out."""
        self.assertRaises(ValueError, Counters, "memcached://x", "open", 1.0, "x")
        self.assertEqual(Counters(URL, "open", 1.0, "x").check(), [])
        [said] = Counters("redis://127.0.0.1:port/0", "open", 1.0, "x").check()
        self.assertTrue(said.startswith("storage: "), said)
        [said] = Counters("redis://127.0.0.1:1/0?bogus=1", "open", 1.0, "x").check()
        self.assertIn("bogus", said)

    def test_notInstalled(self) -> None:
        """Without the package, the mistake names the extra that brings it."""
        for name in ("redis.backoff", "redis.retry"):
            self.addCleanup(sys.modules.__setitem__, name, importlib.import_module(name))
            sys.modules[name] = None  # type: ignore[assignment]
        self.assertEqual(
            Counters(URL, "open", 1.0, "x").check(),
            ['storage: needs the package "redis": the extra "redis" of submitd'],
        )

    def test_then(self) -> None:
        """What follows an answer runs now, or when it has come."""
        self.assertEqual(then(1, lambda value, more: value + more, 2), 3)
        waiting: Deferred[int] = Deferred()
        result = then(waiting, lambda value, more: value + more, 2)
        waiting.callback(1)
        self.assertEqual(self.successResultOf(result), 3)


class ServerTests(TestCase):
    """A real Redis that stops, hangs and comes back, and something that is no Redis."""

    skip = MISSING

    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.clock = Clock()

    def counters(self, url: str, timeout: float) -> Counters:
        """Counters in threads of the reactor, whose own time goes on when a test says so."""
        counters = Counters(url, "open", timeout, "x")
        counters.start(self.clock, inThreadsOf(reactor))
        return counters

    async def test_outage(self) -> None:
        """It is answered in bounded time, whatever the Redis does, and counted again afterwards."""
        server = RedisServer()
        self.addCleanup(server.remove)
        server.start()
        counters = self.counters(server.url, 30.0)
        self.assertEqual(await counters.take([WANT]), Taken())
        server.hang()
        waiting = counters.take([WANT])
        self.clock.advance(30.0)
        self.assertIsNone(self.successResultOf(waiting))
        server.goOn()
        self.clock.advance(PAUSE)
        rooms = await counters.rooms([WANT])
        self.assertIsNotNone(rooms)
        server.stop()
        self.assertIsNone(await counters.take([WANT]))
        server.start()
        self.clock.advance(PAUSE)
        self.assertEqual((await counters.take([WANT])).shortage, None)
        self.assertEqual(
            [each["event"] for each in self.logged], ["counters-away", "counters-back"] * 2
        )

    async def test_nonsense(self) -> None:
        """What speaks another protocol is away: its answer is none, and no exception escapes."""
        for answer in (b"220 smtp.example ESMTP\r\n", b"$-1\r\n" * 20, b"*99999999\r\n", b"\0" * 9):
            listening = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(listening.close)
            thread = threading.Thread(target=_answer, args=(listening, answer), daemon=True)
            thread.start()
            counters = self.counters(f"redis://127.0.0.1:{listening.getsockname()[1]}/0", 0.3)
            self.assertIsNone(await counters.take([WANT]), answer)
            self.assertIsNone(counters.rooms([WANT]))


def _answer(listening: socket.socket, answer: bytes) -> None:
    """Say the same to one client, whatever it says."""
    connection, _ = listening.accept()
    with connection:
        connection.sendall(answer)
        connection.settimeout(2)
        try:
            while connection.recv(4096):
                pass
        except OSError:
            pass
