"""What the garbage collector leaves alone."""

from __future__ import annotations

import gc
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from submitd.collector import spareCollector
from tests.running import ROOT

FORKED = """
import gc, os, sys
from submitd.collector import leaveShared
kept = [[] for _ in range(200_000)]
def shared():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Shared_Dirty:"):
            return int(line.split()[1])
if os.fork():
    os.wait()
else:
    if "leave" in sys.argv:
        leaveShared()
    before = shared()
    gc.collect()
    print(shared() / before)
"""


class CollectorTests(SynchronousTestCase):
    """Of one process, and of one that was forked."""

    def test_spare(self) -> None:
        """What there is now is looked at no more."""
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        spareCollector()
        self.assertGreater(gc.get_freeze_count(), 10_000)
        self.assertLess(len(gc.get_objects()), 10_000)

    def part(self, *arguments: str) -> float:
        """The part of the memory that is still shared with the parent behind a collection."""
        asked = subprocess.run(
            [sys.executable, "-c", FORKED, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            check=True,
        )
        return float(asked.stdout)

    def test_shared(self) -> None:
        """A collection in a worker copies nothing of what it shares with the others."""
        self.assertGreater(self.part("leave"), 0.9)
        self.assertLess(self.part(), 0.7)
