"""swaks as a proxy that speaks XCLIENT, against a started service."""

from __future__ import annotations

import subprocess

from tests.clients import messages
from tests.clients.case import CONFIG, RECIPIENT, SENDER, ClientTestCase

# An address of documentation that nobody connects from.
CLIENT, NAME = "198.51.100.7", "client.example.net"


class SwaksTests(ClientTestCase):
    """XCLIENT as another program says it, with and without LOGIN."""

    program = "swaks"
    config = CONFIG.replace(
        'tls = "starttls"\n',
        'tls = "starttls"\nxclient_from = ["127.0.0.0/8"]\nxclient_login = true\n',
    )

    def swaks(self, port: str, *more: str) -> subprocess.CompletedProcess[bytes]:
        """Send a message."""
        file = self.file(messages.small() + b".\r\n")
        return self.runProgram(
            *("swaks", "--server", "127.0.0.1", "--port", str(self.service.ports[port])),
            *("--tls-on-connect",) if port == "implicit" else ("--tls",),
            *("--tls-verify", "--tls-ca-path", self.authority, "--ehlo", "proxy.example.org"),
            *("--from", SENDER, "--to", RECIPIENT, "--data", f"@{file}", "--suppress-data"),
            *more,
        )

    def test_login(self) -> None:
        """The client's address and name are in Received and in the log, its login is believed."""
        ran = self.swaks(
            "starttls",
            *("--xclient-addr", CLIENT, "--xclient-name", NAME, "--xclient-port", "40001"),
            *("--xclient-proto", "ESMTP", "--xclient-helo", NAME, "--xclient-login", SENDER),
        )
        self.assertSent(ran)
        kept = self.kept(SENDER, [RECIPIENT], "ESMTPSA")
        self.assertIn(f"({NAME} [{CLIENT}])", kept.received)
        self.assertRegex(
            self.logged, rf"client named by proxy: .* proxy=127.0.0.1 peer={CLIENT} port=40001"
        )
        self.assertRegex(self.logged, rf"login: .* peer={CLIENT} user={SENDER} mechanism=XCLIENT")

    def test_beforeTLS(self) -> None:
        """What was said before STARTTLS is forgotten: no login, no address (RFC 3207 4.2)."""
        ran = self.swaks(
            "starttls",
            *("--xclient-before-starttls", "--xclient-addr", CLIENT, "--xclient-login", SENDER),
        )
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn(b"530 5.7.0 Authentication required", ran.stdout)
        self.assertEqual(self.files("new"), [])

    def test_notTrusted(self) -> None:
        """Where nobody is trusted it is not offered, and nothing is told."""
        ran = self.swaks("implicit", "--xclient-addr", CLIENT, "--xclient-login", SENDER)
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn(b"Host did not advertise XCLIENT", ran.stdout)
        self.assertToldNothing()

    def test_malformed(self) -> None:
        """An encoded line end is 501 to the program, and in no log line of its own."""
        ran = self.swaks("starttls", "--xclient", "ADDR=198.51.100.7 HELO=a+0D+0AX-Spoofed:+20b")
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn(b"501 5.5.4", ran.stdout)
        self.assertNotIn("X-Spoofed", self.logged)
        self.assertToldNothing()
