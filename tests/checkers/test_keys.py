"""Tests for :mod:`submitd.checkers.keys`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, x448
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers.keys import MAX_KEYS, RSA_ALGORITHMS, KeySet, readJWKSet, readKeys
from tests.checkers.issuers import Signer, base64url, jwkSet, number, rsaKey
from tests.clients.authority import Authority

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


class KeySetTests(SynchronousTestCase):
    """Which keys a signature may be of."""

    def test_candidates(self) -> None:
        """The one that is named, or those without a name; all for a token that names none."""
        one, two, nameless = Signer("ES256", "1"), Signer("ES256", "2"), Signer("ES256", None)
        keys = readKeys(jwkSet(one, two, nameless, Signer("EdDSA", "1")))
        first, second, third, other = keys.keys
        for kid, algorithm, found in (
            ("1", "ES256", [first]),
            ("1", "EdDSA", [other]),
            ("2", "ES256", [second]),
            ("2", "EdDSA", []),
            ("3", "ES256", [third]),
            ("", "ES256", [third]),
            (None, "ES256", [first, second, third]),
            (None, "RS256", []),
        ):
            self.assertEqual(keys.candidates(kid, algorithm), found)
        self.assertEqual([keys.knows(kid) for kid in ("1", "3", "", None)], [True, *[False] * 3])


class JWKSetTests(SynchronousTestCase):
    """RFC 7517 5."""

    def algorithms(self, *keys: Any) -> list[set[str]]:
        """What each of the keys is good for."""
        return [set(key.algorithms) for key in readKeys(jwkSet(*keys)).keys]

    def problem(self, content: bytes) -> str:
        """Why there is no key; none is quoted."""
        said = str(self.assertRaises(ValueError, readJWKSet, content))
        self.assertNotIn("KEY", said)
        return said

    def test_kinds(self) -> None:
        """A key is good for the algorithms of its kind, or for the one that it names."""
        for algorithm, expected in (
            ("RS256", set(RSA_ALGORITHMS)),
            ("ES256", {"ES256"}),
            ("ES384", {"ES384"}),
            ("ES512", {"ES512"}),
            ("EdDSA", {"EdDSA", "Ed25519"}),
        ):
            signer = Signer(algorithm)
            self.assertEqual(self.algorithms(signer), [expected])
            self.assertEqual(self.algorithms({**signer.jwk, "alg": algorithm}), [{algorithm}])
            self.assertEqual(readKeys(jwkSet(signer)).keys[0].public, signer.private.public_key())

    def test_null(self) -> None:
        """A member that is null is not there, as some programs write it."""
        nothing = dict.fromkeys(("kid", "use", "key_ops", "alg", "d", "p", "q", "x5c"))
        for signer in (Signer("RS256"), Signer("ES256")):
            expected = self.algorithms(signer)
            self.assertEqual(self.algorithms({**nothing, **signer.jwk}), expected)

    def test_leftOut(self) -> None:
        """What verifies no signature is left out, beside one that does."""
        rsa, good = Signer("RS256").jwk, Signer("ES256")
        octets = ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw()
        koblitz = ec.generate_private_key(ec.SECP256K1()).public_key().public_numbers()
        small = rsaKey("small", 1024).public_key().public_numbers()
        for jwk, said in (
            ({**rsa, "use": "enc"}, "for encryption"),
            ({**rsa, "key_ops": ["encrypt"]}, "for encryption"),
            ({**rsa, "key_ops": 7}, "for encryption"),
            ({**rsa, "alg": "RSA-OAEP"}, "for no algorithm that is known"),
            ({**rsa, "alg": "none"}, "for no algorithm that is known"),
            ({**rsa, "alg": "HS256"}, "for no algorithm that is known"),
            ({**rsa, "alg": "ES256"}, "for no algorithm that is known"),
            ({**rsa, "alg": ["RS256"]}, "kid or alg that is no string"),
            ({**rsa, "kid": 7}, "kid or alg that is no string"),
            ({**rsa, "d": "KEY"}, "private"),
            ({**rsa, "n": 7}, "cannot be read"),
            ({**rsa, "n": ""}, "cannot be read"),
            ({**rsa, "n": "KEY!"}, "cannot be read"),
            ({**rsa, "e": None}, "cannot be read"),
            ({"kty": "RSA"}, "cannot be read"),
            ({**good.jwk, "x": good.jwk["y"]}, "cannot be read"),
            ({**good.jwk, "crv": "P-512"}, "cannot be read"),
            ({"kty": "oct", "k": "KEY"}, "an unknown kind"),
            ({"kty": ["RSA"]}, "an unknown kind"),
            ({"kty": "AKP", "alg": "ML-DSA-44", "pub": "KEY"}, "an unknown kind"),
            ({"kty": "OKP", "crv": "X25519", "x": base64url(b"x" * 32).decode()}, "cannot be read"),
            ("KEY", "no JSON object"),
            (None, "no JSON object"),
        ):
            self.assertEqual(
                self.problem(jwkSet(jwk)),
                f"has no key for signatures ({said})",  # type: ignore[arg-type]
            )
            self.assertEqual(len(readKeys(jwkSet(jwk, good)).keys), 1)  # type: ignore[arg-type]
        weak = {"kty": "RSA", "n": number(small.n), "e": number(small.e)}
        self.assertIn("RSA below 2048 bits", self.problem(jwkSet(weak)))
        curve = {"kty": "EC", "crv": "secp256k1", "x": number(koblitz.x, 32)}
        self.assertIn(
            "for no algorithm", self.problem(jwkSet({**curve, "y": number(koblitz.y, 32)}))
        )
        okp = {"kty": "OKP", "crv": "Ed448", "x": base64url(octets).decode()}
        self.assertEqual(self.algorithms(okp), [{"EdDSA"}])

    def test_problems(self) -> None:
        """What is no set of keys is said to be none."""
        for content, said in (
            (b"", "is not JSON"),
            (b"KEY", "is not JSON"),
            (b"\xff", "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b'{"keys": NaN}', "is not JSON"),
            (b"[]", "is no JSON object"),
            (b"{}", 'is no JWK Set: it has no list of "keys"'),
            (b'{"keys": {"kty": "RSA"}}', 'is no JWK Set: it has no list of "keys"'),
            (b'{"keys": []}', "has no key for signatures (none at all)"),
            (b'{"keys": [], "keys": []}', "a name stands twice in the JSON"),
            (b'{"keys": [{"a": {"b": 1, "b": 2}}]}', "a name stands twice in the JSON"),
            (jwkSet(*[{}] * (MAX_KEYS + 1)), f"has more than {MAX_KEYS} keys"),
        ):
            self.assertEqual(self.problem(content), said)

    @settings(max_examples=200, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y"]),
            ANY | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "sig", "AQAB", "QQ"]),
        )
    )
    def test_anything(self, jwk: dict[str, Any]) -> None:
        """Whatever a key says, it is read or left out."""
        keys = readKeys(jwkSet(Signer("EdDSA"), jwk))
        self.assertIn(len(keys.keys), (1, 2))

    @settings(max_examples=100, deadline=None)
    @given(ANY | st.builds(lambda any: {"keys": any}, ANY))
    def test_anySet(self, content: Any) -> None:
        """Whatever a set is, it is read or refused in a sentence."""
        self.problem(json.dumps(content).encode())


class PEMTests(SynchronousTestCase):
    """Keys as OpenSSL writes them."""

    def problem(self, content: bytes) -> str:
        """Why there is no key."""
        return str(self.assertRaises(ValueError, readKeys, content))

    def test_keys(self) -> None:
        """Several of any kind, with text between them; they have no names."""
        signers = [Signer("RS256"), Signer("ES256"), Signer("EdDSA")]
        pem = b"\nthe issuer's:\n".join(signer.pem for signer in signers)
        keys = readKeys(b"\n" + pem.replace(b"\n", b"\r\n"))
        self.assertEqual(
            [(key.kid, key.public) for key in keys.keys],
            [(None, signer.private.public_key()) for signer in signers],
        )

    def test_certificate(self) -> None:
        """A certificate has a key."""
        directory = Path(self.mktemp())
        directory.mkdir()
        certificate, _ = Authority.make(directory, "authority").issue(directory)
        self.assertIsInstance(readKeys(certificate.read_bytes()), KeySet)

    def test_problems(self) -> None:
        """A private key is nothing to have here; others are named."""
        signer = Signer("ES256")
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            pem = signer.private.private_bytes(Encoding.PEM, form, NoEncryption())
            for content in (pem, signer.pem + pem):
                self.assertIn("has a private key; it needs the public", self.problem(content))
        neither = "is neither a JWK Set nor has it public keys in PEM form"
        for content in (b"", b"KEY", b"\xff" * 100, signer.pem[:-5]):
            self.assertEqual(self.problem(content), neither)
        broken = signer.pem.replace(b"M", b"!", 1)
        self.assertEqual(self.problem(broken), "has a PUBLIC KEY that cannot be read")
        public = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        for other in (
            dsa.generate_private_key(1024).public_key().public_bytes(*public),
            x448.X448PrivateKey.generate().public_key().public_bytes(*public),
        ):
            said = "has no key for signatures (for no algorithm that is known)"
            self.assertEqual(self.problem(other), said)
