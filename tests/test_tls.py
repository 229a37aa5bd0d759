"""Tests of :mod:`submitd.tls`: handshakes in memory, and every way the files can be wrong."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import warnings
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd import tls

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class Handshake:
    """A client of the standard library and our context, joined in memory."""

    def __init__(
        self,
        context: SSL.Context,
        client: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.toClient, self.toServer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.end = client.wrap_bio(
            self.toClient, self.toServer, server_hostname="localhost", session=session
        )
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
        verifyObject(IOpenSSLContextFactory, tls.ServerTLS(self.settings))

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
