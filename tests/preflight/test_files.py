"""Tests of :mod:`submitd.preflight.files`."""

from __future__ import annotations

from pathlib import Path

from submitd.settings import LogSettings
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
