"""What a second worker brings: the same load on one worker and on two.

``python -m benchmarks.workers`` prints a line for each load.  The generator needs its share of the
cores, and that is accounted for in two ways:

- *doubled*: the rate of two workers with the generator on two cores, over that of one worker with
  the generator on one core.
- *scale*: how many times the messages of one worker two would take, if each had a core to itself:
  the ratio of messages per CPU second of all the server's processes, over the *busiest* one's share
  of that CPU, which is one half when the work is evenly divided.  The one was measured with a core
  to itself, the two were not.
- *apart*: the same scale of two services of one process each that know nothing of each other, each
  with half of the clients, at the same time: what the machine itself leaves of two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import attrs

from benchmarks import generator
from benchmarks.generator import Generator
from benchmarks.loads import LOADS, Load
from benchmarks.processes import Tree
from benchmarks.servers import Place, Submitd

CHOSEN = ("plain", "pipelined", "single", "tls", "tls-single", "tls-resumed")


class Workers(Submitd):
    """The service with two workers."""

    name = "submitd-workers"

    def _config(self, load: Load) -> str:
        return "workers = 2\n" + super()._config(load)


class Narrow(Submitd):
    """The service that has its core together with the generator."""

    name = "submitd-narrow"


class Beside(Submitd):
    """Another service beside the first."""

    name = "submitd-beside"


@attrs.frozen
class Seen:
    """One run.

    :param rate: messages per second of wall time.
    :param cpu: of the server's processes, in microseconds per message.
    :param generator: of the generator's.
    :param busiest: the largest share of that CPU that one process has had.
    """

    rate: float
    cpu: float
    generator: float
    busiest: float


@attrs.frozen
class Side:
    """One of those that are compared.

    :param servers: which the load is divided among evenly.
    :param clients: who puts it on them.
    """

    servers: tuple[Submitd, ...]
    clients: Generator


def run(side: Side, load: Load, seconds: float) -> Seen:
    """Put the load on a side."""
    servers, clients = side.servers, side.clients
    part = attrs.evolve(load, connections=load.connections // len(servers))
    pids = [pid for server in servers for pid in server.tree.pids()]
    before = {pid: Tree(pid).own() for pid in pids}
    with ThreadPoolExecutor(len(servers)) as pool:
        runs = list(
            pool.map(lambda server: clients.run(part, server.port, seconds=seconds), servers)
        )
    used = [Tree(pid).own() - before[pid] for pid in pids]
    accepted = sum(each.accepted for each in runs)
    return Seen(
        rate=sum(each.accepted / each.seconds for each in runs),
        cpu=sum(used) / accepted * 1e6,
        generator=sum(each.cpu for each in runs) / accepted * 1e6,
        busiest=max(used) / sum(used),
    )


def scale(ones: list[Seen], twos: list[Seen]) -> float:
    """How many times the messages of one process two would take; see above."""
    busiest = statistics.median(each.busiest for each in twos)
    return _least(ones) / _least(twos) / busiest


def _least(seen: list[Seen]) -> float:
    """Of the times the least, for whatever else the machine does only adds to them."""
    return min(each.cpu for each in seen)


def row(
    load: Load, narrow: list[Seen], ones: list[Seen], twos: list[Seen], apart: list[Seen]
) -> str:
    """One line."""
    one, two = _least(ones), _least(twos)
    own = min(each.generator for each in twos)
    busiest = statistics.median(each.busiest for each in twos)
    doubled = statistics.median(each.rate for each in twos) / statistics.median(
        each.rate for each in narrow
    )
    return (
        f"{load.name:12} {one:9.1f} {two:9.1f} {own:9.1f} {busiest:8.2f}"
        f" {doubled:8.2f} {scale(ones, twos):7.2f} {scale(ones, apart):7.2f}"
    )


def measure(load: Load, place: Place, clients: Generator, repetitions: int, seconds: float) -> str:
    """The line of one load."""
    core = frozenset({min(place.core)})
    onOne = attrs.evolve(clients, cores=core)
    narrow = Side((Narrow(attrs.evolve(place, core=core)),), onOne)
    one, two = Side((Submitd(place),), clients), Side((Workers(place),), clients)
    beside = Side((Beside(place),), clients)
    apart = Side((*one.servers, *beside.servers), clients)
    seen: tuple[list[Seen], ...] = ([], [], [], [])
    with ExitStack() as started:
        for side in (narrow, one, two, beside):
            [server] = side.servers
            started.callback(server.stop)
            server.start(load)
            run(side, load, 0.5)
        for _ in range(repetitions):
            for side, runs in zip((narrow, one, two, apart), seen, strict=True):
                runs.append(run(side, load, seconds))
    return row(load, *seen)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--loads", default=",".join(CHOSEN))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()

    both = frozenset(sorted(os.sched_getaffinity(0))[:2])
    print("load          1: us/msg 2: us/msg generator  busiest  doubled   scale   apart")
    with tempfile.TemporaryDirectory(prefix="submitd-workers-") as directory:
        place = Place(Path(directory), both, Path())
        clients = generator.find(Path(directory), both)
        for load in LOADS:
            if load.name in options.loads.split(","):
                line = measure(load, place, clients, options.repetitions, options.seconds)
                print(line, flush=True)


if __name__ == "__main__":
    main()
