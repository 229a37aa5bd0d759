"""What the tests of :mod:`submitd.preflight` begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd import preflight
from submitd.interfaces import IReverseResolver
from submitd.settings import AuthSettings, Component, ListenerSettings, Settings

DATA = Path(__file__).parent.with_name("data")
OWN_TLS = f"certKey={DATA}/certificate.pem:privateKey={DATA}/private_key.pem"

GOOD = Settings(
    listener=(ListenerSettings(endpoint="tcp:587", tls="off", require_tls=False),),
    auth=AuthSettings(required=False),
    delivery=Component("discard"),
)


@implementer(IReverseResolver)
class Names:
    """A resolver of one's own."""

    def namesOf(self, address: str) -> list[str]:
        """Never called."""
        return []

    def addressesOf(self, name: str, version: int) -> list[str]:
        """Never called."""
        return []


class ExamineTestCase(SynchronousTestCase):
    """Settings that are good but for some changes."""

    def said(self, **changes: Any) -> list[str]:
        """What is found in them."""
        found = map(str, preflight.examine(attrs.evolve(GOOD, **changes)))
        # How the tests' own files are readable, depends on who has unpacked them.
        return [each for each in found if f"{DATA}/passwd can be read by others" not in each]
