"""Tests of :mod:`submitd.relay.lines`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd.relay.lines import Line, Lines

NOW = 1_000_000.0


class LinesTests(SynchronousTestCase):
    """How much may be taken, and for whom."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lines = Lines(6, self.clock.seconds)

    def join(self, key: str, *ones: int) -> None:
        """Take these for a next hop."""
        for one in ones:
            self.lines.join(key, (key, one), (key, one))

    def isCrowded(self, key: str, message: object = "new") -> bool:
        """Whether one more for a next hop goes back."""
        return self.lines.isCrowded(key, message)

    def test_oneAlone(self) -> None:
        """One may have a third; what has begun counts, what is over does not."""
        self.assertEqual(self.lines.room, 6)
        self.join("a", 1, 2, 3, 4)
        self.assertEqual(self.lines.room, 2)
        self.lines.begin("a", ("a", 1))
        self.join("a", 5, 6)
        self.assertEqual(self.lines.room, 0)
        for count in range(1, 9):
            self.assertFalse(self.lines.hasRoom(count))
        self.lines.leave("a", ("a", 1))
        self.lines.leave("a", ("a", 2))
        self.assertEqual(self.lines.room, 2)
        self.assertEqual([self.lines.hasRoom(count) for count in (1, 2, 3)], [True, True, False])

    def test_quick(self) -> None:
        """A long line that moves is not crowded, however long it is."""
        self.join("a", *range(6))
        for n in range(20):
            self.clock.advance(0.8)
            self.lines.begin("a", ("a", n))
            self.join("a", n + 6)
            self.assertFalse(self.isCrowded("a"))
            self.lines.leave("a", ("a", n))
        self.assertEqual(self.lines.room, 0)

    def test_slow(self) -> None:
        """A line that stands is crowded once it has more than half of what there is room left."""
        self.join("a", *range(6))
        self.clock.advance(4.9)
        self.join("a", 7)
        self.assertFalse(self.isCrowded("a"))
        self.assertLessEqual(self.lines.room, 0)
        self.clock.advance(0.1)
        self.assertTrue(self.isCrowded("a"))
        self.assertEqual(self.lines.room, 4)
        self.join("b", 1)
        self.assertFalse(self.isCrowded("b"))
        self.lines.leave("a", ("a", 0))
        self.lines.leave("a", ("a", 7))
        self.assertFalse(self.isCrowded("a"))

    def test_rank(self) -> None:
        """The next place is for the urgent, then for who has the fewest, then for who had least."""
        self.join("slow", 1, 2, 3)
        self.join("quick", 1, 2)
        for key in ("slow", "quick"):
            self.lines.begin(key, (key, 1))
        self.clock.advance(0.1)
        self.lines.leave("quick", ("quick", 1))
        self.assertGreater(self.lines.rank((0, "quick")), self.lines.rank((0, "slow")))
        self.assertGreater(self.lines.rank((1, "slow")), self.lines.rank((0, "quick")))
        self.clock.advance(60)
        self.lines.leave("slow", ("slow", 1))
        self.assertGreater(self.lines.rank((0, "quick")), self.lines.rank((0, "slow")))

    def test_rankOfNew(self) -> None:
        """One that is new is in front of nobody: else new ones, that have one each, ever were."""
        self.join("old", 1, 2)
        self.join("first", 1)
        for key, seconds in (("old", 0.1), ("first", 30.0)):
            self.lines.begin(key, (key, 1))
            self.clock.advance(seconds)
            self.lines.leave(key, (key, 1))
        self.join("next", 1)
        self.assertGreater(self.lines.rank((0, "old")), self.lines.rank((0, "next")))

    def test_more(self) -> None:
        """Each further slow one has less, and there is some for the next one."""
        for key, most in (("a", 6), ("b", 4), ("c", 3), ("d", 2), ("e", 1), ("f", 1), ("g", 1)):
            while self.lines.room > 0 and self.lines._taken < 18:
                self.join(key, self.lines._taken)
            self.assertEqual(len(self.lines._lines[key]), most)
            self.clock.advance(5.0)
        self.assertEqual(self.lines.room, 6)

    def test_full(self) -> None:
        """Without room some are looked at while there are places: who has a line goes back."""
        self.join("a", *range(18))
        self.assertEqual(self.lines.room, 6)
        self.join("a", 18)
        self.assertTrue(self.isCrowded("a"))
        self.join("b", 1)
        self.assertFalse(self.isCrowded("b"))
        self.join("b", 2)
        self.assertTrue(self.isCrowded("b"))
        for n in range(6):
            self.lines.begin("a", ("a", n))
        self.assertEqual(self.lines.room, 0)

    def test_manyParts(self) -> None:
        """One message that began with room stays, whatever its parts, if it is not slow."""
        for n in range(40):
            self.lines.join("a", n, "M1")
            self.assertFalse(self.isCrowded("a", "M1"))
        self.lines.join("a", 40, "M2")
        self.assertTrue(self.isCrowded("a", "M2"))
        self.lines.leave("a", 40)
        self.clock.advance(5.0)
        self.assertTrue(self.isCrowded("a", "M1"))

    def back(self, one: int, now: float) -> float:
        """Send one back: in how many seconds it comes again."""
        self.join("a", one)
        return self.lines.sendBack("a", ("a", one), now) - now

    def test_manyLines(self) -> None:
        """With many short lines none is looked at for each place that is free; it is as exact."""
        self.lines = Lines(60, self.clock.seconds)
        for key in range(100):
            self.join(str(key), 1)
        self.join("0", 2, 3)
        self.patch(Line, "isMoving", lambda line, now: self.fail("was looked at"))
        self.assertTrue(self.lines.hasRoom(20))
        self.assertFalse(self.lines.hasRoom(27))
        self.lines.leave("0", ("0", 3))
        self.lines.begin("0", ("0", 1))
        self.lines.leave("0", ("0", 1))
        self.assertTrue(self.lines.hasRoom(26))
        self.assertEqual(self.lines._lengths, {1: 100})

    def test_sendBack(self) -> None:
        """What has no room comes again together, later ones more at one time than earlier ones."""
        self.join("a", 0)
        due = [self.back(one, NOW) for one in range(1, 21)]
        self.assertEqual(due, [5.0] * 6 + [10.0] * 12 + [15.0] * 2)
        self.assertEqual(len(self.lines._lines["a"]), 1)
        self.clock.advance(7.0)
        self.assertEqual(self.back(1, NOW + 7.0), 8.0)
        self.clock.advance(100.0)
        self.assertEqual(self.back(1, NOW + 107.0), 3.0)

    def test_sendBackClockSet(self) -> None:
        """Somebody sets the time of day back: what is to come again does not wait for that."""
        self.join("a", 0)
        self.back(1, NOW)
        self.assertEqual(self.back(1, NOW - 86400.0), 5.0)

    def test_leave(self) -> None:
        """What leaves twice, as after it was sent back, is counted once."""
        self.join("a", 0, 1)
        self.back(2, NOW)
        self.lines.leave("a", ("a", 2))
        self.lines.begin("a", ("a", 0))
        for one in (0, 0, 1, 1):
            self.lines.leave("a", ("a", one))
        self.assertEqual((self.lines.room, self.lines._lines), (6, {}))
