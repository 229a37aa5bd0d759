"""The policies, sorted into stages once, at start.

A :class:`Stage` knows which policies take part in it, in the order of the configuration; the
avatar, where it provides the stage's interface, comes last.  The first refusal wins.  A stage in
which nobody waits is a plain loop and returns ``None``: a Deferred costs as much as the command
that it would answer.  A policy that fails in any other way than by refusing, or that takes too
long, is a refusal with 451 4.3.0: a stage fails closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import providedBy
from zope.interface.interface import InterfaceClass

from submitd.interfaces import (
    IConnectionPolicy,
    IDataPolicy,
    IDisconnectObserver,
    IHeaderPolicy,
    IHelloPolicy,
    IIdentityPolicy,
    ILoginObserver,
    ILoginPolicy,
    IMessagePolicy,
    IRecipientPolicy,
    ISecurePolicy,
    ISenderPolicy,
)
from submitd.session import Session
from submitd.waiting import asDeferred
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR

Call = Callable[..., Any]

# How many of a session's waits are remembered.
_WAITS = 10


class Stage:
    """One stage of the dialogue and the policies that take part in it.

    :param name: as logs show it.
    :param limit: seconds one policy may take; 0 for no limit.
    """

    __slots__ = ("_calls", "_clock", "_limit", "_method", "_policies", "name")

    def __init__(
        self,
        name: str,
        interface: InterfaceClass,
        method: str,
        policies: Sequence[Any],
        clock: IReactorTime,
        limit: float,
    ) -> None:
        self.name = name
        self._method = method
        self._clock = clock
        self._limit = limit
        self._policies = tuple(policy for policy in policies if interface.providedBy(policy))
        self._calls = tuple(self._named(policy) for policy in self._policies)

    def _named(self, policy: Any) -> tuple[str, Call]:
        name = getattr(policy, "name", None) or type(policy).__name__
        return (f"{name} at {self.name}", getattr(policy, self._method))

    def __bool__(self) -> bool:
        return bool(self._calls)

    def run(self, session: Session, *arguments: Any) -> Deferred[None] | None:
        """Ask each policy in turn.

        :return: ``None`` when none objects, or a Deferred that fires so.
        :raise Refused: at the first objection.
        """
        calls = self._calls
        if not calls:
            return None
        for at, (origin, call) in enumerate(calls):
            try:
                waiting = call(session, *arguments)
            except Refused as refused:
                refused.origin = origin
                raise
            if waiting is not None:
                rest = self._rest(origin, asDeferred(waiting), calls[at + 1 :], session, arguments)
                return Deferred.fromCoroutine(rest)
        return None

    async def _rest(
        self,
        origin: str,
        waiting: Deferred[Any],
        calls: tuple[tuple[str, Call], ...],
        session: Session,
        arguments: tuple[Any, ...],
    ) -> None:
        await self._verdict(session, origin, waiting)
        await self._each(calls, session, arguments)

    async def behind(self, policy: Any, session: Session, *arguments: Any) -> None:
        """Ask each policy behind one of them, in turn.

        :raise Refused: at the first objection.
        :raise TypeError: for what is no policy of this stage: nobody could tell who is behind it.
        """
        for at, each in enumerate(self._policies, 1):
            if each is policy:
                return await self._each(self._calls[at:], session, arguments)
        raise TypeError(f"{policy!r} takes no part at {self.name}")

    async def _each(
        self, calls: tuple[tuple[str, Call], ...], session: Session, arguments: tuple[Any, ...]
    ) -> None:
        for following, call in calls:
            try:
                result = call(session, *arguments)
            except Refused as refused:
                refused.origin = following
                raise
            if result is not None:
                await self._verdict(session, following, asDeferred(result))

    async def _verdict(self, session: Session, origin: str, waiting: Deferred[Any]) -> None:
        if self._limit:
            waiting.addTimeout(self._limit, self._clock)
        began = self._clock.seconds()
        try:
            result = await waiting
        except Refused as refused:
            refused.origin = origin
            raise
        except TimeoutError:
            raise self._late(origin) from None
        finally:
            seconds = self._clock.seconds() - began
            session.waits = (*session.waits[1 - _WAITS :], (origin, seconds))
        if result is not None:
            raise TypeError(f"{origin} answered {type(result).__name__} where None is consent")

    def _late(self, origin: str) -> Refused:
        refused = Refused(LOCAL_ERROR, f"no verdict within {self._limit:g} s")
        refused.origin = origin
        return refused

    def tell(
        self, session: Session, *arguments: Any, failed: Callable[[str, Failure], None]
    ) -> None:
        """Call each observer; none can object, and none keeps the next from being called.

        Nobody waits for one that takes its time, but it is run to its end.

        :param failed: called with the origin and the failure of one that raised.
        """
        for origin, call in self._calls:
            maybeDeferred(call, session, *arguments).addErrback(partial(failed, origin))


class Pipeline:
    """All stages, each with the policies that take part in it.

    :param policies: objects that provide any of the stage interfaces.
    :param clock: for the time limit.
    :param limit: seconds one policy may take at one stage; 0 for no limit.
    :param make: makes each stage.
    """

    def __init__(
        self,
        policies: Sequence[Any],
        clock: IReactorTime,
        limit: float,
        make: Callable[..., Stage] = Stage,
    ) -> None:
        self._policies = tuple(policies)
        self._made = (clock, limit, make)
        self._interfaces: set[InterfaceClass] = set()

        def stage(name: str, interface: InterfaceClass, method: str) -> Stage:
            self._interfaces.add(interface)
            return make(name, interface, method, policies, clock, limit)

        self.connection = stage("connection", IConnectionPolicy, "connectionMade")
        self.hello = stage("hello", IHelloPolicy, "helloReceived")
        self.secure = stage("secure", ISecurePolicy, "handshakeCompleted")
        self.loginRequested = stage("login", ILoginPolicy, "loginRequested")
        self.loginSucceeded = stage("login", ILoginPolicy, "loginSucceeded")
        self.loginFailed = stage("login", ILoginPolicy, "loginFailed")
        self.identity = stage("identity", IIdentityPolicy, "identityRequested")
        self.loginEnded = stage("login", ILoginObserver, "loginEnded")
        self.sender = stage("sender", ISenderPolicy, "validateFrom")
        self.recipient = stage("recipient", IRecipientPolicy, "validateTo")
        self.data = stage("data", IDataPolicy, "dataRequested")
        self.header = stage("header", IHeaderPolicy, "headerReceived")
        self.message = stage("message", IMessagePolicy, "messageReceived")
        self.close = stage("close", IDisconnectObserver, "connectionLost")

    def joinedBy(self, user: object) -> Pipeline:
        """The pipeline of somebody who has logged in: the avatar runs last in its stages."""
        if self._interfaces.isdisjoint(providedBy(user).flattened()):
            return self
        return Pipeline((*self._policies, user), *self._made)
