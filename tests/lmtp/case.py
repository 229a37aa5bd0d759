"""A service that speaks LMTP, over TCP and over a unix socket, in front of real mailboxes.

Its delivery is docs/examples/mailboxes.py, which answers for each recipient.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

from passlib.hash import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from tests.clients.authority import Authority
from tests.clients.case import ADA, writePrivately
from tests.clients.running import ROOT, RunningService

CONFIG = """\
hostname = "lmtp.example.org"

[[listener]]
endpoint = "tcp:$tcp:interface=127.0.0.1"
tls = "off"
require_tls = false
lmtp = true

[[listener]]
endpoint = "unix:$directory/lmtp.sock"
tls = "off"
require_tls = false
lmtp = true

[[listener]]
endpoint = "tcp:$secure:interface=127.0.0.1"
lmtp = true

[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"

[auth]
required = false
checkers = ["htpasswd:passwd"]

[delivery]
use = "mailboxes:Mailboxes"
path = "$directory/mail"
quota = "1 MB"
"""

MAILBOXES = ("ada", "bob", "full")
QUOTA = 1_000_000


class LMTPTestCase(SynchronousTestCase):
    """Tests of one LMTP client: one service for all of them."""

    _service: ClassVar[RunningService | None] = None

    def setUp(self) -> None:
        """Have the service, and mailboxes of which one is full."""
        self.service = self._shared()
        self.mail = self.service.directory / "mail"
        for name in MAILBOXES:
            shutil.rmtree(self.mail / name, ignore_errors=True)
            (self.mail / name / "new").mkdir(parents=True)
        (self.mail / "full" / "new" / "x").write_bytes(b"x" * QUOTA)
        self._logged = len(self.service.log)
        self.addCleanup(self._leave)

    @classmethod
    def _shared(cls) -> RunningService:
        # A unix socket's path is short, and Postfix, which does not run as root, must get there.
        if LMTPTestCase._service is None:
            directory = Path(tempfile.mkdtemp(prefix="submitd-lmtp-", dir="/tmp"))
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
            directory.chmod(0o755)
            Authority.make(directory, "authority").issue(directory)
            hashed = bcrypt.using(rounds=4).hash(ADA.secret)
            writePrivately(directory / "passwd", f"{ADA.name}:{hashed}")
            (directory / "mail").mkdir()
            service = RunningService(
                directory, CONFIG, ("tcp", "secure"), modules=[ROOT / "docs" / "examples"]
            )
            LMTPTestCase._service = service.start()
        return LMTPTestCase._service

    def _leave(self) -> None:
        self.assertTrue(self.service.isRunning, self.service.log)
        self.assertNotIn("Traceback", self.logged)
        for name in MAILBOXES:
            unfinished = self.mail / name / "tmp"
            self.assertEqual(list(unfinished.iterdir()) if unfinished.is_dir() else [], [])

    @property
    def logged(self) -> str:
        """What the service has said during this test."""
        return self.service.log[self._logged :]

    @property
    def socket(self) -> Path:
        """The service's unix socket."""
        return self.service.directory / "lmtp.sock"

    def kept(self, name: str) -> list[bytes]:
        """The messages of one mailbox."""
        folder = self.mail / name / "new"
        return [file.read_bytes() for file in sorted(folder.iterdir())]
