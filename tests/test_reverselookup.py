"""The name of a client's address: looked up, confirmed, bounded in time, never believed blindly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import twisted.names.client
from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.names import dns
from twisted.names.authority import FileAuthority
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd.interfaces import IConnectionPolicy, IReverseResolver
from submitd.reverselookup import DNS, parseServer, verifiedName
from tests.fixtures import Conversation, makeSubmission

reactor: Any = globalReactor
ADDRESS = "192.0.2.7"  # the peer of a Conversation
NAME = "client.example.net"


@implementer(IReverseResolver)
class Resolver:
    """Gives what a test has put there, and keeps the questions."""

    def __init__(self, names: Any, addresses: Any = None) -> None:
        self.names = names
        self.addresses = addresses if addresses is not None else {NAME: [ADDRESS]}
        self.asked: list[Any] = []

    def namesOf(self, address: str) -> Any:
        self.asked.append(address)
        return self.names() if callable(self.names) else self.names

    def addressesOf(self, name: str, version: int) -> Any:
        self.asked.append((name, version))
        return self.addresses.get(name, [])


class VerifiedNameTests(SynchronousTestCase):
    """What is believed."""

    def look(self, resolver: Resolver, address: str = ADDRESS) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(verifiedName(resolver, address)))

    def test_confirmed(self) -> None:
        """A name that has the address is its name: in lower case, without a dot at the end."""
        for names in ([NAME], [NAME.upper() + "."], succeed([NAME]), ["other.example", NAME]):
            self.assertEqual(self.look(Resolver(names)), NAME)

    def test_notConfirmed(self) -> None:
        """A name without the address is anybody's claim."""
        for addresses in ({}, {NAME: ["192.0.2.8"]}, {NAME: ["nonsense", ADDRESS + "0"]}):
            self.assertEqual(self.look(Resolver([NAME], addresses)), "")
        self.assertEqual(self.look(Resolver([])), "")

    def test_family(self) -> None:
        """Only addresses of the client's own family are asked for; two spellings are one."""
        resolver = Resolver([NAME], {NAME: ["2001:DB8:0::7"]})
        self.assertEqual(self.look(resolver, "2001:db8::7"), NAME)
        self.assertEqual(resolver.asked, ["2001:db8::7", (NAME, 6)])

    def test_names(self) -> None:
        """What is no domain is passed over: names are data, and go into a header and a log."""
        for name in (
            "a b",
            "a\r\nX-Header: b",
            "-a.example",
            "a..example",
            "",
            ".",
            "192.0.2.7",
            "x" * 64 + ".example",
            ".".join(["a" * 60] * 5),
            "ä.example",
            "a_b.example",
            b"a.example",
            None,
        ):
            resolver = Resolver([name], {name: [ADDRESS]})
            self.assertEqual(self.look(resolver), "")
            self.assertEqual(resolver.asked, [ADDRESS])

    def test_manyNames(self) -> None:
        """An address with very many names costs no more than a few questions."""
        resolver = Resolver([f"{at}.example" for at in range(1000)])
        self.assertEqual(self.look(resolver), "")
        self.assertEqual(len(resolver.asked), 4)

    def test_notAList(self) -> None:
        """One string is no list, and would be read letter by letter."""
        self.failureResultOf(
            Deferred.fromCoroutine(verifiedName(Resolver("example"), ADDRESS)), TypeError
        )


@implementer(IConnectionPolicy)
class Witness:
    """Keeps the names that the connection stage sees."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def connectionMade(self, session: Any) -> None:
        self.names.append(session.clientHostname)


class GreetingTests(SynchronousTestCase):
    """The look-up before the greeting."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.witness = Witness()
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def talk(self, resolver: Any) -> Conversation:
        return Conversation(
            makeSubmission(
                self.clock,
                resolver=resolver,
                policies=[self.witness],
                lookupLimit=2.0,
                loginRequired=False,
                requireTLS=False,
            )
        )

    def failures(self) -> list[str]:
        return [each["cause"] for each in self.events if each.get("event") == "lookup-failed"]

    def test_off(self) -> None:
        """Without a resolver the name is the address literal, and nothing waits."""
        talk = self.talk(None)
        self.assertEqual(talk.transport.taken()[:4], b"220 ")
        self.assertEqual(self.witness.names, ["[192.0.2.7]"])

    def test_name(self) -> None:
        """The connection stage and the Received field know the name."""
        talk = self.talk(Resolver([NAME]))
        self.assertEqual(self.witness.names, [NAME])
        talk.say("EHLO c", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA", ".")
        delivery: Any = talk.submission.delivery
        self.assertIn(b"(client.example.net [192.0.2.7])", delivery.messages[0].octets)

    def test_late(self) -> None:
        """An answer that does not come in time is not waited for, and not taken afterwards."""
        waiting: Deferred[Any] = Deferred()
        talk = self.talk(Resolver(lambda: waiting))
        self.clock.advance(1.9)
        self.assertEqual(talk.transport.taken(), b"")
        self.clock.advance(0.2)
        self.assertEqual(talk.transport.taken()[:4], b"220 ")
        self.assertEqual(self.witness.names, ["[192.0.2.7]"])
        self.assertEqual(len(self.failures()), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fails(self) -> None:
        """A resolver that fails costs the name and one log line, never the connection."""
        for names in (lambda: fail(OSError("no route")), lambda: 1 / 0, "a string"):
            self.events.clear()
            talk = self.talk(Resolver(names))
            self.assertEqual(talk.transport.taken()[:4], b"220 ")
            self.assertEqual(len(self.failures()), 1)

    def test_earlyTalker(self) -> None:
        """What comes before the greeting is answered behind it."""
        waiting: Deferred[Any] = Deferred()
        talk = self.talk(Resolver(lambda: waiting))
        self.assertEqual(talk.say("NOOP"), "")
        waiting.callback([NAME])
        said = talk.transport.taken()
        self.assertEqual(said, b"220 mail.example.com ESMTP\r\n250 2.0.0 Ok\r\n")

    def test_clientGone(self) -> None:
        """A client that goes while its name is looked up stops the question, and nothing runs."""
        waiting: Deferred[Any] = Deferred()
        talk = self.talk(Resolver(lambda: waiting))
        talk.lose()
        self.assertTrue(waiting.called)
        self.assertEqual((self.witness.names, self.failures()), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SendingTests(SynchronousTestCase):
    """Questions that cannot be sent."""

    def test_noDescriptor(self) -> None:
        """Each one fails: none waits for the answer to one that was never asked."""

        def full(*arguments: Any) -> Any:
            raise CannotListenError("127.0.0.1", 0, OSError(24, "Too many open files"))

        resolver = DNS(Clock(), [("127.0.0.1", 53)]).current()
        self.patch(twisted.names.client.Resolver, "queryUDP", full)
        for _ in range(2):
            self.failureResultOf(resolver.lookupAddress("a.example"), CannotListenError)


class ServerTests(SynchronousTestCase):
    """How name servers are written."""

    def test_good(self) -> None:
        """Both families, with and without a port."""
        for text, server in (
            ("192.0.2.53", ("192.0.2.53", 53)),
            ("192.0.2.53:5353", ("192.0.2.53", 5353)),
            ("2001:db8::53", ("2001:db8::53", 53)),
            ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
            ("[::1]", ("::1", 53)),
        ):
            self.assertEqual(parseServer(text), server)

    def test_bad(self) -> None:
        """Names cannot be servers: who would resolve them?"""
        for text in ("", "dns.example", "192.0.2", "192.0.2.53:", "192.0.2.53:0", "[::1]:65536"):
            self.assertRaises(ValueError, parseServer, text)

    def test_file(self) -> None:
        """The servers of resolv.conf are asked, and those of a changed file from then on."""
        file = Path(self.mktemp())
        resolver = DNS(Clock(), file=file)
        self.assertTrue(verifyObject(IReverseResolver, resolver))

        def servers() -> Any:
            return resolver.current().servers

        self.assertEqual(servers(), [("127.0.0.1", 53)])
        file.write_text(
            "# a comment\nsearch example\nnameserver 192.0.2.53\nnameserver\n"
            "nameserver fe80::1%eth0\nnameserver nonsense\n"
        )
        self.assertEqual(servers(), [("192.0.2.53", 53), ("fe80::1", 53)])
        self.assertIs(resolver.current(), resolver.current())
        file.write_text("nameserver 192.0.2.54\n")
        os.utime(file, (1, 1))
        self.assertEqual(servers(), [("192.0.2.54", 53)])
        file.unlink()
        self.assertEqual(servers(), [("127.0.0.1", 53)])
        file.mkdir()
        self.assertEqual(servers(), [("127.0.0.1", 53)])

    def test_given(self) -> None:
        """Servers that are named are asked, whatever the file says."""
        resolver = DNS(Clock(), [("192.0.2.53", 5353)], file=Path("/etc/passwd"))
        self.assertEqual(resolver.current().servers, [("192.0.2.53", 5353)])


class Zone(FileAuthority):
    """A zone that stands in no file."""

    def __init__(self, origin: str, records: dict[bytes, Any]) -> None:
        self._given = origin.encode(), records
        super().__init__(origin)

    def loadFile(self, filename: str) -> None:
        """Take what was given."""
        origin, self.records = self._given
        soa = dns.Record_SOA(b"ns.example", b"root.example", 1, 60, 60, 60, 60, 60)
        self.soa = (origin, soa)


class RealServerTests(TestCase):
    """A real name server, by UDP on loopback."""

    async def setUp(self) -> None:  # type: ignore[override]
        names = {
            "7.2.0.192.in-addr.arpa": [dns.Record_PTR(NAME, 60)],
            "8.2.0.192.in-addr.arpa": [dns.Record_PTR("mail.bank.example", 60)],
            NAME: [dns.Record_A(ADDRESS, 60), dns.Record_AAAA("2001:db8::7", 60)],
            "mail.bank.example": [dns.Record_A("203.0.113.1", 60)],
            "7" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa": [dns.Record_PTR(NAME, 60)],
        }
        records = {name.encode(): kept for name, kept in names.items()}
        zones = ("in-addr.arpa", "ip6.arpa", "example.net", "bank.example")
        authorities = [Zone(zone, records) for zone in zones]
        factory = DNSServerFactory(authorities=authorities)
        factory.noisy = False
        port = reactor.listenUDP(0, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.resolver = DNS(reactor, [("127.0.0.1", port.getHost().port)])

    async def test_confirmed(self) -> None:
        """Addresses of both families get their confirmed name."""
        for address in (ADDRESS, "2001:db8::7"):
            self.assertEqual(await verifiedName(self.resolver, address), NAME)

    async def test_forged(self) -> None:
        """A name that is somebody else's is not believed."""
        self.assertEqual(await verifiedName(self.resolver, "192.0.2.8"), "")

    async def test_none(self) -> None:
        """An address without a name has none, and that is no failure."""
        self.assertEqual(await verifiedName(self.resolver, "192.0.2.9"), "")
