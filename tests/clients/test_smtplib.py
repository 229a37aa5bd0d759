"""Python's own smtplib."""

from __future__ import annotations

import smtplib
import ssl

from tests.clients import mechanisms, messages
from tests.clients.case import (
    RECIPIENT,
    SENDER,
    USERS,
    UTF8_RECIPIENT,
    UTF8_SENDER,
    WRONG,
)
from tests.clients.running import HOST


def connect(port: int, authority: str, implicit: bool) -> smtplib.SMTP:
    """A connection with TLS on, verified against an authority."""
    context = ssl.create_default_context(cafile=authority)
    if implicit:
        return smtplib.SMTP_SSL(HOST, port, context=context, timeout=30)
    client = smtplib.SMTP(HOST, port, timeout=30)
    try:
        client.starttls(context=context)
    except BaseException:
        client.close()
        raise
    return client


def login(client: smtplib.SMTP, mechanism: str, name: str, secret: str) -> None:
    """Log in by this mechanism and no other."""
    client.ehlo_or_helo_if_needed()
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
        first = f"user={name}" if mechanism == "XOAUTH2" else f"n,a={name},\x01port=587"

        def tell(challenge: bytes | None = None) -> str:
            # A challenge after the token says why it was refused, and wants this answer.
            return "\x01" if challenge else f"{first}\x01auth=Bearer {secret}\x01\x01"

        client.auth(mechanism, tell)
        return
    client.user, client.password = name, secret
    client.auth(mechanism, getattr(client, "auth_" + mechanism.lower().replace("-", "_")))


class SmtplibTests(mechanisms.Tokens):
    """A message by each mechanism, over both kinds of TLS."""

    def submit(self, mechanism: str, message: bytes, implicit: bool = False) -> None:
        """See :meth:`mechanisms.Passwords.submit`."""
        user = USERS[mechanism]
        with self._connected(implicit) as client:
            login(client, mechanism, user.name, user.secret)
            client.sendmail(SENDER, [RECIPIENT], message, ["BODY=8BITMIME"])
        self.assertKept(message, mechanism)

    def _connected(self, implicit: bool = False, authority: str = "") -> smtplib.SMTP:
        port = self.service.ports["implicit" if implicit else "starttls"]
        return connect(port, authority or self.authority, implicit)

    def test_oauthbearer(self) -> None:
        """OAUTHBEARER logs in."""
        self.submit("OAUTHBEARER", messages.small())

    def test_itsOwnChoice(self) -> None:
        """The mechanism that smtplib itself prefers, and falls back to, logs in."""
        user = USERS["PLAIN"]
        with self._connected() as client:
            client.login(user.name, user.secret)
            client.sendmail(SENDER, [RECIPIENT], messages.small())
        self.assertKept(messages.small(), "PLAIN")

    def test_utf8(self) -> None:
        """A message with UTF-8 in addresses and header arrives under SMTPUTF8."""
        user = USERS["PLAIN"]
        with self._connected() as client:
            login(client, "PLAIN", user.name, user.secret)
            options = ["SMTPUTF8", "BODY=8BITMIME"]
            client.sendmail(UTF8_SENDER, [UTF8_RECIPIENT, RECIPIENT], messages.utf8(), options)
        recipients = [UTF8_RECIPIENT, RECIPIENT]
        self.assertKept(messages.utf8(), "PLAIN", UTF8_SENDER, recipients, "UTF8SMTPSA")

    def test_messagesInOneConnection(self) -> None:
        """A second message of the same connection arrives like the first."""
        user = USERS["PLAIN"]
        with self._connected() as client:
            login(client, "PLAIN", user.name, user.secret)
            for _ in range(2):
                client.sendmail(SENDER, [RECIPIENT], messages.small())
        self.assertEqual(len(self.files("new")), 2)

    def test_wrong(self) -> None:
        """A wrong password, secret or token is 535, by each mechanism."""
        for mechanism, user in USERS.items():
            with self._connected() as client:
                error = self.assertRaises(
                    smtplib.SMTPAuthenticationError, login, client, mechanism, user.name, WRONG
                )
            self.assertEqual(error.smtp_code, 535)
            self.assertIn(f"mechanism={mechanism}", self.logged)
        self.assertNoLogin()

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""
        for implicit in (False, True):
            self.assertRaises(
                ssl.SSLCertVerificationError, self._connected, implicit, self.stranger
            )
        self.assertToldNothing()
