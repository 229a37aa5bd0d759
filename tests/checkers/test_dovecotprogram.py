"""The back end for Dovecot, with a real Dovecot, by itself and in a running service."""

from __future__ import annotations

import atexit
import smtplib
import ssl
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from submitd.checkers import LoginUnavailable
from submitd.checkers.dovecot import DovecotChecker
from submitd.interfaces import IBearerToken
from submitd.sasl.credentials import BearerToken, UsernamePassword
from tests.checkers.dovecots import Dovecot, token
from tests.clients.authority import Authority
from tests.clients.running import RunningService
from tests.relay.programs import needs

CONFIG = """\
hostname = "submission.example.org"

[[listener]]
endpoint = "tcp:$starttls:interface=127.0.0.1"

[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"

[auth]
mechanisms = ["PLAIN", "LOGIN", "XOAUTH2"]
checkers = ["dovecot:%s"]
cache = 0

[delivery]
use = "maildir"
path = "$directory/Maildir"
"""


class Shared:
    """One Dovecot for all tests that leave it as it is."""

    _made: ClassVar[Dovecot | None] = None

    @classmethod
    def dovecot(cls) -> Dovecot:
        """The one that runs; it is ended with the tests."""
        needs("dovecot")
        if cls._made is None:
            cls._made = Dovecot()
            atexit.register(cls._made.remove)
        return cls._made


class DovecotTests(TestCase):
    """What it answers."""

    timeout = 60

    def setUp(self) -> None:
        self.dovecot = Shared.dovecot()
        self.checker = self.started(self.dovecot.auth)

    def started(self, where: str) -> DovecotChecker:
        """The back end, until the end of the test."""
        checker = DovecotChecker(where)
        checker.start(reactor)
        self.addCleanup(checker.stop)
        return checker

    def login(self, name: str, password: str) -> Any:
        """Try it."""
        return self.checker.requestAvatarId(UsernamePassword(name.encode(), password.encode()))

    async def refused(self, login: Any) -> str:
        """What is logged of a no."""
        return str(await self.assertFailure(login, UnauthorizedLogin))

    async def test_passwords(self) -> None:
        """Good and wrong ones, and nobody's."""
        self.assertEqual(await self.login("alice", "wonder"), b"alice")
        self.assertEqual(await self.refused(self.login("alice", "land")), "")
        self.assertEqual(await self.refused(self.login("zoe", "wonder")), "")

    async def test_names(self) -> None:
        """The name is Dovecot's."""
        self.assertEqual(await self.login("ALICE", "wonder"), b"alice")
        self.assertEqual(await self.login("eve", "pw"), b"Eve@example.com")
        self.assertEqual(
            await self.refused(self.login("ali\tce", "wonder")),
            "the user name has control or format characters",
        )
        self.assertEqual(await self.refused(self.login("ali ce=,", "wonder")), "")

    async def test_notHere(self) -> None:
        """A user that may not log in, and one that may from a network: nobody's is known."""
        cause = await self.refused(self.login("carl", "pw"))
        self.assertEqual(cause, "Dovecot: no login here (nologin): Moved_away")
        self.assertEqual(await self.refused(self.login("dan", "pw")), "")

    async def test_tokens(self) -> None:
        """Good and bad ones; what the client calls itself must fit."""
        good = await self.checker.requestAvatarId(BearerToken(b"alice", token("alice").encode()))
        self.assertEqual(good, b"alice")
        for name, secret in (("alice", "nonsense"), ("alice", token("eve")), ("zoe", "x")):
            login = self.checker.requestAvatarId(BearerToken(name.encode(), secret.encode()))
            self.assertEqual(await self.refused(login), "")

    async def test_many(self) -> None:
        """Many at once, over one connection: each gets its own answer."""
        logins = [
            self.login("alice", "wonder" if number % 2 else f"guess{number}")
            for number in range(200)
        ]
        found = await DeferredList(logins, consumeErrors=True)
        self.assertEqual([good for good, _ in found], [False, True] * 100)

    async def test_cancelled(self) -> None:
        """Those that leave leave the others alone."""
        logins = [self.login("alice", "wonder") for _ in range(20)]
        for each in logins[::2]:
            each.addErrback(lambda _: None)
            each.cancel()
        self.assertEqual(await gatherResults(logins[1::2]), [b"alice"] * 10)
        self.assertEqual(await self.login("alice", "wonder"), b"alice")

    async def test_tcp(self) -> None:
        """Over TCP as well."""
        self.checker = self.started(f"tcp:host=127.0.0.1:port={self.dovecot.port}")
        self.assertEqual(await self.login("alice", "wonder"), b"alice")
        self.assertEqual(self.checker.warnings(), [])
        self.assertEqual(self.checker.cannotVerify(), {})

    async def test_otherSocket(self) -> None:
        """A socket that is not for clients: the log says what to look at."""
        self.checker = self.started(self.dovecot.other)
        error = await self.assertFailure(self.login("alice", "wonder"), LoginUnavailable)
        self.assertIn("is it Dovecot's socket for clients?", error.cause)
        [warning] = self.checker.warnings()
        self.assertIn("is it Dovecot's socket for clients?", warning)


class RestartTests(TestCase):
    """A Dovecot that comes and goes."""

    timeout = 60

    async def test_restarted(self) -> None:
        """Stopped, it is "not now"; started again, the next login is good, with no word of us."""
        needs("dovecot")
        dovecot = Dovecot("plain")
        self.addCleanup(dovecot.remove)
        checker = DovecotChecker(dovecot.auth)
        await checker.start(reactor)
        self.addCleanup(checker.stop)
        alice = UsernamePassword(b"alice", b"wonder")
        self.assertEqual(await checker.requestAvatarId(alice), b"alice")
        dovecot.stop()
        await self.assertFailure(checker.requestAvatarId(alice), LoginUnavailable)
        dovecot.start()
        self.assertEqual(await checker.requestAvatarId(alice), b"alice")
        dovecot.stop()
        dovecot.start()
        self.assertEqual(await checker.requestAvatarId(alice), b"alice")
        self.assertEqual(checker.warnings(), [])
        self.assertEqual(
            checker.cannotVerify(),
            {IBearerToken: "Dovecot offers neither OAUTHBEARER nor XOAUTH2"},
        )
        login = checker.requestAvatarId(BearerToken(b"alice", b"x"))
        await self.assertFailure(login, LoginUnavailable)


class ServiceTests(SynchronousTestCase):
    """A running service that has its users there."""

    def test_logins(self) -> None:
        """Right and wrong passwords and tokens; without Dovecot it is 454, and then it is again."""
        needs("dovecot")
        dovecot = Dovecot()
        self.addCleanup(dovecot.remove)
        directory = Path(tempfile.mkdtemp(prefix="service-", dir="."))
        authority = Authority.make(directory, "authority")
        authority.issue(directory)
        self.context = ssl.create_default_context(cafile=str(directory / "authority.pem"))
        self.service = RunningService(directory, CONFIG % dovecot.auth, ports=("starttls",))
        self.service.start()
        self.addCleanup(self.service.stop)
        self.assertEqual(self.answer("alice", "wonder"), 235)
        self.assertEqual(self.answer("alice", "x-wrong-x"), 535)
        self.assertEqual(self.answer("zoe", "x-wrong-x"), 535)
        self.assertEqual(self.answer("alice", token("alice"), "XOAUTH2"), 235)
        self.assertEqual(self.answer("alice", token("eve"), "XOAUTH2"), 535)
        self.assertEqual(self.answer("carl", "pw"), 535)
        self.assertIn("no login here (nologin): Moved_away", self.service.log)
        dovecot.stop()
        self.assertEqual(self.answer("alice", "wonder"), 454)
        dovecot.start()
        self.assertEqual(self.answer("alice", "wonder"), 235)
        self.send()
        for secret in ("x-wrong-x", "wonder", "Traceback"):
            self.assertNotIn(secret, self.service.log)

    def connected(self) -> smtplib.SMTP:
        """A client, with TLS."""
        client = smtplib.SMTP("127.0.0.1", self.service.ports["starttls"], timeout=30)
        self.addCleanup(client.close)
        client.starttls(context=self.context)
        client.ehlo()
        return client

    def answer(self, user: str, secret: str, mechanism: str = "PLAIN") -> int:
        """The code that ends a login."""
        client = self.connected()
        client.user, client.password = user, secret  # type: ignore[attr-defined]
        said = f"user={user}\1auth=Bearer {secret}\1\1"
        respond = client.auth_plain if mechanism == "PLAIN" else lambda challenge=None: said
        try:
            code, _ = client.auth(mechanism, respond)
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code
        return code

    def send(self) -> None:
        """A message."""
        client = self.connected()
        client.login("alice", "wonder")
        client.sendmail("alice@example.org", ["bob@example.net"], b"Subject: x\r\n\r\nx\r\n")
        client.quit()
