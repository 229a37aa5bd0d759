"""The parsers of wire/ with any octets: the typed error or a value, and nothing else.

A value goes out as octets and comes back as the same value; how the octets were cut makes no
difference; what is held between two chunks is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from submitd.wire import command
from submitd.wire.address import Mailbox, ReversePath, parseHello
from submitd.wire.data import ChunkedDecoder, DotDecoder, DotEncoder
from submitd.wire.errors import Refused
from submitd.wire.reply import (
    MAX_REPLY_LINE,
    MAX_REPLY_LINES,
    MAX_REPLY_SIZE,
    Reply,
    ReplyParser,
    ReplySyntaxError,
)
from tests.fuzz.target import Target, cuttings, same

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

LONG = [b"a" * 64, b"b" * 65, b"." * 3, b"c" * 255, b"x" * 4096]
UTF8 = ["\u00e9", "\u00fc.example", "\u3002", "\uff0e", "\u200d", "\u202e", "\U0001f600", "\u2028"]
ODD = [b"\0", b"\r", b"\n", b"\r\n", b"\t", b" ", b"\x7f", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80"]
ODD += [each.encode() for each in UTF8]


def refusedOnly(parse: Callable[..., Any], *arguments: Any) -> Any:
    """What a parser gives; ``None`` where it refuses, with 500 or 501 and nothing odd in it."""
    try:
        return parse(*arguments)
    except Refused as refused:
        reply = refused.reply
        assert reply.code in (500, 501), f"{reply.code} from {parse.__name__}"
        assert reply.wire.isascii() and reply.wire.count(b"\r\n") == len(reply.lines)
        return None


def address(data: bytes) -> None:
    """An address or 501; it comes out as it went in, and no control is in it."""
    for octets in (data, (data * 40)[:12288]):
        mailbox = refusedOnly(Mailbox.parse, octets)
        if mailbox is not None:
            assert not CONTROL.search(str(mailbox))
            assert Mailbox.parse(bytes(mailbox)) == mailbox
        for path in (octets, b"<" + octets + b">"):
            reversePath = refusedOnly(ReversePath.parse, path)
            if reversePath is not None:
                assert not CONTROL.search(str(reversePath))
                assert ReversePath.parse(bytes(reversePath)) == reversePath
        hello = refusedOnly(parseHello, octets)
        assert hello is None or re.fullmatch(r"[!-~]{1,255}", hello)


def commandLine(data: bytes) -> None:
    """A command with its arguments, or 500 or 501; no control gets through."""
    for line in (data, (data * 40)[:12288]):
        found = refusedOnly(command.parseCommand, line)
        argument = line
        if found is not None:
            verb, argument = found
            assert re.fullmatch(rb"[A-Z]+", verb) and not re.search(rb"[\r\n\0]", argument)
        mail = refusedOnly(command.parseMail, argument)
        if mail is not None:
            again = command.parseMail(b"FROM:" + bytes(mail[0]) + _written(mail[1]))
            assert again == mail
        rcpt = refusedOnly(command.parseRcpt, argument)
        if rcpt is not None:
            assert command.parseRcpt(b"TO:<%b>" % bytes(rcpt[0]) + _written(rcpt[1])) == rcpt
        bdat = refusedOnly(command.parseBdat, argument)
        assert bdat is None or 0 <= bdat[0] < 10**20
        _encoded(argument.decode("latin-1"))


def _written(parameters: command.Parameters) -> bytes:
    words = [key if value is None else f"{key}={value}" for key, value in parameters.items()]
    assert not any(CONTROL.search(word) for word in words)
    return "".join(f" {word}" for word in words).encode()


def _encoded(text: str) -> None:
    refusedOnly(command.parseSize, text)
    decoded = refusedOnly(command.decodeXtext, text)
    if decoded is not None:
        assert not CONTROL.search(decoded)
        encoded = command.encodeXtext(decoded.encode()).decode()
        assert command.decodeXtext(encoded) == decoded
    decoded = refusedOnly(command.decodeUtf8AddrXtext, text)
    if decoded is not None:
        assert not CONTROL.search(decoded)
        assert command.decodeUtf8AddrXtext(command.encodeUtf8AddrXtext(decoded).decode()) == decoded


def replies(data: bytes) -> None:
    """Replies of another server, or ReplySyntaxError with those that came before; bounded."""
    found, _ = same([_replies(chunks) for chunks in cuttings(data)])
    for reply in found:
        if sum(map(len, reply.lines)) < MAX_REPLY_SIZE // 2:
            assert ReplyParser().feed(reply.wire) == [reply]


def _replies(chunks: list[bytes]) -> tuple[list[Reply], bool]:
    parser, found = ReplyParser(), []
    for chunk in chunks:
        try:
            found += parser.feed(chunk)
        except ReplySyntaxError as error:
            return found + error.replies, True
        assert len(parser._partial) <= MAX_REPLY_LINE + 1
        assert len(parser._lines) <= MAX_REPLY_LINES and parser._size <= MAX_REPLY_SIZE
    return found, False


def dots(data: bytes) -> None:
    """DATA ends at CRLF.CRLF alone; what is stuffed comes out again; nothing bare is sent."""
    end = (b"\r\n" + data).find(b"\r\n.\r\n")
    text, rest = (data[:end], data[end + 3 :]) if end >= 0 else (data, b"")
    expected = (b"\r\n" + text).replace(b"\r\n.", b"\r\n")[2:]
    got, atEnd, behind, bare, nul = same([_dots(chunks) for chunks in cuttings(data)])
    assert atEnd is (end >= 0) and behind == rest
    if atEnd:
        assert got == expected
        assert bare is isBare(text) and nul is (b"\0" in text)
    same([_stuffed(chunks) for chunks in cuttings(data)])


def isBare(octets: bytes) -> bool:
    """Whether there is a CR or LF that is not part of a CRLF."""
    return re.search(rb"\r(?!\n)|(?<!\r)\n", octets) is not None


def _dots(chunks: list[bytes]) -> tuple[bytes, bool, bytes, bool, bool]:
    decoder = DotDecoder()
    text, rest, taken, atEnd = b"", b"", 0, False
    for chunk in chunks:
        payload, atEnd, behind = decoder.feed(chunk)
        taken += len(chunk) - len(behind)
        text, rest = text + payload, rest + behind
    if atEnd:
        return text, True, rest, decoder.bareLineEnding, decoder.nul
    # What is held back at the end may differ by what is known; two octets at most.
    return text, False, rest, False, False


def _stuffed(chunks: list[bytes]) -> bytes | None:
    message, encoder = b"".join(chunks), DotEncoder()
    try:
        sent = b"".join([encoder.feed(chunk) for chunk in chunks]) + encoder.finish()
    except ValueError as error:
        assert isBare(message), error
        bare = re.search(rb"\r(?!\n)|(?<!\r)\n", message)
        assert bare is not None and str(error).endswith(f" {bare.start()}"), error
        return None
    assert not isBare(message)
    ended = message if not message or message.endswith(b"\r\n") else message + b"\r\n"
    payload, atEnd, rest = DotDecoder().feed(sent)
    assert atEnd and not rest and payload == ended
    return sent


def chunked(data: bytes) -> None:
    """BDAT counts octets and nothing else; the first octets of the input say the sizes."""
    sizes, octets = list(data[:4]), data[4:]
    same([_chunked(sizes, chunks) for chunks in cuttings(octets)])


def _chunked(sizes: list[int], chunks: list[bytes]) -> tuple[bytes, bytes, bool, bool]:
    decoder, text = ChunkedDecoder(), b""
    pending = b"".join(chunks)
    lengths = [len(chunk) for chunk in chunks]
    total = sum(sizes)
    for size in sizes:
        decoder.expect(size)
        atEnd = size == 0
        while not atEnd and pending:
            length = lengths[0] or lengths.pop(0) or (lengths[0] if lengths else 0)
            if not length:
                continue
            payload, atEnd, rest = decoder.feed(pending[:length])
            text += payload
            pending = rest + pending[length:]
            lengths[0] = len(rest)
    decoder.finish()
    whole = b"".join(chunks)
    assert text == whole[:total] and pending == whole[total:]
    assert decoder.bareLineEnding is isBare(text) and decoder.nul is (b"\0" in text)
    return text, pending, decoder.bareLineEnding, decoder.nul


ADDRESS = Target(
    "address",
    address,
    [
        b"a",
        b"alice",
        b"@",
        b".",
        b"example.com",
        b'"',
        b"\\",
        b"<",
        b">",
        b"[192.0.2.1]",
        b"[IPv6:",
        b"::1",
        b"]",
        b"@relay.example:",
        b",",
        b"-",
        b"xn--",
        b"postmaster",
        b"%",
        b"=",
        b"+",
        *LONG,
        *ODD,
    ],
    60,
)
COMMAND = Target(
    "command",
    commandLine,
    [
        b"MAIL FROM:",
        b"RCPT TO:",
        b"FROM:",
        b"to:",
        b"<a@b.example>",
        b"<>",
        b"<",
        b">",
        b'"',
        b"\\",
        b" SIZE=",
        b" BODY=8BITMIME",
        b" SMTPUTF8",
        b" AUTH=<>",
        b" ENVID=",
        b" NOTIFY=NEVER",
        b"=",
        b"BDAT ",
        b"0",
        b"99999999999999999999",
        b" LAST",
        b"-1",
        b"1e3",
        b"+41",
        b"+0A",
        b"+",
        b"\\x{20AC}",
        b"\\x{0A}",
        b"\\x{D800}",
        b"\\x{10FFFF}",
        b"@b.example:",
        b"EHLO",
        b"NOOP x",
        *LONG,
        *ODD,
    ],
    60,
)
REPLY = Target(
    "reply",
    replies,
    [
        b"250",
        b"354",
        b"421",
        b"199",
        b"600",
        b"-",
        b" ",
        b"ok",
        b"\r\n",
        b"250 ok\r\n",
        b"250-x\r\n",
        b"2.1.0 ",
        b"5.0.0",
        b"2.0.0",
        b"550 5.1.1 no\r\n",
        b"x" * 4090,
        b"250-y\r\n" * 260,
        *ODD,
    ],
    60,
)
TEXT = [b".", b"..", b"\r\n", b"\r", b"\n", b"\r\n.\r\n", b"\r\n.", b"\n.\n", b"\r.\r", b"RSET\r\n"]
TEXT += [b"Subject: x\r\n\r\n", b"text", b"\0", b"\xff", b"x" * 1000]
DATA = Target("data", dots, TEXT)
BDAT = Target("bdat", chunked, [*TEXT, b"\x00\x00\x00\x00", b"\x05\x00\x03\xff"])

AddressTests = ADDRESS.tests(__name__)
CommandTests = COMMAND.tests(__name__)
ReplyTests = REPLY.tests(__name__)
DataTests = DATA.tests(__name__)
BdatTests = BDAT.tests(__name__)
