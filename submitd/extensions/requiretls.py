"""REQUIRETLS (RFC 8689): the message must not travel in the clear from here on.

Offered and taken under TLS alone (RFC 8689 2): a message that came in the clear is past saving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.envelope import Envelope
from submitd.extensions.extension import Extension
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue

_NO_VALUE = Reply(501, "5.5.4", "REQUIRETLS takes no value")
_NEEDS_TLS = Reply(530, "5.7.0", "REQUIRETLS needs TLS: issue a STARTTLS command first")


def requireTLS(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """REQUIRETLS takes no value."""
    if value is not None:
        raise Refused(_NO_VALUE)
    if not dialogue.session.secure:
        raise Refused(_NEEDS_TLS)
    envelope.requireTLS = True


class RequireTLS(Extension):
    """Clients may ask for TLS on all of the way."""

    keyword = "REQUIRETLS"
    mailParameters = {"REQUIRETLS": requireTLS}

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword, under TLS."""
        return self.keyword if dialogue.session.secure else None
