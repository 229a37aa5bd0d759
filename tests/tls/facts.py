"""A policy for the tests, which tells in its refusal what is known of a client's certificate."""

from __future__ import annotations

from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.interfaces import ISenderPolicy
from submitd.session import Session
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply


@implementer(ISenderPolicy)
class Facts:
    """Refuses all mail."""

    name = "facts"

    def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """Tell.

        :raise Refused: 550 5.7.1.
        """
        tls = session.tls
        assert tls is not None
        said = (
            f"verified={tls.verified} subject={tls.peerSubject} emails={','.join(tls.peerEmails)}"
            f" sha256={tls.peerFingerprint[:8]} resumed={tls.resumed} name={session.servername}"
        )
        raise Refused(Reply(550, "5.7.1", said))
