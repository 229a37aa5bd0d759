"""Tests of :mod:`submitd.wire.proxy`: whole, cut everywhere, malformed, and with anything."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire.proxy import MAX_V1, V2_SIGNATURE, Ends, Header, HeaderError, HeaderParser
from tests.wire.splits import allSplits

ENDS4 = Ends("198.51.100.7", 40000, "192.0.2.1", 587)
ENDS6 = Ends("2001:db8::7", 40000, "2001:db8::1", 465)
V1 = b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 587\r\n"
V1_LONGEST = (
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(MAX_V1 - 2, b" ") + b"\r\n"
)


def v2(
    ends: Ends | None = ENDS4, command: int = 0x21, family: int | None = None, tlvs: bytes = b""
) -> bytes:
    """A header of version 2."""
    addresses = b""
    if ends is not None:
        packed = [
            ipaddress.ip_address(each).packed for each in (ends.remoteAddress, ends.localAddress)
        ]
        addresses = b"".join(packed) + struct.pack("!HH", ends.remotePort, ends.localPort)
        family = family if family is not None else {4: 0x11, 16: 0x21}[len(packed[0])]
    body = addresses + tlvs
    return V2_SIGNATURE + struct.pack("!BBH", command, family or 0, len(body)) + body


def read(chunks: list[bytes]) -> tuple[Header | None, bytes]:
    """The header, and what stands behind it, of octets that arrive in these chunks."""
    parser, header, rest = HeaderParser(), None, b""
    for chunk in chunks:
        if header is not None:
            rest += chunk
        elif chunk:
            wanted = parser.wanted(chunk)
            assert 1 <= wanted <= len(chunk), (wanted, chunk)
            header = parser.feed(chunk[:wanted])
            rest = chunk[wanted:]
            assert header is not None or not rest
    return header, rest


class HeaderTests(SynchronousTestCase):
    """Headers of both versions."""

    def test_versions(self) -> None:
        """Both versions and families are read, whole and cut at every place, and no octet more."""
        for octets, ends in (
            (V1, ENDS4),
            (b"PROXY TCP6 2001:db8::7 2001:DB8:0::1 40000 465\r\n", ENDS6),
            (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", None),
            (v2(ENDS4), ENDS4),
            (v2(ENDS6), ENDS6),
            (v2(ENDS4, tlvs=b"\x04\x00\x02ab"), ENDS4),
        ):
            for behind in (b"", b"EHLO x\r\n", b"\r\n", V1, v2()):
                for chunks in allSplits(octets + behind):
                    header, rest = read(chunks)
                    assert header is not None
                    self.assertEqual(rest, behind)
                    if ends is not None:
                        self.assertEqual(header, Header(ends))

    def test_ownConnection(self) -> None:
        """Where the proxy speaks for itself or knows no address, the connection's own ends hold."""
        for octets in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN 198.51.100.7 192.0.2.1 40000 587\r\n",
            V1_LONGEST,
            v2(None, command=0x20),
            v2(ENDS4, command=0x20),
            v2(None, command=0x20, family=0x7F, tlvs=b"abc"),
            v2(None),
            v2(None, family=0x31, tlvs=bytes(216)),
        ):
            self.assertEqual(read([octets]), (Header(None), b""))

    def test_mapped(self) -> None:
        """An IPv4 client of an IPv6 socket has its IPv4 address, as everywhere else."""
        ends = Ends("::ffff:198.51.100.7", 40000, "::ffff:192.0.2.1", 587)
        self.assertEqual(read([v2(ends)])[0], Header(ENDS4))
        line = b"PROXY TCP6 ::ffff:198.51.100.7 ::ffff:192.0.2.1 40000 587\r\n"
        self.assertEqual(read([line])[0], Header(ENDS4))

    def test_longTLVs(self) -> None:
        """TLVs of 65535 octets in all are passed over, and what follows is found."""
        octets = v2(ENDS4, tlvs=bytes(65535 - 12))
        self.assertEqual(len(octets), 65535 + 16)
        chunks = [(octets + b"EHLO")[at : at + 1000] for at in range(0, len(octets) + 4, 1000)]
        self.assertEqual(read(chunks), (Header(ENDS4), b"EHLO"))

    def test_partial(self) -> None:
        """Every beginning of a header waits for more."""
        for octets in (V1, v2(ENDS6), V1_LONGEST):
            for length in range(1, len(octets)):
                self.assertEqual(read([octets[:length]]), (None, b""))
        self.assertTrue(HeaderParser().isEmpty)

    def test_malformedV1(self) -> None:
        """What is not exactly version 1 is refused: a guess would be an address for nothing."""
        for line in (
            b"PROXY",
            b"PROXY ",
            b"PROXY TCP4",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 40000",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 587 ",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 587 x",
            b"PROXY TCP4  198.51.100.7 192.0.2.1 40000 587",
            b"PROXY\tTCP4 198.51.100.7 192.0.2.1 40000 587",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 65536 587",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 99999",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 040 587",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 +1 587",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 -1 587",
            b"PROXY TCP4 198.51.100.7 192.0.2.1 4_0 587",
            b"PROXY TCP4 198.51.100.256 192.0.2.1 40000 587",
            b"PROXY TCP4 198.51.100.07 192.0.2.1 40000 587",
            b"PROXY TCP4 198.51.100 192.0.2.1 40000 587",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 40000 587",
            b"PROXY TCP6 198.51.100.7 192.0.2.1 40000 587",
            b"PROXY TCP6 fe80::1%eth0 ::1 40000 587",
            b"PROXY TCP5 198.51.100.7 192.0.2.1 40000 587",
            b"PROXY UDP4 198.51.100.7 192.0.2.1 40000 587",
            b"PROXY tcp4 198.51.100.7 192.0.2.1 40000 587",
            b"proxy TCP4 198.51.100.7 192.0.2.1 40000 587",
            b"PROXY UNKNOWNX",
            b"PROXY UNKNOWN \x00",
            b"PROXY UNKNOWN \n",
            b"EHLO client.example",
            b"\x16\x03\x01\x02\x00\x01\x00",
        ):
            self.assertRaises(HeaderError, read, [line + b"\r\n"])

    def test_tooLongV1(self) -> None:
        """107 octets without an end are refused, and not one more is read."""
        parser = HeaderParser()
        octets = b"PROXY UNKNOWN".ljust(500, b" ")
        self.assertEqual(parser.wanted(octets), MAX_V1)
        self.assertRaises(HeaderError, parser.feed, octets[:MAX_V1])
        self.assertRaises(HeaderError, read, [octets[i : i + 1] for i in range(MAX_V1)])

    def test_malformedV2(self) -> None:
        """Unknown versions, commands and families, and addresses that are cut off, are refused."""
        for octets in (
            v2(command=0x11),
            v2(command=0x31),
            v2(command=0x22),
            v2(command=0x2F),
            v2(family=0x12),
            v2(family=0x22),
            v2(family=0x10),
            v2(family=0x01),
            v2(family=0x41),
            v2(ENDS4, family=0x21),
            v2(None, family=0x11),
            v2(None, family=0x11, tlvs=bytes(11)),
            v2(None, family=0x31, tlvs=bytes(215)),
            V2_SIGNATURE[:-1] + b"\r" + v2()[12:],
            b"\r\n\r\nEHLO",
        ):
            self.assertRaises(HeaderError, read, [octets])

    def test_early(self) -> None:
        """Garbage is refused at its first octet, so that nobody has to wait for more of it."""
        for octets in (b"E", b"PROXZ", b"\r\r", V2_SIGNATURE + b"\x11", b"\x16"):
            self.assertRaises(HeaderError, read, [octets])

    @given(strategies.binary(max_size=150), strategies.sampled_from([b"", V1[:11], v2()[:14]]))
    @settings(deadline=None, max_examples=200)
    def test_anything(self, octets: bytes, prefix: bytes) -> None:
        """Whatever comes is a header, the beginning of one, or a HeaderError."""
        for chunks in ([prefix + octets], [prefix, octets]):
            try:
                header, _ = read(chunks)
            except HeaderError:
                continue
            if header is not None and header.ends is not None:
                ipaddress.ip_address(header.ends.remoteAddress)
                self.assertTrue(0 <= header.ends.remotePort < 65536)
