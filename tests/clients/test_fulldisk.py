"""A full disk, really: a Maildir on a file system of 1 MB."""

from __future__ import annotations

import contextlib
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

from tests.clients import messages
from tests.clients.case import CONFIG, RECIPIENT, SENDER, USERS, ClientTestCase
from tests.clients.running import RunningService
from tests.clients.test_smtplib import connect, login


class FullDiskTests(ClientTestCase):
    """A Maildir for which there is no room."""

    options = "size=1m"

    def serve(self) -> RunningService:
        """A service for each test, its Maildir on a file system of its own."""
        directory = Path(self.mktemp()).absolute()
        (directory / "Maildir").mkdir(parents=True)
        self._mount(directory / "Maildir")
        self.prepare(directory)
        service = RunningService(directory, CONFIG).start()
        self.addCleanup(service.stop)
        return service

    def _mount(self, maildir: Path) -> None:
        command = ["mount", "-t", "tmpfs", "-o", self.options, "tmpfs", str(maildir)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"").decode().splitlines() or [str(error)]
            raise SkipTest(f"cannot mount a small file system: {said[0]}") from None
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(maildir)], check=True)

    @contextlib.contextmanager
    def _client(self) -> Iterator[smtplib.SMTP]:
        user = USERS["PLAIN"]
        with connect(self.service.ports["starttls"], self.authority, False) as client:
            login(client, "PLAIN", user.name, user.secret)
            yield client

    def _send(self, client: smtplib.SMTP, message: bytes) -> None:
        client.sendmail(SENDER, [RECIPIENT], message)

    def assertNoRoom(self, client: smtplib.SMTP, message: bytes) -> None:
        """The message is refused for want of room, and nothing of it is left."""
        before = self.files("new")
        error = self.assertRaises(smtplib.SMTPDataError, self._send, client, message)
        self.assertEqual(error.smtp_code, 452)
        self.assertRegex(error.smtp_error, rb"^4\.3\.1 ")
        self.assertEqual(self.files("tmp"), [])
        self.assertEqual(self.files("new"), before)

    def test_tooLittleRoom(self) -> None:
        """A message that does not fit is 452 4.3.1, and one that fits is taken after it."""
        with self._client() as client:
            self.assertNoRoom(client, messages.full())
            self._send(client, messages.small())
        self.assertKept(messages.small(), "PLAIN")

    def test_noRoom(self) -> None:
        """On a full disk no message is taken, and when there is room again it is."""
        with self._client() as client:
            self._send(client, messages.small())
            filler = self.service.maildir / "filler"
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
            self.assertNoRoom(client, messages.small())
            filler.unlink()
            self._send(client, messages.small())
        self.assertEqual(len(self.files("new")), 2)


class NoInodesTests(FullDiskTests):
    """A file system with room for octets, and for one file."""

    options = "size=32m,nr_inodes=5"

    def test_tooLittleRoom(self) -> None:
        """A second file is 452 4.3.1, and the first one stays."""
        with self._client() as client:
            self._send(client, messages.full())
            self.assertNoRoom(client, messages.small())
        self.assertKept(messages.full(), "PLAIN")

    def test_noRoom(self) -> None:
        """Once the first file is gone the next message is taken."""
        with self._client() as client:
            self._send(client, messages.small())
            self.assertNoRoom(client, messages.small())
            self.files("new")[0].unlink()
            self._send(client, messages.small())
        self.assertEqual(len(self.files("new")), 1)
