"""What an OAuth 2.0 provider says of a token: whose it is, and whether it is for us.

It says so in an answer (RFC 7662 2.2, OpenID Connect Core 5.1) or in the token itself (RFC 9068
2.2).  Nothing is guessed:
what is not of the type that it should have is :class:`Unusable`, for then the provider is another
one than the configuration thinks.  No text here quotes what was said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from submitd.checkers import foldName
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

    def nameFor(self, username: bytes) -> bytes:
        """The owner's name, for a client that says to be somebody, or does not say.

        :raise TokenRefused: when that is somebody else.
        """
        if username and foldName(username) != foldName(self.name):
            raise TokenRefused("the token is somebody else's")
        return self.name


@attrs.frozen(kw_only=True)
class Wanted:
    """What makes a token one for us.

    :param nameClaim: the claim that has the user's name.
    :param scopes: it has all of these.
    :param audience: it is for this one, whoever else it is for; empty for any.
    :param scopeClaim: the claim that has the scopes.
    :param values: what other claims must be, or have among them.
    """

    nameClaim: str
    scopes: frozenset[str] = frozenset()
    audience: str = ""
    scopeClaim: str = "scope"
    values: Mapping[str, str] = attrs.field(factory=dict)

    def ownerOf(self, claims: Claims, now: float) -> Owner:
        """Whose the token is.

        :raise TokenRefused: when it is not for us, or nobody's, or has expired.
        :raise Unusable: when a claim has not the type that it should have.
        """
        expires = momentIn(claims, "exp", float("inf"))
        if expires <= now:
            raise TokenRefused("the token has expired")
        if claims.get("cnf") is not None:  # some providers say null of what there is not
            # RFC 7800 3, 8705 3, 9449 6: whoever has stolen it must not be able to use it.
            raise TokenRefused("the token is bound to a key of the client's: no bearer token")
        if not self.scopes <= _words(claims, self.scopeClaim):
            raise TokenRefused("the token has not the scope", status="insufficient_scope")
        if self.audience and self.audience not in _listed(claims, "aud"):
            raise TokenRefused("the token is for another audience")
        for name, value in self.values.items():
            if value not in _listed(claims, name):
                raise TokenRefused(f'the token has not the "{name}" that it must have')
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


def readOnce(body: bytes) -> Claims:
    """A JSON object in which no name stands twice: two readers would believe two things.

    :raise ValueError: when it is none; the text quotes nothing.
    """
    try:
        # Not bytes: those may be UTF-16, too.
        read = json.loads(body.decode("utf-8"), parse_constant=_noConstant, object_pairs_hook=_once)
    except _Twice:
        raise ValueError("a name stands twice in the JSON") from None
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(read, dict):
        raise ValueError("is no JSON object")
    return read


def isActive(claims: Claims) -> bool:
    """Whether the token of an introspection is good (RFC 7662 2.2).

    :raise Unusable: when that is not said.
    """
    active = claims.get("active")
    if not isinstance(active, bool):
        raise Unusable('the answer does not say "active"')
    return active


def momentIn(claims: Claims, name: str, default: float) -> float:
    """A NumericDate (RFC 7519 2): seconds since 1970.

    :raise Unusable: when it is none.
    """
    moment = claims.get(name, default)
    if not isinstance(moment, int | float) or isinstance(moment, bool):
        raise Unusable(f'"{name}" is no number')
    try:
        return float(moment)
    except OverflowError:
        raise Unusable(f'"{name}" is no time') from None


def _noConstant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which JSON has not


class _Twice(ValueError):
    """A name that stands twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Twice
    return made


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
