"""PROXY, XCLIENT and XFORWARD: who is no trusted proxy gains nothing by speaking like one."""

from __future__ import annotations

import struct

from tests.robustness.checks import Family, NotOffered, Talk, Wrong
from tests.robustness.peer import WHOLE, Peer

FAMILY = Family("proxies")

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_ADDRESSES = bytes([192, 0, 2, 9, 127, 0, 0, 1]) + struct.pack("!HH", 4000, 587)


def version2(payload: bytes = _ADDRESSES, command: int = 0x21, family: int = 0x11) -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


GOOD = {
    "version 1": b"PROXY TCP4 192.0.2.9 127.0.0.1 4000 587\r\n",
    "version 1, IPv6": b"PROXY TCP6 2001:db8::9 ::1 4000 587\r\n",
    "version 1, unknown": b"PROXY UNKNOWN\r\n",
    "version 2": version2(),
    "version 2, local": version2(b"", 0x20, 0x00),
    "version 2 with TLVs": version2(_ADDRESSES + b"\x04\x10\x00" + bytes(4096)),
    "version 2 with a broken TLV": version2(_ADDRESSES + b"\x04\xff\xff\x00"),
    "version 2 with 65535 octets": version2(
        _ADDRESSES + b"\x04" + struct.pack("!H", 65535 - 15) + bytes(65535 - 15)
    ),
}


@FAMILY.inputs(GOOD)
def untrusted(talk: Talk, header: bytes) -> None:
    """A PROXY header from a peer that is not trusted is refused, and gives no rights."""
    peer = talk.connect()
    peer.expect("220")
    peer.send(header + b"EHLO client.example\r\nMAIL FROM:<ada@example.org>\r\nQUIT\r\n")
    if (answer := peer.hear()) is not None and answer.code < 400:
        raise Wrong(f"the header was answered {answer}")
    while answer is not None and answer.code not in (221, 421):
        if answer.lines[0].startswith("2.1.0"):
            raise Wrong(f"answered {answer}")
        answer = peer.hear()


def proxied(talk: Talk) -> Peer:
    """A connection as a trusted proxy.

    :raise NotOffered: when there is no such port.
    """
    if not talk.target.proxied:
        raise NotOffered("no port for a proxy")
    return talk.connect(talk.target.proxied)


@FAMILY.inputs(GOOD)
def trusted(talk: Talk, header: bytes) -> None:
    """From a trusted proxy it is read wholly, or refused; the dialogue behind it is in step."""
    peer = proxied(talk)
    peer.send(header + b"NOOP\r\n")
    answer = peer.hear()
    if answer is None:
        if len(header) < 1000:
            raise Wrong("refused")
        return
    assert answer.code == 220
    peer.expect("250")
    peer.inStep()


BAD = {
    "none": b"EHLO client.example\r\nMAIL FROM:<ada@example.org>\r\n",
    "twice": GOOD["version 1"] * 2,
    "both versions": GOOD["version 2"] + GOOD["version 1"],
    "no addresses": b"PROXY TCP4\r\n",
    "bad address": b"PROXY TCP4 192.0.2.999 127.0.0.1 1 2\r\n",
    "bad port": b"PROXY TCP4 192.0.2.9 127.0.0.1 1 70000\r\n",
    "wrong family": b"PROXY TCP4 2001:db8::9 ::1 1 2\r\n",
    "LF": b"PROXY TCP4 192.0.2.9 127.0.0.1 1 2\n",
    "too long": b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
    "endless": b"PROXY TCP4 " + b"1" * 100_000,
    "bad signature": SIGNATURE[:-1] + b"X" + bytes(20),
    "bad version": version2(command=0x31),
    "bad command": version2(command=0x2F),
    "too short": version2(b"\x01\x02"),
}


@FAMILY.inputs(BAD)
def malformed(talk: Talk, header: bytes) -> None:
    """A header that is missing, malformed or there twice ends the connection or is refused."""
    peer = proxied(talk)
    peer.send(header + b"\r\nMAIL FROM:<ada@example.org>\r\n" * 2)
    while (answer := peer.hear()) is not None and answer.code != 421:
        if answer.code == 250:
            raise Wrong(f"went on with {answer}")


@FAMILY.inputs(GOOD, ways=(WHOLE,))
def cutOff(talk: Talk, header: bytes) -> None:
    """Proxies that leave within a header are no harm to others."""
    for at in (1, 5, 12, 15, len(header) - 1):
        peer = proxied(talk)
        peer.send(header[:at])
        peer.reset() if at % 2 else peer.close()
    talk.stillServes()


XCLIENTS = {
    "address": b"XCLIENT ADDR=192.0.2.9 NAME=client.example",
    "login": b"XCLIENT LOGIN=ada@example.org",
    "forward": b"XFORWARD ADDR=192.0.2.9 NAME=client.example",
    "empty": b"XCLIENT",
    "LF": b"XCLIENT NAME=a+0AX-Header:+20x",
}


@FAMILY.inputs(XCLIENTS)
def xclientUntrusted(talk: Talk, line: bytes) -> None:
    """XCLIENT and XFORWARD from anybody are refused, not offered, and log nobody in."""
    peer = talk.hello()
    shown = str(peer.say(b"EHLO client.example", "250").lines)
    if "XCLIENT" in shown or "XFORWARD" in shown:
        raise Wrong("offered to everybody")
    peer.say(line, "50", "550")
    if talk.target.user:
        peer.say(b"MAIL FROM:<ada@example.org>", "530")
    peer.inStep()


def trusting(talk: Talk) -> Peer:
    """A connection to a port that believes XCLIENT, behind EHLO under TLS.

    :raise NotOffered: when there is no such port.
    """
    if not talk.target.trusting:
        raise NotOffered("no port that believes XCLIENT")
    return talk.hello(talk.target.trusting)


BAD_XCLIENTS = {
    "LF": b"XCLIENT NAME=a+0AX-Header:+20x",
    "CR": b"XCLIENT HELO=a+0D+0ARSET",
    "NUL": b"XCLIENT NAME=a+00b",
    "bad xtext": b"XCLIENT NAME=a+0",
    "bad address": b"XCLIENT ADDR=300.1.1.1",
    "bad port": b"XCLIENT ADDR=192.0.2.1 PORT=70000",
    "unknown": b"XCLIENT COLOUR=red",
    "nothing": b"XCLIENT",
    "no value": b"XCLIENT ADDR",
    "too long": b"XCLIENT NAME=" + b"a" * 5000,
    "login": b"XCLIENT LOGIN=ada@example.org",
    "forward with LF": b"XFORWARD NAME=a+0Ab",
    "forward unknown": b"XFORWARD COLOUR=red",
}


@FAMILY.inputs(BAD_XCLIENTS)
def xclientMalformed(talk: Talk, line: bytes) -> None:
    """Even from a trusted proxy: no controls, nothing malformed, no login unless configured."""
    peer = trusting(talk)
    peer.say(line, "50", "550")
    peer.say(b"MAIL FROM:<ada@example.org>", "530")
    peer.inStep()


@FAMILY.check
def xclientWithinTransaction(talk: Talk) -> None:
    """XCLIENT within a mail transaction is 503."""
    trusting(talk)
    peer = talk.transaction(talk.ready(talk.target.trusting))
    peer.say(b"XCLIENT ADDR=192.0.2.9", "503")
    peer.inStep()


@FAMILY.check
def xclientForgets(talk: Talk) -> None:
    """Behind XCLIENT everything begins anew: a login before it does not count."""
    trusting(talk)
    peer = talk.ready(talk.target.trusting)
    peer.say(b"XCLIENT ADDR=192.0.2.9 NAME=client.example", "220", "503")
    peer.say(b"EHLO client.example", "250")
    peer.say(b"MAIL FROM:<ada@example.org>", "530", "250")
    peer.inStep()
