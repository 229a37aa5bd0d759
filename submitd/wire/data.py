"""Message framing: what DATA and BDAT carry, in chunks as they arrive.

Decoders take chunks of any size and give ``(payload, atEnd, rest)``; ``rest`` is what came behind
the end and belongs to the next command.  The end of DATA is CRLF.CRLF and nothing else (RFC 5321
4.1.1.4): a look-alike with a bare CR or LF stays message text, and is noticed.  Work is done per
chunk, never per line; between two chunks at most two octets are held back.  Nothing here bounds the
size of a message: who writes the payload counts it.
"""

from __future__ import annotations

import io
import re

_END = b"\r\n.\r\n"
_DOT_LINE = b"\r\n."
_LAST_LINE = b".\r\n"
# What a chunk may end with that is the beginning of _END, longest first, and how many octets of
# it cannot be told from the end yet.  The line end itself belongs to the message.
_BEGINNINGS = ((b"\r\n.\r", 2), (b"\r\n.", 1), (b"\r\n", 0), (b"\r", 0))
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class LineEndings:
    """Whether a stream of octets has a CR or LF that is not part of a CRLF.

    The decoder of universal newlines notes which kinds of line end it has met, in one pass and
    across chunks.  Counting CR, LF and CRLF says the same and takes four times as long.
    """

    def __init__(self) -> None:
        self._newlines = io.IncrementalNewlineDecoder(None, translate=False)

    @property
    def bare(self) -> bool:
        """Whether one was seen."""
        return self._newlines.newlines not in (None, "\r\n")

    def feed(self, chunk: bytes) -> None:
        """Look at some octets; a CR at their end is judged when the next ones come."""
        # Latin-1 gives each octet one character, and only CR and LF are line ends.
        self._newlines.decode(chunk.decode("latin-1"))

    def finish(self) -> None:
        """The stream has ended: a CR at its end is one without LF."""
        self._newlines.decode("", final=True)


class DotDecoder:
    """DATA: dots are unstuffed (RFC 5321 4.5.2), CRLFs are kept.

    One decoder reads one message; after its end all octets are ``rest``.

    :ivar nul: whether a NUL was seen.
    """

    def __init__(self) -> None:
        self.nul = False
        self._endings = LineEndings()
        self._ended = False
        # The beginning of _END that came last, and how much of it has been given away already.  A
        # message begins where a line begins.
        self._before = b"\r\n"
        self._given = 2

    @property
    def bareLineEnding(self) -> bool:
        """Whether a CR or LF that is not part of a CRLF was seen."""
        return self._endings.bare

    def feed(self, chunk: bytes) -> tuple[bytes, bool, bytes]:
        """Take a chunk.

        :return: message text; whether the end was met; the octets behind it.
        """
        if self._ended:
            return b"", True, chunk
        data = self._before + chunk  # no copy where nothing came before
        given = self._given
        if data.endswith(_END) and not _hasDotLine(data, len(data) - len(_LAST_LINE)):
            self._ended = True
            self._look(chunk)
            return data[given : -len(_LAST_LINE)], True, b""
        hasDots = _hasDotLine(data, len(data))
        end = data.find(_END) if hasDots else -1
        if end >= 0:
            self._ended = True
            rest = data[end + len(_END) :]
            self._look(chunk[: len(chunk) - len(rest)])
            text = data[: end + 2]
        else:
            rest = b""
            self._look(chunk)
            text = data[: len(data) - self._hold(data)]
        if hasDots:
            text = text.replace(_DOT_LINE, b"\r\n")
        return text[given:], self._ended, rest

    def _look(self, octets: bytes) -> None:
        self._endings.feed(octets)
        if not self.nul:
            self.nul = b"\0" in octets

    def _hold(self, data: bytes) -> int:
        for beginning, held in _BEGINNINGS:
            if data.endswith(beginning):
                self._before = beginning
                self._given = len(beginning) - held
                return held
        self._before = b""
        self._given = 0
        return 0


class DotEncoder:
    """The other way: message text to what DATA sends, for the relay.

    A lone CR or LF never leaves (RFC 5321 2.3.8): it could end the message at the next server.
    After a ``ValueError`` the encoder is of no more use; nothing of that chunk was given out.
    """

    def __init__(self) -> None:
        self._endings = LineEndings()
        self._before = b"\r\n"
        self._taken = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk, give what to send.

        :raise ValueError: at a CR or LF that is not part of a CRLF; names its offset in the
            message.
        """
        data = self._before + chunk
        self._endings.feed(chunk)
        if self._endings.bare:
            raise self._bareAt(self._taken - len(self._before) + _firstBare(data))
        sent = 2 if self._before == b"\r\n" else 0
        self._taken += len(chunk)
        self._before = _lineEnd(data)
        # A CR at the end waits for its LF.
        text = data[:-1] if self._before == b"\r" else data
        if _hasDotLine(text, len(text)):
            text = text.replace(_DOT_LINE, b"\r\n..")
        return text[sent:]

    def finish(self) -> bytes:
        """Give the end of the message: a CRLF if its last line has none, and the dot.

        :raise ValueError: when the message ended with a CR.
        """
        if self._before == b"\r":
            raise self._bareAt(self._taken - 1)
        return b".\r\n" if self._before else _END

    def _bareAt(self, offset: int) -> ValueError:
        return ValueError(f"CR or LF that is not part of a CRLF at octet {offset}")


class ChunkDecoder:
    """BDAT: as many octets as were announced (RFC 3030 2), whatever they are.

    :param size: octets announced.
    :ivar remaining: octets still to come.
    """

    def __init__(self, size: int) -> None:
        self.remaining = size

    def feed(self, chunk: bytes) -> tuple[bytes, bool, bytes]:
        """Take a chunk; an empty one tells whether a size of 0 has ended already.

        :return: message text; whether all octets have come; the octets behind them.
        """
        payload = chunk[: self.remaining]
        rest = chunk[self.remaining :]
        self.remaining -= len(payload)
        return payload, self.remaining == 0, rest


class ChunkedDecoder:
    """BDAT: all chunks of one message, one after the other, and what its text must not have.

    :param binary: whether it may have anything (BINARYMIME, RFC 3030 3); nothing is looked for.
    :ivar nul: whether a NUL was seen.
    """

    def __init__(self, binary: bool = False) -> None:
        self.nul = False
        self._endings = None if binary else LineEndings()
        self._chunk = ChunkDecoder(0)

    @property
    def bareLineEnding(self) -> bool:
        """Whether a CR or LF that is not part of a CRLF was seen."""
        return self._endings is not None and self._endings.bare

    def expect(self, size: int) -> None:
        """The next chunk begins; it has so many octets."""
        self._chunk = ChunkDecoder(size)

    def feed(self, chunk: bytes) -> tuple[bytes, bool, bytes]:
        """Take octets.

        :return: message text; whether the chunk has ended; the octets behind it.
        """
        payload, atEnd, rest = self._chunk.feed(chunk)
        if self._endings is not None:
            self._endings.feed(payload)
            self.nul = self.nul or b"\0" in payload
        return payload, atEnd, rest

    def finish(self) -> None:
        """The last chunk has ended: a CR at its end is one without LF."""
        if self._endings is not None:
            self._endings.finish()


def _hasDotLine(data: bytes, end: int) -> bool:
    """Whether a line but the first begins with a dot.

    What is large is mostly base64, which has no dot at all; that is seen twenty times as fast.  And
    from behind the other search is the faster one.
    """
    return b"." in data and data.rfind(_DOT_LINE, 0, end) >= 0


def _firstBare(data: bytes) -> int:
    found = _BARE.search(data)
    assert found is not None, "LineEndings has seen one"
    return found.start()


def _lineEnd(data: bytes) -> bytes:
    if data.endswith(b"\r\n"):
        return b"\r\n"
    return b"\r" if data.endswith(b"\r") else b""
