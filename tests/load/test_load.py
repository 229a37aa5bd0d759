"""The short form of the load, and what counts as growth."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.load.run import GROWTH_KIB, Load, growth, run


class LoadTests(SynchronousTestCase):
    """A load for some seconds; ``python -m tests.load`` is the long form."""

    def test_short(self) -> None:
        """300 idle clients that come all at once and 50 busy ones: what the long form promises."""
        self.load()

    def test_workers(self) -> None:
        """The same where two processes serve."""
        self.load(workers=2)

    def load(self, workers: int = 1) -> None:
        """Load a service, and look what came of it."""
        directory = Path(tempfile.mkdtemp(prefix="load-", dir=os.getcwd()))
        said: list[str] = []
        load = Load(300, 50, 10.0, pause=1.0, opening=0, workers=workers)
        outcome = run(load, directory, said.append)
        self.assertEqual(outcome.mistakes, [], "\n".join(said))
        self.assertGreater(outcome.count.accepted, 100)
        self.assertGreater(outcome.count.slowWritten, 0)
        self.assertGreater(outcome.count.slowRead, 0)
        self.assertGreater(outcome.count.rude, 0)


class GrowthTests(SynchronousTestCase):
    """When memory counts as flat."""

    def test_flat(self) -> None:
        """Warming up is no growth, nor is a ripple."""
        self.assertEqual(growth([10_000, 90_000, 100_000, 100_500] + [100_300, 100_600] * 2), 0)
        self.assertEqual(growth([]), 0)

    def test_leak(self) -> None:
        """A leak of some KiB with every message is seen."""
        leaking = [100_000 + 2 * GROWTH_KIB * at for at in range(8)]
        self.assertGreater(growth(leaking), GROWTH_KIB)
