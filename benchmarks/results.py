"""Tables and files of what was measured.

Every figure is a median with its spread, least to most.  A ratio is made run by run, each with the
reference's run that came next to it, so that noise which hits both is not in it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.loads import IDLE_GOAL, Load
from benchmarks.measure import Sample


@attrs.frozen
class Spread:
    """A median between the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def shown(self, digits: int = 0) -> str:
        """``110 (105-121)``."""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}-{self.most:.{digits}f})"


def spread(samples: Sequence[Sample], load: str, server: str, figure: str = "cpu") -> Spread | None:
    """One figure of a server under a load; ``None`` where it was not measured."""
    values = [
        getattr(each, figure) for each in samples if (each.load, each.server) == (load, server)
    ]
    values = [each for each in values if each is not None]
    return Spread.of(values) if values else None


def ratio(
    samples: Sequence[Sample], load: str, server: str, reference: str, figure: str = "cpu"
) -> Spread | None:
    """A server's figure over the reference's, pair by pair."""
    pairs = {
        (each.server, each.repetition): getattr(each, figure)
        for each in samples
        if each.load == load
    }
    values = [
        value / pairs[reference, repetition]
        for (name, repetition), value in pairs.items()
        if name == server and value and pairs.get((reference, repetition))
    ]
    return Spread.of(values) if values else None


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A simple table of reStructuredText, which is one for the terminal too."""
    lines = [list(header), *map(list, rows)]
    # An empty first cell would continue the row above.
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    rule = "  ".join("=" * width for width in widths)
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([rule, shown[0], rule, *shown[1:], rule])


def names(samples: Sequence[Sample], load: str) -> list[str]:
    """The servers that were measured under a load, in the order of the runs."""
    return list(dict.fromkeys(each.server for each in samples if each.load == load))


def costs(samples: Sequence[Sample], loads: Sequence[Load], figure: str = "cpu") -> str:
    """The main table: CPU per message of all servers."""
    servers = list(dict.fromkeys(each.server for each in samples))
    rows = []
    for load in loads:
        cells = [spread(samples, load.name, server, figure) for server in servers]
        if any(cells):
            rows.append([load.text, *(cell.shown() if cell else "-" for cell in cells)])
    return table(["load", *servers], rows)


def ratios(samples: Sequence[Sample], loads: Sequence[Load], figure: str = "cpu") -> str:
    """How submitd stands to each load's reference, and to the goal."""
    rows = []
    for load in loads:
        for server in names(samples, load.name):
            found = ratio(samples, load.name, server, load.reference, figure)
            if server.startswith("submitd") and found:
                rows.append(
                    [
                        load.text,
                        f"{server} / {load.reference}",
                        found.shown(2),
                        f"{load.goal:.2f}",
                        f"{found.median / load.goal:.2f}",
                    ]
                )
    if not rows:
        return ""
    return table(["load", "ratio of", "is", "goal", "is / goal"], rows)


def details(samples: Sequence[Sample], loads: Sequence[Load]) -> str:
    """What else was seen: rates, latency, memory, and how busy both sides were."""
    rows = []
    for load in loads:
        for server in names(samples, load.name):

            def middle(figure: str, load: str = load.name, server: str = server) -> float:
                found = spread(samples, load, server, figure)
                return found.median if found else 0.0

            rows.append(
                [
                    load.name,
                    server,
                    f"{middle('rate'):.0f}",
                    f"{middle('p50') / 1000:.2f}",
                    f"{middle('p99') / 1000:.2f}",
                    f"{middle('peak') / 1024:.0f}",
                    f"{middle('busy'):.0%}",
                    f"{middle('generatorBusy'):.0%}",
                    f"{middle('resumed'):.0%}" if load.resume else "-",
                ]
            )
    header = ["load", "server", "messages/s", "p50 ms", "p99 ms", "peak MiB", "server busy"]
    return table([*header, "generator", "resumed"], rows)


def idleTable(found: dict[str, float]) -> str:
    """Memory of an idle TLS connection."""
    rows = [
        [name, f"{size:.1f}", f"{IDLE_GOAL:.0f}" if name.startswith("submitd") else "-"]
        for name, size in found.items()
    ]
    return table(["server", "KiB of an idle TLS connection", "goal"], rows)


def environment() -> dict[str, Any]:
    """What one must know to compare with another run."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": os.getloadavg()[0],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write(path: Path, **found: Any) -> None:
    """Write all that was measured, as JSON."""
    path.write_text(json.dumps(found, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return attrs.asdict(value)
