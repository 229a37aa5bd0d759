"""How submitd's cost grows: with connections, with the size of a message, with its recipients.

What should be seen are flat or straight lines: the same CPU per message however many connections
there are, the same per megabyte however large it is, the same per recipient however many.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from benchmarks.generator import Generator
from benchmarks.loads import KB, MB, Load
from benchmarks.measure import Amount, Sample, Say, measure
from benchmarks.results import Spread, table
from benchmarks.servers import Place, Submitd


@attrs.frozen
class Point:
    """What was measured at one place of a line.

    :param x: connections, octets or recipients.
    :param cpu: of the server, in microseconds per message.
    :param memory: the most resident memory, in MiB.
    """

    line: str
    x: int
    cpu: Spread
    memory: Spread


def _line(name: str) -> list[tuple[int, Load]]:
    standing = Load(name=name, text=name, perConnection=1000, tls=True, login=True)
    if name == "connections":
        return [(count, _clients(standing, count)) for count in (1, 10, 100, 1000, 10_000)]
    if name == "size":
        sizes = (KB, 10 * KB, 100 * KB, MB, 10 * MB, 50 * MB)
        limits = {"message_size": '"100 MB"'}
        return [
            (size, attrs.evolve(standing, size=size, connections=4, limits=limits))
            for size in sizes
        ]
    return [(count, attrs.evolve(standing, recipients=count)) for count in (1, 10, 100, 1000)]


def _clients(load: Load, count: int) -> Load:
    return attrs.evolve(load, connections=count, limits={"connections": str(count + 100)})


LINES = ("connections", "size", "recipients")


def measureGrowth(
    lines: Sequence[str],
    place: Place,
    generator: Generator,
    amount: Amount,
    largest: int,
    say: Say,
) -> list[Point]:
    """Measure lines, point by point.

    :param lines: some of :data:`LINES`.
    :param largest: leave out points with more connections, octets or recipients.
    """
    points = []
    for line in lines:
        for x, load in _line(line):
            if x > largest or (line == "connections" and x > 1000 and not generator.isCompiled):
                continue
            load = attrs.evolve(load, name=f"{line}-{x}", text=f"{line} {x}")
            # Many clients need time to come before they can send.
            seconds = max(amount.seconds, load.connections / 500) if amount.seconds else 0.0
            enough = attrs.evolve(amount, seconds=seconds)
            points.append(_point(line, x, measure(load, [Submitd], place, generator, enough, say)))
    return points


def _point(line: str, x: int, samples: Sequence[Sample]) -> Point:
    cpu = Spread.of([each.cpu for each in samples])
    memory = Spread.of([each.peak / 1024 for each in samples])
    return Point(line, x, cpu, memory)


def growthTable(points: Sequence[Point]) -> str:
    """All points; CPU per unit shows whether a line is straight."""
    rows = [
        [
            each.line,
            str(each.x),
            each.cpu.shown(),
            f"{each.cpu.median / _units(each):.2f}",
            each.memory.shown(1),
        ]
        for each in points
    ]
    header = ["line", "at", "us of CPU a message", "us per KB or recipient", "peak MiB"]
    return table(header, rows)


def _units(point: Point) -> float:
    if point.line == "connections":
        return 1
    return point.x / KB if point.line == "size" else point.x
