"""LIMITS (RFC 9422): how much one transaction and one connection may have.

Shown as they stand for this session: a policy may lower ``session.maxRecipients`` and
``session.maxTransactions`` before, or say in ``session.rcptMax`` and ``session.mailMax`` how much
it will let pass itself.  What is enforced is enforced by RCPT and MAIL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.extensions.extension import Extension

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue

# RFC 9422 3: a value has six digits at most.
_MAX_VALUE = 999999


class LimitsExtension(Extension):
    """The limits that there are."""

    keyword = "LIMITS"

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword with the limits, or nothing where there is none to show."""
        session = dialogue.session
        limits = {
            "MAILMAX": _least(session.maxTransactions, session.mailMax),
            "RCPTMAX": _least(session.maxRecipients, session.rcptMax),
        }
        shown = [f"{name}={value}" for name, value in limits.items() if 0 < value <= _MAX_VALUE]
        return " ".join([self.keyword, *shown]) if shown else None


def _least(*limits: int) -> int:
    """The lowest of those that are limits; 0 is none."""
    return min((limit for limit in limits if limit), default=0)
