"""Tests for :mod:`submitd.checkers.claims`."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers.claims import Owner, Unusable, Wanted, isActive, readClaims
from submitd.sasl.bearer import TokenRefused

NOW = 1_800_000_000.0
FOREVER = float("inf")


def ownerOf(claims: dict[str, Any], **wanted: Any) -> Owner:
    """Whose the token is, its claims having come as JSON."""
    wanted = {"nameClaim": "username", **wanted}
    return Wanted(**wanted).ownerOf(readClaims(json.dumps(claims).encode()), NOW)


class OwnerTests(SynchronousTestCase):
    """Whose a token is."""

    def refused(self, claims: dict[str, Any], **wanted: Any) -> TokenRefused:
        """Why it is not accepted."""
        return self.assertRaises(TokenRefused, ownerOf, claims, **wanted)

    def unusable(self, claims: dict[str, Any], **wanted: Any) -> str:
        """Why nothing can be made of it; the claims are not quoted."""
        said = str(self.assertRaises(Unusable, ownerOf, claims, **wanted))
        self.assertNotIn("KEY", said)
        return said

    def test_name(self) -> None:
        """The claim that is asked for has the name, as the provider writes it."""
        self.assertEqual(ownerOf({"username": "Alice", "sub": "7"}), Owner(b"Alice", FOREVER))
        self.assertEqual(ownerOf({"sub": "jürgen"}, nameClaim="sub").name, "jürgen".encode())

    def test_noName(self) -> None:
        """A token that is nobody's is refused, and so is a name that nobody can have."""
        for claims in ({}, {"username": None}, {"username": ""}, {"username": "a\nb"}):
            self.assertEqual(self.refused(claims).told, {})
        self.refused({"username": "x" * 2000})
        self.refused({"username": "\ud800"})
        for name in (7, True, ["KEY"], {"KEY": 1}):
            self.assertEqual(self.unusable({"username": name}), '"username" is no string')

    def test_values(self) -> None:
        """Other claims are what they must be, or have it among them."""
        values = {"groups": "mail"}
        for groups in ("mail", ["mail"], ["staff", "mail"]):
            ownerOf({"username": "a", "groups": groups}, values=values)
        for claims in ({}, {"groups": "MAIL"}, {"groups": "mail staff"}, {"groups": []}):
            said = str(self.refused({"username": "a", **claims}, values=values))
            self.assertEqual(said, 'the token has not the "groups" that it must have')
        for groups in (7, True, {"mail": 1}, ["mail", 7]):
            said = self.unusable({"username": "a", "groups": groups}, values=values)
            self.assertEqual(said, '"groups" is neither a string nor a list of strings')

    def test_bound(self) -> None:
        """A token that is bound to a key of the client's is no bearer token."""
        for key in ({"x5t#S256": "KEY"}, {}, "", False):
            self.refused({"username": "a", "cnf": key})
        self.assertEqual(ownerOf({"username": "a", "cnf": None}).name, b"a")

    def test_nameFor(self) -> None:
        """Who says a name must say the owner's, who says none is whoever that is."""
        owner = Owner(b"Alice", FOREVER)
        for name in (b"", b"alice", b"ALICE"):
            self.assertEqual(owner.nameFor(name), b"Alice")
        self.assertRaises(TokenRefused, owner.nameFor, b"bob")

    def test_email(self) -> None:
        """An address that the provider has not verified may be anybody's."""
        for verified in ({}, {"email_verified": True}, {"email_verified": "true"}):
            claims = {"email": "a@example.com", **verified}
            self.assertEqual(ownerOf(claims, nameClaim="email").name, b"a@example.com")
        for unverified in (False, "false", None, 0, []):
            claims = {"email": "a@example.com", "email_verified": unverified}
            self.refused(claims, nameClaim="email")
            self.assertEqual(ownerOf({"username": "a", **claims}).name, b"a")

    def test_expiry(self) -> None:
        """A token is good until its time."""
        self.assertEqual(ownerOf({"username": "a", "exp": NOW + 1}), Owner(b"a", NOW + 1))
        for expired in (NOW, NOW - 1, 0, -1, -(10**200)):
            self.refused({"username": "a", "exp": int(expired)})
        for wrong in ("KEY", None, True, [1]):
            self.assertEqual(self.unusable({"username": "a", "exp": wrong}), '"exp" is no number')
        self.assertEqual(self.unusable({"username": "a", "exp": 10**400}), '"exp" is no time')

    def test_scope(self) -> None:
        """All scopes that are wanted must be there, as words or as a list."""
        for scope in ("mail", "x mail y", ["x", "mail"]):
            ownerOf({"username": "a", "scope": scope}, scopes=frozenset({"mail"}))
        ownerOf({"username": "a", "scope": "send mail"}, scopes=frozenset({"mail", "send"}))
        for scope in ("", "mailx", "MAIL", "x,mail", [], ["x mail"]):
            refused = self.refused({"username": "a", "scope": scope}, scopes=frozenset({"mail"}))
            self.assertEqual(refused.told, {"status": "insufficient_scope"})
        self.refused({"username": "a"}, scopes=frozenset({"mail"}))
        self.refused({"username": "a", "scope": "mail"}, scopes=frozenset({"mail", "send"}))
        for wrong in (7, None, [7], {"mail": 1}):
            self.unusable({"username": "a", "scope": wrong}, scopes=frozenset({"mail"}))

    def test_audience(self) -> None:
        """The audience that is wanted must be one of the token's."""
        for audience in ("submitd", ["x", "submitd"]):
            ownerOf({"username": "a", "aud": audience}, audience="submitd")
        for audience in ("x", "", [], ["x"], "x submitd"):
            self.refused({"username": "a", "aud": audience}, audience="submitd")
        self.refused({"username": "a"}, audience="submitd")
        for wrong in (7, None, [7]):
            self.unusable({"username": "a", "aud": wrong}, audience="submitd")
        ownerOf({"username": "a", "aud": "x"})

    def test_active(self) -> None:
        """An introspection says yes or no."""
        self.assertTrue(isActive({"active": True}))
        self.assertFalse(isActive({"active": False}))
        for wrong in ({}, {"active": "true"}, {"active": 1}, {"active": None}):
            self.assertRaises(Unusable, isActive, wrong)

    def test_notJSON(self) -> None:
        """What is no JSON object is no answer."""
        for body in (
            b"",
            b"KEY",
            b"[]",
            b'"x"',
            b"null",
            b"\xff",
            b'{"exp": NaN}',
            b'{"exp": Infinity}',
            b"{} {}",
            b"[" * 60_000,
            b'{"exp": ' + b"9" * 5000 + b"}",
        ):
            self.assertNotIn("KEY", str(self.assertRaises(Unusable, readClaims, body)))

    @settings(deadline=None, max_examples=60)
    @given(
        st.dictionaries(
            st.sampled_from(["username", "exp", "scope", "aud", "email", "email_verified"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=4,
            ),
        ),
        st.sampled_from(["username", "email"]),
    )
    def test_anything(self, claims: dict[str, Any], nameClaim: str) -> None:
        """Whatever is claimed, it is an owner with a name, a refusal, or unusable."""
        try:
            owner = ownerOf(claims, nameClaim=nameClaim, scopes=frozenset({"a"}), audience="b")
        except (TokenRefused, Unusable):
            return
        self.assertTrue(owner.name)
        self.assertGreater(owner.expires, NOW)
