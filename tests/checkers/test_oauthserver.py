"""``oauth:FILE`` with a real provider: HTTPS, a service in a process of its own, mail programs."""

from __future__ import annotations

import base64
import json
import smtplib
import ssl
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.clients.authority import Authority
from tests.clients.running import HOST, RunningService

reactor: Any = globalReactor

CONFIG = """
hostname = "submission.example.org"
[[listener]]
endpoint = "tcp:$starttls:interface=127.0.0.1"
[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"
[auth]
mechanisms = ["OAUTHBEARER", "XOAUTH2"]
checkers = ["oauth:oauth"]
[delivery]
use = "maildir"
path = "$directory/Maildir"
"""
FILE = """
introspection = "https://localhost:PORT/introspect"
client_id = "submitd"
client_secret_file = "secret"
scope = "mail.submit"
audience = "submission.example.org"
openid_configuration = "https://localhost/.well-known/openid-configuration"
ca_file = "authority.pem"
timeout = "5 s"
cache = "1 h"
"""
SECRET = "the-secret-of-submitd"
TOKEN, STRANGE, BROKEN, HANGS = (f"token-{at}.of_alice~+/==" for at in range(4))
TOLD = {
    "scope": "mail.submit",
    "openid-configuration": "https://localhost/.well-known/openid-configuration",
}


class Provider(Resource):
    """Speaks RFC 7662.

    :ivar asked: the tokens, in order.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def render_POST(self, request: Any) -> Any:
        """Whether a token is active, and more; for its client alone."""
        right = (b"submitd", SECRET.encode())
        if (request.getUser(), request.getPassword()) != right or request.path != b"/introspect":
            request.setResponseCode(401)
            return b""
        [token] = [each.decode() for each in request.args[b"token"]]
        self.asked.append(token)
        request.setHeader("Content-Type", "application/json")
        if token == HANGS:
            return NOT_DONE_YET
        if token == BROKEN:
            request.setResponseCode(500)
        claims: dict[str, Any] = {"active": token in (TOKEN, STRANGE)}
        if claims["active"]:
            claims |= {"username": "alice", "aud": "submission.example.org"}
            claims |= {"scope": "mail.submit openid", "exp": int(time.time()) + 600}
        if token == STRANGE:
            claims["scope"] = "openid"
        return json.dumps(claims).encode()


class ServerTests(TestCase):
    """From the mail program to the provider."""

    timeout = 120

    async def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        authority = Authority.make(self.directory, "authority")
        certificate, key = authority.issue(self.directory)
        self.provider = Provider()
        self.connected = 0

        class CountingSite(Site):
            def buildProtocol(site, address: Any) -> Any:
                self.connected += 1
                return super().buildProtocol(address)

        context = DefaultOpenSSLContextFactory(str(key), str(certificate))
        self.port = reactor.listenSSL(
            0, CountingSite(self.provider), context, interface="127.0.0.1"
        )
        self.addCleanup(self.port.stopListening)
        self.write("secret", SECRET)
        self.write("oauth", FILE.replace("PORT", str(self.port.getHost().port)))
        self.service = RunningService(self.directory, CONFIG, ["starttls"])
        await deferToThread(self.service.start)
        self.addCleanup(deferToThread, self.service.stop)

    def write(self, name: str, text: str) -> None:
        """A file that nobody else can read."""
        (self.directory / name).write_text(text)
        (self.directory / name).chmod(0o600)

    def connect(self) -> smtplib.SMTP:
        """A connection with TLS on."""
        client = smtplib.SMTP(HOST, self.service.ports["starttls"], timeout=30)
        context = ssl.create_default_context(cafile=str(self.directory / "authority.pem"))
        client.starttls(context=context)
        client.ehlo()
        return client

    def logIn(self, client: smtplib.SMTP, mechanism: str, name: str, token: str) -> Any:
        """Log in; the code, and what the client was told before it."""
        told: list[Any] = []
        first = f"user={name}"
        if mechanism == "OAUTHBEARER":
            first = f"n,{name and 'a='}{name},\1host=localhost\1port=587"

        def respond(challenge: bytes | None = None) -> str:
            if challenge:
                told.append(json.loads(challenge))
                return "\1"
            return f"{first}\1auth={token and 'Bearer '}{token}\1\1"

        try:
            code, _ = client.auth(mechanism, respond)
        except smtplib.SMTPAuthenticationError as error:
            code = error.smtp_code
        return code, *told

    def _refused(self) -> None:
        invalid = {"status": "invalid_token", **TOLD}
        insufficient = {"status": "insufficient_scope", **TOLD}
        for mechanism, name, token, expected in (
            ("OAUTHBEARER", "alice", "", (535, invalid)),
            ("OAUTHBEARER", "alice", "nobodys", (535, invalid)),
            ("OAUTHBEARER", "bob", TOKEN, (535, invalid)),
            ("OAUTHBEARER", "alice", STRANGE, (535, insufficient)),
            ("XOAUTH2", "alice", "nobodys", (535, {**TOLD, "status": "401", "schemes": "bearer"})),
            ("XOAUTH2", "alice", STRANGE, (535, {**TOLD, "status": "403", "schemes": "bearer"})),
            ("OAUTHBEARER", "alice", BROKEN, (454,)),
            ("OAUTHBEARER", "alice", HANGS, (454,)),
        ):
            with self.connect() as client:
                self.assertEqual(self.logIn(client, mechanism, name, token), expected)

    def _sent(self) -> None:
        for mechanism, name in (
            ("OAUTHBEARER", "ALICE"),
            ("OAUTHBEARER", ""),
            ("XOAUTH2", "alice"),
        ):
            with self.connect() as client:
                self.assertEqual(self.logIn(client, mechanism, name, TOKEN), (235,))
                client.sendmail("alice@example.org", ["b@example.net"], b"Subject: x\r\n\r\ny\r\n")

    async def test_logins(self) -> None:
        """Each answer of the provider is the right one to the client, and no secret is logged."""
        await deferToThread(self._refused)
        await deferToThread(self._sent)
        self.assertEqual(len(list((self.service.maildir / "new").iterdir())), 3)
        # A good token is asked about once, and a connection is used again.
        self.assertEqual(self.provider.asked.count(TOKEN), 1)
        self.assertLess(self.connected, len(self.provider.asked))
        log = self.service.log
        self.assertEqual(log.count("] login: "), 3)
        self.assertEqual(log.count(" user=alice mechanism=OAUTHBEARER secure=TLS"), 2)
        for cause in (
            "provider localhost: answered 500",
            "provider localhost: TimeoutError",
            "the token is somebody else's",
            "the token is not active",
            "the token has not the scope",
        ):
            self.assertIn(cause, log)
        told = [TOKEN, STRANGE, BROKEN, HANGS, SECRET]
        for secret in [*told, *(base64.b64encode(each.encode()).decode() for each in told)]:
            self.assertNotIn(secret.rstrip("="), log)
        self.assertNotIn("Traceback", log)

    async def test_away(self) -> None:
        """A provider that is away refuses nobody."""
        await self.port.stopListening()

        def away() -> None:
            with self.connect() as client:
                self.assertEqual(self.logIn(client, "XOAUTH2", "alice", TOKEN), (454,))

        await deferToThread(away)
        self.assertIn("provider localhost: ConnectionRefusedError", self.service.log)
