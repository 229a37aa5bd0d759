"""Who of several workers accepts the next connection."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from submitd import tally
from submitd.tally import SharedConnections, Tally
from submitd.workers.ports import LOOK, MANY, PATIENCE, UNASKED, SharedEndpoint, SharedPort
from tests.test_tally import Connection
from tests.workers.test_parts import Reactor


class SharedPortTests(SynchronousTestCase):
    """A port of this worker, which has a page, and of another one that is only its page."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.reactor.advance(1000)
        file = tally.makeFile()
        self.addCleanup(os.close, file)
        self.parent, self.own, self.other = (Tally(file, page, b"k") for page in range(3))
        for each in (self.parent, self.own, self.other):
            self.addCleanup(each.close)
        self.parent.look(3)
        self.own.accept(True)
        self.other.accept(True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.addCleanup(self.listening.close)
        self.served = 0
        factory: Any = Factory()
        factory.noisy = False
        factory.buildProtocol = self.built
        endpoint = SharedEndpoint(self.reactor, os.dup(self.listening.fileno()), self.own)
        made: Any = self.successResultOf(endpoint.listen(factory))
        self.port: SharedPort = made

    def tearDown(self) -> None:
        """Close the port."""
        self.port.stopListening()
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def built(self, address: object) -> None:
        """Count, and let go."""
        self.served += 1

    def connect(self, count: int = 1) -> None:
        """Clients that wait to be accepted."""
        for _ in range(count):
            client = socket.create_connection(self.listening.getsockname())
            self.addCleanup(client.close)

    def turn(self) -> int:
        """One turn of the reactor; how many were accepted."""
        before = self.served
        self.reactor.read()
        return self.served - before

    def test_even(self) -> None:
        """One in a turn, as long as nobody has fewer; so others who have time get theirs."""
        self.connect(2)
        self.assertEqual([self.turn(), self.turn()], [1, 1])

    def test_behind(self) -> None:
        """Who has fewer takes the next at once."""
        self.other.add(bytes(8))
        self.connect()
        self.assertEqual(self.turn(), 1)

    def test_stepsBack(self) -> None:
        """Who has more waits, and goes on when the other has as many."""
        self.own.add(bytes(8))
        self.connect(2)
        self.assertEqual(self.turn(), 0)
        self.reactor.advance(LOOK)
        self.assertEqual(self.turn(), 0)
        self.other.add(bytes(8))
        self.reactor.advance(LOOK)
        self.assertEqual(self.turn(), 1)

    def test_inVain(self) -> None:
        """A client waits five milliseconds, and no other one does for a while."""
        self.own.add(bytes(8))
        self.connect(3)
        self.turn()
        self.reactor.pump([LOOK] * round(PATIENCE / LOOK + 1))
        self.assertEqual([self.turn(), self.turn()], [1, 1])
        self.reactor.advance(UNASKED)
        self.assertEqual(self.turn(), 0)

    def test_taken(self) -> None:
        """The other one has taken it: then the next waits, too."""
        self.own.add(bytes(8))
        self.own.add(bytes(8))
        self.connect()
        self.turn()
        self.listening.accept()[0].close()
        self.reactor.pump([LOOK] * round(PATIENCE / LOOK + 1))
        self.connect()
        self.assertEqual(self.turn(), 0)

    def test_retired(self) -> None:
        """Nobody steps back for a worker that accepts no more, or is gone."""
        self.own.add(bytes(8))
        self.connect(2)
        self.other.accept(False)
        self.assertEqual(self.turn(), 1)
        self.other.accept(True)
        self.parent.wipe(2)
        self.assertEqual(self.turn(), 1)

    def test_short(self) -> None:
        """Where clients had to wait for descriptors, all are taken, and the log says it is over."""
        self.own.add(bytes(8))
        self.port._isShort = True
        self.connect(3)
        self.assertEqual(self.turn(), 3)
        self.assertFalse(self.port._isShort)

    def test_comeAndGo(self) -> None:
        """Where connections end all the time, all that wait are accepted in one turn."""
        connections = SharedConnections(self.reactor, 0, 0, self.own)  # type: ignore[arg-type]
        connections.add(Connection("192.0.2.2"))
        for _ in range(tally.NOTED):
            connection = Connection("192.0.2.1")
            connections.add(connection)
            connections.remove(connection)
        self.connect(5)
        self.assertEqual(self.turn(), 5)
        self.connect()
        self.reactor.advance(UNASKED)
        self.assertEqual(self.turn(), 0)
        self.assertGreater(MANY, 5)

    def test_slack(self) -> None:
        """Of many connections a sixteenth more is no reason to wait."""
        for _ in range(34):
            self.own.add(bytes(8))
        for _ in range(32):
            self.other.add(bytes(8))
        self.connect(2)
        self.assertEqual(self.turn(), 1)
        self.own.add(bytes(8))
        self.assertEqual(self.turn(), 0)
