"""The delivery that drops."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.deliveries.discard import Discard
from submitd.envelope import Envelope
from submitd.interfaces import IDelivery, IMessage
from submitd.session import Session
from submitd.wire.address import NULL_PATH


class DiscardTests(SynchronousTestCase):
    """Discard."""

    def test_interfaces(self) -> None:
        """It can stand wherever a delivery can."""
        delivery = Discard()
        self.assertTrue(verifyObject(IDelivery, delivery))
        message = delivery.begin(Session(), Envelope("ID", NULL_PATH))
        self.assertTrue(verifyObject(IMessage, message))

    def test_counts(self) -> None:
        """Messages that came to their end are counted, with what was put in front."""
        delivery = Discard()
        message = delivery.begin(Session(), Envelope("ID", NULL_PATH))
        self.assertIsNone(message.dataReceived(b"12345"))
        message.prepend(b"67")
        self.assertIsNone(message.eomReceived())
        self.assertEqual((delivery.messages, delivery.octets), (1, 7))

    def test_aborted(self) -> None:
        """A message that was broken off does not count."""
        delivery = Discard()
        message = delivery.begin(Session(), Envelope("ID", NULL_PATH))
        message.dataReceived(b"12345")
        message.connectionLost()
        self.assertEqual((delivery.messages, delivery.octets), (0, 0))
