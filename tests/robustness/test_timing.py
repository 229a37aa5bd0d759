"""Known and unknown users cannot be told apart: by text, by code, by the work done, by time.

What decides here is counted, never measured: each login costs the same verifications, whoever is
asked for.  With ``SUBMITD_TEST_LONG=1`` 2,000 samples of each kind are timed against the started
service, and a Kolmogorov-Smirnov test must not tell them apart.
"""

from __future__ import annotations

import base64
import hmac
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import SkipTest

import attrs
from passlib.hash import bcrypt, sha256_crypt
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers.cache import CachedChecker
from submitd.checkers.chain import CheckerChain
from submitd.checkers.hashes import PasswordHash
from submitd.checkers.htpasswd import HtpasswdChecker
from submitd.checkers.secrets import SecretsChecker
from submitd.sasl.credentials import UsernameDigest, UsernamePassword
from tests.clients.case import writePrivately
from tests.robustness.checks import Talk
from tests.robustness.peer import Answer, Peer
from tests.robustness.service import LONG, robust

KNOWN = b"ada@example.org"


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """The greatest distance of two empirical distributions (Kolmogorov and Smirnov)."""
    samples = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    seen, greatest = [0, 0], 0.0
    for at, (value, which) in enumerate(samples):
        seen[which] += 1
        if at + 1 == len(samples) or samples[at + 1][0] != value:
            greatest = max(greatest, abs(seen[0] / len(one) - seen[1] / len(other)))
    return greatest


class CountingTests(SynchronousTestCase):
    """Each login costs the same work, whoever is asked for and whatever the password."""

    def setUp(self) -> None:
        """Two files of hashes and one of secrets behind each other, as a service has them."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.done: list[str] = []
        hashes = {
            "first": bcrypt.using(rounds=4).hash("right"),
            "second": sha256_crypt.using(rounds=1000).hash("right"),
        }
        checkers: list[object] = []
        for name, text in hashes.items():
            user = KNOWN if name == "first" else b"grace@example.org"
            writePrivately(directory / name, f"{user.decode()}:{text}")
            checkers.append(
                HtpasswdChecker(str(directory / name), self.runNow, verify=self.counted)
            )
        writePrivately(directory / "secrets", "linus:a secret")
        self.secrets = SecretsChecker(str(directory / "secrets"))
        self.chain = CheckerChain([*checkers, self.secrets])  # type: ignore[list-item]
        self.cache = CachedChecker(self.chain, Clock())

    def runNow(self, function: Callable[..., bool], *arguments: object) -> Deferred[bool]:
        """In place of a thread."""
        return maybeDeferred(function, *arguments)

    def counted(self, password: bytes, expected: PasswordHash) -> bool:
        """Verify nothing, and note what it would have cost."""
        self.done.append(expected.scheme)
        return password == b"right"

    def work(self, name: bytes, password: bytes) -> list[str]:
        """The verifications that one login costs, which must fail."""
        self.done.clear()
        login = self.cache.requestAvatarId(UsernamePassword(name, password))
        self.failureResultOf(login, UnauthorizedLogin)
        return list(self.done)

    def test_password(self) -> None:
        """A wrong password, an unknown user, a strange name: all files, one hash each."""
        names = (KNOWN, KNOWN.upper(), b"grace@example.org", b"linus", b"nobody", b"x" * 1000, b"%")
        self.assertEqual(
            {name: self.work(name, b"wrong") for name in names},
            {name: ["bcrypt", "sha256_crypt"] for name in names},
        )

    def test_notCached(self) -> None:
        """A failed login costs the same the second time; only a good one is remembered."""
        self.assertEqual(self.work(KNOWN, b"wrong"), self.work(KNOWN, b"wrong"))
        good = UsernamePassword(KNOWN, b"right")
        self.successResultOf(self.cache.requestAvatarId(good))
        self.assertEqual(self.work(KNOWN, b"wrong"), ["bcrypt", "sha256_crypt"])

    def test_interfaces(self) -> None:
        """The chain takes passwords at all, or nothing would have been counted."""
        self.assertIn(IUsernamePassword, self.chain.credentialInterfaces)

    def test_digest(self) -> None:
        """CRAM-MD5 computes one digest for a known and for an unknown user."""
        asked: list[bytes] = []

        @attrs.frozen
        class Asking(UsernameDigest):
            def checkPassword(self, password: bytes) -> bool:
                asked.append(password)
                return super().checkPassword(password)

        for name in (b"linus", b"nobody"):
            asked.clear()
            login = self.secrets.requestAvatarId(Asking(name, b"<1@x>", b"0" * 32))
            self.failureResultOf(login, UnauthorizedLogin)
            self.assertEqual(len(asked), 1)


class AnswerTests(SynchronousTestCase):
    """What a started service says, and when."""

    def setUp(self) -> None:
        """Have the service."""
        self.robust = robust()
        self.talk = Talk(self.robust.target)
        self.addCleanup(self.talk.close)

    def ready(self) -> Peer:
        """A connection that may log in."""
        return self.talk.secure()

    def attempt(self, peer: Peer, mechanism: str, name: bytes, secret: bytes) -> Answer:
        """One login."""
        if mechanism == "PLAIN":
            response = base64.b64encode(b"\0" + name + b"\0" + secret)
            return peer.say(b"AUTH PLAIN " + response, "535", "421")
        challenge = peer.say(b"AUTH " + mechanism.encode(), "334")
        if mechanism == "LOGIN":
            peer.say(base64.b64encode(name), "334")
            return peer.say(base64.b64encode(secret), "535", "421")
        asked = base64.b64decode(challenge.lines[0])
        digest = hmac.new(secret, asked, "md5").hexdigest().encode()
        return peer.say(base64.b64encode(name + b" " + digest), "535", "421")

    def sample(
        self, mechanism: str, count: int
    ) -> tuple[dict[bytes, list[float]], dict[bytes, set[str]]]:
        """So many failed logins of each kind, mixed: their times, and what was said."""
        known = b"grace" if mechanism == "CRAM-MD5" else KNOWN
        names = [known] * count + [b"nobody" if known == b"grace" else b"eva@example.org"] * count
        random.Random(7).shuffle(names)
        times: dict[bytes, list[float]] = {name: [] for name in set(names)}
        said: dict[bytes, set[str]] = {name: set() for name in set(names)}
        peer, used = self.ready(), 0
        for name in names:
            if used == 2:  # the third failure ends a connection
                peer.close()
                peer, used = self.ready(), 0
            began = time.perf_counter()
            answer = self.attempt(peer, mechanism, name, os.urandom(8).hex().encode())
            times[name].append(time.perf_counter() - began)
            said[name].add(str(answer))
            used += 1
        peer.close()
        return times, said

    def test_text(self) -> None:
        """One and the same reply, by each mechanism."""
        answers = set()
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            _, said = self.sample(mechanism, 20)
            answers |= set.union(*said.values())
        self.assertEqual(answers, {"535 5.7.8 Authentication credentials invalid"})

    def test_time(self) -> None:
        """2,000 samples of each: no more apart than chance has two samples of one kind."""
        if not LONG:
            raise SkipTest("long form only: SUBMITD_TEST_LONG=1")
        count = 2000
        # What chance stays below in 999 of 1000 cases (Smirnov).
        limit = 1.95 * (2 / count) ** 0.5
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            times, _ = self.sample(mechanism, count)
            apart = distance(*times.values())
            means = {name.decode(): sum(each) / count * 1e6 for name, each in times.items()}
            shown = ", ".join(f"{name} {mean:.0f} us" for name, mean in means.items())
            print(f"{mechanism}: D = {apart:.4f}, limit {limit:.4f}; {shown}")
            self.assertLess(apart, limit, f"{mechanism}: {shown}")

    def test_distance(self) -> None:
        """The statistic tells what can be told: 3 % more time are found, chance is not."""
        places = random.Random(1)
        one = [places.gauss(100, 5) for _ in range(2000)]
        self.assertLess(distance(one, [places.gauss(100, 5) for _ in range(2000)]), 0.0617)
        self.assertGreater(distance(one, [places.gauss(103, 5) for _ in range(2000)]), 0.0617)
        self.assertEqual(distance([1.0, 2.0], [1.0, 2.0]), 0.0)
        self.assertEqual(distance([1.0, 1.0], [2.0, 2.0]), 1.0)
