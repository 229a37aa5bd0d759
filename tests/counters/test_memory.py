"""Counts in memory."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.counters.memory import Memory
from submitd.counters.windows import Room, Storage, Taken, Want, Window

# Seconds since the step before, and how much is to be counted.
STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), max_size=25)
HOUR = Window(5, 3600, "5 per hour")
MINUTE = Window(2, 60, "2 per minute")


class Contract:
    """What every storage does; the tests give ``storage``."""

    storage: Storage
    # The time of a test; a Redis forgets keys by its own clock, so this is far behind it.
    start = 1e9
    followed = 0

    def take(self, *wants: Want, at: float = 0.0, together: bool = True) -> Taken:
        return self.storage.take(wants, self.start + at, together)

    def rooms(self, *wants: Want, at: float = 0.0) -> list[tuple[int, int, float]]:
        rooms = self.storage.rooms(wants, self.start + at)
        return [(room.left, room.used, room.until - self.start) for room in rooms]

    def test_moving(self) -> None:
        """What was counted leaves its window one by one, and makes room when it does."""
        want = Want("a", MINUTE)
        self.assertEqual(self.take(want, at=0), Taken())
        self.assertEqual(self.take(want, at=30), Taken())
        self.assertEqual(self.take(want, at=59), Taken(0, self.start + 60))
        self.assertEqual(self.rooms(want, at=59), [(0, 2, 60)])
        self.assertEqual(self.take(want, at=60), Taken())
        self.assertEqual(self.take(want, at=61), Taken(0, self.start + 90))
        self.assertEqual(self.rooms(want, at=150), [(2, 0, 150)])

    def test_together(self) -> None:
        """All or none: a want without room leaves the others uncounted."""
        a, b = Want("a", HOUR), Want("b", MINUTE, 2)
        self.assertEqual(self.take(a, b), Taken())
        self.assertEqual(self.take(a, b, at=1), Taken(1, self.start + 60))
        self.assertEqual(self.rooms(a, b, at=1), [(4, 1, 3600), (0, 2, 60)])

    def test_each(self) -> None:
        """Or each where it has room; the first without any is named."""
        a, b, c = Want("a", HOUR), Want("b", MINUTE, 2), Want("c", MINUTE, 3)
        self.take(b)
        self.assertEqual(self.take(a, b, c, at=1, together=False), Taken(1, self.start + 60))
        self.assertEqual(self.rooms(a, b, c, at=1), [(4, 1, 3601), (0, 2, 60), (2, 0, 1)])

    def test_cost(self) -> None:
        """There is room for much when enough has left; for more than the window there never is."""
        self.take(Want("a", HOUR, 2), at=0)
        self.take(Want("a", HOUR, 2), at=100)
        self.assertEqual(self.take(Want("a", HOUR, 3), at=200), Taken(0, self.start + 3600))
        self.assertEqual(self.take(Want("a", HOUR, 4), at=200), Taken(0, self.start + 3700))
        self.assertEqual(self.take(Want("b", HOUR, 6), at=200), Taken(0, self.start + 200))
        self.assertIsNotNone(self.take(Want("a", HOUR, 6), at=200).shortage)
        self.assertEqual(self.take(Want("a", HOUR, 1), at=200), Taken())

    def test_emptied(self) -> None:
        """A window that has become empty counts, too, beside one that is new."""
        self.take(Want("old", MINUTE))
        self.take(Want("new", MINUTE), Want("old", MINUTE), at=100)
        self.assertEqual(self.rooms(Want("old", MINUTE), at=100), [(1, 1, 160)])

    def test_mark(self) -> None:
        """The count that reaches the mark says so, and no other."""
        want = Want("a", HOUR, 1, 3)
        marked = [self.take(want, Want("b", HOUR), at=at).marked for at in range(5)]
        self.assertEqual(marked, [(), (), (0,), (), ()])
        self.assertEqual(self.take(Want("c", HOUR, 5, 3)).marked, (0,))
        self.assertEqual(self.take(Want("d", HOUR, 5, 0)).marked, ())

    def test_keys(self) -> None:
        """Different keys have different counts, whatever stands in them."""
        names = ["a", "A", "a ", "", "ä", "\n", "a" * 3000, "{a}"]
        for name in names:
            self.assertEqual(self.take(Want(f"x/{name}", Window(1, 60, ""))), Taken(), name)
        for name in names:
            self.assertEqual(self.take(Want(f"x/{name}", Window(1, 60, ""))).shortage, 0, name)

    def follow(self, steps: list[tuple[int, int]]) -> None:
        """At no time is more in a window than its amount; and nothing is refused that had room."""
        self.followed += 1
        key, now, counted = f"model/{self.followed}", 0, list[tuple[int, int]]()
        for pause, cost in steps:
            now += pause
            within = sum(each for at, each in counted if at > now - 60)
            taken = self.take(Want(key, Window(6, 60, ""), cost), at=now)
            if taken.shortage is None:
                counted.append((now, cost))
                within += cost
            self.assertEqual(within <= 6 if taken.shortage is None else within + cost > 6, True)
            if taken.shortage is not None:
                until = round(taken.until - self.start)
                left = sum(each for at, each in counted if at > until - 60)
                self.assertLessEqual(left + cost, 6)
            self.assertEqual(self.rooms(Want(key, Window(6, 60, "")), at=now)[0][1], within)


class MemoryTests(Contract, SynchronousTestCase):
    """The storage in memory."""

    def setUp(self) -> None:
        self.memory = self.storage = Memory()

    @given(STEPS)
    @settings(deadline=None, max_examples=60)
    def test_model(self, steps: list[tuple[int, int]]) -> None:
        """It counts as a list of all that was counted would."""
        self.follow(steps)

    def test_bounded(self) -> None:
        """However many come, so many are kept, and the last that were asked for are among them."""
        memory = Memory(size=10)
        wants: Sequence[Want] = [Want(f"k{number}", HOUR) for number in range(100)]
        for at, want in enumerate(wants):
            memory.take([wants[0]], float(at) / 1000, False)
            memory.take([want], float(at) / 1000, True)
        self.assertLessEqual(len(memory), 10)
        self.assertEqual(memory.rooms([wants[0]], 0.2)[0].used, 5)
        self.assertEqual(memory.rooms([wants[99]], 0.2)[0].used, 1)
        self.assertEqual(memory.rooms([wants[1]], 0.2)[0].used, 0)

    def test_emptyOnesGo(self) -> None:
        """Keys whose window is empty do not pile up: each new one drops two."""
        for number in range(500):
            self.memory.take([Want(f"old{number}", MINUTE)], 0.0, True)
        for number in range(300):
            self.memory.take([Want(f"new{number}", MINUTE)], 100.0, True)
        self.assertLess(len(self.memory), 305)

    def test_longWindow(self) -> None:
        """A window that is always in use does not grow: what has left it is dropped."""
        want = Want("a", Window(1000, 100, ""))
        for at in range(5000):
            self.assertIsNone(self.memory.take([want], float(at), True).shortage)
        self.assertEqual(self.memory.rooms([want], 4999.0), [Room(900, 100, 5000.0)])
        self.assertLess(len(self.memory._logs["a"].times), 300)

    def test_clockBack(self) -> None:
        """A clock that is set back breaks nothing."""
        want = Want("a", MINUTE)
        self.memory.take([want], 100.0, True)
        self.assertIsNone(self.memory.take([want], 50.0, True).shortage)
        self.assertEqual(self.memory.take([want], 51.0, True).shortage, 0)
