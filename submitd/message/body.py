"""A message on its way past the policies that look at its body, or keep it back and change it.

:class:`BodyPath` is there only for a message of which a policy has asked so.  The body goes from
policy to policy, in the order of the configuration, and each sees it as those before it have left
it.  One that *holds* it has it kept aside with the header section: up to :data:`IN_MEMORY` octets
in memory, from there on in a file without a name, which nobody else can read and which is gone with
the process.  When it lets go, header and body go on to the policies behind it, and at last to the
delivery.  What is held cannot be committed.

A file that cannot be written is 452 4.3.1.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from typing import IO

from twisted.internet.defer import Deferred
from zope.interface import implementer

from submitd.interfaces import IHeldMessage
from submitd.message.header import Header
from submitd.waiting import over
from submitd.wire.errors import Refused
from submitd.wire.reply import MESSAGE_TOO_LARGE, STORAGE_FULL

Observe = Callable[[bytes], "Deferred[None] | None"]

IN_MEMORY = 256 * 1024
"""Octets of a body that are kept aside in memory."""

_CHUNK = 64 * 1024


class Aside:
    """Octets that are kept aside until they are wanted."""

    def __init__(self) -> None:
        self.size = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115

    def write(self, octets: bytes) -> None:
        """Keep more.

        :raise Refused: 452 4.3.1 when they cannot be kept.
        """
        try:
            self._file.write(octets)
            # What waits in a buffer would fail later, where it is read or closed.
            self._file.flush()
        except OSError as error:
            raise Refused(STORAGE_FULL, f"cannot keep a body aside: {error}") from None
        self.size += len(octets)

    def rewind(self) -> None:
        """Begin to read at the beginning."""
        self._file.seek(0)

    def read(self) -> bytes:
        """The next octets; ``b""`` at the end."""
        return self._file.read(_CHUNK)

    def close(self) -> None:
        """Drop them."""
        # Which writes what a full disk has not taken once more.
        with contextlib.suppress(OSError):
            self._file.close()


@implementer(IHeldMessage)
class HeldMessage:
    """What one policy keeps back.

    :param path: where it goes on.
    :param at: which of its links this is.
    :ivar body: what came.
    :ivar isReleased: whether it has gone on.
    """

    header: Header

    def __init__(self, path: BodyPath, at: int) -> None:
        self.body = Aside()
        self.isReleased = False
        self._path = path
        self._at = at
        self._other: Aside | None = None

    def replaceBody(self, octets: bytes) -> None:
        """See :meth:`submitd.interfaces.IHeldMessage.replaceBody`."""
        if self._other is None:
            self._other = Aside()
        if 0 < self._path.sizeLimit < self._other.size + len(octets):
            raise Refused(MESSAGE_TOO_LARGE, "a policy made the body too large")
        self._other.write(octets)

    def keepBody(self) -> None:
        """See :meth:`submitd.interfaces.IHeldMessage.keepBody`."""
        other, self._other = self._other, None
        if other is not None:
            other.close()

    def release(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IHeldMessage.release`."""
        return Deferred.fromCoroutine(self._release())

    async def _release(self) -> None:
        body = self.body if self._other is None else self._other
        await self._path.goOn(body, self._at)
        self.isReleased = True
        self.close()

    def close(self) -> None:
        """Drop what is kept."""
        self.body.close()
        self.keepBody()


class BodyPath:
    """The policies on the way of one message, and the delivery at its end.

    :param forward: gives octets to the delivery.
    :param sizeLimit: the largest body that a policy may make, in octets; 0 for no limit.
    :ivar header: the header section while it is held, else ``None``.
    """

    def __init__(self, forward: Observe, sizeLimit: int) -> None:
        self.sizeLimit = sizeLimit
        self.header: Header | None = None
        self._forward = forward
        self._links: list[tuple[Observe, HeldMessage | None]] = []
        self._separator = b""

    @property
    def isHeld(self) -> bool:
        """Whether a policy has not let the message go."""
        return any(held is not None and not held.isReleased for _, held in self._links)

    def observe(self, observe: Observe) -> None:
        """Add one that looks."""
        self._links.append((observe, None))

    def hold(self, observe: Observe) -> HeldMessage:
        """Add one that holds."""
        held = HeldMessage(self, len(self._links))
        self._links.append((observe, held))
        return held

    def begin(self, header: Header, rest: bytes) -> Deferred[None] | None:
        """The header section has been read.

        :param rest: what has been read behind it, the empty line first, where there is one.
        """
        self._separator = rest[:2]
        for _, held in self._links:
            if held is not None:
                held.header = header
        self.header = header
        if not self.isHeld:
            return Deferred.fromCoroutine(self._beginAtOnce(rest[2:]))
        return self.write(rest[2:])

    async def _beginAtOnce(self, body: bytes) -> None:
        await over(self._passHeader(self._separator))
        await over(self.write(body))

    def _passHeader(self, separator: bytes) -> Deferred[None] | None:
        header, self.header = self.header, None
        assert header is not None
        return self._forward(header.octets + separator)

    def write(self, octets: bytes) -> Deferred[None] | None:
        """Octets of the body have come."""
        return self._pass(octets, 0) if octets else None

    def _pass(self, octets: bytes, start: int) -> Deferred[None] | None:
        """Give octets to each link from one on, as far as one that holds them."""
        for at in range(start, len(self._links)):
            observe, held = self._links[at]
            if held is not None:
                # First, for who is shown what cannot be kept would be waited for by nobody.
                held.body.write(octets)
                return observe(octets)
            waiting = observe(octets)
            if waiting is not None:
                return Deferred.fromCoroutine(self._rest(waiting, octets, at + 1))
        return self._forward(octets)

    async def _rest(self, waiting: Deferred[None], octets: bytes, start: int) -> None:
        await waiting
        await over(self._pass(octets, start))

    async def goOn(self, body: Aside, at: int) -> None:
        """What a link held goes on behind it."""
        if not any(held is not None for _, held in self._links[at + 1 :]):
            header = self.header
            assert header is not None
            wholeLines = not header.octets or header.octets.endswith(b"\r\n")
            separator = self._separator
            if body.size and not separator:
                separator = b"\r\n" if wholeLines else b"\r\n\r\n"
            await over(self._passHeader(separator))
        body.rewind()
        while octets := body.read():
            await over(self._pass(octets, at + 1))

    def close(self) -> None:
        """Drop what is held."""
        for _, held in self._links:
            if held is not None:
                held.close()
