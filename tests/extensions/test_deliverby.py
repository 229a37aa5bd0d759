"""Tests of :mod:`submitd.extensions.deliverby`."""

from __future__ import annotations

from submitd.extensions.deliverby import DeliverBy
from tests.extensions.base import ExtensionTestCase, PlainDelivery


class DeliverByTests(ExtensionTestCase):
    """BY."""

    def test_kept(self) -> None:
        """The envelope has the deadline, in seconds since 1970, and what happens then."""
        self.talk()
        self.conversation.submission.clock.advance(1000)  # type: ignore[attr-defined]
        for given, kept in (
            ("120;R", DeliverBy(1120, "R")),
            ("+120;rt", DeliverBy(1120, "R", True)),
            ("-60;N", DeliverBy(940, "N")),
            ("0;nT", DeliverBy(1000, "N", True)),
        ):
            self.assertTrue(self.mail(f"BY={given}").startswith("250"), given)
            self.assertEqual(self.envelope.extensions, {"DELIVERBY": kept})

    def test_wrong(self) -> None:
        """Seconds, a semicolon and a mode; R must lie in the future."""
        self.talk()
        for wrong in (
            "120",
            ";R",
            "1;X",
            "1;RN",
            "1;TR",
            "1234567890;R",
            "--1;N",
            "1.5;R",
            "0;R",
            "-1;R",
        ):
            self.assertTrue(self.mail(f"BY={wrong}").startswith("501 5.5.4 BY"), wrong)
        self.assertTrue(self.mail("BY").startswith("501 5.5.4 BY"))

    def test_minimum(self) -> None:
        """The shortest time is announced, and held for R alone (RFC 2852 4)."""
        self.talk()
        self.assertIn("DELIVERBY", self.ehlo())
        self.talk(minDeliverBy=60)
        self.assertIn("DELIVERBY 60", self.ehlo())
        self.assertEqual(self.mail("BY=59;R"), "555 5.5.4 BY with R must be 60 seconds at least")
        self.assertTrue(self.mail("BY=60;R").startswith("250"))
        self.assertTrue(self.mail("BY=59;N").startswith("250"))

    def test_notOffered(self) -> None:
        """Where the delivery has no deadlines, the parameter is unknown."""
        self.talk(delivery=PlainDelivery())
        self.assertNotIn("DELIVERBY", self.ehlo())
        self.assertTrue(self.mail("BY=120;R").startswith("555 5.5.4"))
