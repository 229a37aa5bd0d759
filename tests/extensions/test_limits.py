"""Tests of :mod:`submitd.extensions.limits`."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from submitd.interfaces import IHelloPolicy
from submitd.submission import Limits
from tests.extensions.base import ExtensionTestCase


@implementer(IHelloPolicy)
class Lower:
    """Lowers the limits of a session."""

    def helloReceived(self, session: Any, domain: str) -> None:
        session.maxRecipients = 1
        session.maxTransactions = 1


class LimitsTests(ExtensionTestCase):
    """LIMITS shows what is held."""

    def shown(self, **limits: int) -> list[str]:
        """The line that EHLO has for these limits."""
        self.talk(limits=Limits(**limits))
        return [line for line in self.ehlo() if line.startswith("LIMITS")]

    def test_shown(self) -> None:
        """Each limit is shown where there is one; no line where there is none."""
        self.assertEqual(self.shown(), ["LIMITS RCPTMAX=1000"])
        self.assertEqual(self.shown(transactions=5), ["LIMITS MAILMAX=5 RCPTMAX=1000"])
        self.assertEqual(self.shown(transactions=5, recipients=0), ["LIMITS MAILMAX=5"])
        self.assertEqual(self.shown(recipients=0), [])

    def test_tooLong(self) -> None:
        """A number of more than six digits cannot be said, and is left out."""
        self.assertEqual(self.shown(recipients=999999), ["LIMITS RCPTMAX=999999"])
        self.assertEqual(self.shown(recipients=1000000), [])

    def test_transactions(self) -> None:
        """A refused MAIL is no transaction; one too many ends the connection."""
        talk = self.talk(limits=Limits(transactions=1))
        self.assertTrue(talk.say("MAIL FROM:<a@b").startswith("501"))
        talk.say("MAIL FROM:<a@b.c>", "RSET")
        self.assertEqual(
            talk.say("MAIL FROM:<a@b.c>"), "421 4.5.3 Too many transactions on this connection"
        )
        self.assertTrue(talk.transport.disconnecting)

    def test_lowered(self) -> None:
        """A policy may lower them for a session: EHLO shows it, RCPT and MAIL hold it."""
        talk = self.talk(policies=[Lower()])
        self.assertIn("LIMITS MAILMAX=1 RCPTMAX=1", self.ehlo())
        self.begin()
        self.assertTrue(talk.say("RCPT TO:<c@d.e>").startswith("452 4.5.3"))
        self.assertTrue(self.mail("").startswith("421 4.5.3"))
