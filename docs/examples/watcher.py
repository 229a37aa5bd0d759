"""A policy that only looks: who is connected now, and why the others went."""

from __future__ import annotations

import attrs
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.interfaces import IConnectionPolicy, IDisconnectObserver
from submitd.session import Session


@implementer(IConnectionPolicy, IDisconnectObserver)
@attrs.define(eq=False)
class Watcher:
    """Keeps the sessions of those who are connected.

    :ivar present: session id -> session.
    :ivar gone: session id and reason, in the order of going.
    """

    present: dict[str, Session] = attrs.field(factory=dict)
    gone: list[tuple[str, str]] = attrs.field(factory=list)

    def connectionMade(self, session: Session) -> None:
        """A connection comes."""
        self.present[session.id] = session

    def connectionLost(self, session: Session, reason: Failure) -> None:
        """A connection is gone; one that was turned away before the greeting is, too."""
        self.present.pop(session.id, None)
        self.gone.append((session.id, type(reason.value).__name__))
