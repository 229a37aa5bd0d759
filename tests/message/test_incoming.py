"""A message on its way into a delivery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.interfaces import IReceivedMessage
from submitd.message.header import MAX_LINES, Header
from submitd.message.incoming import HEADER_TOO_LARGE, IncomingMessage
from submitd.wire.errors import Refused
from submitd.wire.reply import MESSAGE_TOO_LARGE, Reply
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

    def test_deliveryAnswersNonsense(self) -> None:
        """A delivery that answers a chunk with neither None nor a Deferred fails the message."""
        message = self.make()
        self.sink.delivery.onChunk = lambda sink, chunk: True
        self.assertIsNone(message.dataReceived(b"A: 1\r\n"))
        assert message.problem is not None
        self.assertIsInstance(message.problem.value, TypeError)
        self.assertEqual(self.sink.state, "aborted")

    def test_dropsLater(self) -> None:
        """A delivery may take its time to drop a message: it is run to its end."""
        waiting: Deferred[None] = Deferred()

        class Slow(MemoryMessage):
            async def connectionLost(self) -> None:
                await waiting
                super().connectionLost()

        sink = Slow(MemoryDelivery(), None, None)
        IncomingMessage(sink, 0, 0).abort()
        self.assertEqual(sink.state, "open")
        waiting.callback(None)
        self.assertEqual(sink.state, "aborted")

    def test_fieldsLater(self) -> None:
        """Fields that a delivery would put in front later are a mistake: they would be missing."""

        class Later(MemoryMessage):
            async def prepend(self, fields: bytes) -> None:
                super().prepend(fields)

        sink = Later(MemoryDelivery(), None, None)
        message = IncomingMessage(sink, 0, 0)
        message.prepend(b"X-A: b\r\n")
        error = self.assertRaises(TypeError, message.commit)
        self.assertEqual(str(error), "Later.prepend must not be a coroutine")
        self.assertFalse(message.committing)

    def test_deliveryFailsToAbort(self) -> None:
        """A delivery that raises when it is told to abort is logged, and nothing else happens."""

        class Broken(MemoryMessage):
            def connectionLost(self) -> None:
                raise ZeroDivisionError

        message = IncomingMessage(Broken(MemoryDelivery(), None, None), 0, 0)
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        message.abort()
        message.abort()
        [event] = [event for event in logged if event.get("event") == "policy-failed"]
        self.assertEqual(event["origin"], "delivery, to abort")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

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


class ReviewTests(SynchronousTestCase):
    """The header section is shown to policies before anything goes to the delivery."""

    def make(self, review: Callable[[Header], Any], reviewLimit: int = 1000) -> IncomingMessage:
        self.sink = MemoryMessage(MemoryDelivery(), None, None)
        return IncomingMessage(self.sink, 0, 1000, 0.0, review, reviewLimit)

    def change(self, header: Header) -> None:
        """Add a field, and note what was seen."""
        self.seen = header.octets
        header.append(b"Added: 1\r\n")

    def problemOf(self, message: IncomingMessage) -> Any:
        assert message.problem is not None
        return message.problem.value

    def test_everyCut(self) -> None:
        """However the message is cut, policies see the header once, and the rest is untouched."""
        for head, body in (
            (b"A: 1\r\nB: 2\r\n", b"\r\nbody\r\n\r\nmore\r\n"),
            (b"", b"\r\nbody\r\n"),
            (b"A: 1\r\n", b"\r\n"),
            (b"A: 1\r\n", b""),
            (b"", b""),
        ):
            text = head + body
            for size in range(1, len(text) + 1):
                message = self.make(self.change)
                for at in range(0, len(text), size):
                    self.assertIsNone(message.dataReceived(text[at : at + size]))
                self.assertIsNone(message.finish())
                self.assertIsNone(message.finish())
                self.assertEqual(self.seen, head)
                self.assertEqual(self.sink.octets, head + b"Added: 1\r\n" + body)
                self.assertEqual(message.header, head + b"Added: 1\r\n")
                self.assertEqual(message.byteLength, len(text))

    def test_heldBack(self) -> None:
        """The delivery gets nothing before policies have seen the header, and all of it then."""
        message = self.make(lambda header: None)
        message.dataReceived(b"A: 1\r\n")
        self.assertEqual(self.sink.octets, b"")
        message.dataReceived(b"\r\nbody")
        self.assertEqual(self.sink.octets, b"A: 1\r\n\r\nbody")
        message.dataReceived(b" and more")
        self.assertEqual(self.sink.octets, b"A: 1\r\n\r\nbody and more")

    def test_waiting(self) -> None:
        """A policy that waits holds the client back, and the message goes on behind it."""
        verdict: Deferred[None] = Deferred()
        message = self.make(lambda header: verdict)
        waiting = message.dataReceived(b"A: 1\r\n\r\nbody")
        assert waiting is not None
        self.assertNoResult(waiting)
        self.assertEqual(self.sink.octets, b"")
        verdict.callback(None)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(self.sink.octets, b"A: 1\r\n\r\nbody")

    def test_waitingForBoth(self) -> None:
        """A delivery that asks for time behind a policy that waited gets it."""
        slow: Deferred[None] = Deferred()
        message = self.make(lambda header: succeed(None))
        self.sink.delivery.onChunk = lambda *_: slow
        waiting = message.dataReceived(b"\r\nbody")
        assert waiting is not None
        self.assertNoResult(waiting)
        slow.callback(None)
        self.assertIsNone(self.successResultOf(waiting))

    def test_refused(self) -> None:
        """A refusal aborts the delivery at once; what still comes is dropped."""
        no = Refused(Reply(550, "5.6.0", "No"))

        def refuse(header: Header) -> None:
            raise no

        later: Deferred[None] = Deferred()
        for review in (refuse, lambda header: later):
            message = self.make(review)
            waiting = message.dataReceived(b"\r\nbody")
            if waiting is not None:
                later.errback(no)
                self.assertIsNone(self.successResultOf(waiting))
            message.dataReceived(b"more")
            self.assertIsNone(message.finish())
            self.assertIs(self.problemOf(message), no)
            self.assertEqual((self.sink.state, self.sink.octets), ("aborted", b""))

    def test_clientGone(self) -> None:
        """When the client goes while a policy waits, the delivery gets nothing behind its abort."""
        verdict: Deferred[None] = Deferred()
        message = self.make(lambda header: verdict)
        waiting = message.dataReceived(b"\r\nbody")
        assert waiting is not None
        message.abort()
        verdict.callback(None)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual((self.sink.state, self.sink.octets), ("aborted", b""))

    def test_tooLarge(self) -> None:
        """A header section above its limit is refused, whether its end has come or not."""
        for octets in (b"A: 123456789\r\n\r\n", b"A: 123456789", b"x" * 100):
            message = self.make(self.change, reviewLimit=11)
            message.dataReceived(octets)
            message.dataReceived(b"more")
            self.assertIsNone(message.finish())
            self.assertEqual(self.problemOf(message).reply, HEADER_TOO_LARGE)
            self.assertEqual((self.sink.state, self.sink.octets), ("aborted", b""))
        message = self.make(self.change, reviewLimit=0)
        message.dataReceived(b"A: 1\r\n" * 1000)
        self.assertIsNone(message.problem)

    def test_atTheLimit(self) -> None:
        """A header section of its limit is not too large while its end has not come whole."""
        for octets in (b"A: 123456\r\n", b"A: 1234567\r\n"):
            verdicts = set()
            for cut in range(len(octets) + 2):
                message = self.make(self.change, reviewLimit=11)
                message.dataReceived(octets[:cut])
                message.dataReceived(octets[cut:])
                message.dataReceived(b"\r")
                message.dataReceived(b"\n")
                verdicts.add(message.problem is None)
            self.assertEqual(verdicts, {len(octets) <= 11})

    def test_tooManyLines(self) -> None:
        """A hundred thousand lines are counted, not read."""
        for lines in (MAX_LINES, MAX_LINES + 1):
            message = self.make(self.change, reviewLimit=1_000_000)
            message.dataReceived(b"a:\r\n" * lines + b"\r\n")
            self.assertEqual(message.problem is None, lines == MAX_LINES)

    def test_abortBefore(self) -> None:
        """A message aborted within its header is shown to nobody."""
        message = self.make(lambda header: self.fail("shown"))
        message.dataReceived(b"A: 1\r\n")
        message.abort()
        self.assertIsNone(message.finish())
