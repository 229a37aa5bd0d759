"""Printers: clients that cannot log in, against a started service."""

from __future__ import annotations

import re
import smtplib
import ssl

from tests.clients.case import ADA, CONFIG, RECIPIENT, SENDER, ClientTestCase

PRINTERS = "printers@example.org"


class PrinterTests(ClientTestCase):
    """The standard library's client without AUTH, from an address that has a login."""

    config = CONFIG.replace(
        'tls = "starttls"\n',
        'tls = "starttls"\nrequire_tls = false\n'
        f'login_by_address = {{ "127.0.0.0/8" = "{PRINTERS}", "127.0.0.9" = "other" }}\n',
    ).replace("[delivery]\n", '[[policy]]\nuse = "sender-owner"\n\n[delivery]\n')

    def connect(self, port: str = "starttls", source: str = "127.0.0.1") -> smtplib.SMTP:
        """A connection without a login."""
        context = ssl.create_default_context(cafile=self.authority)
        where = ("127.0.0.1", self.service.ports[port])
        if port == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL(*where, context=context)
        else:
            client = smtplib.SMTP(*where, source_address=(source, 0))
        self.addCleanup(client.close)
        return client

    def page(self, client: smtplib.SMTP, sender: str) -> None:
        """Send a message."""
        client.sendmail(sender, [RECIPIENT], f"From: {sender}\r\nSubject: a page\r\n\r\n")

    def test_sends(self) -> None:
        """It sends as its network's login, and no AUTH is claimed."""
        client = self.connect()
        self.page(client, PRINTERS)
        self.page(client, PRINTERS)
        client.quit()
        kept = [file.read_bytes() for file in self.files("new")]
        self.assertEqual([re.findall(rb" with (\S+)", each) for each in kept], [[b"ESMTP"]] * 2)
        self.assertEqual(self.logged.count(f"user={PRINTERS} mechanism=ADDRESS"), 1)

    def test_owner(self) -> None:
        """It may send as nobody else; another address of the network has another login."""
        client = self.connect()
        with self.assertRaises(smtplib.SMTPSenderRefused) as caught:
            self.page(client, SENDER)
        self.assertEqual(caught.exception.smtp_code, 553)
        with self.assertRaises(smtplib.SMTPSenderRefused):
            self.page(self.connect(source="127.0.0.9"), PRINTERS)

    def test_login(self) -> None:
        """The same client with a password has its own login, before and behind its network's."""
        client = self.connect()
        self.page(client, PRINTERS)
        client.starttls(context=ssl.create_default_context(cafile=self.authority))
        client.ehlo()
        self.page(client, PRINTERS)
        client.login(ADA.name, ADA.secret)
        self.page(client, SENDER)
        self.assertEqual(self.logged.count("mechanism=ADDRESS"), 2)
        self.assertRegex(self.logged, rf"user={SENDER} mechanism=(PLAIN|LOGIN|CRAM-MD5)")

    def test_otherListener(self) -> None:
        """It holds for its listener alone."""
        with self.assertRaises(smtplib.SMTPSenderRefused) as caught:
            self.page(self.connect("implicit"), PRINTERS)
        self.assertEqual(caught.exception.smtp_code, 530)
