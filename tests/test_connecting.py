"""Connecting to a unix socket whose queue is full, as the system and Twisted have it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from submitd.connecting import Crowded, connected


class QueueTests(TestCase):
    """A server that takes nobody from its queue, until a test does."""

    if sys.platform != "linux":
        skip = "other systems have other ways to say that a queue is full"

    def setUp(self) -> None:
        # A short path: trial's own are longer than some systems allow for a socket.
        self.path = Path(self.mktemp()).name
        self.addCleanup(Path(self.path).unlink)
        self.failures: list[Failure] = []
        self.hasRoom = False
        self.server = self.made()
        self.server.bind(self.path)
        self.server.listen(0)
        self.made().connect(self.path)

    def made(self) -> socket.socket:
        """A socket that is closed with the test."""
        made = socket.socket(socket.AF_UNIX)
        self.addCleanup(made.close)
        return made

    def connect(self, factory: Any) -> Deferred[Any]:
        """As an endpoint: connect to it."""
        connecting = UNIXClientEndpoint(reactor, self.path).connect(factory)
        return connecting.addErrback(self.failed)

    def failed(self, failure: Failure) -> Failure:
        """An attempt has failed."""
        self.failures.append(failure)
        if self.hasRoom:
            self.server.accept()[0].close()
        return failure

    async def connected(self, seconds: float) -> Any:
        """Connect, for so many seconds."""
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        endpoint: Any = self
        clock: Any = reactor
        return await connected(endpoint, factory, clock, seconds)

    async def test_full(self) -> None:
        """It is known, whatever Twisted says, and ends in time."""
        with self.assertRaises(Crowded):
            await self.connected(0.03)
        self.assertEqual(len(self.failures), 2)

    async def test_room(self) -> None:
        """As soon as there is room again the connection is made."""
        self.hasRoom = True
        protocol = await self.connected(10.0)
        protocol.transport.loseConnection()
        self.assertEqual(len(self.failures), 1)

    async def test_away(self) -> None:
        """Where nobody listens that is said at once."""
        self.server.close()
        with self.assertRaisesRegex(Exception, "refused"):
            await self.connected(10.0)
        self.assertEqual(len(self.failures), 1)
