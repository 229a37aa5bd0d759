"""smtp-source, Postfix's generator of load, as an LMTP client: many sessions, many recipients."""

from __future__ import annotations

import re
import shutil
import subprocess
from unittest import SkipTest

from tests.clients.case import find
from tests.lmtp.case import LMTPTestCase

SESSIONS, MESSAGES, RECIPIENTS, LENGTH = 4, 40, 3, 20_000


class SourceTests(LMTPTestCase):
    """All of its messages arrive, each once for each recipient."""

    def setUp(self) -> None:
        """Have the program and the service."""
        self.program = find("smtp-source") or ""
        if not self.program:
            raise SkipTest("smtp-source is not installed; it comes with Debian's postfix")
        super().setUp()

    def send(self, target: str) -> None:
        """Have it send, to ``box``, ``2box``, ``3box``, several messages over each connection."""
        boxes = ["box", *(f"{number}box" for number in range(2, RECIPIENTS + 1))]
        for name in boxes:
            (self.mail / name / "new").mkdir(parents=True)
            self.addCleanup(shutil.rmtree, self.mail / name)
        numbers = f"-s {SESSIONS} -m {MESSAGES} -r {RECIPIENTS} -l {LENGTH}".split()
        addresses = ["-f", "a@example.org", "-t", "box@example.net", "-M", "client.example"]
        ran = subprocess.run(
            [self.program, "-L", "-d", *numbers, *addresses, target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual((ran.returncode, ran.stdout + ran.stderr), (0, ""), self.logged)
        for name in boxes:
            self.assertArrived(name)

    def assertArrived(self, name: str) -> None:
        """Each message is there once, and is whole."""
        kept = self.kept(name)
        ids = {id for text in kept for id in re.findall(rb"(?mi)^Message-Id: <(.*)>", text)}
        self.assertEqual((len(kept), len(ids)), (MESSAGES, MESSAGES))
        for text in kept:
            self.assertIn(b"Delivered-To: %b@example.net\r\n" % name.encode(), text)
            self.assertGreaterEqual(len(text), LENGTH)

    def test_tcp(self) -> None:
        """Over TCP."""
        self.send(f"inet:127.0.0.1:{self.service.ports['tcp']}")
        accepted = self.logged.count("message accepted: ")
        self.assertEqual(accepted, MESSAGES)

    def test_unix(self) -> None:
        """Over a unix socket."""
        self.send(f"unix:{self.socket}")
