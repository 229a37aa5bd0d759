"""The policy delegation protocol."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire.policyrequest import (
    ATTRIBUTES,
    MAX_ANSWER,
    MAX_VALUE,
    Action,
    AnswerError,
    AnswerReader,
    formatRequest,
    headerField,
    refusal,
)


class RequestTests(SynchronousTestCase):
    """What is asked."""

    def test_empty(self) -> None:
        """Every attribute is there, in its order; numbers are 0."""
        lines = formatRequest({}).split(b"\n")
        self.assertEqual(lines[-2:], [b"", b""])
        names = [line.partition(b"=")[0].decode() for line in lines[:-2]]
        self.assertEqual(names, list(ATTRIBUTES))
        self.assertIn(b"recipient_count=0", lines)
        self.assertIn(b"sender=", lines)

    def test_values(self) -> None:
        """Values stand behind their names, in UTF-8."""
        request = formatRequest({"sender": "jürgen@example.com", "size": 17})
        self.assertIn("\nsender=jürgen@example.com\n".encode(), request)
        self.assertIn(b"\nsize=17\n", request)

    def test_injection(self) -> None:
        """No value begins a line of its own, not even for a reader that knows Unicode's."""
        forged = "x\nsasl_username=root\r\x0b\x0c\x1c\x85\u2028\u2029\0\udc80y"
        request = formatRequest({"helo_name": forged})
        self.assertEqual(len(request.decode().splitlines()), len(ATTRIBUTES) + 1)
        self.assertIn(b"\nhelo_name=x?sasl_username=root?????????y\n", request)

    @settings(deadline=None, max_examples=100)
    @given(st.text(max_size=50))
    def test_anything(self, value: str) -> None:
        """Whatever a client says, the request has as many lines as attributes."""
        request = formatRequest({"helo_name": value, "sender": value})
        self.assertEqual(len(request.decode().splitlines()), len(ATTRIBUTES) + 1)

    def test_wrong(self) -> None:
        """A name that the protocol does not have, or a value without bounds, is refused."""
        self.assertRaises(ValueError, formatRequest, {"password": "x"})
        self.assertRaises(ValueError, formatRequest, {"sender": "x" * (MAX_VALUE + 1)})


class AnswerTests(SynchronousTestCase):
    """What comes back."""

    def test_cut(self) -> None:
        """An answer is read however it is cut; what else it says is passed over."""
        answer = b"reason=x y\naction=Reject 5.7.0  no way \n\n"
        for size in range(1, len(answer) + 1):
            reader = AnswerReader()
            found = []
            for at in range(0, len(answer), size):
                found.append(reader.feed(answer[at : at + size]))
            self.assertEqual(found[-1], Action("REJECT", "5.7.0  no way"))
            self.assertEqual([each for each in found[:-1] if each is not None], [])
            self.assertFalse(reader.hasBegun)

    def test_another(self) -> None:
        """One reader reads one answer after the other; CRLF is taken as well."""
        reader = AnswerReader()
        self.assertEqual(reader.feed(b"action=dunno\n\n"), Action("DUNNO"))
        self.assertIsNone(reader.feed(b"action=ok\r\n"))
        self.assertTrue(reader.hasBegun)
        self.assertEqual(reader.feed(b"\r\n"), Action("OK"))

    def test_atTheLimit(self) -> None:
        """An answer of the limit is taken wherever its end was cut; a longer one never is."""
        for more, end in ((0, b"\n\n"), (1, b"\n\n"), (0, b"\r\n\r\n"), (1, b"\r\n\r\n")):
            answer = b"action=".ljust(MAX_ANSWER + more, b"x") + end
            for cut in range(MAX_ANSWER - 2, len(answer) + 1):
                reader = AnswerReader()
                try:
                    found = reader.feed(answer[:cut]) or reader.feed(answer[cut:])
                except AnswerError:
                    found = None
                self.assertIs(found is None, bool(more), (cut, end))

    def test_nonsense(self) -> None:
        """What is no answer is an error, never an action."""
        for octets in (
            b"\n\n",
            b"\n",
            b"reason=x\n\n",
            b"action=\n\n",
            b"action=  \n\n",
            b"action\n\n",
            b"=ok\n\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"action=ok\naction=reject\n\n",
            b"action=ok\n\naction=ok\n\n",
            b"action=" + b"x" * MAX_ANSWER,
            b"a=b\n" * 3000,
        ):
            self.assertRaises(AnswerError, AnswerReader().feed, octets)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=60))
    def test_anyOctets(self, octets: bytes) -> None:
        """Any octets are an action, the begin of an answer, or an error."""
        try:
            action = AnswerReader().feed(octets)
        except AnswerError:
            return
        self.assertTrue(action is None or action.name)

    def test_octets(self) -> None:
        """Octets that are no UTF-8 are shown as such, and break nothing."""
        self.assertEqual(AnswerReader().feed(b"action=OK \xff\n\n"), Action("OK", "\ufffd"))


class RefusalTests(SynchronousTestCase):
    """Which replies actions are."""

    def test_refusals(self) -> None:
        """By the rules of access(5)."""
        for text, wire in (
            ("REJECT", b"554 5.7.1 Access denied"),
            ("REJECT go away", b"554 5.7.1 go away"),
            ("REJECT 5.1.8 no such domain", b"554 5.1.8 no such domain"),
            ("REJECT 4.1.8 no such domain", b"554 5.1.8 no such domain"),
            ("REJECT 5.1.8", b"554 5.1.8 Access denied"),
            ("DEFER", b"450 4.7.1 Try again later"),
            ("DEFER_IF_PERMIT 4.2.0 greylisted", b"450 4.2.0 greylisted"),
            ("450 later", b"450 4.7.1 later"),
            ("421 4.3.2 closing", b"421 4.3.2 closing"),
            ("550", b"550 5.7.1 Access denied"),
            ("571 Go away", b"571 5.7.1 Go away"),
            ("499", b"499 4.7.1 Try again later"),
            ("451", b"451 4.7.1 Try again later"),
            ("550 5.1.1extra", b"550 5.7.1 5.1.1extra"),
            ("REJECT f\xfcr\x07 immer", b"554 5.7.1 f?r? immer"),
        ):
            name, _, rest = text.partition(" ")
            reply = refusal(Action(name, rest))
            assert reply is not None
            self.assertEqual(reply.wire, wire + b"\r\n")

    def test_others(self) -> None:
        """What does not refuse is no reply."""
        for name in ("OK", "DUNNO", "200", "354", "4500", "600", "45", "HOLD", "FILTER"):
            self.assertIsNone(refusal(Action(name, "x")))


class FieldTests(SynchronousTestCase):
    """PREPEND."""

    def test_fields(self) -> None:
        """One line, in ASCII unless the message may have more."""
        self.assertEqual(headerField("X-A:b", False), b"X-A: b\r\n")
        self.assertEqual(headerField("X-A:  b c ", False), b"X-A: b c\r\n")
        self.assertEqual(headerField("X-A: \xfc\ny", False), b"X-A: ??y\r\n")
        self.assertEqual(headerField("X-A: \xfc", True), "X-A: \xfc\r\n".encode())

    def test_wrong(self) -> None:
        """No field is made of what is none."""
        for text in ("", "X-A", ": x", "X A: x", "X-\xfc: x", "X-A: " + "x" * 1000):
            self.assertRaises(ValueError, headerField, text, True)
