"""DKIM signatures: the hash of a body that goes by, the header fields, the field that is made.

What they must be is what dkimpy makes of them, and what it verifies.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache

import dkim
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from dkim.canonicalization import Relaxed
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.message.dkim import (
    NEVER_SIGNED,
    OVERSIGNED,
    SIGNED,
    BodyHash,
    Identity,
    relaxedField,
    select,
    signature,
)
from submitd.message.dkimkeys import SigningKey, recordText
from submitd.message.header import Field, Header

WHO = Identity("example.com", "s1")

# Octets that matter, runs of them, and some that do not.
BODIES = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\r", b"\n", b"a", b"\xff", b".", b"\r\n" * 5, b" \t "])
).map(b"".join)
LINES = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\r\n\r\n", b"word", b"\xc3\xa9", b"  ", b"\t\r\n"])
).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=8)
VALUES = st.lists(
    st.sampled_from([b" ", b"\t", b"a", b"B", b"\r\n ", b"\r\n\t", b"\xc3\xa9", b";", b"  "]),
    max_size=12,
).map(b"".join)


@cache
def keys() -> tuple[SigningKey, ...]:
    """One of each kind."""
    return (
        SigningKey(rsa.generate_private_key(65537, 2048)),
        SigningKey(ed25519.Ed25519PrivateKey.generate()),
    )


def cut(octets: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Octets in pieces, some of them empty."""
    places = sorted(min(each, len(octets)) for each in cuts)
    ends = [*places, len(octets)]
    return [octets[begin:end] for begin, end in zip([0, *places], ends, strict=True)]


def hashOf(pieces: Iterable[bytes]) -> bytes:
    """What the body is hashed to."""
    made = BodyHash()
    for piece in pieces:
        made.update(piece)
    return made.digest()


def expected(body: bytes) -> bytes:
    """What dkimpy makes of a body as SMTP carries it: whole lines."""
    whole = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    return hashlib.sha256(Relaxed.canonicalize_body(whole)).digest()


def signed(message: bytes, **tags: int) -> bytes:
    """A message with a signature of each key in front."""
    section, _, body = message.partition(b"\r\n\r\n")
    selection = select(Header(section + b"\r\n").fields)
    made = [signature(WHO, key, selection, hashOf([body]), **tags) for key in keys()]
    return b"".join(made) + message


def verifies(message: bytes, index: int) -> bool:
    """Whether dkimpy verifies a signature of a message; the first is index 0."""
    key = keys()[index]
    verifier = dkim.DKIM(message, minkey=1024)
    found: bool = verifier.verify(index, lambda name, timeout: recordText(key.public).encode())
    return found


class BodyHashTests(SynchronousTestCase):
    """The relaxed form of a body, in pieces."""

    @settings(deadline=None, max_examples=400)
    @given(BODIES, CUTS)
    @example(b"", [])
    @example(b"\r\n", [1])
    @example(b" \r\n \r\n", [1, 3])
    @example(b"a \r\n\r\n b\t\tc\r\n\r\n", [1, 2, 3, 4, 5, 6, 7])
    @example(b"a\r\n\n\r\n", [])
    @example(b"a \r", [2])
    def test_asDkimpy(self, body: bytes, cuts: list[int]) -> None:
        """Any body in any pieces has the hash that dkimpy gives it."""
        self.assertEqual(hashOf(cut(body, cuts)), expected(body))

    @settings(deadline=None, max_examples=200)
    @given(LINES)
    def test_octetByOctet(self, body: bytes) -> None:
        """Each octet may come alone."""
        self.assertEqual(hashOf(body[at : at + 1] for at in range(len(body))), expected(body))

    def test_manyLineEnds(self) -> None:
        """A million empty lines are counted, not kept; those behind the text are left out."""
        lines = b"\r\n" * 1_000_000
        made = BodyHash()
        for piece in (b"a\r\n", lines, b"b\r\n", lines):
            made.update(piece)
        self.assertLess(len(made._rest), 3)
        self.assertEqual(made.digest(), hashlib.sha256(b"a\r\n" + lines + b"b\r\n").digest())

    def test_bounded(self) -> None:
        """Whatever a body ends with, two octets at most are kept between pieces."""
        for piece in (b" " * 10_000, b"\r" * 10_000, b"\t\r\n" * 10_000, b" \r" * 10_000, b"a\n"):
            made = BodyHash()
            for _ in range(3):
                made.update(piece)
                self.assertLessEqual(len(made._rest), 2)
            self.assertEqual(made.digest(), expected(piece * 3))


class FieldTests(SynchronousTestCase):
    """The relaxed form of a header field, and the choice of fields."""

    @settings(deadline=None, max_examples=200)
    @given(st.sampled_from([b"Subject", b"X-a", b"FROM"]), VALUES)
    def test_asDkimpy(self, name: bytes, value: bytes) -> None:
        """A field is what dkimpy makes of it."""
        raw = name + b":" + value + b"\r\n"
        [(theirName, theirs)] = Relaxed.canonicalize_headers([(name, value + b"\r\n")])
        self.assertEqual(relaxedField(Field(raw)), theirName + b":" + theirs)

    def test_example(self) -> None:
        """The example of RFC 6376 3.4.5."""
        self.assertEqual(relaxedField(Field(b"A: X\r\n")), b"a:X\r\n")
        self.assertEqual(relaxedField(Field(b"B : Y\t\r\n\tZ  \r\n")), b"b:Y Z\r\n")

    def test_fromTheBottomUp(self) -> None:
        """Of several fields of a name the lowest one is signed first (RFC 6376 5.4.2)."""
        header = Header(b"To: 1\r\nX: 2\r\nTo: 3\r\n")
        chosen = select(header.fields, ["x", "to"], ["to"])
        self.assertEqual(chosen.names, ("x", "to", "to", "to"))
        self.assertEqual([field.value for field in chosen.fields], [b"2", b"3", b"1"])

    def test_onlyWhatIsThere(self) -> None:
        """A field that is not there is listed when another one is not to be added."""
        chosen = select(Header(b"From: a@example.com\r\n").fields, ["from", "cc"], ["subject"])
        self.assertEqual(chosen.names, ("from", "subject"))

    def test_lists(self) -> None:
        """From is signed and oversigned, and what changes on the way is not."""
        self.assertIn("from", SIGNED)
        self.assertTrue(set(OVERSIGNED) <= set(SIGNED))
        self.assertFalse(NEVER_SIGNED & {*SIGNED, *OVERSIGNED})


class SignatureTests(SynchronousTestCase):
    """The field DKIM-Signature."""

    MESSAGE = b"From: a@example.com\r\nSubject: x\r\nTo: b@example.org\r\n\r\nHello \r\n\r\n"

    @settings(deadline=None, max_examples=30)
    @given(VALUES, VALUES, LINES)
    def test_verifies(self, subject: bytes, other: bytes, body: bytes) -> None:
        """dkimpy verifies what was signed, whatever the message is, with both kinds of keys."""
        section = b"Subject:" + re.sub(rb"\r\n[ \t]*(?=\r\n|$)", b"", subject) + b"x\r\n"
        section += b"From: a@example.com\r\nX-Other:" + other.replace(b"\r\n", b"") + b"y\r\n"
        message = signed(section + b"\r\n" + body + (b"" if body.endswith(b"\r\n") else b"\r\n"))
        for index in range(2):
            self.assertTrue(verifies(message, index))

    def test_changed(self) -> None:
        """A change to the text, the subject, or another From breaks both signatures."""
        message = signed(self.MESSAGE)
        for before, after in (
            (b"Hello", b"Hallo"),
            (b"Subject: x", b"Subject: y"),
            (b"From: a@", b"From: evil@example.org\r\nFrom: a@"),
            (b"To: b@", b"Cc: c@example.org\r\nTo: b@"),
        ):
            for index in range(2):
                self.assertTrue(verifies(message, index))
                self.assertFalse(self.quietly(message.replace(before, after), index))

    def quietly(self, message: bytes, index: int) -> bool:
        """As ``verifies``, where a hash that differs is an exception."""
        try:
            return verifies(message, index)
        except dkim.ValidationError:
            return False

    def test_whiteSpace(self) -> None:
        """What relays do to white space breaks nothing."""
        message = signed(self.MESSAGE).replace(b"Subject: x", b"subject:\r\n   x ")
        for index in range(2):
            self.assertTrue(verifies(message.replace(b"Hello ", b"Hello"), index))

    def test_field(self) -> None:
        """It is ASCII, in short lines, has all tags, and nothing behind the signature."""
        field = signed(self.MESSAGE, signed=1_700_000_000, expires=1_700_003_600)
        field = field[: field.index(b"From: ")]
        rsaField, edField = re.split(rb"(?<=\r\n)(?=DKIM)", field)
        for made, algorithm in ((rsaField, b"rsa-sha256"), (edField, b"ed25519-sha256")):
            self.assertTrue(made.isascii())
            self.assertLessEqual(max(map(len, made.split(b"\r\n"))), 78)
            value = Field(made).value
            tags = dict(part.strip().split(b"=", 1) for part in value.split(b";"))
            self.assertEqual(
                [tags[name] for name in (b"v", b"a", b"c", b"d", b"s", b"t", b"x")],
                [
                    *(b"1", algorithm, b"relaxed/relaxed", b"example.com", b"s1"),
                    *(b"1700000000", b"1700003600"),
                ],
            )
            self.assertEqual(tags[b"h"].count(b"from"), 2)
            self.assertTrue(base64.b64decode(tags[b"b"].replace(b" ", b"")))
            self.assertEqual(list(tags)[-1], b"b")

    def test_noTimes(self) -> None:
        """Without times there are no such tags."""
        self.assertNotRegex(signed(self.MESSAGE).partition(b"From: ")[0], rb"[ ;][tx]=")

    def test_rfc8463(self) -> None:
        """The example of RFC 8463 A: its Ed25519 key makes another signature of the same form."""
        seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
        key = SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
        public = "k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
        self.assertEqual(recordText(key.public), f"v=DKIM1; {public}")
