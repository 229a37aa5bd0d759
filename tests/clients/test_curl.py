"""curl, whose SMTP is that of many programs that use libcurl."""

from __future__ import annotations

import subprocess

from tests.clients import messages
from tests.clients.case import (
    CONFIG,
    PASSWORDS,
    RECIPIENT,
    SENDER,
    USERS,
    UTF8_SENDER,
    WRONG,
    ClientTestCase,
)
from tests.clients.running import HOST

LOGIN_DENIED = 67
"""The exit status of curl(1) for a login that was refused."""


class CurlCase(ClientTestCase):
    """What runs curl."""

    program = "curl"

    def _curl(
        self,
        mechanism: str,
        message: bytes,
        *more: str,
        secret: str = "",
        implicit: bool = False,
        authority: str = "",
        sender: str = SENDER,
        recipients: tuple[str, ...] = (RECIPIENT,),
    ) -> subprocess.CompletedProcess[bytes]:
        user = USERS[mechanism]
        secret = secret or user.secret
        port = self.service.ports["implicit" if implicit else "starttls"]
        command = ["curl", "--silent", "--show-error", "--verbose", "--max-time", "50"]
        command += ["--url", f"smtp{'s' * implicit}://{HOST}:{port}/client.example.org"]
        command += ["--ssl-reqd", "--cacert", authority or self.authority]
        command += ["--login-options", f"AUTH={mechanism}", "--mail-from", sender]
        for recipient in recipients:
            command += ["--mail-rcpt", recipient]
        if mechanism not in PASSWORDS:
            command += ["--user", f"{user.name}:", "--oauth2-bearer", secret]
        else:
            command += ["--user", f"{user.name}:{secret}"]
        return self.runProgram(*command, "--upload-file", str(self.file(message)), *more)

    def _submit(self, mechanism: str, *more: str, implicit: bool = False) -> None:
        self.assertSent(self._curl(mechanism, messages.small(), *more, implicit=implicit))
        self.assertKept(messages.small(), mechanism)

    def _refuseToken(self, mechanism: str) -> None:
        ran = self._curl(mechanism, messages.small(), secret=WRONG)
        self.assertEqual(ran.returncode, LOGIN_DENIED, ran.stdout[-2000:])
        self.assertIn(f"mechanism={mechanism}", self.logged)
        self.assertNoLogin()


class CurlTests(CurlCase):
    """A message by each mechanism, over both kinds of TLS."""

    # With a token, curl takes OAUTHBEARER where that is offered, whatever it is told to take.
    config = CONFIG.replace(', "OAUTHBEARER"', "")

    def test_starttls(self) -> None:
        """A message with everything arrives over STARTTLS as it was sent."""
        self.assertSent(self._curl("PLAIN", messages.full()))
        self.assertKept(messages.full(), "PLAIN")

    def test_implicit(self) -> None:
        """A message with everything arrives over implicit TLS as it was sent."""
        self.assertSent(self._curl("PLAIN", messages.full(), implicit=True))
        self.assertKept(messages.full(), "PLAIN")

    def test_initialResponse(self) -> None:
        """PLAIN logs in with its response in the AUTH command itself."""
        self._submit("PLAIN", "--sasl-ir")

    def test_login(self) -> None:
        """LOGIN logs in."""
        self._submit("LOGIN")

    def test_loginInitialResponse(self) -> None:
        """LOGIN logs in with the user name in the AUTH command itself."""
        self._submit("LOGIN", "--sasl-ir", implicit=True)

    def test_cramMD5(self) -> None:
        """CRAM-MD5 logs in."""
        self._submit("CRAM-MD5")

    def test_xoauth2(self) -> None:
        """XOAUTH2 logs in."""
        self._submit("XOAUTH2")

    def test_xoauth2InitialResponse(self) -> None:
        """XOAUTH2 logs in with its response in the AUTH command itself."""
        self._submit("XOAUTH2", "--sasl-ir", implicit=True)

    def test_utf8(self) -> None:
        """curl asks for SMTPUTF8 by itself, and writes domains as A-labels."""
        recipients = ("日本@bücher.example", RECIPIENT)
        sent = self._curl("PLAIN", messages.utf8(), sender=UTF8_SENDER, recipients=recipients)
        self.assertSent(sent)
        kept = ["日本@xn--bcher-kva.example", RECIPIENT]
        self.assertKept(messages.utf8(), "PLAIN", UTF8_SENDER, kept, "UTF8SMTPSA")

    def test_wrong(self) -> None:
        """A wrong password or secret is 535, by each mechanism."""
        for mechanism in PASSWORDS:
            ran = self._curl(mechanism, messages.small(), secret=WRONG)
            self.assertRefusedLogin(ran)
            self.assertIn(f"mechanism={mechanism}", self.logged)

    def test_wrongToken(self) -> None:
        """A wrong token is refused; curl takes the challenge with the reason for the end."""
        self._refuseToken("XOAUTH2")

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""
        for implicit in (False, True):
            self.assertDistrusted(
                self._curl("PLAIN", messages.small(), implicit=implicit, authority=self.stranger)
            )


class BearerTests(CurlCase):
    """A message by OAUTHBEARER."""

    def test_oauthbearer(self) -> None:
        """OAUTHBEARER logs in."""
        self._submit("OAUTHBEARER")

    def test_oauthbearerInitialResponse(self) -> None:
        """OAUTHBEARER logs in with its response in the AUTH command itself."""
        self._submit("OAUTHBEARER", "--sasl-ir", implicit=True)

    def test_wrongToken(self) -> None:
        """A wrong token is refused."""
        self._refuseToken("OAUTHBEARER")
