"""What looks like the end of the data and is not: the body must never be read as commands."""

from __future__ import annotations

import itertools

from tests.robustness.checks import Family, Talk, Wrong
from tests.robustness.peer import WHOLE, Peer

FAMILY = Family("end of data")

SMUGGLED = (
    b"MAIL FROM:<smuggler@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n"
    b"Subject: smuggled\r\n\r\nnobody has sent this\r\n"
)
"""What would be a second message if the data ended before it."""

LOOKALIKES = {
    "LF dot LF": b"\n.\n",
    "LF dot CRLF": b"\n.\r\n",
    "CRLF dot LF": b"\r\n.\n",
    "CR dot CR": b"\r.\r",
    "CR dot CRLF": b"\r.\r\n",
    "CRLF dot CR": b"\r\n.\r",
    "LF dot CR": b"\n.\r",
    "CR dot LF": b"\r.\n",
    "LF CR dot CRLF": b"\n\r.\r\n",
    "CRLF dot CR CR LF": b"\r\n.\r\r\n",
    "CRLF dot NUL CRLF": b"\r\n.\0\r\n",
    "CRLF NUL dot CRLF": b"\r\n\0.\r\n",
    "CRLF dot CR NUL LF": b"\r\n.\r\0\n",
    "CR NUL LF dot CRLF": b"\r\0\n.\r\n",
    "LF LF dot LF LF": b"\n\n.\n\n",
    "CRLF dot VT CRLF": b"\r\n.\x0b\r\n",
    "CRLF dot space CRLF": b"\r\n. \r\n",
    "CRLF dot dot CRLF": b"\r\n..\r\n",
    "CRLF U+FF0E CRLF": "\r\n\uff0e\r\n".encode(),
    "NEL dot NEL": b"\x85.\x85",
    "U+2028 dot U+2028": "\u2028.\u2028".encode(),
}


def isBroken(text: bytes) -> bool:
    """Whether a message with this in it has a bare CR or LF, or a NUL."""
    bare = text.replace(b"\r\n", b"")
    return b"\r" in bare or b"\n" in bare or b"\0" in bare


@FAMILY.inputs(LOOKALIKES)
def lookalike(talk: Talk, octets: bytes) -> None:
    """One message at most, one reply behind the true end; refused when line ends are broken."""
    kept = talk.keptBefore()
    peer = talk.data()
    peer.send(talk.header + b"text" + octets + SMUGGLED + b"\r\n.\r\n")
    if isBroken(octets):
        peer.expect("5")
    else:
        peer.expect("250")
    peer.inStep()
    if kept() not in (-1, 0 if isBroken(octets) else 1):
        raise Wrong(f"{kept()} messages were kept")


@FAMILY.once
def allMixes(talk: Talk) -> None:
    """Every mix of CR, LF, dot and NUL up to five octets gets one reply, the right one."""
    mixes = [
        bytes(mix) for length in range(1, 6) for mix in itertools.product(b"\r\n.\0", repeat=length)
    ]
    for at in range(0, len(mixes), 200):
        # Anew each time: no client has any number of its messages refused (limits.refusals).
        peer = talk.ready()
        for octets in mixes[at : at + 200]:
            mixed(talk, peer, octets)
        peer.inStep()


def mixed(talk: Talk, peer: Peer, octets: bytes) -> None:
    """One of them, unless it ends the message."""
    text = talk.header + b"text" + octets + b"RSET\r\n"
    if b"\r\n.\r\n" in text:
        return
    talk.transaction(peer)
    peer.say(b"DATA", "354")
    peer.send(text + b".\r\n")
    answer = peer.expect("5", "250")
    if isBroken(octets) and answer.code == 250:
        raise Wrong(f"{octets!r} was taken")
    if not isBroken(octets) and answer.code != 250:
        raise Wrong(f"{octets!r} was refused: {answer}")


@FAMILY.check
def commandsBehind(talk: Talk) -> None:
    """What stands behind the true end is read as commands, in the same segment or not."""
    peer = talk.data()
    peer.send(talk.header + b"text\r\n.\r\nNOOP\r\nVRFY nobody\r\n")
    for code in ("250", "250", "25"):
        peer.expect(code)
    peer.inStep()


@FAMILY.check
def empty(talk: Talk) -> None:
    """A message that is nothing but its end is one message or one refusal."""
    peer = talk.data()
    peer.send(b".\r\n").expect("250", "5")
    peer.inStep()


@FAMILY.check
def dots(talk: Talk) -> None:
    """Lines of dots alone are text, but for the one with a single dot."""
    peer = talk.data()
    peer.send(talk.header + b"".join(b"." * count + b"\r\n" for count in range(2, 30)))
    peer.send(b"RSET\r\n").send(b".\r\n")
    peer.expect("250")
    peer.inStep()


@FAMILY.inputs(
    {
        "nothing": b"",
        "a line": b"Subject: x\r\n",
        "CR of the end": b"x\r\n.\r",
        "dot of the end": b"x\r\n.",
    },
    ways=(WHOLE,),
)
def disconnect(talk: Talk, octets: bytes) -> None:
    """A client that goes before the end has sent nothing."""
    kept = talk.keptBefore()
    for leave in ("close", "reset"):
        peer = talk.data()
        peer.send(octets)
        getattr(peer, leave)()
    talk.stillServes()
    if kept() not in (-1, 1):
        raise Wrong(f"{kept() - 1} unfinished messages were kept")
