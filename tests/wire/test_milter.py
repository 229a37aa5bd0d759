"""The milter protocol: packets out, packets in."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire import milter
from submitd.wire.milter import (
    ALL_ACTIONS,
    ALL_STEPS,
    Action,
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    MilterError,
    Negotiated,
    PacketReader,
    Quarantine,
    ReplaceBody,
    ReplyCode,
    Stage,
    Step,
    Verdict,
    parse,
)

LETTERS = b"acdrtspf4Oyhime+2-bq"


class SentTests(SynchronousTestCase):
    """What the mail server sends, octet by octet."""

    def test_negotiate(self) -> None:
        """The first packet has version, actions and steps."""
        sent = milter.negotiate(Action.ADD_HEADER, Step.SKIP)
        self.assertEqual(sent, b"\0\0\0\x0dO" + struct.pack(">III", 6, 1, 0x400))
        self.assertEqual(ALL_ACTIONS, 0x1FF)
        self.assertEqual(ALL_STEPS, 0x1FF7FF)

    def test_connect(self) -> None:
        """IPv4, IPv6 and unix sockets each have their own form."""
        for address, port, contents in (
            ("192.0.2.7", 587, b"4\x02\x4b192.0.2.7\0"),
            ("2001:db8::1", 1, b"6\0\x01IPv6:2001:db8::1\0"),
            ("", 0, b"U"),
        ):
            self.assertEqual(
                milter.connect("c.example", address, port),
                milter.packet(b"C", b"c.example\0" + contents),
            )

    def test_commands(self) -> None:
        """Each command is its letter and strings."""
        for sent, expected in (
            (milter.hello("c.example"), b"Hc.example\0"),
            (milter.mail(b"<a@b.c>", [b"SIZE=1", b"BODY=7BIT"]), b"M<a@b.c>\0SIZE=1\0BODY=7BIT\0"),
            (milter.rcpt(b"<a@b.c>"), b"R<a@b.c>\0"),
            (milter.header(b"Subject", b"a\n b"), b"LSubject\0a\n b\0"),
            (milter.body(b"octets"), b"Boctets"),
            (milter.DATA, b"T"),
            (milter.END_OF_HEADER, b"N"),
            (milter.END_OF_MESSAGE, b"E"),
            (milter.ABORT, b"A"),
            (milter.QUIT, b"Q"),
            (milter.QUIT_NEW_CONNECTION, b"K"),
            (milter.macros(Stage.MAIL, {"i": "1", "{x}": "\u00fc"}), b"DMi\x001\0{x}\0\xc3\xbc\0"),
        ):
            self.assertEqual(sent, struct.pack(">I", len(expected)) + expected)

    def test_nul(self) -> None:
        """A NUL cannot end a string early, and so hide from the filter what follows it."""
        self.assertIn(b"\0a b\0", milter.header(b"X", b"a\0b"))


class ReaderTests(SynchronousTestCase):
    """Packets are cut out of what comes."""

    def test_cuts(self) -> None:
        """However they are cut, the packets are the same."""
        stream = milter.packet(b"c") + milter.packet(b"h", b"A\0b\0") + milter.packet(b"a")
        for size in range(1, len(stream)):
            reader, found = PacketReader(), []
            for at in range(0, len(stream), size):
                found += reader.feed(stream[at : at + size])
            self.assertEqual(found, [(b"c", b""), (b"h", b"A\0b\0"), (b"a", b"")])

    def test_sizes(self) -> None:
        """An empty packet is refused, and one that is too large before it has come."""
        for head in (b"\0\0\0\0", b"\xff\xff\xff\xff", struct.pack(">I", milter.MAX_PACKET + 1)):
            self.assertRaises(MilterError, PacketReader().feed, head)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=10))
    def test_anything(self, chunks: list[bytes]) -> None:
        """Any octets are packets or an error, and it keeps no more than one."""
        reader = PacketReader()
        try:
            for chunk in chunks:
                for letter, contents in reader.feed(chunk):
                    self.assertEqual(len(letter), 1)
                    self.assertLess(len(contents), milter.MAX_PACKET)
                self.assertLess(len(reader._buffer), milter.MAX_PACKET + 4)
        except MilterError:
            pass


class ParseTests(SynchronousTestCase):
    """What packets mean."""

    def test_verdicts(self) -> None:
        """A letter alone is a verdict, and has nothing behind it."""
        for verdict in Verdict:
            self.assertIs(parse(verdict.value, b""), verdict)
            self.assertRaises(MilterError, parse, verdict.value, b"x")

    def test_negotiated(self) -> None:
        """Version, actions and steps, and the macros that it wants."""
        octets = struct.pack(">III", 6, 0x11, 0x400)
        self.assertEqual(
            parse(b"O", octets + struct.pack(">I", 1) + b"{tls_version},j  i\0"),
            Negotiated(
                6,
                Action.ADD_HEADER | Action.CHANGE_HEADER,
                Step.SKIP,
                {Stage.HELLO: ("{tls_version}", "j", "i")},
            ),
        )

    def test_otherActions(self) -> None:
        """What nobody has heard of is not allowed by asking for it."""
        answer = parse(b"O", struct.pack(">III", 2, 0xFFFFFFFF, 0))
        self.assertEqual(answer, Negotiated(2, ALL_ACTIONS, Step(0)))

    def test_badNegotiation(self) -> None:
        """Too short, of no known version, with unknown steps, with macros of no stage."""
        good = struct.pack(">III", 6, 0, 0)
        for octets in (
            b"",
            good[:11],
            struct.pack(">III", 1, 0, 0),
            struct.pack(">III", 7, 0, 0),
            struct.pack(">III", 6, 0, 0x800),
            struct.pack(">III", 6, 0, 0x10000000),
            good + b"\0\0\0\x07i\0",
            good + b"\0\0\0\x01i",
            good + b"\0",
        ):
            self.assertRaises(MilterError, parse, b"O", octets)

    def test_replyCode(self) -> None:
        """A refusal in its own words, each with a status whose class is that of the code."""
        for said, wire in (
            (b"550 5.7.1 No\0", b"550 5.7.1 No\r\n"),
            (b"550 5.7.1 No", b"550 5.7.1 No\r\n"),
            (b"450 No", b"450 4.7.1 No\r\n"),
            (b"550", b"550 5.7.1 \r\n"),
            (b"550 4.2.2 Full\0", b"550 5.2.2 Full\r\n"),
            (b"550-5.7.1 One\r\n550 5.7.1 two\0", b"550-5.7.1 One\r\n550 5.7.1 two\r\n"),
            (b"550-5.7.1 One\n550 5.7.1 two\n\0", b"550-5.7.1 One\r\n550 5.7.1 two\r\n"),
            (b"451 4.7.1 100%% \xc3\xbc\x07\0rest", b"451 4.7.1 100% ??\r\n"),
        ):
            answer = parse(b"y", said)
            assert isinstance(answer, ReplyCode)
            self.assertEqual(answer.reply.wire, wire)

    def test_badReplyCode(self) -> None:
        """What is no refusal, or more than one, is an error."""
        for said in (
            b"",
            b"\0",
            b"250 2.0.0 Ok\0",
            b"354 Go on\0",
            b"five",
            b"550-5.7.1 more\0",
            b"550 one\r\n550 two\0",
            b"550-one\r\n551 two\0",
            b"550 a\rb\0",
            b"550 " + b"x" * 5000,
        ):
            self.assertRaises(MilterError, parse, b"y", said)

    def test_changes(self) -> None:
        """Each change with what belongs to it; the last NUL may be missing."""
        for letter, contents, change in (
            (b"h", b"A\0b\0", AddHeader(b"A", b"b")),
            (b"h", b"A\0b", AddHeader(b"A", b"b")),
            (b"i", b"\0\0\0\x02A\0b\0", InsertHeader(2, b"A", b"b")),
            (b"m", b"\0\0\0\x01A\0\0", ChangeHeader(1, b"A", b"")),
            (b"e", b"<a@b.c>\0", ChangeSender(b"<a@b.c>")),
            (b"e", b"<a@b.c>\0RET=HDRS\0", ChangeSender(b"<a@b.c>", b"RET=HDRS")),
            (b"+", b"<a@b.c>\0", AddRecipient(b"<a@b.c>")),
            (b"2", b"<a@b.c>\0NOTIFY=NEVER\0", AddRecipient(b"<a@b.c>", b"NOTIFY=NEVER")),
            (b"-", b"<a@b.c>\0", DeleteRecipient(b"<a@b.c>")),
            (b"b", b"octets\0", ReplaceBody(b"octets\0")),
            (b"q", b"odd\xff\0", Quarantine("odd\ufffd")),
        ):
            self.assertEqual(parse(letter, contents), change)

    def test_badChanges(self) -> None:
        """Missing parts, too many, and names that are none."""
        for letter, contents in (
            (b"h", b""),
            (b"h", b"A\0"),
            (b"h", b"A\0b\0c\0"),
            (b"h", b"\0b\0"),
            (b"h", b"A b\0c\0"),
            (b"h", b"A:\0c\0"),
            (b"h", b"A\r\nB\0c\0"),
            (b"i", b"\0\0"),
            (b"m", b"\0\0\0\x01A"),
            (b"e", b""),
            (b"e", b"\0\0"),
            (b"+", b"a\0b\0c\0"),
            (b"-", b"a\0b\0"),
            (b"q", b"a\0b\0"),
            (b"?", b""),
            (b"C", b""),
        ):
            self.assertRaises(MilterError, parse, letter, contents)

    @settings(max_examples=500, deadline=None)
    @given(st.sampled_from([bytes([each]) for each in LETTERS]), st.binary(max_size=60))
    def test_anything(self, letter: bytes, contents: bytes) -> None:
        """Any packet means something or is an error; nothing else is raised."""
        try:
            answer = parse(letter, contents)
        except MilterError:
            return
        if isinstance(answer, ReplyCode):
            self.assertGreaterEqual(answer.reply.code, 400)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=2), st.text("045.17 -\r\n%x\0", max_size=60))
    def test_anyReplyCode(self, head: bytes, text: str) -> None:
        """Whatever a reply code holds, what is sent is one well-formed reply."""
        try:
            answer = parse(b"y", head + text.encode())
        except MilterError:
            return
        assert isinstance(answer, ReplyCode)
        lines = answer.reply.wire.split(b"\r\n")
        self.assertEqual(lines.pop(), b"")
        for at, line in enumerate(lines):
            self.assertRegex(line, rb"^[45][0-9][0-9][ -][45]\.[0-9]+\.[0-9]+ ")
            self.assertEqual(line[3:4], b" " if at == len(lines) - 1 else b"-")
