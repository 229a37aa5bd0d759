"""FUTURERELEASE (RFC 4865): a message is held until a time that the client names.

Offered only where the delivery holds messages (``IExtendedDelivery``) and ``maxHold`` allows it; if
not, the parameters are unknown.  What is malformed, in the past, too far in the future, behind the
time of DELIVERBY or given both ways is 501 5.5.4.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from submitd.envelope import Envelope
from submitd.extensions.extension import Extension, isHonoured, require
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue

KEYWORD = "FUTURERELEASE"

_BAD_HOLDFOR = Reply(501, "5.5.4", "HOLDFOR must be a number of seconds, 1 to 999999999")
_BAD_HOLDUNTIL = Reply(501, "5.5.4", "HOLDUNTIL must be such as 2030-01-31T12:00:00Z")
_BOTH = Reply(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other")
_PAST = Reply(501, "5.5.4", "HOLDUNTIL is in the past")
_TOO_LATE = Reply(501, "5.5.4", "The message would be held for longer than is allowed")
_PAST_DEADLINE = Reply(501, "5.5.4", "The message would be held past the time of BY")

# RFC 4865 4: future-release-integer = %x31-39 *8DIGIT
_INTERVAL = re.compile(r"[1-9][0-9]{0,8}")
# RFC 3339 5.6: date-time = full-date "T" full-time
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})",
    re.IGNORECASE,
)


def _isOffered(dialogue: Dialogue) -> bool:
    return dialogue.submission.maxHold >= 1 and isHonoured(dialogue, KEYWORD)


def holdFor(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """HOLDFOR: for so many seconds."""
    require(_isOffered(dialogue), KEYWORD)
    if not _INTERVAL.fullmatch(value or ""):
        raise Refused(_BAD_HOLDFOR)
    _hold(dialogue, envelope, float(int(value or "")))


def holdUntil(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """HOLDUNTIL: until a date and time."""
    require(_isOffered(dialogue), KEYWORD)
    until = _timestamp(value or "")
    now = dialogue.submission.timeOfDay()
    if until <= now:
        raise Refused(_PAST)
    _hold(dialogue, envelope, until - now)


def _timestamp(value: str) -> float:
    try:
        if not _DATE_TIME.fullmatch(value):
            raise ValueError("not a date-time of RFC 3339")
        return datetime.fromisoformat(value.upper()).timestamp()
    except (ValueError, OverflowError) as error:
        raise Refused(_BAD_HOLDUNTIL, str(error)) from None


def _hold(dialogue: Dialogue, envelope: Envelope, seconds: float) -> None:
    if KEYWORD in envelope.extensions:
        raise Refused(_BOTH)
    if seconds > dialogue.submission.maxHold:
        raise Refused(_TOO_LATE)
    envelope.extensions[KEYWORD] = dialogue.submission.timeOfDay() + seconds
    checkDeadline(envelope)


def checkDeadline(envelope: Envelope) -> None:
    """What is to be delivered by a time cannot be held for longer (RFC 4865 5.2.2).

    :raise Refused: 501 5.5.4, once both are known.
    """
    until, by = (envelope.extensions.get(keyword) for keyword in (KEYWORD, "DELIVERBY"))
    if until is not None and by is not None and until > by.deadline:
        raise Refused(_PAST_DEADLINE)


class FutureRelease(Extension):
    """Messages may be held back."""

    keyword = KEYWORD
    mailParameters = {"HOLDFOR": holdFor, "HOLDUNTIL": holdUntil}

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword with the longest interval, in seconds, and the last date and time."""
        if not _isOffered(dialogue):
            return None
        interval = math.floor(dialogue.submission.maxHold)
        last = datetime.fromtimestamp(dialogue.submission.timeOfDay() + interval, UTC)
        return f"{self.keyword} {interval} {last:%Y-%m-%dT%H:%M:%SZ}"
