"""A PostgreSQL of the tests' own: in a directory below /tmp, on a unix socket, as another user.

One server serves all tests of a process; each test begins with an empty data base.  It is stopped,
by its process id, when the process ends.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool
from twisted.trial.unittest import SkipTest

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def require(case: Any) -> None:
    """Have an empty data base, or skip the test with the reason."""
    if program("initdb") is None:
        raise SkipTest("there is no PostgreSQL: apt-get install postgresql")
    server().empty()


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is."""
    for folder in FOLDERS:
        if (folder / name).exists():
            return str(folder / name)
    return shutil.which(name)


def user() -> str:
    """Who runs it; it refuses to be run by root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


class Server:
    """One server."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="submitd-pg."))
        self.process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            found = pwd.getpwnam(user())
            os.chown(self.directory, found.pw_uid, found.pw_gid)
        subprocess.run(
            self.command(
                "initdb",
                "-D",
                str(self.directory / "data"),
                "-U",
                "submitd",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ),
            check=True,
            capture_output=True,
            cwd="/",
        )
        atexit.register(self.remove)
        self.start()

    def command(self, name: str, *arguments: str) -> list[str]:
        """A command line, as the other user."""
        become = (
            [
                "setpriv",
                f"--reuid={user()}",
                f"--regid={pwd.getpwnam(user()).pw_gid}",
                "--clear-groups",
                "--",
            ]
            if os.geteuid() == 0
            else []
        )
        return [*become, str(program(name)), *arguments]

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.process = subprocess.Popen(
            self.command(
                "postgres",
                "-D",
                str(self.directory / "data"),
                "-k",
                str(self.directory),
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=on",
                "-c",
                "max_connections=40",
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        for _ in range(200):
            try:
                self.sql("SELECT 1")
                return
            except sa.exc.OperationalError:
                time.sleep(0.05)
        raise RuntimeError("PostgreSQL does not start")

    def stop(self) -> None:
        """Stop it at once, with all its connections (SIGINT is its fast shutdown)."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(2)
            process.wait(30)

    def remove(self) -> None:
        """Stop it, and leave nothing of it."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        """How to get there."""
        return f"postgresql://submitd@/postgres?host={self.directory}"

    def sql(self, text: str) -> Any:
        """What a statement gives."""
        engine = sa.create_engine(
            sa.make_url(self.url).set(drivername="postgresql+psycopg"), poolclass=NullPool
        )
        with engine.connect() as connection:
            result = connection.exec_driver_sql(text)
            rows = result.all() if result.returns_rows else []
            connection.commit()
        return rows

    def empty(self) -> None:
        """Drop all there is."""
        if self.process is None:
            self.start()
        self.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


@cache
def server() -> Server:
    """The server of this process."""
    return Server()
