"""mutt, a mail program that people write in; here it is told what to write.

It makes header and MIME parts itself, so what has to come through is the text, and an attachment.
"""

from __future__ import annotations

import email
import random
import subprocess

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

CONFIG = """\
set ssl_force_tls = yes
set certificate_file = {authority}
set smtp_url = "{scheme}://{user}@localhost:{port}/"
set smtp_pass = '{secret}'
set smtp_oauth_refresh_command = "cat {token}"
set smtp_authenticators = "{mechanism}"
set from = "{sender}"
set envelope_from_address = "{sender}"
set use_envelope_from = yes
set idn_encode = no
set hostname = client.example.org
set dsn_notify = "failure,delay"
set dsn_return = hdrs
set copy = no
set charset = utf-8
"""

TEXT = messages.small().partition(b"\r\n\r\n")[2]


class MuttTests(ClientTestCase):
    """A message by each mechanism, over both kinds of TLS."""

    program = "mutt"

    def _send(
        self,
        mechanism: str = "PLAIN",
        *options: str,
        secret: str = "",
        implicit: bool = False,
        authority: str = "",
        sender: str = SENDER,
        recipient: str = RECIPIENT,
    ) -> subprocess.CompletedProcess[bytes]:
        user = USERS[mechanism]
        token = self.directory / "mutt.token"
        token.write_text(secret or user.secret)
        config = self.directory / "muttrc"
        config.write_text(
            CONFIG.format(
                authority=authority or self.authority,
                scheme="smtps" if implicit else "smtp",
                user=user.name.replace("@", "%40"),
                port=self.service.ports["implicit" if implicit else "starttls"],
                secret=secret or user.secret,
                token=token,
                mechanism=mechanism.lower(),
                sender=sender,
            )
        )
        command = ("mutt", "-F", str(config), "-s", "Grüße", *options, "--", recipient)
        return self.runProgram(*command, stdin=TEXT.replace(b"\r\n", b"\n"))

    def _submit(self, mechanism: str, implicit: bool = False) -> None:
        self.assertSent(self._send(mechanism, implicit=implicit))
        kept = self.kept(SENDER, [RECIPIENT], "ESMTPSA")
        self.assertLogin(mechanism)
        self.assertSame(kept.message.partition(b"\r\n\r\n")[2], TEXT)

    def test_plain(self) -> None:
        """PLAIN logs in, over STARTTLS."""
        self._submit("PLAIN")

    def test_implicit(self) -> None:
        """PLAIN logs in, over implicit TLS."""
        self._submit("PLAIN", implicit=True)

    def test_login(self) -> None:
        """LOGIN logs in."""
        self._submit("LOGIN")

    def test_cramMD5(self) -> None:
        """CRAM-MD5 logs in."""
        self._submit("CRAM-MD5", implicit=True)

    def test_xoauth2(self) -> None:
        """XOAUTH2 logs in."""
        self._submit("XOAUTH2")

    def test_attachment(self) -> None:
        """Megabytes arrive as they were, a line of base64 in each TLS record."""
        octets = random.Random(1870).randbytes(messages.ATTACHMENT)
        self.assertSent(self._send("PLAIN", "-a", str(self.file(octets))))
        kept = email.message_from_bytes(self.kept(SENDER, [RECIPIENT], "ESMTPSA").message)
        text, attached = kept.get_payload()
        self.assertSame(text.get_payload(decode=True), TEXT)
        self.assertSame(attached.get_payload(decode=True), octets)

    def test_utf8(self) -> None:
        """mutt asks for SMTPUTF8 by itself."""
        self.assertSent(self._send(sender=UTF8_SENDER, recipient=UTF8_RECIPIENT))
        self.kept(UTF8_SENDER, [UTF8_RECIPIENT], "UTF8SMTPSA")

    def test_wrong(self) -> None:
        """A wrong password, secret or token is refused, and mutt says so."""
        for mechanism in USERS:
            ran = self._send(mechanism, secret=WRONG)
            self.assertNotEqual(ran.returncode, 0)
            self.assertIn(b"authentication failed", ran.stdout)
            self.assertNoLogin()
            self.assertIn(f"mechanism={mechanism}", self.logged)

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""
        for implicit in (False, True):
            self.assertDistrusted(self._send(implicit=implicit, authority=self.stranger))
