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
        shown = _shown("MAILMAX", session.maxTransactions, session.mailMax) + _shown(
            "RCPTMAX", session.maxRecipients, session.rcptMax
        )
        return self.keyword + shown if shown else None


def _shown(name: str, limit: int, other: int) -> str:
    """The lower of two limits, of which 0 is none, where it can be shown."""
    value = min(limit, other) if limit and other else limit or other
    return f" {name}={value}" if 0 < value <= _MAX_VALUE else ""
