"""Passwords that are guessed, remembered and changed, against a started service.

The clients' addresses come in PROXY headers, so that there can be many.
"""

from __future__ import annotations

import time
from pathlib import Path

from passlib.hash import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from tests.clients.case import writePrivately
from tests.robustness.checks import Talk
from tests.robustness.peer import plain
from tests.robustness.service import ROBUST, Robust

HASH = bcrypt.using(rounds=4).hash
BOUND = 2.0
"""Seconds in which a changed password takes effect: as long as a good login is remembered."""

GUARDED = (
    ROBUST.replace("[auth]", f'[auth]\ncache = "{BOUND:g} s"')
    + """
[[policy]]
use = "login-throttle"
per_address = "6/minute"
per_network = "8/minute"
per_login = "10/minute"
delay = "20 ms"
max_delay = "40 ms"
"""
)

LET_IN, REFUSED, HELD_OFF = "235", ("535",), ("421", "450", "451", "454", "550")


_guarded: Robust | None = None


def guarded() -> Robust:
    """The service; started once, and ends with the tests."""
    global _guarded
    if _guarded is None or not _guarded.service.isRunning:
        _guarded = Robust(GUARDED)
    return _guarded


class PasswordTests(SynchronousTestCase):
    """Who guesses is cut off, the owner gets in, and nobody gets in as somebody else."""

    def setUp(self) -> None:
        """Have the service, and users and addresses that no other test has used."""
        self.robust = guarded()
        name = self.id().rpartition(".")[2]
        self.ada, self.bob = f"ada@{name}.example", f"bob@{name}.example"
        self.net = sorted(each for each in dir(self) if each.startswith("test_")).index(name)
        self.passwd: Path = self.robust.service.directory / "passwd"
        self.write("one", "two")
        self.talk = Talk(self.robust.target)
        self.addCleanup(self.talk.close)

    def write(self, ada: str, bob: str) -> None:
        """Set both passwords."""
        writePrivately(self.passwd, f"{self.ada}:{HASH(ada)}\n{self.bob}:{HASH(bob)}")

    def login(self, address: str, name: str, password: str) -> str:
        """The code that a client at an address gets; "N" in it is the test's own number."""
        address = address.replace("N", str(self.net))
        peer = self.talk.connect(self.robust.target.proxied)
        family, own = ("TCP6", "::1") if ":" in address else ("TCP4", "127.0.0.1")
        try:
            peer.send(f"PROXY {family} {address} {own} 4000 587\r\n".encode())
            answer = peer.expect("220", *HELD_OFF)
            if answer.code == 220:
                peer.say(b"EHLO client.example", "250")
                peer.say(b"STARTTLS", "220")
                peer.handshake()
                peer.say(b"EHLO client.example", "250")
                answer = peer.say(b"AUTH PLAIN " + plain(name, password), "235", "535", *HELD_OFF)
            return str(answer.code)
        finally:
            peer.close()

    def test_oneAddress(self) -> None:
        """Many users from one address: cut off, also with a right password; others are not."""
        found = [self.login("198.51.N.66", f"user{at}@example.org", "guess") for at in range(10)]
        self.assertIn(found[0], REFUSED)
        self.assertIn(found[-1], HELD_OFF)
        self.assertNotEqual(self.login("198.51.N.66", self.ada, "one"), LET_IN)
        self.assertEqual(self.login("10.0.N.10", self.ada, "one"), LET_IN)

    def test_network(self) -> None:
        """Changing IPv6 addresses of a /64 are one guesser; another /64 is not."""
        found = [
            self.login(f"2001:db8:N:2::{at:x}", self.bob, f"guess {at}") for at in range(1, 12)
        ]
        self.assertIn(found[-1], HELD_OFF)
        self.assertNotEqual(self.login("2001:db8:N:2::ffff", self.ada, "one"), LET_IN)
        self.assertEqual(self.login("2001:db8:N:3::1", self.ada, "one"), LET_IN)

    def test_oneUser(self) -> None:
        """One user from many addresses: held off, while the owner gets in where he was before."""
        self.assertEqual(self.login("10.0.N.10", self.ada, "one"), LET_IN)
        found = [self.login(f"198.51.N.{at}", self.ada, f"guess {at}") for at in range(1, 14)]
        self.assertIn(found[-1], HELD_OFF)
        self.assertNotEqual(self.login("198.51.N.200", self.ada, "one"), LET_IN)
        self.assertEqual(self.login("10.0.N.10", self.ada, "one"), LET_IN)

    def test_successBetween(self) -> None:
        """Who logs in as himself between guesses gains no more of them."""
        found = []
        for at in range(10):
            found.append(self.login("198.51.N.66", self.ada, f"guess {at}"))
            self.login("198.51.N.66", self.bob, "two")
        self.assertNotIn(LET_IN, found)
        self.assertIn(found[-1], HELD_OFF)

    def test_remembered(self) -> None:
        """A good login that is remembered lets nobody else in, and not for longer than is said."""
        self.assertEqual(self.login("10.0.N.10", self.ada, "one"), LET_IN)
        for name, password in (
            (self.bob, "one"),
            (self.ada, "two"),
            (self.ada.upper() + "x", "one"),
        ):
            self.assertIn(self.login("10.0.N.11", name, password), REFUSED)
        self.write("three", "two")
        until = time.monotonic() + BOUND
        while self.login("10.0.N.10", self.ada, "one") == LET_IN:
            self.assertLess(time.monotonic(), until + 1, "the old password still lets in")
        self.assertEqual(self.login("10.0.N.10", self.ada, "three"), LET_IN)
        self.assertEqual(self.login("10.0.N.12", self.bob, "two"), LET_IN)
