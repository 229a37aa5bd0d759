"""Pictures of the results, with matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.growth import Point
from benchmarks.loads import Load
from benchmarks.measure import Sample
from benchmarks.results import Spread, names, spread


def isThere() -> bool:
    """Whether pictures can be made."""
    return importlib.util.find_spec("matplotlib") is not None


def _figure(**keys: Any) -> Any:
    import matplotlib

    # Files, and no window; letters as letters, and the same file for the same figures.
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "submitd"})
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained", **keys)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})


def plotCosts(samples: Sequence[Sample], loads: Sequence[Load], path: Path) -> None:
    """Bars: CPU per message of each server, a panel for each load."""
    loads = [load for load in loads if names(samples, load.name)]
    figure, axes = _figure(nrows=len(loads), figsize=(8, 1.6 * len(loads)), squeeze=False)
    for axis, load in zip(axes.flat, loads, strict=True):
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
    """Lines: CPU per message above, memory below."""
    lines = list(dict.fromkeys(each.line for each in points))
    figure, axes = _figure(nrows=2, ncols=len(lines), figsize=(3.6 * len(lines), 6), squeeze=False)
    for column, line in enumerate(lines):
        there = [each for each in points if each.line == line]
        cost, memory = axes[0][column], axes[1][column]
        _draw(cost, there, [each.cpu for each in there], "a message")
        further = _FURTHER.get(line)
        if further:
            _draw(cost, there, [getattr(each, further[0]) for each in there], further[1])
            cost.legend(fontsize=7)
        _draw(memory, there, [each.memory for each in there], "")
        cost.set(ylabel="us of CPU", yscale="linear" if further else "log")
        memory.set(ylabel="peak memory, MiB", xlabel=_NAMES[line])
        for axis in (cost, memory):
            axis.set_xscale("symlog", linthresh=1000) if there[0].x == 0 else axis.set_xscale("log")
            axis.grid(alpha=0.3)
            if axis.get_yscale() == "linear":
                axis.set_ylim(bottom=0)
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


def _draw(axis: Any, points: Sequence[Point], values: Sequence[Spread], label: str) -> None:
    x = [each.x for each in points]
    axis.plot(x, [each.median for each in values], marker="o", label=label)
    axis.fill_between(x, [each.least for each in values], [each.most for each in values], alpha=0.3)
