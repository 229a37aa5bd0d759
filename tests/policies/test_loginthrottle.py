"""Policy login-throttle."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

from twisted.cred.credentials import CramMD5Credentials, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd import events, policies
from submitd.checkers import LoginUnavailable
from submitd.counters.shared import SharedCounts, prepare
from submitd.counters.windows import Room
from submitd.interfaces import (
    IChecked,
    IConnectionPolicy,
    IDelays,
    ILoginObserver,
    ILoginPolicy,
    IRunning,
)
from submitd.policies.loginthrottle import Attempt, LoginThrottle, _loginOf, _whence
from submitd.realm import Submitter
from submitd.sasl.credentials import BearerToken
from submitd.session import Session
from submitd.settings import Component
from submitd.typed import Count, Rates, Seconds
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR
from tests.fixtures import Conversation, makePortal, makeSubmission, waitingFor

HOME, CAFE, OTHER = "192.0.2.1", "198.51.100.1", "203.0.113.1"


class ThrottleTestCase(SynchronousTestCase):
    """Has a policy without delays, that blocks after three failures."""

    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.clock = Clock()
        self.policy = self.make()
        self.secrets = 0

    def make(self, **keys: Any) -> LoginThrottle:
        """A policy that runs."""
        usual = {
            "per_address": Rates("3/hour"),
            "per_network": Rates(""),
            "per_login": Rates(""),
            "delay": Seconds(0.0),
        }
        policy = LoginThrottle(**{**usual, **keys})
        self.successResultOf(policy.start(self.clock))
        return policy

    def attempt(
        self, login: str, address: str, good: bool = False, password: str | None = None
    ) -> str:
        """One login on a connection of its own, each with another password.

        :return: ``in``, ``no``, or where it was blocked: ``connection`` or ``login``.
        """
        session = Session(remoteAddress=address)
        try:
            self.policy.connectionMade(session)
        except Refused as refused:
            self.assertEqual(refused.reply.code, 421)
            return "connection"
        self.secrets += 1
        credentials = UsernamePassword(login.encode(), (password or str(self.secrets)).encode())
        try:
            self.assertIsNone(self.policy.loginRequested(session, credentials))
        except Refused as refused:
            self.assertEqual(refused.reply.code, 421)
            return "login"
        self.end(session, credentials, login if good else "")
        return "in" if good else "no"

    def end(self, session: Session, credentials: Any, login: str = "") -> None:
        """What has been asked for succeeds, for this login, or fails."""
        if login:
            self.assertIsNone(self.policy.loginSucceeded(session, Submitter(login)))
        else:
            failed = Failure(UnauthorizedLogin())
            self.assertIsNone(self.policy.loginFailed(session, credentials, failed))
        self.policy.loginEnded(session)

    def fail(self, login: str, address: str, count: int) -> None:  # type: ignore[override]
        """Fail so many times."""
        for _ in range(count):
            self.assertEqual(self.attempt(login, address), "no")

    def blocked(self) -> list[tuple[str, str, str]]:
        """The blocks that were logged."""
        return [
            (each["scope"], each["peer"], each["user"])
            for each in self.logged
            if each["event"] == "login-blocked"
        ]


class AwayTests(ThrottleTestCase):
    """What workers share cannot be used, for its disk is full, say."""

    def test_away(self) -> None:
        """Everybody may try, a wrong password is one, and an event says so once."""
        directory = Path(self.mktemp())
        directory.mkdir()
        prepare(directory)
        self.policy.share(SharedCounts(directory))
        shutil.rmtree(directory)
        self.fail("alice", CAFE, 5)
        self.assertEqual(self.attempt("alice", CAFE, good=True), "in")
        self.assertEqual([each["event"] for each in self.logged], ["counters-away"])


class BlockTests(ThrottleTestCase):
    """Who is kept out, and until when."""

    def test_interfaces(self) -> None:
        """It takes part in connections and logins, runs, and can be checked."""
        for interface in (
            IConnectionPolicy,
            ILoginPolicy,
            ILoginObserver,
            IRunning,
            IChecked,
            IDelays,
        ):
            self.assertTrue(verifyObject(interface, self.policy))
        self.assertEqual(self.policy.check(), [])
        self.successResultOf(self.policy.stop())

    def test_address(self) -> None:
        """After so many failures an address gets no greeting; the block ends, and is logged."""
        self.fail("alice", CAFE, 1)
        self.clock.advance(1800)
        self.fail("bob", CAFE, 2)
        self.assertEqual(self.attempt("carol", CAFE, good=True), "connection")
        self.assertEqual(self.attempt("alice", OTHER, good=True), "in")
        self.assertEqual(self.blocked(), [("address", CAFE, "bob")])
        with self.assertRaises(Refused) as caught:
            self.policy.connectionMade(Session(remoteAddress=CAFE))
        self.assertEqual(
            caught.exception.reply.wire,
            b"421 4.7.0 Too many failed logins; try again after 1970-01-01 01:00:00 UTC\r\n",
        )
        self.assertEqual(caught.exception.cause, "blocked by address: 3 per hour")
        self.clock.advance(1800)
        self.assertEqual(self.attempt("carol", CAFE, good=True), "in")

    def test_sameConnection(self) -> None:
        """A connection that was there before the block meets it at its next login."""
        session = Session(remoteAddress=CAFE)
        self.policy.connectionMade(session)
        self.fail("alice", CAFE, 3)
        self.assertRaises(
            Refused, self.policy.loginRequested, session, UsernamePassword(b"alice", b"x")
        )

    def test_network(self) -> None:
        """A /64 is one guesser, however many addresses he takes of it."""
        self.policy = self.make(per_network=Rates("4/hour"))
        for number in range(4):
            self.fail("alice", f"2001:db8::{number + 1}", 1)
        self.assertEqual(self.attempt("alice", "2001:db8::99"), "connection")
        self.assertEqual(self.attempt("alice", "2001:db8:0:1::1"), "no")

    def test_login(self) -> None:
        """A login is kept from guessers who come from everywhere, and written in any case."""
        self.policy = self.make(per_login=Rates("4/hour"))
        for number in range(4):
            self.fail("Alice" if number % 2 else "alice", f"198.51.100.{number}", 1)
        self.assertEqual(self.attempt("alice", "198.51.100.99", good=True), "login")
        self.assertEqual(self.attempt("bob", "198.51.100.99", good=True), "in")

    def test_unknown(self) -> None:
        """Users that do not exist are counted alike: nothing tells them from those that do."""
        self.policy = self.make(per_login=Rates("2/hour"))
        for login in ("alice", "nobody-has-this-name"):
            self.fail(login, CAFE if login == "alice" else OTHER, 2)
            self.assertEqual(self.attempt(login, HOME), "login")

    def test_noName(self) -> None:
        """Credentials without a name are counted by where they come from, and not as one login."""
        self.policy = self.make(per_login=Rates("2/hour"))
        for _ in range(3):
            session = Session(remoteAddress=CAFE)
            self.assertIsNone(self.policy.loginRequested(session, object()))
            self.end(session, object())
        self.assertEqual(self.blocked(), [("address", CAFE, "")])
        self.assertRaises(Refused, self.policy.loginRequested, Session(CAFE), object())
        self.assertIsNone(self.policy.loginRequested(Session(OTHER), object()))

    def test_tokensWithoutName(self) -> None:
        """So are tokens that come without one: who guesses them keeps nobody else out."""
        self.policy = self.make(per_login=Rates("2/hour"))
        for number in range(3):
            session, credentials = Session(remoteAddress=CAFE), BearerToken(b"", b"%d" % number)
            self.assertIsNone(self.policy.loginRequested(session, credentials))
            self.end(session, credentials)
        self.assertEqual(self.blocked(), [("address", CAFE, "")])
        self.assertIsNone(self.policy.loginRequested(Session(OTHER), BearerToken(b"", b"good")))

    def test_unix(self) -> None:
        """Without an address there is only the login to count by."""
        self.policy = self.make(per_login=Rates("2/hour"))
        self.assertEqual(self.attempt("alice", "", good=True), "in")
        self.fail("alice", "", 2)
        self.assertEqual(self.attempt("alice", ""), "login")

    def test_exceptFrom(self) -> None:
        """At a webmail's address nobody is blocked for what others do there, only for his login."""
        self.policy = self.make(per_login=Rates("4/hour"), except_from=["203.0.113.0/28"])
        said = [self.attempt(f"user{number}", OTHER) for number in range(9)]
        self.assertEqual(said, ["no"] * 9)
        self.assertEqual(self.attempt("alice", OTHER, good=True), "in")
        said = [self.attempt("alice", OTHER) for _ in range(5)]
        self.assertEqual(said, ["no"] * 4 + ["login"])
        self.assertEqual(self.attempt("bob", OTHER, good=True), "in")
        said = [self.attempt(f"user{number}", CAFE) for number in range(4)]
        self.assertEqual(said, ["no"] * 3 + ["connection"])

    def test_nothing(self) -> None:
        """Without rates nobody is blocked."""
        self.policy = self.make(per_address=Rates(""))
        self.fail("alice", CAFE, 50)

    def test_several(self) -> None:
        """Of several in one service each counts for itself."""
        session = Session(remoteAddress=CAFE)
        several = [self.policy, self.make()]
        for number in range(3):
            credentials = UsernamePassword(b"alice", str(number).encode())
            for each in several:
                each.loginRequested(session, credentials)
            for each in several:
                each.loginFailed(session, credentials, Failure(UnauthorizedLogin()))
        for each in several:
            self.assertRaises(Refused, each.connectionMade, Session(remoteAddress=CAFE))


class RepeatTests(ThrottleTestCase):
    """The same wrong password again."""

    def test_oldTelephone(self) -> None:
        """A telephone with an old password blocks nobody, however long it tries."""
        for _ in range(100):
            self.assertEqual(self.attempt("alice", HOME, password="before"), "no")
            self.clock.advance(60)
        self.assertEqual(self.attempt("alice", HOME, good=True), "in")

    def test_perLogin(self) -> None:
        """One password for many logins is guessing."""
        for login in ("alice", "bob", "carol"):
            self.assertEqual(self.attempt(login, CAFE, password="123456"), "no")
        self.assertEqual(self.attempt("dave", CAFE), "connection")

    def test_perAddress(self) -> None:
        """What one address has tried is new at another; for the login it is not."""
        self.policy = self.make(per_address=Rates("1/hour"), per_login=Rates("2/hour"))
        for number in range(5):
            self.assertEqual(self.attempt("alice", f"198.51.100.{number}", password="x"), "no")
        self.assertEqual(self.attempt("bob", "198.51.100.0"), "connection")
        self.assertEqual(self.attempt("alice", OTHER, good=True), "in")

    def test_noPassword(self) -> None:
        """Where each attempt has another answer, each counts."""
        for _ in range(3):
            session = Session(remoteAddress=CAFE)
            credentials = CramMD5Credentials(b"host")
            credentials.setResponse(b"alice " + b"0" * 32)
            self.assertIsNone(self.policy.loginRequested(session, credentials))
            self.end(session, credentials)
        self.assertEqual(self.attempt("alice", CAFE), "connection")

    def test_notKept(self) -> None:
        """No password is kept, and none can be guessed from what is."""
        self.attempt("alice", CAFE, password="wonderland")
        kept = repr(list(self.policy._wrong._logs)) + repr(self.policy._counters._memory)
        self.assertNotIn("wonderland", kept)
        self.assertNotIn("alice", repr(list(self.policy._counters._memory._logs)))  # type: ignore
        other = self.make()
        self.policy, policy = other, self.policy
        self.attempt("alice", CAFE, password="wonderland")
        self.assertNotEqual(list(policy._wrong._logs), list(other._wrong._logs))


class OwnerTests(ThrottleTestCase):
    """Who has been here before."""

    def test_known(self) -> None:
        """The owner gets in where he has been, whatever others do there and to his login."""
        self.policy = self.make(per_login=Rates("5/hour"))
        self.assertEqual(self.attempt("alice", HOME, good=True), "in")
        self.fail("bob", HOME, 3)
        self.fail("alice", CAFE, 3)
        self.fail("alice", OTHER, 2)
        self.assertEqual(self.attempt("alice", "198.51.100.9", good=True), "login")
        self.assertEqual(self.attempt("alice", HOME, good=True), "in")
        # The connection is taken for her sake; others are still kept out.
        self.assertEqual(self.attempt("bob", HOME, good=True), "login")

    def test_ownFailures(self) -> None:
        """Guessing the owner's password from his own address ends, too, and blocks nobody else."""
        self.attempt("alice", HOME, good=True)
        self.fail("alice", HOME, 3)
        self.assertEqual(self.attempt("alice", HOME, good=True), "login")
        self.assertEqual(self.attempt("bob", HOME, good=True), "in")
        self.assertEqual(self.attempt("alice", CAFE, good=True), "in")
        self.assertEqual(self.blocked(), [("known", HOME, "alice")])

    def test_success(self) -> None:
        """A success takes nothing off: a guesser with an account of his own gets no more tries."""
        self.fail("alice", CAFE, 2)
        self.assertEqual(self.attempt("mallory", CAFE, good=True), "in")
        self.fail("alice", CAFE, 1)
        self.assertEqual(self.attempt("alice", CAFE), "login")
        self.assertEqual(self.attempt("mallory", CAFE, good=True), "in")

    def test_forgotten(self) -> None:
        """An address is known for some time, and no longer."""
        self.policy = self.make(remember=Seconds(7200.0))
        self.attempt("alice", HOME, good=True)
        self.clock.advance(7000)
        self.fail("bob", HOME, 3)
        self.assertEqual(self.attempt("alice", HOME, good=True), "in")
        self.clock.advance(300)
        self.assertEqual(self.attempt("alice", HOME, good=True), "connection")

    def test_notAsked(self) -> None:
        """A login that did not come this way is not counted, and nothing fails."""
        session = Session(remoteAddress=HOME)
        self.assertIsNone(self.policy.loginSucceeded(session, Submitter("alice")))
        credentials = UsernamePassword(b"alice", b"x")
        self.assertIsNone(
            self.policy.loginFailed(session, credentials, Failure(UnauthorizedLogin()))
        )


class DelayTests(ThrottleTestCase):
    """Waiting."""

    def setUp(self) -> None:
        super().setUp()
        self.policy = self.make(
            per_address=Rates("20/hour, 50/day"),
            free=Count(2),
            delay=Seconds(1.0),
            max_delay=Seconds(5.0),
            max_waiting=Count(3),
        )

    def request(self, address: str = CAFE) -> Any:
        """Ask for one login."""
        session = Session(remoteAddress=address)
        return self.policy.loginRequested(session, UsernamePassword(b"alice", b"x"))

    def failed(self, count: int, address: str = CAFE) -> None:
        """So many failures."""
        for _ in range(count):
            self.secrets += 1
            session = Session(remoteAddress=address)
            credentials = UsernamePassword(b"x", str(self.secrets).encode())
            self.policy.loginRequested(session, credentials)
            self.clock.advance(5)
            self.end(session, credentials)

    def test_growing(self) -> None:
        """The first ones are free, then each waits twice as long, up to the longest."""
        self.assertIsNone(self.request())
        self.failed(1)
        self.assertIsNone(self.request())
        for seconds in (1, 2, 4, 5, 5):
            self.failed(1)
            waiting = self.request()
            self.clock.advance(seconds - 0.01)
            self.assertNoResult(waiting)
            self.clock.advance(0.01)
            self.assertIsNone(self.successResultOf(waiting))

    def test_ofLate(self) -> None:
        """The shortest window decides: what is long past delays nobody."""
        self.failed(10)
        self.clock.advance(3600)
        self.assertIsNone(self.request())

    def test_known(self) -> None:
        """Who is known here does not wait for what others did."""
        session = Session(remoteAddress=CAFE)
        self.policy.loginRequested(session, UsernamePassword(b"alice", b"x"))
        self.end(session, None, "alice")
        self.failed(5)
        self.assertIsNone(self.request())

    def test_bounded(self) -> None:
        """Only so many wait; one more is sent away, and there is room when one has left."""
        self.failed(3)
        waiting = [self.request() for _ in range(3)]
        with self.assertRaises(Refused) as caught:
            self.request()
        self.assertEqual(caught.exception.reply.code, 421)
        self.assertEqual(caught.exception.cause, "3 sessions wait already")
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        waiting.append(self.request())
        self.clock.advance(5)
        self.assertEqual([self.successResultOf(each) for each in waiting[1:]], [None] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AtOnceTests(ThrottleTestCase):
    """Many logins at one moment, where there is room for three failures."""

    def begin(self, count: int, address: str = CAFE) -> list[tuple[Session, Any, Any]]:
        """Ask for so many logins, each of somebody else with another password."""
        begun = []
        for _ in range(count):
            self.secrets += 1
            session = Session(remoteAddress=address)
            credentials = UsernamePassword(*[str(self.secrets).encode()] * 2)
            asked = self.policy.loginRequested(session, credentials)
            begun.append((session, credentials, asked))
        return begun

    def test_guesses(self) -> None:
        """No more are tried than may fail; the others wait, and are refused when these have."""
        begun = self.begin(50)
        self.assertEqual([asked for _, _, asked in begun[:3]], [None] * 3)
        for _, _, asked in begun[3:]:
            self.assertNoResult(asked)
        for session, credentials, _ in begun[:3]:
            self.end(session, credentials)
        for _ in begun:
            self.clock.advance(0)
        for session, _, asked in begun[3:]:
            self.assertEqual(self.failureResultOf(asked, Refused).value.reply.code, 421)
            self.policy.loginEnded(session)
        self.assertNothing()

    def assertNothing(self) -> None:
        """Nobody is under way or waits."""
        policy = self.policy
        self.assertEqual((policy._underWay, policy._queues, policy._waiting), ({}, {}, 0))

    def test_right(self) -> None:
        """People with right passwords get in, each as soon as another is over."""
        begun = self.begin(10)
        for at, (session, credentials, asked) in enumerate(begun):
            self.clock.advance(0)
            if at >= 3:
                self.assertIsNone(self.successResultOf(asked))
            for _, _, later in begun[max(at + 3, 3) :]:
                self.assertNoResult(later)
            self.end(session, None, credentials.username.decode())
        self.assertNothing()

    def test_known(self) -> None:
        """Who becomes known while he waits leaves the others their turn."""
        begun = self.begin(5)
        session = Session(remoteAddress=CAFE)
        session.notes[self.policy._note] = Attempt(_loginOf(begun[3][1]), _whence(session))
        self.end(session, None, "4")
        self.policy.loginEnded(begun[0][0])
        for _ in range(2):
            self.clock.advance(0)
        for _, _, asked in begun[3:]:
            self.assertIsNone(self.successResultOf(asked))

    def test_elsewhere(self) -> None:
        """Those from another address are not in the way."""
        self.begin(3)
        self.assertIsNone(self.begin(1, OTHER)[0][2])

    def test_delayed(self) -> None:
        """Those that have waited for their delay find out then how much room there is."""
        self.policy = self.make(free=Count(2), delay=Seconds(1.0))
        self.fail("bob", CAFE, 2)
        first, *others = self.begin(5)
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(first[2]))
        for _, _, asked in others:
            self.assertNoResult(asked)
        self.end(first[0], first[1])
        for _ in others:
            self.clock.advance(0)
            self.clock.advance(0)
        for _, _, asked in others:
            self.failureResultOf(asked, Refused)
        self.assertNothing()

    def test_gone(self) -> None:
        """Who no longer waits is in nobody's way."""
        begun = self.begin(5)
        begun[3][2].cancel()
        self.failureResultOf(begun[3][2], CancelledError)
        self.policy.loginEnded(begun[0][0])
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(begun[4][2]))

    def test_again(self) -> None:
        """A session has one login under way at most."""
        session = Session(remoteAddress=CAFE)
        for _ in range(5):
            asked = self.policy.loginRequested(session, UsernamePassword(b"alice", b"x"))
            self.assertIsNone(asked)
        self.policy.loginEnded(session)
        self.assertNothing()

    def test_slowStorage(self) -> None:
        """So it is where the storage answers later; one who leaves before that calls the next."""
        asked: list[Deferred[Any]] = []
        self.policy = self.make(storage="redis://127.0.0.1:1/0", timeout=Seconds(9.0))
        self.policy._counters.start(self.clock, waitingFor(asked))
        free = [Room(1, 0, 0.0), Room(3, 0, 0.0), Room(1, 2, 9.0)]
        begun = self.begin(3)
        for answer in list(asked):
            answer.callback(free)
        self.assertIsNone(self.successResultOf(begun[0][2]))
        self.policy.loginEnded(begun[0][0])
        self.clock.advance(0)
        begun[1][2].cancel()
        self.failureResultOf(begun[1][2], CancelledError)
        self.clock.advance(0)
        asked[-1].callback(free)
        self.assertIsNone(self.successResultOf(begun[2][2]))
        self.policy.loginEnded(begun[2][0])
        self.assertNothing()


@implementer(ILoginPolicy)
class Answering:
    """Another policy at the same stage."""

    def __init__(self, answer: Any) -> None:
        self.loginRequested = answer

    def loginSucceeded(self, session: Session, avatar: Any) -> None:
        raise Refused(LOCAL_ERROR)

    def loginFailed(self, session: Session, credentials: Any, failure: Failure) -> None:
        raise Refused(LOCAL_ERROR)


class DialogueTests(ThrottleTestCase):
    """Within a conversation."""

    def talk(self, **changes: Any) -> Conversation:
        """A client that may log in."""
        submission = makeSubmission(self.clock, requireTLS=False, insecureLogin=True, **changes)
        talk = Conversation(submission)
        talk.say("EHLO client.example")
        return talk

    def test_over(self) -> None:
        """Whatever becomes of a login, it takes up room no longer than it lasts."""
        wrong, right = (
            "AUTH PLAIN " + base64.b64encode(b"\0alice\0" + word).decode()
            for word in (b"x", b"wonderland")
        )
        policies: list[Any] = [self.policy]
        for line, code in ((right, "235"), (wrong, "535"), ("AUTH PLAIN\r\n*", "334")):
            self.assertEqual(self.talk(policies=policies).say(line)[:3], code)
            self.assertEqual(self.policy._underWay, {}, line)
        policies = [self.policy, Answering(lambda *arguments: None)]
        for line in (right, wrong):
            self.assertEqual(self.talk(policies=policies).say(line)[:3], "451")
            self.assertEqual(self.policy._underWay, {}, line)
        portal = makePortal()
        portal.login = lambda *arguments: fail(LoginUnavailable())
        self.assertEqual(self.talk(policies=[self.policy], portal=portal).say(right)[:3], "454")
        self.assertEqual(self.policy._underWay, {})

    def test_left(self) -> None:
        """Nor any longer than the connection lasts."""
        portal = makePortal()
        portal.login = lambda *arguments: Deferred()
        policies = [self.policy, Answering(lambda *arguments: Deferred())]
        login = "AUTH PLAIN " + base64.b64encode(b"\0alice\0x").decode()
        for changes in ({"policies": [self.policy], "portal": portal}, {"policies": policies}):
            talk = self.talk(**changes)
            self.assertEqual(talk.say(login), "")
            self.assertEqual(len(self.policy._underWay), 1)
            talk.lose()
            self.assertEqual(self.policy._underWay, {})

    def test_waits(self) -> None:
        """The password is not even looked at before the delay; who leaves takes it along."""
        self.policy = self.make(free=Count(1), delay=Seconds(4.0))
        submission = makeSubmission(
            self.clock, policies=[self.policy], requireTLS=False, insecureLogin=True
        )
        talk = Conversation(submission)
        talk.say("EHLO client.example")
        wrong, right = (
            base64.b64encode(b"\0alice\0" + word).decode() for word in (b"x", b"wonderland")
        )
        self.assertTrue(talk.say(f"AUTH PLAIN {wrong}").startswith("535"))
        self.assertEqual(talk.say(f"AUTH PLAIN {right}", "NOOP"), "")
        self.clock.advance(4)
        self.assertEqual(
            talk.transport.taken(), b"235 2.7.0 Authentication successful\r\n250 2.0.0 Ok\r\n"
        )
        gone = Conversation(submission)
        gone.say("EHLO client.example", f"AUTH PLAIN {wrong}", f"AUTH PLAIN {wrong}")
        gone.lose()
        self.assertEqual(self.policy._waiting, 0)


class StorageTests(ThrottleTestCase):
    """When the counts are in a Redis that is away."""

    def away(self, onFailure: Any) -> LoginThrottle:
        """A policy whose Redis never answers."""
        policy = LoginThrottle(storage="redis://127.0.0.1:1/0", on_failure=onFailure)
        policy.start(self.clock, lambda *arguments: Deferred())
        return policy

    def test_open(self) -> None:
        """With "open" everybody may try."""
        policy = self.away("open")
        session, credentials = Session(remoteAddress=CAFE), UsernamePassword(b"alice", b"x")
        waiting = policy.connectionMade(session)
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertIsNone(policy.loginRequested(session, credentials))
        failed = Failure(UnauthorizedLogin())
        self.assertIsNone(policy.loginFailed(session, credentials, failed))
        policy.loginRequested(session, credentials)
        self.assertIsNone(policy.loginSucceeded(session, Submitter("alice")))

    def test_closed(self) -> None:
        """With "closed" no login is tried, 454; the connection is greeted all the same."""
        policy = self.away("closed")
        session, credentials = Session(remoteAddress=CAFE), UsernamePassword(b"alice", b"x")
        waiting = policy.connectionMade(session)
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertIsNone(policy.connectionMade(session))
        with self.assertRaises(Refused) as caught:
            policy.loginRequested(session, credentials)
        self.assertEqual(caught.exception.reply.code, 454)

    def test_closedLater(self) -> None:
        """When it goes away while a password is verified, the answer to that stays as it is."""
        policy = self.make(storage="redis://127.0.0.1:1/0", on_failure="closed")
        policy.start(self.clock, lambda *arguments: Deferred())
        session, credentials = Session(remoteAddress=CAFE), UsernamePassword(b"alice", b"x")
        asked = policy.loginRequested(session, credentials)
        waiting = policy.loginFailed(session, credentials, Failure(UnauthorizedLogin()))
        self.clock.advance(1)
        self.failureResultOf(asked, Refused)
        self.assertIsNone(self.successResultOf(waiting))
        credentials = UsernamePassword(b"alice", b"y")
        self.assertRaises(Refused, policy.loginRequested, session, credentials)
        again = policy.loginFailed(session, credentials, Failure(UnauthorizedLogin()))
        self.assertIsNone(again)


class ConfigurationTests(SynchronousTestCase):
    """Its keys."""

    def test_mistakes(self) -> None:
        """Each mistake has its key."""
        keys: dict[str, Any] = {"per_address": "10", "max_delay": "1 min", "remember": 0}
        keys |= {"storage": "x", "except_from": ["192.0.2.1/24"]}
        for name, value in keys.items():
            _, findings = Component("login-throttle", {name: value}).make(
                policies.REGISTRY, "policy[0]"
            )
            self.assertEqual(len(findings), 1, name)
            self.assertTrue(str(findings[0]).startswith("policy[0]"), findings)

    def test_check(self) -> None:
        """A URL that cannot be is a mistake before the start."""
        [said] = LoginThrottle(storage="redis://host:port").check()
        self.assertTrue(said.startswith("storage: "), said)
