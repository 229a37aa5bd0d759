"""Something that the service waits for never comes: a policy, a thread, a name server."""

from __future__ import annotations

import base64
import socket
import time

from passlib.hash import bcrypt

from tests.clients.case import ADA, GRACE, writePrivately
from tests.clients.running import HOST
from tests.faults.case import SPOOLED, FaultCase
from tests.robustness.peer import Peer, plain

HANGING = """
[limits]
stage = "60 s"
drain = "1 s"

[[policy]]
use = "tests.robustness.faulty:Policy"
"""


class PolicyTests(FaultCase):
    """A policy that hangs; that it ends with 451 shows tests.robustness.test_failures."""

    def test_stop(self) -> None:
        """Others are served meanwhile, and the service ends once its time to drain is over."""
        self.serve(HANGING)
        peer = self.talk.beginSecure()
        peer.expect("220")
        peer.send(b"EHLO hang.hello.example\r\n")
        self.assertEqual(self.send(), "250")
        began = time.monotonic()
        self.service.stop()
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(self.kept, 1)


class ThreadTests(FaultCase):
    """Each thread that computes hashes is busy."""

    def test_full(self) -> None:
        """Logins get their answer in time, 454 if need be; who is logged in notices nothing."""
        self.serve('\n[limits]\nstage = "1 s"\nconnections_per_address = 0\n')
        mine = self.talk.ready()
        # 1.5 s of one core for each: more than all threads together can compute in the time, and
        # more than the reactor has threads.
        slow = bcrypt.using(rounds=14).hash("whatever")
        file = self.service.directory / "passwd"
        writePrivately(file, f"{ADA.name}:{bcrypt.using(rounds=4).hash(ADA.secret)}\nslow:{slow}\n")
        crowd = [self.talk.secure() for _ in range(12)]
        began = time.monotonic()
        for at, peer in enumerate(crowd):
            # Each another password: one that is being looked at already would be waited for.
            peer.send(b"AUTH PLAIN " + plain("slow", f"{GRACE.secret}{at}") + b"\r\n")
        self.talk.transaction(mine)
        mine.say(b"DATA", "354")
        mine.say(self.talk.header + b"meanwhile\r\n.", "250")
        served = time.monotonic() - began
        codes = {peer.expect("454", "535").code for peer in crowd}
        self.assertLess(time.monotonic() - began, 15)
        self.assertLess(served, 5)
        self.assertIn(454, codes)
        self.assertEqual(self.kept, 1)

        def works() -> bool:
            peer = self.talk.secure()
            return peer.say(b"AUTH PLAIN " + plain(ADA.name, ADA.secret), "235", "454").code == 235

        # Until the last hash of the crowd is done; on a busy machine that takes a while.
        self.waitFor(works, "logins work again", patience=120)
        self.assertEqual(self.send(), "250")
        self.assertNotIn(base64.b64encode(GRACE.secret.encode()).decode(), self.service.log)


BY_MX = """
[relay]
mx = true

[[route]]
recipients = ["example.org"]
maildir = "$directory/Maildir"

[dns]
servers = ["%s"]
"""


class NameServerTests(FaultCase):
    """A name server that never answers."""

    def setUp(self) -> None:
        """One that listens."""
        self.silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.silent.close)
        self.silent.bind((HOST, 0))
        self.address = f"{HOST}:{self.silent.getsockname()[1]}"

    def asked(self) -> bool:
        """Whether somebody has asked it."""
        self.silent.settimeout(10)
        return bool(self.silent.recv(512))

    def test_greeting(self) -> None:
        """The greeting waits as long as dns.timeout, and the client is served without a name."""
        self.serve(
            f'\n[dns]\nreverse_lookup = true\ntimeout = "500 ms"\nservers = ["{self.address}"]\n'
        )
        began = time.monotonic()
        peer: Peer = self.talk.connect()
        peer.expect("220")
        self.assertGreater(time.monotonic() - began, 0.3)
        self.assertLess(time.monotonic() - began, 5)
        self.assertTrue(self.asked())
        self.assertEqual(self.send(), "250")

    def test_relay(self) -> None:
        """Mail that is routed by DNS is taken and waits; other routes notice nothing."""
        self.serve(BY_MX % self.address, config=SPOOLED)
        self.assertEqual(self.send(), "250")
        self.assertTrue(self.asked())
        self.assertEqual(self.send("bob@example.org"), "250")
        self.waitFor(lambda: self.kept == 1, "the other message is delivered")
        self.waitFor(lambda: self.logged("] delayed: "), "the attempt has its end")
        self.assertEqual(self.logged("] failed: "), 0)
        self.assertEqual(self.logged("Traceback"), 0)
        began = time.monotonic()
        self.service.stop()
        self.assertLess(time.monotonic() - began, 10)
