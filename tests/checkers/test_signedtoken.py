"""Tests for :mod:`submitd.checkers.signedtoken`."""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers.claims import Owner, Wanted
from submitd.checkers.keys import KeySet, readKeys
from submitd.checkers.signedtoken import MAX_TOKEN, MAX_TRIED, Rules, SignedToken
from submitd.sasl.bearer import TokenRefused
from tests.checkers.issuers import (
    AUDIENCE,
    ISSUER,
    NOW,
    Nothing,
    Shared,
    Signer,
    base64url,
    claims,
    jwkSet,
)

ALL = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
ALL += ("Ed25519", "EdDSA")
RULES = Rules(
    issuer=ISSUER,
    wanted=Wanted(nameClaim="email", scopes=frozenset({"mail"}), audience=AUDIENCE),
    algorithms=ALL,
    kind="at+jwt",
    leeway=30.0,
)
SAME = {"EdDSA", "Ed25519"}
UNSIGNED = "none of the keys"


def verdict(token: bytes, keys: KeySet, rules: Rules = RULES) -> Owner | str:
    """Whose the token is, or why it is not accepted; anything else is raised."""
    try:
        read = SignedToken.parse(token, rules)
        owner = rules.ownerOf(read.claims, NOW)
    except TokenRefused as refused:
        return str(refused)
    return owner if read.isSignedBy(keys) else UNSIGNED


class TokenCase(SynchronousTestCase):
    """An issuer with a key."""

    def setUp(self) -> None:
        self.signer = Signer("ES256")
        self.keys = readKeys(jwkSet(self.signer))

    def said(self, token: bytes, rules: Rules = RULES) -> str:
        """Why a token is not accepted; nothing of it is quoted."""
        found = verdict(token, self.keys, rules)
        self.assertIsInstance(found, str)
        self.assertNotIn("KEY", str(found))
        return str(found)

    def assertGood(self, token: bytes, keys: KeySet | None = None, rules: Rules = RULES) -> None:
        """It is Alice's."""
        owner = verdict(token, keys or self.keys, rules)
        self.assertEqual(owner, Owner(b"Alice@example.com", NOW + 300))


class SignatureTests(TokenCase):
    """Whose signature it is."""

    def test_algorithms(self) -> None:
        """Each is verified, and is no longer good when an octet of the token is another one."""
        for algorithm in ALL:
            signer = Signer(algorithm)
            keys = readKeys(jwkSet(signer))
            token = signer.token()
            self.assertGood(token, keys)
            self.assertGood(signer.token(kid=None), keys)
            self.assertEqual(verdict(Signer(algorithm, "another").token(kid="one"), keys), UNSIGNED)
            signed, _, signature = token.rpartition(b".")
            octets = signer.sign(signed)
            for changed in (b"", b"x", octets[:-1], octets[1:], octets + b"x", octets * 2):
                token = signed + b"." + base64url(changed)
                self.assertEqual(verdict(token, keys), UNSIGNED)
            other = base64url(json.dumps(claims(email="bob@example.com")).encode())
            header = token.partition(b".")[0]
            self.assertEqual(verdict(b".".join((header, other, signature)), keys), UNSIGNED)

    def test_zeros(self) -> None:
        """A signature of zeros is none, whatever the curve (CVE-2022-21449)."""
        for algorithm, length in (("ES256", 64), ("ES384", 96), ("ES512", 132), ("EdDSA", 64)):
            signer = Signer(algorithm)
            signed = signer.token().rpartition(b".")[0]
            token = signed + b"." + base64url(bytes(length))
            self.assertEqual(verdict(token, readKeys(jwkSet(signer))), UNSIGNED)

    def test_confusion(self) -> None:
        """A key is for its own algorithms, whatever the token says (RFC 8725 3.1)."""
        rsa, curve, okp = Signer("RS256", "r"), Signer("ES256", "e"), Signer("EdDSA", "o")
        keys = readKeys(jwkSet(rsa, curve, okp))
        for signer in (rsa, curve, okp):
            for algorithm in ALL:
                if algorithm == signer.algorithm or {algorithm, signer.algorithm} == SAME:
                    continue
                self.assertEqual(verdict(signer.token(alg=algorithm), keys), UNSIGNED)
        bound = readKeys(jwkSet({**rsa.jwk, "alg": "PS256"}))
        self.assertEqual(verdict(rsa.token(), bound), UNSIGNED)

    def test_secrets(self) -> None:
        """A public key is no secret, and no signature none: neither can even be allowed."""
        signer = Signer("RS256")
        keys = readKeys(jwkSet(signer))
        not_allowed = "the token's algorithm is not one of those that are allowed"
        for secret in (signer.pem, json.dumps(signer.jwk).encode(), b"", b"secret"):
            self.assertEqual(verdict(Shared(secret).token(), keys), not_allowed)
        for algorithm in ("none", "None", "NONE", "nOnE", "", None, 7, ["RS256"], "rs256", "ES521"):
            token = Nothing().token(alg=algorithm)
            self.assertEqual(verdict(token, keys), not_allowed)
        # Even where somebody allows them:
        allowed = attrs.evolve(RULES, algorithms=("none", "HS256"))
        self.assertEqual(verdict(Shared(signer.pem).token(), keys, allowed), UNSIGNED)
        self.assertEqual(verdict(Nothing().token(), keys, allowed), UNSIGNED)

    def test_allowed(self) -> None:
        """What the operator does not allow is refused, though there is such a key."""
        rules = attrs.evolve(RULES, algorithms=("RS256",))
        self.assertIn("not one of those that are allowed", self.said(self.signer.token(), rules))

    def test_ownKeys(self) -> None:
        """A key that a token brings along, or says where to find, is nothing."""
        mine = Signer("ES256", "mine")
        for header in (
            {"jwk": mine.jwk},
            {"jwk": mine.jwk, "kid": None},
            {"jku": "https://example.net/jwks"},
            {"x5u": "https://example.net/x5"},
            {"x5c": ["KEY"]},
            {"kid": "../../dev/null"},
            {"kid": "' OR 1=1 --"},
            {"kid": "KEY\r\n\0\N{RIGHT-TO-LEFT OVERRIDE}"},
            {"kid": "one"},
            {"kid": "x" * 5000},
        ):
            self.assertEqual(self.said(mine.token(**header)), UNSIGNED)

    def test_bounded(self) -> None:
        """Only so many keys are tried for a token that names none."""
        signers = [Signer("ES256", f"{at}") for at in range(MAX_TRIED + 1)]
        keys = readKeys(jwkSet(*signers))
        self.assertGood(signers[MAX_TRIED - 1].token(kid=None), keys)
        self.assertEqual(verdict(signers[MAX_TRIED].token(kid=None), keys), UNSIGNED)
        self.assertGood(signers[MAX_TRIED].token(), keys)


class FormTests(TokenCase):
    """Octets that are no token, or not one of ours."""

    def test_noToken(self) -> None:
        """Anything else is said to be no token."""
        good = self.signer.token()
        header, said, signature = good.split(b".")
        no = "the token is no JWT"
        for token, expected in (
            (b"", no),
            (b"opaque-KEY", no),
            (b".", no),
            (b"...", no),
            (b"....", "the token is encrypted (JWE)"),
            (good + b".", no),
            (good + b"." + signature, no),
            (b"..", f"{no}: is not JSON"),
            (b"." + said + b"." + signature, f"{no}: is not JSON"),
            (header + b".." + signature, f"{no}: is not JSON"),
            (b"=" + good, f"{no}: not base64url"),
            (b"!" + good, f"{no}: not base64url"),
            (header + b"=." + said + b"." + signature, f"{no}: not base64url"),
            (header.replace(b"e", b"\n", 1) + b".e30." + signature, f"{no}: not base64url"),
            (b"e31." + said + b"." + signature, f"{no}: not base64url"),
            (b"e30=." + said + b"." + signature, f"{no}: not base64url"),
            (b"++++." + said + b"." + signature, f"{no}: not base64url"),
            (b"A" * (MAX_TOKEN + 1), f"the token has more than {MAX_TOKEN} octets"),
            (b"." * 10_000_000, f"the token has more than {MAX_TOKEN} octets"),
        ):
            self.assertEqual(self.said(token), expected)

    def test_oneSpelling(self) -> None:
        """What nobody has changed has one spelling: that of the signature, too."""
        good = self.signer.token()
        last = good[-1:]
        letters = [bytes([each]) for each in range(256) if bytes([each]) != last]
        for each in letters:
            self.assertIsInstance(verdict(good[:-1] + each, self.keys), str)

    def test_json(self) -> None:
        """Header and claims are objects, in which no name stands twice."""
        header = b'{"alg":"ES256","typ":"at+jwt","kid":"one"}'
        good = json.dumps(claims()).encode()
        self.assertGood(self.signer.whole(header, good))
        deep = b"[" * 6000
        for other, said in (
            (b"[]", "is no JSON object"),
            (b'"KEY"', "is no JSON object"),
            (b"null", "is no JSON object"),
            (b"{", "is not JSON"),
            (b"\xff", "is not JSON"),
            (b"\xef\xbb\xbf{}", "is not JSON"),
            ("{}".encode("utf-16"), "is not JSON"),
            (b'{"exp": NaN}', "is not JSON"),
            (b'{"exp": ' + b"1" * 5000 + b"}", "is not JSON"),
            (deep, "is not JSON"),
            (b'{"a": 1, "a": 1}', "a name stands twice in the JSON"),
            (b'{"alg":"none","alg":"ES256"}', "a name stands twice in the JSON"),
        ):
            for token in (self.signer.whole(other, good), self.signer.whole(header, other)):
                self.assertEqual(self.said(token), f"the token is no JWT: {said}")

    def test_header(self) -> None:
        """What changes how a token is to be read is refused; what nobody knows is passed over."""
        unknown, mixed = "the token wants what is not known here", "something else than strings"
        for header, said in (
            ({"crit": ["exp"]}, unknown),
            ({"crit": []}, unknown),
            ({"crit": ["b64"], "b64": False}, unknown),
            ({"b64": True}, unknown),
            ({"kid": 7}, mixed),
            ({"kid": ["one"]}, mixed),
            ({"typ": {"KEY": 1}}, mixed),
            ({"typ": ["at+jwt"]}, mixed),
            ({"cty": 7}, mixed),
            ({"cty": "JWT"}, "the token is a token within another"),
            ({"cty": "application/jwt"}, "the token is a token within another"),
        ):
            self.assertIn(said, self.said(self.signer.token(**header)))
        self.assertGood(self.signer.token(x5t="x", zzz=[1, {"a": None}]))

    def test_kind(self) -> None:
        """An ID token is no access token (RFC 9068 4), unless the issuer knows no types."""
        for kind in ("at+jwt", "AT+JWT", "application/at+jwt", "Application/at+JWT"):
            self.assertGood(self.signer.token(typ=kind))
        for kind in ("JWT", "", None, "at", "application/at+jwt; x=y", "id+jwt", "logout+jwt"):
            token = self.signer.token(typ=kind)
            self.assertEqual(self.said(token), 'the token is of another type than "at+jwt"')
            self.assertGood(token, rules=attrs.evolve(RULES, kind=""))
        self.assertGood(self.signer.token(typ="jwt"), rules=attrs.evolve(RULES, kind="JWT"))


class ClaimTests(TokenCase):
    """What a token says."""

    def refused(self, rules: Rules = RULES, **changed: Any) -> str:
        """Why one that says something else is refused."""
        return self.said(self.signer.token(claims(**changed)), rules)

    def test_issuer(self) -> None:
        """It is the issuer, character by character."""
        for issuer in (None, "", ISSUER + "/", ISSUER.upper(), [ISSUER], 7, "https://example.net"):
            self.assertEqual(self.refused(iss=issuer), "the token is another issuer's")

    def test_audience(self) -> None:
        """It is for us, whoever else it is for."""
        self.assertGood(self.signer.token(claims(aud=["x", AUDIENCE])))
        for audience in (None, "", "x", [], ["x"], AUDIENCE + ".net", AUDIENCE.upper()):
            self.assertEqual(self.refused(aud=audience), "the token is for another audience")
        for audience in (7, {"x": AUDIENCE}, [AUDIENCE, 7]):
            self.assertIn('"aud" is neither', self.refused(aud=audience))
        anybody = attrs.evolve(RULES, wanted=attrs.evolve(RULES.wanted, audience=""))
        for audience in (None, "x", 7):
            self.assertGood(self.signer.token(claims(aud=audience)), rules=anybody)

    def test_times(self) -> None:
        """It must say when it expires; clocks may differ, but not for long."""
        now = int(NOW)
        for times in (
            {"exp": now + 300, "nbf": now + 30, "iat": now + 30},
            {"exp": NOW + 300.0, "iat": None},
        ):
            self.assertGood(self.signer.token(claims(**times)))
        self.assertEqual(
            verdict(self.signer.token(claims(exp=now - 29)), self.keys),
            Owner(b"Alice@example.com", NOW - 29),
        )
        for expires in (now - 30, now - 31, 0, -1, -(10**300)):
            self.assertEqual(self.refused(exp=expires), "the token has expired")
        self.assertEqual(self.refused(exp=None), "the token does not say when it expires")
        for name in ("nbf", "iat"):
            for moment in (now + 31, 1e300):
                self.assertIn("of a time to come", self.refused(**{name: moment}))
        for name in ("exp", "nbf", "iat"):
            for moment in ("KEY", True, [], {}, str(now)):
                said = self.refused(**{name: moment})
                self.assertEqual(said, f'the token: "{name}" is no number')
            self.assertEqual(self.refused(**{name: 10**400}), f'the token: "{name}" is no time')
        # null is no time either, and not the same as nothing.
        token = self.signer.token({**claims(), "exp": None})
        self.assertEqual(self.said(token), 'the token: "exp" is no number')

    def test_bound(self) -> None:
        """A token that is bound to a key is no bearer token."""
        self.assertIn("bound to a key", self.refused(cnf={"jkt": "KEY"}))

    def test_scope(self) -> None:
        """It has the scopes, in the claim that has them."""
        self.assertEqual(self.refused(scope="openid"), "the token has not the scope")
        self.assertEqual(self.refused(scope=None, scp="mail"), "the token has not the scope")
        scp = attrs.evolve(RULES, wanted=attrs.evolve(RULES.wanted, scopeClaim="scp"))
        for value in ("mail", "x mail", ["mail", "x"]):
            self.assertGood(self.signer.token(claims(scope=None, scp=value)), rules=scp)
        self.assertEqual(self.refused(scp), "the token has not the scope")

    def test_values(self) -> None:
        """Other claims are what they must be, or have it among them."""
        values = {"tid": "t", "roles": "send"}
        rules = attrs.evolve(RULES, wanted=attrs.evolve(RULES.wanted, values=values))
        for roles in ("send", ["read", "send"]):
            self.assertGood(self.signer.token(claims(tid="t", roles=roles)), rules=rules)
        for changed, name in (
            ({"tid": "t"}, "roles"),
            ({"roles": "send"}, "tid"),
            ({"tid": "T", "roles": "send"}, "tid"),
            ({"tid": "t", "roles": "send read"}, "roles"),
            ({"tid": "t", "roles": []}, "roles"),
        ):
            said = f'the token has not the "{name}" that it must have'
            self.assertEqual(self.refused(rules, **changed), said)
        self.assertIn('"tid" is neither', self.refused(rules, tid=7, roles="send"))

    def test_name(self) -> None:
        """It names somebody whom there can be, and who has that address."""
        for name in (None, "", "a\r\nKEY", "x" * 3000, 7, ["KEY"]):
            self.refused(email=name)
        self.assertIn("has not verified", self.refused(email_verified=False))


class AnythingTests(TokenCase):
    """Whatever the octets are, a token is refused in a sentence, or is the issuer's."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.binary(max_size=200)
        | st.lists(st.sampled_from([b".", b"e30", b"=", b"A"])).map(b"".join)
    )
    def test_octets(self, octets: bytes) -> None:
        """Any octets."""
        self.said(octets)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_changed(self, data: st.DataObject) -> None:
        """A good token with octets changed, taken out or put in is never good."""
        good = self.signer.token()
        at = data.draw(st.integers(0, len(good) - 1))
        end = data.draw(st.integers(at, min(len(good), at + 4)))
        changed = good[:at] + data.draw(st.binary(max_size=4)) + good[end:]
        if changed != good:
            self.said(changed)

    @settings(max_examples=300, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from([*claims(), "nbf", "cnf"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.lists(st.text()),
        )
    )
    def test_claims(self, changed: dict[str, Any]) -> None:
        """Whatever the issuer has signed."""
        found = verdict(self.signer.token({**claims(), **changed}), self.keys)
        self.assertIsInstance(found, str | Owner)
