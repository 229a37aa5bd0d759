"""A port that keeps what it is sent, for the tests of a program that sends mail::

    def test_welcome():
        with Capture() as mail:
            welcome("ada@example.org", port=mail.port)
        [(sender, recipients, text)] = mail.messages

The program and its tests need not know of Twisted (pytest, unittest).  The reactor, which cannot be
started twice, runs in a thread of its own from the first use to the end of the process.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import attrs
from twisted.internet.threads import blockingCallFromThread
from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.interfaces import IDelivery, IMessage
from submitd.service import SubmissionService, submissionService
from submitd.session import Session
from submitd.settings import ListenerSettings


@cache
def running() -> Any:
    """The reactor, in its thread."""
    from twisted.internet import reactor

    options = {"installSignalHandlers": False}  # which is for the main thread alone
    threading.Thread(target=reactor.run, kwargs=options, daemon=True).start()
    return reactor


@implementer(IDelivery)
class Capture:
    """Everybody may send, in the clear and without a login, from this machine alone.

    :ivar port: where.
    :ivar messages: sender, recipients and text of each message.
    """

    def __init__(self) -> None:
        self.port = 0
        self.messages: list[tuple[str, list[str], bytes]] = []

    def __enter__(self) -> Capture:
        self._service: Any = blockingCallFromThread(running(), self._start)
        return self

    def _start(self) -> SubmissionService:
        listener = ListenerSettings(
            endpoint="tcp:0:interface=127.0.0.1", tls="off", require_tls=False
        )
        service = submissionService(running(), [listener], delivery=self, loginRequired=False)
        service.startService()
        address: Any = service.addresses[0]
        self.port = address.port
        return service

    def __exit__(self, *_: object) -> None:
        blockingCallFromThread(running(), self._service.stopService)

    def begin(self, session: Session, envelope: Envelope) -> Captured:
        """A message begins."""
        return Captured(self.messages, envelope)


@implementer(IMessage)
@attrs.define(eq=False)
class Captured:
    """A message on its way into the list."""

    messages: list[tuple[str, list[str], bytes]]
    envelope: Envelope
    text: bytes = b""

    def dataReceived(self, chunk: bytes) -> None:
        """Some octets of the message."""
        self.text += chunk

    def prepend(self, fields: bytes) -> None:
        """A policy's header fields."""
        self.text = fields + self.text

    def eomReceived(self) -> None:
        """Commit."""
        sender = str(self.envelope.reversePath.mailbox or "")
        recipients = [str(recipient.mailbox) for recipient in self.envelope.recipients]
        self.messages.append((sender, recipients, self.text))

    def connectionLost(self) -> None:
        """Abort: there is nothing to clean up."""
