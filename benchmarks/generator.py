"""The load generator's process: built from generate.c where that can be done, else generate.py.

:func:`find` builds it; :class:`Generator` runs it, on the cores it is given.  A run that the
generator ends because of an unexpected reply is :class:`GeneratorFailed`, with the reply's text.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from benchmarks.loads import LOGIN, Load
from benchmarks.processes import pinned

HERE = Path(__file__).resolve().parent


class GeneratorFailed(Exception):
    """An unexpected reply, a lost connection, or a generator that does not end."""


@attrs.frozen
class Run:
    """What one run of the generator did.

    :param seconds: from the first connection to the end of the last.
    :param resumed: TLS sessions that were resumed.
    :param p50: median time from the last octet of a message to its 250, in microseconds.
    :param cpu: seconds that the generator itself needed.
    """

    accepted: int
    seconds: float
    connections: int
    resumed: int
    p50: float
    p99: float
    slowest: float
    cpu: float


@attrs.frozen
class Generator:
    """A program that loads a server.

    :param command: how to start it.
    :param isCompiled: whether it is the C program, which can keep any server busy.
    :param directory: for the messages it is to send.
    :param cores: where it may run.
    """

    command: tuple[str, ...]
    isCompiled: bool
    directory: Path
    cores: frozenset[int]

    def run(self, load: Load, port: int, *, seconds: float = 0.0, messages: int = 0) -> Run:
        """Put the load on a server, for a time or a number of messages.

        :raise GeneratorFailed: with the first unexpected reply.
        """
        try:
            ran = subprocess.run(
                self._command(load, port, seconds, messages),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60 + 10 * seconds,
                check=False,
                preexec_fn=pinned(self.cores),
            )
        except subprocess.TimeoutExpired:
            raise GeneratorFailed(f"{load.name}: the generator did not end") from None
        if ran.returncode != 0:
            raise GeneratorFailed(f"{load.name}: {ran.stderr.strip()}")
        return Run(**json.loads(ran.stdout))

    def standing(
        self,
        load: Load,
        port: int,
        opened: Callable[[], None],
        done: Callable[[], None],
        *,
        seconds: float = 0.0,
        messages: int = 0,
    ) -> Run:
        """Open all connections, and only then send messages; hang up when all is measured.

        :param opened: called when all clients are logged in, and none has sent a message.
        :param done: called when no message is under way, and none has hung up.
        :raise GeneratorFailed: with the first unexpected reply.
        """
        with subprocess.Popen(
            [*self._command(load, port, seconds, messages), "--standing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=pinned(self.cores),
        ) as process:
            assert process.stdin and process.stdout and process.stderr
            for word, happened in (("open", opened), ("done", done)):
                if process.stdout.readline() != f"{word}\n":
                    raise GeneratorFailed(f"{load.name}: {process.stderr.read().strip()}")
                happened()
                process.stdin.write("\n")
                process.stdin.flush()
            said = process.stdout.readline()
            if not said:
                raise GeneratorFailed(f"{load.name}: {process.stderr.read().strip()}")
        return Run(**json.loads(said))

    def _command(self, load: Load, port: int, seconds: float, messages: int) -> list[str]:
        # Each server has its own: another generator may be reading one while this is written.
        message = self.directory / f"{load.name}-{port}.wire"
        message.write_bytes(load.wire())
        return [
            *self._clients(load, port, load.connections),
            *("--message", str(message), "--recipients", str(load.recipients)),
            *("--per-connection", str(load.perConnection)),
            *("--seconds", str(seconds), "--messages", str(messages)),
            *(["--login", LOGIN] if load.login else []),
            *(["--pipelined"] if load.pipelined else []),
            *(["--resume"] if load.resume else []),
        ]

    @contextlib.contextmanager
    def idle(self, load: Load, port: int, connections: int) -> Iterator[None]:
        """Hold connections open while the context lasts.

        :raise GeneratorFailed: when they cannot be opened.
        """
        process = subprocess.Popen(
            [*self._clients(load, port, connections), "--idle"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=pinned(self.cores),
        )
        assert process.stdin and process.stdout and process.stderr
        try:
            if process.stdout.readline() != "open\n":
                raise GeneratorFailed(f"{load.name}, idle: {process.stderr.read().strip()}")
            yield
        finally:
            with process:
                process.stdin.close()

    def _clients(self, load: Load, port: int, connections: int) -> list[str]:
        command = [*self.command, "--port", str(port), "--connections", str(connections)]
        return [*command, "--tls"] if load.tls else command


def find(directory: Path, cores: frozenset[int]) -> Generator:
    """Build the generator.

    :param directory: where to.
    :param cores: where it may run.
    """
    program = directory / "generate"
    if build(program):
        return Generator((str(program),), True, directory, cores)
    command = (sys.executable, str(HERE / "generate.py"))
    return Generator(command, False, directory, cores)


def build(program: Path, compilers: Sequence[str] = ("cc",)) -> bool:
    """Compile generate.c; needs a compiler and the headers of OpenSSL.

    :return: whether it worked.
    """
    for compiler in compilers:
        if shutil.which(compiler):
            built = subprocess.run(
                [
                    *(compiler, "-O2", "-pthread", "-o", str(program)),
                    *(str(HERE / "generate.c"), "-lssl", "-lcrypto"),
                ],
                capture_output=True,
                check=False,
            )
            if built.returncode == 0:
                return True
    return False
