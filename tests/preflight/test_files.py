"""Tests of :mod:`submitd.preflight.files`."""

from __future__ import annotations

import os
from pathlib import Path

from submitd.preflight import logNotWritten
from submitd.settings import LogSettings, RefusalSettings, Settings
from tests.preflight.support import ExamineTestCase


class LogTests(ExamineTestCase):
    """Where the log is written."""

    def test_log(self) -> None:
        """A log that is a directory is a mistake; standard output is none."""
        directory = self.mktemp()
        Path(directory).mkdir()
        self.assertEqual(
            self.said(log=LogSettings(json=directory)), [f"log.json: {directory} is a directory"]
        )
        self.assertEqual(self.said(log=LogSettings(json="-")), [])

    def test_nul(self) -> None:
        """No file has such a name, and what looks for one would raise."""
        log = LogSettings(json="a\0b")
        self.assertEqual(self.said(log=log), ["log.json: there is a NUL in the name"])
        self.assertEqual(list(logNotWritten(Settings(log=log))), [])

    def test_notWritten(self) -> None:
        """One that we cannot open is no mistake of a service that runs, but of a start."""
        self.patch(os, "access", lambda path, mode: False)
        directory = Path(self.mktemp())
        directory.mkdir()
        log = LogSettings(json=str(directory / "log"))
        self.assertEqual(self.said(log=log), [])
        [found] = logNotWritten(Settings(log=log))
        self.assertEqual(str(found), f"log.json: no permission to write to {directory}")
        for json in ("", "-", str(directory)):
            self.assertEqual(list(logNotWritten(Settings(log=LogSettings(json=json)))), [])


class RefusalsTests(ExamineTestCase):
    """Where refusals are kept."""

    def test_place(self) -> None:
        """A file that cannot be made is a mistake."""
        file = Path(self.mktemp()) / "refusals.jsonl"
        self.assertEqual(
            self.said(refusals=RefusalSettings(file=file)),
            [f"refusals.file: there is no directory {file.parent}"],
        )

    def test_closed(self) -> None:
        """One in a directory that nobody may enter is one, too, and no error."""

        def closed(path: Path) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        self.patch(Path, "stat", closed)
        file = Path("/closed/refusals.jsonl")
        self.assertEqual(
            self.said(refusals=RefusalSettings(file=file)),
            [f"refusals.file: cannot look at {file}: Permission denied"],
        )
