"""A message of 100 MB: the service takes it in the memory that it has already."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from tests.clients.case import CONFIG, RECIPIENT, SENDER, USERS, ClientTestCase
from tests.clients.test_smtplib import connect, login

SIZE = 100 * 1024 * 1024

GROWTH = 16 * 1024
"""KiB by which the service may grow: 256 KiB of the message, and what threads and TLS take."""


def blocks() -> Iterator[bytes]:
    """The message in pieces of 64 KiB, dots doubled already."""
    yield b"Subject: large\r\n\r\n"
    line = random.Random(1).randbytes(64).hex().encode() * 7
    block = (line + b"\r\n..dot\r\n") * 72
    sent = 0
    while sent < SIZE:
        yield block
        sent += len(block)


class LargeTests(ClientTestCase):
    """One large message."""

    config = CONFIG + '\n[limits]\nmessage_size = "200 MiB"\n'

    def test_memory(self) -> None:
        """100 MB arrive as they were sent, and the service does not grow with them."""
        expected = hashlib.sha256()
        user = USERS["PLAIN"]
        with connect(self.service.ports["implicit"], self.authority, True) as client:
            login(client, "PLAIN", user.name, user.secret)
            client.mail(SENDER)
            client.rcpt(RECIPIENT)
            self.service.forgetPeak()
            before = self.service.memory
            self.assertEqual(client.docmd("DATA")[0], 354)
            for block in blocks():
                client.send(block)
                expected.update(block.replace(b"\r\n..", b"\r\n."))
            self.assertEqual(client.docmd(".")[0], 250)
            growth = self.service.peakMemory - before
        self.assertLess(growth, GROWTH, f"KiB, from {before}")
        self.assertEqual(self._digest(), expected.hexdigest())

    def _digest(self) -> str:
        [file] = self.files("new")
        digest = hashlib.sha256()
        with open(file, "rb") as kept:
            while kept.readline() != b"Subject: large\r\n":
                pass
            digest.update(b"Subject: large\r\n")
            while block := kept.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
