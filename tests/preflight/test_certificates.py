"""Tests of :mod:`submitd.preflight.certificates`."""

from __future__ import annotations

import datetime
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from submitd import preflight
from submitd.tls import CertificateSettings, TLSSettings, selfSigned
from tests.preflight.support import GOOD


class CertificateTests(SynchronousTestCase):
    """Certificates are looked at as the service will read them."""

    def test_dates(self) -> None:
        """A certificate that has expired stops no start, but is named, also one for a name."""
        now = datetime.datetime.now(datetime.UTC)
        pairs = {
            days: selfSigned(Path(self.mktemp()), now - datetime.timedelta(days=days))
            for days in (0, 400)
        }
        (good, goodKey), (old, oldKey) = pairs[0], pairs[400]
        named = {"a.example": CertificateSettings(certificate=old, private_key=oldKey)}
        found = preflight.examine(
            attrs.evolve(GOOD, tls=TLSSettings(certificate=good, private_key=goodKey, sni=named))
        )
        self.assertEqual(
            [(each.key, each.isWarning, each.sentence.rpartition(" on ")[0]) for each in found],
            [('tls.sni."a.example".certificate', True, f"{old} has expired")],
        )
