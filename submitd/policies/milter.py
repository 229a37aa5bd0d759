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
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from submitd import __version__, events
from submitd.envelope import Envelope, Recipient
from submitd.interfaces import (
    IChecked,
    IConnectionPolicy,
    IDataPolicy,
    IDisconnectObserver,
    IHeaderPolicy,
    IHeldMessage,
    IHelloPolicy,
    IMayHold,
    IMessagePolicy,
    IReceivedMessage,
    IRecipientPolicy,
    IRunning,
    ISenderPolicy,
)
from submitd.message.header import Header
from submitd.policies.milterchanges import HOLDS, Changes
from submitd.policies.milterclient import FilterConnection, FilterFailed, connectTo
from submitd.session import Session
from submitd.typed import Seconds
from submitd.wire import milter
from submitd.wire.errors import Refused
from submitd.wire.milter import Action, Answer, ReplyCode, Stage, Step, Verdict
from submitd.wire.reply import LOCAL_ERROR, Reply

# Connections that wait for the next client, and for how many seconds.
MAX_IDLE = 10
IDLE = 10.0
# Seconds in which a filter that could not be connected to is not tried again.
PAUSE = 1.0

REJECTED = Reply(550, "5.7.1", "Refused by a filter")
LATER = Reply(451, "4.7.1", "A filter asks to try again later")
AWAY = Reply(451, "4.7.1", "A filter does not answer, try again later")
AWAY_REJECTED = Reply(550, "5.7.1", "A filter does not answer")
NO_CONNECTION = Reply(554, "5.7.1", "No mail is taken from here")
NO_CONNECTION_NOW = Reply(421, "4.7.1", "No mail is taken from here now, try again later")
CLOSED = Reply(421, "4.7.0", "Closing the connection for a filter")
FIELD_TOO_LARGE = Reply(552, "5.3.4", "Header field too large")
NO_FIELD = Reply(550, "5.6.0", "A line of the header is no header field")

NEVER = Step(0)

_MACRO = re.compile(r"\{?([A-Za-z0-9_]+)\}?")


def _endpoint(reactor: Any, text: str) -> IStreamClientEndpoint:
    kind, colon, rest = text.partition(":")
    made: IStreamClientEndpoint = clientFromString(
        reactor, f"tcp:{rest}" if kind == "inet" and colon else text
    )
    return made


def _isEndpoint(policy: object, attribute: object, text: str) -> None:
    try:
        _endpoint(None, text)
    except Exception as error:
        said = 'must be "tcp:HOST:PORT", "unix:PATH" or another client endpoint of Twisted\'s'
        raise ValueError(f'{said}, not "{text}" ({error})') from None


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
    IRunning,
    IChecked,
)
@attrs.define(eq=False, slots=False)
class Milter:
    """Asks a filter; for the parameters see their help.

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
    _reactor: Any = attrs.field(init=False, repr=False, default=None)
    _hostname: str = attrs.field(init=False, repr=False, default="localhost")
    _talks: dict[str, Talk] = attrs.field(init=False, repr=False, factory=dict)
    _idle: deque[FilterConnection] = attrs.field(init=False, repr=False, factory=deque)
    _pausedUntil: float = attrs.field(init=False, repr=False, default=0.0)
    _isAway: bool = attrs.field(init=False, repr=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.macros = {_bare(name): value for name, value in self.macros.items()}
        if self.quarantine:
            alsoProvides(self, IMayHold)

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        return [] if self.name.strip() else ["name: is empty"]

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`."""
        self._reactor = reactor
        self._hostname = socket.getfqdn()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Close the connections that nobody uses."""
        for connection in list(self._idle):
            connection.end(milter.QUIT)
        self._idle.clear()
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
            kept = self._idle.pop()
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
        return _endpoint(self._reactor, self.endpoint)

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
        self._idle.append(connection)
        self._reactor.callLater(IDLE, self._tooLong, connection)

    def _tooLong(self, connection: FilterConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
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
        host = self._hostname
        return {"j": host, "daemon_name": host, "v": f"submitd {__version__}", **self.macros}


class Talk:
    """What is said to the filter about one client.

    :ivar transaction: the mail transaction, or one that nobody has begun.
    :ivar mayBeKept: whether the filter would take another client now.
    """

    def __init__(self, policy: Milter, session: Session) -> None:
        self.policy = policy
        self.session = session
        self.transaction = Transaction(self, None)
        self.connection: FilterConnection | None = None
        self.isAccepted = False
        self.mayBeKept = False
        self._isWithin = False

    async def open(self, isNew: bool = False) -> None:
        """Connect, and tell of the client.

        :param isNew: not over a connection that has served before.
        :raise FilterFailed: when that fails.
        :raise Refused: when the filter refuses the client.
        """
        kept = None if isNew else self.policy.kept()
        if kept is not None:
            try:
                await self._introduce(kept)
                return
            except FilterFailed:
                pass  # it may have been idle too long
        await self._introduce(await self.policy.connection())

    async def _introduce(self, connection: FilterConnection) -> None:
        session = self.session
        self.connection = connection
        self._isWithin = False
        told = milter.connect(
            session.clientHostname if session.remoteAddress else "localhost",
            session.remoteAddress,
            session.remotePort,
        )
        answer = await self.ask(Stage.CONNECT, told, Step.NO_CONNECT, Step.NR_CONNECT)
        self._judge(answer, {True: NO_CONNECTION, False: NO_CONNECTION_NOW})

    async def hello(self, domain: str) -> None:
        """Tell what the client calls itself; nothing where there is no connection now."""
        self.leave()
        if self.connection is None or self.connection.failed is not None or self.isAccepted:
            return
        answer = await self.ask(Stage.HELLO, milter.hello(domain), Step.NO_HELLO, Step.NR_HELLO)
        self._judge(answer, {True: REJECTED, False: LATER})

    def _judge(self, answer: Answer | None, replies: Mapping[bool, Reply]) -> None:
        """What is said before a transaction counts for all of them."""
        if answer is Verdict.ACCEPT:
            self.isAccepted = True
        elif isinstance(answer, ReplyCode) and replies[True] is NO_CONNECTION:
            # RFC 5321 4.2: in place of a greeting there is 554, or 421.
            as_ = NO_CONNECTION_NOW if answer.reply.isTransient else NO_CONNECTION
            raise Refused(Reply(as_.code, answer.reply.status, answer.reply.lines), "by a filter")
        elif answer is not None:
            raiseRefusal(answer, replies[True], replies[False])

    async def begin(self, envelope: Envelope) -> None:
        """Begin a transaction.

        :raise FilterFailed: when the filter fails, on a new connection too.
        """
        self.leave()
        self.transaction = Transaction(self, envelope)
        if self.isAccepted or await self._toldAtOnce():
            return
        await self.open(isNew=True)
        if self.session.heloName:
            await self.hello(self.session.heloName)
        await self._tell()

    async def _toldAtOnce(self) -> bool:
        """Whether it went well on the connection that is there; it may have been idle too long."""
        if self.connection is None or self.connection.failed is not None:
            return False
        try:
            await self._tell()
        except FilterFailed:
            return False  # and nothing has been lost yet
        return True

    async def _tell(self) -> None:
        if not self.isAccepted:
            await self.transaction.mail()

    def entered(self) -> None:
        """The filter knows of a transaction."""
        self._isWithin = True

    def left(self, verdict: Answer | None) -> None:
        """It does not any more: this was its last word."""
        self._isWithin = False
        # libmilter: only the state behind the end of a message leads to a new connection, and
        # any verdict but CONTINUE leads elsewhere.
        self.mayBeKept = verdict is Verdict.CONTINUE

    def leave(self) -> None:
        """Tell the filter to forget the transaction, where it knows of one."""
        if self._isWithin and self.connection is not None:
            self.connection.write(milter.ABORT)
        self._isWithin = False

    def end(self) -> None:
        """The client is gone."""
        self.leave()
        connection = self.connection
        if connection is None or connection.failed is not None:
            return
        if self.mayBeKept:
            self.policy.keep(connection)
        else:
            connection.end(milter.QUIT)

    def giveUp(self, cause: str) -> None:
        """Ask no more on this connection."""
        if self.connection is not None:
            self.connection.fail(cause)

    async def ask(
        self,
        stage: Stage | None,
        octets: bytes,
        no: Step = NEVER,
        quiet: Step = NEVER,
        seconds: float = 0.0,
    ) -> Answer | None:
        """Tell the filter something; what it says, or ``None`` where it has nothing to say.

        :param no: wanted where the filter is not to be told.
        :param quiet: wanted where it does not answer.
        :param seconds: how long it may take; 0 for what the setting says.
        :raise FilterFailed: when it fails.
        """
        connection = self.connection
        if connection is None or connection.failed is not None:
            raise connection.failed if connection and connection.failed else FilterFailed("away")
        self.mayBeKept = False
        steps = connection.negotiated.steps
        if steps & no:
            return None
        if stage is not None:
            octets = milter.macros(stage, self._macros(stage)) + octets
        seconds = seconds or self.policy.timeout
        if steps & quiet:
            await connection.say(octets, seconds)
            return None
        return await connection.ask(octets, seconds)

    def _macros(self, stage: Stage) -> dict[str, str]:
        assert self.connection is not None
        wanted = self.connection.negotiated.macros.get(stage, MACROS.get(stage, ()))
        facts = self.facts()
        names = [_bare(name) for name in wanted]
        if stage is Stage.CONNECT:
            names += [name for name in self.policy.macros if name not in names]
        return {_braced(name): facts[name] for name in names if facts.get(name)}

    def facts(self) -> dict[str, str]:
        """All macros that have a value now, by their bare names."""
        session, envelope = self.session, self.transaction.envelope
        facts = {
            "client_addr": session.remoteAddress,
            "client_name": session.clientHostname,
            "client_port": str(session.remotePort),
            "_": f"{session.clientHostname} [{session.remoteAddress}]",
        }
        tls = session.tls
        if tls is not None:
            facts |= {
                "tls_version": tls.version,
                "cipher": tls.cipher,
                "cipher_bits": str(tls.bits),
                "cert_subject": tls.peerSubject if tls.verified else "",
            }
        if session.user is not None:
            facts |= {"auth_authen": session.user.avatarId, "auth_type": session.mechanism}
        if envelope is not None:
            mailbox = envelope.reversePath.mailbox
            facts |= {
                "i": envelope.id,
                "mail_addr": "" if mailbox is None else str(mailbox),
                "mail_host": "" if mailbox is None else mailbox.domain,
                "auth_author": envelope.auth or "",
            }
        recipient = self.transaction.recipient
        if recipient is not None:
            facts |= {"rcpt_addr": str(recipient), "rcpt_host": recipient.domain}
        return {**facts, **self.policy.constants()}


class Transaction:
    """One mail transaction, as the filter sees it.

    :ivar isOver: whether the filter has had its last word about it.
    :ivar recipient: the one that it is told of now.
    """

    def __init__(self, talk: Talk, envelope: Envelope | None) -> None:
        self.envelope = envelope
        self.isOver = envelope is None
        self.recipient: Any = None
        self._talk = talk
        self._refused: Refused | None = None
        self._discards = False
        self._held: IHeldMessage | None = None
        self._header: Header | None = None
        self._pending = bytearray()
        self._skipsBody = False

    async def during(self, stage: str, run: Callable[..., Any], *arguments: Any) -> None:
        """Do something with the filter, unless it has had its last word.

        :raise Refused: when the filter refuses, or fails and that is to refuse.
        """
        self.raiseRefusal()
        if self.isOver or self._talk.isAccepted:
            return
        try:
            await run(self, *arguments)
        except FilterFailed as failed:
            self.fail(stage, failed)
            self.raiseRefusal()
        except Refused:
            raise
        except Exception:
            # Whoever knows what the filter says next: it is not asked again.
            self.isOver = True
            self._refused = Refused(LOCAL_ERROR, f"{self._talk.policy.name} was given up")
            self._talk.giveUp("it was given up")
            raise

    def fail(self, stage: str, failed: FilterFailed) -> None:
        """The filter has failed: what the setting says is its last word."""
        self.isOver = True
        self._refused = self._talk.policy.failure(self._talk.session, stage, failed)

    def raiseRefusal(self) -> None:
        """A refusal of the transaction is one of all that follows in it.

        :raise Refused: when there is one.
        """
        if self._refused is not None:
            raise self._refused

    def _judge(self, answer: Answer | None, counts: bool = True) -> None:
        """Take a verdict.

        :param counts: whether a refusal is one of the transaction, and not of a recipient alone.
        """
        if answer is Verdict.ACCEPT:
            self.isOver = True
        elif answer is Verdict.DISCARD:
            self.isOver = self._discards = True
        elif answer is not None:
            try:
                raiseRefusal(answer, REJECTED, LATER)
            except Refused as refused:
                if counts or refused.reply.code == 421:
                    self.isOver = True
                    self._refused = refused
                raise

    async def mail(self) -> None:
        """MAIL."""
        envelope, talk = self.envelope, self._talk
        assert envelope is not None
        told = milter.mail(_path(envelope.reversePath), _words(envelope.parameters))
        answer = await talk.ask(Stage.MAIL, told, Step.NO_MAIL, Step.NR_MAIL)
        talk.entered()
        self._judge(answer)

    async def rcpt(self, recipient: Recipient) -> None:
        """RCPT."""
        told = milter.rcpt(_path(f"<{recipient.mailbox}>"), _words(recipient.parameters))
        self.recipient = recipient.mailbox
        answer = await self._talk.ask(Stage.RCPT, told, Step.NO_RCPT, Step.NR_RCPT)
        self.recipient = None
        self._judge(answer, counts=False)

    async def data(self) -> None:
        """DATA."""
        self._judge(await self._talk.ask(Stage.DATA, milter.DATA, Step.NO_DATA, Step.NR_DATA))

    async def header(self, header: Header) -> None:
        """The header section.

        :raise Refused: also for one that the filter cannot be shown whole.
        """
        assert self._talk.connection is not None
        self._header = header
        steps = self._talk.connection.negotiated.steps
        if not steps & Step.NO_HEADER:
            for field in header.fields:
                told = milter.header(*_shown(field.raw, bool(steps & Step.LEADING_SPACE)))
                answer = await self._talk.ask(None, told, quiet=Step.NR_HEADER)
                self._judge(answer)
                if self.isOver:
                    return
        answer = await self._talk.ask(
            Stage.END_OF_HEADER, milter.END_OF_HEADER, Step.NO_END_OF_HEADER, Step.NR_END_OF_HEADER
        )
        self._judge(answer)

    def takeBody(self) -> None:
        """Have the body shown to the filter, and the message kept back where it may change it."""
        if self.isOver or self._talk.isAccepted or self.envelope is None:
            return
        connection, message = self._talk.connection, self.envelope.message
        assert connection is not None and message is not None
        negotiated = connection.negotiated
        self._skipsBody = bool(negotiated.steps & Step.NO_BODY)
        if negotiated.actions & HOLDS:
            self._held = message.holdBody(self._bodyReceived)
        elif not self._skipsBody:
            message.observeBody(self._bodyReceived)

    def _bodyReceived(self, octets: bytes) -> Deferred[None] | None:
        if self.isOver or self._skipsBody:
            return None
        self._pending += octets
        if len(self._pending) < milter.MAX_DATA:
            return None
        return Deferred.fromCoroutine(self.during("body", Transaction._sendBody, False))

    async def _sendBody(self, all_: bool) -> None:
        pending = self._pending
        while len(pending) >= milter.MAX_DATA or (all_ and pending):
            part = bytes(pending[: milter.MAX_DATA])
            del pending[: milter.MAX_DATA]
            answer = await self._talk.ask(None, milter.body(part), Step.NO_BODY, Step.NR_BODY)
            if answer is Verdict.SKIP:
                self._skipsBody = True
            else:
                self._judge(answer)
            if self.isOver or self._skipsBody:
                pending.clear()

    async def end(self) -> None:
        """The end of the body, and what is to become of the message."""
        await self._sendBody(True)
        if self.isOver:
            return
        talk = self._talk
        seconds = talk.policy.message_timeout
        answer = await talk.ask(Stage.END_OF_MESSAGE, milter.END_OF_MESSAGE, seconds=seconds)
        try:
            await self._conclude(answer)
        except (FilterFailed, Refused):
            if self._held is not None:
                self._held.keepBody()
            raise

    async def _conclude(self, answer: Answer | None) -> None:
        talk = self._talk
        connection = talk.connection
        assert connection is not None and self.envelope is not None and self._header is not None
        changes = Changes(self.envelope, self._header, connection.negotiated, self._held)
        while isinstance(answer, milter.Modification):
            try:
                changes.add(answer)
            except milter.MilterError as error:
                connection.fail(str(error))
                raise FilterFailed(str(error)) from None
            except Refused:
                connection.fail("the body it sends cannot be kept")
                raise
            answer = await connection.answer(talk.policy.message_timeout)
        talk.left(answer)
        self._judge(answer)
        self.isOver = True
        if not self._discards:
            try:
                changes.apply()
            except milter.MilterError as error:
                raise FilterFailed(str(error)) from None
            self._applied(changes)

    def _applied(self, changes: Changes) -> None:
        envelope, talk = self.envelope, self._talk
        assert envelope is not None
        if not envelope.recipients:
            self._discards = True
        elif changes.quarantine is not None:
            session = talk.session
            envelope.hold = f"{talk.policy.name}: {changes.quarantine}"
            events.emit(
                events.MESSAGE_HELD,
                session=session.id,
                id=envelope.id,
                peer=session.remoteAddress,
                user=session.user.avatarId if session.user is not None else None,
                reason=envelope.hold,
            )

    async def letGo(self) -> None:
        """Have the message go on, or be dropped."""
        envelope = self.envelope
        if envelope is not None and envelope.message is not None and self._discards:
            envelope.message.discard(self._talk.policy.name)
        held, self._held = self._held, None
        if held is not None:
            await held.release()


def raiseRefusal(answer: Answer, rejected: Reply, later: Reply) -> None:
    """Do as an answer says that is neither ACCEPT nor DISCARD.

    :param rejected: what is replied to REJECT.
    :param later: what is replied to TEMPFAIL.
    :raise Refused: when it refuses.
    :raise FilterFailed: when it is no answer to what was asked.
    """
    if answer is Verdict.CONTINUE:
        return
    if isinstance(answer, ReplyCode):
        raise Refused(answer.reply, "by a filter")
    reply = {
        Verdict.REJECT: rejected,
        Verdict.TEMPFAIL: later,
        Verdict.SHUTDOWN: CLOSED,
        Verdict.CONNECTION_FAILURE: CLOSED,
    }.get(answer)  # type: ignore[arg-type]
    if reply is None:
        raise FilterFailed(f"an answer to another question: {type(answer).__name__}")
    raise Refused(reply, "by a filter")


# What is sent where a filter does not say what it wants; as other mail servers do.
MACROS: Mapping[Stage, tuple[str, ...]] = {
    Stage.CONNECT: ("j", "daemon_name", "v", "_", "client_addr", "client_name", "client_port"),
    Stage.HELLO: ("tls_version", "cipher", "cipher_bits", "cert_subject"),
    Stage.MAIL: ("i", "auth_type", "auth_authen", "auth_author", "mail_addr", "mail_host"),
    Stage.RCPT: ("i", "rcpt_addr", "rcpt_host"),
    Stage.DATA: ("i",),
    Stage.END_OF_HEADER: ("i",),
    Stage.END_OF_MESSAGE: ("i",),
}


def _bare(name: str) -> str:
    return name.strip("{}")


def _braced(name: str) -> str:
    return name if len(name) == 1 else "{" + name + "}"


def _path(path: object) -> bytes:
    return str(path).encode("utf-8", "replace")


def _words(parameters: Mapping[str, str | None]) -> Iterable[bytes]:
    for keyword, value in parameters.items():
        yield (keyword if value is None else f"{keyword}={value}").encode("utf-8", "replace")


def _shown(raw: bytes, leadingSpace: bool) -> tuple[bytes, bytes]:
    """A header field as filters are shown it: name, and value, whose lines end with LF.

    :raise Refused: for one that cannot be shown.
    """
    name, colon, value = raw.partition(b":")
    name = name.rstrip(b" \t")
    if not colon or not name:
        raise Refused(NO_FIELD)
    value = value.removesuffix(b"\r\n").replace(b"\r\n", b"\n")
    if not leadingSpace:
        value = value.removeprefix(b" ")
    if len(name) + len(value) + 3 > milter.MAX_DATA:
        raise Refused(FIELD_TOO_LARGE, "a filter cannot be shown it")
    return name, value
