"""What the tests of extensions share: a client that may send at once."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from submitd.envelope import Envelope, Recipient
from tests.fixtures import Conversation, MemoryDelivery, makeSubmission


class ExtensionTestCase(SynchronousTestCase):
    """A conversation without TLS and login, introduced already."""

    def talk(self, **settings: Any) -> Conversation:
        """Begin a conversation."""
        settings = {"loginRequired": False, "requireTLS": False, **settings}
        self.conversation = Conversation(makeSubmission(**settings))
        self.conversation.say("HELO c")
        self.conversation.transport.clear()
        return self.conversation

    def ehlo(self) -> list[str]:
        """What EHLO shows."""
        return [line[4:] for line in self.conversation.say("EHLO c").split("\n")[1:]]

    def begin(self) -> Conversation:
        """A transaction with a recipient."""
        self.conversation.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>")
        return self.conversation

    def mail(self, parameters: str) -> str:
        """MAIL with parameters, in a transaction of its own, however many were refused before."""
        self.conversation.protocol.dialogue.session.unrecognized = 0
        self.conversation.say("RSET")
        return self.conversation.say(f"MAIL FROM:<a@example.com> {parameters}")

    def rcpt(self, parameters: str) -> str:
        """RCPT with parameters, however many were refused before."""
        self.conversation.protocol.dialogue.session.unrecognized = 0
        return self.conversation.say(f"RCPT TO:<b@example.org> {parameters}")

    @property
    def envelope(self) -> Envelope:
        """The transaction in progress."""
        envelope = self.conversation.protocol.dialogue.session.envelope
        assert envelope is not None
        return envelope

    @property
    def recipient(self) -> Recipient:
        """The last recipient."""
        return self.envelope.recipients[-1]

    @property
    def delivery(self) -> MemoryDelivery:
        """Where messages go."""
        delivery = self.conversation.submission.delivery
        assert isinstance(delivery, MemoryDelivery)
        return delivery


class PlainDelivery(MemoryDelivery):
    """A delivery that acts on no extension."""

    extensions = frozenset()
