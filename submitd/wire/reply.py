"""Replies: what the server says (RFC 5321 4.2, RFC 2034, RFC 3463).

A :class:`Reply` is a value.  Its octets are made once, when it is made, so that a named reply costs
nothing to send.  Whatever a text contains, no CR, LF or control character leaves (rule 7).

:class:`ReplyParser` reads the replies of another server, in bounded space; what is no reply is
:class:`ReplySyntaxError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

# RFC 5321 4.5.3.1.5: 512 octets with the code and CRLF; the enhanced status takes up to 10 more.
MAX_TEXT = 490

# RFC 5321 4.2: textstring = 1*(%d09 / %d32-126)
_NOT_TEXT = re.compile(r"[^\t\x20-\x7e]")


def _lines(text: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(text, str):
        if len(text) <= MAX_TEXT and text.isascii() and text.isprintable():
            return (text,)
        text = text.split("\n")
    lines = text
    return tuple(_NOT_TEXT.sub("?", line.rstrip("\r"))[:MAX_TEXT] for line in lines) or ("",)


def _wire(code: int, status: str, lines: tuple[str, ...]) -> bytes:
    prefix = f"{status} " if status else ""
    if len(lines) == 1:
        return f"{code} {prefix}{lines[0]}\r\n".encode("ascii")
    last = len(lines) - 1
    return "".join(
        f"{code}{' ' if at == last else '-'}{prefix}{line}\r\n" for at, line in enumerate(lines)
    ).encode("ascii")


@attrs.frozen
class Reply:
    """One reply: code, enhanced status and text.

    :param code: the three digits of RFC 5321 4.2.
    :param status: the enhanced status code of RFC 3463, such as ``"2.1.0"``; empty where none
        belongs (greeting, EHLO, 3yz).
    :param lines: the text, one string (split at LF) or several; what is not printable ASCII is
        replaced by ``?``, so that a text may quote what a client said.
    :ivar wire: the reply's octets, CRLF included.
    :raise ValueError: for a code that is none.
    """

    code: int
    status: str
    lines: tuple[str, ...] = attrs.field(converter=_lines)
    wire: bytes = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise ValueError(f"{self.code} is no code of a reply")
        object.__setattr__(self, "wire", _wire(self.code, self.status, self.lines))

    @property
    def isPositive(self) -> bool:
        """Whether the command was accepted (2yz or 3yz)."""
        return self.code < 400

    @property
    def isTransient(self) -> bool:
        """Whether the client may try the same again later (4yz)."""
        return 400 <= self.code < 500

    def marked(self, id: str) -> Reply:
        """The same with an id behind the text of its last line, within the length of a line."""
        mark, (*others, last) = f" (id {id})", self.lines
        return Reply(self.code, self.status, (*others, last[: MAX_TEXT - len(mark)] + mark))


@attrs.frozen
class Replies:
    """Several replies to one command, in order: LMTP's answer to the end of data (RFC 2033 4.2)."""

    replies: tuple[Reply, ...]

    @property
    def wire(self) -> bytes:
        """The octets of all replies, one after the other."""
        return b"".join(reply.wire for reply in self.replies)


# What another server may send before it is cut off: octets in a line (RFC 5321 4.5.3.1.5 says 512),
# lines in a reply, octets in a reply.
MAX_REPLY_LINE = 4096
MAX_REPLY_LINES = 500
MAX_REPLY_SIZE = 64 * 1024

# RFC 5321 4.2, one line of it: Reply-code ( "-" / SP ) [ textstring ], or Reply-code alone.
# More than the rule: any second digit.  Less: no 1yz, which SMTP does not have.
_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*+))?", re.DOTALL)

# RFC 2034 4: status-code = class "." subject "." detail, in front of the text of each line
_STATUS = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)")


class ReplySyntaxError(ValueError):
    """What came is not a reply; the dialogue with that server is out of step.

    :param reason: what is wrong with it.
    :param replies: those that came whole before it, in the same chunk: they still count.
    """

    def __init__(self, reason: str, replies: list[Reply]) -> None:
        super().__init__(reason)
        self.replies = replies


class ReplyParser:
    """Reads the replies of another server, however they are cut.

    The codes of a reply of several lines must agree (RFC 5321 4.2.1); lines end with CRLF alone.
    An enhanced status that fits the code is split off (RFC 2034).  After an error it is of no more
    use.
    """

    def __init__(self) -> None:
        self._partial = b""
        self._code = b""
        self._lines: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Reply]:
        """Take some octets.

        :return: the replies that they complete, in order.
        :raise ReplySyntaxError: when they cannot be part of a reply, or one grows too long.
        """
        *lines, self._partial = (self._partial + data).split(b"\r\n")
        replies: list[Reply] = []
        try:
            for line in lines:
                if self._take(line):
                    replies.append(self._finish())
            _checkLine(self._partial.removesuffix(b"\r"))
        except ValueError as error:
            self._partial = b""  # nobody will read the rest of it
            raise ReplySyntaxError(str(error), replies) from None
        return replies

    def _take(self, line: bytes) -> bool:
        _checkLine(line)
        matched = _REPLY_LINE.fullmatch(line)
        if matched is None or b"\r" in line:
            raise ValueError("not a reply line")
        code, separator, text = matched.groups(b"")
        if self._code not in (b"", code):
            raise ValueError("the codes of one reply differ")
        self._code = code
        self._lines.append(text.decode("utf-8", "replace"))
        self._size += len(line) + 2
        if len(self._lines) > MAX_REPLY_LINES or self._size > MAX_REPLY_SIZE:
            raise ValueError("reply too long")
        return separator != b"-"

    def _finish(self) -> Reply:
        code, lines = int(self._code), self._lines
        self._code, self._lines, self._size = b"", [], 0
        matched = _STATUS.match(lines[0])
        if matched is None or int(matched[1]) != code // 100:
            return Reply(code, "", lines)
        status = matched[0]
        return Reply(code, status, [_withoutStatus(line, status) for line in lines])


def _checkLine(line: bytes) -> None:
    if b"\n" in line:
        raise ValueError("LF without CR in a reply")
    if len(line) > MAX_REPLY_LINE:
        raise ValueError("reply line too long")


def _withoutStatus(line: str, status: str) -> str:
    word, _, text = line.partition(" ")
    return text if word == status else line


# The catalogue: every reply of the dialogue that is always the same.  Named for what it says.
OK = Reply(250, "2.0.0", "Ok")
SENDER_OK = Reply(250, "2.1.0", "Originator ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
RESET = Reply(250, "2.0.0", "Flushed")
CLOSING = Reply(221, "2.0.0", "Bye")
READY_TO_START_TLS = Reply(220, "2.0.0", "Ready to start TLS")
LOGIN_OK = Reply(235, "2.7.0", "Authentication successful")
START_MAIL_INPUT = Reply(354, "", "Start mail input; end with <CRLF>.<CRLF>")
CANNOT_VERIFY = Reply(252, "2.5.2", "Cannot VRFY user; try RCPT to attempt delivery")

SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down, try again later")
TIMED_OUT = Reply(421, "4.4.2", "Connection timed out")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing the connection")
TOO_MANY_LOGIN_FAILURES = Reply(421, "4.7.0", "Too many failed logins, closing the connection")
TOO_MANY_TRANSACTIONS = Reply(421, "4.5.3", "Too many transactions on this connection")
OUT_OF_STEP = Reply(421, "4.5.0", "Cannot tell text from commands, closing the connection")
NOT_HTTP = Reply(421, "4.7.0", "This is not an HTTP server, closing the connection")
PROXY_UNEXPECTED = Reply(421, "4.7.0", "No PROXY header is taken from this address")
TOO_MANY_BEFORE_LOGIN = Reply(421, "4.7.0", "Too many commands before login")
LOCAL_ERROR = Reply(451, "4.3.0", "Temporary local problem, try again later")
LOGIN_UNAVAILABLE = Reply(454, "4.7.0", "Temporary authentication failure")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
STORAGE_FULL = Reply(452, "4.3.1", "Insufficient system storage, try again later")

LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
LOGIN_LINE_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
UNRECOGNIZED = Reply(500, "5.5.2", "Command not recognized")
BAD_LINE = Reply(500, "5.5.2", "Bare CR, bare LF, NUL or control character in the command line")
SYNTAX = Reply(501, "5.5.4", "Syntax error in parameters or arguments")
BAD_BASE64 = Reply(501, "5.5.2", "Cannot decode the response: not valid base64")
LOGIN_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
HELLO_FIRST = Reply(503, "5.5.1", "Say EHLO first")
BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")
ALREADY_SECURE = Reply(503, "5.5.1", "TLS is already active")
ALREADY_LOGGED_IN = Reply(503, "5.5.1", "Already authenticated")
NO_SUCH_MECHANISM = Reply(504, "5.5.4", "Unrecognized authentication mechanism")
BINARY_NEEDS_BDAT = Reply(503, "5.5.1", "BODY=BINARYMIME needs BDAT")
PROXY_NOT_TRUSTED = Reply(550, "5.7.0", "Not allowed from this address")
NO_TRUSTED_LOGIN = Reply(550, "5.7.0", "LOGIN is not allowed here")
LOGIN_REQUIRED = Reply(530, "5.7.0", "Authentication required")
TLS_REQUIRED = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
LOGIN_FAILED = Reply(535, "5.7.8", "Authentication credentials invalid")
LOGIN_NEEDS_TLS = Reply(538, "5.7.11", "Encryption required for the requested mechanism")
MESSAGE_TOO_LARGE = Reply(552, "5.3.4", "Message size exceeds the fixed limit")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "MAIL or RCPT parameter not recognized or not implemented")
BARE_LINE_ENDING = Reply(554, "5.6.0", "Message has a CR or LF that is not part of a CRLF")
NUL_IN_MESSAGE = Reply(554, "5.6.0", "Message has a NUL octet")
UTF8_ADDRESS = Reply(553, "5.6.7", "Address is not ASCII and SMTPUTF8 was not asked for")
