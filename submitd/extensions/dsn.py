"""DSN (RFC 3461): which reports a client wants, and how it will know them again.

The parameters are validated and kept on the envelope and its recipients; reports are written by
whoever delivers.  A malformed one is 501 5.5.4.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from submitd.envelope import Envelope, Recipient
from submitd.extensions.extension import Extension
from submitd.wire import abnf
from submitd.wire.command import decodeUtf8AddrXtext, decodeXtext
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue

# RFC 3461 4.4 and 4.2: octets of a decoded ENVID, and of a whole ORCPT.
MAX_ENVID = 100
MAX_ORCPT = 500

_BAD_RET = Reply(501, "5.5.4", "RET must be FULL or HDRS")
_BAD_ENVID = Reply(501, "5.5.4", "ENVID must be xtext of 1 to 100 printable ASCII characters")
_BAD_NOTIFY = Reply(
    501, "5.5.4", "NOTIFY must be NEVER, or a list of SUCCESS, FAILURE and DELAY, each once"
)
_BAD_ORCPT = Reply(501, "5.5.4", "ORCPT must be an address type, a semicolon and an address")

# RFC 3461 4.2: original-recipient-address = addr-type ";" xtext;  addr-type = atom
_ORCPT = re.compile(rf"([{abnf.ASCII_ATEXT}]+);(.+)")


def ret(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """RET: how much of the message a report of failure gives back (RFC 3461 4.3)."""
    wanted = (value or "").upper()
    if wanted not in ("FULL", "HDRS"):
        raise Refused(_BAD_RET)
    envelope.ret = wanted


def envid(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """ENVID: what the sender knows the message by (RFC 3461 4.4)."""
    decoded = _decoded(value, _BAD_ENVID)
    if len(decoded) > MAX_ENVID:
        raise Refused(_BAD_ENVID, f"ENVID of {len(decoded)} characters")
    envelope.envid = decoded


def notify(dialogue: Dialogue, envelope: Envelope, recipient: Recipient, value: str | None) -> None:
    """NOTIFY: when to report (RFC 3461 4.1)."""
    wanted = tuple((value or "").upper().split(","))
    allowed = {"NEVER"} if len(wanted) == 1 else set()
    allowed |= {"SUCCESS", "FAILURE", "DELAY"}
    if not allowed.issuperset(wanted) or len(set(wanted)) < len(wanted):
        raise Refused(_BAD_NOTIFY)
    recipient.notify = wanted


def orcpt(dialogue: Dialogue, envelope: Envelope, recipient: Recipient, value: str | None) -> None:
    """ORCPT: what the recipient was called first (RFC 3461 4.2, RFC 6533 3)."""
    matched = _ORCPT.fullmatch(value or "")
    if matched is None or len((value or "").encode("utf-8")) > MAX_ORCPT:
        raise Refused(_BAD_ORCPT)
    kind, address = matched[1], matched[2]
    isUtf8 = kind.lower() == "utf-8"
    # The type as it was given: it is passed on without a change of case (RFC 3461 5.2.1).
    recipient.orcpt = (kind, _utf8(envelope, address) if isUtf8 else _ascii(address))


def _utf8(envelope: Envelope, address: str) -> str:
    # RFC 6533 3: as it is only where SMTPUTF8 was asked for; written in ASCII everywhere.
    if not address.isascii() and not envelope.smtpUtf8:
        raise Refused(_BAD_ORCPT, "UTF-8 without SMTPUTF8")
    try:
        return decodeUtf8AddrXtext(address)
    except Refused as refused:
        raise Refused(_BAD_ORCPT, refused.cause) from None


def _ascii(address: str) -> str:
    return _decoded(address, _BAD_ORCPT)


def _decoded(value: str | None, otherwise: Reply) -> str:
    try:
        decoded = decodeXtext(value or "")
    except Refused as refused:
        raise Refused(otherwise, refused.cause) from None
    if not decoded or not decoded.isascii():
        raise Refused(otherwise, "empty, or not ASCII")
    return decoded


class DSN(Extension):
    """Clients may say which reports they want."""

    keyword = "DSN"
    mailParameters = {"RET": ret, "ENVID": envid}
    rcptParameters = {"NOTIFY": notify, "ORCPT": orcpt}
