"""Several processes at one spool, and what the kernel sees of a commit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from submitd.spool.database import FILE
from tests.spool.support import PostgresCase, SpoolCase

ROOT = Path(__file__).parent.parent.parent


def start(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start one of tests/spool/programs.py."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", "tests.spool.programs", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(case: Any, process: subprocess.Popen[str]) -> list[str]:
    """Its lines, when it has ended well."""
    said, errors = process.communicate(timeout=60)
    case.assertEqual(process.returncode, 0, errors)
    return said.splitlines()


class SharedTests:
    """What holds for both data bases."""

    @property
    def place(self: Any) -> str:
        """Where the spool is, for a command line."""
        [where] = self.options().values()
        return str(where)

    def test_shared(self: Any) -> None:
        """Two processes accept at the same time, two deliver: nothing is lost, nothing twice."""
        accepting = [start("accept", self.place, "40", prefix) for prefix in "AB"]
        accepted = [line for each in accepting for line in finish(self, each)]
        self.assertEqual(len(set(accepted)), 80)
        delivering = [start("lease", self.place) for _ in range(2)]
        delivered = [line for each in delivering for line in finish(self, each)]
        self.assertEqual(sorted(f"250 {each}" for each in delivered), sorted(accepted))
        self.assertEqual(self.sql("SELECT * FROM message"), [])


class SQLiteTests(SharedTests, SpoolCase):
    """Over SQLite."""

    def test_killed(self) -> None:
        """What was answered before a SIGKILL is there, whole."""
        process = start("accept", self.place, "100000", "A")
        assert process.stdout is not None
        answered = [process.stdout.readline().split()[1] for _ in range(50)]
        process.kill()
        answered += [line.split()[1] for line in process.stdout.readlines() if line.endswith("\n")]
        process.communicate()
        kept = {row[0] for row in self.sql("SELECT id FROM message")}
        self.assertLessEqual(set(answered), kept)
        # One may have been committed and not answered any more.
        self.assertLessEqual(len(kept) - len(answered), 1)
        for id in kept:
            self.assertEqual(self.body(id)[-1000:], b"x" * 1000)

    def test_syncedBefore250(self) -> None:
        """The log is synced after it was written and before a message is answered."""
        strace = shutil.which("strace")
        if strace is None:
            raise SkipTest("there is no strace: apt-get install strace")
        trace = Path(self.mktemp()).absolute()
        calls = "trace=write,pwrite64,pwritev,fsync,fdatasync"
        # With the path of each descriptor (-y), over all threads (-f).
        before = (strace, "-f", "-y", "-e", calls, "-o", str(trace), "-s", "32")
        self.assertEqual(len(finish(self, start("accept", self.place, "3", "A", before=before))), 3)
        events = []
        for line in trace.read_text().splitlines():
            if re.search(rf"p?write\w*\(\d+<[^>]*{FILE}-wal>", line):
                events.append("write")
            elif re.search(rf"f(data)?sync\(\d+<[^>]*{FILE}-wal>", line):
                events.append("sync")
            elif re.search(r'write\(1<[^>]*>, "250 ', line):
                events.append("250")
        answers = [at for at, each in enumerate(events) if each == "250"]
        self.assertEqual(len(answers), 3, events)
        begun = 0
        for at in answers:
            self.assertIn("write", events[begun:at])
            self.assertEqual(events[at - 1], "sync", events)
            begun = at


class PostgresTests(SharedTests, PostgresCase):
    """Over PostgreSQL."""
