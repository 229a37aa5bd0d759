"""One load: the service, its clients, what is measured, and what must hold."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import resource
import sqlite3
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import attrs

from submitd.spool.database import FILE
from tests.clients.case import ADA, ClientTestCase
from tests.clients.running import HOST, RunningService
from tests.load import clients
from tests.load.clients import Count, Plan, Wrong
from tests.load.processes import cpu, descriptors, memory, together

CONFIG = """\
hostname = "submission.example.org"
workers = WORKERS

[[listener]]
endpoint = "tcp:$implicit:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"

[auth]
checkers = ["htpasswd:passwd"]

[limits]
connections = 20000
connections_per_address = 2000

[delivery]
use = "spool"
path = "$directory/spool"
"""

INTERVAL = 10.0
"""Seconds between two lines of figures."""

GROWTH = 0.02
"""The part by which memory may grow between the second and the last quarter of the time."""

GROWTH_KIB = 8192
"""What it may grow by in any case: a data base's page cache, an allocator's arena."""


@attrs.frozen
class Load:
    """How heavy.

    :param pause: a busy client's longest pause between two messages, in seconds.
    :param opening: how many connect at the same time; 0 for all.
    :param workers: processes that serve.
    """

    idle: int
    busy: int
    seconds: float
    pause: float = 10.0
    opening: int = 200
    workers: int = 1

    @property
    def slow(self) -> int:
        """How many of the busy are slow to write, how many slow to read, and how many are rude."""
        return max(1, self.busy // 20)


@attrs.define
class Outcome:
    """What was seen.

    :param memory: the service's memory, all its processes together, in KiB, every interval.
    :param mistakes: a sentence for everything that did not hold.
    """

    count: Count = attrs.field(factory=Count)
    memory: list[int] = attrs.field(factory=list)
    descriptors: tuple[int, int] = (0, 0)
    kept: int = 0
    mistakes: list[str] = attrs.field(factory=list)


def run(load: Load, directory: Path, say: Callable[[str], object]) -> Outcome:
    """Start a service, load it, end it.

    :param directory: where it keeps everything; empty.
    :param say: is given each line of figures.
    """
    _raiseDescriptors(load)
    ClientTestCase.prepare(directory)
    service = RunningService(
        directory, CONFIG.replace("WORKERS", str(load.workers)), ("implicit",)
    ).start()
    try:
        outcome = asyncio.run(_load(load, service, say))
    finally:
        service.stop()
    outcome.kept = kept(directory / "spool")
    _judge(outcome)
    unexpected = [line for line in service.log.splitlines() if "Traceback" in line]
    if unexpected:
        outcome.mistakes.append(f"tracebacks in the log: {len(unexpected)}")
    return outcome


def _raiseDescriptors(load: Load) -> None:
    """Have enough of them; the service inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = load.idle + load.busy + load.slow + 500
    if soft < needed:
        if hard < needed:
            raise SystemExit(f"{needed} file descriptors are needed; the limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _load(load: Load, service: RunningService, say: Callable[[str], object]) -> Outcome:
    count = Count()
    plan = Plan(
        address=(HOST, service.ports["implicit"]),
        tls=ssl.create_default_context(cafile=str(service.directory / "authority.pem")),
        user=ADA.name,
        password=ADA.secret,
        pause=load.pause,
        opening=asyncio.Semaphore(load.opening or load.idle + load.busy + load.slow),
        ended=asyncio.Event(),
        count=count,
    )
    outcome = Outcome(count)
    await _first(plan)
    before = together(descriptors, service.pid)
    outcome.descriptors = before, before
    bare = together(memory, service.pid)
    say(f"before the load: {_mebibytes(bare)}, {before} descriptors")
    began = time.monotonic()
    present = [_spawn(clients.idle, plan, count) for _ in range(load.idle)]
    while count.idle + len(count.errors) < load.idle:
        await asyncio.sleep(0.05)
    each = (together(memory, service.pid) - bare) / max(1, load.idle)
    say(
        f"{count.idle} idle ones logged in within {time.monotonic() - began:.1f} s:"
        f" {_mebibytes(together(memory, service.pid))}, {each:.1f} KiB for each"
    )
    for kind, number in (
        (clients.busy, load.busy - 2 * load.slow),
        (clients.slowWriter, load.slow),
        (clients.slowReader, load.slow),
        (clients.rude, load.slow),
    ):
        present += [_spawn(kind, plan, count) for _ in range(number)]
    await _watch(load, service, outcome, say)
    plan.ended.set()
    await asyncio.wait(present, timeout=clients.PATIENCE * 2)
    left = sum(not each.done() for each in present)
    if left:
        outcome.mistakes.append(f"{left} clients did not come to their end")
    outcome.descriptors = before, await _settled(service.pid, before)
    used = _mebibytes(together(memory, service.pid))
    say(
        f"after the load: {used}, {outcome.descriptors[1]} descriptors;"
        f" {count.accepted} messages, {count.opened} connections; {count.slowWritten} slowly"
        f" written, {count.slowRead} slowly read, {count.rude} rude ends"
    )
    return outcome


def _mebibytes(kibibytes: int) -> str:
    return f"{kibibytes / 1024:.1f} MiB"


async def _first(plan: Plan) -> None:
    """One message before anything is measured: data base, threads and files are there then."""
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, ended.set)
    await clients.busy(attrs.evolve(plan, ended=ended))
    await asyncio.sleep(0.5)


def _spawn(
    kind: Callable[[Plan], Awaitable[None]], plan: Plan, count: Count
) -> asyncio.Future[None]:
    async def client() -> None:
        while True:
            try:
                return await kind(plan)
            except (Wrong, OSError) as error:
                count.errors.append(f"{kind.__name__}: {error}")
                if plan.ended.is_set() or kind is clients.idle:
                    return None

    return asyncio.ensure_future(client())


async def _watch(
    load: Load, service: RunningService, outcome: Outcome, say: Callable[[str], object]
) -> None:
    """Print what the service uses, until the time is over."""
    count, accepted, computed = outcome.count, outcome.count.accepted, together(cpu, service.pid)
    began = last = time.monotonic()
    interval = min(INTERVAL, load.seconds / 8)
    say("seconds  connections  descriptors  memory MiB  CPU %  messages/s  p50 ms  p99 ms  errors")
    while time.monotonic() - began < load.seconds:
        await asyncio.sleep(interval)
        now, used = time.monotonic(), together(cpu, service.pid)
        opened = together(descriptors, service.pid)
        outcome.memory.append(together(memory, service.pid))
        late = sorted(count.latencies) or [0.0]
        say(
            f"{now - began:7.0f}  {opened - outcome.descriptors[0]:11}  {opened:11}"
            f"  {outcome.memory[-1] / 1024:10.1f}"
            f"  {100 * (used - computed) / (now - last):5.0f}"
            f"  {(count.accepted - accepted) / (now - last):10.1f}"
            f"  {1000 * statistics.median(late):6.0f}  {1000 * late[len(late) * 99 // 100]:6.0f}"
            f"  {len(count.errors):6}"
        )
        count.latencies.clear()
        last, computed, accepted = now, used, count.accepted


async def _settled(pid: int, wanted: int) -> int:
    """How many descriptors there are once connections have lingered: 15 s at most."""
    until = time.monotonic() + 15
    while together(descriptors, pid) > wanted and time.monotonic() < until:
        await asyncio.sleep(0.1)
    return together(descriptors, pid)


def kept(spool: Path) -> int:
    """How many messages a spool has."""
    with contextlib.closing(sqlite3.connect(spool / FILE)) as connection:
        [[found]] = connection.execute("SELECT count(*) FROM message")
    return int(found)


def _judge(outcome: Outcome) -> None:
    """Say what did not hold."""
    said = outcome.mistakes
    for error, number in collections.Counter(outcome.count.errors).most_common(10):
        said.append(f"{number} times: {error}")
    before, after = outcome.descriptors
    if after > before:
        said.append(f"{before} descriptors before, {after} after")
    if outcome.kept < outcome.count.accepted:
        said.append(f"{outcome.count.accepted} messages were taken, {outcome.kept} are there")
    grown = growth(outcome.memory)
    if grown > 0:
        said.append(f"memory grew by {_mebibytes(grown)} more than it may: {outcome.memory} KiB")


def growth(memory: Sequence[int]) -> int:
    """By how many KiB memory grew more than it may, from the second quarter to the last; 0 if not.

    :param memory: in KiB, in equal intervals.
    """
    quarter = len(memory) // 4
    if not quarter:
        return 0
    early = statistics.median(memory[quarter : 2 * quarter])
    late = statistics.median(memory[-quarter:])
    return max(0, round(late - early - max(GROWTH_KIB, early * GROWTH)))
