"""BINARYMIME (RFC 3030 3): messages of any octets, by BDAT alone.

Offered where BDAT is: without it there is no way to send such a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.envelope import Envelope
from submitd.extensions import eightbitmime
from submitd.extensions.extension import Extension

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue


def body(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """BODY=BINARYMIME, and all that 8BITMIME knows."""
    if (value or "").upper() == "BINARYMIME" and _possible(dialogue):
        envelope.bodyType = "BINARYMIME"
    else:
        eightbitmime.body(dialogue, envelope, value)


def _possible(dialogue: Dialogue) -> bool:
    return b"BDAT" in dialogue.rules.octets - dialogue.rules.disabled


class BinaryMIME(Extension):
    """Messages may hold any octets; they are kept as they are."""

    keyword = "BINARYMIME"
    mailParameters = {"BODY": body}

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword where CHUNKING is shown too (RFC 3030 3)."""
        hidden = "CHUNKING" in dialogue.submission.hiddenExtensions
        return self.keyword if _possible(dialogue) and not hidden else None
