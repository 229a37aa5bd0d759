"""The promise of a 250, against SIGKILL at random moments.

Clients submit without pause while the service is killed and started again; a next hop takes what
the relay delivers.  In the end every message that was answered with 250 has arrived as it was sent,
each copy too many has a line in the log with its queue id, and there are no more of them than were
on their way when the service was killed: with one delivery at a time, one for each kill at most;
with the 100 of the default, 100 at most.  No relay can do better (RFC 1047): between the next hop's
250 and our record of it there is always a moment.

``SUBMITD_KILLS=200`` is the nightly form (``make nightly``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
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
deliveries = %d
# The lease is the default's 15 minutes: a dead process's work is taken back at the start.
retry = ["1 s"]
backoff = "1 s"
"""


def digest(content: bytes) -> str:
    """What is compared: the text behind the header, without the CRLF that a relay may add."""
    return hashlib.sha256(content.partition(b"\r\n\r\n")[2].rstrip(b"\r\n")).hexdigest()


class NextHop:
    """Takes everything, and notes which message came with which text, under which queue id."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, str]] = []
        self.ids: dict[str, str] = {}

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        header = envelope.content.partition(b"\r\n\r\n")[0].decode("latin-1")
        [identity] = [
            line.partition(": ")[2]
            for line in header.split("\r\n")
            if line.lower().startswith("message-id:")
        ]
        self.arrived.append((identity, digest(envelope.content)))
        # The Received field has it; a double has the same one.
        self.ids[identity] = re.findall(r"\bid ([^\s;]+)", header)[0]
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

    def test_oneAtATime(self) -> None:
        """With one delivery at a time a kill doubles one message at most."""
        self.crash(deliveries=1)

    def test_manyAtATime(self) -> None:
        """With the default of 100 at a time nothing is lost either, and each double is logged."""
        self.crash(deliveries=100)

    def crash(self, deliveries: int) -> None:
        """Kill again and again; then look at every message."""
        hop = NextHop()
        with freePorts(1) as [port]:
            controller = Controller(hop, hostname=HOST, port=port)
            controller.start()
        self.addCleanup(controller.stop)
        directory = Path(self.mktemp()).absolute()
        config = CONFIG % (port, deliveries)
        self.service = RunningService(directory, config, ("submission",)).start()
        self.addCleanup(self.service.stop)
        accepted = self.crashWhileSubmitting()
        self.waitUntilEmpty(directory / "spool")
        self.assertGreater(len(accepted), 10 * KILLS, "too little was submitted to show anything")
        arrived = dict(hop.arrived)
        lost = [identity for identity in accepted if identity not in arrived]
        self.assertEqual(lost, [], "answered with 250, and lost")
        torn = [identity for identity in accepted if arrived[identity] != accepted[identity]]
        self.assertEqual(torn, [], "arrived otherwise than sent")
        self.assertDoublesLogged(hop, deliveries)
        self.assertNotIn("message damaged", self.service.log)

    def assertDoublesLogged(self, hop: NextHop, deliveries: int) -> None:
        """No more copies than were on their way, and the log names each."""
        copies = Counter(identity for identity, _ in hop.arrived)
        doubles = sum(copies.values()) - len(copies)
        self.assertLessEqual(doubles, KILLS * deliveries)
        lines = re.findall(r"lease taken over: .*?\bid=(\S+)", self.service.log)
        logged = Counter(lines)
        for identity, count in copies.items():
            if count > 1:
                self.assertLessEqual(count - 1, logged[hop.ids[identity]], identity)
        # The figures of docs/durability.rst.
        print(f"{KILLS} kills, {len(copies)} messages, {doubles} doubles, {len(lines)} taken over")

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
