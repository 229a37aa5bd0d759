"""``jwt:FILE`` with a real issuer: HTTPS, a service in a process of its own, mail programs."""

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
from twisted.web.server import Site

from tests.checkers.issuers import Nothing, Shared, Signer, claims, jwkSet
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
checkers = ["jwt:jwt"]
[delivery]
use = "maildir"
path = "$directory/Maildir"
"""
FILE = """
issuer = "https://localhost:PORT/realm"
audience = "submission.example.org"
scope = "mail"
name_claim = "preferred_username"
claims = { groups = "mail-users" }
ca_file = "authority.pem"
timeout = "5 s"
"""
TOLD = {"scope": "mail"}
MESSAGE = b"Subject: x\r\n\r\ny\r\n"


class Issuer(Resource):
    """Describes itself, and publishes its keys.

    :ivar asked: the paths, in order.
    :ivar keys: those of now.
    """

    isLeaf = True

    def __init__(self, keys: list[Signer]) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.keys = keys
        self.where = ""

    def render_GET(self, request: Any) -> bytes:
        """One of the two documents."""
        path = request.path.decode()
        self.asked.append(path)
        request.setHeader("Content-Type", "application/json")
        if path == "/realm/.well-known/openid-configuration":
            return json.dumps({"issuer": self.where, "jwks_uri": f"{self.where}/keys"}).encode()
        if path == "/realm/keys":
            return jwkSet(*self.keys)
        request.setResponseCode(404)
        return b""


class ServerTests(TestCase):
    """From the mail program to the issuer."""

    timeout = 120

    async def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        authority = Authority.make(self.directory, "authority")
        certificate, key = authority.issue(self.directory)
        self.rsa, self.curve = Signer("RS256", "rsa"), Signer("ES256", "curve")
        self.issuer = Issuer([self.rsa, self.curve])
        context = DefaultOpenSSLContextFactory(str(key), str(certificate))
        self.port = reactor.listenSSL(0, Site(self.issuer), context, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        number = str(self.port.getHost().port)
        self.issuer.where = f"https://localhost:{number}/realm"
        (self.directory / "jwt").write_text(FILE.replace("PORT", number))
        self.service = RunningService(self.directory, CONFIG, ["starttls"])
        self.addCleanup(deferToThread, self.service.stop)

    def token(self, signer: Signer, changed: Any = None, **header: Any) -> str:
        """A token of today."""
        now = int(time.time())
        said = claims(
            iss=self.issuer.where,
            aud=["submission.example.org", "another"],
            preferred_username="alice",
            groups=["staff", "mail-users"],
            iat=now,
            exp=now + 600,
        )
        return signer.token({**said, **(changed or {})}, **header).decode()

    def connect(self) -> smtplib.SMTP:
        """A connection with TLS on."""
        client = smtplib.SMTP(HOST, self.service.ports["starttls"], timeout=30)
        context = ssl.create_default_context(cafile=str(self.directory / "authority.pem"))
        client.starttls(context=context)
        client.ehlo()
        return client

    def logIn(self, token: str, name: str = "alice", mechanism: str = "OAUTHBEARER") -> Any:
        """Log in, and send where that is possible; the code, and what the client was told."""
        told: list[Any] = []
        first = f"user={name}"
        if mechanism == "OAUTHBEARER":
            first = f"n,{name and 'a='}{name},\1host=localhost\1port=587"

        def respond(challenge: bytes | None = None) -> str:
            if challenge:
                told.append(json.loads(challenge))
                return "\1"
            return f"{first}\1auth=Bearer {token}\1\1"

        with self.connect() as client:
            try:
                code, _ = client.auth(mechanism, respond)
            except smtplib.SMTPAuthenticationError as error:
                code = error.smtp_code
            else:
                client.sendmail("alice@example.org", ["b@example.net"], MESSAGE)
        return code, *told

    def _sent(self) -> None:
        for signer, name, mechanism in (
            (self.rsa, "ALICE", "OAUTHBEARER"),
            (self.curve, "", "OAUTHBEARER"),
            (self.curve, "alice", "XOAUTH2"),
        ):
            self.assertEqual(self.logIn(self.token(signer), name, mechanism), (235,))

    def _refused(self) -> None:
        invalid = (535, {"status": "invalid_token", **TOLD})
        insufficient = (535, {"status": "insufficient_scope", **TOLD})
        public = json.dumps(self.rsa.jwk).encode()
        for token, expected in (
            ("opaque", invalid),
            (self.token(self.rsa, {"exp": int(time.time()) - 60}), invalid),
            (self.token(self.rsa, {"aud": "another"}), invalid),
            (self.token(self.rsa, {"iss": "https://localhost/"}), invalid),
            (self.token(self.rsa, {"groups": ["staff"]}), invalid),
            (self.token(self.rsa, {"scope": "openid"}), insufficient),
            (self.token(self.rsa, typ="JWT"), invalid),
            (self.token(Signer("ES256", "curve")), invalid),
            (self.token(Nothing("rsa")), invalid),
            (self.token(Shared(public, "rsa")), invalid),
        ):
            self.assertEqual(self.logIn(token), expected)
        self.assertEqual(self.logIn(self.token(self.rsa), "bob"), invalid)
        said = {"status": "401", "schemes": "bearer", **TOLD}
        self.assertEqual(self.logIn("opaque", "alice", "XOAUTH2"), (535, said))

    async def test_logins(self) -> None:
        """Each token has the right answer, the issuer is asked once, and none is logged."""
        await deferToThread(self.service.start)
        await deferToThread(self._sent)
        await deferToThread(self._refused)
        self.assertEqual(len(list((self.service.maildir / "new").iterdir())), 3)
        where = ["/realm/.well-known/openid-configuration", "/realm/keys"]
        self.assertEqual(self.issuer.asked, where)
        log = self.service.log.replace('\\"', '"')
        self.assertEqual(log.count("] login: "), 3)
        self.assertEqual(log.count(" user=alice mechanism=OAUTHBEARER secure=TLS"), 2)
        for cause in (
            "the token is no JWT",
            "the token has expired",
            "the token is for another audience",
            "the token is another issuer's",
            'the token has not the "groups" that it must have',
            "the token has not the scope",
            'the token is of another type than "at+jwt"',
            "the token is signed with none of the issuer's keys",
            "the token's algorithm is not one of those that are allowed",
            "the token is somebody else's",
        ):
            self.assertIn(cause, log)
        for part in ("eyJ", base64.b64encode(b"auth=Bearer")[:-4].decode(), "Traceback"):
            self.assertNotIn(part, log)

    async def test_away(self) -> None:
        """An issuer that is away refuses nobody; but what is not for us is refused even then."""
        await self.port.stopListening()
        await deferToThread(self.service.start)
        stale = self.token(self.rsa, {"exp": 1})
        self.assertEqual(await deferToThread(self.logIn, self.token(self.rsa)), (454,))
        refused = (535, {"status": "invalid_token", **TOLD})
        self.assertEqual(await deferToThread(self.logIn, stale), refused)
        self.assertIn("keys of localhost: ConnectionRefusedError", self.service.log)
