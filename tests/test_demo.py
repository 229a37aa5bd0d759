"""Tests of :mod:`submitd.demo`: what is made, kept, and printed."""

from __future__ import annotations

import ast
import datetime
import stat
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from submitd import demo, preflight

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class DemoTests(SynchronousTestCase):
    """The demonstration's state and settings."""

    def setUp(self) -> None:
        self.state = Path(self.mktemp()) / "state"

    def prepare(self) -> demo.Demo:
        """Make ready."""
        return demo.prepare(self.state, (2587, 2465), NOW)

    def test_settings(self) -> None:
        """It passes its own examination, listens on 127.0.0.1 alone and wants TLS and a login."""
        # Its certificate is looked at by the clock of today.
        now = datetime.datetime.now(datetime.UTC)
        settings = demo.prepare(self.state, (2587, 2465), now).settings
        self.assertEqual(preflight.examine(settings), [])
        for listener in settings.listener:
            address = preflight.addressOf(listener.endpoint)
            assert address is not None
            self.assertEqual(address.host, "127.0.0.1")
            self.assertTrue(listener.require_tls)
        self.assertTrue(settings.auth.required)
        self.assertFalse(settings.auth.insecure)

    def test_private(self) -> None:
        """Password and directory are for the owner alone."""
        self.prepare()
        self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE((self.state / "secrets").stat().st_mode), 0o600)

    def test_kept(self) -> None:
        """The next start has the same password, so that a mail program need not be set up again."""
        first = self.prepare()
        (self.state / "secrets").chmod(0o644)
        self.assertEqual(self.prepare().password, first.password)
        self.assertEqual(stat.S_IMODE((self.state / "secrets").stat().st_mode), 0o600)

    def test_random(self) -> None:
        """Two demonstrations have two passwords, and a damaged file gets a new one.

        None begins with "-", which a command would take for an option.
        """
        first = self.prepare().password
        self.assertRegex(first, r"\A[0-9a-f]{24}\Z")
        (self.state / "secrets").write_bytes(b"\xff")
        second = self.prepare().password
        (self.state / "secrets").write_text("somebody:else")
        self.assertEqual(len({first, second, self.prepare().password}), 3)

    def test_unwritable(self) -> None:
        """A state directory that cannot be is an OSError."""
        self.state.parent.mkdir(exist_ok=True)
        self.state.write_text("a file")
        self.assertRaises(OSError, self.prepare)

    def test_stateDirectory(self) -> None:
        """By the rules of XDG: the variable, if it is absolute, else below the home directory."""
        home = Path.home() / ".local/state/submitd-demo"
        self.assertEqual(
            demo.stateDirectory({"XDG_STATE_HOME": "/var/x"}), Path("/var/x/submitd-demo")
        )
        self.assertEqual(demo.stateDirectory({"XDG_STATE_HOME": "x"}), home)
        self.assertEqual(demo.stateDirectory({}), home)


class WordsTests(SynchronousTestCase):
    """What is printed at the start."""

    def setUp(self) -> None:
        self.state = Path(self.mktemp()) / 'it\'s "here"'
        self.demo = demo.prepare(self.state, (2587, 2465), NOW)
        self.words = self.demo.words()
        self.paste = self.words.partition("any of these:\n")[2]

    def test_named(self) -> None:
        """User, password, ports and the Maildir are named."""
        for word in ("demo", self.demo.password, "2587", "2465", str(self.demo.maildir)):
            self.assertIn(word, self.words)

    def test_shell(self) -> None:
        """Every line to paste is right for a shell, whatever characters the directory has."""
        done = subprocess.run(["sh", "-n"], input=self.paste, text=True, capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        commands = [part.split()[0] for part in self.paste.split("\n\n")]
        self.assertEqual(commands, ["swaks", "printf", "openssl", "python3"])

    def test_python(self) -> None:
        """The lines of Python are Python."""
        source = self.paste.partition("<<'END'\n")[2].partition("END\n")[0]
        self.assertIn("client.login", source)
        ast.parse(source)
