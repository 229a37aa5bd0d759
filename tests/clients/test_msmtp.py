"""msmtp, with which programs that know only ``sendmail`` submit."""

from __future__ import annotations

import subprocess

from tests.clients import messages
from tests.clients.case import RECIPIENT, SENDER, USERS, WRONG, ClientTestCase

CONFIG = """\
account default
host localhost
source_ip 127.0.0.1
port {port}
domain client.example.org
tls on
tls_starttls {starttls}
tls_trust_file {authority}
auth {mechanism}
user {user}
passwordeval cat {secret}
from {sender}
timeout 30
"""


class MsmtpTests(ClientTestCase):
    """A message by each mechanism, over both kinds of TLS."""

    program = "msmtp"

    def _msmtp(
        self,
        mechanism: str,
        message: bytes,
        secret: str = "",
        implicit: bool = False,
        authority: str = "",
    ) -> subprocess.CompletedProcess[bytes]:
        user = USERS[mechanism]
        kept = self.directory / "msmtp.secret"
        kept.write_text(f"{secret or user.secret}\n")
        config = self.directory / "msmtprc"
        config.write_text(
            CONFIG.format(
                port=self.service.ports["implicit" if implicit else "starttls"],
                starttls="off" if implicit else "on",
                authority=authority or self.authority,
                mechanism=mechanism.lower(),
                user=user.name,
                secret=kept,
                sender=SENDER,
            )
        )
        config.chmod(0o600)
        # On standard input lines end as the system ends them.
        text = message.replace(b"\r\n", b"\n")
        return self.runProgram("msmtp", "-d", "-C", str(config), "--", RECIPIENT, stdin=text)

    def _submit(self, mechanism: str, implicit: bool = False, message: bytes = b"") -> None:
        message = message or messages.small()
        self.assertSent(self._msmtp(mechanism, message, implicit=implicit))
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

    def test_wrong(self) -> None:
        """A wrong password, secret or token is 535, by each mechanism."""
        for mechanism in USERS:
            self.assertRefusedLogin(self._msmtp(mechanism, messages.small(), WRONG))
            self.assertIn(f"mechanism={mechanism}", self.logged)

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""
        for implicit in (False, True):
            self.assertDistrusted(
                self._msmtp("PLAIN", messages.small(), "", implicit, self.stranger)
            )
