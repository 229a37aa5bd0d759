"""How submitd's cost grows: with connections, the size of a message, its recipients, the queue.

What should be seen are flat or straight lines: the same CPU per message however many connections
there are or recipients wait in the queue, the same per megabyte, the same per recipient.

All clients of a point come and log in first, then all of them send, then all leave: what each step
takes is counted apart.  A line's servers run in turn, so that noise falls on all of its points.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from benchmarks.generator import Generator
from benchmarks.loads import KB, MB, Load
from benchmarks.measure import Amount, Say, compare
from benchmarks.results import Spread, listTable, table
from benchmarks.servers import Place, Submitd, SubmitdSpool
from benchmarks.spool_depth import Measured, fill, message, settle
from submitd.logwriter import WAIT
from submitd.spool import leases, schema
from submitd.spool.database import Database, Link


@attrs.frozen
class Point:
    """What was measured at one place of a line.

    :param x: connections, octets, recipients, or recipients in the queue.
    :param cpu: of the server, in microseconds per message.
    :param memory: the most resident memory, in MiB.
    :param arrival: of the server, in microseconds of CPU for each client until it is logged in;
        where there are enough of them that all else the service does is little.
    :param search: microseconds of CPU to lease 50 messages that are due and give them back; of the
        queue alone.
    """

    line: str
    x: int
    cpu: Spread
    memory: Spread
    arrival: Spread | None = None
    search: Spread | None = None


LINES = {
    "connections": (1, 10, 100, 1000, 10_000),
    "size": (KB, 10 * KB, 100 * KB, MB, 10 * MB, 50 * MB),
    "recipients": (1, 10, 100, 1000),
    "queued": (0, 1000, 10_000, 100_000, 1_000_000),
}

_CROWD = 100

_STANDING = Load(name="growth", text="growth", tls=True, login=True)


def _load(line: str, x: int) -> Load:
    load = attrs.evolve(_STANDING, name=f"{line}-{x}", text=f"{line} {x}")
    if line == "connections":
        return attrs.evolve(load, connections=x, limits={"connections": str(x + 100)})
    if line == "size":
        limits = {"message_size": '"100 MB"'}
        return attrs.evolve(load, size=x, connections=4, limits=limits)
    if line == "recipients":
        return attrs.evolve(load, recipients=x)
    return attrs.evolve(load, durable=True)


class Prefilled(SubmitdSpool):
    """The service with messages in its queue, one recipient each, that are not due for months.

    :param queued: how many.
    """

    def __init__(self, place: Place, queued: int) -> None:
        super().__init__(place)
        self._queued = queued

    def _start(self, load: Load) -> None:
        self.queue = Link(Database(self.directory / "spool"))
        fill(self.queue, self._queued)
        newest = self.queue.look(
            lambda connection: connection.execute(sa.select(sa.func.max(schema.message.c.id)))
        )
        self._newest = newest.scalar() or ""
        super()._start(load)

    def stop(self) -> None:
        """End it."""
        super().stop()
        self.queue.close()

    def forget(self) -> None:
        """Drop what has been accepted, so that the queue is as long as it was."""
        super().forget()
        newer = [
            sa.delete(kept).where(column > self._newest)
            for kept, column in (
                (schema.message, schema.message.c.id),
                (schema.part, schema.part.c.message),
                (schema.recipient, schema.recipient.c.message),
                (schema.submission, schema.submission.c.message),
            )
        ]
        self.queue.write(lambda connection: [connection.execute(each) for each in newer])

    def search(self) -> float:
        """The CPU to find 50 messages that are due, in microseconds; the median of some."""
        now = time.time()
        due = [message(at, now, now - 60) for at in range(50)]
        claim = leases.Claim(token="bench", limit=50, now=now, until=now + 600)
        with contextlib.closing(Measured(self.directory / "spool")) as measured:
            measured.keep(due)
            for _ in range(6):
                measured.time("lease", 1, lambda: measured.lease(claim))
            return statistics.median(measured.cpus["lease"])


@attrs.define
class Growing:
    """A server at one point of a line, and what was measured there."""

    line: str
    x: int
    load: Load
    server: Submitd
    cpus: list[float] = attrs.field(factory=list)
    peaks: list[float] = attrs.field(factory=list)
    arrivals: list[float] = attrs.field(factory=list)
    searches: list[float] = attrs.field(factory=list)

    def once(self, generator: Generator, amount: Amount) -> None:
        """Measure once more."""
        self.server.forget()
        tree = self.server.tree
        tree.forgetPeak()
        marks = [tree.cpu()]

        def mark() -> None:
            time.sleep(2 * WAIT)  # the log has its share in it
            marks.append(tree.cpu())

        # Thousands of clients have not one message each in a moment.
        seconds = max(amount.seconds, self.load.connections / 1000) if amount.seconds else 0.0
        run = generator.standing(
            self.load, self.server.port, mark, mark, seconds=seconds, messages=amount.messages
        )
        compare(self.server, self.load, run)
        start, opened, done = marks
        self.arrivals.append((opened - start) / self.load.connections * 1e6)
        self.cpus.append((done - opened) / run.accepted * 1e6)
        self.peaks.append(tree.peak() / 1024)
        if isinstance(self.server, Prefilled):
            self.server.forget()
            self.searches.append(self.server.search())

    def point(self) -> Point:
        """What has been found."""
        return Point(
            line=self.line,
            x=self.x,
            cpu=Spread.of(self.cpus),
            memory=Spread.of(self.peaks),
            arrival=Spread.of(self.arrivals) if self.load.connections >= _CROWD else None,
            search=Spread.of(self.searches) if self.searches else None,
        )


def measureGrowth(
    lines: Sequence[str],
    place: Place,
    generator: Generator,
    amount: Amount,
    largest: float,
    say: Say,
) -> list[Point]:
    """Measure lines.

    :param lines: some of :data:`LINES`.
    :param largest: leave out points beyond it.
    """
    points: list[Point] = []
    for line in lines:
        if not generator.isCompiled:
            # Threads of Python; more of them are no load.
            largest = min(largest, 1000) if line == "connections" else largest
        places = [x for x in LINES[line] if x <= largest]
        with _started(line, places, place, say) as growing:
            if line == "queued" and any(places):
                settle()
            for repetition in range(-1, amount.repetitions):
                for each in growing:
                    each.once(generator, amount)
                    if repetition < 0:
                        _forget(each)  # the first was for warming up
                    else:
                        say(f"{each.load.text}, {repetition + 1}: {each.cpus[-1]:.0f} us")
            points += [each.point() for each in growing]
    return points


def _forget(growing: Growing) -> None:
    for values in (growing.cpus, growing.peaks, growing.arrivals, growing.searches):
        values.clear()


@contextlib.contextmanager
def _started(line: str, places: Sequence[int], place: Place, say: Say) -> Iterator[list[Growing]]:
    with contextlib.ExitStack() as stack:
        growing = []
        for x in places:
            load = _load(line, x)
            if line == "queued" and x:
                say(f"{load.text}: filling the queue")
            server = Prefilled(place, x) if line == "queued" else Submitd(place)
            server.start(load)
            stack.callback(server.stop)
            growing.append(Growing(line, x, load, server))
        yield growing


HEADER = (
    "line",
    "at",
    "us of CPU a message",
    "us per KB or recipient",
    "peak MiB",
    "us of CPU a login",
    "us to find what is due",
)


def growthTable(points: Sequence[Point]) -> str:
    """All points; CPU per unit shows whether a line is straight."""
    return table(HEADER, [[each.line, f"{each.x}", *_cells(each)] for each in points])


def _cells(point: Point) -> list[str]:
    return [
        point.cpu.shown(),
        f"{point.cpu.median / _units(point):.2f}" if _units(point) else "-",
        point.memory.shown(1),
        point.arrival.shown() if point.arrival else "-",
        point.search.shown() if point.search else "-",
    ]


def _units(point: Point) -> float:
    return {"size": point.x / KB, "recipients": point.x}.get(point.line, 0)


_TITLES: dict[str, tuple[str, str, Callable[[Point], list[str]]]] = {
    "connections": (
        "Connections",
        "handshake and login, us each",
        lambda point: [point.arrival.shown() if point.arrival else "-"],
    ),
    "size": ("Size", "us per KB", lambda point: [f"{point.cpu.median / _units(point):.2f}"]),
    "recipients": (
        "Recipients of a message",
        "us each",
        lambda point: [f"{point.cpu.median / _units(point):.1f}"],
    ),
    "queued": (
        "Recipients in the queue (durable)",
        "us to find 50 due messages",
        lambda point: [point.search.shown() if point.search else "-"],
    ),
}


def growthPage(points: Sequence[Point]) -> str:
    """The same for the documentation, a table for each line."""
    tables = []
    for line in dict.fromkeys(each.line for each in points):
        title, further, shown = _TITLES[line]
        rows = [
            [_number(each), each.cpu.shown(), each.memory.shown(1), *shown(each)]
            for each in points
            if each.line == line
        ]
        header = ["at", "us of CPU a message", "peak MiB", further]
        tables.append(listTable(title, header, rows))
    return "\n".join(tables)


def restored(kept: Sequence[dict[str, Any]]) -> list[Point]:
    """Points out of what results.write has written of them."""
    points = []
    for each in kept:
        spreads = {
            name: Spread(**each[name]) if each[name] else None
            for name in ("cpu", "memory", "arrival", "search")
        }
        points.append(Point(**{**each, **spreads}))
    return points


def _number(point: Point) -> str:
    if point.line == "size":
        return f"{point.x // MB} MB" if point.x >= MB else f"{point.x // KB} KB"
    return f"{point.x:,}"
