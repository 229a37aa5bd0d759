"""SIZE (RFC 1870): the limit is announced, and a message known to be too large refused at MAIL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.envelope import Envelope
from submitd.extensions.extension import Extension
from submitd.wire.command import parseSize
from submitd.wire.errors import Refused
from submitd.wire.reply import MESSAGE_TOO_LARGE

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue


def size(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """SIZE=n: what the client means to send, in octets."""
    envelope.size = parseSize(value)
    limit = dialogue.submission.limits.messageSize
    if limit and envelope.size > limit:
        raise Refused(MESSAGE_TOO_LARGE, f"SIZE={envelope.size}")


class Size(Extension):
    """The largest message is announced; 0 announces that there is no limit."""

    keyword = "SIZE"
    mailParameters = {"SIZE": size}

    def advertise(self, dialogue: Dialogue) -> str:
        """The keyword with the limit."""
        return f"SIZE {dialogue.submission.limits.messageSize}"
