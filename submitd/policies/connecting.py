"""Connections to the programs that policies ask: policy servers and filters."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint


async def connected(endpoint: IStreamClientEndpoint, factory: IProtocolFactory) -> Any:
    """Connect.

    :return: the protocol, connected.
    :raise CancelledError: when nobody waits for it any more, which says nothing of who listens.
    :raise Exception: whatever the endpoint fails with.
    """
    try:
        return await endpoint.connect(factory)
    except ConnectingCancelledError:
        # With which Twisted's endpoints fail then, and which is no CancelledError.
        raise CancelledError from None
