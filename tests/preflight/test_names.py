"""Tests of :mod:`submitd.preflight.names`."""

from __future__ import annotations

import socket

import attrs

from submitd import preflight
from submitd.relay.settings import RelaySettings
from submitd.settings import DNSSettings
from tests.preflight.support import GOOD, ExamineTestCase, Names


class NameTests(ExamineTestCase):
    """The service's own name, and those of clients."""

    def test_ownName(self) -> None:
        """A name without a domain is a warning where other servers will hear it, and only there."""
        self.patch(socket, "getfqdn", lambda: "box7")
        smarthost, local = (
            RelaySettings(smarthost="smtp.example.net"),
            RelaySettings(maildir="/x/{local}"),
        )
        for hostname, relay, key in (
            ("mail.example.com", smarthost, []),
            ("[192.0.2.1]", smarthost, []),
            ("box7", smarthost, ["hostname"]),
            ("", smarthost, ["hostname"]),
            ("", local, []),
            ("", None, []),
        ):
            settings = attrs.evolve(GOOD, hostname=hostname, relay=relay)
            found = [each for each in preflight.examine(settings) if each.isWarning]
            self.assertEqual([each.key for each in found], key, (hostname, relay))
            for each in found:
                self.assertIn('"box7"', each.sentence)

    def test_resolver(self) -> None:
        """A resolver of one's own is made as it will be, and what fails then is said now."""
        for name, said in (
            ("submitd.checkers.nothing:Resolver", "cannot be imported"),
            ("resolver", 'there is no "resolver"'),
            ("submitd.deliveries.discard:Discard", "does not provide IReverseResolver"),
            (f"{Names.__module__}:Names", ""),
        ):
            found = self.said(dns=DNSSettings(reverse_lookup=True, resolver=name))
            self.assertEqual(len(found), 1 if said else 0, found)
            self.assertIn(said, "".join(found))
            self.assertNotIn("dns.resolver.use", "".join(found))
