"""SCRAM over real TLS: GNU SASL's program, msmtp, and a client of our own for the rest."""

from __future__ import annotations

import base64
import hashlib
import socket
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from submitd.sasl.scramkeys import ScramKeys
from tests.clients import messages
from tests.clients.case import CONFIG, GRACE, RECIPIENT, SENDER, WRONG, ClientTestCase, User
from tests.clients.running import HOST
from tests.clients.test_msmtp import CONFIG as MSMTP
from tests.sasl.scramclient import ScramClient

BOB = User("bob@example.org", "pencil, with café")
SALT = bytes(range(16))

PLUS, PLAIN = "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"


class ScramTestCase(ClientTestCase):
    """A service with SCRAM: Grace's secret is in the clear, of Bob's there are keys."""

    config = CONFIG.replace('"XOAUTH2"', f'"XOAUTH2", "{PLUS}", "{PLAIN}"')

    @classmethod
    def prepare(cls, directory: Path) -> None:
        """Add Bob."""
        super().prepare(directory)
        keys = ScramKeys.derive(BOB.secret.encode(), SALT, 10_000)
        with open(directory / "secrets", "a", encoding="utf-8") as file:
            file.write(f"{BOB.name}:{keys}\n")

    def assertLoggedIn(self, user: User, mechanism: str) -> None:
        """The service says who has logged in, and how."""
        self.assertIn(f"user={user.name} mechanism={mechanism} secure=TLSv1", self.logged)


class GsaslTests(ScramTestCase):
    """GNU SASL's program, which knows channel bindings."""

    program = "gsasl"

    def login(
        self, user: User, *options: str, secret: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Log in, and quit."""
        return self.runProgram(
            "gsasl",
            "--smtp",
            f"--connect=localhost:{self.service.ports['starttls']}",
            f"--x509-ca-file={self.authority}",
            f"--authentication-id={user.name}",
            f"--password={secret or user.secret}",
            *options,
        )

    def test_bound(self) -> None:
        """Of all that is offered it takes -PLUS, and believes the server."""
        for user in (BOB, GRACE):
            ran = self.login(user)
            self.assertSent(ran)
            self.assertIn(b"server trusted", ran.stdout)
            self.assertLoggedIn(user, PLUS)

    def test_unbound(self) -> None:
        """Without a channel binding it takes SCRAM-SHA-256."""
        for user in (BOB, GRACE):
            self.assertSent(self.login(user, f"--mechanism={PLAIN}", "--no-cb"))
            self.assertLoggedIn(user, PLAIN)

    def test_wrong(self) -> None:
        """A wrong password is 535."""
        for user in (BOB, GRACE, User("nobody", "x")):
            ran = self.login(user, f"--mechanism={PLUS}", secret=WRONG)
            self.assertRefusedLogin(ran)

    def test_keys(self) -> None:
        """It makes the same keys of a password as we do."""
        ran = self.runProgram(
            "gsasl",
            "--mkpasswd",
            f"--mechanism={PLAIN}",
            f"--password={BOB.secret}",
            f"--salt={base64.b64encode(SALT).decode()}",
            "--iteration-count=10000",
        )
        self.assertEqual(
            ran.stdout.decode().strip(),
            str(ScramKeys.derive(BOB.secret.encode(), SALT, 10_000)),
        )


class MsmtpTests(ScramTestCase):
    """msmtp, with GNU SASL's library."""

    program = "msmtp"

    def send(self, user: User, secret: str = "") -> subprocess.CompletedProcess[bytes]:
        """Submit a message."""
        kept = self.directory / "msmtp.secret"
        kept.write_text(f"{secret or user.secret}\n", encoding="utf-8")
        config = self.directory / "msmtprc"
        config.write_text(
            MSMTP.format(
                port=self.service.ports["starttls"],
                starttls="on",
                authority=self.authority,
                mechanism=PLAIN.lower(),
                user=user.name,
                secret=kept,
                sender=SENDER,
            )
        )
        config.chmod(0o600)
        text = messages.small().replace(b"\r\n", b"\n")
        return self.runProgram("msmtp", "-d", "-C", str(config), "--", RECIPIENT, stdin=text)

    def test_sent(self) -> None:
        """Its message arrives."""
        for count, user in enumerate((BOB, GRACE), 1):
            self.assertSent(self.send(user))
            self.assertLoggedIn(user, PLAIN)
            self.assertEqual(len(self.files("new")), count)

    def test_wrong(self) -> None:
        """A wrong password is 535."""
        self.assertRefusedLogin(self.send(BOB, WRONG))


class Connection:
    """A client's connection under TLS, behind EHLO.

    :param newest: of TLS.
    :ivar offered: the mechanisms of EHLO.
    """

    def __init__(self, test: ScramTestCase, listener: str, newest: int = SSL.TLS1_3_VERSION):
        self._socket = socket.create_connection((HOST, test.service.ports[listener]), 10)
        self._tls: SSL.Connection | None = None
        self._buffer = b""
        self._newest = newest
        if listener == "implicit":
            self._shake()
            self.hear()
        else:
            self.hear()
            self.say(b"EHLO client.example")
            assert self.say(b"STARTTLS").startswith("220")
            self._shake()
        lines = self.say(b"EHLO client.example").split("\n")
        [self.offered] = [line.split()[1:] for line in lines if line[4:].startswith("AUTH ")]

    def _shake(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(self._newest)
        self._socket.settimeout(None)
        self._tls = SSL.Connection(context, self._socket)
        self._tls.set_connect_state()
        self._tls.do_handshake()

    def say(self, line: bytes) -> str:
        """Send a line, and give the reply."""
        octets = line + b"\r\n"
        if self._tls is None:
            self._socket.sendall(octets)
        else:
            self._tls.sendall(octets)
        return self.hear()

    def hear(self) -> str:
        """The next reply, its lines joined."""
        lines = []
        while not lines or lines[-1][3:4] == "-":
            while b"\r\n" not in self._buffer:
                more = self._socket.recv(4096) if self._tls is None else self._tls.recv(4096)
                assert more
                self._buffer += more
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            lines.append(line.decode())
        return "\n".join(lines)

    def binding(self, kind: str) -> bytes:
        """What this connection is known by."""
        assert self._tls is not None
        if kind == "tls-exporter":
            return self._tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        shown = self._tls.get_peer_certificate()
        assert shown is not None
        return hashlib.sha256(shown.to_cryptography().public_bytes(Encoding.DER)).digest()

    def login(self, mechanism: str, client: ScramClient) -> str:
        """Log in; the reply that is no challenge any more."""
        reply = self.say(f"AUTH {mechanism} ".encode() + base64.b64encode(client.first))
        if not reply.startswith("334"):
            return reply
        reply = self.say(base64.b64encode(client.final(base64.b64decode(reply[4:]))))
        if not reply.startswith("334"):
            return reply
        client.verify(base64.b64decode(reply[4:]))
        return self.say(b"")

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class OwnClientTests(ScramTestCase):
    """What the programs cannot be made to do."""

    def connect(self, listener: str = "starttls", newest: int = SSL.TLS1_3_VERSION) -> Connection:
        connection = Connection(self, listener, newest)
        self.addCleanup(connection.close)
        return connection

    def client(
        self, connection: Connection, header: str, user: User = BOB, kind: str = ""
    ) -> ScramClient:
        """Half of a login, bound to the connection where a kind is named."""
        binding = connection.binding(kind) if kind else b""
        return ScramClient(
            user.name.encode(), user.secret.encode(), header=header.encode(), binding=binding
        )

    def test_kinds(self) -> None:
        """Both kinds of channel binding log in, and the server proves itself."""
        for listener in ("starttls", "implicit"):
            for user, kind in ((BOB, "tls-exporter"), (GRACE, "tls-server-end-point")):
                connection = self.connect(listener)
                client = self.client(connection, f"p={kind},,", user, kind)
                self.assertEqual(connection.login(PLUS, client)[:9], "235 2.7.0", self.logged)
                self.assertTrue(client.verified)
                self.assertLoggedIn(user, PLUS)

    def test_otherConnection(self) -> None:
        """A proof that is bound to another connection is worth nothing here."""
        there = self.client(self.connect(), "p=tls-exporter,,", kind="tls-exporter")
        self.assertEqual(self.connect().login(PLUS, there)[:9], "535 5.7.8")
        self.assertIn("another connection", self.logged)

    def test_downgrade(self) -> None:
        """A client that could bind and says that we cannot is refused, where we can."""
        connection = self.connect()
        self.assertEqual(connection.login(PLAIN, self.client(connection, "y,,"))[:9], "535 5.7.8")
        self.assertEqual(connection.login(PLAIN, self.client(connection, "n,,"))[:9], "235 2.7.0")

    def test_olderTLS(self) -> None:
        """Over TLS 1.2, -PLUS is not offered, and a client that could bind says so."""
        connection = self.connect(newest=SSL.TLS1_2_VERSION)
        self.assertIn(PLAIN, connection.offered)
        self.assertNotIn(PLUS, connection.offered)
        client = self.client(connection, "p=tls-exporter,,", kind="tls-exporter")
        self.assertEqual(connection.login(PLUS, client)[:9], "504 5.5.4")
        self.assertEqual(connection.login(PLAIN, self.client(connection, "y,,"))[:9], "235 2.7.0")

    def test_silent(self) -> None:
        """Nothing of a login, good or bad, is in the log: what was said, proofs, keys, secrets."""
        said = [BOB.secret, GRACE.secret, (self.directory / "secrets").read_text().split(",")[-1]]
        for user in (BOB, GRACE, User(BOB.name, WRONG)):
            connection = self.connect()
            client = self.client(connection, "n,,", user)
            connection.login(PLAIN, client)
            said += [value for part in client.said for value in part.split(",")]
            said += [base64.b64encode(part.encode()).decode() for part in client.said]
        self.assertIn("login failed", self.logged)
        for part in filter(None, said):
            self.assertNotIn(part.strip(), self.service.log)

    def test_identity(self) -> None:
        """To act as somebody else is refused, as with PLAIN."""
        connection = self.connect()
        client = self.client(connection, f"n,a={GRACE.name},")
        self.assertEqual(connection.login(PLAIN, client)[:9], "535 5.7.8")

    def test_password(self) -> None:
        """Who has only keys in the file can send the password, too."""
        connection = self.connect()
        plain = base64.b64encode(f"\0{BOB.name}\0{BOB.secret}".encode())
        self.assertEqual(connection.say(b"AUTH PLAIN " + plain)[:9], "235 2.7.0")
