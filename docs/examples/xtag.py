"""An ESMTP extension: a word that the client gives with MAIL, kept as a header field.

A client that has seen ``XTAG`` in the answer to EHLO may say ``MAIL FROM:<...> XTAG=newsletter``.
A keyword that begins with X is an agreement between two sites (RFC 5321 2.2.2).
"""

from __future__ import annotations

import re

from zope.interface import implementer

from submitd.dialogue import Dialogue
from submitd.envelope import Envelope
from submitd.extensions.extension import Extension
from submitd.interfaces import IMessagePolicy, IReceivedMessage
from submitd.session import Session
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

BAD_TAG = Reply(501, "5.5.4", "XTAG must be 1 to 64 letters, digits and hyphens")
_TAG = re.compile("[A-Za-z0-9-]{1,64}")


def tag(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """XTAG= of MAIL.

    :raise Refused: 501 5.5.4 when it is no tag.
    """
    # What a client says is data: only what cannot harm a header field gets into one.
    if not _TAG.fullmatch(value or ""):
        raise Refused(BAD_TAG)
    envelope.extensions["XTAG"] = value


class XTag(Extension):
    """The extension: its EHLO keyword, and what MAIL may have more."""

    keyword = "XTAG"
    mailParameters = {"XTAG": tag}


@implementer(IMessagePolicy)
class TagField:
    """The policy that makes use of it: the tag becomes a header field."""

    name = "tag-field"

    def messageReceived(
        self, session: Session, envelope: Envelope, message: IReceivedMessage
    ) -> None:
        """Put the field in front."""
        if "XTAG" in envelope.extensions:
            message.prepend(b"X-Tag: %b\r\n" % envelope.extensions["XTAG"].encode("ascii"))
