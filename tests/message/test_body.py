"""Messages whose body a policy wants to see, or to keep back and change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.interfaces import IHeldMessage, IReceivedMessage
from submitd.message import body
from submitd.message.header import Header
from submitd.message.incoming import IncomingMessage
from submitd.wire.errors import Refused
from tests.fixtures import MemoryDelivery, MemoryMessage

TEXT = b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\nmore\r\n"


class BodyTests(SynchronousTestCase):
    """Observers and holders, in their order."""

    def make(self, *begin: Callable[[IncomingMessage], Any], sizeLimit: int = 0) -> IncomingMessage:
        """A message of whose policies each does something at the stage header."""

        def review(header: Header) -> None:
            self.got = [each(message) for each in begin]

        self.sink = MemoryMessage(MemoryDelivery(), None, None)
        message = IncomingMessage(self.sink, sizeLimit, 1000, 0.0, review, 1000)
        return message

    def observer(self, seen: list[bytes]) -> Callable[[IncomingMessage], Any]:
        """A policy that looks."""
        return lambda message: message.observeBody(seen.append)

    def holder(self, seen: list[bytes]) -> Callable[[IncomingMessage], Any]:
        """A policy that holds."""
        return lambda message: message.holdBody(seen.append)

    def send(self, message: IncomingMessage, text: bytes, size: int) -> None:
        """All of a message, so many octets at a time."""
        for at in range(0, len(text), size):
            waiting = message.dataReceived(text[at : at + size])
            if waiting is not None:
                self.assertIsNone(self.successResultOf(waiting))
        waiting = message.finish()
        if waiting is not None:
            self.assertIsNone(self.successResultOf(waiting))
        self.assertIsNone(message.problem)

    def test_interface(self) -> None:
        """What policies are promised is there."""
        message = self.make(self.holder([]))
        verifyObject(IReceivedMessage, message)
        self.send(message, TEXT, 10)
        verifyObject(IHeldMessage, self.got[0])

    def test_observed(self) -> None:
        """An observer is given the body alone, however it is cut, and nothing else changes."""
        for size in range(1, len(TEXT)):
            seen: list[bytes] = []
            message = self.make(self.observer(seen))
            self.send(message, TEXT, size)
            self.assertEqual(b"".join(seen), b"body\r\n\r\nmore\r\n")
            self.assertEqual(self.sink.octets, TEXT)
            self.assertEqual(message.header, b"A: 1\r\nB: 2\r\n")

    def test_withoutBody(self) -> None:
        """A message may have no body, no empty line, or no header."""
        for text in (b"A: 1\r\n\r\n", b"A: 1\r\n", b"\r\nbody\r\n", b"", b"A: 1"):
            for policy in (self.observer([]), self.holder([])):
                message = self.make(policy)
                self.send(message, text, 3)
                if self.got[0] is not None:
                    self.successResultOf(self.got[0].release())
                self.assertEqual(self.sink.octets, text)

    def test_held(self) -> None:
        """What is held goes on as it came, when it is let go, and no octet of it before."""
        seen: list[bytes] = []
        message = self.make(self.holder(seen))
        self.send(message, TEXT, 5)
        self.assertEqual(b"".join(seen), b"body\r\n\r\nmore\r\n")
        self.assertEqual(self.sink.octets, b"")
        self.assertEqual(message.header, b"A: 1\r\nB: 2\r\n")
        self.assertRaises(RuntimeError, message.commit)
        self.successResultOf(self.got[0].release())
        self.assertEqual(self.sink.octets, TEXT)
        message.commit()
        self.assertEqual(self.sink.state, "committed")

    def test_changed(self) -> None:
        """Header and body go on as they have been changed."""
        message = self.make(self.holder([]))
        self.send(message, TEXT, 5)
        [held] = self.got
        held.header.append(b"C: 3\r\n")
        held.replaceBody(b"other")
        held.keepBody()
        held.replaceBody(b"an")
        held.replaceBody(b"other\r\n")
        self.assertEqual(message.header, b"A: 1\r\nB: 2\r\nC: 3\r\n")
        self.successResultOf(held.release())
        self.assertEqual(self.sink.octets, b"A: 1\r\nB: 2\r\nC: 3\r\n\r\nanother\r\n")
        self.assertEqual(message.header, b"A: 1\r\nB: 2\r\nC: 3\r\n")

    def test_bodyAdded(self) -> None:
        """Where there was no empty line, one comes before a body that is added."""
        for text, whole in ((b"A: 1\r\n", b"A: 1\r\n\r\nnew\r\n"), (b"A", b"A\r\n\r\nnew\r\n")):
            message = self.make(self.holder([]))
            self.send(message, text, 9)
            self.got[0].replaceBody(b"new\r\n")
            self.successResultOf(self.got[0].release())
            self.assertEqual(self.sink.octets, whole)

    def test_order(self) -> None:
        """Each sees what those before it have left: the one behind a change sees the change."""
        seen: list[list[bytes]] = [[], [], [], [], []]
        message = self.make(
            self.observer(seen[0]),
            self.holder(seen[1]),
            self.observer(seen[2]),
            self.holder(seen[3]),
            self.observer(seen[4]),
        )
        self.send(message, TEXT, 7)
        came = b"body\r\n\r\nmore\r\n"
        self.assertEqual([b"".join(each) for each in seen], [came, came, b"", b"", b""])
        self.got[1].replaceBody(b"one\r\n")
        self.successResultOf(self.got[1].release())
        self.assertEqual([b"".join(each) for each in seen[2:]], [b"one\r\n", b"one\r\n", b""])
        self.assertEqual(self.sink.octets, b"")
        self.got[3].replaceBody(b"two\r\n")
        self.successResultOf(self.got[3].release())
        self.assertEqual(b"".join(seen[4]), b"two\r\n")
        self.assertEqual(self.sink.octets, b"A: 1\r\nB: 2\r\n\r\ntwo\r\n")

    def test_large(self) -> None:
        """A large body takes no more memory than there is room for one, and a file for the rest."""
        self.patch(body, "IN_MEMORY", 1000)
        message = self.make(self.holder([]))
        text = b"A: 1\r\n\r\n" + b"x" * 300_000 + b"\r\n"
        self.send(message, text, 1 << 16)
        file: Any = self.got[0].body._file
        self.assertTrue(file._rolled)
        status = os.fstat(file.fileno())
        self.assertEqual((status.st_mode & 0o777, status.st_nlink), (0o600, 0))
        self.successResultOf(self.got[0].release())
        self.assertEqual(self.sink.octets, text)
        self.assertTrue(file.closed)

    def test_waits(self) -> None:
        """The next octets come when an observer, and the delivery, have time for them."""
        waits: list[Deferred[None]] = []

        def wait(*arguments: Any) -> Deferred[None]:
            waits.append(Deferred())
            return waits[-1]

        message = self.make(lambda message: message.observeBody(wait))
        self.sink.delivery.onChunk = wait
        first = message.dataReceived(b"A: 1\r\n\r\nbody")
        assert first is not None
        for octets in (b"A: 1\r\n\r\n", b"A: 1\r\n\r\n", b"A: 1\r\n\r\nbody"):
            self.assertEqual(self.sink.octets, octets)
            self.assertNoResult(first)
            waits.pop().callback(None)
        self.assertIsNone(self.successResultOf(first))

    def test_observerRefuses(self) -> None:
        """What an observer raises is the message's problem, at once or late."""

        def refuse(octets: bytes) -> None:
            raise ZeroDivisionError

        late: Deferred[None] = Deferred()
        for observe in (refuse, lambda octets: late):
            message = self.make(lambda message, each=observe: message.observeBody(each))
            message.dataReceived(b"A: 1\r\n\r\nbody")
            message.dataReceived(b"more")
            if observe is not refuse:
                late.errback(ZeroDivisionError())
            assert message.problem is not None
            self.assertIsInstance(message.problem.value, ZeroDivisionError)
            self.assertEqual(self.sink.state, "aborted")

    def test_beginRefused(self) -> None:
        """An observer that refuses the first octets does so at once or as a Deferred."""
        message = self.make(lambda message: message.holdBody(lambda octets: 1 // 0))
        message.dataReceived(b"A: 1\r\n\r\nbody")
        assert message.problem is not None
        self.assertIsInstance(message.problem.value, ZeroDivisionError)

    def test_deliveryFails(self) -> None:
        """A delivery that fails while what was held goes on fails the one who lets go."""
        failing: Deferred[None] = Deferred()

        def fail(*arguments: Any) -> None:
            raise ZeroDivisionError

        for answer in (fail, lambda *_: failing):
            message = self.make(self.holder([]))
            self.send(message, TEXT, 50)
            self.sink.delivery.onChunk = answer
            releasing = self.got[0].release()
            if answer is not fail:
                failing.errback(ZeroDivisionError())
            self.failureResultOf(releasing, ZeroDivisionError)
            self.assertEqual(self.sink.state, "aborted")

    def test_clientGone(self) -> None:
        """Behind an abort nothing goes on, and nothing is kept."""
        message = self.make(self.observer([]), self.holder([]), self.observer([]))
        self.send(message, TEXT, 50)
        file: Any = self.got[1].body._file
        waiting: Deferred[None] = Deferred()
        self.sink.delivery.onChunk = lambda *_: waiting
        releasing = self.got[1].release()
        message.abort()
        waiting.callback(None)
        self.failureResultOf(releasing)
        self.assertTrue(file.closed)
        self.assertEqual(self.sink.octets, b"A: 1\r\nB: 2\r\n\r\n")

    def test_forwardedBehindAbort(self) -> None:
        """An observer that takes its time cannot wake a message that was given up."""
        waiting: Deferred[None] = Deferred()
        message = self.make(lambda message: message.observeBody(lambda octets: waiting))
        message.dataReceived(TEXT)
        message.abort()
        waiting.callback(None)
        self.assertEqual(self.sink.octets, b"A: 1\r\nB: 2\r\n\r\n")
        assert message.problem is not None
        self.assertIn("the client is gone", str(message.problem.value))

    def test_tooLarge(self) -> None:
        """A policy cannot make a message larger than one may be."""
        message = self.make(self.holder([]), sizeLimit=100)
        self.send(message, TEXT, 50)
        refused = self.assertRaises(Refused, self.got[0].replaceBody, b"x" * 101)
        self.assertEqual(refused.reply.code, 552)

    def test_diskFull(self) -> None:
        """Where there is no space to keep a body it is 452, and nobody is shown it."""
        seen: list[bytes] = []
        message = self.make(self.holder(seen))
        message.dataReceived(b"A: 1\r\n\r\n")

        def full(octets: bytes) -> None:
            raise OSError(28, "No space left on device")

        self.patch(self.got[0].body._file, "write", full)
        message.dataReceived(b"body")
        assert message.problem is not None
        refused = message.problem.value
        assert isinstance(refused, Refused)
        self.assertEqual(refused.reply.code, 452)
        self.assertEqual(seen, [])

    def test_diskFullAtEnd(self) -> None:
        """The last octets, too few for the buffer of a file to be written, are 452 as well."""
        message = self.make(self.holder([]))
        message.dataReceived(b"A: 1\r\n\r\n")
        full = open("/dev/full", "r+b")  # noqa: SIM115
        self.patch(self.got[0].body, "_file", full)
        message.dataReceived(b"body")
        self.assertTrue(full.closed)
        assert message.problem is not None
        refused = message.problem.value
        assert isinstance(refused, Refused)
        self.assertEqual(refused.reply.code, 452)

    def test_discarded(self) -> None:
        """A message that is discarded is dropped, held or not, and the commit says nothing."""
        for policies in ((), (self.holder([]),)):
            message = self.make(*policies)
            self.send(message, TEXT, 50)
            message.discard("spam")
            message.discard("more")
            self.assertEqual(message.discarded, "spam")
            self.assertIsNone(message.commit())
            self.assertEqual(self.sink.state, "aborted")

    def test_waitingHolder(self) -> None:
        """A holder, too, may ask for time."""
        waiting = succeed(None)
        message = self.make(lambda message: message.holdBody(lambda octets: waiting))
        self.send(message, TEXT, 50)
        self.successResultOf(self.got[0].release())
        self.assertEqual(self.sink.octets, TEXT)
