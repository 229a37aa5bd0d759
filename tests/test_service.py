"""Tests of :mod:`submitd.service`: the parts put together, over real sockets on the loopback."""

from __future__ import annotations

import json
import smtplib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from submitd import events, service
from submitd.checkers.chain import CheckerChain
from submitd.deliveries.discard import Discard
from submitd.interfaces import IDelivery, IHelloPolicy, IRunning, ITrustedLogin
from submitd.policies.fixups import MessageFixups
from submitd.realm import SubmissionRealm
from submitd.reverselookup import DNS
from submitd.settings import (
    AuthSettings,
    Component,
    DNSSettings,
    LimitSettings,
    ListenerSettings,
    LogSettings,
    Settings,
)
from submitd.submission import Limits
from submitd.tls import TLSSettings
from submitd.typed import Seconds
from tests.preflight.support import Names

DATA = Path(__file__).parent / "data"
FREE = "tcp:0:interface=127.0.0.1"
LISTENER = ListenerSettings(endpoint=FREE, tls="off", require_tls=False)
PASSWORD = "correct horse"


def listenersOf(made: MultiService) -> list[Any]:
    """A service's listeners."""
    return [each for each in made if isinstance(each, service.ListenerService)]


def portsOf(made: MultiService) -> list[Any]:
    """The ports that a service's listeners have; ``None`` for one that is closed."""
    listeners = [each for each in made if isinstance(each, service.ListenerService)]
    return [each.address.port if each.address else None for each in listeners]


class RunningTests(TestCase):
    """A service that really listens."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        secrets = self.directory / "secrets"
        secrets.write_text(f"alice@example.com:{PASSWORD}\n")
        secrets.chmod(0o600)
        self.settings = Settings(
            hostname="mail.example.com",
            listener=(
                ListenerSettings(endpoint=FREE),
                ListenerSettings(endpoint=FREE, tls="implicit"),
            ),
            tls=TLSSettings(
                certificate=DATA / "certificate.pem", private_key=DATA / "private_key.pem"
            ),
            auth=AuthSettings(checkers=(f"secrets:{secrets}",)),
            policy=(Component("require-tls"), Component("sender-owner")),
            delivery=Component("maildir", {"path": str(self.directory / "mail")}),
        )

    def run_(self, settings: Settings) -> Any:
        """Start a service as twistd does, and stop it when the test ends."""
        made = service.makeService(settings, reactor)
        made.privilegedStartService()
        made.startService()
        self.addCleanup(lambda: made.stopService() if made.running else None)
        return made

    def submit(self, client: smtplib.SMTP) -> None:
        """Send one message, logged in."""
        with client:
            client.login("alice@example.com", PASSWORD)
            client.sendmail("alice@example.com", ["bob@example.net"], "Subject: x\r\n\r\nhello\r\n")

    def trusting(self) -> ssl.SSLContext:
        """A client's TLS that believes our certificate."""
        return ssl.create_default_context(cafile=str(DATA / "certificate.pem"))

    async def test_submission(self) -> None:
        """Over STARTTLS and over implicit TLS a message is taken and kept."""
        starttls, implicit = portsOf(self.run_(self.settings))

        def submit() -> None:
            client = smtplib.SMTP("127.0.0.1", starttls, timeout=30)
            client.starttls(context=self.trusting())
            self.submit(client)
            self.submit(
                smtplib.SMTP_SSL("127.0.0.1", implicit, context=self.trusting(), timeout=30)
            )

        await deferToThread(submit)
        messages = list((self.directory / "mail" / "new").iterdir())
        self.assertEqual(len(messages), 2)
        for message in messages:
            self.assertIn(b"by mail.example.com", message.read_bytes())

    async def test_ownTLS(self) -> None:
        """An endpoint with TLS of its own is a port with implicit TLS, whatever ``tls`` says."""
        keys = f"certKey={DATA}/certificate.pem:privateKey={DATA}/private_key.pem"
        endpoint = f"ssl:0:interface=127.0.0.1:{keys}"
        kinds: tuple[Any, ...] = ("off", "implicit", "starttls")
        listeners = tuple(ListenerSettings(endpoint=endpoint, tls=kind) for kind in kinds)
        ports = portsOf(self.run_(attrs.evolve(self.settings, listener=listeners)))

        def submit() -> None:
            for port in ports:
                client = smtplib.SMTP_SSL("127.0.0.1", port, context=self.trusting(), timeout=30)
                self.submit(client)
                self.assertFalse(client.has_extn("starttls"))

        await deferToThread(submit)
        self.assertEqual(len(list((self.directory / "mail" / "new").iterdir())), len(kinds))

    async def test_policies(self) -> None:
        """The configured policies are asked: nobody sends as somebody else."""
        _, implicit = portsOf(self.run_(self.settings))

        def submit() -> tuple[int, bytes]:
            with smtplib.SMTP_SSL(
                "127.0.0.1", implicit, context=self.trusting(), timeout=30
            ) as client:
                client.login("alice@example.com", PASSWORD)
                return client.mail("mallory@example.com")

        code, _ = await deferToThread(submit)
        self.assertGreaterEqual(code, 500)

    async def test_runningPolicies(self) -> None:
        """Policies with something running get the clock: they count over all listeners."""
        policies = (
            Component("login-throttle"),
            Component("rate-limit", {"messages_per_login": "1/hour"}),
        )
        starttls, implicit = portsOf(self.run_(attrs.evolve(self.settings, policy=policies)))

        def submit() -> tuple[int, bytes]:
            self.submit(smtplib.SMTP_SSL("127.0.0.1", implicit, context=self.trusting()))
            with smtplib.SMTP("127.0.0.1", starttls, timeout=30) as client:
                client.starttls(context=self.trusting())
                client.login("alice@example.com", PASSWORD)
                return client.mail("alice@example.com")

        code, said = await deferToThread(submit)
        self.assertEqual(code, 450)
        self.assertIn(b"Too many messages: 1 per hour for this login", said)

    async def test_stop(self) -> None:
        """At the end the port is closed and whoever is connected is told: 421."""
        made = self.run_(self.settings)
        port, _ = portsOf(made)

        def connect() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", port), 30)
            client.recv(1000)
            return client

        client = await deferToThread(connect)
        self.addCleanup(client.close)
        stopping = made.stopService()
        said = await deferToThread(client.recv, 1000)
        client.close()
        await stopping
        self.assertTrue(said.startswith(b"421 4.3.2 "), said)
        self.assertEqual(len(made.connections), 0)
        with self.assertRaises(ConnectionRefusedError):
            await deferToThread(socket.create_connection, ("127.0.0.1", port), 30)

    async def test_unixSocket(self) -> None:
        """A unix socket is there while the service runs, and removed when it stops."""
        path = self.mktemp()
        listener = ListenerSettings(endpoint=f"unix:{path}", tls="off", require_tls=False)
        made = self.run_(attrs.evolve(self.settings, listener=(listener,)))

        def greeting() -> bytes:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(30)
                client.connect(path)
                return client.recv(1000)

        self.assertTrue((await deferToThread(greeting)).startswith(b"220 mail.example.com "))
        await made.stopService()
        self.assertFalse(Path(path).exists())

    async def test_portInUse(self) -> None:
        """A port that is taken at the last moment stops the start, and closes what was open."""
        with socket.create_server(("127.0.0.1", 0)) as held:
            endpoint = f"tcp:{held.getsockname()[1]}:interface=127.0.0.1"
            listeners = (ListenerSettings(endpoint=FREE), ListenerSettings(endpoint=endpoint))
            made = service.makeService(attrs.evolve(self.settings, listener=listeners), reactor)
            for start in (made.privilegedStartService, made.startService):
                with self.assertRaises(service.CannotStart) as caught:
                    start()
                self.assertEqual(
                    str(caught.exception),
                    f"cannot listen on {endpoint}: Address already in use",
                )
        self.assertEqual(portsOf(made), [None, None])
        # What was opened first is closed within this turn of the reactor; trial finds leftovers.

    async def test_startWithoutPrivileges(self) -> None:
        """In a program that knows only startService, the ports open all the same."""
        made = service.makeService(self.settings, reactor)
        made.startService()
        self.assertEqual(len([port for port in portsOf(made) if port]), 2)
        await made.stopService()

    async def test_jsonLog(self) -> None:
        """Events go to the JSON log from the first to the last of the service."""
        file = self.directory / "events.json"
        log = LogSettings(json=str(file))
        made = self.run_(attrs.evolve(self.settings, log=log))
        await made.stopService()
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        records = [json.loads(line) for line in file.read_text().splitlines()]
        named = [record["event"] for record in records if record["event"].startswith("service")]
        self.assertEqual(
            named, ["service-listening", "service-listening", "service-started", "service-stopped"]
        )
        events.emit(events.SERVICE_STARTED, hostname="later")
        self.assertNotIn("later", file.read_text())


@implementer(IDelivery, IHelloPolicy, IRunning)
class Part:
    """A delivery and a policy that has something running, or fails to.

    :param calls: notes what is called.
    :param answer: what start and stop do.
    """

    def __init__(self, calls: list[str], answer: Callable[[], Any] = lambda: succeed(None)) -> None:
        self.calls, self.answer = calls, answer

    def begin(self, session: Any, envelope: Any) -> Any:
        """Never called."""

    def helloReceived(self, session: Any, domain: str) -> None:
        """Never called."""

    def start(self, reactor: Any) -> Any:
        """Note it."""
        self.calls.append("start")
        return self.answer()

    def stop(self) -> Any:
        """Note it."""
        self.calls.append("stop")
        return self.answer()


class PartsTests(SynchronousTestCase):
    """Deliveries and policies are started and stopped with the service."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        self.said: list[str] = []
        self.patch(
            events, "emit", lambda event, **of: self.said.append(of.get("problem", event.name))
        )

    def through(self, delivery: Any, *policies: Any) -> None:
        """A service from its start to its end."""
        made = service.submissionService(Clock(), (), delivery=delivery, policies=policies)
        made.startService()
        self.said.append("runs")
        self.successResultOf(made.stopService())

    def test_once(self) -> None:
        """One object in several places is started once, and stopped once."""
        both = Part(self.calls)
        self.through(both, both, both)
        self.assertEqual(self.calls, ["start", "stop"])

    def test_checkers(self) -> None:
        """So are the back ends of the Portal."""

        @implementer(ICredentialsChecker, IRunning)
        class Checker(Part):
            credentialInterfaces = (ITrustedLogin, IUsernamePassword)

        portal = Portal(SubmissionRealm(), [CheckerChain([Checker(self.calls)])])
        made = service.submissionService(Clock(), (), delivery=Part(self.calls), portal=portal)
        made.startService()
        self.assertEqual(self.calls, ["start", "start"])
        self.successResultOf(made.stopService())
        self.assertEqual(self.calls, ["start", "start", "stop", "stop"])

    def test_portalOfItsOwn(self) -> None:
        """A program's own portal need not be one of Twisted's: nobody sees its checkers then."""

        class Door:
            def listCredentialsInterfaces(self) -> list[Any]:
                return [IUsernamePassword]

        made = service.submissionService(Clock(), (), delivery=Part(self.calls), portal=Door())
        made.startService()
        self.successResultOf(made.stopService())
        self.assertEqual(self.calls, ["start", "stop"])

    def test_fails(self) -> None:
        """One that fails in any way is logged, and keeps neither the service nor the others."""

        def raises() -> Any:
            raise OSError("no disk")

        async def later() -> None:
            raise OSError("no disk")

        for answer in (raises, later, lambda: fail(OSError("no disk"))):
            self.calls.clear()
            self.said.clear()
            self.through(Part(self.calls, answer), Part(self.calls))
            self.assertEqual(self.calls, ["start", "start", "stop", "stop"])
            before, after = self.said[:3], self.said[3:]
            self.assertEqual(before, ["not started: no disk", "service-started", "runs"])
            self.assertEqual(after, ["not stopped", "service-stopped"])


class MakeServiceTests(SynchronousTestCase):
    """What is made of which settings."""

    def setUp(self) -> None:
        self.settings = Settings(
            hostname="mail.example.com",
            listener=(LISTENER,),
            auth=AuthSettings(required=False),
            delivery=Component("discard"),
        )

    def submission(self, **changes: Any) -> Any:
        """What the sessions of the first listener have in common."""
        made = service.makeService(attrs.evolve(self.settings, **changes), Clock())
        [listener] = [each for each in made if isinstance(each, service.ListenerService)]
        return listener.factory.rules.submission

    def test_limits(self) -> None:
        """Every limit of the configuration is the limit of the dialogue with that name."""
        given = LimitSettings(
            **{field.name: at for at, field in enumerate(attrs.fields(LimitSettings), 1)}
        )
        made = service.limits(given)
        for field in attrs.fields(Limits):
            snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in field.name)
            self.assertEqual(getattr(made, field.name), getattr(given, snake))
        self.assertEqual(service.limits(LimitSettings()), Limits())

    def test_noChecker(self) -> None:
        """Without a checker there is no login."""
        self.assertIsNone(self.submission().portal)

    def test_checkers(self) -> None:
        """Several checkers answer as one, with and without the memory for verified logins."""
        for cache in (0.0, 300.0):
            auth = AuthSettings(checkers=("memory:a:b", "memory:c:d"), cache=cache)
            submission = self.submission(auth=auth)
            self.assertIn(IUsernamePassword, submission.portal.listCredentialsInterfaces())
            self.assertEqual([each.name for each in submission.mechanisms], ["PLAIN", "LOGIN"])

    def test_tls(self) -> None:
        """STARTTLS and the need for TLS are each listener's own."""
        submission = self.submission()
        self.assertEqual((submission.startTLS, submission.requireTLS), (False, False))
        tls = TLSSettings(
            certificate=DATA / "certificate.pem", private_key=DATA / "private_key.pem"
        )
        submission = self.submission(tls=tls, listener=(ListenerSettings(endpoint=FREE),))
        self.assertEqual((submission.startTLS, submission.requireTLS), (True, True))

    def test_proxies(self) -> None:
        """Whom a listener believes is its own; a proxy's login needs no other checker."""
        listener = attrs.evolve(
            LISTENER,
            proxy_protocol_from=("10.0.0.1",),
            xclient_from=("10.0.0.2",),
            xclient_login=True,
            xforward_from=("10.0.0.3",),
        )
        made = service.makeService(attrs.evolve(self.settings, listener=(listener,)), Clock())
        [one] = [each for each in made if isinstance(each, service.ListenerService)]
        submission = one.factory.rules.submission
        for networks, member in (
            (one.factory.proxies, "10.0.0.1"),
            (submission.xclientFrom, "10.0.0.2"),
            (submission.xforwardFrom, "10.0.0.3"),
        ):
            self.assertEqual([f"10.0.0.{at}" in networks for at in (1, 2, 3)].count(True), 1)
            self.assertIn(member, networks)
        self.assertTrue(submission.xclientLogin)
        self.assertEqual(submission.portal.listCredentialsInterfaces(), [ITrustedLogin])
        self.assertFalse(self.submission().xclientLogin)

    def test_policies(self) -> None:
        """Each listener has its own policies in their order, and those for several are one."""
        names = ("a", "", "b")
        policy = (
            Component("sender-owner", listeners=["a", "b"]),
            Component("require-tls"),
            Component("login-throttle", listeners=["b"]),
        )
        settings = attrs.evolve(
            self.settings,
            listener=tuple(attrs.evolve(LISTENER, name=name) for name in names),
            policy=policy,
        )
        made = service.makeService(settings, Clock())
        lists = [each.factory.rules.submission.policies for each in listenersOf(made)]
        self.assertEqual(
            [[policy.name for policy in each] for each in lists],
            [
                ["sender-owner", "require-tls"],
                ["require-tls"],
                ["sender-owner", "require-tls", "login-throttle"],
            ],
        )
        self.assertIs(lists[0][0], lists[2][0])
        self.assertIs(lists[0][1], lists[1][0])

    def test_byAddress(self) -> None:
        """So is whose login comes from where; it needs no other checker either."""
        listener = attrs.evolve(
            LISTENER,
            proxy_protocol_from=("10.0.0.1",),
            login_by_address={"10.1.2.0/24": "printers"},
        )
        submission = self.submission(listener=(listener,))
        self.assertEqual(submission.loginByAddress.of("10.1.2.3"), "printers")
        self.assertIn("10.0.0.1", submission.proxyFrom)
        self.assertEqual(submission.portal.listCredentialsInterfaces(), [ITrustedLogin])
        self.assertFalse(self.submission().loginByAddress)

    def test_resolver(self) -> None:
        """No look-up unless it is asked for; then name servers, or a resolver of one's own."""
        self.assertIsNone(self.submission().resolver)
        dns = DNSSettings(reverse_lookup=True, servers=("192.0.2.53",), timeout=Seconds(1.0))
        submission = self.submission(dns=dns)
        self.assertIsInstance(submission.resolver, DNS)
        self.assertEqual(submission.lookupLimit, 1.0)
        dns = DNSSettings(reverse_lookup=True, resolver="tests.preflight.support:Names")
        self.assertIsInstance(self.submission(dns=dns).resolver, Names)

    def test_ownName(self) -> None:
        """Without a name in the configuration it is the system's."""
        self.patch(socket, "getfqdn", lambda: "fqdn.example.com")
        self.assertEqual(self.submission(hostname="").hostname, "fqdn.example.com")

    def test_namesHost(self) -> None:
        """Policies tell others the name that the greeting says, not the system's."""
        policy = (Component("message-fixups"), Component("milter", {"endpoint": "tcp:127.0.0.1:1"}))
        made = self.submission(hostname="mx.example.com", policy=policy)
        self.assertEqual([each.hostname for each in made.policies], ["mx.example.com"] * 2)
        fixups = MessageFixups()
        service.submissionService(
            Clock(), (), delivery=Discard(), hostname="own.example.com", policies=[fixups]
        )
        self.assertEqual(fixups.hostname, "own.example.com")

    def test_changedSince(self) -> None:
        """What breaks between the examination and the start is one sentence, too."""
        for changes, said in (
            ({"delivery": Component("maildr")}, 'delivery.use: there is no "maildr"'),
            (
                {"auth": AuthSettings(required=False, mechanisms=("PLIAN",))},
                "auth.mechanisms: no SASL mechanism 'PLIAN'",
            ),
            (
                {"listener": (attrs.evolve(LISTENER, endpoint="systemd:domain=INET:index=3"),)},
                "cannot listen on systemd:domain=INET:index=3: systemd has handed over no such",
            ),
            (
                {"tls": TLSSettings(certificate=DATA / "none", private_key=DATA / "none")},
                "tls.certificate: cannot read",
            ),
        ):
            with self.assertRaises(service.CannotStart) as caught:
                self.submission(**changes)
            self.assertIn(said, str(caught.exception))

    def test_cannotStart(self) -> None:
        """twistd cleans up after an Exception, and a SystemExit shows no traceback."""
        error = service.CannotStart("cannot listen")
        self.assertIsInstance(error, Exception)
        self.assertIsInstance(error, SystemExit)
        self.assertEqual(error.code, "cannot listen")
