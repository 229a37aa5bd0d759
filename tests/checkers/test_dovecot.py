"""Tests for :mod:`submitd.checkers.dovecot`."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.checkers import LoginUnavailable
from submitd.checkers import dovecot as module
from submitd.checkers.dovecot import DovecotChecker
from submitd.checkers.dovecotserver import DovecotServer
from submitd.interfaces import IBearerToken, IChecked, IIncapable, IRunning, IWarns
from submitd.sasl.credentials import BearerToken, UsernamePassword
from tests.policies.policyservers import Endpoint
from tests.wire.test_dovecotauth import GREETING

ALICE = UsernamePassword(b"alice", b"wonderland")
TOKEN = BearerToken(b"alice", b"wonderland")
PATH = "/run/dovecot/auth"


class Served(DovecotChecker):
    """The back end, with a server of the test's."""

    def start(self, reactor: Any) -> Deferred[None]:
        started = super().start(reactor)
        self.endpoint = Endpoint()
        self._server = DovecotServer(self.endpoint, reactor, self._timeout)
        return started


class DovecotCheckerTests(SynchronousTestCase):
    """What an answer means."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.checker = Served(PATH)
        self.successResultOf(self.checker.start(self.clock))
        self.endpoint = self.checker.endpoint

    def asked(self, credentials: Any = ALICE) -> Deferred[Any]:
        """Ask, over a connection that is there."""
        asking = self.checker.requestAvatarId(credentials)
        if len(self.endpoint.lines) == 1 and not self.endpoint.lines[0].heard:
            self.endpoint.answer(GREETING)
        return asking

    def answered(self, answer: bytes, credentials: Any = ALICE) -> Deferred[Any]:
        """Ask, and have it answered."""
        self.setUp()
        asking = self.asked(credentials)
        self.endpoint.answer(answer.replace(b" ", b"\t1", 1).replace(b" ", b"\t") + b"\n")
        return asking

    def refused(self, *answer: Any) -> str:
        """What is logged of a no."""
        said = str(self.failureResultOf(self.answered(*answer), UnauthorizedLogin).value)
        self.assertNotIn("wonderland", said)
        return said

    def unavailable(self, asking: Deferred[Any]) -> str:
        """What is logged where there is no answer."""
        failure = self.failureResultOf(asking, LoginUnavailable)
        cause: str = failure.value.cause
        for shown in (cause, str(failure.value), repr(failure.value), failure.getTraceback()):
            self.assertNotIn("wonderland", shown)
        self.assertTrue(cause.startswith(f"unix:{PATH}: "), cause)
        return cause.removeprefix(f"unix:{PATH}: ")

    def test_interfaces(self) -> None:
        """It is a checker, for passwords and for tokens, and does not say that it knows changes."""
        for interface in (ICredentialsChecker, IChecked, IWarns, IIncapable, IRunning):
            verifyObject(interface, self.checker)
        self.assertFalse(hasattr(self.checker, "revision"))
        made = makeChecker(f"dovecot:{PATH}")
        self.assertIsInstance(made, DovecotChecker)
        self.assertEqual(made.credentialInterfaces, (IUsernamePassword, IBearerToken))

    def test_yes(self) -> None:
        """The name is Dovecot's, whatever the client wrote."""
        for answer, name in (
            (b"OK  user=alice", b"alice"),
            (b"OK  user=Alice@example.com original_user=alice", b"Alice@example.com"),
            (b"OK   user=\xc3\xa4", "ä".encode()),
        ):
            self.assertEqual(self.successResultOf(self.answered(answer)), name)

    def test_token(self) -> None:
        """Asked with what Dovecot has; a client may leave the name to the token."""
        self.assertEqual(self.successResultOf(self.answered(b"OK  user=bob", TOKEN)), b"bob")
        self.assertIn(b"XOAUTH2", self.endpoint.lines[0].transport.value())
        asking = self.asked(BearerToken(b"", b"wonderland"))
        self.assertEqual(self.unavailable(asking), "it does not offer OAUTHBEARER")

    def test_no(self) -> None:
        """The cause is for the log; a plain no has none, unless Dovecot has words for it."""
        for answer, cause in (
            (b"FAIL ", ""),
            (b"FAIL  user=alice", ""),
            (b"FAIL  code=user_disabled", "Dovecot: the user is disabled"),
            (b"FAIL  user_disabled", "Dovecot: the user is disabled"),
            (
                b"FAIL  code=pass_expired reason=Renew\x01tit",
                "Dovecot: the password has expired: Renew?it",
            ),
            (b"FAIL  pass_expired", "Dovecot: the password has expired"),
            (b"FAIL  code=authz_fail", "Dovecot: not authorized"),
            (b"FAIL  authz", "Dovecot: not authorized"),
            (b"FAIL  code=ne\xffw", "Dovecot: ne\ufffdw"),
            (b"FAIL  reason=Too_late", "Dovecot: Too_late"),
            (b"FAIL  reason=" + b"x" * 1000, "Dovecot: " + "x" * 200),
        ):
            self.assertEqual(self.refused(answer), cause)

    def test_knownButNotHere(self) -> None:
        """OK with nologin or proxy: the password is right, and there is no login all the same."""
        for mark in (b"nologin", b"nologin=", b"nologin=y", b"proxy", b"proxy host=x"):
            cause = self.refused(b"OK  user=alice " + mark)
            name = mark.partition(b"=")[0].partition(b" ")[0].decode()
            self.assertEqual(cause, f"Dovecot: no login here ({name})")
        cause = self.refused(b"OK  user=alice nologin reason=Moved")
        self.assertEqual(cause, "Dovecot: no login here (nologin): Moved")

    def test_cannotTell(self) -> None:
        """Trouble behind Dovecot is not the user's."""
        for answer, cause in (
            (b"FAIL  user=alice code=temp_fail", "Dovecot: a temporary failure"),
            (b"FAIL  temp", "Dovecot: a temporary failure"),
            (b"FAIL  code=temp_fail reason=LDAP", "Dovecot: a temporary failure: LDAP"),
            (b"FAIL  code=invalid_base64", "Dovecot: invalid_base64"),
            (b"FAIL  code=auth_mech_invalid", "Dovecot: auth_mech_invalid"),
        ):
            self.assertEqual(self.unavailable(self.answered(answer)), cause)

    def test_yesToNobody(self) -> None:
        """A yes must name somebody who can be."""
        for answer, cause in (
            (b"OK ", "it says yes, but the user name is empty"),
            (b"OK  user", "it says yes, but the user name is empty"),
            (b"OK  user=\xff", "it says yes, but the user name is not UTF-8"),
            (
                b"OK  user=a\x01nb",
                "it says yes, but the user name has control or format characters",
            ),
        ):
            self.assertEqual(self.unavailable(self.answered(answer)), cause)

    def test_impossible(self) -> None:
        """What would be read as another name, password or token never gets to Dovecot."""
        for credentials in (
            UsernamePassword(b"eve\0alice", b"x"),
            UsernamePassword(b"alice", b"x\0y"),
            UsernamePassword(b"", b"x"),
            UsernamePassword(b"\xff", b"x"),
            BearerToken(b"eve\x01user=alice", b"t"),
            BearerToken(b"alice", b"t\x01\x01"),
            BearerToken(b"alice", b"t\0"),
        ):
            asking = self.checker.requestAvatarId(credentials)
            self.failureResultOf(asking, UnauthorizedLogin)
        self.assertEqual(self.endpoint.lines, [])

    def test_unavailable(self) -> None:
        """Whatever goes wrong with the connection."""
        asking = self.asked()
        self.clock.advance(module.TIMEOUT)
        self.assertEqual(self.unavailable(asking), "no answer within 30 s")
        self.endpoint.isAway = True
        self.assertIn("cannot connect", self.unavailable(self.asked()))

    def test_left(self) -> None:
        """The client goes: that is no failure of Dovecot's."""
        asking = self.asked()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)

    def test_notStarted(self) -> None:
        """Before the start, and behind the end."""
        cause = self.unavailable(DovecotChecker(PATH).requestAvatarId(ALICE))
        self.assertEqual(cause, "the back end has not been started")
        self.successResultOf(DovecotChecker(PATH).stop())
        asking = self.asked()
        self.successResultOf(self.checker.stop())
        for each in (asking, self.checker.requestAvatarId(ALICE)):
            self.assertEqual(self.unavailable(each), "the service stops")

    def test_endpoints(self) -> None:
        """A path, also one with a colon in it, and what Twisted connects to."""
        reactor: Any = MemoryReactorClock()
        for where in ("/run/dovecot/auth", "/run/dove:cot/auth", "tcp:host=127.0.0.1:port=12345"):
            checker = DovecotChecker(where)
            self.assertEqual(checker.check(), [])
            self.successResultOf(checker.start(reactor))
            checker.requestAvatarId(ALICE).addErrback(lambda _: None)
        self.assertEqual(
            [each[0] for each in reactor.unixClients], ["/run/dovecot/auth", "/run/dove:cot/auth"]
        )
        self.assertEqual([each[:2] for each in reactor.tcpClients], [("127.0.0.1", 12345)])


class BeforeStartTests(SynchronousTestCase):
    """What is found before a start."""

    def dial(self, *said: bytes) -> Any:
        """What connects to a Dovecot that says this, and then ends."""

        def connect(address: Any, seconds: float) -> socket.socket:
            self.address = address
            ours, its = socket.socketpair()
            self.addCleanup(its.close)
            for each in said:
                its.sendall(each)
            its.shutdown(socket.SHUT_WR)
            ours.settimeout(seconds)
            return ours

        return connect

    def test_check(self) -> None:
        """A mistake in the configuration."""
        for where in ("auth", "run/auth", "tcp:localhost:0", "unix:", "/" + "x" * 200):
            [said] = DovecotChecker(where).check()
            self.assertIn('must be "tcp:HOST:PORT", "unix:PATH" or', said)
        self.assertEqual(DovecotChecker("/no/such/socket").check(), [])

    def test_away(self) -> None:
        """Dovecot may be started later: a warning."""
        path = "/tmp/submitd-no-such.sock"
        [said] = DovecotChecker(path).warnings()
        why = "No such file or directory; logins are 454 until Dovecot answers there"
        self.assertEqual(said, f"unix:{path}: {why}")
        checker = DovecotChecker(path)
        checker.warnings()
        self.assertEqual(checker.cannotVerify(), {})

    def test_notDovecot(self) -> None:
        """Something else listens."""
        for said, why in (
            (b"220 ESMTP\r\n", "it does not speak"),
            (b"VERSION\t1\t1\n", "is it Dovecot's socket for clients?"),
            (b"VERSION\t1\t1\n" + b"x" * 20000, "a line has more than"),
        ):
            [warning] = DovecotChecker(PATH, dial=self.dial(said)).warnings()
            self.assertIn(why, warning)

    def test_silent(self) -> None:
        """It listens and says nothing: a start does not wait for ever."""
        self.patch(module, "LOOK", 0.01)
        ours, its = socket.socketpair()
        self.addCleanup(its.close)
        [warning] = DovecotChecker(PATH, dial=lambda address, seconds: ours).warnings()
        self.assertIn("timed out", warning)

    def test_endless(self) -> None:
        """Nor where it never comes to an end."""
        said = iter([b"VERSION\t1\t2\n"])

        class Endless(socket.socket):
            """Always has something more."""

            def sendall(self, *data: Any) -> None:
                """Nobody reads it."""

            def recv(self, *size: int) -> bytes:
                """Another mechanism."""
                return next(said, b"MECH\tX\n")

        self.patch(module, "LOOK", 0.01)
        checker = DovecotChecker(PATH, dial=lambda address, seconds: Endless(socket.AF_UNIX))
        [warning] = checker.warnings()
        self.assertIn("timed out", warning)

    def test_offered(self) -> None:
        """What Dovecot has is enough, or is not."""
        for listed, missing in (
            (b"MECH\tPLAIN\nMECH\tXOAUTH2\n", set()),
            (b"MECH\tPLAIN\n", {IBearerToken}),
            (b"MECH\tOAUTHBEARER\n", {IUsernamePassword}),
            (b"", {IBearerToken, IUsernamePassword}),
        ):
            checker = DovecotChecker(
                "tcp:127.0.0.1:12345", dial=self.dial(b"VERSION\t1\t2\n", listed, b"DONE\n")
            )
            self.assertEqual(checker.warnings(), [])
            self.assertEqual(set(checker.cannotVerify()), missing)
            self.assertEqual(self.address, ("127.0.0.1", 12345))

    def test_otherEndpoint(self) -> None:
        """What cannot be asked without a reactor is believed."""
        checker = DovecotChecker("tls:localhost:12345")
        self.assertEqual((checker.check(), checker.warnings()), ([], []))
        self.assertEqual(checker.cannotVerify(), {})

    def test_dial(self) -> None:
        """Over TCP and a unix socket."""
        path = os.path.relpath(self.mktemp())
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, path),
        ):
            with socket.socket(family) as listening:
                listening.bind(address)
                listening.listen()
                with module.dial(listening.getsockname(), 5) as connection:
                    accepted, _ = listening.accept()
                    accepted.close()
                    self.assertEqual(connection.recv(1), b"")
