"""The PROXY protocol's header, version 1 and 2 (haproxy.org, proxy-protocol.txt, 2020).

A proxy says with it, before all else, whose connection it passes on.  :class:`HeaderParser` is fed
octets of the header alone: :meth:`~HeaderParser.wanted` tells how many of those that have arrived
belong to it, so that a caller can leave what follows, a TLS handshake maybe, where it is.

Both versions are taken exactly as written: version 1 in at most 107 octets, ports from 0 to 65535
without leading zeros, addresses of the family that was named; version 2 with all its addresses
within its length.  TLVs are passed over unread.  Anything else is :class:`HeaderError`, as soon as
it can be told; nothing is guessed.

Twisted's own parsers were not exact enough for a header that grants an address: version 1 takes any
``int()`` for a port and any text for an address, or raises ValueError; version 2 refuses a header
that comes in two segments.
"""

from __future__ import annotations

import ipaddress
import re
import struct

import attrs

from submitd.wire.network import parseAddress

# "\r\n" included (section 2.1).
MAX_V1 = 107
V1_PREFIX = b"PROXY "
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2_FIXED = 16

_PORT = rb"(0|[1-9][0-9]{0,4})"
_V1 = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}) " + _PORT + b" " + _PORT
)
# "UNKNOWN": the rest of the line has no meaning, but must be in its bounds.
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?")

# Section 2.2: the family with the transport -> how its addresses are packed.  What was no stream
# at the proxy (a datagram) cannot be one here.
_STREAM4, _STREAM6, _STREAM_UNIX, _UNSPECIFIED = 0x11, 0x21, 0x31, 0x00
_PACKED = {_STREAM4: "!4s4sHH", _STREAM6: "!16s16sHH", _STREAM_UNIX: "!108s108s", _UNSPECIFIED: "!"}


class HeaderError(ValueError):
    """These octets are no PROXY header; the text says why and quotes none of them."""


@attrs.frozen
class Ends:
    """Both ends of the connection that a proxy passes on."""

    remoteAddress: str
    remotePort: int
    localAddress: str
    localPort: int


@attrs.frozen
class Header:
    """A whole header.

    :param ends: whose connection it is, or ``None`` where the proxy speaks for itself (LOCAL) or
        knows no address (UNKNOWN, AF_UNSPEC, AF_UNIX): then the connection's own hold.
    """

    ends: Ends | None


class HeaderParser:
    """Reads one header, however it is cut."""

    def __init__(self) -> None:
        self._got = bytearray()

    @property
    def isEmpty(self) -> bool:
        """Whether nothing has been read yet."""
        return not self._got

    def wanted(self, data: bytes) -> int:
        """How many of these octets, the next that have arrived, belong to the header.

        At least one, also when they are no header: :meth:`feed` then says so.
        """
        have = len(self._got)
        seen = bytes(self._got[:MAX_V1]) + data
        if not self._isV2(data):
            end = seen.find(b"\r\n", 0, MAX_V1)
            return (end + 2 if end >= 0 else min(len(seen), MAX_V1)) - have
        if len(seen) < V2_FIXED:
            return len(data)
        return min(len(data), max(1, _v2Length(seen) - have))

    def _isV2(self, data: bytes) -> bool:
        first = bytes(self._got[:1]) or data[:1]
        return first == V2_SIGNATURE[:1]

    def feed(self, data: bytes) -> Header | None:
        """Take octets of the header, not more than were :meth:`wanted`.

        :return: the header, once it is whole.
        :raise HeaderError: when it cannot become one.
        """
        self._got += data
        if self._isV2(b""):
            return self._v2()
        return self._v1()

    def _v1(self) -> Header | None:
        got = bytes(self._got)
        if got[: len(V1_PREFIX)] != V1_PREFIX[: len(got)]:
            raise HeaderError("no header")
        if not got.endswith(b"\r\n"):
            if len(got) >= MAX_V1:
                raise HeaderError("version 1, longer than 107 octets")
            return None
        return _readV1(got[:-2])

    def _v2(self) -> Header | None:
        got = self._got
        signature = bytes(got[: len(V2_SIGNATURE)])
        if signature != V2_SIGNATURE[: len(signature)]:
            raise HeaderError("no header")
        if len(got) > 12 and got[12] not in (0x20, 0x21):
            raise HeaderError("version 2, with an unknown version or command")
        if len(got) < V2_FIXED or len(got) < _v2Length(bytes(got[:V2_FIXED])):
            return None
        return _readV2(bytes(got))


def _v2Length(header: bytes) -> int:
    length: int = struct.unpack_from("!H", header, 14)[0]
    return V2_FIXED + length


def _readV1(line: bytes) -> Header:
    if _V1_UNKNOWN.fullmatch(line):
        return Header(None)
    matched = _V1.fullmatch(line)
    if matched is None:
        raise HeaderError("version 1, malformed")
    family, source, destination, sourcePort, destinationPort = matched.groups()
    version = 4 if family == b"TCP4" else 6
    return Header(
        Ends(
            _address(source, version),
            _port(sourcePort),
            _address(destination, version),
            _port(destinationPort),
        )
    )


def _address(text: bytes, version: int) -> str:
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        raise HeaderError("version 1, with what is no address") from None
    if address.version != version:
        raise HeaderError("version 1, with an address of the other family")
    return str(parseAddress(str(address)))


def _port(digits: bytes) -> int:
    port = int(digits)
    if port > 65535:
        raise HeaderError("version 1, with a port above 65535")
    return port


def _readV2(header: bytes) -> Header:
    if header[12] == 0x20:  # LOCAL: the family may be anything, and is to be ignored
        return Header(None)
    packed = _PACKED.get(header[13])
    if packed is None:
        raise HeaderError("version 2, of a family or transport that is no stream")
    if len(header) - V2_FIXED < struct.calcsize(packed):
        raise HeaderError("version 2, shorter than its addresses")
    if header[13] not in (_STREAM4, _STREAM6):
        return Header(None)
    source, destination, sourcePort, destinationPort = struct.unpack_from(packed, header, V2_FIXED)
    return Header(Ends(_packed(source), sourcePort, _packed(destination), destinationPort))


def _packed(octets: bytes) -> str:
    return str(parseAddress(str(ipaddress.ip_address(octets))))
