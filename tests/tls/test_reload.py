"""Certificates that are renewed while the service runs: seen by clients of both listeners."""

from __future__ import annotations

import os
import signal
import smtplib
import ssl

from tests.clients.running import HOST
from tests.tls.case import LISTENERS, VERSIONS, TLSTestCase, serverPair

RELOADED = "certificates reloaded: "
KEPT = "not reloaded, the old one stays: "

NAME = """
[tls.sni."mail.example.net"]
certificate = "example.pem"
private_key = "example.key"
"""


class ReloadCase(TLSTestCase):
    """What both ways have in common."""

    def renew(self) -> None:
        """Replace the certificate for no name; its authority is the old one's neighbour."""
        serverPair(self.ours, self.directory, "fresh", "localhost")
        (self.directory / "fresh.key").rename(self.directory / "private_key.pem")
        (self.directory / "fresh.pem").rename(self.directory / "certificate.pem")

    def open(self) -> smtplib.SMTP_SSL:
        """A client that is there when certificates change."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = smtplib.SMTP_SSL(HOST, self.service.ports["implicit"], context=context, timeout=20)
        self.addCleanup(client.close)
        return client


class SignalTests(ReloadCase):
    """SIGHUP."""

    tls = "reload_interval = 0\n" + NAME

    def hangUp(self, said: str, count: int = 1) -> None:
        """Send the signal, and wait for what is said of it."""
        os.kill(self.service.pid, signal.SIGHUP)
        self.waitForLog(said, count)

    def test_renewed(self) -> None:
        """New connections have the new certificate, those that are there go on undisturbed."""
        client = self.open()
        for listener in LISTENERS:
            for version in VERSIONS:
                before = self.serial(listener, version)
                self.renew()
                self.assertEqual(self.serial(listener, version), before)
                self.hangUp(RELOADED, self.logged.count(RELOADED) + 1)
                self.assertNotEqual(self.serial(listener, version), before)
                self.assertEqual(client.noop()[0], 250)
        self.assertEqual(client.quit()[0], 221)

    def test_named(self) -> None:
        """So has a name of its own."""
        before = self.serial("implicit", "-servername", "mail.example.net")
        serverPair(self.ours, self.directory, "example", "mail.example.net")
        self.hangUp(RELOADED)
        self.assertNotEqual(self.serial("implicit", "-servername", "mail.example.net"), before)

    def test_broken(self) -> None:
        """Broken files are said once for each signal, and the old certificate stays."""
        before, good = self.serial("implicit"), (self.directory / "certificate.pem").read_bytes()
        (self.directory / "certificate.pem").write_bytes(good[:100])
        for count in (1, 2):
            self.hangUp(KEPT, count)
            self.assertEqual(self.logged.count(KEPT), count)
        self.assertIn("tls.certificate: ", self.logged)
        self.assertEqual(self.serial("implicit"), before)
        (self.directory / "certificate.pem").write_bytes(good)

    def test_tickets(self) -> None:
        """A session of before resumes, in both versions."""
        ticket = str(self.directory / "ticket")
        for version in VERSIONS:
            self.assertIn(b"New, ", self.talk("implicit", version, "-sess_out", ticket).stdout)
            self.renew()
            self.hangUp(RELOADED, self.logged.count(RELOADED) + 1)
            self.assertIn(b"Reused, ", self.talk("implicit", version, "-sess_in", ticket).stdout)

    def test_storm(self) -> None:
        """A hundred signals do no harm."""
        client = self.open()
        for _ in range(100):
            os.kill(self.service.pid, signal.SIGHUP)
        self.waitForLog(RELOADED)
        self.assertEqual(client.noop()[0], 250)


class ChangeTests(ReloadCase):
    """Files that change, without a word to the service."""

    tls = 'reload_interval = "100 ms"\n' + NAME

    def test_changed(self) -> None:
        """A new pair is in use soon, and it was one line."""
        before = self.serial("starttls")
        self.renew()
        self.waitForLog(RELOADED)
        self.assertNotEqual(self.serial("starttls"), before)

    def test_between(self) -> None:
        """A new key with the old certificate, for a while, is one line; the old pair serves."""
        before = self.serial("implicit")
        serverPair(self.ours, self.directory, "fresh", "localhost")
        (self.directory / "fresh.key").rename(self.directory / "private_key.pem")
        self.waitForLog(KEPT)
        # Some checks later it is still one.
        serverPair(self.ours, self.directory, "example", "mail.example.net")
        self.waitForLog(RELOADED)
        self.assertEqual(self.logged.count(KEPT), 1)
        self.assertIn("does not belong to the first certificate", self.logged)
        self.assertEqual(self.serial("implicit"), before)
        count = self.logged.count(RELOADED)
        (self.directory / "fresh.pem").rename(self.directory / "certificate.pem")
        self.waitForLog(RELOADED, count + 1)
        self.assertNotEqual(self.serial("implicit"), before)
