"""Work in parts: the recipients of a message that go to one next hop in one transaction."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import attrs
from twisted.internet.defer import Deferred

from submitd.relay.destinations import Destinations, Hop, Key
from submitd.relay.routes import Routes
from submitd.relay.verdicts import Verdict
from submitd.spool.records import QueuedMessage, QueuedRecipient, Work


@attrs.define(eq=False)
class Lease:
    """One message's work, and what of it is under way.

    :param work: as it is now; extended from time to time.
    :ivar open: parts of it that have not ended.
    :ivar isBroken: whether one of them was broken off, so that there is something to give back.
    """

    work: Work
    open: int = 0
    isBroken: bool = False


@attrs.define(eq=False)
class Part:
    """Recipients of one message that go to one next hop in one transaction.

    :param key: of the next hop.
    :param hop: the next hop; ``None`` when there is no route.
    :param lease: of the message.
    :param recipients: those who have no verdict yet.
    :ivar verdicts: on the others.
    :ivar hasPlace: whether it is one of those that may be on their way.
    :ivar isBegun: whether the message has begun to go out.
    :ivar isStopped: whether it was told to end.
    :ivar isSettling: whether what came of it is being written down.
    """

    key: Key
    hop: Hop | None
    lease: Lease
    recipients: list[QueuedRecipient]
    verdicts: list[Verdict] = attrs.field(factory=list)
    hasPlace: bool = False
    isBegun: bool = False
    isStopped: bool = False
    isSettling: bool = False
    running: Deferred[None] | None = None

    def stop(self) -> None:
        """Break it off, unless what came of it is being written down: that must not get lost."""
        self.isStopped = True
        if self.running is not None and not self.isSettling:
            self.running.cancel()

    @property
    def message(self) -> QueuedMessage:
        """Which message."""
        return self.lease.work.message


@attrs.frozen
class Parting:
    """Makes parts of what was leased.

    :param routes: where it goes.
    :param destinations: the next hops.
    :param most: recipients of one part; 0 for any number.
    """

    routes: Routes
    destinations: Destinations
    most: int

    def of(self, works: Iterable[Work]) -> Iterator[Part]:
        """Works become parts: by message, then by next hop, none with too many recipients."""
        for _, group in itertools.groupby(works, lambda work: (work.message.id, work.token)):
            lease = Lease(_joined(list(group)))
            parts: dict[Key, Part] = {}
            for recipient in lease.work.recipients:
                key, hop = self._hopFor(lease.work.message, recipient)
                parts.setdefault(key, Part(key, hop, lease, [])).recipients.append(recipient)
            for part in parts.values():
                yield from self._cut(part)

    def _cut(self, part: Part) -> Iterator[Part]:
        most = self.most or len(part.recipients)
        for at in range(0, len(part.recipients), most):
            yield Part(part.key, part.hop, part.lease, part.recipients[at : at + most])

    def _hopFor(self, message: QueuedMessage, recipient: QueuedRecipient) -> tuple[Key, Hop | None]:
        route = self.routes.find(message.login, message.envelope.reversePath, recipient.mailbox)
        if route is None:
            return ("", "", False), None
        return self.destinations.find(route, recipient.domain, message.envelope.requireTLS)


def _joined(works: Sequence[Work]) -> Work:
    """What is leased of one message, whatever the domains."""
    return attrs.evolve(
        works[0], recipients=tuple(each for work in works for each in work.recipients)
    )
