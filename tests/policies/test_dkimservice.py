"""Policy dkim in a service that runs: what arrives verifies, by dkimpy and by OpenDKIM."""

from __future__ import annotations

import os
import shutil
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import SkipTest

import dkim
from twisted.trial.unittest import SynchronousTestCase

from submitd.message.dkimkeys import readKeyFile, recordText
from submitd.tools.dkim import makeKey, writeKey
from tests.clients.running import HOST, RunningService

OPEN = """\
hostname = "{name}.example.com"

[[listener]]
endpoint = "tcp:$smtp:interface=127.0.0.1"
tls = "off"
require_tls = false

[auth]
required = false
"""

SIGNING = (
    OPEN.format(name="submission")
    + """
[limits]
message_size = 0

[[policy]]
use = "message-fixups"

[[policy]]
use = "dkim"

[[policy.key]]
domain = "example.com"
selector = "rsa"
file = "keys/rsa.pem"

[[policy.key]]
domain = "example.com"
selector = "ed"
file = "keys/ed.pem"
"""
)

MAILDIR = """
[delivery]
use = "maildir"
path = "$directory/Maildir"
"""

# Seconds for a message on its way through a relay, or for a signal.
PATIENCE = 30.0

MESSAGE = (
    b"From: Ada <ada@example.com>\r\nSubject: a  subject\r\n\tthat is folded\r\n"
    b"To: bob@example.net\r\nBcc: secret@example.net\r\n\r\n"
    b"Dear Bob, \t\r\n\r\n.a dot\r\n.\r\n  two  spaces\r\n\r\n\r\n"
)
EIGHT_BIT = (
    "From: J\u00f6rg <j\u00f6rg@example.com>\r\nSubject: Gr\u00fc\u00dfe\r\n\r\n"
    "Sch\u00f6ne Gr\u00fc\u00dfe\r\n"
).encode()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.02)


class ServiceCase(SynchronousTestCase):
    """Has key files, and services that end with the test."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.keys = self.directory / "keys"
        for name, kind in (("rsa", "rsa"), ("ed", "ed25519")):
            writeKey(self.keys / f"{name}.pem", makeKey(kind, 2048))

    @contextmanager
    def running(self, config: str, directory: Path | None = None) -> Iterator[RunningService]:
        """A service as long as the context lasts."""
        service = RunningService(directory or self.directory, config, ports=["smtp"]).start()
        try:
            yield service
        finally:
            service.stop()

    def send(self, service: RunningService, message: bytes, *options: str) -> None:
        """Submit a message."""
        with smtplib.SMTP(HOST, service.ports["smtp"], timeout=30) as client:
            client.sendmail("ada@example.com", "bob@example.net", message, options)

    def kept(self, service: RunningService) -> bytes:
        """The one new message in the Maildir, which is taken out."""
        new = service.maildir / "new"
        until(lambda: any(new.glob("*")), f"a message in {new}:\n{service.log}")
        [file] = new.glob("*")
        octets = file.read_bytes()
        file.unlink()
        return octets

    def record(self, name: bytes) -> bytes:
        """What the DNS would say."""
        file = self.keys / (name.partition(b".")[0].decode() + ".pem")
        return recordText(readKeyFile(file).public).encode()

    def assertVerifies(self, message: bytes) -> None:
        """Both signatures are good."""
        verifier = dkim.DKIM(message)
        for index in range(2):
            self.assertTrue(verifier.verify(index, lambda name, timeout: self.record(name)))
        self.assertFalse(verifier.verify(2))


class DeliveredTests(ServiceCase):
    """Submission, delivery, verification."""

    def test_maildir(self) -> None:
        """What is in the Maildir verifies, whatever the message is."""
        with self.running(SIGNING + MAILDIR) as service:
            for message, options in (
                (MESSAGE, ()),
                (b"From: a@example.com\r\n\r\n", ()),
                (EIGHT_BIT, ("BODY=8BITMIME", "SMTPUTF8")),
            ):
                self.send(service, message, *options)
                kept = self.kept(service)
                self.assertVerifies(kept)
                self.assertNotIn(b"secret@", kept)

    def test_changedKey(self) -> None:
        """A key that is replaced signs the next message, and a broken one is told of at SIGHUP."""
        with self.running(SIGNING + MAILDIR) as service:
            self.send(service, MESSAGE)
            before = self.kept(service)
            self.assertVerifies(before)
            (self.keys / "ed.pem").unlink()
            writeKey(self.keys / "ed.pem", makeKey("ed25519", 0))
            self.send(service, MESSAGE)
            self.assertVerifies(self.kept(service))
            good = (self.keys / "rsa.pem").read_bytes()
            (self.keys / "rsa.pem").write_bytes(b"broken")
            os.kill(service.pid, signal.SIGHUP)
            until(lambda: "is no private key in PEM format" in service.log, service.log)
            self.assertIn("the key before stays in use", service.log)
            self.send(service, MESSAGE)
            (self.keys / "rsa.pem").write_bytes(good)
            self.assertVerifies(self.kept(service))

    def test_readableByOthers(self) -> None:
        """A key that others can read is named, and the service does not start."""
        (self.keys / "ed.pem").chmod(0o644)
        self.directory.joinpath("submitd.toml").write_text(
            SIGNING.replace("$smtp", "0") + MAILDIR.replace("$directory", str(self.directory))
        )
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
                *("--nodaemon", "--pidfile=", "submitd", "--config", "submitd.toml", "--check"),
            ],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertNotEqual(done.returncode, 0)
        said = done.stdout + done.stderr
        self.assertIn(f"{self.keys}/ed.pem: may be read or written by others", said)
        self.assertIn("(mode 0644)", said)

    def test_relayed(self) -> None:
        """What went through the spool and the relay verifies at the next hop."""
        far = self.directory / "far"
        with self.running(OPEN.format(name="far") + MAILDIR, far) as next_:
            relay = (
                '\n[delivery]\nuse = "spool"\npath = "$directory/spool"\n\n[relay]\n'
                f'smarthost = "{HOST}:{next_.ports["smtp"]}"\ntls = "off"\n'
            )
            with self.running(SIGNING + relay) as service:
                for message, options in (
                    (MESSAGE, ()),
                    (EIGHT_BIT, ("BODY=8BITMIME", "SMTPUTF8")),
                ):
                    self.send(service, message, *options)
                    arrived = self.kept(next_)
                    self.assertEqual(arrived.count(b"Received:"), 2)
                    self.assertVerifies(arrived)

    def test_large(self) -> None:
        """A message of 16 MiB is signed without being held."""
        body = b"0123456789 abcdefghij \t0123456789\r\n" * (2**24 // 36)
        with self.running(SIGNING + MAILDIR) as service:
            self.send(service, MESSAGE)
            self.kept(service)
            service.forgetPeak()
            before = service.memory
            self.send(service, MESSAGE + body)
            self.assertLess(service.peakMemory - before, 8 * 1024)
            self.assertVerifies(self.kept(service))


class OpenDKIMTests(ServiceCase):
    """OpenDKIM verifies what dkimpy verifies."""

    def setUp(self) -> None:
        super().setUp()
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
        self.program = shutil.which("opendkim", path=path)
        if self.program is None:
            raise SkipTest("opendkim is not installed")

    def verified(self, message: bytes) -> str:
        """What opendkim says of a message; the records come from a file."""
        records = self.directory / "records"
        records.write_text(
            "".join(
                f"{name}._domainkey.example.com {self.record(name.encode()).decode()}\n"
                for name in ("rsa", "ed")
            )
        )
        config = self.directory / "opendkim.conf"
        config.write_text(f"Mode v\nTestPublicKeys {records}\n")
        file = self.directory / "message"
        file.write_bytes(message)
        assert self.program is not None
        done = subprocess.run(
            [self.program, "-x", str(config), "-t", str(file), "-v", "-v"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    def test_verified(self) -> None:
        """Both signatures are good, each looked at alone; a changed text is not."""
        with self.running(SIGNING + MAILDIR) as service:
            for message, options in (
                (MESSAGE, ()),
                (b"From: a@example.com\r\n\r\n", ()),
                (EIGHT_BIT, ("BODY=8BITMIME", "SMTPUTF8")),
            ):
                self.send(service, message, *options)
                kept = self.kept(service)
                start = kept.index(b"DKIM-Signature:")
                second = kept.index(b"DKIM-Signature:", start + 1)
                rest = kept.index(b"Received:")
                for signed in (kept[start:second], kept[second:rest]):
                    selector = "s=rsa" if b"s=rsa" in signed else "s=ed"
                    said = self.verified(signed + kept[rest:])
                    self.assertIn("dkim=pass", said)
                    self.assertIn(f"({selector}, d=example.com", said)
                    changed = (signed + kept[rest:]).replace(b"From: ", b"From: x", 1)
                    self.assertIn("dkim=fail", self.verified(changed))
