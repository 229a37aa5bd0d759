"""The mailboxes in a From, Sender, To or like field (RFC 5322 3.4, RFC 6854, RFC 6532).

:func:`readMailboxes` reads an address list: addresses with and without a display name, groups,
comments, quoted strings, UTF-8.  What it gives is what every reader must see, so where readers
differ it refuses: the obsolete syntax of RFC 5322 4.4 (routes, empty list elements, white space or
dots between the words of a local part), controls, broken UTF-8, unbalanced comments and quotes, and
whatever :func:`submitd.wire.address.readMailbox` would not take as an address.  Two things are
taken beyond RFC 5322 3.4, since mail programs send them and all readers agree: dots in display
names (``John Q. Public <...>``, RFC 5322 4.1), and ``[192.0.2.1]`` as RFC 5321 has it.

Display names and comments are skipped, never decoded: an encoded word, broken or not, is a word.

It raises ``ValueError`` with a reason that is fixed text and safe to show.  Time is linear in the
octets, of which there may be :data:`MAX_OCTETS`; a list ends with an error at the mailbox behind
``limit``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from submitd.wire import abnf
from submitd.wire.address import Mailbox, readMailbox

MAX_OCTETS = 64 * 1024
"""Octets of the longest field that is read: 2,000 mailboxes or so, in less than 50 ms."""

MAX_REMEMBERED = 512
"""Octets of the longest field that is remembered; people send many messages from one address."""

# Words, and what stands between them.  A run of atoms and dots is one token: whether it may stand
# where it does is the parser's question.  Comments nest, and are found by _comment below.
_TOKEN = re.compile(
    rf"""(?P<space>[ \t]++)
    |(?P<atom>[{abnf.ATEXT_AND_DOT}]++)
    |(?P<quoted>"(?:[^"\\{abnf.CONTROL}]++|\t|\\[^{abnf.CONTROL}])*")
    |(?P<literal>\[[^\[\]\\{abnf.CONTROL}]*+\])
    |(?P<special>[<>@,:;])
    |(?P<comment>\()""".replace("\n    ", "")
)
_IN_COMMENT = re.compile(r"[()]|\\.?")
_CONTROL = re.compile(f"[{abnf.CONTROL}]")
_END = ("end", "")

Token = tuple[str, str]


def readMailboxes(value: bytes, limit: int = 0) -> tuple[Mailbox, ...]:
    """The mailboxes of an address list, those in groups too.

    :param value: the field's body, unfolded (:attr:`submitd.message.header.Field.value`).
    :param limit: how many there may be; 0 for any number.
    :raise ValueError: when it is malformed, or there are more; says why.
    """
    if len(value) > MAX_OCTETS:
        raise ValueError("too long")
    if len(value) <= MAX_REMEMBERED:
        found = _remembered(value)
        if isinstance(found, str):
            raise ValueError(found)
    else:
        found = tuple(_List(value, limit).read())
    if limit and len(found) > limit:
        raise ValueError("too many mailboxes")
    return found


@lru_cache(maxsize=1024)
def _remembered(value: bytes) -> tuple[Mailbox, ...] | str:
    try:
        return tuple(_List(value, 0).read())
    except ValueError as error:
        return str(error)


def _tokens(text: str) -> Iterator[Token]:
    """The tokens that mean something, then the end without end."""
    at = 0
    while at < len(text):
        matched = _TOKEN.match(text, at)
        if matched is None:
            raise ValueError("a character that may not stand there")
        kind, at = str(matched.lastgroup), matched.end()
        if kind == "comment":
            at = _comment(text, at)
        elif kind != "space":
            yield kind, matched[0]
    while True:
        yield _END


def _comment(text: str, at: int) -> int:
    """Where a comment ends that begins before ``at``; they nest (RFC 5322 3.2.2)."""
    depth, begin = 1, at
    for matched in _IN_COMMENT.finditer(text, at):
        depth += {"(": 1, ")": -1}.get(matched[0], 0)
        if not depth:
            if _CONTROL.search(text[begin : matched.start()].replace("\t", "")):
                raise ValueError("a control character")
            return matched.end()
    raise ValueError("a comment without end")


class _List:
    """Reads one address list, token by token."""

    def __init__(self, value: bytes, limit: int) -> None:
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("not valid UTF-8") from None
        self._tokens = _tokens(text)
        self._limit = limit
        self._found: list[Mailbox] = []
        self._kind, self._text = next(self._tokens)

    def read(self) -> list[Mailbox]:
        """address-list = address *("," address)"""
        self._address()
        while self._take(","):
            self._address()
        if self._kind != "end":
            raise ValueError("something behind an address")
        return self._found

    def _address(self) -> None:
        """address = mailbox / group;  group = display-name ":" [mailbox-list] ";" """
        words = self._words()
        if not self._take(":"):
            self._mailbox(words)
            return
        if not words:
            raise ValueError("a group without a name")
        if not self._take(";"):
            self._mailbox(self._words())
            while self._take(","):
                self._mailbox(self._words())
            self._require(";")

    def _mailbox(self, words: list[Token]) -> None:
        """mailbox = [display-name] "<" addr-spec ">" / addr-spec"""
        if self._take("<"):
            self._addrSpec(self._words())
            self._require(">")
        else:
            self._addrSpec(words)

    def _addrSpec(self, words: list[Token]) -> None:
        """addr-spec = local-part "@" domain;  a local part is one word"""
        if not words:
            raise ValueError("an address is missing")
        if len(words) > 1:
            raise ValueError("not an address")
        self._require("@")
        if self._kind not in ("atom", "literal"):
            raise ValueError("a domain is missing")
        address = f"{words[0][1]}@{self._text}"
        self._next()
        if self._limit and len(self._found) >= self._limit:
            raise ValueError("too many mailboxes")
        self._found.append(readMailbox(address.encode("utf-8")))

    def _words(self) -> list[Token]:
        words = []
        while self._kind in ("atom", "quoted"):
            words.append((self._kind, self._text))
            self._next()
        return words

    def _take(self, special: str) -> bool:
        if self._text != special or self._kind != "special":
            return False
        self._next()
        return True

    def _require(self, special: str) -> None:
        if not self._take(special):
            raise ValueError(f'"{special}" is missing')

    def _next(self) -> None:
        self._kind, self._text = next(self._tokens)
