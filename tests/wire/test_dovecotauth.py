"""The authentication protocol of Dovecot."""

from __future__ import annotations

import base64
import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire import dovecotauth
from submitd.wire.dovecotauth import MAX_ID, MAX_LINE, Answer, AnswerReader, TalkError

# As Dovecot 2.3.19 says it.
GREETING = (
    b"VERSION\t1\t2\n"
    b"MECH\tPLAIN\tplaintext\n"
    b"MECH\tCRAM-MD5\tdictionary\tactive\n"
    b"MECH\tXOAUTH2\tplaintext\n"
    b"SPID\t12658\nCUID\t1\nCOOKIE\tf2e40b0b2fb8cfd6da2ecbb6a21d8c49\nDONE\n"
)


class SayingTests(SynchronousTestCase):
    """What a client says."""

    def test_greeting(self) -> None:
        """The version, and who it is."""
        self.assertEqual(dovecotauth.greeting(42), b"VERSION\t1\t2\nCPID\t42\n")

    def test_question(self) -> None:
        """One line; the response is its last field, for all behind it is passed over."""
        line = dovecotauth.question(MAX_ID, "PLAIN", dovecotauth.plain(b"alice", b"won\tder\n"))
        self.assertEqual(line[:-1].count(b"\n"), 0)
        command, number, mechanism, service, *flags, response = line[:-1].split(b"\t")
        self.assertEqual((command, number, mechanism), (b"AUTH", b"4294967295", b"PLAIN"))
        self.assertEqual((service, flags), (b"service=smtp", [b"secured", b"no-penalty"]))
        said = base64.b64decode(response.removeprefix(b"resp="))
        self.assertEqual(said, b"\0alice\0won\tder\n")

    def test_tooLong(self) -> None:
        """A line that would have the server end the connection is not made."""
        most = next(
            size
            for size in range(MAX_LINE, 0, -1)
            if len(base64.b64encode(b"x" * size)) + 53 <= MAX_LINE
        )
        self.assertLessEqual(len(dovecotauth.question(1, "PLAIN", b"x" * most)), MAX_LINE)
        error = self.assertRaises(
            ValueError, dovecotauth.question, 1, "PLAIN", b"secret" * MAX_LINE
        )
        self.assertNotIn("secret", str(error))

    def test_bearer(self) -> None:
        """A name is encoded as RFC 5801 has it; there may be none."""
        for name, said in (
            (b"alice", b"n,a=alice,\x01auth=Bearer t0k\x01\x01"),
            (b"a,b=c", b"n,a=a=2Cb=3Dc,\x01auth=Bearer t0k\x01\x01"),
            (b"", b"n,,\x01auth=Bearer t0k\x01\x01"),
        ):
            self.assertEqual(dovecotauth.oauthBearer(name, b"t0k"), said)
        said = dovecotauth.xoauth2(b"alice", b"t0k")
        self.assertEqual(said, b"user=alice\x01auth=Bearer t0k\x01\x01")

    def test_rest(self) -> None:
        """What else there is to say."""
        self.assertEqual(dovecotauth.acknowledgement(7), b"CONT\t7\tAQ==\n")
        self.assertEqual(dovecotauth.cancellation(7), b"CANCEL\t7\n")


class AnswerReaderTests(SynchronousTestCase):
    """What a server says."""

    def greeted(self) -> AnswerReader:
        """A reader behind the greeting."""
        reader = AnswerReader()
        self.assertEqual(reader.feed(GREETING), [])
        return reader

    def broken(self, *parts: bytes) -> str:
        """What is said of octets that are none of the protocol."""
        reader = AnswerReader()
        error = self.assertRaises(TalkError, lambda: [reader.feed(each) for each in parts])
        return str(error)

    def test_greeting(self) -> None:
        """The mechanisms count from DONE on; those that are not asked with are not kept."""
        reader = AnswerReader()
        reader.feed(GREETING[:-1])
        self.assertIsNone(reader.mechanisms)
        reader.feed(b"\n")
        self.assertEqual(reader.mechanisms, {"PLAIN", "XOAUTH2"})

    def test_answers(self) -> None:
        """Fields have values or none, and may be empty."""
        reader = self.greeted()
        said = b"OK\t1\tuser=al\x01tice\t\toriginal=a=b\nFAIL\t2\tnologin\nCONT\t3\teyJ9\n"
        self.assertEqual(
            reader.feed(said),
            [
                Answer("OK", 1, {"user": b"al\tice", "": b"", "original": b"a=b"}),
                Answer("FAIL", 2, {"nologin": b""}),
                Answer("CONT", 3),
            ],
        )

    def test_escapes(self) -> None:
        """What would break a line, and what needs no escape but has one."""
        [answer] = self.greeted().feed(b"OK\t1\tuser=\x010\x011\x01t\x01r\x01n\x01x\x01\xff\n")
        self.assertEqual(answer.values["user"], b"\0\x01\t\r\nx\xff")

    def test_firstCounts(self) -> None:
        """Of two fields with one name the first is Dovecot's own."""
        [answer] = self.greeted().feed(b"OK\t1\tuser=alice\tuser=eve\n")
        self.assertEqual(answer.values, {"user": b"alice"})

    def test_passedOver(self) -> None:
        """Newer servers may say more."""
        reader = self.greeted()
        self.assertEqual(reader.feed(b"CANCELLED\t1\n\nMECH\tPLAIN\nNEW\tx\x00\n"), [])
        [answer] = reader.feed(b"FAIL\t9\n")
        self.assertEqual(answer, Answer("FAIL", 9))

    def test_otherProtocol(self) -> None:
        """What else may listen there, and another version."""
        said = "it does not speak Dovecot's authentication protocol, version 1"
        for octets in (b"220 mail ESMTP\r\n", b"VERSION\t2\t0\n", b"VERSION\n", b"\n", b"DONE\n"):
            self.assertEqual(self.broken(octets), said)

    def test_tooEarly(self) -> None:
        """An answer while nothing can have been asked."""
        said = "an answer before the end of the greeting"
        self.assertEqual(self.broken(b"VERSION\t1\t1\nOK\t1\tuser=alice\n"), said)

    def test_noNumber(self) -> None:
        """An answer that names no question; what it says is not quoted."""
        for line in (b"OK", b"FAIL\t", b"OK\t-1\tuser=x", b"CONT\t\xb2\t", b"OK\t12345678901"):
            self.assertEqual(self.broken(GREETING, line + b"\n"), "an answer to no question")

    def test_endless(self) -> None:
        """A line without end, in the greeting and behind it, takes no more memory than a line."""
        for before in ((), (GREETING,)):
            self.assertIn("more than", self.broken(*before, *[b"x" * 1000] * 20))
        self.assertIn("more than", self.broken(b"VERSION\t1\t1\n" + b"x" * MAX_LINE + b"\n"))
        reader = self.greeted()
        longest = b"OK\t1\tuser=" + b"x" * (MAX_LINE - 11) + b"\n"
        self.assertEqual(len(longest), MAX_LINE)
        self.assertEqual(len(reader.feed(longest)), 1)

    @given(st.lists(st.integers(0, len(GREETING) + 30)))
    def test_cuts(self, cuts: list[int]) -> None:
        """However it is cut, it is the same."""
        octets = GREETING + b"OK\t1\tuser=alice\nFAIL\t2\tcode=x\n"
        at = [0, *sorted(min(each, len(octets)) for each in cuts), len(octets)]
        reader = AnswerReader()
        found = [
            answer
            for begin, end in itertools.pairwise(at)
            for answer in reader.feed(octets[begin:end])
        ]
        self.assertEqual(
            found, [Answer("OK", 1, {"user": b"alice"}), Answer("FAIL", 2, {"code": b"x"})]
        )

    @given(st.lists(st.binary(max_size=100)))
    def test_anything(self, parts: list[bytes]) -> None:
        """Whatever comes is read, or is a :class:`TalkError`."""
        for before in (b"", GREETING):
            reader = AnswerReader()
            try:
                for each in (before, *parts):
                    reader.feed(each)
            except TalkError:
                pass
