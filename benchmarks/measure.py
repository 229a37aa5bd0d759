"""Measuring: servers in turn under one load, again and again, so that all have the same noise.

A run counts only if the server has accepted exactly the messages that were answered 250; if not,
:class:`Miscounted`, and there is no result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import attrs

from benchmarks.generator import Generator, Run
from benchmarks.loads import AWKWARD, IDLE, Load
from benchmarks.processes import Instructions
from benchmarks.servers import Place, Server, SubmitdMaildir

Say = Callable[[str], None]


class Miscounted(Exception):
    """The server has not what the generator was told."""


@attrs.frozen
class Sample:
    """One run.

    :param cpu: of the server, in microseconds per accepted message.
    :param instructions: of the server, per accepted message, where they were counted.
    :param rate: messages per second of wall time.
    :param p50: microseconds from the last octet of a message to its 250, the median.
    :param peak: the server's most resident memory, in KiB.
    :param busy: the share of the time in which the server used its core.
    :param generatorBusy: the same of the generator.
    :param resumed: the share of the connections that resumed a TLS session.
    """

    load: str
    server: str
    repetition: int
    accepted: int
    cpu: float
    instructions: float | None
    rate: float
    p50: float
    p99: float
    slowest: float
    peak: int
    busy: float
    generatorBusy: float
    resumed: float


@attrs.frozen
class Amount:
    """How much to do.

    :param repetitions: runs of each server under each load.
    :param seconds: that each run takes; 0 for no limit.
    :param messages: at most, in each run; 0 for no limit.
    :param instructions: count instructions too.
    :param isFresh: each run has a server of its own, just started, which has done nothing before.
    """

    repetitions: int = 5
    seconds: float = 2.0
    messages: int = 0
    instructions: bool = False
    isFresh: bool = False


@contextlib.contextmanager
def started(servers: Sequence[type[Server]], place: Place, load: Load) -> Iterator[list[Server]]:
    """Servers that run while the context lasts."""
    with contextlib.ExitStack() as stack:
        running = []
        for kind in servers:
            server = kind(place)
            server.start(load)
            stack.callback(server.stop)
            running.append(server)
        yield running


def measure(
    load: Load,
    servers: Sequence[type[Server]],
    place: Place,
    generator: Generator,
    amount: Amount,
    say: Say,
) -> list[Sample]:
    """Put a load on servers: A B C, A B C, ...

    :raise Miscounted: when a server has not what the generator was told.
    :raise ServerFailed: when one does not start or has to be killed.
    :raise GeneratorFailed: for an unexpected reply.
    """
    samples = []
    if amount.isFresh:
        for repetition in range(amount.repetitions):
            for kind in servers:
                with started([kind], place, load) as [server]:
                    samples.append(_once(server, load, generator, amount, repetition, say))
        return samples
    with started(servers, place, load) as running:
        for server in running:
            warmUp(server, load, generator, amount)
        for repetition in range(amount.repetitions):
            for server in running:
                samples.append(_once(server, load, generator, amount, repetition, say))
        for server in running:
            server.prove(load)
            server.forget()
    return samples


def warmUp(server: Server, load: Load, generator: Generator, amount: Amount) -> None:
    """Let caches be filled and code be compiled."""
    messages = amount.messages and max(1, amount.messages // 4)
    generator.run(load, server.port, seconds=amount.seconds / 2, messages=messages)


def _once(
    server: Server,
    load: Load,
    generator: Generator,
    amount: Amount,
    repetition: int,
    say: Say,
) -> Sample:
    server.forget()
    tree = server.tree
    tree.forgetPeak()
    counter = Instructions() if amount.instructions else None
    if counter:
        counter.start(tree.pids())
    before = tree.cpu()
    run = generator.run(load, server.port, seconds=amount.seconds, messages=amount.messages)
    # The last connections are closed behind the generator's end.
    time.sleep(0.05)
    used = tree.cpu() - before
    instructions = counter.stop() if counter else None
    compare(server, load, run)
    say(f"{load.text}, {server.name}, {repetition + 1}: {used / run.accepted * 1e6:.0f} us")
    return Sample(
        load=load.name,
        server=server.name,
        repetition=repetition,
        accepted=run.accepted,
        cpu=used / run.accepted * 1e6,
        instructions=instructions / run.accepted if instructions else None,
        rate=run.accepted / run.seconds,
        p50=run.p50,
        p99=run.p99,
        slowest=run.slowest,
        peak=tree.peak(),
        busy=used / run.seconds,
        generatorBusy=run.cpu / run.seconds,
        resumed=run.resumed / run.connections,
    )


def compare(server: Server, load: Load, run: Run) -> None:
    """See that what was answered is there.

    :raise Miscounted: when it is not.
    """
    accepted = server.accepted()
    if not run.accepted or accepted != run.accepted:
        raise Miscounted(
            f"{load.text}, {server.name}: {run.accepted} messages were answered 250,"
            f" {accepted} are at the other end"
        )


def prove(place: Place, generator: Generator) -> None:
    """See that submitd keeps messages which are easily broken as they were sent.

    :raise ServerFailed: when one is not as it was sent.
    """
    with started([SubmitdMaildir], place, AWKWARD) as [server]:
        run = generator.run(AWKWARD, server.port, messages=20)
        compare(server, AWKWARD, run)
        server.prove(AWKWARD)


def idle(
    servers: Sequence[type[Server]],
    place: Place,
    generator: Generator,
    connections: int,
    repetitions: int,
    say: Say,
) -> dict[str, list[float]]:
    """Measure what an idle TLS connection takes, in KiB of proportional set size, in turn.

    :raise GeneratorFailed: when the connections cannot be opened.
    """
    load = attrs.evolve(IDLE, limits={"connections": str(connections + 100)})
    found: dict[str, list[float]] = {kind.name: [] for kind in servers}
    for repetition in range(repetitions):
        for kind in servers:
            # A server of its own: what others have given back is free already.
            with started([kind], place, load) as [server]:
                size = _idle(server, load, generator, connections)
            found[kind.name].append(size)
            say(f"{load.text}, {kind.name}, {repetition + 1}: {size:.1f} KiB")
    return found


def _idle(server: Server, load: Load, generator: Generator, connections: int) -> float:
    # What the first connections bring with them is not the price of one.
    with generator.idle(load, server.port, min(connections, 100)):
        pass
    time.sleep(0.5)
    before = server.tree.proportional()
    with generator.idle(load, server.port, connections):
        time.sleep(0.5)
        return (server.tree.proportional() - before) / connections
