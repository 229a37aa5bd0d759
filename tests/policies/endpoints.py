"""How Twisted's endpoints fail."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError


def hanging() -> Deferred[Any]:
    """A connection that is never made; given up, it fails with an error of its own."""
    return Deferred(lambda d: d.errback(ConnectingCancelledError(UNIXAddress("/nowhere"))))
