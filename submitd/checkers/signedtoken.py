"""Access tokens that say themselves whose they are: JWTs (RFC 7519) as RFC 9068 profiles them.

A token is octets that anybody may have made until a key has verified them: it is bounded before it
is decoded, each part has one spelling, and no name stands twice in it.  What it says of itself
decides nothing (RFC 8725): the algorithm is one of ours and one of the key's, keys come from the
issuer and never from the token, and what it calls critical (RFC 7515 4.1.11) nobody here knows.

Signatures are PyJWT's business.  No text here quotes a token.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import attrs
from jwt.algorithms import get_default_algorithms

from submitd.checkers.claims import Claims, Owner, Unusable, Wanted, momentIn, readOnce
from submitd.checkers.keys import KeySet
from submitd.sasl.bearer import ForeignToken, TokenRefused

MAX_TOKEN = 16_384
"""Octets of a token; with more than 9 kB, AUTH has no room for it anyway."""

MAX_TRIED = 10
"""Keys that are tried for a token that does not name one."""

_ALGORITHMS = get_default_algorithms()
_ALGORITHMS.setdefault("Ed25519", _ALGORITHMS["EdDSA"])  # RFC 9864: its new name


@attrs.frozen(kw_only=True)
class Rules:
    """What a token must be like.

    :param issuer: whose it is; compared character by character (RFC 9068 4).
    :param wanted: what else makes it one for us.
    :param algorithms: those that are allowed, which never are ``none`` or of shared secrets.
    :param kind: the ``typ`` of its header, without ``application/``; empty for any.
    :param leeway: seconds that clocks may differ.
    """

    issuer: str
    wanted: Wanted
    algorithms: Sequence[str]
    kind: str
    leeway: float

    def ownerOf(self, claims: Claims, now: float) -> Owner:
        """Whose a token with these claims is.

        :param now: the time of day, since 1970.
        :raise TokenRefused: when it is not for us, or not now.
        """
        try:
            self._checkTimes(claims, now)
            return self.wanted.ownerOf(claims, now - self.leeway)
        except Unusable as error:
            raise TokenRefused(f"the token: {error}") from None

    def checkIssuer(self, claims: Claims) -> None:
        """See whether a token with these claims is our issuer's, if it is anybody's.

        :raise ForeignToken: when it is not.
        """
        if claims.get("iss") != self.issuer:
            raise ForeignToken("the token is another issuer's")

    def _checkTimes(self, claims: Claims, now: float) -> None:
        if "exp" not in claims:
            raise TokenRefused("the token does not say when it expires")
        for name in ("nbf", "iat"):
            if momentIn(claims, name, 0.0) > now + self.leeway:
                raise TokenRefused(
                    f'the token is of a time to come ("{name}"); is the clock right?'
                )

    def checkHeader(self, header: Claims) -> None:
        """See whether a token with this header can be one for us.

        :raise TokenRefused: when it is not.
        """
        if header.get("alg") not in self.algorithms:
            raise TokenRefused("the token's algorithm is not one of those that are allowed")
        if "crit" in header or "b64" in header:
            raise TokenRefused("the token wants what is not known here")
        kind, kid, content = (header.get(name, "") for name in ("typ", "kid", "cty"))
        if not all(isinstance(each, str) for each in (kind, kid, content)):
            raise TokenRefused("the token's header has something else than strings")
        if self.kind and _mediaType(kind) != _mediaType(self.kind):
            raise TokenRefused(f'the token is of another type than "{self.kind}"')
        if _mediaType(content) == "jwt":
            raise TokenRefused("the token is a token within another")


def _mediaType(name: str) -> str:
    """RFC 7515 4.1.9: they have no case, and ``application/`` may be left out."""
    return name.lower().removeprefix("application/")


@attrs.frozen
class SignedToken:
    """A token that could be good, if its signature were.

    :param kid: the key that it names, if any.
    :param signed: the octets that the signature is of.
    """

    algorithm: str
    kid: str | None
    signed: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    claims: Claims = attrs.field(repr=False)

    @classmethod
    def parse(cls, token: bytes, rules: Rules) -> SignedToken:
        """Read a token, and of its claims the issuer alone.

        :raise TokenRefused: when it is none, or another issuer's, or of a kind that is not allowed.
        """
        if len(token) > MAX_TOKEN:
            raise TokenRefused(f"the token has more than {MAX_TOKEN} octets")
        parts = token.split(b".", 5)
        if len(parts) == 5:
            raise ForeignToken("the token is encrypted (JWE)")
        if len(parts) != 3:
            raise ForeignToken("the token is no JWT")
        try:
            header, claims = (readOnce(_decode(part)) for part in parts[:2])
            # First whose it is: others' may be of another type, and are judged by others.
            rules.checkIssuer(claims)
            rules.checkHeader(header)
            return cls(
                algorithm=header["alg"],
                kid=header.get("kid"),
                signed=token.rpartition(b".")[0],
                signature=_decode(parts[2]),
                claims=claims,
            )
        except ValueError as error:
            raise ForeignToken(f"the token is no JWT: {error}") from None

    def isSignedBy(self, keys: KeySet) -> bool:
        """Whether the signature is of one of these keys."""
        # Of "none" and of shared secrets there are no keys.
        candidates = keys.candidates(self.kid, self.algorithm)[:MAX_TRIED]
        return any(
            _ALGORITHMS[self.algorithm].verify(self.signed, key.public, self.signature)
            for key in candidates
        )


def _decode(part: bytes) -> bytes:
    """Base64url without padding (RFC 7515 2), in its one form.

    :raise ValueError: for anything else.
    """
    try:
        octets = base64.b64decode(part + b"=" * (-len(part) % 4), b"-_", validate=True)
    except binascii.Error:
        octets = b""
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != part:
        raise ValueError("not base64url")
    return octets
