"""Group commit: what ends while one commit runs shares the next one.

All that is written goes through one :class:`GroupCommit`: a statement and one argument.  While the
thread is busy they gather; then all of them are one transaction, neighbours with the same statement
one call, and one sync of the disk serves all.  Nobody's Deferred fires before that.

A statement is a function of a connection, within a transaction, and a list of arguments; it gives a
result for each.  It may be run again after a rollback.  It reads no more than what it is about:
every condition is served by a key or an index, however long the queue is, but for what operators
may look for.

When one of them spoils the transaction, it is rolled back and each is done alone, so that only the
one fails.  When the data base itself cannot be used, all fail at once.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import sqlalchemy as sa
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from submitd.spool.database import Link, Unusable, isDamage, isFull
from submitd.threads import Run

Statement = Callable[[sa.Connection, list[Any]], list[Any]]
"""Does something for each argument, and gives a result for each, in order."""

MAX_BATCH = 100
"""Calls in one transaction; a chunk of a large message is one of them."""


class WorkThread:
    """Runs one call after the other in a thread of its own, which begins with the first call.

    :param name: the thread's, for whoever looks at the process.
    :param callFromThread: the reactor's.
    """

    def __init__(self, name: str, callFromThread: Callable[..., object]) -> None:
        self._name = name
        self._callFromThread = callFromThread
        self._calls: queue.SimpleQueue[tuple[Deferred[Any], Callable[[], Any]] | None]
        self._calls = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run a call; from the reactor's thread."""
        if self._thread is None:
            # A daemon: what has not been committed when the process ends, nobody was told about.
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        result: Deferred[Any] = Deferred()
        self._calls.put((result, lambda: call(*arguments)))
        return result

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            result, call = item
            try:
                value = call()
            except Exception:
                value = Failure()
            self._callFromThread(_fire, result, value)

    def stop(self) -> None:
        """End the thread behind all calls that were made, and wait for that."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._calls.put(None)
            thread.join()


def _fire(result: Deferred[Any], value: Any) -> None:
    if not result.called:
        result.callback(value)


@attrs.define(eq=False)
class _Call:
    """One thing to write."""

    statement: Statement
    argument: Any
    result: Deferred[Any]


class GroupCommit:
    """Gathers what is to be written, and writes it in as few transactions as there is time for.

    :param link: the connection that is written through.
    :param run: runs a function in a thread, one at a time, and gives a Deferred.
    """

    def __init__(self, link: Link, run: Run) -> None:
        self._link = link
        self._run = run
        self._waiting: deque[_Call] = deque()
        self._isBusy = False
        self._idle: list[Deferred[None]] = []

    def submit(self, statement: Statement, argument: Any) -> Deferred[Any]:
        """Have something written.

        :return: fires with its result when that is durable.  Cancelled before its transaction has
            begun, it is not done; cancelled later it may be done all the same.
        """
        call = _Call(statement, argument, Deferred(self._cancel))
        self._waiting.append(call)
        if not self._isBusy:
            self._begin()
        return call.result

    def idle(self) -> Deferred[None]:
        """Wait until there is nothing to write."""
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        self._tellIdle()
        return idle

    def _tellIdle(self) -> None:
        if not self._isBusy:
            idle, self._idle = self._idle, []
            for each in idle:
                each.callback(None)

    def _cancel(self, result: Deferred[Any]) -> None:
        # Nobody is there to be told; but one that has begun cannot be stopped any more.
        self._waiting = deque(call for call in self._waiting if call.result is not result)

    def _begin(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        if batch:
            self._isBusy = True
            self._run(self._write, batch).addBoth(self._written, batch)

    def _written(self, results: Any, batch: list[_Call]) -> None:
        self._isBusy = False
        # First the next ones, so that the thread is at work while these are told.
        self._begin()
        if isinstance(results, Failure):
            results = [results] * len(batch)
        for call, result in zip(batch, results, strict=True):
            _fire(call.result, result)
        self._tellIdle()

    def _write(self, batch: list[_Call]) -> list[Any]:
        try:
            return self._link.write(lambda connection: _together(connection, batch))
        except Exception as error:
            failure = Failure()
            if len(batch) == 1 or not _mayBeOnes(error):
                return [failure] * len(batch)
        return [self._write([call])[0] for call in batch]


def _together(connection: sa.Connection, batch: list[_Call]) -> list[Any]:
    results: list[Any] = []
    for statement, calls in itertools.groupby(batch, lambda call: call.statement):
        results += statement(connection, [call.argument for call in calls])
    return results


def _mayBeOnes(error: Exception) -> bool:
    """Whether others may do well where one has failed: too large, damaged, or a key is taken."""
    if isinstance(error, (Unusable, OSError)):
        return False
    return not isinstance(error, sa.exc.OperationalError) or isFull(error) or isDamage(error)
