"""The mailboxes in a From, Sender, To or like field (RFC 5322 3.4, RFC 6854, RFC 6532).

:func:`readMailboxes` reads an address list: addresses with and without a display name, groups,
comments, quoted strings, UTF-8.  What it gives is what every reader must see, so where readers
differ it refuses: the obsolete syntax of RFC 5322 4.4 (routes, empty list elements, white space or
dots between the words of a local part), controls, broken UTF-8, unbalanced comments and quotes, and
whatever :func:`submitd.wire.address.readMailbox` would not take as an address.  Two things are
taken beyond RFC 5322 3.4, since mail programs send them and all readers agree: dots in display
names (``John Q. Public <...>``, RFC 5322 4.1), and ``[192.0.2.1]`` as RFC 5321 has it.

Display names and comments are skipped, never decoded: an encoded word, broken or not, is a word.

:func:`rewriteMailboxes` puts other addresses in the places of some, and leaves every other octet.

Both raise ``ValueError`` with a reason that is fixed text and safe to show.  Time is linear in the
octets, of which there may be :data:`MAX_OCTETS`; a list ends with an error at the mailbox behind
``limit``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate

import attrs

from submitd.wire import abnf
from submitd.wire.address import Mailbox, readMailbox

MAX_OCTETS = 64 * 1024
"""Octets of the longest field that is read: 2,000 mailboxes or so, in less than 50 ms."""

MAX_REMEMBERED = 512
"""Octets of the longest field that is remembered; people send many messages from one address."""

# Words, and what stands between them.  A run of atoms and dots is one token: whether it may stand
# where it does is the parser's question.  Comments nest, and are found by _comment below.
_SPACE = abnf.oneOrMore(r" \t")
_IN_QUOTES = abnf.oneOrMore(rf'^"\\{abnf.CONTROL}')
_TOKEN = re.compile(
    rf"""(?P<space>{_SPACE})
    |(?P<atom>{abnf.oneOrMore(abnf.ATEXT_AND_DOT)})
    |(?P<quoted>"(?:{_IN_QUOTES}|\t|\\[^{abnf.CONTROL}])*")
    |(?P<literal>\[[^\[\]\\{abnf.CONTROL}]*+\])
    |(?P<special>[<>@,:;])
    |(?P<comment>\()""".replace("\n    ", "")
)
_IN_COMMENT = re.compile(r"[()]|\\.?")
_CONTROL = re.compile(f"[{abnf.CONTROL}]")
_FOLD = re.compile(r"\r\n(?=[ \t])")
_END = ("end", "", 0)
_ANY_DOMAIN = "any.example"

# What it is, its text, and where that begins.
Token = tuple[str, str, int]


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
        found = tuple(_List(_decoded(value), limit).read())
    if limit and len(found) > limit:
        raise ValueError("too many mailboxes")
    return found


@lru_cache(maxsize=1024)
def _remembered(value: bytes) -> tuple[Mailbox, ...] | str:
    try:
        return tuple(_List(_decoded(value), 0).read())
    except ValueError as error:
        return str(error)


@attrs.frozen
class Place:
    """An address in an address list.

    :param mailbox: what it means; its domain is empty where it has none.
    :param local: where its local part begins and ends.
    :param domain: the same of its domain.
    """

    mailbox: Mailbox
    local: tuple[int, int]
    domain: tuple[int, int] | None


def rewriteMailboxes(body: bytes, rewritten: Callable[[Mailbox], Mailbox]) -> bytes:
    """An address list with other addresses in the places of some.

    Names alone, such as ``root``, are taken for addresses here: cron and devices write such.

    :param body: what follows the colon of a field, folded as it is, its last CRLF included.
    :param rewritten: gives the address to be put in the place of one, whose domain may be empty;
        the same for no change.
    :raise ValueError: when it is malformed; says why.
    """
    if len(body) > MAX_OCTETS:
        raise ValueError("too long")
    lines = _FOLD.split(_decoded(body))
    value = "".join(lines)
    places = (_rememberedPlaces if len(value) <= MAX_REMEMBERED else _readPlaces)(
        value.removesuffix("\r\n")
    )
    # Two characters were taken out at each of these.
    folds = list(accumulate(map(len, lines[:-1])))
    text, made, at = "\r\n".join(lines), [], 0
    for place in places:
        new = rewritten(place.mailbox)
        for (start, end), other in _changes(place, new):
            start += 2 * bisect_right(folds, start)
            made += [text[at:start], other]
            at = end + 2 * bisect_right(folds, end - 1)
    return ("".join(made) + text[at:]).encode("utf-8")


def _changes(place: Place, new: Mailbox) -> Iterator[tuple[tuple[int, int], str]]:
    old, written = place.mailbox, str(new)
    if place.domain is None:
        if new != old:
            yield place.local, written
        return
    if new.localPart != old.localPart:
        yield place.local, written.removesuffix(f"@{new.domain}")
    if new.domain != old.domain:
        yield place.domain, new.domain


@lru_cache(maxsize=1024)
def _rememberedPlaces(value: str) -> tuple[Place, ...]:
    return _readPlaces(value)


def _readPlaces(value: str) -> tuple[Place, ...]:
    places = _Places(value)
    places.read()
    return tuple(places.found)


def _decoded(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not valid UTF-8") from None


def _tokens(text: str) -> Iterator[Token]:
    """The tokens that mean something, then the end without end."""
    at = 0
    while at < len(text):
        matched = _TOKEN.match(text, at)
        if matched is None:
            raise ValueError("a character that may not stand there")
        kind, start, at = str(matched.lastgroup), at, matched.end()
        if kind == "comment":
            at = _comment(text, at)
        elif kind != "space":
            yield kind, matched[0], start
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

    def __init__(self, value: str, limit: int) -> None:
        self._tokens = _tokens(value)
        self._limit = limit
        self._found: list[Mailbox] = []
        self._token = next(self._tokens)

    def read(self) -> list[Mailbox]:
        """address-list = address *("," address)"""
        self._address()
        while self._take(","):
            self._address()
        if self._token[0] != "end":
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
        domain = self._token
        if domain[0] not in ("atom", "literal"):
            raise ValueError("a domain is missing")
        self._next()
        self._add(words[0], domain)

    def _add(self, local: Token, domain: Token) -> None:
        if self._limit and len(self._found) >= self._limit:
            raise ValueError("too many mailboxes")
        self._found.append(readMailbox(f"{local[1]}@{domain[1]}".encode()))

    def _words(self) -> list[Token]:
        words = []
        while self._token[0] in ("atom", "quoted"):
            words.append(self._token)
            self._next()
        return words

    def _take(self, special: str) -> bool:
        if self._token[1] != special or self._token[0] != "special":
            return False
        self._next()
        return True

    def _require(self, special: str) -> None:
        if not self._take(special):
            raise ValueError(f'"{special}" is missing')

    def _next(self) -> None:
        self._token = next(self._tokens)


class _Places(_List):
    """Reads where the addresses stand, and takes names alone for addresses.

    :ivar found: the places, in order.
    """

    def __init__(self, value: str) -> None:
        super().__init__(value, 0)
        self.found: list[Place] = []

    def _addrSpec(self, words: list[Token]) -> None:
        if len(words) == 1 and self._token[1] != "@":
            name = readMailbox(f"{words[0][1]}@{_ANY_DOMAIN}".encode()).localPart
            self.found.append(Place(Mailbox(name, ""), _span(words[0]), None))
        else:
            super()._addrSpec(words)

    def _add(self, local: Token, domain: Token) -> None:
        mailbox = readMailbox(f"{local[1]}@{domain[1]}".encode())
        self.found.append(Place(mailbox, _span(local), _span(domain)))


def _span(token: Token) -> tuple[int, int]:
    return token[2], token[2] + len(token[1])
