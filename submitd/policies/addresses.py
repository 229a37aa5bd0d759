"""Addresses that an operator writes down, and the files they stand in.

A pattern is an address (``info@example.com``), a whole domain (``@example.com``), or all domains
below one (``@*.example.com``, which is not ``@example.com`` itself).  Addresses are compared as
equality.py says: without case, A-labels and U-labels the same.

:class:`WatchedFile` reads a file again when it has changed, on the reactor's thread: 100,000 lines
take a second.  A line that is broken is named, with file and number, and the others work.  A file
that can no longer be read is named once, and what was read last stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from submitd import events
from submitd.equality import sameAddress
from submitd.files import Stamp, settledStamp, stampOf
from submitd.wire.address import Mailbox, isDomain, readMailbox

T = TypeVar("T")

# Local part and domain.  No local part stands for all of a domain (the empty one is an address), a
# domain with a dot in front for all domains below it.
Pattern = tuple[str | None, str]
Problem = tuple[int, str]

# One broken file must not fill the log.
MAX_NAMED_LINES = 20


def readPattern(word: bytes) -> Pattern:
    """Read an address, ``@DOMAIN`` or ``@*.DOMAIN``.

    :raise ValueError: when it is none; says why.
    """
    if not word.startswith(b"@"):
        return sameAddress(readMailbox(word))
    below = word.startswith(b"@*.")
    domain = sameAddress(readMailbox(b"x@" + word.removeprefix(b"@").removeprefix(b"*.")))[1]
    return None, f".{domain}" if below else domain


def domainOrNothing(policy: object, attribute: object, domain: str) -> None:
    """The validator of a key that may name a domain.

    :raise ValueError: for what is none.
    """
    if domain and not isDomain(domain):
        raise ValueError(f'must be a domain, not "{domain}"')


class Addresses(Generic[T]):
    """Patterns, and what each of them stands for.

    :ivar line: the number of the line that is being read, where they are read from a file.
    """

    def __init__(self) -> None:
        self._values: dict[Pattern, T] = {}
        self._below = False
        self.line = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, pattern: Pattern) -> T | None:
        """What a pattern itself stands for."""
        return self._values.get(pattern)

    def set(self, pattern: Pattern, value: T) -> None:
        """Say what a pattern stands for."""
        self._values[pattern] = value
        self._below = self._below or (pattern[0] is None and pattern[1].startswith("."))

    def items(self) -> Iterator[tuple[Pattern, T]]:
        """All patterns in the order in which they came, and what they stand for."""
        yield from self._values.items()

    def find(self, mailbox: Mailbox) -> Iterator[T]:
        """What all patterns stand for that an address belongs to, the closest first."""
        values = self._values
        address = sameAddress(mailbox)
        if address in values:
            yield values[address]
        domain = address[1]
        if (None, domain) in values:
            yield values[None, domain]
        while self._below and "." in domain:
            domain = domain.partition(".")[2]
            if (None, f".{domain}") in values:
                yield values[None, f".{domain}"]


class WatchedFile(Generic[T]):
    """A file of lines that is read again when it has changed.

    :param path: the file; it is looked at whenever somebody asks.
    :param readLine: takes the words of a line into what a file says; raises ``ValueError`` for a
        broken one.
    :param seconds: the time of day, to compare with the file's.
    """

    def __init__(
        self,
        path: Path,
        readLine: Callable[[list[bytes], Addresses[T]], None],
        seconds: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._readLine = readLine
        self._seconds = seconds
        self._content: Addresses[T] | None = None
        self._octets: bytes | None = None
        self._stamp: Stamp | None = None
        self._problem = ""

    def content(self) -> Addresses[T] | None:
        """What the file says; ``None`` as long as it has never been read."""
        try:
            found = os.stat(self.path)
            if stampOf(found) != self._stamp:
                octets = self.path.read_bytes()
                self._stamp = settledStamp(found, self._seconds())
                self._take(octets)
        except OSError as error:
            self._unreadable(f"cannot be read, what it said before stays: {error.strerror}")
        return self._content

    def check(self) -> list[str]:
        """What is wrong with the file as a whole, in sentences; for ``IChecked``."""
        try:
            self.path.read_bytes()
        except OSError as error:
            return [f"{self.path}: cannot be read: {error.strerror}"]
        return []

    def warnings(self) -> list[str]:
        """The lines that are broken, in sentences; for ``IWarns``."""
        try:
            _, problems = self._read(self.path.read_bytes())
        except OSError:
            return []  # said by check()
        named = [
            f"{self.path}:{line}: this line is left out: {sentence}"
            for line, sentence in problems[:MAX_NAMED_LINES]
        ]
        return named + [f"{self.path}: {more}" for more in _more(problems)]

    def _take(self, octets: bytes) -> None:
        self._problem = ""
        if octets == self._octets:
            return
        self._content, problems = self._read(octets)
        self._octets = octets
        events.emit(events.FILE_READ, file=self.path, entries=len(self._content))
        for line, sentence in problems[:MAX_NAMED_LINES]:
            events.emit(events.FILE_PROBLEM, file=self.path, line=line, problem=sentence)
        for more in _more(problems):
            events.emit(events.FILE_PROBLEM, file=self.path, problem=more)

    def _read(self, octets: bytes) -> tuple[Addresses[T], list[Problem]]:
        content: Addresses[T] = Addresses()
        problems = []
        for number, line in enumerate(octets.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
            words, content.line = line.split(), number
            if words and not words[0].startswith(b"#"):
                try:
                    self._readLine(words, content)
                except ValueError as error:
                    problems.append((number, f"{error}{_hint(words)}"))
        return content, problems

    def _unreadable(self, problem: str) -> None:
        # Once, and not at each message until somebody repairs it.
        self._stamp = None
        if problem != self._problem:
            self._problem = problem
            events.emit(events.FILE_PROBLEM, file=self.path, problem=problem)


def _hint(words: list[bytes]) -> str:
    """What to do about a line in the form of Postfix, which lets commas stand between words."""
    isComma = any(b"," in word for word in words[1:])
    return "; what is listed stands apart by blanks alone, without commas" if isComma else ""


def _more(problems: list[Problem]) -> list[str]:
    """What is said in place of the lines that are too many to be named."""
    more = len(problems) - MAX_NAMED_LINES
    return [f"{more} more lines are broken"] if more > 0 else []
