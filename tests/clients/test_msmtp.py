"""msmtp, with which programs that know only ``sendmail`` submit."""

from __future__ import annotations

import subprocess

from tests.clients import mechanisms
from tests.clients.case import RECIPIENT, SENDER, USERS

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


class MsmtpTests(mechanisms.Tokens, mechanisms.Program):
    """A message by each mechanism, over both kinds of TLS."""

    program = "msmtp"

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
