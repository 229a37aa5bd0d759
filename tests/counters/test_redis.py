"""Counts in a real Redis: the same contract as in memory, and what only a Redis can do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from redis.exceptions import ResponseError
from twisted.trial.unittest import SynchronousTestCase

from submitd.counters import redis as storages
from submitd.counters.redis import Redis
from submitd.counters.windows import Room, Taken, Want, Window
from tests.counters.server import MISSING, RedisServer
from tests.counters.test_memory import STEPS, Contract

HOUR = Window(5, 3600, "5 per hour")


class SetRedis(Redis):
    """A storage whose Redis takes our time for its own, so that a test can set its clock."""

    def _set(self, now: float) -> None:
        self.get_connection().set("clock", repr(now))

    def take(self, wants: Sequence[Want], now: float, together: bool) -> Taken:
        self._set(now)
        return super().take(wants, now, together)

    def rooms(self, wants: Sequence[Want], now: float) -> list[Room]:
        self._set(now)
        return super().rooms(wants, now)


class RedisTests(Contract, SynchronousTestCase):
    """The storage in a Redis."""

    skip = MISSING

    def setUp(self) -> None:
        self.server = RedisServer()
        self.addCleanup(self.server.remove)
        self.server.start()
        patched = self.patch(
            storages, "_CLOCK", b"local now = tonumber(redis.call('get', 'clock'))\n"
        )
        self.redis = self.storage = SetRedis(self.server.url, 5.0)
        patched.restore()
        self.addCleanup(self.redis.get_connection().close)

    def node(self) -> Redis:
        """The storage of one more node, with the clock of the Redis."""
        redis = Redis(self.server.url, 5.0)
        self.addCleanup(redis.get_connection().close)
        return redis

    @given(STEPS)
    @settings(deadline=None, max_examples=30)
    def test_model(self, steps: list[tuple[int, int]]) -> None:
        """It counts as a list of all that was counted would."""
        self.follow(steps)

    def test_nodes(self) -> None:
        """Many nodes at once never count more than there is room for, in none of the windows."""
        wide, narrow = Want("wide", Window(1000, 3600, "")), Want("narrow", Window(20, 3600, ""))
        taken: list[Taken] = []

        def work(redis: Redis) -> None:
            taken.extend(redis.take([wide, narrow], 0.0, True) for _ in range(25))

        threads = [threading.Thread(target=work, args=(self.node(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sum(each.shortage is None for each in taken), 20)
        rooms = self.node().rooms([wide, narrow], 0.0)
        self.assertEqual([room.used for room in rooms], [20, 20])

    def test_clocksApart(self) -> None:
        """Nodes whose clocks are years apart count together, and each says when in its own time."""
        want, year = Want("a", HOUR), 365 * 86400.0
        nodes = [(self.node(), now) for now in (1e9, 1e9 + 10 * year, 1e9 - 10 * year)]
        taken = [node.take([want], now, True).shortage for node, now in nodes * 2]
        self.assertEqual(taken, [None] * 5 + [0])
        for node, now in nodes:
            [room] = node.rooms([want], now)
            self.assertEqual((room.left, room.used), (0, 5))
            for until in (room.until, node.take([want], now, True).until):
                self.assertGreater(until, now + 3000)
                self.assertLessEqual(until, now + 3600)

    def test_expiry(self) -> None:
        """Redis drops keys by itself when their window is over, and keeps no more than it holds."""
        self.redis.take([Want("a", HOUR, 3)], 1e9, True)
        connection = self.redis.get_connection()
        self.assertEqual(sorted(connection.keys()), [b"clock", b"submitd:a"])
        self.assertIn(connection.ttl("submitd:a"), range(3590, 3601))
        for at in range(20):
            self.redis.take([Want("a", HOUR, 1)], 1e9 + 4000 * (at + 1), True)
        self.assertEqual(connection.llen("submitd:a"), 5)

    def test_setBack(self) -> None:
        """What was counted while the clock of the Redis was far ahead does not count later."""
        want, minute = Want("a", HOUR, HOUR.amount), 60.0
        ahead = 1e9 + 10 * 365 * 86400
        for seconds in (ahead, 1e9):
            self.assertEqual(self.redis.rooms([want], seconds)[0].left, HOUR.amount, seconds)
            self.assertIsNone(self.redis.take([want], seconds, True).shortage, seconds)
            # One that was set back a little is no reason to begin anew.
            self.assertEqual(self.redis.take([want], seconds - minute, True).shortage, 0, seconds)
            self.assertEqual(self.redis.rooms([want], seconds - minute)[0].left, 0, seconds)

    def test_cannotCount(self) -> None:
        """A Redis that cannot count says so to each question, until it can."""
        want, connection = Want("a", HOUR), self.redis.get_connection()
        node = self.node()
        node.take([want], 0.0, True)
        for full, again in (
            ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
            ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ):
            connection.execute_command(*full.split())
            self.assertRaises(ResponseError, node.take, [want], 0.0, True)
            self.assertRaises(ResponseError, node.rooms, [want], 0.0)
            connection.execute_command(*again.split())
            self.assertEqual(node.rooms([want], 0.0)[0].used, 1)
        self.assertEqual(connection.keys(), [b"submitd:a"])

    def test_rights(self) -> None:
        """The rights in docs/policies.rst are enough, also where a window begins anew."""
        text = (Path(__file__).parents[2] / "docs" / "policies.rst").read_text()
        rule = text[text.index("ACL SETUSER") :].partition("\n\n")[0]
        connection = self.redis.get_connection()
        connection.execute_command(*rule.split())
        connection.lpush("submitd:a", "1e11")
        node = Redis(self.server.url.replace("//", "//submitd:PASSWORD@"), 5.0)
        self.addCleanup(node.get_connection().close)
        want = Want("a", HOUR, HOUR.amount)
        taken = [node.take([want], 0.0, True).shortage for _ in range(2)]
        self.assertEqual(taken, [None, 0])
        self.assertEqual(node.rooms([want], 0.0)[0].left, 0)

    def test_large(self) -> None:
        """A message to more recipients than Lua can unpack at once is counted whole."""
        want = Want("large", Window(100_000, 3600, ""), 20_000)
        self.redis.take([want], 1e9, True)
        self.assertEqual(self.redis.rooms([want], 1e9)[0].used, 20_000)

    def test_otherData(self) -> None:
        """A key that holds something else is an error, and no count."""
        self.redis.get_connection().set("submitd:a", "x")
        self.assertRaises(ResponseError, self.redis.take, [Want("a", HOUR)], 1e9, True)
        self.assertRaises(ResponseError, self.redis.rooms, [Want("a", HOUR)], 1e9)


class NonsenseTests(SynchronousTestCase):
    """Answers that cannot be."""

    def redis(self, answer: object) -> Redis:
        """A Redis whose scripts all give this."""
        redis = Redis("redis://127.0.0.1:1/0", 1.0)
        self.patch(redis, "_take", lambda keys, arguments: answer)
        self.patch(redis, "_rooms", lambda keys, arguments: answer)
        return redis

    def test_take(self) -> None:
        """Nothing is believed that does not fit the question."""
        for answer in (None, 1, [], [0], [5, b""], [b"1", b""], [0, b"", 2], [1, b"x"], [-1, b""]):
            with self.assertRaises((TypeError, ValueError)):
                self.redis(answer).take([Want("a", HOUR)], 0.0, True)

    def test_rooms(self) -> None:
        """Neither are rooms."""
        for answer in (None, 1, [], [1], [1, b"x"], [b"1", b"5"], [0, b"", 0, b""], [7, b"1"]):
            with self.assertRaises((TypeError, ValueError)):
                self.redis(answer).rooms([Want("a", HOUR)], 0.0)

    def test_url(self) -> None:
        """Only URLs of a single Redis are taken."""
        for url in ("memcached://x", "redis+cluster://x:1", "", "127.0.0.1"):
            self.assertRaises(ValueError, Redis, url, 1.0)
