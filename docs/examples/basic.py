"""A server without logins and without TLS that saves every message as an .eml file.

    python basic.py 2525 DIRECTORY

It listens on 127.0.0.1 alone: whoever reaches a port like this one can send as anybody.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from eml import EmlFiles
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from submitd.service import SubmissionService, submissionService
from submitd.settings import LimitSettings, ListenerSettings


def server(reactor: Any, port: int, directory: Path) -> SubmissionService:
    """The service, not yet started."""
    return submissionService(
        reactor,
        [
            ListenerSettings(
                endpoint=f"tcp:{port}:interface=127.0.0.1", tls="off", require_tls=False
            )
        ],
        bounds=LimitSettings(message_size=10 * 1024 * 1024),
        loginRequired=False,
        delivery=EmlFiles(directory),
    )


def main(reactor: Any, port: str, directory: str) -> Deferred[None]:
    """Run until the process is told to end."""
    service = server(reactor, int(port), Path(directory))
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    print(f"listening on port {port}", flush=True)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
