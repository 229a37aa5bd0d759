"""What a message costs submitd and its peers, in turn; or, with the word growth, how that grows.

Progress is on stderr, the tables on stdout, and with --output DIR all samples and pictures in
files.  The exit status says whether the measurement worked, never whether the figures are good.
docs/performance.rst says what is measured.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from benchmarks import generator, growth, measure, plots, results
from benchmarks.generator import Generator, GeneratorFailed
from benchmarks.loads import DURABLE, LOADS, Load
from benchmarks.measure import Amount, Miscounted, Sample
from benchmarks.processes import Instructions, cores
from benchmarks.servers import SERVERS, Place, Server, ServerFailed, serversFor

QUICK = ("plain", "pipelined", "single", "tls-single", "tls", "tls-large")
"""The loads of the quick form."""

QUICK_SERVERS = ("submitd", "smtp-server", "twisted.mail")
"""Its servers."""


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {name}")
    # Not resolved: in a virtual environment it is a link, and knows its packages by that.
    return Path(found).absolute()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    loads = [load.name for load in (*LOADS, *DURABLE)]
    parser.add_argument(
        "what", nargs="?", default="peers", choices=["peers", "growth"], help="what to measure"
    )
    parser.add_argument("--quick", action="store_true", help="less of it, in under a minute")
    parser.add_argument("--loads", help=f"some of {','.join(loads)}")
    parser.add_argument("--servers", help=f"some of {','.join(server.name for server in SERVERS)}")
    parser.add_argument("--lines", default=",".join(growth.LINES), help="of growth; all by default")
    parser.add_argument("--largest", type=float, default=math.inf, help="the end of these lines")
    parser.add_argument("--repetitions", type=int, help="of each run, 5 by default")
    parser.add_argument("--seconds", type=float, help="of each run, 2 by default; 0: no limit")
    parser.add_argument("--messages", type=int, default=0, help="in each run at most; 0: no limit")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start a server anew for each run, instead of once with a warm-up",
    )
    parser.add_argument(
        "--idle",
        type=int,
        metavar="N",
        help="idle connections to open, 1000 by default; 0: none",
    )
    parser.add_argument(
        "--node",
        type=Path,
        default=Path(os.environ.get("SUBMITD_TEST_NODE", ".")),
        help="the directory with node_modules",
    )
    parser.add_argument(
        "--other-python",
        type=_program,
        metavar="PROGRAM",
        help="another Python that has what submitd needs, for submitd-other and"
        " submitd-spool-other; compared with this one",
    )
    parser.add_argument(
        "--rst",
        type=Path,
        action="append",
        metavar="FILE",
        help="measure nothing: print a file of --output as tables of reStructuredText",
    )
    parser.add_argument(
        "--page",
        type=Path,
        help="with --rst: put the tables between their marks in this page, and draw its pictures",
    )
    parser.add_argument("--output", type=Path, help="the directory for results.json and plots")
    parser.add_argument(
        "--directory", type=Path, help="where servers keep messages; a disk to be measured"
    )
    return parser


@attrs.frozen
class Bench:
    """All that a measurement needs."""

    options: argparse.Namespace
    place: Place
    generator: Generator
    amount: Amount
    environment: dict[str, Any]

    def peers(self) -> None:
        """Measure submitd beside its peers."""
        loads = self._loads()
        measure.prove(self.place, self.generator)
        say("messages that are easily broken were kept as they were sent")
        samples: list[Sample] = []
        for load in loads:
            servers = self._servers(load)
            if servers:
                samples += measure.measure(
                    load, servers, self.place, self.generator, self.amount, say
                )
        idle: dict[str, list[float]] = {}
        if self.options.idle:
            servers = self._servers(LOADS[0])
            repetitions = 1 if self.options.quick else self.amount.repetitions
            idle = measure.idle(
                servers, self.place, self.generator, self.options.idle, repetitions, say
            )
        self._show(samples, loads, idle)
        self._keep(samples=samples, idle=idle)
        self._plot("costs.svg", lambda path: plots.plotCosts(samples, loads, path))

    def _show(self, samples: list[Sample], loads: list[Load], idle: dict[str, list[float]]) -> None:
        figure = "cpu"
        if self.amount.instructions:
            figure = "instructions"
        unit = "Microseconds of server CPU" if figure == "cpu" else "Instructions of the server"
        shown = [
            f"{unit} a message: median (least-most)",
            results.costs(samples, loads, figure),
            results.ratios(samples, loads, figure),
            results.details(samples, loads),
            results.idleTable(idle) if idle else "",
        ]
        print("\n\n".join(filter(None, shown)))

    def growth(self) -> None:
        """Measure how submitd's cost grows."""
        points = growth.measureGrowth(
            self.options.lines.split(","),
            self.place,
            self.generator,
            self.amount,
            self.options.largest,
            say,
        )
        print(growth.growthTable(points))
        self._keep(points=points)
        self._plot("growth.svg", lambda path: plots.plotGrowth(points, path))

    def _loads(self) -> list[Load]:
        wanted = self.options.loads.split(",") if self.options.loads else None
        if wanted is None and self.options.quick:
            wanted = list(QUICK)
        return [load for load in (*LOADS, *DURABLE) if wanted is None or load.name in wanted]

    def _servers(self, load: Load) -> list[type[Server]]:
        wanted = self.options.servers.split(",") if self.options.servers else None
        if wanted is None and self.options.quick:
            wanted = list(QUICK_SERVERS)
        found = []
        for server in serversFor(load):
            if server.name in wanted if wanted else not server.isExtra:
                missing = server.missing(self.place)
                if missing:
                    say(f"without {server.name}: {missing}")
                else:
                    found.append(server)
        return found

    def _keep(self, **found: object) -> None:
        if self.options.output:
            self.options.output.mkdir(parents=True, exist_ok=True)
            file = self.options.output / f"{self.options.what}.json"
            results.write(file, environment=self.environment, amount=self.amount, **found)
            say(f"all samples: {file}")

    def _plot(self, name: str, draw: Callable[[Path], None]) -> None:
        if self.options.output:
            if plots.isThere():
                draw(self.options.output / name)
                say(f"picture: {self.options.output / name}")
            else:
                say("no pictures: there is no matplotlib (pip install matplotlib)")


def _amount(options: argparse.Namespace) -> Amount:
    repetitions, seconds = (3, 0.25) if options.quick else (5, 2.0)
    return Amount(
        repetitions=options.repetitions or repetitions,
        seconds=seconds if options.seconds is None else options.seconds,
        messages=options.messages,
        isFresh=options.fresh,
        instructions=options.quick and Instructions.isSupported(),
    )


def main(arguments: Sequence[str]) -> int:
    """Measure.

    :return: the exit status: 1 when the measurement itself did not work.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = _unknown(options)
    if unknown:
        parser.error(unknown)
    if options.rst:
        try:
            _show(options.rst, options.page)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        return 0
    if options.idle is None:
        options.idle = 200 if options.quick else 1000
    environment = results.environment(options.node, options.other_python)
    server, others = cores()
    if server == others:
        say("one core for server and generator: the rates mean little, CPU a message does")
    with tempfile.TemporaryDirectory(prefix="submitd-benchmarks-", dir=options.directory) as name:
        directory = Path(name)
        # Postfix's processes have another user.
        directory.chmod(0o755)
        os.sched_setaffinity(0, others)
        load = generator.find(directory, others)
        if not load.isCompiled:
            say("the slow generator: there is no cc, or no headers of OpenSSL (libssl-dev)")
        place = Place(directory, server, options.node.absolute(), options.other_python)
        bench = Bench(options, place, load, _amount(options), environment)
        try:
            getattr(bench, options.what)()
        except (GeneratorFailed, ServerFailed, Miscounted) as error:
            say(f"{type(error).__name__}: {error}")
            return 1
    return 0


def _show(files: Sequence[Path], page: Path | None) -> None:
    """Print what has been measured, or put it into the page.

    :raise OSError: when a file cannot be read or written.
    :raise ValueError: when it is another kind of file.
    """
    points: list[growth.Point] = []
    for file in files:
        found = results.read(file)
        if "points" in found:
            points += growth.restored(found["points"])
        else:
            samples = found["samples"]
            text = results.page(samples, found["idle"], found["environment"])
            name = "fresh" if found["amount"]["isFresh"] else "peers"
            _put(name, text, page, partial(plots.plotCosts, samples, [*LOADS, *DURABLE]))
    if points:
        _put("growth", growth.growthPage(points), page, partial(plots.plotGrowth, points))


def _put(name: str, text: str, page: Path | None, draw: Callable[[Path], None]) -> None:
    if page is None:
        print(text)
        return
    results.insert(page, name, text)
    picture = f"figures/{name}.svg"
    if picture in page.read_text():
        (page.parent / "figures").mkdir(exist_ok=True)
        draw(page.parent / picture)


def _unknown(options: argparse.Namespace) -> str:
    known = {
        "loads": [load.name for load in (*LOADS, *DURABLE)],
        "servers": [server.name for server in SERVERS],
        "lines": list(growth.LINES),
    }
    for option, names in known.items():
        for name in (getattr(options, option) or "").split(","):
            if name and name not in names:
                return f"--{option}: there is no {name}; known are: {', '.join(names)}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
