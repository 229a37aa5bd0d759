"""Command lines that are none: broken line ends, NUL, controls, lines that are too long."""

from __future__ import annotations

from tests.robustness.checks import Family, Talk

FAMILY = Family("command lines")

BROKEN = {
    "RSET LF NOOP": b"RSET\nNOOP\r\n",
    "RSET CR NOOP": b"RSET\rNOOP\r\n",
    "RSET CR CRLF": b"RSET\r\r\n",
    "LF RSET": b"\nRSET\r\n",
    "RSET LF": b"RSET \n\r\n",
    "NUL within": b"NO\0OP\r\n",
    "NUL before": b"\0NOOP\r\n",
    "NUL behind": b"NOOP\0\r\n",
    "escape": b"NOOP \x1b[2J\r\n",
    "backspaces": b"NOOP \x08\x08\x08RSET\r\n",
    "DEL": b"NOOP \x7f\r\n",
    "empty": b"\r\n",
    "spaces": b"   \r\n",
    "space before": b" NOOP\r\n",
    "dot": b".\r\n",
    "digits": b"250 Ok\r\n",
    "8-bit verb": b"NO\xf6P\r\n",
    "verb of UTF-8": "\uff2e\uff2f\uff2f\uff30\r\n".encode(),
    "two verbs": b"RSET LF NOOP\r\n",
}


@FAMILY.inputs(BROKEN)
def broken(talk: Talk, octets: bytes) -> None:
    """One 500 or 501, and the dialogue stays in step."""
    peer = talk.hello()
    peer.send(octets).expect("50")
    peer.inStep()


@FAMILY.check
def mailAndLineFeed(talk: Talk) -> None:
    """A line feed within MAIL or RCPT begins no command."""
    peer = talk.ready()
    peer.send(b"MAIL FROM:<ada@example.org>\nRCPT TO:<bob@example.net>\r\n").expect("50")
    peer.say(b"RCPT TO:<bob@example.net>", "503")
    peer.inStep()


@FAMILY.check
def partial(talk: Talk) -> None:
    """Half a command is waited for, and answered once it is whole."""
    peer = talk.hello()
    peer.send(b"NO")
    if peer.isSilent(0.05):
        peer.send(b"OP\r").send(b"\n").expect("250")
    peer.inStep()


@FAMILY.inputs({"8 KB": b"x" * 8000, "64 KB": b"x" * 65536, "a megabyte": b"y" * (1 << 20)})
def tooLong(talk: Talk, octets: bytes) -> None:
    """A line that is too long is one 500, and no part of it is a command."""
    peer = talk.hello()
    peer.send(b"NOOP " + octets + b" NOOP\r\n").expect("500", "421")
    if not peer.gone:
        peer.inStep()


@FAMILY.once
def cutAtTheLimit(talk: Talk) -> None:
    """Wherever a line that is too long is cut, there is one reply: also between its CR and LF."""
    for length in (1000, 2040, 2047, 2048, 2049, 4096, 12287, 12320, 12321, 16384):
        peer = talk.hello()
        line = b"NOOP ".ljust(length, b"x")
        for before in (line[:-3], line, line + b"\r"):
            peer.send(before).send((line + b"\r\n")[len(before) :])
            peer.expect("500", "250")
        peer.inStep()


@FAMILY.check
def pipelined(talk: Talk) -> None:
    """Good and bad commands in one go: one reply each, in order."""
    peer = talk.hello()
    peer.send(b"NOOP\r\nXYZZY\r\nRSET\nRSET\r\nVRFY\r\nNOOP\r\nEHLO x\r\n")
    for codes in ("250", "50", "50", "5", "250", "250"):
        peer.expect(codes)
    peer.inStep()


@FAMILY.once
def manyErrors(talk: Talk) -> None:
    """Who says only nonsense is cut off."""
    peer = talk.hello()
    peer.send(b"XYZZY\r\n" * 1000)
    while (answer := peer.hear()) is not None:
        if answer.code == 421:
            peer.closed()
            return
        assert answer.code >= 500
