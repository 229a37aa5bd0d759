"""The promise of a 250, against SIGKILL at random moments.

Clients submit without pause while the service is killed and started again; a next hop takes what
the relay delivers.  In the end every message that was answered with 250 has arrived as it was sent,
and there is at most one copy too many for each kill.

``SUBMITD_KILLS=200`` is the nightly form.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import smtplib
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from twisted.trial.unittest import SynchronousTestCase

from tests.clients.running import HOST, ROOT, RunningService, freePorts

KILLS = int(os.environ.get("SUBMITD_KILLS", "20"))

# Seconds in which the queue has to be empty once nobody submits any more.
DRAIN = 60.0 + KILLS

CONFIG = """
hostname = "mail.example.com"
[[listener]]
endpoint = "tcp:$submission:interface=127.0.0.1"
tls = "off"
require_tls = false
[auth]
required = false
[limits]
connections_per_address = 0
[delivery]
use = "spool"
path = "$directory/spool"
[relay]
smarthost = "127.0.0.1:%d"
tls = "off"
# One on its way at a time: what a kill can double is then one message.
deliveries = 1
lease = "2 s"
retry = ["1 s"]
backoff = "1 s"
"""


def digest(content: bytes) -> str:
    """What is compared: the text behind the header, without the CRLF that a relay may add."""
    return hashlib.sha256(content.partition(b"\r\n\r\n")[2].rstrip(b"\r\n")).hexdigest()


class NextHop:
    """Takes everything, and notes which message came with which text."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, str]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        header = envelope.content.partition(b"\r\n\r\n")[0].decode("latin-1")
        [identity] = [
            line.partition(": ")[2]
            for line in header.split("\r\n")
            if line.lower().startswith("message-id:")
        ]
        self.arrived.append((identity, digest(envelope.content)))
        return "250 2.0.0 taken"


class Submitter(threading.Thread):
    """A client that submits without pause, and notes what was answered with 250."""

    def __init__(self, number: int, crash: CrashTests, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.crash = crash
        self.stopped = stop
        self.accepted: dict[str, str] = {}
        self.sent = 0

    def run(self) -> None:
        while not self.stopped.is_set():
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self.submit()
            time.sleep(0.02)

    def submit(self) -> None:
        port = self.crash.service.ports["submission"]
        with smtplib.SMTP(HOST, port, local_hostname="client.example", timeout=10) as client:
            while not self.stopped.is_set():
                identity, text = self.message()
                client.sendmail("a@example.com", ["b@example.net"], text)
                self.accepted[identity] = digest(text)
                time.sleep(0.005)

    def message(self) -> tuple[str, bytes]:
        self.sent += 1
        identity = f"<{self.number}.{self.sent}@client.example>"
        lines = b"".join(b"%d %032x\r\n" % (self.sent, random.getrandbits(128)) for _ in range(20))
        return identity, f"Message-ID: {identity}\r\nSubject: x\r\n\r\n".encode() + lines


class CrashTests(SynchronousTestCase):
    """SIGKILL at any moment."""

    timeout = DRAIN + KILLS * 10

    def test_nothingLost(self) -> None:
        """What was answered with 250 arrives whole, with at most one double for each kill."""
        hop = NextHop()
        with freePorts(1) as [port]:
            controller = Controller(hop, hostname=HOST, port=port)
            controller.start()
        self.addCleanup(controller.stop)
        directory = Path(self.mktemp()).absolute()
        self.service = RunningService(directory, CONFIG % port, ("submission",)).start()
        self.addCleanup(self.service.stop)
        accepted = self.crashWhileSubmitting()
        self.waitUntilEmpty(directory / "spool")
        self.assertGreater(len(accepted), 10 * KILLS, "too little was submitted to show anything")
        arrived = dict(hop.arrived)
        lost = [identity for identity in accepted if identity not in arrived]
        self.assertEqual(lost, [], "answered with 250, and lost")
        torn = [identity for identity in accepted if arrived[identity] != accepted[identity]]
        self.assertEqual(torn, [], "arrived otherwise than sent")
        copies = Counter(identity for identity, _ in hop.arrived)
        doubles = sum(copies.values()) - len(copies)
        self.assertLessEqual(doubles, KILLS)
        log = self.service.log
        self.assertLessEqual(doubles, log.count("lease taken over"), "a double that is not logged")
        self.assertNotIn("message damaged", log)

    def crashWhileSubmitting(self) -> dict[str, str]:
        """Kill and start again; what the clients were answered with 250 meanwhile."""
        stop = threading.Event()
        submitters = [Submitter(number, self, stop) for number in range(4)]
        for submitter in submitters:
            submitter.start()
        for _ in range(KILLS):
            time.sleep(random.uniform(0.1, 0.7))
            self.service.kill()
            self.service.start()
        time.sleep(0.5)
        stop.set()
        accepted: dict[str, str] = {}
        for submitter in submitters:
            submitter.join(20)
            accepted.update(submitter.accepted)
        return accepted

    def waitUntilEmpty(self, spool: Path) -> None:
        """Wait for the relay, asking as an operator would."""
        command = [sys.executable, "-c", "from submitd.tools.queue import main; main()"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        until = time.monotonic() + DRAIN
        while True:
            asked = subprocess.run(
                [*command, "--spool", str(spool), "counts", "--json"],
                env=environment,
                capture_output=True,
                timeout=60,
            )
            self.assertEqual(asked.returncode, 0, asked.stderr)
            waiting = [each for each in json.loads(asked.stdout) if each["state"] != "delivered"]
            if not waiting:
                return
            if time.monotonic() > until:
                self.fail(f"still in the queue: {waiting}\n{self.service.log[-3000:]}")
            time.sleep(0.2)
