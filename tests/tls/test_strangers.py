"""Clients that mean something else: other protocols, old ones, broken ones, on both listeners.

Each is closed cleanly and soon, costs a bounded number of log lines, and disturbs nobody.
"""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
import time
import warnings

from tests.clients.running import HOST
from tests.tls.case import LISTENERS, TLSTestCase

HELLO = bytes.fromhex("16030100c4010000c00303") + bytes(32) + b"\0" * 154
HTTP = b"GET / HTTP/1.1\r\nHost: mail.example.org\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nMAIL FROM:<a@b>\r\n\r\n"
SSL2 = bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16)


class StrangerTests(TLSTestCase):
    """What is sent instead of a handshake or of commands."""

    tls = """
[tls.sni."mail.example.net"]
certificate = "example.pem"
private_key = "example.key"

[tls.sni."*.example.com"]
certificate = "wild.pem"
private_key = "wild.key"

[limits]
handshake = "500 ms"
"""

    def connect(self, listener: str) -> socket.socket:
        """A connection."""
        made = socket.create_connection((HOST, self.service.ports[listener]), timeout=10)
        self.addCleanup(made.close)
        return made

    def until(self, connection: socket.socket) -> bytes:
        """All that comes until the service closes."""
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received

    def lines(self) -> list[str]:
        """What the service says of this, once the connection has gone."""
        self.waitForLog("connection closed")
        return self.logged.splitlines()

    def assertServing(self) -> None:
        """Others are served."""
        for listener in LISTENERS:
            self.assertEqual(self.subject(listener), "localhost")

    def test_plaintextOnImplicit(self) -> None:
        """Commands, HTTP and junk in the place of a handshake: an alert at most, and the end."""
        for sent in (b"EHLO client.example.org\r\n", HTTP, POST, b"\0" * 300, b"\xff" * 300, SSL2):
            count = self.logged.count("\n")
            connection = self.connect("implicit")
            connection.sendall(sent)
            received = self.until(connection)
            self.assertLessEqual(len(received), 7, received)
            self.assertNotIn(b"220", received)
            connection.close()
            self.waitForLines(count + 2)
        self.assertNotIn("EHLO", self.logged)
        self.assertServing()

    def waitForLines(self, count: int) -> None:
        """Wait until so many lines have been said; there must not be more."""
        until = time.monotonic() + 10
        while self.logged.count("\n") < count and time.monotonic() < until:
            time.sleep(0.02)
        self.assertEqual(self.logged.count("\n"), count, self.logged)

    def test_helloOnSTARTTLS(self) -> None:
        """A ClientHello where commands belong is a refusal at most, and then the end."""
        connection = self.connect("starttls")
        connection.sendall(HELLO)
        connection.shutdown(socket.SHUT_WR)
        received = self.until(connection)
        self.assertRegex(received, rb"^220 ")
        self.assertLess(received.count(b"\r\n"), 4)
        self.waitForLog("connection closed")
        self.assertLess(self.logged.count("\n"), 4)
        self.assertServing()

    def test_httpOnSTARTTLS(self) -> None:
        """HTTP is answered by refusals until there have been too many; nothing of it is done."""
        for sent in (HTTP, POST):
            connection = self.connect("starttls")
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            received = self.until(connection)
            self.assertRegex(received, rb"^220 ")
            self.assertNotRegex(received, rb"(?m)^(250|354)")
            self.assertLess(len(received), 2000)
        self.waitForLog("connection closed", 2)
        self.assertLess(self.logged.count("\n"), 25)
        self.assertServing()

    def test_junkBehindSTARTTLS(self) -> None:
        """Anything but a handshake behind STARTTLS ends the connection."""
        for sent in (b"EHLO again\r\n", HTTP, b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"A" * 300):
            connection = self.connect("starttls")
            stream = connection.makefile("rb")
            stream.readline()
            connection.sendall(b"EHLO client.example.org\r\n")
            while stream.readline()[3:4] != b" ":
                pass
            connection.sendall(b"STARTTLS\r\n")
            self.assertRegex(stream.readline(), rb"^220 ")
            connection.sendall(sent)
            received = self.until(connection)
            self.assertLessEqual(len(received), 7, received)
        self.waitForLog("TLS handshake failed", 4)
        self.assertServing()

    def test_oldVersions(self) -> None:
        """TLS 1.0 and 1.1 are refused with the alert that says so."""
        for listener in LISTENERS:
            for version in ("-tls1", "-tls1_1"):
                ran = self.talk(listener, version, "-cipher", "ALL:@SECLEVEL=0")
                self.assertIn(b"alert protocol version", ran.stdout)
        self.waitForLog("TLS handshake failed", 4)
        self.assertServing()

    def test_renegotiation(self) -> None:
        """Renegotiation is refused (RFC 9325 3.5)."""
        port = self.service.ports["implicit"]
        said = self.renegotiate(port)
        self.assertIn(b"RENEGOTIATING", said)
        self.assertIn(b"no renegotiation", said)
        self.assertServing()

    def renegotiate(self, port: int) -> bytes:
        """What s_client says to a server that does not; its input stays open until it has."""
        command = ("openssl", "s_client", "-connect", f"{HOST}:{port}", "-tls1_2")
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as client:
            late = threading.Timer(20, client.kill)
            late.start()
            assert client.stdin is not None and client.stdout is not None
            said = b""
            # s_client gives up when the greeting comes in the middle of what it asks for.
            while b"\n220 " not in said and (line := client.stdout.readline()):
                said += line
            client.stdin.write(b"R\n")
            client.stdin.flush()
            while b"no renegotiation" not in said and (line := client.stdout.readline()):
                said += line
            late.cancel()
            client.kill()
        return said

    def test_stalled(self) -> None:
        """A handshake that does not go on is ended when its time is over."""
        stalled = [(sent, self.connect("implicit")) for sent in (b"", HELLO[:20], b"\x16")]
        for sent, connection in stalled:
            connection.sendall(sent)
        for _, connection in stalled:
            self.assertLessEqual(len(self.until(connection)), 7)
        self.assertServing()

    def test_gone(self) -> None:
        """Clients that reset their connection in a handshake leave nothing behind."""
        for _ in range(50):
            connection = socket.create_connection((HOST, self.service.ports["implicit"]))
            connection.send(HELLO[:60])
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
        self.waitForLog("connection closed", 50)
        self.assertServing()

    def test_manyNames(self) -> None:
        """A thousand names, long and odd ones among them, grow nothing."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        before = self.service.memory
        labels = ".".join(["a" * 60] * 4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for at in range(1000):
                odd = (f"n{at}.example.com", f"{labels}.n{at}"[-253:], f"*.{at}", f"_{at}.a")
                with (
                    self.connect("implicit") as connection,
                    context.wrap_socket(connection, server_hostname=odd[at % 4]) as secured,
                ):
                    self.assertEqual(secured.recv(4), b"220 ")
        self.assertLess(self.service.memory - before, 20_000)
        self.assertServing()
