"""nginx's mail proxy in front of a started service: it has checked the login, and says so."""

from __future__ import annotations

import atexit
import smtplib
import ssl
from typing import ClassVar
from unittest import SkipTest

from tests.clients import messages
from tests.clients.case import (
    ADA,
    CONFIG,
    RECIPIENT,
    SENDER,
    UTF8_RECIPIENT,
    UTF8_SENDER,
    WRONG,
    ClientTestCase,
    Kept,
    find,
)
from tests.clients.running import HOST, RunningService
from tests.proxies.nginx import Nginx, hasMail

CLIENT = "127.0.0.5"
"""Whom the proxy sees; the service sees the proxy, 127.0.0.1."""

# The proxy has taken TLS off.
LISTENER = """\
tls = "off"
require_tls = false
xclient_from = ["127.0.0.1"]
xclient_login = true
"""


class NginxTests(ClientTestCase):
    """Who the client is, and who has logged in, comes by XCLIENT."""

    config = CONFIG.replace('tls = "starttls"\n', LISTENER)
    _proxy: ClassVar[Nginx | None] = None
    _served: ClassVar[RunningService | None] = None

    def setUp(self) -> None:
        """Have the service, and nginx in front of it."""
        program = find("nginx")
        if program is None or not hasMail(program):
            raise SkipTest("no nginx with a mail proxy is installed")
        super().setUp()
        cls = type(self)
        if cls._proxy is None or cls._served is not self.service:
            cls._proxy = Nginx(program, self.service, self.service.ports["starttls"])
            cls._served = self.service
            # trial has no tearDownClass; the service ends the same way.
            atexit.register(cls._proxy.stop)
        self._port = cls._proxy.port

    def _client(self) -> smtplib.SMTP:
        client = smtplib.SMTP(HOST, self._port, source_address=(CLIENT, 0), timeout=30)
        self.addCleanup(client.close)
        client.starttls(context=ssl.create_default_context(cafile=self.authority))
        return client

    def _submit(
        self,
        message: bytes,
        sender: str = SENDER,
        recipient: str = RECIPIENT,
        protocol: str = "ESMTPA",
        options: tuple[str, ...] = (),
    ) -> None:
        client = self._client()
        client.login(ADA.name, ADA.secret)
        client.sendmail(sender, [recipient], message, mail_options=options)
        client.quit()
        [file] = self.files("new")
        kept = Kept.read(file.read_bytes())
        self.assertEqual(kept.returnPath, f"<{sender}>")
        self.assertIn(f"[{CLIENT}]", kept.received)
        self.assertIn(f" with {protocol} ", kept.received)
        self.assertSame(kept.message, message)
        self.assertRegex(
            self.logged, rf"login: \S+ peer={CLIENT} user={ADA.name} mechanism=XCLIENT "
        )
        self.assertRegex(self.logged, rf"message accepted: .* peer={CLIENT} user={ADA.name} ")

    def test_message(self) -> None:
        """A message with everything arrives as it was sent, and from whom the proxy says."""
        self._submit(messages.full())

    def test_utf8(self) -> None:
        """The proxy announces SMTPUTF8 in our name, and we keep it."""
        options = ("SMTPUTF8", "BODY=8BITMIME")
        self._submit(messages.utf8(), UTF8_SENDER, UTF8_RECIPIENT, "UTF8SMTPA", options)

    def test_wrong(self) -> None:
        """Whom the proxy does not let in never comes to us."""
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self._client().login(ADA.name, WRONG)
        self.assertToldNothing()
