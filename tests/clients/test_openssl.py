"""``openssl s_client``: somebody at a terminal, or a shell script."""

from __future__ import annotations

import base64
import re
import subprocess
import threading
from typing import IO

from tests.clients import messages
from tests.clients.case import RECIPIENT, SENDER, USERS, WRONG, ClientTestCase
from tests.clients.running import HOST

_DOT = re.compile(rb"^\.", re.MULTILINE)


class Terminal:
    """The program, with a line said and a reply read in turn."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._in: IO[bytes] = process.stdin
        self._out: IO[bytes] = process.stdout

    def say(self, octets: bytes) -> bytes:
        """Send a command or a message, and give the reply."""
        self._in.write(octets + b"\r\n")
        self._in.flush()
        return self.reply()

    def reply(self) -> bytes:
        """The next reply, all its lines; what is there when the connection ends."""
        reply = b""
        while line := self._out.readline():
            reply += line
            if line[3:4] == b" ":
                break
        return reply

    def close(self) -> int:
        """End the program.

        :return: its exit status.
        """
        self._in.close()
        self._out.close()
        return self._process.wait(20)


class OpenSSLTests(ClientTestCase):
    """The dialogue by hand, over both kinds of TLS."""

    program = "openssl"

    def _command(self, implicit: bool, authority: str, *more: str) -> list[str]:
        port = self.service.ports["implicit" if implicit else "starttls"]
        command = ["openssl", "s_client", "-quiet", "-connect", f"{HOST}:{port}"]
        command += ["-CAfile", authority, "-verify_return_error", "-verify_hostname", "localhost"]
        return [*command, *([] if implicit else ["-starttls", "smtp"]), *more]

    def _open(self, implicit: bool, *more: str) -> Terminal:
        process = subprocess.Popen(
            self._command(implicit, self.authority, *more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(process.wait)
        watch = threading.Timer(60, process.kill)
        watch.start()
        self.addCleanup(process.kill)
        self.addCleanup(watch.cancel)
        terminal = Terminal(process)
        if implicit:  # else it has read the greeting itself
            self.assertRegex(terminal.reply(), rb"^220 ")
        self.assertRegex(terminal.say(b"EHLO client.example.org"), rb"(?m)^250-AUTH PLAIN ")
        return terminal

    def _submit(self, implicit: bool, message: bytes, *more: str) -> None:
        terminal = self._open(implicit, *more)
        user = USERS["PLAIN"]
        response = base64.b64encode(f"\0{user.name}\0{user.secret}".encode())
        self.assertRegex(terminal.say(b"AUTH PLAIN " + response), rb"^235 2\.7\.0 ")
        commands = b"MAIL FROM:<%b> BODY=8BITMIME" % SENDER.encode()
        self.assertRegex(terminal.say(commands), rb"^250 2\.1\.0 ")
        self.assertRegex(terminal.say(b"RCPT TO:<%b>" % RECIPIENT.encode()), rb"^250 2\.1\.5 ")
        self.assertRegex(terminal.say(b"DATA"), rb"^354 ")
        self.assertRegex(terminal.say(_DOT.sub(b"..", message) + b"."), rb"^250 2\.0\.0 ")
        self.assertRegex(terminal.say(b"QUIT"), rb"^221 2\.0\.0 ")
        self.assertEqual(terminal.close(), 0)

    def test_starttls(self) -> None:
        """A message with everything arrives over STARTTLS as it was sent."""
        self._submit(False, messages.full())
        self.assertKept(messages.full(), "PLAIN")

    def test_implicit(self) -> None:
        """A message with everything arrives over implicit TLS as it was sent."""
        self._submit(True, messages.full())
        self.assertKept(messages.full(), "PLAIN")

    def test_oldestVersion(self) -> None:
        """TLS 1.2 is spoken, with a cipher that has forward secrecy."""
        self._submit(True, messages.small(), "-tls1_2")
        self.assertSame(
            self.kept(SENDER, [RECIPIENT], "ESMTPSA", "TLSv1.2)").message, messages.small()
        )

    def test_tooOldVersion(self) -> None:
        """TLS 1.1 is not spoken, and the service goes on."""
        weakest = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        self.assertDistrusted(self.runProgram(*self._command(True, self.authority, *weakest)))

    def test_login(self) -> None:
        """LOGIN asks for user name and password in turn."""
        terminal, user = self._open(False), USERS["LOGIN"]
        self.assertEqual(terminal.say(b"AUTH LOGIN"), b"334 VXNlcm5hbWU6\r\n")
        name = base64.b64encode(user.name.encode())
        self.assertEqual(terminal.say(name), b"334 UGFzc3dvcmQ6\r\n")
        self.assertRegex(terminal.say(base64.b64encode(user.secret.encode())), rb"^235 ")
        self.assertLogin("LOGIN")

    def test_wrong(self) -> None:
        """A wrong password is 535, and the third one ends the connection."""
        terminal, user = self._open(True), USERS["PLAIN"]
        response = base64.b64encode(f"\0{user.name}\0{WRONG}".encode())
        for _ in range(2):
            self.assertRegex(terminal.say(b"AUTH PLAIN " + response), rb"^535 5\.7\.8 ")
        self.assertRegex(terminal.say(b"AUTH PLAIN " + response), rb"^421 4\.7\.0 ")
        self.assertEqual(terminal.reply(), b"")
        self.assertNoLogin()

    def test_resumption(self) -> None:
        """A session ticket of one connection is taken by the next."""
        ticket = str(self.directory / "ticket")
        # TLS 1.3 sends its tickets when the program may have gone; TLS 1.2 in the handshake.
        for option, told in (("-sess_out", b"New, TLSv1.2"), ("-sess_in", b"Reused, TLSv1.2")):
            command = self._command(True, self.authority, "-tls1_2", option, ticket)
            command.remove("-quiet")
            self.assertIn(told, self.runProgram(*command, stdin=b"QUIT\r\n").stdout)

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""
        for implicit in (False, True):
            ran = self.runProgram(*self._command(implicit, self.stranger), stdin=b"QUIT\r\n")
            self.assertDistrusted(ran)
