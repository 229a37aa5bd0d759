"""Net::SMTP, the client of Perl's programs, git send-email among them.

It writes a message line by line, each in a TLS record of its own, and with Nagle's algorithm on.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from unittest import SkipTest

from tests.clients import mechanisms
from tests.clients.case import RECIPIENT, SENDER, USERS

SCRIPT = Path(__file__).with_name("netsmtp.pl")


class NetSMTPTests(mechanisms.Program):
    """A message by each mechanism, over both kinds of TLS."""

    program = "perl"

    def setUp(self) -> None:
        """Have the libraries, beside the service."""
        super().setUp()
        compiled = self.runProgram("perl", "-c", str(SCRIPT))
        if compiled.returncode != 0:
            raise SkipTest(f"Perl lacks what it needs: {compiled.stdout!r}")

    def send(
        self,
        mechanism: str,
        message: bytes,
        *,
        secret: str = "",
        implicit: bool = False,
        authority: str = "",
    ) -> subprocess.CompletedProcess[bytes]:
        """See :meth:`mechanisms.Program.send`."""
        user, kind = USERS[mechanism], "implicit" if implicit else "starttls"
        job = [
            *(str(self.service.ports[kind]), kind, authority or self.authority),
            *(mechanism, user.name, secret or user.secret),
            *(SENDER, RECIPIENT, str(self.file(message))),
        ]
        return self.runProgram("perl", str(SCRIPT), stdin="\n".join(job).encode())
