"""Tests for :mod:`submitd.checkers.jwt` and :mod:`submitd.checkers.issuer`."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from zope.interface.verify import verifyObject

from submitd.checkers import LoginUnavailable, issuer, jwt
from submitd.checkers.chain import CheckerChain
from submitd.checkers.issuer import PAUSE, SOON, FileKeys
from submitd.checkers.jwt import JWTChecker
from submitd.checkers.provider import MAX_ANSWER
from submitd.interfaces import IBearerToken, IChecked, IRunning
from submitd.sasl.bearer import ForeignToken, TokenRefused
from submitd.sasl.credentials import BearerToken
from tests.checkers.issuers import AUDIENCE, ISSUER, NOW, Signer, claims, jwkSet
from tests.checkers.questions import Question

JWKS = "https://id.example.com/jwks"
FILE = f"""\
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
"""
FETCHES = f'{FILE}jwks_uri = "{JWKS}"\n'
UNSIGNED = "the token is signed with none of the issuer's keys"


class JWTCase(SynchronousTestCase):
    """An issuer that is asked nothing over any wire.

    :ivar questions: what it was asked, and has not been looked at.
    :ivar problems: what was logged.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "jwt"
        self.clock = Clock()
        self.questions: list[Question] = []
        self.problems: list[str] = []
        self.patch(jwt, "makeAgent", lambda *arguments, **others: self)
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        """See ILogObserver."""
        if event.get("event") in ("service-problem", "file-problem"):
            self.problems.append(event["problem"])

    def request(self, *arguments: Any) -> Deferred[Any]:
        """See IAgent."""
        self.questions.append(Question(*arguments))
        return self.questions[-1].answered

    def file(self, name: str, content: str | bytes) -> Path:
        """A file beside the one of the checker."""
        path = self.directory / name
        fresh = path.with_suffix(".new")  # another file, whatever the clock says
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)
        os.rename(fresh, path)
        return path

    def make(self, text: str) -> JWTChecker:
        """A checker with that file."""
        self.file("jwt", text)
        return JWTChecker(str(self.path), seconds=lambda: NOW + self.clock.seconds())

    def started(self, text: str = FETCHES) -> JWTChecker:
        """A checker that can be asked."""
        checker = self.make(text)
        self.successResultOf(checker.start(self.clock))
        return checker

    def ask(self, checker: JWTChecker, token: bytes, name: bytes = b"") -> Deferred[Any]:
        """A login."""
        return checker.requestAvatarId(BearerToken(name, token))

    def asked(self, url: str = JWKS) -> Question:
        """The one question since the last look."""
        [question] = self.questions
        self.questions.clear()
        self.assertEqual((question.method, question.url), (b"GET", url.encode()))
        return question

    def assertAlice(self, login: Deferred[Any]) -> None:
        """It is hers."""
        self.assertEqual(self.successResultOf(login), b"Alice@example.com")

    def refused(self, login: Deferred[Any]) -> TokenRefused:
        """Why a login is refused."""
        error: TokenRefused = self.failureResultOf(login, TokenRefused).value  # type: ignore[assignment]
        return error

    def unavailable(self, login: Deferred[Any]) -> str:
        """Why a login cannot be decided; what was answered is not said."""
        error: LoginUnavailable = self.failureResultOf(login, LoginUnavailable).value  # type: ignore[assignment]
        self.assertEqual(error.reply.code, 454)
        self.assertNotIn("KEY", str(error.cause))
        return str(error.cause)

    def good(self, signer: Signer, **changed: Any) -> bytes:
        """A token that is good now."""
        now = int(NOW + self.clock.seconds())
        return signer.token(claims(exp=now + 300, iat=now, **changed))


class LoginTests(JWTCase):
    """Who is let in."""

    def setUp(self) -> None:
        super().setUp()
        self.signer = Signer("ES256")
        where = "https://id.example.com/.well-known/openid-configuration"
        more = f'scope = "mail"\nopenid_configuration = "{where}"\n'
        self.told = {"scope": "mail", "openid-configuration": where}
        self.checker = self.started(FETCHES + more)
        self.asked().answer(jwkSet(self.signer))

    def test_interfaces(self) -> None:
        """It provides what the Portal and the start ask for, for tokens."""
        for interface in (ICredentialsChecker, IChecked, IRunning):
            verifyObject(interface, self.checker)
        self.assertEqual(self.checker.credentialInterfaces, (IBearerToken,))

    def test_names(self) -> None:
        """Who says a name must say the token's; who says none is whoever that is."""
        token = self.signer.token()
        for name in (b"alice@example.com", b"ALICE@EXAMPLE.COM", b"Alice@example.com", b""):
            self.assertAlice(self.ask(self.checker, token, name))
        for name in (b"bob", b"alice", b"alice@example.com.net", "älice@example.com".encode()):
            refused = self.refused(self.ask(self.checker, token, name))
            self.assertEqual(str(refused), "the token is somebody else's")
        self.assertEqual(self.questions, [])

    def test_refused(self) -> None:
        """What is not for us, or not now, or nobody's is refused, and the client is told."""
        for changed, cause in (
            ({"iss": "https://example.net"}, "the token is another issuer's"),
            ({"aud": "x"}, "the token is for another audience"),
            ({"exp": int(NOW) - 60}, "the token has expired"),
            ({"email": None}, 'the token is nobody\'s: the provider names no "email"'),
        ):
            refused = self.refused(self.ask(self.checker, self.signer.token(claims(**changed))))
            self.assertEqual((str(refused), refused.told), (cause, self.told))
        refused = self.refused(self.ask(self.checker, self.signer.token(claims(scope="x"))))
        self.assertEqual(refused.told, {**self.told, "status": "insufficient_scope"})
        refused = self.refused(self.ask(self.checker, Signer("ES256").token()))
        self.assertEqual((str(refused), refused.told), (UNSIGNED, self.told))
        self.assertEqual(self.questions, [])  # of a key that is known

    def test_severalIssuers(self) -> None:
        """Of several back ends the one whose token it is says why, and what the client is told."""
        theirs = "https://id.example.net"
        text = f'{FETCHES}scope = "x"\n'.replace(ISSUER, theirs)
        other = self.started(text)
        self.asked().answer(jwkSet(Signer("ES256")))
        expired = self.signer.token(claims(exp=1))
        chain = CheckerChain([other, self.checker])
        refused = self.refused(chain.requestAvatarId(BearerToken(b"", expired)))
        self.assertEqual((str(refused), refused.told), ("the token has expired", self.told))
        self.assertAlice(chain.requestAvatarId(BearerToken(b"", self.signer.token())))

    def test_severalTypes(self) -> None:
        """Whose it is comes first: another issuer's rules say nothing of a token."""
        theirs = "https://id.example.net"
        other = self.started(f'{FETCHES}type = "JWT"\n'.replace(ISSUER, theirs))
        self.asked().answer(jwkSet(self.signer))
        for header in ({"typ": "JWT"}, {"typ": None}, {"alg": "HS256"}, {"crit": ["x"]}):
            token = self.signer.token(claims(iss=theirs, exp=1), **header)
            self.failureResultOf(self.ask(self.checker, token), ForeignToken)
        expired = BearerToken(b"", self.signer.token(claims(iss=theirs, exp=1), typ="JWT"))
        refused = self.refused(CheckerChain([self.checker, other]).requestAvatarId(expired))
        self.assertEqual((str(refused), refused.told), ("the token has expired", {}))

    def test_noToken(self) -> None:
        """There is none where a client asks what would be accepted."""
        for token, cause in (
            (b"", "there is no bearer token"),
            (b"no token", "there is no bearer token"),
            ("tökén".encode(), "there is no bearer token"),
            (b"x.y", "the token is no JWT"),
            (b"opaque", "the token is no JWT"),
        ):
            refused = self.refused(self.ask(self.checker, token))
            self.assertEqual((str(refused), refused.told), (cause, self.told))

    def test_expires(self) -> None:
        """Nothing is remembered: a token that was good is not when it has expired."""
        token = self.signer.token(claims(exp=int(NOW) + 5))
        for seconds in (0, 34.9):
            self.clock.advance(seconds)
            self.assertAlice(self.ask(self.checker, token))
        self.clock.advance(0.1)
        self.assertEqual(str(self.refused(self.ask(self.checker, token))), "the token has expired")


class PublishedKeysTests(JWTCase):
    """Keys that the issuer publishes."""

    def setUp(self) -> None:
        super().setUp()
        self.old, self.new = Signer("ES256", "old"), Signer("ES256", "new")

    def test_start(self) -> None:
        """They are fetched at the start; who comes before they are there waits for them."""
        checker = self.started()
        question = self.asked()
        self.assertEqual(question.header("Accept"), "application/json")
        logins = [self.ask(checker, self.old.token()) for _ in range(3)]
        for login in logins:
            self.assertNoResult(login)
        question.answer(jwkSet(self.old))
        for login in logins:
            self.assertAlice(login)
        self.assertAlice(self.ask(checker, self.old.token()))
        self.assertEqual((self.questions, self.problems), ([], []))

    def test_leaves(self) -> None:
        """Who goes away while waiting takes nothing from the others, whatever their order."""
        checker = self.started()
        logins = [self.ask(checker, self.old.token()) for _ in range(4)]
        logins[1].cancel()
        self.failureResultOf(logins[1], CancelledError)
        # The first one's answer has another one give up.
        logins[0].addCallback(lambda name: (logins[2].cancel(), name)[1])
        self.asked().answer(jwkSet(self.old))
        self.assertAlice(logins[0])
        self.failureResultOf(logins[2], CancelledError)
        self.assertAlice(logins[3])

    def test_notForUs(self) -> None:
        """What another issuer signs makes nobody look for keys, and needs none."""
        checker = self.started()
        self.asked()
        refused = self.refused(self.ask(checker, self.old.token(claims(iss="x"))))
        self.assertEqual(str(refused), "the token is another issuer's")
        expired = self.old.token(claims(exp=1))
        self.assertEqual(str(self.refused(self.ask(checker, expired))), "the token has expired")

    def test_rotation(self) -> None:
        """A key that is not known is looked for; one that is taken back is good no longer."""
        checker = self.started()
        self.asked().answer(jwkSet(self.old))
        self.clock.advance(PAUSE)
        login = self.ask(checker, self.good(self.new))
        waiting = self.ask(checker, self.good(self.new))
        self.assertAlice(self.ask(checker, self.good(self.old)))  # and waits for nobody
        self.asked().answer(jwkSet(self.new))
        self.assertAlice(login)
        self.assertAlice(waiting)
        self.assertEqual(str(self.refused(self.ask(checker, self.good(self.old)))), UNSIGNED)
        self.assertEqual(self.questions, [])

    def test_pause(self) -> None:
        """Whatever clients send, the issuer is asked once a minute."""
        checker = self.started()
        self.asked().answer(jwkSet(self.old))
        times = 0
        for second in range(int(PAUSE) * 3):
            for kid in (f"kid-{second}", "", None, "../x"):
                token = Signer("ES256", "stranger").token(claims(exp=int(NOW) + 9999), kid=kid)
                login = self.ask(checker, token)
                if self.questions:
                    times += 1
                    self.asked().answer(jwkSet(self.old))
                self.assertEqual(str(self.refused(login)), UNSIGNED)
            self.clock.advance(1)
        self.assertEqual(times, 2)

    def test_sameName(self) -> None:
        """A new key under the name of the old one is found at the next time, not by a login."""
        checker = self.started(f"{FETCHES}refresh = 600\n")
        self.asked().answer(jwkSet(self.old))
        new = Signer("ES256", "old")
        self.clock.advance(599)
        self.assertEqual(str(self.refused(self.ask(checker, self.good(new)))), UNSIGNED)
        self.clock.advance(1)
        login = self.ask(checker, self.good(new))
        self.asked().answer(jwkSet(new))
        self.assertAlice(login)

    def test_nameless(self) -> None:
        """Keys without a name are tried; a new one is found when none of them fits."""
        old, new = Signer("ES256", None), Signer("ES256", None)
        checker = self.started()
        self.asked().answer(jwkSet(old))
        self.assertAlice(self.ask(checker, self.good(old)))
        self.clock.advance(PAUSE)
        login = self.ask(checker, self.good(new))
        self.asked().answer(jwkSet(new))
        self.assertAlice(login)

    def test_refresh(self) -> None:
        """Keys are fetched again every hour, and one that was taken back is not good then."""
        checker = self.started(f"{FETCHES}refresh = 600\n")
        self.asked().answer(jwkSet(self.old, self.new))
        self.clock.advance(599)
        self.assertAlice(self.ask(checker, self.good(self.old)))
        self.clock.advance(1)
        login = self.ask(checker, self.good(self.old))
        self.assertNoResult(login)
        self.asked().answer(jwkSet(self.new))
        self.assertEqual(str(self.refused(login)), UNSIGNED)

    def test_away(self) -> None:
        """While the issuer is away the keys of before are good, so long as the file says."""
        checker = self.started(f"{FETCHES}refresh = 600\nkeep = 3600\n")
        self.asked().answer(jwkSet(self.old))
        self.clock.advance(600)
        login = self.ask(checker, self.good(self.old))
        self.asked().answered.errback(ConnectionRefusedError("KEY"))
        self.assertAlice(login)
        self.clock.advance(PAUSE - 1)
        self.assertAlice(self.ask(checker, self.good(self.old)))
        # A key that is not known may be a new one.
        said = "keys of id.example.com: ConnectionRefusedError"
        self.assertEqual(self.unavailable(self.ask(checker, self.good(self.new))), said)
        # What is signed with a key that is known, or should be, is not.
        forged = Signer("ES256", "old")
        self.assertEqual(str(self.refused(self.ask(checker, self.good(forged)))), UNSIGNED)
        self.assertEqual(self.questions, [])
        self.clock.advance(1)
        login = self.ask(checker, self.good(self.old))
        self.asked().answered.errback(ConnectionRefusedError("KEY"))
        self.assertAlice(login)
        self.assertEqual(self.problems, [f"{said}; the keys of before are used"])
        self.clock.advance(3600 - 600 - PAUSE)
        login = self.ask(checker, self.good(self.old))
        self.asked().answered.errback(ConnectionRefusedError("KEY"))
        self.assertEqual(self.unavailable(login), said)

    def test_hangs(self) -> None:
        """Nobody waits for an issuer that is known to be away; its new keys are taken then."""
        checker = self.started(f"{FETCHES}refresh = 600\ntimeout = 5\n")
        self.asked().answer(jwkSet(self.old))
        self.clock.advance(600)
        login = self.ask(checker, self.good(self.old))
        self.assertNoResult(login)
        self.clock.advance(5)
        self.assertAlice(login)
        self.asked()
        self.clock.advance(PAUSE - 5)
        self.assertAlice(self.ask(checker, self.good(self.old)))
        self.asked().answer(jwkSet(self.new))
        self.assertAlice(self.ask(checker, self.good(self.new)))
        self.assertEqual(str(self.refused(self.ask(checker, self.good(self.old)))), UNSIGNED)

    def test_comesBack(self) -> None:
        """An issuer that was away from the start is asked again soon."""
        checker = self.started()
        self.asked().answered.errback(ConnectionRefusedError("KEY"))
        said = "keys of id.example.com: ConnectionRefusedError"
        self.assertEqual(self.problems, [f"{said}; tokens cannot be verified"])
        self.clock.advance(SOON - 1)
        self.assertEqual(self.unavailable(self.ask(checker, self.good(self.old))), said)
        self.assertEqual(self.questions, [])
        self.clock.advance(1)
        login = self.ask(checker, self.good(self.old))
        self.asked().answer(jwkSet(self.old))
        self.assertAlice(login)
        # Now it can be told that there is no such key.
        self.assertEqual(str(self.refused(self.ask(checker, self.good(self.new)))), UNSIGNED)
        self.clock.advance(3600)
        login = self.ask(checker, self.good(self.old))
        self.asked().answer(b"", 500)
        self.assertAlice(login)
        self.assertEqual(len(self.problems), 2)  # it is news again

    def test_atOnce(self) -> None:
        """An answer that comes at once ends the question, too."""
        answers: list[Deferred[Any]] = []
        for content in (b"KEY", jwkSet(self.old)):
            question = Question(b"GET", JWKS.encode(), None, None)
            question.answer(content)
            answers.append(question.answered)
        self.patch(self, "request", lambda *arguments: answers.pop(0))
        checker = self.started()
        self.unavailable(self.ask(checker, self.good(self.old)))
        self.clock.advance(SOON)
        self.assertAlice(self.ask(checker, self.good(self.old)))
        self.assertEqual(answers, [])

    def test_nonsense(self) -> None:
        """An answer that is none is as good as nobody's."""
        checker = self.started()
        for said, code, cause in (
            (b"KEY", 200, "the answer is not JSON"),
            (b"[]", 200, "the answer is no JSON object"),
            (b"{}", 200, 'the answer is no JWK Set: it has no list of "keys"'),
            (b'{"keys": []}', 200, "the answer has no key for signatures (none at all)"),
            (b"x" * (MAX_ANSWER + 1), 200, f"more than {MAX_ANSWER} octets"),
            (jwkSet(self.old), 404, "answered 404"),
            (jwkSet(self.old), 302, "answered 302"),
            (self.old.pem, 200, "the answer is not JSON"),
        ):
            self.asked().answer(said, code)
            login = self.ask(checker, self.good(self.old))
            self.assertEqual(self.unavailable(login), f"keys of id.example.com: {cause}")
            self.clock.advance(SOON)
            self.ask(checker, self.good(self.old)).addErrback(lambda _: None)
        self.asked().answer(jwkSet(self.old))
        self.assertAlice(self.ask(checker, self.good(self.old)))

    def test_defect(self) -> None:
        """A defect of ours leaves nobody waiting, and keys are fetched again."""
        checker = self.started()
        login = self.ask(checker, self.good(self.old))
        patch = self.patch(issuer, "readJWKSet", lambda content: 1 // 0)
        self.asked().answer(jwkSet(self.old))
        patch.restore()
        self.unavailable(login)
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(SOON)
        login = self.ask(checker, self.good(self.old))
        self.asked().answer(jwkSet(self.old))
        self.assertAlice(login)

    def test_keysStay(self) -> None:
        """Nonsense takes no key away."""
        checker = self.started()
        self.asked().answer(jwkSet(self.old))
        self.clock.advance(3600)
        login = self.ask(checker, self.good(self.old))
        self.asked().answer(b'{"keys": []}')
        self.assertAlice(login)

    def test_late(self) -> None:
        """An issuer that is silent is given up; one that has closed a connection asked again."""
        checker = self.started(f"{FETCHES}timeout = 3\n")
        login = self.ask(checker, self.good(self.old))
        self.clock.advance(3)
        self.assertEqual(self.unavailable(login), "keys of id.example.com: TimeoutError")
        self.assertTrue(self.asked().closed)
        self.clock.advance(SOON)
        login = self.ask(checker, self.good(self.old))
        self.asked().answered.errback(ResponseNeverReceived([Failure(ConnectionDone())]))
        self.asked().answer(jwkSet(self.old))
        self.assertAlice(login)

    def test_stop(self) -> None:
        """At the end nothing is asked, waited for or said."""
        checker = self.started()
        login = self.ask(checker, self.good(self.old))
        question = self.asked()
        self.successResultOf(checker.stop())
        self.assertTrue(question.closed)
        self.unavailable(login)
        self.assertEqual((self.clock.getDelayedCalls(), self.problems), ([], []))
        self.successResultOf(self.make(FETCHES).stop())  # which was never started


class DiscoveryTests(JWTCase):
    """An issuer that describes itself."""

    def setUp(self) -> None:
        super().setUp()
        self.signer = Signer("ES256")
        self.where = f"{ISSUER}/.well-known/openid-configuration"

    def test_found(self) -> None:
        """Where its keys are it says itself, each time (OpenID Connect Discovery 4)."""
        checker = self.started(FILE)
        self.asked(self.where).answer({"issuer": ISSUER, "jwks_uri": JWKS})
        self.asked().answer(jwkSet(Signer("ES256", "another")))
        self.clock.advance(PAUSE)
        login = self.ask(checker, self.good(self.signer))
        self.asked(self.where).answer({"issuer": ISSUER, "jwks_uri": JWKS + "/new"})
        self.asked(JWKS + "/new").answer(jwkSet(self.signer))
        self.assertAlice(login)

    def test_where(self) -> None:
        """A slash at the end is left out; another place is taken as it is."""
        self.started(FILE.replace(ISSUER, f"{ISSUER}/"))
        self.asked(self.where)
        where = "https://id.example.com/.well-known/oauth-authorization-server/realms/example"
        self.started(f'{FILE}openid_configuration = "{where}"')
        self.asked(where)

    def test_nonsense(self) -> None:
        """A description of somebody else, or without keys, is none."""
        checker = self.started(FILE)
        https = "must begin with https://, unless it is on this machine"
        for said, cause in (
            (b"KEY", "the description is not JSON"),
            (b"[]", "the description is no JSON object"),
            ({"jwks_uri": JWKS}, "the description is another issuer's"),
            ({"issuer": ISSUER + "/", "jwks_uri": JWKS}, "the description is another issuer's"),
            ({"issuer": [ISSUER], "jwks_uri": JWKS}, "the description is another issuer's"),
            ({"issuer": ISSUER}, 'the description has no "jwks_uri"'),
            ({"issuer": ISSUER, "jwks_uri": [JWKS]}, 'the description has no "jwks_uri"'),
            ({"issuer": ISSUER, "jwks_uri": ""}, 'the description has no "jwks_uri"'),
            ({"issuer": ISSUER, "jwks_uri": "http://KEY/"}, f"its jwks_uri: {https}"),
            ({"issuer": ISSUER, "jwks_uri": "file:///KEY"}, "its jwks_uri: must be a URL"),
            ({"issuer": ISSUER, "jwks_uri": "https://a:KEY@x/"}, "its jwks_uri: must have no"),
        ):
            self.asked(self.where).answer(said)
            login = self.ask(checker, self.good(self.signer))
            expected = f"keys of id.example.com: {cause}"
            self.assertEqual(self.unavailable(login)[: len(expected)], expected)
            self.clock.advance(SOON)
            self.ask(checker, self.good(self.signer)).addErrback(lambda _: None)


class FileKeysTests(JWTCase):
    """Keys in a file."""

    def setUp(self) -> None:
        super().setUp()
        self.old, self.new = Signer("RS256", "old"), Signer("RS256", "new")
        self.file("keys", jwkSet(self.old))
        self.checker = self.started(f'{FILE}keys_file = "keys"\n')

    def test_changes(self) -> None:
        """It is read again when it changes; nobody is asked."""
        self.assertAlice(self.ask(self.checker, self.old.token()))
        self.assertEqual(str(self.refused(self.ask(self.checker, self.new.token()))), UNSIGNED)
        for content in (jwkSet(self.new), self.new.pem):
            self.file("keys", content)
            self.assertAlice(self.ask(self.checker, self.new.token()))
            self.assertEqual(str(self.refused(self.ask(self.checker, self.old.token()))), UNSIGNED)
        self.assertEqual(self.questions, [])
        self.successResultOf(self.checker.stop())

    def test_broken(self) -> None:
        """While it cannot be used the keys of before are good; once it is said why."""
        self.assertAlice(self.ask(self.checker, self.old.token()))
        keys = self.file("keys", b"KEY")
        for _ in range(2):
            self.assertAlice(self.ask(self.checker, self.old.token()))
        keys.unlink()
        for _ in range(2):
            self.assertAlice(self.ask(self.checker, self.old.token()))
        self.assertEqual(
            self.problems,
            [
                f"{said}; the keys of before are used"
                for said in (
                    "is neither a JWK Set nor has it public keys in PEM form",
                    "cannot be read: No such file or directory",
                )
            ],
        )
        self.file("keys", jwkSet(self.new))
        self.assertAlice(self.ask(self.checker, self.new.token()))

    def test_atStart(self) -> None:
        """It is read at the start, and not first when somebody logs in."""
        (self.directory / "keys").unlink()
        self.assertAlice(self.ask(self.checker, self.old.token()))

    def test_gone(self) -> None:
        """One that was never read says neither yes nor no."""
        said = "cannot be read: No such file or directory"
        missing = self.directory / "missing"
        keys = FileKeys(missing)
        self.assertEqual(self.problems, [f"{said}; tokens cannot be verified"])
        cause = self.unavailable(Deferred.fromCoroutine(keys.current()))
        self.assertEqual(cause, f"{missing} {said}")
        self.file("missing", self.old.pem)
        found = self.successResultOf(Deferred.fromCoroutine(keys.newer()))
        self.assertEqual(len(found.keys), 1)


class SettingsTests(JWTCase):
    """The file, and those that it names."""

    def problem(self, text: str) -> str:
        """What is wrong with a file; nobody can log in with it, and nobody is told more."""
        checker = self.make(text)
        [said] = checker.check()
        self.unavailable(self.ask(checker, b"x"))
        error: Any = self.failureResultOf(checker.start(self.clock), LoginUnavailable).value
        self.assertEqual(error.cause, said)
        self.assertEqual(self.unavailable(self.ask(checker, b"x")), said)
        self.assertEqual(said[: len(str(self.path))], str(self.path))
        return said.removeprefix(f"{self.path}: ")

    def test_good(self) -> None:
        """Nothing is said of a good file, and nobody is asked."""
        self.file("keys", Signer("ES256").pem)
        anybody = f'issuer = "{ISSUER}"\nany_audience = true\n'
        for text in (
            FILE,
            FETCHES,
            anybody,
            f'{FILE}keys_file = "keys"',
            FILE.replace(ISSUER, "accounts.example.com") + f'jwks_uri = "{JWKS}"',
            FILE.replace(ISSUER, "http://127.0.0.1:4444"),
            f'{FILE}algorithms = ["ES512"]\nclaims = {{tid = "x"}}\ntype = ""\nleeway = "5 min"',
        ):
            self.assertEqual(self.make(text).check(), [])
        self.assertEqual(self.questions, [])

    def test_mistakes(self) -> None:
        """Each mistake is named with its key; several are named together."""
        audience = "needs either audience or any_audience = true"
        https = "must begin with https://, unless it is on this machine"
        either = 'must be "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"'
        for text, said in (
            ("", "issuer: is missing"),
            ('issuer = ""', f"issuer: must be that of the tokens; {audience}"),
            (f'issuer = "{ISSUER}"', audience),
            (f"{FILE}any_audience = true", audience),
            (FILE.replace("https", "http"), f"issuer: {https}"),
            (FILE.replace("https://", ""), "issuer: must be a URL that begins with"),
            (f'{FILE}jwks_uri = "http://x/"', f"jwks_uri: {https}"),
            (f'{FILE}jwks_uri = "https://a:KEY@x/"', "jwks_uri: must have no user or password"),
            (f'{FILE}openid_configuration = "x"', "openid_configuration: must be a URL"),
            (f'{FETCHES}keys_file = "x"', "jwks_uri and keys_file do not go together"),
            (f'{FILE}name_claim = ""', "name_claim: must be the name of a claim"),
            (f'{FILE}scope = "a  b"', "scope: must be scopes with one space"),
            (f"{FILE}claims = {{tid = 7}}", 'claims."tid": must be a string, not 7'),
            (f'{FILE}algorithms = ["none"]', f"algorithms[0]: {either}"),
            (f'{FILE}algorithms = ["HS256"]', f"algorithms[0]: {either}"),
            (f'{FILE}algorithms = "RS256"', "algorithms: must be a list"),
            (f"{FILE}algorithms = []", "algorithms: "),
            (f'{FILE}leeway = "1 h"', "leeway: must be <= 300"),
            (f"{FILE}refresh = 10", "refresh: must be >= 60"),
            (f'{FILE}keep = "30 min"', "keep: must not be less than refresh"),
            (f"{FILE}timeout = 0", "timeout: must be > 0"),
            (f"{FILE}audiense = 1", 'audiense: unknown key; did you mean "audience"?'),
            ("issuer", "is not TOML"),
        ):
            self.assertEqual(self.problem(text)[: len(said)], said)

    def test_files(self) -> None:
        """So are the files that it names; a relative path begins at its own directory."""
        [said] = JWTChecker(str(self.path)).check()
        self.assertEqual(said, f"{self.path}: cannot be read: No such file or directory")
        named = self.directory / "named"
        for key, content, expected in (
            ("keys_file", None, f"{named} cannot be read: No such file or directory"),
            ("keys_file", b"", f"{named} is neither a JWK Set nor has it public keys in PEM form"),
            ("keys_file", b"{}", f'{named} is no JWK Set: it has no list of "keys"'),
            ("ca_file", b"", f"{named} holds no certificate in PEM form"),
        ):
            if content is not None:
                self.file("named", content)
            self.assertEqual(self.problem(f'{FILE}{key} = "named"'), f"{key}: {expected}")

    def test_notStarted(self) -> None:
        """Before the start nobody can log in."""
        said = self.unavailable(self.ask(self.make(FETCHES), Signer("ES256").token()))
        self.assertIn("has not been started", said)
