"""Policies for some listeners only, with one process and with two workers."""

from __future__ import annotations

import smtplib
import ssl
from typing import Any

from tests.clients.case import ADA, CONFIG, RECIPIENT, SENDER, ClientTestCase

POLICIES = """\
[[policy]]
use = "sender-owner"
listeners = ["outside"]

[[policy]]
use = "rate-limit"
messages_per_login = "3/day"

[[policy]]
use = "recipients"
most = 1
listeners = ["inside"]

[delivery]
"""


class ListenersTests(ClientTestCase):
    """Each of two ports has its own policies, and they count together."""

    config = (
        CONFIG.replace('tls = "starttls"\n', 'tls = "starttls"\nname = "inside"\n')
        .replace('tls = "implicit"\n', 'tls = "implicit"\nname = "outside"\n')
        .replace("[delivery]\n", POLICIES)
    )

    def connect(self, port: str) -> smtplib.SMTP:
        """A connection with a login."""
        context = ssl.create_default_context(cafile=self.authority)
        where = ("127.0.0.1", self.service.ports[port])
        if port == "implicit":
            client: smtplib.SMTP = smtplib.SMTP_SSL(*where, context=context)
        else:
            client = smtplib.SMTP(*where)
            client.starttls(context=context)
        self.addCleanup(client.close)
        client.login(ADA.name, ADA.secret)
        return client

    def refused(self, client: smtplib.SMTP, sender: str, *recipients: str) -> Any:
        """The codes of what is refused."""
        try:
            sent = client.sendmail(sender, recipients, "Subject: x\r\n\r\n")
            return [code for code, _ in sent.values()]
        except smtplib.SMTPResponseException as error:
            return error.smtp_code

    def test_each(self) -> None:
        """Owners are looked at on one of them, the number of recipients on the other."""
        inside, outside = self.connect("starttls"), self.connect("implicit")
        self.assertEqual(self.refused(outside, "bob@example.net", RECIPIENT), 553)
        self.assertEqual(self.refused(inside, "bob@example.net", RECIPIENT, SENDER), [452])
        # With the one before, these are three, whichever way they come.
        outside.sendmail(SENDER, [RECIPIENT, SENDER], f"From: {SENDER}\r\n\r\n")
        inside.sendmail("bob@example.net", [RECIPIENT], "Subject: x\r\n\r\n")
        for client in (inside, outside):
            self.assertEqual(self.refused(client, SENDER, RECIPIENT), 450)


class WorkersTests(ListenersTests):
    """The same with two workers."""

    config = "workers = 2\n" + ListenersTests.config
