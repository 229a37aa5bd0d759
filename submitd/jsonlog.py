"""The JSON log: the file of ``[log] json``, a line for each event.

It is opened before the service gives up its rights, new with mode 0600, and appended to: a line is
one call of the system, so that several processes may write to the same file.  A file that cannot
be opened stops the start with :class:`CannotStart`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO

from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from submitd import events
from submitd.errors import CannotStart
from submitd.logwriter import LogWriter


@implementer(ILogObserver)
class JSONLog:
    """Appends every event to a file, a line of JSON each.

    :param target: the path; ``"-"`` for standard output.
    :param reactor: tells when lines that waited for others are written; ``None``: each at once.
    :param descriptor: the file, where somebody has opened it already; it belongs to the log.
    """

    def __init__(self, target: str, reactor: Any = None, descriptor: int | None = None) -> None:
        self._target = target
        self._reactor = reactor
        self._descriptor = descriptor
        self._file: TextIO | None = None
        self._observer: LogWriter | None = None

    def open(self) -> None:
        """Open the file, unless it is open; before twistd gives up its rights.

        :raise CannotStart: when it cannot be opened.
        """
        if self._observer is not None:
            return
        try:
            self._file = self._opened()
        except OSError as error:
            raise CannotStart(f"cannot write {self._target}: {error.strerror}") from None
        self._observer = events.jsonObserver(self._file, self._reactor)
        globalLogPublisher.addObserver(self)

    def reopen(self) -> None:
        """Write to the file of that name from now on: the one before may have been moved away.

        One that is there still is not opened again: root made it, and who we are now could not.
        What cannot be opened again is logged, and the file that is open serves on.  One that
        somebody else has opened is his to open again.
        """
        if self._observer is None or self._file is None or self._descriptor is not None:
            return
        if self._target == "-":
            return
        with contextlib.suppress(OSError):  # a full disk, from which the new file may lead away
            self._observer.flush()
        try:
            if self._isThere(self._file.fileno()):
                return
            with self._opened() as file:
                # In the place of the other one: whoever writes to it goes on writing.
                os.dup2(file.fileno(), self._file.fileno(), inheritable=False)
        except OSError as error:
            problem = f"cannot open {self._target} again: {error.strerror}"
            events.emit(events.SERVICE_PROBLEM, problem=problem)

    def _isThere(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._target), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def __call__(self, event: dict[str, Any]) -> None:
        """See ``ILogObserver``."""
        # A worker whose event the parent logs for it has written its own line.
        if self._observer is not None and "log_worker" not in event:
            self._observer(event)

    def _opened(self) -> TextIO:
        if self._target == "-":
            # twistd has made sys.stdout a part of its own log by now.
            return sys.__stdout__ or sys.stdout
        where = self._target if self._descriptor is None else self._descriptor
        opener = _privately if self._descriptor is None else None
        file = open(where, "ab", buffering=0, opener=opener)  # noqa: SIM115
        # A line in one call of the system: several processes may write to the file.
        return io.TextIOWrapper(file, encoding="utf-8", newline="\n", write_through=True)

    def fileno(self) -> int | None:
        """The descriptor of the file; ``None`` where none is open that could be handed on."""
        isFile = self._file is not None and self._observer is not None and self._target != "-"
        return self._file.fileno() if isFile and self._file is not None else None

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._observer is not None and self._file is not None:
            globalLogPublisher.removeObserver(self)
            self._observer.end()
            self._observer = None
            if self._target != "-":
                self._file.close()


def _privately(path: str, flags: int) -> int:
    """Open a file; a new one is nobody else's: who wrote to whom is in it."""
    return os.open(path, flags, 0o600)
