"""The long form: every target with new input, for as long as is wanted, and a table at the end.

    python -m tests.fuzz --seconds 600

Each target has the same share of the time.  First its corpus is replayed.  What fails is made
small and printed; with ``--keep`` its octets are put into the corpus as well, where they are to be
given a name and stay.  The exit status is 0 when nothing failed.  The same ``--seed`` tries the
same.

With ``--atheris`` (a package of that name; not needed else) the targets that take octets are driven
by libFuzzer in place of hypothesis, which looks for input that reaches new code.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import logging
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.fuzz.target import Machine, Target

HERE = Path(__file__).parent
ROUND = 100
"""Examples that are tried before the clock is looked at."""


@attrs.define
class Tally:
    """What came of one target."""

    name: str
    replayed: int = 0
    tried: int = 0
    seconds: float = 0.0
    failures: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        pace = self.tried / self.seconds if self.seconds else 0.0
        verdict = "FAILED" if self.failures else "ok"
        return (
            f"{verdict:6} {self.name:12} {self.replayed:4} replayed {self.tried:9} tried"
            f" {self.seconds:7.1f} s {pace:8.0f} a second"
        )


def targets() -> list[Target | Machine]:
    """All of them, by name."""
    found: dict[str, Target | Machine] = {}
    for file in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.fuzz.{file.stem}")
        for each in vars(module).values():
            if isinstance(each, Target | Machine):
                found[each.name] = each
    return [found[name] for name in sorted(found)]


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    made.add_argument("--seconds", type=float, default=60.0, help="in all; 60 unless told")
    made.add_argument("--seed", type=int, help="a number; a new one unless told")
    made.add_argument("--only", default="", help="targets whose name has this in it")
    made.add_argument("--keep", action="store_true", help="put what failed into the corpus")
    made.add_argument("--atheris", action="store_true", help="drive the targets by libFuzzer")
    made.add_argument("--list", action="store_true", help="name the targets, and run none")
    return made


def fuzz(target: Target | Machine, seed: int, seconds: float, keep: bool) -> Tally:
    """Try one target for so long; the first failure ends it."""
    tally, began, number = Tally(target.name), time.monotonic(), seed
    try:
        tally.replayed = target.replay()
        while time.monotonic() - began < seconds:
            number += 1
            tally.tried += target.round(number, ROUND)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        tally.failures.append("".join(traceback.format_exception(error)))
        if keep:
            _keep(target, error)
    tally.seconds = time.monotonic() - began
    return tally


def _keep(target: Target | Machine, error: BaseException) -> None:
    """Put the octets that hypothesis names in its note into the corpus."""
    for note in getattr(error, "__notes__", ()):
        found = re.search(r"data=(b(['\"]).*?(?<!\\)\2),?\n", note)
        if found and isinstance(target, Target):
            _file(target, ast.literal_eval(found[1]))


def _file(target: Target, octets: bytes) -> None:
    file = target.directory / f"found-{zlib.crc32(octets):08x}"
    file.write_bytes(octets)
    print(f"kept as {file}")


# libFuzzer.


def drive(target: Target, seconds: float, seed: int, keep: bool) -> Tally:
    """Try one target in a process of its own, which libFuzzer ends."""
    # The corpus is what libFuzzer begins with.
    tally, began = Tally(target.name, len(target.corpus)), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="submitd-atheris-") as made:
        found = Path(made, "found")
        found.mkdir()
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore", "-m", "tests.fuzz.libfuzzer", target.name),
                *(f"-max_total_time={max(1, round(seconds))}", f"-seed={seed % 2**31 or 1}"),
                *("-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"),
                *(f"-artifact_prefix={made}/", "-print_final_stats=1"),
                *(str(found), str(target.directory)),
            ],
            capture_output=True,
            check=False,
            cwd=HERE.parents[1],
        )
        said = done.stderr.decode("utf-8", "replace") + done.stdout.decode("utf-8", "replace")
        units = re.search(r"number_of_executed_units:\s*(\d+)", said)
        tally.tried = int(units[1]) if units else 0
        crashes = [each for each in Path(made).iterdir() if each.is_file()]
        for crash in crashes:
            tally.failures.append(f"{crash.read_bytes()!r}\n")
            if keep:
                _file(target, crash.read_bytes())
        if done.returncode:
            tally.failures.append(said[-4000:])
    tally.seconds = time.monotonic() - began
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, print, and give the exit status."""
    options = parser().parse_args(arguments)
    chosen = [each for each in targets() if options.only in each.name]
    if options.atheris:
        chosen = [each for each in chosen if isinstance(each, Target)]
    if options.list or not chosen:
        print("\n".join(each.name for each in chosen))
        return 0 if chosen else 2
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**9)
    seconds = options.seconds / len(chosen)
    print(f"seed {seed}, {len(chosen)} targets, {seconds:.1f} s each", flush=True)
    tallies = []
    for target in chosen:
        if options.atheris and isinstance(target, Target):
            tally = drive(target, seconds, seed, options.keep)
        else:
            tally = fuzz(target, seed * 1_000_003, seconds, options.keep)
        print(tally, *tally.failures, sep="\n", flush=True)
        tallies.append(tally)
    failed = sum(1 for each in tallies if each.failures)
    tried = sum(each.tried for each in tallies)
    print(f"\n{tried} tried, {sum(each.replayed for each in tallies)} replayed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
