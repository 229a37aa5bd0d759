"""What policies cost: CPU time per message of 1 KB, more than without any.

``python -m benchmarks.policies`` prints a line for each policy and one for all of them together.
It runs the dialogue without a network, so what is measured is the policies and the stage that holds
the header section for them.  Those that ask somebody else (dkim its threads, milter, delegation, a
Redis) are left out.  The goal is 150 microseconds for all.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

from submitd.deliveries.discard import Discard
from submitd.dialogue import Dialogue, Rules
from submitd.extensions import extensions
from submitd.interfaces import IBlindCopyDelivery, IHoldingDelivery
from submitd.message import mailboxes
from submitd.policies.archive import Archive
from submitd.policies.brake import Brake
from submitd.policies.fixups import MessageFixups
from submitd.policies.loginthrottle import LoginThrottle
from submitd.policies.ratelimit import RateLimit
from submitd.policies.recipients import Recipients
from submitd.policies.senderowner import SenderOwner
from submitd.realm import Submitter
from submitd.session import Session
from submitd.submission import Submission
from submitd.typed import Count, Rates

HEADER = b"""\
Received: from laptop.private (unknown [10.0.0.5]) by hub.private with ESMTP;
 Mon, 01 Jan 2024 12:00:00 +0100
From: Alice Example <alice@example.com>
To: Bob Example <bob@example.org>, Carol <carol@example.org>
Subject: A message of one kilobyte
Date: Mon, 01 Jan 2024 12:00:00 +0100
Message-ID: <abcdef@example.com>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit
User-Agent: Mail 1.0
""".replace(b"\n", b"\r\n")
MESSAGE = HEADER + b"\r\n" + (b"x" * 62 + b"\r\n") * 9 + b".\r\n"

# Two windows each; none is ever full.
MANY = Rates("100000/hour, 1000000/day")

COUNT = 300
ROUNDS = 12


@implementer(IHoldingDelivery, IBlindCopyDelivery)
class Sink(Discard):
    """What brake and archive need."""


class Load:
    """One dialogue, ready for messages.

    :param policies: what takes part.
    """

    def __init__(self, policies: Sequence[Any]) -> None:
        self._clock = Clock()
        self._clock.advance(1e9)
        for policy in policies:
            if isinstance(policy, Brake | RateLimit | LoginThrottle):
                policy.start(self._clock, maybeDeferred)
        submission = Submission(
            hostname="mail.example.com",
            delivery=Sink(),
            clock=self._clock,
            policies=policies,
            extensions=extensions(),
            loginRequired=False,
            requireTLS=False,
        )
        self.best = float("inf")
        session = Session("192.0.2.1")
        self._dialogue = Dialogue(Rules(submission), session)
        self._dialogue.connectionMade()
        self._dialogue.lineReceived(b"EHLO client.example")
        session.user = Submitter("alice@example.com")

    def measure(self) -> None:
        """Send messages, and keep the best time, in seconds for each."""
        begin = time.process_time()
        for _ in range(COUNT):
            self._send()
        self.best = min(self.best, (time.process_time() - begin) / COUNT)

    def _send(self) -> None:
        # Addresses that were read before are remembered; what is measured is the first time.
        mailboxes._remembered.cache_clear()
        self._clock.rightNow += 0.1
        dialogue = self._dialogue
        dialogue.lineReceived(b"MAIL FROM:<alice@example.com>")
        dialogue.lineReceived(b"RCPT TO:<bob@example.org>")
        dialogue.lineReceived(b"DATA")
        answer: Any = dialogue.dataReceived(MESSAGE)[0]
        if answer.code != 250:
            raise SystemExit(f"a message was refused: {answer}")


def policies(directory: Path) -> dict[str, list[Any]]:
    """Each policy, with files that were written long ago."""
    for name, text in (
        ("owners", "info@example.com alice@example.com\n" * 100),
        ("allowed", "@example.org\n@*.example.net\n"),
        ("refused", "x@example.org\n"),
    ):
        (directory / name).write_text(text)
        os.utime(directory / name, (1e9, 1e9))
    return {
        "sender-owner": [SenderOwner(map=directory / "owners", subaddress="+")],
        "recipients": [
            Recipients(
                most=Count(100), allowed=directory / "allowed", refused=directory / "refused"
            )
        ],
        "message-fixups": [MessageFixups(private_received=True)],
        "rate-limit": [
            RateLimit(
                messages_per_login=MANY,
                messages_per_address=MANY,
                messages_per_network=MANY,
                messages_per_domain=MANY,
                messages_in_all=MANY,
                recipients_per_login=MANY,
            )
        ],
        "login-throttle": [LoginThrottle()],
        "brake": [Brake(path=directory / "usual.db", first_time=MANY)],
        "archive": [Archive(address="archive@example.com")],
    }


def main() -> None:
    """Measure them in turn, so that none has a quieter machine than another."""
    with tempfile.TemporaryDirectory() as directory:
        each = policies(Path(directory))
        every = [policy for group in policies(Path(directory)).values() for policy in group]
        loads = {name: Load(given) for name, given in {**each, "all": every}.items()}
        none = Load([])
        for _ in range(ROUNDS):
            none.measure()
            for load in loads.values():
                load.measure()
    print(f"without policies  {none.best * 1e6:6.1f} us")
    for name, load in loads.items():
        print(f"{name:16} +{(load.best - none.best) * 1e6:6.1f} us")


if __name__ == "__main__":
    main()
