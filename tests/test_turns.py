"""Tests of :mod:`submitd.turns`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from submitd.turns import InTurn, Turns


class TurnsTests(SynchronousTestCase):
    """So many at once, and the others in their order."""

    def setUp(self) -> None:
        self.turns = Turns(2)
        self.had: list[int] = []

    def wait(self, *numbers: int) -> list[Deferred[None]]:
        """Have these wait for their turns."""
        return [
            self.turns.acquire().addCallback(lambda _, number=number: self.had.append(number))
            for number in numbers
        ]

    def test_order(self) -> None:
        """Two have a turn at once; each that is given back is the next one's."""
        self.wait(1, 2, 3, 4)
        self.assertEqual(self.had, [1, 2])
        self.turns.release()
        self.assertEqual(self.had, [1, 2, 3])
        self.turns.release()
        self.turns.release()
        self.wait(5)
        self.assertEqual(self.had, [1, 2, 3, 4, 5])

    def test_priority(self) -> None:
        """The urgent come first, each in the order in which they came."""
        self.wait(1, 2, 3)
        for number in (4, 5):
            self.turns.acquire(priority=1).addCallback(
                lambda _, number=number: self.had.append(number)
            )
        for _ in range(3):
            self.turns.release()
        self.assertEqual(self.had, [1, 2, 4, 5, 3])
        for _ in range(2):
            self.assertFalse(self.turns.isIdle)
            self.turns.release()
        self.assertTrue(self.turns.isIdle)

    def test_rank(self) -> None:
        """Where somebody ranks those who wait, it is asked anew each time."""
        had: list[str] = []
        turns = Turns(1, lambda name: -had.count(name))
        for name in "aaabbc":
            turns.acquire(name).addCallback(lambda _, name=name: had.append(name))
        for _ in range(5):
            turns.release()
        self.assertEqual(had, [*"abcaba"])

    def test_take(self) -> None:
        """One that did not wait has its turn besides the others, and the next one waits for it."""
        self.wait(1, 2, 3)
        self.turns.take()
        self.turns.release()
        self.assertEqual(self.had, [1, 2])
        self.turns.release()
        self.assertEqual(self.had, [1, 2, 3])

    def test_cancelled(self) -> None:
        """Who does not wait any more is passed over."""
        _, _, third, _ = self.wait(1, 2, 3, 4)
        third.cancel()
        self.failureResultOf(third, CancelledError)
        self.turns.release()
        self.assertEqual(self.had, [1, 2, 4])

    def test_notWithinEachOther(self) -> None:
        """However many end at once, none is begun within another one."""
        deep: list[int] = []

        def end(_: None) -> None:
            deep.append(len(_frames()))
            self.turns.release()

        self.wait(1, 2)
        waiting = [self.turns.acquire().addCallback(end) for _ in range(2000)]
        self.turns.release()
        self.assertEqual(len(deep), 2000)
        self.assertEqual(len(set(deep)), 1)
        for each in waiting:
            self.assertIsNone(self.successResultOf(each))


def _frames() -> list[object]:
    found = []
    frame = sys._getframe()
    while frame is not None:
        found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found


class InTurnTests(SynchronousTestCase):
    """What runs in threads, so many at once."""

    def setUp(self) -> None:
        self.running: list[Deferred[str]] = []

    def run_(self, function: object, *arguments: object) -> Deferred[str]:
        """In place of a thread."""
        self.running.append(Deferred())
        return self.running[-1]

    def test_cancelled(self) -> None:
        """Who goes while it runs gives no turn away; who goes before is not run at all."""
        inTurn = InTurn(self.run_, 1)
        calls = [inTurn.call(len, "") for _ in range(3)]
        for gone in calls[:2]:
            gone.cancel()
            self.failureResultOf(gone, CancelledError)
        self.assertEqual((len(self.running), inTurn.pending), (1, 2))
        self.running[0].callback("nobody hears it")
        self.assertEqual(len(self.running), 2)
        self.running[1].callback("good")
        self.assertEqual(self.successResultOf(calls[2]), "good")
        self.assertEqual(inTurn.pending, 0)

    def test_late(self) -> None:
        """A thread that comes when nobody waits any more calls nothing."""
        called: list[int] = []
        threads: list[Callable[[], object]] = []

        def later(function: Callable[..., object], *arguments: object) -> Deferred[object]:
            threads.append(lambda: function(*arguments))
            return Deferred()

        inTurn = InTurn(later, 2)
        calls = [inTurn.call(called.append, number) for number in range(2)]
        calls[0].cancel()
        self.failureResultOf(calls[0], CancelledError)
        for thread in threads:
            thread()
        self.assertEqual(called, [1])

    def test_fails(self) -> None:
        """What goes wrong is told, and the turn is the next one's."""
        inTurn = InTurn(self.run_, 1)
        calls = [inTurn.call(len, "") for _ in range(2)]
        self.running[0].errback(ZeroDivisionError())
        self.failureResultOf(calls[0], ZeroDivisionError)
        self.assertEqual((len(self.running), inTurn.pending), (2, 1))
