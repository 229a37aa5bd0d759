"""A session with a configuration that does not run: every stage is asked, and nothing is sent.

A :class:`Rehearsal` has the service's own objects put together for one of its listeners, and speaks
to them as a client would, on a transport that is no socket.  Only the ends are others: TLS is
believed, the login is believed without a password, and the delivery keeps the message in memory.
No port is opened.  Policies that change something outside of the process leave that be
(``IRehearsed``); other servers that policies ask (a Redis, data bases, filters) are asked.

:class:`Try` sends one message; :mod:`submitd.tools.replay` the lines of a recorded session.
"""

from __future__ import annotations

import functools
import re
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import attrs
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from submitd import events, service
from submitd.checkers.trusted import TrustedProxy
from submitd.connections import Connections
from submitd.dialogue import Dialogue, Outcome
from submitd.envelope import Envelope
from submitd.interfaces import (
    IBlindCopyDelivery,
    IBringsDelivery,
    IDelivery,
    IExtendedDelivery,
    IHoldingDelivery,
    IMessage,
    IRehearsed,
    IRunning,
)
from submitd.login import Login
from submitd.pipeline import Pipeline, Stage
from submitd.preflight import addressOf
from submitd.protocol import SubmissionFactory
from submitd.realm import SubmissionRealm
from submitd.sasl.credentials import TrustedLogin
from submitd.session import BY_ADDRESS, Session
from submitd.settings import Settings
from submitd.states import State, Verb
from submitd.waiting import asDeferred
from submitd.wire.errors import Refused
from submitd.wire.proxy import Ends
from submitd.wire.reply import Reply, ReplyParser

# What a client is told by its replies need not be told by events as well.
_SAID = frozenset({"refused", "connection-closed", "message-accepted", "login-succeeded"})
_PARTS = (IExtendedDelivery, IHoldingDelivery, IBlindCopyDelivery)


@attrs.frozen
class Client:
    """Who the client is.

    :param address: where it comes from; empty for a unix socket.
    :param name: what it calls itself.
    :param login: who it logs in as; empty for nobody.
    :param tls: whether it asks for STARTTLS where that can be had.
    """

    address: str = "192.0.2.1"
    name: str = "client.example"
    login: str = ""
    tls: bool = True


@attrs.frozen
class Verdict:
    """What one policy said.

    :param seconds: how long it took.
    :param outcome: ``"passed"``, ``"refused"`` or ``"failed"``.
    :param cause: why; empty where it passed.
    """

    stage: str
    policy: str
    outcome: str
    seconds: float
    cause: str = ""


@attrs.frozen
class Step:
    """One thing that the client said, and what came of it.

    :param said: a command, or words in parentheses for what is none.
    :param replies: as the client reads them.
    :param seconds: until the last of these.
    :param verdicts: of the policies that were asked, in their order.
    :param notes: what the log would have said besides.
    """

    said: str
    replies: tuple[Reply, ...]
    seconds: float
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]

    @property
    def isRefused(self) -> bool:
        """Whether one of the replies refuses."""
        return any(not reply.isPositive for reply in self.replies)

    @property
    def lines(self) -> tuple[str, ...]:
        """The replies, line by line, as they go over the wire."""
        return tuple(
            line for reply in self.replies for line in reply.wire.decode("ascii").splitlines()
        )


class Watched(Stage):
    """A stage that tells what each policy says.

    :param told: called with each :class:`Verdict`.
    """

    __slots__ = ("_told",)

    def __init__(self, told: Callable[[Verdict], object], *arguments: Any) -> None:
        self._told = told
        super().__init__(*arguments)

    def _named(self, policy: Any) -> tuple[str, Callable[..., Any]]:
        origin, call = super()._named(policy)
        name = origin.rpartition(" at ")[0]
        return origin, functools.partial(self._watch, name, call)

    def _watch(self, policy: str, call: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            waiting = call(*arguments)
            if waiting is None:
                self._tell(policy, began)
                return None
            answer = asDeferred(waiting)
        except Exception as error:
            self._tell(policy, began, error)
            raise
        return answer.addBoth(self._answered, policy, began)

    def _answered(self, result: Any, policy: str, began: float) -> Any:
        self._tell(policy, began, result.value if isinstance(result, Failure) else None)
        return result

    def _tell(self, policy: str, began: float, error: BaseException | None = None) -> None:
        seconds = time.perf_counter() - began
        outcome, cause = "passed", ""
        if isinstance(error, Refused):
            outcome, cause = "refused", str(error)
        elif error is not None:
            outcome, cause = "failed", f"{type(error).__name__}: {error}"
        self._told(Verdict(self.name, policy, outcome, seconds, cause))


@implementer(IDelivery)
class Kept:
    """Keeps messages in memory, and can do what another delivery can.

    :param other: the delivery in whose place it stands.
    :ivar messages: those that would have been sent.
    """

    def __init__(self, other: Any) -> None:
        self.extensions: Collection[str] = getattr(other, "extensions", ())
        alsoProvides(self, *(part for part in _PARTS if part.providedBy(other)))
        self.messages: list[KeptMessage] = []

    def begin(self, session: Session, envelope: Envelope) -> KeptMessage:
        """See :meth:`submitd.interfaces.IDelivery.begin`."""
        return KeptMessage(self, envelope)


@implementer(IMessage)
@attrs.define(eq=False)
class KeptMessage:
    """One message.

    :ivar octets: as it would go on.
    :ivar sender: from whom it would go on, in angle brackets.
    :ivar recipients: to whom.
    :ivar known: to whom as far as the client knows.
    """

    delivery: Kept
    envelope: Envelope
    octets: bytes = b""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def dataReceived(self, chunk: bytes) -> None:
        """See :meth:`submitd.interfaces.IMessage.dataReceived`."""
        self.octets += chunk

    def prepend(self, fields: bytes) -> None:
        """See :meth:`submitd.interfaces.IMessage.prepend`."""
        self.octets = fields + self.octets

    def eomReceived(self) -> None:
        """See :meth:`submitd.interfaces.IMessage.eomReceived`."""
        envelope = self.envelope  # which is for the client again behind this
        self.sender = str(envelope.reversePath)
        self.recipients = tuple(f"<{each.mailbox}>" for each in envelope.recipients)
        self.known = tuple(f"<{each.mailbox}>" for each in envelope.known)
        self.delivery.messages.append(self)

    def connectionLost(self) -> None:
        """See :meth:`submitd.interfaces.IMessage.connectionLost`."""


class Wire:
    """A transport that is no socket: what is written becomes replies.

    :param reactor: calls later.
    :ivar isClosed: whether the service has ended the connection.
    """

    def __init__(self, reactor: Any) -> None:
        self.isClosed = False
        self._reactor = reactor
        self._isPaused = False
        self.startedTLS = False
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._waiting: Deferred[None] | None = None

    def write(self, data: bytes) -> None:
        """The service says something."""
        self._replies.extend(self._parser.feed(data))
        self._wake()

    def loseConnection(self) -> None:
        """The service ends the connection."""
        self.isClosed = True
        self._wake()

    abortConnection = loseConnection

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """The service begins a handshake."""
        self.startedTLS = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def reply(self) -> Reply | None:
        """The next reply; ``None`` where none will come, for nothing is being waited for."""
        while not self._replies:
            if self.isClosed or not self._isPaused:
                return None
            self._waiting = Deferred()
            await self._waiting
        return self._replies.popleft()

    def pauseProducing(self) -> None:
        """The service waits for something, and reads no more."""
        self._isPaused = True

    def resumeProducing(self) -> None:
        """It goes on; what it has to say follows."""
        self._isPaused = False
        self._reactor.callLater(0, self._wake)

    # What a protocol does with a transport, and what is nothing here.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Everything written is taken at once."""

    def unregisterProducer(self) -> None:
        """As above."""

    def getPeer(self) -> IPv4Address:
        """Nobody asks: the protocol has been told both ends."""
        return IPv4Address("TCP", "192.0.2.1", 0)

    getHost = getPeer

    def getHandle(self) -> Any:
        """The facts of a good handshake."""
        return _Handshake()


class _Handshake:
    def get_servername(self) -> None:
        return None

    def get_peer_certificate(self) -> None:
        return None

    def get_protocol_version_name(self) -> str:
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        return "TLS_AES_256_GCM_SHA384"

    def get_cipher_bits(self) -> int:
        return 256


class Rehearsal:
    """One connection to one listener of a configuration.

    :param settings: without mistakes.
    :param at: which listener, from 0.
    :param client: who connects.
    :param reactor: tells the time and has the threads; nothing listens on it.
    :raise CannotStart: for settings that were good at the examination only.
    :ivar steps: what has been said so far.
    """

    def __init__(self, settings: Settings, at: int, client: Client, reactor: Any) -> None:
        self.client = client
        self.listener = settings.listener[at]
        several = len(settings.listener) > 1
        self._where = f" to {self.listener.name or self.listener.endpoint}" if several else ""
        self.reactor = reactor
        self.wire = Wire(reactor)
        self.steps: list[Step] = []
        self._verdicts: list[Verdict] = []
        self._notes: list[str] = []
        self._running: list[Any] = []
        self._directory = tempfile.TemporaryDirectory(
            prefix="submitd-policy-", ignore_cleanup_errors=True
        )
        common = service.submission(settings, reactor)
        portal = common.portal or Portal(SubmissionRealm())
        portal.registerChecker(TrustedProxy())
        # A refusal that nobody keeps has no id; a name that is looked up is none of the pipeline's.
        common = attrs.evolve(common, portal=portal, resolver=None, refusalIds=None)
        self.kept = Kept(common.delivery)
        _, self.submission = service.forListeners(
            settings, attrs.evolve(common, delivery=self.kept)
        )[at]
        self._prepare()
        tls: Any = object()  # the handshake never comes to it
        factory = SubmissionFactory(
            self.submission, tls, self.listener.tls == "implicit", Connections(reactor)
        )
        limit, told = self.submission.limits.stage, self._verdicts.append
        factory.rules.pipeline = Pipeline(
            self.submission.policies, reactor, limit, functools.partial(Watched, told)
        )
        factory.rules.verbs[b"LOGIN"] = (Verb(b"LOGIN", frozenset({State.READY}), ""), self._logIn)
        address = addressOf(self.listener.endpoint)
        port = address.port if address is not None and address.port else 587
        self.protocol = factory.protocolFor(Ends(client.address, 40000, "192.0.2.2", port))

    def _prepare(self) -> None:
        for at, policy in enumerate(self.submission.policies):
            if IBringsDelivery.providedBy(policy) and policy.sink is not None:
                policy.sink = Kept(policy.sink)
            if IRehearsed.providedBy(policy):
                own = Path(self._directory.name) / str(at)
                own.mkdir()
                policy.rehearse(own)

    def _logIn(self, dialogue: Dialogue, argument: bytes) -> Outcome:
        credentials = TrustedLogin(self.client.login.encode("utf-8"))
        return Deferred.fromCoroutine(Login(dialogue, "PLAIN").finish(credentials))

    def _heard(self, event: dict[str, Any]) -> None:
        # No reply tells of a login by address.
        isSaid = event.get("event") in _SAID and event.get("mechanism") != BY_ADDRESS
        if "log_fields" in event and not isSaid:
            failure = event.get("log_failure")
            said = event["log_text"]
            self._notes.append(f"{said}: {failure.value!r}" if failure is not None else said)

    async def __aenter__(self) -> Rehearsal:
        globalLogPublisher.addObserver(self._heard)  # type: ignore[arg-type]
        for policy in self.submission.policies:
            if IRunning.providedBy(policy):
                self._running.append(policy)
                try:
                    await policy.start(self.reactor)
                except Exception as error:
                    events.emit(events.SERVICE_PROBLEM, problem=f"{type(policy).__name__}: {error}")
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self.protocol.transport is not None:
            self.protocol.connectionLost(Failure(ConnectionDone()))
        for policy in self._running:
            await policy.stop()
        globalLogPublisher.removeObserver(self._heard)  # type: ignore[arg-type]
        self._directory.cleanup()

    # What a client does.

    async def connect(self) -> Step:
        """Connect, with the handshake where TLS comes first."""

        def begin() -> None:
            transport: Any = self.wire
            self.protocol.makeConnection(transport)  # type: ignore[no-untyped-call]
            if self.wire.startedTLS and not self.wire.isClosed:
                self.protocol.handshakeCompleted()

        whence = self.client.address or "a unix socket"
        return await self._step(f"(connects from {whence}{self._where})", begin)

    async def say(self, line: str, count: int = 1) -> Step:
        """Send a command.

        :param count: how many replies are due.
        """
        octets = line.encode("utf-8", "surrogateescape") + b"\r\n"
        return await self._step(line, functools.partial(self.protocol.dataReceived, octets), count)

    async def send(self, octets: bytes, said: str, count: int = 1) -> Step:
        """Send anything.

        :param said: how it is shown.
        """
        return await self._step(said, functools.partial(self.protocol.dataReceived, octets), count)

    async def logIn(self) -> Step:
        """Log in as the client's login, without a password."""
        begin = functools.partial(self.protocol.dataReceived, b"LOGIN\r\n")
        return await self._step(f"(logs in as {self.client.login})", begin)

    def handshake(self) -> None:
        """Finish the handshake that STARTTLS began."""
        self.protocol.handshakeCompleted()

    async def _step(self, said: str, begin: Callable[[], object], count: int = 1) -> Step:
        began = time.perf_counter()
        begin()
        replies: list[Reply] = []
        while len(replies) < count and (reply := await self.wire.reply()) is not None:
            replies.append(reply)
        seconds = time.perf_counter() - began
        step = Step(said, tuple(replies), seconds, tuple(self._verdicts), tuple(self._notes))
        self._verdicts.clear()
        self._notes.clear()
        self.steps.append(step)
        return step


class Ended(Exception):
    """The session goes no further."""


class Try:
    """One message.

    :param rehearsal: has been entered, and nothing has been said.
    :param sender: the reverse-path; empty for the null one.
    :param recipients: the forward-paths.
    :param message: its octets, lines ended with CRLF; ``None`` for a small one.
    :ivar message: what was sent.
    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        sender: str,
        recipients: Sequence[str],
        message: bytes | None = None,
    ) -> None:
        self.rehearsal = rehearsal
        self.sender = sender
        self.recipients = recipients
        self.message = self._small() if message is None else message
        if self.message and not self.message.endswith(b"\r\n"):
            self.message += b"\r\n"  # SMTP has no other end
        self._offered: frozenset[str] = frozenset()

    def _small(self) -> bytes:
        author = self.sender or self.rehearsal.client.login or "postmaster@client.example"
        lines = (
            f"Date: {formatdate(self.rehearsal.reactor.seconds())}",
            f"From: {author}",
            f"To: {', '.join(self.recipients)}",
            "Subject: submitd-policy try",
            f"Message-ID: <submitd-policy-try@{self.rehearsal.client.name}>",
            "",
            "This is never sent.",
            "",
        )
        return "\r\n".join(lines).encode("utf-8")

    async def run(self) -> bool:
        """Send it, up to the point where a client would give up.

        :return: whether it was taken, for all recipients.
        """
        try:
            await self._begin()
            return await self._send()
        except Ended:
            return False

    async def _begin(self) -> None:
        client, listener = self.rehearsal.client, self.rehearsal.listener
        self._went(await self.rehearsal.connect())
        await self._hello()
        if listener.tls == "starttls" and client.tls:
            self._went(await self.rehearsal.say("STARTTLS"))
            self.rehearsal.handshake()
            await self._hello()
        if client.login:
            self._went(await self.rehearsal.logIn())

    def _went(self, step: Step) -> Step:
        if step.isRefused or not step.replies:
            raise Ended
        return step

    async def _hello(self) -> None:
        verb = "LHLO" if self.rehearsal.listener.lmtp else "EHLO"
        step = self._went(await self.rehearsal.say(f"{verb} {self.rehearsal.client.name}"))
        self._offered = frozenset(line.split(" ")[0] for line in step.replies[0].lines[1:])

    def _parameters(self) -> Iterator[str]:
        addresses = "".join((self.sender, *self.recipients))
        header = self.message.partition(b"\r\n\r\n")[0]
        if "SIZE" in self._offered:
            yield f" SIZE={len(self.message)}"
        if "8BITMIME" in self._offered and not self.message.isascii():
            yield " BODY=8BITMIME"
        if "SMTPUTF8" in self._offered and not (addresses.isascii() and header.isascii()):
            yield " SMTPUTF8"

    async def _send(self) -> bool:
        say = self.rehearsal.say
        self._went(await say(f"MAIL FROM:<{self.sender}>{''.join(self._parameters())}"))
        refused = 0
        for recipient in self.recipients:
            refused += (await say(f"RCPT TO:<{recipient}>")).isRefused
        if refused == len(self.recipients) or self.rehearsal.wire.isClosed:
            return False
        self._went(await say("DATA"))
        text = re.sub(rb"(?m)^\.", b"..", self.message)
        count = len(self.recipients) - refused if self.rehearsal.listener.lmtp else 1
        said = f"(sends {len(self.message)} octets)"
        step = self._went(await self.rehearsal.send(text + b".\r\n", said, count))
        return not refused and not step.isRefused

    @property
    def kept(self) -> KeptMessage | None:
        """What would have gone on; ``None`` where nothing would."""
        return self.rehearsal.kept.messages[-1] if self.rehearsal.kept.messages else None
