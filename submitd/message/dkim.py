"""DKIM signatures (RFC 6376): the hash of a body that goes by, and the header field.

Header and body are signed in *relaxed* form, which survives what relays do to white space.
:class:`BodyHash` takes the body in any pieces and keeps a few octets between them, whatever the
body is made of; the header section is in memory.  :func:`signature` makes one ``DKIM-Signature``
field; it is ASCII always (RFC 8616 5: A-labels may stand in any message).

A body that does not end with CRLF is signed as if it did: that is how SMTP carries it on.

The standard library alone, no input and no output; the key is something that signs octets.  Nothing
is raised for any octets.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import attrs

from submitd.message.header import Field

# RFC 6376 5.4.1, with what mailing lists and RFC 8058 add.
SIGNED = (
    *("from", "reply-to", "subject", "date", "to", "cc", "sender", "message-id"),
    *("resent-date", "resent-from", "resent-to", "resent-cc", "resent-sender", "resent-message-id"),
    *("in-reply-to", "references", "mime-version", "content-type", "content-transfer-encoding"),
    *("content-id", "content-description", "list-id", "list-help", "list-unsubscribe"),
    *("list-unsubscribe-post", "list-subscribe", "list-post", "list-owner", "list-archive"),
)
"""Header fields that are signed where they are there."""

OVERSIGNED = (
    *("from", "reply-to", "subject", "date", "to", "cc", "sender", "message-id"),
    *("mime-version", "content-type", "content-transfer-encoding"),
)
"""Those of which another one, added on the way, breaks the signature (RFC 6376 5.4.2)."""

NEVER_SIGNED = frozenset(("return-path", "received", "bcc", "resent-bcc", "dkim-signature"))
"""Those that are changed, added or removed on the way (RFC 6376 5.4)."""

MAX_SIGNED = 200
"""Fields of one message that are signed; there are a few dozen names."""

_MANY = 4096
_LINE = 76


class Key(Protocol):
    """What a signature is made with."""

    algorithm: str

    def sign(self, octets: bytes) -> bytes: ...


class BodyHash:
    """The hash of a body in relaxed form (RFC 6376 3.4.4)."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        # White space and CR at the end: what they mean is seen from what follows.
        self._rest = b""
        # Line ends that are left out when nothing follows.
        self._lines = 0
        self._last = b""
        self._isEmpty = True

    def update(self, octets: bytes) -> None:
        """Take the next octets; linear, and 64 KiB take 0.1 to 1 ms."""
        self._last = (self._last + octets[-2:])[-2:]
        self._take(self._rest + octets)

    def _take(self, octets: bytes) -> None:
        end = octets[:-1] if octets.endswith(b"\r") else octets
        end = end.rstrip(b" \t")
        rest = octets[len(end) :]
        self._rest = (b" " if rest[:1] in (b" ", b"\t") else b"") + (
            b"\r" if rest.endswith(b"\r") else b""
        )
        if end:
            self._add(_relaxed(end).replace(b" \r\n", b"\r\n"))

    def _add(self, octets: bytes) -> None:
        """Hash all but the line ends at the end; no line end is ever cut in two here."""
        size = len(octets) - _lineEndsAtEnd(octets)
        if size:
            while self._lines:
                many = min(self._lines, _MANY)
                self._hash.update(b"\r\n" * many)
                self._lines -= many
            self._hash.update(octets[:size])
            self._isEmpty = False
        self._lines += (len(octets) - size) // 2

    def digest(self) -> bytes:
        """The hash of the whole body; to be asked once, at its end."""
        if self._last not in (b"", b"\r\n"):
            self._take(self._rest + b"\r\n")
        if not self._isEmpty:
            self._hash.update(b"\r\n")
        return self._hash.digest()


def _relaxed(octets: bytes) -> bytes:
    """Each run of white space is one space: halved as often as need be, and faster than re.sub."""
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets


def _lineEndsAtEnd(octets: bytes) -> int:
    """The octets of the CRLFs at the end."""
    size = len(octets) - len(octets.rstrip(b"\r\n"))
    found = 2 * octets.count(b"\r\n", len(octets) - size)
    if found == size:
        return size
    # A bare CR or LF among them, which only BINARYMIME may have.
    end = len(octets)
    while octets.endswith(b"\r\n", 0, end):
        end -= 2
    return len(octets) - end


def relaxedField(field: Field) -> bytes:
    """A header field in relaxed form, CRLF at the end (RFC 6376 3.4.2)."""
    return b"%b:%b\r\n" % (field.name, _relaxed(field.value).strip(b" "))


@attrs.frozen
class Selection:
    """Which header fields of a message are signed.

    :ivar names: the tag h=.
    :ivar fields: those of them that are there, in the order of ``names``.
    """

    names: tuple[str, ...]
    fields: tuple[Field, ...]


def select(
    fields: Iterable[Field], signed: Sequence[str] = SIGNED, oversigned: Sequence[str] = OVERSIGNED
) -> Selection:
    """Choose the header fields to sign: each one of a name, from the bottom up (RFC 6376 5.4.2).

    :param fields: those of the message, in order.
    :param signed: names in lower case.
    :param oversigned: names, in lower case, which are listed once more than they are there.
    """
    found: dict[str, list[Field]] = {}
    for field in fields:
        found.setdefault(field.name.decode("latin-1"), []).append(field)
    names: list[str] = []
    chosen: list[Field] = []
    for name in dict.fromkeys((*signed, *oversigned)):
        there = found.get(name, [])
        chosen += reversed(there)
        names += [name] * (len(there) + (name in oversigned))
    return Selection(tuple(names), tuple(chosen))


@attrs.frozen
class Identity:
    """Who signs.

    :ivar domain: the tag d=, in A-labels.
    :ivar selector: the tag s=, in A-labels.
    """

    domain: str
    selector: str


def signature(
    who: Identity,
    key: Key,
    selection: Selection,
    bodyHash: bytes,
    signed: int | None = None,
    expires: int | None = None,
) -> bytes:
    """A ``DKIM-Signature`` field, whole lines.

    :param bodyHash: what :meth:`BodyHash.digest` gave.
    :param signed: when, in seconds since 1970, for the tag t=; ``None`` for no such tag.
    :param expires: when it ends to be valid, for the tag x=.
    """
    tags = [
        *("v=1;", f"a={key.algorithm};", "c=relaxed/relaxed;"),
        *(f"d={who.domain};", f"s={who.selector};"),
    ]
    if signed is not None:
        tags.append(f"t={signed};")
    if expires is not None:
        tags.append(f"x={expires};")
    tags.append(f"bh={_base64(bodyHash)};")
    lines = list(_folded("DKIM-Signature:", tags, " "))
    names = [f"{name}:" for name in selection.names[:-1]] + [f"{selection.names[-1]};"]
    lines += _folded(f" h={names[0]}", names[1:], "")
    unsigned = "\r\n".join([*lines, " b="])
    field = relaxedField(Field(unsigned.encode("ascii")))
    octets = b"".join(map(relaxedField, selection.fields)) + field.removesuffix(b"\r\n")
    made = _base64(key.sign(octets))
    cut = [made[at : at + _LINE - 3] for at in range(0, len(made), _LINE - 3)]
    return (unsigned + "\r\n ".join(cut) + "\r\n").encode("ascii")


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _folded(line: str, parts: Iterable[str], separator: str) -> Iterator[str]:
    """The parts with a separator between them, or a new line where one does not fit."""
    for part in parts:
        if len(line) + len(separator) + len(part) > _LINE:
            yield line
            line = f" {part}"
        else:
            line += separator + part
    yield line
