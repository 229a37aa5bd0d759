"""What filters and policy servers send, any octets: an answer or the typed error; bounded."""

from __future__ import annotations

import struct
from typing import Any

from submitd.wire import milter, policyrequest
from submitd.wire.milter import MAX_PACKET, MilterError, PacketReader
from submitd.wire.policyrequest import ATTRIBUTES, MAX_ANSWER, AnswerError, AnswerReader
from submitd.wire.reply import Reply
from tests.fuzz.target import Target, cuttings, same
from tests.fuzz.test_wire import ODD


def packets(data: bytes) -> None:
    """Packets of a milter, and what each of them means."""
    found, _ = same([_packets(chunks) for chunks in cuttings(data)])
    for letter, contents in found:
        try:
            answer = milter.parse(letter, contents)
        except MilterError as error:
            assert str(error).isprintable()
            continue
        if isinstance(answer, milter.ReplyCode):
            assert 400 <= answer.reply.code < 600 and answer.reply.wire.isascii()
            assert answer.reply.status[:1] == str(answer.reply.code)[:1]
        if isinstance(answer, milter.Negotiated):
            assert milter.OLDEST <= answer.version <= milter.VERSION


def _packets(chunks: list[bytes]) -> tuple[list[tuple[bytes, bytes]], bool]:
    reader, found = PacketReader(), []
    for chunk in chunks:
        try:
            found += reader.feed(chunk)
        except MilterError:
            return [], True
        assert len(reader._buffer) <= MAX_PACKET + 4
    # Sent by us, they are read alike.
    sent = b"".join(milter.packet(letter, contents) for letter, contents in found)
    assert PacketReader().feed(sent) == found
    return found, False


def answers(data: bytes) -> None:
    """An answer of a policy server, and a request that has its octets in it."""
    end = data.replace(b"\r\n", b"\n").find(b"\n\n")
    if end >= 0 and b"\r" not in data:
        data = data[: end + 2]
    if end < 0 or b"\r" not in data:
        same([_answer(chunks) for chunks in cuttings(data)])
    _answer([data])
    text = data.decode("latin-1")[: policyrequest.MAX_VALUE]
    request = policyrequest.formatRequest({"sender": text, "helo_name": text[:9]})
    assert request.count(b"\n") == len(ATTRIBUTES) + 1 and request.endswith(b"\n\n")
    for utf8 in (False, True):
        try:
            field = policyrequest.headerField(text, utf8)
        except ValueError as error:
            assert str(error).isprintable()
        else:
            assert field.count(b"\r\n") == 1 and field.endswith(b"\r\n") and len(field) <= 1000


def _answer(chunks: list[bytes]) -> Any:
    reader, found = AnswerReader(), None
    for chunk in chunks:
        try:
            found = reader.feed(chunk) or found
        except AnswerError as error:
            assert str(error).isprintable()
            return "wrong"
        assert len(reader._octets) <= MAX_ANSWER * 2 + 2
    if found is not None:
        refused = policyrequest.refusal(found)
        assert refused is None or (isinstance(refused, Reply) and refused.wire.isascii())
        assert refused is None or 400 <= refused.code < 600
    return found


def packet(letter: bytes, contents: bytes = b"") -> bytes:
    """One packet."""
    return milter.packet(letter, contents)


MILTER = Target(
    "milter",
    packets,
    [
        *(
            packet(letter)
            for letter in (b"c", b"a", b"r", b"d", b"t", b"s", b"p", b"f", b"4", b"Z")
        ),
        *(packet(b"O", struct.pack(">III", 6, 0x1FF, 0)), packet(b"O", b"\0\0\0\x06" + b"\0" * 8)),
        *(
            packet(b"O", struct.pack(">III", 6, 1, 0) + b"\0\0\0\x02{x},i\0"),
            packet(b"O", b"short"),
        ),
        *(
            packet(b"y", b"550 5.7.1 no\0"),
            packet(b"y", b"451-a\r\n451 b\0"),
            packet(b"y", b"250 x\0"),
        ),
        *(packet(b"h", b"X\0y\0"), packet(b"i", b"\0\0\0\1X\0y\0"), packet(b"m", b"\0\0\0\1X\0\0")),
        *(
            packet(b"e", b"<a@b.example>\0"),
            packet(b"+", b"<a>\0"),
            packet(b"2", b"<a>\0NOTIFY=\0"),
        ),
        *(packet(b"-", b"<a>\0"), packet(b"b", b"body"), packet(b"q", b"why\xff\0"), b"\0\0\0\0"),
        *(
            b"\xff\xff\xff\xff",
            b"\0\x10\0\0",
            b"\0\x10\0\x01",
            b"\0\0\0\x05h",
            b"%%",
            b"y",
            b"\0\0\0",
        ),
        *ODD,
    ],
)
POLICY = Target(
    "policy",
    answers,
    [
        *(
            b"action=",
            b"DUNNO",
            b"REJECT",
            b"DEFER_IF_PERMIT",
            b"550",
            b"450 4.2.0 x",
            b"599 ",
            b"\n",
        ),
        *(
            b"\n\n",
            b"\r\n\r\n",
            b"OK\n\n",
            b"PREPEND X: y",
            b"other=x\n",
            b"=",
            b" 5.7.1 text",
            b": ",
        ),
        *(b"x" * 8185, b"x" * 990, b"action=DUNNO\n\n", b"action=REJECT 2.0.0 odd\n\n"),
        *ODD,
    ],
)

MilterTests = MILTER.tests(__name__)
PolicyTests = POLICY.tests(__name__)
