"""A printer that sends as root@printer: policy rewrite, the queue and the relay, with swaks."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from tests.clients.case import ADA, CONFIG, ClientTestCase

ORDINARY = """\
[delivery]
use = "maildir"
path = "$directory/Maildir"
"""
QUEUED = """\
[[policy]]
use = "rewrite"
senders = "senders"
aliases = "aliases"
header_recipients = true

[[policy]]
use = "sender-owner"
map = "owners"

[[policy]]
use = "message-fixups"
refuse_unqualified = true

[delivery]
use = "spool"
path = "$directory/spool"

[relay]
maildir = "$directory/mail/{domain}/{local}/Maildir"
"""
ROOT = """\
From: root (Cron Daemon)
To: root
Subject: a job
Message-ID: <1@printer>
Date: Mon, 01 Jan 2024 12:00:00 +0100

done
"""


class RewriteTests(ClientTestCase):
    """One service, whose queue is delivered into Maildirs."""

    program = "swaks"
    config: ClassVar[str] = CONFIG.replace(ORDINARY, QUEUED)

    @classmethod
    def prepare(cls, directory: Path) -> None:
        """Also the files of the policies, and the Maildirs of those who are there."""
        super().prepare(directory)
        (directory / "senders").write_text(
            "root@printer devices@example.com\nroot devices@example.com\n"
        )
        (directory / "aliases").write_text(
            "root@printer admin@example.com\nroot admin@example.com\n"
            "staff@example.com carl@example.com bob@example.com gone@example.com\n"
        )
        (directory / "owners").write_text(f"devices@example.com {ADA.name}\n")
        for local in ("devices", "admin", "bob", "carl"):
            (directory / "mail" / "example.com" / local).mkdir(parents=True)

    def swaks(self, recipient: str, message: str = ROOT) -> subprocess.CompletedProcess[bytes]:
        """Send a message as root@printer."""
        file = self.file(message.encode() + b".\n")
        return self.runProgram(
            *("swaks", "--server", "127.0.0.1", "--port", str(self.service.ports["starttls"])),
            *("--tls", "--tls-verify", "--tls-ca-path", self.authority),
            *("--auth", "PLAIN", "--auth-user", ADA.name, "--auth-password", ADA.secret),
            *("--from", "root@printer", "--to", recipient, "--data", f"@{file}"),
        )

    def mail(self, local: str) -> str:
        """The one message that somebody gets, once it is there."""
        folder = self.directory / "mail" / "example.com" / local / "Maildir" / "new"
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            found = sorted(folder.iterdir()) if folder.is_dir() else []
            if found:
                text = found[0].read_text("utf-8").replace("\r\n", "\n")
                found[0].unlink()
                return text
            time.sleep(0.05)
        self.fail(f"nothing for {local}:\n{self.logged}")

    def test_cron(self) -> None:
        """What cron sends comes to a person, from an address that exists; and once for twice."""
        for _ in range(2):
            self.assertSent(self.swaks("root@printer"))
        text = self.mail("admin")
        self.assertTrue(text.startswith("Return-Path: <devices@example.com>\n"), text)
        self.assertIn(" for <admin@example.com>", text)
        self.assertTrue(
            text.endswith(
                "From: devices@example.com (Cron Daemon)\nTo: admin@example.com\n"
                + ROOT.partition("To: root\n")[2]
            ),
            text,
        )
        self.assertEqual(self.logged.count("submission repeated: "), 1)
        self.assertRegex(
            self.logged,
            r"address rewritten: session=\S+ id=\S+ where=MAIL before=root@printer "
            "after=devices@example.com",
        )

    def test_report(self) -> None:
        """Of an alias those get it who are there; the new sender is told of the one who is not."""
        self.assertSent(self.swaks("staff@example.com", ROOT.replace("<1@", "<2@")))
        for local in ("bob", "carl"):
            self.assertIn("\nTo: admin@example.com\n", self.mail(local))
        report = self.mail("devices")
        self.assertTrue(report.startswith("Return-Path: <>\n"), report)
        self.assertRegex(report, r"(?m)^Original-Recipient: rfc822; ?staff@example\.com$")
        self.assertEqual(
            re.findall(r"(?m)^Final-Recipient: rfc822; ?(.*)$", report), ["gone@example.com"]
        )

    def test_unqualified(self) -> None:
        """What has no line is refused as ever."""
        ran = self.swaks("joe@printer")
        self.assertEqual(ran.returncode, 24, ran.stdout)
        self.assertIn(b"554 5.6.2 Domain printer is not fully qualified", ran.stdout)
