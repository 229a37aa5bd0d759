"""File descriptors are used up."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

from tests.clients.case import CONFIG
from tests.clients.running import HOST
from tests.faults.case import FaultCase, program
from tests.load.processes import cpu, together

FEW = 64


class DescriptorTests(FaultCase):
    """More clients than descriptors."""

    def test_raised(self) -> None:
        """The service takes as many as it may have, whatever it is started with."""
        self.serve(before=(program("prlimit"), "--nofile=256:512"))
        limits = Path(f"/proc/{self.service.pid}/limits").read_text()
        found = re.search(r"Max open files +(\d+) +(\d+)", limits)
        assert found is not None
        self.assertEqual(found.groups(), ("512", "512"))
        self.assertIn("limits.connections: needs 1064 file descriptors", self.service.log)

    def test_usedUp(self) -> None:
        """Clients wait, the processor does not turn, the log says it once, and it recovers."""
        self.usedUp()

    def test_workers(self) -> None:
        """The same where two processes serve: each of them says it at most once."""
        self.usedUp(workers=2)

    def usedUp(self, workers: int = 1) -> None:
        """Have more clients than there are descriptors."""
        self.serve(
            "\n[limits]\nconnections_per_address = 0\nconnections = 0\n",
            (program("prlimit"), f"--nofile={FEW}:{FEW}"),
            f"workers = {workers}\n{CONFIG}",
        )
        self.assertEqual(self.send(), "250")
        within = self.talk.data()
        crowd = [
            socket.create_connection((HOST, self.service.ports["starttls"]), 5)
            for _ in range(workers * FEW + 10)
        ]
        try:
            self.waitFor(lambda: self.logged("clients have to wait"), "it is in the log")
            before = together(cpu, self.service.pid)
            time.sleep(3)
            self.assertLess(together(cpu, self.service.pid) - before, 1)
            self.assertIn(self.logged("clients have to wait"), range(1, workers + 1))
            crowd[0].settimeout(5)
            self.assertEqual(crowd[0].recv(3), b"220")
            crowd[-1].setblocking(False)
            self.assertRaises(BlockingIOError, crowd[-1].recv, 3)
            # One who is within a message gets an answer, whichever it is.
            answer = within.send(self.talk.header + b"x\r\n.\r\n").expect("250", "4")
            kept = 2 if answer.code == 250 else 1
            self.assertEqual(self.kept, kept)
        finally:
            for each in crowd:
                each.close()
        self.waitFor(lambda: self.logged("no client has to wait"), "it recovers")
        self.assertEqual(self.send(), "250")
        self.assertEqual(self.kept, kept + 1)
        self.assertEqual(self.logged("Traceback"), 0)
