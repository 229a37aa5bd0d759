"""Tests for :mod:`submitd.checkers.hashthreads`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import current_thread
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers import LoginUnavailable
from submitd.checkers.hashthreads import HashThreads


class Thread:
    """A thread that is never finished until told, and counts what it is given."""

    def __init__(self) -> None:
        self.jobs: list[Deferred[bool]] = []

    def run(self, function: Any, *arguments: Any) -> Deferred[bool]:
        """Take a job and do nothing."""
        job: Deferred[bool] = Deferred()
        self.jobs.append(job)
        return job


class HashThreadsTests(SynchronousTestCase):
    """:class:`submitd.checkers.hashthreads.HashThreads`."""

    def compute(self, threads: HashThreads) -> Deferred[Any]:
        """Have something computed."""
        return threads.compute(lambda: True)

    def test_few(self) -> None:
        """However many threads the reactor has, hashes are computed in so few."""

        def inNewThread(function: Any, *arguments: Any) -> Deferred[Any]:
            with ThreadPoolExecutor(1) as pool:
                return execute(pool.submit(function, *arguments).result)

        threads = HashThreads(inNewThread, threads=1)
        used = {self.successResultOf(threads.compute(current_thread)) for _ in range(3)}
        self.assertEqual(len(used), 1)

    def test_tooMany(self) -> None:
        """Beyond the bound nobody can tell, at once; when one is done another may come."""
        thread = Thread()
        threads = HashThreads(thread.run, pending=2)
        computing = [self.compute(threads) for _ in range(3)]
        self.assertNoResult(computing[0])
        self.failureResultOf(computing[2], LoginUnavailable)
        self.assertEqual(len(thread.jobs), 2)
        thread.jobs[0].callback(True)
        self.assertTrue(self.successResultOf(computing[0]))
        self.assertNoResult(self.compute(threads))

    def test_atOnce(self) -> None:
        """No more threads are at work at once than may be: others in the process need some, too."""
        thread = Thread()
        threads = HashThreads(thread.run, threads=2)
        computing = [self.compute(threads) for _ in range(3)]
        self.assertEqual(len(thread.jobs), 2)
        thread.jobs[0].callback(True)
        self.assertEqual(len(thread.jobs), 3)
        thread.jobs[2].callback(True)
        self.assertTrue(self.successResultOf(computing[2]))

    def test_cancelled(self) -> None:
        """A client that goes away does not make room: its thread is still at work."""
        thread = Thread()
        threads = HashThreads(thread.run, pending=1)
        computing = self.compute(threads)
        computing.cancel()
        self.failureResultOf(computing, CancelledError)
        self.failureResultOf(self.compute(threads), LoginUnavailable)
        thread.jobs[0].callback(True)
        self.assertNoResult(self.compute(threads))

    def test_cancelledBefore(self) -> None:
        """One that goes away while it waits makes room at once, and is not computed."""
        thread = Thread()
        threads = HashThreads(thread.run, pending=2, threads=1)
        computing = [self.compute(threads) for _ in range(2)]
        computing[1].cancel()
        self.failureResultOf(computing[1], CancelledError)
        self.assertNoResult(self.compute(threads))
        thread.jobs[0].callback(True)
        self.assertEqual(len(thread.jobs), 2)

    def test_threadFails(self) -> None:
        """A thread that cannot be had is an error of its own, and its place is free again."""

        def fails(*arguments: Any) -> Deferred[bool]:
            raise RuntimeError("can't start new thread")

        threads = HashThreads(fails, pending=1)
        for _ in range(2):
            self.failureResultOf(self.compute(threads), RuntimeError)
