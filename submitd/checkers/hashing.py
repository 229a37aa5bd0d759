"""Hashes of passwords, computed off the reactor's thread, and only so many at a time.

One costs some milliseconds up to half a second by design, and keeps a processor busy: more at once
than there are processors are no faster.  The reactor has ten threads, and deliveries need some of
them, however many passwords are tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, fail

from submitd.checkers import LoginUnavailable
from submitd.threads import Run

THREADS = max(2, min(os.cpu_count() or 1, 6))


class Hashing:
    """The hashes of one back end.

    :param run: calls a function in another thread and gives a Deferred of its result.
    :param pending: how many may be computed and wait at once.
    :param threads: how many may be computed at once.
    """

    def __init__(self, run: Run, pending: int = 100, threads: int = THREADS) -> None:
        self._run = run
        self._limit = pending
        self._turns = DeferredSemaphore(threads)
        self._pending = 0

    def compute(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """What a function makes of its arguments, when its turn has come.

        :raise LoginUnavailable: (the Deferred) when too many wait already.
        """
        if self._pending >= self._limit:
            return fail(LoginUnavailable(f"{self._pending} passwords wait to be verified"))
        self._pending += 1
        computed = self._turns.run(self._run, call, *arguments)
        # A Deferred of its own: cancelling it must not let another login in while the thread of
        # this one is still busy.
        answer: Deferred[Any] = Deferred()
        computed.addBoth(self._done)
        computed.addCallbacks(answer.callback, answer.errback)
        return answer

    def _done(self, result: Any) -> Any:
        self._pending -= 1
        return result
