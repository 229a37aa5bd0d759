"""A milter that does as it is told, in memory or on a socket; also what is wrong.

:class:`Script` says what it answers to each command; :func:`scripted` makes a policy that talks to
one in memory, with keys that a golden dialogue can write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from submitd.policies.milter import Milter
from submitd.policies.miltertalk import NEVER
from submitd.wire import milter
from submitd.wire.milter import ALL_ACTIONS, Action, Step

CONTINUE, ACCEPT, REJECT, DISCARD = (milter.packet(each) for each in (b"c", b"a", b"r", b"d"))
TEMPFAIL, SKIP, PROGRESS = (milter.packet(each) for each in (b"t", b"s", b"p"))
SHUTDOWN, CONNECTION_FAILURE = milter.packet(b"4"), milter.packet(b"f")
HANG = "hang"
CLOSE = "close"
Does = bytes | str

WORDS: dict[str, Does] = {
    "continue": CONTINUE,
    "accept": ACCEPT,
    "reject": REJECT,
    "discard": DISCARD,
    "tempfail": TEMPFAIL,
    "skip": SKIP,
    "shutdown": SHUTDOWN,
    "hang": HANG,
    "close": CLOSE,
    "nonsense": milter.packet(b"?", b"what"),
    "empty": b"\0\0\0\0",
    "huge": b"\xff\xff\xff\xff",
    "progress": PROGRESS + CONTINUE,
    "twice": CONTINUE + CONTINUE,
}
COMMANDS: dict[str, bytes] = {
    "negotiate": b"O",
    "connect": b"C",
    "hello": b"H",
    "mail": b"M",
    "rcpt": b"R",
    "data": b"T",
    "header": b"L",
    "eoh": b"N",
    "body": b"B",
    "eom": b"E",
}
QUIET: dict[bytes, Step] = {
    b"C": Step.NR_CONNECT,
    b"H": Step.NR_HELLO,
    b"M": Step.NR_MAIL,
    b"R": Step.NR_RCPT,
    b"T": Step.NR_DATA,
    b"L": Step.NR_HEADER,
    b"N": Step.NR_END_OF_HEADER,
    b"B": Step.NR_BODY,
}


def replyCode(text: str) -> bytes:
    """A refusal in words of its own."""
    return milter.packet(b"y", text.encode() + b"\0")


def addHeader(name: str, value: str) -> bytes:
    """Add a field."""
    return milter.packet(b"h", milter.strings([name.encode(), value.encode()]))


def insertHeader(index: int, name: str, value: str) -> bytes:
    """Add a field at a place."""
    strings = milter.strings([name.encode(), value.encode()])
    return milter.packet(b"i", struct.pack(">I", index) + strings)


def changeHeader(index: int, name: str, value: str) -> bytes:
    """Change or remove a field."""
    strings = milter.strings([name.encode(), value.encode()])
    return milter.packet(b"m", struct.pack(">I", index) + strings)


def text(letter: bytes, *strings: str) -> bytes:
    """Any packet of strings."""
    return milter.packet(letter, milter.strings([each.encode() for each in strings]))


def replaceBody(octets: bytes) -> bytes:
    """Another body, or a part of it."""
    return milter.packet(b"b", octets)


def negotiated(
    actions: Action = ALL_ACTIONS, steps: Step = NEVER, version: int = 6, macros: bytes = b""
) -> bytes:
    """What it wants."""
    return milter.packet(b"O", struct.pack(">III", version, actions, steps) + macros)


@attrs.define(eq=False)
class Script:
    """What a filter answers, over all its connections.

    :param does: by the letter of the command; ``CONTINUE`` for those that are left out.
    :ivar heard: the commands, letter and contents, without macros.
    :ivar macros: those that came, by the letter of the command behind them.
    :ivar connections: how many there have been; ``open`` those that are there now.
    """

    does: dict[bytes, Does] = attrs.field(factory=dict)
    actions: Action = ALL_ACTIONS
    steps: Step = NEVER
    version: int = 6
    macroNames: bytes = b""
    refuses: bool = False
    heard: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    macros: dict[bytes, dict[str, str]] = attrs.field(factory=dict)
    connections: int = 0
    open: list[FakeFilter] = attrs.field(factory=list)

    @property
    def letters(self) -> str:
        """The commands, as one word."""
        return b"".join(letter for letter, _ in self.heard).decode()

    def of(self, letter: bytes) -> list[bytes]:
        """What came with one command."""
        return [contents for each, contents in self.heard if each == letter]

    def connect(self, factory: Factory) -> Deferred[Any]:
        """As an endpoint: connect in memory."""
        if self.refuses:
            return fail(ConnectionRefusedError("nobody listens"))
        factory.doStart()
        client: Any = factory.buildProtocol(None)
        server = FakeFilter(self)
        one, other = Pipe(server), Pipe(client)
        one.other, other.other = other, one
        server.makeConnection(other)
        client.makeConnection(one)
        return succeed(client)


class Pipe:
    """One end of a connection in memory: what is written is received at once, or when it may be."""

    other: Pipe

    def __init__(self, receiver: Any) -> None:
        self.receiver = receiver
        self.waiting = b""
        self.isPaused = False
        self.isOver = False
        self.isAtOnce = False

    def write(self, data: bytes) -> None:
        if not self.isOver:
            self.waiting += data
            self.deliver()

    def deliver(self) -> None:
        while self.waiting and not self.isPaused and not self.isOver:
            data, self.waiting = self.waiting, b""
            self.receiver.dataReceived(data)

    def pauseProducing(self) -> None:
        self.other.isPaused = True

    def resumeProducing(self) -> None:
        self.other.isPaused = False
        self.other.deliver()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.isAtOnce = enabled

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        del self.producer

    def loseConnection(self) -> None:
        if not self.isOver:
            self.isOver = self.other.isOver = True
            self.receiver.connectionLost(Failure(ConnectionDone()))
            self.other.receiver.connectionLost(Failure(ConnectionDone()))

    abortConnection = loseConnection


class FakeFilter(Protocol):
    """One connection of a filter."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.reader = milter.PacketReader()
        self.before = b""
        self.isDeaf = False

    def connectionMade(self) -> None:
        self.script.connections += 1
        self.script.open.append(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.script.open.remove(self)

    def dataReceived(self, data: bytes) -> None:
        for letter, contents in self.reader.feed(data):
            if letter == b"D":
                strings = contents[1:].decode().split("\0")[:-1]
                self.script.macros[contents[:1]] = dict(
                    zip(strings[::2], strings[1::2], strict=True)
                )
                continue
            if letter != b"O":
                self.script.heard.append((letter, contents))
            self.answer(letter)

    def answer(self, letter: bytes) -> None:
        script, transport = self.script, self.transport
        assert transport is not None
        # As libmilter does, which then leaves the next client without an answer.
        self.isDeaf = self.isDeaf or (letter == b"K" and self.before != b"E")
        self.before = letter
        if self.isDeaf:
            return
        usual: Does = b"" if letter in b"AQK" else CONTINUE
        if letter == b"O":
            macros = script.macroNames
            usual = negotiated(script.actions, script.steps, script.version, macros)
        elif script.steps & QUIET.get(letter, NEVER):
            usual = b""
        does = script.does.get(letter, usual)
        if does == CLOSE:
            transport.loseConnection()
        elif isinstance(does, bytes):
            transport.write(does)


class ScriptedMilter(Milter):
    """The policy, and a filter in memory."""

    script: Script

    def where(self) -> Any:
        return self.script


def made(script: Script, **keys: Any) -> ScriptedMilter:
    """A policy that asks a filter with this script."""
    policy = ScriptedMilter("unix:/nowhere", **keys)
    policy.script = script
    return policy


def scripted(changes: Iterable[str] = (), **keys: Any) -> ScriptedMilter:
    """A policy for golden dialogues.

    :param keys: what is answered to ``connect``, ``hello`` ...: a word of :data:`WORDS`, or a reply
        such as ``"550 5.7.1 No"``; what is none of these is a key of the policy.
    :param changes: what is wanted behind the message, such as ``"h X-Spam: no"``, ``"- <a@b.c>"``.
    """
    does: dict[bytes, Does] = {}
    for name in list(keys):
        if name in COMMANDS:
            said = keys.pop(name)
            does[COMMANDS[name]] = WORDS.get(said) or replyCode(said)
    packets = b"".join(_change(each) for each in changes)
    if packets:
        last = does.get(b"E", CONTINUE)
        assert isinstance(last, bytes)
        does[b"E"] = packets + last
    return made(Script(does), **keys)


def _change(said: str) -> bytes:
    letter, _, rest = said.partition(" ")
    if letter == "b":
        return replaceBody(rest.encode())
    if letter in "him":
        index, _, field = rest.partition(" ") if letter != "h" else ("", "", rest)
        name, _, value = field.partition(": ")
        strings = milter.strings([name.rstrip(":").encode(), value.encode()])
        return milter.packet(
            letter.encode(), (struct.pack(">I", int(index)) if index else b"") + strings
        )
    return text(letter.encode(), rest)
