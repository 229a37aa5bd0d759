"""Whose rights the service has, and when: twistd's --uid and --gid, and the systemd unit."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.case import ADA, ClientTestCase
from tests.clients.running import HOST, ROOT

NOBODY = "nobody"

TWISTD = "from twisted.scripts.twistd import run; run()"

CONFIG = """\
hostname = "submission.example.org"

[[listener]]
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"

[auth]
checkers = ["htpasswd:passwd"]

[delivery]
use = "maildir"
path = "state/Maildir"
"""

EXPOSURE = 1.5
"""The worst score that systemd may give the unit; the best is 0."""


def privilegedPort() -> int:
    """A free port that only root can open."""
    for port in range(1023, 512, -1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise SkipTest("no port below 1024 is free")


def opened(*paths: Path) -> list[str]:
    """What runs a command so that everybody can reach these paths, if not everybody can anyway.

    A Python below /root, which is root's alone, is put into a /root of the command's own.

    :raise SkipTest: when that cannot be done here.
    """
    hidden = {
        above: [path for path in paths if above in path.parents]
        for each in paths
        for above in each.parents
        if not above.stat().st_mode & 0o001
    }
    if not hidden:
        return []
    script = "set -e; umask 022; mount -t tmpfs tmpfs /mnt; "
    for above, below in hidden.items():
        kept = [(path, f"/mnt/{number}") for number, path in enumerate(below)]
        script += "".join(f"mkdir {at}; mount --bind {path} {at}; " for path, at in kept)
        script += f"mount -t tmpfs -o mode=755 tmpfs {above}; "
        script += "".join(f"mkdir -p {path}; mount --bind {at} {path}; " for path, at in kept)
    before = ["unshare", "--mount", "sh", "-c", script + 'exec "$@"', "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        raise SkipTest(f"{NOBODY} may not run this Python, and nothing can be mounted")
    return before


class UserTests(SynchronousTestCase):
    """Started by root, and run by somebody else."""

    def setUp(self) -> None:
        """A directory that this somebody can look into, and a Maildir's place that is his."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become somebody else")
        self.nobody = pwd.getpwnam(NOBODY)
        self.before = opened(Path(sys.base_prefix), Path(sys.prefix), ROOT)
        self.directory = Path(tempfile.mkdtemp(prefix="submitd-rights-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.directory.chmod(0o755)
        ClientTestCase.prepare(self.directory)
        (self.directory / "private_key.pem").chmod(0o600)
        (self.directory / "state").mkdir(0o700)
        self.give("state", "passwd")
        self.port = privilegedPort()
        (self.directory / "submitd.toml").write_text(CONFIG.format(port=self.port))

    def give(self, *names: str) -> None:
        """Make these files the other's."""
        for name in names:
            os.chown(self.directory / name, self.nobody.pw_uid, self.nobody.pw_gid)

    def command(self, *more: str) -> list[str]:
        """The command line."""
        user = [f"--uid={self.nobody.pw_uid}", f"--gid={self.nobody.pw_gid}"]
        config = ["submitd", "--config", str(self.directory / "submitd.toml")]
        service = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", *user, *config, *more]
        return [*self.before, *service]

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The service, once its port is open."""
        with open(self.directory / "log", "wb") as log:
            service = subprocess.Popen(self.command(), cwd=ROOT, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection((HOST, self.port), 1).close()
                    break
                except OSError:
                    if service.poll() is not None or time.monotonic() > until:
                        raise AssertionError((self.directory / "log").read_text()) from None
                    time.sleep(0.05)
            yield service
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(20)

    def test_port(self) -> None:
        """A port below 1024 and a key that root alone can read, served by nobody."""
        with self.running() as service:
            context = ssl.create_default_context(cafile=str(self.directory / "authority.pem"))
            with smtplib.SMTP_SSL("localhost", self.port, context=context, timeout=20) as client:
                client.login(ADA.name, ADA.secret)
                client.sendmail(ADA.name, ["bob@example.net"], f"From: <{ADA.name}>\r\n\r\nhello")
            status = Path(f"/proc/{service.pid}/status").read_text()
            for kind, number in (("Uid", self.nobody.pw_uid), ("Gid", self.nobody.pw_gid)):
                ids = re.search(rf"^{kind}:\t(.*)$", status, re.MULTILINE)
                assert ids is not None
                self.assertEqual(set(ids[1].split()), {str(number)})
            [message] = (self.directory / "state" / "Maildir" / "new").iterdir()
            self.assertEqual(message.stat().st_uid, self.nobody.pw_uid)

    def refused(self, *more: str) -> str:
        """Try to start it.

        :return: what it says, when it does not start.
        """
        tried = subprocess.run(
            self.command(*more), cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(tried.returncode, 1, tried.stderr)
        return tried.stderr

    def test_passwordFile(self) -> None:
        """A password file that root can read and the service cannot stops the start."""
        os.chown(self.directory / "passwd", 0, 0)
        (self.directory / "passwd").chmod(0o600)
        for more in ((), ("--check",)):
            self.assertIn("auth.checkers[0]: ", self.refused(*more))

    def test_delivery(self) -> None:
        """So does a place for messages that is root's."""
        os.chown(self.directory / "state", 0, 0)
        self.assertIn("delivery: ", self.refused("--check"))

    def test_check(self) -> None:
        """What is read before, such as the private key, need not be readable for it."""
        tried = subprocess.run(
            self.command("--check"), cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        self.assertEqual((tried.returncode, tried.stderr.count("\n")), (0, 1), tried.stderr)


class PortTests(SynchronousTestCase):
    """A port that another has."""

    def test_together(self) -> None:
        """It is told together with all other mistakes."""
        directory = Path(self.mktemp())
        directory.mkdir()
        ClientTestCase.prepare(directory)
        with socket.create_server((HOST, 0)) as taken:
            config = CONFIG.format(port=taken.getsockname()[1]).replace("passwd", "nowhere")
            (directory / "submitd.toml").write_text(config)
            file = str((directory / "submitd.toml").absolute())
            tried = subprocess.run(
                [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "submitd", "--config", file],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
            )
        self.assertEqual(tried.returncode, 1)
        self.assertIn("auth.checkers[0]: ", tried.stderr)
        self.assertIn("listener[0].endpoint: cannot listen", tried.stderr)


class UnitTests(SynchronousTestCase):
    """etc/submitd.service."""

    def test_exposure(self) -> None:
        """systemd gives it the score that docs/security.rst states."""
        analyze = shutil.which("systemd-analyze")
        if analyze is None:
            raise SkipTest("systemd-analyze is not installed")
        unit = ROOT / "etc" / "submitd.service"
        command = [analyze, "security", "--offline=true", "--no-pager", str(unit)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        score = re.search(r"Overall exposure level for submitd.service: ([0-9.]+)", said)
        assert score is not None, said
        self.assertLessEqual(float(score[1]), EXPOSURE)
        stated = (ROOT / "docs" / "security.rst").read_text()
        self.assertIn(f"**{EXPOSURE}**", stated)
