"""Postfix's own XFORWARD: its smtp client tells the service where a message came from."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from unittest import SkipTest

from tests.clients import messages
from tests.clients.case import ADA, CONFIG, RECIPIENT, SENDER, ClientTestCase
from tests.clients.test_postfix import Postfix

POLICY = """
[[policy]]
use = "tests.proxies.trace:Trace"
"""


class PostfixTests(ClientTestCase):
    """A message that was submitted to Postfix, and forwarded to the service."""

    program = "postfix"
    config = (
        CONFIG.replace('tls = "starttls"\n', 'tls = "starttls"\nxforward_from = ["127.0.0.1"]\n')
        + POLICY
    )

    def setUp(self) -> None:
        """Have the right to start a Postfix, and the service."""
        if os.geteuid() != 0:
            raise SkipTest("only root can start a Postfix")
        super().setUp()

    def test_xforward(self) -> None:
        """What Postfix says of a message is what policies see, and no right."""
        directory = Path(tempfile.mkdtemp(prefix="submitd-postfix-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        authority = directory / "authority.pem"
        shutil.copy(self.authority, authority)
        authority.chmod(0o644)
        postfix = Postfix(directory)
        postfix.configure(
            port=self.service.ports["starttls"],
            authority=authority,
            wrapper="no",
            mechanism="plain",
            user=ADA.name,
            secret=ADA.secret.replace("$", "$$"),
        )
        with open(directory / "config" / "main.cf", "a", encoding="ascii") as main:
            main.write("smtp_send_xforward_command = yes\n")
        self.assertEqual(postfix.control("start").returncode, 0, postfix.log)
        self.addCleanup(postfix.control, "stop")
        postfix.submit(messages.small(), SENDER, RECIPIENT)
        self.assertRegex(postfix.status(), r"^sent \(250 2\.0\.0 Ok: queued as ", postfix.log)
        [file] = self.files("new")
        self.assertRegex(file.read_bytes(), rb"\r\nX-Forward: .*SOURCE=LOCAL\r\n")
        self.assertRegex(self.logged, "message accepted: .* peer=127.0.0.1 ")
