"""swaks, the tester's client."""

from __future__ import annotations

import subprocess

from tests.clients import mechanisms
from tests.clients.case import RECIPIENT, SENDER, USERS


class SwaksTests(mechanisms.Program):
    """A message by each mechanism, over both kinds of TLS."""

    program = "swaks"

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
        user = USERS[mechanism]
        # With an end of data of its own swaks adds no line, and doubles the dots before it.
        file = self.file(message + b".\r\n")
        port = self.service.ports["implicit" if implicit else "starttls"]
        return self.runProgram(
            *(
                "swaks",
                "--server",
                "127.0.0.1",
                "--port",
                str(port),
                "--ehlo",
                "client.example.org",
            ),
            *("--tls-on-connect" if implicit else "--tls", "--tls-verify"),
            *("--tls-ca-path", authority or self.authority),
            *("--auth", mechanism, "--auth-user", user.name),
            *("--auth-password", secret or user.secret),
            *("--from", SENDER, "--to", RECIPIENT),
            *("--data", f"@{file}", "--suppress-data"),
        )
