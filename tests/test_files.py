"""Files that change: another content is seen whatever else stays the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from submitd.files import SETTLED_AFTER, settledStamp, stampAt, stampOf
from submitd.password import Password

# When a file was written that is as old as all others of its system.
LONG_AGO = 1.0


class FilesTests(TestCase):
    """One file, written again and again."""

    def setUp(self) -> None:
        """A file from long ago."""
        self.file = Path(self.mktemp())
        self.write(b"first")

    def write(self, octets: bytes, when: float = LONG_AGO) -> None:
        """Write the file as of some time."""
        # Not within the tick of the file system's clock in which it was written before.
        before = self.file.stat().st_ctime_ns if self.file.exists() else 0
        while True:
            self.file.write_bytes(octets)
            os.utime(self.file, (when, when))
            if self.file.stat().st_ctime_ns > before:
                return

    def test_sameSizeAndTime(self) -> None:
        """What was written in its place has another stamp, though size and time are the same."""
        before = stampAt(self.file)
        self.assertEqual(stampAt(self.file), before)
        self.write(b"other")
        self.assertNotEqual(stampAt(self.file), before)

    def test_missing(self) -> None:
        """What is not there has none."""
        self.assertIsNone(stampAt(self.file.with_name("missing")))

    def test_young(self) -> None:
        """One that was written a moment ago may be another one within the same tick."""
        found = self.file.stat()
        self.assertIsNone(settledStamp(found, LONG_AGO + SETTLED_AFTER))
        self.assertEqual(settledStamp(found, LONG_AGO + SETTLED_AFTER + 0.1), stampOf(found))

    def test_password(self) -> None:
        """A secret as long as the one before, with the same time, is the new one."""
        password = Password(self.file)
        self.assertEqual(password.secret, b"first")
        self.write(b"other")
        self.assertEqual(password.secret, b"other")

    def test_youngPassword(self) -> None:
        """So it is while the file is new, and within one tick."""
        self.write(b"first", time.time())
        password = Password(self.file)
        self.write(b"other", self.file.stat().st_mtime)
        self.assertEqual(password.secret, b"other")
