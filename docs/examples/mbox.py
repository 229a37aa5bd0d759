"""A delivery: all messages in one mbox file.

In the configuration::

    [delivery]
    use = "mbox:Mbox"
    path = "/var/mail/submitted"
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.interfaces import IChecked, IDelivery, IMessage
from submitd.session import Session


@implementer(IDelivery, IChecked)
@attrs.define(eq=False)
class Mbox:
    """Appends messages to a file.

    :param path: the file; it is made when the directory is there.
    """

    path: Path = attrs.field(converter=Path, metadata={"help": "The mbox file."})
    lock: DeferredLock = attrs.field(factory=DeferredLock, init=False)

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        directory = self.path.parent
        return [] if directory.is_dir() else [f"path: there is no directory {directory}"]

    def begin(self, session: Session, envelope: Envelope) -> MboxMessage:
        """Nothing is written before the end of the message."""
        return MboxMessage(self, str(envelope.reversePath.mailbox or "MAILER-DAEMON"))

    def append(self, text: bytes) -> None:
        """Append to the file, all or nothing, and wait for the disk; runs in a thread.

        :raise OSError: when it cannot be kept; submitd makes 451 4.3.0 of it.
        """
        with self.path.open("ab") as file:
            before = file.tell()
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.ftruncate(file.fileno(), before)
                raise


@implementer(IMessage)
@attrs.define(eq=False)
class MboxMessage:
    """A message on its way into the file; it is kept in memory, so limit ``message_size``."""

    delivery: Mbox
    sender: str
    chunks: list[bytes] = attrs.field(factory=list)

    def dataReceived(self, chunk: bytes) -> None:
        """Some octets of the message."""
        self.chunks.append(chunk)

    def prepend(self, fields: bytes) -> None:
        """Header fields of policies."""
        self.chunks.insert(0, fields)

    def eomReceived(self) -> Deferred[None]:
        """Commit: when the Deferred fires, the message is on disk."""
        # One at a time: a failed append is cut off again, and nobody may have written behind it.
        return self.delivery.lock.run(deferToThread, self.delivery.append, self._entry())

    def _entry(self) -> bytes:
        # In an mbox a line "From " begins a message, so one within a message is quoted.
        text = (b"\n" + b"".join(self.chunks).replace(b"\r\n", b"\n")).replace(
            b"\nFrom ", b"\n>From "
        )
        return f"From {self.sender} {time.asctime(time.gmtime())}".encode() + text + b"\n"

    def connectionLost(self) -> None:
        """Abort: nothing has been written."""
        self.chunks.clear()
