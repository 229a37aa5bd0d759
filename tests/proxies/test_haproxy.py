"""A real HAProxy in front of a started service: both versions, both kinds of TLS."""

from __future__ import annotations

import atexit
import re
import smtplib
import socket
import ssl
import time
from typing import ClassVar

from tests.clients import messages
from tests.clients.case import ADA, CONFIG, RECIPIENT, SENDER, ClientTestCase, find
from tests.clients.running import HOST, RunningService
from tests.proxies.haproxy import HAProxy

CLIENT = "127.0.0.5"
"""Whom the proxy sees; the service sees the proxy, 127.0.0.1."""

STRANGER = "127.0.0.9"

SILENT = "127.0.0.7"
"""A proxy that sends no header."""

TRUSTED = f'proxy_protocol_from = ["127.0.0.1", "{SILENT}"]'


class HAProxyTests(ClientTestCase):
    """The client's own address is what the service knows, and logs, and writes down."""

    program = "haproxy"
    config = CONFIG.replace('tls = "', f'{TRUSTED}\ntls = "')
    _proxy: ClassVar[HAProxy | None] = None
    _served: ClassVar[RunningService | None] = None

    def setUp(self) -> None:
        super().setUp()
        cls = type(self)
        if cls._proxy is None or cls._served is not self.service:
            program, ports = find("haproxy"), self.service.ports
            assert program is not None
            frontends = {
                f"{kind}-v{version}": (ports[kind], options)
                for kind in ("starttls", "implicit")
                for version, options in ((1, "send-proxy"), (2, "send-proxy-v2 check inter 100"))
            }
            cls._proxy = HAProxy(program, self.directory, frontends)
            cls._served = self.service
            # trial has no tearDownClass; the service ends the same way.
            atexit.register(cls._proxy.stop)
        self.proxied = cls._proxy.ports

    def submit(self, frontend: str) -> None:
        """A message through the proxy."""
        context = ssl.create_default_context(cafile=self.authority)
        where = (HOST, self.proxied[frontend])
        if frontend.startswith("implicit"):
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                *where, source_address=(CLIENT, 0), context=context, timeout=30
            )
        else:
            client = smtplib.SMTP(*where, source_address=(CLIENT, 0), timeout=30)
            client.starttls(context=context)
        message = messages.small()
        with client:
            client.login(ADA.name, ADA.secret)
            client.sendmail(SENDER, [RECIPIENT], message)
        kept = self.assertKept(message, "PLAIN")
        self.assertIn(f"[{CLIENT}]", kept.received)
        self.assertRegex(self.logged, rf"login: session=\w+ peer={CLIENT} ")
        self.assertRegex(self.logged, rf"message accepted: .* peer={CLIENT} ")

    def awaitLog(self, pattern: str, count: int = 1) -> None:
        """The log says so, once the service has seen the connection's end."""
        until = time.monotonic() + 20
        while len(re.findall(pattern, self.logged)) < count and time.monotonic() < until:
            time.sleep(0.02)
        self.assertEqual(len(re.findall(pattern, self.logged)), count, self.logged)

    def test_startTLSVersion1(self) -> None:
        """STARTTLS behind a header of version 1."""
        self.submit("starttls-v1")

    def test_startTLSVersion2(self) -> None:
        """STARTTLS behind a header of version 2, with health checks (LOCAL) meanwhile."""
        self.submit("starttls-v2")

    def test_implicitVersion1(self) -> None:
        """Implicit TLS, passed through, behind a header of version 1."""
        self.submit("implicit-v1")

    def test_implicitVersion2(self) -> None:
        """Implicit TLS, passed through, behind a header of version 2."""
        self.submit("implicit-v2")

    def test_forged(self) -> None:
        """A client that sends a header of its own through the proxy ends its connection."""
        with socket.create_connection(
            (HOST, self.proxied["starttls-v1"]), 30, source_address=(CLIENT, 0)
        ) as client:
            client.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 587\r\nEHLO c\r\n")
            said = _all(client)
        self.assertRegex(said, rb"^220 .*\r\n421 4.7.0 .*\r\n$")
        self.assertRegex(self.logged, rf"refused: session=\w+ peer={CLIENT} .*PROXY")

    def test_notTrusted(self) -> None:
        """A header from anybody but the proxy gives no rights, on either port."""
        header = b"PROXY TCP4 127.0.0.1 10.0.0.2 40000 587\r\n"
        for name in ("starttls", "implicit"):
            with socket.create_connection(
                (HOST, self.service.ports[name]), 30, source_address=(STRANGER, 0)
            ) as client:
                client.sendall(header)
                said = _all(client)
            self.assertNotIn(b"250", said)
        self.awaitLog(rf"refused: session=\w+ peer={STRANGER} .*not trusted")
        self.awaitLog(rf"TLS handshake failed: session=\w+ peer={STRANGER} ")

    def test_missing(self) -> None:
        """The proxy's own address without a header is nobody's client."""
        for name in ("starttls", "implicit"):
            with socket.create_connection(
                (HOST, self.service.ports[name]), 30, source_address=(SILENT, 0)
            ) as client:
                client.sendall(b"EHLO client.example\r\n")
                self.assertEqual(_all(client), b"")
        self.awaitLog(f'PROXY header refused: peer={SILENT} cause="no header"', 2)


def _all(client: socket.socket) -> bytes:
    said = b""
    try:
        while data := client.recv(65536):
            said += data
    except ConnectionResetError:
        pass
    return said
