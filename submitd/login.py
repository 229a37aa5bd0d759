"""One login: from what a mechanism has made to 235 or a refusal (RFC 4954).

The mechanism turns responses into credentials, the Portal turns credentials into an avatar, and
this file turns either into replies.  Every way in which a login can be wrong has the same 535
(rule 5); a checker that cannot tell is 454, so that no client throws its password away because a
data base is down.  Credentials never reach a log.
"""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, TimeoutError, maybeDeferred
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory
from twisted.python.failure import Failure

from submitd import events
from submitd.interfaces import (
    IExchange,
    IFailureChallenge,
    IQuestion,
    ISubmitter,
    ISuccessChallenge,
)
from submitd.sasl.credentials import malformed
from submitd.states import State
from submitd.twistedmail import adaptAvatar
from submitd.waiting import promised, runNow
from submitd.wire.base64text import decodeBase64
from submitd.wire.errors import Refused
from submitd.wire.reply import (
    BAD_BASE64,
    LOGIN_CANCELLED,
    LOGIN_FAILED,
    LOGIN_OK,
    LOGIN_UNAVAILABLE,
    TOO_MANY_LOGIN_FAILURES,
    Reply,
)

_AVATARS = (ISubmitter, IMessageDeliveryFactory, IMessageDelivery)

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue, Outcome


def decode(response: bytes) -> bytes:
    """A response's octets.

    :raise Refused: for anything but their one form in base64.
    """
    try:
        return decodeBase64(response)
    except ValueError:
        raise Refused(BAD_BASE64) from None


@attrs.define(eq=False)
class Login:
    """One login, from its mechanism's name to 235 or a refusal.

    :param name: of the mechanism, for the session and the log.
    :param exchange: ``None`` where the credentials are there already (XCLIENT, byaddress.py).
    """

    dialogue: Dialogue
    name: str
    exchange: IExchange | None = None
    _isProving: bool = attrs.field(init=False, default=False)

    def respond(self, response: bytes | None) -> Outcome:
        """Give the exchange a response: the outcome is a challenge or the end of a login."""
        assert self.exchange is not None
        result = self.exchange.respond(response)
        if isinstance(result, bytes):
            return self._challenge(result, self._responseReceived)
        if IQuestion.providedBy(result):
            return runNow(self._ask(result))
        return runNow(self.finish(result))

    async def _ask(self, question: Any) -> Reply:
        """Have the checker asked what the exchange wants to know, and give its challenge."""
        dialogue, portal = self.dialogue, self.dialogue.submission.portal
        assert portal is not None
        try:
            checker = portal.checkers[question.credentialsInterface]
            challenge = await dialogue.rules.limited(maybeDeferred(question.ask, checker))
        except Refused:
            raise
        except Exception as error:
            self._cannotTell(error)
        return self._challenge(challenge, self._responseReceived)

    def _challenge(self, challenge: bytes, continuation: Any) -> Reply:
        if self.dialogue.state is State.CLOSED:
            raise CancelledError  # a checker that was told to give up has gone on
        self.dialogue.continuation = continuation
        self.dialogue.state = State.AUTH
        return Reply(334, "", base64.b64encode(challenge).decode("ascii"))

    def _responseReceived(self, line: bytes) -> Outcome:
        if line == b"*":
            raise Refused(LOGIN_CANCELLED)
        return self.respond(decode(line))

    async def finish(self, credentials: Any) -> Reply:
        """Log in with these credentials.

        :return: 235, or one more challenge before it or before a refusal.
        :raise Refused: for whatever is in the way.
        """
        self.dialogue.session.mechanismTried = self.name
        try:
            return await self._finish(credentials)
        finally:  # CancelledError too: a policy that has begun something ends it, whatever came
            if not self._isProving:
                self._tellEnded()

    def _tellEnded(self) -> None:
        dialogue = self.dialogue
        dialogue.rules.pipeline.loginEnded.tell(dialogue.session, failed=dialogue.failedToHear)

    async def _finish(self, credentials: Any) -> Reply:
        dialogue, session = self.dialogue, self.dialogue.session
        requested = dialogue.pipeline.loginRequested.run(session, credentials)
        if requested is not None:
            await requested
        try:
            avatar, logout = await self._login(credentials)
        except UnauthorizedLogin:
            return await self._failed(credentials, Failure())
        except Refused as refused:
            if not refused.reply.isTransient:  # a checker with words of its own for a wrong login
                await self._count(credentials, Failure())
                if self._isLast:
                    raise Refused(TOO_MANY_LOGIN_FAILURES, refused.cause) from None
            raise
        except Exception as error:
            self._cannotTell(error)
        exchange: Any = self.exchange
        if ISuccessChallenge.providedBy(exchange):
            return self._prove(exchange, avatar, logout)
        return await self._succeeded(avatar, logout)

    def _prove(self, exchange: Any, avatar: ISubmitter, logout: Any) -> Reply:
        """Show the client that this is its server: until it agrees, it has not logged in.

        Whatever comes in place of that, the end of the connection or a line that is too long too,
        has the dialogue call ``logout``.
        """
        dialogue = self.dialogue
        try:
            if dialogue.state is State.CLOSED:
                raise CancelledError
            challenge = exchange.loginSucceeded()
        except BaseException:
            dialogue.letGo(logout)
            raise

        def leave() -> None:
            dialogue.letGo(logout)
            self._tellEnded()

        self._isProving = True
        dialogue.logout = leave
        return self._challenge(challenge, partial(self._acknowledged, avatar, logout))

    def _acknowledged(self, avatar: ISubmitter, logout: Any, line: bytes) -> Outcome:
        if line:
            self.dialogue.logOut()
            raise Refused(LOGIN_CANCELLED) if line == b"*" else malformed("nothing was asked for")
        self.dialogue.logout = None
        return runNow(self._enter(avatar, logout))

    async def _enter(self, avatar: ISubmitter, logout: Any) -> Reply:
        try:
            return await self._succeeded(avatar, logout)
        finally:
            self._tellEnded()

    async def _login(self, credentials: Any) -> tuple[ISubmitter, Any]:
        dialogue, portal = self.dialogue, self.dialogue.submission.portal
        assert portal is not None
        identity = _otherIdentity(credentials)
        if identity and not dialogue.pipeline.identity:
            raise UnauthorizedLogin("nobody may act as somebody else: no policy says so")
        login = portal.login(credentials, dialogue.session, *_AVATARS).addCallback(promised)
        made = await dialogue.rules.limited(login)
        avatar, logout = self._submitter(made, _usernameOf(credentials))
        return await self._become(identity, avatar, logout) if identity else (avatar, logout)

    async def _become(
        self, identity: bytes, avatar: ISubmitter, logout: Any
    ) -> tuple[ISubmitter, Any]:
        """Act as somebody else, where the policies let this avatar."""
        dialogue, portal = self.dialogue, self.dialogue.submission.portal
        assert portal is not None
        name = identity.decode("utf-8")
        try:
            allowed = dialogue.pipeline.identity.run(dialogue.session, avatar, name)
            if allowed is not None:
                await allowed
            other = portal.realm.requestAvatar(identity, dialogue.session, *_AVATARS)
            made = await dialogue.rules.limited(maybeDeferred(lambda: other))
            return self._submitter(made, identity)
        finally:
            dialogue.letGo(logout)

    def _submitter(self, avatar: tuple[Any, Any, Any], username: bytes) -> tuple[ISubmitter, Any]:
        """What a realm gave, as our kind of avatar.

        :raise TypeError: for what is none; it may hold anything, so its kind alone is told.
        """
        interface, aspect, logout = avatar
        if interface is not ISubmitter:
            aspect = adaptAvatar(interface, aspect, username.decode("utf-8", "replace"))
        if not hasattr(aspect, "avatarId"):  # the one thing that the dialogue itself cannot miss
            self.dialogue.letGo(logout)
            raise TypeError(
                f"the realm's avatar, a {type(aspect).__name__}, has no avatarId:"
                " it is no ISubmitter"
            )
        return aspect, logout

    async def _succeeded(self, avatar: ISubmitter, logout: Any) -> Reply:
        dialogue, session = self.dialogue, self.dialogue.session
        try:
            accepted = dialogue.pipeline.loginSucceeded.run(session, avatar)
            if accepted is not None:
                await accepted
            if dialogue.state is State.CLOSED:
                raise CancelledError  # somebody who was told to give up has gone on
        except BaseException:  # CancelledError too: the client went while a policy was waited for
            dialogue.letGo(logout)
            raise
        dialogue.join(avatar)
        session.mechanism = self.name
        dialogue.logout = logout
        events.emit(
            events.LOGIN_SUCCEEDED,
            session=session.id,
            peer=session.remoteAddress,
            user=avatar.avatarId,
            mechanism=self.name,
            secure=session.tls.version if session.tls is not None else None,
        )
        return LOGIN_OK

    async def _failed(self, credentials: Any, failure: Failure) -> Reply:
        await self._count(credentials, failure)
        if self.exchange is not None and IFailureChallenge.providedBy(self.exchange):
            challenge = self.exchange.loginFailed(failure)
            return self._challenge(challenge, self._failureAcknowledged)
        cause = str(failure.value) or type(failure.value).__name__
        raise Refused(self._failureReply(), cause)

    async def _count(self, credentials: Any, failure: Failure) -> None:
        """Count a failed login, and tell the policies, whose refusal goes before ours."""
        dialogue, session = self.dialogue, self.dialogue.session
        session.loginFailures += 1
        events.emit(
            events.LOGIN_FAILED,
            session=session.id,
            peer=session.remoteAddress,
            user=_usernameOf(credentials),
            mechanism=self.name,
            cause=str(failure.value),
        )
        objection = dialogue.pipeline.loginFailed.run(session, credentials, failure)
        if objection is not None:
            await objection

    def _failureAcknowledged(self, line: bytes) -> Outcome:
        raise Refused(self._failureReply())

    @property
    def _isLast(self) -> bool:
        """Whether there have been as many failures as a connection may have."""
        limit = self.dialogue.submission.limits.loginFailures
        return 0 < limit <= self.dialogue.session.loginFailures

    def _failureReply(self) -> Reply:
        return TOO_MANY_LOGIN_FAILURES if self._isLast else LOGIN_FAILED

    def _cannotTell(self, error: Exception) -> NoReturn:
        """Refuse where a checker has said neither yes nor no."""
        if isinstance(error, TimeoutError):
            # Ours or its own: nothing that a traceback would explain.
            raise Refused(LOGIN_UNAVAILABLE, f"the checker: {error}") from None
        if self.dialogue.state is State.CLOSED:
            raise error  # the client went, which is what cancelled it: nothing to be logged
        events.emit(
            events.POLICY_FAILED,
            session=self.dialogue.session.id,
            origin=f"login by {self.name}",
            failure=Failure(error),
        )
        raise Refused(LOGIN_UNAVAILABLE, f"{type(error).__name__} in the checker")


def _otherIdentity(credentials: Any) -> bytes:
    """Whom PLAIN or SCRAM asks to act as (RFC 4616 2), if not who logs in; else empty."""
    identity: bytes = getattr(credentials, "authorizationId", b"")
    return b"" if identity == _usernameOf(credentials) else identity


def _usernameOf(credentials: Any) -> bytes:
    """The name that is tried; empty where a mechanism's own credentials have none."""
    username: bytes = getattr(credentials, "username", b"")
    return username
