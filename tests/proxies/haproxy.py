"""A HAProxy that really runs: in front of a service, on ports of 127.0.0.1.

It passes connections on as they are (``mode tcp``), each frontend with its own kind of header.
:meth:`HAProxy.stop` ends the process that was started, by its pid.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.clients.running import HOST, freePorts

START = 20.0
"""Seconds until it takes connections."""

_GLOBAL = """\
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
"""

_FRONTEND = """\
listen {name}
    bind 127.0.0.1:{port}
    server service 127.0.0.1:{behind} {options}
"""


class HAProxy:
    """One process.

    :param program: the path of haproxy.
    :param directory: for its configuration and its output.
    :param frontends: name -> port behind it and options of its server line.
    :ivar ports: name -> port.
    """

    def __init__(
        self, program: str, directory: Path, frontends: Mapping[str, tuple[int, str]]
    ) -> None:
        config, self._output = directory / "haproxy.cfg", directory / "haproxy.log"
        with freePorts(len(frontends)) as numbers:
            self.ports = dict(zip(frontends, numbers, strict=True))
        sections = [
            _FRONTEND.format(name=name, port=self.ports[name], behind=behind, options=options)
            for name, (behind, options) in frontends.items()
        ]
        config.write_text(_GLOBAL + "".join(sections), encoding="ascii")
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [program, "-db", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + START
        for port in self.ports.values():
            while True:
                try:
                    socket.create_connection((HOST, port), 5).close()
                    break
                except OSError:
                    if self._process.poll() is not None or time.monotonic() > until:
                        self.stop()
                        raise AssertionError(self._output.read_text()) from None
                    time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
