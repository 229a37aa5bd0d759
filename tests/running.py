"""A service in a process of its own, for tests that need the real thing.

Nothing here outlives a test: a process is ended by the object that started it.
"""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


def environment(checkout: Path | None = ROOT) -> dict[str, str]:
    """The environment of a child: nothing that would lead it to another submitd.

    :param checkout: a tree to run from; ``None`` for what is installed.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "XDG_", "COVERAGE"))
    }
    if checkout is not None:
        kept["PYTHONPATH"] = str(checkout)
    return kept


def twistd(*arguments: str, python: str = sys.executable) -> list[str]:
    """A command line for twistd in the foreground, of that Python."""
    return [python, "-c", TWISTD, "--nodaemon", "--pidfile=", *arguments]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``twistd submitd`` to its end."""
    return subprocess.run(
        twistd("submitd", *arguments),
        env=environment(),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def freePorts(count: int = 2) -> list[int]:
    """Ports that nobody listens on now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Process:
    """A child, its output in a file.

    :param command: what to run.
    :param cwd: where; ``output`` is written there.
    :param files: descriptors that the child has, too.
    """

    def __init__(
        self, command: list[str], cwd: Path, env: dict[str, str], files: Sequence[int] = ()
    ) -> None:
        self.log = cwd / "output"
        with open(self.log, "wb") as output:
            self.child = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=files,
            )

    @property
    def output(self) -> str:
        """What it has printed until now."""
        return self.log.read_text("utf-8", "replace")

    def waitFor(self, port: int, seconds: float = 30.0) -> None:
        """Wait until somebody listens on a port.

        :raise AssertionError: with the output, when nobody does.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.child.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.02)
        raise AssertionError(f"nobody listens on {port}:\n{self.output}")

    def stop(self) -> int:
        """End it as a system does, and wait.

        :return: the exit status, negative for a signal.
        """
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
        return self.child.wait()


def startDemo(cwd: Path, python: str = sys.executable, checkout: Path | None = ROOT) -> Demo:
    """Start the demonstration on free ports, its state in ``cwd``."""
    ports = freePorts()
    command = twistd(
        "submitd",
        "--state",
        str(cwd / "state"),
        "--demo-ports",
        ",".join(map(str, ports)),
        python=python,
    )
    demo = Demo(command, cwd, environment(checkout))
    demo.starttls, demo.implicit = ports
    try:
        demo.waitFor(demo.implicit)
    except AssertionError:
        demo.stop()
        raise
    return demo


class Demo(Process):
    """The demonstration in a process of its own."""

    starttls = 0
    implicit = 0

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.log.parent / "state"

    def send(self, text: str) -> None:
        """Send one message over implicit TLS, the certificate verified, logged in."""
        user, _, password = (self.state / "secrets").read_text().strip().partition(":")
        context = ssl.create_default_context(cafile=str(self.state / "tls" / "certificate.pem"))
        with smtplib.SMTP_SSL("127.0.0.1", self.implicit, context=context, timeout=30) as client:
            client.login(user, password)
            client.sendmail("me@example.org", ["you@example.net"], f"Subject: x\n\n{text}\n")

    def messages(self) -> list[bytes]:
        """What is in its Maildir."""
        return [path.read_bytes() for path in (self.state / "Maildir" / "new").iterdir()]
