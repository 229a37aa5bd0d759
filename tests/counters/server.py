"""A Redis of one's own, from Debian's redis-server, on a unix socket in a directory of the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = shutil.which("redis-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
MISSING = None if PROGRAM else "redis-server is not installed"


class RedisServer:
    """A Redis that keeps nothing on disk.

    :ivar url: where it listens; it may be started again there.
    """

    def __init__(self) -> None:
        # Not in trial's directory: the path of a socket has about 100 octets at most.
        self.directory = Path(tempfile.mkdtemp(prefix="submitd-redis-"))
        self.socket = self.directory / "redis.sock"
        self.url = f"redis+unix://{self.socket}"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        assert PROGRAM is not None
        command = [PROGRAM, "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        with open(self.directory / "output", "ab") as output:
            self._child = subprocess.Popen(
                [*command, "--appendonly", "no", "--dir", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        for _ in range(500):
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(self.socket))
                    return
                except OSError:
                    time.sleep(0.01)
        raise AssertionError((self.directory / "output").read_text())

    def hang(self) -> None:
        """Have it answer nothing more."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def goOn(self) -> None:
        """Have it answer again."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, if it runs."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait(10)

    def remove(self) -> None:
        """End it, and leave nothing."""
        self.stop()
        shutil.rmtree(self.directory)
