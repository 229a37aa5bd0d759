"""aiosmtpd as a peer, on uvloop: with_aiosmtpd.py tls|plain CERTIFICATE KEY USER PASSWORD

Reads each message and answers 250.  Prints "ready PORT", and at SIGUSR2 "accepted MESSAGES OCTETS".
"""

from __future__ import annotations

import asyncio
import functools
import signal
import ssl
import sys
from typing import Any

import uvloop
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Discard:
    """Counts messages."""

    messages = octets = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Count, and answer."""
        self.messages += 1
        self.octets += len(envelope.content)
        return "250 2.0.0 Ok"

    def report(self) -> None:
        """Say how many."""
        print("accepted", self.messages, self.octets, flush=True)


def authenticate(
    user: str, password: str, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
) -> AuthResult:
    """Check a login."""
    good = isinstance(data, LoginPassword) and data == LoginPassword(
        user.encode(), password.encode()
    )
    return AuthResult(success=good, handled=good)


async def main(mode: str, certificate: str, key: str, user: str, password: str) -> None:
    """Serve until a signal ends the process."""
    tls = mode == "tls"
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    discard = Discard()
    make = functools.partial(
        SMTP,
        discard,
        data_size_limit=100_000_000,
        hostname="peer.example.org",
        auth_required=tls,
        # It does not see that the whole connection is TLS.
        auth_require_tls=False,
        authenticator=functools.partial(authenticate, user, password),
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, discard.report)
    server = await loop.create_server(make, "127.0.0.1", 0, ssl=context, backlog=512)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
