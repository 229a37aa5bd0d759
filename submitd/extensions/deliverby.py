"""DELIVERBY (RFC 2852): a message must be delivered by a time, or else be returned or reported.

Offered only where the delivery does so (``IExtendedDelivery``); if not, the parameter is unknown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from submitd.envelope import Envelope
from submitd.extensions.extension import Extension, isHonoured, require
from submitd.extensions.futurerelease import checkDeadline
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue

KEYWORD = "DELIVERBY"

_BAD_BY = Reply(501, "5.5.4", "BY must be such as 3600;R or -60;NT: seconds, R or N, perhaps T")
_TOO_LATE = Reply(501, "5.5.4", "BY with R must be more than 0 seconds")

# RFC 2852 4: by-value = by-time ";" by-mode [by-trace];  by-time = ["-" / "+"] 1*9digit
_BY = re.compile(r"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE)


@attrs.frozen
class DeliverBy:
    """When a message must be delivered, and what happens else.

    :param deadline: seconds since 1970; it may have passed where the mode is ``"N"``.
    :param mode: ``"R"`` the message is returned, ``"N"`` the sender is notified of the delay.
    :param trace: whether each hop is to be reported.
    """

    deadline: float
    mode: str
    trace: bool = False


def by(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """BY: within so many seconds."""
    require(isHonoured(dialogue, KEYWORD), KEYWORD)
    matched = _BY.fullmatch(value or "")
    if matched is None:
        raise Refused(_BAD_BY)
    seconds, mode = int(matched[1]), matched[2].upper()
    if mode == "R":
        _checkReturn(seconds, dialogue.submission.minDeliverBy)
    deadline = dialogue.submission.timeOfDay() + seconds
    envelope.extensions[KEYWORD] = DeliverBy(deadline, mode, bool(matched[3]))
    checkDeadline(envelope)


def _checkReturn(seconds: int, minimum: int) -> None:
    if seconds <= 0:
        raise Refused(_TOO_LATE)  # RFC 2852 4
    if seconds < minimum:
        raise Refused(Reply(555, "5.5.4", f"BY with R must be {minimum} seconds at least"))


class DeliverByExtension(Extension):
    """Messages may have a deadline."""

    keyword = KEYWORD
    mailParameters = {"BY": by}

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword with the shortest time for R, in seconds, if there is one (RFC 2852 4)."""
        if not isHonoured(dialogue, KEYWORD):
            return None
        return f"{self.keyword} {dialogue.submission.minDeliverBy or ''}".rstrip()
