"""What leaves of a message: as it is, or not at all."""

from __future__ import annotations

from submitd.relay.capabilities import EIGHT_BIT, UTF8_HEADER, Capabilities
from submitd.relay.outgoing import Outgoing
from submitd.wire.data import DotEncoder, LineEndings
from submitd.wire.reply import BARE_LINE_ENDING, Reply


class Content:
    """What leaves of a message, and whether it may.

    :param message: what was said about it.
    :param capabilities: what the next hop takes.
    :param chunked: whether it goes by BDAT.
    """

    def __init__(self, message: Outgoing, capabilities: Capabilities, chunked: bool) -> None:
        self._encoder = None if chunked else DotEncoder()
        binary = message.bodyType == "BINARYMIME"
        self._endings = LineEndings() if chunked and not binary else None
        self._onlyAscii = not binary and not capabilities.offers("8BITMIME")
        # Where SMTPUTF8 was not asked for, octets in a header are anybody's, and left as they are.
        self._inHeader = message.smtpUtf8 and not capabilities.offers("SMTPUTF8")
        self._before = b"\r\n"

    def feed(self, chunk: bytes) -> bytes | Reply:
        """Take a chunk of the message, give what to send, or why it cannot be sent."""
        if self._inHeader and not self._asciiHeader(chunk):
            return UTF8_HEADER
        if self._onlyAscii and not chunk.isascii():
            return EIGHT_BIT
        if self._endings is not None:
            self._endings.feed(chunk)
            return BARE_LINE_ENDING if self._endings.bare else chunk
        if self._encoder is None:
            return chunk
        try:
            return self._encoder.feed(chunk)
        except ValueError:
            return BARE_LINE_ENDING

    def finish(self) -> bytes | Reply:
        """Give what ends the message."""
        if self._encoder is not None:
            try:
                return self._encoder.finish()
            except ValueError:
                return BARE_LINE_ENDING
        if self._endings is not None:
            self._endings.finish()
            if self._endings.bare:
                return BARE_LINE_ENDING
        return b""

    def _asciiHeader(self, chunk: bytes) -> bool:
        data = self._before + chunk
        end = data.find(b"\r\n\r\n")
        self._inHeader = end < 0
        self._before = data[-3:]
        return (data if end < 0 else data[:end]).isascii()
