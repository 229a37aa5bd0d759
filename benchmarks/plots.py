"""Pictures of the results, with matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.growth import Point
from benchmarks.loads import KB, MB, Load
from benchmarks.measure import Sample
from benchmarks.results import names, spread


def isThere() -> bool:
    """Whether pictures can be made."""
    return importlib.util.find_spec("matplotlib") is not None


def _figure(**keys: Any) -> Any:
    import matplotlib

    # Files, and no window; letters as letters, and the same file for the same figures.
    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "submitd", "font.sans-serif": ["DejaVu Sans"]}
    )
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained", **keys)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})


def plotCosts(samples: Sequence[Sample], loads: Sequence[Load], path: Path) -> None:
    """Bars: CPU per message of each server, a panel for each load."""
    loads = [load for load in loads if names(samples, load.name)]
    rows = -(-len(loads) // 2)
    figure, axes = _figure(nrows=rows, ncols=2, figsize=(10, 1.5 * rows), squeeze=False)
    for axis in axes.flat[len(loads) :]:
        axis.remove()
    for axis, load in zip(axes.flat, loads, strict=False):
        servers = names(samples, load.name)[::-1]
        found = [spread(samples, load.name, server) for server in servers]
        kept = [each for each in found if each]
        errors = [
            [each.median - each.least for each in kept],
            [each.most - each.median for each in kept],
        ]
        axis.barh(servers, [each.median for each in kept], xerr=errors, capsize=3)
        axis.set_title(load.text, fontsize=9)
        axis.set_xlabel("us of CPU a message", fontsize=8)
        axis.tick_params(labelsize=8)
    _save(figure, path)


def plotGrowth(points: Sequence[Point], path: Path) -> None:
    """Lines: CPU above, memory below; broken ones are straight from the first point to the last."""
    lines = list(dict.fromkeys(each.line for each in points))
    figure, axes = _figure(nrows=2, ncols=len(lines), figsize=(3.6 * len(lines), 6), squeeze=False)
    for column, line in enumerate(lines):
        there = [each for each in points if each.line == line]
        cost, memory = axes[0][column], axes[1][column]
        _draw(cost, there, "cpu", "a message")
        _draw(memory, there, "memory", "")
        if line in _FURTHER:
            _draw(cost, there, *_FURTHER[line])
        if line in ("size", "recipients"):
            _straight(cost, there, "cpu")
            cost.set_yscale("log")
        else:
            cost.set_ylim(bottom=0)
        if line == "connections":
            _straight(memory, there, "memory")
        memory.set_ylim(0, 1.2 * max(each.memory.most for each in there))
        cost.set(ylabel="us of CPU")
        memory.set(ylabel="peak memory, MiB", xlabel=_NAMES[line])
        cost.legend(fontsize=7)
        for axis in (cost, memory):
            if there[0].x:
                axis.set_xscale("log")
            else:
                axis.set_xscale("symlog", linthresh=max(1, there[-1].x / 1000))
                axis.set_xlim(left=-max(1, there[-1].x / 10_000))
            axis.set_xticks([each.x for each in there], [_short(each.x) for each in there])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    _save(figure, path)


_NAMES = {
    "connections": "connections",
    "size": "octets of a message",
    "recipients": "recipients of a message",
    "queued": "recipients in the queue",
}
_FURTHER = {
    "connections": ("arrival", "a handshake with login"),
    "queued": ("search", "to find 50 due messages"),
}


def _draw(axis: Any, points: Sequence[Point], what: str, label: str) -> None:
    found = [(each.x, getattr(each, what)) for each in points if getattr(each, what)]
    x = [at for at, _ in found]
    axis.plot(x, [each.median for _, each in found], marker="o", label=label)
    axis.fill_between(
        x, [each.least for _, each in found], [each.most for _, each in found], alpha=0.3
    )


def _straight(axis: Any, points: Sequence[Point], what: str) -> None:
    first, last = points[0], points[-1]
    if first.x == last.x:
        return
    start, end = getattr(first, what).median, getattr(last, what).median
    count = 60
    x = [first.x * (last.x / first.x) ** (at / count) for at in range(count + 1)]
    y = [start + (end - start) * (at - first.x) / (last.x - first.x) for at in x]
    axis.plot(x, y, linestyle="--", color="grey", linewidth=1, label="a straight line")


def _short(number: int) -> str:
    for size, unit in ((MB, "M"), (KB, "k")):
        if number >= size:
            return f"{number // size}{unit}"
    return str(number)
