"""Tests of :mod:`submitd.jsonlog`."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd import events, logwriter
from submitd.errors import CannotStart
from submitd.jsonlog import JSONLog
from submitd.logwriter import WAIT


class JSONLogTests(SynchronousTestCase):
    """The log of lines of JSON."""

    def test_unwritable(self) -> None:
        """A file that cannot be written stops the start."""
        with self.assertRaises(CannotStart) as caught:
            JSONLog("/nowhere/events.json").open()
        self.assertEqual(
            str(caught.exception), "cannot write /nowhere/events.json: No such file or directory"
        )

    def clock(self) -> Any:
        """A reactor with which lines wait for others."""
        clock: Any = Clock()
        clock.running, clock.addSystemEventTrigger = True, lambda *_: None
        self.patch(logwriter, "isInIOThread", lambda: True)
        return clock

    def test_reopened(self) -> None:
        """A file that was moved away gets no more lines; without a new one it gets all."""
        os.mkdir(directory := Path(self.mktemp()))
        path, moved = directory / "events.json", directory / "events.json.1"
        clock = self.clock()
        log = JSONLog(str(path), clock)
        log.reopen()
        log.open()
        self.addCleanup(log.close)
        events.emit(events.SERVICE_STARTED, hostname="one.example")  # which waits
        self.assertEqual(path.read_text(), "")
        path.rename(moved)
        log.reopen()
        events.emit(events.SERVICE_STARTED, hostname="two.example")
        clock.advance(WAIT)
        self.assertEqual(moved.read_text().count(".example"), 1)
        self.assertIn("two.example", path.read_text())
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertFalse(os.get_inheritable(log.fileno() or 0))
        path.rename(again := directory / "events.json.2")
        path.mkdir()
        log.reopen()
        self.assertIn(f"cannot open {path} again: Is a directory", again.read_text())

    def test_stillThere(self) -> None:
        """What nobody has moved away is not opened again, which the user of --uid may not do."""
        log = JSONLog(self.mktemp(), self.clock())
        log.open()
        self.addCleanup(log.close)

        def opened() -> Any:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(log, "_opened", opened)
        log.reopen()
        events.emit(events.SERVICE_STARTED, hostname="one.example")
        log.close()
        [line] = Path(log._target).read_text().splitlines()
        self.assertIn("one.example", line)

    def test_reopenedFull(self) -> None:
        """A disk that is full, so that what waits cannot be written, is no hindrance."""
        (path := Path(self.mktemp())).symlink_to("/dev/full")
        log = JSONLog(str(path), self.clock())
        log.open()
        self.addCleanup(log.close)
        events.emit(events.SERVICE_STARTED, hostname="one.example")  # which waits
        path.unlink()
        log.reopen()
        events.emit(events.SERVICE_STARTED, hostname="two.example")
        log.close()
        self.assertIn("two.example", path.read_text())

    def test_notOurs(self) -> None:
        """A file that somebody else has opened is left to him."""
        with open(self.mktemp(), "wb") as theirs:
            log = JSONLog(self.mktemp(), descriptor=os.dup(theirs.fileno()))
            log.open()
            self.addCleanup(log.close)
            log.reopen()
            events.emit(events.SERVICE_STARTED, hostname="one.example")
            self.assertIn("one.example", Path(theirs.name).read_text())
        self.assertFalse(os.path.exists(log._target))

    def test_standardOutput(self) -> None:
        """It is the process's own standard output, which twistd's log has taken the place of."""
        out = io.StringIO()
        self.patch(sys, "__stdout__", out)
        log = JSONLog("-")
        log.open()
        log.open()
        events.emit(events.SERVICE_STARTED, hostname="mail.example.com")
        log.close()
        log.close()
        events.emit(events.SERVICE_STARTED, hostname="later.example.com")
        [record] = [json.loads(line) for line in out.getvalue().splitlines()]
        self.assertEqual(record["hostname"], "mail.example.com")
