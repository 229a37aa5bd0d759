"""Threads for the hashes of passwords, off the reactor's, and only so many.

A hash costs some milliseconds up to half a second by design, and keeps a processor busy: more at
once than there are processors are no faster.  The reactor has ten threads, and deliveries need some
of them, however many passwords are tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twisted.internet.defer import Deferred, fail

from submitd.checkers import LoginUnavailable
from submitd.threads import Run, deferToThread
from submitd.turns import InTurn

THREADS = max(2, min(os.cpu_count() or 1, 6))


class HashThreads:
    """The threads of one back end.

    :param run: calls a function in another thread and gives a Deferred of its result.
    :param pending: how many hashes may be computed and wait at once.
    :param threads: how many may be computed at once.
    """

    def __init__(
        self, run: Run = deferToThread, *, pending: int = 100, threads: int = THREADS
    ) -> None:
        # The C library keeps for each thread what it has once allocated there, 19 MiB for argon2:
        # so the hashes are not spread over all threads of the reactor.
        self._own = ThreadPoolExecutor(threads)
        self._inTurn = InTurn(run, threads)
        self._limit = pending

    def compute(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """What a function makes of its arguments, when its turn has come.

        :raise LoginUnavailable: (the Deferred) when too many wait already.
        """
        pending = self._inTurn.pending
        if pending >= self._limit:
            return fail(LoginUnavailable(f"{pending} passwords wait to be verified"))
        return self._inTurn.call(self._inOwn, call, *arguments)

    def _inOwn(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return self._own.submit(call, *arguments).result()
