"""The servers to measure: submitd, and its peers where they are installed.

Each is started as a child on a free port of 127.0.0.1, on the core it is given, and ended by its
pid.  Each can say how many messages it has accepted, which is compared with what the generator
counted: submitd by the lines of its log, Postfix by the files in its queue, the other peers by a
count of their own.  One that does not start or stop is :class:`ServerFailed`, with its log.
"""

from __future__ import annotations

import abc
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar

import attrs
from passlib.hash import bcrypt

from benchmarks import certificate
from benchmarks.loads import NUMBER, PASSWORD, USER, Load
from benchmarks.processes import Tree, pinned
from submitd.logwriter import WAIT

PEERS = Path(__file__).resolve().parent / "peers"
ROOT = Path(__file__).resolve().parent.parent

START = 30.0
"""Seconds that a server has to start, to answer and to end."""


class ServerFailed(Exception):
    """A server did not start, did not end, or has not what it accepted."""


@attrs.frozen
class Place:
    """Where servers run.

    :param directory: for configuration, log and messages, one directory in it for each server.
    :param core: the cores that a server may use.
    :param node: the directory with ``node_modules`` for peers from npm.
    :param otherPython: the program of another Python that has what submitd needs.
    """

    directory: Path
    core: frozenset[int]
    node: Path
    otherPython: Path | None = None


class Server(abc.ABC):
    """A server, for one load.

    :param place: where it runs.
    :cvar name: for command line, files and tables.
    :cvar isExtra: it is measured only where it is asked for by name.
    :ivar port: where it listens, once it is started.
    """

    name: ClassVar[str]
    isDurable: ClassVar[bool] = False
    isExtra: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self.port = 0
        self._children: list[subprocess.Popen[str]] = []

    @classmethod
    @abc.abstractmethod
    def missing(cls, place: Place) -> str:
        """What it lacks here, as words; empty when it can be started."""

    def start(self, load: Load) -> None:
        """Start it, and wait until it takes connections.

        :raise ServerFailed: when it does not.
        """
        self.directory = Path(
            tempfile.mkdtemp(prefix=f"{self.name}-{load.name}-", dir=self._place.directory)
        )
        # Postfix's processes have another user.
        self.directory.chmod(0o755)
        certificate.make(self.directory)
        try:
            self._start(load)
            until = time.monotonic() + START
            while not _accepts(self.port):
                if self._children[-1].poll() is not None or time.monotonic() > until:
                    raise ServerFailed(f"{self.name} does not listen:\n{self.log}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    @abc.abstractmethod
    def _start(self, load: Load) -> None:
        """Start its processes, the measured one last, and set the port."""

    def _launch(
        self,
        command: Sequence[str],
        cores: frozenset[int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        with open(self._logFile, "a", encoding="utf-8") as log:
            child = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=self._output(log),
                stderr=log,
                text=True,
                preexec_fn=pinned(cores or self._place.core),
            )
        self._children.append(child)
        return child

    def _output(self, log: IO[str]) -> IO[str] | int:
        return log

    @property
    def tree(self) -> Tree:
        """The processes to measure."""
        return Tree(self._children[-1].pid)

    @abc.abstractmethod
    def accepted(self) -> int:
        """How many messages it has accepted since its start or :meth:`forget`."""

    def forget(self) -> None:  # noqa: B027
        """Throw away the messages it has kept, between two runs."""

    def prove(self, load: Load) -> None:  # noqa: B027
        """See that a sample of what it has kept is what was sent.

        :raise ServerFailed: when it is not.
        """

    def stop(self) -> None:
        """End it; the last started first.

        :raise ServerFailed: when it has to be killed.
        """
        stuck = ""
        while self._children:
            child = self._children.pop()
            child.terminate()
            try:
                child.wait(START)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                stuck = f"{self.name} did not end in {START} s:\n{self.log}"
            if child.stdout:
                child.stdout.close()
        if stuck:
            raise ServerFailed(stuck)

    @property
    def _logFile(self) -> Path:
        return self.directory / "log"

    @property
    def log(self) -> str:
        """The end of what it has said."""
        return self._logFile.read_text(encoding="utf-8", errors="replace")[-4000:]


class Submitd(Server):
    """The service, as an operator starts it: the policies of etc/submitd.toml, messages dropped.

    Over plain connections without a login both policies would refuse every message: they are not
    in those loads.
    """

    name = "submitd"
    delivery = 'use = "discard"'

    @classmethod
    def missing(cls, place: Place) -> str:
        """Nothing."""
        return ""

    def _start(self, load: Load) -> None:
        self.port = freePort()
        hashed = bcrypt.using(rounds=4).hash(PASSWORD)
        passwords = self.directory / "passwd"
        passwords.write_text(f"{USER}:{hashed}\n")
        passwords.chmod(0o600)
        (self.directory / "submitd.toml").write_text(self._config(load))
        self._read, self._counted = 0, 0
        self._launch(
            [
                *(self._python(), "-c", "from twisted.scripts.twistd import run; run()"),
                *("--nodaemon", "--pidfile=", "submitd", "--config", "submitd.toml"),
            ],
            environment={"PYTHONPATH": os.pathsep.join(filter(None, _pythonPath()))},
        )

    def _python(self) -> str:
        return sys.executable

    def _config(self, load: Load) -> str:
        template = CONFIG_TLS if load.tls else CONFIG_PLAIN
        limits = "".join(f"{key} = {value}\n" for key, value in load.limits.items())
        return string.Template(template).substitute(
            port=self.port, limits=limits, delivery=self.delivery
        )

    def accepted(self) -> int:
        """Lines of the log that say so."""
        time.sleep(3 * WAIT)  # which lines of the log take to be written
        with open(self._logFile, "rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._counted += b"] message accepted: " in line
        return self._counted

    def forget(self) -> None:
        """Begin to count anew."""
        self.accepted()
        self._counted = 0


def _pythonPath() -> list[str]:
    return [str(ROOT), os.environ.get("PYTHONPATH", "")]


CONFIG_PLAIN = """\
hostname = "submission.example.org"

[[listener]]
endpoint = "tcp:$port:interface=127.0.0.1:backlog=512"
tls = "off"
require_tls = false

[auth]
required = false

[limits]
$limits
[delivery]
$delivery
"""

CONFIG_TLS = """\
hostname = "submission.example.org"

[[listener]]
endpoint = "tcp:$port:interface=127.0.0.1:backlog=512"
tls = "implicit"

[tls]
certificate = "certificate.pem"
private_key = "key.pem"

[auth]
checkers = ["htpasswd:passwd"]

[limits]
$limits
[[policy]]
use = "sender-owner"

[[policy]]
use = "require-tls"

[delivery]
$delivery
"""


class SubmitdMaildir(Submitd):
    """The service, with every message in a Maildir and synced before its 250."""

    name = "submitd-maildir"
    isDurable = True
    delivery = 'use = "maildir"\npath = "Maildir"'

    def accepted(self) -> int:
        """Files in the Maildir, if the log says the same."""
        kept, said = len(self._kept()), super().accepted()
        if kept != said:
            raise ServerFailed(f"{self.name}: {said} messages accepted, {kept} kept")
        return kept

    def forget(self) -> None:
        """Delete the messages."""
        super().forget()
        for file in self._kept():
            file.unlink()

    def prove(self, load: Load) -> None:
        """Compare messages with what was sent, octet by octet."""
        before, after = load.content().split(NUMBER)
        pattern = re.compile(rb"[0-9a-f]{20}".join(map(re.escape, (before, after))))
        for file in self._kept()[:20]:
            kept = file.read_bytes()
            _, received, rest = kept.partition(b"\r\nReceived: ")
            # Behind the field that submitd puts in front, and the lines that it is folded in.
            sent = re.sub(rb"\A[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", b"", rest)
            if not received or not pattern.fullmatch(sent):
                raise ServerFailed(f"{self.name}: {file.name} is not the message that was sent")

    def _kept(self) -> list[Path]:
        directory = self.directory / "Maildir" / "new"
        return list(directory.iterdir()) if directory.is_dir() else []


class SubmitdSpool(Submitd):
    """The service, with every message in its queue, and synced, before its 250."""

    name = "submitd-spool"
    isDurable = True
    delivery = 'use = "spool"\npath = "spool"'

    @classmethod
    def missing(cls, place: Place) -> str:
        """A registered spool."""
        from submitd.deliveries import REGISTRY

        return "" if "spool" in REGISTRY else "no delivery of that name"


class OnOtherPython(Submitd):
    """The service on another Python than this one."""

    name = "submitd-other"
    isExtra = True

    @classmethod
    def missing(cls, place: Place) -> str:
        """That Python, and a spool if that is to be measured."""
        if place.otherPython is None:
            return "name a Python that has what submitd needs (--other-python PROGRAM)"
        return super().missing(place)

    def _python(self) -> str:
        return str(self._place.otherPython)


class SpoolOnOtherPython(OnOtherPython, SubmitdSpool):
    """The service on another Python, with every message in its queue."""

    name = "submitd-spool-other"


class Reporting(Server):
    """A peer that counts itself: one of the programs in peers/."""

    def _start(self, load: Load) -> None:
        self._octets = load.size
        self._base = 0
        child = self._launch(
            [
                *self._program(),
                *("tls" if load.tls else "plain", "certificate.pem", "key.pem", USER, PASSWORD),
            ],
            environment={"NODE_PATH": str(self._place.node / "node_modules")},
        )
        assert child.stdout
        said = child.stdout.readline().split()
        if said[:1] != ["ready"]:
            raise ServerFailed(f"{self.name} did not start:\n{self.log}")
        self.port = int(said[1])

    @abc.abstractmethod
    def _program(self) -> Sequence[str]:
        """How to start it."""

    def _output(self, log: IO[str]) -> IO[str] | int:
        return subprocess.PIPE

    def accepted(self) -> int:
        """What it says, if the octets agree."""
        messages, octets = self._report()
        if octets != messages * self._octets:
            raise ServerFailed(
                f"{self.name}: {octets} octets in {messages} messages of {self._octets}"
            )
        return messages - self._base

    def forget(self) -> None:
        """Begin to count anew."""
        self._base, _ = self._report()

    def _report(self) -> tuple[int, int]:
        child = self._children[-1]
        child.send_signal(signal.SIGUSR2)
        assert child.stdout
        said = child.stdout.readline().split()
        if said[:1] != ["accepted"]:
            raise ServerFailed(f"{self.name} has ended:\n{self.log}")
        return int(said[1]), int(said[2])


class SMTPServer(Reporting):
    """smtp-server of npm, on Node."""

    name = "smtp-server"

    @classmethod
    def missing(cls, place: Place) -> str:
        """Node, and the package."""
        if not shutil.which("node"):
            return "there is no node"
        modules = place.node / "node_modules"
        if not (modules / "smtp-server").is_dir():
            return f"not in {modules} (npm install --prefix DIR smtp-server, --node DIR)"
        return ""

    def _program(self) -> Sequence[str]:
        return "node", str(PEERS / "with_smtpserver.cjs")


class SMTPServerNames(SMTPServer):
    """The same as it ships: it looks each client's name up, of which few have one here."""

    name = "smtp-server-names"
    isExtra = True

    def _program(self) -> Sequence[str]:
        return "node", str(PEERS / "with_smtpserver_names.cjs")


class Aiosmtpd(Reporting):
    """aiosmtpd of PyPI, on uvloop."""

    name = "aiosmtpd"

    @classmethod
    def missing(cls, place: Place) -> str:
        """The packages."""
        for module in ("aiosmtpd", "uvloop"):
            if importlib.util.find_spec(module) is None:
                return f"there is no {module} (pip install {module})"
        return ""

    def _program(self) -> Sequence[str]:
        return sys.executable, str(PEERS / "with_aiosmtpd.py")


class TwistedMail(Reporting):
    """Twisted's own mail server."""

    name = "twisted.mail"

    @classmethod
    def missing(cls, place: Place) -> str:
        """Nothing that submitd does not need."""
        return ""

    def _program(self) -> Sequence[str]:
        return sys.executable, str(PEERS / "with_twistedmail.py")


class Postfix(Server):
    """Postfix's submission service, an instance of its own, with all processes."""

    name = "postfix"
    isDurable = True

    @classmethod
    def missing(cls, place: Place) -> str:
        """The program, and the right to start it."""
        if _postfix() is None:
            return "there is no postfix"
        return "" if os.geteuid() == 0 else "only root can start it"

    def _start(self, load: Load) -> None:
        self.port = freePort()
        for name in ("config", "queue", "data"):
            (self.directory / name).mkdir()
        shutil.chown(self.directory / "data", "postfix")
        auth = self.directory / "auth"
        for name in ("main.cf", "master.cf"):
            text = string.Template((PEERS / name).read_text()).substitute(
                directory=self.directory, port=self.port, auth=auth
            )
            (self.directory / "config" / name).write_text(text)
        anywhere = frozenset(os.sched_getaffinity(0))
        self._launch(
            [sys.executable, str(PEERS / "postfix_auth.py"), str(auth), USER, PASSWORD], anywhere
        )
        self._launch(
            [str(_postfix()), "-c", str(self.directory / "config"), "start-fg"],
        )

    def accepted(self) -> int:
        """Files in the queue."""
        return len(self._kept())

    def forget(self) -> None:
        """Delete the messages, which nothing looks at where they are."""
        for file in self._kept():
            file.unlink()

    def _kept(self) -> list[Path]:
        return [file for file in (self.directory / "queue" / "hold").rglob("*") if file.is_file()]


def _postfix() -> str | None:
    return shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


# Whether it compiles what runs often; CPython 3.14 is the first that tells.
_ABOUT_PYTHON = """
import platform, sys
compiles = getattr(getattr(sys, "_jit", None), "is_enabled", bool)()
print(platform.python_implementation(), platform.python_version(), "JIT" if compiles else "")
"""


def versions(node: Path, otherPython: Path | None = None) -> dict[str, str]:
    """What is installed, with its version.

    :param node: the directory with ``node_modules``.
    :param otherPython: the program of another Python, where submitd is measured on one.
    """
    found = {"Python": platform.python_version()}
    if otherPython is not None:
        found["other Python"] = " ".join(_said([str(otherPython), "-c", _ABOUT_PYTHON]).split())
    for name in ("Twisted", "aiosmtpd", "uvloop"):
        if importlib.util.find_spec(name.lower()):
            found[name] = importlib.metadata.version(name)
    package = node / "node_modules" / "smtp-server" / "package.json"
    if package.is_file():
        found["smtp-server"] = json.loads(package.read_text())["version"]
    for name, command in (("Node", ["node", "--version"]), ("Postfix", ["postconf", "-d"])):
        match = re.search(r"(?:\Av|^mail_version = )(\S+)", _said(command), re.M)
        if match:
            found[name] = match[1]
    return found


def _said(command: list[str]) -> str:
    """What a program prints; nothing where there is none."""
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        return ""
    ran = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return ran.stdout


def freePort() -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


SERVERS: tuple[type[Server], ...] = (
    Submitd,
    OnOtherPython,
    SMTPServer,
    SMTPServerNames,
    TwistedMail,
    Aiosmtpd,
    SubmitdMaildir,
    SubmitdSpool,
    SpoolOnOtherPython,
    Postfix,
)


def serversFor(load: Load) -> list[type[Server]]:
    """Those that a load is for."""
    return [server for server in SERVERS if server.isDurable == load.durable]
