"""Counts of live connections over several workers."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd import tally
from submitd.tally import SharedConnections, Tally

FORK = multiprocessing.get_context("fork")


@attrs.define(eq=False)
class Connection:
    """A connection from somewhere."""

    remoteAddress: str = ""

    def sweep(self, now: float) -> None:
        """Never called."""

    def drain(self) -> None:
        """Never called."""

    def abort(self) -> None:
        """Never called."""


def fill(file: int, page: int, answers: Any) -> None:
    """A worker that takes as many places as there are."""
    connections = SharedConnections(Clock(), 400, 100, Tally(file, page, b"k"))  # type: ignore[arg-type]
    taken = {}
    for at in range(2000):
        address = f"192.0.2.{at % 3}"
        if connections.hasRoom(address):
            connections.add(Connection(address))
            taken[address] = taken.get(address, 0) + 1
    answers.put(taken)


class TallyTests(SynchronousTestCase):
    """Several workers, here in one process, and in the last test in their own."""

    def setUp(self) -> None:
        self.file = tally.makeFile()
        self.addCleanup(os.close, self.file)
        self.parent = Tally(self.file)
        self.addCleanup(self.parent.close)
        self.parent.look(tally.PAGES)

    def made(self, page: int, maximum: int = 0, perAddress: int = 0) -> SharedConnections:
        """One worker's connections."""
        own = Tally(self.file, page, b"key")
        self.addCleanup(own.close)
        return SharedConnections(Clock(), maximum, perAddress, own)  # type: ignore[arg-type]

    def connect(self, connections: SharedConnections, address: str = "") -> Connection | None:
        """What a protocol does: ask, and count in any case; a refused one goes again."""
        hasRoom = connections.hasRoom(address)
        connection = Connection(address)
        connections.add(connection)
        if not hasRoom:
            connections.remove(connection)
            return None
        return connection

    def test_maximum(self) -> None:
        """There are so many at one time in all workers together."""
        one, two = self.made(1, 3), self.made(2, 3)
        first = self.connect(one)
        assert first is not None
        self.connect(two)
        self.connect(two)
        self.assertIsNone(self.connect(one))
        self.assertIsNone(self.connect(two))
        one.remove(first)
        self.assertIsNotNone(self.connect(two))
        self.assertIsNone(self.connect(one))

    def test_perAddress(self) -> None:
        """And so many from one address; a unix socket has none."""
        one, two = self.made(1, 0, 2), self.made(2, 0, 2)
        for worker in (one, two):
            self.assertIsNotNone(self.connect(worker, "192.0.2.1"))
            self.assertIsNotNone(self.connect(worker, "192.0.2.2"))
        for worker in (one, two):
            self.assertIsNone(self.connect(worker, "192.0.2.1"))
            self.assertIsNotNone(self.connect(worker, "2001:db8::1"))
            for _ in range(4):
                self.assertIsNotNone(self.connect(worker))

    def test_wiped(self) -> None:
        """The connections of a worker that is gone count no longer, those of the others do."""
        one, two = self.made(1, 3, 2), self.made(2, 3, 2)
        self.connect(one, "192.0.2.1")
        self.connect(one, "192.0.2.1")
        self.connect(two, "192.0.2.2")
        self.assertIsNone(self.connect(two, "192.0.2.3"))
        self.parent.wipe(1)
        self.assertIsNotNone(self.connect(two, "192.0.2.1"))
        self.assertIsNotNone(self.connect(two, "192.0.2.1"))
        self.assertIsNone(self.connect(two, "192.0.2.1"))

    def test_places(self) -> None:
        """Places are used again, the first ones first: the page stays as short as it can be."""
        one, two = self.made(1, 0, 1), self.made(2, 0, 1)
        live = [self.connect(one, f"192.0.2.{at}") for at in range(10)]
        for each in live[2:5]:
            assert each is not None
            one.remove(each)
        for at in (2, 3, 4):
            self.assertIsNotNone(self.connect(two, f"192.0.2.{at}"))
        for at in (5, 9):
            self.assertIsNone(self.connect(two, f"192.0.2.{at}"))
        for at in range(20, 23):
            self.connect(one, f"192.0.2.{at}")
        self.assertEqual(one._tally._used, 10)

    def test_reserved(self) -> None:
        """A place that was asked for and not taken is given to the next."""
        one, two = self.made(1, 1), self.made(2, 1)
        self.assertTrue(one.hasRoom(""))
        self.assertFalse(two.hasRoom(""))
        self.assertTrue(one.hasRoom(""))
        self.assertIsNotNone(self.connect(one))
        self.assertIsNone(self.connect(two))

    def test_move(self) -> None:
        """An address that a proxy tells counts in all workers from then on."""
        one, two = self.made(1, 0, 1), self.made(2, 0, 1)
        first, second = self.connect(one), self.connect(two)
        assert first is not None
        assert second is not None
        self.assertTrue(one.move(first))
        first.remoteAddress = second.remoteAddress = "192.0.2.1"
        self.assertTrue(one.move(first))
        self.assertTrue(one.move(first))
        self.assertFalse(two.move(second))
        second.remoteAddress = "192.0.2.2"
        self.assertTrue(two.move(second))

    def test_many(self) -> None:
        """Beyond the end of a page, connections still count in all."""
        self.patch(tally, "MOST", 3)
        one, two = self.made(1, 6, 1), self.made(2, 6, 1)
        live = [self.connect(one, f"192.0.2.{at}") for at in range(5)]
        self.assertIsNotNone(self.connect(two, "192.0.2.4"))
        self.assertIsNone(self.connect(two, "192.0.2.7"))
        for each in live:
            assert each is not None
            one.remove(each)
        self.assertIsNotNone(self.connect(two, "192.0.2.7"))

    def test_processes(self) -> None:
        """Four processes that take places at the same time do not take one too many."""
        answers = FORK.SimpleQueue()
        children = [
            FORK.Process(target=fill, args=(self.file, page, answers), daemon=True)
            for page in range(1, 5)
        ]
        for child in children:
            child.start()
        found: dict[str, int] = {}
        for _ in children:
            for address, count in answers.get().items():
                found[address] = found.get(address, 0) + count
        for child in children:
            child.join(60)
        # Whoever has ended has kept its page: nobody has wiped it.
        self.assertEqual(found, {f"192.0.2.{at}": 100 for at in range(3)})
