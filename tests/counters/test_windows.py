"""The notation of rates, and names under which somebody is counted."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd import typed
from submitd.counters.names import addressOf, asTime, networkOf, shortened
from submitd.counters.windows import MAX_AMOUNT, Window, parseWindows


class NotationTests(SynchronousTestCase):
    """Text becomes windows, or a sentence."""

    def test_several(self) -> None:
        """Any number of windows, the shortest first, each in words that a reply can show."""
        self.assertEqual(
            parseWindows("1000/day, 10/15minute; 1 per hour"),
            (
                Window(10, 900, "10 per 15 minutes"),
                Window(1, 3600, "1 per hour"),
                Window(1000, 86400, "1000 per day"),
            ),
        )

    def test_none(self) -> None:
        """An empty text is no limit."""
        self.assertEqual(parseWindows(" "), ())

    def test_wrong(self) -> None:
        """What is no rate is named with what would be one; nothing is taken for a limit of 0."""
        for text in ("100", "ten/hour", "10/fortnight", "10/hour,", "-1/hour", "10/hour x"):
            with self.assertRaises(ValueError) as caught:
                parseWindows(text)
            self.assertIn(
                f'such as "100/hour, 1000/day" (second, minute, hour, day, month, year), '
                f'not "{text}"',
                str(caught.exception),
            )

    def test_bounds(self) -> None:
        """No limit that refuses everything, that needs all memory, or that lasts for ever."""
        for text in ("0/hour", f"{MAX_AMOUNT + 1}/day", "10/2year", "5/hour, 0/day"):
            with self.assertRaises(ValueError) as caught:
                parseWindows(text)
            self.assertIn("must be between 1 and 1000000", str(caught.exception))

    @given(st.text(max_size=30))
    @settings(deadline=None, max_examples=60)
    def test_anything(self, text: str) -> None:
        """Any text is windows or a ValueError."""
        try:
            windows = parseWindows(text)
        except ValueError:
            return
        self.assertTrue(all(window.amount > 0 and window.seconds > 0 for window in windows))

    def test_typed(self) -> None:
        """As a value of the configuration it stays the text; a mistake is a finding."""
        kind = dict[str, typed.Rates]
        made, findings = typed.structure({"x": "5/hour"}, kind, Path(), "key")
        self.assertEqual((made, findings), ({"x": "5/hour"}, []))
        for value, said in ((5, "must be a string, not 5"), ("5", "must be rates such as")):
            made, findings = typed.structure({"x": value}, kind, Path(), "key")
            self.assertIsNone(made)
            self.assertIn(f'key."x": {said}', str(findings[0]))


class NameTests(SynchronousTestCase):
    """Who is counted as one."""

    def test_addresses(self) -> None:
        """One address is one name, however it is written; what is none stays as it is."""
        self.assertEqual(addressOf("::ffff:192.0.2.1"), "192.0.2.1")
        self.assertEqual(addressOf("2001:DB8::0:1%eth0"), "2001:db8::1")
        self.assertEqual(addressOf("nonsense"), "nonsense")

    def test_networks(self) -> None:
        """A subscriber has a /64 of IPv6, and of IPv4 one address."""
        self.assertEqual(networkOf("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64")
        self.assertEqual(networkOf("192.0.2.1"), "192.0.2.1")
        self.assertEqual(networkOf("::ffff:192.0.2.1"), "192.0.2.1")
        self.assertEqual(networkOf("nonsense"), "nonsense")

    def test_shortened(self) -> None:
        """Long names stay unlike each other, and short."""
        self.assertEqual(shortened("alice"), "alice")
        first, second = shortened("a" * 5000 + "1"), shortened("a" * 5000 + "2")
        self.assertNotEqual(first, second)
        self.assertLess(len(first), 100)
        self.assertLess(len(shortened("\ud800" * 200)), 100)

    def test_time(self) -> None:
        """A time is never before the moment it stands for."""
        self.assertEqual(asTime(59.001), "1970-01-01 00:01:00 UTC")
