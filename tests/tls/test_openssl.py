"""openssl s_client: a certificate per name, client certificates, versions, sessions that resume."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.tls.case import LISTENERS, VERSIONS, TLSTestCase

ASK = b"EHLO client.example.org\r\nMAIL FROM:<ada@example.org>\r\nQUIT\r\n"

FACTS = """
[[policy]]
use = "tests.tls.facts:Facts"
"""  # it refuses all mail


class NameTests(TLSTestCase):
    """A certificate per name."""

    tls = """
[tls.sni."Mail.Example.net"]
certificate = "example.pem"
private_key = "example.key"

[tls.sni."*.example.com"]
certificate = "wild.pem"
private_key = "wild.key"
"""

    def test_names(self) -> None:
        """Each name has its certificate, over both listeners and in both versions."""
        for listener in LISTENERS:
            for version in VERSIONS:
                for name, subject in (
                    ("mail.example.net", "mail.example.net"),
                    ("MAIL.example.NET", "mail.example.net"),
                    ("a.example.com", "*.example.com"),
                    ("example.com", "localhost"),
                    ("a.b.example.com", "localhost"),
                    ("nobody.example", "localhost"),
                ):
                    found = self.subject(listener, version, "-servername", name)
                    self.assertEqual(found, subject, (listener, version, name))
                self.assertEqual(self.subject(listener, version, "-noservername"), "localhost")

    def test_resumed(self) -> None:
        """A session of one name resumes."""
        ticket = str(self.directory / "ticket")
        for name in ("mail.example.net", "localhost"):
            for version in VERSIONS:
                for option, told in (("-sess_out", b"New, "), ("-sess_in", b"Reused, ")):
                    # In TLS 1.3 the ticket comes behind the handshake.
                    ran = self.talk("implicit", version, "-servername", name, option, ticket)
                    self.assertIn(told, ran.stdout, (name, version))


class RequiredTests(TLSTestCase):
    """Client certificates that are required."""

    tls = 'client_certificate = "require"\nclient_ca = "clients.pem"\n'

    def attempt(self, listener: str, *more: str) -> subprocess.CompletedProcess[bytes]:
        """Shake hands, and ask for something behind it."""
        return self.talk(listener, *more, stdin=ASK)

    def test_good(self) -> None:
        """With a good one the dialogue goes on."""
        for listener in LISTENERS:
            for version in VERSIONS:
                ran = self.attempt(listener, version, "-cert", "good.pem", "-key", "good.key")
                self.assertIn(b"530 5.7.0", ran.stdout, self.logged)

    def test_bad(self) -> None:
        """Without one, with a stranger's or one that has expired: an alert, and no dialogue."""
        for stem, alert in (
            ("", b"certificate required|handshake failure"),
            ("stranger-client", b"unknown ca"),
            ("expired", b"certificate expired"),
        ):
            identity = ["-cert", f"{stem}.pem", "-key", f"{stem}.key"] if stem else []
            for listener in LISTENERS:
                for version in VERSIONS:
                    before = self.logged.count("TLS handshake failed")
                    ran = self.attempt(listener, version, *identity)
                    self.assertRegex(ran.stdout, alert)
                    self.assertNotIn(b"530 ", ran.stdout)
                    self.assertNotEqual(ran.returncode, 0)
                    self.waitForLog("TLS handshake failed", before + 1)

    def test_asked(self) -> None:
        """Clients are told which authorities are meant."""
        output = self.attempt("implicit").stdout
        self.assertIn(b"Acceptable client certificate CA names\nCN = clients\n", output)

    def test_resumed(self) -> None:
        """A session with a certificate resumes."""
        ticket, identity = str(self.directory / "ticket"), ("-cert", "good.pem", "-key", "good.key")
        for version in VERSIONS:
            for option, told in (("-sess_out", b"New, "), ("-sess_in", b"Reused, ")):
                ran = self.attempt("implicit", version, *identity, option, ticket)
                self.assertIn(told, ran.stdout, version)


class RequestedTests(TLSTestCase):
    """Client certificates that are requested, and a policy that looks at them."""

    loginRequired = False
    tls = 'client_certificate = "request"\nclient_ca = "clients.pem"\n' + FACTS

    def facts(self, listener: str, *more: str) -> str:
        """What the policy knows."""
        ran = self.talk(listener, *more, stdin=ASK)
        found = re.search(rb"^550 5\.7\.1 (.*?) \(id \w{8}\)\r?$", ran.stdout, re.MULTILINE)
        assert found is not None, ran.stdout
        return found[1].decode()

    def test_facts(self) -> None:
        """The policy sees whose it is, and whether that is so."""
        for stem, verified in (("good", True), ("stranger-client", False), ("expired", False)):
            pem = Path(self.directory, f"{stem}.pem").read_bytes()
            digest = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()
            for listener in LISTENERS:
                for version in VERSIONS:
                    identity = ("-cert", f"{stem}.pem", "-key", f"{stem}.key")
                    self.assertEqual(
                        self.facts(listener, version, *identity, "-servername", "x.example"),
                        f"verified={verified} subject=CN={stem} emails={stem}@example.org"
                        f" sha256={digest[:8]} resumed=False name=x.example",
                    )

    def test_none(self) -> None:
        """Without one the dialogue goes on, and the policy knows that there is none."""
        for listener in LISTENERS:
            for version in VERSIONS:
                self.assertIn(
                    "verified=False subject= emails= sha256= ", self.facts(listener, version)
                )
