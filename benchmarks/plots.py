"""Pictures of the results, with matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.growth import Point
from benchmarks.loads import Load
from benchmarks.measure import Sample
from benchmarks.results import names, spread


def isThere() -> bool:
    """Whether pictures can be made."""
    return importlib.util.find_spec("matplotlib") is not None


def _figure(**keys: Any) -> Any:
    import matplotlib

    # Files, and no window.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained", **keys)


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
    figure.savefig(path, dpi=120)


def plotGrowth(points: Sequence[Point], path: Path) -> None:
    """Lines: CPU per message and memory, both axes logarithmic."""
    lines = list(dict.fromkeys(each.line for each in points))
    figure, axes = _figure(nrows=2, ncols=len(lines), figsize=(4 * len(lines), 6), squeeze=False)
    for column, line in enumerate(lines):
        there = [each for each in points if each.line == line]
        for row, (what, values) in enumerate(
            [
                ("us of CPU a message", [each.cpu for each in there]),
                ("peak memory, MiB", [each.memory for each in there]),
            ]
        ):
            axis = axes[row][column]
            x = [each.x for each in there]
            axis.plot(x, [each.median for each in values], marker="o")
            axis.fill_between(
                x, [each.least for each in values], [each.most for each in values], alpha=0.3
            )
            axis.set(xscale="log", yscale="log", xlabel=line, ylabel=what)
            axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
