"""What is said of a file with a secret of ours that others can read."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from submitd.password import othersCanRead


class OthersTests(SynchronousTestCase):
    """Our own file, and one of root's that we can read by its group."""

    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.touch()

    def said(self, mode: int) -> str:
        """What is said of a file with this mode."""
        self.file.chmod(mode)
        return othersCanRead(self.file).removeprefix(f"{self.file} can be read by others ")

    def test_ours(self) -> None:
        """Nobody else needs to read it."""
        self.assertEqual(self.said(0o600), "")
        for mode in (0o640, 0o604):
            self.assertEqual(self.said(mode), f"(chmod 600 {self.file})")

    def test_roots(self) -> None:
        """By the advice for our own we could not read it any more."""
        ours = os.geteuid()
        self.patch(os, "geteuid", lambda: ours + 1)
        self.assertEqual(self.said(0o640), "")
        self.assertEqual(self.said(0o644), f"(chmod o= {self.file})")
