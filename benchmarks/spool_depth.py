"""Whether a long queue costs anything: accepting, finding due work, and starting, empty and full.

    python -m benchmarks.spool_depth [--recipients 1000000] [--directory DIRECTORY] [--url URL]

It fills the queue with recipients that are not due yet, each with a message and a body, measures
the same things before and after in one process, and prints both.  What is measured runs in the
calling thread, without a reactor: the statements and the disk, and nothing else.  The directory
should be on the disk that the spool will be on; about 1.5 GB are used for 1,000,000 recipients.

The promise is that accepting and finding work cost at most a tenth more, and a start less than 2 s.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from submitd.envelope import Envelope, Recipient
from submitd.session import newId
from submitd.spool import operations, store
from submitd.spool.database import Database, Link
from submitd.spool.records import Filter
from submitd.spool.rows import messageRow, recipientRows
from submitd.wire.address import Mailbox, ReversePath

BODY = b"x" * 1000
FIELDS = b"Received: from client.example by mail.example.com;\r\n" * 5
DOMAINS = 2000
SETTLE = 10.0
"""Seconds for the disk to come to rest."""


def message(number: int, arrived: float, due: float) -> store.Acceptance:
    """One message with one recipient."""
    to = Mailbox(f"user{number}", f"domain{number % DOMAINS}.example")
    envelope = Envelope(
        f"{newId()}-1",
        ReversePath(Mailbox("alice", "example.com")),
        recipients=[Recipient(to)],
        extensions={"FUTURERELEASE": due},
    )
    row = messageRow(
        envelope,
        arrived,
        FIELDS,
        len(FIELDS) + len(BODY),
        login="alice",
        client="192.0.2.1",
        digest=hashlib.blake2b(envelope.id.encode(), digest_size=32).digest(),
    )
    return store.Acceptance(
        message=row, recipients=recipientRows(envelope, arrived), chunks=[BODY], window=3600.0
    )


class Measured:
    """The figures of one state of the queue, in microseconds; times by the clock and of the CPU."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.figures: dict[str, tuple[float, float]] = {}

    def repeat(self, name: str, times: int, each: int, run: Callable[[], object]) -> None:
        """Measure something, the median of its repetitions.

        :param each: how many messages or calls one repetition is.
        """
        walls, cpus = [], []
        for _ in range(times):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            cpus.append((time.process_time() - cpu) / each * 1e6)
            walls.append((time.perf_counter() - wall) / each * 1e6)
        self.figures[name] = statistics.median(walls), statistics.mean(cpus)

    def accept(self, times: int, batch: int) -> None:
        """Accept messages that are not due."""
        now = time.time()
        made = iter([[message(0, now, now + 9e6) for _ in range(batch)] for _ in range(times)])
        self.repeat(
            f"accept, {batch} in a commit",
            times,
            batch,
            lambda: self.link.write(lambda connection: store.accept(connection, next(made))),
        )

    def find(self, times: int) -> None:
        """Find the messages that are due now, and give them back."""
        now = time.time()
        due = [message(at, now, now - 60) for at in range(50)]
        self.link.write(lambda connection: store.accept(connection, due))
        claim = store.Claim(token="bench", limit=50, now=now, until=now + 600)

        def run() -> None:
            [leased] = self.link.write(lambda connection: store.lease(connection, [claim]))
            if len(leased.works) != 50:
                sys.exit(f"{len(leased.works)} found instead of 50")
            self.link.write(lambda connection: store.giveBack(connection, leased.works))

        self.repeat("lease 50 of 50 due, and give back", times, 1, run)
        self.repeat("when is something due next", times, 1, lambda: self.link.look(store.nextDue))


def fill(link: Link, recipients: int) -> None:
    """Make the queue long."""
    old, size = time.time() - 7200, 5000
    for begin in range(0, recipients, size):
        lot = [message(at, old, old + 9e6) for at in range(begin, min(recipients, begin + size))]
        for each in lot:
            each.message["digest"] = None  # sent more than an hour ago
        link.write(lambda connection, lot=lot: store.accept(connection, lot))
        print(f"\rfilled {begin + len(lot)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    # What the kernel still has to write of all this is no matter of the queue's length.
    link.close()
    os.sync()
    time.sleep(SETTLE)


def seconds(run: Callable[[], object]) -> float:
    """How long something takes, once."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def start(make: Callable[[], Database]) -> float:
    """How long it takes until the first work could be found, with a new connection."""
    link = Link(make())
    now = time.time()
    old = store.Tidying(now - 3600, now - store.STALE, now)
    claim = store.Claim(token="start", limit=50, now=0.0, until=now)

    def first() -> None:
        link.write(lambda connection: store.tidy(connection, [old]))
        link.write(lambda connection: store.lease(connection, [claim]))

    took = seconds(first)
    link.close()
    return took


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipients", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, default=None, help="where to make the spool")
    parser.add_argument("--url", default="", help="an empty PostgreSQL data base instead")
    options = parser.parse_args()
    path = None if options.url else Path(tempfile.mkdtemp(dir=options.directory))

    def make() -> Database:
        return Database(path, options.url)

    link = Link(make())
    try:
        states = []
        for state in range(2):
            if state:
                fill(link, options.recipients)
            measured = Measured(link)
            measured.accept(1000, 1)
            measured.accept(200, 50)
            measured.find(200)
            measured.figures["start, ms"] = (start(make) * 1000, 0.0)
            states.append(measured.figures)
            # The 50 that are due go, so that the next state has its own.
            link.write(_dropDue)
        report(states, options.recipients)
        everything = Filter(sender="nobody@example.com")
        page = operations.Page(which=everything, now=time.time(), limit=50)
        print(f"counts by domain: {seconds(lambda: link.look(operations.counts)):.2f} s")
        searched = seconds(lambda: link.look(lambda c: operations.messages(c, page)))
        print(f"a sender that has no message: {searched:.2f} s")
    finally:
        link.close()
        if path is not None:
            shutil.rmtree(path)


def _dropDue(connection: object) -> None:
    now = time.time()
    claim = store.Claim(token="drop", limit=1000, now=now, until=now)
    [leased] = store.lease(connection, [claim])  # type: ignore[arg-type]
    for work in leased.works:
        store.drop(connection, work.message.id)  # type: ignore[arg-type]


def report(states: list[dict[str, tuple[float, float]]], recipients: int) -> None:
    """The table: the clock's time and the CPU's, empty and full."""
    empty, full = states
    print(f"{'us (clock / CPU)':36} {'empty':>15} {f'{recipients} queued':>18} {'ratio':>12}")
    for name, (wall, cpu) in empty.items():
        more, moreCpu = full[name]
        ratio = f"{more / wall:.2f} / {moreCpu / cpu:.2f}" if cpu else f"{more / wall:.2f}"
        print(f"{name:36} {wall:7.0f} /{cpu:6.0f} {more:10.0f} /{moreCpu:6.0f} {ratio:>12}")


if __name__ == "__main__":
    main()
