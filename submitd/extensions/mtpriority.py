"""MT-PRIORITY (RFC 6710): how urgent a message is, from -9 to 9.

Offered only where the delivery takes urgent messages first (``IExtendedDelivery``); if not, the
parameter is unknown.  Nobody is more urgent without a login (RFC 6710 4.1); which of those that
have one may be so is for a policy to say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from submitd.envelope import Envelope
from submitd.extensions.extension import Extension, isHonoured, require
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue

KEYWORD = "MT-PRIORITY"

_NEEDS_LOGIN = Reply(530, "5.7.0", "MT-PRIORITY above 0 needs a login")
_BAD_PRIORITY = Reply(501, "5.5.4", "MT-PRIORITY must be a whole number from -9 to 9")

# RFC 6710 5: priority-value = "0" / ["-"] NZDIGIT
_PRIORITY = re.compile(r"0|-?[1-9]")


def priority(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """MT-PRIORITY: 0 is the ordinary one, 9 the most urgent."""
    require(isHonoured(dialogue, KEYWORD), KEYWORD)
    if not _PRIORITY.fullmatch(value or ""):
        raise Refused(_BAD_PRIORITY)
    level = int(value or "")
    if level > 0 and dialogue.session.user is None:
        raise Refused(_NEEDS_LOGIN)
    envelope.extensions[KEYWORD] = level


class MTPriority(Extension):
    """Messages may be more or less urgent."""

    keyword = KEYWORD
    mailParameters = {"MT-PRIORITY": priority}

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword with the name of the priorities' meaning (RFC 6710 9), if it has one."""
        if not isHonoured(dialogue, KEYWORD):
            return None
        return f"{self.keyword} {dialogue.submission.priorityProfile}".rstrip()
