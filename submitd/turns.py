"""Turns: so many at once, and the others wait in their order, the urgent ones first.

``DeferredSemaphore`` does the same, but begins with the next one while the one before it gives its
turn back.  Where each ends at once, since a server is known to be away, a hundred that wait lie a
thousand frames deep in each other: more than Python allows, and whoever is left waits for ever.
Here the first one to give its turn back begins with all that follow, one after another.

:class:`InTurn` is for what cannot be ended once it has begun, as what runs in a thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from submitd.threads import Run


class Turns:
    """A number of turns.

    :param count: how many may have one at once.
    :param rank: of those who wait, made of their priority; the highest is next.
    """

    def __init__(self, count: int, rank: Callable[[Any], Any] = lambda priority: priority) -> None:
        self._count = self._free = count
        self._rank = rank
        self._waiting: dict[Hashable, deque[Deferred[None]]] = {}
        self._isGiving = False

    @property
    def isIdle(self) -> bool:
        """Whether nobody has one."""
        return self._free == self._count

    def acquire(self, priority: Hashable = 0) -> Deferred[None]:
        """Wait for a turn.

        :param priority: the higher its rank, the earlier.
        :return: fires when it has come, at once where there is a free one; then :meth:`release` is
            due.  Cancelled before, it leaves the queue.
        """
        waiting = self._waiting.setdefault(priority, deque())
        turn: Deferred[None] = Deferred(waiting.remove)
        waiting.append(turn)
        self._give()
        return turn

    def take(self) -> None:
        """Take one without waiting, even where there is none: then :meth:`release` is due, too."""
        self._free -= 1

    def release(self) -> None:
        """Give a turn back."""
        self._free += 1
        self._give()

    def _give(self) -> None:
        if self._isGiving:
            return
        self._isGiving = True
        while self._free > 0 and (turn := self._next()) is not None:
            self._free -= 1
            turn.callback(None)  # which raises nothing
        self._isGiving = False

    def _next(self) -> Deferred[None] | None:
        while self._waiting:
            highest = max(self._waiting, key=self._rank)
            if waiting := self._waiting.pop(highest):
                turn = waiting.popleft()
                if waiting:
                    self._waiting[highest] = waiting  # behind others of the same rank
                return turn
        return None


class InTurn:
    """Runs functions in threads, so many at once.

    :param run: runs a function in a thread and gives a Deferred.
    :param count: how many at once.
    :ivar pending: those that run, and those that wait for their turn.
    """

    def __init__(self, run: Run, count: int) -> None:
        self._run = run
        self._turns = Turns(count)
        self.pending = 0

    def call(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """What a function gives, when its turn has come.

        Cancelled before its thread begins, it is not called; behind that, it keeps its turn.
        """
        turn = self._turns.acquire()
        answer: Deferred[Any] = Deferred(lambda _: None if turn.called else turn.cancel())
        Deferred.fromCoroutine(self._call(turn, answer, function, *arguments))
        return answer

    async def _call(
        self, turn: Deferred[None], answer: Deferred[Any], function: Any, *arguments: Any
    ) -> None:
        self.pending += 1
        try:
            await turn
        except CancelledError:
            self.pending -= 1
            return
        result: Any
        try:
            result = await self._run(_unlessGone, answer, function, *arguments)
        except Exception:
            result = Failure()
        self.pending -= 1
        self._turns.release()
        if not answer.called:
            answer.callback(result)


def _unlessGone(answer: Deferred[Any], function: Callable[..., Any], *arguments: Any) -> Any:
    """In the thread, which may have been long in coming."""
    return None if answer.called else function(*arguments)
