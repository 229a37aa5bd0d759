"""Tests of :mod:`submitd.preflight`: what all checks have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.cred.credentials import IUsernamePassword
from zope.interface import implementer

from submitd import preflight
from submitd.interfaces import (
    IChecked,
    IDelivery,
    IHelloPolicy,
    IMechanism,
    IReverseResolver,
    IWarns,
)
from submitd.settings import AuthSettings, Component, DNSSettings, ListenerSettings
from tests.preflight.support import DATA, GOOD, ExamineTestCase, Names


@implementer(IChecked, IDelivery, IHelloPolicy)
@attrs.frozen
class Sick:
    """A policy, or a delivery, that finds something wrong with itself, or fails to."""

    problem: str = ""

    def begin(self, session: Any, envelope: Any) -> Any:
        """Never called."""

    def helloReceived(self, session: Any, domain: str) -> None:
        """Never called."""

    def check(self) -> list[str]:
        """What is wrong."""
        if not self.problem:
            raise RuntimeError("cannot even look")
        return [self.problem]


@implementer(IDelivery, IMechanism, IReverseResolver, IChecked, IWarns)
class Unwise(Names):
    """A delivery, a mechanism and a resolver of somebody else's."""

    name = "UNWISE"
    credentialsInterface = IUsernamePassword
    needsTLS = True

    def server(self, hostname: str) -> Any:
        """Never called."""

    def begin(self, session: Any, envelope: Any) -> Any:
        """Never called."""

    def check(self) -> list[str]:
        """What is wrong."""
        return ["is wrong"]

    def warnings(self) -> list[str]:
        """What is unwise."""
        return ["is unwise"]


def sick(problem: str = "") -> Component:
    """A component that is in no registry."""
    return Component(f"{__name__}:Sick", {"problem": problem})


class ExamineTests(ExamineTestCase):
    """Mistakes and warnings, and objects that are asked or misbehave."""

    def test_good(self) -> None:
        """Nothing is said of what works: no TLS and no login, where both are asked for so."""
        self.assertEqual(self.said(), [])

    def test_warnings(self) -> None:
        """What is allowed only because somebody asked for it is a warning, and no mistake."""
        everybody = ListenerSettings(
            endpoint="tcp:587", tls="off", require_tls=False, proxy_protocol_from=("0.0.0.0/0",)
        )
        for changes, key in (
            ({"auth": AuthSettings(required=False, insecure=True)}, "auth.insecure"),
            ({"listener": (everybody,)}, "listener[0].proxy_protocol_from[0]"),
        ):
            [finding] = preflight.examine(attrs.evolve(GOOD, **changes))
            self.assertEqual((finding.key, finding.isWarning), (key, True))

    def test_check(self) -> None:
        """What an object says of itself is said with its section."""
        self.assertEqual(
            self.said(policy=(sick("is unwell"),), delivery=sick("has no disk")),
            ["policy[0]: is unwell", "delivery: has no disk"],
        )

    def test_checkFails(self) -> None:
        """An object whose check fails does not hide the others."""
        self.assertEqual(
            self.said(policy=(sick(), sick("is unwell"))),
            [
                "policy[0]: cannot be checked: RuntimeError: cannot even look",
                "policy[1]: is unwell",
            ],
        )

    def test_cannotLook(self) -> None:
        """One that may not look where it is to look says where, as a mistake and not as a bug."""

        def closed(made: Sick) -> list[str]:
            raise PermissionError(13, "Permission denied", "/closed/x")

        self.patch(Sick, "check", closed)
        self.assertEqual(
            self.said(policy=(sick(),)), ["policy[0]: cannot look at /closed/x: Permission denied"]
        )

    def test_everybodyIsAsked(self) -> None:
        """What mechanisms, resolver and deliveries find wrong or unwise is said."""
        name = f"{__name__}:Unwise"
        found = self.said(
            auth=AuthSettings(required=False, mechanisms=(name,)),
            dns=DNSSettings(reverse_lookup=True, resolver=name),
            delivery=Component(name),
            policy=(Component("archive", {"delivery": {"use": name}}),),
        )
        for path in ("auth.mechanisms[0]", "dns.resolver", "delivery"):
            self.assertEqual(found.count(f"{path}: is wrong"), 1, found)
            self.assertEqual(found.count(f"warning: {path}: is unwise"), 1, found)
        self.assertIn("policy[0]: delivery: is wrong", found)
        self.assertIn("warning: policy[0].delivery: is unwise", found)

    def test_brokenLines(self) -> None:
        """A typo in a file that is read again keeps no service from starting, but is named."""
        people, owners = Path(self.mktemp()), Path(self.mktemp())
        people.write_text("alice:{SHA}x\n" + (DATA / "passwd").read_text())
        people.chmod(0o600)
        owners.write_text("info@example.com\nsales@example.com alice\n")
        found = preflight.examine(
            attrs.evolve(
                GOOD,
                auth=AuthSettings(required=False, checkers=(f"htpasswd:{people}",)),
                policy=(Component("sender-owner", {"map": str(owners)}),),
            )
        )
        self.assertEqual(
            [(each.key, each.isWarning, each.sentence.split(": ")[0]) for each in found],
            [
                ("auth.checkers[0]", True, f"{people}:1"),
                ("policy[0]", True, f"{owners}:1"),
            ],
        )
