"""Logins for the peer Postfix: postfix_auth.py SOCKET USER PASSWORD

The least of the protocol by which smtpd asks a Dovecot: AUTH PLAIN with an initial response.  What
it costs is not counted as Postfix's.  Prints "ready".
"""

from __future__ import annotations

import base64
import os
import socketserver
import sys

HELLO = (
    b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t%d\nCUID\t%d\n"
    b"COOKIE\t0123456789abcdef0123456789abcdef\nDONE\n"
)


class Client(socketserver.StreamRequestHandler):
    """One smtpd."""

    response = b""

    def handle(self) -> None:
        """Answer until it goes."""
        self.wfile.write(HELLO % (os.getpid(), self.client_number()))
        for line in self.rfile:
            verb, *arguments = line.rstrip(b"\n").split(b"\t")
            if verb == b"AUTH":
                self.wfile.write(self._answer(arguments))

    def client_number(self) -> int:
        """A number that no other connection has."""
        number: int = self.request.fileno()
        return number

    def _answer(self, arguments: list[bytes]) -> bytes:
        given = arguments[-1].removeprefix(b"resp=")
        if given == self.response:
            user = base64.b64decode(given).split(b"\0")[1]
            return b"OK\t%s\tuser=%s\n" % (arguments[0], user)
        return b"FAIL\t%s\n" % arguments[0]


class Server(socketserver.ThreadingUnixStreamServer):
    """The socket."""

    daemon_threads = True
    request_queue_size = 200


def main(path: str, user: str, password: str) -> None:
    """Serve until a signal ends the process."""
    Client.response = base64.b64encode(f"\0{user}\0{password}".encode())
    with Server(path, Client) as server:
        os.chmod(path, 0o666)
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
