"""Next hops with their connections: found, opened, used again, and bounded in number.

A :class:`Destination` is one next hop: its hosts are tried in their order until one takes us, and
the next one when it leaves us before the end of the message; one that could not be had is tried
behind the others for a time.  Its connections are kept for the next message for a while; one that
takes no more of them, whatever it says to MAIL, is replaced.  One that nobody can connect to is
left alone for a time, so that a thousand messages for it cost one attempt.  One that refuses a
connection while it has others gets one less for that time, and no other message is delayed by that.
REQUIRETLS (RFC 8689) has destinations of its own, whose TLS is verified; over MX records, which
anybody can forge, only hosts below the recipient's own domain are good enough.  A host that does
not offer what a message needs, or takes no mail for now, is passed over where there are others.

The log is told of hosts that do not take us (:mod:`submitd.relay.standing`), but for those that
refuse a connection while they have others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, MutableMapping
from typing import Any, Protocol
from weakref import WeakValueDictionary

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint

from submitd.equality import sameDomain
from submitd.interfaces import IBody
from submitd.relay.capabilities import REQUIRETLS_UNSUPPORTED, REQUIRETLS_UNVERIFIED
from submitd.relay.client import TLS_NOT_OFFERED, Profile
from submitd.relay.connection import Connection, HopFailed, Host, connect
from submitd.relay.local import LocalHop
from submitd.relay.mx import MailExchangers, NoHosts
from submitd.relay.outgoing import Outcome, Outgoing, Result, judge
from submitd.relay.routes import Route, Target
from submitd.relay.settings import RelaySettings, TLSWord
from submitd.relay.standing import Standing
from submitd.relay.states import State
from submitd.relay.tls import ClientTLS
from submitd.turns import Turns
from submitd.wire.reply import LOCAL_ERROR, Reply

Read = Callable[[], IBody]

Key = tuple[str, str, bool]
"""What tells a next hop from others: route, domain for mx, and whether TLS has to be verified."""

_BEFORE_THE_END = frozenset({State.ENVELOPE, State.OPENING, State.BODY})

# Addresses that are tried in one attempt: it has a connection, and a place among all deliveries.
MAX_PLACES = 20

# Destinations that are kept when nothing is on its way to them.
MAX_IDLE = 1000


class Hop(Protocol):
    """Where messages can be delivered to.

    :ivar turns: one is to be had for each delivery.
    """

    turns: Turns

    async def deliver(self, message: Outgoing, read: Read) -> tuple[Outcome, ...]:
        """Deliver a message.

        :param read: gives the message, from its beginning.
        :return: an outcome for each recipient; it does not raise.
        """

    async def close(self) -> None:
        """End what is open."""


@attrs.frozen(kw_only=True, eq=False)
class Means:
    """What all destinations have in common.

    :param reactor: connects, tells the time and calls later.
    :param hostname: our own name.
    :param settings: of ``[relay]``.
    :param tls: makes handshakes.
    :param exchangers: finds hosts by MX.
    """

    reactor: Any
    hostname: str
    settings: RelaySettings
    tls: ClientTLS
    exchangers: MailExchangers


class Destinations:
    """All next hops.

    :param means: what they have in common.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        # One that is not kept any more may be somebody's still, and is the same when it is found
        # again: two would have twice as many connections.
        self._hops: MutableMapping[Key, Hop] = WeakValueDictionary()
        self._kept: dict[Key, Hop] = {}

    def find(self, route: Route, domain: str, requireTLS: bool) -> tuple[Key, Hop]:
        """The next hop of a route, the same one each time.

        :param domain: the recipient's.
        :return: its key, and the next hop.
        """
        key = (route.name, domain if route.kind == "mx" else "", requireTLS)
        hop = self._hops.get(key)
        if hop is None:
            hop = self._hops[key] = self._make(route, domain, requireTLS)
        if key not in self._kept:
            if len(self._kept) >= MAX_IDLE:
                self._forget()
            self._kept[key] = hop
        return key, hop

    def _make(self, route: Route, domain: str, requireTLS: bool) -> Hop:
        if route.kind == "maildir":
            return LocalHop(route.host, Turns(max(1, self._means.settings.connections)))
        return Destination(route, domain, requireTLS, self._means)

    def _forget(self) -> None:
        for key, hop in list(self._kept.items()):
            # Those of domains; of others there are as many as there are routes.
            if key[1] and isinstance(hop, Destination) and hop.isIdle:
                del self._kept[key]

    async def close(self) -> None:
        """End all connections."""
        # All at once: one that does not answer to QUIT has its own time, and not the next one's.
        await gatherResults([Deferred.fromCoroutine(hop.close()) for hop in self._hops.values()])


@attrs.define
class _Tried:
    """What came of the hosts that were tried for one message, by what the log calls them.

    :ivar outcomes: of the last one that took a beginning of it.
    :ivar unfit: what one said that lacks an extension that it needs.
    :ivar failed: those at which no message could be begun.
    :ivar lacking: those that have not what it needs, at whatever address.
    :ivar away: those that the log is to be told of, and why they do not take us.
    """

    outcomes: tuple[Outcome, ...] | None = None
    unfit: tuple[Outcome, ...] | None = None
    failed: dict[str, HopFailed] = attrs.Factory(dict)
    lacking: set[str] = attrs.Factory(set)
    away: dict[str, Reply] = attrs.Factory(dict)

    def settled(self, message: Outgoing) -> tuple[Outcome, ...]:
        """What comes of the message.

        :raise HopFailed: when it could not be begun at any of them.
        """
        if self.outcomes is not None:
            return self.outcomes
        away = [error for called, error in self.failed.items() if called not in self.lacking]
        if not away:
            # What cannot be had anywhere is not waited for (RFC 8689 4.2.1).
            return self.unfit or _all(message, _ours(REQUIRETLS_UNSUPPORTED))
        if self.unfit is None:
            raise away[-1]
        return _all(message, away[-1].outcome)


class Destination:
    """One next hop.

    :param route: how it is spoken to.
    :param domain: the recipients', for mx.
    :param requireTLS: whether its TLS must be verified, whatever the route says.
    :param means: what all have in common.
    """

    def __init__(self, route: Route, domain: str, requireTLS: bool, means: Means) -> None:
        self._route = route
        self._domain = domain
        self._requireTLS = requireTLS
        self._means = means
        self.turns = Turns(max(1, means.settings.connections))
        self._free: list[Connection] = []
        self._underWay: dict[object, None] = {}
        self._trying: list[Host] = []
        self._opening: set[Connection] = set()
        self._sending: list[Connection] = []
        self._refused: deque[IDelayedCall] = deque()
        self._lastUntil: dict[str, float] = {}
        self._unchunked: set[str] = set()
        self._deadUntil = 0.0
        self._deadOutcome = _ours(LOCAL_ERROR)
        self._closing = False
        self._isNamed = route.kind != "mx"
        self._hasSpares = not self._isNamed or bool(route.spares)
        self._standing = Standing(route.name, "" if self._isNamed else domain, means.reactor)

    @property
    def isIdle(self) -> bool:
        """Whether nothing would be lost with it."""
        return self.turns.isIdle and not any(each.isReady for each in self._free)

    async def deliver(self, message: Outgoing, read: Read) -> tuple[Outcome, ...]:
        """See :meth:`Hop.deliver`."""
        mine = object()
        self._underWay[mine] = None
        try:
            return await self._deliver(message, read, mine)
        finally:
            del self._underWay[mine]

    async def _deliver(self, message: Outgoing, read: Read, mine: object) -> tuple[Outcome, ...]:
        connection = self._taken()
        if connection is not None:
            outcomes = await self._send(connection, message, read)
            isRefused = connection.isSpent or self._takesNone(connection, outcomes)
            if isRefused or self._wantsLogin(outcomes) or self._isUnfit(outcomes):
                # Not beside it: a next hop that takes one connection would refuse the other.
                await connection.quit()
            elif not _wasGone(connection, outcomes):
                self._keep(connection)
                return outcomes
        if self._means.reactor.seconds() < self._deadUntil:
            return _all(message, self._deadOutcome)
        try:
            return await self._tryHosts(message, read, self._inOrder(await self._hosts()))
        except NoHosts as failed:
            return _all(message, _ours(failed.reply))
        except HopFailed as failed:
            if self._hasOthers(mine, failed):
                self._haveLess()
            else:
                self._deadUntil, self._deadOutcome = self._afterBackoff(), failed.outcome
            return _all(message, failed.outcome)

    async def _tryHosts(
        self, message: Outgoing, read: Read, hosts: Iterable[Host]
    ) -> tuple[Outcome, ...]:
        """Deliver to the first host that takes us, and stays until the message is over.

        :raise HopFailed: when no message could be begun at any of them.
        """
        tried = _Tried()
        for host in hosts:
            if await self._tryHost(host, message, read, tried):
                break
        self._tell(tried.away)
        return tried.settled(message)

    async def _tryHost(self, host: Host, message: Outgoing, read: Read, tried: _Tried) -> bool:
        """Deliver to one host; add to what came of those before it.

        :return: whether it has stayed until the message was over, so that no other one is needed.
        """
        before, called = [*self._trying], self._called(host)
        try:
            connection = await self._connected(host)
            tried.away.pop(called, None)  # it was another address of it
            self._tell(tried.away)
            sent = await self._sendFirst(connection, message, read)
        except HopFailed as error:
            self._lastUntil[host.where] = self._afterBackoff()
            if self._requireTLS and error.reply is TLS_NOT_OFFERED:
                tried.lacking.add(called)
                return False
            tried.failed[called] = error
            if not self._isThere(host, before):
                tried.away[called] = error.reply
            return False
        if self._isUnfit(sent):
            self._leave(connection)
            tried.lacking.add(called)
            tried.unfit = sent
            return False
        tried.outcomes = sent
        if self._takesNone(connection, sent):
            self._leave(connection)
            self._lastUntil[host.where] = self._afterBackoff()
        else:
            self._keep(connection)
            if not _wasLeft(connection, sent):
                self._standing.well(called)
                return True
        if not self._isThere(host, before):
            tried.away[called] = next(each for each in sent if _isDelayed(each)).reply
        return False

    def _isUnfit(self, outcomes: Iterable[Outcome]) -> bool:
        """Whether a host lacks an extension that a message needs, and another one may have it."""
        return self._hasSpares and all(
            each.result is Result.FAILED and not each.isRemote for each in outcomes
        )

    def _takesNone(self, connection: Connection, outcomes: Iterable[Outcome]) -> bool:
        """Whether a host takes no mail for now, as when its disk is full, and another one may.

        4yz to MAIL says nothing of a recipient; that to RCPT, as by greylisting, does.  With 4.1.z
        it says something of this sender alone (RFC 3463 3.2): others have nothing to wait for.
        """
        return (
            self._hasSpares
            and connection.isMailRefused
            and any(_isDelayed(each) and each.reply.status[:4] != "4.1." for each in outcomes)
        )

    async def _connected(self, host: Host) -> Connection:
        means = self._means
        self._trying.append(host)
        try:
            made = await connect(host, means.reactor, means.settings.timeouts, self._opening)
        finally:
            self._trying.remove(host)
        self._lastUntil.pop(host.where, None)
        return made

    def _called(self, host: Host) -> str:
        """What the log calls a host: as the configuration does, or DNS, whatever its addresses."""
        return host.where if self._isNamed else host.name

    def _isThere(self, host: Host, before: Container[Host]) -> bool:
        """Whether a host that has not taken one more connection has others, or may take one yet.

        :param before: what was tried by then.  Whoever still tries for longer tells of it, if any.
        """
        greeted = [each for each in self._opening if each.isGreeted]
        there = [each.host for each in (*self._others(), *greeted)]
        there += [each for each in self._trying if each in before]
        return self._called(host) in map(self._called, there)

    def _tell(self, failures: dict[str, Reply]) -> None:
        for called, reply in failures.items():
            self._standing.failed(called, reply)
        failures.clear()

    def _wantsLogin(self, outcomes: Iterable[Outcome]) -> bool:
        """Whether a next hop of the configuration wants a login first, or TLS (530).

        Then it takes no other message either, and another host may.
        """
        return self._isNamed and all(map(_isLoginWanted, outcomes))

    def _inOrder(self, hosts: list[Host]) -> list[Host]:
        """Those that could not be had a short time ago stand behind the others.

        Else each connection would wait for them first, for as long as connecting may take.
        """
        now = self._means.reactor.seconds()
        self._lastUntil = {where: until for where, until in self._lastUntil.items() if until > now}
        return sorted(hosts, key=lambda host: host.where in self._lastUntil)

    def _afterBackoff(self) -> float:
        now: float = self._means.reactor.seconds()
        return now + self._means.settings.backoff

    async def _sendFirst(
        self, connection: Connection, message: Outgoing, read: Read
    ) -> tuple[Outcome, ...]:
        """Send the first message over a connection.

        :raise HopFailed: when the host takes no message like that, of nobody; we leave it then.
        """
        outcomes = await self._send(connection, message, read)
        if self._wantsLogin(outcomes):
            self._leave(connection)
            raise HopFailed(outcomes[0])
        return outcomes

    async def _send(
        self, connection: Connection, message: Outgoing, read: Read
    ) -> tuple[Outcome, ...]:
        self._sending.append(connection)
        try:
            outcomes = await connection.deliver(message, read())
        finally:
            self._sending.remove(connection)
            if connection.isChunkingUnknown:
                # From now on it gets messages by DATA.
                self._unchunked.add(connection.host.where)
        if self._isNamed and any(map(_isLoginWanted, outcomes)):
            # What the configuration lacks bounces nobody's mail, nor that of some recipients.
            return tuple(map(_spared, outcomes))
        return outcomes

    def _hasOthers(self, mine: object, failed: HopFailed) -> bool:
        """Whether there are other connections, or one who has tried for longer may get one.

        Not whoever tries: where that takes long there is always somebody, and one that is away
        would never be known to be.  But where one was greeted and another was not, there are
        connections to be had.
        """
        isFirst = next(iter(self._underWay)) is mine
        isFull = failed.state is State.GREETING and any(each.isGreeted for each in self._opening)
        return not isFirst or isFull or bool(self._others())

    def _others(self) -> list[Connection]:
        return [*self._sending, *(each for each in self._free if each.isReady)]

    def _haveLess(self) -> None:
        self.turns.take()
        call = self._means.reactor.callLater(self._means.settings.backoff, self._haveMore)
        self._refused.append(call)

    def _haveMore(self) -> None:
        self._refused.popleft()
        self.turns.release()

    def _taken(self) -> Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.isReady:
                return connection
        return None

    def _keep(self, connection: Connection) -> None:
        most = self._means.settings.messages_per_connection
        if self._closing or (most and connection.messages >= most):
            self._leave(connection)
        elif connection.isReady:
            connection.whenIdle = self._leave
            self._free = [each for each in self._free if each.isReady]
            self._free.append(connection)

    def _leave(self, connection: Connection) -> None:
        # It is open until the answer to QUIT, and the next hop counts it.
        self.turns.take()
        connection.quit().addCallback(lambda _: self.turns.release())

    async def close(self) -> None:
        """End the connections that are free; those at work end with their message."""
        self._closing = True
        while self._refused:
            self._refused.popleft().cancel()
        free, self._free = self._free, []
        for closed in [connection.quit() for connection in free]:
            await closed

    # Opening.

    async def _hosts(self) -> list[Host]:
        if self._isNamed:
            return [
                self._host(self._endpoint(each), each.text, each.host, each.tls)
                for each in self._route.targets
            ]
        exchangers = await self._means.exchangers.hosts(self._domain)
        if self._requireTLS:
            exchangers = [each for each in exchangers if _isBelow(each.name, self._domain)]
        if not exchangers:
            raise NoHosts(REQUIRETLS_UNVERIFIED)
        return [
            self._host(self._addressed(address), address, each.name, self._route.tls)
            for each in exchangers
            for address in each.addresses
        ][:MAX_PLACES]

    def _endpoint(self, target: Target) -> IStreamClientEndpoint:
        reactor, limit = self._means.reactor, self._means.settings.timeouts.connect
        if target.port == 0:
            return UNIXClientEndpoint(reactor, target.host, int(limit) or 1)
        return HostnameEndpoint(reactor, target.host, target.port, limit)

    def _addressed(self, address: str) -> IStreamClientEndpoint:
        reactor, port = self._means.reactor, self._means.settings.mx_port
        limit = int(self._means.settings.timeouts.connect) or 1
        kind: Any = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        made: IStreamClientEndpoint = kind(reactor, address, port, limit)
        return made

    def _host(self, endpoint: IStreamClientEndpoint, where: str, name: str, word: TLSWord) -> Host:
        route = self._route
        if self._requireTLS and word in ("opportunistic", "off"):
            word = "starttls"
        verify = self._requireTLS or (route.verify and word != "opportunistic")
        profile = Profile(
            hostname=self._means.hostname,
            lmtp=route.kind == "lmtp",
            tls="required" if word in ("starttls", "implicit") else word,  # type: ignore[arg-type]
            account=route.account,
            insecureLogin=route.insecureLogin,
            host=name,
            chunking=route.chunking and where not in self._unchunked,
        )
        tls = problem = None
        try:
            tls = None if word == "off" else self._means.tls.creator(name, verify)
        except ValueError as error:
            # A name that no certificate can bear; other hosts may have better ones.
            problem = Reply(451, "4.7.5", f"No TLS with {name}: {error}")
        return Host(
            endpoint=endpoint,
            where=where,
            name=name,
            profile=profile,
            tls=tls,
            implicit=word == "implicit",
            verified=verify,
            problem=problem,
        )


def _isDelayed(outcome: Outcome) -> bool:
    return outcome.result is Result.DELAYED


def _isLoginWanted(outcome: Outcome) -> bool:
    return outcome.isRemote and outcome.reply.code == 530


def _spared(outcome: Outcome) -> Outcome:
    return attrs.evolve(outcome, result=Result.DELAYED) if _isLoginWanted(outcome) else outcome


def _isBelow(host: str, domain: str) -> bool:
    name = sameDomain(domain)
    return host == name or host.endswith("." + name)


def _wasGone(connection: Connection, outcomes: Iterable[Outcome]) -> bool:
    """Whether a connection that had been kept was closed before it took anything of the message."""
    return connection.endedIn is State.ENVELOPE and all(map(_isDelayed, outcomes))


def _wasLeft(connection: Connection, outcomes: Iterable[Outcome]) -> bool:
    """Whether a host has left us in the midst of the message, and so took nothing of it.

    It would do so the next time as well: the next host is to be tried (RFC 5321 5.1).
    """
    return connection.endedIn in _BEFORE_THE_END and all(map(_isDelayed, outcomes))


def _ours(reply: Reply) -> Outcome:
    return Outcome(judge(reply), reply, isRemote=False)


def _all(message: Outgoing, outcome: Outcome) -> tuple[Outcome, ...]:
    return (outcome,) * len(message.recipients)
