"""Tests of a policy and its delivery, without a port and without waiting.

    python -m twisted.trial policytest

The dialogue holds no transport: it is given lines, and gives replies.  What a policy or a delivery
waits for is a Deferred in place of a reply, and ``successResultOf`` gives the reply once it fires;
a ``Clock`` has as much time pass as a test wants.
"""

from __future__ import annotations

from embed import TicketDelivery, TicketsOnly
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd.dialogue import Dialogue, Rules
from submitd.realm import Submitter
from submitd.session import Session
from submitd.submission import Submission


class TicketsOnlyTests(SynchronousTestCase):
    """Mail to tickets@ and to nobody else."""

    def setUp(self) -> None:
        self.delivery = TicketDelivery()
        common = Submission(
            hostname="mail.example.com",
            delivery=self.delivery,
            policies=[TicketsOnly()],
            clock=Clock(),
            requireTLS=False,
        )
        self.dialogue = Dialogue(Rules(common), Session(remoteAddress="192.0.2.1"))
        self.dialogue.connectionMade()
        self.dialogue.join(Submitter("ada@example.com"))  # as if she had logged in

    def say(self, *lines: str) -> str:
        """The reply to the last of these lines, which come without their ends."""
        for line in lines:
            reply = self.dialogue.lineReceived(line.encode("utf-8"))
        return reply.wire.decode("ascii")

    def test_others(self) -> None:
        """Another recipient is refused."""
        said = self.say("EHLO client", "MAIL FROM:<ada@example.com>", "RCPT TO:<bob@example.org>")
        self.assertEqual(said[:9], "550 5.7.1")

    def test_tickets(self) -> None:
        """A message to tickets@ becomes a ticket."""
        said = self.say(
            "EHLO client", "MAIL FROM:<ada@example.com>", "RCPT TO:<tickets@example.org>", "DATA"
        )
        self.assertEqual(said[:3], "354")
        reply, _ = self.dialogue.dataReceived(b"Subject: broken\r\n\r\nIt is.\r\n.\r\n")
        self.assertEqual(reply.code, 250)
        [(sender, text)] = self.delivery.tickets
        self.assertEqual(sender, "<ada@example.com>")
        self.assertIn(b"Subject: broken\r\n", text)
