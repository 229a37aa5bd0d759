"""Public keys that signatures of tokens are verified with: a JWK Set (RFC 7517 5), or PEM.

Each key is good for the algorithms of its kind alone, whatever a token says, and for the one that
the provider names, if any.  What can verify no signature is left out, as RFC 7517 5 wants it: keys
for encryption, kinds that nobody knows, secrets that are shared (HMAC), RSA below 2048 bits, and
private keys, with which whoever has read them can sign.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK

from submitd.checkers.claims import Claims, readOnce

PublicKey = (
    rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
)

MAX_KEYS = 100
"""Keys of a set; one that has more is none of a provider's."""

MIN_RSA_BITS = 2048  # RFC 7518 3.3
RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}  # RFC 7518 3.4

# As which a key is read, by its kind; what it is good for, the key itself says.
_READ_AS = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@attrs.frozen
class Key:
    """A public key.

    :param kid: its name; ``None`` for one that has none.
    :param algorithms: what it may be used for.
    """

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey = attrs.field(repr=False)


@attrs.frozen
class KeySet:
    """The keys that an issuer has now."""

    keys: Sequence[Key]

    def knows(self, kid: str | None) -> bool:
        """Whether there is a key of that name."""
        return kid is not None and any(key.kid == kid for key in self.keys)

    def candidates(self, kid: str | None, algorithm: str) -> list[Key]:
        """Those that a signature may be of.

        :param kid: as the token says: the keys of that name, or else those without a name;
            ``None`` for all.
        """
        named = kid if kid is None or self.knows(kid) else None
        return [
            key
            for key in self.keys
            if algorithm in key.algorithms and (kid is None or key.kid == named)
        ]


def readKeys(content: bytes) -> KeySet:
    """The keys of a file, a JWK Set or PEM.

    :raise ValueError: when there is none that can be used; the text says why, and quotes nothing.
    """
    return readJWKSet(content) if content.lstrip().startswith(b"{") else readPEM(content)


def readJWKSet(content: bytes) -> KeySet:
    """The keys of a JWK Set.

    :raise ValueError: as :func:`readKeys`.
    """
    listed = readOnce(content).get("keys")
    if not isinstance(listed, list):
        raise ValueError('is no JWK Set: it has no list of "keys"')
    if len(listed) > MAX_KEYS:
        raise ValueError(f"has more than {MAX_KEYS} keys")
    return _usable([_read(each) for each in listed])


def readPEM(content: bytes) -> KeySet:
    """The public keys and certificates of a PEM file; their names are not known.

    :raise ValueError: as :func:`readKeys`.
    """
    found: list[Key | str] = []
    for block in _BLOCK.finditer(content):
        if b"PRIVATE" in block[1]:
            raise ValueError("has a private key; it needs the public one (openssl pkey -pubout)")
        try:
            if block[1] == b"CERTIFICATE":
                public: Any = x509.load_pem_x509_certificate(block[0]).public_key()
            else:
                public = load_pem_public_key(block[0])
        except Exception:  # whatever the library finds wrong with it
            raise ValueError(f"has a {block[1].decode()} that cannot be read") from None
        found.append(_made(public, None, None))
    if not found:
        raise ValueError("is neither a JWK Set nor has it public keys in PEM form")
    return _usable(found)


def _usable(found: list[Key | str]) -> KeySet:
    keys = [each for each in found if isinstance(each, Key)]
    if not keys:
        reasons = sorted({each for each in found if isinstance(each, str)})
        raise ValueError(f"has no key for signatures ({', '.join(reasons) or 'none at all'})")
    return KeySet(keys)


def _read(jwk: Any) -> Key | str:
    """A key, or why it is left out."""
    if not isinstance(jwk, dict):
        return "no JSON object"
    # Some programs write every member that they know, null where there is none.
    jwk = {name: value for name, value in jwk.items() if value is not None}
    kind, kid, algorithm = jwk.get("kty"), jwk.get("kid"), jwk.get("alg")
    if not isinstance(kind, str) or kind not in _READ_AS:
        return "an unknown kind"
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        return "kid or alg that is no string"
    if not _isForSignatures(jwk):
        return "for encryption"
    if "d" in jwk:
        return "private"
    try:
        public = PyJWK(jwk, _READ_AS[kind]).key
    except Exception:  # whatever the library finds wrong with it
        return "cannot be read"
    return _made(public, kid, algorithm)


def _isForSignatures(jwk: Claims) -> bool:
    """See RFC 7517 4.2 and 4.3."""
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and (
        isinstance(operations, list) and "verify" in operations
    )


def _made(public: Any, kid: str | None, algorithm: str | None) -> Key | str:
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < MIN_RSA_BITS:
            return f"RSA below {MIN_RSA_BITS} bits"
        algorithms = RSA_ALGORITHMS
    elif isinstance(public, ec.EllipticCurvePublicKey):
        algorithms = frozenset({CURVES.get(public.curve.name, "")} - {""})
    elif isinstance(public, ed25519.Ed25519PublicKey):
        algorithms = frozenset({"EdDSA", "Ed25519"})  # RFC 8037, RFC 9864
    elif isinstance(public, ed448.Ed448PublicKey):
        algorithms = frozenset({"EdDSA"})
    else:
        algorithms = frozenset()
    # A key is for one algorithm (RFC 8725 3.1), where its owner says so.
    algorithms &= {algorithm} if algorithm is not None else algorithms
    return Key(kid, algorithms, public) if algorithms else "for no algorithm that is known"
