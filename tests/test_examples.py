"""Tests of the complete examples in docs/examples/: each one runs, with real clients and real TLS.

Those that docs/extending.rst and docs/embedding.rst take apart are tested in test_docs.py.
"""

from __future__ import annotations

import base64
import hmac
import importlib
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import textwrap
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd import interfaces, service
from submitd.deliveries.maildir import Maildir
from submitd.envelope import Envelope, Recipient
from submitd.realm import Submitter
from submitd.sasl import mechanism
from submitd.sasl.credentials import UsernamePassword
from submitd.session import Session, TLSInfo
from submitd.settings import Component, LimitSettings, ListenerSettings
from submitd.tls import ServerTLS, TLSSettings
from submitd.typed import Size
from submitd.wire.address import NULL_PATH, Mailbox
from submitd.wire.errors import Refused
from tests import running
from tests.clients import authority
from tests.clients.authority import Authority
from tests.fixtures import Conversation, MemoryDelivery, makeSubmission

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
TEXT = "Subject: hello\r\n\r\n.hello\r\n"
MODULES = "/node_modules"
# What the two programs of docs/migrating.rst say: before TLS, before a login, to two logins, to
# somebody else's address, and to three messages with two recipients each.
SAID = [530, 530, 535, 235, 553, 250, 550, 250, 250, 250, 550, 250, 550, 250, 550, 250, 552]


def example(test: SynchronousTestCase, name: str) -> Any:
    """An example as a module; those it imports are forgotten with it."""
    before = set(sys.modules)
    test.patch(sys, "path", [str(EXAMPLES), *sys.path])
    found = importlib.import_module(name)
    for new in set(sys.modules) - before:
        if (EXAMPLES / f"{new}.py").exists():
            test.addCleanup(sys.modules.pop, new, None)
    return found


def observed(test: SynchronousTestCase) -> list[dict[str, Any]]:
    """The events that are logged from now on."""
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    test.addCleanup(globalLogPublisher.removeObserver, events.append)
    return events


class PolicyTestCase(SynchronousTestCase):
    """An example on a transport without a socket."""

    def talk(self, **common: Any) -> Conversation:
        """A connection that wants neither TLS nor login, unless it is said otherwise."""
        usual = {"requireTLS": False, "loginRequired": False, "insecureLogin": True}
        return Conversation(makeSubmission(**{**usual, **common}))

    def send(self, talk: Conversation, body: bytes) -> str:
        """Send a message; what is said to it, and the dialogue must be in step."""
        talk.say("EHLO c", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA")
        said = talk.send(body + b"\r\n.\r\n").decode("ascii").strip()
        self.assertEqual(talk.say("NOOP"), "250 2.0.0 Ok")
        return said


class ServerTestCase(TestCase):
    """An example that listens, on ports that the system chooses."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.authority = Authority.make(self.directory, "authority")

    def certificate(
        self, name: str, usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH
    ) -> tuple[Path, Path]:
        """Files of a certificate for a name, and of its key."""
        files = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        return authority.write(*files, *self.authority.sign(name, [x509.DNSName(name)], usage))

    def listen(self, tls: ServerTLS, kind: Any = "implicit", **common: Any) -> int:
        """Start a service; its port."""
        self.service = service.submissionService(
            reactor,
            [ListenerSettings(endpoint="tcp:0:interface=127.0.0.1", tls=kind)],
            tls,
            **{"delivery": MemoryDelivery(), "loginRequired": False, **common},
        )
        return self.start(self.service)

    def start(self, made: service.SubmissionService) -> int:
        """Start a service with one listener; its port."""
        made.startService()
        self.addCleanup(made.stopService)
        [address] = [each.address for each in made if isinstance(each, service.ListenerService)]
        port: int = address.port
        return port

    def context(self) -> ssl.SSLContext:
        """A client's TLS that believes the certificates."""
        return ssl.create_default_context(cafile=str(self.authority.file))

    def connect(self, port: int, name: str, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Connect with TLS from the first octet, asking for a name, and be greeted."""
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        return (context or self.context()).wrap_socket(plain, server_hostname=name)

    def greeting(self, port: int, name: str, context: ssl.SSLContext | None = None) -> bytes:
        """What such a client is told first."""
        with self.connect(port, name, context) as client:
            return client.recv(1000)


class BasicTests(SynchronousTestCase):
    """basic.py, as a program."""

    def test_program(self) -> None:
        """Without a login a message is saved as .eml, with its text; at the end the port closes."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        [port] = running.freePorts(1)
        child = running.Process(
            [sys.executable, str(EXAMPLES / "basic.py"), str(port), str(directory)],
            directory,
            running.environment(),
        )
        self.addCleanup(child.stop)
        child.waitFor(port)
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.sendmail("a@example.com", ["b@example.org", "c@example.org"], TEXT)
            code, said = client.docmd("NOOP")
            self.assertEqual((code, said), (250, b"2.0.0 Ok"))
            client.ehlo()
            self.assertEqual(client.esmtp_features["size"], str(10 * 1024 * 1024))
        [file] = directory.glob("*.eml")
        self.assertRegex(file.name, r"^email-[A-Z0-9]+-1\.eml$")
        self.assertTrue(file.read_bytes().endswith(TEXT.encode()))
        self.assertEqual(child.stop(), 0, child.output)
        self.assertIn(f"listening on port {port}\n", child.output)
        self.assertEqual(list(directory.glob("*.tmp")), [])


class AsyncioTests(SynchronousTestCase):
    """inasyncio.py, as a program."""

    def test_program(self) -> None:
        """On a loop that runs already, a policy waits for what asyncio waits for."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        [port] = running.freePorts(1)
        child = running.Process(
            [sys.executable, str(EXAMPLES / "inasyncio.py"), str(port)],
            directory,
            running.environment(),
        )
        self.addCleanup(child.stop)
        child.waitFor(port)
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            refused = client.sendmail("a@example.com", ["ada@x.example", "bob@x.example"], TEXT)
        self.assertEqual([code for code, _ in refused.values()], [550])
        self.assertEqual(child.stop(), 0, child.output)
        self.assertNotIn("Traceback", child.output)


# What somebody writes who tests a program of theirs; it runs in a process of its own, for the
# reactor of this one runs already.
USING_CAPTURE = """
import smtplib
from capture import Capture

for sender in ("a@example.com", ""):
    with Capture() as mail, smtplib.SMTP("127.0.0.1", mail.port) as client:
        client.sendmail(sender, ["b@example.org", "c@example.org"], "Subject: hello\\n\\n.hello\\n")
    [(sender, recipients, text)] = mail.messages
    print(sender, recipients, text.endswith(b"Subject: hello\\r\\n\\r\\n.hello\\r\\n"))
"""


class CaptureTests(SynchronousTestCase):
    """capture.py, in a program that knows nothing of Twisted."""

    def test_twice(self) -> None:
        """Each port keeps what it was sent, and is gone behind its test."""
        done = subprocess.run(
            [sys.executable, "-c", USING_CAPTURE],
            env={**running.environment(), "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        to = "['b@example.org', 'c@example.org']"
        self.assertEqual(done.stdout, f"a@example.com {to} True\n {to} True\n", done.stderr)


class PolicyTestTests(SynchronousTestCase):
    """policytest.py, whose tests are run here."""

    def test_passes(self) -> None:
        """All of them pass."""
        module = example(self, "policytest")
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(module.TicketsOnlyTests).run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (2, [], []))


class AuthenticatedTests(ServerTestCase):
    """authenticated.py, as a program and its parts."""

    def test_program(self) -> None:
        """Only users get in, under TLS alone, as themselves; their files have their names."""
        names = [x509.DNSName("localhost")]
        certificate, key = authority.write(
            self.directory / "certificate.pem",
            self.directory / "private_key.pem",
            *self.authority.sign("localhost", names, ExtendedKeyUsageOID.SERVER_AUTH),
        )
        [port] = running.freePorts(1)
        arguments = [str(port), str(self.directory), str(certificate), str(key)]
        child = running.Process(
            [sys.executable, str(EXAMPLES / "authenticated.py"), *arguments],
            self.directory,
            running.environment(),
        )
        self.addCleanup(child.stop)
        child.waitFor(port)
        for name in ("PLAIN", "LOGIN", "CRAM-MD5"):
            self.submit(port, name)
        self.refusals(port)
        self.assertEqual(child.stop(), 0, child.output)
        files = list(self.directory.glob("*.eml"))
        self.assertEqual(len(files), 3)
        for file in files:
            self.assertTrue(file.name.startswith("alice-"))
            self.assertTrue(file.read_bytes().endswith(TEXT.encode()))

    def client(self, port: int) -> smtplib.SMTP:
        """A client that has started TLS, the certificate verified."""
        client = smtplib.SMTP("localhost", port, timeout=30)
        self.addCleanup(client.close)
        client.starttls(context=self.context())
        client.ehlo()
        return client

    def submit(self, port: int, mechanism: str) -> None:
        """One message by one mechanism."""
        client = self.client(port)
        client.user, client.password = "alice", "secret123"  # type: ignore[attr-defined]
        how = getattr(client, f"auth_{mechanism.lower().replace('-', '_')}")
        code, _ = client.auth(mechanism, how)
        self.assertEqual(code, 235)
        client.sendmail("alice@example.com", ["b@example.org"], TEXT)
        client.quit()

    def refusals(self, port: int) -> None:
        """Who has no business there is told so."""
        with smtplib.SMTP("localhost", port, timeout=30) as plain:
            plain.ehlo()
            self.assertNotIn("auth", plain.esmtp_features)
            self.assertEqual(plain.docmd("AUTH PLAIN AGFsaWNlAHNlY3JldDEyMw==")[0], 530)
        client = self.client(port)
        self.assertEqual(client.mail("alice@example.com")[0], 530)
        for name, password in (("alice", "secret"), ("mallory", "secret123")):
            client.user, client.password = name, password  # type: ignore[attr-defined]
            refused = self.assertRaises(
                smtplib.SMTPAuthenticationError, client.auth, "PLAIN", client.auth_plain
            )
            self.assertEqual(refused.smtp_code, 535)
        self.assertEqual(client.docmd("AUTH GSSAPI")[0], 504)
        client = self.client(port)
        client.login("bob", "password456")
        code, said = client.mail("alice@example.com")
        self.assertEqual(code, 553)
        self.assertTrue(said.startswith(b"5.7.1 You can only send from your own address"), said)

    def test_attributes(self) -> None:
        """What is known about a user is with the avatar, but for the password."""
        authenticated = example(self, "authenticated")
        portal = authenticated.portal(authenticated.USERS)
        _, avatar, _ = portal.realm.requestAvatar(b"bob", None, interfaces.ISubmitter)
        self.assertEqual(
            avatar.attributes, {"email": "bob@example.com", "roles": ["sender", "boss"]}
        )

    def test_checker(self) -> None:
        """A user that is not there is no user, even with the password that nobody has."""
        authenticated = example(self, "authenticated")
        checker = authenticated.DictChecker(authenticated.USERS)
        for password in (b"", b"secret123"):
            nobody = UsernamePassword(b"nobody", password)
            self.assertRaises(UnauthorizedLogin, checker.requestAvatarId, nobody)


class FromNodeTests(ServerTestCase):
    """fromnode.py, fromnode.cjs, and what else docs/migrating.rst has."""

    def talk(self, command: list[str]) -> tuple[list[int], str]:
        """Run a program, be its client, and end it; the codes it says, and what it prints."""
        certificate, key = self.certificate("localhost")
        [port] = running.freePorts(1)
        child = running.Process(
            [*command, str(port), str(certificate), str(key)],
            self.directory,
            {
                **running.environment(),
                "NODE_PATH": os.environ.get("SUBMITD_TEST_NODE", "") + MODULES,
            },
        )
        self.addCleanup(child.stop)
        child.waitFor(port)
        with smtplib.SMTP("localhost", port, timeout=30) as client:
            codes = self.codes(client)
        child.stop()
        return codes, child.output

    def codes(self, client: smtplib.SMTP) -> list[int]:
        """What a client is told that may do this and not that."""
        client.ehlo()
        codes = [client.mail("alice@example.com")[0]]
        client.starttls(context=self.context())
        client.ehlo()
        codes.append(client.mail("alice@example.com")[0])
        for login in ("AGFsaWNlAG5vdGhpcw==", "AGFsaWNlAHNlY3JldDEyMw=="):
            codes.append(client.docmd("AUTH PLAIN", login)[0])
        codes.append(client.mail("bob@example.com")[0])
        for body in ("hello", "SPAM", "\r\n".join(["x" * 70] * 2000)):
            codes.append(client.mail("alice@example.com")[0])
            codes.append(client.rcpt("nobody@example.org")[0])
            codes.append(client.rcpt("b@example.org")[0])
            codes.append(client.data(f"Subject: hello\r\n\r\n{body}\r\n")[0])
        return codes

    def test_submitd(self) -> None:
        """Each callback of the page does what it says."""
        codes, output = self.talk([sys.executable, str(EXAMPLES / "fromnode.py")])
        self.assertEqual(codes, SAID, output)
        self.assertIn("PLAIN from 127.0.0.1\n", output)
        self.assertIn("127.0.0.1 is gone\n", output)
        self.assertNotIn("Traceback", output)

    def test_node(self) -> None:
        """The program of smtp-server, too."""
        modules = os.environ.get("SUBMITD_TEST_NODE", "") + MODULES
        node = shutil.which("node")
        if node is None or not Path(modules, "smtp-server").is_dir():
            raise unittest.SkipTest("SUBMITD_TEST_NODE does not say where smtp-server is installed")
        codes, output = self.talk([node, str(EXAMPLES / "fromnode.cjs")])
        self.assertEqual(codes, SAID, output)

    def test_methods(self) -> None:
        """The checker is one for each mechanism; the delivery keeps who sent what to whom."""
        fromnode = example(self, "fromnode")
        delivery = fromnode.Store()
        portal = Portal(fromnode.SubmissionRealm(fromnode.known), [fromnode.Users()])
        names = ("PLAIN", "LOGIN", "CRAM-MD5")
        talk = Conversation(
            makeSubmission(
                portal=portal,
                delivery=delivery,
                mechanisms=[mechanism(name) for name in names],
                requireTLS=False,
                insecureLogin=True,
            )
        )
        talk.say("EHLO c")
        challenge = base64.b64decode(talk.say("AUTH CRAM-MD5").split()[1])
        digest = hmac.new(b"secret123", challenge, "md5").hexdigest()
        self.assertEqual(talk.say(base64.b64encode(f"alice {digest}".encode()).decode())[:3], "235")
        talk.say("MAIL FROM:<alice@example.com>", "RCPT TO:<b@example.org>", "DATA")
        self.assertEqual(talk.say("hello", "."), "250 2.0.0 Kept as number 1")
        [(user, recipients, text)] = delivery.kept
        self.assertEqual((user, recipients), ("alice", ["b@example.org"]))
        self.assertTrue(text.startswith(b"Received: ") and text.endswith(b"\r\nhello\r\n"))

    def test_configuration(self) -> None:
        """The configuration of the page has no mistake."""
        page = (ROOT / "docs" / "migrating.rst").read_text("utf-8")
        [text] = re.findall(r"(?ms)^    hostname = .*?(?=^\S)", page)
        for source, name in (("certificate", "certificate"), ("private_key", "private_key")):
            data = (ROOT / "tests" / "data" / f"{source}.pem").read_bytes()
            (self.directory / f"{name}.pem").write_bytes(data)
        users = (ROOT / "tests" / "data" / "passwd").read_bytes()
        (self.directory / "passwd").write_bytes(users)
        (self.directory / "submitd.toml").write_text(textwrap.dedent(text))
        done = running.run("--config", "submitd.toml", "--check", cwd=self.directory)
        self.assertEqual(done.returncode, 0, done.stderr)

    async def test_inMemory(self) -> None:
        """A certificate in memory, as the page has it, serves STARTTLS and TLS at once."""
        certificate, key = (file.read_bytes() for file in self.certificate("localhost"))
        tls: Any = PrivateCertificate.loadPEM(key + certificate).options()
        port = self.listen(tls)
        self.assertEqual((await deferToThread(self.greeting, port, "localhost"))[:3], b"220")
        port = self.listen(tls, "starttls")
        code = await deferToThread(self.startTLS, port)
        self.assertEqual(code, 250)

    def startTLS(self, port: int) -> int:
        """What is said to EHLO behind STARTTLS."""
        with smtplib.SMTP("localhost", port, timeout=30) as client:
            client.starttls(context=self.context())
            return client.ehlo()[0]


class EmlTests(TestCase):
    """eml.py."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.eml = example(self, "eml")
        self.delivery = self.eml.EmlFiles(self.directory)

    def begin(self, login: str = "") -> Any:
        """A message of somebody."""
        session = Session("192.0.2.1", user=Submitter(login) if login else None)
        return self.delivery.begin(session, envelopeFor("b"))

    def test_interfaces(self) -> None:
        """It provides what it promises, and says beforehand when there is no directory."""
        verifyObject(interfaces.IDelivery, self.delivery)
        verifyObject(interfaces.IMessage, self.begin())
        self.assertEqual(self.delivery.check(), [])
        self.assertEqual(len(self.eml.EmlFiles("/none").check()), 1)

    async def test_names(self) -> None:
        """Rule 7: a login that looks like a path stays within the directory."""
        for login, name in (
            ("../../etc/x", "______etc_x-ID-1.eml"),
            ("a@b.example", "a@b_example-ID-1.eml"),
        ):
            message = self.begin(login)
            message.dataReceived(b"x\r\n")
            message.prepend(b"X: y\r\n")
            self.assertEqual(await message.eomReceived(), name.removesuffix(".eml"))
            self.assertEqual((self.directory / name).read_bytes(), b"X: y\r\nx\r\n")

    async def test_full(self) -> None:
        """A disk that is full leaves nothing of the message, and an abort has written nothing."""

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(self.eml.os, "fsync", full)
        message = self.begin()
        message.dataReceived(b"x\r\n")
        await self.assertFailure(message.eomReceived(), OSError)
        message.connectionLost()
        self.assertEqual(list(self.directory.iterdir()), [])


class OwnAddressTests(PolicyTestCase):
    """ownaddress.py."""

    def test_sender(self) -> None:
        """MAIL FROM is the avatar's own address, as the realm has noted it, in any case."""
        authenticated = example(self, "authenticated")
        policy = example(self, "ownaddress").OwnAddress()
        verifyObject(interfaces.ISenderPolicy, policy)
        portal = authenticated.portal(authenticated.USERS)
        talk = self.talk(policies=[policy], portal=portal)
        talk.say("EHLO c")
        self.assertEqual(talk.say("MAIL FROM:<alice@example.com>")[:9], "553 5.7.1")
        self.assertEqual(talk.say("AUTH PLAIN AGFsaWNlAHNlY3JldDEyMw==")[:3], "235")
        for path in ("<>", "<bob@example.com>", "<alice@example.org>"):
            self.assertEqual(talk.say(f"MAIL FROM:{path}")[:9], "553 5.7.1")
        self.assertEqual(talk.say("MAIL FROM:<Alice@Example.com>")[:9], "250 2.1.0")


class LoginLimitTests(PolicyTestCase):
    """loginlimit.py."""

    WRONG = "AUTH PLAIN AGFsaWNlAHdyb25n"
    RIGHT = "AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="

    def setUp(self) -> None:
        self.time = 0.0
        loginlimit = example(self, "loginlimit")
        keys = {"failures": 2, "period": "10 min"}
        self.policy, findings = Component("loginlimit:LoginLimit", keys).make({}, "policy[0]")
        self.assertEqual((findings, type(self.policy)), ([], loginlimit.LoginLimit))
        self.policy.now = lambda: self.time

    def connect(self) -> tuple[Conversation, str]:
        """Connect, and be greeted or not."""
        talk = self.talk(policies=[self.policy])
        return talk, talk.transport.taken().decode("ascii")

    def test_interfaces(self) -> None:
        """It takes part in both stages."""
        verifyObject(interfaces.IConnectionPolicy, self.policy)
        verifyObject(interfaces.ILoginPolicy, self.policy)

    def test_turnedAway(self) -> None:
        """After so many failures the address has 421 and is closed, until the time is over."""
        talk, _ = self.connect()
        other, _ = self.connect()
        talk.say("EHLO c")
        other.say("EHLO c")
        for _ in range(2):
            self.assertEqual(talk.say(self.WRONG)[:9], "535 5.7.8")
        # Not even the right password is tried over a connection that was there before.
        self.assertEqual(other.say(self.RIGHT)[:9], "421 4.7.0")
        closed, said = self.connect()
        self.assertEqual(said, "421 4.7.0 Too many failed logins, try again later\r\n")
        self.assertTrue(closed.transport.disconnecting)
        self.time = 601.0
        self.assertEqual(self.connect()[1][:3], "220")

    def test_reset(self) -> None:
        """A login that succeeds begins the count anew."""
        talk, _ = self.connect()
        talk.say("EHLO c", self.WRONG, self.RIGHT)
        again, _ = self.connect()
        again.say("EHLO c", self.WRONG)
        self.assertEqual(self.connect()[1][:3], "220")


class TLSFactsTests(ServerTestCase):
    """tlsfacts.py."""

    async def test_told(self) -> None:
        """Cipher, version and the name that was asked for are known at the handshake."""
        logged = observed(self)
        policy = example(self, "tlsfacts").TLSFacts()
        verifyObject(interfaces.ISecurePolicy, policy)
        tls = ServerTLS(TLSSettings(**pair(self.certificate("mail.example.com"))))
        port = self.listen(tls, policies=[policy])

        def look() -> tuple[Any, bytes]:
            with self.connect(port, "mail.example.com") as client:
                return client.cipher(), client.recv(1000)

        (cipher, version, bits), greeting = await deferToThread(look)
        self.assertTrue(greeting.startswith(b"220 "))
        [told] = [each for each in logged if each.get("cipher") == cipher and "name" in each]
        self.assertEqual(
            (told["version"], told["bits"], told["name"]), (version, bits, "mail.example.com")
        )

    def test_weak(self) -> None:
        """A weak cipher is refused."""
        session = Session("192.0.2.1", secure=True, tls=TLSInfo("TLSv1.2", "DES", 56))
        policy = example(self, "tlsfacts").TLSFacts()
        refused = self.assertRaises(Refused, policy.handshakeCompleted, session)
        self.assertEqual(refused.reply.code, 554)


def pair(files: tuple[Path, Path]) -> dict[str, Any]:
    """Both files as settings."""
    return {"certificate": files[0], "private_key": files[1]}


class SNITests(ServerTestCase):
    """sni.py."""

    async def test_names(self) -> None:
        """Each name has its certificate, any other name the default's, and a policy may say no."""
        sni = example(self, "sni")
        names = ("mail.example.com", "smtp.another.com")
        tls = sni.certificates(
            self.certificate("default.example"), {name: self.certificate(name) for name in names}
        )
        policy = sni.NamesOnly([names[0]])
        verifyObject(interfaces.ISecurePolicy, policy)
        port = self.listen(tls, policies=[policy])
        # The certificate is verified for the name, so a greeting means that it was the right one.
        for name, code in (
            (names[0], b"220 "),
            (names[1], b"554 5.7.0 "),
            ("default.example", b"554 5.7.0 "),
        ):
            greeting = await deferToThread(self.greeting, port, name)
            self.assertTrue(greeting.startswith(code), greeting)


class ClientCertificateTests(ServerTestCase):
    """clientcertificate.py."""

    async def test_required(self) -> None:
        """Without a certificate no session, with another's no greeting, with the right one 220."""
        clientcertificate = example(self, "clientcertificate")
        seen: list[Any] = []

        @implementer(interfaces.IConnectionPolicy)
        class Notes:
            """Sees what the policy has noted."""

            def connectionMade(self, session: Session) -> None:
                seen.append(session.notes["client-certificate"])

        tls = clientcertificate.requiringCertificates(
            *self.certificate("mail.example.com"), self.authority.file
        )
        policy = clientcertificate.KnownClients(["printer"])
        verifyObject(interfaces.ISecurePolicy, policy)
        port = self.listen(tls, policies=[policy, Notes()])

        def greet(name: str) -> bytes:
            context = self.context()
            if name:
                context.load_cert_chain(*self.certificate(name, ExtendedKeyUsageOID.CLIENT_AUTH))
            try:
                return self.greeting(port, "mail.example.com", context)
            except OSError:
                return b"no handshake"

        for name, said in (("printer", b"220 "), ("fax", b"554 5.7.0 "), ("", b"no handshake")):
            greeting = await deferToThread(greet, name)
            self.assertTrue(greeting.startswith(said), (name, greeting))
        self.assertEqual(seen, ["printer"])

    def test_notVerified(self) -> None:
        """Where TLS lets certificates in that it could not verify, they say nothing."""
        policy = example(self, "clientcertificate").KnownClients(["printer"])
        for tls in (None, TLSInfo("TLSv1.3", "x"), TLSInfo("TLSv1.3", "x", peerCertificate=self)):
            session = Session("192.0.2.1", tls=tls)
            self.assertRaises(Refused, policy.handshakeCompleted, session)


class ReloadTests(ServerTestCase):
    """certificatereload.py."""

    async def test_install(self) -> None:
        """New connections get the new certificate, an open one goes on, broken files do nothing."""
        install = example(self, "certificatereload").install
        tls = ServerTLS(TLSSettings(**pair(self.certificate("mail.example.com"))))
        port = self.listen(tls)

        def presented() -> tuple[Any, ssl.SSLSocket]:
            client = self.connect(port, "mail.example.com")
            self.addCleanup(client.close)
            client.recv(1000)
            return self.serial(client), client

        before, old = await deferToThread(presented)
        certificate, key = self.another("mail.example.com")
        self.assertEqual(install(tls, certificate, key), [])
        after, _ = await deferToThread(presented)
        self.assertNotEqual(before, after)

        def goOn() -> bytes:
            old.sendall(b"NOOP\r\n")
            return old.recv(1000)

        self.assertEqual(await deferToThread(goOn), b"250 2.0.0 Ok\r\n")
        [mistake] = install(tls, certificate, b"broken")
        self.assertIn("private_key", mistake)
        self.assertEqual((await deferToThread(presented))[0], after)
        self.assertEqual(tls.settings.private_key.stat().st_mode & 0o777, 0o600)

    def another(self, name: str) -> tuple[bytes, bytes]:
        """Another certificate for a name, and its key."""
        other = self.directory / "other"
        other.mkdir()
        sign = self.authority.sign(name, [x509.DNSName(name)], ExtendedKeyUsageOID.SERVER_AUTH)
        first, second = authority.write(other / "certificate", other / "key", *sign)
        return first.read_bytes(), second.read_bytes()

    def serial(self, client: ssl.SSLSocket) -> int:
        """The serial number of the server's certificate."""
        presented = client.getpeercert(True)
        assert presented is not None
        return x509.load_der_x509_certificate(presented).serial_number


class NoSpamTests(PolicyTestCase):
    """nospam.py."""

    def setUp(self) -> None:
        self.nospam = example(self, "nospam")
        self.inner = MemoryDelivery()

    def test_interfaces(self) -> None:
        """The parts provide what they promise; both together are made from a configuration."""
        delivery = self.nospam.NoSpam(self.inner)
        verifyObject(interfaces.IDelivery, delivery)
        verifyObject(interfaces.IMessage, delivery.begin(None, None))
        verifyObject(interfaces.IMessagePolicy, self.nospam.NoSpamSubject())
        keys = {"path": self.mktemp(), "word": "X"}
        made, findings = Component("nospam:inFrontOfMaildir", keys).make({}, "delivery")
        self.assertEqual((findings, type(made.delivery), made.word), ([], Maildir, b"X"))

    def test_body(self) -> None:
        """550 behind the true end, however long the rest is, and nothing is kept."""
        for word, cut in ((b"SPAM", 2), (b"S", 1)):
            talk = self.talk(delivery=self.nospam.NoSpam(self.inner, word))
            talk.say("EHLO c", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA")
            self.assertEqual(talk.send(b"Subject: x\r\n\r\nbuy " + word[:cut]), b"")
            self.assertEqual(talk.send(word[cut:] + b" now\r\n"), b"")
            self.assertEqual(self.inner.begun[-1].state, "aborted")
            for _ in range(10):
                self.assertEqual(talk.send(b"QUIT\r\n" * 1000), b"")
            said = talk.send(b".\r\nNOOP\r\n")
            self.assertEqual(said, b"550 5.7.1 Spam detected\r\n250 2.0.0 Ok\r\n")
        self.assertEqual(self.inner.messages, [])

    def test_good(self) -> None:
        """Other messages come through as they were sent, with the fields of policies."""
        talk = self.talk(delivery=self.nospam.NoSpam(self.inner))
        self.assertEqual(self.send(talk, b"Subject: x\r\n\r\nSPA M")[:3], "250")
        self.inner.begun[0].octets = b""
        screened = self.nospam.NoSpam(self.inner).begin(None, None)
        screened.prepend(b"X: y\r\n")
        self.assertEqual(self.inner.begun[-1].octets, b"X: y\r\n")
        self.assertTrue(self.inner.messages)

    def test_subject(self) -> None:
        """As a policy it sees the header section behind the end, before the commit."""
        talk = self.talk(delivery=self.inner, policies=[self.nospam.NoSpamSubject()])
        self.assertEqual(
            self.send(talk, b"To: a\r\nsubject: SPAM\r\n\r\nx"), "550 5.7.1 Spam detected"
        )
        self.assertEqual(self.send(talk, b"Subject: x\r\n\r\nSPAM")[:3], "250")
        self.assertEqual(len(self.inner.messages), 1)


class SizesTests(PolicyTestCase):
    """sizes.py."""

    def test_sizes(self) -> None:
        """The size is known as it grows; past the limit the client has 552 behind the end."""
        sizes = example(self, "sizes")
        logged = observed(self)
        inner = MemoryDelivery()
        delivery = sizes.Sizes(inner)
        verifyObject(interfaces.IDelivery, delivery)
        limits = service.limits(LimitSettings(message_size=Size(20)))
        talk = self.talk(delivery=delivery, limits=limits)
        self.assertEqual(self.send(talk, b"1234567890")[:3], "250")
        self.assertEqual(
            self.send(talk, b"1234567890" * 5), "552 5.3.4 Message size exceeds the fixed limit"
        )
        told = [
            formatEvent(event) for event in logged if event["log_namespace"].startswith("sizes")
        ]
        self.assertEqual(told, ["received 12 octets", "too large: 52 octets so far"])
        self.assertEqual([each.state for each in inner.begun], ["committed", "aborted"])
        # RFC 1870: who says beforehand how large it is, need not send it.
        self.assertEqual(talk.say("MAIL FROM:<a@example.com> SIZE=21")[:9], "552 5.3.4")

    def test_abort(self) -> None:
        """An abort for another reason is handed on, and so are fields of policies."""
        inner = MemoryDelivery()
        talk = self.talk(delivery=example(self, "sizes").Sizes(inner))
        talk.say("EHLO c", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA")
        talk.lose()
        self.assertEqual(inner.begun[0].state, "aborted")


class MailboxesTests(PolicyTestCase):
    """mailboxes.py; tests/lmtp/ has it behind real LMTP clients."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.mailboxes = example(self, "mailboxes")
        for name in ("ada", "bob", "full"):
            (self.path / name / "new").mkdir(parents=True)
        (self.path / "full" / "new" / "x").write_bytes(b"x" * 100)
        keys = {"path": str(self.path), "quota": 100}
        self.delivery, findings = Component("mailboxes:Mailboxes", keys).make({}, "delivery")
        self.assertEqual(findings, [])
        self.patch(self.mailboxes.Maildir, "begin", self.inThisThread(Maildir.begin))

    def inThisThread(self, begin: Callable[..., Any]) -> Callable[..., Any]:
        """``Maildir.begin`` of a Maildir that uses no threads."""

        def beginHere(maildir: Any, session: Any, envelope: Any) -> Any:
            maildir.run = maybeDeferred
            return begin(maildir, session, envelope)

        return beginHere

    def deliver(self, recipients: Sequence[str], body: str = "x", **common: Any) -> str:
        """One message; what is said behind it."""
        talk = self.talk(delivery=self.delivery, **{"lmtp": True, **common})
        hello = "LHLO c" if talk.submission.lmtp else "EHLO c"
        talk.say(hello, "MAIL FROM:<a@example.com>", *(f"RCPT TO:<{each}>" for each in recipients))
        talk.say("DATA")
        return talk.say(body, ".")

    def kept(self, name: str) -> list[bytes]:
        """The messages of one mailbox."""
        return [file.read_bytes() for file in sorted((self.path / name / "new").iterdir())]

    def test_interfaces(self) -> None:
        """It provides what it promises, and says beforehand when there is no directory."""
        verifyObject(interfaces.IDelivery, self.delivery)
        self.assertEqual(self.delivery.check(), [])
        self.assertEqual(len(self.mailboxes.Mailboxes("/none").check()), 1)
        verifyObject(interfaces.IMessage, self.mailboxes.Copies([]))

    def test_perRecipient(self) -> None:
        """One reply for each recipient, in order; each has a copy that names nobody else."""
        said = self.deliver(
            ["Ada@d.example", "nobody@d.example", "bob@d.example", "full@d.example"]
        )
        self.assertEqual(
            said.split("\n"),
            [
                "250 2.1.5 Delivered",
                "550 5.1.1 No such mailbox",
                "250 2.1.5 Delivered",
                "452 4.2.2 Mailbox full",
            ],
        )
        [ada], [bob] = self.kept("ada"), self.kept("bob")
        self.assertIn(b"Delivered-To: Ada@d.example\r\n", ada)
        self.assertNotIn(b"Delivered-To: bob@d.example\r\n", ada)
        self.assertTrue(bob.endswith(b"x\r\n"))

    def test_path(self) -> None:
        """Rule 7: a recipient that looks like a path is nobody."""
        said = self.deliver(['"../ada"@d.example', '"."@d.example'])
        self.assertEqual(said.split("\n"), ["550 5.1.1 No such mailbox"] * 2)
        self.assertEqual(self.kept("ada"), [])

    def test_oneFails(self) -> None:
        """A disk that is full for one is nobody else's matter."""
        folder = self.path / "ada" / "tmp"
        folder.write_bytes(b"in the way")
        said = self.deliver(["ada@d.example", "bob@d.example"])
        self.assertEqual([line[:3] for line in said.split("\n")], ["451", "250"])
        self.assertEqual((self.kept("ada"), len(self.kept("bob"))), ([], 1))

    def test_smtp(self) -> None:
        """In SMTP there is one reply, and no 250 when one of them does not have it."""
        said = self.deliver(["ada@d.example", "full@d.example"], lmtp=False)
        self.assertEqual(said, "452 4.2.2 Mailbox full")

    def test_large(self) -> None:
        """A message that goes to disk while it arrives is whole in every copy."""
        body = "\r\n".join(["y" * 70] * 9000)
        self.assertEqual(self.deliver(["ada@d.example", "bob@d.example"], body)[:3], "250")
        for name in ("ada", "bob"):
            self.assertTrue(self.kept(name)[0].endswith(body.encode() + b"\r\n"))

    def test_unexpected(self) -> None:
        """What nobody expects is 451 for all, and nothing of it is left."""

        def broken(maildir: Any) -> str:
            raise ZeroDivisionError("a bug")

        self.patch(Maildir, "newName", broken)
        said = self.deliver(["ada@d.example", "bob@d.example"])
        self.assertEqual([line[:9] for line in said.split("\n")], ["451 4.3.0"] * 2)
        self.flushLoggedErrors()
        self.assertEqual((self.kept("ada"), self.kept("bob")), ([], []))

    def test_aborted(self) -> None:
        """A message that is refused is in nobody's mailbox; a policy's field is in everybody's."""
        copies = self.delivery.begin(Session(), envelopeFor("ada", "nobody", "bob"))
        copies.dataReceived(b"x\r\n")
        copies.connectionLost()
        self.assertEqual((self.kept("ada"), self.kept("bob")), ([], []))
        copies = self.delivery.begin(Session(), envelopeFor("ada", "nobody"))
        copies.prepend(b"X: y\r\n")
        copies.dataReceived(b"x\r\n")
        replies = self.successResultOf(copies.eomReceived())
        self.assertEqual([reply.code for reply in replies], [250, 550])
        self.assertTrue(self.kept("ada")[0].endswith(b"X: y\r\nx\r\n"))


def envelopeFor(*names: str) -> Any:
    """An envelope with these recipients."""
    recipients = [Recipient(Mailbox(name, "d.example")) for name in names]
    return Envelope("ID-1", NULL_PATH, recipients=recipients)
