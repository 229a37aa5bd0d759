"""nodemailer, the client of JavaScript programs.

The environment variable ``SUBMITD_TEST_NODE`` names the directory whose ``node_modules`` has it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from unittest import SkipTest

from tests.clients import mechanisms, messages
from tests.clients.case import (
    RECIPIENT,
    SENDER,
    USERS,
    UTF8_RECIPIENT,
    UTF8_SENDER,
)

SCRIPT = Path(__file__).with_name("nodemailer.cjs")


class NodemailerTests(mechanisms.Tokens, mechanisms.Program):
    """A message by each mechanism, over both kinds of TLS."""

    program = "node"

    def setUp(self) -> None:
        """Have the library and the service."""
        where = os.environ.get("SUBMITD_TEST_NODE")
        if not where:
            raise SkipTest("SUBMITD_TEST_NODE does not say where nodemailer is installed")
        self._library = Path(where).absolute() / "node_modules" / "nodemailer"
        if not self._library.is_dir():
            raise SkipTest(f"nodemailer is not in {self._library.parent}")
        super().setUp()

    def send(
        self,
        mechanism: str,
        message: bytes,
        *,
        secret: str = "",
        implicit: bool = False,
        authority: str = "",
        sender: str = SENDER,
        recipients: tuple[str, ...] = (RECIPIENT,),
    ) -> subprocess.CompletedProcess[bytes]:
        """See :meth:`mechanisms.Program.send`; also what is not asked for there."""
        user = USERS[mechanism]
        secret = secret or user.secret
        auth: dict[str, Any] = {"user": user.name, "pass": secret}
        if mechanism == "XOAUTH2":
            auth = {"type": "OAuth2", "user": user.name, "accessToken": secret}
        transport = {
            "host": "127.0.0.1",
            "port": self.service.ports["implicit" if implicit else "starttls"],
            "name": "client.example.org",
            "secure": implicit,
            "requireTLS": True,
            "tls": {"ca": Path(authority or self.authority).read_text(), "servername": "localhost"},
            "auth": auth,
            "authMethod": mechanism,
        }
        job = {
            "library": str(self._library),
            "transport": transport,
            "envelope": {"from": sender, "to": recipients, "use8BitMime": True},
            "file": str(self.file(message)),
        }
        return self.runProgram("node", str(SCRIPT), stdin=json.dumps(job).encode())

    def test_utf8(self) -> None:
        """nodemailer asks for SMTPUTF8 by itself."""
        self.assertSent(
            self.send(
                "PLAIN",
                messages.utf8(),
                sender=UTF8_SENDER,
                recipients=(UTF8_RECIPIENT, RECIPIENT),
            )
        )
        recipients = [UTF8_RECIPIENT, RECIPIENT]
        self.assertKept(messages.utf8(), "PLAIN", UTF8_SENDER, recipients, "UTF8SMTPSA")
