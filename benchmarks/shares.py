"""Where submitd's time goes: the share of each part of it in what a message costs.

    python -m benchmarks.shares [--loads plain,tls] [--seconds 5] [--page PAGE]

py-spy (of PyPI) looks at the server's Python and native frames 400 times a second while a load is
on it.  A sample belongs to the innermost part it is in: kernel and OpenSSL before Python, and of
the Python frames the last.  Microseconds are the share of a run without the profiler.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks import generator
from benchmarks.generator import Generator
from benchmarks.loads import DURABLE, LOADS, Load
from benchmarks.processes import cores
from benchmarks.results import insert, listTable, table
from benchmarks.servers import Place, Submitd, SubmitdSpool

CHOSEN = ("plain", "pipelined", "single", "tls-single", "tls-resumed", "tls", "durable")

# Where the last frame is one of these, the kernel works.
_CALLS = re.compile(
    r"(?:__|__libc_)?(?:read|write|send|recv|sendmsg|recvmsg|accept4?|close|shutdown|socket|bind"
    r"|[gs]etsockopt|get(?:peer|sock)name|fcntl|epoll_(?:wait|ctl)|p(?:read|write)64|openat"
    r"|unlink|ftruncate) "
)
# A thread that waits for work, for the interpreter or for the disk; one that could go on, but for
# the other thread on the core, is a sample to py-spy as well.
_WAITS = re.compile(
    r"(?:^|;)(?:__|__libc_)?(?:(?:lock_)?PyThread_acquire_lock|pthread_cond_(?:timed)?wait\b"
    r"|f(?:data)?sync )"
)
_PARTS = (
    ("garbage collector", r"gc_collect|gc_alloc"),
    ("OpenSSL and its bindings", r"_rust\.abi3\.so|libssl|libcrypto|OpenSSL/|_cffi_b|/openssl\."),
    ("the reactor", r"\(twisted/"),
    ("transport", r"\(submitd/(transport|ports|polling)"),
    ("dialogue", r"\(submitd/(protocol|dialogue|pipeline|session|envelope|states|c)"),
    ("wire: commands, replies", r"\(submitd/(wire|extensions)/"),
    ("message: header, Received", r"\(submitd/message/"),
    ("policies", r"\(submitd/(policies|equality)"),
    ("login", r"\(submitd/(sasl|checkers|realm|tls)"),
    ("log and events", r"\(submitd/(events|log|tally|metrics)"),
    ("spool", r"\(submitd/(spool|deliveries)|sqlalchemy|sqlite"),
)
_OTHER = "other"


def part(stack: str) -> str:
    """The part that a sample belongs to.

    :param stack: the frames, the innermost last, with ``;`` between them.
    """
    frames = stack.split(";")
    if _CALLS.match(frames[-1]):
        return "system calls"
    for frame in reversed(frames):
        for name, pattern in _PARTS:
            if re.search(pattern, frame):
                return name
    return _OTHER


def shares(lines: Iterable[str]) -> dict[str, float]:
    """The share of each part in py-spy's raw output; threads that only wait are not in it."""
    found: collections.Counter[str] = collections.Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if not _WAITS.search(stack):
            found[part(stack)] += int(count)
    total = found.total() or 1
    return {name: count / total for name, count in found.items()}


def measure(load: Load, place: Place, clients: Generator, seconds: int) -> dict[str, float]:
    """Microseconds of a message in each part."""
    server: Submitd = (SubmitdSpool if load.durable else Submitd)(place)
    server.start(load)
    try:
        clients.run(load, server.port, seconds=1.0)
        before = server.tree.cpu()
        ran = clients.run(load, server.port, seconds=seconds)
        time.sleep(0.3)
        cost = (server.tree.cpu() - before) / ran.accepted * 1e6
        raw = place.directory / f"{load.name}.raw"
        command = [_program(), "record", "--native", "--rate", "400", "--duration", str(seconds)]
        command += ["--format", "raw", "--output", str(raw), "--pid", str(server.tree.pid)]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ):
            clients.run(load, server.port, seconds=seconds + 2.0)
        with open(raw, encoding="utf-8") as lines:
            return {name: share * cost for name, share in shares(lines).items()}
    finally:
        server.stop()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares", description=__doc__)
    parser.add_argument("--loads", default=",".join(CHOSEN))
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--page", type=Path, help="put the table between its marks in this page")
    options = parser.parse_args()
    _program()
    core, others = cores()
    os.sched_setaffinity(0, others)
    found = {}
    with tempfile.TemporaryDirectory(prefix="submitd-shares-") as directory:
        clients = generator.find(Path(directory), others)
        for load in (*LOADS, *DURABLE):
            if load.name in options.loads.split(","):
                print(f"{load.text} ...", file=sys.stderr, flush=True)
                place = Place(Path(directory), core, Path())
                found[load.name] = measure(load, place, clients, options.seconds)
    names = ["system calls", *(name for name, _ in _PARTS), _OTHER]
    rows = [
        [name, *(f"{each.get(name, 0):.0f} ({_share(each, name):.0%})" for each in found.values())]
        for name in names
    ]
    rows.append(["all", *(f"{sum(each.values()):.0f}" for each in found.values())])
    header = ["us a message (share)", *found]
    title = "Where submitd's time goes, by a sampling profiler"
    print(table(header, rows))
    if options.page:
        insert(options.page, "shares", listTable(title, header, rows))


def _share(found: dict[str, float], name: str) -> float:
    return found.get(name, 0) / (sum(found.values()) or 1)


def _program() -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("py-spy", path=path)
    if found is None:
        raise SystemExit("there is no py-spy (pip install py-spy)")
    return found


if __name__ == "__main__":
    main()
