"""A secret that has a file of its own, so that no configuration need be kept from others' eyes."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

from submitd.files import Stamp, settledStamp, stampOf


class Password:
    """The secret of a login of ours, read again whenever its file changes.

    :param file: its first line is the secret.
    :raise ValueError: when there is none to be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: Stamp | None = None
        self._secret = b""
        self._refresh()

    @property
    def secret(self) -> bytes:
        """What it is now; the last one, while the file cannot be read."""
        with contextlib.suppress(ValueError):
            self._refresh()
        return self._secret

    def _refresh(self) -> None:
        try:
            found = self._file.stat()
            if stampOf(found) != self._stamp:
                line = self._file.read_bytes().partition(b"\n")[0].rstrip(b"\r")
                if not line:
                    raise ValueError(f"{self._file} is empty")
                self._secret, self._stamp = line, settledStamp(found, time.time())
        except OSError as error:
            raise ValueError(f"cannot read {self._file}: {error.strerror}") from None


def othersCanRead(file: Path) -> str:
    """What is unwise about such a file; empty when all is well.

    The group of a file of root's or somebody else's is how the service can read it.
    """
    found = file.stat()
    isOurs = found.st_uid == os.geteuid() != 0
    if isOurs and found.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"{file} can be read by others (chmod 600 {file})"
    if found.st_mode & stat.S_IROTH:
        return f"{file} can be read by others (chmod o= {file})"
    return ""
