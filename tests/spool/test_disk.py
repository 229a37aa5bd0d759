"""Disks that are full or read-only, as the kernel has them; and what it sees of a 250.

The service runs in a mount namespace of its own, with a small tmpfs for its spool.  Tests reach
that through ``/proc/PID/root``, and nobody else has it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from submitd.spool.database import FILE
from tests import running
from tests.clients.running import HOST, RunningService, ServiceFailed
from tests.relay.programs import until

CONFIG = """
hostname = "mail.example.com"
[[listener]]
endpoint = "tcp:$submission:interface=127.0.0.1"
tls = "off"
require_tls = false
[auth]
required = false
[limits]
message_size = "64 MiB"
[delivery]
use = "spool"
path = "$directory/disk/spool"
[refusals]
file = "$directory/refusals.jsonl"
%s
"""

# Mounts a tmpfs at its second argument, with the options of its first, and runs the rest.
MOUNT = 'mount -t tmpfs -o "$0" tmpfs "$1" && shift && exec "$@"'
UNSHARE = ("unshare", "--mount", "--propagation", "private")

MIDDLE = b"Subject: x\r\n\r\n" + (b"x" * 76 + b"\r\n") * 25_000
LARGE = MIDDLE * 20


@cache
def whyNot() -> str:
    """Why there can be no mount namespace here; empty when there can."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "there is no unshare or nsenter: apt-get install util-linux"
    command = [*UNSHARE, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return f"no mount namespace: {tried.stderr.strip()}" if tried.returncode else ""


class DiskCase(SynchronousTestCase):
    """The service over a disk of its own."""

    def setUp(self) -> None:
        if whyNot():
            raise SkipTest(whyNot())
        self.directory = Path(self.mktemp()).absolute()
        self.disk = self.directory / "disk"
        self.disk.mkdir(parents=True)

    def service(self, options: str, rest: str = "") -> RunningService:
        """Start it on a tmpfs with these options."""
        before = (*UNSHARE, "sh", "-c", MOUNT, options, str(self.disk))
        made = RunningService(self.directory, CONFIG % rest, ("submission",), before=before)
        self.running = made.start()
        self.addCleanup(made.stop)
        return made

    @property
    def inside(self) -> Path:
        """The disk, as the service has it."""
        return Path(f"/proc/{self.running.pid}/root{self.disk}")

    def remount(self, options: str) -> None:
        """Have the kernel mount it otherwise; it refuses while a file is open for writing."""
        command = ["nsenter", "--mount", f"--target={self.running.pid}"]
        command += ["mount", "-o", f"remount,{options}", str(self.disk)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def fill(self) -> None:
        """Leave no room for anything."""
        file = open(self.inside / "filler", "ab", buffering=0)  # noqa: SIM115
        with file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def empty(self) -> None:
        """Have room again."""
        (self.inside / "filler").unlink()

    def send(self, content: bytes = b"Subject: x\r\n\r\nhello\r\n") -> tuple[int, str]:
        """Submit a message; what was answered behind it."""
        port = self.running.ports["submission"]
        with smtplib.SMTP(HOST, port, local_hostname="client.example", timeout=60) as client:
            client.ehlo()
            client.mail("a@example.com")
            client.rcpt("b@example.net")
            code, said = client.data(content)
            self.assertEqual(client.noop()[0], 250, "in step, and still there")
        return code, said.decode()

    def lock(self) -> subprocess.Popen[str]:
        """Another program locks the data base, until its standard input ends."""
        program = (
            "import sqlite3, sys; base = sqlite3.connect(sys.argv[1], isolation_level=None);"
            " base.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            self.python(program, str(self.disk / "spool" / FILE)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        self.assertEqual(holder.stdout.readline(), "locked\n")
        return holder

    def python(self, program: str, *arguments: str) -> list[str]:
        """A command line that runs in the namespace."""
        command = ["nsenter", "--mount", f"--target={self.running.pid}"]
        return [*command, sys.executable, "-c", program, *arguments]

    def assertKept(self, *answers: tuple[int, str]) -> None:
        """What was answered 250 is in the spool, and nothing else is, not even a part."""
        ids = sorted(said.rpartition(" ")[2] for _, said in answers)
        self.assertEqual(self.look("SELECT id FROM message"), ids)
        self.assertEqual(self.look("SELECT DISTINCT message FROM part"), ids)
        self.assertEqual(self.look("SELECT message FROM upload"), [])
        self.assertEqual(self.look("PRAGMA integrity_check"), ["ok"])

    def look(self, statement: str) -> list[str]:
        """What the data base says, from within the namespace."""
        program = (
            "import sqlite3, sys; print(*sorted(row[0] for row in"
            " sqlite3.connect(sys.argv[1], timeout=10).execute(sys.argv[2])), sep='\\n')"
        )
        command = self.python(program, str(self.disk / "spool" / FILE), statement)
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        return done.stdout.split()


class FullTests(DiskCase):
    """No room."""

    def test_midMessage(self) -> None:
        """A disk that a message fills is 452 4.3.1, nothing of it stays, and smaller ones go on."""
        running = self.service("size=24m")
        first = self.send()
        code, said = self.send(LARGE)
        self.assertEqual((code, said[:6]), (452, "4.3.1 "))
        until(lambda: "KiB are free" in running.log, lambda: running.log)
        self.assertNotIn("Traceback", running.log)
        second = self.send()
        self.assertEqual((first[0], second[0]), (250, 250))
        self.assertKept(first, second)

    def test_filledByItself(self) -> None:
        """What fills the disk is the queue: it takes no more, and gets emptier all the same."""
        self.service("size=24m")
        answers = [self.send(MIDDLE) for _ in range(10)]
        taken = [code for code, _ in answers].index(452)
        self.assertGreater(taken, 3)
        self.assertEqual({code for code, _ in answers[taken:]}, {452})
        del answers[taken + 1 :]
        self.assertEqual(answers.pop()[0], 452)
        self.assertKept(*answers)
        command = [*self.python("from submitd.tools.queue import main; main()"), "--spool"]
        command += [str(self.disk / "spool"), "delete", "--all", "--yes"]
        done = subprocess.run(
            command, env=running.environment(), capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        after = [self.send(MIDDLE) for _ in range(len(answers) - 1)]
        self.assertKept(*after)

    def test_resumes(self) -> None:
        """What others fill is the same; with room again it goes on by itself, with a relay too."""
        running = self.service("size=24m", '[relay]\nsmarthost = "127.0.0.1:9"')
        first = self.send()
        self.fill()
        answers = [self.send(b"Subject: x\r\n\r\n" + b"x\r\n" * 30_000) for _ in range(3)]
        self.assertIn((452, "4.3.1"), {(code, said[:5]) for code, said in answers})
        self.assertLessEqual({code for code, _ in answers}, {250, 452})
        self.empty()
        after = self.send(b"Subject: x\r\n\r\n" + b"x\r\n" * 30_000)
        self.assertEqual(after[0], 250)
        self.assertKept(first, after, *(each for each in answers if each[0] == 250))
        self.assertNotIn("Traceback", running.log)
        until(lambda: "queue keeps messages again: " in running.log, lambda: running.log)
        self.assertIn("queue cannot keep messages: ", running.log)

    def test_noInodes(self) -> None:
        """A disk without room for one more file does no harm to what is open."""
        self.service("size=40m,nr_inodes=40")
        first = self.send()
        with contextlib.suppress(OSError):
            for at in range(100):
                (self.inside / f"file{at}").touch()
        second = self.send()
        self.assertEqual((first[0], second[0]), (250, 250))
        self.assertKept(first, second)

    def test_fullAtTheStart(self) -> None:
        """A full disk is named before a port opens; so is one without room for one more file."""
        for options, said in (
            ("size=1m", "is on a full disk: 1024 KiB are free"),
            ("size=40m,nr_inodes=1", "is on a full disk: there is no room for one more file"),
        ):
            with self.assertRaises(ServiceFailed) as caught:
                self.service(options)
            self.assertIn(said, str(caught.exception))
            self.assertNotIn("Traceback", str(caught.exception))


class ReadOnlyTests(DiskCase):
    """A disk that cannot be written."""

    def test_atTheStart(self) -> None:
        """It is named before a port opens."""
        with self.assertRaises(ServiceFailed) as caught:
            self.service("size=40m,ro")
        self.assertIn("no permission to write to", str(caught.exception))

    def test_remounted(self) -> None:
        """While it is read-only it is 451 4.3.0, the log says so, and then it goes on by itself."""
        running = self.service("size=24m")
        first = self.send()
        # The data base is closed after a failure: only then will the kernel have it read-only.
        holder = self.lock()
        self.assertEqual(self.send()[0], 451)
        holder.communicate("")
        self.remount("ro")
        for _ in range(2):
            code, said = self.send()
            self.assertEqual((code, said[:6]), (451, "4.3.0 "))
        until(lambda: re.search("read-?only", running.log, re.I), lambda: running.log)
        self.remount("rw")
        second = self.send()
        self.assertEqual(second[0], 250)
        self.assertKept(first, second)
        self.assertNotIn("Traceback", running.log)


class SyncTests(DiskCase):
    """The order of things."""

    def test_syncedBefore250(self) -> None:
        """On the service's own socket: no 250 for a message before its commit has been synced."""
        strace = shutil.which("strace")
        if strace is None:
            raise SkipTest("there is no strace: apt-get install strace")
        trace = self.directory / "trace"
        calls = "trace=write,writev,pwrite64,sendto,sendmsg,fsync,fdatasync"
        # -D: the service is our child, and strace its; -y: with the path of each descriptor.
        before = (strace, "-D", "-f", "-y", "-e", calls, "-o", str(trace), "-s", "64")
        made = RunningService(self.directory, CONFIG % "", ("submission",), before=before)
        self.running = made.start()
        self.addCleanup(made.stop)
        ids = [self.send()[1].rpartition(" ")[2] for _ in range(5)]
        made.stop()
        events = _events(trace, ids)
        for id in ids:
            at = events.index(id)
            self.assertEqual(events[at - 1], "synced", events)
            self.assertIn("written", events[max(0, at - 20) : at - 1])
            # What was written before the sync is what this message brought.
            before250 = [each for each in events[:at] if each in ids]
            begun = events.index(before250[-1]) if before250 else 0
            self.assertIn("written", events[begun:at], events)


def _events(trace: Path, ids: list[str]) -> list[str]:
    """What was done to the log of the data base, and which message was answered, in order."""
    found: list[str] = []
    for line in _whole(trace):
        if re.search(rf"p?write(v|64)?\(\d+<[^>]*{FILE}-wal>", line):
            found.append("written")
        elif re.search(rf"f(data)?sync\(\d+<[^>]*{FILE}-wal>", line):
            found.append("synced")
        elif re.search(r'(sendto|sendmsg|writev?)\(\d+<(socket|TCP)[^>]*>, .*"250 2\.', line):
            found += [id for id in ids if id in line]
    return found


def _whole(trace: Path) -> Iterator[str]:
    """The lines of a trace; a call that was interrupted by others counts where it has ended."""
    time.sleep(0.2)  # strace writes the last lines when the service has ended
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        thread, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[thread] = call
        elif "resumed>" in call and thread in begun:
            yield begun.pop(thread)
        else:
            yield call
