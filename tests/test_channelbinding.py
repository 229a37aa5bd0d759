"""Tests for :mod:`submitd.channelbinding`, on handshakes in memory."""

from __future__ import annotations

import contextlib
import datetime
import gc
import hashlib
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from submitd.channelbinding import bindingOf
from submitd.protocol import describeTLS
from submitd.tls import CertificateSettings, ServerTLS, TLSSettings
from tests.clients.authority import write


def pair(name: str, key: Any, hash: Any) -> x509.Certificate:
    """A certificate signed by its own key, with a hash."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hash)
    )


class ChannelBindingTests(SynchronousTestCase):
    """:func:`submitd.channelbinding.bindingOf`."""

    def setUp(self) -> None:
        """Two names, each with a certificate, the second one with a longer hash."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.clients = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.certificates = {}
        for name, hash in (("one.example", hashes.SHA256()), ("two.example", hashes.SHA384())):
            self.keep(name, ec.generate_private_key(ec.SECP256R1()), hash)

    def keep(self, name: str, key: Any, hash: Any) -> None:
        self.certificates[name] = pair(name, key, hash)
        write(*self.files(name), self.certificates[name], key)

    def files(self, name: str) -> tuple[Path, Path]:
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def shake(self, name: bytes = b"", **settings: Any) -> tuple[SSL.Connection, SSL.Connection]:
        """Both ends of a finished handshake: the client's and the server's."""
        return self.meet(self.server(**settings), name)

    def server(self, **settings: Any) -> ServerTLS:
        certificate, key = self.files("one.example")
        sni = CertificateSettings(
            certificate=self.files("two.example")[0], private_key=self.files("two.example")[1]
        )
        made = TLSSettings(
            certificate=certificate, private_key=key, sni={"two.example": sni}, **settings
        )
        return ServerTLS(made)

    def meet(
        self, tls: ServerTLS, name: bytes = b"", session: SSL.Session | None = None
    ) -> tuple[SSL.Connection, SSL.Connection]:
        server = tls.connectionOver(None)
        client = SSL.Connection(self.clients, None)
        if session is not None:
            client.set_session(session)
        if name:
            client.set_tlsext_host_name(name)
        server.set_accept_state()
        client.set_connect_state()
        for _ in range(4):
            for end, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    end.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(end.bio_read(1 << 16))
        return client, server

    def test_exported(self) -> None:
        """Both ends have the same key material, and no other connection has it."""
        seen = set()
        for _ in range(2):
            client, server = self.shake()
            binding = bindingOf(server)("tls-exporter")
            label = b"EXPORTER-Channel-Binding"
            self.assertEqual(binding, client.export_keying_material(label, 32, b""))
            seen.add(binding)
        self.assertEqual(len(seen), 2)

    def test_version(self) -> None:
        """Before TLS 1.3 there is none."""
        _, server = self.shake(maximum_version="TLSv1.2")
        self.assertIsNone(bindingOf(server)("tls-exporter"))

    def test_serverEndPoint(self) -> None:
        """The digest of the certificate for the name that was asked for, by its own hash."""
        for asked, name, hash in (
            (b"", "one.example", "sha256"),
            (b"two.example", "two.example", "sha384"),
        ):
            _, server = self.shake(asked)
            octets = self.certificates[name].public_bytes(Encoding.DER)
            expected = hashlib.new(hash, octets).digest()
            self.assertEqual(bindingOf(server)("tls-server-end-point"), expected)

    def test_noHash(self) -> None:
        """A signature without a hash has no such digest."""
        self.keep("one.example", ed25519.Ed25519PrivateKey.generate(), None)
        _, server = self.shake()
        self.assertIsNone(bindingOf(server)("tls-server-end-point"))

    def test_noCertificate(self) -> None:
        """Nor has a connection without a certificate."""
        connection = SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)
        self.assertIsNone(bindingOf(connection)("tls-server-end-point"))

    def test_otherKinds(self) -> None:
        """Other kinds are not known; what tls-unique promised does not hold."""
        _, server = self.shake()
        for kind in ("tls-unique", "TLS-EXPORTER", ""):
            self.assertIsNone(bindingOf(server)(kind))

    def test_resumed(self) -> None:
        """A session that is resumed has key material of its own, and the same certificate."""
        tls = self.server()
        client, server = self.meet(tls)
        with contextlib.suppress(SSL.WantReadError):
            client.recv(1)  # the ticket
        _, resumed = self.meet(tls, session=client.get_session())
        self.assertTrue(describeTLS(resumed).resumed)
        for kind, isSame in (("tls-exporter", False), ("tls-server-end-point", True)):
            binding = bindingOf(resumed)(kind)
            self.assertIsNotNone(binding)
            self.assertIs(binding == bindingOf(server)(kind), isSame)

    def test_described(self) -> None:
        """What is known of a connection's TLS gives them, and does not keep the connection."""
        client, server = self.shake()
        described = describeTLS(server)
        assert described.channelBinding is not None
        self.assertIsNotNone(described.channelBinding("tls-exporter"))
        del client, server
        gc.collect()
        self.assertIsNone(described.channelBinding("tls-exporter"))
