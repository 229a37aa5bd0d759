"""AUTH (RFC 4954): exchanges that are malformed, out of order, cut off or very many."""

from __future__ import annotations

import base64
import time

from tests.robustness.checks import Family, NotOffered, Talk, Wrong
from tests.robustness.peer import WHOLE, Peer, plain

FAMILY = Family("AUTH")


def offering(talk: Talk, mechanism: str = "PLAIN") -> Peer:
    """A connection that may log in.

    :raise NotOffered: when it may not by this mechanism.
    """
    peer = talk.hello()
    for line in peer.say(b"EHLO client.example", "250").lines:
        words = line.upper().split()
        if words[:1] == ["AUTH"] and mechanism in words:
            return peer
    raise NotOffered(f"no AUTH {mechanism}")


def good(talk: Talk) -> bytes:
    """The response of PLAIN that lets somebody in.

    :raise NotOffered: when nobody is known.
    """
    if not talk.target.user:
        raise NotOffered("no user")
    return plain(talk.target.user, talk.target.password)


MALFORMED = {
    "no argument": b"AUTH",
    "unknown mechanism": b"AUTH XYZZY",
    "lower case of none": b"AUTH xyzzy =",
    "mechanism too long": b"AUTH " + b"X" * 300,
    "empty response": b"AUTH PLAIN =",
    "two equal signs": b"AUTH PLAIN ==",
    "not base64": b"AUTH PLAIN not_base64!",
    "base64 cut off": b"AUTH PLAIN " + plain("a", "b")[:-1],
    "not canonical": b"AUTH PLAIN AGEAYh==",
    "line end within": b"AUTH PLAIN AGFh\\r\\nAGI=",
    "space within": b"AUTH PLAIN AGFs aWNlAHg=",
    "two responses": b"AUTH PLAIN " + plain("a", "b") + b" " + plain("a", "b"),
    "no NUL": b"AUTH PLAIN " + base64.b64encode(b"alice"),
    "one NUL": b"AUTH PLAIN " + base64.b64encode(b"alice\0secret"),
    "three NULs": b"AUTH PLAIN " + base64.b64encode(b"\0alice\0secret\0"),
    "no user name": b"AUTH PLAIN " + base64.b64encode(b"\0\0secret"),
    "no password": b"AUTH PLAIN " + base64.b64encode(b"\0alice\0"),
    "nothing but NULs": b"AUTH PLAIN " + base64.b64encode(b"\0\0"),
    "broken UTF-8": b"AUTH PLAIN " + base64.b64encode(b"\0al\xffce\0secret"),
    "overlong UTF-8": b"AUTH PLAIN " + base64.b64encode(b"\0\xc0\xaf\0secret"),
    "12288 octets": b"AUTH PLAIN " + base64.b64encode(b"\0" + b"a" * 9000 + b"\0b"),
    "20000 octets": b"AUTH PLAIN " + base64.b64encode(b"\0" + b"a" * 15000 + b"\0b"),
    "a megabyte": b"AUTH PLAIN " + b"A" * (1 << 20),
}


@FAMILY.inputs(MALFORMED)
def malformed(talk: Talk, octets: bytes) -> None:
    """A malformed AUTH is 5yz once; afterwards a good one works on the same connection."""
    peer = offering(talk)
    peer.say(octets, "500", "501", "504", "535")
    if talk.target.user:
        peer.say(b"AUTH PLAIN " + good(talk), "235")
    peer.inStep()


RESPONSES = {
    "cancelled": b"*",
    "empty": b"",
    "equal sign": b"=",
    "not base64": b"***",
    "base64 cut off": b"AGFsaWNlAHg",
    "a command": b"QUIT",
    "control characters": b"\x00\x01\x02",
    "8-bit": b"\xff\xfe",
    "12289 octets": b"A" * 12289,
    "40000 octets": b"A" * 40000,
}


@FAMILY.inputs(RESPONSES)
def malformedResponse(talk: Talk, octets: bytes) -> None:
    """A malformed response ends the exchange with 5yz, and the next line is a command again."""
    peer = offering(talk)
    peer.say(b"AUTH PLAIN", "334")
    peer.say(octets, "500", "501", "535")
    peer.inStep()


@FAMILY.inputs(RESPONSES)
def malformedSecondResponse(talk: Talk, octets: bytes) -> None:
    """The same at the second step of LOGIN, where it is a password."""
    peer = offering(talk, "LOGIN")
    peer.say(b"AUTH LOGIN", "334")
    peer.say(base64.b64encode(b"nobody@example.org"), "334")
    answer = peer.say(octets, "500", "501", "535")
    if octets == b"*" and answer.code != 501:
        raise Wrong(f"a cancelled login was answered {answer}")
    peer.inStep()


@FAMILY.check
def twice(talk: Talk) -> None:
    """No second login behind a good one (RFC 4954 4)."""
    peer = offering(talk)
    peer.say(b"AUTH PLAIN " + good(talk), "235")
    peer.say(b"AUTH PLAIN " + good(talk), "503")
    peer.say(b"AUTH LOGIN", "503")
    peer.inStep()


@FAMILY.check
def withinTransaction(talk: Talk) -> None:
    """No login within a mail transaction (RFC 4954 4)."""
    offering(talk)
    peer = talk.transaction()
    peer.say(b"AUTH PLAIN " + (good(talk) if talk.target.user else b"AGEAYg=="), "503", "501")
    peer.say(b"RSET", "250")
    peer.inStep()


@FAMILY.check
def anotherMechanism(talk: Talk) -> None:
    """Behind a failure another mechanism may be tried, and nothing is left of the first."""
    peer = offering(talk, "LOGIN")
    peer.say(b"AUTH LOGIN", "334")
    peer.say(base64.b64encode(talk.target.user.encode() or b"x"), "334")
    peer.say(b"*", "501")
    peer.say(b"AUTH PLAIN " + plain("nobody@example.org", talk.target.password or "x"), "535")
    peer.say(b"MAIL FROM:<ada@example.org>", "530")
    peer.say(b"AUTH PLAIN " + good(talk), "235")
    peer.inStep()


@FAMILY.check
def pipelined(talk: Talk) -> None:
    """A login with commands behind it in the same segment: replies in order, none before 235."""
    peer = offering(talk)
    response = good(talk)
    peer.send(b"AUTH PLAIN " + response + b"\r\nNOOP\r\nMAIL FROM:<ada@example.org>\r\nRSET\r\n")
    for code in ("235", "250", "250", "250"):
        peer.expect(code)
    peer.inStep()


@FAMILY.check
def failedAndPipelined(talk: Talk) -> None:
    """Behind a failed login what was pipelined has no rights."""
    peer = offering(talk)
    wrong = plain(talk.target.user or "ada@example.org", "not the password")
    peer.send(b"AUTH PLAIN " + wrong + b"\r\nMAIL FROM:<ada@example.org>\r\nNOOP\r\n")
    for code in ("535", "530", "250"):
        peer.expect(code)
    peer.inStep()


@FAMILY.inputs(
    {"at the challenge": b"AUTH LOGIN\r\n", "at the password": b"AUTH LOGIN\r\nYWRh\r\n"},
    ways=(WHOLE,),
)
def disconnect(talk: Talk, octets: bytes) -> None:
    """Clients that leave within an exchange are no harm to others."""
    for leave in ("close", "reset"):
        for _ in range(10):
            peer = offering(talk, "LOGIN")
            for line in octets.splitlines(keepends=True):
                peer.send(line).expect("334")
            getattr(peer, leave)()
    talk.stillServes()


@FAMILY.once
def disconnectAtTheVerdict(talk: Talk) -> None:
    """Clients that leave while their password is verified are no harm to others."""
    response = good(talk)
    for leave in ("close", "reset"):
        for _ in range(20):
            peer = offering(talk)
            peer.send(b"AUTH PLAIN " + response + b"\r\n")
            getattr(peer, leave)()
    talk.stillServes()


@FAMILY.once
def guessing(talk: Talk) -> None:
    """Guessing on one connection is cut off after a few."""
    peer = offering(talk)
    for number in range(100):
        peer.send(b"AUTH PLAIN " + plain("ada@example.org", f"guess {number}") + b"\r\n")
        answer = peer.hear()
        if answer is None or answer.code == 421:
            if number > 20:
                raise Wrong(f"{number} guesses on one connection")
            return
        if answer.code not in (535, 454):
            raise Wrong(f"a wrong password was answered {answer}")
    raise Wrong("a hundred guesses on one connection")


@FAMILY.once
def sameAnswer(talk: Talk) -> None:
    """Known and unknown users, wrong passwords and forbidden identities: the same answer."""
    good(talk)
    said = set()
    for response in (
        plain(talk.target.user, "wrong"),
        plain(talk.target.user.upper(), "wrong"),
        plain("nobody@example.org", "wrong"),
        plain("nobody", talk.target.password),
        plain(talk.target.user, talk.target.password + "x"),
        plain(talk.target.user, talk.target.password[:-1]),
        plain(talk.target.user, talk.target.password, "root"),
        plain("x" * 255, "y" * 255),
    ):
        peer = offering(talk)
        said.add(str(peer.say(b"AUTH PLAIN " + response, "535")))
        peer.close()
    if len(said) != 1:
        raise Wrong(f"different answers: {sorted(said)}")


@FAMILY.once
def freshChallenges(talk: Talk) -> None:
    """CRAM-MD5 has a fresh challenge each time, and takes no recorded response."""
    seen = set()
    for _ in range(50):
        peer = offering(talk, "CRAM-MD5")
        seen.add(peer.say(b"AUTH CRAM-MD5", "334").lines)
        peer.say(b"*", "501")
        seen.add(peer.say(b"AUTH CRAM-MD5", "334").lines)
        peer.close()
    if len(seen) != 100:
        raise Wrong(f"{len(seen)} different challenges of 100")


@FAMILY.once
def tenThousand(talk: Talk) -> None:
    """Ten thousand exchanges begun and cancelled: memory flat, others not slowed."""
    peer = offering(talk, "LOGIN")
    before, began = talk.target.memory, time.monotonic()
    begun = 0
    while begun < 10_000:
        peer.send(b"AUTH LOGIN\r\n*\r\n" * 10)
        for _ in range(20):
            answer = peer.hear()
            if answer is None or answer.code == 421:
                peer.close()
                peer = offering(talk, "LOGIN")
                break
        begun += 10
        if time.monotonic() - began > 30:
            break
    talk.stillServes()
    if talk.target.memory - before > 20_000:
        raise Wrong(f"{talk.target.memory - before} KiB more behind {begun} exchanges")
