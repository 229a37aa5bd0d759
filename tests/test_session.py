"""The ids of sessions, which those of messages begin with."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from submitd import session
from submitd.session import newId

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUV"


class IdTests(SynchronousTestCase):
    """What is promised of ids."""

    def idAt(self, nanoseconds: int, random: bytes = b"\0\0\0") -> str:
        """The id that is made at a time."""
        times = self.patch(time, "time_ns", lambda: nanoseconds)
        octets = self.patch(session.os, "urandom", lambda count: random)
        try:
            return newId()
        finally:
            times.restore()
            octets.restore()

    def test_form(self) -> None:
        """Fourteen digits of base32hex, also at the ends of what they can say."""
        for made in (newId(), self.idAt(0), self.idAt((1 << 63) - 1, b"\xff" * 3)):
            self.assertEqual(len(made), 14)
            self.assertLessEqual(set(made), set(DIGITS))
        self.assertEqual(self.idAt(0), "0" * 14)

    def test_grow(self) -> None:
        """A later one is greater, whatever is random in both."""
        made = [
            self.idAt(now, random)
            for now in (1 << 60, (1 << 60) + 1024, (1 << 60) + 10**9, 2_000_000_000 * 10**9)
            for random in (b"\0\0\0", b"\xff\xff\xff")
        ]
        self.assertEqual(made, sorted(set(made)))

    def test_time(self) -> None:
        """The time can be read from it: 1.024 us each."""
        number = 0
        for digit in self.idAt(1_800_000_000 * 10**9, b"\xff" * 3):
            number = number * 32 + DIGITS.index(digit)
        self.assertEqual(number >> 17, 1_800_000_000 * 10**9 >> 10)
        self.assertEqual(number & 0x1FFFF, 0x1FFFF)
