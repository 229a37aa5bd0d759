"""Functions that block, run in a reactor's threads.

The parts of Twisted that do it are imported when one runs: importing them installs a reactor, which
is the service's to choose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

Run = Callable[..., Deferred[Any]]
"""Runs a function with its arguments elsewhere; gives what it returns or raises."""


def deferToThread(call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Run a function in a thread of the process's reactor."""
    from twisted.internet import threads

    return threads.deferToThread(call, *arguments)


def inThreadsOf(reactor: Any) -> Run:
    """What runs functions in the threads of this reactor."""

    def run(call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        from twisted.internet.threads import deferToThreadPool

        deferred: Deferred[Any] = deferToThreadPool(
            reactor, reactor.getThreadPool(), call, *arguments
        )
        return deferred

    return run
