"""BDAT (RFC 3030): octets of a message that would be commands if a chunk were miscounted."""

from __future__ import annotations

from tests.robustness.checks import Family, Talk, Wrong
from tests.robustness.families.endofdata import SMUGGLED
from tests.robustness.peer import WHOLE

FAMILY = Family("BDAT")


@FAMILY.check
def chunks(talk: Talk) -> None:
    """A message in chunks, one of them empty, is one message; its octets are no commands."""
    kept = talk.keptBefore()
    peer = talk.transaction(talk.offers("CHUNKING"))
    text = talk.header + SMUGGLED + b".\r\nQUIT\r\n"
    peer.send(b"BDAT %d\r\n" % len(text) + text).expect("250")
    peer.send(b"BDAT 0\r\n").expect("250")
    peer.send(b"BDAT 6 LAST\r\nRSET\r\n").expect("250")
    peer.inStep()
    if kept() not in (-1, 1):
        raise Wrong(f"{kept()} messages were kept")


@FAMILY.check
def onlyTheLast(talk: Talk) -> None:
    """``BDAT 0 LAST`` is a message without a text, or refused."""
    peer = talk.transaction(talk.offers("CHUNKING"))
    peer.send(b"BDAT 0 LAST\r\n").expect("250", "5")
    peer.inStep()


SIZES = {
    "negative": b"-1",
    "exponent": b"1e3",
    "hexadecimal": b"0x10",
    "none": b"",
    "blank": b" LAST",
    "words": b"LAST 10",
    "fraction": b"1.5",
    "plus": b"+10",
    "21 digits": b"100000000000000000000",
    "300 digits": b"9" * 300,
    "superscript": "\u00b9\u00b2".encode(),
    "Arabic digits": "\u0661\u0660".encode(),
    "NUL": b"1\0000",
}


@FAMILY.inputs(SIZES)
def unreadable(talk: Talk, octets: bytes) -> None:
    """Where nobody knows how many octets follow, none of them is a command: 501, and closed."""
    kept = talk.keptBefore()
    peer = talk.transaction(talk.offers("CHUNKING"))
    peer.send(b"BDAT " + octets + b"\r\n" + talk.header + SMUGGLED + b".\r\nQUIT\r\n")
    peer.expect("50")
    # 421, and not a word of the message is answered.
    answer = peer.hear()
    if answer is not None and answer.code != 421:
        raise Wrong(f"text was taken for a command: {answer}")
    if answer is not None:
        peer.closed()
    if kept() not in (-1, 0):
        raise Wrong("a message was kept")


@FAMILY.once
def twentyDigits(talk: Talk) -> None:
    """A chunk of 20 digits is refused by 4yz or 5yz and an end, or read to its end."""
    peer = talk.transaction(talk.offers("CHUNKING"))
    peer.send(b"BDAT 99999999999999999999 LAST\r\n")
    peer.send(b"RSET\r\nQUIT\r\n" * 1000)
    if not peer.isSilent() and (answer := peer.hear()) is not None and answer.code < 400:
        raise Wrong(f"text was taken for a command: {answer}")
    peer.close()
    talk.stillServes()


@FAMILY.check
def beforeRecipient(talk: Talk) -> None:
    """A chunk that comes too early is read, then refused: one reply."""
    peer = talk.offers("CHUNKING")
    peer.send(b"BDAT 6 LAST\r\nQUIT\r\n").expect("503")
    peer.say(b"MAIL FROM:<%b>" % talk.target.sender.encode(), "250")
    peer.send(b"BDAT 12 LAST\r\nRSET\r\nQUIT\r\n").expect("503")
    peer.inStep()


@FAMILY.check
def beforeLogin(talk: Talk) -> None:
    """A chunk before the login is read, then refused: one reply."""
    talk.offers("CHUNKING")
    if not talk.target.user:
        return
    peer = talk.hello()
    peer.send(b"BDAT 6 LAST\r\nQUIT\r\n").expect("530", "503")
    peer.inStep()


@FAMILY.check
def mixedWithData(talk: Talk) -> None:
    """DATA between chunks is refused (RFC 3030 2), and chunks behind it stay in step."""
    kept = talk.keptBefore()
    peer = talk.transaction(talk.offers("CHUNKING"))
    peer.send(b"BDAT 6\r\nRSET\r\n").expect("250")
    peer.say(b"DATA", "503")
    peer.send(b"RSET\r\n").expect("250")
    peer.inStep()
    if kept() not in (-1, 0):
        raise Wrong("a message was kept")


@FAMILY.check
def resetBetween(talk: Talk) -> None:
    """RSET between chunks drops the message; the next one is a message of its own."""
    kept = talk.keptBefore()
    peer = talk.transaction(talk.offers("CHUNKING"))
    peer.send(b"BDAT 6\r\nRSET\r\n").expect("250")
    peer.say(b"RSET", "250")
    talk.transaction(peer)
    peer.send(b"BDAT %d LAST\r\n" % len(talk.header) + talk.header).expect("250")
    peer.inStep()
    if kept() not in (-1, 1):
        raise Wrong(f"{kept()} messages were kept")


@FAMILY.inputs({"bare LF": b"x\ny\r\n", "bare CR": b"x\ry\r\n", "NUL": b"x\0y\r\n"})
def brokenText(talk: Talk, octets: bytes) -> None:
    """Bare line ends and NUL are refused here as in DATA."""
    kept = talk.keptBefore()
    peer = talk.transaction(talk.offers("CHUNKING"))
    text = talk.header + octets
    peer.send(b"BDAT %d LAST\r\n" % len(text) + text).expect("5")
    peer.inStep()
    if kept() not in (-1, 0):
        raise Wrong("a message was kept")


@FAMILY.check
def carriageReturnAtTheSeam(talk: Talk) -> None:
    """A CR that ends one chunk and an LF that begins the next are one line end."""
    peer = talk.transaction(talk.offers("CHUNKING"))
    peer.send(b"BDAT %d\r\n" % (len(talk.header) - 1) + talk.header[:-1]).expect("250")
    peer.send(b"BDAT 1 LAST\r\n\n").expect("250")
    talk.transaction(peer)
    peer.send(b"BDAT %d LAST\r\n" % (len(talk.header) - 1) + talk.header[:-1]).expect("5")
    peer.inStep()


@FAMILY.once
def tooLarge(talk: Talk) -> None:
    """A message that is too large over several chunks is 552 once, and stays in step."""
    peer = talk.offers("CHUNKING")
    shown = peer.say(b"EHLO client.example", "250").lines
    sizes = [int(line.split()[1]) for line in shown if line.startswith("SIZE ")]
    if not sizes or sizes[0] > 10_000_000:
        return
    talk.transaction(peer)
    chunk = b"x" * 998 + b"\r\n"
    count = sizes[0] // 100_000 + 2
    for number in range(count):
        last = b" LAST" if number == count - 1 else b""
        peer.send(b"BDAT 100000%b\r\n" % last + chunk * 100)
    answers = [peer.expect("250", "5") for _ in range(count)]
    if answers[-1].code != 552:
        raise Wrong(f"the last chunk got {answers[-1]}")
    peer.inStep()


@FAMILY.inputs({"within": b"Subject", "before": b""}, ways=(WHOLE,))
def disconnect(talk: Talk, octets: bytes) -> None:
    """A client that goes within a chunk has sent nothing."""
    kept = talk.keptBefore()
    for leave in ("close", "reset"):
        peer = talk.transaction(talk.offers("CHUNKING"))
        peer.send(b"BDAT 14 LAST\r\n" + octets)
        getattr(peer, leave)()
    talk.stillServes()
    if kept() not in (-1, 1):
        raise Wrong("an unfinished message was kept")
