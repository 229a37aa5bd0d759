"""Which processes are at a spool in a directory: so that work of a dead one is not waited for.

Each process that takes work holds a lock (flock) on a file of its own beside the data base.  The
kernel lets go of it when the process ends, however it ends, in whatever container; numbers of
processes, which come again, play no part.  A file whose lock can be had is a dead one's.

What cannot be made or read (a full disk, say) is left alone: then a lease lasts until it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

PREFIX = "owner."


class Owners:
    """The processes at one directory, as one of them sees them.

    :param directory: where the data base is.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own: tuple[Path, int] | None = None
        self._dead: dict[str, tuple[Path, int]] = {}

    def enter(self, name: str) -> None:
        """Be there, until :meth:`leave` or the end of the process.

        :param name: ours; no other process has it, now or later.
        :raise OSError: when there is no room for the file.
        """
        if self._own is None:
            # Locked before it bears its name: a file without a lock is a dead one's.
            path = self._directory / f"{PREFIX}{name}"
            new = self._directory / f"new.{name}"
            file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                os.rename(new, path)
            except OSError:
                new.unlink(missing_ok=True)
                os.close(file)
                raise
            self._own = path, file

    def dead(self) -> list[str]:
        """The names of those that are there no more; nobody else finds them meanwhile.

        :raise OSError: when that cannot be seen.
        """
        for path in sorted(self._directory.glob(f"{PREFIX}*")):
            if self._own is None or path != self._own[0]:
                self._try(path)
        return list(self._dead)

    def _try(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
            else:
                self._dead[path.name.removeprefix(PREFIX)] = path, file

    def bury(self) -> None:
        """The work of the dead ones has been taken back: their files go."""
        while self._dead:
            path, file = self._dead.popitem()[1]
            path.unlink(missing_ok=True)
            os.close(file)

    def leave(self, isDone: bool) -> None:
        """Be there no more.

        :param isDone: whether there is no work of ours; else it is found as a dead one's.
        """
        own, self._own = self._own, None
        if own is not None:
            path, file = own
            if isDone:
                path.unlink(missing_ok=True)
            os.close(file)
        while self._dead:
            os.close(self._dead.popitem()[1][1])
