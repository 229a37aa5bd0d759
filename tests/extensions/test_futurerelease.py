"""Tests of :mod:`submitd.extensions.futurerelease`."""

from __future__ import annotations

from twisted.internet.task import Clock

from submitd.extensions.futurerelease import KEYWORD
from tests.extensions.base import ExtensionTestCase, PlainDelivery

# 2030-01-01T00:00:00Z
NEW_YEAR = 1893456000


class FutureReleaseTests(ExtensionTestCase):
    """HOLDFOR and HOLDUNTIL."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NEW_YEAR)
        self.talk(clock=self.clock, maxHold=3600.5)

    def test_announced(self) -> None:
        """EHLO shows the longest interval and, from now, the last date."""
        self.assertIn("FUTURERELEASE 3600 2030-01-01T01:00:00Z", self.ehlo())

    def test_kept(self) -> None:
        """Both ways, the envelope has the time in seconds since 1970."""
        self.mail("HOLDFOR=60")
        self.assertEqual(self.envelope.extensions, {KEYWORD: NEW_YEAR + 60})
        for until in ("2030-01-01T00:30:00Z", "2030-01-01t01:30:00.5+01:00"):
            self.mail(f"HOLDUNTIL={until}")
            self.assertAlmostEqual(self.envelope.extensions[KEYWORD], NEW_YEAR + 1800, 0)

    def test_malformed(self) -> None:
        """An interval has one to nine digits, a date-time the form of RFC 3339."""
        for wrong in ("0", "-1", "01", "1.5", "1234567890", "1e3", "\u0661"):
            self.assertTrue(self.mail(f"HOLDFOR={wrong}").startswith("501 5.5.4"), wrong)
        self.assertTrue(self.mail("HOLDFOR").startswith("501 5.5.4"))
        for wrong in (
            "2030-01-01", "2030-01-01T00:30:00", "20300101T003000Z", "2030-13-01T00:30:00Z",
            "2030-01-01T00:30:60Z", "2030-01-01T00:30Z", "9999-12-31T23:59:59-23:59x",
        ):  # fmt: skip
            said = self.mail(f"HOLDUNTIL={wrong}")
            self.assertTrue(said.startswith("501 5.5.4 HOLDUNTIL must"), wrong)
        self.assertTrue(self.mail("HOLDUNTIL").startswith("501 5.5.4"))

    def test_outOfRange(self) -> None:
        """The past and what is beyond the maximum are refused, up to the second."""
        self.assertTrue(self.mail("HOLDFOR=3600").startswith("250"))
        self.assertTrue(self.mail("HOLDFOR=3601").startswith("501 5.5.4 The message"))
        self.assertTrue(self.mail("HOLDUNTIL=2030-01-01T01:00:00Z").startswith("250"))
        self.assertTrue(self.mail("HOLDUNTIL=2030-01-01T01:00:01Z").startswith("501 5.5.4 The"))
        self.assertTrue(self.mail("HOLDUNTIL=9999-12-31T23:59:59-23:59").startswith("501 5.5.4"))
        self.assertTrue(self.mail("HOLDUNTIL=0001-01-01T00:00:00+23:59").startswith("501 5.5.4"))
        self.assertEqual(
            self.mail("HOLDUNTIL=2030-01-01T00:00:00Z"), "501 5.5.4 HOLDUNTIL is in the past"
        )

    def test_both(self) -> None:
        """One way or the other, in any order."""
        for both in ("HOLDFOR=5 HOLDUNTIL=2030-01-01T00:30:00Z",
                     "HOLDUNTIL=2030-01-01T00:30:00Z HOLDFOR=5"):  # fmt: skip
            self.assertIn("exclude each other", self.mail(both))

    def test_notOffered(self) -> None:
        """Where nobody holds messages, or no time is allowed, the parameters are unknown."""
        for settings in ({"maxHold": 0.0}, {"delivery": PlainDelivery()}):
            self.talk(**settings)
            self.assertNotIn("FUTURERELEASE", " ".join(self.ehlo()))
            for parameter in ("HOLDFOR=5", "HOLDUNTIL=2030-01-01T00:30:00Z", "HOLDFOR=x"):
                self.assertTrue(self.mail(parameter).startswith("555 5.5.4"), parameter)

    def test_deadline(self) -> None:
        """What must be delivered by a time cannot be held for longer (RFC 4865 5.2.2)."""
        self.talk()
        for hold in ("HOLDFOR=100", "HOLDUNTIL=1970-01-01T00:01:40Z"):
            for by, code in (("101;R", "250"), ("100;N", "250"), ("99;R", "501"), ("-1;N", "501")):
                for parameters in (f"{hold} BY={by}", f"BY={by} {hold}"):
                    said = self.mail(parameters)
                    self.assertTrue(said.startswith(code), (parameters, said))
        self.assertEqual(said, "501 5.5.4 The message would be held past the time of BY")
