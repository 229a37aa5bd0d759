"""Whether a file can be written, said before anybody writes it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from submitd.writable import unwritable


class WritableTests(SynchronousTestCase):
    """Files that are there, and files that are not."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.there = self.directory / "there"
        self.there.touch()
        self.missing = self.directory / "missing"

    def test_good(self) -> None:
        """What can be written, or made, is nothing to speak of; and nothing is made."""
        self.assertEqual((unwritable(self.there), unwritable(self.missing)), ("", ""))
        self.assertFalse(self.missing.exists())

    def test_kinds(self) -> None:
        """A directory is no file, and there must be one above a file."""
        self.assertEqual(unwritable(self.directory), f"{self.directory} is a directory")
        for above in (self.missing, self.there):
            self.assertEqual(unwritable(above / "x"), f"there is no directory {above}")

    def test_permission(self) -> None:
        """Of a file that is there its own rights count; of another, those of its directory."""
        self.patch(os, "access", lambda path, mode: False)
        for file, path in ((self.there, self.there), (self.missing, self.directory)):
            self.assertEqual(unwritable(file), f"no permission to write to {path}")

    def test_beside(self) -> None:
        """What makes others beside itself needs its directory, also where it is there itself."""
        self.patch(os, "access", lambda path, mode: path != self.directory)
        said = f"no permission to write to {self.directory}"
        self.assertEqual((unwritable(self.there), unwritable(self.there, alone=True)), (said, ""))

    def test_readOnly(self) -> None:
        """No change of rights helps where systemd has all but some directories read-only."""
        self.patch(os, "access", lambda path, mode: False)
        self.patch(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
        said = unwritable(self.missing)
        self.assertTrue(said.startswith(f"{self.directory} is read-only here"), said)
        self.assertIn("ReadWritePaths=", said)

    def test_closed(self) -> None:
        """What lies where one may not look is a sentence, and no error."""

        def closed(path: Path) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        self.patch(Path, "stat", closed)
        self.assertEqual(
            unwritable(self.missing), f"cannot look at {self.missing}: Permission denied"
        )
