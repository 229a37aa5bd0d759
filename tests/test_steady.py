"""The clock of the reactor, when somebody sets the system's."""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd.steady import commonSeconds, steady, timeOfDay


class Bare(ReactorBase):
    """A reactor that only tells the time and calls later."""

    def installWaker(self) -> None:
        """No other thread will wake it."""


class SteadyTests(SynchronousTestCase):
    """What happens later, and when."""

    def setUp(self) -> None:
        """A reactor, and a monotonic clock of our own."""
        self.now = 1000.0
        self.patch(time, "monotonic", lambda: self.now)
        self.reactor = steady(Bare())

    def test_begins(self) -> None:
        """It begins with the time of day, which those read who know no other clock."""
        self.assertApproximates(self.reactor.seconds(), time.time(), 5)

    def test_later(self) -> None:
        """What is to happen in a minute happens in a minute, whatever the time of day is then."""
        called: list[int] = []
        self.reactor.callLater(60, called.append, 1)
        self.now += 59
        self.reactor.runUntilCurrent()
        self.assertEqual(called, [])
        self.now += 2
        self.reactor.runUntilCurrent()
        self.assertEqual(called, [1])

    def test_otherClocks(self) -> None:
        """A clock of a test is left alone."""
        clock = Clock()
        self.assertIs(steady(clock), clock)
        self.assertEqual(clock.seconds(), 0)

    def test_timeOfDay(self) -> None:
        """What is written down is in the time of day, however long ago the reactor began."""
        self.patch(time, "time", lambda: 5e9)
        self.assertEqual(timeOfDay(self.reactor)(), 5e9)
        self.assertEqual(timeOfDay(Clock())(), 0)

    def test_common(self) -> None:
        """Processes that began at other times of day count by the same seconds."""
        self.patch(time, "time", lambda: 5e9)
        other = steady(Bare())
        self.assertEqual(commonSeconds(self.reactor)(), commonSeconds(other)())
        self.assertEqual(commonSeconds(Clock())(), 0)
