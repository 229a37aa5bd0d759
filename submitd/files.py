"""Files: whether one has changed since it was read, why one cannot be written, what lasts.

What is read again when it changes is known by its :data:`Stamp`, which the system keeps: nothing is
opened to find out.  Two writes within one tick of the file system's clock leave the same times
behind, so a file that was written a moment ago has none yet (:func:`settledStamp`), and is read
again whatever they say.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

Stamp = tuple[int, ...]

SETTLED_AFTER = 2.0
"""Seconds after which a file is not changed any more without a change of its stamp."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The errors of a disk that is full, or a quota, or a file that is as large as it may be."""


def stampOf(found: os.stat_result) -> Stamp:
    """What is another one when a file is another one, or has been written to.

    :param found: what the system says of it.
    """
    # ctime too: cp -p and touch -r set mtime back, and some systems give all files the same.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def stampAt(path: Path) -> Stamp | None:
    """The stamp of the file of that name; ``None`` where it cannot be seen."""
    try:
        return stampOf(os.stat(path))
    except OSError:
        return None


def settledStamp(found: os.stat_result, now: float) -> Stamp | None:
    """The same, to be kept with what is read of it; ``None`` for a file that is too young.

    :param now: the time of day, in seconds since 1970.
    """
    return stampOf(found) if now - found.st_mtime > SETTLED_AFTER else None


def syncDirectory(path: Path | str) -> None:
    """Make the names in a directory durable.

    :raise OSError: when that fails.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
