"""What a service uses: its process, and those that it has started (workers), together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T", int, float)


def family(pid: int) -> Iterator[int]:
    """A process, its children, and theirs."""
    yield pid
    children = ""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children += (thread / "children").read_text()
    for child in children.split():
        yield from family(int(child))


def descriptors(pid: int) -> int:
    """How many a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Its memory in KiB, with its share of what it has in common with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def together(what: Callable[[int], T], pid: int) -> T:
    """That of a process and all below it; of those that have just ended, nothing."""
    found: list[T] = []
    for each in family(pid):
        with contextlib.suppress(OSError):
            found.append(what(each))
    return sum(found)  # type: ignore[return-value]
