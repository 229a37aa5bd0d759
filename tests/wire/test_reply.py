"""Replies: what we say, and reading what another server says."""

from __future__ import annotations

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire import reply
from submitd.wire.errors import Refused
from submitd.wire.reply import Replies, Reply, ReplyParser, ReplySyntaxError
from tests.wire.splits import allSplits, chunked, sizes

quickly = settings(deadline=None, max_examples=300)


class ReplyTests(SynchronousTestCase):
    """A reply and its octets."""

    def test_wire(self) -> None:
        """Each line has the code and the status, the last one with a space (RFC 5321 4.2)."""
        self.assertEqual(Reply(250, "2.0.0", "Ok").wire, b"250 2.0.0 Ok\r\n")
        self.assertEqual(Reply(250, "", ["a", "b"]).wire, b"250-a\r\n250 b\r\n")
        self.assertEqual(Reply(250, "2.0.0", "a\nb").wire, b"250-2.0.0 a\r\n250 2.0.0 b\r\n")
        self.assertEqual(Reply(250, "", []).wire, b"250 \r\n")

    def test_nothingUnprintableLeaves(self) -> None:
        """A text that quotes a client cannot begin a line of its own or move a cursor."""
        said = Reply(550, "5.1.1", ["no\r\n250 ok", "\x1b[2J\0é"])
        self.assertEqual(said.wire, b"550-5.1.1 no??250 ok\r\n550 5.1.1 ?[2J??\r\n")

    def test_longLine(self) -> None:
        """No line is longer than RFC 5321 4.5.3.1.5 allows."""
        self.assertLessEqual(len(Reply(250, "2.0.0", "x" * 2000).wire), 512)

    def test_kinds(self) -> None:
        """The first digit says whether it went well and whether to try again."""
        self.assertTrue(reply.START_MAIL_INPUT.isPositive)
        self.assertFalse(reply.LOCAL_ERROR.isPositive)
        self.assertTrue(reply.LOCAL_ERROR.isTransient)
        self.assertFalse(reply.SYNTAX.isTransient)

    def test_catalogue(self) -> None:
        """Each named reply has a status of its own class where one belongs (RFC 2034)."""
        named = [value for value in vars(reply).values() if isinstance(value, Reply)]
        self.assertGreater(len(named), 30)
        for each in named:
            if each.code // 100 == 3:
                self.assertEqual(each.status, "")
            elif each.code != 220 or each.status:
                self.assertEqual(each.status[0], str(each.code)[0], each)

    def test_badCode(self) -> None:
        """A code that SMTP does not have is a mistake of the program."""
        self.assertRaises(ValueError, Reply, 150, "", "")
        self.assertRaises(ValueError, Reply, 600, "", "")

    def test_replies(self) -> None:
        """Several replies leave in one piece, in their order."""
        both = Replies((Reply(250, "", "a"), Reply(550, "", "b")))
        self.assertEqual(both.wire, b"250 a\r\n550 b\r\n")


class RefusedTests(SynchronousTestCase):
    """The one exception."""

    def test_twoSides(self) -> None:
        """The cause is for the log and is not in the reply."""
        refused = Refused(reply.LOGIN_FAILED, "no such user")
        self.assertNotIn(b"no such user", refused.reply.wire)
        self.assertEqual(
            str(refused), "535 5.7.8 Authentication credentials invalid (no such user)"
        )
        self.assertEqual(str(Refused(reply.SYNTAX)).count("("), 0)

    def test_mustRefuse(self) -> None:
        """A refusal cannot say 250: that would lose a message."""
        self.assertRaises(ValueError, Refused, reply.OK)


class ReplyParserTests(SynchronousTestCase):
    """Replies of other servers."""

    def parse(self, chunks: list[bytes]) -> list[Reply]:
        """All replies in the chunks."""
        parser = ReplyParser()
        return [each for chunk in chunks for each in parser.feed(chunk)]

    def test_everySplit(self) -> None:
        """Replies of one and of several lines come out in order, however they are cut."""
        wire = (
            b"220 mx.example.net ESMTP\r\n250-mx.example.net\r\n250-SIZE 1000\r\n250 HELP\r\n"
            b"550-5.1.1 no\r\n550 5.1.1 such user\r\n354\r\n334 VXNlcm5hbWU6\r\n250-\r\n250 \r\n"
        )
        wanted = [
            Reply(220, "", "mx.example.net ESMTP"),
            Reply(250, "", ["mx.example.net", "SIZE 1000", "HELP"]),
            Reply(550, "5.1.1", ["no", "such user"]),
            Reply(354, "", ""),
            Reply(334, "", "VXNlcm5hbWU6"),
            Reply(250, "", ["", ""]),
        ]
        for chunks in allSplits(wire):
            self.assertEqual(self.parse(chunks), wanted)

    def test_status(self) -> None:
        """A status is split off when it is whole and of the code's class, and not otherwise."""
        for line, wanted in (
            (b"250 2.1.5 ok", Reply(250, "2.1.5", "ok")),
            (b"250 2.1.5", Reply(250, "2.1.5", "")),
            (b"250 5.1.5 ok", Reply(250, "", "5.1.5 ok")),
            (b"450 4.7.123 later", Reply(450, "4.7.123", "later")),
            (b"250 2.1.5.7 ok", Reply(250, "", "2.1.5.7 ok")),
            (b"250 2.1.5ok", Reply(250, "", "2.1.5ok")),
            (b"250 2.1 ok", Reply(250, "", "2.1 ok")),
            (b"354 3.1.5 go", Reply(354, "", "3.1.5 go")),
            (b"550-5.1.1 a\r\n550 b", Reply(550, "5.1.1", ["a", "b"])),
        ):
            self.assertEqual(self.parse([line + b"\r\n"]), [wanted])

    def test_foreignText(self) -> None:
        """UTF-8, broken UTF-8 and escape sequences become safe text."""
        (found,) = self.parse([b"550 gr\xc3\xbcn \xff\x1b[2J\0\r\n"])
        self.assertEqual(found.lines, ("gr?n ??[2J?",))

    def test_refused(self) -> None:
        """What is no reply is a typed error, wherever it is cut."""
        for wire in (
            b"hello\r\n",
            b"\r\n",
            b"25\r\n",
            b"2500 x\r\n",
            b"150 x\r\n",
            b"650 x\r\n",
            b"250_x\r\n",
            b"\xb2\xb5\xb0 x\r\n",
            b"250-a\r\n251 b\r\n",
            b"250 a\n250 b\n",
            b"250 a\rb\r\n",
            b"250 a\r\r\n",
            b" 250 a\r\n",
        ):
            for chunks in allSplits(wire):
                self.assertRaises(ReplySyntaxError, self.parse, chunks)

    def test_repliesBeforeMistake(self) -> None:
        """The 250 for a message is not lost, and the message not sent twice, for what follows."""
        error = self.assertRaises(ReplySyntaxError, self.parse, [b"250 kept\r\nnonsense\r\n"])
        self.assertEqual(error.replies, [Reply(250, "", "kept")])

    def test_bounded(self) -> None:
        """A server that talks without end is cut off: by line, by lines, by size."""
        longest = b"250 " + b"x" * (reply.MAX_REPLY_LINE - 4)
        for chunks in allSplits(longest[-1:] + b"\r\n"):
            self.assertEqual(len(self.parse([longest[:-1], *chunks])), 1)
        for wire in (
            longest + b"x\r\n",
            longest + b"x",
            b"250-x\r\n" * (reply.MAX_REPLY_LINES + 1),
            (b"250-" + b"x" * 994 + b"\r\n") * 66,
        ):
            self.assertRaises(ReplySyntaxError, self.parse, [wire])
        self.assertEqual(len(self.parse([b"250 x\r\n" * 2000])), 2000)

    @given(strategies.binary(max_size=60), sizes)
    @quickly
    def test_anything(self, data: bytes, cuts: list[int]) -> None:
        """Any octets give replies or the typed error, the same however they are cut."""

        def outcome(chunks: list[bytes]) -> list[Reply] | None:
            try:
                return self.parse(chunks)
            except ReplySyntaxError:
                return None

        self.assertEqual(outcome([data]), outcome(chunked(data, cuts)))

    @given(
        strategies.lists(
            strategies.builds(
                Reply,
                strategies.integers(200, 599),
                strategies.just(""),
                strategies.lists(strategies.text("ab .-é\t", max_size=9), min_size=1, max_size=3),
            ),
            max_size=4,
        ),
        sizes,
    )
    @quickly
    def test_roundTrip(self, replies: list[Reply], cuts: list[int]) -> None:
        """What a Reply writes is read back as the same Reply."""
        wire = b"".join(each.wire for each in replies)
        self.assertEqual(self.parse(chunked(wire, cuts)), replies)

    def test_roundTripWithStatus(self) -> None:
        """Every named reply is read back as itself."""
        for each in [value for value in vars(reply).values() if isinstance(value, Reply)]:
            self.assertEqual(self.parse([each.wire]), [each])
