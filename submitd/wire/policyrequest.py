"""The policy delegation protocol of Postfix (SMTPD_POLICY_README): what is asked, and the answers.

A request and its answer are lines ``name=value``, ended with LF, and an empty line.  A value never
breaks its line: what is not printable in it becomes ``?``, whatever a client has said, so that no
attribute can be forged.

:class:`AnswerReader` takes octets however they are cut, up to :data:`MAX_ANSWER` for one answer;
what is none is :class:`AnswerError`.  :func:`refusal` makes a :class:`submitd.wire.reply.Reply` of
an action that refuses, by the rules of access(5): ``REJECT``, ``DEFER``, ``DEFER_IF_PERMIT``,
``4NN`` and ``5NN``, each with or without a text that begins with an enhanced status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from submitd.wire.reply import Reply

MAX_ANSWER = 8192
"""Octets of one answer, all its lines together."""

MAX_VALUE = 16 * 1024
"""Characters of one value; a login is the longest thing that a client can say (RFC 4954 4)."""

# Every attribute of Postfix 3.x, in the order in which it sends them.
ATTRIBUTES = (
    "request",
    "protocol_state",
    "protocol_name",
    "client_address",
    "client_name",
    "client_port",
    "reverse_client_name",
    "server_address",
    "server_port",
    "helo_name",
    "sender",
    "recipient",
    "recipient_count",
    "queue_id",
    "instance",
    "size",
    "etrn_domain",
    "stress",
    "sasl_method",
    "sasl_username",
    "sasl_sender",
    "ccert_subject",
    "ccert_issuer",
    "ccert_fingerprint",
    "ccert_pubkey_fingerprint",
    "encryption_protocol",
    "encryption_cipher",
    "encryption_keysize",
    "policy_context",
    "compatibility_level",
    "mail_version",
)

# What a server that counts must find to be a number.
_NUMBERS = frozenset({"recipient_count", "size", "encryption_keysize"})

_STATUS = re.compile(r"([245])(\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]+|$)")
# More than RFC 5321 4.2 has: 571 and the like are old custom, and must not be consent.
_CODE = re.compile(r"[45][0-9][0-9]")
_NAME = re.compile(r"[A-Za-z0-9_-]+")

# access(5): what each of them answers where no text says otherwise.
_REFUSING = {
    "REJECT": Reply(554, "5.7.1", "Access denied"),
    "DEFER": Reply(450, "4.7.1", "Try again later"),
    "DEFER_IF_PERMIT": Reply(450, "4.7.1", "Try again later"),
}

_USUAL = {4: "DEFER", 5: "REJECT"}
# RFC 5322 3.6.8: ftext = %d33-57 / %d59-126
_FIELD_NAME = re.compile(r"[!-9;-~]+")
# RFC 5322 2.1.1, without the CRLF.
_MAX_LINE = 998


class AnswerError(ValueError):
    """What came is no answer."""


@attrs.frozen
class Action:
    """What a policy server wants.

    :param name: the first word, in upper case.
    :param text: what stands behind it; empty for nothing.
    """

    name: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.text}".rstrip()


def formatRequest(values: Mapping[str, str | int]) -> bytes:
    """The octets of a request.

    :param values: by the names of :data:`ATTRIBUTES`; what is missing is empty, or 0.
    :raise ValueError: for a name that is none of these, or a value longer than :data:`MAX_VALUE`.
    """
    unknown = values.keys() - set(ATTRIBUTES)
    if unknown:
        raise ValueError(f"no attribute of a request: {', '.join(sorted(unknown))}")
    lines = []
    for name in ATTRIBUTES:
        value = str(values.get(name, 0 if name in _NUMBERS else ""))
        if len(value) > MAX_VALUE:
            raise ValueError(f"{name} has more than {MAX_VALUE} characters")
        lines.append(f"{name}={_printable(value)}\n")
    return "".join(lines).encode("utf-8") + b"\n"


def _printable(value: str) -> str:
    # Line separators of Unicode as well: a server written in Python may split there.
    if value.isprintable():
        return value
    return "".join(each if each.isprintable() else "?" for each in value)


class AnswerReader:
    """Reads one answer after the other."""

    def __init__(self) -> None:
        self._octets = b""

    def feed(self, data: bytes) -> Action | None:
        """Take some octets.

        :return: the action of an answer that is whole now.
        :raise AnswerError: when it is none, is too long, or something stands behind it; the reader
            is of no more use then.
        """
        octets = self._octets + data
        head, end, rest = octets.replace(b"\r\n", b"\n").partition(b"\n\n")
        # An end that has come in part, LF or LF CR, is not of the answer.
        if len(head) > (MAX_ANSWER if end else MAX_ANSWER + 2):
            raise AnswerError(f"more than {MAX_ANSWER} octets")
        if not end:
            if octets.startswith(b"\n"):
                raise AnswerError("an empty answer")
            self._octets = octets
            return None
        if rest:
            raise AnswerError("more than one answer")
        self._octets = b""
        return _action(head)

    @property
    def hasBegun(self) -> bool:
        """Whether there is a part of an answer."""
        return bool(self._octets)


def _action(head: bytes) -> Action:
    found = None
    for line in head.decode("utf-8", "replace").split("\n"):
        name, equals, value = line.partition("=")
        if not equals or _NAME.fullmatch(name) is None:
            raise AnswerError("a line that is not name=value")
        if name == "action":
            if found is not None:
                raise AnswerError("more than one action")
            found = value
    if found is None or not found.strip():
        raise AnswerError("no action")
    word, *text = found.split(maxsplit=1)
    return Action(word.upper(), "".join(text).rstrip())


def refusal(action: Action) -> Reply | None:
    """The reply that an action refuses with; ``None`` for an action that does not refuse."""
    usual = _REFUSING.get(action.name)
    if usual is None:
        if _CODE.fullmatch(action.name) is None:
            return None
        code = int(action.name)
        usual = Reply(code, f"{code // 100}.7.1", _REFUSING[_USUAL[code // 100]].lines)
    status, text = usual.status, action.text
    matched = _STATUS.match(text)
    if matched is not None:
        # A class that contradicts the code is put right, as Postfix does.
        status, text = f"{usual.code // 100}{matched[2]}", text[matched.end() :]
    return Reply(usual.code, status, text or usual.lines)


def headerField(text: str, utf8: bool) -> bytes:
    """The header field of ``PREPEND``, ended with CRLF.

    :param utf8: whether it may have octets above 127 (RFC 6532).
    :raise ValueError: when it is none, or its line is longer than RFC 5322 2.1.1 allows.
    """
    name, colon, value = text.partition(":")
    if not colon or _FIELD_NAME.fullmatch(name) is None:
        raise ValueError("no header field")
    line = f"{name}: {_printable(value.strip())}".rstrip()
    octets = line.encode("utf-8") if utf8 else line.encode("ascii", "replace")
    if len(octets) > _MAX_LINE:
        raise ValueError(f"a header field of more than {_MAX_LINE} octets")
    return octets + b"\r\n"
