"""The process that workers are forked from: one for each time the configuration is read.

It reads the configuration and makes the TLS contexts, so that all its workers have the same keys
for session tickets and what they read in common is in memory once.  It runs no reactor and serves
nobody; it does what the parent orders, one message at a time, and ends when the parent closes the
channel.  A configuration with mistakes is told to the parent, and that is all it does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import attrs

from submitd import service
from submitd.config import ConfigurationError, load
from submitd.errors import CannotStart
from submitd.settings import Settings
from submitd.tls import ServerTLS
from submitd.workers import channel
from submitd.workers.worker import Beginning, work

CHANNEL = 3
"""The descriptor of the channel to the parent."""

PROGRAM = (
    "from submitd.workers import later; later.install();"
    " from submitd.workers.template import main; main()"
)


class Template:
    """A configuration, ready to be served.

    :param sock: the channel to the parent.
    :param settings: without mistakes.
    :param tls: made of them.
    """

    def __init__(self, sock: socket.socket, settings: Settings, tls: ServerTLS | None) -> None:
        self._socket = sock
        self._settings = settings
        self._tls = tls
        self._woken = socket.socketpair()
        for each in self._woken:
            each.setblocking(False)

    def run(self) -> Beginning | None:
        """Fork as many workers as the parent wants.

        :return: in a worker, what it begins with; in the template, at the end, ``None``.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken[1].fileno())
        while True:
            ready, _, _ = select.select([self._socket, self._woken[0]], [], [])
            if self._woken[0] in ready:
                self._woken[0].recv(4096)
                self._reap()
            if self._socket in ready:
                order, files = channel.receive(self._socket)
                if order is None:
                    return None
                beginning = self._obey(order, files)
                if beginning is not None:
                    return beginning

    def _obey(self, order: channel.Message, files: list[int]) -> Beginning | None:
        if "renew" in order:
            if self._tls is not None:
                self._tls.renewTickets()
            return None
        _become(order["identity"])
        return self._fork(order, files)

    def _fork(self, order: channel.Message, files: list[int]) -> Beginning | None:
        pid = os.fork()
        if pid:
            for file in files:
                os.close(file)
            channel.send(self._socket, {"forked": order["number"], "pid": pid})
            return None
        signal.set_wakeup_fd(-1)
        for each in (self._socket, *self._woken):
            each.close()
        return Beginning(self._settings, self._tls, order, files)

    def _reap(self) -> None:
        for pid, status in _ended():
            code = os.waitstatus_to_exitcode(status)
            cause = f"signal {-code}" if code < 0 else f"exit status {code}"
            channel.send(self._socket, {"ended": pid, "cause": cause})


def _ended() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


def _become(identity: list[int]) -> None:
    """Give up the rights that the parent has given up by now."""
    if os.geteuid() != 0:
        return
    uid, gid, *groups = identity
    if (uid, gid) != (0, os.getegid()):
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)


def read(file: Path, json: str | None) -> Settings:
    """Read a configuration.

    :param json: the log, in place of the configuration's.
    :return: the settings.
    :raise ConfigurationError: when there is a mistake in it.
    """
    loaded = load(file)
    settings = loaded.settings
    if json is not None:
        settings = attrs.evolve(settings, log=attrs.evolve(settings.log, json=json))
    return settings


def main() -> NoReturn:
    """The template, and, forked from it, each worker."""
    # The parent gets the signals of a terminal or of systemd, too, and says what is to be done.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        beginning = _serve(socket.socket(fileno=CHANNEL), json.loads(sys.argv[1]))
    except BrokenPipeError:
        sys.exit(1)  # the parent is gone, or has no use for this one
    if beginning is None:
        sys.exit(0)
    # As any child that was forked: what the template would do at its end is not this process's.
    os._exit(work(beginning))


def _serve(sock: socket.socket, source: dict[str, Any]) -> Beginning | None:
    try:
        settings = read(Path(source["file"]), source["json"])
        tls = service.serverTLS(settings)
    except ConfigurationError as error:
        problems = [str(finding) for finding in error.findings if not finding.isWarning]
        channel.send(sock, {"problems": problems})
        sys.exit(1)
    except CannotStart as error:
        channel.send(sock, {"problems": [str(error)]})
        sys.exit(1)
    channel.send(
        sock,
        {
            "workers": settings.workers,
            "endpoints": [listener.endpoint for listener in settings.listener],
            "tls": [listener.tls for listener in settings.listener],
            "relay": service.hasRelay(settings),
            "drain": settings.limits.drain,
            "log": settings.log.json,
        },
    )
    return Template(sock, settings, tls).run()
