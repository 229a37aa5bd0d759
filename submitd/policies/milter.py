"""Policy ``milter``: asks a filter that speaks the milter protocol (OpenDKIM, rspamd, ClamAV ...).

The filter is told of the connection, HELO, MAIL, each RCPT that the policies before this one have
taken, DATA, each header field, the body and its end, in step with the dialogue; what it says at
each is the verdict.  At the end it may have header fields added, changed and removed, another body,
another sender, recipients more or less, and the message held.  A message that it may change is kept
aside until then (:mod:`submitd.message.body`), and the policies behind this one see it changed.

``discard`` is 250 to the client, an event, and no delivery.  A filter that is away, hangs, ends in
the middle or talks nonsense fails that mail transaction as ``on_failure`` says, and nothing that it
wanted of it is done; the next transaction tries again, on a new connection.  A connection is
greeted, and HELO answered, all the same: there is nothing yet to be lost.  Whoever asks in the
second after a filter could not be connected to is not kept waiting.

There is one connection for each client.  When that goes it is kept for the next one for a while,
where both speak version 6 and the filter has said CONTINUE to the last message: libmilter takes a
new client nowhere else.  :data:`MAX_IDLE` are kept, for :data:`IDLE` seconds.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any, Literal

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from submitd import __version__, events
from submitd.endpoint import clientEndpoint, mistake
from submitd.envelope import Envelope, Recipient
from submitd.interfaces import (
    IChecked,
    IConnectionPolicy,
    IDataPolicy,
    IDelays,
    IDisconnectObserver,
    IHeaderPolicy,
    IHelloPolicy,
    IMayHold,
    IMessagePolicy,
    INamesHost,
    IReceivedMessage,
    IRecipientPolicy,
    IRunning,
    ISenderPolicy,
)
from submitd.message.header import Header
from submitd.policies.milterclient import FilterConnection, FilterFailed, connectTo
from submitd.policies.miltertalk import Talk, Transaction, bare
from submitd.session import Session
from submitd.typed import Seconds
from submitd.wire import milter
from submitd.wire.errors import Refused
from submitd.wire.milter import Action
from submitd.wire.reply import Reply

# Connections that wait for the next client, and for how many seconds.
MAX_IDLE = 10
IDLE = 10.0
# Seconds in which a filter that could not be connected to is not tried again.
PAUSE = 1.0

AWAY = Reply(451, "4.7.1", "A filter does not answer, try again later")
AWAY_REJECTED = Reply(550, "5.7.1", "A filter does not answer")

_MACRO = re.compile(r"\{?([A-Za-z0-9_]+)\}?")


def _isEndpoint(policy: object, attribute: object, text: str) -> None:
    if mistake(text):
        raise ValueError(mistake(text))


def _areMacros(policy: object, attribute: object, macros: Mapping[str, str]) -> None:
    for name in macros:
        if _MACRO.fullmatch(name) is None:
            raise ValueError(f'a macro is letters and digits, not "{name}"')


@implementer(
    IConnectionPolicy,
    IHelloPolicy,
    ISenderPolicy,
    IRecipientPolicy,
    IDataPolicy,
    IHeaderPolicy,
    IMessagePolicy,
    IDisconnectObserver,
    INamesHost,
    IRunning,
    IChecked,
    IDelays,
)
@attrs.define(eq=False, slots=False)
class Milter:
    """Asks a filter; for the parameters see their help.

    :ivar hostname: the name of this service; the system's where nobody says.
    :raise ValueError: for an endpoint or macro that is none.
    """

    endpoint: str = attrs.field(
        validator=_isEndpoint,
        metadata={
            "help": 'Where the filter listens: "tcp:127.0.0.1:8891" (or "inet:"), "unix:/run/'
            "opendkim/opendkim.sock\", or another client endpoint of Twisted's."
        },
    )
    name: str = attrs.field(
        default="milter", metadata={"help": "What it is called in the log and in spool holds."}
    )
    on_failure: Literal["tempfail", "accept", "reject"] = attrs.field(
        default="tempfail",
        metadata={
            "help": "What becomes of a message when the filter is away, hangs or talks nonsense: "
            '"tempfail" (451), "reject" (550), or "accept" without it.'
        },
    )
    quarantine: bool = attrs.field(
        default=True,
        metadata={
            "help": "Whether the filter may have messages held, which needs a delivery that holds, "
            "such as the spool."
        },
    )
    macros: dict[str, str] = attrs.field(
        factory=dict,
        validator=_areMacros,
        metadata={
            "help": "Further macros, or other values for some, such as "
            '{ daemon_name = "ORIGINATING" }.'
        },
    )
    connect_timeout: Seconds = attrs.field(
        default=Seconds(5.0),
        validator=attrs.validators.gt(Seconds(0.0)),
        metadata={"help": "How long connecting, and negotiating, may take."},
    )
    timeout: Seconds = attrs.field(
        default=Seconds(20.0),
        validator=attrs.validators.gt(Seconds(0.0)),
        metadata={"help": "How long an answer may take."},
    )
    message_timeout: Seconds = attrs.field(
        default=Seconds(50.0),
        validator=attrs.validators.gt(Seconds(0.0)),
        metadata={
            "help": "How long the answer behind the message may take, from the filter's last word "
            "that it is still at work. Longer than limits.stage is never waited at one stage."
        },
    )
    hostname: str = attrs.field(init=False, repr=False, default="")
    _reactor: Any = attrs.field(init=False, repr=False, default=None)
    _talks: dict[str, Talk] = attrs.field(init=False, repr=False, factory=dict)
    # With what ends it where no client comes.
    _idle: dict[FilterConnection, IDelayedCall] = attrs.field(init=False, repr=False, factory=dict)
    _pausedUntil: float = attrs.field(init=False, repr=False, default=0.0)
    _isAway: bool = attrs.field(init=False, repr=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.macros = {bare(name): value for name, value in self.macros.items()}
        if self.quarantine:
            alsoProvides(self, IMayHold)

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        return [] if self.name.strip() else ["name: is empty"]

    def delays(self) -> dict[str, float]:
        """See :meth:`submitd.interfaces.IDelays.delays`; where the stage's end says the same, none.

        Behind a stage that is over first, ``on_failure`` would never decide.
        """
        if self.on_failure == "tempfail":
            return {}
        keys = ("connect_timeout", "timeout", "message_timeout")
        return {key: getattr(self, key) for key in keys}

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`."""
        self._reactor = reactor
        self.hostname = self.hostname or socket.getfqdn()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Close the connections that nobody uses."""
        while (connection := self.kept()) is not None:
            connection.end(milter.QUIT)
        return succeed(None)

    # The stages.

    async def connectionMade(self, session: Session) -> None:
        """Tell of the client; behind XCLIENT, of another."""
        self._end(session)
        talk = self._talks[session.id] = Talk(self, session)
        try:
            await talk.open()
        except FilterFailed as failed:
            self._report(session, "connection", failed, "greeted")

    async def helloReceived(self, session: Session, domain: str) -> None:
        """Tell what the client calls itself."""
        talk = self._talk(session)
        try:
            await talk.hello(domain)
        except FilterFailed as failed:
            self._report(session, "hello", failed, "answered")

    async def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """Tell of the sender, on a new connection where there is none."""
        talk = self._talk(session)
        try:
            await talk.begin(envelope)
        except FilterFailed as failed:
            talk.transaction.fail("MAIL", failed)
        talk.transaction.raiseRefusal()

    async def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """Tell of a recipient."""
        await self._talk(session).transaction.during("RCPT", Transaction.rcpt, recipient)

    async def dataRequested(self, session: Session, envelope: Envelope) -> None:
        """Tell that the message follows."""
        await self._talk(session).transaction.during("DATA", Transaction.data)

    async def headerReceived(self, session: Session, envelope: Envelope, header: Header) -> None:
        """Tell the header section, field by field."""
        transaction = self._talk(session).transaction
        await transaction.during("header", Transaction.header, header)
        transaction.takeBody()

    async def messageReceived(
        self, session: Session, envelope: Envelope, message: IReceivedMessage
    ) -> None:
        """Hear what is to become of the message."""
        transaction = self._talk(session).transaction
        await transaction.during("message", Transaction.end)
        await transaction.letGo()

    def connectionLost(self, session: Session, reason: Failure) -> None:
        """The client is gone."""
        self._end(session)

    # Connections.

    def _talk(self, session: Session) -> Talk:
        talk = self._talks.get(session.id)
        return talk if talk is not None else self._talks.setdefault(session.id, Talk(self, session))

    def _end(self, session: Session) -> None:
        talk = self._talks.pop(session.id, None)
        if talk is not None:
            talk.end()

    def kept(self) -> FilterConnection | None:
        """A connection that waits for the next client, if there is one."""
        while self._idle:
            kept, tooLong = self._idle.popitem()
            tooLong.cancel()
            if kept.failed is None:
                return kept
        return None

    async def connection(self) -> FilterConnection:
        """A new connection that has negotiated.

        :raise FilterFailed: when there is none.
        """
        if self._reactor is None:
            raise FilterFailed("the policy has not been started")
        if self._reactor.seconds() < self._pausedUntil:
            raise FilterFailed("it could not be connected to a moment ago")
        where = self.where()
        try:
            made = await connectTo(where, self._reactor, self.actions, self.connect_timeout)
        except FilterFailed:
            self._pausedUntil = self._reactor.seconds() + PAUSE
            raise
        if self._isAway:
            self._isAway = False
            events.emit(events.FILTER_BACK, policy=self.name)
        return made

    def where(self) -> IStreamClientEndpoint:
        """What to connect to."""
        return clientEndpoint(self._reactor, self.endpoint)

    @property
    def actions(self) -> Action:
        """What the filter may do."""
        return milter.ALL_ACTIONS if self.quarantine else milter.ALL_ACTIONS & ~Action.QUARANTINE

    def keep(self, connection: FilterConnection) -> None:
        """Have a connection wait for the next client, or end it."""
        if connection.negotiated.version < milter.VERSION or len(self._idle) >= MAX_IDLE:
            connection.end(milter.QUIT)
            return
        connection.write(milter.QUIT_NEW_CONNECTION)
        self._idle[connection] = self._reactor.callLater(IDLE, self._tooLong, connection)

    def _tooLong(self, connection: FilterConnection) -> None:
        del self._idle[connection]
        connection.end(milter.QUIT)

    def _report(self, session: Session, stage: str, failed: FilterFailed, verdict: str) -> None:
        self._isAway = True
        self._talk(session).giveUp(str(failed))
        events.emit(
            events.FILTER_FAILED,
            session=session.id,
            policy=self.name,
            stage=stage,
            cause=str(failed),
            verdict=verdict,
        )

    def failure(self, session: Session, stage: str, failed: FilterFailed) -> Refused | None:
        """What becomes of a transaction when the filter has failed; ``None`` for acceptance."""
        self._report(session, stage, failed, self.on_failure)
        cause = f"{self.name} failed: {failed}"
        if self.on_failure == "accept":
            return None
        return Refused(AWAY if self.on_failure == "tempfail" else AWAY_REJECTED, cause)

    def constants(self) -> dict[str, str]:
        """The macros that do not depend on the client."""
        host = self.hostname
        return {"j": host, "daemon_name": host, "v": f"submitd {__version__}", **self.macros}
