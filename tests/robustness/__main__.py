"""Check any server on this machine, and print a table.

    python -m tests.robustness --port P [--implicit-port Q] [--user U --password W] ...

The exit status is 0 when no check found a wrong answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

import attrs

from tests.robustness import peer
from tests.robustness.checks import Check, NotOffered, Target, Wrong
from tests.robustness.families import FAMILIES
from tests.robustness.peer import WHOLE, randomWays

GOOD, BAD, NOTHING = "ok", "WRONG", "-"


@attrs.frozen
class Result:
    """What came of one check.

    :param verdict: :data:`GOOD`, :data:`BAD` or :data:`NOTHING`.
    """

    family: str
    check: Check
    verdict: str
    seconds: float
    said: str = ""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    made.add_argument("--port", type=int, required=True, help="where the dialogue begins in clear")
    made.add_argument("--implicit-port", type=int, default=0, help="where it begins with TLS")
    made.add_argument("--user", default="", help="who may log in; none: without a login")
    made.add_argument("--password", default="")
    made.add_argument("--sender", default="ada@example.org", help="the reverse-path of messages")
    made.add_argument("--recipient", default="bob@example.net")
    made.add_argument("--pid", type=int, default=0, help="the server's process, to see its memory")
    made.add_argument("--proxied-port", type=int, default=0, help="one that wants a PROXY header")
    made.add_argument("--trusting-port", type=int, default=0, help="one that believes XCLIENT")
    made.add_argument("--patience", type=float, default=20.0, help="seconds to wait for anything")
    made.add_argument("--only", default="", help="families and checks whose name has this in it")
    made.add_argument("--ways", type=int, default=0, help="so many more random ways of cutting")
    made.add_argument("--quick", action="store_true", help="each input whole only")
    made.add_argument("--list", action="store_true", help="name the checks, and run none")
    return made


def run(target: Target, only: str = "", ways: int = 0, quick: bool = False) -> Iterator[Result]:
    """Run all checks, or those whose name has a text in it, and give the results as they come."""
    for family in FAMILIES:
        for check in family:
            if only.lower() in f"{family.name}: {check.name}".lower():
                began = time.monotonic()
                verdict, said = _verdict(check, target, ways, quick)
                yield Result(family.name, check, verdict, time.monotonic() - began, said)


def _verdict(check: Check, target: Target, ways: int, quick: bool) -> tuple[str, str]:
    more = randomWays(ways) if len(check.ways) > 1 else ()
    for way in (WHOLE,) if quick else (*check.ways, *more):
        try:
            check(target, way)
        except NotOffered as error:
            return NOTHING, str(error)
        except (Wrong, AssertionError, OSError) as error:
            return BAD, f"{way.name}: {error or type(error).__name__}"
    return GOOD, ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print, and give the exit status."""
    options = parser().parse_args(arguments)
    if options.list:
        for family in FAMILIES:
            for check in family:
                print(f"{family.name:26} {check.name:40} {check.promise}")
        return 0
    peer.PATIENCE = options.patience
    target = Target(
        port=options.port,
        implicit=options.implicit_port,
        user=options.user,
        password=options.password,
        sender=options.sender,
        recipient=options.recipient,
        pid=options.pid,
        proxied=options.proxied_port,
        trusting=options.trusting_port,
    )
    count = {GOOD: 0, BAD: 0, NOTHING: 0}
    for result in run(target, options.only, options.ways, options.quick):
        count[result.verdict] += 1
        line = f"{result.verdict:6} {result.seconds:6.2f} s  {result.family:26}"
        print(f"{line} {result.check.name:44} {result.said}".rstrip(), flush=True)
    print(f"\n{count[GOOD]} ok, {count[BAD]} wrong, {count[NOTHING]} not offered")
    return 1 if count[BAD] else 0


if __name__ == "__main__":
    sys.exit(main())
