"""A short memory of good logins in front of a checker, for passwords alone.

A mail program that logs in for each message would cost a password hash each time.  Kept is a keyed
digest of user name and password (the key lives as long as the process), never either of them, and
only after a login that succeeded: guessing stays as slow as it was.  An entry lasts some minutes
from the login that was verified, the oldest go when there are too many, and all go as soon as the
checker's ``revision()`` changes, so that a removed user is out at once.  A checker that cannot tell
(it does not provide ``IRevised``) is believed for the time of an entry.

Logins with the same credentials at the same time share one verification.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId
from submitd.interfaces import IChecked, IRevised


@attrs.frozen
class _Known:
    """A login that was verified, and until when that counts, in the clock's seconds."""

    avatarId: AvatarId
    until: float


@attrs.define(eq=False)
class _Verification:
    """A question to the checker, and who waits for its answer."""

    waiting: list[Deferred[AvatarId]] = attrs.field(factory=list)
    verified: Deferred[Any] | None = None

    def leave(self, answer: Deferred[AvatarId]) -> None:
        """One does not wait any more; a question for nobody would be joined by all who come."""
        self.waiting.remove(answer)
        if not self.waiting and self.verified is not None:
            self.verified.cancel()


@implementer(ICredentialsChecker, IChecked, IRevised)
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
        self._clock = clock
        self._lasts = seconds
        self._size = size
        self._key = os.urandom(32)
        self._revision: object = None
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._waiting: dict[bytes, _Verification] = {}

    def check(self) -> list[str]:
        """What is wrong with the checker."""
        return self._checker.check() if IChecked.providedBy(self._checker) else []

    def revision(self) -> object:
        """The checker's."""
        return self._checker.revision() if IRevised.providedBy(self._checker) else None

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """What the checker says, or said a short time ago."""
        if not IUsernamePassword.providedBy(credentials):
            return maybeDeferred(self._checker.requestAvatarId, credentials)
        self._forgetIfRevised()
        digest = self._digestOf(credentials.username, credentials.password)
        known = self._known.get(digest)
        if known is not None and self._clock.seconds() < known.until:
            self._known.move_to_end(digest)
            return succeed(known.avatarId)
        return self._verify(digest, credentials)

    def _forgetIfRevised(self) -> None:
        revision = self.revision()
        if revision != self._revision:
            self._revision = revision
            self._known.clear()
            # Who comes now must not be let in by the users of before: those already waiting get
            # their answer, but nobody joins them.
            self._waiting = {}

    def _digestOf(self, username: bytes, password: bytes) -> bytes:
        # The length in front keeps ("ab", "c") from being ("a", "bc").
        length = len(username).to_bytes(8, "big")
        return hashlib.blake2b(length + username + password, key=self._key).digest()

    def _verify(self, digest: bytes, credentials: Any) -> Deferred[AvatarId]:
        round_ = self._waiting
        verification = round_.setdefault(digest, _Verification())
        answer: Deferred[AvatarId] = Deferred(verification.leave)
        verification.waiting.append(answer)
        if len(verification.waiting) == 1:
            verified = maybeDeferred(self._checker.requestAvatarId, credentials)
            verified.addCallback(self._remember, digest, self._revision)
            verified.addBoth(self._tell, digest, round_)
            verification.verified = verified
        return answer

    def _remember(self, avatarId: AvatarId, digest: bytes, revision: object) -> AvatarId:
        # The file may have changed while a hash was computed.
        self._forgetIfRevised()
        if revision == self._revision:
            self._known[digest] = _Known(avatarId, self._clock.seconds() + self._lasts)
            self._known.move_to_end(digest)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return avatarId

    def _tell(
        self,
        result: AvatarId | Failure,
        digest: bytes,
        round_: dict[bytes, _Verification],
    ) -> None:
        for answer in round_.pop(digest).waiting:
            answer.callback(result)
