"""What the log is told of hosts that do not take us, and when."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel

from submitd.relay.standing import AGAIN, MOST, Standing
from submitd.wire.reply import Reply
from tests.test_events import EventsTestCase

NO = Reply(535, "5.7.8", "bad login")


class StandingTests(EventsTestCase):
    """One next hop."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.clock.rightNow = 1e9

    def told(self) -> list[tuple[str, Any]]:
        """Which events there were since the last look, and how many seconds they say."""
        told = [(event["event"], event["seconds"]) for event in self.seen]
        self.seen.clear()
        return told

    def test_once(self) -> None:
        """However often it fails, it is told of once, as a warning, with the section and why."""
        standing = Standing("route[0]", "", self.clock)
        for _ in range(5):
            standing.failed("smtp.example.net", NO)
            self.clock.advance(60)
        [event] = self.seen
        self.assertEqual(
            event["log_text"],
            "next hop away: route=route[0] host=smtp.example.net"
            ' reply="535 5.7.8 bad login" seconds=0',
        )
        self.assertIs(event["log_level"], LogLevel.warn)

    def test_again(self) -> None:
        """It is told of again each hour, with how long it lasts, and when it is over."""
        standing = Standing("relay", "", self.clock)
        for _ in range(9):
            standing.failed("smtp.example.net", NO)
            self.clock.advance(AGAIN / 4)
        self.assertEqual(self.told(), [("next-hop-away", n * AGAIN) for n in range(3)])
        standing.well("smtp.example.net")
        standing.well("smtp.example.net")
        self.assertEqual(self.told(), [("next-hop-back", 9 * AGAIN / 4)])
        standing.failed("smtp.example.net", NO)
        self.assertEqual(self.told(), [("next-hop-away", 0)])

    def test_domain(self) -> None:
        """Hosts that DNS names are told of one by one, by the way."""
        standing = Standing("relay", "example.net", self.clock)
        standing.failed("a.example.net", NO)
        standing.failed("b.example.net", NO)
        standing.well("a.example.net")
        self.assertEqual(
            [(event["event"], event["domain"], event["host"]) for event in self.seen],
            [
                ("host-away", "example.net", "a.example.net"),
                ("host-away", "example.net", "b.example.net"),
                ("host-back", "example.net", "a.example.net"),
            ],
        )
        self.assertIs(self.seen[0]["log_level"], LogLevel.info)

    def test_many(self) -> None:
        """A domain that names other hosts each time has only some of them kept in mind."""
        standing = Standing("relay", "example.net", self.clock)
        for n in range(3 * MOST):
            standing.failed(f"{n}.example.net", NO)
            self.assertLessEqual(len(standing._away), MOST)
