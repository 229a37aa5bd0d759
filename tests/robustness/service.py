"""The started service that the families are run against: one for all of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.clients.case import ADA, CONFIG, ClientTestCase
from tests.clients.running import RunningService
from tests.robustness.checks import Target

LONG = bool(os.environ.get("SUBMITD_TEST_LONG"))
"""Whether the long form is asked for."""

ROBUST = (
    CONFIG
    + """
[log]
json = "$directory/events.json"

[limits]
message_size = "20 MiB"

[[listener]]
endpoint = "tcp:$proxied:interface=127.0.0.1"
proxy_protocol_from = ["127.0.0.0/8"]

[[listener]]
endpoint = "tcp:$trusting:interface=127.0.0.1"
xclient_from = ["127.0.0.0/8"]
xforward_from = ["127.0.0.0/8"]
"""
)
PORTS = ("starttls", "implicit", "proxied", "trusting")


class Robust:
    """A service with every kind of listener, its users, and what can be seen of it.

    :param options: twistd's own.
    :param modules: where Python looks first.
    """

    def __init__(
        self, config: str = ROBUST, options: Sequence[str] = (), modules: Sequence[Path] = ()
    ) -> None:
        directory = Path(tempfile.mkdtemp(prefix="robust-", dir=os.getcwd()))
        ClientTestCase.prepare(directory)
        self.service = RunningService(
            directory, config, PORTS, options=options, modules=modules
        ).start()

    @property
    def kept(self) -> int:
        """How many messages are in the Maildir."""
        new = self.service.maildir / "new"
        return len(list(new.iterdir())) if new.is_dir() else 0

    @property
    def unfinished(self) -> list[str]:
        """What is in ``tmp/`` of the Maildir."""
        folder = self.service.maildir / "tmp"
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    @property
    def events(self) -> Path:
        """The JSON log."""
        return self.service.directory / "events.json"

    @property
    def target(self) -> Target:
        """The service as checks see it."""
        ports = self.service.ports
        return Target(
            port=ports["starttls"],
            implicit=ports["implicit"],
            proxied=ports["proxied"],
            trusting=ports["trusting"],
            user=ADA.name,
            password=ADA.secret,
            kept=lambda: self.kept,
            pid=self.service.pid,
        )


_robust: Robust | None = None


def robust() -> Robust:
    """The service for all families; it is started once, and ends with the tests."""
    global _robust
    if _robust is None or not _robust.service.isRunning:
        _robust = Robust()
    return _robust


def stopRobust() -> None:
    """End it, if it runs."""
    global _robust
    if _robust is not None:
        started, _robust = _robust, None
        started.service.stop()
