"""A ``twistd submitd`` that really runs: a process of its own, on free ports of 127.0.0.1.

A test gives the configuration as text and gets ports, log, Maildir and memory.  In the text stand
``$directory`` for the service's directory and ``$NAME`` for each port that is asked for by name.

:meth:`RunningService.start` returns once every port takes connections; a service that ends before
that, or takes longer than :data:`START`, is a :class:`ServiceFailed` that shows the log.
:meth:`RunningService.stop` ends that process and no other, by its pid.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import string
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import submitd

HOST = "127.0.0.1"

START = 30.0
"""Seconds that a service has from its start until it takes connections."""

STOP = 20.0
"""Seconds that a service has to end."""

ROOT = Path(submitd.__file__).resolve().parent.parent

_TWISTD = "from twisted.scripts.twistd import run; run()"


class ServiceFailed(Exception):
    """The service did not start, or did not end as it should; the text has its log."""


class RunningService:
    """One service.

    :param directory: where it runs: configuration, log, and what the configuration puts there.
    :param config: the configuration, with ``$directory`` and ``$NAME`` of the ports.
    :param ports: the names of the ports.
    :param arguments: more arguments behind ``submitd --config FILE``.
    :param modules: more directories in which Python finds what the configuration names.
    :param before: a command line that runs the service: the service's own is put behind it.
    :param options: twistd's own, before ``submitd``.
    :ivar ports: name -> number, from the start on.
    """

    def __init__(
        self,
        directory: Path,
        config: str,
        ports: Sequence[str] = ("starttls", "implicit"),
        arguments: Sequence[str] = (),
        modules: Sequence[Path] = (),
        before: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.directory = directory.absolute()
        self.ports: dict[str, int] = {}
        self._config = config
        self._names = tuple(ports)
        self._arguments = tuple(arguments)
        self._modules = tuple(modules)
        self._before = tuple(before)
        self._options = tuple(options)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RunningService:
        """Start it, and wait until it takes connections; it ends with the tests at the latest.

        :raise ServiceFailed: when it ends, or takes too long.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with freePorts(len(self._names)) as numbers:
            self.ports = dict(zip(self._names, numbers, strict=True))
            self._configFile.write_text(self._filled(), encoding="utf-8")
            self._launch()
            atexit.register(self._kill)
            try:
                self._waitForPorts()
            except BaseException:
                self._kill()
                raise
        return self

    def _filled(self) -> str:
        names = {name: str(port) for name, port in self.ports.items()}
        filled = string.Template(self._config).substitute(names, directory=self.directory)
        # Tests read the log while the service runs, so no line of it may wait.
        told = "\n[log]\ntogether = false\n"
        return filled.replace("\n[log]\n", told) if "\n[log]\n" in filled else filled + told

    def _launch(self) -> None:
        command = [
            *self._before,
            sys.executable,
            "-c",
            _TWISTD,
            "--nodaemon",
            "--pidfile=",
            *self._options,
            "submitd",
        ]
        command += ["--config", str(self._configFile), *self._arguments]
        found = [str(ROOT), *map(str, self._modules), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, found))
        with open(self._logFile, "ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _waitForPorts(self) -> None:
        until = time.monotonic() + START
        for name, port in self.ports.items():
            while not self._accepts(port):
                if not self.isRunning:
                    raise ServiceFailed(f"it ended before {name} was open:\n{self.log}")
                if time.monotonic() > until:
                    raise ServiceFailed(f"{name} not open in {START} s:\n{self.log}")
                time.sleep(0.02)

    @staticmethod
    def _accepts(port: int) -> bool:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it, with SIGTERM; one that is not running is left alone.

        :raise ServiceFailed: when it has to be killed, or had ended of itself.
        """
        process, self._process = self._process, None
        atexit.unregister(self._kill)
        if process is None:
            return
        process.terminate()
        try:
            status = process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServiceFailed(f"it did not end in {STOP} s:\n{self.log}") from None
        # twistd ends by the signal it was sent.
        if status not in (0, -signal.SIGTERM):
            raise ServiceFailed(f"it ended with status {status}:\n{self.log}")

    def kill(self) -> None:
        """End it as a crash would: SIGKILL; nothing of it gets to finish anything."""
        atexit.unregister(self._kill)
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @property
    def isRunning(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process.

        :raise ServiceFailed: when it was not started.
        """
        if self._process is None:
            raise ServiceFailed("it is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has said so far, on standard output and standard error."""
        return self._logFile.read_text(encoding="utf-8", errors="replace")

    @property
    def maildir(self) -> Path:
        """Where the messages are, if the configuration says ``$directory/Maildir``."""
        return self.directory / "Maildir"

    @property
    def memory(self) -> int:
        """Its resident memory, in KiB."""
        return self._status("VmRSS")

    @property
    def peakMemory(self) -> int:
        """The most resident memory since the start or :meth:`forgetPeak`, in KiB."""
        return self._status("VmHWM")

    def forgetPeak(self) -> None:
        """Let :attr:`peakMemory` begin anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return int(value.split()[0])
        raise LookupError(key)

    @property
    def _configFile(self) -> Path:
        return self.directory / "submitd.toml"

    @property
    def _logFile(self) -> Path:
        return self.directory / "service.log"


@contextlib.contextmanager
def freePorts(count: int) -> Iterator[list[int]]:
    """Ports of 127.0.0.1 that the kernel gives to nobody else while the context lasts.

    They are bound, not listened on, and with SO_REUSEADDR, so that a service can have them.
    """
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((HOST, 0))
        yield [each.getsockname()[1] for each in held]
