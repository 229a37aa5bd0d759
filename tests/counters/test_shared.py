"""Counts that workers share."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd import events
from submitd.counters import shared
from submitd.counters.counters import Counters
from submitd.counters.memory import Memory
from submitd.counters.shared import SharedCounts
from submitd.counters.windows import Want, Window
from submitd.wire.errors import Refused
from tests.counters.test_memory import HOUR, Contract

FORK = multiprocessing.get_context("fork")
MANY = Window(10_000, 3600, "many")

STEPS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.integers(0, 4)),
            min_size=1,
            max_size=3,
            unique_by=lambda each: each[0],
        ),
        st.booleans(),
    ),
    max_size=25,
)


def count(directory: Path, times: int) -> None:
    """A worker's life."""
    storage = SharedCounts(directory)
    for _ in range(times):
        storage.take([Want("a", MANY), Want("b", MANY, 2)], 1e9, True)


def countForEver(directory: Path) -> None:
    """A worker that is killed."""
    while True:
        count(directory, 100)


class Files(SynchronousTestCase):
    """The files of a service."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        shared.prepare(self.directory)
        self.storage = self.made()

    def made(self, **arguments: Any) -> SharedCounts:
        """One worker's side."""
        made = SharedCounts(self.directory, **arguments)
        self.addCleanup(made.close)
        return made


class PlaceTests(SynchronousTestCase):
    """The directory that the workers of one service have."""

    def setUp(self) -> None:
        self.temporary = Path(self.mktemp())
        self.temporary.mkdir()
        self.patch(tempfile, "tempdir", str(self.temporary))
        self.place = shared.Place()

    def test_ends(self) -> None:
        """It is nobody else's, the same as long as it is there, and removed at the end."""
        path = self.place.path()
        self.assertEqual(path.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.place.path(), path)
        self.place.close()
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_locked(self) -> None:
        """What tidies temporary directories asks for a lock, and leaves this one alone."""
        file = os.open(self.place.path(), os.O_RDONLY)
        self.assertRaises(BlockingIOError, fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.place.close()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(file)

    def test_removed(self) -> None:
        """One that was removed is made anew; where that cannot be, at the next question."""
        first = self.place.path()
        shutil.rmtree(first)
        self.temporary.rename(aside := Path(self.mktemp()))
        self.assertEqual(self.place.path(), first)
        aside.rename(self.temporary)
        storage = SharedCounts(self.place.path())
        self.assertEqual(len(storage.secret), 32)
        self.place.close()
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_full(self) -> None:
        """Where there is no room for a new one nothing of it is left, and nothing is raised."""
        first = self.place.path()
        shutil.rmtree(first)

        def full(storage: SharedCounts) -> Any:
            raise sqlite3.OperationalError("database or disk is full")

        self.patch(SharedCounts, "_open", full)
        self.assertEqual(self.place.path(), first)
        self.assertEqual(list(self.temporary.iterdir()), [])
        self.place.close()


class SharedTests(Contract, Files):
    """What every storage does, and what this one does besides."""

    storage: SharedCounts

    def test_seen(self) -> None:
        """What one worker has counted another one sees."""
        other = self.made()
        self.take(Want("a", HOUR, 5))
        self.assertEqual(other.rooms([Want("a", HOUR)], self.start)[0].left, 0)
        self.assertEqual(other.secret, self.storage.secret)

    def test_cannotOpen(self) -> None:
        """A file that cannot be opened leaves nothing open, however often it is tried."""
        (self.directory / shared.FILE).write_bytes(b"no data base" * 100)
        storage, opened = SharedCounts(self.directory), Path("/proc/self/fd")
        before = len(list(opened.glob("*")))
        for _ in range(5):
            self.assertRaises(sqlite3.Error, storage.rooms, [Want("a", HOUR)], 0.0)
        self.assertEqual(len(list(opened.glob("*"))), before)

    def test_prefix(self) -> None:
        """Two policies of one configuration do not count together."""
        self.take(Want("a", HOUR, 5))
        self.assertEqual(
            self.made(prefix="2/").rooms([Want("a", HOUR)], self.start)[0].left, HOUR.amount
        )

    def test_bounded(self) -> None:
        """Old logs go as new ones come, and there is a most of those that are not old."""
        small = self.made(size=10)
        self.patch(shared, "_LOOK", 20)
        for at in range(100):
            small.take([Want(f"k{at}", HOUR)], self.start + at, True)
        connection = small._connection
        assert connection is not None
        [kept] = connection.execute("SELECT count(*) FROM log").fetchone()
        self.assertLessEqual(kept, 30)
        for at in range(20):
            small.take([Want(f"n{at}", HOUR)], self.start + 10_000 + at, True)
        [entries] = connection.execute("SELECT count(*) FROM entry").fetchone()
        self.assertLessEqual(entries, 30)

    def test_asMemory(self) -> None:
        """Step by step the same answers as from the counts in memory."""

        @settings(deadline=None, max_examples=60)
        @given(STEPS)
        def run(steps: Any) -> None:
            run.number += 1  # type: ignore[attr-defined]
            memory, now = Memory(), 1e9
            own = self.made(prefix=f"{run.number}/")  # type: ignore[attr-defined]
            for passed, asked, together in steps:
                now += passed
                wants = [Want(key, Window(5, 60, ""), cost, mark) for key, cost, mark in asked]
                self.assertEqual(own.take(wants, now, together), memory.take(wants, now, together))
                self.assertEqual(own.rooms(wants, now), memory.rooms(wants, now))

        run.number = 0  # type: ignore[attr-defined]
        run()


class ProcessTests(Files):
    """Several processes."""

    def test_exact(self) -> None:
        """Four processes that count at the same time lose nothing."""
        children = [
            FORK.Process(target=count, args=(self.directory, 100), daemon=True) for _ in range(4)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        rooms = self.storage.rooms([Want("a", MANY), Want("b", MANY)], 1e9)
        self.assertEqual([room.used for room in rooms], [400, 800])

    def test_killed(self) -> None:
        """A process that is killed while it counts leaves neither a lock nor half a count."""
        for _ in range(5):
            child = FORK.Process(target=countForEver, args=(self.directory,), daemon=True)
            before = self.used()
            child.start()
            while self.used() <= before + 20:
                pass
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join(60)
            a, b = (
                room.used for room in self.storage.rooms([Want("a", MANY), Want("b", MANY)], 1e9)
            )
            self.assertEqual(b, 2 * a)

    def used(self) -> int:
        """How much has been counted."""
        return self.storage.rooms([Want("a", MANY)], 1e9)[0].used


class CountersTests(Files):
    """The counters of a policy."""

    def counters(self, onFailure: Any = "open", where: str = "memory") -> Counters:
        """Counters that share."""
        made = Counters(where, onFailure, 1.0, "rate-limit")
        made.share(self.storage)
        clock: Any = Clock()
        clock.advance(1e9)
        made.start(clock)
        return made

    def test_share(self) -> None:
        """They count in the storage that is shared, and answer at once."""
        counters = self.counters()
        counters.take([Want("a", HOUR, 5)])
        taken: Any = self.counters().take([Want("a", HOUR)])
        self.assertEqual(taken.shortage, 0)
        rooms: Any = counters.rooms([Want("a", HOUR)])
        self.assertEqual(rooms[0].left, 0)

    def test_redis(self) -> None:
        """A Redis is shared by itself."""
        counters = self.counters(where="redis://127.0.0.1:1/0")
        self.assertFalse(counters._isShared)

    def test_away(self) -> None:
        """Files that cannot be used are an outage, as a Redis that is away."""
        said: list[str] = []
        self.patch(events, "emit", lambda event, **fields: said.append(event.name))
        self.storage = SharedCounts(self.directory / "nowhere")
        counters = self.counters()
        self.assertIsNone(counters.take([Want("a", HOUR)]))
        self.assertIsNone(counters.rooms([Want("a", HOUR)]))
        self.assertRaises(Refused, self.counters("closed").take, [Want("a", HOUR)])
        self.storage._directory = self.directory
        counters.take([Want("a", HOUR)])
        self.assertEqual(said, ["counters-away", "counters-away", "counters-back"])
