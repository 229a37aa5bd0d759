"""What logins usually do, and the file it is in."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.counters.history import (
    MAX_DAYS,
    MAX_RECIPIENTS,
    HistoryFile,
    Usual,
    copied,
    packed,
)


def digest(number: int) -> bytes:
    """A recipient."""
    return number.to_bytes(8, "big")


class UsualTests(SynchronousTestCase):
    """What is learned."""

    def test_bounded(self) -> None:
        """The last recipients and days stay, and those that come again are not forgotten."""
        usual = Usual()
        for number in range(MAX_RECIPIENTS + 100):
            usual.learn([digest(number), digest(0)], number)
        self.assertEqual(len(usual.recipients), MAX_RECIPIENTS)
        self.assertIn(digest(0), usual.recipients)
        self.assertNotIn(digest(1), usual.recipients)
        self.assertEqual(len(usual.days), MAX_DAYS)

    def test_daysToCome(self) -> None:
        """Days of a clock that was ahead make room for today, and those before it stay."""
        usual = Usual()
        for day in (*range(90, 100), *range(4000, 4000 + MAX_DAYS)):
            usual.learn([digest(0)], day)
        for _ in range(10):
            usual.learn([digest(0)], 100)
        self.assertEqual((usual.days[100], len(usual.days)), (10, MAX_DAYS))
        for day in range(101, 105):
            usual.learn([digest(0)], day)
        self.assertEqual(usual.perDay(105)[0], 5)

    def test_perDay(self) -> None:
        """The mean of the days with mail, without this one and those long past."""
        usual = Usual(days={1: 1000, 90: 10, 95: 20, 100: 500, 101: 900})
        self.assertEqual(usual.perDay(100), (2, 15.0))
        self.assertEqual(Usual().perDay(100), (0, 0.0))

    @given(
        st.lists(st.integers(0, 2**64 - 1), max_size=20),
        st.dictionaries(st.integers(), st.integers()),
    )
    @settings(deadline=None, max_examples=30)
    def test_packed(self, numbers: list[int], days: dict[int, int]) -> None:
        """What is written is what is read."""
        path = Path(self.mktemp())
        file = HistoryFile(path)
        usual = Usual(dict.fromkeys(map(digest, numbers)), days)
        file.write([("alice", *packed(usual))])
        read = file.read("alice")
        file.close()
        self.assertEqual((list(read.recipients), read.days), (list(usual.recipients), days))


class FileTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.file = self.open()

    def open(self) -> HistoryFile:
        """The file, as one more process opens it."""
        file = HistoryFile(self.path)
        self.addCleanup(file.close)
        return file

    def test_lockedTogether(self) -> None:
        """Who waited for another thread that failed does not wait for SQLite once more."""
        file = HistoryFile(Path(self.mktemp()))
        tries = []

        def begin() -> Any:
            tries.append(None)
            raise OSError("locked")

        class Lock:
            """Waits while another thread tries."""

            def __enter__(self) -> None:
                file._lock = threading.Lock()
                with contextlib.suppress(OSError):
                    file.read("bob")

            def __exit__(self, *error: object) -> None:
                pass

        self.patch(file, "_begin", begin)
        self.patch(file, "_lock", Lock())
        self.assertRaises(OSError, file.read, "alice")
        self.assertEqual(len(tries), 1)
        self.assertRaises(OSError, file.read, "alice")
        self.assertEqual(len(tries), 2)

    def test_private(self) -> None:
        """Only its owner can read who writes to whom; it is made with the first question."""
        self.assertFalse(self.path.exists())
        self.assertEqual(self.file.read("alice").braked, 0.0)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_madeTogether(self) -> None:
        """Of two processes that find no table, one makes it and the other waits for it."""
        other = sqlite3.connect(self.path, timeout=0)
        self.addCleanup(other.close)

        def another(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if "CREATE TABLE" in statement:
                with contextlib.suppress(sqlite3.OperationalError):
                    other.execute(statement)

        sa.event.listen(self.file._engine, "before_cursor_execute", another)
        self.assertEqual(self.file.read("alice").braked, 0.0)

    def test_closedInUse(self) -> None:
        """Closing waits for a thread that is at it: SQLite crashes the process otherwise."""
        going, end = threading.Event(), threading.Event()

        def change(usual: Usual) -> None:
            going.set()
            end.wait(30)

        using = threading.Thread(target=self.file.change, args=("alice", change))
        closing = threading.Thread(target=self.file.close)
        using.start()
        self.assertTrue(going.wait(30))
        closing.start()
        closing.join(0.05)
        self.assertTrue(closing.is_alive())
        end.set()
        using.join(30)
        closing.join(30)
        self.assertFalse(using.is_alive() or closing.is_alive())

    def test_copied(self) -> None:
        """A copy knows what was written last; of a file that is not there, there is none."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.file.brake("alice", 9.0, "because")
        copy = HistoryFile(copied(self.path, directory))
        self.addCleanup(copy.close)
        self.assertEqual(copy.read("alice").reason, "because")
        self.assertFalse(copied(self.path.with_name("none"), directory).exists())

    def test_brake(self) -> None:
        """A brake and its release are seen by every process, and what was learned stays."""
        other = self.open()
        self.file.write([("alice", *packed(Usual({digest(1): None}, {1: 1})))])
        self.file.brake("alice", 100.0, "too much")
        read = other.read("alice")
        self.assertEqual((read.braked, read.reason), (100.0, "too much"))
        self.assertTrue(other.letGo("alice", 200.0))
        self.assertFalse(other.letGo("alice", 300.0))
        self.assertFalse(other.letGo("bob", 300.0))
        read = self.file.read("alice")
        self.assertEqual((read.braked, read.trusted), (0.0, 200.0))
        self.assertEqual(list(read.recipients), [digest(1)])

    def test_newLogin(self) -> None:
        """A login that nothing is known of can be braked."""
        self.file.brake("bob' OR 1=1 --\n\U0001f600", 100.0, "too much")
        self.assertEqual(self.file.read("bob' OR 1=1 --\n\U0001f600").braked, 100.0)
        self.assertEqual(self.file.read("bob").braked, 0.0)

    def test_damaged(self) -> None:
        """A row that makes no sense is as one that was just begun; a file that is none is said."""
        for days in ("", "[]", "{", '{"x": 1}', '{"1": null}', "7"):
            self.file.write([("alice", b"1234567812345", days)])
            read = self.file.read("alice")
            self.assertEqual((read.days, len(read.recipients)), ({}, 2))
        broken = Path(self.mktemp())
        broken.write_bytes(b"no data base at all" * 100)
        self.assertRaises(sa.exc.DatabaseError, HistoryFile(broken).read, "alice")
        missing = HistoryFile(Path(self.mktemp()) / "usual")
        self.assertRaises(OSError, missing.read, "alice")

    def test_path(self) -> None:
        """Whatever stands in the path, it is that file."""
        path = Path(self.mktemp())
        path.mkdir()
        file = HistoryFile(path / "a?mode=ro#%20b c")
        self.addCleanup(file.close)
        file.brake("alice", 1.0, "x")
        self.assertTrue((path / "a?mode=ro#%20b c").exists())

    def test_locked(self) -> None:
        """Another process that reads for long is waited for by nobody who writes."""
        self.file.brake("alice", 1.0, "x")
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        other.execute("BEGIN")
        other.execute("SELECT * FROM usual").fetchall()
        self.file.brake("alice", 2.0, "x")
        self.assertEqual(self.file.read("alice").braked, 2.0)
