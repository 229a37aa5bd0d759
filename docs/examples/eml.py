"""A delivery: each message is a file of its own, ``NAME-ID.eml``, named by who sent it.

In the configuration::

    [delivery]
    use = "eml:EmlFiles"
    path = "/var/mail/submitted"
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.files import syncDirectory
from submitd.interfaces import IChecked, IDelivery, IMessage
from submitd.session import Session

_UNSAFE = re.compile(r"[^A-Za-z0-9@_+-]")


@implementer(IDelivery, IChecked)
@attrs.define(eq=False)
class EmlFiles:
    """Writes files into a directory.

    :param path: the directory, which must be there.
    """

    path: Path = attrs.field(converter=Path, metadata={"help": "The directory of the files."})

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        return [] if self.path.is_dir() else [f"path: there is no directory {self.path}"]

    def begin(self, session: Session, envelope: Envelope) -> EmlFile:
        """Nothing is written before the end of the message."""
        login = session.user.avatarId if session.user is not None else "email"
        # A login is what somebody typed: no "/", no "." and no control gets into a file's name.
        return EmlFile(self.path / f"{_UNSAFE.sub('_', login)[:64]}-{envelope.id}.eml")


@implementer(IMessage)
@attrs.define(eq=False)
class EmlFile:
    """A message on its way into its file; it is kept in memory, so limit ``message_size``."""

    path: Path
    chunks: list[bytes] = attrs.field(factory=list)

    def dataReceived(self, chunk: bytes) -> None:
        """Some octets of the message."""
        self.chunks.append(chunk)

    def prepend(self, fields: bytes) -> None:
        """Header fields of policies."""
        self.chunks.insert(0, fields)

    def eomReceived(self) -> Deferred[Any]:
        """Commit: when the Deferred fires, the message is on disk."""
        return deferToThread(self._write, b"".join(self.chunks))

    def _write(self, text: bytes) -> str:
        unfinished = self.path.with_suffix(".tmp")
        try:
            with unfinished.open("xb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self.path)
        finally:
            unfinished.unlink(missing_ok=True)
        syncDirectory(self.path.parent)
        return self.path.stem

    def connectionLost(self) -> None:
        """Abort: nothing has been written."""
        self.chunks.clear()
