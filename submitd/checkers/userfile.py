"""A text file of users, one ``name:entry`` per line, re-read when it changes.

Blank lines and lines that begin with ``#`` are skipped.  A line that cannot be used is named in the
log by file and number, never by content, and the rest works.  A file that vanishes, cannot be read
or has no usable line any more, only broken ones, leaves the last good content in force, with one
line in the log; a file that was never good makes every login :class:`LoginUnavailable`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs
from twisted.cred.error import UnauthorizedLogin
from zope.interface import implementer

from submitd import events
from submitd.checkers import AvatarId, LoginUnavailable, foldName
from submitd.files import Stamp, settledStamp, stampOf
from submitd.interfaces import IChecked, IRevised, IWarns
from submitd.sasl.credentials import nameProblem

Entry = TypeVar("Entry")

# One broken file must not fill the log.
MAX_NAMED_LINES = 20


class BadLine(Exception):
    """A line that cannot be used; its text never quotes the line."""


class _Unusable(Exception):
    """The whole file cannot be used; its text says why, without the path."""


@attrs.frozen
class Account(Generic[Entry]):
    """One user of a file.

    :param name: as the file writes it.
    :param entries: one, or several where the file may name a user more than once.
    """

    name: bytes
    entries: tuple[Entry, ...]


class UserFile(Generic[Entry]):
    """The users of one file, always as the file is now.

    :param path: where it is.
    :param parse: makes an entry of what follows the first colon; raises :class:`BadLine`.
    :param several: whether a user may have several lines.
    :param private: whether to refuse a file that its group or others have any access to.
    :param seconds: the time of day, to compare with the file's.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[bytes], Entry],
        *,
        several: bool = False,
        private: bool = False,
        seconds: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._parse = parse
        self._several = several
        self._private = private
        self._seconds = seconds
        self._accounts: dict[bytes, Account[Entry]] | None = None
        self._entries: dict[bytes, Entry] = {}
        self._content: bytes | None = None
        self._stamp: Stamp | None = None
        self._problem = ""
        self._leftOut: list[tuple[int | None, str]] = []
        self._revision = 0

    def accounts(self) -> Mapping[bytes, Account[Entry]]:
        """The users, by folded name.

        :raise LoginUnavailable: when the file was never usable.
        """
        self._refresh()
        if self._accounts is None:
            raise LoginUnavailable(f"{self.path}: {self._problem}")
        return self._accounts

    def revision(self) -> int:
        """A number that changes with the users."""
        self._refresh()
        return self._revision

    def check(self) -> list[str]:
        """What is wrong with the file as a whole; for ``IChecked``."""
        self._refresh()
        if self._problem:
            return [f"{self.path}: {self._problem}"]
        return [] if self._accounts else [f"{self.path}: no users"]

    def warnings(self) -> list[str]:
        """The lines that are left out, in sentences; for ``IWarns``."""
        self._refresh()
        return [
            f"{self.path}: {told}" if number is None else f"{self.path}:{number}: {told}"
            for number, told in self._leftOut
        ]

    def _refresh(self) -> None:
        try:
            status = self._status()
            if stampOf(status) == self._stamp:
                return
            content = self._read()
        except (_Unusable, OSError) as error:
            self._stamp = None
            self._complain(_reason(error))
        else:
            self._stamp = settledStamp(status, self._seconds())
            self._take(content, status.st_mode)

    def _status(self) -> os.stat_result:
        status = os.stat(self.path)
        if stat.S_ISDIR(status.st_mode):
            raise _Unusable("is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable("is not a regular file")
        if self._private and status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise _Unusable(f"its group or others have access (mode {mode:04o}); it needs 0600")
        return status

    def _read(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def _take(self, content: bytes, mode: int) -> None:
        if content != self._content:
            accounts, problems = self._parseLines(content)
            if problems and not accounts:
                at, reason = problems[0]
                self._complain(f"no usable line; line {at}: {reason}")
                return
            self._content = content
            self._accounts = accounts
            self._revision += 1
            events.emit(events.FILE_READ, file=self.path, entries=len(accounts))
            self._leftOut = _named(problems)
            for number, problem in self._leftOut:
                line = {} if number is None else {"line": number}
                events.emit(events.FILE_PROBLEM, file=self.path, **line, problem=problem)
            if mode & stat.S_IROTH:
                told = f"everybody can read it (mode {stat.S_IMODE(mode):04o})"
                events.emit(events.FILE_PROBLEM, file=self.path, problem=told)
        self._problem = ""

    def _parseLines(
        self, content: bytes
    ) -> tuple[dict[bytes, Account[Entry]], list[tuple[int, str]]]:
        accounts: dict[bytes, Account[Entry]] = {}
        problems: list[tuple[int, str]] = []
        entries: dict[bytes, Entry] = {}
        # Editors on Windows put a byte order mark in front and CR at the ends.
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        for number, line in enumerate(lines, 1):
            if isUserLine(line):
                try:
                    self._addLine(accounts, line.removesuffix(b"\r"), entries)
                except BadLine as error:
                    problems.append((number, str(error)))
        if entries:  # a file that is being written may be empty for a moment
            self._entries = entries
        return accounts, problems

    def _addLine(
        self, accounts: dict[bytes, Account[Entry]], line: bytes, entries: dict[bytes, Entry]
    ) -> None:
        name, colon, rest = line.partition(b":")
        if not colon:
            raise BadLine("no colon")
        problem = nameProblem(name)
        if problem:
            raise BadLine(problem)
        # Most lines stay as they are when a file changes, and a hash takes long to look at: 50,000
        # of them held up the reactor for three seconds.
        entry = self._entries[rest] if rest in self._entries else self._parse(rest)
        entries[rest] = entry
        known = accounts.get(foldName(name))
        if known is None:
            accounts[foldName(name)] = Account(name, (entry,))
        elif self._several:
            accounts[foldName(name)] = Account(known.name, (*known.entries, entry))
        else:
            raise BadLine("the user has a line already; the first one counts")

    def _complain(self, problem: str) -> None:
        if problem == self._problem:
            return  # once, not at each login
        self._problem = problem
        known = self._accounts is not None
        meaning = "the users read before stay in force" if known else "nobody can log in"
        events.emit(events.FILE_PROBLEM, file=self.path, problem=f"{problem}; {meaning}")


@implementer(IChecked, IRevised, IWarns)
class FileChecker(Generic[Entry]):
    """What every checker that asks one file has to say of it.

    :param file: the users.
    """

    def __init__(self, file: UserFile[Entry]) -> None:
        self._file = file

    def check(self) -> list[str]:
        """What is wrong with the file."""
        return self._file.check()

    def warnings(self) -> list[str]:
        """The lines of the file that are left out."""
        return self._file.warnings()

    def revision(self) -> int:
        """A number that changes with the file."""
        return self._file.revision()


def grant(matched: bool, account: Account[Any] | None) -> AvatarId:
    """The answer of a checker that has compared.

    :raise UnauthorizedLogin: when nothing matched, or there is no such user.
    """
    if not matched or account is None:
        raise UnauthorizedLogin()
    return account.name


def isUserLine(line: bytes) -> bool:
    """Whether a line is more than blank or a comment."""
    text = line.strip()
    return bool(text) and not text.startswith(b"#")


def _named(problems: list[tuple[int, str]]) -> list[tuple[int | None, str]]:
    """What is said of lines that cannot be used, with the number of each."""
    said: list[tuple[int | None, str]] = [
        (number, f"this line is left out: {problem}")
        for number, problem in problems[:MAX_NAMED_LINES]
    ]
    if len(problems) > MAX_NAMED_LINES:
        said.append((None, f"{len(problems) - MAX_NAMED_LINES} more lines are left out"))
    return said


def _reason(error: _Unusable | OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    return str(error)
