"""The authentication protocol of Dovecot: what a client asks, and what the server answers.

Both sides say who they are at once; the server ends that with the mechanisms it has, and ``DONE``.
A question is a mechanism with its initial response under a number of the client's choice; an answer
names the number, and answers come in any order.  A command is a line, ended with LF, whose fields
stand between TABs; in a field U+0001 and a letter after it stand for what would break the line.

:class:`AnswerReader` takes octets however they are cut, and keeps :data:`MAX_LINE` of them at most;
commands that it does not know are passed over, as are fields.  What is none of the protocol is
:class:`TalkError`, whose text quotes nothing.

Dovecot's own description, "Dovecot Authentication Protocol", is of versions 1.1 to 1.3.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import attrs

MAX_LINE = 16_384
"""Octets of a line, its end included; Dovecot cuts off who sends it a longer one."""

MAX_ID = 2**32 - 1
"""The highest number of a question."""

PLAIN, OAUTHBEARER, XOAUTH2 = "PLAIN", "OAUTHBEARER", "XOAUTH2"

MECHANISMS = frozenset({PLAIN, OAUTHBEARER, XOAUTH2})
"""Those that can be asked with here; a server's others are not kept."""

# Dovecot sends more to who says 3 (mechanisms with channel binding) or 4, which nobody needs here.
_VERSION = b"VERSION\t1\t2\n"
_ANSWERS = frozenset({b"OK", b"FAIL", b"CONT"})
_NUMBER = re.compile(rb"[0-9]{1,10}")
_ESCAPED = re.compile(rb"\x01(.)", re.DOTALL)
_MEANS = {b"0": b"\0", b"1": b"\x01", b"t": b"\t", b"r": b"\r", b"n": b"\n"}


class TalkError(ValueError):
    """What came is none of the protocol."""


@attrs.frozen
class Answer:
    """What a server says to one question.

    :param verdict: ``OK``, ``FAIL`` or ``CONT``, which wants more.
    :param number: of the question.
    :param values: the fields by their names; one without a value is empty.
    """

    verdict: str
    number: int
    values: Mapping[str, bytes] = attrs.field(factory=dict)


def greeting(process: int) -> bytes:
    """What a client begins with.

    :param process: its own process id.
    """
    return _VERSION + b"CPID\t%d\n" % process


def question(number: int, mechanism: str, response: bytes) -> bytes:
    """Whether a login is good.

    Dovecot counts failures by the address of the client and has the next one wait, and all whose
    address it is not told are one client to it: it is told not to.

    :param response: the initial one.
    :raise ValueError: for one that is too long for a line.
    """
    line = b"AUTH\t%d\t%s\tservice=smtp\tsecured\tno-penalty\tresp=%s\n" % (
        number,
        mechanism.encode("ascii"),
        base64.b64encode(response),
    )
    if len(line) > MAX_LINE:
        raise ValueError(f"the question has more than {MAX_LINE} octets")
    return line


def acknowledgement(number: int) -> bytes:
    """That the reason of a failure has been read (RFC 7628 3.2.3), behind which ``FAIL`` comes."""
    return b"CONT\t%d\tAQ==\n" % number


def cancellation(number: int) -> bytes:
    """That nobody waits for an answer any more."""
    return b"CANCEL\t%d\n" % number


def plain(name: bytes, password: bytes) -> bytes:
    """The response of PLAIN (RFC 4616), for a name and a password without NUL."""
    return b"\0".join((b"", name, password))


def oauthBearer(name: bytes, token: bytes) -> bytes:
    """The response of OAUTHBEARER (RFC 7628), for a name and a token without controls."""
    # RFC 5801 4: saslname.
    identity = b"a=" + name.replace(b"=", b"=3D").replace(b",", b"=2C") if name else b""
    return b"n," + identity + b",\x01auth=Bearer " + token + b"\x01\x01"


def xoauth2(name: bytes, token: bytes) -> bytes:
    """The response of XOAUTH2, for a name and a token without controls."""
    return b"user=" + name + b"\x01auth=Bearer " + token + b"\x01\x01"


class AnswerReader:
    """Reads all that one server says over one connection.

    :ivar mechanisms: those of :data:`MECHANISMS` that it has, once it has greeted; ``None`` before.
    """

    def __init__(self) -> None:
        self.mechanisms: frozenset[str] | None = None
        self._octets = b""
        self._listed: set[str] = set()
        self._isFirst = True

    def feed(self, data: bytes) -> list[Answer]:
        """Take some octets.

        :return: the answers that are whole now.
        :raise TalkError: when something is none of the protocol; the reader is of no more use then.
        """
        *lines, self._octets = (self._octets + data).split(b"\n")
        if any(len(line) >= MAX_LINE for line in (*lines, self._octets)):
            raise TalkError(f"a line has more than {MAX_LINE} octets")
        return [answer for line in lines if (answer := self._read(line)) is not None]

    def _read(self, line: bytes) -> Answer | None:
        name, *fields = line.split(b"\t")
        if self._isFirst:
            self._isFirst = False
            if name != b"VERSION" or fields[:1] != [b"1"]:
                raise TalkError("it does not speak Dovecot's authentication protocol, version 1")
        elif self.mechanisms is None:
            self._greeted(name, fields)
        elif name in _ANSWERS:
            return _answer(name, fields)
        return None

    def _greeted(self, name: bytes, fields: list[bytes]) -> None:
        if name in _ANSWERS:
            raise TalkError("an answer before the end of the greeting")
        if name == b"DONE":
            self.mechanisms = frozenset(self._listed)
        elif name == b"MECH" and fields:
            self._listed |= MECHANISMS & {fields[0].decode("ascii", "replace").upper()}


def _answer(verdict: bytes, fields: list[bytes]) -> Answer:
    if not fields or _NUMBER.fullmatch(fields[0]) is None:
        raise TalkError("an answer to no question")
    values: dict[str, bytes] = {}
    # What follows CONT is a challenge, in base64, and nobody reads it.
    for field in fields[1:] if verdict != b"CONT" else ():
        name, _, value = field.partition(b"=")
        values.setdefault(name.decode("ascii", "replace"), _unescape(value))
    return Answer(verdict.decode("ascii"), int(fields[0]), values)


def _unescape(value: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: _MEANS.get(found[1], found[1]), value)
