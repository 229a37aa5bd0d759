"""Whether a file can be written, before anybody writes it; nothing is made.

It is asked as whoever will write: root may write everywhere, but not where nothing can be, as where
a unit of systemd's has all but some directories read-only.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

READ_ONLY = "is read-only here (under systemd, ReadWritePaths= says what is not)"


def unwritable(file: Path, alone: bool = False) -> str:
    """Why a file cannot be written, or made where it is not there; empty when it can.

    :param alone: whether no others are made beside it, nor one in its place.
    """
    try:
        found = _look(file)
        if found is not None:
            if stat.S_ISDIR(found.st_mode):
                return f"{file} is a directory"
            said = _refused(file)
            return said if said or alone else _refused(file.parent)
        above = _look(file.parent)
    except OSError as error:
        return f"cannot look at {file}: {error.strerror}"
    if above is None or not stat.S_ISDIR(above.st_mode):
        return f"there is no directory {file.parent}"
    return _refused(file.parent)


def _look(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refused(path: Path) -> str:
    if os.access(path, os.W_OK):
        return ""
    isReadOnly = os.statvfs(path).f_flag & os.ST_RDONLY
    return f"{path} {READ_ONLY}" if isReadOnly else f"no permission to write to {path}"
