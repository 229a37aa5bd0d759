"""Tests of :mod:`submitd.wire.network`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from submitd.wire.network import NONE, NetworkLogins, Networks, addressLiteral, parseAddress


class NetworksTests(SynchronousTestCase):
    """Who is in a list of networks."""

    def test_members(self) -> None:
        """Addresses of either family are found in ranges and by themselves."""
        networks = Networks.parse(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
        for address in ("10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::1", "2001:db8::1%1"):
            self.assertIn(address, networks)
        for address in ("11.0.0.1", "192.0.2.8", "2001:db9::1", "::1"):
            self.assertNotIn(address, networks)

    def test_mapped(self) -> None:
        """An IPv4 address in the dress of IPv6 is the IPv4 address."""
        networks = Networks.parse(["10.0.0.0/8"])
        self.assertIn("::ffff:10.1.2.3", networks)
        self.assertNotIn("::ffff:11.1.2.3", networks)

    def test_mappedNetworks(self) -> None:
        """So is a network, as somebody writes it down who has found its addresses in a log."""
        for name, plain in (
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ):
            self.assertEqual(Networks.parse([name]), Networks.parse([plain]))
            logins = NetworkLogins.parse({name: "printers@example.com"})
            self.assertEqual(logins.of("10.1.2.3"), "printers@example.com")
        self.assertRaises(ValueError, Networks.parse, ["::ffff:0:0/95"])

    def test_unix(self) -> None:
        """Who has no address is in it by the word "unix" alone."""
        self.assertIn("", Networks.parse(["unix"]))
        self.assertNotIn("", Networks.parse(["0.0.0.0/0", "::/0"]))
        self.assertNotIn("10.0.0.1", Networks.parse(["unix"]))

    def test_doubt(self) -> None:
        """What is no address is in no network, however wide."""
        everybody = Networks.parse(["0.0.0.0/0", "::/0"])
        for nobody in ("localhost", "10.0.0.1 ", "010.0.0.1", "1", None, 167772161):
            self.assertNotIn(nobody, everybody)

    def test_empty(self) -> None:
        """No networks are false, and nobody is in them."""
        self.assertFalse(NONE)
        self.assertNotIn("10.0.0.1", NONE)
        self.assertTrue(Networks.parse(["unix"]))
        self.assertTrue(Networks.parse(["10.0.0.1"]))

    def test_mistakes(self) -> None:
        """A name, a half address and bits behind the prefix are refused."""
        for wrong in ("localhost", "10.0.0", "10.0.0.1/8", "10.0.0.0/33", ""):
            self.assertRaises(ValueError, Networks.parse, [wrong])


class AddressTests(SynchronousTestCase):
    """Addresses as text."""

    def test_literal(self) -> None:
        """The literal is that of RFC 5321 4.1.3, without a zone; there is none of no address."""
        for address, literal in (
            ("192.0.2.1", "[192.0.2.1]"),
            ("2001:DB8::1", "[IPv6:2001:db8::1]"),
            ("fe80::1%eth0", "[IPv6:fe80::1]"),
            ("::ffff:192.0.2.1", "[192.0.2.1]"),
            ("", ""),
            ("example.org", ""),
        ):
            self.assertEqual(addressLiteral(address), literal)

    def test_zone(self) -> None:
        """A zone says nothing outside of its machine."""
        self.assertRaises(ValueError, parseAddress, "fe80::1%eth0")
