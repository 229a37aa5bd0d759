"""The delivery into a Maildir."""

from __future__ import annotations

import errno
import mailbox
import os
import re
import resource
import stat
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from submitd import files
from submitd.deliveries import maildir as module
from submitd.deliveries.maildir import BLOCK, MAX_DELIVERED_TO, Maildir
from submitd.envelope import Envelope, Recipient
from submitd.interfaces import IChecked, IDelivery, IMessage
from submitd.session import Session
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from submitd.wire.errors import Refused

MESSAGE = b"Subject: x\r\n\r\nHello\r\n"
ALICE = ReversePath(Mailbox("alice", "example.com"))
HEAD = b"Return-Path: <alice@example.com>\r\nDelivered-To: bob@example.org\r\n"


def makeEnvelope(*recipients: Mailbox, sender: ReversePath = ALICE) -> Envelope:
    """An envelope whose id is known; for Bob when nobody is named."""
    boxes = recipients or (Mailbox("bob", "example.org"),)
    return Envelope("ID", sender, recipients=[Recipient(each) for each in boxes])


class Threads:
    """Runs what is given to it when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self.calls.append((waiting, call, arguments))
        return waiting

    def next(self) -> None:
        """Run the call that has waited longest."""
        waiting, call, arguments = self.calls.pop(0)
        maybeDeferred(call, *arguments).chainDeferred(waiting)


class Disk:
    """The module ``os``, with calls that fail, or at which something else happens.

    :ivar at: name of the call -> what is done before it.
    """

    def __init__(self) -> None:
        self.at: dict[str, Callable[..., None]] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if not callable(real) or isinstance(real, type):
            return real

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.calls.append(name)
            if name in self.at:
                self.at[name](*arguments)
            return real(*arguments, **keywords)

        return call

    def fail(self, name: str, code: int, after: int = 0) -> None:
        """Have a call fail, from the one after so many on."""
        left = iter(range(after))

        def failing(*arguments: Any) -> None:
            if next(left, None) is None:
                raise OSError(code, os.strerror(code))

        self.at[name] = failing


class MaildirTestCase(SynchronousTestCase):
    """Has a Maildir that is not there yet, and calls that run at once."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.maildir = Maildir(self.path)
        self.maildir.run = maybeDeferred
        self.disk = Disk()
        for each in (module, files):
            self.patch(each, "os", self.disk)

    def begin(self, **changes: Any) -> Any:
        """A message from Alice to Bob."""
        return self.maildir.begin(Session(), makeEnvelope(**changes))

    def deliver(self, *chunks: bytes, fields: bytes = b"") -> Any:
        """Deliver a message, and give its queue id."""
        message = self.begin()
        for chunk in chunks:
            waiting = message.dataReceived(chunk)
            if waiting is not None:
                self.successResultOf(waiting)
        if fields:
            message.prepend(fields)
        return self.successResultOf(message.eomReceived())

    def files(self, folder: str = "*") -> list[Path]:
        """The files that are there."""
        return [path for path in self.path.glob(f"{folder}/*") if path.is_file()]

    def stored(self) -> bytes:
        """The one message in new/, when there is nothing else."""
        [path] = self.files()
        self.assertEqual(path.parent.name, "new")
        return path.read_bytes()

    def refusal(self, waiting: Deferred[Any]) -> str:
        """The code and status that a Deferred was refused with."""
        refused = self.failureResultOf(waiting, Refused).value
        return f"{refused.reply.code} {refused.reply.status}"


class DeliveryTests(MaildirTestCase):
    """Messages that are kept."""

    def test_interfaces(self) -> None:
        """It can stand wherever a delivery can."""
        self.assertTrue(verifyObject(IDelivery, self.maildir))
        self.assertTrue(verifyObject(IChecked, self.maildir))
        self.assertTrue(verifyObject(IMessage, self.begin()))

    def test_small(self) -> None:
        """A message stands in new/ as it was sent, behind its envelope, whose id it has."""
        self.assertEqual(self.deliver(MESSAGE[:5], MESSAGE[5:]), "ID")
        self.assertEqual(self.stored(), HEAD + MESSAGE)

    def test_modes(self) -> None:
        """Nobody else reads the mail: directories are 0700 and files 0600, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        self.deliver(MESSAGE)
        for path in (self.path, *self.path.iterdir()):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700)
        [path] = self.files()
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_readable(self) -> None:
        """Other programs read it: Python's own mailbox module finds the message."""
        self.deliver(MESSAGE)
        [message] = mailbox.Maildir(self.path, create=False)
        self.assertEqual(message["Subject"], "x")

    def test_durable(self) -> None:
        """The file is synced before it is renamed, and the directory after it."""
        self.deliver(MESSAGE)
        calls = [call for call in self.disk.calls if call in ("write", "fsync", "rename")]
        self.assertEqual(calls[-4:], ["write", "fsync", "rename", "fsync"])

    def test_notBeforeSynced(self) -> None:
        """The 250 waits for the disk: nothing fires before the thread has come to its end."""
        self.maildir.run = threads = Threads()
        message = self.begin()
        self.assertIsNone(message.dataReceived(MESSAGE))
        waiting = message.eomReceived()
        self.assertNoResult(waiting)
        self.assertEqual(self.files() if self.path.exists() else [], [])
        threads.next()
        self.assertEqual(self.successResultOf(waiting), "ID")
        self.assertEqual(threads.calls, [])

    def test_large(self) -> None:
        """A large message goes to the disk in blocks, and asks for time with each."""
        self.maildir.run = threads = Threads()
        message = self.begin()
        chunk = bytes(range(256)) * 256
        for _ in range(10):
            for _ in range(BLOCK // len(chunk) - 1):
                self.assertIsNone(message.dataReceived(chunk))
            waiting = message.dataReceived(chunk)
            self.assertNoResult(waiting)
            threads.next()
            self.successResultOf(waiting)
        waiting = message.eomReceived()
        threads.next()
        self.successResultOf(waiting)
        self.assertEqual(self.stored(), HEAD + chunk * (10 * BLOCK // len(chunk)))

    def test_impatient(self) -> None:
        """Octets stay in order even when the next come before there was time, in any thread."""
        self.maildir.run = threads = Threads()
        message = self.begin()
        waiting = [message.dataReceived(letter * BLOCK) for letter in (b"a", b"b")]
        message.dataReceived(b"c")
        waiting.append(message.eomReceived())
        threads.calls.reverse()
        threads.next()
        self.assertEqual(self.stored(), HEAD + b"a" * BLOCK + b"b" * BLOCK + b"c")
        self.assertEqual(self.successResultOf(waiting[2]), "ID")

    def test_partialWrites(self) -> None:
        """One write may take less than it was given; the rest goes with the next."""
        real = os.write
        self.disk.write = lambda where, data: real(where, bytes(data[:7]))  # type: ignore
        self.deliver(MESSAGE * 20)
        self.assertEqual(self.stored(), HEAD + MESSAGE * 20)

    def test_prependSmall(self) -> None:
        """Fields of a policy stand between the envelope's and the message."""
        self.deliver(MESSAGE, fields=b"X-Spam: no\r\n")
        self.assertEqual(self.stored(), HEAD + b"X-Spam: no\r\n" + MESSAGE)

    def test_prependLarge(self) -> None:
        """So they do when the message is on disk already; the first file is gone then."""
        body = bytes(range(256)) * (3 * BLOCK // 256)
        self.deliver(MESSAGE, body, b"end", fields=b"X-Spam: no\r\n")
        self.assertEqual(self.stored(), HEAD + b"X-Spam: no\r\n" + MESSAGE + body + b"end")

    def test_empty(self) -> None:
        """A message without an octet is a message."""
        self.deliver()
        self.assertEqual(self.stored(), HEAD)

    def test_memory(self) -> None:
        """A message of 100 MB takes no more memory than a block of it."""
        message = self.begin()
        chunk = b"x" * 65536
        self.successResultOf(message.dataReceived(b"x" * BLOCK))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(100 * 16):
            message.dataReceived(chunk)
        message.prepend(b"X: y\r\n")
        self.successResultOf(message.eomReceived())
        self.assertLess(tracemalloc.get_traced_memory()[1], 4 * BLOCK)
        [path] = self.files()
        self.assertEqual(path.stat().st_size, len(HEAD) + 6 + BLOCK + 100 * 1024 * 1024)

    def test_names(self) -> None:
        """Names follow Maildir's rules, and no two are the same."""
        self.patch(module.socket, "gethostname", lambda: "a/b:c")
        names = Maildir(self.path)
        made = {names.newName() for _ in range(100)}
        self.assertEqual(len(made), 100)
        for name in made:
            self.assertRegex(name, rf"^\d+\.M\d+P{os.getpid()}R\w+Q\d+\.a\\057b\\072c$")

    def test_madeAgain(self) -> None:
        """Somebody empties the Maildir while the service runs: it is made again."""
        self.deliver(MESSAGE)
        [path] = self.files()
        path.unlink()
        for name in ("tmp", "new", "cur"):
            (self.path / name).rmdir()
        self.deliver(MESSAGE)
        self.assertEqual(self.stored(), HEAD + MESSAGE)

    def test_newMadeAgain(self) -> None:
        """Somebody removes new/ alone, which is noticed last of all: it is made again."""
        self.deliver(MESSAGE)
        [path] = self.files()
        path.unlink()
        (self.path / "new").rmdir()
        self.deliver(MESSAGE)
        self.assertEqual(self.stored(), HEAD + MESSAGE)
        self.assertEqual(self.files("tmp"), [])

    def test_fileGone(self) -> None:
        """Somebody removes the file itself: that is no reason to say that it is kept."""
        self.maildir.create()
        self.disk.at["rename"] = lambda path, _: path.unlink(missing_ok=True)
        message = self.begin()
        message.dataReceived(MESSAGE)
        self.assertEqual(self.failureResultOf(message.eomReceived(), Refused).value.reply.code, 451)
        self.assertEqual(self.files("new"), [])

    def test_leftovers(self) -> None:
        """Files that a crash has left in tmp/ go after 36 hours, those in use stay."""
        self.maildir.create()
        old, young, link = (self.path / "tmp" / name for name in ("old", "young", "link"))
        for path in (old, young):
            path.write_bytes(b"x")
        link.symlink_to("young")
        past = time.time() - module.STALE - 60
        os.utime(old, (past, past))
        os.utime(link, (past, past), follow_symlinks=False)
        self.deliver(MESSAGE)
        self.assertEqual(sorted(path.name for path in self.files("tmp")), ["link", "young"])

    def test_leftoversGone(self) -> None:
        """Another process that removes them first is no reason to refuse a message."""
        self.maildir.create()
        old = self.path / "tmp" / "old"
        old.write_bytes(b"x")
        os.utime(old, (0, 0))
        self.disk.fail("unlink", errno.ENOENT)
        self.deliver(MESSAGE)
        self.assertEqual(len(self.files("new")), 1)


class EnvelopeTests(MaildirTestCase):
    """Return-Path and Delivered-To."""

    def head(self, *recipients: Mailbox, sender: ReversePath = ALICE) -> bytes:
        """What stands in front of an empty message."""
        message = self.maildir.begin(Session(), makeEnvelope(*recipients, sender=sender))
        self.successResultOf(message.eomReceived())
        return self.stored()

    def test_null(self) -> None:
        """A report has no return path, and says so."""
        self.assertTrue(self.head(sender=NULL_PATH).startswith(b"Return-Path: <>\r\n"))

    def test_utf8(self) -> None:
        """Addresses in UTF-8 are written as they are."""
        self.assertIn(
            "\r\nDelivered-To: zoë@bücher.example\r\n".encode(),
            self.head(Mailbox("zoë", "bücher.example")),
        )

    def test_quoted(self) -> None:
        """A local part that needs quotes has them."""
        self.assertIn(
            b'\r\nDelivered-To: "a b"@c.example\r\n', self.head(Mailbox("a b", "c.example"))
        )

    def test_bounded(self) -> None:
        """Any number of recipients takes a bounded number of fields."""
        boxes = [Mailbox(f"u{at}", "example.org") for at in range(MAX_DELIVERED_TO + 5)]
        self.assertEqual(self.head(*boxes).count(b"Delivered-To:"), MAX_DELIVERED_TO)

    def test_off(self) -> None:
        """Where the key says so, a message is kept without them."""
        self.maildir = Maildir(self.path, envelope_fields=False)
        self.maildir.run = maybeDeferred
        self.assertEqual(self.head(), b"")


class FailureTests(MaildirTestCase):
    """Messages that are not kept."""

    def setUp(self) -> None:
        super().setUp()
        self.maildir.create()

    def recovers(self) -> None:
        """Nothing is left of the message that failed, and the next one is kept."""
        self.assertEqual(self.files(), [])
        self.disk.at.clear()
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        self.deliver(MESSAGE)
        self.assertEqual(self.stored(), HEAD + MESSAGE)
        if before:
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_fullAtEachStep(self) -> None:
        """A disk that is full, at whichever step it shows, is 452 and leaves nothing."""
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            for step in ("open", "write", "fsync", "close", "rename"):
                self.disk.fail(step, code)
                message = self.begin()
                message.dataReceived(MESSAGE)
                self.assertEqual(self.refusal(message.eomReceived()), "452 4.3.1", step)
                self.disk.at.clear()
                self.assertEqual(self.files(), [], step)
        self.recovers()

    def test_directoryNotSynced(self) -> None:
        """A name that may not be durable is taken back: the client will send it again."""
        self.disk.fail("fsync", errno.EIO, after=1)
        message = self.begin()
        self.assertEqual(self.refusal(message.eomReceived()), "451 4.3.0")
        self.recovers()

    def test_otherFailure(self) -> None:
        """Any other failure is 451, and the log is told where and why."""
        self.disk.fail("write", errno.EIO)
        message = self.begin()
        failure = self.failureResultOf(message.eomReceived(), Refused)
        self.assertEqual(failure.value.reply.code, 451)
        self.assertEqual(failure.value.cause, f"{self.path}: Input/output error")
        self.recovers()

    def test_fullWhileStreaming(self) -> None:
        """A disk that fills up in the middle of a message refuses it there and then."""
        message = self.begin()
        self.successResultOf(message.dataReceived(b"x" * BLOCK))
        self.assertEqual(len(self.files("tmp")), 1)
        self.disk.fail("write", errno.ENOSPC)
        self.assertEqual(self.refusal(message.dataReceived(b"x" * BLOCK)), "452 4.3.1")
        self.assertEqual(self.files(), [])
        self.assertEqual(self.refusal(message.eomReceived()), "451 4.3.0")
        self.recovers()

    def test_realLimit(self) -> None:
        """The kernel's own limit on the size of a file is met like a full disk."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK // 2, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        message = self.begin()
        self.assertEqual(self.refusal(message.dataReceived(b"x" * BLOCK)), "452 4.3.1")
        self.recovers()

    def test_fullWhilePrepending(self) -> None:
        """When the second file does not fit, neither stays."""
        for step, after in [("open", 0), ("write", 1), ("unlink", 0)]:
            message = self.begin()
            self.successResultOf(message.dataReceived(b"x" * BLOCK))
            message.dataReceived(b"y")
            message.prepend(b"X: y\r\n")
            self.disk.fail(step, errno.ENOSPC, after)
            if step == "unlink":
                self.failOnce(step)
            self.assertEqual(self.refusal(message.eomReceived()), "452 4.3.1", step)
            self.disk.at.clear()
            self.assertEqual(self.files(), [], step)
        self.recovers()

    def failOnce(self, step: str) -> None:
        """Have a call fail the first time alone."""
        failing = self.disk.at[step]

        def once(*arguments: Any) -> None:
            del self.disk.at[step]
            failing(*arguments)

        self.disk.at[step] = once

    def test_cannotCleanUp(self) -> None:
        """A disk that can't even remove files is still 451, and no exception beyond it."""
        self.disk.fail("fsync", errno.EIO)
        self.disk.fail("unlink", errno.EIO)
        self.assertEqual(self.refusal(self.begin().eomReceived()), "451 4.3.0")

    def test_noParent(self) -> None:
        """A Maildir that can't be made is 451 at each message until it can."""
        path = Path(self.mktemp()) / "mail"
        maildir = Maildir(path)
        maildir.run = maybeDeferred
        message = maildir.begin(Session(), makeEnvelope())
        self.assertEqual(self.refusal(message.eomReceived()), "451 4.3.0")
        path.parent.mkdir()
        message = maildir.begin(Session(), makeEnvelope())
        self.assertEqual(self.successResultOf(message.eomReceived()), "ID")


class AbortTests(MaildirTestCase):
    """Messages that are broken off."""

    def setUp(self) -> None:
        super().setUp()
        self.maildir.create()

    def test_beforeWriting(self) -> None:
        """A client that goes early costs no file."""
        message = self.begin()
        message.dataReceived(MESSAGE)
        message.connectionLost()
        self.assertEqual(self.files(), [])
        self.assertEqual(self.refusal(message.eomReceived()), "451 4.3.0")
        self.assertEqual(self.files(), [])

    def test_whileStreaming(self) -> None:
        """A client that goes in the middle leaves no file."""
        message = self.begin()
        self.successResultOf(message.dataReceived(b"x" * BLOCK))
        self.assertEqual(len(self.files("tmp")), 1)
        message.connectionLost()
        self.assertEqual(self.files(), [])
        message.connectionLost()

    def test_beforeThread(self) -> None:
        """A write that was waiting for a thread does nothing once the client is gone."""
        self.maildir.run = threads = Threads()
        message = self.begin()
        waiting = message.dataReceived(b"x" * BLOCK)
        message.connectionLost()
        threads.next()
        self.assertEqual(self.refusal(waiting), "451 4.3.0")
        self.assertEqual(self.files(), [])

    def test_withinEachStep(self) -> None:
        """A client that goes while a thread works leaves no file, at whichever step that is."""
        for step in ("open", "write", "fsync", "close", "rename"):
            message = self.begin()
            message.dataReceived(MESSAGE)
            self.disk.at[step] = lambda *arguments, message=message: message.connectionLost()
            self.assertEqual(self.refusal(message.eomReceived()), "451 4.3.0", step)
            self.disk.at.clear()
            self.assertEqual(self.files(), [], step)

    def test_afterCommit(self) -> None:
        """A client that goes after the commit takes nothing back."""
        message = self.begin()
        message.dataReceived(MESSAGE)
        self.successResultOf(message.eomReceived())
        message.connectionLost()
        self.assertEqual(self.stored(), HEAD + MESSAGE)

    def test_tooLate(self) -> None:
        """A commit that takes too long is given up, and does not happen behind the 451."""
        self.maildir.run = threads = Threads()
        message = self.begin()
        message.dataReceived(MESSAGE)
        waiting = message.eomReceived()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        threads.next()
        self.assertEqual(self.files(), [])


class ThreadTests(TestCase):
    """With real threads."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.path = Path(self.mktemp())
        self.maildir = Maildir(self.path)

    async def test_reactorThreads(self) -> None:
        """By default the reactor's thread pool does the work, and its thread none of it."""
        used = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            used.append(threading.current_thread())
            real(descriptor)

        self.patch(module.os, "fsync", fsync)
        message = self.maildir.begin(Session(), makeEnvelope())
        message.dataReceived(MESSAGE)
        self.assertEqual(await message.eomReceived(), "ID")
        self.assertNotIn(threading.current_thread(), used)
        [path] = (self.path / "new").iterdir()
        self.assertEqual(path.read_bytes(), HEAD + MESSAGE)

    async def test_abortWhileWriting(self) -> None:
        """An abort does not wait for a thread that writes, and that thread cleans up."""
        inside, go = threading.Event(), threading.Event()
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            inside.set()
            go.wait(10)
            return real(descriptor, data)

        self.patch(module.os, "write", write)
        await deferLater(self.reactor, 0)  # the pool has no threads before the reactor runs
        message = self.maildir.begin(Session(), makeEnvelope())
        waiting = message.dataReceived(b"x" * BLOCK)
        assert waiting is not None
        self.assertTrue(inside.wait(10))
        message.connectionLost()
        self.assertEqual(len(list((self.path / "tmp").iterdir())), 1)
        go.set()
        await waiting
        self.assertEqual(list((self.path / "tmp").iterdir()), [])

    def test_abortAtAnyMoment(self) -> None:
        """Whenever an abort comes, either the message is committed whole or nothing is left."""
        for at in range(200):
            message = self.maildir.begin(Session(), makeEnvelope())
            message.dataReceived(MESSAGE)
            committed = []

            def commit(message: Any = message, committed: list[bool] = committed) -> None:
                try:
                    message._file.commit(b"")
                except Refused:
                    committed.append(False)
                else:
                    committed.append(True)

            thread = threading.Thread(target=commit)
            thread.start()
            for _ in range(at * 10):
                pass
            message.connectionLost()
            thread.join()
            self.assertEqual(list((self.path / "tmp").iterdir()), [])
            left = list((self.path / "new").iterdir())
            self.assertEqual(len(left), int(committed[0]))
            for path in left:
                self.assertEqual(path.read_bytes(), HEAD + MESSAGE)
                path.unlink()


class CheckTests(SynchronousTestCase):
    """check()."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def denied(self, *paths: Path) -> None:
        """Have these be unwritable, for root as well."""
        real = tempfile.TemporaryFile

        def temporaryFile(dir: Path) -> Any:
            if dir in paths:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(dir=dir)

        self.patch(module.tempfile, "TemporaryFile", temporaryFile)

    def test_root(self) -> None:
        """Where nothing can be, nothing can be written, even if root has the permission."""
        sentences = Maildir(Path("/proc/Maildir")).check()
        self.assertEqual(len(sentences), 1)
        self.assertIn("/proc: nothing can be written there", sentences[0])

    def test_there(self) -> None:
        """A Maildir that is there and can be written has nothing wrong."""
        Maildir(self.path).create()
        self.assertEqual(Maildir(self.path).check(), [])

    def test_changesNothing(self) -> None:
        """A Maildir that can be made is all right, and is not made by looking."""
        self.assertEqual(Maildir(self.path).check(), [])
        self.assertFalse(self.path.exists())

    def test_empty(self) -> None:
        """An empty directory will become a Maildir."""
        self.path.mkdir()
        self.assertEqual(Maildir(self.path).check(), [])

    def test_noParent(self) -> None:
        """Without the directory above nothing can be made."""
        [sentence] = Maildir(self.path / "a" / "b").check()
        self.assertEqual(
            sentence, f"{self.path}/a/b: cannot be made, for {self.path}/a is not a directory"
        )

    def test_file(self) -> None:
        """A file in the place of the Maildir, or of one of its directories, is named."""
        self.path.write_text("")
        self.assertEqual(Maildir(self.path).check(), [f"{self.path}: is not a directory"])
        self.path.unlink()
        Maildir(self.path).create()
        (self.path / "new").rmdir()
        (self.path / "new").write_text("")
        self.assertEqual(Maildir(self.path).check(), [f"{self.path}/new: is not a directory"])

    def test_unwritable(self) -> None:
        """Each directory that cannot be written is named once."""
        Maildir(self.path).create()
        self.denied(self.path / "tmp", self.path / "new")
        self.assertEqual(
            Maildir(self.path).check(),
            [f"{self.path}/{name}: no permission to write there" for name in ("tmp", "new")],
        )

    def test_unwritableParent(self) -> None:
        """A place where the Maildir cannot be made is named."""
        self.denied(self.path.parent)
        [sentence] = Maildir(self.path).check()
        self.assertTrue(re.match(re.escape(f"{self.path.parent}: no permission"), sentence))

    def test_unwritableEmpty(self) -> None:
        """So is a directory in which the Maildir's own cannot be made, once."""
        self.path.mkdir()
        self.denied(self.path)
        [sentence] = Maildir(self.path).check()
        self.assertIn("no permission", sentence)
