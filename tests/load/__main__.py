"""Start a service, load it for a while, and see that it holds.

``python -m tests.load --idle 10000 --busy 1000 --seconds 600`` keeps 10,000 idle TLS connections
and 1,000 busy ones, a twentieth of them slow to write, a twentieth slow to read; and as many more
are gone in the midst of everything.  Every ten seconds it prints what the service uses.  It
succeeds when nobody well-behaved got an error, every message answered 250 is in the spool, memory
did not grow once it was warm, and at the end the service has the descriptors it began with.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.load.run import Load, run


def main() -> int:
    """The program.

    :return: its exit status.
    """
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--idle", type=int, default=10_000, help="idle TLS connections")
    parser.add_argument("--busy", type=int, default=1000, help="busy ones, slow ones among them")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long, once all are there")
    parser.add_argument(
        "--pause", type=float, default=10.0, help="a busy client's longest pause, in seconds"
    )
    parser.add_argument(
        "--opening", type=int, default=200, help="how many connect at the same time; 0 for all"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that serve")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="submitd-load-") as directory:
        outcome = run(Load(**vars(options)), Path(directory), print)
    for sentence in outcome.mistakes:
        print(sentence)
    print("it did not hold" if outcome.mistakes else "it held")
    return 1 if outcome.mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
