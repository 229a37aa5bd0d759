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

from tests.clients import messages
from tests.clients.case import (
    RECIPIENT,
    SENDER,
    USERS,
    UTF8_RECIPIENT,
    UTF8_SENDER,
    WRONG,
    ClientTestCase,
)

SCRIPT = Path(__file__).with_name("nodemailer.cjs")


class NodemailerTests(ClientTestCase):
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

    def _nodemailer(
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

    def _submit(self, mechanism: str, implicit: bool = False, message: bytes = b"") -> None:
        message = message or messages.small()
        self.assertSent(self._nodemailer(mechanism, message, implicit=implicit))
        self.assertKept(message, mechanism)

    def test_starttls(self) -> None:
        """A message with everything arrives over STARTTLS as it was sent."""
        self._submit("PLAIN", message=messages.full())

    def test_implicit(self) -> None:
        """A message with everything arrives over implicit TLS as it was sent."""
        self._submit("PLAIN", implicit=True, message=messages.full())

    def test_login(self) -> None:
        """LOGIN logs in."""
        self._submit("LOGIN")

    def test_cramMD5(self) -> None:
        """CRAM-MD5 logs in."""
        self._submit("CRAM-MD5", implicit=True)

    def test_xoauth2(self) -> None:
        """XOAUTH2 logs in."""
        self._submit("XOAUTH2")

    def test_utf8(self) -> None:
        """nodemailer asks for SMTPUTF8 by itself."""
        self.assertSent(
            self._nodemailer(
                "PLAIN",
                messages.utf8(),
                sender=UTF8_SENDER,
                recipients=(UTF8_RECIPIENT, RECIPIENT),
            )
        )
        recipients = [UTF8_RECIPIENT, RECIPIENT]
        self.assertKept(messages.utf8(), "PLAIN", UTF8_SENDER, recipients, "UTF8SMTPSA")

    def test_wrong(self) -> None:
        """A wrong password, secret or token is 535, by each mechanism."""
        for mechanism in USERS:
            self.assertRefusedLogin(self._nodemailer(mechanism, messages.small(), secret=WRONG))
            self.assertIn(f"mechanism={mechanism}", self.logged)

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""
        for implicit in (False, True):
            self.assertDistrusted(
                self._nodemailer(
                    "PLAIN", messages.small(), implicit=implicit, authority=self.stranger
                )
            )
