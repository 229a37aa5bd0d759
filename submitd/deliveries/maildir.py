"""Keeps every message as a file of a Maildir.

A message is committed when its file has been written below ``tmp/``, synced, renamed into ``new/``
and that directory synced; only then does :meth:`MaildirMessage.eomReceived` fire.  Up to
:data:`BLOCK` octets wait in memory; from there on blocks go to the file in a thread while the
client waits, so a message of any size takes the same memory.  A small message is one call of the
thread pool, at its end.

In front stand, as RFC 5321 4.4 has it for a final delivery, ``Return-Path`` and ``Delivered-To``,
one for each of the first :data:`MAX_DELIVERED_TO` recipients: the envelope, which a Maildir has no
other place for.  Behind them the message stands as it was sent, its lines ended by CRLF.

A full disk, quota or file size is 452 4.3.1; any other failure is 451 4.3.0 with its cause in the
log.  After a failure or an abort, at whatever moment, no file of the message is left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.files import FULL, syncDirectory
from submitd.interfaces import IChecked, IDelivery, IMessage
from submitd.session import Session
from submitd.threads import Run, deferToThread
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, STORAGE_FULL, Reply

BLOCK = 256 * 1024
"""Octets of one message that are kept in memory before they go to its file."""

MAX_DELIVERED_TO = 1000
"""Recipients that are written into one message; the log has their number."""

STALE = 36 * 3600
"""Age in seconds after which a file in ``tmp/`` is a leftover of a crash, by Maildir's own rule."""

FOLDERS = ("tmp", "new", "cur")


Outcome = str | Sequence[Reply] | None


class UniqueNames:
    """Names by the rules of Maildir: time, then process, random and counter, then host.

    :ivar host: the host's name, with what a path or Maildir itself needs escaped.
    """

    def __init__(self) -> None:
        self.host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
        self._random = os.urandom(6).hex()
        self._counter = itertools.count(1)

    def next(self) -> str:
        """The next name.  The pid is asked for each time, since twistd forks."""
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        delivery = f"M{microseconds}P{os.getpid()}R{self._random}Q{next(self._counter)}"
        return f"{seconds}.{delivery}.{self.host}"


@implementer(IDelivery, IChecked)
@attrs.define(eq=False)
class Maildir:
    """Delivers into one Maildir.

    :param path: the Maildir; it is made, mode 0700, when the directory above it is there.
    :param envelope_fields: whether to put Return-Path and Delivered-To in front.
    :ivar run: runs a function in a thread and gives a Deferred; tests and embedding programs may
        set their own.
    """

    path: Path = attrs.field(
        converter=Path,
        metadata={"help": "The Maildir; made when the directory above it is there."},
    )
    envelope_fields: bool = attrs.field(
        default=True,
        metadata={"help": "Put Return-Path and Delivered-To in front of each message."},
    )
    run: Run = attrs.field(default=deferToThread, init=False, repr=False)
    _names: UniqueNames = attrs.field(init=False, repr=False, factory=UniqueNames)
    _prepared: bool = attrs.field(default=False, init=False, repr=False)

    def begin(self, session: Session, envelope: Envelope) -> MaildirMessage:
        """See :meth:`submitd.interfaces.IDelivery.begin`; nothing touches the disk yet."""
        head = envelopeFields(envelope) if self.envelope_fields else b""
        return MaildirMessage(MessageFile(self, head), self.run, envelope.id)

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        if self.path.is_dir():
            # A folder that is not there yet is made below the Maildir itself.
            return [
                sentence
                for sentence in map(_unwritable, dict.fromkeys(map(self._orParent, FOLDERS)))
                if sentence
            ]
        if os.path.lexists(self.path):
            return [f"{self.path}: is not a directory"]
        parent = self.path.parent
        if not parent.is_dir():
            return [f"{self.path}: cannot be made, for {parent} is not a directory"]
        sentence = _unwritable(parent)
        return [sentence] if sentence else []

    def _orParent(self, name: str) -> Path:
        folder = self.path / name
        return folder if os.path.lexists(folder) else self.path

    def create(self) -> None:
        """Make what is missing of the Maildir, durably.

        :raise OSError: when it cannot be made.
        """
        for folder in (self.path, *(self.path / name for name in FOLDERS)):
            try:
                folder.mkdir(0o700)
            except FileExistsError:
                continue
            syncDirectory(folder.parent)

    def open(self, name: str) -> int:
        """A new file in ``tmp/``, for reading and writing, mode 0600.

        :raise OSError: when it cannot be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        path = self.path / "tmp" / name
        if not self._prepared:
            self.create()
            self._sweep()
            self._prepared = True
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            self.create()
            return os.open(path, flags, 0o600)

    def _sweep(self) -> None:
        """Remove what a crash has left in ``tmp/`` long ago; nobody waits for these any more."""
        before = time.time() - STALE
        try:
            with os.scandir(self.path / "tmp") as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and found.st_mtime < before:
                        os.unlink(entry.path)
        except OSError:
            # Another process sweeps as well; and opening the file will say what matters.
            return

    def newName(self) -> str:
        """A name that no other file of the Maildir has."""
        return self._names.next()


def envelopeFields(envelope: Envelope) -> bytes:
    """Return-Path and Delivered-To; a parsed address has neither controls nor line ends in it."""
    fields = [b"Return-Path: %b\r\n" % bytes(envelope.reversePath)]
    for recipient in envelope.recipients[:MAX_DELIVERED_TO]:
        fields.append(b"Delivered-To: %b\r\n" % bytes(recipient.mailbox))
    return b"".join(fields)


def _unwritable(directory: Path) -> str | None:
    if not directory.is_dir():
        return f"{directory}: is not a directory"
    try:
        # Permission bits do not tell: root may write everywhere, but not where nothing can be.
        with tempfile.TemporaryFile(dir=directory):
            return None
    except PermissionError:
        return f"{directory}: no permission to write there"
    except OSError as error:
        return f"{directory}: nothing can be written there: {error.strerror}"


@implementer(IMessage)
class MaildirMessage:
    """A message on its way into a Maildir: the reactor's side of it.

    :param file: the thread's side.
    :param run: runs a function in a thread and gives a Deferred.
    :param id: the queue id to answer with.
    """

    def __init__(self, file: MessageFile, run: Run, id: str) -> None:
        self._file = file
        self._run = run
        self._id = id
        self._waiting = 0
        self._fields = b""

    def dataReceived(self, chunk: bytes) -> Deferred[None] | None:
        """See :meth:`submitd.interfaces.IMessage.dataReceived`."""
        self._file.pending.append(chunk)
        self._waiting += len(chunk)
        if self._waiting < BLOCK:
            return None
        self._waiting = 0
        return self._run(self._file.write).addErrback(self._failed)

    def prepend(self, fields: bytes) -> None:
        """See :meth:`submitd.interfaces.IMessage.prepend`; they stand below the envelope's."""
        self._fields = fields

    def eomReceived(self) -> Deferred[Outcome]:
        """See :meth:`submitd.interfaces.IMessage.eomReceived`."""
        committing = self._run(self._file.commit, self._fields).addErrback(self._failed)
        return committing.addCallback(lambda _: self._id)

    def connectionLost(self) -> None:
        """See :meth:`submitd.interfaces.IMessage.connectionLost`."""
        self._file.abort()

    def _failed(self, failure: Failure) -> Failure:
        # Also when a Deferred was cancelled because it took too long: 451 is said now, so a thread
        # that still works must not commit behind our back.
        self._file.abort()
        return failure


class MessageFile:
    """One message's file, as threads write it.

    Any thread may run :meth:`write` and :meth:`commit`, one at a time; the reactor's thread may
    call :meth:`abort` at any moment and never waits.  Whoever holds the lock last discards: abort
    sets the flag before it tries the lock, and a thread looks at the flag after it let go, so one
    of the two sees the other.

    :param maildir: where it goes.
    :param head: what stands in front of the message.
    :ivar pending: octets not yet in the file; whoever writes takes all there are, in order.
    """

    def __init__(self, maildir: Maildir, head: bytes) -> None:
        self.pending: deque[bytes] = deque()
        self._maildir = maildir
        self._head = head
        self._lock = threading.Lock()
        self._aborted = False
        self._descriptor = -1
        self._paths: list[Path] = []

    def write(self) -> None:
        """Move what is pending into the file.

        :raise Refused: when that fails; then the file is gone.
        """
        self._locked(self._write, b"")

    def commit(self, fields: bytes) -> None:
        """Write what is pending, and make the message durable in ``new/``.

        :param fields: to put in front, below the envelope's.
        :raise Refused: when that fails; then the file is gone.
        """
        self._locked(self._commit, fields)

    def abort(self) -> None:
        """Leave nothing behind, unless the commit is over."""
        self._aborted = True
        self._discardIfFree()

    def _locked(self, work: Callable[[bytes], None], fields: bytes) -> None:
        try:
            with self._lock:
                self._refuseAborted()
                work(fields)
        except OSError as error:
            self.abort()
            full = error.errno in FULL
            cause = f"{self._maildir.path}: {error.strerror or error}"
            raise Refused(STORAGE_FULL if full else LOCAL_ERROR, cause) from error
        finally:
            if self._aborted:
                self._discardIfFree()

    def _refuseAborted(self) -> None:
        if self._aborted:
            raise Refused(LOCAL_ERROR, "the message was aborted")

    def _write(self, fields: bytes) -> None:
        if self._descriptor < 0:
            self._open()
            self.pending.appendleft(self._head + fields)
        taken = []
        while self.pending:
            taken.append(self.pending.popleft())
        _writeAll(self._descriptor, b"".join(taken))

    def _open(self) -> None:
        name = self._maildir.newName()
        self._descriptor = self._maildir.open(name)
        self._paths.append(self._maildir.path / "tmp" / name)

    def _commit(self, fields: bytes) -> None:
        begun = self._descriptor >= 0
        self._write(fields)
        if begun and fields:
            self._copyBehind(fields)
        os.fsync(self._descriptor)
        self._close()
        # Twice looked at, on both sides of the point of no return: after 451 nothing is left.
        self._refuseAborted()
        temporary = self._paths[-1]
        new = self._maildir.path / "new"
        kept = new / temporary.name
        self._rename(temporary, kept)
        self._paths[-1] = kept
        syncDirectory(new)
        self._refuseAborted()
        self._paths.clear()

    def _rename(self, temporary: Path, kept: Path) -> None:
        try:
            os.rename(temporary, kept)
        except FileNotFoundError:
            # Somebody has removed new/, or another thread makes the Maildir again, tmp/ first.
            self._maildir.create()
            os.rename(temporary, kept)

    def _copyBehind(self, fields: bytes) -> None:
        """Begin a second file with what comes in front, and copy the first one behind it."""
        first, self._descriptor = self._descriptor, -1
        with open(first, "rb", buffering=0) as source:
            source.seek(len(self._head))
            self._open()
            _writeAll(self._descriptor, self._head + fields)
            with open(self._descriptor, "wb", closefd=False) as target:
                shutil.copyfileobj(source, target, BLOCK)
        os.unlink(self._paths[0])
        del self._paths[0]

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _discardIfFree(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._discard()
            finally:
                self._lock.release()

    def _discard(self) -> None:
        for path in self._paths:
            # It may be gone already, or the disk with it; there is nothing more to do here.
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._paths.clear()
        with contextlib.suppress(OSError):
            self._close()


def _writeAll(descriptor: int, data: bytes) -> None:
    """Write everything; one ``write`` may take less."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
