"""Writes log lines, those of one moment together, and is the text log of twistd.

To write and flush each line by itself costs a busy server as much as a command of its clients.  So
lines wait for others, for ``WAIT`` seconds at most; a warning or an error goes out at once, with
all that waited, and so does what is logged by a thread or while no reactor runs.  A process that is
killed loses the lines of that moment: what was promised to a client does not stand in a log.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python.logfile import LogFile
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

# Seconds that a line waits for others, at most; short enough for whoever follows the file.
WAIT = 0.1
# Lines that are held, at most.
MOST = 256

_URGENT = frozenset({LogLevel.warn, LogLevel.error, LogLevel.critical})


class Lines(Protocol):
    """What is written to: a text file, or Twisted's LogFile."""

    def write(self, text: str, /) -> object:
        """Take text."""

    def flush(self) -> None:
        """Let go of it."""


@implementer(ILogObserver)
class LogWriter:
    """An observer that writes lines to a file.

    :param outFile: takes text.
    :param format: an event as a line with its end; ``None`` for an event that is not shown.
    :param reactor: tells the time when lines leave; ``None`` writes each at once.
    """

    def __init__(
        self, outFile: Lines, format: Callable[[LogEvent], str | None], reactor: Any = None
    ) -> None:
        self._outFile = outFile
        self._format = format
        self._reactor = reactor
        self._lines: list[str] = []
        self._due: IDelayedCall | None = None
        if reactor is not None:
            reactor.addSystemEventTrigger("after", "shutdown", self.end)

    def __call__(self, event: LogEvent) -> None:
        """Take an event."""
        line = self._format(event)
        if not line:
            return
        self._lines.append(line)
        if self._due is not None:
            if _isUrgent(event) or len(self._lines) >= MOST:
                self.flush()
        elif self._mayWait(event):
            self._due = self._reactor.callLater(WAIT, self._late)
        else:
            self.flush()

    def _mayWait(self, event: LogEvent) -> bool:
        return (
            self._reactor is not None
            and self._reactor.running
            and not _isUrgent(event)
            and isInIOThread()
        )

    def _late(self) -> None:
        self._due = None
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if lines:
            self._outFile.write("".join(lines))
            self._outFile.flush()

    def end(self) -> None:
        """From now on no line waits: nobody would come for it."""
        self._reactor = None
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self.flush()


def _isUrgent(event: LogEvent) -> bool:
    # Lines of another process have waited there.
    return event.get("log_level") in _URGENT or "log_lines" in event


def target(options: Mapping[str, Any]) -> str | None:
    """Where twistd would write its text log; ``None`` where something else was asked for.

    :param options: those of twistd: ``logger``, ``syslog``, ``logfile``, ``nodaemon``.
    :return: a file, or ``"-"`` for standard output.
    """
    inForeground = options.get("nodaemon")
    name = options.get("logfile") or ("-" if inForeground else "twistd.log")
    if options.get("logger") or options.get("syslog") or (name == "-" and not inForeground):
        return None
    return name


def textLog(
    name: str, format: Callable[[LogEvent], str | None], reactor: Any, waits: Any = None
) -> LogWriter:
    """Twistd's text log: a file that is rotated at each megabyte and at SIGUSR1.

    :param name: what :func:`target` gives.
    :param format: an event as a line.
    :param reactor: rotates the file.
    :param waits: what lines wait with, as for :class:`LogWriter`.
    """
    return LogWriter(sys.stdout if name == "-" else _rotated(name, reactor), format, waits)


def _rotated(name: str, reactor: Any) -> LogFile:
    # It says who writes to whom.  One that is there keeps its mode, and gives it to the next.
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    file: LogFile = LogFile.fromFullPath(name)
    if signal.getsignal(signal.SIGUSR1) in (None, signal.SIG_DFL):
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    return file
