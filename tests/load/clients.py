"""The clients of the load: each a coroutine over one socket without buffers of its own.

asyncio's streams keep a quarter of a megabyte for each TLS connection; ten thousand of them need
less as bare sockets.  What a client does not expect is a :class:`Wrong`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import attrs

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a well-behaved client waits for a reply, or for its connection."""

SOURCES = tuple(f"127.0.{subnet}.1" for subnet in range(1, 41))
"""Where clients come from; one address alone would run out of ports, and into the limits."""

_CHUNK = 16384
_numbers = itertools.count(1)


class Wrong(Exception):
    """A client did not get what it should have."""


@attrs.define
class Count:
    """What has happened so far.

    :param accepted: messages answered with 250.
    :param errors: what went wrong for the well-behaved, in their words.
    :param latencies: seconds from the last octet of a message to its 250, of the last interval.
    """

    idle: int = 0
    busy: int = 0
    opened: int = 0
    accepted: int = 0
    slowWritten: int = 0
    slowRead: int = 0
    rude: int = 0
    errors: list[str] = attrs.field(factory=list)
    latencies: list[float] = attrs.field(factory=list)


@attrs.frozen
class Plan:
    """What the clients need to know.

    :param pause: seconds that a busy client thinks between two messages, at most.
    :param opening: how many may be connecting at one time.
    :param ended: once it is set, each takes its leave.
    """

    address: tuple[str, int]
    tls: ssl.SSLContext
    user: str
    password: str
    pause: float
    opening: asyncio.Semaphore
    ended: asyncio.Event
    count: Count

    async def rest(self, least: float, most: float) -> None:
        """Do nothing for a while, or until the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(least, most)):
                await self.ended.wait()


class Line:
    """A connection to the service."""

    def __init__(self, plan: Plan, receive: int = 0) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._tls: ssl.SSLSocket | None = None
        self.socket = socket.socket()
        if receive:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.bind((random.choice(SOURCES), 0))

    async def open(self) -> None:
        """Connect, and have TLS.

        :raise Wrong: when that takes longer than anybody waits.
        """
        plan = self._plan
        async with plan.opening:
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._loop.sock_connect(self.socket, plan.address)
                    self._tls = self.socket = plan.tls.wrap_socket(
                        self.socket, server_hostname="localhost", do_handshake_on_connect=False
                    )
                    await self._try(self._tls.do_handshake)
            except TimeoutError:
                raise Wrong("no connection") from None
            except OSError as error:
                raise Wrong(f"no connection in {time.monotonic() - began:.0f} s: {error}") from None
        plan.count.opened += 1

    async def _try(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                await self._until(self._loop.add_reader, self._loop.remove_reader)
            except ssl.SSLWantWriteError:
                await self._until(self._loop.add_writer, self._loop.remove_writer)

    async def _until(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready = self._loop.create_future()
        descriptor = self.socket.fileno()
        add(descriptor, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            remove(descriptor)

    async def send(self, octets: bytes) -> None:
        """Send all of them."""
        view = memoryview(octets)
        while view:
            view = view[await self._try(partial(self.socket.send, view[:_CHUNK])) :]

    async def reply(self, code: str) -> list[str]:
        """Read one reply.

        :raise Wrong: when it has another code, or does not come.
        """
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            lines.append(await self._line())
        if not lines[-1].startswith(code):
            raise Wrong(f"{lines[-1]!r} instead of {code}")
        return lines

    async def _line(self) -> str:
        while b"\r\n" not in self._buffer:
            try:
                async with asyncio.timeout(PATIENCE):
                    data = await self._try(lambda: self.socket.recv(_CHUNK))
            except TimeoutError:
                raise Wrong(f"no reply in {PATIENCE:.0f} s") from None
            except OSError as error:
                raise Wrong(f"the connection is lost: {error}") from None
            if not data:
                raise Wrong("the connection is closed")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("ascii", "replace")

    async def say(self, command: str, code: str) -> None:
        """One command, and its reply."""
        await self.send(command.encode() + b"\r\n")
        await self.reply(code)

    async def login(self) -> None:
        """Connect, greet and log in."""
        await self.open()
        await self.reply("220")
        await self.say("EHLO client.example.org", "250")
        said = f"\0{self._plan.user}\0{self._plan.password}".encode()
        await self.say("AUTH PLAIN " + base64.b64encode(said).decode(), "235")

    async def leave(self) -> None:
        """Say goodbye, and see the service close."""
        await self.say("QUIT", "221")
        self.close()

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def reset(self) -> None:
        """Be gone, as after a loss of power."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def message() -> bytes:
    """A message unlike all before, with its end; most are short, some are not."""
    number = next(_numbers)
    size = 100_000 if number % 100 == 0 else 1500
    header = (
        f"From: <ada@example.org>\r\nTo: <bob@example.net>\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}.{random.getrandbits(64):x}@example.org>\r\n\r\n"
    )
    return header.encode() + b"All work and no play, dull boy.\r\n" * (size // 33) + b".\r\n"


async def _begin(line: Line) -> None:
    """A transaction up to 354, its commands pipelined."""
    await line.send(b"MAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n")
    for code in ("250", "250", "354"):
        await line.reply(code)


async def idle(plan: Plan) -> None:
    """Log in and stay, as mail programs do, with a word every now and then."""
    line = Line(plan)
    try:
        await line.login()
        plan.count.idle += 1
        await plan.rest(60, 240)
        while not plan.ended.is_set():
            await line.say("NOOP", "250")
            await plan.rest(60, 240)
        await line.leave()
    finally:
        line.close()


async def busy(plan: Plan) -> None:
    """Send message after message, up to 50 over one connection."""
    while not plan.ended.is_set():
        line = Line(plan)
        try:
            await line.login()
            for _ in range(random.randint(20, 50)):
                await _begin(line)
                content = message()
                await line.send(content)
                began = time.monotonic()
                await line.reply("250")
                plan.count.latencies.append(time.monotonic() - began)
                plan.count.accepted += 1
                await plan.rest(0, plan.pause)
                if plan.ended.is_set():
                    break
            await line.leave()
        finally:
            line.close()


async def slowWriter(plan: Plan) -> None:
    """Send a message some octets at a time."""
    while not plan.ended.is_set():
        line = Line(plan)
        try:
            await line.login()
            await _begin(line)
            content = message()[-2048:]
            for at in range(0, len(content), 64):
                await line.send(content[at : at + 64])
                await plan.rest(0, 1)
            await line.reply("250")
            plan.count.accepted += 1
            plan.count.slowWritten += 1
            await line.leave()
        finally:
            line.close()


async def slowReader(plan: Plan) -> None:
    """Ask a thousand times for as long an answer as there is, and read none of it for a while."""
    asked = 1000
    while not plan.ended.is_set():
        line = Line(plan, receive=4096)
        try:
            await line.login()
            asking = asyncio.ensure_future(line.send(b"EHLO client.example.org\r\n" * asked))
            await plan.rest(5, 20)
            for _ in range(asked):
                await line.reply("250")
            await asking
            plan.count.slowRead += 1
            await line.leave()
        finally:
            line.close()


async def rude(plan: Plan) -> None:
    """Be gone in the midst of a handshake, a login, a message; begin with rubbish."""
    while not plan.ended.is_set():
        line = Line(plan)
        try:
            match random.randrange(4):
                case 0:
                    await asyncio.get_running_loop().sock_connect(line.socket, plan.address)
                    await asyncio.sleep(random.random())
                case 1:
                    await asyncio.get_running_loop().sock_connect(line.socket, plan.address)
                    line.socket.send(b"GET / HTTP/1.1\r\n\r\n")
                    await asyncio.sleep(random.random())
                case 2:
                    await line.open()
                    await line.send(b"EHLO x\r\nAUTH PLAIN\r\n")
                case 3:
                    await line.login()
                    await _begin(line)
                    await line.send(b"Subject: never to be finished\r\n")
        except (OSError, Wrong):
            pass  # whatever it gets, it has deserved
        finally:
            line.reset()
        plan.count.rude += 1
        await plan.rest(1, 5)
