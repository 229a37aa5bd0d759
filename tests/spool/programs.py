"""Small programs that tests run in processes of their own.

``accept PATH|URL COUNT PREFIX``: submits messages one after the other, and writes the id of each on
a line of stdout when it has been answered.  ``lease PATH|URL``: takes all there is, and writes what
it got.  ``take PATH|URL``: takes what is due for an hour, says so, and waits to be killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from submitd.deliveries.spool import Spool
from submitd.spool.records import Settlement, State
from tests.spool.support import NOW, TRACE, makeEnvelope, makeSession


def say(line: str) -> None:
    """A line, in one call of the system."""
    os.write(1, f"{line}\n".encode())


async def accept(spool: Spool, count: str, prefix: str) -> None:
    """Submit messages."""
    for at in range(int(count)):
        message = spool.begin(makeSession(), makeEnvelope(f"{prefix}{at}-1"))
        message.dataReceived(TRACE)
        message.dataReceived(b"Subject: x\r\n\r\n" + b"x" * 1000)
        say(f"250 {await message.eomReceived()}")


async def lease(spool: Spool) -> None:
    """Take and deliver all there is, until nothing is left for a while."""
    while works := await spool.queue.lease(5, 60):
        for work in works:
            settled = [
                Settlement(position=each.position, state=State.DELIVERED, reply="250")
                for each in work.recipients
            ]
            await spool.queue.settle(work, settled)
            say(work.message.id)


async def take(spool: Spool) -> None:
    """Take what is due, and do nothing with it."""
    spool.queue.now = lambda: NOW
    await spool.queue.lease(100, 3600)
    say("taken")
    await Deferred()


async def main(run: Callable[..., Coroutine[Any, Any, None]], where: str, *rest: str) -> None:
    """Run one of them."""
    spool = Spool(url=where) if "://" in where else Spool(Path(where))
    await spool.start(reactor)
    try:
        await run(spool, *rest)
    finally:
        await spool.stop()


PROGRAMS = {"accept": accept, "lease": lease, "take": take}

if __name__ == "__main__":
    loop: Any = reactor
    name, *arguments = sys.argv[1:]
    failed: list[Any] = []

    def begin() -> None:
        done = Deferred.fromCoroutine(main(PROGRAMS[name], *arguments))
        done.addErrback(failed.append).addBoth(lambda _: loop.stop())

    loop.callWhenRunning(begin)
    loop.run()
    if failed:
        sys.exit(failed[0].getTraceback())
