"""What the log is told of a queue that takes no more messages, and when."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel

from submitd.spool import database
from submitd.spool.keeping import AGAIN, Keeping
from submitd.wire.errors import Refused
from tests.spool.support import SpoolCase
from tests.test_events import EventsTestCase


class KeepingTests(EventsTestCase):
    """One queue."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 1e9
        self.keeping = Keeping("/q/spool.db", lambda: self.now)

    def told(self) -> list[tuple[str, Any]]:
        """Which events there were since the last look, and how many seconds they say."""
        told = [(event["event"], event["seconds"]) for event in self.seen]
        self.seen.clear()
        return told

    def test_once(self) -> None:
        """However many are turned away, it is told of once, as an error, with the cause."""
        for _ in range(3):
            self.keeping.failed("disk is full")
        [event] = self.seen
        self.assertEqual(
            event["log_text"],
            'queue cannot keep messages: queue=/q/spool.db cause="disk is full" seconds=0',
        )
        self.assertIs(event["log_level"], LogLevel.error)

    def test_again(self) -> None:
        """It is told of again each hour, with how long it lasts, and when it is over, once."""
        for _ in range(9):
            self.keeping.failed("disk is full")
            self.now += AGAIN / 4
        self.assertEqual(self.told(), [("queue-away", n * AGAIN) for n in range(3)])
        self.keeping.well()
        self.keeping.well()
        self.assertEqual(self.told(), [("queue-back", 9 * AGAIN / 4)])
        self.keeping.failed("disk is full")
        self.assertEqual(self.told(), [("queue-away", 0)])

    def test_setBack(self) -> None:
        """A clock that is set back begins a new hour; no time is less than nothing."""
        self.keeping.failed("disk is full")
        self.now -= 1e6
        self.keeping.failed("disk is full")
        self.now -= 1e6
        self.keeping.well()
        self.assertEqual(self.told(), [("queue-away", 0), ("queue-away", 0), ("queue-back", 0)])


class QueueTests(EventsTestCase, SpoolCase):
    """What counts for a queue."""

    def setUp(self) -> None:
        EventsTestCase.setUp(self)
        SpoolCase.setUp(self)

    def names(self) -> list[str]:
        """Which of its events there were."""
        return [each["event"] for each in self.seen if each["event"].startswith("queue-")]

    def test_message(self) -> None:
        """A message without room is told of; so is the next one that is kept."""
        reserve = database.RESERVE
        self.patch(database, "RESERVE", 1 << 62)
        for id in ("A-1", "A-2"):
            self.failureResultOf(self.begin(id).eomReceived(), Refused)
        self.assertEqual(self.names(), ["queue-away"])
        self.assertIn("KiB are free", self.seen[-1]["cause"])
        self.patch(database, "RESERVE", reserve)
        self.send("A-3")
        self.assertEqual(self.names(), ["queue-away", "queue-back"])

    def test_part(self) -> None:
        """A part of a large one counts, too: for hours there may be nothing else."""
        self.patch(database, "RESERVE", 1 << 62)
        message = self.begin("A-1")
        self.failureResultOf(message.dataReceived(b"x" * (1 << 20)), Refused)
        self.assertEqual(self.names(), ["queue-away"])
