"""Policy ``sender-owner``: MAIL FROM must belong to the login (RFC 6409 6.1).

A login that is an address owns it; a file may give more.  Each of its lines is ``ADDRESS LOGIN
[LOGIN ...]``; ``@DOMAIN`` as the address stands for all addresses of a domain; ``#`` at the
beginning of a line makes it a comment.  Addresses are compared as equality.py says; so are logins
that are addresses, and other logins letter by letter.

The file is read again when it changes.  A line that is broken is named, with file and number, and
the others work.  A file that can no longer be read is named once, and what was read last stays.

Refused: without a login 530 5.7.0; somebody else's address, and the null reverse-path unless
``allow_null``, 553 5.7.1.  The reply never tells whose the address is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import attrs
from zope.interface import implementer

from submitd import events
from submitd.envelope import Envelope
from submitd.equality import sameAddress, sameDomain, sameLocalPart
from submitd.interfaces import IChecked, ISenderPolicy
from submitd.session import Session
from submitd.wire.address import Mailbox, readMailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import LOGIN_REQUIRED, Reply

NOT_OWNED = Reply(553, "5.7.1", "Sender address rejected: not owned by user")

# Local part and domain; no local part stands for all of a domain (the empty one is an address).
Address = tuple[str | None, str]
Problem = tuple[int, str]


@implementer(ISenderPolicy, IChecked)
@attrs.define(eq=False)
class SenderOwner:
    """Refuses reverse-paths that do not belong to the login.

    :param map: a file that gives logins more addresses; ``None`` for none.
    :param allow_null: whether ``MAIL FROM:<>`` may be used, as for reports.
    """

    name: ClassVar[str] = "sender-owner"

    map: Path | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(Path),
        metadata={"help": "A file of lines ADDRESS LOGIN [LOGIN ...] that gives more addresses."},
    )
    allow_null: bool = attrs.field(
        default=False,
        metadata={"help": "Whether anybody may use the null sender <>."},
    )
    _owners: OwnersFile | None = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._owners = None if self.map is None else OwnersFile(self.map)

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        if self.map is None:
            return []
        try:
            _, problems = readOwners(self.map)
        except OSError as error:
            return [f"{self.map}: cannot be read: {error.strerror}"]
        return [f"{self.map}:{line}: {sentence}" for line, sentence in problems]

    def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """Refuse an address that the login does not own.

        :raise Refused: 530 5.7.0 or 553 5.7.1.
        """
        user, mailbox = session.user, envelope.reversePath.mailbox
        if user is None:
            raise Refused(LOGIN_REQUIRED)
        if mailbox is None:
            if not self.allow_null:
                raise Refused(NOT_OWNED, "null sender")
            return
        if user.owns(mailbox):
            return
        if self._owners is None or not self._owners.owns(user.avatarId, mailbox):
            raise Refused(NOT_OWNED, f"{mailbox} does not belong to {user.avatarId}")


class Owners:
    """Who owns which addresses: the content of one file, read."""

    def __init__(self) -> None:
        self._addresses: dict[Address, frozenset[str]] = {}

    def add(self, address: Address, logins: frozenset[str]) -> None:
        """Give an address to more logins; no local part is a whole domain."""
        self._addresses[address] = self._addresses.get(address, frozenset()) | logins

    def owns(self, login: str, mailbox: Mailbox) -> bool:
        """Whether the address, or its domain, is given to the login."""
        address = sameAddress(mailbox)
        same = _sameLogin(login)
        keys: tuple[Address, Address] = (address, (None, address[1]))
        return any(same in self._addresses.get(key, ()) for key in keys)

    def __len__(self) -> int:
        return len(self._addresses)


class OwnersFile:
    """A file of owners that is read again when it has changed.

    :param path: the file; it is looked at whenever somebody asks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owners = Owners()
        self._seen: tuple[int, ...] | None = None
        self._problem = ""

    def owns(self, login: str, mailbox: Mailbox) -> bool:
        """Whether the file gives the address, or its domain, to the login."""
        self._refresh()
        return self._owners.owns(login, mailbox)

    def _refresh(self) -> None:
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            if seen == self._seen:
                return
            owners, problems = readOwners(self._path)
        except OSError as error:
            self._unreadable(f"cannot be read, what it said before stays: {error.strerror}")
            return
        self._owners, self._seen, self._problem = owners, seen, ""
        events.emit(events.FILE_READ, file=self._path, entries=len(owners))
        for line, sentence in problems:
            events.emit(events.FILE_PROBLEM, file=self._path, line=line, problem=sentence)

    def _unreadable(self, problem: str) -> None:
        # Once, and not at each message until somebody repairs it.
        if problem != self._problem:
            self._problem = problem
            self._seen = None
            events.emit(events.FILE_PROBLEM, file=self._path, problem=problem)


def readOwners(path: Path) -> tuple[Owners, list[Problem]]:
    """Read a file of owners.

    :return: what it says, and a line number and a sentence for each line that is broken.
    :raise OSError: when it cannot be read.
    """
    owners = Owners()
    problems = []
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(data.splitlines(), 1):
        try:
            _readLine(line, owners)
        except ValueError as error:
            problems.append((number, str(error)))
    return owners, problems


def _readLine(line: bytes, owners: Owners) -> None:
    words = line.split()
    if not words or words[0].startswith(b"#"):
        return
    address = _readAddress(words[0])
    try:
        logins = [word.decode("utf-8") for word in words[1:]]
    except UnicodeDecodeError:
        raise ValueError("login is not UTF-8") from None
    if not logins:
        raise ValueError("no login behind the address")
    owners.add(address, frozenset(map(_sameLogin, logins)))


def _readAddress(word: bytes) -> Address:
    if not word.startswith(b"@"):
        return sameAddress(readMailbox(word))
    return None, sameAddress(readMailbox(b"x" + word))[1]


def _sameLogin(login: str) -> str:
    """The form in which equal logins are equal strings."""
    localPart, at, domain = login.rpartition("@")
    return f"{sameLocalPart(localPart)}@{sameDomain(domain)}" if at else login
