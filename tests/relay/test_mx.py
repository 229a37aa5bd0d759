"""Hosts by MX, from Twisted's own resolver against a DNS server on loopback."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.names import dns
from twisted.names.authority import FileAuthority
from twisted.names.client import Resolver
from twisted.names.common import ResolverBase
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import TestCase

from submitd.relay.mx import MailExchangers, NoHosts

clock: Any = reactor


class Zone(FileAuthority):
    """Records for example.net."""

    def __init__(self, records: dict[bytes, list[Any]]) -> None:
        # FileAuthority's own would want a file.
        ResolverBase.__init__(self)
        self.soa = (b"example.net", dns.Record_SOA(mname="ns.example.net", rname="root"))
        self.records = {b"example.net": [self.soa[1]], **records}


RECORDS: dict[bytes, list[Any]] = {
    b"two.example.net": [
        dns.Record_MX(20, "b.example.net"),
        dns.Record_MX(10, "a.example.net"),
        dns.Record_MX(20, "c.example.net"),
        dns.Record_MX(5, "nowhere.example.net"),
    ],
    b"a.example.net": [dns.Record_A("192.0.2.1"), dns.Record_AAAA("2001:db8::1")],
    b"b.example.net": [dns.Record_A("192.0.2.2")],
    b"c.example.net": [dns.Record_A("192.0.2.3")],
    b"nowhere.example.net": [dns.Record_TXT("no address")],
    b"plain.example.net": [dns.Record_A("192.0.2.4")],
    b"null.example.net": [dns.Record_MX(0, "")],
    b"halfnull.example.net": [dns.Record_MX(0, ""), dns.Record_MX(10, "b.example.net")],
    b"many.example.net": [
        *(dns.Record_A(f"192.0.2.{n}") for n in range(1, 30)),
        *(dns.Record_AAAA(f"2001:db8::{n}") for n in range(1, 9)),
    ],
    b"odd.example.net": [
        dns.Record_MX(5, b"a\r\nAction: delivered.example.net"),
        dns.Record_MX(6, b"\xff.example.net"),
        dns.Record_MX(10, "a_b.example.net"),
    ],
    b"odder.example.net": [dns.Record_MX(5, b"a b.example.net")],
    b"a\r\naction: delivered.example.net": [dns.Record_A("192.0.2.6")],
    b"a b.example.net": [dns.Record_A("192.0.2.6")],
    b"a_b.example.net": [dns.Record_A("192.0.2.5")],
    b"empty.example.net": [dns.Record_MX(10, "nowhere.example.net")],
    b"loop.example.net": [
        dns.Record_MX(10, "Relay.example.net"),
        dns.Record_MX(20, "b.example.net"),
    ],
    b"backup.example.net": [
        dns.Record_MX(10, "relay.example.net"),
        dns.Record_MX(5, "a.example.net"),
    ],
    b"xn--jrg-sna.example.net": [dns.Record_MX(10, "a.example.net")],
}


class MXTests(TestCase):
    """What DNS says, and what is made of it."""

    timeout = 20

    def setUp(self) -> None:
        factory = DNSServerFactory(authorities=[Zone(RECORDS)])
        protocol = dns.DNSDatagramProtocol(factory)
        port = clock.listenUDP(0, protocol, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        resolver = Resolver(
            servers=[("127.0.0.1", port.getHost().port)], timeout=(1, 2), reactor=clock
        )
        self.exchangers = MailExchangers(
            lambda: resolver, "relay.example.net", lambda them: them.reverse()
        )

    async def hosts(self, domain: str) -> list[tuple[str, tuple[str, ...]]]:
        """Names and addresses."""
        return [(each.name, each.addresses) for each in await self.exchangers.hosts(domain)]

    async def status(self, domain: str) -> tuple[int, str]:
        """Why there are none."""
        try:
            found = await self.exchangers.hosts(domain)
        except NoHosts as error:
            self.assertIn(error.reply.lines[0], str(error))
            return error.reply.code, error.reply.status
        raise AssertionError(found)

    async def test_order(self) -> None:
        """The best first, those of one preference shuffled, those without an address left out."""
        self.assertEqual(
            await self.hosts("two.example.net"),
            [
                ("a.example.net", ("2001:db8::1", "192.0.2.1")),
                ("c.example.net", ("192.0.2.3",)),
                ("b.example.net", ("192.0.2.2",)),
            ],
        )

    async def test_noMX(self) -> None:
        """Without MX records the domain itself (RFC 5321 5.1)."""
        self.assertEqual(
            await self.hosts("plain.example.net"), [("plain.example.net", ("192.0.2.4",))]
        )

    async def test_manyAddresses(self) -> None:
        """A host has only some of its addresses tried, of each kind."""
        [(_, addresses)] = await self.hosts("many.example.net")
        self.assertEqual([":" in each for each in addresses], [True, True, False, False])

    async def test_oddNames(self) -> None:
        """What no host can be called is none: its name would be part of reports and logs."""
        self.assertEqual(await self.hosts("odd.example.net"), [("a_b.example.net", ("192.0.2.5",))])
        self.assertEqual(await self.status("odder.example.net"), (550, "5.4.4"))

    async def test_nullMX(self) -> None:
        """A null MX takes no mail (RFC 7505); beside others it is a mistake."""
        self.assertEqual(await self.status("null.example.net"), (556, "5.1.10"))
        self.assertEqual(
            [name for name, _ in await self.hosts("halfnull.example.net")], ["b.example.net"]
        )

    async def test_final(self) -> None:
        """No such name, and no host with an address, are final."""
        self.assertEqual(await self.status("absent.example.net"), (550, "5.1.2"))
        self.assertEqual(await self.status("empty.example.net"), (550, "5.4.4"))

    async def test_loop(self) -> None:
        """Ourselves, and whatever is no better, would bring it back to us."""
        self.assertEqual(await self.status("loop.example.net"), (554, "5.4.6"))
        self.assertEqual(
            [name for name, _ in await self.hosts("backup.example.net")], ["a.example.net"]
        )

    async def test_literal(self) -> None:
        """An address literal is asked of nobody."""
        self.assertEqual(await self.hosts("[192.0.2.9]"), [("192.0.2.9", ("192.0.2.9",))])
        self.assertEqual(
            await self.hosts("[IPv6:2001:db8::9]"), [("2001:db8::9", ("2001:db8::9",))]
        )

        self.assertEqual(
            await self.hosts("[ipv6:2001:db8::9]"), [("2001:db8::9", ("2001:db8::9",))]
        )

    async def test_unicode(self) -> None:
        """A U-label is asked for as its A-label."""
        self.assertEqual(
            [name for name, _ in await self.hosts("jörg.example.net")], ["a.example.net"]
        )

    async def test_troubled(self) -> None:
        """A DNS that does not answer is no verdict: 4.4.3."""

        class Broken:
            def lookupMailExchange(self, name: str) -> Any:
                if name == "later.example.net":
                    raise OSError("refused")
                return succeed(
                    [dns.RRHeader(name, dns.MX, payload=dns.Record_MX(1, "a.example.net"))]
                )

            def lookupAddress(self, name: str) -> Any:
                raise OSError("refused")

            lookupIPV6Address = lookupAddress

        async def succeed(records: list[Any]) -> Any:
            return records, [], []

        self.exchangers = MailExchangers(Broken, "relay.example.net")
        self.assertEqual(await self.status("later.example.net"), (451, "4.4.3"))
        self.assertEqual(await self.status("some.example.net"), (451, "4.4.3"))
