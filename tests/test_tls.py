"""Tests of :mod:`submitd.tls`: handshakes in memory, and every way the files can be wrong."""

from __future__ import annotations

import contextlib
import datetime
import gc
import ssl
import warnings
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd import tls
from submitd.protocol import describeTLS
from submitd.session import TLSInfo
from submitd.transport import IConnectionsOverSockets
from tests.clients.authority import Authority, write

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class Handshake:
    """A client of the standard library and our context, joined in memory."""

    def __init__(
        self,
        context: SSL.Context | tls.ServerTLS,
        client: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
        name: str = "localhost",
    ) -> None:
        self.toClient, self.toServer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.end = client.wrap_bio(
            self.toClient, self.toServer, server_hostname=name, session=session
        )
        if isinstance(context, tls.ServerTLS):
            self.server = context.serverConnectionForTLS(self)
        else:
            self.server = SSL.Connection(context, None)
        self.server.set_accept_state()

    def run(self) -> ssl.SSLObject:
        """Shake hands, let one octet through, and give the client's end."""
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.end.do_handshake()
            if data := self.toServer.read():
                self.server.bio_write(data)
            with contextlib.suppress(SSL.WantReadError):
                self.server.do_handshake()
            self.drain()
        self.server.send(b"!")
        self.drain()
        assert self.end.read(1) == b"!"
        return self.end

    def drain(self) -> None:
        """Carry what the server wrote to the client."""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self.toClient.write(self.server.bio_read(65536))


class Files(SynchronousTestCase):
    """A directory with a good certificate and key."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        now = datetime.datetime.now(datetime.UTC)
        certificate, key = tls.selfSigned(self.directory, now)
        self.settings = tls.TLSSettings(certificate=certificate, private_key=key)

    def client(self) -> ssl.SSLContext:
        """A client that believes our certificate and nothing else."""
        return ssl.create_default_context(cafile=str(self.settings.certificate))


class ServerTLSTests(Files):
    """What the context lets happen."""

    def test_interface(self) -> None:
        """Twisted's startTLS takes the object as it is."""
        server = tls.ServerTLS(self.settings)
        for interface in (
            IOpenSSLContextFactory,
            IOpenSSLServerConnectionCreator,
            IConnectionsOverSockets,
        ):
            verifyObject(interface, server)

    def test_newest(self) -> None:
        """A modern client gets TLS 1.3, its name and chain verified."""
        end = Handshake(tls.ServerTLS(self.settings).getContext(), self.client()).run()
        self.assertEqual(end.version(), "TLSv1.3")

    def test_forwardSecret(self) -> None:
        """A client of TLS 1.2 gets ECDHE with an AEAD, and nothing is compressed."""
        client = self.client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        end = Handshake(tls.ServerTLS(self.settings).getContext(), client).run()
        cipher = end.cipher()
        assert cipher is not None
        self.assertRegex(cipher[0], "^ECDHE-.*(GCM|POLY1305)")
        self.assertIsNone(end.compression())

    def test_floor(self) -> None:
        """TLS 1.1 is refused, whatever the client would take."""
        client = self.client()
        client.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            client.minimum_version = ssl.TLSVersion.TLSv1
            client.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, SSL.Error)):
            Handshake(tls.ServerTLS(self.settings).getContext(), client).run()

    def test_minimum(self) -> None:
        """A configured minimum of TLS 1.3 refuses TLS 1.2."""
        settings = attrs.evolve(self.settings, minimum_version="TLSv1.3")
        client = self.client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        with self.assertRaises((ssl.SSLError, SSL.Error)):
            Handshake(tls.ServerTLS(settings).getContext(), client).run()

    def test_maximum(self) -> None:
        """A configured maximum of TLS 1.2 is kept."""
        settings = attrs.evolve(self.settings, maximum_version="TLSv1.2")
        end = Handshake(tls.ServerTLS(settings).getContext(), self.client()).run()
        self.assertEqual(end.version(), "TLSv1.2")

    def test_resumed(self) -> None:
        """A session ticket resumes, in TLS 1.2 as in 1.3, so that a second login is cheap."""
        context = tls.ServerTLS(self.settings).getContext()
        for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = self.client()
            client.maximum_version = newest
            first = Handshake(context, client).run()
            second = Handshake(context, client, first.session).run()
            self.assertTrue(second.session_reused, newest)

    def test_noRenegotiation(self) -> None:
        """A connection of TLS 1.2 cannot be made to shake hands again and again."""
        settings = attrs.evolve(self.settings, maximum_version="TLSv1.2")
        shake = Handshake(tls.ServerTLS(settings).getContext(), self.client())
        shake.run()
        self.assertRaises(SSL.Error, shake.server.renegotiate)

    def test_oneContext(self) -> None:
        """Every connection gets the same context, or no ticket would ever be good."""
        server = tls.ServerTLS(self.settings)
        self.assertIs(server.getContext(), server.getContext())

    def test_chain(self) -> None:
        """The certificates behind the first are sent too."""
        other, _ = tls.selfSigned(Path(self.mktemp()), datetime.datetime.now(datetime.UTC))
        chain = Path(self.mktemp())
        chain.write_bytes(self.settings.certificate.read_bytes() + other.read_bytes())
        settings = attrs.evolve(self.settings, certificate=chain)
        context = tls.ServerTLS(settings).getContext()
        peer = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        server = SSL.Connection(context, None)
        peer.set_connect_state()
        server.set_accept_state()
        for _ in range(3):
            for one, two in ((peer, server), (server, peer)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    two.bio_write(one.bio_read(65536))
        sent = peer.get_peer_cert_chain()
        assert sent is not None
        self.assertEqual(len(sent), 2)


class Signed(SynchronousTestCase):
    """An authority, and what it signs."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.authority = Authority.make(self.directory, "authority")
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, Any]) -> None:
        """Note what is logged."""
        if "log_text" in event:
            self.logged.append(event["log_text"])

    def said(self) -> list[str]:
        """What was logged since this was asked."""
        said, self.logged = self.logged, []
        return [line.replace(str(self.directory), "DIR") for line in said]

    def pair(self, stem: str, *names: str) -> tuple[Path, Path]:
        """A server's certificate and key, in files of this stem; over those that are there."""
        certificate, key = self.authority.sign(
            names[0], [x509.DNSName(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH
        )
        files = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        return write(*files, certificate, key)

    def settings(self, *names: str, **more: Any) -> tls.TLSSettings:
        """Settings with a certificate for localhost, and one for each of some names."""
        certificate, key = self.pair("default", "localhost")
        sni = {}
        for at, name in enumerate(names):
            one, two = self.pair(f"name{at}", tls.serverName(name))
            sni[name] = tls.CertificateSettings(certificate=one, private_key=two)
        return tls.TLSSettings(certificate=certificate, private_key=key, sni=sni, **more)

    def client(self, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """A client that believes the authority."""
        client = ssl.create_default_context(cafile=str(self.authority.file))
        client.maximum_version = newest
        return client

    def identify(self, client: ssl.SSLContext, authority: Authority, **more: Any) -> None:
        """Give a client a certificate of its own."""
        certificate, key = authority.sign(
            "printer", [x509.RFC822Name("ada@example.org")], ExtendedKeyUsageOID.CLIENT_AUTH, **more
        )
        files = write(self.directory / "c.pem", self.directory / "c.key", certificate, key)
        client.load_cert_chain(*files)


def serial(end: ssl.SSLObject) -> str:
    """Which certificate a client was shown."""
    shown = end.getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


BOTH = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class NameTests(Signed):
    """A certificate per name."""

    def test_names(self) -> None:
        """Each name has its certificate, in any case, and clients verify it."""
        server = tls.ServerTLS(self.settings("a.example", "B.Example", "bücher.example"))
        for newest in BOTH:
            for name in ("localhost", "a.example", "A.EXAMPLE", "b.example", "bücher.example"):
                Handshake(server, self.client(newest), name=name).run()

    def test_wildcard(self) -> None:
        """A wildcard is for one label, and a name of its own goes before it."""
        server = tls.ServerTLS(self.settings("*.example.com", "b.example.com"))
        first = serial(Handshake(server, self.client(), name="a.example.com").run())
        second = serial(Handshake(server, self.client(), name="b.example.com").run())
        self.assertNotEqual(first, second)
        client = self.client()
        client.check_hostname = False
        default = serial(Handshake(server, client, name="localhost").run())
        for name in ("example.com", "a.b.example.com"):
            self.assertEqual(serial(Handshake(server, client, name=name).run()), default)

    def test_unknown(self) -> None:
        """For a name that is not known, and for none, it goes on with the default (RFC 6066 3)."""
        server = tls.ServerTLS(self.settings("a.example"))
        client = self.client()
        client.check_hostname = False
        default = serial(Handshake(server, client, name="localhost").run())
        for name in ("nobody.example", "com", "", "192.0.2.1"):
            end = Handshake(server, client, name=name or None).run()  # type: ignore[arg-type]
            self.assertEqual(serial(end), default)

    def test_free(self) -> None:
        """Without other names OpenSSL is not told to ask for one: it costs nothing."""
        asked: list[object] = []
        self.patch(tls.ServerTLS, "_choose", lambda server, connection: asked.append(connection))
        Handshake(tls.ServerTLS(self.settings()), self.client()).run()
        self.assertEqual(asked, [])
        Handshake(tls.ServerTLS(self.settings("a.example")), self.client()).run()
        self.assertEqual(len(asked), 1)

    def test_resumed(self) -> None:
        """Sessions of every name resume."""
        server = tls.ServerTLS(self.settings("a.example"))
        for newest in BOTH:
            for name in ("a.example", "localhost"):
                client = self.client(newest)
                first = Handshake(server, client, name=name).run()
                second = Handshake(server, client, first.session, name).run()
                self.assertTrue(second.session_reused, (newest, name))

    def test_sessionOfAnother(self) -> None:
        """A session that is resumed for another name keeps, in TLS 1.2, the one it was made for."""
        server = tls.ServerTLS(self.settings("a.example", "b.example"))
        for newest, name in zip(BOTH, ("a.example", "b.example"), strict=True):
            client = self.client(newest)
            first = Handshake(server, client, name="a.example").run()
            shake = Handshake(server, client, first.session, "b.example")
            shake.run()
            self.assertEqual(describeTLS(shake.server).serverName, name)


class ClientCertificateTests(Signed):
    """Certificates of clients."""

    def server(self, how: str) -> tls.ServerTLS:
        """A server that asks for one."""
        ca = self.authority.file
        return tls.ServerTLS(self.settings("a.example", client_certificate=how, client_ca=ca))

    def facts(self, server: tls.ServerTLS, client: ssl.SSLContext, **more: Any) -> TLSInfo:
        """What the server knows behind the handshake."""
        shake = Handshake(server, client, **more)
        shake.run()
        return describeTLS(shake.server)

    def test_good(self) -> None:
        """A certificate of the authority is let in by both ways of asking, and its facts seen."""
        for how in ("request", "require"):
            for newest in BOTH:
                for name in ("localhost", "a.example"):
                    client = self.client(newest)
                    self.identify(client, self.authority)
                    facts = self.facts(self.server(how), client, name=name)
                    self.assertTrue(facts.verified)
                    self.assertEqual(facts.peerSubject, "CN=printer")
                    self.assertEqual(facts.peerEmails, ("ada@example.org",))
                    self.assertEqual(facts.peerNames, ())
                    self.assertRegex(facts.peerFingerprint, "^[0-9a-f]{64}$")

    def test_none(self) -> None:
        """Without one a client is let in where it is a request, and refused where it is not."""
        for newest in BOTH:
            facts = self.facts(self.server("request"), self.client(newest))
            self.assertFalse(facts.verified)
            self.assertIsNone(facts.peerCertificate)
            self.assertEqual((facts.peerSubject, facts.peerFingerprint), ("", ""))
            self.assertEqual(facts.peerEmails, ())
            shake = Handshake(self.server("require"), self.client(newest))
            with self.assertRaises((ssl.SSLError, SSL.Error)):
                shake.run()

    def test_bad(self) -> None:
        """One of another authority, expired or not yet valid, is not verified, or refused."""
        day = datetime.timedelta(days=1)
        stranger = Authority.make(self.directory, "stranger")
        for authority, more in (
            (stranger, {}),
            (self.authority, {"begin": -2 * day, "end": -day}),
            (self.authority, {"begin": day, "end": 2 * day}),
        ):
            for newest in BOTH:
                client = self.client(newest)
                self.identify(client, authority, **more)
                facts = self.facts(self.server("request"), client)
                self.assertFalse(facts.verified)
                self.assertEqual(facts.peerSubject, "CN=printer")
                with self.assertRaises((ssl.SSLError, SSL.Error)):
                    self.facts(self.server("require"), client)

    def test_notAsked(self) -> None:
        """Who is not asked shows none."""
        client = self.client()
        self.identify(client, self.authority)
        self.assertIsNone(self.facts(self.server("no"), client).peerCertificate)

    def test_resumedRequired(self) -> None:
        """A session with a certificate resumes, and the certificate is still known."""
        for newest in BOTH:
            server, client = self.server("require"), self.client(newest)
            self.identify(client, self.authority)
            first = Handshake(server, client).run()
            facts = self.facts(server, client, session=first.session)
            self.assertTrue(facts.resumed)
            self.assertTrue(facts.verified)
            self.assertEqual(facts.peerSubject, "CN=printer")

    def test_resumedRequested(self) -> None:
        """A certificate that was not verified is not taken for verified by resuming its session."""
        stranger = Authority.make(self.directory, "stranger")
        for newest in BOTH:
            server, client = self.server("request"), self.client(newest)
            self.identify(client, stranger)
            session = Handshake(server, client).run().session
            for _ in range(2):
                shake = Handshake(server, client, session)
                session = shake.run().session
                facts = describeTLS(shake.server)
                self.assertFalse(facts.resumed)
                self.assertFalse(facts.verified)

    def test_authorityGone(self) -> None:
        """A session does not outlive the authority that its client was verified with."""
        for newest in BOTH:
            server, client = self.server("require"), self.client(newest)
            self.identify(client, self.authority)
            first = Handshake(server, client).run()
            kept = self.authority.file.read_bytes()
            Authority.make(self.directory, "authority")
            server.refresh()
            with self.assertRaises((ssl.SSLError, SSL.Error)):
                Handshake(server, client, first.session).run()
            self.authority.file.write_bytes(kept)

    def test_forgotten(self) -> None:
        """What is remembered of a connection goes with it."""
        client = self.client()
        self.identify(client, Authority.make(self.directory, "stranger"))
        shake = Handshake(self.server("request"), client)
        shake.run()
        self.assertEqual(len(tls._unverified), 1)
        del shake
        gc.collect()
        self.assertEqual(len(tls._unverified), 0)


class UnreadableCertificateTests(SynchronousTestCase):
    """Certificates of strangers may have anything in them."""

    def test_unreadable(self) -> None:
        """What cannot be read is empty, and nothing is raised into a policy."""

        class Broken:
            def __init__(self, error: Exception) -> None:
                self.error = error

            def to_cryptography(self) -> Any:
                raise self.error

        for error in (ValueError("junk"), x509.InvalidVersion("9", 9)):
            facts = TLSInfo("TLSv1.3", "x", peerCertificate=Broken(error))
            self.assertEqual((facts.peerSubject, facts.peerFingerprint), ("", ""))
            self.assertEqual((facts.peerEmails, facts.peerNames), ((), ()))

    def test_parts(self) -> None:
        """A subject or a list of names that cannot be read leaves the rest readable."""

        class Certificate:
            error: Exception = ValueError("junk")

            @property
            def subject(self) -> Any:
                raise ValueError("junk")

            @property
            def extensions(self) -> Any:
                raise self.error

            def to_cryptography(self) -> Any:
                return self

        facts = TLSInfo("TLSv1.3", "x", peerCertificate=Certificate())
        self.assertEqual((facts.peerSubject, facts.peerEmails), ("", ()))
        # EDIPartyName or x400Address among the names.
        Certificate.error = x509.UnsupportedGeneralNameType("not supported")
        self.assertEqual((facts.peerEmails, facts.peerNames), ((), ()))


class ReloadTests(Signed):
    """Other files, without a restart."""

    def test_changed(self) -> None:
        """A changed certificate serves the next handshake; connections that are there go on."""
        server = tls.ServerTLS(self.settings())
        shake = Handshake(server, self.client())
        before = serial(shake.run())
        self.pair("default", "localhost")
        server.refresh()
        [line] = self.said()
        self.assertRegex(line, r"^certificates reloaded: files=1 expires=\d{4}-\d\d-\d\d$")
        self.assertNotEqual(serial(Handshake(server, self.client()).run()), before)
        context = Handshake(server.getContext(), self.client()).run()
        self.assertNotEqual(serial(context), before)
        shake.server.send(b"still there")
        shake.drain()
        self.assertEqual(shake.end.read(11), b"still there")
        shake.end.write(b"me too")
        shake.server.bio_write(shake.toServer.read())
        self.assertEqual(shake.server.recv(6), b"me too")

    def test_unchanged(self) -> None:
        """Nothing is read, made or said for files that are the same."""
        server = tls.ServerTLS(self.settings("a.example"))
        context = server.getContext()
        server.refresh()
        self.assertIs(server.getContext(), context)
        self.assertEqual(self.said(), [])

    def test_otherKind(self) -> None:
        """A key of another kind takes the place of the old one, and not a place beside it."""
        server = tls.ServerTLS(self.settings())
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(77)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        write(self.directory / "default.pem", self.directory / "default.key", certificate, key)
        server.refresh()
        client = ssl.create_default_context()
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        with self.assertRaises((ssl.SSLError, SSL.Error)):
            Handshake(server, client).run()
        client.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
        Handshake(server, client).run()

    def test_broken(self) -> None:
        """A broken file is one line, however often it is looked at, and the old one stays."""
        server = tls.ServerTLS(self.settings())
        before = serial(Handshake(server, self.client()).run())
        (self.directory / "default.pem").write_text("half a cert")
        for _ in range(3):
            server.refresh()
        self.assertEqual(
            self.said(),
            [
                "not reloaded, the old one stays:"
                ' problem="tls.certificate: DIR/default.pem holds no certificate in PEM form"'
            ],
        )
        self.assertEqual(serial(Handshake(server, self.client()).run()), before)
        self.pair("default", "localhost")
        server.refresh()
        self.assertEqual(len(self.said()), 1)
        self.assertNotEqual(serial(Handshake(server, self.client()).run()), before)

    def test_between(self) -> None:
        """A new certificate with the old key, for a moment, keeps the old pair for as long."""
        server = tls.ServerTLS(self.settings("a.example"))
        for stem, name, key in (
            ("default", "localhost", "private_key"),
            ("name0", "a.example", 'sni."a.example".private_key'),
        ):
            before = serial(Handshake(server, self.client(), name=name).run())
            keyFile = self.directory / f"{stem}.key"
            old = keyFile.read_bytes()
            self.pair(stem, name)
            new = keyFile.read_bytes()
            keyFile.write_bytes(old)
            server.refresh()
            server.refresh()
            [line] = self.said()
            self.assertIn(key.replace('"', '\\"'), line)
            self.assertIn("does not belong to the first certificate", line)
            self.assertEqual(serial(Handshake(server, self.client(), name=name).run()), before)
            keyFile.write_bytes(new)
            server.refresh()
            self.assertNotEqual(serial(Handshake(server, self.client(), name=name).run()), before)
            self.said()

    def test_oneOfMany(self) -> None:
        """A broken pair keeps no other from being renewed."""
        server = tls.ServerTLS(self.settings("a.example", "b.example"))
        client = self.client()
        before = serial(Handshake(server, client, name="b.example").run())
        (self.directory / "name0.key").unlink()
        self.pair("name1", "b.example")
        server.refresh()
        good, bad = self.said()
        self.assertIn("files=1", good)
        self.assertIn("No such file or directory", bad)
        self.assertNotEqual(serial(Handshake(server, client, name="b.example").run()), before)
        Handshake(server, client, name="a.example").run()

    def test_reload(self) -> None:
        """Who asks for it has everything read, is told what is wrong, and finds it in the log."""
        server = tls.ServerTLS(self.settings("a.example"))
        self.assertEqual(server.reload(), [])
        [line] = self.said()
        self.assertIn("files=2", line)
        (self.directory / "name0.key").write_text("")
        for _ in range(2):
            [mistake] = server.reload()
            self.assertEqual(mistake.key, 'sni."a.example".private_key')
            self.assertEqual(len(self.said()), 2)

    def test_authorities(self) -> None:
        """Broken authorities of clients keep the old ones, with a line."""
        ca = self.directory / "ca.pem"
        ca.write_bytes(self.authority.file.read_bytes())
        server = tls.ServerTLS(self.settings(client_certificate="require", client_ca=ca))
        client = self.client()
        self.identify(client, self.authority)
        ca.write_text("junk")
        server.refresh()
        self.assertEqual(
            self.said(),
            [
                "not reloaded, the old one stays:"
                ' problem="tls.client_ca: DIR/ca.pem holds no certificate in PEM form"'
            ],
        )
        Handshake(server, client).run()

    def test_tickets(self) -> None:
        """Sessions of before a reload resume behind it, with names and without."""
        for names in ((), ("a.example",)):
            for newest in BOTH:
                for name in ("localhost", *names):
                    server, client = tls.ServerTLS(self.settings(*names)), self.client(newest)
                    first = Handshake(server, client, name=name).run()
                    server.reload()
                    second = Handshake(server, client, first.session, name).run()
                    self.assertTrue(second.session_reused, (names, newest, name))
                    server.reload()
                    third = Handshake(server, client, second.session, name).run()
                    self.assertTrue(third.session_reused, (names, newest, name))

    def test_otherTickets(self) -> None:
        """With other keys for tickets, old ones end in a full handshake, and new ones are good."""
        server, client = tls.ServerTLS(self.settings()), self.client()
        first = Handshake(server, client).run()
        server.renewTickets()
        second = Handshake(server, client, first.session).run()
        self.assertFalse(second.session_reused)
        self.assertTrue(Handshake(server, client, second.session).run().session_reused)

    def test_underWay(self) -> None:
        """A handshake that has begun ends with what it began with, whatever is reloaded."""
        for names in ((), ("a.example",)):
            server = tls.ServerTLS(self.settings(*names))
            shake = Handshake(server, self.client(), name=names[0] if names else "localhost")
            server.reload()
            server.renewTickets()
            gc.collect()
            shake.run()


class MistakesTests(Files):
    """Every wrong file or setting is a sentence that names its key."""

    def said(self, **changes: object) -> list[str]:
        """What is wrong with settings that are good but for some changes."""
        settings = attrs.evolve(self.settings, **changes)  # type: ignore[arg-type]
        found = tls.mistakes(settings)
        if found:
            self.assertRaises(tls.TLSMistake, tls.ServerTLS, settings)
        return [str(mistake) for mistake in found]

    def put(self, data: bytes) -> Path:
        """A file with some octets."""
        path = Path(self.mktemp())
        path.write_bytes(data)
        return path

    def pem(self, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey):
        """A key in PEM form."""
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def test_good(self) -> None:
        """Nothing is said of settings that work."""
        self.assertEqual(self.said(), [])

    def test_missing(self) -> None:
        """Two files that are not there are two mistakes, not one after the other."""
        self.assertEqual(
            self.said(certificate=Path("/nowhere/c"), private_key=Path("/nowhere/k")),
            [
                "certificate: cannot read /nowhere/c: No such file or directory",
                "private_key: cannot read /nowhere/k: No such file or directory",
            ],
        )

    def test_notPEM(self) -> None:
        """Files of another kind are named."""
        junk = self.put(b"junk")
        self.assertEqual(
            self.said(certificate=junk, private_key=junk),
            [
                f"certificate: {junk} holds no certificate in PEM form",
                f"private_key: {junk} holds no private key in PEM form",
            ],
        )

    def test_passphrase(self) -> None:
        """A key with a passphrase is a mistake; the start never asks at a terminal."""
        key = ec.generate_private_key(ec.SECP256R1())
        locked = self.put(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"x"),
            )
        )
        [said] = self.said(private_key=locked)
        self.assertEqual(
            said,
            f"private_key: the key in {locked} has a passphrase; the service needs one without",
        )

    def test_cannotSign(self) -> None:
        """A key that is only good for key agreement is named."""
        key = self.put(self.pem(x25519.X25519PrivateKey.generate()))
        [said] = self.said(private_key=key)
        self.assertEqual(said, f"private_key: the key in {key} is of a kind that cannot sign")

    def test_mismatch(self) -> None:
        """A key of another certificate is found before a client finds it."""
        key = self.put(self.pem(ec.generate_private_key(ec.SECP256R1())))
        [said] = self.said(private_key=key)
        self.assertEqual(
            said,
            f"private_key: the key in {key} does not belong to the first certificate in"
            f" {self.settings.certificate}",
        )

    def test_versions(self) -> None:
        """A range of versions with nothing in it is a mistake."""
        [said] = self.said(minimum_version="TLSv1.3", maximum_version="TLSv1.2")
        self.assertTrue(said.startswith("minimum_version: TLSv1.3 is newer than"), said)

    def test_ciphers(self) -> None:
        """A cipher list that OpenSSL knows nothing of is a mistake."""
        [said] = self.said(ciphers="ROT13")
        self.assertEqual(said, 'ciphers: OpenSSL knows no cipher of "ROT13"')

    def test_ciphersuites(self) -> None:
        """So is a suite of TLS 1.3 that it does not know, among others that it does, or none."""
        for given, named in (
            ("TLS_AES_128_GCM_SHA256:ROT13", "ROT13"),
            ("", ""),
            ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ):
            [said] = self.said(ciphersuites=given)
            expected = f'ciphersuites: OpenSSL knows no cipher suite "{named}" of TLS 1.3'
            self.assertEqual(said, expected)

    def test_clients(self) -> None:
        """Client certificates need authorities, and a file of them that can be read."""
        [said] = self.said(client_certificate="require")
        self.assertTrue(said.startswith("client_ca: is missing"), said)
        [said] = self.said(client_certificate="request", client_ca=Path("/nowhere/ca"))
        self.assertEqual(said, "client_ca: cannot read /nowhere/ca: No such file or directory")
        [said] = self.said(client_certificate="request", client_ca=self.settings.private_key)
        self.assertIn("holds no certificate in PEM form", said)

    def test_names(self) -> None:
        """Names that no client sends, one name twice, and every pair with something wrong."""
        good = tls.CertificateSettings(
            certificate=self.settings.certificate, private_key=self.settings.private_key
        )
        bad = tls.CertificateSettings(
            certificate=Path("/nowhere/c"), private_key=self.settings.private_key
        )
        wrong = 'must be a host name such as "mail.example.com" or "*.example.com"'
        self.assertEqual(
            self.said(sni={"A.example": good, "a.example": good}),
            ['sni."a.example": is the same name as "A.example"'],
        )
        for name in ("*", "a.*.example", "*a.example", "a b", "", "-", "a..b", "ex\n", "*.*.b"):
            self.assertEqual(self.said(sni={name: good}), [f'sni."{name}": {wrong}'])
        self.assertEqual(
            self.said(sni={"a.example": bad, "*.example": bad}),
            [
                f'sni."{name}".certificate: cannot read /nowhere/c: No such file or directory'
                for name in ("a.example", "*.example")
            ],
        )

    def test_weak(self) -> None:
        """A key that the system's OpenSSL finds too weak is a mistake of the start."""
        key = rsa.generate_private_key(65537, 1024)
        name = x509.Name([])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(NOW)
            .not_valid_after(NOW + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        pem = self.put(certificate.public_bytes(serialization.Encoding.PEM))
        [said] = self.said(
            certificate=pem, private_key=self.put(self.pem(key)), ciphers="DEFAULT:@SECLEVEL=2"
        )
        self.assertEqual(said, "certificate: OpenSSL refuses it: ee key too small")
