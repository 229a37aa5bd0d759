"""Work of a process that is no more is not waited for."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from submitd import events
from submitd.deliveries.spool import Spool
from submitd.spool import leases
from submitd.spool.database import FILE
from submitd.spool.owners import PREFIX, Owners
from submitd.spool.queue import LOOK_INTERVAL
from submitd.spool.records import State
from tests.spool.support import Gate, SpoolCase
from tests.spool.test_processes import start


class OwnersTests(SynchronousTestCase):
    """Locks that the kernel lets go."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.owners = Owners(self.path)

    def test_alive(self) -> None:
        """Who is there is not dead, neither to others nor to itself."""
        other = Owners(self.path)
        other.enter("b")
        self.owners.enter("a")
        self.owners.enter("a")
        self.assertEqual((self.owners.dead(), other.dead()), ([], []))
        other.leave(isDone=True)
        self.assertEqual(self.owners.dead(), [])
        self.owners.leave(isDone=True)
        self.owners.leave(isDone=True)
        self.assertEqual(list(self.path.iterdir()), [])

    def test_dead(self) -> None:
        """Who has gone without a word is found by one, once, and forgotten when that is done."""
        gone = Owners(self.path)
        gone.enter("host:1:x")
        gone.leave(isDone=False)
        other = Owners(self.path)
        self.assertEqual(self.owners.dead(), ["host:1:x"])
        self.assertEqual(self.owners.dead(), ["host:1:x"])
        self.assertEqual(other.dead(), [])
        self.owners.bury()
        self.assertEqual((self.owners.dead(), other.dead()), ([], []))

    def test_notDone(self) -> None:
        """One that finds a dead one and ends before its work is taken back leaves it to others."""
        Owners(self.path).enter("a")  # its file is closed with it
        (self.path / f"{PREFIX}b").touch()
        self.assertIn("b", self.owners.dead())
        self.owners.leave(isDone=False)
        self.assertIn("b", Owners(self.path).dead())


class TakeBackTests(SpoolCase):
    """Leases of a process that was killed."""

    def setUp(self) -> None:
        super().setUp()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.patch(events, "emit", lambda event, **f: self.said.append((event.name, f)))

    def killed(self) -> None:
        """A process takes what is due, for an hour, and is killed."""
        process = start("take", str(self.path))
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "taken\n")
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def names(self) -> list[str]:
        return sorted(each.name for each in self.path.glob(f"{PREFIX}*"))

    def test_killed(self) -> None:
        """It is due at once for whoever starts next, and that is in the log."""
        self.send("A-1")
        self.send("B-1")
        self.killed()
        [file] = self.names()
        self.assertEqual([each.message.id for each in self.lease()], ["A-1", "B-1"])
        taken = [fields for name, fields in self.said if name == "lease-taken-over"]
        self.assertEqual(taken, [{"id": "A-1", "recipients": 1}, {"id": "B-1", "recipients": 1}])
        self.assertNotIn(file, self.names())
        self.assertEqual(self.names(), [f"{PREFIX}{self.queue.owner}"])

    def test_diesLater(self) -> None:
        """One that dies while others go on is seen by them within half a minute."""
        self.lease()
        self.send("A-1")
        self.killed()
        self.time.now += LOOK_INTERVAL - 1
        self.assertEqual(self.lease(), [])
        self.time.now += 1
        self.assertEqual([each.message.id for each in self.lease()], ["A-1"])
        self.assertEqual(self.names(), [f"{PREFIX}{self.queue.owner}"])

    def test_alive(self) -> None:
        """What another process that lives has taken stays its own."""
        self.send("A-1")
        other = self.makeSpool().queue
        [work] = self.lease(queue=other)
        self.assertEqual(self.lease(), [])
        self.successResultOf(other.giveBack(work))
        self.assertEqual(len(self.lease()), 1)

    def test_stopped(self) -> None:
        """One that stops leaves no file, and no lease to wait for."""
        self.send("A-1")
        other = self.makeSpool()
        self.lease(queue=other.queue)
        self.successResultOf(other.stop())
        self.assertEqual(self.names(), [])
        self.assertEqual(len(self.lease()), 1)

    def test_later(self) -> None:
        """While the data base cannot be written, it is left for later, and is not lost."""
        self.send("A-1")
        self.killed()
        enter = self.patch(leases, "enter", _fail)
        self.lease()
        self.assertEqual(len(self.names()), 1)
        enter.restore()
        self.assertEqual(len(self.lease()), 1)
        self.assertEqual(self.names(), [f"{PREFIX}{self.queue.owner}"])

    def test_notYetMade(self) -> None:
        """A relay that asks for work before the directory is made is there all the same."""
        path = Path(self.mktemp())
        spool = Spool(path)
        gate = Gate()
        opening = spool.queue.runIn(gate.run, maybeDeferred)
        leasing = spool.queue.lease(1, 60)
        gate.open()
        self.successResultOf(opening)
        self.assertEqual(self.successResultOf(leasing), [])
        self.assertTrue((path / f"{PREFIX}{spool.queue.owner}").exists())
        stopping = spool.stop()
        gate.open()
        self.successResultOf(stopping)

    def test_noRoom(self) -> None:
        """Without room for a file the work goes on, and the log says why leases will last."""
        self.send("A-1")

        def full(*arguments: Any) -> int:
            raise OSError(28, "No space left on device")

        rename = self.patch(os, "rename", full)
        self.assertEqual(len(self.lease()), 1)
        problem = f"{self.path}: No space left on device"
        self.assertIn(("relay-problem", {"problem": problem}), self.said)
        self.lease()
        self.assertEqual(len(self.said), 1)
        rename.restore()
        self.time.now += LOOK_INTERVAL
        self.lease()
        self.assertEqual(self.names(), [f"{PREFIX}{self.queue.owner}"])

    def test_settled(self) -> None:
        """Nothing is left when all is done."""
        self.send("A-1")
        [work] = self.lease()
        self.settle(work, State.DELIVERED)
        self.successResultOf(self.spool.stop())
        self.assertEqual([each.name for each in self.path.iterdir()], [FILE])


def _fail(connection: Any, comers: Any) -> list[Any]:
    raise OSError(5, "broken")
