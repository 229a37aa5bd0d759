"""swaks, the tester's client."""

from __future__ import annotations

import subprocess

from tests.clients import messages
from tests.clients.case import PASSWORDS, RECIPIENT, SENDER, USERS, WRONG, ClientTestCase


class SwaksTests(ClientTestCase):
    """A message by each mechanism, over both kinds of TLS."""

    program = "swaks"

    def _swaks(
        self,
        mechanism: str,
        message: bytes,
        secret: str = "",
        implicit: bool = False,
        authority: str = "",
    ) -> subprocess.CompletedProcess[bytes]:
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

    def _submit(self, mechanism: str, implicit: bool = False, message: bytes = b"") -> None:
        message = message or messages.small()
        self.assertSent(self._swaks(mechanism, message, implicit=implicit))
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

    def test_wrong(self) -> None:
        """A wrong password or secret is 535, by each mechanism."""
        for mechanism in PASSWORDS:
            self.assertRefusedLogin(self._swaks(mechanism, messages.small(), WRONG))
            self.assertIn(f"mechanism={mechanism}", self.logged)

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""
        for implicit in (False, True):
            self.assertDistrusted(
                self._swaks("PLAIN", messages.small(), "", implicit, self.stranger)
            )
