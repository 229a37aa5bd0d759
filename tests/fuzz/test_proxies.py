"""The PROXY header and XCLIENT with any octets: the true address, or one that was said well."""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from submitd.checkers.trusted import TrustedProxy
from submitd.realm import SubmissionRealm
from submitd.states import State
from submitd.wire.errors import Refused
from submitd.wire.network import Networks
from submitd.wire.proxy import MAX_V1, V2_FIXED, V2_SIGNATURE, Ends, HeaderError, HeaderParser
from submitd.wire.xclient import XCLIENT, XFORWARD, parseAttributes
from tests.fixtures import Conversation, FakeTransport, makeSubmission
from tests.fuzz.target import Target, cuttings, nothingLogged, same
from tests.fuzz.test_wire import CONTROL, LONG, ODD

PEER = "192.0.2.7"
TRUSTED = Networks.parse([PEER])


def header(data: bytes) -> None:
    """A header or HeaderError, as soon as it is known; not one octet behind it is taken."""
    ends, taken = same([_header(chunks) for chunks in cuttings(data)])
    if isinstance(ends, Ends):
        assert _header([_v2(ends)])[0] == ends
        assert _header([_v1(ends)])[0] == ends
    same([_connection(chunks) for chunks in cuttings(data[:taken] + b"QUIT\r\n")])


def _header(chunks: list[bytes]) -> tuple[Any, int]:
    """What came of it, and how many octets belonged to it; those of a mistake are anybody's."""
    parser, taken = HeaderParser(), 0
    for chunk in filter(None, chunks):
        wanted = parser.wanted(chunk)
        assert 1 <= wanted <= len(chunk)
        try:
            found = parser.feed(chunk[:wanted])
        except HeaderError as error:
            assert str(error).isprintable()
            return "wrong", 0
        taken += wanted
        assert taken <= V2_FIXED + 65535
        if found is not None:
            return found.ends or "whole", taken
        assert wanted == len(chunk), "octets are left, and the header is not whole"
    return "partial", taken


def _v1(ends: Ends) -> bytes:
    family = "TCP6" if ":" in ends.remoteAddress or ":" in ends.localAddress else "TCP4"
    addresses = [_of(each, family == "TCP6") for each in (ends.remoteAddress, ends.localAddress)]
    line = f"PROXY {family} {' '.join(addresses)} {ends.remotePort} {ends.localPort}\r\n"
    assert len(line) <= MAX_V1
    return line.encode()


def _v2(ends: Ends) -> bytes:
    six = ":" in ends.remoteAddress or ":" in ends.localAddress
    packed = b"".join(
        ipaddress.ip_address(_of(each, six)).packed
        for each in (ends.remoteAddress, ends.localAddress)
    )
    packed += struct.pack("!HH", ends.remotePort, ends.localPort)
    return (
        V2_SIGNATURE
        + bytes((0x21, 0x21 if six else 0x11))
        + struct.pack("!H", len(packed))
        + packed
    )


def _of(address: str, six: bool) -> str:
    return f"::ffff:{address}" if six and ":" not in address else address


def _connection(chunks: list[bytes]) -> tuple[bytes, str, bool]:
    """What a connection from a trusted proxy comes to: first codes, its address, its end."""
    submission = makeSubmission(Clock())
    talk = Conversation(submission)
    talk.factory.proxies = TRUSTED
    transport = FakeTransport()
    protocol: Any = talk.factory.buildProtocol(IPv4Address("TCP", PEER, 40000))
    transport.protocol = protocol  # type: ignore[attr-defined]
    protocol.makeConnection(transport)
    with nothingLogged():
        for chunk in filter(None, chunks):
            if not transport.disconnecting:
                transport.protocol.dataReceived(chunk)  # type: ignore[attr-defined]
    said = b" ".join(re.findall(rb"(?m)^\d{3}", transport.taken()))
    current = transport.protocol  # type: ignore[attr-defined]
    dialogue = getattr(current, "dialogue", None)
    address = dialogue.session.remoteAddress if dialogue is not None else ""
    return said, address, transport.disconnecting


def attributes(data: bytes) -> None:
    """XCLIENT and XFORWARD: values without controls, or 501; then on a connection."""
    for known in (XCLIENT, XFORWARD):
        for octets in (data, (data * 40)[:12288]):
            try:
                found = parseAttributes(octets, known)
            except Refused as refused:
                assert refused.reply.code == 501
            else:
                assert found.keys() <= set(known)
                assert not any(CONTROL.search(value) for value in found.values())
    argument = re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"?", data)[:1000]
    for trusted in (True, False):
        for login in (True, False):
            _said(b"XCLIENT " + argument, trusted, login)
            _said(b"XFORWARD " + argument, trusted, login)


def _said(line: bytes, trusted: bool, login: bool) -> None:
    portal = Portal(SubmissionRealm(), [TrustedProxy()])
    submission = makeSubmission(
        Clock(),
        portal=portal,
        mechanisms=[],
        requireTLS=False,
        loginRequired=False,
        xclientFrom=TRUSTED if trusted else Networks(),
        xclientLogin=login,
    )
    talk = Conversation(submission)
    talk.send(b"EHLO proxy.example\r\n")
    with nothingLogged():
        said = talk.send(line + b"\r\n")
    code = int(said[:3])
    session = talk.protocol.dialogue.session
    assert said.count(b"\r\n") == 1, said
    if not trusted:
        assert code == 550 and session.remoteAddress == PEER
    assert code in (220, 250, 501, 503, 550, 421), said
    if session.remoteAddress:  # [UNAVAILABLE] is no address
        ipaddress.ip_address(session.remoteAddress)
    if session.user is not None:
        assert trusted and login and code == 220 and b"LOGIN" in line.upper()
    if code in (501, 503, 550):
        assert session.remoteAddress == PEER and talk.protocol.dialogue.state is State.READY


V2 = V2_SIGNATURE + b"\x21\x11\x00\x0c" + bytes([203, 0, 113, 9, 192, 0, 2, 1]) + b"\x9c@\x02K"
PROXY = Target(
    "proxy",
    header,
    [
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b"203.0.113.9 ",
        b"2001:db8::1 ",
        b"::ffff:1.2.3.4 ",
        b"40000 ",
        b"587\r\n",
        b"0",
        b"065536",
        b"\r\n",
        V2_SIGNATURE,
        V2,
        b" \x00\x00\x00",
        b"!\x11\xff\xff",
        b"!1\x00\xd8",
        b"!!\x00$",
        b"!\x12\x00\x0c",
        bytes(36),
        b"EHLO x\r\n",
        b"\x16\x03\x01",
        *ODD,
    ],
    60,
)
ATTRIBUTES = Target(
    "xclient",
    attributes,
    [name.encode() + b"=" for name in dict.fromkeys((*XCLIENT, *XFORWARD))]
    + [b" ", b"203.0.113.9", b"IPV6:2001:db8::1", b"[UNAVAILABLE]", b"[TEMPUNAVAIL]", b"alice"]
    + [
        b"+0A",
        b"+0D+0A",
        b"+00",
        b"+41",
        b"ESMTP",
        b"25",
        b"65536",
        b"host.example",
        b"IPV6:fe80::1%1",
    ]
    + [b"::ffff:192.0.2.1", b"REMOTE", b"="]
    + LONG[:4]
    + ODD,
    60,
)

ProxyTests = PROXY.tests(__name__)
XclientTests = ATTRIBUTES.tests(__name__)
