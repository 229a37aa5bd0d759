"""SMTPUTF8 (RFC 6531): internationalized addresses and header fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.envelope import Envelope
from submitd.extensions.extension import Extension
from submitd.wire.errors import Refused
from submitd.wire.reply import SYNTAX

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue


def smtputf8(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """SMTPUTF8 takes no value (RFC 6531 3.4)."""
    if value is not None:
        raise Refused(SYNTAX)
    envelope.smtpUtf8 = True


class SMTPUTF8(Extension):
    """Addresses and header fields may be UTF-8 where MAIL says so."""

    keyword = "SMTPUTF8"
    mailParameters = {"SMTPUTF8": smtputf8}
