"""What a filter is told of one client, and what its answers mean.

A :class:`Talk` is there for each client, over whatever connection the filter has for it; a
:class:`Transaction` for each mail transaction.  Both ask in step with the dialogue.  A verdict
becomes a refusal, or is remembered: an accepted message is not shown any further, a refused one
stays refused until the transaction ends, and one to be discarded goes on to its end.

Whatever is no answer to what was asked is :class:`FilterFailed`; what becomes of the message then
is the policy's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred

from submitd.envelope import Envelope, Recipient
from submitd.interfaces import IHeldMessage
from submitd.message.header import Header
from submitd.policies.holding import tellHeld
from submitd.policies.milterchanges import HOLDS, Changes
from submitd.policies.milterclient import FilterConnection, FilterFailed
from submitd.session import Session
from submitd.wire import milter
from submitd.wire.errors import Refused
from submitd.wire.milter import Answer, ReplyCode, Stage, Step, Verdict
from submitd.wire.reply import LOCAL_ERROR, Reply

if TYPE_CHECKING:
    from submitd.policies.milter import Milter

REJECTED = Reply(550, "5.7.1", "Refused by a filter")
LATER = Reply(451, "4.7.1", "A filter asks to try again later")
NO_CONNECTION = Reply(554, "5.7.1", "No mail is taken from here")
NO_CONNECTION_NOW = Reply(421, "4.7.1", "No mail is taken from here now, try again later")
CLOSED = Reply(421, "4.7.0", "Closing the connection for a filter")
FIELD_TOO_LARGE = Reply(552, "5.3.4", "Header field too large")
NO_FIELD = Reply(550, "5.6.0", "A line of the header is no header field")

NEVER = Step(0)

# In the notes of a session: the id of the message that a filter keeps back.
KEPT_BACK = "kept back for a filter"


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
            except FilterFailed as failed:
                self.giveUp(str(failed))  # it may have been idle too long
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
        if isinstance(answer, ReplyCode):
            # RFC 5321 4.2: in place of a greeting there is 554, or 421.
            code = 421 if answer.reply.isTransient else 554
            raise Refused(attrs.evolve(answer.reply, code=code), "by a filter")
        self._judge(answer, NO_CONNECTION, NO_CONNECTION_NOW)

    async def hello(self, domain: str) -> None:
        """Tell what the client calls itself; nothing where there is no connection now."""
        self.leave()
        if self.connection is None or self.connection.failed is not None or self.isAccepted:
            return
        answer = await self.ask(Stage.HELLO, milter.hello(domain), Step.NO_HELLO, Step.NR_HELLO)
        self._judge(answer, REJECTED, LATER)

    def _judge(self, answer: Answer | None, rejected: Reply, later: Reply) -> None:
        """What is said before a transaction counts for all of them."""
        if answer is Verdict.ACCEPT:
            self.isAccepted = True
        elif answer is not None:
            raiseRefusal(answer, rejected, later)

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
        except FilterFailed as failed:
            self.giveUp(str(failed))  # it may be open still, with an answer that was none
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
        names = [bare(name) for name in wanted]
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
        self._isBehind = self._isShown = False
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

        A filter in front of this one that keeps the message back may change it yet: then this one
        is shown it together with the body, which comes when that one has let go.

        :raise Refused: also for one that the filter cannot be shown whole.
        """
        assert self.envelope is not None
        self._header = header
        self._isBehind = self._talk.session.notes.get(KEPT_BACK) == self.envelope.id
        if not self._isBehind:
            await self._showHeader()

    async def _showHeader(self) -> None:
        header, self._isShown = self._header, True
        assert self._talk.connection is not None and header is not None
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
            self._talk.session.notes[KEPT_BACK] = self.envelope.id
        elif not self._skipsBody:
            message.observeBody(self._bodyReceived)

    def _bodyReceived(self, octets: bytes) -> Deferred[None] | None:
        if self.isOver or self._skipsBody:
            return None
        self._pending += octets
        if len(self._pending) < milter.MAX_DATA:
            return None
        return Deferred.fromCoroutine(self._takePart())

    async def _takePart(self) -> None:
        try:
            await self.during("body", Transaction._sendBody, False)
        except Refused as refused:
            if not self._isBehind:
                raise
            # Raised while another lets the message go, it would be said to be that one's.
            self.isOver = True
            self._refused = refused

    async def _sendBody(self, all_: bool) -> None:
        pending = self._pending
        if not self._isShown:
            await self._showHeader()
            if self.isOver:
                pending.clear()
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
            envelope.hold = f"{talk.policy.name}: {changes.quarantine}"
            tellHeld(talk.session, envelope)

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
    replies = {
        Verdict.REJECT: rejected,
        Verdict.TEMPFAIL: later,
        Verdict.SHUTDOWN: CLOSED,
        Verdict.CONNECTION_FAILURE: CLOSED,
    }
    # A negotiation has macros, and so no hash.
    reply = replies.get(answer) if isinstance(answer, Verdict) else None
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


def bare(name: str) -> str:
    """The name of a macro without its braces."""
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
