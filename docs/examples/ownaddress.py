"""A policy: MAIL FROM is the address that the realm has noted for who is logged in.

The avatar's attributes are what the realm gave it, see ``authenticated.py``.  Where logins are
addresses, or addresses stand in a file, the policy ``sender-owner`` does the same.
"""

from __future__ import annotations

from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.equality import isAddressOf
from submitd.interfaces import ISenderPolicy
from submitd.session import Session
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

OWN_ADDRESS_ONLY = Reply(553, "5.7.1", "You can only send from your own address")


@implementer(ISenderPolicy)
class OwnAddress:
    """Refuses any other reverse-path, the null one too."""

    name = "own-address"

    def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """Compare the two as addresses: ``Alice@Example.com`` is ``alice@example.com``.

        :raise Refused: 553 5.7.1.
        """
        own = session.user.attributes["email"] if session.user is not None else ""
        mailbox = envelope.reversePath.mailbox
        if mailbox is None or not isAddressOf(own, mailbox):
            raise Refused(OWN_ADDRESS_ONLY, f"{envelope.reversePath} is not {own}")
