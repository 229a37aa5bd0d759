"""The header section of a message, as policies may change it (RFC 5322 2.2).

:class:`Header` cuts the section into fields and keeps the octets of each: what nobody touches comes
out exactly as it came in, and a section without a change is the same object.  Nothing is decoded or
normalized.  A field that is added must be whole lines.

It takes any octets and never raises for them.  A line that is no field is a field without a name;
:attr:`Header.isMalformed` tells whether there is one, or anything else that two readers could take
for different fields.

The work is linear in the octets, which the caller bounds, and so are the lines: :data:`MAX_LINES`.
No input and no output, the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_LINES = 10_000
"""Lines of a header section; one with more is refused before it is cut into fields."""

# RFC 5322 2.2.3: a line that begins with white space belongs to the field above it.
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_FOLD = re.compile(rb"\r\n(?=[ \t])")

# RFC 5322 2.2: field-name = 1*ftext, ftext = %d33-57 / %d59-126, ":" follows at once.
# Less than RFC 5322 4 (obsolete syntax): no white space before the colon, and no folded line of
# white space alone, which some readers take for the end of the header section.
# More than 2.2: octets above 127 (RFC 6532) and controls in the body; lines of any length.
# The groups are the field and its name.  Only where a line begins: tried at each octet of a long
# line, a search would be quadratic.
_FIELD = re.compile(
    rb"(?<![^\n])"
    rb"(([!-9;-~][!-9;-~]*+):[^\r\n\0]*+\r\n(?:[ \t][ \t]*+[^\r\n\0 \t][^\r\n\0]*+\r\n)*)"
)


class Field:
    """One header field; equal to another with the same octets.

    :param raw: its octets, CRLF at the end included.
    :param name: its name in lower case, without white space at the end; empty where there is none;
        read from the octets where it is not known.
    """

    __slots__ = ("name", "raw")

    def __init__(self, raw: bytes, name: bytes | None = None) -> None:
        self.raw = raw
        self.name = _nameOf(raw) if name is None else name

    @property
    def value(self) -> bytes:
        """What follows the colon, unfolded (RFC 5322 2.2.3), without white space around it."""
        return _FOLD.sub(b"", self.raw.partition(b":")[2]).strip(b" \t\r\n")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Field) and self.raw == other.raw

    def __repr__(self) -> str:
        return f"Field({self.raw!r})"


def _nameOf(raw: bytes) -> bytes:
    name, colon, _ = raw.partition(b":")
    # A colon behind a fold is not the name's.
    return name.rstrip(b" \t").lower() if colon and b"\n" not in name else b""


class Header:
    """The header section of one message.

    :param octets: the whole section, without the empty line behind it.
    """

    def __init__(self, octets: bytes) -> None:
        self._octets: bytes | None = octets
        self._made: list[Field] | None = None
        self._index: dict[bytes, list[bytes]] | None = None
        self._isMalformed = False  # known where there is an index

    @property
    def _fields(self) -> list[Field]:
        # Made when they are asked for: most messages are only asked for the fields of some names.
        if self._made is None:
            self._made = [Field(each) for each in _cut(self.octets)]
        return self._made

    @property
    def octets(self) -> bytes:
        """The section as it is now."""
        if self._octets is None:
            self._octets = b"".join([field.raw for field in self._fields])
        return self._octets

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields, in order."""
        return tuple(self._fields)

    def named(self, name: bytes) -> list[Field]:
        """The fields of a name, in order, as they are now; new objects each time.

        :param name: in lower case.
        """
        index = self._read() if self._index is None else self._index
        found = index.get(name)
        return [Field(raw, name) for raw in found] if found else []

    @property
    def isMalformed(self) -> bool:
        """Whether a reader could see other fields in it than we do."""
        if self._index is None:
            self._read()
        return self._isMalformed

    def _read(self) -> dict[bytes, list[bytes]]:
        """Find the fields of each name, and whether it is malformed: both in one go."""
        octets = self.octets
        whole = octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"
        found = _FIELD.findall(whole)
        self._isMalformed = sum([len(raw) for raw, _ in found]) != len(whole)
        # Put in front of a line that begins with white space, a field would take it for its own.
        if self._made is not None or self._isMalformed or whole is not octets:
            found = [(field.raw, field.name) for field in self._fields]
        index: dict[bytes, list[bytes]] = {}
        for raw, name in found:
            index.setdefault(name.lower(), []).append(raw)
        self._index = index
        return index

    def malformedField(self) -> Field | None:
        """The first field that makes it malformed."""
        for field in self._fields:
            if not _FIELD.fullmatch(field.raw.removesuffix(b"\r\n") + b"\r\n"):
                return field
        return None

    # Changes.

    def append(self, field: bytes) -> None:
        """Put a field behind all others.

        :param field: whole lines, each ended with CRLF.
        :raise ValueError: when it is not exactly one well-formed field.
        """
        added = _checked(field)
        if self._fields and not self._fields[-1].raw.endswith(b"\r\n"):
            self._fields[-1].raw += b"\r\n"
        self._fields.append(added)
        self._changed()

    def prepend(self, field: bytes) -> None:
        """Put a field in front of all others; as :meth:`append`."""
        self._fields.insert(0, _checked(field))
        self._changed()

    def insert(self, at: int, field: bytes) -> None:
        """Put a field at a place, behind all others where there are not so many; as :meth:`append`.

        :param at: how many fields are to stand above it.
        """
        if at >= len(self._fields):
            self.append(field)
        else:
            self._fields.insert(at, _checked(field))
            self._changed()

    def change(self, name: bytes, number: int, field: bytes) -> bool:
        """Put another field in the place of one; as :meth:`append`.

        :param name: in lower case.
        :param number: which of those of this name, from 1 on.
        :param field: the other, or ``b""`` for none.
        :return: whether there is one.
        """
        places = [at for at, each in enumerate(self._fields) if each.name == name]
        if not places[number - 1 : number]:
            return False
        at = places[number - 1]
        self._fields[at : at + 1] = [_checked(field)] if field else []
        self._changed()
        return True

    def rewrite(self, name: bytes, rewritten: Callable[[Field], bytes]) -> None:
        """Put other fields in the places of those of a name; as :meth:`append`.

        :param name: in lower case.
        :param rewritten: gives the new field for an old one; its own octets for no change.
        """
        for at, field in enumerate(self._fields):
            if field.name == name:
                octets = rewritten(field)
                if octets != field.raw:
                    self._fields[at] = _checked(octets)
                    self._changed()

    def remove(self, name: bytes) -> int:
        """Take out all fields of a name.

        :param name: in lower case.
        :return: how many there were.
        """
        found = len(self.named(name))
        if found:
            self._made = [field for field in self._fields if field.name != name]
            self._changed()
        return found

    def _changed(self) -> None:
        self._octets = None
        self._index = None


def _cut(octets: bytes) -> list[bytes]:
    """The octets of each field."""
    *whole, last = _FIELD_END.split(octets)
    fields = [each + b"\r\n" for each in whole]
    if last:  # a message in chunks may end anywhere (RFC 3030)
        fields.append(last)
    return fields


def _checked(field: bytes) -> Field:
    if _FIELD.fullmatch(field) is None:
        raise ValueError("a header field is its name, a colon, and whole lines ended with CRLF")
    return Field(field)
