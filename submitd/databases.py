"""What all our data bases need: URLs that show no secret, and one process that makes a file.

URLs are read without being repeated, and shown without what is secret in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

PATIENCE = 10.0
"""Seconds to wait for another one that makes a file."""

MOMENT = 0.02
"""Seconds until the lock is tried again."""

_SHOWN = ("host", "port", "dbname", "user")


def readUrl(text: str, example: str) -> sa.URL:
    """A URL as SQLAlchemy and libpq write it.

    :param example: how one looks, for the sentence.
    :raise ValueError: for what is none; the text does not show it, for there may be a password.
    """
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        # ValueError: what is taken for the port may be a part of the password.
        raise ValueError(f'url must be such as "{example}"') from None
    if "@" in (url.host or "") or (url.password is not None and text.count("@") > 1):
        # A part of the password would be taken for the host or the data base, and be shown.
        raise ValueError('url must have "%40" for an "@" in its password')
    return url


def shownUrl(url: sa.URL) -> str:
    """A URL for logs and sentences.

    What is behind its question mark is shown where it says which data base it is, and no more:
    libpq takes passwords there, too.
    """
    query = {name: value for name, value in url.query.items() if name in _SHOWN}
    return url.set(query=query).render_as_string(hide_password=True)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Be the one process that makes an SQLite file in a directory.

    SQLite fails at once, instead of waiting, where another one writes the first page of a file that
    is to get a write-ahead log.  Where a directory cannot be locked, or somebody keeps it locked,
    as whoever may read it can, that has to do.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, lock)
            _lock(lock)
        yield


def _lock(file: int) -> None:
    """Lock a file, or raise ``OSError``."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(MOMENT)
