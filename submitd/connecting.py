"""Connections to other programs: policy servers, filters, next hops.

Who listens on a unix socket and has as many waiting as its queue takes refuses the next one at
once, with EAGAIN; over TCP that one would wait.  Twisted goes on as if it were being connected, and
is told by the poll that the connection has ended: a ``ConnectError`` whose text is that end.  Such
a server is not away but has a rush of clients, and is tried again a moment later.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

# Seconds after which a server with a full queue is tried again; then always the last of them.
MOMENTS = (0.01, 0.03, 0.1, 0.3)


class Crowded(Exception):
    """A server has had its queue full all the time."""

    def __init__(self) -> None:
        super().__init__("its queue of new connections is full")


async def connected(
    endpoint: IStreamClientEndpoint,
    factory: IProtocolFactory,
    clock: IReactorTime,
    seconds: float,
) -> Any:
    """Connect.

    :param seconds: for how long a server with a full queue is tried; the caller ends everything
        else that lasts.
    :return: the protocol, connected.
    :raise CancelledError: when nobody waits for it any more, which says nothing of who listens.
    :raise Crowded: when the queue has been full for so long.
    :raise Exception: whatever the endpoint fails with.
    """
    end = clock.seconds() + seconds
    moments = list(MOMENTS)
    while True:
        try:
            return await endpoint.connect(factory)
        except ConnectingCancelledError:
            # With which Twisted's endpoints fail then, and which is no CancelledError.
            raise CancelledError from None
        except ConnectError as error:
            if not _isCrowded(error):
                raise
        moment = moments.pop(0) if len(moments) > 1 else moments[0]
        if clock.seconds() + moment >= end:
            raise Crowded
        await deferLater(clock, moment, lambda: None)


def _isCrowded(error: ConnectError) -> bool:
    # What the system names is in osError, and has a text that is one.
    return any(isinstance(each, Failure) and each.check(ConnectionDone) for each in error.args)
