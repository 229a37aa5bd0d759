"""The relay's connection with the scripts of test_relay.py: its Deferreds always fire.

The next hop says anything, cut anywhere; at the end of the script it goes, or is silent until the
time limits have passed.  The body of a message comes at once or later, or breaks off.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from submitd.relay.connection import Connection, HopFailed, Host
from submitd.relay.outgoing import Result
from submitd.relay.settings import TimeoutSettings
from tests.fixtures import FakeTransport
from tests.fuzz.target import Target, nothingLogged
from tests.fuzz.test_relay import CHUNKS, MESSAGES, RELAY, TURNS, NextHop, octetsOf
from tests.relay.hops import outgoing

AN_HOUR = 3600


class Body:
    """A message that comes as the script wants it.

    :param words: ``later`` and ``torn`` among them.
    """

    def __init__(self, words: list[bytes], clock: Clock) -> None:
        self._chunks = list(CHUNKS)
        self._words = words
        self._clock = clock

    def next(self) -> Deferred[bytes]:
        """The next chunk."""
        if b"torn" in self._words and len(self._chunks) == 1:
            return fail(LookupError("no such message"))
        chunk = self._chunks.pop(0) if self._chunks else b""
        if b"later" not in self._words:
            return succeed(chunk)
        result: Deferred[bytes] = Deferred()
        self._clock.callLater(1, result.callback, chunk)
        return result


def connection(data: bytes) -> None:
    """Each message has its outcomes, in time, whatever the next hop does; nothing is left."""
    for fine in (False, True):
        for silent in (False, True):
            _play(data, fine, silent)


def _play(data: bytes, fine: bool, silent: bool) -> None:
    first, *lines = data.split(b"\n")
    hop, clock, transport = NextHop(first.split()), Clock(), FakeTransport()
    host = Host(
        endpoint=None,  # type: ignore[arg-type]
        where="hop.example:25",
        name="hop.example",
        profile=hop.client.profile,
        tls=object(),
        verified=b"verified" in hop.words,
    )
    made = Connection(host, clock, TimeoutSettings())
    opened: list[Any] = []
    made.opened.addBoth(opened.append)
    delivered: list[list[Any]] = []
    with nothingLogged():
        made.makeConnection(transport)
        for line in lines[:TURNS]:
            if line == b"!drop" or transport.disconnecting:
                break
            octets = hop.good() if line == b"!good" else octetsOf(line)
            for piece in [octets[at : at + 1] for at in range(len(octets))] if fine else [octets]:
                if not transport.disconnecting:
                    made.dataReceived(piece)
                if transport.startedTLS and not hop.secure:
                    hop.secure = True
                    made.handshakeCompleted()
            clock.advance(1)
            if made.isReady and len(delivered) < MESSAGES:
                results: list[Any] = []
                delivered.append(results)
                made.deliver(outgoing("a@b.example"), Body(hop.words, clock)).addBoth(
                    results.append
                )
            hop.note(transport.taken())
        if silent:
            for _ in range(20):
                clock.advance(AN_HOUR)
            assert transport.disconnecting, "a silent next hop is waited for without end"
        made.connectionLost(Failure(ConnectionDone()))
        clock.advance(AN_HOUR)
    assert len(opened) == 1, "nobody was told whether it can be used"
    if opened[0] is not None:
        assert opened[0].check(HopFailed) and not delivered
    for results in delivered:
        [outcomes] = results
        assert len(outcomes) == 1 and outcomes[0].result in Result
    assert not clock.getDelayedCalls(), "a time limit outlives its connection"


CONNECTION = Target(
    "connection",
    connection,
    [*RELAY.pieces, b"later ", b"torn ", b"verified "],
    longest=20,
)

ConnectionTests = CONNECTION.tests(__name__)
