"""Tests of :mod:`submitd.tap`: the command line, in this process and as a real one."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from twisted.application.service import IService, IServiceMaker
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from submitd import __version__, service, tap
from submitd.preflight import files
from tests import running
from tests.test_config import GOOD, HERE

DATA = HERE / "data"


class Files(SynchronousTestCase):
    """A directory with a good configuration."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.port, other = running.freePorts()
        self.put("key.pem", (DATA / "private_key.pem").read_bytes())
        self.put("passwd", (DATA / "passwd").read_bytes())
        text = GOOD.replace("tcp:587", f"tcp:{self.port}:interface=127.0.0.1")
        text = text.replace("tcp:465:interface=192.0.2.1", f"tcp:{other}:interface=127.0.0.1")
        self.file = self.put("submitd.toml", text.encode())

    def put(self, name: str, content: bytes) -> Path:
        """A file for its owner alone."""
        path = self.directory / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def spoil(self) -> list[str]:
        """Make two mistakes in the configuration; gives the lines that must be said."""
        text = self.file.read_text().replace("[auth]", "[auth]\nrequird = true")
        self.file.write_text(text.replace("key.pem", "none.pem"))
        return [
            f'{self.file}: auth.requird: unknown key; did you mean "required"?',
            f"{self.file}: tls.private_key: cannot read {self.directory}/none.pem:"
            " No such file or directory",
        ]


class ProcessTests(Files):
    """``twistd submitd`` as a process."""

    def test_checkGood(self) -> None:
        """--check of a good configuration says ok, exits with 0, and opens no port."""
        with socket.create_server(("127.0.0.1", self.port)):
            done = running.run("--config", str(self.file), "--check", cwd=self.directory)
        self.assertEqual((done.returncode, done.stderr, done.stdout), (0, f"{self.file}: ok\n", ""))

    def test_checkBad(self) -> None:
        """--check of a bad one says every mistake and exits with 1."""
        lines = self.spoil()
        done = running.run("-c", str(self.file), "--check", cwd=self.directory)
        self.assertEqual((done.returncode, done.stderr.splitlines()), (1, lines))

    def test_startBad(self) -> None:
        """A start with mistakes says them once, without a traceback, and exits with 1."""
        lines = self.spoil()
        done = running.run("-c", str(self.file), cwd=self.directory)
        self.assertEqual((done.returncode, done.stderr.splitlines()), (1, lines))
        self.assertEqual(done.stdout, "")

    def test_portInUse(self) -> None:
        """A port in use is one clear line before any port opens, and status 1."""
        with socket.create_server(("127.0.0.1", self.port)):
            done = running.run("-c", str(self.file), cwd=self.directory)
        endpoint = f"tcp:{self.port}:interface=127.0.0.1"
        self.assertEqual(
            (done.returncode, done.stderr, done.stdout),
            (
                1,
                f"{self.file}: listener[0].endpoint: cannot listen on {endpoint}:"
                " the port is in use by another program\n",
                "",
            ),
        )

    def test_noLogFile(self) -> None:
        """A log that cannot be written is one line, and no traceback."""
        done = subprocess.run(
            running.twistd("--logfile=/nonexistent/x.log", "submitd", "-c", str(self.file)),
            env=running.environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = "submitd: cannot write /nonexistent/x.log: No such file or directory (--logfile)\n"
        self.assertEqual((done.returncode, done.stderr), (1, said))

    def test_lastMoment(self) -> None:
        """What fails when the ports are opened is one line of twistd's log; no pid file stays."""
        self.file.write_text(
            self.file.read_text().replace('json = "events.json"', 'json = "/proc/none"')
        )
        command = running.twistd("submitd", "-c", str(self.file))
        command[command.index("--pidfile=")] = "--pidfile=pid"
        done = subprocess.run(
            command,
            env=running.environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write /proc/none: No such file or directory\n", done.stdout)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        self.assertFalse((self.directory / "pid").exists())

    def test_help(self) -> None:
        """--help explains the options, with examples; --version is ours."""
        done = running.run("--help", cwd=self.directory)
        self.assertEqual(done.returncode, 0)
        for word in ("--config", "--check", "--state", "--json-log", "--demo-ports", "--uid"):
            self.assertIn(word, done.stdout)
        self.assertIn("\n  twistd submitd -c submitd.toml --check ", done.stdout)
        done = running.run("--version", cwd=self.directory)
        self.assertEqual((done.returncode, done.stdout), (0, f"submitd {__version__}\n"))

    def test_demo(self) -> None:
        """The lines that the demonstration prints work when they are pasted."""
        demo = running.startDemo(self.directory)
        self.addCleanup(demo.stop)
        words = demo.output.partition("any of these:\n")[2].partition("\nEND\n")[0] + "\nEND\n"
        pasted = [part.strip() for part in words.split("\n\n") if part.strip()]
        programs = {"swaks": "swaks", "printf": "curl", "python3": "python3"}
        sent = 0
        for line in pasted:
            program = programs.get(line.split()[0])
            if program is None or shutil.which(program) is None:
                continue
            done = subprocess.run(
                ["sh", "-c", line],
                env=running.environment(None),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}")
            sent += 1
        self.assertGreater(sent, 0)
        self.assertEqual(len(demo.messages()), sent)
        self.assertEqual(demo.stop(), -15, demo.output)
        self.assertNotIn("Traceback", demo.output)


class OptionsTests(Files):
    """The options, in this process."""

    def parse(self, *arguments: str) -> tap.Options:
        """Parse a command line."""
        options = tap.Options()
        options.parseOptions(list(arguments))
        return options

    def said(self) -> io.StringIO:
        """What is printed on stderr from now on."""
        err = io.StringIO()
        self.patch(sys, "stderr", err)
        return err

    def test_plugin(self) -> None:
        """twistd finds the plug-in, and makes its service with these options."""
        [maker] = [each for each in getPlugins(IServiceMaker) if each.tapname == "submitd"]
        self.assertIs(maker.options, tap.Options)
        self.assertIs(maker.makeService, tap.makeService)

    def test_version(self) -> None:
        """--version prints one line and ends."""
        self.patch(sys, "stdout", out := io.StringIO())
        self.assertEqual(self.assertRaises(SystemExit, self.parse, "--version").code, 0)
        self.assertEqual(out.getvalue(), f"submitd {__version__}\n")

    def test_usage(self) -> None:
        """The help ends with the examples, whatever the width."""
        self.assertTrue(tap.Options().getUsage(60).endswith(tap.EXAMPLES))

    def test_checkNeedsConfig(self) -> None:
        """There is nothing to check in the demonstration."""
        self.assertRaises(UsageError, self.parse, "--check")

    def test_ports(self) -> None:
        """Two ports, or a mistake that shows how."""
        self.assertEqual(self.parse("--demo-ports", "1,65535")["ports"], (1, 65535))
        for wrong in ("2587", "1,2,3", "a,b", "0,1", "1,65536", ""):
            self.assertRaises(UsageError, self.parse, "--demo-ports", wrong)

    def test_check(self) -> None:
        """--check ends with the exit status; warnings are no mistakes."""
        err = self.said()
        (self.directory / "key.pem").chmod(0o644)
        error = self.assertRaises(SystemExit, self.parse, "-c", str(self.file), "--check")
        self.assertEqual(error.code, 0)
        first, last = err.getvalue().splitlines()
        self.assertTrue(first.startswith(f"{self.file}: warning: tls.private_key: "), first)
        self.assertEqual(last, f"{self.file}: ok")

    def test_checkBad(self) -> None:
        """With mistakes the status is 1."""
        lines = self.spoil()
        err = self.said()
        error = self.assertRaises(SystemExit, self.parse, "-c", str(self.file), "--check")
        self.assertEqual((error.code, err.getvalue().splitlines()), (1, lines))

    def test_checkLog(self) -> None:
        """A JSON log that the start could not open is among the mistakes, also beside others."""
        mistake = f"{self.file}: log.json: no permission to write to {self.directory}"
        said = "no permission to write to {}".format
        self.patch(files, "unwritable", lambda file, alone: said(file.parent))
        for spoil in (list, self.spoil):
            lines, err = [*spoil(), mistake], self.said()
            error = self.assertRaises(SystemExit, self.parse, "-c", str(self.file), "--check")
            self.assertEqual((error.code, err.getvalue().splitlines()), (1, lines))

    def test_makeService(self) -> None:
        """A configuration becomes a service; --json-log counts before the file."""
        err = self.said()
        options = self.parse("-c", str(self.file), "--json-log", "-")
        made = tap.makeService(options)
        self.assertTrue(IService.providedBy(made))
        assert isinstance(made, service.SubmissionService)
        self.assertEqual(made.hostname, "mail.example.com")
        self.assertEqual(err.getvalue(), "")

    def test_workersBehindChroot(self) -> None:
        """Workers are processes of Python, which is not to be found behind --chroot."""
        self.file.write_text("workers = 2\n" + self.file.read_text())
        options = self.parse("-c", str(self.file))
        options.parent = {"chroot": "/srv"}  # type: ignore[assignment]
        err = self.said()
        self.assertRaises(SystemExit, tap.makeService, options)
        self.assertIn("--chroot", err.getvalue())

    def test_makeServiceBad(self) -> None:
        """Mistakes end the start, each said once."""
        lines = self.spoil()
        err = self.said()
        error = self.assertRaises(SystemExit, tap.makeService, self.parse("-c", str(self.file)))
        self.assertEqual((error.code, err.getvalue().splitlines()), (1, lines))

    def test_makeServicePortInUse(self) -> None:
        """So does a port that is in use."""
        err = self.said()
        with socket.create_server(("127.0.0.1", self.port)):
            self.assertRaises(SystemExit, tap.makeService, self.parse("-c", str(self.file)))
        self.assertIn("in use by another program", err.getvalue())

    def test_makeDemo(self) -> None:
        """Without a configuration it is the demonstration, which says how to use it."""
        self.patch(sys, "stdout", out := io.StringIO())
        ports = ",".join(map(str, running.freePorts()))
        options = self.parse("--state", str(self.directory / "state"), "--demo-ports", ports)
        made = tap.makeService(options)
        assert isinstance(made, service.SubmissionService)
        self.assertEqual(made.hostname, "localhost")
        self.assertIn("Send a message with any of these", out.getvalue())

    def test_demoUnwritable(self) -> None:
        """A state directory that cannot be written is one line."""
        err = self.said()
        options = self.parse("--state", str(self.file / "state"))
        self.assertRaises(SystemExit, tap.makeService, options)
        self.assertEqual(
            err.getvalue(),
            f"submitd: cannot keep the demonstration in {self.file}/state: Not a directory\n",
        )

    def test_demoAtHome(self) -> None:
        """Without --state it is kept where the user's state belongs."""
        self.said()
        blocked = self.put("blocked", b"")
        self.patch(tap.os, "environ", {"XDG_STATE_HOME": str(blocked)})
        self.assertRaises(SystemExit, tap.makeService, self.parse())
