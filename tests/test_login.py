"""Tests for what an exchange of :mod:`submitd.login` can do besides challenges."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer

from submitd.checkers import LoginUnavailable
from submitd.interfaces import (
    IExchange,
    ILoginObserver,
    ILoginPolicy,
    IMechanism,
    IMechanismAmong,
    IQuestion,
    ISubmitter,
    ISuccessChallenge,
)
from submitd.realm import SubmissionRealm
from submitd.sasl import mechanism
from submitd.wire.errors import Refused
from submitd.wire.reply import LOGIN_UNAVAILABLE
from tests.fixtures import Conversation, makeSubmission


class IRiddle(Interface):
    """Credentials: the answer to a riddle."""


@implementer(IRiddle)
class Riddle:
    """One such."""

    username = b"alice"

    def __init__(self, answer: bytes) -> None:
        self.answer = answer


@implementer(IMechanism, IExchange, IMechanismAmong, ISuccessChallenge)
class Riddles:
    """Gives a riddle that the checker knows, and says a word of thanks behind it."""

    name = "X-RIDDLE"
    credentialsInterface = IRiddle
    needsTLS = True

    def __init__(self) -> None:
        self.names: list[str] = []
        self.thanks: Any = lambda: b"thanks"

    def among(self, names: Any) -> Any:
        self.names = list(names)
        return self

    def server(self, hostname: str) -> Any:
        return self

    def respond(self, response: bytes | None) -> Any:
        return Question() if response is None else Riddle(response)

    def loginSucceeded(self) -> bytes:
        thanked: bytes = self.thanks()
        return thanked


@implementer(IQuestion)
class Question:
    """Asks for the riddle."""

    credentialsInterface = IRiddle

    def ask(self, checker: Any) -> Any:
        return checker.riddle()


class Checker:
    """Knows one riddle, and its answer.

    :ivar riddle: gives it.
    """

    credentialInterfaces = (IRiddle,)

    def __init__(self) -> None:
        self.riddle: Any = lambda: succeed(b"What has a neck but no head?")

    def requestAvatarId(self, credentials: Any) -> Any:
        if credentials.answer != b"a bottle":
            return fail(UnauthorizedLogin())
        return succeed(b"alice")


class Realm:
    """Counts who is in.

    :ivar left: whose logout has been called.
    """

    def __init__(self) -> None:
        self.left: list[str] = []

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        interface, avatar, _ = SubmissionRealm().requestAvatar(avatarId, mind, *interfaces)

        async def logout() -> None:
            self.left.append(avatar.avatarId)

        return interface, avatar, logout


@implementer(ILoginPolicy, ILoginObserver)
class Watching:
    """Takes down what is said of a login."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.verdict: Any = lambda: None

    def loginRequested(self, session: Any, credentials: Any) -> None:
        self.seen.append("requested")

    def loginSucceeded(self, session: Any, avatar: ISubmitter) -> Any:
        self.seen.append("succeeded")
        return self.verdict()

    def loginFailed(self, session: Any, credentials: Any, failure: Any) -> None:
        self.seen.append("failed")

    def loginEnded(self, session: Any) -> None:
        self.seen.append("ended")


# What has a neck but no head?
CHALLENGE = "334 V2hhdCBoYXMgYSBuZWNrIGJ1dCBubyBoZWFkPw=="
ANSWER = "YSBib3R0bGU="
WRONG = "YSBnbGFzcw=="
THANKS = "334 dGhhbmtz"


class ExchangeTestCase(SynchronousTestCase):
    """A conversation in which riddles are asked."""

    def setUp(self) -> None:
        """Be greeted."""
        self.clock = Clock()
        self.checker, self.realm, self.policy = Checker(), Realm(), Watching()
        self.mechanism = Riddles()
        submission = makeSubmission(
            self.clock,
            requireTLS=False,
            insecureLogin=True,
            portal=Portal(self.realm, [self.checker]),
            mechanisms=[mechanism("PLAIN"), self.mechanism],
            policies=[self.policy],
        )
        self.talk = Conversation(submission)
        self.talk.say("EHLO c")

    @property
    def user(self) -> Any:
        """Who is logged in."""
        return self.talk.protocol.dialogue.session.user


class AmongTests(ExchangeTestCase):
    """:class:`submitd.interfaces.IMechanismAmong`."""

    def test_names(self) -> None:
        """It is told what EHLO lists: what no checker can verify is not."""
        self.talk.say("AUTH X-RIDDLE")
        self.assertEqual(self.mechanism.names, ["X-RIDDLE"])


class QuestionTests(ExchangeTestCase):
    """:class:`submitd.interfaces.IQuestion`."""

    def test_asked(self) -> None:
        """The checker's answer makes the challenge, and no policy is asked before credentials."""
        self.assertEqual(self.talk.say("AUTH X-RIDDLE"), CHALLENGE)
        self.assertEqual(self.policy.seen, [])

    def test_later(self) -> None:
        """The checker may take its time; nothing pipelined overtakes."""
        waiting: list[Any] = []
        self.checker.riddle = lambda: waiting.append(Deferred()) or waiting[-1]
        self.assertEqual(self.talk.say("AUTH X-RIDDLE", ANSWER), "")
        waiting[0].callback(b"?")
        self.assertEqual(self.talk.transport.taken(), b"334 Pw==\r\n" + THANKS.encode() + b"\r\n")

    def test_coroutine(self) -> None:
        """The question may be answered by a coroutine."""

        async def riddle() -> bytes:
            return b"?"

        self.checker.riddle = riddle
        self.assertEqual(self.talk.say("AUTH X-RIDDLE"), "334 Pw==")

    def test_unavailable(self) -> None:
        """A checker that cannot tell is 454, and so is one that breaks, which is logged."""
        self.checker.riddle = lambda: fail(LoginUnavailable("gone"))
        self.assertEqual(self.talk.say("AUTH X-RIDDLE")[:9], "454 4.7.0")
        self.assertEqual(self.flushLoggedErrors(), [])
        self.checker.riddle = lambda: 1 // 0
        self.assertEqual(self.talk.say("AUTH X-RIDDLE")[:9], "454 4.7.0")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.talk.say("NOOP")[:3], "250")

    def test_hangs(self) -> None:
        """One that hangs is 454 after the limit of a stage."""
        self.checker.riddle = Deferred
        self.assertEqual(self.talk.say("AUTH X-RIDDLE"), "")
        self.clock.advance(60)
        self.assertEqual(self.talk.transport.taken()[:9], b"454 4.7.0")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_gone(self) -> None:
        """A client that goes is not waited for, whether the checker gives up or not."""
        for cancel in (None, lambda asked: asked.callback(b"?")):
            self.setUp()
            self.checker.riddle = partial(Deferred, cancel)
            self.talk.say("AUTH X-RIDDLE")
            self.talk.lose()
            self.assertIsNone(self.talk.protocol.dialogue.continuation)
            self.assertEqual(self.flushLoggedErrors(), [])


class SuccessChallengeTests(ExchangeTestCase):
    """:class:`submitd.interfaces.ISuccessChallenge`."""

    def prove(self) -> None:
        """Come as far as the last word of the server."""
        self.talk.say("AUTH X-RIDDLE")
        self.assertEqual(self.talk.say(ANSWER), THANKS)
        self.assertIsNone(self.user)
        self.assertEqual(self.policy.seen, ["requested"])

    def test_acknowledged(self) -> None:
        """The client is in once it has answered; policies hear of it then."""
        self.prove()
        self.assertEqual(self.talk.say("")[:9], "235 2.7.0")
        self.assertEqual(self.user.avatarId, "alice")
        self.assertEqual(self.policy.seen, ["requested", "succeeded", "ended"])
        self.talk.lose()
        self.assertEqual(self.realm.left, ["alice"])

    def test_failed(self) -> None:
        """A login that fails has no last word."""
        self.talk.say("AUTH X-RIDDLE")
        self.assertEqual(self.talk.say(WRONG)[:9], "535 5.7.8")
        self.assertEqual(self.policy.seen, ["requested", "failed", "ended"])

    def assertOut(self) -> None:
        """Nobody is in, and all who were told of the login know that it is over, once."""
        self.assertIsNone(self.user)
        self.assertEqual(self.realm.left, ["alice"])
        self.assertEqual(self.policy.seen, ["requested", "ended"])

    def test_notAcknowledged(self) -> None:
        """Who cancels, or says something else, or too much, is not logged in."""
        long = "A" * 13000
        for said, reply in (("*", "501 5.7.0"), ("QQ==", "501 5.5.2"), (long, "500 5.5.6")):
            self.setUp()
            self.prove()
            self.assertEqual(self.talk.say(said)[:9], reply)
            self.assertOut()
            self.assertEqual(self.talk.say("NOOP")[:3], "250")
            self.talk.lose()
            self.assertOut()

    def test_tooLongForTheDialogue(self) -> None:
        """The same where a line is handed in whole."""
        self.prove()
        outcome: Any = self.talk.protocol.dialogue.lineReceived(b"A" * 13000)
        self.assertEqual(outcome.code, 500)
        self.assertOut()

    def test_gone(self) -> None:
        """Nor is who goes, or takes too long."""
        self.prove()
        self.talk.lose()
        self.assertOut()

    def test_refused(self) -> None:
        """A policy may still refuse, behind the last word."""

        def refuse() -> None:
            raise Refused(LOGIN_UNAVAILABLE)

        self.policy.verdict = refuse
        self.prove()
        self.assertEqual(self.talk.say("")[:9], "454 4.7.0")
        self.assertIsNone(self.user)
        self.assertEqual(self.realm.left, ["alice"])
        self.assertEqual(self.policy.seen, ["requested", "succeeded", "ended"])

    def test_broken(self) -> None:
        """An exchange that has nothing to say lets nobody in."""
        self.mechanism.thanks = lambda: 1 // 0
        self.talk.say("AUTH X-RIDDLE")
        self.assertEqual(self.talk.say(ANSWER)[:9], "451 4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertOut()
