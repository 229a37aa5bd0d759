"""Signed tokens and sets of keys: who is let in, by a second reading, and nothing odd is said.

Octets are tried as they are, as a token: none is good but those that the issuer has signed.  The
same octets are tried signed, as header and claims with a line feed between them.
"""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from submitd.checkers.claims import Wanted
from submitd.checkers.keys import readKeys
from submitd.checkers.signedtoken import Rules, SignedToken
from submitd.sasl.bearer import TokenRefused
from submitd.sasl.credentials import nameProblem
from tests.checkers.issuers import AUDIENCE, ISSUER, NOW, Signer, claims, jwkSet, number
from tests.fuzz.target import Target
from tests.fuzz.test_wire import ODD

ISSUERS = Signer("EdDSA")
ISSUERS.private = ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
KEYS = readKeys(jwkSet(ISSUERS))
GOOD = ISSUERS.token()
HEADER = b'{"alg":"EdDSA","typ":"at+jwt","kid":"one"}'
CLAIMS = json.dumps(claims()).encode()
RULES = Rules(
    issuer=ISSUER,
    wanted=Wanted(nameClaim="email", scopes=frozenset({"mail"}), audience=AUDIENCE),
    algorithms=("RS256", "EdDSA"),
    kind="at+jwt",
    leeway=30.0,
)


def nameIn(token: bytes) -> bytes | None:
    """Whose the token is; ``None`` where it is refused, with nothing odd in the text."""
    try:
        read = SignedToken.parse(token, RULES)
        owner = RULES.ownerOf(read.claims, NOW)
    except TokenRefused as refused:
        assert str(refused).isprintable() and len(str(refused)) < 120
        return None
    return owner.name if read.isSignedBy(KEYS) else None


def token(data: bytes) -> None:
    """A token is good where it says what it must, and the issuer has signed it."""
    assert nameIn(data) is None or data == GOOD
    header, _, said = data.partition(b"\n")
    found = nameIn(ISSUERS.whole(header, said))
    assert found == _expected(_object(header), _object(said)), found


def _object(octets: bytes) -> dict[str, Any] | None:
    """What a JSON object is; ``None`` for what is none, or has a name twice."""
    twice = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(name for name in names if names.count(name) > 1)
        return dict(pairs)

    try:
        text = octets.decode("utf-8")
        read = json.loads(text, object_pairs_hook=once, parse_constant=lambda _: twice.append("x"))
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) and not twice else None


def _expected(header: dict[str, Any] | None, said: dict[str, Any] | None) -> bytes | None:
    """Whose a token with these is, when the issuer has signed it."""
    if header is None or said is None or header.keys() & {"crit", "b64"}:
        return None
    kinds = ("at+jwt", "application/at+jwt")
    if header.get("alg") != "EdDSA" or str(header.get("typ")).lower() not in kinds:
        return None
    if "kid" in header and header["kid"] != "one":
        return None
    content = header.get("cty", "")
    if not isinstance(content, str) or content.lower() in ("jwt", "application/jwt"):
        return None
    times = [said.get(name, 0) for name in ("nbf", "iat")] + [said.get("exp")]
    if any(type(each) not in (int, float) for each in times) or said.get("cnf") is not None:
        return None
    scopes = _listed(said.get("scope", ""), " ")
    audience = _listed(said.get("aud", ""), None)
    email = said.get("email")
    octets = email.encode("utf-8", "surrogatepass") if isinstance(email, str) else b""
    good = (
        said.get("iss") == ISSUER
        and max(times[:2]) <= NOW + 30 < times[2] + 60
        and AUDIENCE in audience
        and "mail" in scopes
        and not nameProblem(octets)
        and said.get("email_verified", True) in (True, "true")
    )
    return octets if good else None


def _listed(value: Any, between: str | None) -> list[str]:
    """Strings in a list, or in one; none where there is anything else."""
    found = (value.split(between) if between else [value]) if isinstance(value, str) else value
    good = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return found if good else []


def keys(data: bytes) -> None:
    """A set of keys is read, or is none for a reason; a key is for algorithms of its kind."""
    try:
        found = readKeys(data)
    except ValueError as error:
        assert str(error).isprintable() and len(str(error)) < 300, error
        return
    for key in found.keys:
        assert key.algorithms and "none" not in key.algorithms
        assert not any(each.startswith("HS") for each in key.algorithms)
        assert key in found.candidates(None, min(key.algorithms))


NAMES = ("alg", "typ", "kid", "crit", "iss", "aud", "exp", "nbf", "iat", "scope", "email", "cnf")
VALUES = (b'"none"', b'"one"', b"null", b"true", b"1e400", b"NaN", b"0", b"[]", b"{}", b'"mail"')

TOKEN = Target(
    "token",
    token,
    [
        *(b'{"%b":' % name.encode() for name in NAMES),
        *(b',"%b":' % name.encode() for name in NAMES),
        *VALUES,
        *GOOD.split(b"."),
        *(HEADER, CLAIMS, HEADER[:-1], CLAIMS[:-1], b"}", b"\n", b".", b"=", b"A" * 3000),
        *(b"[" * 2000, b'{"alg":"EdDSA","typ":"at+jwt"}\n', b'{"alg":"none"}\n'),
        *ODD,
    ],
    100,
)

RSA = {"kty": "RSA", "n": number(2**2047 + 1), "e": "AQAB"}
CURVE = {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43}

JWKS = Target(
    "keys",
    keys,
    [
        *(b'{"keys":[', b"]}", b",", b'{"kty":"RSA"', b'{"kty":"EC"', b'{"kty":"OKP"', b"}", b"{"),
        *(json.dumps(each).encode() for each in (RSA, CURVE, ISSUERS.jwk)),
        *(b',"n":', b',"e":', b',"x":', b',"y":', b',"crv":', b',"use":', b',"key_ops":', b',"d":'),
        *(b'"P-256"', b'"Ed25519"', b'"enc"', b'"AQAB"', b'"' + b"A" * 400 + b'"', *VALUES),
        *(ISSUERS.pem, b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----", b"PRIVATE"),
        *ODD,
    ],
    60,
)

TokenTests = TOKEN.tests(__name__)
KeysTests = JWKS.tests(__name__)
