"""DKIM with any message: the hash does not depend on the cut, the field is whole lines of ASCII."""

from __future__ import annotations

import hashlib
import re

from submitd.message.dkim import BodyHash, Identity, relaxedField, select, signature
from submitd.message.header import Header
from tests.fuzz.target import Target, cuttings, same
from tests.fuzz.test_wire import ODD, isBare


class FakeKey:
    """Signs with the octets' hash."""

    algorithm = "rsa-sha256"

    def sign(self, octets: bytes) -> bytes:
        """Make it as long as a signature of RSA."""
        assert octets.isascii() or octets
        return hashlib.sha256(octets).digest() * 8


def message(data: bytes) -> None:
    """The hash of the body as RFC 6376 3.4.4 has it, and one well-formed field."""
    head, _, body = data.partition(b"\r\n\r\n")
    digest = same([_digest(chunks) for chunks in cuttings(body)])
    if not isBare(body):
        assert digest == hashlib.sha256(_relaxed(body)).digest()
    header = Header(head + b"\r\n")
    selection = select(header.fields)
    field = signature(Identity("b.example", "s"), FakeKey(), selection, digest, 1, 2)
    made = Header(field)
    assert len(made.fields) == 1 and not made.isMalformed and field.isascii()
    assert all(len(line) <= 78 for line in field.split(b"\r\n"))
    names = re.sub(rb"\s", b"", re.search(rb"\sh=([^;]*);", field)[1]).split(b":")  # type: ignore
    assert [each.decode() for each in names] == list(selection.names)
    for one in filter(lambda field: field.name, header.fields):
        assert relaxedField(one).endswith(b"\r\n") and relaxedField(one).count(b"\r\n") == 1


def _digest(chunks: list[bytes]) -> bytes:
    made = BodyHash()
    for chunk in chunks:
        made.update(chunk)
        assert len(made._rest) <= 2
    return made.digest()


def _relaxed(body: bytes) -> bytes:
    """The relaxed form, line by line."""
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    lines = [re.sub(rb"[ \t]+", b" ", line).removesuffix(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


DKIM = Target(
    "dkim",
    message,
    [
        *(
            b"From: a@b.example\r\n",
            b"Subject: x\r\n",
            b"X: \r\n",
            b"\r\n\r\n",
            b"\r\n",
            b" ",
            b"\t",
        ),
        *(
            b"  \r\n",
            b"\t\r\n\r\n",
            b"text",
            b" text ",
            b".\r\n",
            b" " * 30,
            b"x" * 900,
            b"\r\n" * 50,
        ),
        *(b"From: c@d.example\r\n" * 20, b"No field\r\n", b" folded\r\n"),
        *ODD,
    ],
    80,
)

DkimTests = DKIM.tests(__name__)
