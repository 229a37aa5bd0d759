"""A policy and a delivery that fail as they are told to, for a started service.

The client's name says how and where: ``EHLO raise.sender.example`` has the policy raise at MAIL.
How is ``raise``, ``hang``, ``wrong`` (an answer that means nothing) or ``late`` (a Deferred that
fails); where is a stage, or for the delivery ``begin``, ``chunk`` or ``end``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from submitd.deliveries.maildir import Maildir
from submitd.interfaces import (
    IDataPolicy,
    IDelivery,
    IHelloPolicy,
    ILoginPolicy,
    IMessage,
    IMessagePolicy,
    IRecipientPolicy,
    ISenderPolicy,
)

STAGES = ("hello", "login", "sender", "recipient", "data", "message")
STEPS = ("begin", "chunk", "end")
FAULTS = ("raise", "hang", "wrong", "late")


class Broken(Exception):
    """What nobody has thought of."""


def fault(domain: str, where: str) -> Any:
    """Fail, if the client's name says so."""
    how, _, rest = domain.partition(".")
    if not rest.startswith(f"{where}."):
        return None
    if how == "raise":
        raise Broken(f"at {where}")
    return {"hang": Deferred, "wrong": lambda: True, "late": lambda: fail(Broken(where))}[how]()


@implementer(
    IHelloPolicy,
    ILoginPolicy,
    ISenderPolicy,
    IRecipientPolicy,
    IDataPolicy,
    IMessagePolicy,
)
class Policy:
    """Fails at every stage."""

    def helloReceived(self, session: Any, domain: str) -> Any:
        return fault(domain, "hello")

    def loginRequested(self, session: Any, credentials: Any) -> Any:
        return fault(session.heloName, "login")

    def loginSucceeded(self, session: Any, avatar: Any) -> Any:
        return fault(session.heloName, "loggedin")

    def loginFailed(self, session: Any, credentials: Any, failure: Any) -> Any:
        return None

    def validateFrom(self, session: Any, envelope: Any) -> Any:
        return fault(session.heloName, "sender")

    def validateTo(self, session: Any, envelope: Any, recipient: Any) -> Any:
        return fault(session.heloName, "recipient")

    def dataRequested(self, session: Any, envelope: Any) -> Any:
        return fault(session.heloName, "data")

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> Any:
        return fault(session.heloName, "message")


@implementer(IMessage)
class Message:
    """A message of a Maildir, with faults."""

    def __init__(self, domain: str, message: Any) -> None:
        self._domain = domain
        self._message = message
        self._chunks = 0

    def dataReceived(self, chunk: bytes) -> Any:
        self._chunks += 1
        waiting = self._message.dataReceived(chunk)
        # The first chunk is the service's own Received field.
        return waiting if self._chunks == 1 else fault(self._domain, "chunk") or waiting

    def prepend(self, fields: bytes) -> None:
        self._message.prepend(fields)

    def eomReceived(self) -> Any:
        try:
            wrong = fault(self._domain, "end")
        except Broken:
            self.connectionLost()
            raise
        if wrong is None:
            return self._message.eomReceived()
        self.connectionLost()  # who fails to commit leaves nothing behind
        return wrong

    def connectionLost(self) -> None:
        self._message.connectionLost()


@implementer(IDelivery)
@attrs.define(eq=False)
class Delivery:
    """A Maildir with faults."""

    path: Path = attrs.field(metadata={"help": "The Maildir."})

    def begin(self, session: Any, envelope: Any) -> Any:
        wrong = fault(session.heloName, "begin")
        if wrong is not None:
            return wrong
        return Message(session.heloName, Maildir(self.path).begin(session, envelope))
