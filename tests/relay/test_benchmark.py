"""The benchmark of the relay works; its figures are nobody's promise."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.running import ROOT
from tests.relay.programs import needs


class BenchmarkTests(SynchronousTestCase):
    """``python -m benchmarks.relay``."""

    def test_short(self) -> None:
        """A few messages through both queues, a figure for each, and their ratio."""
        needs("postfix", "smtp-sink", "smtp-source", "postsuper")
        command = [sys.executable, "-m", "benchmarks.relay"]
        ran = subprocess.run(
            [*command, "--messages", "50", "--repetitions", "1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertRegex(ran.stdout, r"submitd +\d+ us of CPU a message")
        self.assertRegex(ran.stdout, r"postfix +\d+ us of CPU a message")
        self.assertIn("ratio", ran.stdout)
