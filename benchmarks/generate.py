"""The load generator where generate.c cannot be built: the same options and the same answer.

Python's threads share one core and much of each message: most servers wait for this generator, so
their rates mean nothing then; CPU per message still does, with more noise.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

NUMBER = b"#" * 20
END = b"\r\n.\r\n"


class Unexpected(Exception):
    """A reply that is not the expected one, or a message without an end."""


class Load:
    """What all clients share.

    :param options: as :func:`main` parses them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.message = options.message.read_bytes() if options.message else b""
        if not options.idle and not self.message.endswith(END):
            # Without its end both sides would wait for ever.
            raise Unexpected(f"{options.message}: does not end with CRLF.CRLF")
        self.recipients = [
            b"RCPT TO:<reader%d@example.net>\r\n" % number for number in range(options.recipients)
        ]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A measurement on the loopback: who the server is, is known.
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.until = time.monotonic() + options.seconds
        self.run = int(time.monotonic() * 1e3) & 0xFFFFFFFF
        self._started = itertools.count()
        # All clients of --standing, and who started them.
        self._gathering = threading.Barrier(options.connections + 1)

    def mayStart(self) -> bool:
        """Whether there is a message left to begin with."""
        if self.options.seconds and time.monotonic() >= self.until:
            return False
        return not self.options.messages or next(self._started) < self.options.messages

    def gather(self) -> None:
        """Wait until all are here, and then until they may go on."""
        self._gathering.wait()
        self._gathering.wait()

    def letGo(self, what: str) -> None:
        """Say that all are here, and let them go on when there is a line of stdin."""
        self._gathering.wait()
        print(what, flush=True)
        sys.stdin.readline()
        self.until = time.monotonic() + self.options.seconds
        self._gathering.wait()

    def fail(self) -> None:
        """Let nobody wait for a client that has failed."""
        self.until = 0.0
        self._gathering.abort()


class Client:
    """One client, which connects again and again.

    :ivar latencies: of the 250 for each message, in microseconds.
    """

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._options = load.options
        self._address = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
        self._number = number
        self._session: ssl.SSLSession | None = None
        self.latencies: list[int] = []
        self.connections = self.resumed = 0

    def run(self) -> None:
        """Submit as long as there are messages.

        :raise Unexpected: for a reply that is not the expected one.
        :raise OSError: when the connection is lost.
        """
        if self._options.standing:
            self._stand()
            return
        go = self._load.mayStart()
        while go:
            self._arrive()
            for _ in range(self._options.per_connection):
                self._submit()
                go = self._load.mayStart()
                if not go:
                    break
            self._hangUp()

    def _stand(self) -> None:
        self._arrive()
        self._load.gather()
        while self._load.mayStart():
            self._submit()
        self._load.gather()
        self._hangUp()

    def _arrive(self) -> None:
        self.dial()
        self.hello()
        if self._options.login:
            self._ask(b"AUTH PLAIN %s\r\n" % self._options.login.encode(), b"235")

    def dial(self) -> None:
        """Connect, with TLS where it is asked for."""
        bare = socket.create_connection(
            ("127.0.0.1", self._options.port), source_address=(self._address, 0)
        )
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: socket.socket = bare
        self.connections += 1
        if self._options.tls:
            self._socket = self._load.context.wrap_socket(bare, session=self._session)
            self.resumed += bool(self._socket.session_reused)
        self._file = self._socket.makefile("rb")

    def hello(self) -> None:
        """Read the greeting, and say EHLO."""
        self._expect(b"220", "greeting")
        self._ask(b"EHLO client.example.org\r\n", b"250")

    def _submit(self) -> None:
        mail = b"MAIL FROM:<user@example.org>\r\n"
        if self._options.pipelined:
            self._socket.sendall(b"".join([mail, *self._load.recipients, b"DATA\r\n"]))
            for what, code in [("MAIL", b"250")] + [("RCPT", b"250")] * len(self._load.recipients):
                self._expect(code, what)
            self._expect(b"354", "DATA")
        else:
            for command in [mail, *self._load.recipients]:
                self._ask(command, b"250")
            self._ask(b"DATA\r\n", b"354")
        number = b"%08x%04x%08x" % (self._load.run, self._number, len(self.latencies))
        self._socket.sendall(self._load.message.replace(NUMBER, number, 1))
        sent = time.monotonic()
        self._expect(b"250", "message")
        self.latencies.append(int((time.monotonic() - sent) * 1e6))

    def _hangUp(self) -> None:
        self._ask(b"QUIT\r\n", b"221")
        if self._options.resume and isinstance(self._socket, ssl.SSLSocket):
            self._session = self._socket.session
        self._file.close()
        self._socket.close()

    def _ask(self, command: bytes, code: bytes) -> None:
        self._socket.sendall(command)
        self._expect(code, command.split()[0].decode())

    def _expect(self, code: bytes, what: str) -> None:
        while True:
            line = self._file.readline(16384)
            if line[:3] != code or line[3:4] not in (b" ", b"-"):
                said = line.decode(errors="replace").rstrip()
                raise Unexpected(f"{what}: {said or 'connection closed instead of a reply'}")
            if line[3:4] == b" ":
                return


def run(load: Load) -> dict[str, float]:
    """Let all clients work, each in a thread.

    :return: what generate.c prints.
    :raise Unexpected: when a client fails, for the first that did.
    """
    failures: list[BaseException] = []

    def work(client: Client) -> None:
        try:
            client.run()
        except (OSError, Unexpected) as error:
            failures.append(error)
            load.fail()
        except threading.BrokenBarrierError:
            pass  # another one has failed

    clients = [Client(load, number) for number in range(load.options.connections)]
    threads = [threading.Thread(target=work, args=(each,)) for each in clients]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        if load.options.standing:
            load.letGo("open")
            start = time.monotonic()
            load.letGo("done")
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    if failures:
        raise Unexpected(str(failures[0]))
    latencies = sorted(itertools.chain.from_iterable(each.latencies for each in clients))
    count = len(latencies)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "accepted": count,
        "seconds": seconds,
        "connections": sum(each.connections for each in clients),
        "resumed": sum(each.resumed for each in clients),
        "p50": latencies[count // 2] if count else 0,
        "p99": latencies[count * 99 // 100] if count else 0,
        "slowest": latencies[-1] if count else 0,
        "cpu": used.ru_utime + used.ru_stime,
    }


def idle(load: Load) -> None:
    """Hold connections open until stdin ends."""
    clients = [Client(load, number) for number in range(load.options.connections)]
    # All handshakes first, then the greetings: some servers hold theirs back.
    for each in clients:
        each.dial()
    for each in clients:
        each.hello()
    print("open", flush=True)
    sys.stdin.read()


def main(arguments: Sequence[str]) -> None:
    """Run with the options that generate.c explains.

    :raise SystemExit: with a sentence, for a reply that is not the expected one.
    """
    parser = argparse.ArgumentParser()
    for name in ("port", "connections", "messages", "per-connection", "recipients"):
        parser.add_argument(f"--{name}", type=int, default=0 if name == "messages" else 1)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--message", type=Path)
    parser.add_argument("--login", default="")
    for name in ("pipelined", "tls", "resume", "standing", "idle"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args(arguments)
    try:
        load = Load(options)
        if load.options.idle:
            idle(load)
        else:
            print(json.dumps(run(load)))
    except (OSError, Unexpected) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
