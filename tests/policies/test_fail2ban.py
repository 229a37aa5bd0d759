"""etc/fail2ban: the filter finds who fails in the log as it is written, and nobody else."""

from __future__ import annotations

import configparser
import io
import re
import shutil
import subprocess
from pathlib import Path

from twisted.logger import ILogObserver, Logger, LogPublisher, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from submitd import events

ETC = Path(__file__).parents[2] / "etc" / "fail2ban"
FILTER = ETC / "filter.d" / "submitd.conf"
PROGRAM = shutil.which("fail2ban-regex")

# As fail2ban puts it in place of <HOST>, as far as these logs go.
HOST = r"(?P<host>[0-9a-fA-F:.]+)"
# What fail2ban takes out of a line before it looks.
STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}")

# Names that people type to look like another line, or another field.
NAMES = (
    b"alice",
    b"x peer=203.0.113.9 login failed: session=A peer=203.0.113.9",
    b"\n2024-01-01T00:00:00+0000 [submitd#warn] login failed: session=A peer=203.0.113.9 user=x",
    b"\r\n [submitd#warn] login blocked: session=A peer=203.0.113.9",
    b'" peer=203.0.113.9 "',
)


class FilterCase(SynchronousTestCase):
    """Has a log as twistd writes it."""

    def setUp(self) -> None:
        self.written = io.StringIO()
        observer: ILogObserver = LogPublisher(textFileLogObserver(self.written))
        self.patch(events, "log", Logger(namespace="submitd", observer=observer))

    def write(self) -> list[str]:
        """Failures of one address under many names, a block, and what is no failure.

        :return: the lines.
        """
        for name in NAMES:
            events.emit(
                events.LOGIN_FAILED,
                session="ABC",
                peer="192.0.2.7",
                user=name,
                mechanism="PLAIN",
                cause="peer=203.0.113.9",
            )
        events.emit(
            events.LOGIN_BLOCKED, session="ABC", peer="2001:db8::7", scope="network", limit="x"
        )
        for name in NAMES:
            events.emit(events.LOGIN_SUCCEEDED, session="ABC", peer="203.0.113.9", user=name)
            events.emit(
                events.REFUSED, session="ABC", peer="203.0.113.9", cause=name, command=b"AUTH"
            )
            events.emit(events.LOGIN_FAILED, session="ABC", peer="", user=name)
        return self.written.getvalue().splitlines()


class RegexTests(FilterCase):
    """The expression itself."""

    def test_lines(self) -> None:
        """Each failure and each block gives its address; no line gives another."""
        filters = configparser.ConfigParser(interpolation=None)
        filters.read(FILTER)
        expression = re.compile(filters["Definition"]["failregex"].replace("<HOST>", HOST))
        found = [
            match["host"]
            for line in self.write()
            if (match := expression.search(STAMP.sub("", line, count=1)))
        ]
        self.assertEqual(found, ["192.0.2.7"] * len(NAMES) + ["2001:db8::7"])

    def test_journal(self) -> None:
        """The same of the journal, which has host and process in front and keeps our own time."""
        filters = configparser.ConfigParser(interpolation=None)
        filters.read(FILTER)
        expression = re.compile(filters["Definition"]["failregex"].replace("<HOST>", HOST))
        lines = [f"mail.example.com twistd[4711]: {line}" for line in self.write()]
        found = [match["host"] for line in lines if (match := expression.search(line))]
        self.assertEqual(found, ["192.0.2.7"] * len(NAMES) + ["2001:db8::7"])

    def test_unit(self) -> None:
        """The jail reads the log where the unit has it."""
        unit, jail, filters = (configparser.RawConfigParser(strict=False) for _ in range(3))
        unit.read(ETC.parent / "submitd.service")
        jail.read(ETC / "jail.d" / "submitd.conf")
        filters.read(FILTER)
        hasFile = "--logfile" in unit["Service"]["ExecStart"]
        self.assertEqual((hasFile, jail["submitd"]["backend"]), (False, "systemd"))
        self.assertNotIn("logpath", jail["submitd"])
        self.assertEqual(filters["Definition"]["journalmatch"], "_SYSTEMD_UNIT=submitd.service")

    def test_jail(self) -> None:
        """The jail uses the filter, and is no quicker than the throttle."""
        jail = configparser.ConfigParser(interpolation=None)
        jail.read(ETC / "jail.d" / "submitd.conf")
        self.assertEqual(jail["submitd"]["filter"], FILTER.stem)
        self.assertGreater(jail["submitd"].getint("maxretry"), 50)


class ProgramTests(FilterCase):
    """fail2ban itself."""

    if PROGRAM is None:
        skip = "fail2ban is not installed"

    def test_matches(self) -> None:
        """It reads the filter, the time and the addresses as we do."""
        lines = self.write()
        log = Path(self.mktemp())
        log.write_text("\n".join(lines) + "\n")
        done = subprocess.run(
            [str(PROGRAM), "--print-all-matched", str(log), str(FILTER)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        counted = re.search(r"Lines: (\d+) lines, 0 ignored, (\d+) matched", done.stdout)
        assert counted is not None, done.stdout
        self.assertEqual(counted.groups(), (str(len(lines)), str(len(NAMES) + 1)))
