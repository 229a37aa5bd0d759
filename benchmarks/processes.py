"""What processes use: CPU, memory and instructions, of a process with all its descendants.

CPU is the kernel's own count in nanoseconds: the CPU clock of each live process
(clock_gettime(2) with the process's clock id, which counts threads that have ended too), and what a
process has gathered of children that ended and were waited for (cutime and cstime of
/proc/PID/stat, in ticks of 10 ms: exact enough over a second).  Linux only.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def pinned(cores: Iterable[int]) -> Callable[[], None]:
    """For ``preexec_fn`` of subprocess: run on these cores only."""
    chosen = frozenset(cores)
    return lambda: os.sched_setaffinity(0, chosen)


def cores() -> tuple[frozenset[int], frozenset[int]]:
    """The server's core, and those of everything else; the same where there is only one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return frozenset({first}), frozenset(others or {first})


@attrs.frozen
class Tree:
    """A process and its descendants.

    :param pid: the process at the top.
    """

    pid: int

    def pids(self) -> list[int]:
        """Those that live."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _stat(int(entry.name))
                if fields:
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def cpu(self) -> float:
        """Seconds of CPU, user and system, of all that live or have lived."""
        return sum(_cpu(pid) for pid in self.pids())

    def own(self) -> float:
        """The same of the process at the top alone."""
        return _cpu(self.pid)

    def peak(self) -> int:
        """The most resident memory since :meth:`forgetPeak`, in KiB, summed over the processes.

        What processes share is counted in each of them.
        """
        return sum(_field(pid, "status", "VmHWM") for pid in self.pids())

    def forgetPeak(self) -> None:
        """Let :meth:`peak` begin anew."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def proportional(self) -> int:
        """Proportional set size, in KiB: shared pages are divided among those who share them."""
        return sum(_field(pid, "smaps_rollup", "Pss") for pid in self.pids())


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The name, in parentheses, may hold anything.
    return text[text.rindex(")") + 2 :].split()


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    if not fields:
        return 0.0
    try:
        # CPUCLOCK_SCHED of the process; the encoding is part of the kernel's interface.
        own = time.clock_gettime(~pid << 3 | 2)
    except OSError:
        own = 0.0
    return own + (int(fields[13]) + int(fields[14])) * _TICK


def _field(pid: int, file: str, name: str) -> int:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return 0
    match = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    return int(match[1]) if match else 0


class Instructions:
    """Counts the instructions of processes with perf(1), between :meth:`start` and :meth:`stop`."""

    @staticmethod
    def isSupported() -> bool:
        """Whether perf is there and the machine counts; virtual ones often don't."""
        if not shutil.which("perf"):
            return False
        ran = _perf(["true"])
        return countOf(ran.communicate()[1]) is not None

    def start(self, pids: Iterable[int]) -> None:
        """Begin with these processes, and the threads and children they will have."""
        self._perf = _perf(["-p", ",".join(map(str, pids))])
        # perf says nothing when it has begun.
        time.sleep(0.2)

    def stop(self) -> int | None:
        """Instructions since :meth:`start`; ``None`` when they were not counted."""
        self._perf.send_signal(signal.SIGINT)
        return countOf(self._perf.communicate()[1])


def _perf(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["perf", "stat", "-x", ",", "-e", "instructions", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def countOf(said: str) -> int | None:
    """The count in what ``perf stat -x ,`` says; ``None`` when there is none."""
    match = re.search(r"^(\d+),[^,]*,instructions", said, re.MULTILINE)
    return int(match[1]) if match else None
