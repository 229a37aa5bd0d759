"""A short memory of good logins in front of a checker, for passwords alone.

A mail program that logs in for each message would cost a password hash each time.  A good login is
remembered for some minutes (memory.py), by user name and password.  All are forgotten as soon as
the checker's ``revision()`` changes, so that a removed user is out at once.  A checker that cannot
tell (it does not provide ``IRevised``) is believed for the time of an entry.

Logins with the same credentials at the same time share one verification.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId
from submitd.checkers.memory import Memory
from submitd.interfaces import IChecked, IRevised, IRunning, IScramSalts


@implementer(ICredentialsChecker, IChecked, IRevised, IRunning, IScramSalts)
class CachedChecker:
    """Remembers the good logins of a checker for a short time.

    :param checker: who is asked.
    :param clock: what tells the time.
    :param seconds: how long a login is remembered.
    :param size: how many are remembered at most.
    """

    def __init__(
        self,
        checker: ICredentialsChecker,
        clock: IReactorTime,
        seconds: float = 300.0,
        size: int = 10_000,
    ) -> None:
        self.credentialInterfaces: tuple[type[Interface], ...] = tuple(checker.credentialInterfaces)
        self._checker = checker
        self._lasts = seconds
        self._revision: object = None
        self._memory: Memory[AvatarId] = Memory(clock, size)

    def check(self) -> list[str]:
        """What is wrong with the checker."""
        return self._checker.check() if IChecked.providedBy(self._checker) else []

    def revision(self) -> object:
        """The checker's."""
        return self._checker.revision() if IRevised.providedBy(self._checker) else None

    def start(self, reactor: Any) -> Deferred[None]:
        """Start the checker, where it runs."""
        checker: Any = self._checker
        return checker.start(reactor) if IRunning.providedBy(checker) else succeed(None)

    def stop(self) -> Deferred[None]:
        """Stop it."""
        checker: Any = self._checker
        return checker.stop() if IRunning.providedBy(checker) else succeed(None)

    def saltOf(self, username: bytes) -> Deferred[Any]:
        """The checker's."""
        return maybeDeferred(lambda: IScramSalts(self._checker).saltOf(username))

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """What the checker says, or said a short time ago."""
        if not IUsernamePassword.providedBy(credentials):
            return maybeDeferred(self._checker.requestAvatarId, credentials)
        self._forgetIfRevised()
        return self._memory.answer(
            (credentials.username, credentials.password),
            lambda: self._checker.requestAvatarId(credentials),
            self._stillLasts,
        )

    def _stillLasts(self, avatarId: AvatarId) -> float:
        # The file may have changed while a hash was computed.
        self._forgetIfRevised()
        return self._lasts

    def _forgetIfRevised(self) -> None:
        revision = self.revision()
        if revision != self._revision:
            self._revision = revision
            # Who comes now must not be let in by the users of before, either.
            self._memory.forget()
