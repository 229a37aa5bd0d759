"""Tests of :mod:`submitd.extensions.requiretls`."""

from __future__ import annotations

from tests.extensions.base import ExtensionTestCase


class RequireTLSTests(ExtensionTestCase):
    """REQUIRETLS, on both sides of STARTTLS."""

    def test_inTheClear(self) -> None:
        """Without TLS it is neither offered nor taken."""
        self.talk()
        self.assertNotIn("REQUIRETLS", self.ehlo())
        self.assertTrue(self.mail("REQUIRETLS").startswith("530 5.7.0 REQUIRETLS needs TLS"))

    def test_underTLS(self) -> None:
        """Under TLS it is offered, and kept on the envelope of the message that asked for it."""
        self.talk().login()
        self.assertIn("REQUIRETLS", self.ehlo())
        self.assertEqual(self.mail("REQUIRETLS"), "250 2.1.0 Originator ok")
        self.assertTrue(self.envelope.requireTLS)
        self.mail("")
        self.assertFalse(self.envelope.requireTLS)
        self.assertEqual(self.mail("REQUIRETLS=x"), "501 5.5.4 REQUIRETLS takes no value")
