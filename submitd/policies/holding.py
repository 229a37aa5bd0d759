"""A message that a policy has held: whichever policy it is, the log says it in one way."""

from __future__ import annotations

from submitd import events
from submitd.envelope import Envelope
from submitd.session import Session


def tellHeld(session: Session, envelope: Envelope) -> None:
    """Log that a message is held.

    :param envelope: with the reason in ``hold``.
    """
    events.emit(
        events.MESSAGE_HELD,
        session=session.id,
        id=envelope.id,
        peer=session.remoteAddress,
        user=session.user.avatarId if session.user is not None else None,
        reason=envelope.hold,
    )
