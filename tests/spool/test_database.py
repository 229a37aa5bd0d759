"""The data base: what is said before a start, full and broken disks, versions of the schema."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import sqlalchemy as sa
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from submitd import events
from submitd.deliveries.spool import Spool
from submitd.spool import database, endings, leases, operations, outcomes, queue, schema
from submitd.spool.database import FILE, Database, Link, asRefused, isDamage, isFull
from submitd.spool.records import Damaged, Filter, Listed, Settlement, State
from submitd.spool.writer import GroupCommit
from submitd.wire.errors import Refused
from tests.spool import postgres
from tests.spool.damage import pageOf, putBack, spoil
from tests.spool.support import Gate, PostgresCase, SpoolCase


class CheckTests(SpoolCase):
    """Each thing that is wrong with a spool is a sentence, before a port opens."""

    def check(self, path: Path | None = None) -> list[str]:
        return Database(path or self.path).check()

    def test_good(self) -> None:
        """A spool in use, one that is still to be made, and an empty file are fine."""
        self.assertEqual(self.check(), [])
        self.assertEqual(self.check(Path(self.mktemp())), [])
        path = Path(self.mktemp())
        path.mkdir(0o700)
        self.assertEqual(self.check(path), [])
        (path / FILE).touch(0o600)
        self.assertEqual(self.check(path), [])

    def test_nothingMade(self) -> None:
        """Looking makes nothing: who looks may be root, and who runs it somebody else."""
        path = Path(self.mktemp())
        self.check(path)
        self.assertFalse(path.exists())

    def test_missing(self) -> None:
        """The directory above must be there."""
        path = Path(self.mktemp()) / "deeper"
        self.assertEqual(
            self.check(path), [f"{path} cannot be made, for {path.parent} is not a directory"]
        )

    def test_closed(self) -> None:
        """Where one may not look it is not said that there is nothing: it may be a whole queue."""

        def closed(path: Path) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        path = Path("/closed/submitd")
        self.patch(Path, "lstat", closed)
        self.assertEqual(self.check(path), [f"cannot look at {path}: Permission denied"])

    def test_notWritable(self) -> None:
        """Whoever runs it must be able to make it, and to write to it."""
        self.patch(os, "access", lambda path, mode: False)
        path = Path(self.mktemp())
        self.assertEqual(
            self.check(path), [f"{path} cannot be made: no permission to write to {path.parent}"]
        )
        self.assertEqual(self.check(), [f"{self.path}: no permission to read and write it"])

    def test_file(self) -> None:
        """A file where the directory should be, a directory where the file should be."""
        path = Path(self.mktemp())
        path.touch()
        self.assertEqual(self.check(path), [f"{path} is not a directory"])
        path = Path(self.mktemp())
        (path / FILE).mkdir(parents=True)
        path.chmod(0o700)
        self.assertEqual(self.check(path), [f"{path / FILE} is not a file"])

    def test_somebodyElses(self) -> None:
        """A directory of other files is not ours, and nobody is told to change its mode."""
        path = Path(self.mktemp())
        path.mkdir(0o755)
        (path / "lost+found").mkdir()
        self.assertIn("open to others", self.check(path)[0])
        (path / "mbox").touch()
        said = f"{path} is not a queue: other files are in it, and no {FILE}"
        self.assertEqual(self.check(path), [said])

    def test_open(self) -> None:
        """The messages of many people are in there: nobody else may read them."""
        self.path.chmod(0o755)
        self.assertEqual(
            self.check(), [f"{self.path} is open to others (mode 0755): chmod go= {self.path}"]
        )
        self.path.chmod(0o700)
        file = self.path / FILE
        file.chmod(0o640)
        self.assertEqual(self.check(), [f"{file} is open to others (mode 0640): chmod go= {file}"])

    def test_owner(self) -> None:
        """Another user's spool is not ours; but root looks for whoever it will become."""
        uid = os.stat(self.path).st_uid
        self.patch(os, "geteuid", lambda: uid + 1)
        expected = f"{self.path} belongs to another user (uid {uid}, we are {uid + 1})"
        self.assertEqual(self.check(), [expected])
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(self.check(), [])

    def test_fullDisk(self) -> None:
        """A disk with next to nothing free is named."""
        real = os.statvfs(self.path)

        class Full:
            f_bavail, f_frsize = 100, real.f_frsize

        self.patch(os, "statvfs", lambda path: Full)
        [sentence] = self.check()
        self.assertIn("is on a full disk", sentence)

    def test_notADatabase(self) -> None:
        """Something else under its name is not touched."""
        path = Path(self.mktemp())
        path.mkdir(0o700)
        (path / FILE).write_bytes(b"hello")
        (path / FILE).chmod(0o600)
        self.assertEqual(self.check(path), [f"{path / FILE} is not a data base"])
        (path / FILE).write_bytes(b"SQLite format 3\0" + b"x" * 5000)
        [sentence] = self.check(path)
        self.assertIn("is not a data base", sentence)

    def test_newer(self) -> None:
        """A newer schema is refused, and the service refuses it as well."""
        self.sql("UPDATE spool SET version = 99")
        [sentence] = self.check()
        known = f"this submitd knows versions up to {schema.VERSION}"
        self.assertIn(f"has schema version 99, and {known}", sentence)
        queue = Spool(self.path).queue
        failure = self.failureResultOf(queue.runIn(maybeDeferred, maybeDeferred))
        self.assertEqual(failure.value.reply.code, 451)
        self.assertIn("has schema version 99", failure.value.cause)

    def test_otherProgram(self) -> None:
        """So is the data base of another program."""
        for statement in ("CREATE TABLE message (x)", "CREATE TABLE spool (version)"):
            path = Path(self.mktemp())
            path.mkdir(0o700)
            with sqlite3.connect(path / FILE) as connection:
                connection.execute(statement)
            connection.close()
            (path / FILE).chmod(0o600)
            self.assertEqual(self.check(path), [f"{path / FILE} is a data base of another program"])


class FileTests(SpoolCase):
    """What is on the disk."""

    def test_modes(self) -> None:
        """The directory is 0700, its files 0600, whatever the umask."""
        self.send("A-1")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o700)
        files = {each.name: stat.S_IMODE(each.stat().st_mode) for each in self.path.iterdir()}
        self.assertIn(f"{FILE}-wal", files)
        self.assertEqual(set(files.values()), {0o600})

    def test_synced(self) -> None:
        """The log is synced at each commit."""
        link = Link(Database(self.path))
        self.addCleanup(link.close)

        def look(connection: sa.Connection) -> tuple[Any, Any]:
            return tuple(
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous")
            )

        self.assertEqual(link.look(look), ("wal", 2))


def failing(code: int) -> Mock:
    """What SQLite fails at, with one of its codes."""
    error = sqlite3.OperationalError("the disk")
    error.sqlite_errorcode = code
    return Mock(side_effect=sa.exc.DatabaseError("", {}, error))


class TroubleTests(SpoolCase):
    """452 or 451, nothing half kept, and all is well when the trouble is over."""

    def refused(self, text: bytes = b"Subject: x\r\n\r\nx\r\n") -> Any:
        message = self.begin("X-1")
        waiting = message.dataReceived(text)
        if waiting is not None:
            failure = self.failureResultOf(waiting)
            message.connectionLost()
        else:
            failure = self.failureResultOf(message.eomReceived())
        return failure.value

    def assertGoesOn(self) -> None:
        """Nothing of the refused one is there, and the next one is kept."""
        for table in ("message", "part", "recipient", "upload", "submission"):
            self.assertEqual(self.sql(f"SELECT * FROM {table}"), [], table)
        self.assertEqual(self.send("Y-1"), "Y-1")

    def writer(self) -> Any:
        """The connection that is written through."""
        connection: Any = self.queue._links[0]._connection
        return connection

    def full(self, free: int) -> Any:
        """From now on there is room for a few pages more."""
        pages = self.sql("PRAGMA page_count")[0][0]
        limit = f"PRAGMA max_page_count={pages + free}"
        self.writer().close()
        self.queue._links[0].close()
        return self.patch(database, "_PRAGMAS", (*database._PRAGMAS, limit))

    def test_full(self) -> None:
        """A full disk is 452 4.3.1, for a small message and in the middle of a large one."""
        patched = self.full(5)
        for text in (b"x" * 100_000, b"x" * 300_000, b"x" * 600_000):
            refused = self.refused(text)
            self.assertEqual((refused.reply.code, refused.reply.status), (452, "4.3.1"))
            self.assertIn("full", refused.cause)
        patched.restore()
        self.assertGoesOn()

    def test_fullForOne(self) -> None:
        """A message that does not fit does not take with it those that do."""
        self.full(20)
        gate = Gate()
        self.patch(self.queue._writer, "_run", gate.run)
        results = []
        for at, size in enumerate((10, 10, 200_000, 10)):
            message = self.begin(f"A-{at}")
            message.dataReceived(b"x" * size)
            results.append(message.eomReceived())
        gate.open()
        self.assertEqual(self.failureResultOf(results.pop(2)).value.reply.code, 452)
        self.assertEqual([self.successResultOf(each) for each in results], ["A-0", "A-1", "A-3"])

    def test_lockStays(self) -> None:
        """Whoever comes and goes behind a failure does not take our log for nobody's."""
        self.send("A-1")
        self.successResultOf(self.queue.messages(Filter()))  # the reader is open, too
        self.queue.database.doubt()
        self.queue._links[0].close()  # as a failure does
        self.send("B-1")
        count = "SELECT count(*) FROM message"
        program = f"import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute({count!r}))"

        def look() -> str:
            given = [sys.executable, "-c", program, str(self.path / FILE)]
            return subprocess.run(given, capture_output=True, text=True, check=True).stdout

        self.assertEqual(look(), "(2,)\n")
        self.assertTrue((self.path / f"{FILE}-wal").exists())
        self.send("C-1")
        self.assertEqual(look(), "(3,)\n")

    def test_locked(self) -> None:
        """Another process that holds the lock for too long is 451 4.3.0."""
        self.patch(database, "LOCK_TIMEOUT", 0.01)
        self.spool = self.makeSpool()
        other = sqlite3.connect(self.path / FILE, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("PRAGMA busy_timeout=10")
        other.execute("BEGIN IMMEDIATE")
        refused = self.refused()
        self.assertEqual((refused.reply.code, refused.reply.status), (451, "4.3.0"))
        self.assertIn("locked", refused.cause)
        other.execute("ROLLBACK")
        self.assertGoesOn()

    def test_readOnly(self) -> None:
        """So is a data base that cannot be written."""
        self.writer().exec_driver_sql("PRAGMA query_only=ON")
        self.writer().commit()
        refused = self.refused()
        self.assertEqual(refused.reply.code, 451)
        self.assertIn("readonly", refused.cause)
        self.assertGoesOn()

    def test_noDirectory(self) -> None:
        """So is a directory that cannot be made; it is tried again for the next message."""
        path = Path(self.mktemp())
        path.touch()
        self.path = path
        self.spool = Spool(path)
        self.failureResultOf(self.spool.queue.runIn(maybeDeferred, maybeDeferred))
        self.assertEqual(self.refused().reply.code, 451)
        path.unlink()
        self.assertGoesOn()

    def test_removed(self) -> None:
        """What is removed while it is open takes no more, and what it has is still delivered."""
        self.send("A-1")
        whole = self.body("A-1")
        for suffix in ("", "-wal", "-shm"):
            (self.path / f"{FILE}{suffix}").unlink()
        refused = self.refused()
        self.assertEqual((refused.reply.code, refused.reply.status), (451, "4.3.0"))
        self.assertIn("was removed or replaced while it was open", refused.cause)
        work = self.lease()[0]
        self.assertEqual(self.body("A-1"), whole)
        self.settle(work, State.DELIVERED)
        self.queue._links[0].close()  # as a failure does
        self.assertEqual(self.refused().reply.code, 451)
        self.assertFalse((self.path / FILE).exists(), "no other one is made")

    def test_logRemoved(self) -> None:
        """So does one whose log is removed; a stop saves what is in it."""
        self.send("A-1")
        (self.path / f"{FILE}-wal").unlink()
        refused = self.refused()
        self.assertEqual((refused.reply.code, refused.reply.status), (451, "4.3.0"))
        self.assertIn("spool.db-wal was removed while it was open; stop the ser", refused.cause)
        self.sql("PRAGMA user_version")  # makes a new one
        self.assertTrue((self.path / f"{FILE}-wal").exists())
        self.assertEqual(self.refused().cause, refused.cause)
        self.successResultOf(self.spool.stop())
        self.successResultOf(self.queue.runIn(maybeDeferred, maybeDeferred))
        self.send("B-1")
        self.assertEqual([each.message.id for each in self.lease()], ["A-1", "B-1"])
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_noLog(self) -> None:
        """Where the file system cannot have a log, none is missed."""
        self.send("A-1")
        self.queue._links[1].close()
        driver = self.writer().connection.driver_connection
        self.assertEqual(driver.execute("PRAGMA journal_mode=DELETE").fetchall(), [("delete",)])
        self.send("B-1")

    def test_emptied(self) -> None:
        """One that is emptied takes no more, and nothing is made in it."""
        self.send("A-1")
        os.truncate(self.path / FILE, 0)
        refused = self.refused()
        self.assertEqual((refused.reply.code, refused.reply.status), (451, "4.3.0"))
        self.assertIn("was emptied while it was open", refused.cause)
        for link in self.queue._links:
            link.close()
        os.truncate(self.path / FILE, 0)
        self.assertEqual(self.refused().reply.code, 451)
        self.assertEqual((self.path / FILE).stat().st_size, 0)

    def test_moved(self) -> None:
        """It goes on when its directory is back in its place; another one there is not used."""
        self.send("A-1")
        self.path.rename(aside := Path(self.mktemp()))
        self.assertEqual(self.refused().reply.code, 451)
        self.path.mkdir(0o700)
        self.assertEqual(self.refused().reply.code, 451)
        self.assertEqual(os.listdir(self.path), [])
        self.path.rmdir()
        aside.rename(self.path)
        self.send("B-1")
        self.assertEqual(len(self.lease()), 2)

    def test_removedAndStartedAnew(self) -> None:
        """The next start makes a new one."""
        (self.path / FILE).unlink()
        self.successResultOf(self.spool.stop())
        self.successResultOf(self.queue.runIn(maybeDeferred, maybeDeferred))
        self.assertGoesOn()

    def test_neverStarted(self) -> None:
        """A queue that nobody has started says so."""
        self.spool = Spool(Path(self.mktemp()))
        message = self.begin("A-1")
        self.failureResultOf(message.eomReceived(), RuntimeError)
        self.successResultOf(self.spool.stop())

    def test_corruptRow(self) -> None:
        """Octets that are no text, in a row of one message, do not stop the others."""
        for id in ("A-1", "B-1", "C-1"):
            self.send(id)
        self.sql("UPDATE message SET sender = CAST(x'ff' AS TEXT) WHERE id = 'B-1'")
        self.assertEqual(self.leased(), ["A-1", "C-1"])
        state = self.sql("SELECT state, reply FROM recipient WHERE message = 'B-1'")
        self.assertEqual(state[0][0], "held")
        self.assertIn("cannot be read", state[0][1])
        self.assertEqual(self.successResultOf(self.queue.counts())[0].recipients, 1)

    def test_corruptPage(self) -> None:
        """Nor does a page that is damaged: SQLite writes nothing once it has met it."""
        for id in ("A-1", "B-1", "C-1"):
            self.send(id)
        self.sql(f"UPDATE message SET sender = '{'y' * 30000}' WHERE id = 'B-1'")
        self.damage(b"y" * 95)
        self.assertEqual(self.leased(), ["A-1", "C-1"])
        held = self.sql("SELECT message FROM recipient WHERE state = 'held'")
        self.assertEqual(held, [("B-1",)])

    def test_corruptBodyPage(self) -> None:
        """Nor is a message delivered whose body cannot be read; it waits for an operator."""
        self.send("A-1")
        self.send("B-1", text=b"y" * 30000)
        self.damage(b"y" * 95)
        self.assertEqual(len(self.lease()), 2)
        self.assertIn(b"\r\n\r\n", self.body("A-1"))
        failure = self.failureResultOf(self.queue.read("B-1").next(), Damaged)
        self.assertIn("chunk 0 of its body cannot be read", failure.value.reason)
        shown = self.successResultOf(self.queue.show("B-1"))
        self.assertEqual((shown.damage, len(shown.recipients)), (failure.value.reason, 1))
        self.assertTrue(shown.header.startswith(b"Received:"))
        held = self.sql("SELECT message FROM recipient WHERE state = 'held'")
        self.assertEqual(held, [("B-1",)])

    def leased(self) -> list[str]:
        """All that can be had, with or without damage in between."""
        ids: list[str] = []
        while works := self.lease():
            ids += [each.message.id for each in works]
        return ids

    def many(self) -> list[str]:
        """So many messages that each table has several pages."""
        domain = f"{'y' * 60}.{'z' * 60}.example"
        return [self.send(f"M-{n:03d}", f"{'x' * 60}@{domain}") for n in range(60)]

    def hear(self) -> list[tuple[str, str]]:
        """What the log says of damage from now on: id and problem."""
        heard: list[tuple[str, str]] = []

        def emit(event: Any, **fields: Any) -> None:
            if event is events.MESSAGE_DAMAGED:
                heard.append((fields["id"], fields["problem"]))

        self.patch(events, "emit", emit)
        return heard

    def test_settledInBrief(self) -> None:
        """What was delivered is written down, though its history cannot be: it goes out once."""
        for id in ("A-1", "B-1"):
            self.send(id)
        [first, second] = self.lease()
        spoil(self.queue, self.path, "history_message")
        said = self.hear()
        self.settle(first, State.DELIVERED)
        self.settle(second, State.DELAYED)
        problem = "only what came of it was written: database disk image is malformed"
        self.assertEqual(said, [("A-1", problem), ("B-1", problem)])
        found = self.sql("SELECT state, attempts, due FROM recipient")
        self.assertEqual(found, [("delivered", 1, None), ("delayed", 1, self.time.now + 300)])
        self.time.now += 1000
        self.assertEqual(self.leased(), ["B-1"])

    def test_failedInBrief(self) -> None:
        """What was given up is taken again from its sender, and not for a repetition."""
        text = b"Message-ID: <one@example.com>\r\n\r\nx\r\n"
        self.send("A-1", text=text)
        self.assertEqual(self.send("A-2", text=text), "A-1")
        [work] = self.lease()
        spoil(self.queue, self.path, "history_message")
        self.settle(work, State.FAILED)
        self.assertEqual(self.send("B-1", text=text), "B-1")
        [work] = self.lease()
        spoil(self.queue, self.path, "message")
        self.settle(work, State.FAILED)
        found = self.sql("SELECT message, state FROM recipient ORDER BY message")
        self.assertEqual(found, [("A-1", "failed"), ("B-1", "failed")])

    def test_settledBesideDamage(self) -> None:
        """Of those that are settled together, only the damaged one is in brief."""
        for id in ("A-1", "B-1"):
            self.send(id)
        works = self.lease()
        self.sql("UPDATE recipient SET state = CAST(x'ff' AS TEXT) WHERE message = 'B-1'")
        said = self.hear()
        gate = Gate()
        self.queue._writer = GroupCommit(self.queue._links[0], gate.run)
        outcome = Settlement(position=0, state=State.DELIVERED, reply="")
        self.queue.extend(works[0], 60)  # that much waits when these come
        settled = [self.queue.settle(work, [outcome]) for work in works]
        gate.open()
        self.successResultOf(settled[0])
        self.failureResultOf(settled[1], Damaged)
        self.assertEqual([id for id, _ in said], ["B-1"])
        self.assertEqual(self.sql("SELECT message FROM recipient"), [("B-1",)])

    def test_notSettled(self) -> None:
        """Where nothing of it can be written, it is told once, and not leased any more."""
        ids = self.many()
        works = self.lease()
        spoil(self.queue, self.path, "recipient", b"M-030")
        said = self.hear()
        lost = []
        for work in works:
            outcome = Settlement(position=0, state=State.DELIVERED, reply="")
            settled = self.queue.settle(work, [outcome])
            if settled.addErrback(lambda failure: failure.trap(Damaged)).result is Damaged:
                lost.append(work.message.id)
        self.assertIn("M-030", lost)
        self.assertLess(len(lost), len(ids) / 2)
        self.assertEqual([id for id, problem in said if "left alone" in problem], lost)
        self.time.now += 1000
        self.assertEqual(self.leased(), [])
        self.assertIsNone(self.successResultOf(self.queue.nextDue()))

    def test_notInBrief(self) -> None:
        """What only passes, in the midst of damage, has nothing left alone: it comes again."""
        self.send("A-1")
        [work] = self.lease()
        self.patch(endings, "lock", failing(sqlite3.SQLITE_CORRUPT))
        self.patch(endings, "note", failing(sqlite3.SQLITE_CORRUPT))
        passing = self.patch(outcomes, "_write", failing(sqlite3.SQLITE_FULL))
        outcome = Settlement(position=0, state=State.DELIVERED, reply="")
        refused = self.failureResultOf(self.queue.settle(work, [outcome]), Refused).value
        self.assertEqual(refused.reply.code, 452)
        passing.restore()
        passing = self.patch(endings, "hold", failing(sqlite3.SQLITE_FULL))
        self.sql("UPDATE part SET checksum = checksum + 1")
        self.failureResultOf(self.queue.read("A-1").next(), Refused)
        passing.restore()
        self.time.now += 100
        self.assertEqual(self.leased(), ["A-1"])

    def test_notHeld(self) -> None:
        """A message that can be neither read nor put on hold does not stop the others."""
        ids = self.many()
        spoil(self.queue, self.path, "recipient", b"M-030")
        said = self.hear()
        leased = self.leased()
        alone = [id for id, problem in said if "left alone until the next start" in problem]
        self.assertEqual(sorted(leased + alone), ids)
        self.assertLess(len(alone), len(ids) / 2)
        self.assertEqual(len(set(alone)), len(alone))

    def test_notTaken(self) -> None:
        """Nor does one that can be read, but not be taken; and it is not put on hold for that."""
        self.send("A-1")
        self.queue.giveBack(self.lease()[0])
        spoil(self.queue, self.path, "recipient_token")
        said = self.hear()
        self.assertEqual(self.leased(), [])
        self.assertEqual(len(said), 1)
        self.assertIn("A-1 cannot be taken: ", " ".join(said[0]))
        self.assertEqual(self.sql("SELECT state FROM recipient"), [("queued",)])

    def test_lostWrite(self) -> None:
        """What an index of before has due is left alone, and does not come again and again."""
        self.send("A-1")
        at, before = pageOf(self.queue, self.path, "recipient_due")
        self.settle(self.lease()[0], State.DELIVERED)
        pageOf(self.queue, self.path, "recipient_due")
        putBack(self.path, at, before)
        said = self.hear()
        self.assertEqual(self.leased(), [])
        self.assertIsNone(self.successResultOf(self.queue.nextDue()))
        problem = "is due, but has no recipients who are; it is left alone until the next start"
        self.assertEqual(said, [("A-1", problem)])
        self.send("B-1")
        self.assertEqual(self.leased(), ["B-1"])

    def test_lostWriteOfRecord(self) -> None:
        """Nor does one with a record that cannot be read, though there is nothing to hold."""
        self.queue.keep = 1000.0
        self.send("A-1")
        at, before = pageOf(self.queue, self.path, "recipient_due")
        self.settle(self.lease()[0], State.DELIVERED)
        pageOf(self.queue, self.path, "recipient_due")
        putBack(self.path, at, before)
        spoil(self.queue, self.path, "message")
        said = self.hear()
        # Where it came again and again, the third time would end this test.
        self.patch(endings, "quarantine", Mock(side_effect=[[None], [None]]))
        self.assertEqual(self.leased(), [])
        problem = "cannot be read: database disk image is malformed"
        alone = f"{problem}; it is left alone until the next start"
        self.assertEqual(said, [("A-1", problem), ("A-1", alone)])
        self.assertEqual(endings.quarantine.call_count, 1)

    def test_heldInBriefBesideOthers(self) -> None:
        """An envelope that is no such thing stops nobody, though no history can be written."""
        for id in ("A-1", "B-1"):
            self.send(id)
        self.sql("UPDATE message SET envelope = '{' WHERE id = 'A-1'")
        spoil(self.queue, self.path, "history_message")
        self.assertEqual(self.leased(), ["B-1"])
        state = self.sql("SELECT state FROM recipient WHERE message = 'A-1'")
        self.assertEqual(state, [("held",)])

    def test_tooMuchDamage(self) -> None:
        """A data base that is damaged all over is said to be so."""
        self.patch(queue, "MAX_ASIDE", 0)
        self.many()
        spoil(self.queue, self.path, "recipient", b"M-000")
        refused = self.failureResultOf(self.queue.lease(100, 60), Refused).value
        self.assertEqual(refused.reply.code, 451)
        self.assertIn("malformed", refused.cause)

    def test_heldInBrief(self) -> None:
        """What is damaged is put on hold, though its history cannot be written."""
        self.send("A-1")
        self.sql("UPDATE part SET checksum = checksum + 1")
        spoil(self.queue, self.path, "history_message")
        self.failureResultOf(self.queue.read("A-1").next(), Damaged)
        self.assertEqual(self.sql("SELECT state FROM recipient"), [("held",)])

    def test_missingPartOfDamaged(self) -> None:
        """A hole in the body of a message whose row cannot be read is damage as well."""
        self.send("A-1", text=b"x" * 600_000)
        self.sql("DELETE FROM part WHERE sequence = 1")
        body = self.queue.read("A-1")
        self.successResultOf(body.next())
        spoil(self.queue, self.path, "message")
        self.failureResultOf(body.next(), Damaged)
        self.assertFalse(self.queue._links[1].isOpen)

    def test_listDamaged(self) -> None:
        """All messages are listed, with those that cannot be read, whatever is damaged."""
        for name, holding in (
            ("message", b"M-030"),
            ("recipient", b"M-030"),
            ("sqlite_autoindex_message_1", b""),
            ("history_message", b""),
        ):
            self.path = Path(self.mktemp())
            self.spool = self.makeSpool()
            self.queue = self.spool.queue
            ids = self.many()
            spoil(self.queue, self.path, name, holding)
            listed: list[Listed] = []
            after = ids[2]
            while page := self.successResultOf(self.queue.messages(Filter(), 10, after)):
                listed += page
                after = page[-1].id
            self.assertEqual([each.id for each in listed], ids[3:], name)
            damaged = [each.id for each in listed if each.damage]
            self.assertEqual("M-030" in damaged, name != "history_message")
            named = Filter(ids=(ids[30], ids[59]))
            found = self.successResultOf(self.queue.messages(named))
            self.assertEqual([each.id for each in found], [ids[30], ids[59]])
            shown = self.successResultOf(self.queue.show("M-030"))
            self.assertIn("cannot be read", shown.damage)

    def test_listLater(self) -> None:
        """What only passes is no damage: nobody is told that a message cannot be read."""
        self.send("A-1")
        self.patch(operations, "_messages", failing(sqlite3.SQLITE_IOERR))
        self.failureResultOf(self.queue.messages(Filter()), Refused)

    def test_listNoMore(self) -> None:
        """Where nobody can say what else there is, that is said behind the rest."""
        ids = self.many()
        for name in ("recipient", "sqlite_autoindex_message_1", "sqlite_autoindex_part_1"):
            spoil(self.queue, self.path, name, ids[-1].encode())
        listed = self.successResultOf(self.queue.messages(Filter()))
        self.assertTrue(listed)
        rest = self.queue.messages(Filter(), 100, listed[-1].id)
        self.assertIn("what follows cannot be read", str(self.failureResultOf(rest, Damaged).value))

    def damage(self, begin: bytes) -> None:
        """Spoil the pages that begin with these octets, behind the number of the next page."""
        file = sqlite3.connect(self.path / FILE)
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [size] = file.execute("PRAGMA page_size").fetchone()
        file.close()
        octets = bytearray((self.path / FILE).read_bytes())
        pages = [at for at in range(0, len(octets), size) if octets.startswith(begin, at + 4)]
        self.assertTrue(pages)
        for at in pages:
            octets[at : at + 4] = b"\x7f\xff\xff\xff"  # the number of the next one
        with open(self.path / FILE, "r+b") as opened:
            opened.write(octets)

    def test_passesWhileLeasing(self) -> None:
        """What a full or failing disk keeps from being leased is not damaged; it comes later."""
        self.send("A-1")
        for error, code in ((sqlite3.SQLITE_FULL, 452), (sqlite3.SQLITE_IOERR_FSYNC, 451)):
            failing = sqlite3.OperationalError("the disk")
            failing.sqlite_errorcode = error
            patched = self.patch(
                leases, "_leaseMessages", Mock(side_effect=sa.exc.OperationalError("", {}, failing))
            )
            failure = self.failureResultOf(self.queue.lease(10, 60), Refused)
            self.assertEqual(failure.value.reply.code, code)
            patched.restore()
        self.assertEqual([each.message.id for each in self.lease()], ["A-1"])

    def test_tidyFails(self) -> None:
        """Clearing away that fails is nobody's trouble; it comes again."""
        self.time.now += 3600
        self.writer().exec_driver_sql("PRAGMA query_only=ON")
        self.writer().commit()
        self.queue._tidyNowAndThen()
        self.assertEqual(self.send("A-1"), "A-1")

    def test_tidyClockSetBack(self) -> None:
        """When somebody has set the clock back it goes on, and not only a day later."""
        self.sql("INSERT INTO submission VALUES (randomblob(32), 'x', 1)")
        self.send("A-1")
        self.assertEqual(self.sql("SELECT count(*) FROM submission"), [(1,)])
        self.time.now -= 86400
        self.send("B-1")
        self.assertEqual(self.sql("SELECT count(*) FROM submission"), [(0,)])

    def test_tidyMuch(self) -> None:
        """What is old goes in small lots, one after the other, until all of it has gone."""
        self.send("A-1")
        self.sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
            " INSERT INTO submission SELECT randomblob(32), 'x', i FROM n"
        )
        self.time.now += 61
        self.send("B-1")
        self.assertEqual(self.sql("SELECT count(*) FROM submission"), [(0,)])


class SchemaTests(SpoolCase):
    """Older data bases become this one."""

    def test_migrated(self) -> None:
        """What is missing is done step by step, once."""
        steps: list[int] = []
        self.send("A-1")
        self.sql("UPDATE spool SET version = 1")
        self.patch(schema, "VERSION", 3)
        self.patch(
            schema,
            "MIGRATIONS",
            {at: lambda connection, at=at: steps.append(at) for at in (1, 2)},
        )
        for _ in range(2):
            self.makeSpool()
        self.assertEqual(steps, [1, 2])
        self.assertEqual(self.sql("SELECT version FROM spool"), [(3,)])
        self.assertEqual(self.body("A-1")[:9], b"Received:")

    def test_firstVersion(self) -> None:
        """One of version 1 gets the index of leases and checksums, and keeps what it has."""
        self.send("A-1")
        index = "SELECT sql FROM sqlite_master WHERE name = 'recipient_token'"
        fresh = self.sql(index)
        with sqlite3.connect(self.path / FILE) as connection:
            connection.execute("DROP INDEX recipient_token")
            connection.execute("ALTER TABLE part DROP COLUMN checksum")
            connection.execute("UPDATE spool SET version = 1")
        connection.close()
        self.assertEqual(self.sql(index), fresh)
        self.assertEqual(self.sql("SELECT version FROM spool"), [(schema.VERSION,)])
        self.assertEqual(len(self.lease()), 1)
        self.assertEqual(self.body("A-1")[:9], b"Received:")
        self.send("B-1")
        found = self.sql("SELECT message, checksum IS NULL FROM part ORDER BY message")
        self.assertEqual(found, [("A-1", 1), ("B-1", 0)])

    def test_migrationFails(self) -> None:
        """A step that fails leaves the old version whole."""

        def fail(connection: sa.Connection) -> None:
            connection.exec_driver_sql("DROP TABLE message")
            raise OSError(5, "broken")

        self.send("A-1")
        self.sql("UPDATE spool SET version = 1")
        self.patch(schema, "MIGRATIONS", {1: fail})
        with self.assertRaises(OSError):
            Database(self.path).connect()
        with sqlite3.connect(self.path / FILE) as connection:
            found = connection.execute("SELECT version, id FROM spool, message").fetchall()
        connection.close()
        self.assertEqual(found, [(1, "A-1")])


class UrlTests(SynchronousTestCase):
    """Where it may be."""

    def test_wrong(self) -> None:
        """Exactly one of path and url, and the url one of PostgreSQL."""
        for path, url in (
            (None, ""),
            (Path("x"), "postgresql:///x"),
            (None, "nonsense"),
            (None, "mysql://x/y"),
        ):
            with self.assertRaises(ValueError):
                Database(path, url)

    def test_noDriver(self) -> None:
        """Without psycopg, it says what to install."""

        def fail(*arguments: Any, **keywords: Any) -> None:
            raise ImportError("psycopg")

        self.patch(sa, "create_engine", fail)
        with self.assertRaisesRegex(ValueError, r"submitd\[postgresql\]"):
            Database(url="postgresql:///x")

    def test_password(self) -> None:
        """No sentence shows a password."""
        name = Database(url="postgresql://me:secret@127.0.0.1:1/x").name
        self.assertNotIn("secret", name)
        self.assertIn("me:***@127.0.0.1:1/x", name)

    def test_silence(self) -> None:
        """A host that dies while it has the question is given up, and not two hours later."""
        import psycopg

        told: dict[str, Any] = {}

        def fail(*arguments: Any, **keywords: Any) -> None:
            told.update(keywords)
            raise psycopg.OperationalError("not there")

        self.patch(psycopg, "connect", fail)
        Database(url="postgresql://me@127.0.0.1:1/x").check()
        self.assertEqual(told["tcp_user_timeout"], 1000 * database.SILENCE)
        # The kernel looks at the limit when it sends one of these (tcp(7), TCP_USER_TIMEOUT).
        self.assertLess(told["keepalives_idle"], database.SILENCE)
        self.assertLess(told["keepalives_interval"], database.SILENCE)

    def test_unreachable(self) -> None:
        """A server that is not there is named before a port opens."""
        [sentence] = Database(url="postgresql://me@127.0.0.1:1/x").check()
        self.assertIn("cannot be opened: ", sentence)
        self.assertNotIn("\n", sentence)

    def test_full(self) -> None:
        """What a full disk looks like in each of them."""

        class Said(Exception):
            sqlstate = "53100"

        self.assertTrue(isFull(OSError(28, "x")))
        self.assertFalse(isFull(OSError(5, "x")))
        self.assertTrue(isFull(sa.exc.OperationalError("x", None, Said())))
        self.assertFalse(isFull(ValueError()))
        self.assertEqual(asRefused(Said(), "x").cause, "x: Said")

    def test_damage(self) -> None:
        """A PostgreSQL that is away is no damage: nothing would be delivered when it is back."""
        import psycopg

        gone = psycopg.OperationalError("server closed the connection unexpectedly")
        self.assertFalse(isDamage(sa.exc.OperationalError("x", None, gone)))
        noText = sqlite3.OperationalError("Could not decode to UTF-8 column 'data'")
        self.assertTrue(isDamage(sa.exc.OperationalError("x", None, noText)))


class PostgresTests(PostgresCase):
    """PostgreSQL's own."""

    def test_check(self) -> None:
        """A good server has nothing to be said about; an unsafe one has."""
        base = Database(**self.options())
        self.assertEqual(base.check(), [])
        self.sql("ALTER ROLE submitd SET synchronous_commit = off")
        self.addCleanup(self.sql, "ALTER ROLE submitd RESET synchronous_commit")
        self.assertEqual(
            base.check(),
            ["PostgreSQL has synchronous_commit = off: a message could be lost after its 250"],
        )

    def test_readAfterRestart(self) -> None:
        """A body that is asked for over a lost connection is not damaged, and comes later."""
        self.send("A-1")
        read = self.body("A-1")
        postgres.server().stop()
        postgres.server().start()
        self.failureResultOf(self.begin("B-1").eomReceived(), Refused)
        self.send("C-1")  # whoever writes is there again
        self.failureResultOf(self.queue.read("A-1").next(), Refused)
        self.assertEqual(self.body("A-1"), read)
        self.assertEqual(len(self.lease()), 2)

    def test_corruptPage(self) -> None:
        """What PostgreSQL itself calls corrupted is on hold, and the others go on."""
        self.send("A-1")
        self.send("B-1", text=b"y" * 30000)
        [(file,)] = self.sql("SELECT pg_relation_filepath('part')")
        before = self.body("A-1")
        self.sql("CREATE TABLE kept AS SELECT * FROM part")
        self.spoil(file)
        for id in ("A-1", "B-1"):
            failure = self.failureResultOf(self.queue.read(id).next(), Damaged)
            self.assertIn("chunk 0 of its body cannot be read: invalid page", str(failure.value))
        shown = self.successResultOf(self.queue.show("A-1"))
        self.assertEqual((len(shown.recipients), len(shown.history)), (1, 1))
        self.assertIn("cannot be read", shown.damage)
        states = self.sql("SELECT state FROM recipient")
        self.assertEqual([state for (state,) in states], ["held", "held"])
        self.sql("TRUNCATE part")
        self.sql("INSERT INTO part SELECT * FROM kept")
        self.assertEqual(self.body("A-1"), before)

    def test_corruptRows(self) -> None:
        """So is one whose envelope is; it is listed all the same."""
        sender = f"{'s' * 60}@{'d' * 60}.example"
        sent = [self.send(f"M-{n:02d}", sender=sender) for n in range(50)]
        [(file,)] = self.sql("SELECT pg_relation_filepath('message')")
        self.spoil(file)
        ids: list[str] = []
        while works := self.lease():
            ids += [each.message.id for each in works]
        listed = self.successResultOf(self.queue.messages(Filter()))
        damaged = [each.id for each in listed if each.damage]
        self.assertIn("M-00", damaged)
        self.assertIn("M-49", ids)
        self.assertEqual(sorted(ids + damaged), sent)
        states = self.sql("SELECT message FROM recipient WHERE state = 'held' ORDER BY message")
        self.assertEqual([id for (id,) in states], damaged)

    def spoil(self, file: str) -> None:
        """Have the first page of a table be nonsense."""
        postgres.server().stop()
        with open(postgres.server().directory / "data" / file, "r+b") as opened:
            opened.write(b"\xa5" * 8192)
        postgres.server().start()
        # The lost connection is noticed by whoever uses it first.
        self.failureResultOf(self.queue.totals(), Refused)
        self.failureResultOf(self.queue.hasten(0), Refused)

    def test_restart(self) -> None:
        """While the server is down it is 451; when it is back, all goes on."""
        self.send("A-1")
        postgres.server().stop()
        message = self.begin("B-1")
        failure = self.failureResultOf(message.eomReceived())
        self.assertEqual((failure.value.reply.code, failure.value.reply.status), (451, "4.3.0"))
        self.assertEqual(self.failureResultOf(self.queue.messages(Filter())).value.reply.code, 451)
        postgres.server().start()
        self.send("C-1")
        found = self.successResultOf(self.queue.messages(Filter()))
        self.assertEqual([each.id for each in found], ["A-1", "C-1"])
        self.assertEqual(len(self.lease()), 2)
