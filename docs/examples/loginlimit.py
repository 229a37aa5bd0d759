"""A policy: an address that fails to log in too often is turned away at the greeting.

In the configuration::

    [[policy]]
    use = "loginlimit:LoginLimit"
    failures = 10
    period = "10 min"
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.interfaces import IConnectionPolicy, ILoginPolicy, ISubmitter
from submitd.session import Session
from submitd.typed import Count, Seconds
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

TOO_MANY = Reply(421, "4.7.0", "Too many failed logins, try again later")


@implementer(IConnectionPolicy, ILoginPolicy)
@attrs.define(eq=False)
class LoginLimit:
    """Counts failed logins by address.

    :param failures: how many an address may have.
    :param period: seconds after which the count begins anew, so that what is kept stays bounded.
    :ivar now: tells the time; tests set their own.
    """

    failures: Count = attrs.field(
        default=Count(10), metadata={"help": "Failed logins that an address may have."}
    )
    period: Seconds = attrs.field(
        default=Seconds(600.0), metadata={"help": "How long they are remembered."}
    )
    now: Callable[[], float] = attrs.field(default=time.monotonic, init=False)
    _failed: Counter[str] = attrs.field(factory=Counter, init=False)
    _until: float = attrs.field(default=0.0, init=False)

    def connectionMade(self, session: Session) -> None:
        """Greet, or say goodbye.

        :raise Refused: 421 4.7.0.
        """
        self._forget()
        if self._failed[session.remoteAddress] >= self.failures:
            raise Refused(TOO_MANY, "failed logins from this address")

    def loginRequested(self, session: Session, credentials: Any) -> None:
        """The same for logins over connections that were greeted before, so none is a way around.

        :raise Refused: 421 4.7.0.
        """
        self.connectionMade(session)

    def loginSucceeded(self, session: Session, avatar: ISubmitter) -> None:
        """Begin anew."""
        del self._failed[session.remoteAddress]

    def loginFailed(self, session: Session, credentials: Any, failure: Failure) -> None:
        """Count, and leave the reply to the service."""
        self._failed[session.remoteAddress] += 1

    def _forget(self) -> None:
        if self.now() >= self._until:
            self._until = self.now() + self.period
            self._failed.clear()
