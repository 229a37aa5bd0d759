"""What the log is told of hosts that do not take us: once, once more each hour, and when they do.

Not for each message: a thousand of them that wait for one smarthost are one thing to be mended.
Whoever asks tells what comes of connections; nothing here is called later, so that nothing is told
of a host that nobody wants anything of.
"""

from __future__ import annotations

import attrs
from twisted.internet.interfaces import IReactorTime

from submitd import events
from submitd.relay.outgoing import inOneLine
from submitd.wire.reply import Reply

AGAIN = 3600.0
"""Seconds after which a host that still does not take us is told of once more."""

MOST = 100
"""Hosts of one domain that are kept in mind: it is others who name them, and they may go on."""


@attrs.define
class Away:
    """A host that does not take us.

    :param since: when that was seen first.
    :param told: when the log was told last.
    """

    since: float
    told: float


class Standing:
    """How we stand with the hosts of one next hop.

    That one is away which the configuration names is a warning, for somebody can mend that; of the
    hosts that DNS names for a domain, some are always away.

    :param route: the section that names the next hop.
    :param domain: whose hosts they are, where DNS names them.
    :param clock: tells the time.
    """

    def __init__(self, route: str, domain: str, clock: IReactorTime) -> None:
        self._named = {"domain": domain} if domain else {"route": route}
        self._events = (
            (events.HOST_AWAY, events.HOST_BACK)
            if domain
            else (events.NEXT_HOP_AWAY, events.NEXT_HOP_BACK)
        )
        self._clock = clock
        self._away: dict[str, Away] = {}

    def failed(self, host: str, reply: Reply) -> None:
        """A host does not take us: it is not there, its TLS is not good, or it refuses our login.

        :param reply: why.
        """
        now = self._clock.seconds()
        away = self._away.get(host)
        if away is None:
            if len(self._away) >= MOST:
                self._away.clear()
            away = self._away[host] = Away(since=now, told=now - AGAIN)
        if now - away.told >= AGAIN:
            away.told = now
            seconds = round(now - away.since)
            events.emit(
                self._events[0], **self._named, host=host, reply=inOneLine(reply), seconds=seconds
            )

    def well(self, host: str) -> None:
        """A host takes us."""
        away = self._away.pop(host, None)
        if away is not None:
            seconds = round(self._clock.seconds() - away.since)
            events.emit(self._events[1], **self._named, host=host, seconds=seconds)
