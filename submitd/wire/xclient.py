"""The arguments of XCLIENT and XFORWARD, as Postfix defines them (XCLIENT_README, XFORWARD_README).

``name=value`` words, the value in xtext (RFC 3461 4), in capital or small letters the name.  A
value is kept decoded; ``[UNAVAILABLE]`` and ``[TEMPUNAVAIL]`` are kept as the empty string: nothing
is known.  Each attribute has a grammar of its own, and what does not fit it is refused with 501, as
is an attribute that is unknown or given twice, and a control character however it is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from submitd.wire import abnf
from submitd.wire.command import decodeXtext
from submitd.wire.errors import Refused
from submitd.wire.network import parseAddress
from submitd.wire.reply import SYNTAX

# The client's as the proxy knows it; XFORWARD has them alike.
XCLIENT = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
XFORWARD = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")

_UNKNOWN = frozenset({"", "[UNAVAILABLE]", "[TEMPUNAVAIL]"})
# XFORWARD_README: IDENT has 255 octets at most; no other value is longer.
MAX_VALUE = 255

_DOMAIN = re.compile(abnf.ASCII_DOMAIN)
_PORT = re.compile(r"[0-9]{1,5}")


def parseAttributes(argument: bytes, known: Collection[str]) -> dict[str, str]:
    """Read the argument.

    :param known: the attributes that may come, in capital letters.
    :return: the values by name.
    :raise Refused: 501 5.5.4.
    """
    attributes: dict[str, str] = {}
    try:
        words = argument.decode("ascii").split()
    except UnicodeDecodeError:
        raise _bad("octets that are not ASCII") from None
    if not words:
        raise _bad("no attributes")
    for word in words:
        name, separator, value = word.partition("=")
        name = name.upper()
        if not separator or name not in known:
            raise _bad("an attribute that is unknown or has no value")
        if name in attributes:
            raise _bad(f"{name} given twice")
        attributes[name] = _value(name, value)
    return attributes


def _bad(cause: str) -> Refused:
    return Refused(SYNTAX, cause)


def _value(name: str, encoded: str) -> str:
    value = decodeXtext(encoded)
    if value in _UNKNOWN:
        return ""
    if len(value) > MAX_VALUE:
        raise _bad(f"{name} too long")
    try:
        return _GRAMMAR[name](value)
    except ValueError:
        raise _bad(f"malformed {name}") from None


def _name(value: str) -> str:
    if not _DOMAIN.fullmatch(value):
        raise ValueError
    return value


def _address(value: str) -> str:
    """``192.0.2.1`` or ``IPV6:2001:db8::1``."""
    isV6 = value[:5].upper() == "IPV6:"
    text = value[5:] if isV6 else value
    if isV6 is not (":" in text):
        raise ValueError
    return str(parseAddress(text))


def _port(value: str) -> str:
    if not _PORT.fullmatch(value) or int(value) > 65535:
        raise ValueError
    return str(int(value))


def _oneOf(*words: str) -> Callable[[str], str]:
    def grammar(value: str) -> str:
        if value.upper() not in words:
            raise ValueError
        return value.upper()

    return grammar


def _text(value: str) -> str:
    return value


_GRAMMAR: dict[str, Callable[[str], str]] = {
    "NAME": _name,
    "ADDR": _address,
    "PORT": _port,
    "PROTO": _oneOf("SMTP", "ESMTP"),
    "HELO": _text,
    "LOGIN": _text,
    "DESTADDR": _address,
    "DESTPORT": _port,
    "IDENT": _text,
    "SOURCE": _oneOf("LOCAL", "REMOTE"),
}
