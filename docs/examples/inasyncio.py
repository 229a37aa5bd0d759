"""A submission port in a program of asyncio.

    python inasyncio.py 2525

Twisted runs on the loop that is there already.  What a policy or a delivery awaits is a Deferred,
so a coroutine of asyncio becomes one: ``Deferred.fromFuture(asyncio.ensure_future(...))``.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from zope.interface import implementer

from submitd.deliveries.discard import Discard
from submitd.envelope import Envelope, Recipient
from submitd.interfaces import IRecipientPolicy
from submitd.service import submissionService
from submitd.session import Session
from submitd.settings import ListenerSettings
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply


def reactorOf(loop: asyncio.AbstractEventLoop) -> Any:
    """Twisted's reactor on a loop that runs; once in a process, before anybody imports another."""
    asyncioreactor.install(loop)
    from twisted.internet import reactor

    installed: Any = reactor
    installed.startRunning(installSignalHandlers=False)
    return installed


@implementer(IRecipientPolicy)
@attrs.define(eq=False)
class Known:
    """Refuses recipients that a coroutine of asyncio does not know."""

    isKnown: Callable[[str], Awaitable[bool]]

    async def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """Ask, and wait for the answer."""
        asked = asyncio.ensure_future(self.isKnown(str(recipient.mailbox)))
        if not await Deferred.fromFuture(asked):
            raise Refused(Reply(550, "5.1.1", "No such mailbox here"))


async def isKnown(address: str) -> bool:
    """Whatever takes its time."""
    await asyncio.sleep(0.01)
    return address.startswith("ada@")


async def main(port: str) -> None:
    """Serve until the process is told to end."""
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    listener = ListenerSettings(
        endpoint=f"tcp:{port}:interface=127.0.0.1", tls="off", require_tls=False
    )
    service = submissionService(
        reactorOf(loop),
        [listener],
        policies=[Known(isKnown)],
        delivery=Discard(),
        loginRequired=False,
    )
    service.startService()
    address: Any = service.addresses[0]
    print(f"listening on port {address.port}", flush=True)
    await end.wait()
    await service.stopService().asFuture(loop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
