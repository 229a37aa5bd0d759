"""STARTTLS (RFC 3207).

The answer is given here; the handshake is the protocol's, the forgetting the dialogue's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.extensions.extension import Extension
from submitd.states import State, Verb
from submitd.wire.errors import Refused
from submitd.wire.reply import ALREADY_SECURE, NOT_IMPLEMENTED, READY_TO_START_TLS

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue, Outcome


def starttls(dialogue: Dialogue, argument: bytes) -> Outcome:
    """STARTTLS: what follows on the connection is a handshake."""
    if dialogue.session.secure:
        raise Refused(ALREADY_SECURE)
    if not dialogue.submission.startTLS:
        raise Refused(NOT_IMPLEMENTED)
    dialogue.state = State.TLS
    return READY_TO_START_TLS


class StartTLS(Extension):
    """Offered until TLS is on."""

    keyword = "STARTTLS"
    verbs = ((Verb(b"STARTTLS", frozenset({State.READY}), "STARTTLS", argument=False), starttls),)

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword while TLS can be had and is not on (RFC 3207 4.2)."""
        offered = dialogue.submission.startTLS and not dialogue.session.secure
        return self.keyword if offered else None
