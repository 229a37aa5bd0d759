"""The relay's client and a next hop that says anything: one outcome for each recipient, always.

The input is a script.  Its first line says in words how the client is set up; each line behind it
is what the next hop says next: octets with their CRLF (``\\r``, ``\\n`` and ``\\0`` are those,
``\\c`` at the end is no CRLF), ``!good``, the right answer to all that it was asked, or ``!drop``.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from submitd.relay.capabilities import Capabilities
from submitd.relay.client import Client, Profile
from submitd.relay.login import Account
from submitd.relay.outgoing import Outgoing, Result
from submitd.relay.states import BodyWanted, Done, Ended, Ready, StartTLS, State
from submitd.wire.reply import MAX_REPLY_LINE, MAX_REPLY_SIZE, Reply
from tests.fuzz.target import Target, same
from tests.fuzz.test_wire import isBare
from tests.relay.hops import outgoing

SECRET = b"0pen-sesame"
TURNS, MESSAGES = 60, 3
GONE = Reply(451, "4.4.2", "gone")
CHUNKS = [b"Subject: x\r\n\r\n", b".dot\r\n", b"the end"]
OFFERS = {b"pipelining": "PIPELINING", b"chunking": "CHUNKING", b"dsn": "DSN", b"utf8": "SMTPUTF8"}
OFFERS |= {b"starttls": "STARTTLS", b"8bit": "8BITMIME", b"size": "SIZE 10", b"by": "DELIVERBY 9"}
OFFERS |= {b"auth": "AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2", b"binary": "BINARYMIME"}


class NextHop:
    """The client with its driver on one side, and the script on the other."""

    def __init__(self, words: list[bytes]) -> None:
        self.words = words
        tls: Any = "required" if b"required" in words else "off" if b"off" in words else ""
        self.client = Client(
            Profile(
                hostname="relay.example",
                lmtp=b"lmtp" in words,
                tls=tls or "opportunistic",
                account=Account("me", SECRET, _mechanisms(words)) if b"account" in words else None,
                insecureLogin=b"insecure" in words,
            )
        )
        self.secure = b"implicit" in words
        self.chunks: list[bytes] = []
        self.sent: list[Outgoing] = []
        self.done: list[tuple[str, ...]] = []
        self.ended = 0
        self.output = b""
        self.positiveBehind: bool | None = None
        self.owed: list[bytes] = [b""]
        self.accepted = 0
        self.client.connectionMade(self.secure, verified=b"verified" in words)

    # The client's side.

    def act(self) -> None:
        """Do what the client wants, as its connection does."""
        client = self.client
        assert isinstance(client.limit, str) and client.waitingFor
        self.note(client.takeOutput())
        for event in client.takeEvents():
            if isinstance(event, BodyWanted):
                if self.chunks:
                    client.body(self.chunks.pop(0))
                else:
                    client.bodyEnded()
            elif isinstance(event, StartTLS):
                self.secure = True
                client.handshakeCompleted(b"verified" in self.words)
            elif isinstance(event, Ready):
                self.offer()
            elif isinstance(event, Done):
                self.settled(event)
            elif isinstance(event, Ended):
                self.ended += 1
            self.act()

    def offer(self) -> None:
        """The next message, if there is one yet."""
        assert isinstance(self.client.capabilities, Capabilities)
        if self.client.state is not State.READY or len(self.sent) >= MESSAGES:
            return
        count = 1 + len(self.sent) + self.words.count(b"more") * 3
        body = "BINARYMIME" if b"isbinary" in self.words else "7BIT"
        names = [f"{at}@b.example" for at in range(count)]
        if b"unicode" in self.words:
            names[0] = "\u00fc@b.example"
        message = outgoing(*names, size=40, bodyType=body, requireTLS=b"requiretls" in self.words)
        broken = [b"bare\nfeed"] if b"broken" in self.words else []
        self.chunks = [*CHUNKS, *([b"\xfc\r\n"] if b"eight" in self.words else []), *broken]
        self.sent.append(message)
        self.output, self.positiveBehind = b"", None
        self.client.send(message)

    def settled(self, event: Done) -> None:
        """All recipients of a message have their outcome, each one."""
        assert len(self.done) < len(self.sent), "settled twice"
        assert len(event.outcomes) == len(self.sent[-1].recipients)
        results = tuple(outcome.result.value for outcome in event.outcomes)
        self.done.append(results)
        for outcome in event.outcomes:
            assert outcome.reply.code >= 200
            if outcome.result is Result.DELIVERED:
                assert outcome.reply.code < 300 and outcome.isRemote
                assert self.positiveBehind, "delivered, and nobody has taken it"
            if outcome.result is Result.FAILED:
                assert outcome.reply.code >= 500

    def note(self, output: bytes) -> None:
        """Look at what leaves, and remember what the next hop owes for it."""
        if not output:
            return
        self.output += output
        assert len(self.output) < 20_000
        if b"isbinary" not in self.words:
            assert not isBare(output), output
        if not self.secure and b"insecure" not in self.words:
            assert SECRET not in output and b"AUTH" not in output
            assert base64.b64encode(b"\0me\0" + SECRET) not in output
        if self.positiveBehind is None and re.search(rb"\r\n\.\r\n| LAST\r\n", self.output):
            self.positiveBehind = False
        for line in output.split(b"\r\n"):
            if re.match(rb"[A-Z]{4}|\.$|\*$|[A-Za-z0-9+/=]*$", line) and line:
                self.owed.append(line)

    # The next hop's side.

    def good(self) -> bytes:
        """The right answer to all that is owed."""
        owed, self.owed = self.owed, []
        return b"".join(map(self.right, owed))

    def right(self, line: bytes) -> bytes:
        """The right answer to a line."""
        verb = line[:4]
        if verb in (b"EHLO", b"LHLO"):
            offers = ["hop", *(each for word, each in OFFERS.items() if word in self.words), "X"]
            return "".join(f"250-{each}\r\n" for each in offers[:-1]).encode() + b"250 X\r\n"
        if verb == b"MAIL":
            self.accepted = 0
        if verb == b"RCPT":
            self.accepted += 1
        if line == b"." or line.endswith(b" LAST"):
            return b"250 2.0.0 taken\r\n" * (self.accepted if b"lmtp" in self.words else 1)
        codes = {b"DATA": 354, b"QUIT": 221, b"AUTH": 235, b"": 220, b"STAR": 220}
        return b"%d ok\r\n" % codes.get(verb, 250)

    def say(self, octets: bytes, fine: bool, atOnce: bool) -> None:
        """Have the client read, whole or octet by octet.

        :param atOnce: whether the client's wishes are done after each octet.
        """
        size = 1 if fine else max(1, len(octets))
        for at in range(0, len(octets), size):
            # What was said at once, but behind the end of the data, is behind it, too.
            if self.positiveBehind is False and re.search(rb"2\d\d", octets[at:]):
                self.positiveBehind = True
            self.client.dataReceived(octets[at : at + size])
            parser = self.client._parser
            assert len(parser._partial) <= MAX_REPLY_LINE + 1 and parser._size <= MAX_REPLY_SIZE
            if atOnce:
                self.act()
        self.act()

    def finish(self) -> None:
        """It is over; the client must know it."""
        self.client.connectionLost(GONE)
        self.act()
        assert self.client.state is State.CLOSED and self.ended == 1
        assert len(self.done) == len(self.sent), "a message without outcomes"
        self.client.dataReceived(b"250 late\r\n")
        self.client.connectionLost(GONE)
        assert not self.client.takeEvents() and not self.client.takeOutput()


def _mechanisms(words: list[bytes]) -> tuple[str, ...]:
    return ("CRAM-MD5", "LOGIN") if b"login" in words else ("PLAIN", "XOAUTH2")


def script(data: bytes) -> None:
    """Whatever a next hop says, however it is cut, and whenever it goes: each recipient once."""
    same([_played(data, fine, atOnce=False) for fine in (False, True)])
    _played(data, fine=True, atOnce=True)


def _played(data: bytes, fine: bool, atOnce: bool) -> list[tuple[str, ...]]:
    first, *lines = data.split(b"\n")
    hop = NextHop(first.split())
    for line in lines[:TURNS]:
        if line == b"!drop":
            break
        hop.say(hop.good() if line == b"!good" else octetsOf(line), fine, atOnce)
    hop.finish()
    return hop.done


def octetsOf(line: bytes) -> bytes:
    """What a line of a script stands for."""
    for escaped, octet in ((b"\\r", b"\r"), (b"\\n", b"\n"), (b"\\0", b"\0")):
        line = line.replace(escaped, octet)
    return line.removesuffix(b"\\c") if line.endswith(b"\\c") else line + b"\r\n"


RELAY = Target(
    "relay",
    script,
    [
        *(word + b" " for word in (*OFFERS, b"lmtp", b"required", b"off", b"account", b"insecure")),
        *(
            word + b" "
            for word in (b"more", b"unicode", b"isbinary", b"eight", b"broken", b"login")
        ),
        *(b"\n", b"\n!good", b"\n!good\n!good\n!good\n!good", b"\n!drop", b"\\r", b"\\n", b"\\0"),
        *(b"\n220 hi", b"\n250 ok", b"\n250-x", b"\n354 go", b"\n421 bye", b"\n451 later", b"\\c"),
        *(b"\n550 no", b"\n334 ", b"\n235 in", b"\n150 what", b"\n999", b"\n250 ok\\r\\n250 ok"),
        *(
            b"\n250-PIPELINING",
            b"\n250 SIZE 99999999999999999999999",
            b"\n334 !!",
            b"\n" + b"x" * 5000,
        ),
        *(b"\n354 go\\r\\n552 no", b"\n220 go\\r\\n250 injected", b"\n250 ok" * 6, b"\n550 no" * 3),
    ],
    60,
    20,
)

RelayTests = RELAY.tests(__name__)
