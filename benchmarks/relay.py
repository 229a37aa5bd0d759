"""What it costs to hand messages on: the relay beside Postfix's queue manager, to one smtp-sink.

    python -m benchmarks.relay [--messages 5000] [--repetitions 3] [--directory DIRECTORY]

Each has the same number of messages of 1 KB in its queue, with one recipient each, before anything
is counted: submitd by FUTURERELEASE, Postfix in its hold queue.  Then they are let go, and the CPU
of all its processes is counted until the queue is empty.  Both may have 20 connections, over which
messages follow each other.  The server has one core, the sink another.  Servers run in turn; a
figure is the median with the least and the most.  Needs root, Postfix and its smtp-source and
smtp-sink.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.processes import Tree, cores, pinned
from benchmarks.servers import freePort
from benchmarks.spool_depth import message
from submitd.spool import accepting
from submitd.spool.database import FILE, Database, Link

CONNECTIONS = 20
PATIENCE = 300.0
"""Seconds in which a queue must become empty."""

SUBMITD = """
hostname = "mail.example.com"
[[listener]]
endpoint = "tcp:%d:interface=127.0.0.1"
tls = "off"
require_tls = false
[auth]
required = false
[delivery]
use = "spool"
path = "%s"
[relay]
smarthost = "127.0.0.1:%d"
tls = "off"
connections = 20
messages_per_connection = 0
"""

POSTFIX = """
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/log
maillog_file_prefixes = /
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = peer.example.org
mydestination =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
smtpd_recipient_restrictions = check_client_access static:HOLD, permit_mynetworks, reject
relayhost = [127.0.0.1]:{sink}
smtp_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = [127.0.0.1]:{sink}
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
postlog   unix-dgram n  -       n       -       1       postlogd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
flush     unix  n       -       n       1000?   0       flush
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
proxymap  unix  -       -       n       -       -       proxymap
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
"""

Sample = tuple[float, float]
"""Microseconds of CPU a message, and messages a second."""


def find(program: str) -> str:
    """Where a program is.

    :raise SystemExit: when it is not there.
    """
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise SystemExit(f"there is no {program}")
    return found


def wait(happened: Callable[[], object], what: str) -> None:
    """Wait until something has happened.

    :raise SystemExit: when it does not.
    """
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise SystemExit(f"it took too long: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def running(command: list[str], core: frozenset[int], output: Path) -> Iterator[int]:
    """A program while the context lasts."""
    with open(output, "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=pinned(core)
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def count(
    pid: int, messages: int, isEmpty: Callable[[], bool], begin: Callable[[], object] | None = None
) -> Sample:
    """Begin, and count until the queue is empty."""
    tree = Tree(pid)
    begun, before = time.monotonic(), tree.cpu()
    if begin is not None:
        begin()
    wait(isEmpty, "to empty the queue")
    seconds, spent = time.monotonic() - begun, tree.cpu() - before
    return spent / messages * 1e6, messages / seconds


def submitd(directory: Path, messages: int, sink: int, core: frozenset[int]) -> Sample:
    """Fill the spool, start the service, and count from the moment when all is due."""
    spool = directory / "spool"
    link, due = Link(Database(spool)), time.time() + 8.0
    for at in range(0, messages, 500):
        batch = [message(number, time.time(), due) for number in range(at, min(at + 500, messages))]
        link.write(partial(accepting.accept, acceptances=batch))
    link.close()
    config = directory / "submitd.toml"
    config.write_text(SUBMITD % (freePort(), spool, sink))
    program = "from twisted.scripts.twistd import run; run()"
    command = [sys.executable, "-c", program, "--nodaemon", "--pidfile="]
    command += [f"--logfile={directory}/log", "submitd", "--config", str(config)]
    with running(command, core, directory / "output") as pid:
        base = sqlite3.connect(spool / FILE, timeout=30)
        time.sleep(max(0.0, due - time.time() - 0.05))
        sample = count(
            pid, messages, lambda: base.execute("SELECT 1 FROM message LIMIT 1").fetchone() is None
        )
        base.close()
    return sample


def postfix(directory: Path, messages: int, sink: int, core: frozenset[int]) -> Sample:
    """Fill the hold queue, let it go, and count."""
    config, queue, port = directory / "config", directory / "queue", freePort()
    for each in (config, queue, directory / "data"):
        each.mkdir()
    shutil.chown(directory / "data", "postfix")
    (config / "main.cf").write_text(POSTFIX.format(directory=directory, sink=sink))
    (config / "master.cf").write_text(MASTER.format(port=port))
    command = [find("postfix"), "-c", str(config), "start-fg"]
    with running(command, core, directory / "output") as pid:
        wait(lambda: (queue / "public" / "qmgr").exists(), "to start Postfix")
        time.sleep(1.0)
        source = [find("smtp-source"), "-s", "10", "-l", "1000", "-m", str(messages)]
        source += ["-f", "alice@example.com", "-t", "bob@example.net", f"127.0.0.1:{port}"]
        subprocess.run(source, check=True, timeout=PATIENCE)
        # It moves them to the deferred queue, from which the flush below takes them.
        release = [find("postsuper"), "-c", str(config), "-H", "ALL"]
        subprocess.run(release, check=True, capture_output=True, timeout=PATIENCE)
        time.sleep(1.0)
        flush = [find("postqueue"), "-c", str(config), "-f"]
        folders = [queue / name for name in ("deferred", "incoming", "active", "hold")]

        def isEmpty() -> bool:
            return not any(files for each in folders for _, _, files in os.walk(each))

        return count(pid, messages, isEmpty, lambda: subprocess.run(flush, check=True, timeout=30))


SERVERS = {"submitd": submitd, "postfix": postfix}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="a disk to be measured")
    options = parser.parse_args()
    core, others = cores()
    samples: dict[str, list[Sample]] = {name: [] for name in SERVERS}
    for _ in range(options.repetitions):
        for name, measure in SERVERS.items():
            with tempfile.TemporaryDirectory(prefix="submitd-relay-", dir=options.directory) as at:
                directory = Path(at)
                directory.chmod(0o755)
                port = freePort()
                sink = [find("smtp-sink"), "-u", "nobody", f"127.0.0.1:{port}", "100"]
                with running(sink, others, directory / "sink"):
                    sample = measure(directory, options.messages, port, core)
            samples[name].append(sample)
            print(f"{name}: {sample[0]:.0f} us, {sample[1]:.0f} a second", file=sys.stderr)
    for name, found in samples.items():
        cpu, rate = zip(*found, strict=True)
        print(
            f"{name:8s}  {statistics.median(cpu):6.0f} us of CPU a message"
            f" ({min(cpu):.0f}-{max(cpu):.0f})  {statistics.median(rate):6.0f} messages a second"
            f" ({min(rate):.0f}-{max(rate):.0f})"
        )
    pairs = [one[0] / other[0] for one, other in zip(*samples.values(), strict=True) if other[0]]
    print(f"ratio     {statistics.median(pairs):6.2f} ({min(pairs):.2f}-{max(pairs):.2f})")


if __name__ == "__main__":
    main()
