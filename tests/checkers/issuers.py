"""An issuer of signed tokens: keys of each kind, and tokens written octet by octet.

Nothing here is PyJWT's, which is what verifies them.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://id.example.com/realms/example"
AUDIENCE = "submission.example.com"
NOW = 1_800_000_000.0

CURVES: dict[str, tuple[Any, str]] = {
    "ES256": (ec.SECP256R1(), "P-256"),
    "ES384": (ec.SECP384R1(), "P-384"),
    "ES512": (ec.SECP521R1(), "P-521"),
}
HASHES: dict[str, Any] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def base64url(octets: bytes) -> bytes:
    """RFC 7515 2."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def number(value: int, length: int | None = None) -> str:
    """RFC 7518 2: Base64urlUInt."""
    length = (value.bit_length() + 7) // 8 if length is None else length
    return base64url(value.to_bytes(length, "big")).decode()


@functools.cache
def rsaKey(which: str = "", bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key, made once."""
    return rsa.generate_private_key(65537, bits)


def claims(**others: Any) -> dict[str, Any]:
    """Those of a good token; ``None`` takes one out."""
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "7",
        "email": "Alice@example.com",
        "scope": "openid mail",
        "iat": int(NOW) - 10,
        "exp": int(NOW) + 300,
    }
    return {name: value for name, value in (usual | others).items() if value is not None}


class Signer:
    """A key that signs.

    :param algorithm: of RFC 7518, or EdDSA, or Ed25519.
    :param kid: its name.
    """

    def __init__(self, algorithm: str, kid: str | None = "one") -> None:
        self.algorithm, self.kid = algorithm, kid
        self.private: Any
        if algorithm in ("EdDSA", "Ed25519"):
            self.private = ed25519.Ed25519PrivateKey.generate()
        elif algorithm in CURVES:
            self.private = ec.generate_private_key(CURVES[algorithm][0])
        else:
            self.private = rsaKey(kid or "")

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as RFC 7518 6 and RFC 8037 2 have it."""
        public = self.private.public_key()
        named = {} if self.kid is None else {"kid": self.kid}
        if self.algorithm in ("EdDSA", "Ed25519"):
            octets = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
            return {"kty": "OKP", "crv": "Ed25519", "x": base64url(octets).decode(), **named}
        numbers = public.public_numbers()
        if self.algorithm in CURVES:
            curve, name = CURVES[self.algorithm]
            length = (curve.key_size + 7) // 8
            x, y = number(numbers.x, length), number(numbers.y, length)
            return {"kty": "EC", "crv": name, "x": x, "y": y, "use": "sig", **named}
        return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **named}

    @property
    def pem(self) -> bytes:
        """The same, as OpenSSL writes it."""
        public = self.private.public_key()
        made: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return made

    def sign(self, octets: bytes) -> bytes:
        """A signature, as RFC 7518 3 and RFC 8037 3.1 have it."""
        if self.algorithm in ("EdDSA", "Ed25519"):
            return bytes(self.private.sign(octets))
        digest = HASHES[self.algorithm[2:]]
        if self.algorithm in CURVES:
            r, s = decode_dss_signature(self.private.sign(octets, ec.ECDSA(digest)))
            length = (CURVES[self.algorithm][0].key_size + 7) // 8
            return r.to_bytes(length, "big") + s.to_bytes(length, "big")
        padded: Any = padding.PKCS1v15()
        if self.algorithm.startswith("PS"):
            padded = padding.PSS(padding.MGF1(digest), digest.digest_size)
        return bytes(self.private.sign(octets, padded, digest))

    def token(self, said: Any = None, **header: Any) -> bytes:
        """A token.

        :param said: the claims, or the octets of any; :func:`claims` where left out.
        :param header: what it has else, or not (``None``).
        """
        usual = {"alg": self.algorithm, "typ": "at+jwt", "kid": self.kid, **header}
        parts = {name: value for name, value in usual.items() if value is not None}
        said = claims() if said is None else said
        said = said if isinstance(said, bytes) else json.dumps(said).encode()
        return self.whole(json.dumps(parts).encode(), said)

    def whole(self, header: bytes, said: bytes) -> bytes:
        """A token of these octets."""
        signed = base64url(header) + b"." + base64url(said)
        return signed + b"." + base64url(self.sign(signed))


class Shared(Signer):
    """A secret in place of a key: HMAC (RFC 7518 3.2).

    :param secret: what the issuer is to take for one.
    """

    def __init__(self, secret: bytes, kid: str | None = "one") -> None:
        self.algorithm, self.kid, self.secret = "HS256", kid, secret

    def sign(self, octets: bytes) -> bytes:
        """A code."""
        return hmac.digest(self.secret, octets, hashlib.sha256)


class Nothing(Signer):
    """No signature: ``none`` (RFC 7518 3.6)."""

    def __init__(self, kid: str | None = "one") -> None:
        self.algorithm, self.kid = "none", kid

    def sign(self, octets: bytes) -> bytes:
        """Nothing."""
        return b""


def jwkSet(*keys: Signer | dict[str, Any]) -> bytes:
    """A JWK Set."""
    listed = [each.jwk if isinstance(each, Signer) else each for each in keys]
    return json.dumps({"keys": listed}).encode()
