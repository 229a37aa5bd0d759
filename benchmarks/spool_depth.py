"""Whether a long queue costs anything: accepting, finding due work, and starting, empty and full.

    python -m benchmarks.spool_depth [--recipients 1000000] [--directory DIRECTORY]

It fills one of two queues with recipients that are not due yet, each with a message and a body,
measures the same things in both by turns, so that whatever else the machine does falls on both, and
prints the medians.  What is measured runs in the calling thread, without a reactor: the statements
and the disk, and nothing else.  The directory should be on the disk that the spool will be on;
about 2.5 GB are used for 1,000,000 recipients.

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
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from submitd.envelope import Envelope, Recipient
from submitd.session import newId
from submitd.spool import accepting, endings, leases, operations, tidying
from submitd.spool.database import Database, Link
from submitd.spool.records import Filter
from submitd.spool.rows import messageRow, recipientRows
from submitd.wire.address import Mailbox, ReversePath

BODY = b"x" * 1000
FIELDS = b"Received: from client.example by mail.example.com;\r\n" * 5
DOMAINS = 2000
SETTLE = 10.0
"""Seconds for the disk to come to rest."""


def message(number: int, arrived: float, due: float) -> accepting.Acceptance:
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
    return accepting.Acceptance(
        message=row, recipients=recipientRows(envelope, arrived), chunks=[BODY], window=3600.0
    )


class Measured:
    """The figures of one queue, in microseconds by the clock and of the CPU.

    :param path: its directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.link = Link(Database(path))
        self.walls: dict[str, list[float]] = {}
        self.cpus: dict[str, list[float]] = {}

    def time(self, name: str, each: int, run: Callable[[], object]) -> None:
        """Measure something once.

        :param each: how many messages or calls it is.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self.cpus.setdefault(name, []).append((time.process_time() - cpu) / each * 1e6)
        self.walls.setdefault(name, []).append((time.perf_counter() - wall) / each * 1e6)

    def turn(self) -> None:
        """One turn of everything."""
        now = time.time()
        for batch, times in ((1, 30), (50, 6)):
            for _ in range(times):
                made = [message(0, now, now + 9e6) for _ in range(batch)]
                self.time(f"accept, {batch} in a commit", batch, partial(self.keep, made))
        self.keep([message(at, now, now - 60) for at in range(50)])
        claim = leases.Claim(token="bench", limit=50, now=now, until=now + 600)
        for _ in range(4):
            self.time("lease 50 of 50 due, and give back", 1, lambda: self.lease(claim))
            self.time("when is something due next", 1, lambda: self.link.look(leases.nextDue))
        # The next turn has its own.
        self.link.write(lambda connection: _dropDue(connection, claim))
        self.time("start", 1, self.start)

    def keep(self, made: list[accepting.Acceptance]) -> None:
        """Accept messages in one transaction."""
        self.link.write(lambda connection: accepting.accept(connection, made))

    def close(self) -> None:
        """Close the data base."""
        self.link.close()

    def lease(self, claim: leases.Claim) -> None:
        """Find the messages that are due, and give them back."""
        [leased] = self.link.write(lambda connection: leases.lease(connection, [claim]))
        if len(leased.works) != 50:
            sys.exit(f"{len(leased.works)} found instead of 50")
        self.link.write(lambda connection: leases.giveBack(connection, leased.works))

    def start(self) -> None:
        """All that is done before the first work could be found, with a new connection."""
        link = Link(Database(self.path))
        now = time.time()
        old = tidying.Tidying(now - 3600, now - tidying.STALE, now)
        claim = leases.Claim(token="start", limit=50, now=0.0, until=now)
        link.write(lambda connection: tidying.tidy(connection, [old]))
        link.write(lambda connection: leases.lease(connection, [claim]))
        link.close()


def fill(link: Link, recipients: int) -> None:
    """Make the queue long."""
    old, size = time.time() - 7200, 5000
    for begin in range(0, recipients, size):
        lot = [message(at, old, old + 9e6) for at in range(begin, min(recipients, begin + size))]
        for each in lot:
            each.message["digest"] = None  # sent more than an hour ago
        link.write(partial(accepting.accept, acceptances=lot))
        print(f"\rfilled {begin + len(lot)}", end="", file=sys.stderr, flush=True)
    if recipients:
        print(file=sys.stderr)
    link.close()


def settle() -> None:
    """Wait for the disk: what is still to be written is no matter of the queue's length."""
    os.sync()
    time.sleep(SETTLE)


def seconds(run: Callable[[], object]) -> float:
    """How long something takes, once."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipients", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--directory", type=Path, default=None, help="where to make the spools")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=options.directory))
    empty, full = Measured(directory / "empty"), Measured(directory / "full")
    try:
        fill(full.link, options.recipients)
        settle()
        for turn in range(options.turns):
            # Each comes first as often as the other: what one has written, the next one's sync
            # waits for.
            for each in (empty, full) if turn % 2 else (full, empty):
                each.turn()
        report(empty, full, options.recipients)
        nobodys = operations.Page(
            which=Filter(sender="nobody@example.com"), now=time.time(), limit=50
        )
        print(f"counts by domain: {seconds(lambda: full.link.look(operations.counts)):.2f} s")
        searched = seconds(lambda: full.link.look(lambda c: operations.messages(c, nobodys)))
        print(f"a sender that has no message: {searched:.2f} s")
    finally:
        empty.close()
        full.close()
        shutil.rmtree(directory)


def _dropDue(connection: sa.Connection, claim: leases.Claim) -> None:
    for work in leases.lease(connection, [claim])[0].works:
        endings.drop(connection, work.message.id)


def report(empty: Measured, full: Measured, recipients: int) -> None:
    """The table: medians by the clock and of the CPU."""
    print(f"{'us (clock / CPU)':36} {'empty':>15} {f'{recipients} queued':>18} {'ratio':>12}")
    for name in empty.walls:
        few, many = (statistics.median(each.walls[name]) for each in (empty, full))
        fewCpu, manyCpu = (statistics.median(each.cpus[name]) for each in (empty, full))
        ratio = f"{many / few:.2f} / {manyCpu / fewCpu:.2f}"
        print(f"{name:36} {few:7.0f} /{fewCpu:6.0f} {many:10.0f} /{manyCpu:6.0f} {ratio:>12}")


if __name__ == "__main__":
    main()
