"""Many descriptors as one: whatever happens to one of them, it is told as by Twisted's reactor.

Only of a hang-up it finds out for itself whether it was an end.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd import polling
from submitd.polling import Polling, pollingOf
from tests import running


@implementer(IHalfCloseableDescriptor)
class Descriptor:
    """Notes what it is told, and does as it is bid."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.told: list[str] = []
        self.onRead: Callable[[], Any] = lambda: None
        self.onWrite: Callable[[], Any] = lambda: None

    def fileno(self) -> int:
        return self.number

    def logPrefix(self) -> str:
        return "descriptor"

    def doRead(self) -> Any:
        self.told.append("read")
        return self.onRead()

    def doWrite(self) -> Any:
        self.told.append("write")
        return self.onWrite()

    def readConnectionLost(self, reason: Failure) -> None:
        self.told.append(f"read end: {reason.type.__name__}")

    def connectionLost(self, reason: Failure) -> None:
        self.told.append(f"lost: {reason.type.__name__}")


def raising() -> None:
    raise ZeroDivisionError("no")


class HappeningMixin:
    """What happens to a descriptor."""

    listening: Any
    atHangUp: list[str]

    def turn(self) -> None:
        """Serve what is ready."""
        raise NotImplementedError

    def pair(self: Any) -> tuple[Descriptor, socket.socket]:
        """A descriptor, and its other end."""
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
            self.addCleanup(each.close)
        descriptor = Descriptor(ours.fileno())
        self.addCleanup(self.listening.removeReader, descriptor)
        self.addCleanup(self.listening.removeWriter, descriptor)
        return descriptor, theirs

    def test_read(self: Any) -> None:
        """What waits to read is told when there is something to read, and only then."""
        descriptor, other = self.pair()
        self.listening.addReader(descriptor)
        self.turn()
        self.assertEqual(descriptor.told, [])
        other.send(b"x")
        self.turn()
        self.turn()
        self.assertEqual(descriptor.told, ["read", "read"])
        self.listening.removeReader(descriptor)
        self.turn()
        self.assertEqual(descriptor.told, ["read", "read"])

    def test_write(self: Any) -> None:
        """What waits to write is told of it, and of both when it waits for both."""
        descriptor, other = self.pair()
        self.listening.addWriter(descriptor)
        self.turn()
        self.assertEqual(descriptor.told, ["write"])
        other.send(b"x")
        self.listening.addReader(descriptor)
        self.turn()
        self.assertEqual(descriptor.told, ["write", "read", "write"])
        self.listening.removeWriter(descriptor)
        self.turn()
        self.assertEqual(descriptor.told, ["write", "read", "write", "read"])

    def test_twice(self: Any) -> None:
        """Waiting twice is waiting once, and so is ceasing to."""
        descriptor, other = self.pair()
        other.send(b"x")
        self.listening.addReader(descriptor)
        self.listening.addReader(descriptor)
        self.turn()
        self.assertEqual(descriptor.told, ["read"])
        self.listening.removeReader(descriptor)
        self.listening.removeReader(descriptor)
        self.listening.removeWriter(descriptor)
        self.turn()
        self.assertEqual(descriptor.told, ["read"])

    def test_ended(self: Any) -> None:
        """The end that a read has met is the end of reading, and what raises it is over."""
        descriptor, other = self.pair()
        descriptor.onRead = lambda: CONNECTION_DONE
        other.send(b"x")
        self.listening.addReader(descriptor)
        self.turn()
        self.turn()
        self.assertEqual(descriptor.told, ["read", "read end: ConnectionDone"])

    def test_failed(self: Any) -> None:
        """Whatever else a descriptor returns is why it is lost."""
        for reason in (CONNECTION_LOST, ConnectionAborted()):
            descriptor, other = self.pair()
            descriptor.onRead = lambda reason=reason: reason
            other.send(b"x")
            self.listening.addReader(descriptor)
            self.listening.addWriter(descriptor)
            self.turn()
            self.turn()
            self.assertEqual(descriptor.told, ["read", f"lost: {type(reason).__name__}"])

    def test_endedInWriting(self: Any) -> None:
        """An end that a write has met is the end of all."""
        descriptor, _ = self.pair()
        descriptor.onWrite = lambda: CONNECTION_DONE
        self.listening.addWriter(descriptor)
        self.turn()
        self.turn()
        self.assertEqual(descriptor.told, ["write", "lost: ConnectionDone"])

    def test_raised(self: Any) -> None:
        """One that raises is lost, with a line of log, and the others are served."""
        broken, other = self.pair()
        good, another = self.pair()
        broken.onRead = raising
        for each in (other, another):
            each.send(b"x")
        for descriptor in (broken, good):
            self.listening.addReader(descriptor)
        self.turn()
        self.assertEqual(broken.told, ["read", "lost: ZeroDivisionError"])
        self.assertEqual(good.told, ["read"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_raisedInTheEnd(self: Any) -> None:
        """One that raises when it is told of its end takes no other one with it, either."""
        good, another = self.pair()
        for reason, told in (
            (CONNECTION_DONE, "readConnectionLost"),
            (CONNECTION_LOST, "connectionLost"),
        ):
            broken, other = self.pair()
            broken.onRead = lambda reason=reason: reason
            self.patch(broken, told, lambda reason: raising())
            other.send(b"x")
            self.listening.addReader(broken)
        another.send(b"x")
        self.listening.addReader(good)
        self.turn()
        self.turn()
        self.assertEqual(good.told, ["read", "read"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_exit(self: Any) -> None:
        """Not even one that wants the process to end takes others with it."""
        broken, other = self.pair()

        def leave() -> None:
            raise SystemExit(1)

        broken.onRead = leave
        other.send(b"x")
        self.listening.addReader(broken)
        self.turn()
        self.assertEqual(broken.told, ["read", "lost: SystemExit"])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_hangUp(self: Any) -> None:
        """Who waits to write to somebody who has gone is told that the connection is lost."""
        descriptor, other = self.pair()
        other.close()
        self.listening.addWriter(descriptor)
        self.turn()
        self.assertEqual(descriptor.told, ["lost: ConnectionLost"])

    def test_hangUpInReading(self: Any) -> None:
        """Who waits to read where nothing can come any more has come to the end."""
        readable, writable = os.pipe()
        descriptor = Descriptor(readable)
        self.addCleanup(os.close, readable)
        self.addCleanup(self.listening.removeReader, descriptor)
        os.close(writable)
        descriptor.onRead = lambda: None if os.read(readable, 1) else CONNECTION_DONE
        self.listening.addReader(descriptor)
        self.turn()
        self.turn()
        self.assertEqual(descriptor.told, self.atHangUp)

    def test_endsAnother(self: Any) -> None:
        """One that has been ended by another in the same turn is not served any more."""
        first, other = self.pair()
        second, another = self.pair()
        for one, two in ((first, second), (second, first)):
            one.onRead = lambda two=two: self.listening.removeReader(two)
        for each in (other, another):
            each.send(b"x")
        for descriptor in (first, second):
            self.listening.addReader(descriptor)
        self.turn()
        self.assertEqual(sorted(first.told + second.told), ["read"])


class ReactorTests(HappeningMixin, SynchronousTestCase):
    """Twisted's reactor does as the tests say: they ask for nothing special."""

    atHangUp = ["read end: ConnectionDone"]

    def setUp(self) -> None:
        self.listening = EPollReactor()
        self.addCleanup(self.listening._poller.close)

    def turn(self) -> None:
        self.listening.doPoll(0)


class Outer(MemoryReactorClock):
    """A reactor that can be asked what it has."""

    def turn(self) -> None:
        """Serve what is readable."""
        for reader in self.getReaders():
            if select.select([reader.fileno()], [], [], 0)[0]:
                reader.doRead()


class PollingTests(HappeningMixin, SynchronousTestCase):
    """Ours does the same, and what is only asked of it."""

    # a reset would be told as one
    atHangUp = ["read", "read end: ConnectionDone"]

    def setUp(self) -> None:
        self.outer = Outer()
        self.outer.advance(1000.0)
        self.listening = Polling(self.outer)
        self.patch(polling, "LONGEST", 0.0)  # they are asked once a turn, as by the reactor

    def turn(self) -> None:
        self.outer.turn()

    def test_one(self) -> None:
        """The reactor has one descriptor for all that wait, and none when nothing does."""
        self.assertEqual((self.outer.getReaders(), self.listening.fileno()), ([], -1))
        many = [self.pair()[0] for _ in range(3)]
        for descriptor in many:
            self.listening.addReader(descriptor)
        self.assertEqual(self.outer.getReaders(), [self.listening])
        for descriptor in many:
            self.listening.removeReader(descriptor)
        self.assertEqual(self.outer.getReaders(), [])

    def test_resetInReading(self) -> None:
        """A hang-up without anything to read is no clean end when reading says otherwise."""
        readable, writable = os.pipe()
        descriptor = Descriptor(readable)
        self.addCleanup(os.close, readable)
        os.close(writable)
        descriptor.onRead = lambda: CONNECTION_LOST
        self.listening.addReader(descriptor)
        self.turn()
        self.turn()
        self.assertEqual(descriptor.told, ["read", "lost: ConnectionLost"])

    def test_exhausted(self) -> None:
        """A port that rests while the process has no descriptor left can be waited for again."""
        descriptor, other = self.pair()
        self.listening.addReader(descriptor)
        self.listening.removeReader(descriptor)

        def epoll() -> Any:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.patch(select, "epoll", epoll)
        self.listening.addReader(descriptor)
        other.send(b"x")
        self.turn()
        self.assertEqual(descriptor.told, ["read"])

    def test_bound(self) -> None:
        """In one turn no more are served than the bound says; the others have the next."""
        self.patch(polling, "MOST", 2)
        many = [self.pair() for _ in range(3)]
        for descriptor, other in many:
            other.send(b"x")
            self.listening.addReader(descriptor)
        self.turn()
        self.assertEqual(sum(len(descriptor.told) for descriptor, _ in many), 2)
        self.turn()
        self.assertTrue(all(descriptor.told for descriptor, _ in many))

    def test_again(self) -> None:
        """While several are ready, they are served again within the same turn."""
        self.patch(polling, "LONGEST", 1.0)
        many = [self.octets(3, 0.0) for _ in range(2)]
        self.turn()
        self.assertEqual([each.told for each in many], [["read"] * 3] * 2)

    def test_alone(self) -> None:
        """One that is ready alone is served once in a turn."""
        self.patch(polling, "LONGEST", 1.0)
        descriptor = self.octets(2, 0.0)
        self.turn()
        self.assertEqual(descriptor.told, ["read"])

    def test_longest(self) -> None:
        """What takes long is not begun again: the reactor has more to do."""
        self.patch(polling, "LONGEST", 1.0)
        many = [self.octets(3, 0.25) for _ in range(2)]
        self.turn()
        self.assertEqual([each.told for each in many], [["read"] * 2] * 2)

    def test_most(self) -> None:
        """Those that are served again count as well, where a turn is bounded."""
        self.patch(polling, "LONGEST", 1.0)
        self.patch(polling, "MOST", 5)
        many = [self.octets(9, 0.0) for _ in range(2)]
        self.turn()
        self.assertEqual(sum(len(each.told) for each in many), 5)

    def test_lostWhileServing(self) -> None:
        """What loses all of them, as the reactor does when it stops, ends the turn."""
        self.patch(polling, "LONGEST", 1.0)
        many = [self.octets(9, 0.0) for _ in range(2)]
        for each in many:
            each.onRead = lambda: self.listening.connectionLost(Failure(ConnectionLost()))
        self.turn()
        lost = ["lost: ConnectionLost"]
        self.assertEqual(sorted(each.told for each in many), [lost, ["read", *lost]])

    def octets(self, count: int, seconds: float) -> Descriptor:
        """One that has so many octets to read, and takes so long for each."""
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            self.addCleanup(each.close)
        theirs.sendall(b"x" * count)
        descriptor = Descriptor(ours.fileno())

        def read() -> None:
            ours.recv(1)
            self.outer.advance(seconds)

        descriptor.onRead = read
        self.listening.addReader(descriptor)
        self.addCleanup(self.listening.removeReader, descriptor)
        return descriptor

    def test_reactorStops(self) -> None:
        """All are lost when the reactor stops, also behind one that raises then."""
        many = [self.pair()[0] for _ in range(3)]
        for descriptor in many:
            self.listening.addReader(descriptor)
            self.listening.addWriter(descriptor)
        self.patch(many[1], "connectionLost", lambda reason: raising())
        number = self.listening.fileno()
        self.listening.connectionLost(Failure(ConnectionLost()))
        lost = ["lost: ConnectionLost"]
        self.assertEqual([each.told for each in many], [lost, [], lost])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.outer.getReaders(), self.listening.fileno()), ([], -1))
        with self.assertRaises(OSError):
            os.fstat(number)

    def test_anythingElse(self) -> None:
        """In everything else it is the reactor."""
        called: list[int] = []
        self.listening.callLater(1, called.append, 1)
        self.outer.advance(1)
        self.assertEqual(called, [1])
        self.assertEqual(self.listening.seconds(), self.outer.seconds())
        self.assertEqual(self.listening.logPrefix(), "polling")
        with self.assertRaises(AttributeError):
            self.listening.nothing  # noqa: B018

    def test_pollingOf(self) -> None:
        """Where there are no descriptors, or no epoll, the reactor serves them itself."""
        self.assertIsInstance(pollingOf(self.outer), Polling)
        clock = Clock()
        self.assertIs(pollingOf(clock), clock)
        self.patch(polling, "select", object())
        self.assertIs(pollingOf(self.outer), self.outer)


PROGRAM = """
import socket, sys
from twisted.internet.{name}reactor import install
install()
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from submitd.polling import Polling
from submitd.ports import PortReactor

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)
    def connectionLost(self, reason):
        print("lost", reason.type.__name__)

port = PortReactor(reactor).listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
assert isinstance(port.reactor, Polling)

def talk():
    with socket.create_connection(("127.0.0.1", port.getHost().port), 10) as client:
        client.sendall(b"hello")
        return client.recv(5)

def stop(said):
    print(said.decode())
    kept = socket.create_connection(("127.0.0.1", port.getHost().port), 10)
    reactor.callLater(0.1, reactor.stop)
    reactor.addSystemEventTrigger("after", "shutdown", kept.close)

from twisted.internet.threads import deferToThread
deferToThread(talk).addCallback(stop)
reactor.run()
print("ended")
"""


class ReactorsTests(SynchronousTestCase):
    """Every reactor that has descriptors can have this one."""

    reactors: ClassVar = ("epoll", "poll", "select", "asyncio")

    def test_each(self) -> None:
        """A client is served, and at the end of the reactor the one that is there is lost."""
        for name in self.reactors:
            ended = subprocess.run(
                [sys.executable, "-c", PROGRAM.format(name=name)],
                env=running.environment(),
                capture_output=True,
                timeout=60,
                text=True,
                check=False,
            )
            self.assertEqual(ended.stderr, "", name)
            said = sorted(ended.stdout.split("\n"))
            expected = ["", "ended", "hello", "lost ConnectionDone", "lost ConnectionLost"]
            self.assertEqual(said, expected, name)
