"""The writing of log lines: together, but soon; and twistd's own text log."""

from __future__ import annotations

import io
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from submitd import logwriter
from submitd.logwriter import MOST, WAIT, LogWriter, target, textLog


class RunningClock(Clock):
    """A clock that is a running reactor, as far as a log needs one."""

    running = True

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Any] = []
        self.called: list[Any] = []

    def addSystemEventTrigger(self, phase: str, event: str, call: Any) -> None:
        """Note what is to be called."""
        self.triggers.append((phase, event, call))

    def callFromThread(self, call: Any) -> None:
        """Note what is to be called."""
        self.called.append(call)


def shown(event: dict[str, Any]) -> str | None:
    """The line of an event."""
    text: str | None = event["text"]
    return text


class LogWriterTests(SynchronousTestCase):
    """LogWriter."""

    def setUp(self) -> None:
        self.clock = RunningClock()
        self.out = io.StringIO()
        self.writer = LogWriter(self.out, shown, self.clock)
        self.patch(logwriter, "isInIOThread", lambda: True)

    def log(self, text: str | None, level: Any = LogLevel.info) -> None:
        """Have an event logged."""
        self.writer({"text": text, "log_level": level})

    def test_together(self) -> None:
        """Lines of one moment leave together, in their order, after WAIT seconds."""
        self.log("a\n")
        self.log("b\n")
        self.assertEqual(self.out.getvalue(), "")
        self.clock.advance(WAIT)
        self.assertEqual(self.out.getvalue(), "a\nb\n")
        self.log("c\n")
        self.clock.advance(WAIT)
        self.assertEqual(self.out.getvalue(), "a\nb\nc\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_urgent(self) -> None:
        """A warning does not wait, and takes what waited along in front of it."""
        for level in (LogLevel.warn, LogLevel.error, LogLevel.critical):
            self.log("a\n")
            self.log("b\n", level)
            self.assertEqual(self.out.getvalue(), "a\nb\n")
            self.clock.advance(WAIT)
            self.out.seek(0)
            self.out.truncate()
        self.log("alone\n", LogLevel.error)
        self.assertEqual(self.out.getvalue(), "alone\n")

    def test_bounded(self) -> None:
        """No more than MOST lines are held."""
        for _ in range(MOST):
            self.log("a\n")
        self.assertEqual(self.out.getvalue(), "a\n" * MOST)

    def test_notShown(self) -> None:
        """An event without a line writes nothing and starts no clock."""
        self.log(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_thread(self) -> None:
        """What a thread logs is written at once: only the reactor's thread may use its clock."""
        self.patch(logwriter, "isInIOThread", lambda: False)
        thread = threading.Thread(target=self.log, args=("a\n",))
        thread.start()
        thread.join()
        self.assertEqual(self.out.getvalue(), "a\n")

    def test_notRunning(self) -> None:
        """Before the reactor runs, lines do not wait for it."""
        self.clock.running = False
        self.log("a\n")
        self.assertEqual(self.out.getvalue(), "a\n")

    def test_end(self) -> None:
        """When the reactor has stopped, what waited is written, and all that follows at once."""
        [(phase, event, end)] = self.clock.triggers
        self.assertEqual((phase, event), ("after", "shutdown"))
        self.log("a\n")
        end()
        self.assertEqual(self.out.getvalue(), "a\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.log("b\n")
        self.assertEqual(self.out.getvalue(), "a\nb\n")

    def test_withoutReactor(self) -> None:
        """Without a reactor each line is written at once."""
        LogWriter(self.out, shown)({"text": "a\n"})
        self.assertEqual(self.out.getvalue(), "a\n")


class TargetTests(SynchronousTestCase):
    """target: where twistd would write."""

    def test_somethingElse(self) -> None:
        """A logger of the user's, the system log, and what twistd refuses stay twistd's."""
        for options in (
            {"logger": print, "nodaemon": True},
            {"syslog": True, "nodaemon": False},
            {"logfile": "-", "nodaemon": False},
        ):
            self.assertIsNone(target(options))

    def test_standardOutput(self) -> None:
        """In the foreground, without a file, it is standard output."""
        self.assertEqual(target({"nodaemon": True}), "-")
        self.assertEqual(target({"nodaemon": True, "logfile": "-"}), "-")

    def test_file(self) -> None:
        """The file that was named, and in the background twistd's own."""
        self.assertEqual(target({"nodaemon": True, "logfile": "x.log"}), "x.log")
        self.assertEqual(target({"nodaemon": False}), "twistd.log")


class TextLogTests(SynchronousTestCase):
    """textLog."""

    def setUp(self) -> None:
        before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.clock = RunningClock()

    def test_standardOutput(self) -> None:
        """It writes to standard output."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        textLog("-", shown, self.clock, self.clock)({"text": "a\n", "log_level": LogLevel.warn})
        self.assertEqual(out.getvalue(), "a\n")

    def test_rotate(self) -> None:
        """It writes to a file, and SIGUSR1 begins a new one, in the reactor's thread."""
        log = textLog(str(self.directory / "x.log"), shown, self.clock, self.clock)
        log({"text": "a\n", "log_level": LogLevel.warn})
        self.assertEqual((self.directory / "x.log").read_text(), "a\n")
        signal.raise_signal(signal.SIGUSR1)
        [rotate] = self.clock.called
        rotate()
        self.assertEqual((self.directory / "x.log.1").read_text(), "a\n")

    def test_otherHandler(self) -> None:
        """A handler that somebody else has for SIGUSR1 stays."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        textLog(str(self.directory / "x.log"), shown, self.clock, self.clock)
        self.assertEqual(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)
