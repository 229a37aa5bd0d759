"""The milter protocol, version 6, seen from the mail server: packets out, packets in, no I/O.

A packet is a length of four octets, a letter, and what belongs to it.  The functions here make the
ones that a mail server sends; :class:`PacketReader` cuts what a filter sends, however it comes, and
:func:`parse` tells what a packet means.  Versions from 2 on are spoken; what an older one does not
know is not sent.

A filter is another program and may send anything: a packet above :data:`MAX_PACKET`, one that
nobody knows, or one whose contents make no sense is :class:`MilterError`, and nothing else is ever
raised.  The reader keeps no more than one packet.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Iterable, Mapping

import attrs

from submitd.wire.reply import Reply, ReplyParser, ReplySyntaxError

VERSION = 6
OLDEST = 2

# libmilter refuses commands above this; it is what a chunk of a body may have.
MAX_DATA = 65535
# More than what a filter may send (65535), since some do.
MAX_PACKET = 1024 * 1024


class MilterError(ValueError):
    """What a filter sent makes no sense."""


class Action(enum.IntFlag):
    """What a filter may do to a message."""

    ADD_HEADER = 0x1
    CHANGE_BODY = 0x2
    ADD_RECIPIENT = 0x4
    DELETE_RECIPIENT = 0x8
    CHANGE_HEADER = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENT_WITH_PARAMETERS = 0x80
    NAME_MACROS = 0x100


class Step(enum.IntFlag):
    """What is left out, or done another way, in the dialogue with a filter.

    ``NO_`` stands for a command that is not sent, ``NR_`` for one that is not answered.
    """

    NO_CONNECT = 0x1
    NO_HELLO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADER = 0x20
    NO_END_OF_HEADER = 0x40
    NR_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    NR_CONNECT = 0x1000
    NR_HELLO = 0x2000
    NR_MAIL = 0x4000
    NR_RCPT = 0x8000
    NR_DATA = 0x10000
    NR_UNKNOWN = 0x20000
    NR_END_OF_HEADER = 0x40000
    NR_BODY = 0x80000
    LEADING_SPACE = 0x100000


ALL_ACTIONS = Action(sum(Action))
ALL_STEPS = Step(sum(Step))


class Stage(enum.Enum):
    """When macros are sent: the letter of the command that they belong to."""

    CONNECT = b"C"
    HELLO = b"H"
    MAIL = b"M"
    RCPT = b"R"
    DATA = b"T"
    END_OF_MESSAGE = b"E"
    END_OF_HEADER = b"N"


# The numbers of the stages in what a filter says about macros.
_STAGES = tuple(Stage)


# What we send.


def packet(letter: bytes, contents: bytes = b"") -> bytes:
    """One packet, its length in front.

    :param letter: one octet.
    """
    return struct.pack(">I", len(contents) + 1) + letter + contents


def strings(values: Iterable[bytes]) -> bytes:
    """Strings, each with its NUL; one that has a NUL in it gets a space there."""
    return b"".join(value.replace(b"\0", b" ") + b"\0" for value in values)


def negotiate(actions: Action, steps: Step) -> bytes:
    """What we can do, the first packet of a connection."""
    return packet(b"O", struct.pack(">III", VERSION, actions, steps))


def macros(stage: Stage, values: Mapping[str, str]) -> bytes:
    """Macros for the command that follows.

    :param values: name -> value; a name of more than one letter stands in braces.
    """
    pairs = (each.encode("utf-8", "replace") for pair in values.items() for each in pair)
    return packet(b"D", stage.value + strings(pairs))


def connect(name: str, address: str, port: int) -> bytes:
    """Who has connected.

    :param name: the name of the client, or its address in brackets.
    :param address: IPv4 or IPv6; empty for a unix socket.
    """
    octets = strings([name.encode("utf-8", "replace")])
    if not address:
        return packet(b"C", octets + b"U")
    isSix = ":" in address
    text = f"IPv6:{address}" if isSix else address
    family = b"6" if isSix else b"4"
    end = strings([text.encode("ascii", "replace")])
    return packet(b"C", octets + family + struct.pack(">H", port & 0xFFFF) + end)


def hello(domain: str) -> bytes:
    """EHLO, HELO or LHLO."""
    return packet(b"H", strings([domain.encode("utf-8", "replace")]))


def mail(path: bytes, parameters: Iterable[bytes] = ()) -> bytes:
    """MAIL.

    :param path: with its angle brackets.
    :param parameters: such as ``b"SIZE=100"``.
    """
    return packet(b"M", strings([path, *parameters]))


def rcpt(path: bytes, parameters: Iterable[bytes] = ()) -> bytes:
    """RCPT, as :func:`mail`."""
    return packet(b"R", strings([path, *parameters]))


def header(name: bytes, value: bytes) -> bytes:
    """One header field; its lines end with LF."""
    return packet(b"L", strings([name, value]))


def body(octets: bytes) -> bytes:
    """A part of the body, of :data:`MAX_DATA` octets at most."""
    return packet(b"B", octets)


DATA = packet(b"T")
END_OF_HEADER = packet(b"N")
END_OF_MESSAGE = packet(b"E")
ABORT = packet(b"A")
QUIT = packet(b"Q")
# Another connection of a client follows; since version 6.
QUIT_NEW_CONNECTION = packet(b"K")


# What we read.


class PacketReader:
    """Cuts what a filter sends into packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Take some octets.

        :return: the packets that they complete: letter and contents.
        :raise MilterError: when a packet is empty or too large; the reader is of no more use then.
        """
        buffer = self._buffer
        buffer += data
        packets, at = [], 0
        while len(buffer) - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "big")
            if not 0 < size <= MAX_PACKET:
                raise MilterError(f"a packet of {size} octets")
            if len(buffer) - at < 4 + size:
                break
            letter, contents = buffer[at + 4 : at + 5], buffer[at + 5 : at + 4 + size]
            packets.append((bytes(letter), bytes(contents)))
            at += 4 + size
        del buffer[:at]
        return packets


class Verdict(enum.Enum):
    """What a filter thinks of a command, where it does not say it in its own words."""

    CONTINUE = b"c"
    ACCEPT = b"a"
    REJECT = b"r"
    DISCARD = b"d"
    TEMPFAIL = b"t"
    SKIP = b"s"
    PROGRESS = b"p"
    CONNECTION_FAILURE = b"f"
    SHUTDOWN = b"4"


@attrs.frozen
class Negotiated:
    """What a filter wants.

    :param version: which both speak.
    :param actions: what it may do.
    :param steps: what it wants left out or done another way.
    :param macros: the macros it wants at a stage, where it has said so.
    """

    version: int
    actions: Action
    steps: Step
    macros: Mapping[Stage, tuple[str, ...]] = attrs.field(factory=dict)


@attrs.frozen
class ReplyCode:
    """A refusal in the filter's own words; the reply is 4yz or 5yz."""

    reply: Reply


@attrs.frozen
class AddHeader:
    """Add a header field behind all others."""

    name: bytes
    value: bytes


@attrs.frozen
class InsertHeader:
    """Add a header field at a place: 0 is above all others."""

    index: int
    name: bytes
    value: bytes


@attrs.frozen
class ChangeHeader:
    """Change the header field of a name that stands at a place among those of its name, from 1 on.

    An empty value removes it.
    """

    index: int
    name: bytes
    value: bytes


@attrs.frozen
class ChangeSender:
    """Have another reverse-path; ``parameters`` are those of MAIL, as text."""

    path: bytes
    parameters: bytes = b""


@attrs.frozen
class AddRecipient:
    """Have one more recipient; ``parameters`` are those of RCPT, as text."""

    path: bytes
    parameters: bytes = b""


@attrs.frozen
class DeleteRecipient:
    """Have one recipient less."""

    path: bytes


@attrs.frozen
class ReplaceBody:
    """A part of the body that is to take the place of the one that came."""

    octets: bytes


@attrs.frozen
class Quarantine:
    """Keep the message until somebody has looked at it."""

    reason: str


Modification = (
    AddHeader
    | InsertHeader
    | ChangeHeader
    | ChangeSender
    | AddRecipient
    | DeleteRecipient
    | ReplaceBody
    | Quarantine
)
Answer = Verdict | Negotiated | ReplyCode | Modification

# What must have been negotiated for a modification, by its letter.
NEEDED: Mapping[type, Action] = {
    AddHeader: Action.ADD_HEADER,
    InsertHeader: Action.ADD_HEADER,
    ChangeHeader: Action.CHANGE_HEADER,
    ChangeSender: Action.CHANGE_SENDER,
    AddRecipient: Action.ADD_RECIPIENT | Action.ADD_RECIPIENT_WITH_PARAMETERS,
    DeleteRecipient: Action.DELETE_RECIPIENT,
    ReplaceBody: Action.CHANGE_BODY,
    Quarantine: Action.QUARANTINE,
}

# RFC 5322 2.2: ftext
_NAME = re.compile(rb"[!-9;-~]{1,998}")
_WRONG_STATUS = re.compile(r"^[0-9]\.([0-9]{1,3}\.[0-9]{1,3})(?: |$)")


def parse(letter: bytes, contents: bytes) -> Answer:
    """What a packet of a filter means.

    :raise MilterError: when it means nothing.
    """
    try:
        verdict = Verdict(letter)
    except ValueError:
        reader = _READERS.get(letter)
        if reader is None:
            raise MilterError(f"a packet {letter!r}, which nobody knows") from None
        return reader(contents)
    if contents:
        raise MilterError(f"a packet {letter!r} with something in it")
    return verdict


def _negotiated(contents: bytes) -> Negotiated:
    if len(contents) < 12:
        raise MilterError("a negotiation that is too short")
    version, actions, steps = struct.unpack(">III", contents[:12])
    if not OLDEST <= version <= VERSION:
        raise MilterError(f"version {version} of the protocol")
    if steps & ~int(ALL_STEPS):
        raise MilterError(f"wants what nobody offered: {steps:#x}")
    allowed = Action(actions) & ALL_ACTIONS
    return Negotiated(version, allowed, Step(steps), _macroNames(contents[12:]))


def _macroNames(octets: bytes) -> dict[Stage, tuple[str, ...]]:
    found: dict[Stage, tuple[str, ...]] = {}
    while octets:
        names, end, rest = octets[4:].partition(b"\0")
        number = int.from_bytes(octets[:4], "big")
        if not end or number >= len(_STAGES):
            raise MilterError("macros of a stage that is none")
        found[_STAGES[number]] = tuple(names.decode("ascii", "replace").replace(",", " ").split())
        octets = rest
    return found


def _replyCode(contents: bytes) -> ReplyCode:
    # libmilter doubles each "%"; and some filters end lines with LF alone.
    said = contents.partition(b"\0")[0].replace(b"%%", b"%").replace(b"\r\n", b"\n")
    said = said.removesuffix(b"\n").replace(b"\n", b"\r\n")
    try:
        replies = ReplyParser().feed(said + b"\r\n")
    except ReplySyntaxError as error:
        raise MilterError(f"a reply code: {error}") from None
    if len(replies) != 1 or replies[0].code < 400:
        raise MilterError("a reply code that is no refusal")
    return ReplyCode(_withStatus(replies[0]))


def _withStatus(reply: Reply) -> Reply:
    """RFC 2034 4: each reply has a status, and its class is that of the code."""
    if reply.status:
        return reply
    wrong = _WRONG_STATUS.match(reply.lines[0])
    rest = "7.1" if wrong is None else wrong[1]
    lines = [_WRONG_STATUS.sub("", line, count=1) for line in reply.lines]
    return Reply(reply.code, f"{reply.code // 100}.{rest}", lines)


def _cut(contents: bytes, count: int) -> list[bytes]:
    found = contents.removesuffix(b"\0").split(b"\0")
    if len(found) != count:
        raise MilterError(f"{len(found)} strings where {count} belong")
    return found


def _name(name: bytes) -> bytes:
    if _NAME.fullmatch(name) is None:
        raise MilterError("the name of a header field that is none")
    return name


def _addHeader(contents: bytes) -> AddHeader:
    name, value = _cut(contents, 2)
    return AddHeader(_name(name), value)


def _index(contents: bytes) -> int:
    if len(contents) < 4:
        raise MilterError("a header field without its place")
    return int.from_bytes(contents[:4], "big")


def _insertHeader(contents: bytes) -> InsertHeader:
    index = _index(contents)
    name, value = _cut(contents[4:], 2)
    return InsertHeader(index, _name(name), value)


def _changeHeader(contents: bytes) -> ChangeHeader:
    index = _index(contents)
    name, value = _cut(contents[4:], 2)
    return ChangeHeader(index, _name(name), value)


def _pathAndParameters(contents: bytes) -> list[bytes]:
    found = contents.removesuffix(b"\0").split(b"\0")
    if len(found) > 2 or not found[0]:
        raise MilterError("an address that is none")
    return found


def _changeSender(contents: bytes) -> ChangeSender:
    return ChangeSender(*_pathAndParameters(contents))


def _addRecipient(contents: bytes) -> AddRecipient:
    return AddRecipient(*_pathAndParameters(contents))


def _deleteRecipient(contents: bytes) -> DeleteRecipient:
    return DeleteRecipient(*_cut(contents, 1))


def _quarantine(contents: bytes) -> Quarantine:
    [reason] = _cut(contents, 1)
    return Quarantine(reason.decode("utf-8", "replace"))


_READERS: Mapping[bytes, Callable[[bytes], Answer]] = {
    b"O": _negotiated,
    b"y": _replyCode,
    b"h": _addHeader,
    b"i": _insertHeader,
    b"m": _changeHeader,
    b"e": _changeSender,
    b"+": _addRecipient,
    b"2": _addRecipient,
    b"-": _deleteRecipient,
    b"b": ReplaceBody,
    b"q": _quarantine,
}
