"""A message on its way into a delivery."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.interfaces import IReceivedMessage
from submitd.message.incoming import IncomingMessage
from submitd.wire.errors import Refused
from submitd.wire.reply import MESSAGE_TOO_LARGE
from tests.fixtures import MemoryDelivery, MemoryMessage


class IncomingMessageTests(SynchronousTestCase):
    """Counting, the header, the limits, the end."""

    def make(self, sizeLimit: int = 0, headerLimit: int = 1000) -> IncomingMessage:
        self.sink = MemoryMessage(MemoryDelivery(), None, None)
        return IncomingMessage(self.sink, sizeLimit, headerLimit)

    def test_interface(self) -> None:
        """It is what message policies are promised."""
        verifyObject(IReceivedMessage, self.make())

    def test_header(self) -> None:
        """The header section is the same however the message is cut."""
        text = b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\nmore\r\n"
        for size in range(1, len(text)):
            message = self.make()
            for at in range(0, len(text), size):
                message.dataReceived(text[at : at + size])
            self.assertEqual(message.header, b"A: 1\r\nB: 2\r\n")
            self.assertEqual(message.byteLength, len(text))
            self.assertEqual(self.sink.octets, text)

    def test_noHeader(self) -> None:
        """A message may have no header, no body, or neither."""
        for text, header in (
            (b"\r\nbody\r\n", b""),
            (b"", b""),
            (b"A: 1\r\n", b"A: 1\r\n"),
            (b"A: 1\r\n\r\n", b"A: 1\r\n"),
        ):
            message = self.make()
            message.dataReceived(text)
            self.assertEqual(message.header, header)

    def test_headerBounded(self) -> None:
        """A header without end is kept up to the limit only; without readers none is kept."""
        message = self.make(headerLimit=10)
        for _ in range(10):
            message.dataReceived(b"A: 1\r\n")
        self.assertEqual(message.header, b"A: 1\r\nA: 1")
        message = self.make(headerLimit=0)
        message.dataReceived(b"A: 1\r\n")
        self.assertEqual(message.header, b"")

    def test_sizeExceeded(self) -> None:
        """Past the limit the delivery aborts at once, and what still comes is counted only."""
        message = self.make(sizeLimit=10)
        message.dataReceived(b"0123456789")
        self.assertFalse(message.sizeExceeded)
        message.dataReceived(b"0")
        message.dataReceived(b"0")
        self.assertTrue(message.sizeExceeded)
        self.assertEqual(message.byteLength, 12)
        self.assertEqual(self.sink.state, "aborted")
        self.assertEqual(self.sink.octets, b"0123456789")
        assert message.problem is not None
        self.assertEqual(message.problem.value.reply, MESSAGE_TOO_LARGE)

    def test_firstProblem(self) -> None:
        """The first problem is the one that is told."""
        message = self.make()
        message.fail(Failure(Refused(MESSAGE_TOO_LARGE)))
        message.fail(Failure(ZeroDivisionError()))
        assert message.problem is not None
        self.assertIsInstance(message.problem.value, Refused)

    def test_prepend(self) -> None:
        """Only whole lines can be put in front: nobody ends the header by accident."""
        message = self.make()
        for field in (b"A: 1", b"A: 1\n", b"A: 1\nB: 2\r\n", b"A: 1\r\r\n", b""):
            self.assertRaises(ValueError, message.prepend, field)
        message.prepend(b"A: 1\r\n folded\r\n")
        message.dataReceived(b"C: 3\r\n")
        message.commit()
        self.assertEqual(self.sink.octets, b"A: 1\r\n folded\r\nC: 3\r\n")

    def test_abortOnce(self) -> None:
        """A message that was told to commit is not aborted any more."""
        message = self.make()
        message.commit()
        message.abort()
        self.assertEqual(self.sink.state, "committed")
        message = self.make()
        message.abort()
        self.sink.state = "again"
        message.abort()
        self.assertEqual(self.sink.state, "again")
