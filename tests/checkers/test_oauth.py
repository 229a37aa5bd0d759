"""Tests for :mod:`submitd.checkers.oauth` and :mod:`submitd.checkers.provider`."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from zope.interface.verify import verifyObject

from submitd.checkers import LoginUnavailable, oauth
from submitd.checkers.oauth import OAuthChecker
from submitd.checkers.provider import MAX_ANSWER, PENDING, QUESTIONS
from submitd.interfaces import IBearerToken, IChecked, IRunning, IWarns
from submitd.password import othersCanRead
from submitd.sasl.bearer import TokenRefused
from submitd.sasl.credentials import BearerToken
from tests.checkers.questions import Question

NOW = 1_800_000_000.0
INTROSPECTION = """\
introspection = "https://id.example.com/introspect"
client_id = "sub:mitd"
client_secret_file = "secret"
"""
USERINFO = 'userinfo = "https://id.example.com/userinfo"\n'
ACTIVE = {"active": True, "username": "Alice"}


class OAuthCase(SynchronousTestCase):
    """A provider that is asked nothing over any wire.

    :ivar questions: what it was asked, and has not been looked at.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "oauth"
        self.file("secret", "KEY of a+secret/ü\nsecond line\n")
        self.clock = Clock()
        self.now = NOW
        self.questions: list[Question] = []
        self.patch(oauth, "makeAgent", lambda *arguments: self)

    def request(self, *arguments: Any) -> Deferred[Any]:
        """See IAgent."""
        self.questions.append(Question(*arguments))
        return self.questions[-1].answered

    def file(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file beside the one of the checker."""
        path = self.directory / name
        path.write_text(text)
        os.chmod(path, mode)
        return path

    def make(self, text: str) -> OAuthChecker:
        """A checker with that file."""
        self.file("oauth", text)
        return OAuthChecker(str(self.path), seconds=lambda: self.now + self.clock.seconds())

    def started(self, text: str) -> OAuthChecker:
        """A checker that can be asked."""
        checker = self.make(text)
        self.successResultOf(checker.start(self.clock))
        return checker

    def ask(self, checker: OAuthChecker, name: bytes = b"alice", token: bytes = b"T") -> Any:
        """A login."""
        return checker.requestAvatarId(BearerToken(name, token))

    def asked(self) -> Question:
        """The one question since the last look."""
        [question] = self.questions
        self.questions.clear()
        return question

    def refused(self, login: Deferred[Any]) -> TokenRefused:
        """Why a login is refused."""
        error: TokenRefused = self.failureResultOf(login, TokenRefused).value  # type: ignore[assignment]
        return error

    def unavailable(self, login: Deferred[Any]) -> str:
        """Why a login cannot be decided; no secret is said."""
        error: LoginUnavailable = self.failureResultOf(login, LoginUnavailable).value  # type: ignore[assignment]
        self.assertEqual(error.reply.code, 454)
        self.assertNotIn("KEY", str(error.cause))
        return str(error.cause)


class IntrospectionTests(OAuthCase):
    """RFC 7662."""

    def setUp(self) -> None:
        super().setUp()
        self.checker = self.started(INTROSPECTION)

    def test_interfaces(self) -> None:
        """It provides what the Portal and the start ask for, for tokens."""
        for interface in (ICredentialsChecker, IChecked, IWarns, IRunning):
            verifyObject(interface, self.checker)
        self.assertEqual(self.checker.credentialInterfaces, (IBearerToken,))

    def test_question(self) -> None:
        """The token is asked about in a form, by a client with name and secret."""
        login = self.ask(self.checker, token=b"a+/=")
        question = self.asked()
        self.assertEqual(
            (question.method, question.url), (b"POST", b"https://id.example.com/introspect")
        )
        self.assertEqual(question.form, {"token": ["a+/="], "token_type_hint": ["access_token"]})
        self.assertEqual(question.header("Accept"), "application/json")
        self.assertEqual(question.header("Content-Type"), "application/x-www-form-urlencoded")
        # RFC 6749 2.3.1: both are encoded, for a name may have a colon.
        scheme, _, login64 = question.header("Authorization").partition(" ")
        self.assertEqual(scheme, "Basic")
        self.assertEqual(base64.b64decode(login64), b"sub%3Amitd:KEY+of+a%2Bsecret%2F%C3%BC")
        question.answer(ACTIVE)
        self.assertEqual(self.successResultOf(login), b"Alice")

    def test_secretChanges(self) -> None:
        """A new secret is sent from the next question on."""
        self.ask(self.checker)
        before = self.asked().header("Authorization")
        self.file("secret", "another secret of another length")
        self.ask(self.checker, token=b"U")
        self.assertNotEqual(self.asked().header("Authorization"), before)

    def test_nobodyWanted(self) -> None:
        """A provider within the machine may want no name."""
        self.ask(self.started('introspection = "http://127.0.0.1:4445/introspect"'))
        self.assertFalse(self.asked().headers.hasHeader("Authorization"))

    def test_names(self) -> None:
        """Who says a name must say the token's; who says none is whoever that is."""
        for name in (b"alice", b"ALICE", b"Alice", b""):
            login = self.ask(self.checker, name, b"token-of-" + name)
            self.asked().answer(ACTIVE)
            self.assertEqual(self.successResultOf(login), b"Alice")
        for name in (b"bob", b"alice@example.com", b"alic\xc3\xa9"):
            login = self.ask(self.checker, name, b"token-of-" + name.hex().encode())
            self.asked().answer(ACTIVE)
            self.assertEqual(str(self.refused(login)), "the token is somebody else's")

    def test_refused(self) -> None:
        """What is not active, or has a wrong scope or audience, or has expired, is refused."""
        checker = self.started(INTROSPECTION + 'scope = "mail"\naudience = "submitd"\n')
        good = {**ACTIVE, "scope": "mail", "aud": "submitd", "exp": int(NOW) + 60}
        for at, (claims, cause) in enumerate(
            (
                ({"active": False, "username": "alice"}, "the token is not active"),
                ({**good, "scope": "x"}, "the token has not the scope"),
                ({**good, "aud": ["x"]}, "the token is for another audience"),
                ({**good, "exp": int(NOW)}, "the token has expired"),
                ({**good, "username": None}, "the token is nobody's: the provider names no \"us"),
            )
        ):
            login = self.ask(checker, token=b"T%d" % at)
            self.asked().answer(claims)
            refused = self.refused(login)
            self.assertEqual(str(refused)[: len(cause)], cause)
            status = {"status": "insufficient_scope"} if at == 1 else {}
            self.assertEqual(refused.told, {"scope": "mail", **status})
        login = self.ask(checker)
        self.asked().answer(good)
        self.assertEqual(self.successResultOf(login), b"Alice")

    def test_claims(self) -> None:
        """Claims that the file wants, the answer must have."""
        checker = self.started(INTROSPECTION + 'claims = { groups = "mail" }\n')
        for groups, isGood in ((["staff", "mail"], True), (["staff"], False)):
            login = self.ask(checker, token=b"-".join(each.encode() for each in groups))
            self.asked().answer({**ACTIVE, "groups": groups})
            if isGood:
                self.assertEqual(self.successResultOf(login), b"Alice")
            else:
                self.assertIn('"groups"', str(self.refused(login)))

    def test_told(self) -> None:
        """A client is told where to find the provider, also one that only asks."""
        where = "https://id.example.com/.well-known/openid-configuration"
        checker = self.started(f'{INTROSPECTION}openid_configuration = "{where}"')
        for token in (b"", b"no token", "tökén".encode()):
            self.assertEqual(
                self.refused(self.ask(checker, token=token)).told, {"openid-configuration": where}
            )
        self.assertEqual(self.questions, [])  # which nobody need be asked

    def test_unavailable(self) -> None:
        """A provider that is away or says nonsense says neither yes nor no."""
        for at, (said, code, cause) in enumerate(
            (
                (b"KEY", 200, "the answer is not JSON"),
                (b"[]", 200, "the answer is no JSON object"),
                ({"username": "alice"}, 200, 'the answer does not say "active"'),
                ({**ACTIVE, "exp": "KEY"}, 200, '"exp" is no number'),
                (b"x" * (MAX_ANSWER + 1), 200, f"more than {MAX_ANSWER} octets"),
                (ACTIVE, 500, "answered 500"),
                (ACTIVE, 503, "answered 503"),
                (ACTIVE, 302, "answered 302"),
                (ACTIVE, 204, "answered 204"),
                (ACTIVE, 403, "answered 403"),
                (ACTIVE, 401, "answered 401: it refuses client_id with its secret"),
            )
        ):
            login = self.ask(self.checker, token=b"T%d" % at)
            self.asked().answer(said, code)
            self.assertEqual(self.unavailable(login), f"provider id.example.com: {cause}")
        login = self.ask(self.checker)
        self.asked().answered.errback(ConnectionRefusedError("KEY"))
        self.assertEqual(self.unavailable(login), "provider id.example.com: ConnectionRefusedError")

    def test_closed(self) -> None:
        """A provider that has closed the connection meanwhile is asked again at once."""
        login = self.ask(self.checker)
        self.asked().answered.errback(ResponseNeverReceived([Failure(ConnectionDone())]))
        self.asked().answer(ACTIVE)
        self.assertEqual(self.successResultOf(login), b"Alice")

    def test_late(self) -> None:
        """A provider that is silent is given up, and asked again by the next login."""
        checker = self.started(INTROSPECTION + "timeout = 3")
        login = self.ask(checker)
        self.clock.advance(2.9)
        self.assertNoResult(login)
        self.clock.advance(0.1)
        self.assertEqual(self.unavailable(login), "provider id.example.com: TimeoutError")
        self.assertTrue(self.asked().closed)
        login = self.ask(checker)
        self.asked().answer(ACTIVE)
        self.assertEqual(self.successResultOf(login), b"Alice")


class MemoryTests(OAuthCase):
    """Good tokens are remembered for a short time."""

    def remembers(self, checker: OAuthChecker, claims: dict[str, Any], name: bytes = b"") -> bool:
        """Log in; whether nobody was asked."""
        login = self.ask(checker, name)
        if not self.questions:
            self.assertEqual(self.successResultOf(login), b"Alice")
            return True
        self.asked().answer(claims)
        self.successResultOf(login)
        return False

    def test_remembered(self) -> None:
        """So long as the file says, from the moment when it was verified."""
        checker = self.started(INTROSPECTION + 'cache = "30 s"')
        self.assertFalse(self.remembers(checker, ACTIVE))
        self.clock.advance(20)
        self.assertTrue(self.remembers(checker, ACTIVE, b"alice"))
        self.clock.advance(9.9)
        self.assertTrue(self.remembers(checker, ACTIVE))
        self.clock.advance(0.1)
        self.assertFalse(self.remembers(checker, ACTIVE))

    def test_expiry(self) -> None:
        """Never longer than it is valid."""
        checker = self.started(INTROSPECTION)
        claims = {**ACTIVE, "exp": int(NOW) + 5}
        self.assertFalse(self.remembers(checker, claims))
        self.clock.advance(4.9)
        self.assertTrue(self.remembers(checker, claims))
        self.clock.advance(0.1)
        login = self.ask(checker)
        self.asked().answer(claims)
        self.refused(login)

    def test_never(self) -> None:
        """With 0 each login is asked about."""
        checker = self.started(INTROSPECTION + "cache = 0")
        for _ in range(2):
            self.assertFalse(self.remembers(checker, ACTIVE))
        self.assertEqual(len(checker._memory or ()), 0)

    def test_nobodyElse(self) -> None:
        """A token that is remembered is still its owner's alone."""
        checker = self.started(INTROSPECTION)
        self.remembers(checker, ACTIVE)
        self.refused(self.ask(checker, b"bob"))
        self.assertEqual(self.questions, [])

    def test_failuresAreNot(self) -> None:
        """What was refused or not decided is asked about again."""
        checker = self.started(INTROSPECTION)
        for said, code in (({"active": False}, 200), (b"", 500), ({"active": False}, 200)):
            login = self.ask(checker)
            self.asked().answer(said, code)
            self.failureResultOf(login)
        self.assertFalse(self.remembers(checker, ACTIVE))

    def test_noToken(self) -> None:
        """No token can be found in what is kept."""
        checker = self.started(INTROSPECTION)
        login = self.ask(checker, token=b"KEY-KEY-KEY")
        self.asked().answer(ACTIVE)
        self.successResultOf(login)
        self.assertEqual(len(checker._memory or ()), 1)
        self.assertNotIn("KEY", repr(vars(checker)) + repr(vars(checker._memory)))

    def test_shared(self) -> None:
        """Logins with one token at the same time are one question, each for its own name."""
        checker = self.started(INTROSPECTION)
        alice, bob, nobody = (self.ask(checker, name) for name in (b"alice", b"bob", b""))
        self.asked().answer(ACTIVE)
        self.assertEqual(self.successResultOf(alice), b"Alice")
        self.assertEqual(self.successResultOf(nobody), b"Alice")
        self.refused(bob)

    def test_left(self) -> None:
        """A question that nobody waits for is not waited for; others keep it."""
        checker = self.started(INTROSPECTION)
        one, two = self.ask(checker), self.ask(checker)
        question = self.asked()
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.assertFalse(question.closed)
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.assertTrue(question.closed)
        self.assertFalse(self.remembers(checker, ACTIVE))

    def test_bounded(self) -> None:
        """So many are asked at once, so many wait in turn, and no more."""
        checker = self.started(INTROSPECTION + 'timeout = "1 h"')
        logins = [self.ask(checker, token=b"T%d" % at) for at in range(PENDING)]
        self.assertEqual(len(self.questions), QUESTIONS)
        said = self.unavailable(self.ask(checker, token=b"more"))
        self.assertEqual(said, f"{PENDING} tokens wait for provider id.example.com")
        logins[QUESTIONS].cancel()  # it has left the queue
        self.failureResultOf(logins[QUESTIONS], CancelledError)
        asked = 0
        while asked < len(self.questions):
            self.questions[asked].answer(ACTIVE)
            asked += 1
        self.assertEqual(asked, PENDING - 1)
        for login in logins[:QUESTIONS] + logins[QUESTIONS + 1 :]:
            self.assertEqual(self.successResultOf(login), b"Alice")
        self.questions.clear()
        login = self.ask(checker, token=b"more")
        self.asked().answer(ACTIVE)
        self.assertEqual(self.successResultOf(login), b"Alice")


class UserInfoTests(OAuthCase):
    """OpenID Connect."""

    def setUp(self) -> None:
        super().setUp()
        self.checker = self.started(USERINFO)

    def test_question(self) -> None:
        """The token itself asks; the verified address is the name."""
        login = self.ask(self.checker, b"a@example.com", b"a+/=")
        question = self.asked()
        self.assertEqual(
            (question.method, question.url), (b"GET", b"https://id.example.com/userinfo")
        )
        self.assertEqual(question.header("Authorization"), "Bearer a+/=")
        question.answer({"sub": "7", "email": "a@example.com", "email_verified": True})
        self.assertEqual(self.successResultOf(login), b"a@example.com")

    def test_claim(self) -> None:
        """Another claim may have the name."""
        login = self.ask(self.started(USERINFO + 'name_claim = "preferred_username"'), b"a")
        self.asked().answer({"sub": "7", "preferred_username": "A", "email": "b@example.com"})
        self.assertEqual(self.successResultOf(login), b"A")

    def test_refused(self) -> None:
        """What the provider does not take is refused, and so is an address of anybody's."""
        for code, status in ((401, {}), (403, {"status": "insufficient_scope"})):
            login = self.ask(self.checker)
            self.asked().answer(b"", code)
            self.assertEqual(self.refused(login).told, status)
        login = self.ask(self.checker)
        self.asked().answer({"email": "alice", "email_verified": False})
        self.refused(login)

    def test_unavailable(self) -> None:
        """Any other answer says neither yes nor no."""
        for said, code in ((b"", 400), (b"", 500), (b"signed.by.KEY", 200), (b"", 302)):
            login = self.ask(self.checker)
            self.asked().answer(said, code)
            self.unavailable(login)


class FileTests(OAuthCase):
    """The file, and those that it names."""

    def problem(self, text: str) -> str:
        """What is wrong with a file; nobody can log in with it, and nobody is told more."""
        checker = self.make(text)
        [said] = checker.check()
        self.unavailable(self.ask(checker))
        error: Any = self.failureResultOf(checker.start(self.clock), LoginUnavailable).value
        self.assertEqual(error.cause, said)
        self.assertEqual(self.unavailable(self.ask(checker)), said)
        self.assertEqual(said[: len(str(self.path))], str(self.path))
        return said.removeprefix(f"{self.path}: ")

    def test_good(self) -> None:
        """Nothing is said of a good file."""
        for text in (INTROSPECTION, USERINFO, 'introspection = "http://localhost/"'):
            checker = self.make(text)
            self.assertEqual((checker.check(), checker.warnings()), ([], []))

    def test_mistakes(self) -> None:
        """Each mistake is named with its key; several are named together."""
        together = "client_id and client_secret_file go together"
        for text, said in (
            ("", "needs either introspection or userinfo"),
            (INTROSPECTION + USERINFO, "needs either introspection or userinfo; client_id: goes"),
            ('introspection = "KEY"', "introspection: must be a URL that begins with"),
            ('userinfo = "https://a:KEY@x/"', "userinfo: must have no user or password in it"),
            ('userinfo = "http://x/"', "userinfo: must begin with https://, unless it is on"),
            (USERINFO + 'openid_configuration = "x"', "openid_configuration: must be a URL"),
            (USERINFO + 'scope = "x"\naudience = "x"', "scope: goes with introspection; UserInfo "),
            ('introspection = "https://x/"\nclient_id = "x"', together),
            ('introspection = "https://x/"\nclient_secret_file = "secret"', together),
            (INTROSPECTION + 'scope = "a  b"', "scope: must be scopes with one space"),
            (INTROSPECTION + "timeout = 0", "timeout: must be > 0"),
            (INTROSPECTION + 'cache = "long"', 'cache: must be a time such as "5 min"'),
            (
                "introspektion = 1\nscope = 7",
                "scope: must be a string, not 7; introspektion: unknown",
            ),
            ("introspection", "is not TOML"),
        ):
            self.assertEqual(self.problem(text)[: len(said)], said)

    def test_files(self) -> None:
        """So are the files that it names; a relative path begins at its own directory."""
        self.path.unlink(missing_ok=True)
        checker = OAuthChecker(str(self.path))
        [said] = checker.check()
        self.assertEqual(said, f"{self.path}: cannot be read: No such file or directory")
        missing = INTROSPECTION.replace('"secret"', '"nothing"')
        where = self.directory / "nothing"
        self.assertEqual(
            self.problem(missing),
            f"client_secret_file: cannot read {where}: No such file or directory",
        )
        self.file("empty", "")
        self.assertEqual(
            self.problem(INTROSPECTION.replace('"secret"', '"empty"')),
            f"client_secret_file: {self.directory / 'empty'} is empty",
        )
        self.assertEqual(
            self.problem(USERINFO + 'ca_file = "empty"'),
            f"ca_file: {self.directory / 'empty'} holds no certificate in PEM form",
        )

    def test_warnings(self) -> None:
        """A secret that others can read is unwise."""
        file = self.file("secret", "KEY", 0o644)
        checker = self.make(INTROSPECTION)
        self.assertEqual(checker.check(), [])
        [said] = checker.warnings()
        # What to do about it depends on who asks.
        unwise = othersCanRead(file)
        self.assertIn("can be read by others (chmod ", unwise)
        self.assertEqual(said, f"{self.path}: client_secret_file: {unwise}")

    def test_notStarted(self) -> None:
        """Before the start nobody is asked."""
        checker = self.make(INTROSPECTION)
        self.assertIn("has not been started", self.unavailable(self.ask(checker)))
        self.successResultOf(checker.stop())

    def test_stop(self) -> None:
        """At the end no connection is kept."""
        checker = self.started(INTROSPECTION)
        self.successResultOf(checker.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
