"""Refusals: an id for each, and a file in which it is found again.

The last line of a reply that refuses ends with `` (id XXXXXXXX)``: eight characters of base32
(``A`` to ``Z`` and ``2`` to ``7``; nothing that is mistaken for something else on the telephone).
The event ``refused`` carries the same id, and :class:`RefusalFile` keeps these events, a line of
JSON each; :func:`find` reads them.

The file is bounded: when it has grown to its size it becomes ``FILE.1``, in place of the one
before.  It is opened at the first refusal, mode 0600, for it says who writes to whom.  When it
cannot be written an event says so once, and clients notice nothing.  Several processes may share
it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from submitd import events

_BITS = 40

Record = dict[str, Any]


class RefusalIds:
    """Gives ids: no two are the same in one process, and none says how many there were.

    :param worker: the number of this process, below 256, where the ids of several are to differ.

    :param random: gives so many random octets.
    """

    def __init__(self, random: Any = os.urandom, worker: int | None = None) -> None:
        self._last = int.from_bytes(random(_BITS // 8), "big")
        # An odd step passes every number before it comes back to the first.
        self._step = int.from_bytes(random(_BITS // 8), "big") | 1
        if worker is not None:
            self._last = self._last & -256 | worker
            self._step <<= 8

    def __call__(self) -> str:
        """The next id."""
        self._last = (self._last + self._step) % (1 << _BITS)
        return base64.b32encode(self._last.to_bytes(_BITS // 8, "big")).decode("ascii")


@implementer(ILogObserver)
class RefusalFile:
    """Keeps the refusals that the log is told of.

    :param path: the file; its directory must be there.
    :param size: octets after which a new one is begun; there are two of them.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._file = -1
        self._isBroken = False

    def open(self) -> None:
        """Begin to listen; the file waits for the first refusal."""
        globalLogPublisher.addObserver(self)

    def close(self) -> None:
        """Listen no more."""
        globalLogPublisher.removeObserver(self)
        self._shut()

    def __call__(self, event: dict[str, Any]) -> None:
        """Keep a refusal; anything else is not ours."""
        if event.get("event") != events.REFUSED.name:
            return
        try:
            self._append(events.asJson(event).encode("ascii"))
            self._isBroken = False
        except OSError as error:
            self._shut()
            self._complain(error)

    def _append(self, line: bytes) -> None:
        if self._file < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
        os.write(self._file, line)  # one call, so that lines of two processes do not mix
        if os.fstat(self._file).st_size >= self._size:
            self._turn()

    def _turn(self) -> None:
        """Begin a new file, unless another process has done so."""
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._file)):
                os.replace(self._path, previous(self._path))
        except FileNotFoundError:
            pass  # another has turned it, and written nothing yet
        finally:
            self._shut()

    def _shut(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _complain(self, error: OSError) -> None:
        if not self._isBroken:
            self._isBroken = True
            problem = f"refusals are not kept: {self._path}: {error.strerror}"
            events.emit(events.SERVICE_PROBLEM, problem=problem)


def previous(path: Path) -> Path:
    """Where the refusals before those of a file are."""
    return path.with_name(f"{path.name}.1")


def find(path: Path, id: str) -> Iterator[Record]:
    """The refusals of an id in a file, as the log told them; a line that is none is passed over.

    Works for :class:`RefusalFile` and for the service's JSON log.

    :raise OSError: when it cannot be read.
    """
    wanted = id.encode("ascii", "replace")
    with open(path, "rb") as file:
        for line in file:
            if wanted in line:
                record = _record(line)
                if record.get("event") == events.REFUSED.name and record.get("refusal") == id:
                    yield record


def _record(line: bytes) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
