"""A client that says exactly what it is told, and cuts it as it is told.

A :class:`Way` says how octets are cut into TLS records and into TCP segments.  A :class:`Peer` is
one connection: it sends by its way, reads while it sends (so that neither side waits for ever for
the other), and gives replies one by one.  Nothing is hidden or mended: what is no reply, what comes
too late and what comes unasked is :class:`Wrong`.

Certificates are not verified here; the tests of the clients do that.
"""

from __future__ import annotations

import base64
import random
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Iterator

import attrs

HOST = "127.0.0.1"

PATIENCE = 20.0
"""Seconds that a peer waits for anything."""

FINE = 700
"""Octets of one sending that are cut finely; what comes behind them goes in one piece."""

Cut = Callable[[bytes], Iterable[bytes]]


class Wrong(AssertionError):
    """The server did not give the right answer."""


class NotOffered(Exception):
    """The server does not offer what the check is about."""


def _whole(data: bytes) -> Iterator[bytes]:
    yield data


def _octets(data: bytes) -> Iterator[bytes]:
    for at in range(min(FINE, len(data))):
        yield data[at : at + 1]
    yield data[FINE:]


def _atLineEnds(data: bytes) -> Iterator[bytes]:
    yield from re.findall(rb"[^\r\n.]+|[\r\n.]", data[:FINE], re.DOTALL)
    yield data[FINE:]


def _odd(data: bytes) -> Iterator[bytes]:
    at, sizes = 0, (1, 2, 3, 5, 8, 13)
    for count in range(min(len(data), 60)):
        yield data[at : at + sizes[count % len(sizes)]]
        at += sizes[count % len(sizes)]
    yield data[at:]


def _at(seed: int) -> Cut:
    def cut(data: bytes) -> Iterator[bytes]:
        places = random.Random(seed * 1009 + len(data))
        ends = sorted(places.randrange(len(data) + 1) for _ in range(4))
        for begin, end in zip([0, *ends], [*ends, len(data)], strict=True):
            yield data[begin:end]

    return cut


@attrs.frozen
class Way:
    """How octets go out.

    :param records: cuts octets into TLS records; without TLS nothing.
    :param segments: cuts what goes to the socket.
    :param together: whether all records of one sending go to the socket at once.
    """

    name: str
    records: Cut = _whole
    segments: Cut = _whole
    together: bool = False


WHOLE = Way("whole")
WAYS = (
    WHOLE,
    Way("octet by octet", _octets, _octets),
    Way("cut at line ends", _atLineEnds, _atLineEnds),
    Way("records torn by segments", _whole, _odd),
    Way("many records in one segment", _octets, _whole, together=True),
)


def randomWays(count: int) -> Iterator[Way]:
    """More ways, for the long form."""
    for seed in range(count):
        yield Way(f"random {seed}", _at(seed), _at(seed + 1), together=seed % 2 == 0)


@attrs.frozen
class Answer:
    """One reply.

    :param lines: its texts, without code and separator.
    """

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """Without the id of a refusal, which is another one each time."""
        return re.sub(r" \(id [A-Z2-7]{8}\)$", "", f"{self.code} {' | '.join(self.lines)}")[:104]


def clientContext(
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> ssl.SSLContext:
    """A context that verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if oldest < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = oldest, newest
    return context


CONTEXT = clientContext()


class Peer:
    """One connection to a server.

    :param port: of 127.0.0.1.
    :param way: how octets go out.
    :ivar gone: whether the server has ended the connection.
    """

    def __init__(self, port: int, way: Way = WHOLE) -> None:
        self.way = way
        self.gone = False
        self._socket = socket.create_connection((HOST, port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._tls: ssl.SSLObject | None = None
        self._securing = False
        self._received = ssl.MemoryBIO()
        self._sealed = ssl.MemoryBIO()
        self._heard = bytearray()

    @property
    def secure(self) -> bool:
        """Whether TLS is on."""
        return self._tls is not None

    # TLS.

    def handshake(self, context: ssl.SSLContext = CONTEXT, name: str | None = None) -> None:
        """Start TLS on the socket.

        :param name: what to ask for by SNI.
        :raise Wrong: when the server will not.
        """
        if self._heard:
            raise Wrong(f"said before the handshake: {bytes(self._heard[:80])!r}")
        self._securing = True
        tls = context.wrap_bio(self._received, self._sealed, server_hostname=name)
        while True:
            if self.gone:
                raise Wrong("closed instead of a handshake")
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._transmit(self._sealed.read())
                self._wait()
            except ssl.SSLError as error:
                raise Wrong(f"no handshake: {error.reason or error}") from None
        self._transmit(self._sealed.read())
        self._tls = tls
        self._open()

    @property
    def cipherVersion(self) -> str:
        """The version of TLS."""
        assert self._tls is not None
        return self._tls.version() or ""

    # Octets.

    def send(self, octets: bytes) -> Peer:
        """Send by this peer's way."""
        if self._tls is None:
            pieces: Iterable[bytes] = self.way.segments(octets)
        else:
            pieces = self._records(octets)
        for piece in pieces:
            self._transmit(piece)
        return self

    def _records(self, octets: bytes) -> Iterator[bytes]:
        assert self._tls is not None
        waiting = b""
        for record in filter(None, self.way.records(octets)):
            for at in range(0, len(record), 16384):
                self._tls.write(record[at : at + 16384])
            waiting += self._sealed.read()
            if not self.way.together:
                yield from self.way.segments(waiting)
                waiting = b""
        yield from self.way.segments(waiting)

    def sendAtOnce(self, octets: bytes) -> Peer:
        """Send in one piece, whatever the way, and not through TLS."""
        self._transmit(octets)
        return self

    def _transmit(self, octets: bytes) -> None:
        rest, until = memoryview(octets), time.monotonic() + PATIENCE
        while rest and not self.gone:
            left = until - time.monotonic()
            readable, writable, _ = select.select([self._socket], [self._socket], [], max(left, 0))
            if readable:
                self._receive()
            if writable and not self.gone:
                try:
                    rest = rest[self._socket.send(rest) :]
                    until = time.monotonic() + PATIENCE
                except BlockingIOError:
                    continue
                except (BrokenPipeError, ConnectionResetError):
                    self._drain()
            if left <= 0:
                raise Wrong(f"takes nothing for {PATIENCE:g} s")

    def _drain(self) -> None:
        # What came before the reset can still be read.
        while not self.gone:
            self._receive()

    def _receive(self) -> None:
        try:
            octets = self._socket.recv(1 << 18)
        except BlockingIOError:
            return
        except (ConnectionResetError, BrokenPipeError):
            octets = b""
        if not octets:
            self.gone = True
        if self._securing:
            self._received.write(octets)
            self._open()
        else:
            self._heard += octets

    def _open(self) -> None:
        if self._tls is None:
            return
        try:
            while opened := self._tls.read(1 << 16):
                self._heard += opened
            self.gone = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.gone = True

    def _wait(self, seconds: float = 0.0) -> bool:
        """Wait for more octets; false when none came."""
        if self.gone:
            raise Wrong("the connection was closed")
        readable, _, _ = select.select([self._socket], [], [], seconds or PATIENCE)
        if readable:
            self._receive()
        return bool(readable)

    def sendUntilHeld(self, octets: bytes, limit: int) -> int:
        """Send again and again without reading, until the server takes no more.

        :param octets: whole commands, 16384 octets at most.
        :param limit: octets to send at most.
        :return: how many were sent; the connection is of no more use.
        """
        sent = 0
        while sent < limit:
            piece = octets
            if self._tls is not None:
                self._tls.write(octets)
                piece = self._sealed.read()
            rest = memoryview(piece)
            while rest:
                _, writable, _ = select.select([], [self._socket], [], 1.0)
                if not writable:
                    return sent
                try:
                    rest = rest[self._socket.send(rest) :]
                except (BrokenPipeError, ConnectionResetError):
                    return sent
            sent += len(piece)
        return sent

    # Replies.

    def hear(self) -> Answer | None:
        """The next reply; ``None`` when the connection ends before it.

        :raise Wrong: when there is none in time, or it is none.
        """
        lines: list[str] = []
        until = time.monotonic() + PATIENCE
        while True:
            line = self._line(until)
            if line is None:
                if lines:
                    raise Wrong("the connection ended within a reply")
                return None
            matched = re.fullmatch(rb"([2-5][0-9]{2})([ -]?)([\t\x20-\x7e]*)", line)
            if matched is None:
                raise Wrong(f"not a reply: {line[:80]!r}")
            lines.append(matched[3].decode("ascii"))
            if matched[2] != b"-":
                return Answer(int(matched[1]), tuple(lines))

    def _line(self, until: float) -> bytes | None:
        while (end := self._heard.find(b"\r\n")) < 0:
            if self.gone:
                if self._heard:
                    raise Wrong(f"ends within a line: {bytes(self._heard[:80])!r}")
                return None
            left = until - time.monotonic()
            if left <= 0 or not self._wait(left):
                raise Wrong("no reply in time")
        line = bytes(self._heard[:end])
        del self._heard[: end + 2]
        return line

    def expect(self, *codes: str) -> Answer:
        """The next reply, its code beginning like one of these.

        :raise Wrong: for anything else.
        """
        answer = self.hear()
        if answer is None:
            raise Wrong(f"closed in place of {' or '.join(codes)}")
        if not str(answer.code).startswith(codes):
            raise Wrong(f"{answer} in place of {' or '.join(codes)}")
        return answer

    def say(self, line: bytes, *codes: str) -> Answer:
        """Send a line, and expect its reply."""
        return self.send(line + b"\r\n").expect(*codes)

    def isSilent(self, seconds: float = 0.3) -> bool:
        """Whether nothing is said for a while, and the connection stays."""
        until = time.monotonic() + seconds
        while not self.gone and not self._heard and (left := until - time.monotonic()) > 0:
            self._wait(left)
        return not self._heard and not self.gone

    def finish(self) -> bytes:
        """Wait for the end of the connection.

        :return: what was said before it.
        :raise Wrong: when the server does not end it.
        """
        until = time.monotonic() + PATIENCE
        while not self.gone:
            if (left := until - time.monotonic()) <= 0 or not self._wait(left):
                raise Wrong("the connection was not closed")
        return bytes(self._heard)

    def closed(self) -> None:
        """The connection ends, and nothing more is said."""
        rest = self.finish()
        if rest:
            raise Wrong(f"said before the end: {rest[:80]!r}")

    def inStep(self) -> None:
        """The dialogue is in step: EHLO is answered as EHLO, QUIT as QUIT, and that is all.

        EHLO's reply has several lines, which no other has: one reply too many is noticed.
        """
        answer = self.say(b"EHLO in-step.example", "250")
        if len(answer.lines) < 2:
            raise Wrong(f"out of step: EHLO was answered {answer}")
        self.say(b"QUIT", "221")
        self.closed()

    # The end.

    def close(self) -> None:
        """Leave without a word."""
        self._socket.close()

    def reset(self) -> None:
        """Leave with a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def plain(user: str, password: str, identity: str = "") -> bytes:
    """A response of PLAIN."""
    return base64.b64encode(f"{identity}\0{user}\0{password}".encode())
