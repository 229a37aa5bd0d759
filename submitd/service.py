"""Settings become a service: the only place where the parts are put together.

:func:`makeService` makes one ``MultiService`` of a configuration: a child per listener, all with
the same policies, delivery, portal and count of connections.  :func:`submissionService` makes the
same of the objects that a program brings.

Ports are opened in ``privilegedStartService``, before twistd gives up its rights.  A port that
cannot be had stops the start: those opened before are closed again and :class:`CannotStart` is
raised, with one sentence and no traceback.  At the end the ports are closed first (a unix socket is
removed), then the connections, each with a word to its client.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.application.reactors import installReactor
from twisted.application.service import MultiService, Service
from twisted.cred.portal import Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLContextFactory,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure

from submitd import __version__, deliveries, events, given, policies, sasl
from submitd.checkers.cache import CachedChecker
from submitd.checkers.chain import CheckerChain
from submitd.checkers.trusted import TrustedProxy
from submitd.connections import Connections
from submitd.counters.shared import SharedCounts
from submitd.errors import CannotStart
from submitd.extensions import extensions
from submitd.interfaces import (
    IBringsDelivery,
    IMechanism,
    INamesHost,
    IReloaded,
    IReverseResolver,
    IRunning,
    IShared,
    ISpool,
    ISpoolOperations,
)
from submitd.jsonlog import JSONLog
from submitd.listener import ListenerService, endpointOf
from submitd.metrics import Counts, QueueLook
from submitd.protocol import SubmissionFactory
from submitd.realm import SubmissionRealm
from submitd.refusals import RefusalFile, RefusalIds
from submitd.relay.destinations import Destinations, Means
from submitd.relay.mx import MailExchangers
from submitd.relay.routes import makeRoutes
from submitd.relay.runner import Runner
from submitd.relay.service import RelayService
from submitd.relay.settings import RelaySettings
from submitd.relay.tls import ClientTLS
from submitd.reload import HangUp, Renewal
from submitd.reverselookup import DNS, parseServer
from submitd.session import numberIds
from submitd.settings import (
    AuthSettings,
    Component,
    DNSSettings,
    LimitSettings,
    ListenerSettings,
    Settings,
)
from submitd.steady import steady
from submitd.submission import Limits, Submission
from submitd.tally import SharedConnections, Tally
from submitd.tls import ServerTLS, TLSMistake
from submitd.wire.network import NetworkLogins, Networks

__all__ = [
    "CannotStart",
    "ListenerService",
    "Place",
    "SubmissionService",
    "forListener",
    "forListeners",
    "freshReactor",
    "hasRelay",
    "limits",
    "makeService",
    "makeWorker",
    "serverTLS",
    "submission",
    "submissionService",
]

# Seconds for one question about a next hop; nobody waits for the answer as a client does.
MX_LOOKUP = 15.0

Submissions = Sequence[tuple[ListenerSettings, Submission]]
"""The listeners, each with what its sessions have in common."""


class SubmissionService(MultiService):
    """All listeners of one configuration.

    :param hostname: its own name, for the log.
    :param connections: what they share.
    :param drainSeconds: what transactions under way get at the end.
    :param tls: the certificates; ``None`` for none that can be read again.
    :param logs: are opened before everything else and closed behind it.
    :param parts: the delivery, the policies and the back ends, of which those are started, stopped
        and told to read again that can be; and the reactor for them.
    :ivar hangUp: takes SIGHUP as long as the service runs and ends; ``None``: nobody does.
    """

    hangUp: Service | None = None

    def __init__(
        self,
        hostname: str,
        connections: Connections,
        drainSeconds: float = 30.0,
        logs: Sequence[JSONLog | RefusalFile | Counts] = (),
        tls: ServerTLS | None = None,
        parts: tuple[Iterable[Any], Any] = ((), None),
    ) -> None:
        super().__init__()
        self.hostname = hostname
        self.connections = connections
        self.drainSeconds = drainSeconds
        self._logs = logs
        self._tls = tls
        found, self._reactor = parts
        # One object may stand in several places, and is one all the same.
        unique = {id(each): each for each in found}.values()
        self._running = [each for each in unique if IRunning.providedBy(each)]
        self._reloaded = [each for each in unique if IReloaded.providedBy(each)]

    @property
    def addresses(self) -> list[IAddress]:
        """Where it listens now, in the listeners' order; empty before the start and at the end."""
        found = (each.address for each in self if isinstance(each, ListenerService))
        return [address for address in found if address is not None]

    def reload(self) -> None:
        """Read certificates and keys again; what is wrong is logged, and the old ones stay.

        The JSON log is opened again.
        Password files and the like need no reload: a change is seen by those who read them.
        """
        for log in self._logs:
            if isinstance(log, JSONLog):
                log.reopen()
        if self._tls is not None:
            self._tls.reload()
        for each in self._reloaded:
            maybeDeferred(each.reload).addErrback(self._failed, "not read again")

    def privilegedStartService(self) -> None:
        """Open all ports, or none.

        :raise CannotStart: when one cannot be opened.
        """
        self._openAll(super().privilegedStartService)

    def startService(self) -> None:
        """Open all ports that are not open yet, or none.

        :raise CannotStart: when one cannot be opened.
        """
        self._openAll(super().startService)
        for each in self._running:
            maybeDeferred(each.start, self._reactor).addErrback(self._notStarted)
        if self.hangUp is not None:
            self.hangUp.startService()
        events.emit(events.SERVICE_STARTED, hostname=self.hostname, release=__version__)

    def _openAll(self, start: Callable[[], None]) -> None:
        for log in self._logs:
            log.open()
        try:
            start()
        except CannotStart:
            for child in self:
                child.stopService()
            self._closeLogs()
            raise

    def _notStarted(self, failure: Failure) -> None:
        cause = getattr(failure.value, "cause", None) or failure.value
        events.emit(events.SERVICE_PROBLEM, problem=f"not started: {cause}")

    def _failed(self, failure: Failure, problem: str) -> None:
        events.emit(events.SERVICE_PROBLEM, problem=problem, failure=failure)

    def _closeLogs(self) -> None:
        for log in self._logs:
            log.close()

    async def _end(self, closing: Deferred[Any]) -> None:
        # Clients and deliveries have the same time, not one after the other.
        drained = self.connections.drain(self.drainSeconds)
        await closing
        await drained
        for each in self._running:
            await maybeDeferred(each.stop).addErrback(self._failed, "not stopped")
        events.emit(events.SERVICE_STOPPED, hostname=self.hostname)
        self._closeLogs()
        if self.hangUp is not None:
            # Not before: the signal would end the process in the midst of its last messages.
            self.hangUp.stopService()

    def stopService(self) -> Deferred[None]:
        """Close the ports, then the connections.

        :return: fires when both are gone: idle connections at once, one within a transaction when
            it has been answered, and all of them when the time to drain is over.
        """
        return Deferred.fromCoroutine(self._end(super().stopService()))


@attrs.frozen(kw_only=True)
class Place:
    """The place of a worker among the processes of one service.

    :param number: its own, which no other has at the same time.
    :param endpoints: the ports that are open already, one for each listener of the settings.
    :param tls: what was made before the workers parted, so that they resume each other's sessions.
    :param tally: where connections are counted.
    :param counts: where all else is counted.
    :param isRelay: whether this is the one that delivers from the spool; it serves nobody.
    :param told: called with the time at which the relay has something to do.
    :param looked: called with the gauges of the queue; ``None`` where another looks at it.
    :param log: the descriptor of the JSON log; ``None`` where there is no file.
    """

    number: int
    endpoints: Sequence[IStreamServerEndpoint] = ()
    tls: ServerTLS | None = None
    tally: Tally
    counts: Path
    isRelay: bool = False
    told: Callable[[float], None]
    looked: Callable[[Mapping[str, float]], None] | None = None
    log: int | None = None


def makeWorker(settings: Settings, reactor: Any, place: Place) -> SubmissionService:
    """Put together what one of several processes does.

    :param settings: as for :func:`makeService`.
    :param place: what it has in common with the others.
    :raise CannotStart: when something that was good at the examination no longer is.
    """
    numberIds(place.number)
    common = submission(settings, reactor)
    if common.refusalIds is not None:
        common = attrs.evolve(common, refusalIds=RefusalIds(worker=place.number))
    listeners: Submissions = () if place.isRelay else forListeners(settings, common)
    if place.isRelay:
        common = attrs.evolve(common, policies=[])
    for at, policy in enumerate(common.policies):
        if IShared.providedBy(policy):
            policy.share(SharedCounts(place.counts, f"{at}/"))
    service = _listening(
        common,
        listeners,
        place.tls,
        settings.limits,
        reactor,
        _logs(settings, reactor, place.log),
        place,
    )
    queue = getattr(common.delivery, "queue", None)
    if place.looked is not None and ISpoolOperations.providedBy(queue):
        QueueLook(queue.totals, place.looked, reactor).setServiceParent(service)
    relay = _relay(settings, common, reactor) if place.isRelay else None
    if relay is not None:
        relay.setServiceParent(service)
    elif ISpool.providedBy(queue):
        queue.whenDue(place.told)
    return service


def makeService(settings: Settings, reactor: Any) -> MultiService:
    """Put a service together.

    :param settings: without mistakes, as :func:`submitd.config.load` gives them.
    :param reactor: listens, tells the time and calls later.
    :raise CannotStart: when something that was good at the examination no longer is.
    """
    common = submission(settings, reactor)
    tls = serverTLS(settings)
    logs, counts = _logs(settings, reactor), Counts()
    if settings.metrics.endpoint:
        logs.append(counts)
    listeners = forListeners(settings, common)
    service = _listening(common, listeners, tls, settings.limits, reactor, logs)
    service.hangUp = HangUp(reactor, service.reload)
    relay = _relay(settings, common, reactor)
    if relay is not None:
        relay.setServiceParent(service)
    if settings.metrics.endpoint:
        from submitd.metricspage import MetricsService

        metrics = MetricsService(
            settings.metrics.endpoint,
            reactor,
            counts,
            lambda: {"connections": len(service.connections), "workers": 1},
        )
        metrics.setServiceParent(service)
        queue = getattr(common.delivery, "queue", None)
        if ISpoolOperations.providedBy(queue):
            QueueLook(queue.totals, metrics.show, reactor).setServiceParent(service)
    return service


def _logs(
    settings: Settings, reactor: Any, descriptor: int | None = None
) -> list[JSONLog | RefusalFile | Counts]:
    logs: list[JSONLog | RefusalFile | Counts] = []
    if settings.log.json:
        waits = reactor if settings.log.together else None
        logs.append(JSONLog(settings.log.json, waits, descriptor))
    path = settings.refusals.path(settings.delivery)
    if settings.refusals.ids and path is not None:
        logs.append(RefusalFile(path, settings.refusals.size))
    return logs


def submissionService(
    reactor: Any,
    listeners: Iterable[ListenerSettings],
    tls: IOpenSSLContextFactory | None = None,
    bounds: LimitSettings | None = None,
    policiesOf: Mapping[str, Sequence[Any]] | None = None,
    **common: Any,
) -> SubmissionService:
    """Put a service together from the objects of a program that embeds it.

    :param reactor: listens, tells the time and calls later.
    :param listeners: where to listen; each says how it does TLS, and whether it speaks LMTP.
    :param tls: such as :class:`submitd.tls.ServerTLS`, whose files are looked at for changes;
        needed unless TLS is off everywhere.
    :param bounds: what clients may use; ``None`` for the defaults.
    :param policiesOf: the name of a listener -> its policies, where these are not the ``policies``
        of all; an object may be in several of these lists.
    :param common: any parameter of :class:`Submission` but those that each listener says for
        itself, and ``delivery`` at least.  Where nothing is said the name is the system's, the
        mechanisms are PLAIN and LOGIN, and the extensions are all there are.
    :raise CannotStart: for an endpoint string that is none.
    :raise TypeError: for a policy, a delivery or a context factory that is none.
    :raise ValueError: for what no configuration could say, and where nobody could ever send.
    """
    given.checkKinds(common, tls)
    bounds = given.typed(bounds or LimitSettings(), "bounds")
    listeners = [given.typed(each, f"listeners[{at}]") for at, each in enumerate(listeners)]
    usual = {
        "hostname": socket.getfqdn(),
        "clock": reactor,
        "mechanisms": [sasl.mechanism(name) for name in AuthSettings().mechanisms],
        "extensions": extensions(),
        "limits": limits(bounds),
        "refusalIds": RefusalIds(),
    }
    submission = _named(Submission(**{**usual, **common}))
    chosen = policiesOf or {}
    given.checkWords(submission, common)
    given.checkWhole(submission, listeners, chosen, tls)
    own = [
        (each, _named(forListener(submission, each, chosen.get(each.name)))) for each in listeners
    ]
    return _listening(submission, own, tls, bounds, reactor)


def _named(submission: Submission) -> Submission:
    """Have all policies that tell it know what this service is called."""
    for policy in submission.policies:
        if INamesHost.providedBy(policy):
            policy.hostname = submission.hostname
    return submission


def _listening(
    common: Submission,
    listeners: Submissions,
    tls: IOpenSSLContextFactory | None,
    bounds: LimitSettings,
    reactor: Any,
    logs: Sequence[JSONLog | RefusalFile | Counts] = (),
    place: Place | None = None,
) -> SubmissionService:
    most = (bounds.connections, bounds.connections_per_address)
    if place is None:
        connections = Connections(reactor, *most)
    else:
        connections = SharedConnections(reactor, *most, place.tally)
    renewable: Any = tls if isinstance(tls, ServerTLS) else None
    # There may be no portal, or one of the program's own that keeps its checkers to itself.
    checkers = getattr(common.portal, "checkers", {}).values()
    chosen = (policy for _, submission in listeners for policy in submission.policies)
    parts = (common.delivery, *common.policies, *chosen, *checkers)
    service = SubmissionService(
        common.hostname, connections, bounds.drain, logs, renewable, (parts, reactor)
    )
    if renewable is not None:
        Renewal(renewable, reactor, place is None).setServiceParent(service)
    for at, (listener, submission) in enumerate(listeners):
        factory = SubmissionFactory(
            submission,
            tls if listener.tls != "off" else None,
            listener.tls == "implicit",
            connections,
            submission.proxyFrom,
        )
        endpoint = endpointOf(listener, reactor) if place is None else place.endpoints[at]
        ListenerService(listener, endpoint, factory).setServiceParent(service)
    return service


def forListeners(settings: Settings, common: Submission) -> Submissions:
    """The listeners of a configuration, each with the policies that are for it.

    :param common: what :func:`submission` has made of the same configuration.
    """
    made = list(zip(settings.policy, common.policies, strict=True))
    return [
        (
            each,
            forListener(common, each, [policy for section, policy in made if section.isFor(each)]),
        )
        for each in settings.listener
    ]


def forListener(
    common: Submission, listener: ListenerSettings, chosen: Sequence[Any] | None = None
) -> Submission:
    """What the sessions of one listener have in common.

    :param chosen: its policies; ``None`` for all.
    """
    return attrs.evolve(
        common,
        policies=common.policies if chosen is None else chosen,
        startTLS=listener.tls == "starttls",
        requireTLS=listener.require_tls,
        lmtp=listener.lmtp,
        xclientFrom=Networks.parse(listener.xclient_from),
        xclientLogin=listener.xclient_login,
        xforwardFrom=Networks.parse(listener.xforward_from),
        loginByAddress=NetworkLogins.parse(listener.login_by_address),
        proxyFrom=Networks.parse(listener.proxy_protocol_from),
    )


def hasRelay(settings: Settings) -> bool:
    """Whether something delivers from the spool."""
    return settings.delivery.use == "spool" and bool(settings.relay or settings.route)


def freshReactor(name: str) -> Any:
    """The reactor of a process that has none yet.

    :param name: one of twistd's; empty for the usual one.
    """
    if name:
        installReactor(name)
    from twisted.internet import reactor

    return steady(reactor)


def _relay(settings: Settings, common: Submission, reactor: Any) -> RelayService | None:
    """What delivers the spool's messages; ``None`` where nothing is said of it."""
    queue = getattr(common.delivery, "queue", None)
    if not ISpool.providedBy(queue) or (settings.relay is None and not settings.route):
        return None
    relay = settings.relay or RelaySettings()
    routes, findings = makeRoutes(relay, settings.route)
    wrong = [finding for finding in findings if not finding.isWarning]
    if wrong:
        raise CannotStart("; ".join(map(str, wrong)))
    servers = [parseServer(server) for server in settings.dns.servers]
    resolver = DNS(reactor, servers, MX_LOOKUP)
    means = Means(
        reactor=reactor,
        hostname=common.hostname,
        settings=relay,
        tls=_clientTLS(relay),
        exchangers=MailExchangers(resolver.current, common.hostname),
    )
    runner = Runner(queue, routes, Destinations(means), relay, common.hostname, reactor, time.time)
    return RelayService(runner, settings.limits.drain)


def _clientTLS(relay: RelaySettings) -> ClientTLS:
    try:
        return ClientTLS(relay.ca_file)
    except ValueError as error:
        raise CannotStart(f"relay.ca_file: {error}") from None


def serverTLS(settings: Settings) -> ServerTLS | None:
    """The certificates; ``None`` where there is no ``[tls]``.

    :raise CannotStart: when they cannot be used.
    """
    if settings.tls is None:
        return None
    try:
        return ServerTLS(settings.tls)
    except TLSMistake as mistake:
        raise CannotStart(f"tls.{mistake}") from None


def submission(settings: Settings, reactor: Any) -> Submission:
    """What the sessions of all listeners have in common; nothing of it is running yet.

    :param settings: without mistakes.
    :raise CannotStart: when something that was good at the examination no longer is.
    """
    made = Submission(
        hostname=settings.hostname or socket.getfqdn(),
        banner=settings.banner,
        clock=reactor,
        timeOfDay=time.time,
        delivery=_made(settings.delivery, deliveries.REGISTRY, "delivery"),
        policies=[
            _policy(component, f"policy[{at}]") for at, component in enumerate(settings.policy)
        ],
        portal=_portal(settings, reactor),
        mechanisms=_mechanisms(settings.auth),
        extensions=extensions(),
        helloText=settings.smtp.hello_text,
        hiddenExtensions=frozenset(settings.smtp.hide),
        disabledVerbs=frozenset(settings.smtp.disabled_commands),
        maxHold=settings.smtp.max_hold,
        minDeliverBy=math.ceil(settings.smtp.min_deliver_by),
        priorityProfile=settings.smtp.priority_profile,
        loginRequired=settings.auth.required,
        loginRequiredText=settings.auth.required_text,
        insecureLogin=settings.auth.insecure,
        limits=limits(settings.limits),
        resolver=_resolver(settings.dns, reactor),
        lookupLimit=settings.dns.timeout,
        refusalIds=RefusalIds() if settings.refusals.ids else None,
    )
    return _named(made)


def _mechanisms(auth: AuthSettings) -> list[IMechanism]:
    try:
        return [sasl.mechanism(name) for name in auth.mechanisms]
    except LookupError as error:
        raise CannotStart(f"auth.mechanisms: {error}") from None


def _resolver(dns: DNSSettings, reactor: Any) -> IReverseResolver | None:
    if not dns.reverse_lookup:
        return None
    if dns.resolver:
        made: IReverseResolver = _made(Component(dns.resolver), {}, "dns.resolver")
        return made
    return DNS(reactor, [parseServer(server) for server in dns.servers], dns.timeout)


def _made(component: Component, registry: dict[str, str], path: str) -> Any:
    made, findings = component.make(registry, path)
    if findings:
        raise CannotStart("; ".join(str(finding) for finding in findings))
    return made


def _policy(component: Component, path: str) -> Any:
    policy = _made(component, policies.REGISTRY, path)
    if IBringsDelivery.providedBy(policy) and policy.delivery is not None:
        own = Component.fromTable(policy.delivery.values, policy.delivery.directory)
        policy.sink = _made(own, deliveries.REGISTRY, f"{path}.delivery")
    return policy


def _portal(settings: Settings, reactor: Any) -> Portal | None:
    auth, portal = settings.auth, Portal(SubmissionRealm())
    if auth.checkers:
        checker: Any = CheckerChain([makeChecker(description) for description in auth.checkers])
        if auth.cache:
            checker = CachedChecker(checker, reactor, auth.cache, auth.cache_size)
        portal.registerChecker(checker)
    if any(each.xclient_login or each.login_by_address for each in settings.listener):
        portal.registerChecker(TrustedProxy())
    return portal if portal.listCredentialsInterfaces() else None


def limits(settings: LimitSettings) -> Limits:
    """The limits of a connection, as the dialogue knows them."""
    return Limits(
        messageSize=settings.message_size,
        headerSize=settings.header_size,
        recipients=settings.recipients,
        transactions=settings.transactions,
        commandsBeforeLogin=settings.commands_before_login,
        unrecognized=settings.unrecognized,
        refusals=settings.refusals,
        loginFailures=settings.login_failures,
        idle=settings.idle,
        handshake=settings.handshake,
        login=settings.login,
        message=settings.message,
        stage=settings.stage,
    )
