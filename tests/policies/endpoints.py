"""How Twisted's endpoints fail."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionDone
from twisted.python.failure import Failure


def hanging() -> Deferred[Any]:
    """A connection that is never made; given up, it fails with an error of its own."""
    return Deferred(lambda d: d.errback(ConnectingCancelledError(UNIXAddress("/nowhere"))))


def crowded() -> Deferred[Any]:
    """What comes of a unix socket whose queue of new connections is full."""
    return fail(ConnectError(string=Failure(ConnectionDone())))
