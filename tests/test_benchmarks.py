"""The benchmark measures what it says: its parts alone, and its quick form in a few messages."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import SkipTest

import attrs
import sqlalchemy as sa
from twisted.trial.unittest import SynchronousTestCase

import submitd
from benchmarks import generator, growth, loads, processes, results, shares, spool_depth
from benchmarks.__main__ import Bench
from benchmarks.generator import Generator, GeneratorFailed
from benchmarks.measure import Miscounted, Sample, compare
from benchmarks.servers import Place, Server, SMTPServerNames, versions
from submitd.spool import accepting, schema

ROOT = Path(submitd.__file__).resolve().parent.parent
CORES = frozenset(os.sched_getaffinity(0))


class LoadTests(SynchronousTestCase):
    """Messages and goals."""

    def test_size(self) -> None:
        """A message has exactly the size that it is said to have, and whole lines."""
        for size in [400, *range(1000, 1080), loads.MB]:
            content = loads.message(size)
            self.assertEqual(len(content), size)
            self.assertTrue(content.endswith(b"\r\n"))
            self.assertEqual(content.replace(b"\r\n", b"").count(b"\n"), 0)

    def test_stuffed(self) -> None:
        """Dots at the beginning of lines are doubled, of the first line too."""
        self.assertEqual(loads.stuffed(b".a\r\n.\r\nb.\r\n"), b"..a\r\n..\r\nb.\r\n.\r\n")

    def test_number(self) -> None:
        """Each message has the place for a number, or a spool would keep all of them once."""
        for load in (*loads.LOADS, *loads.DURABLE, loads.AWKWARD):
            self.assertEqual(load.content().count(loads.NUMBER), 1)

    def test_awkward(self) -> None:
        """The proof is made with lines of dots, not with a message that nobody could break."""
        self.assertIn(b"\r\n.\r\n..\r\n", loads.AWKWARD.content())
        self.assertTrue(loads.AWKWARD.wire().endswith(b"\r\n..\r\n.\r\n"))

    def test_names(self) -> None:
        """No two loads share a name, which files are called by."""
        names = [load.name for load in (*loads.LOADS, *loads.DURABLE)]
        self.assertEqual(len(names), len(set(names)))


class ProcessTests(SynchronousTestCase):
    """CPU and memory."""

    def run_(self, code: str) -> subprocess.Popen[str]:
        """A child that says a line when it has done its work, and ends with its input."""
        child = subprocess.Popen(
            [sys.executable, "-c", f"{code}\nprint(1, flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(child.__exit__, None, None, None)
        self.addCleanup(child.kill)
        assert child.stdout
        self.assertEqual(child.stdout.readline(), "1\n")
        return child

    def test_children(self) -> None:
        """What a child used counts, though it has ended; it would be Postfix's greater part."""
        burn = "import time\nwhile time.process_time() < 0.3: pass"
        child = self.run_(
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
        )
        self.assertGreater(processes.Tree(child.pid).cpu(), 0.29)

    def test_threads(self) -> None:
        """What a thread used counts, though it has ended."""
        burn = (
            "import threading, time\ndef burn():\n"
            "  while time.thread_time() < 0.2: pass\n"
            "t = threading.Thread(target=burn); t.start(); t.join()"
        )
        self.assertGreater(processes.Tree(self.run_(burn).pid).cpu(), 0.19)

    def test_descendants(self) -> None:
        """A process that a child has started belongs to the tree, with its memory."""
        sleeper = "import sys; held = bytearray(b'x' * 30_000_000); print(1, flush=True); input()"
        child = self.run_(
            "import subprocess, sys\n"
            f"c = subprocess.Popen([sys.executable, '-c', {sleeper!r}], stdin=subprocess.PIPE,"
            " stdout=subprocess.PIPE)\nc.stdout.readline()"
        )
        tree = processes.Tree(child.pid)
        self.assertEqual(len(tree.pids()), 2)
        self.assertGreater(tree.peak(), 30_000)
        self.assertGreater(tree.proportional(), 29_000)

    def test_gone(self) -> None:
        """A process that has ended meanwhile is none, and no error."""
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        self.assertEqual(processes.Tree(child.pid).cpu(), 0.0)

    def test_countOf(self) -> None:
        """A machine that cannot count instructions is told from one that has counted none."""
        self.assertEqual(processes.countOf("1234,,instructions,5,100.00,,\n"), 1234)
        self.assertEqual(processes.countOf("0,,instructions:u,5,100.00,,\n"), 0)
        self.assertIsNone(processes.countOf("<not supported>,,instructions,0,100.00,,\n"))


def sample(server: str, repetition: int, cpu: float) -> Sample:
    """A run under the first load, of which only the CPU matters."""
    return Sample("plain", server, repetition, 10, cpu, None, 1, 1, 1, 1, 1, 1.0, 0.1, 0.0)


class ResultTests(SynchronousTestCase):
    """What is made of the samples."""

    samples = [
        sample(server, repetition, cpu * noise)
        for repetition, noise in enumerate((1, 3, 2))
        for server, cpu in (("submitd", 60), ("smtp-server", 100))
    ]

    def test_pairs(self) -> None:
        """A ratio is made pair by pair: noise that hits both is not in it."""
        found = results.ratio(self.samples, "plain", "submitd", "smtp-server")
        self.assertEqual(found, results.Spread(0.6, 0.6, 0.6))

    def test_spread(self) -> None:
        """A figure is the median, between the least and the most."""
        found = results.spread(self.samples, "plain", "submitd")
        assert found
        self.assertEqual(found.shown(), "120 (60-180)")

    def test_absent(self) -> None:
        """A server that is not installed has no figure, and nothing is divided by it."""
        self.assertIsNone(results.spread(self.samples, "plain", "aiosmtpd"))
        self.assertIsNone(results.ratio(self.samples, "plain", "submitd", "aiosmtpd"))
        other = attrs.evolve(self.samples[0], load="pipelined", server="x")
        self.assertIn("  -", results.costs([self.samples[0], other], loads.LOADS))

    def test_tables(self) -> None:
        """The tables show servers, ratio and goal."""
        self.assertIn("200 (100-300)", results.costs(self.samples, loads.LOADS))
        self.assertIn("0.60 (0.60-0.60)  0.60  1.00", results.ratios(self.samples, loads.LOADS))

    def test_page(self) -> None:
        """The page has the same figures as the terminal, with the goal and what is to be beaten."""
        about = {"cores": 2, "processor": "x", "kernel": "6", "load before": 0.1}
        idle = {"submitd": [12.0, 14.0, 13.0]}
        lines = results.page(self.samples, idle, {**about, "versions": {"Node": "v20"}}).split("\n")
        row = lines.index("   * - plain, 600 messages a connection")
        cells = ["120 (60-180)", "200 (100-300)", "0.60 (0.60-0.60)", "0.60", "0.75"]
        self.assertEqual(lines[row + 1 : row + 6], [f"     - {cell}" for cell in cells])
        self.assertIn("     - 13.0 (12.0-14.0)", lines)
        self.assertIn("Node v20", lines[0])

    def test_insert(self) -> None:
        """Tables take the place of those before them, and nothing else of the page is touched."""
        page = Path(self.mktemp())
        page.write_text("a\n\n.. begin of peers\n\nold\n\n.. end of peers\n\nb\n")
        results.insert(page, "peers", "new\n")
        results.insert(page, "peers", "newer\n")
        self.assertEqual(
            page.read_text(), "a\n\n.. begin of peers\n\nnewer\n\n.. end of peers\n\nb\n"
        )

    def test_marks(self) -> None:
        """The page has a place for all that can be put into it."""
        page = (ROOT / "docs" / "performance.rst").read_text()
        for name in ("peers", "fresh", "growth", "shares"):
            self.assertLess(page.index(f".. begin of {name}\n"), page.index(f".. end of {name}\n"))

    def test_insertNowhere(self) -> None:
        """A page without the marks is left as it is."""
        page = Path(self.mktemp())
        page.write_text("a\n")
        failure = self.assertRaises(ValueError, results.insert, page, "peers", "new\n")
        self.assertIn("no marks for peers", str(failure))
        self.assertEqual(page.read_text(), "a\n")


class QueueTests(SynchronousTestCase):
    """The line of growth whose servers have a long queue."""

    def test_asLongAsItWas(self) -> None:
        """What a run has put into the queue is no part of the next one's."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        server = growth.Prefilled(Place(directory, CORES, Path()), 3)
        server.start(attrs.evolve(loads.DURABLE[0], limits={}))
        self.addCleanup(server.stop)
        now = time.time()
        server.queue.write(
            lambda connection: accepting.accept(connection, [spool_depth.message(9, now, now)])
        )
        self.assertEqual(self.length(server), 4)
        server.forget()
        self.assertEqual(self.length(server), 3)
        self.assertGreater(server.search(), 0.0)

    def length(self, server: growth.Prefilled) -> int:
        """How many recipients wait."""
        count = sa.select(sa.func.count()).select_from(schema.recipient)
        found: int = server.queue.look(lambda connection: connection.execute(count).scalar_one())
        return found


class ShareTests(SynchronousTestCase):
    """What a sampling profiler has seen, by parts."""

    reading = "run (twisted/internet/base.py:1);Server.doRead (submitd/transport.py:2)"

    def test_innermost(self) -> None:
        """A sample belongs to the innermost part, and what that calls belongs to it too."""
        self.assertEqual(shares.part(self.reading), "transport")
        inner = f"{self.reading};mail (submitd/commands.py:3);malloc (libc.so.6)"
        self.assertEqual(shares.part(inner), "dialogue")

    def test_kernel(self) -> None:
        """The kernel's work is not that of who has asked for it."""
        self.assertEqual(shares.part(f"{self.reading};read (libc.so.6)"), "system calls")
        self.assertEqual(shares.part(f"{self.reading};readline (libx.so)"), "transport")

    def test_waiting(self) -> None:
        """A thread that waits costs nothing; shares are of all others."""
        lines = [
            f"{self.reading} 3",
            f"{self.reading};gc_collect_main (libpython3.so) 1",
            "run (threading.py:1);lock_PyThread_acquire_lock (libpython3.so);x (libc.so.6) 96",
            "get (queue.py:1);PyThread_acquire_lock_timed (libpython3.so);x (libc.so.6) 96",
            "do_commit (sqlalchemy/a.py:1);pthread_cond_timedwait (libc.so.6);x (libc.so.6) 96",
            "do_commit (sqlalchemy/a.py:1);sqlite3_step (libsqlite3.so);fdatasync (libc.so.6) 96",
            "commit (submitd/a.py:1);os_fsync (libpython3.so);fsync (libc.so.6) 96",
            "get (queue.py:1);pthread_cond_wait (libc.so.6);x (libc.so.6) 96",
        ]
        self.assertEqual(shares.shares(lines), {"transport": 0.75, "garbage collector": 0.25})


class CountTests(SynchronousTestCase):
    """What was answered must be at the other end."""

    def test_lost(self) -> None:
        """A message that was answered 250 and is not at the other end makes the run worthless."""

        class Loses:
            name = "loses"

            def accepted(self) -> int:
                return 9

        run = generator.Run(10, 1.0, 1, 0, 1, 1, 1, 1.0)
        server: Server = Loses()  # type: ignore[assignment]
        self.assertRaises(Miscounted, compare, server, loads.LOADS[0], run)


class Scripted:
    """A server that answers line by line what it is told to, once.

    :param replies: to the greeting and to each line.
    """

    def __init__(self, *replies: bytes) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._replies = replies
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self._listening.settimeout(20)
        connection, _ = self._listening.accept()
        with connection, connection.makefile("rb") as lines:
            connection.settimeout(20)
            for reply in self._replies:
                connection.sendall(reply)
                lines.readline()

    def stop(self) -> None:
        """Wait for its end."""
        self._thread.join()
        self._listening.close()


class PythonGeneratorTests(SynchronousTestCase):
    """Every reply is checked."""

    def generator(self) -> Generator:
        """The generator under test."""
        directory = Path(self.mktemp())
        directory.mkdir()
        command = (sys.executable, str(ROOT / "benchmarks" / "generate.py"))
        return Generator(command, False, directory, CORES)

    def refused(self, *replies: bytes) -> str:
        """What the generator says of a server."""
        server = Scripted(*replies)
        self.addCleanup(server.stop)
        load = loads.Load(name="plain", text="plain", connections=1)
        failure = self.assertRaises(
            GeneratorFailed, self.generator().run, load, server.port, messages=1
        )
        return str(failure)

    def test_refusal(self) -> None:
        """A refusal ends the run with command and text, and is not counted as a fast message."""
        said = self.refused(b"220 a\r\n", b"250-b\r\n250 c\r\n", b"550 5.7.1 no\r\n")
        self.assertEqual(said, "plain: MAIL: 550 5.7.1 no")

    def test_closed(self) -> None:
        """A connection that is closed is a failure too."""
        self.assertIn("EHLO: connection", self.refused(b"220 a\r\n"))

    def test_noEnd(self) -> None:
        """A message that does not end with CRLF.CRLF, for which both would wait, is not sent."""
        made = self.generator()
        for text in (b"", b".\r\n", b"Subject: x\r\n\r\nhello\r\n"):
            message = made.directory / "message"
            message.write_bytes(text)
            command = [*made.command, "--port", "9", "--message", str(message)]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
            self.assertEqual(ran.returncode, 1)
            self.assertIn("message: does not end with CRLF.CRLF", ran.stderr)

    def test_standing(self) -> None:
        """Clients send when all of them are there, and are measured before they go."""
        server = Scripted(b"220 a\r\n", b"250 b\r\n", *[b"250 c\r\n"] * 2, b"354 d\r\n")
        self.addCleanup(server.stop)
        load = loads.Load(name="plain", text="plain", connections=1)
        steps: list[str] = []
        failure = self.assertRaises(
            GeneratorFailed,
            self.generator().standing,
            load,
            server.port,
            lambda: steps.append("opened"),
            lambda: steps.append("done"),
            messages=1,
        )
        # It takes the message's end for the end of its script, and closes.
        self.assertEqual(steps, ["opened"])
        self.assertIn("plain: message: ", str(failure))

    def test_malformed(self) -> None:
        """What looks like the code and is not a reply is none."""
        self.assertIn("greeting: 2200", self.refused(b"2200\r\n"))


class CompiledGeneratorTests(PythonGeneratorTests):
    """The same of the C program."""

    def generator(self) -> Generator:
        """Built for the test."""
        directory = Path(self.mktemp())
        directory.mkdir()
        if not generator.build(directory / "generate"):
            raise SkipTest("there is no cc, or no headers of OpenSSL")
        return Generator((str(directory / "generate"),), True, directory, CORES)

    def test_closed(self) -> None:
        """A connection that is closed is a failure too."""
        self.assertIn("connection closed instead of a reply", self.refused(b"220 a\r\n"))


class FindTests(SynchronousTestCase):
    """Which generator there is."""

    def test_noCompiler(self) -> None:
        """Without a compiler there is the slow one."""
        self.assertFalse(generator.build(Path(self.mktemp()), ["no-such-compiler"]))


class VersionTests(SynchronousTestCase):
    """What the tables say of the programs."""

    def test_otherPython(self) -> None:
        """Another Python is named by what it says of itself."""
        said = versions(Path("nowhere"), Path(sys.executable))["other Python"]
        self.assertIn(f"{platform.python_implementation()} {platform.python_version()}", said)
        self.assertNotIn("other Python", versions(Path("nowhere")))


class CommandLineTests(SynchronousTestCase):
    """``python -m benchmarks``, and the benchmark of workers."""

    def run_(
        self, *arguments: str, path: str = "", module: str = "benchmarks"
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **({"PATH": path} if path else {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def test_extra(self) -> None:
        """A server that is extra takes part only where it is named."""
        for text, taken in ((None, False), ("submitd", False), (SMTPServerNames.name, True)):
            options = argparse.Namespace(servers=text, quick=False)
            self.patch(SMTPServerNames, "missing", lambda place: "")
            place = Place(Path(), frozenset({0}), Path())
            bench = Bench(options, place, None, None, {})  # type: ignore[arg-type]
            found = bench._servers(loads.LOADS[0])
            self.assertEqual(SMTPServerNames in found, taken, text)

    def test_quick(self) -> None:
        """The quick form measures submitd beside twisted.mail, and keeps all samples."""
        output = Path(self.mktemp()).absolute()
        ran = self.run_(
            *("--quick", "--servers", "submitd,twisted.mail", "--loads", "pipelined,tls-resumed"),
            *("--messages", "40", "--seconds", "0", "--repetitions", "2", "--idle", "5"),
            *("--output", str(output)),
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("plain, pipelined", ran.stdout)
        self.assertIn("KiB of an idle TLS connection", ran.stdout)
        self.assertIn("kept as they were sent", ran.stderr)
        self.assertIn('"server": "twisted.mail"', (output / "peers.json").read_text())
        shown = self.run_("--rst", str(output / "peers.json"))
        self.assertIn("submitd / smtp-server", shown.stdout)
        self.assertIn("   * - plain, pipelined, 600 messages a connection", shown.stdout)

    def test_slowGenerator(self) -> None:
        """It works without a compiler, and says that its generator is the slow one."""
        empty = Path(self.mktemp()).absolute()
        empty.mkdir()
        ran = self.run_(
            *(
                "--loads",
                "tls-resumed",
                "--servers",
                "submitd",
                "--idle",
                "2",
                "--repetitions",
                "1",
            ),
            *("--messages", "60", "--seconds", "0"),
            path=str(empty),
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("the slow generator", ran.stderr)

    def test_durable(self) -> None:
        """Messages that must be on disk are found there, in the Maildir and in the spool."""
        ran = self.run_(
            *("--loads", "durable", "--servers", "submitd-maildir,submitd-spool", "--fresh"),
            *("--idle", "0", "--repetitions", "1", "--messages", "30", "--seconds", "0"),
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("submitd-spool", ran.stdout)

    def test_otherPython(self) -> None:
        """submitd is measured on the Python that is named, where one is."""
        amount = ("--idle", "0", "--repetitions", "1", "--messages", "20", "--seconds", "0")
        servers = ("--servers", "submitd,submitd-other,submitd-spool-other")
        loads = ("--loads", "plain,durable")
        ran = self.run_(*servers, *loads, "--other-python", sys.executable, *amount)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("submitd-spool-other", ran.stdout)
        ran = self.run_(*servers, "--loads", "plain", *amount)
        self.assertIn("without submitd-other: name a Python", ran.stderr)
        self.assertNotIn("submitd-other", ran.stdout)
        ran = self.run_(*servers, "--other-python", "no-such-program")
        self.assertEqual(ran.returncode, 2)
        self.assertIn("there is no program no-such-program", ran.stderr)

    def test_growth(self) -> None:
        """The growth of a line is measured point by point, and can be put into a page."""
        output = Path(self.mktemp()).absolute()
        ran = self.run_(
            *("growth", "--lines", "recipients,queued", "--largest", "10"),
            *("--repetitions", "1", "--messages", "20", "--seconds", "0"),
            *("--output", str(output)),
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("recipients  10", ran.stdout)
        self.assertIn("queued      0", ran.stdout)
        shown = self.run_("--rst", str(output / "growth.json"))
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertIn(".. list-table:: Recipients in the queue (durable)", shown.stdout)

    def test_workers(self) -> None:
        """One worker on one core and on two, two workers, and two services apart."""
        short = ("--loads", "plain", "--repetitions", "1", "--seconds", "0.2")
        ran = self.run_(*short, module="benchmarks.workers")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        names, figures = (line.split() for line in ran.stdout.splitlines())
        self.assertIn("apart", names)
        self.assertEqual(figures[0], "plain")
        self.assertEqual(len(figures), 8)
        self.assertGreater(min(map(float, figures[1:])), 0.0)

    def test_noResults(self) -> None:
        """A file that is none of results is named, instead of a page that is spoilt."""
        ran = self.run_("--rst", "no-such-file")
        self.assertEqual(ran.returncode, 2)
        self.assertIn("no-such-file", ran.stderr)

    def test_unknown(self) -> None:
        """A load that there is not is named, and not left out in silence."""
        ran = self.run_("--loads", "plain,pain")
        self.assertEqual(ran.returncode, 2)
        self.assertIn("there is no pain; known are: plain,", ran.stderr)

    def test_peerMissing(self) -> None:
        """A peer that is not installed is left out, with what it lacks."""
        if not shutil.which("node"):
            raise SkipTest("there is no node")
        ran = self.run_(
            *("--node", self.mktemp(), "--loads", "plain", "--servers", "smtp-server,submitd"),
            *("--messages", "20", "--seconds", "0", "--repetitions", "1", "--idle", "0"),
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("without smtp-server: not in", ran.stderr)
