"""STARTTLS (RFC 3207): what was said in the clear must not count as said under TLS."""

from __future__ import annotations

from tests.robustness.checks import Family, NotOffered, Talk, Wrong
from tests.robustness.peer import Peer, plain

FAMILY = Family("STARTTLS")

_CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"


def offering(talk: Talk) -> Peer:
    """A connection in the clear to a server that offers STARTTLS."""
    peer = talk.connect()
    peer.expect("220")
    lines = peer.say(b"EHLO client.example", "250").lines
    if "STARTTLS" not in (line.upper() for line in lines):
        raise NotOffered("no STARTTLS")
    return peer


INJECTED = {
    "NOOP": b"NOOP\r\n",
    "a login": b"AUTH PLAIN " + plain("ada@example.org", "guess") + b"\r\n",
    "EHLO and MAIL": b"EHLO evil.example\r\nMAIL FROM:<evil@example.org>\r\n",
    "half a command": b"EHLO evil.exam",
    "a line end": b"\r\n",
    "megabytes": b"NOOP\r\n" * 200_000,
}


@FAMILY.inputs(INJECTED)
def injected(talk: Talk, octets: bytes) -> None:
    """Octets behind STARTTLS in the same segment are dropped unanswered, or end the connection."""
    peer = offering(talk)
    peer.sendAtOnce(b"STARTTLS\r\n" + octets)
    answer = peer.expect("220", "5", "421")
    if answer.code != 220:
        peer.finish()
        return
    try:
        peer.handshake()
    except Wrong:
        # What came in a later segment was read as a handshake, and is none: closed.
        if not peer.gone:
            raise
        return
    if not peer.isSilent(0.1):
        raise Wrong("something was answered under TLS that was said in the clear")
    peer.say(b"MAIL FROM:<ada@example.org>", "503", "530")
    peer.inStep()


@FAMILY.check
def forgotten(talk: Talk) -> None:
    """Behind the handshake nothing is known of what was said before: EHLO comes first."""
    peer = offering(talk)
    peer.say(b"STARTTLS", "220")
    peer.handshake()
    peer.say(b"MAIL FROM:<ada@example.org>", "503", "530")
    lines = peer.say(b"EHLO client.example", "250").lines
    if "STARTTLS" in lines:
        raise Wrong("STARTTLS is offered under TLS")
    peer.say(b"STARTTLS", "50")
    peer.inStep()


@FAMILY.check
def argument(talk: Talk) -> None:
    """STARTTLS with an argument is 501, and TLS does not begin."""
    peer = offering(talk)
    peer.say(b"STARTTLS now", "501")
    peer.inStep()


@FAMILY.check
def beforeHello(talk: Talk) -> None:
    """STARTTLS before EHLO is refused, or begins TLS; nothing else."""
    offering(talk)
    peer = talk.connect()
    peer.expect("220")
    answer = peer.say(b"STARTTLS", "503", "220")
    if answer.code == 220:
        peer.handshake()
    peer.inStep()


@FAMILY.check
def loginFirst(talk: Talk) -> None:
    """No login and no message in the clear where TLS is required."""
    peer = offering(talk)
    if not talk.target.user:
        raise NotOffered("no login")
    response = plain(talk.target.user, talk.target.password)
    peer.say(b"AUTH PLAIN " + response, "5")
    peer.say(b"MAIL FROM:<ada@example.org>", "5")
    peer.inStep()


BROKEN = {
    "text": b"EHLO client.example\r\n",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(4000),
    "half a hello": _CLIENT_HELLO[:6],
    "a bad hello": _CLIENT_HELLO * 20,
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "a long record": b"\x16\x03\x01\xff\xff" + bytes(70_000),
}


@FAMILY.inputs(BROKEN)
def brokenHandshake(talk: Talk, octets: bytes) -> None:
    """What is no handshake ends that connection and no other; no command is answered."""
    peer = offering(talk)
    peer.say(b"STARTTLS", "220")
    peer.send(octets)
    peer.isSilent(0.1)
    if not peer.gone:
        peer.reset()
    talk.stillServes()


@FAMILY.once
def noHandshake(talk: Talk) -> None:
    """Clients that leave in place of a handshake are no harm to others."""
    for leave in ("close", "reset"):
        for _ in range(20):
            peer = offering(talk)
            peer.say(b"STARTTLS", "220")
            getattr(peer, leave)()
    talk.stillServes()


@FAMILY.check
def withinTransaction(talk: Talk) -> None:
    """STARTTLS within a mail transaction is refused, or the transaction is gone."""
    peer = offering(talk)
    peer.send(b"MAIL FROM:<ada@example.org>\r\n")
    began = peer.expect("250", "5").code == 250
    answer = peer.say(b"STARTTLS", "503", "220")
    if answer.code == 220:
        peer.handshake()
        peer.say(b"RCPT TO:<bob@example.net>", "503", "530")
    elif not began:
        raise Wrong("refused although there is no transaction")
    peer.inStep()
