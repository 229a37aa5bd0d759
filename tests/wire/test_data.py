"""Message framing: DotDecoder, DotEncoder, ChunkDecoder."""

from __future__ import annotations

import re

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire.data import ChunkDecoder, ChunkedDecoder, DotDecoder, DotEncoder
from tests.wire.splits import allSplits, chunked, sizes

quickly = settings(deadline=None, max_examples=300)

# What can be mistaken for the end of a message is made of these.
pieces = strategies.lists(
    strategies.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\0", b"a", b"QUIT", b"\xff"]),
    max_size=25,
).map(b"".join)
text = pieces.map(lambda data: re.sub(rb"\r(?!\n)|(?<!\r)\n", b"?", data))


def decode(chunks: list[bytes]) -> tuple[bytes, bool, bytes, DotDecoder]:
    """All payload, whether the end came, all octets behind it, and the decoder."""
    decoder = DotDecoder()
    payload, rest, ended = b"", b"", False
    for chunk in chunks:
        part, ended, behind = decoder.feed(chunk)
        payload += part
        rest += behind
    return payload, ended, rest, decoder


def reference(data: bytes) -> tuple[bytes, bool, bytes]:
    """The same, line by line, in the words of RFC 5321 4.5.2."""
    payload = b""
    while b"\r\n" in data:
        line, data = data.split(b"\r\n", 1)
        if line == b".":
            return payload, True, data
        payload += line.removeprefix(b".") + b"\r\n"
    return payload, False, data


def hasBare(data: bytes) -> bool:
    """Whether a CR or LF is left when all CRLF are taken out."""
    return any(b"\r" in part or b"\n" in part for part in data.split(b"\r\n"))


class DotDecoderTests(SynchronousTestCase):
    """The end of DATA, and nothing but the end."""

    def check(self, wire: bytes, payload: bytes, rest: bytes = b"") -> None:
        """It decodes to the payload and the rest, wherever it is cut."""
        for chunks in allSplits(wire):
            found = decode(chunks)
            self.assertEqual(found[:3], (payload, True, rest), chunks)

    def test_ordinary(self) -> None:
        """The CRLF in front of the dot belongs to the message; what follows the end does not."""
        self.check(b"a: b\r\n\r\nc\r\n.\r\nQUIT\r\n", b"a: b\r\n\r\nc\r\n", b"QUIT\r\n")

    def test_empty(self) -> None:
        """A dot alone on the first line is an empty message."""
        self.check(b".\r\nRSET\r\n", b"", b"RSET\r\n")

    def test_secondMessageUntouched(self) -> None:
        """A message behind the end is not decoded: its dots stay stuffed."""
        self.check(b"a\r\n.\r\n..b\r\n.\r\n", b"a\r\n", b"..b\r\n.\r\n")

    def test_dots(self) -> None:
        """One dot at the beginning of a line is taken away, also on the first line, no other."""
        self.check(b"..\r\n...\r\n.a\r\na.\r\n..\r\n\r\n.\r\n", b".\r\n..\r\na\r\na.\r\n.\r\n\r\n")

    def test_lookAlikes(self) -> None:
        """A message cannot be ended with a bare LF or CR, which would smuggle in a second one."""
        for almost in (
            b"\n.\n",
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\r\n.\r\r\n",
            b"\n\r.\n\r",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\r\n..\r\n",
            b"\r\n .\r\n",
            b"\r\n. \r\n",
        ):
            smuggled = b"MAIL FROM:<mallory@example.org>\r\n"
            for chunks in allSplits(b"a" + almost + smuggled + b"\r\n.\r\nQUIT\r\n"):
                payload, ended, rest, decoder = decode(chunks)
                self.assertTrue(ended)
                self.assertEqual(rest, b"QUIT\r\n")
                self.assertIn(smuggled, payload)
                self.assertEqual(decoder.bareLineEnding, hasBare(almost), almost)
                self.assertEqual(decoder.nul, b"\0" in almost)

    def test_bareInRest(self) -> None:
        """What comes behind the end is not held against the message."""
        for chunks in allSplits(b"a\r\n.\r\nb\n\r\0"):
            decoder = decode(chunks)[3]
            self.assertFalse(decoder.bareLineEnding)
            self.assertFalse(decoder.nul)

    def test_holdsBackLittle(self) -> None:
        """A slow client does not make the message pile up: two octets at most are kept back."""
        decoder = DotDecoder()
        given = 0
        for fed, octet in enumerate(b"abc\r\ndef\r\nghi\r\n\r\n\rxyz\r\n", 1):
            given += len(decoder.feed(bytes([octet]))[0])
            self.assertLessEqual(fed - given, 2)

    def test_ordinaryChunkIsNotCopied(self) -> None:
        """A chunk without dot lines goes through as the same object."""
        decoder = DotDecoder()
        decoder.feed(b"Subject: x\r\n\r\nbegin")
        chunk = b" and so on\r\n" * 100 + b"no end"
        self.assertIs(decoder.feed(chunk)[0], chunk)

    def test_emptyChunk(self) -> None:
        """Nothing comes of nothing, in any state."""
        decoder = DotDecoder()
        for octet in b"a\r\n.\r":
            decoder.feed(bytes([octet]))
            self.assertEqual(decoder.feed(b""), (b"", False, b""))
        self.assertEqual(decoder.feed(b"\n"), (b"", True, b""))

    @given(pieces, pieces, sizes)
    @quickly
    def test_agreesWithReference(self, message: bytes, behind: bytes, cuts: list[int]) -> None:
        """However a message is made and cut, it is what reading line by line makes of it."""
        wire = message + b"\r\n.\r\n" + behind
        payload, ended, rest = reference(wire)
        found = decode(chunked(wire, cuts))
        self.assertEqual(found[:3], (payload, ended, rest))
        raw = wire[: len(wire) - len(rest)]
        self.assertEqual(found[3].bareLineEnding, hasBare(raw))
        self.assertEqual(found[3].nul, b"\0" in raw)

    @given(pieces, sizes)
    @quickly
    def test_unfinished(self, message: bytes, cuts: list[int]) -> None:
        """Without its end a message never ends; all but the last octets are given out."""
        payload, ended, _ = reference(message)
        found = decode(chunked(message, cuts))
        self.assertEqual(found[1], ended)
        if not ended:
            self.assertEqual(found[0][: len(payload)], payload)
            self.assertLessEqual(len(message) - len(found[0]), message.count(b"\r\n.") + 3)


class DotEncoderTests(SynchronousTestCase):
    """What a relay sends."""

    def encode(self, chunks: list[bytes]) -> bytes:
        """All octets that a message becomes."""
        encoder = DotEncoder()
        return b"".join(map(encoder.feed, chunks)) + encoder.finish()

    def test_stuffed(self) -> None:
        """A line's first dot is doubled wherever the chunks are cut, so that no line is the end."""
        for chunks in allSplits(b".\r\n..a\r\nb.\r\n.\r\n"):
            self.assertEqual(self.encode(chunks), b"..\r\n...a\r\nb.\r\n..\r\n.\r\n")

    def test_lastLineEnded(self) -> None:
        """A message without a last CRLF gets one, or its end would not be seen."""
        self.assertEqual(self.encode([b"a"]), b"a\r\n.\r\n")
        self.assertEqual(self.encode([]), b".\r\n")

    def test_bare(self) -> None:
        """A lone CR or LF never leaves, and its offset is told."""
        for before in (b"", b"abc", b"\r\n", b"ab\r\n.", b"x\r\n\r\n"):
            for bare in (b"\n.\n", b"\rx", b"\n\r\n", b"\r\r\n"):
                for chunks in allSplits(before + bare + b"d\r\n"):
                    error = self.assertRaises(ValueError, self.encode, chunks)
                    self.assertTrue(str(error).endswith(f"octet {len(before)}"), (chunks, error))

    def test_lastCR(self) -> None:
        """A CR as the last octet of all is a lone one."""
        for chunks in allSplits(b"ab\r\nc\r"):
            error = self.assertRaises(ValueError, self.encode, chunks)
            self.assertIn("octet 5", str(error))

    @given(text, sizes, sizes)
    @quickly
    def test_roundTrip(self, message: bytes, cuts: list[int], otherCuts: list[int]) -> None:
        """What is encoded is decoded again, however both are cut; no lone CR or LF is in it."""
        wire = self.encode(chunked(message, cuts))
        whole = message if not message or message.endswith(b"\r\n") else message + b"\r\n"
        payload, ended, rest, decoder = decode(chunked(wire + b"Q", otherCuts))
        self.assertEqual((payload, ended, rest), (whole, True, b"Q"))
        self.assertFalse(decoder.bareLineEnding)

    @given(pieces, sizes)
    @quickly
    def test_nothingBareLeaves(self, message: bytes, cuts: list[int]) -> None:
        """Any message is refused if, and only if, it has a lone CR or LF."""
        try:
            wire = self.encode(chunked(message, cuts))
        except ValueError:
            self.assertTrue(hasBare(message))
        else:
            self.assertFalse(hasBare(message))
            self.assertFalse(hasBare(wire))


class ChunkDecoderTests(SynchronousTestCase):
    """BDAT counts."""

    def test_everySplit(self) -> None:
        """Exactly the announced octets are taken, be they line ends, dots or NUL."""
        for chunks in allSplits(b"\r\n.\r\n\0BDAT 3\r\n"):
            decoder = ChunkDecoder(6)
            payload = rest = b""
            ended = False
            for chunk in chunks:
                part, ended, behind = decoder.feed(chunk)
                payload += part
                rest += behind
            self.assertEqual((payload, ended, rest), (b"\r\n.\r\n\0", True, b"BDAT 3\r\n"))

    def test_nothing(self) -> None:
        """BDAT 0 has ended before it began and takes nothing of the next command."""
        self.assertEqual(ChunkDecoder(0).feed(b""), (b"", True, b""))
        self.assertEqual(ChunkDecoder(0).feed(b"RSET"), (b"", True, b"RSET"))

    def test_remaining(self) -> None:
        """How much is still to come can be read."""
        decoder = ChunkDecoder(10)
        self.assertEqual(decoder.feed(b"abc"), (b"abc", False, b""))
        self.assertEqual(decoder.remaining, 7)


class ChunkedDecoderTests(SynchronousTestCase):
    """The chunks of one message."""

    def read(self, *chunks: bytes, binary: bool = False) -> ChunkedDecoder:
        """Read a message, each chunk octet by octet."""
        decoder = ChunkedDecoder(binary)
        for chunk in chunks:
            decoder.expect(len(chunk))
            for at in range(len(chunk)):
                payload, atEnd, rest = decoder.feed(chunk[at : at + 1])
                self.assertEqual((payload, rest), (chunk[at : at + 1], b""))
                self.assertEqual(atEnd, at == len(chunk) - 1)
        return decoder

    def test_rest(self) -> None:
        """What stands behind a chunk is given back, and nobody looks at it."""
        decoder = ChunkedDecoder()
        decoder.expect(2)
        self.assertEqual(decoder.feed(b"ab\n\0"), (b"ab", True, b"\n\0"))
        self.assertFalse(decoder.bareLineEnding or decoder.nul)

    def test_acrossChunks(self) -> None:
        """A CRLF may be cut in two by a chunk; a lone CR or LF is seen wherever it stands."""
        self.assertFalse(self.read(b"a\r", b"\nb\r\n").bareLineEnding)
        for chunks in ((b"a\r", b"b"), (b"a", b"\n"), (b"a\nb",), (b"\r\n\r", b"\r\n")):
            self.assertTrue(self.read(*chunks).bareLineEnding, chunks)

    def test_finish(self) -> None:
        """A CR at the very end is bare, but only when it is known to be the end."""
        decoder = self.read(b"a\r\n\r")
        self.assertFalse(decoder.bareLineEnding)
        decoder.finish()
        self.assertTrue(decoder.bareLineEnding)
        whole = self.read(b"a\r\n")
        whole.finish()
        self.assertFalse(whole.bareLineEnding)

    def test_nul(self) -> None:
        """A NUL is seen in any chunk."""
        self.assertTrue(self.read(b"a", b"\0", b"b").nul)

    def test_binary(self) -> None:
        """In a binary message nothing is looked for."""
        decoder = self.read(b"\r\0\n\n\r", binary=True)
        decoder.finish()
        self.assertFalse(decoder.bareLineEnding or decoder.nul)
