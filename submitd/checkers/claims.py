"""What an OAuth 2.0 provider says of a token: whose it is, and whether it is for us.

The answer is that of RFC 7662 2.2, or the claims of OpenID Connect Core 5.1.  Nothing is guessed:
what is not of the type that it should have is :class:`Unusable`, for then the provider is another
one than the configuration thinks.  No text here quotes what was said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from submitd.sasl.bearer import TokenRefused
from submitd.sasl.credentials import nameProblem

Claims = Mapping[str, Any]


class Unusable(Exception):
    """An answer that says neither yes nor no; the text says why."""


@attrs.frozen
class Owner:
    """Whose a token is, that is good now.

    :param expires: until when at most, in seconds since 1970.
    """

    name: bytes
    expires: float


@attrs.frozen(kw_only=True)
class Wanted:
    """What makes a token one for us.

    :param nameClaim: the claim that has the user's name.
    :param scopes: it has all of these.
    :param audience: it is for this one, whoever else it is for; empty for any.
    """

    nameClaim: str
    scopes: frozenset[str] = frozenset()
    audience: str = ""

    def ownerOf(self, claims: Claims, now: float) -> Owner:
        """Whose the token is.

        :raise TokenRefused: when it is not for us, or nobody's, or has expired.
        :raise Unusable: when a claim has not the type that it should have.
        """
        expires = _expiry(claims)
        if expires <= now:
            raise TokenRefused("the token has expired")
        if not self.scopes <= _words(claims, "scope"):
            raise TokenRefused("the token has not the scope", status="insufficient_scope")
        if self.audience and self.audience not in _listed(claims, "aud"):
            raise TokenRefused("the token is for another audience")
        return Owner(self._nameIn(claims), expires)

    def _nameIn(self, claims: Claims) -> bytes:
        name = claims.get(self.nameClaim)
        if name is None:
            # Such as a token that a program has got for itself.
            raise TokenRefused(f'the token is nobody\'s: the provider names no "{self.nameClaim}"')
        if not isinstance(name, str):
            raise Unusable(f'"{self.nameClaim}" is no string')
        # Whoever may write any address into their profile must not be whom they like.
        if self.nameClaim == "email" and claims.get("email_verified", True) not in (True, "true"):
            raise TokenRefused("the provider has not verified the address")
        octets = name.encode("utf-8", "surrogatepass")
        if nameProblem(octets):
            raise TokenRefused(f'"{self.nameClaim}": {nameProblem(octets)}')
        return octets


def readClaims(body: bytes) -> Claims:
    """The claims that an answer has.

    :raise Unusable: when it is no JSON object.
    """
    try:
        claims = json.loads(body, parse_constant=_noConstant)
    except (ValueError, RecursionError):
        raise Unusable("the answer is not JSON") from None
    if not isinstance(claims, dict):
        raise Unusable("the answer is no JSON object")
    return claims


def isActive(claims: Claims) -> bool:
    """Whether the token of an introspection is good (RFC 7662 2.2).

    :raise Unusable: when that is not said.
    """
    active = claims.get("active")
    if not isinstance(active, bool):
        raise Unusable('the answer does not say "active"')
    return active


def _noConstant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which JSON has not


def _expiry(claims: Claims) -> float:
    expires = claims.get("exp", float("inf"))
    if not isinstance(expires, int | float) or isinstance(expires, bool):
        raise Unusable('"exp" is no number')
    try:
        return float(expires)
    except OverflowError:
        raise Unusable('"exp" is no time') from None


def _words(claims: Claims, name: str) -> frozenset[str]:
    """A string of words with spaces between them (RFC 7662 2.2); some providers have a list."""
    value = claims.get(name, "")
    return frozenset(value.split(" ") if isinstance(value, str) else _listed(claims, name))


def _listed(claims: Claims, name: str) -> list[str]:
    """A string, or a list of strings (RFC 7519 4.1.3)."""
    value = claims.get(name, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise Unusable(f'"{name}" is neither a string nor a list of strings')
    return values
