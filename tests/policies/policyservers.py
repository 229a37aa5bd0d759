"""Policy servers that say what a test wants."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from submitd.policies.delegation import Delegation
from submitd.wire.policyrequest import Action
from tests.policies.endpoints import crowded, hanging


class Transport(StringTransport):
    """Ends when it is told to."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol

    def abortConnection(self) -> None:
        super().abortConnection()
        if self._protocol is not None:
            protocol, self._protocol = self._protocol, None
            protocol.connectionLost(Failure(ConnectionDone()))


class Endpoint:
    """Where a server is that does nothing by itself.

    :ivar lines: the connections, in the order in which they came.
    :ivar isAway: whether nobody is there.
    :ivar isCrowded: whether its queue of new connections is full.
    :ivar isSlow: whether a connection waits for ``opening`` to fire.
    """

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.isAway = False
        self.isCrowded = False
        self.isSlow = False
        self.opening: list[Deferred[Any]] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.isAway:
            return fail(ConnectionRefusedError())
        if self.isCrowded:
            return crowded()
        line = factory.buildProtocol(None)
        if self.isSlow:
            waiting = hanging()
            self.opening.append(waiting)
            return waiting
        line.makeConnection(Transport(line))
        self.lines.append(line)
        return succeed(line)

    def asked(self, at: int = -1) -> dict[str, str]:
        """The attributes that came over a connection, and no more than those of one request."""
        transport = self.lines[at].transport
        text = transport.value().decode()
        transport.clear()
        assert text.endswith("\n\n"), text
        return dict(line.split("=", 1) for line in text[:-2].split("\n"))

    def answer(self, octets: bytes, at: int = -1) -> None:
        self.lines[at].dataReceived(octets)

    def end(self, at: int = -1) -> None:
        self.lines[at].transport.abortConnection()


@attrs.define(eq=False)
class Answering(Delegation):
    """The policy, with a server that always gives the same answer."""

    name: ClassVar[str] = "delegation"

    action: str = "DUNNO"

    def _ask(self, request: bytes) -> Deferred[Action]:
        name, _, text = self.action.partition(" ")
        return succeed(Action(name, text))
