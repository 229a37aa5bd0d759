"""A server that makes every mistake on purpose: the checks must find them.

It takes a bare LF for a line end, keeps what was sent behind STARTTLS, speaks TLS 1.0, logs anybody
in who writes base64, tells unknown users from known ones, reads BDAT with ``int()``, and believes
PROXY and XCLIENT of everybody.  It keeps nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
import socketserver
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

USER, PASSWORD = "ada@example.org", "open sesame"


class _Connection(socketserver.BaseRequestHandler):
    """One client."""

    server: _Server

    def handle(self) -> None:
        self.buffer = b""
        self.waits = ""
        try:
            if self.server.implicit:
                self.wrap()
            self.say("220 careless ESMTP")
            while (line := self.line()) is not None:
                if not self.command(line):
                    return
        except (OSError, ssl.SSLError):
            return

    def wrap(self) -> None:
        self.request = self.server.context.wrap_socket(self.request, server_side=True)

    def say(self, *lines: str) -> None:
        self.request.sendall("".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace"))

    def more(self) -> bool:
        octets = self.request.recv(65536)
        self.buffer += octets
        return bool(octets)

    def line(self) -> bytes | None:
        while (found := re.search(rb"\r?\n", self.buffer)) is None:
            if not self.more():
                return None
        line, self.buffer = self.buffer[: found.start()], self.buffer[found.end() :]
        return line

    def command(self, line: bytes) -> bool:
        verb, _, argument = line.partition(b" ")
        function = getattr(self, "do" + verb.decode("latin-1").upper(), None)
        if function is None:
            self.say("250 whatever you say")
        else:
            function(argument.decode("latin-1"))
        return verb.upper() != b"QUIT"

    def doEHLO(self, argument: str) -> None:
        offers = ["CHUNKING", "SMTPUTF8", "XCLIENT LOGIN", "AUTH PLAIN LOGIN CRAM-MD5"]
        self.say("250-careless", "250-STARTTLS", *(f"250-{offer}" for offer in offers), "250 HELP")

    def doQUIT(self, argument: str) -> None:
        self.say("221 bye")

    def doSTARTTLS(self, argument: str) -> None:
        self.say("220 go ahead")
        self.wrap()

    def doDATA(self, argument: str) -> None:
        self.say("354 go on")
        while (line := self.line()) is not None and line != b".":
            pass
        self.say("250 queued")

    def doBDAT(self, argument: str) -> None:
        try:
            size = int(float(argument.split()[0]))
        except (ValueError, IndexError):
            self.say("501 what?")
            return
        while len(self.buffer) < size:
            if not self.more():
                return
        self.buffer = self.buffer[max(size, 0) :]
        self.say("250 octets taken")

    def doAUTH(self, argument: str) -> None:
        mechanism, _, response = argument.partition(" ")
        if mechanism == "CRAM-MD5":
            self.say("334 " + base64.b64encode(b"<1@careless>").decode())
            self.line()
            self.say("501 no")
            return
        while not response:
            self.say("334 ")
            response = (self.line() or b"").decode("latin-1")
        try:
            octets = base64.b64decode(response + "==")
        except binascii.Error:
            self.say("235 fine")
            return
        name = octets.split(b"\0")[-2:-1] or [octets]
        if name[0] == USER.encode():
            self.say("235 fine" if octets.endswith(PASSWORD.encode()) else "535 wrong password")
        else:
            self.say(f"535 LDAP error: no such user {name[0].decode('latin-1')}")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100

    def __init__(self, context: ssl.SSLContext, implicit: bool) -> None:
        self.context = context
        self.implicit = implicit
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be careless about that, too."""


class Careless:
    """The server on two ports, as long as the context lasts.

    :param directory: has ``certificate.pem`` and ``private_key.pem``.
    """

    def __init__(self, directory: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "certificate.pem", directory / "private_key.pem")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        self._servers = [_Server(context, implicit) for implicit in (False, True)]
        self.port, self.implicit = (server.server_address[1] for server in self._servers)

    def __enter__(self) -> Careless:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
