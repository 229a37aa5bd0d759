"""The retry schedule."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from submitd.relay.schedule import Schedule


class ScheduleTests(SynchronousTestCase):
    """When, and until when."""

    def test_intervals(self) -> None:
        """One after the other; the last one repeats."""
        schedule = Schedule(intervals=(10.0, 20.0, 30.0), jitter=0.0)
        self.assertEqual(
            [schedule.interval(n) for n in (0, 1, 2, 3, 4, 99)],
            [10.0, 10.0, 20.0, 30.0, 30.0, 30.0],
        )

    def test_jitter(self) -> None:
        """Shorter and longer by the same part."""
        for given, expected in ((0.0, 90.0), (0.5, 100.0), (1.0, 110.0)):
            schedule = Schedule(intervals=(100.0,), jitter=0.1, random=lambda given=given: given)
            self.assertAlmostEqual(schedule.interval(1), expected)

    def test_expiry(self) -> None:
        """By age, or earlier where a recipient has a time of its own."""
        schedule = Schedule(intervals=(10.0,), expire=100.0)
        self.assertEqual(schedule.expiry(1000.0, None), 1100.0)
        self.assertEqual(schedule.expiry(1000.0, 1050.0), 1050.0)
        self.assertEqual(schedule.expiry(1000.0, 2000.0), 1100.0)

    def test_next(self) -> None:
        """Never behind the expiry, and never in the past."""
        schedule = Schedule(intervals=(10.0,), jitter=0.0)
        self.assertEqual(schedule.next(0.0, 1, 100.0), 10.0)
        self.assertEqual(schedule.next(95.0, 1, 100.0), 100.0)
        self.assertEqual(schedule.next(200.0, 1, 100.0), 200.0)

    def test_notice(self) -> None:
        """Once, when its time has come, unless there is none."""
        schedule = Schedule(intervals=(10.0,), notice=50.0)
        self.assertFalse(schedule.isNoticeDue(49.0, 0.0, None))
        self.assertTrue(schedule.isNoticeDue(50.0, 0.0, None))
        self.assertFalse(schedule.isNoticeDue(90.0, 0.0, 50.0))
        self.assertFalse(Schedule(intervals=(1.0,), notice=0.0).isNoticeDue(90.0, 0.0, None))
