"""Addresses: mailboxes and paths (RFC 5321 4.1.2), in ASCII or UTF-8 (RFC 6531 3.3).

Bytes become a :class:`Mailbox` or :class:`ReversePath`, and these give their bytes back.  Refused
with 501 are: broken or overlong UTF-8, controls (also inside quotes), parts longer than RFC 5321
4.5.3.1 allows, labels that DNS could not hold, literals that are no address.  UTF-8 is always read;
whether it was asked for (SMTPUTF8) is the dialogue's question.  Source routes are read and dropped.

``parse`` of these classes raises :class:`submitd.wire.errors.Refused`; :func:`readMailbox` and
:func:`readPath` raise ``ValueError`` with a reason that is fixed text and safe to show.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache

import attrs

from submitd.wire import abnf
from submitd.wire.errors import Refused
from submitd.wire.reply import SYNTAX, Reply

# RFC 5321 4.5.3.1.2 and 4.5.3.1.3, in octets.  A path counts with its angle brackets; no domain
# that fits in a path is longer than 255.  The 64 octets of a local part (4.5.3.1.1) are the least
# that must be taken (4.5.3.1), and not the most: the addresses to reply to that ticket systems and
# mailing lists make have more.
MAX_DOMAIN = 255
MAX_PATH = 256
MAX_LABEL = 63

_DOT_STRING = re.compile(abnf.DOT_STRING)
_DOMAIN = re.compile(abnf.DOMAIN)
_ASCII_DOMAIN = re.compile(abnf.ASCII_DOMAIN)
_LITERAL = re.compile(abnf.ADDRESS_LITERAL)
_HELLO = re.compile(abnf.HELLO)
_MAILBOX = re.compile(rf"({abnf.LOCAL_PART})(?:@([^<>@\x20]+))?")
_PATH = re.compile(rf"<(?:{abnf.SOURCE_ROUTE}:)?({abnf.LOCAL_PART})(?:@([^<>@\x20]+))?>")
_QUOTED_PAIR = re.compile(r"\\(.)")
_NEEDS_QUOTED_PAIR = re.compile(r'(["\\])')

# RFC 5892 2: no label has spaces, controls, format characters or private characters in it, but for
# the two joiners (RFC 5892 A.1, A.2).  Unassigned ones are let through: Unicode grows.
_NOT_IN_LABEL = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs"})
_JOINERS = "\u200c\u200d"
# RFC 3490 3.1 read this as a dot; a label with it in would be two labels to somebody else.
_IDEOGRAPHIC_FULL_STOP = "\u3002"


# The addresses of one message are written several times: into Received, the log and the queue.
@lru_cache(maxsize=4096)
def _written(localPart: str) -> str:
    if _DOT_STRING.fullmatch(localPart):
        return localPart
    return '"' + _NEEDS_QUOTED_PAIR.sub(r"\\\1", localPart) + '"'


@attrs.frozen
class Mailbox:
    """An address, as the meaning of its parts.

    Made by hand it must be made of checked parts; text from outside goes through :meth:`parse`.

    :param localPart: without quotes or backslashes.
    :param domain: as it was given: U-labels, A-labels, or a literal such as ``[192.0.2.1]``; empty
        for ``<Postmaster>`` alone (RFC 5321 4.5.1).
    :ivar isAscii: whether it can be sent without SMTPUTF8 (RFC 6531).
    """

    localPart: str
    domain: str
    # Made once: the mailboxes of ordinary commands are kept, and are asked for both each time.
    isAscii: bool = attrs.field(init=False, eq=False, repr=False)
    _text: str = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        local = _written(self.localPart)
        text = f"{local}@{self.domain}" if self.domain else local
        object.__setattr__(self, "_text", text)
        object.__setattr__(self, "isAscii", text.isascii())

    @classmethod
    def parse(cls, data: bytes) -> Mailbox:
        """Read an address without angle brackets; ``postmaster`` may stand without a domain.

        :raise Refused: 501 5.1.3.
        """
        try:
            return readMailbox(data)
        except ValueError as error:
            raise badRecipient(error) from None

    def __str__(self) -> str:
        return self._text

    def __bytes__(self) -> bytes:
        return str(self).encode("utf-8")


@attrs.frozen
class ReversePath:
    """Where reports about a message go: a mailbox, or nowhere.

    :param mailbox: ``None`` for the null reverse-path ``<>`` (RFC 5321 4.5.5).
    """

    mailbox: Mailbox | None

    @classmethod
    def parse(cls, data: bytes) -> ReversePath:
        """Read ``<address>`` or ``<>``.

        :raise Refused: 501 5.1.7.
        """
        if data == b"<>":
            return NULL_PATH
        try:
            mailbox = readPath(data)
            if not mailbox.domain:
                raise ValueError("no domain")
        except ValueError as error:
            raise badSender(error) from None
        return cls(mailbox)

    @property
    def isNull(self) -> bool:
        """Whether no reports are wanted: ``<>``."""
        return self.mailbox is None

    def __str__(self) -> str:
        return "<>" if self.mailbox is None else f"<{self.mailbox}>"

    def __bytes__(self) -> bytes:
        return str(self).encode("utf-8")


NULL_PATH = ReversePath(None)


def badSender(reason: ValueError) -> Refused:
    """What MAIL says to a reverse-path that is no address."""
    return Refused(Reply(501, "5.1.7", f"Bad sender address syntax: {reason}"))


def badRecipient(reason: ValueError) -> Refused:
    """What RCPT says to a forward-path that is no address."""
    return Refused(Reply(501, "5.1.3", f"Bad recipient address syntax: {reason}"))


def readMailbox(data: bytes) -> Mailbox:
    """Read ``local-part@domain``.

    :raise ValueError: when it is none; says why.
    """
    # Erratum 1690 of RFC 3696: the path's 256 octets, less its brackets, bound an address as well.
    if len(data) > MAX_PATH - 2:
        raise ValueError("address too long")
    return _mailbox(_MAILBOX.fullmatch(_decoded(data)))


def readPath(data: bytes) -> Mailbox:
    """Read ``<local-part@domain>``, with or without a source route, which is dropped.

    :raise ValueError: when it is none; says why.
    """
    if len(data) > MAX_PATH:
        raise ValueError("path too long")
    return _mailbox(_PATH.fullmatch(_decoded(data)))


def parseHello(argument: bytes) -> str:
    """Read what a client calls itself: a domain, an address literal, or what clients make of it.

    :raise Refused: 501 5.5.4, when it is empty, longer than 255 octets or has other characters in
        it than names and addresses have.
    """
    if len(argument) > MAX_DOMAIN:
        raise Refused(SYNTAX, "name of the client too long")
    name = argument.decode("latin-1")
    if not _HELLO.fullmatch(name):
        raise Refused(SYNTAX, "neither a domain nor an address literal")
    return name


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not valid UTF-8") from None


def _mailbox(matched: re.Match[str] | None) -> Mailbox:
    if matched is None:
        raise ValueError("not an address")
    local, domain = matched.groups()
    if local[0] == '"':
        local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
    if domain is not None:
        _checkDomain(domain)
    elif local.lower() != "postmaster":
        raise ValueError("no domain")
    return Mailbox(local, domain or "")


def isDomain(text: str) -> bool:
    """Whether a text is a domain in ASCII, as all but addresses have to have it."""
    return len(text) <= MAX_DOMAIN and _ASCII_DOMAIN.fullmatch(text) is not None


def _checkDomain(domain: str) -> None:
    if domain[0] == "[":
        _checkLiteral(domain)
    elif not _DOMAIN.fullmatch(domain):
        raise ValueError("not a domain")
    elif not domain.isascii():
        _checkUnicodeDomain(domain)


def _checkLiteral(literal: str) -> None:
    matched = _LITERAL.fullmatch(literal)
    try:
        if matched is None:
            raise ValueError
        if matched["ipv4"]:
            ipaddress.IPv4Address(matched["ipv4"])
        else:
            ipaddress.IPv6Address(matched["ipv6"])
    except ValueError:
        raise ValueError("not an address literal") from None


def _checkUnicodeDomain(domain: str) -> None:
    # RFC 5892 2.2: what NFKC changes is in no U-label.  So no character can turn into a dot, an @
    # or another name when somebody normalises it later.
    if unicodedata.normalize("NFKC", domain) != domain or _IDEOGRAPHIC_FULL_STOP in domain:
        raise ValueError("not a domain in Unicode")
    if any(unicodedata.category(c) in _NOT_IN_LABEL and c not in _JOINERS for c in domain):
        raise ValueError("not a domain in Unicode")
    for label in domain.split("."):
        # RFC 5890 2.3.2.1: the A-label is "xn--" and the Punycode; it is what DNS has to hold.
        if not label.isascii() and len(label.encode("punycode")) + len("xn--") > MAX_LABEL:
            raise ValueError("label too long")
