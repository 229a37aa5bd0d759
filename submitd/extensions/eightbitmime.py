"""8BITMIME (RFC 6152): the BODY parameter of MAIL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.envelope import Envelope
from submitd.extensions.extension import Extension
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue

_BAD_BODY = Reply(501, "5.5.4", "BODY must be 7BIT or 8BITMIME")


def body(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """BODY=7BIT or BODY=8BITMIME."""
    bodyType = (value or "").upper()
    if bodyType not in ("7BIT", "8BITMIME"):
        raise Refused(_BAD_BODY)
    envelope.bodyType = bodyType


class EightBitMIME(Extension):
    """Messages may hold octets above 127; they are kept as they are."""

    keyword = "8BITMIME"
    mailParameters = {"BODY": body}
