"""What is said of a file with a secret of ours that others can read."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from submitd.password import othersCanRead


class OthersTests(SynchronousTestCase):
    """Our own file, and one of root's that we can read by its group."""

    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.touch()
        # Somebody who is not root, whoever runs the tests.
        self.ours = os.geteuid() or 4242
        if os.geteuid() == 0:
            os.chown(self.file, self.ours, -1)
        self.patch(os, "geteuid", lambda: self.ours)

    def said(self, mode: int) -> str:
        """What is said of a file with this mode."""
        os.chmod(self.file, mode)
        return othersCanRead(self.file).removeprefix(f"{self.file} can be read by others ")

    def test_ours(self) -> None:
        """Nobody else needs to read it."""
        self.assertEqual(self.said(0o600), "")
        for mode in (0o640, 0o604):
            self.assertEqual(self.said(mode), f"(chmod 600 {self.file})")

    def test_roots(self) -> None:
        """By the advice for our own we could not read it any more."""
        for asking, owner in ((self.ours, 0), (0, 0), (0, self.ours)):
            self.patch(os, "geteuid", lambda asking=asking: asking)
            for mode, said in ((0o640, ""), (0o644, f"(chmod o= {self.file})")):
                found = SimpleNamespace(st_uid=owner, st_mode=mode)
                self.patch(Path, "stat", lambda path, found=found: found)
                self.assertEqual(self.said(mode), said)
