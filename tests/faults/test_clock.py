"""The system's clock is set, forward and back, under a running service."""

from __future__ import annotations

import asyncio
import os
import re
import sysconfig
import time
from pathlib import Path
from typing import Any
from unittest import SkipTest

from aiosmtpd.controller import Controller

from tests.clients.case import WRONG
from tests.clients.running import HOST, freePorts
from tests.faults.case import SPOOLED, FaultCase
from tests.robustness.peer import plain

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


RELAYED = """
[relay]
smarthost = "127.0.0.1:%d"
tls = "off"
retry = ["1 h"]
jitter = 0.0
"""

COUNTED = """
[[policy]]
use = "login-throttle"
per_address = "3/hour"
delay = "1 ms"
max_delay = "1 ms"

[[policy]]
use = "rate-limit"
messages_per_login = "2/hour"
"""


class SteppedCase(FaultCase):
    """A service whose time of day is in our hand."""

    def setUp(self) -> None:
        """What makes it so."""
        if not LIBRARY.exists():
            raise SkipTest("libfaketime is not installed")
        self.offset = Path(self.mktemp()).absolute()
        self.set("+0")
        self.before = (
            "env",
            f"LD_PRELOAD={LIBRARY}",
            f"FAKETIME_TIMESTAMP_FILE={self.offset}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )

    def set(self, offset: str) -> None:
        """Set the service's clock."""
        beside = self.offset.with_suffix(".new")
        beside.write_text(f"{offset}\n")
        os.replace(beside, self.offset)


class ClockTests(SteppedCase):
    """Steps of a day."""

    def setUp(self) -> None:
        """The service."""
        super().setUp()
        self.serve(SLOW, self.before)

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


class CountTests(SteppedCase):
    """Windows in which something is counted are as long as they are."""

    def test_windows(self) -> None:
        """Neither a day forward nor a day back ends, or prolongs, a block or a limit."""
        self.serve(COUNTED, self.before)
        self.assertEqual([self.send(), self.send()], ["250", "250"])
        codes = [self.guess(number) for number in range(6)]
        self.assertEqual(codes[0], "535")
        self.assertIn(codes[-1], ("421", "450", "454"))
        for offset in ("+0", "+1d", "-1d"):
            self.set(offset)
            self.assertEqual(self.guess(9), codes[-1], offset)
            # Who has logged in from here before gets in all the same, and has sent enough.
            peer = self.talk.ready()
            self.assertEqual(peer.say(b"MAIL FROM:<ada@example.org>", "4").code, 450, offset)

    def guess(self, number: int) -> str:
        """Log in with a wrong password; the code."""
        peer = self.talk.secure()
        answer = peer.say(b"AUTH PLAIN " + plain("grace", f"{WRONG}{number}"), "4", "535")
        peer.close()
        return str(answer.code)


class NextHop:
    """Notes what comes, and answers when it may."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.isHeld = False
        self.isBusy = False

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """The end of a message."""
        [recipient] = envelope.rcpt_tos
        self.begun.append(recipient)
        while self.isHeld and recipient.startswith("held"):
            await asyncio.sleep(0.02)
        if self.isBusy:
            return "451 4.3.0 later"
        self.ended.append(recipient)
        return "250 2.0.0 taken"


class RelayTests(SteppedCase):
    """Messages in the queue, and on their way."""

    def setUp(self) -> None:
        """A next hop, and the service before it."""
        super().setUp()
        self.hop = NextHop()
        with freePorts(1) as [port]:
            controller = Controller(self.hop, hostname=HOST, port=port)
            controller.start()
        self.addCleanup(controller.stop)
        self.serve(RELAYED % port, self.before, SPOOLED)

    def onItsWay(self, offset: str) -> None:
        """The clock is set while a message is on its way, and another one has the queue looked at.

        :param offset: by how much.
        """
        self.hop.isHeld = True
        self.send("held@example.net")
        self.waitFor(lambda: self.hop.begun, "the next hop has it")
        self.set(offset)
        self.send("second@example.net")
        self.waitFor(lambda: self.hop.ended, "the second is delivered")
        time.sleep(1)
        self.hop.isHeld = False
        self.waitFor(lambda: len(self.hop.ended) == 2, "the first is delivered")
        self.assertEqual(self.hop.begun, ["held@example.net", "second@example.net"])
        self.assertEqual(self.logged("lease taken over"), 0)
        self.assertEqual(self.logged("Traceback"), 0)

    def test_onItsWayForward(self) -> None:
        """A day forward: what is on its way goes out once."""
        self.onItsWay("+1d")

    def test_onItsWayBack(self) -> None:
        """A day back: the same, and what comes from then on is delivered at once."""
        self.onItsWay("-1d")

    def test_retry(self) -> None:
        """Two hours forward: what was to be tried again within them is tried again."""
        self.hop.isBusy = True
        self.send("first@example.net")
        self.waitFor(lambda: self.logged("] delayed: "), "it is put off")
        self.hop.isBusy = False
        self.set("+2h")
        self.send("second@example.net")
        self.waitFor(lambda: len(self.hop.ended) == 2, "both are delivered")
