"""The system's clock is set, forward and back, under a running service."""

from __future__ import annotations

import os
import re
import sysconfig
import time
from pathlib import Path
from unittest import SkipTest

from tests.faults.case import FaultCase

LIBRARY = Path(
    "/usr/lib", sysconfig.get_config_var("MULTIARCH") or "", "faketime", "libfaketimeMT.so.1"
)

SLOW = """
[limits]
stage = "2 s"
idle = "60 s"

[[policy]]
use = "tests.robustness.faulty:Policy"
"""


class ClockTests(FaultCase):
    """Steps of a day."""

    def setUp(self) -> None:
        """A service whose time of day is in our hand."""
        if not LIBRARY.exists():
            raise SkipTest("libfaketime is not installed")
        self.offset = Path(self.mktemp()).absolute()
        self.set("+0")
        self.serve(
            SLOW,
            (
                "env",
                f"LD_PRELOAD={LIBRARY}",
                f"FAKETIME_TIMESTAMP_FILE={self.offset}",
                "FAKETIME_NO_CACHE=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
            ),
        )

    def set(self, offset: str) -> None:
        """Set the service's clock."""
        beside = self.offset.with_suffix(".new")
        beside.write_text(f"{offset}\n")
        os.replace(beside, self.offset)

    def stepped(self, offset: str) -> None:
        """A client is there while the clock is set, and all goes on as before."""
        peer = self.talk.ready()
        self.assertEqual(self.send(), "250")
        self.set(offset)
        time.sleep(6)  # the sweep for what takes too long comes every five seconds
        self.talk.transaction(peer)
        peer.say(b"RSET", "250")
        self.assertEqual(self.send(), "250")
        self.assertEqual(self.kept, 2)
        hanging = self.talk.beginSecure()
        hanging.expect("220")
        began = time.monotonic()
        hanging.say(b"EHLO hang.hello.example", "451")
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(self.logged("idle for"), 0)

    def test_forward(self) -> None:
        """A day forward: nobody is cut off as idle, and messages have the new date."""
        self.stepped("+1d")
        dates = set()
        for message in (self.service.maildir / "new").iterdir():
            matched = re.search(rb"; \w+, (\d+) \w+ \d+ ", message.read_bytes())
            assert matched is not None
            dates.add(matched[1])
        self.assertEqual(len(dates), 2)

    def test_back(self) -> None:
        """A day back: limits on time hold as before, and not a day later."""
        self.stepped("-1d")
