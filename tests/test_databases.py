"""URLs of data bases show no secret, and one process at a time makes a file."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import sqlalchemy as sa
from twisted.trial.unittest import SynchronousTestCase

from submitd import databases
from submitd.counters.history import HistoryFile
from submitd.databases import readUrl, shownUrl
from submitd.policies.ownersquery import OwnersQuery
from submitd.spool.database import Database

EXAMPLE = "postgresql:///x"


class UrlTests(SynchronousTestCase):
    """Reading and showing."""

    def test_shown(self) -> None:
        """Neither a password before the host nor one behind the question mark."""
        for text, shown in (
            ("postgresql://me:s3cret@h:1/x", "postgresql://me:***@h:1/x"),
            ("postgresql:///x?host=h&password=s3cret&port=1", "postgresql:///x?host=h&port=1"),
            ("postgresql:///x?sslpassword=s3cret&user=me", "postgresql:///x?user=me"),
            ("postgresql://h/x?pasword=s3cret", "postgresql://h/x"),
        ):
            self.assertEqual(shownUrl(readUrl(text, EXAMPLE)), shown)

    def test_wrong(self) -> None:
        """What cannot be read is not repeated."""
        for text in (
            "postgresql:/me:s3cret@h/x",
            "postgres//me:s3cret@h/x",
            "s3cret",
            "postgresql://me:s3@cr:et@h/x",
            "postgresql://h:54x/x",
        ):
            with self.assertRaises(ValueError) as caught:
                readUrl(text, EXAMPLE)
            self.assertEqual(str(caught.exception), 'url must be such as "postgresql:///x"')

    def test_at(self) -> None:
        """What stands behind an "@" of the password is no host, and is not shown as one."""
        for text in ("me:s3@cret@h/x", "me:s3@cr/et@h/x", "me:s3@cr?et@h/x"):
            with self.assertRaises(ValueError) as caught:
                readUrl(f"postgresql://{text}", EXAMPLE)
            said = 'url must have "%40" for an "@" in its password'
            self.assertEqual(str(caught.exception), said)
        self.assertEqual(readUrl("postgresql://me:s3%40cret@h/x", EXAMPLE).password, "s3@cret")

    def test_used(self) -> None:
        """The spool and sender-owner show theirs so, also in what they say of a failure."""
        url = "postgresql://127.0.0.1:1/x?password=s3cret&nonsense=s3cret"
        for each in (Database(url=url), OwnersQuery(url, "SELECT :login", 0)):
            said = [each.name, *each.check()]
            self.assertEqual(len(said), 2)
            said.append(repr(each))
            self.assertNotIn("s3cret", str(said))


class AloneTests(SynchronousTestCase):
    """Making a file."""

    def test_oneProcess(self) -> None:
        """While one makes the spool or the history, no other does; then it may."""
        directory = Path(self.mktemp())
        directory.mkdir()
        found: list[bool] = []

        def isFree() -> bool:
            # An open file of its own, as another process would have.
            other = os.open(directory, os.O_RDONLY)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            finally:
                os.close(other)
            return True

        database, history = Database(directory), HistoryFile(directory / "history.db")
        for engine in (database._engine, history._engine):
            sa.event.listen(engine, "connect", lambda *_: found.append(isFree()), insert=True)
        opened: Any = database.connect()
        self.addCleanup(opened.close)
        self.addCleanup(history.close)
        history.read("alice")
        self.assertEqual(found, [False, True, False])
        self.assertTrue(isFree())

    def test_noLocks(self) -> None:
        """A file system that cannot lock a directory has its files made all the same."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.patch(fcntl, "flock", Mock(side_effect=OSError(errno.EBADF, "as NFS says")))
        opened: Any = Database(directory).connect()
        self.addCleanup(opened.close)
        history = HistoryFile(directory / "history.db")
        self.addCleanup(history.close)
        self.assertEqual(history.read("alice").braked, 0.0)

    def test_keptLocked(self) -> None:
        """Whoever keeps the directory locked, as any reader of it can, does not keep us waiting."""
        directory = Path(self.mktemp())
        directory.mkdir()
        other = os.open(directory, os.O_RDONLY)
        self.addCleanup(os.close, other)
        fcntl.flock(other, fcntl.LOCK_EX)
        self.patch(databases, "PATIENCE", 0.0)
        opened: Any = Database(directory).connect()
        self.addCleanup(opened.close)
        history = HistoryFile(directory / "history.db")
        self.addCleanup(history.close)
        self.assertEqual(history.read("alice").braked, 0.0)
