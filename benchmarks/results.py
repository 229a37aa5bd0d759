"""Tables and files of what was measured.

Every figure is a median with its spread, least to most.  A ratio is made run by run, each with the
reference's run that came next to it, so that noise which hits both is not in it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.loads import DURABLE, IDLE, IDLE_GOAL, LOADS, Load
from benchmarks.measure import Sample
from benchmarks.servers import versions


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


def listTable(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of reStructuredText for the documentation."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in (header, *rows):
        marks = ["   * -", *["     -"] * (len(row) - 1)]
        lines += [f"{mark} {cell}".rstrip() for mark, cell in zip(marks, row, strict=True)]
    return "\n".join([*lines, ""])


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


def page(
    samples: Sequence[Sample], idle: Mapping[str, Sequence[float]], environment: Mapping[str, Any]
) -> str:
    """All that was measured beside peers, for the documentation."""
    parts = [
        _about(environment),
        _pageTable("Server CPU a message, microseconds", samples, LOADS, idle),
        _pageTable("Durable", samples, DURABLE, {}),
        _pageDetails(samples),
    ]
    return "\n".join(filter(None, parts))


def _about(environment: Mapping[str, Any]) -> str:
    programs = ", ".join(
        f"{name} {version}" for name, version in environment.get("versions", {}).items()
    )
    text = (
        f"{environment['cores']} cores of {environment['processor']},"
        f" Linux {environment['kernel']}; {programs}."
        f" The load of the machine before the run was {environment['load before']:.1f}."
    )
    return textwrap.fill(text, 100) + "\n"


def _pageTable(
    title: str,
    samples: Sequence[Sample],
    loads: Sequence[Load],
    idle: Mapping[str, Sequence[float]],
) -> str:
    loads = [load for load in loads if names(samples, load.name)]
    if not loads:
        return ""
    servers = list(dict.fromkeys(name for load in loads for name in names(samples, load.name)))
    own = [name for name in servers if name.startswith("submitd")]
    reference = loads[0].reference
    rows = []
    for load in loads:
        cells = [spread(samples, load.name, server) for server in servers]
        pairs = [ratio(samples, load.name, server, reference) for server in own]
        toBeat = [f"{load.toBeat:.2f}"] if load.toBeat else []
        rows.append(
            [
                load.text,
                *(cell.shown() if cell else "-" for cell in cells),
                *(pair.shown(2) if pair else "-" for pair in pairs),
                f"{load.goal:.2f}",
                *toBeat,
            ]
        )
    if idle:
        sizes = [Spread.of(idle[name]).shown(1) if name in idle else "-" for name in servers]
        rows.append([f"{IDLE.text}, KiB", *sizes, "", f"{IDLE_GOAL:.0f} KiB", ""])
    ratios = [f"{name} / {reference}" for name in own]
    toBeat = ["bun-smtp"] if loads[0].toBeat else []
    return listTable(title, ["load", *servers, *ratios, "goal", *toBeat], rows)


def _pageDetails(samples: Sequence[Sample]) -> str:
    rows = []
    for load in (*LOADS, *DURABLE):
        for server in names(samples, load.name):
            found = {
                figure: spread(samples, load.name, server, figure) or Spread(0, 0, 0)
                for figure in ("rate", "p50", "p99", "peak", "busy")
            }
            rows.append(
                [
                    load.name,
                    server,
                    found["rate"].shown(),
                    f"{found['p50'].median / 1000:.2f}",
                    f"{found['p99'].median / 1000:.2f}",
                    f"{found['peak'].median / 1024:.0f}",
                    f"{found['busy'].median:.0%}",
                ]
            )
    header = ["load", "server", "messages a second", "p50 ms", "p99 ms", "peak MiB", "server busy"]
    return listTable("Rate, latency and memory", header, rows)


def idleTable(found: Mapping[str, Sequence[float]]) -> str:
    """Memory of an idle TLS connection."""
    rows = [
        [name, Spread.of(sizes).shown(1), f"{IDLE_GOAL:.0f}" if name.startswith("submitd") else "-"]
        for name, sizes in found.items()
    ]
    return table(["server", "KiB of an idle TLS connection", "goal"], rows)


def environment(node: Path, otherPython: Path | None = None) -> dict[str, Any]:
    """What one must know to compare with another run.

    :param node: the directory with ``node_modules``.
    :param otherPython: as in :func:`benchmarks.servers.versions`.
    """
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "versions": versions(node, otherPython),
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


def read(path: Path) -> dict[str, Any]:
    """Read what :func:`write` has written; samples are samples again.

    :raise OSError: when there is no such file.
    :raise ValueError: when it is another kind of file.
    """
    found: dict[str, Any] = json.loads(path.read_text())
    if "samples" in found:
        found["samples"] = [Sample(**each) for each in found["samples"]]
    return found


def insert(page: Path, name: str, text: str) -> None:
    """Put tables between the marks of that name in a page.

    :raise ValueError: when it has no such marks.
    """
    begin, end = f".. begin of {name}\n", f".. end of {name}\n"
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{page} has no marks for {name}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _plain(value: Any) -> Any:
    return attrs.asdict(value)
