"""A service of its own for each fault, and what must hold behind all of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.case import ADA, CONFIG, ClientTestCase
from tests.clients.running import RunningService
from tests.robustness.checks import Talk, Target

SPOOLED = f"""{CONFIG.partition("[delivery]")[0]}[delivery]
use = "spool"
path = "$directory/spool"
"""
"""The usual configuration, with the queue; ``[relay]`` comes behind it."""

PATIENCE = 20.0
"""Seconds in which the service has to be as it was."""


def program(name: str) -> str:
    """The path of a program.

    :raise SkipTest: when it is not installed.
    """
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise SkipTest(f"{name} is not installed")
    return found


class FaultCase(SynchronousTestCase):
    """A service, and a client that talks to it."""

    service: RunningService
    talk: Talk

    def serve(self, more: str = "", before: Sequence[str] = (), config: str = CONFIG) -> None:
        """Start it.

        :param more: what is behind the usual configuration.
        :param before: a command line that runs it.
        :param config: in place of the usual configuration.
        """
        directory = Path(tempfile.mkdtemp(prefix="fault-", dir=os.getcwd()))
        ClientTestCase.prepare(directory)
        self.service = RunningService(directory, config + more, before=before).start()
        self.addCleanup(self.service.kill)
        ports = self.service.ports
        self.talk = Talk(
            Target(
                port=ports["starttls"],
                implicit=ports["implicit"],
                user=ADA.name,
                password=ADA.secret,
                kept=lambda: self.kept,
                pid=self.service.pid,
            )
        )
        self.addCleanup(self.talk.close)

    @property
    def kept(self) -> int:
        """How many messages are in the Maildir."""
        new = self.service.maildir / "new"
        return len(list(new.iterdir())) if new.is_dir() else 0

    def send(self, recipient: str = "bob@example.net") -> str:
        """Send a message.

        :return: the code that it got in the end.
        """
        peer = self.talk.ready()
        peer.say(b"MAIL FROM:<ada@example.org>", "250")
        peer.say(b"RCPT TO:<%b>" % recipient.encode(), "250")
        peer.say(b"DATA", "354")
        answer = peer.send(self.talk.header + b"a message\r\n.\r\n").hear()
        assert answer is not None
        peer.close()
        return str(answer.code)

    def waitFor(self, holds: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait until something holds.

        :raise AssertionError: when it does not in time.
        """
        until = time.monotonic() + patience
        while not holds():
            if time.monotonic() > until:
                raise AssertionError(f"{what} within {patience} s:\n{self.service.log}")
            time.sleep(0.05)

    def logged(self, text: str) -> int:
        """How often the log has a text."""
        return self.service.log.count(text)
