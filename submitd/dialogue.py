"""The dialogue: lines in, replies out; no transport, no I/O.

A :class:`Dialogue` owns the session and the mail transaction of one connection.  It looks up the
verb, holds it to the table of states, runs it, and gives the reply: at once, or as a Deferred where
a policy, a login or a delivery has to be waited for.  Whoever holds the transport must not hand in
more until that Deferred has fired; so replies leave in the order of the commands (RFC 2920).

All that goes wrong becomes a reply here: a ``Refused`` is sent as it is, anything else is logged
and becomes 451 4.3.0.  Nothing that a client sends makes a method of this class raise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.python.failure import Failure

from submitd import byaddress, commands, events
from submitd.interfaces import IDelivery, IExtension, IMechanism, ISubmitter
from submitd.pipeline import Pipeline
from submitd.reverselookup import verifiedName
from submitd.session import Session, TLSInfo
from submitd.states import (
    AUTH,
    BDAT,
    CLOSED,
    CONNECTED,
    DATA,
    FRAMING,
    GREETED,
    OCTETS,
    READY,
    TLS,
    Verb,
)
from submitd.submission import Submission
from submitd.waiting import runNow
from submitd.wire.command import parseCommand
from submitd.wire.data import DotDecoder
from submitd.wire.errors import Refused
from submitd.wire.reply import (
    BAD_SEQUENCE,
    HELLO_FIRST,
    LINE_TOO_LONG,
    LOCAL_ERROR,
    LOGIN_LINE_TOO_LONG,
    LOGIN_REQUIRED,
    NOT_HTTP,
    NOT_IMPLEMENTED,
    OUT_OF_STEP,
    PROXY_UNEXPECTED,
    SHUTTING_DOWN,
    SYNTAX,
    TIMED_OUT,
    TLS_REQUIRED,
    TOO_MANY_BEFORE_LOGIN,
    TOO_MANY_ERRORS,
    UNRECOGNIZED,
    Replies,
    Reply,
)

if TYPE_CHECKING:
    from submitd.message.incoming import IncomingMessage

Answer = Reply | Replies
# Nothing at all is said to a command whose octets have to be read first (BDAT).
Outcome = Answer | Deferred[Any] | None
Command = Callable[["Dialogue", bytes], Outcome]
T = TypeVar("T")

# RFC 5321 4.5.3.1.4 gives a command line 512 octets, and each extension adds its own: SIZE,
# BODY, SMTPUTF8, AUTH, DSN and all others together stay below this.
MAX_COMMAND_LINE = 2048
# RFC 4954 4: 12288 octets for a base64 string, behind "AUTH " and a mechanism name of up to 20.
MAX_AUTH_LINE = 12288 + 32

# A browser can be made to send commands in the body of a request: nothing behind one is read.
_HTTP = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH"})


class Rules:
    """What follows from a :class:`Submission`, worked out once for all its sessions.

    :ivar verbs: verb -> its row in the table and its function.
    :ivar shown: the extensions that EHLO may show.
    :ivar mechanisms: SASL mechanisms that the Portal can check, by name, best first.
    """

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        limit = submission.limits.stage
        self.pipeline = Pipeline(submission.policies, submission.clock, limit)
        self.mailParameters: dict[str, Callable[..., None]] = {}
        self.rcptParameters: dict[str, Callable[..., None]] = {}
        self.verbs: dict[bytes, tuple[Verb, Command]] = dict(commands.TABLE)
        for extension in submission.extensions:
            self.mailParameters.update(extension.mailParameters)
            self.rcptParameters.update(extension.rcptParameters)
            self.verbs.update({row.name: (row, run) for row, run in extension.verbs})
        # RFC 2033 4.1: LHLO in place of HELO and EHLO.
        for name in (b"HELO", b"EHLO") if submission.lmtp else (b"LHLO",):
            del self.verbs[name]
        self.disabled = {name.encode("ascii") for name in submission.disabledVerbs}
        self.shown = [each for each in submission.extensions if self._isShown(each)]
        self.octets = {row.name for row, _ in self.verbs.values() if row.octets}
        text = submission.loginRequiredText
        self.loginRequired = attrs.evolve(LOGIN_REQUIRED, lines=text)
        self.mechanisms = _checkable(submission.mechanisms, submission.portal)
        kind = "LMTP" if submission.lmtp else "ESMTP"
        self.greeting = Reply(220, "", f"{submission.hostname} {kind} {submission.banner}".rstrip())

    def _isShown(self, extension: IExtension) -> bool:
        hidden = extension.keyword in self.submission.hiddenExtensions
        return not hidden and all(row.name not in self.disabled for row, _ in extension.verbs)

    def limited(self, waiting: Deferred[Any]) -> Deferred[Any]:
        """The same Deferred, which now fails with 451 when it takes longer than a stage may.

        That is a :class:`TooLate`, so that it is told from an error of whoever was waited for.
        """
        limit = self.submission.limits.stage
        # What has fired already needs no call later, which would have to be cancelled.
        if limit and (waiting.paused or not waiting.called):
            waiting.addTimeout(limit, self.submission.clock, onTimeoutCancel=_late)
        return waiting


class TooLate(TimeoutError):
    """It took longer than a stage may."""


def _late(result: Any, limit: float) -> Any:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise TooLate(f"no answer within {limit:g} s")
    return result


def _checkable(mechanisms: Any, portal: Portal | None) -> dict[bytes, IMechanism]:
    """The mechanisms whose credentials the Portal has a checker for."""
    interfaces = portal.listCredentialsInterfaces() if portal is not None else []
    return {
        mechanism.name.encode("ascii"): mechanism
        for mechanism in mechanisms
        if mechanism.credentialsInterface in interfaces
    }


def _isAuth(line: bytes) -> bool:
    return line[:5].upper() == b"AUTH "


def _tooLong(line: bytes) -> Refused:
    """The refusal of a command line; RFC 4954 4 has a status of its own for that of a login."""
    reply = LOGIN_LINE_TOO_LONG if _isAuth(line) else LINE_TOO_LONG
    return Refused(reply, "command line too long")


def _times(answer: Any, count: int) -> Answer:
    single = isinstance(answer, Reply) and count > 1
    return Replies((answer,) * count) if single else answer


class Dialogue:
    """One connection's side of the conversation.

    :param rules: shared by all connections of the listener.
    :param session: what is known about this one.
    :param moved: called when a proxy has told another remote address; whether there is room for it.
    :ivar state: where it stands; :data:`submitd.states.FRAMING` says how input is then cut.
    :ivar incoming: the message that is being received, or ``None``.
    :ivar decoder: finds the end of the octets that are being received.
    :ivar atEnd: what is to be done then, in place of a command.
    :ivar refusedChunks: the refusal of a message of which more chunks may be on their way, and the
        number of its recipients (RFC 3030 2); ``None`` where none is.
    :ivar proposed: the path of this MAIL or RCPT, once it is known to be one; for the log, which
        must not tell what people type in the wrong place.
    :ivar continuation: in the state AUTH, what takes the next line.
    :ivar logout: Cred's, once logged in.
    :ivar pipeline: the policies, the avatar among them.
    :ivar delivery: where this session's messages go: the avatar where it is a delivery itself.
    :ivar begun: since when the client could have logged in, in the clock's seconds.
    :ivar turnedAway: when it was refused for good in place of the greeting, in the clock's seconds.
    """

    def __init__(
        self, rules: Rules, session: Session, moved: Callable[[], bool] = lambda: True
    ) -> None:
        self.moved = moved
        self.rules = rules
        self.submission = rules.submission
        self.pipeline = rules.pipeline
        self.delivery: Any = rules.submission.delivery
        self.session = session
        session.maxRecipients = rules.submission.limits.recipients
        session.maxTransactions = rules.submission.limits.transactions
        self.state = CONNECTED
        self.incoming: IncomingMessage | None = None
        self.decoder: Any = None
        self.atEnd: Callable[[Dialogue], Outcome] = commands.endOfMessage
        self.refusedChunks: tuple[Refused, int] | None = None
        self.continuation: Callable[[bytes], Outcome] | None = None
        self.logout: Callable[[], object] | None = None
        self._waiting: Deferred[Any] | None = None
        self._objection: Refused | None = None
        self.turnedAway: float | None = None
        self._refusals = self._commandsBefore = 0
        self._verb = b""
        self.proposed: object = None
        self._began = self.begun = rules.submission.clock.seconds()
        self._since = self._began
        self._waited = 0.0

    # The connection.

    def connectionMade(self) -> Outcome:
        """The greeting, or a refusal, after which the client can only quit."""
        return self._guarded(self.greet)

    def startOver(self) -> None:
        """Forget all that was said; what follows is :meth:`greet` (XCLIENT)."""
        self.reset()
        session = self.session
        # What one client did wrong is not the next one's fault.
        session.commands = session.unrecognized = session.loginFailures = self._refusals = 0
        self._commandsBefore = 0
        self._forget()
        self.begun = self.submission.clock.seconds()
        # Those are of the proxy; its client's are made anew.
        session.directNotes, session.notesAtGreeting = session.notesAtGreeting, {}
        session.notes = {}
        self.state = CONNECTED

    def greet(self) -> Outcome:
        """Look the client's name up, ask the policies, and greet.

        :raise Refused: in the state CONNECTED, where it takes the place of the greeting.
        """
        if self._objection is not None:
            raise self._objection
        return self.after(self._lookUp(), self._lookedUp)

    def _lookUp(self) -> Deferred[None] | None:
        resolver, session = self.submission.resolver, self.session
        if resolver is None or not session.remoteAddress or "NAME" in session.xclient:
            return None
        looking: Deferred[Any] = Deferred.fromCoroutine(
            verifiedName(resolver, session.remoteAddress)
        )
        looking.addTimeout(self.submission.lookupLimit, self.submission.clock)
        return looking.addCallbacks(self._named, self._unnamed)

    def _named(self, name: str) -> None:
        if name:
            self.session.clientHostname = name

    def _unnamed(self, failure: Failure) -> Failure | None:
        if self.state is CLOSED:
            return failure
        session, cause = self.session, f"{type(failure.value).__name__}: {failure.value}"
        events.emit(
            events.LOOKUP_FAILED, session=session.id, peer=session.remoteAddress, cause=cause
        )
        return None

    def _lookedUp(self) -> Outcome:
        waiting = self.pipeline.connection.run(self.session)
        return self.after(waiting, self._greeted)

    def _greeted(self) -> Reply:
        self.state = GREETED
        if self.session.notes:
            self.session.notesAtGreeting = dict(self.session.notes)
        return self.rules.greeting

    def handshakeCompleted(self, tls: TLSInfo) -> Deferred[None] | None:
        """TLS is on.  After STARTTLS all that was said before is forgotten (RFC 3207 4.2).

        :return: a Deferred when a policy has to be waited for; it never fails.  An objection takes
            the place of the greeting, or is the answer to all that follows STARTTLS.
        """
        self._forget()
        self.moved()
        self.session.secure = True
        self.session.tls = tls
        if self.state is TLS:
            self.state = GREETED
        try:
            waiting = self.pipeline.secure.run(self.session)
        except Exception:
            self._objection = self.asRefused(Failure())
            return None
        return None if waiting is None else waiting.addErrback(self._object)

    def _object(self, failure: Failure) -> None:
        self._objection = self.asRefused(failure)

    @property
    def isBetween(self) -> bool:
        """Whether nothing is under way that an end of the service would spoil."""
        return self._waiting is None and self.state in (GREETED, READY)

    def timedOut(self, cause: str) -> Answer:
        """The client has taken too long: the last reply."""
        self._forgetVerb()
        return self.refuse(Refused(TIMED_OUT, cause))

    def shutDown(self) -> Answer:
        """The service ends: the last reply."""
        self._forgetVerb()
        return self.refuse(Refused(SHUTTING_DOWN, "service stops"))

    def _forgetVerb(self) -> None:
        """What is refused now is not the last command, unless that is still going on."""
        if self._waiting is None and self.state not in (AUTH, DATA, BDAT):
            self._verb = b""

    def lineTooLong(self, beginning: bytes) -> Answer:
        """A line passed the limit and has been thrown away up to its end.

        :param beginning: its first octets.
        """
        if self.state is AUTH:
            self.state, self.continuation = READY, None
            return self.refuse(self._responseTooLong())
        self._verb = b""  # not that of the line before
        self.session.commands += 1
        return self._unreadable(beginning, _tooLong(beginning))

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone: abort what is unfinished and tell the observers."""
        self.state = CLOSED
        # Or we and what holds us would hold each other, until a collection.
        del self.moved
        self.continuation = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not (self.incoming is not None and self.incoming.committing):
            # A commit under way runs to its end: half of one would be worse than a duplicate.
            self._tell("what was waited for, to give up", waiting.cancel)
        self.logOut()
        if self.incoming is not None:
            self.incoming.abort()
        self.pipeline.close.tell(self.session, reason, failed=self.failedToHear)

    def logOut(self) -> None:
        """Whoever is in is not any more; nothing where nobody is."""
        logout, self.logout = self.logout, None
        if logout is not None:
            self.letGo(logout)

    def letGo(self, logout: Callable[[], object]) -> None:
        """Call a logout of Cred's, which may be a coroutine; nobody waits for it."""
        self._tell("logout", logout)

    def _tell(self, origin: str, call: Callable[[], object]) -> None:
        """Call somebody who cannot object, and whose failure must not keep others from hearing."""
        maybeDeferred(call).addErrback(partial(self.failedToHear, origin))

    def failedToHear(self, origin: str, failure: Failure) -> None:
        """Log the exception of an observer that was told something."""
        events.emit(events.POLICY_FAILED, session=self.session.id, origin=origin, failure=failure)

    # Commands.

    def lineReceived(self, line: bytes) -> Outcome:
        """One line without its CRLF: a command, or a response within AUTH."""
        return self._guarded(self._continue if self.state is AUTH else self._command, line)

    def _continue(self, line: bytes) -> Outcome:
        continuation, self.continuation = self.continuation, None
        assert continuation is not None
        self.state = READY
        if len(line) > MAX_AUTH_LINE:
            raise self._responseTooLong()
        return continuation(line)

    def _responseTooLong(self) -> Refused:
        self.logOut()  # who had only to agree is not in
        return Refused(LOGIN_LINE_TOO_LONG, "response too long")

    def _command(self, line: bytes) -> Outcome:
        self._verb = b""
        self.session.commands += 1
        try:
            if len(line) > MAX_COMMAND_LINE and (len(line) > MAX_AUTH_LINE or not _isAuth(line)):
                raise _tooLong(line)
            verb, argument = parseCommand(line)
        except Refused as refused:
            return self._unreadable(line, refused)
        self.proposed = None
        entry = self.rules.verbs.get(verb)
        if entry is None:
            raise self._unknown(verb)
        # Not before: what is no verb of ours may be a password, sent behind an AUTH refused.
        self._verb = verb
        row, run = entry
        if not row.octets:
            login = self.admit(row, argument)
            if login:
                return self.after(runNow(byaddress.logIn(self, login)), run, self, argument)
        return run(self, argument)

    def _unknown(self, verb: bytes) -> Refused:
        if verb in _HTTP:
            return Refused(NOT_HTTP, "an HTTP request")
        if verb == b"PROXY":
            return Refused(PROXY_UNEXPECTED, "PROXY header from a peer that is not trusted")
        self._raiseObjection()
        return Refused(NOT_IMPLEMENTED if verb in self.rules.disabled else UNRECOGNIZED)

    def _unreadable(self, line: bytes, refused: Refused) -> Answer:
        if line[:4].upper() in self.rules.octets:
            return self.outOfStep(refused)
        return self.refuse(refused)

    def _raiseObjection(self) -> None:
        if self._objection is not None and self._verb != b"QUIT":
            # RFC 3207 4.1: all but QUIT, when TLS is not good enough; RFC 5321 3.1: or who is
            # turned away.
            raise self._objection

    def admit(self, row: Verb, argument: bytes) -> str:
        """Hold a command to its row in the table.

        :return: as whom the client has to be logged in first, by its address; commonly empty.
        :raise Refused: when it may not come now, or not like that.
        """
        if self._objection is not None:
            self._raiseObjection()
        if row.name in self.rules.disabled:
            raise Refused(NOT_IMPLEMENTED, "verb disabled")
        session, submission = self.session, self.submission
        mustLogIn = session.user is None and submission.loginRequired
        if mustLogIn:
            limit = submission.limits.commandsBeforeLogin
            if limit and session.commands - self._commandsBefore > limit:
                raise Refused(TOO_MANY_BEFORE_LOGIN)
        if not row.beforeTLS and submission.requireTLS and not session.secure:
            raise Refused(TLS_REQUIRED)
        if self.state not in row.states:
            raise Refused(HELLO_FIRST if self.state is GREETED else BAD_SEQUENCE)
        login = ""
        if mustLogIn and not row.beforeLogin:
            login = byaddress.loginOf(session, submission)
            if not login:
                raise Refused(self.rules.loginRequired)
        if row.argument is (not argument):  # there must be one, or none
            raise Refused(SYNTAX)
        return login

    # The message.

    def beginData(self, incoming: IncomingMessage) -> None:
        """From now on, octets go into this message until CRLF.CRLF."""
        self.incoming = incoming
        self.decoder = DotDecoder()
        self.atEnd = commands.endOfMessage
        self.state = DATA

    def beginChunk(self, decoder: Any, size: int, atEnd: Callable[[Dialogue], Outcome]) -> Outcome:
        """From now on, so many octets go into the message, or nowhere when there is none.

        :param decoder: knows the size.
        :param atEnd: what is done behind them.
        :return: what ``atEnd`` gives where there are no octets; else nothing, for nothing is said
            before they have come.
        """
        self.decoder = decoder
        self.atEnd = atEnd
        self.state = BDAT
        return atEnd(self) if size == 0 else None

    def dataReceived(self, data: bytes) -> tuple[Outcome | Deferred[None] | None, bytes | None]:
        """Octets of a message.

        :return: what to wait for or say, and what stands behind the end of the message (``None``
            while it goes on).  A Deferred with ``None`` behind it only asks for time.
        """
        payload, atEnd, rest = self.decoder.feed(data)
        incoming = self.incoming
        waiting = incoming.dataReceived(payload) if payload and incoming is not None else None
        if atEnd:
            return self._guarded(self.after, waiting, self.atEnd, self), rest
        if waiting is not None:
            self._waiting = waiting
            waiting.addCallback(self._readOn)
        return waiting, None

    def _readOn(self, _: object) -> None:
        """The delivery has taken a chunk; whatever it says to that is no answer to the client."""
        self._waiting = None

    def join(self, user: ISubmitter) -> None:
        """Somebody has logged in: the avatar takes part where it is a policy or a delivery."""
        self.session.user = user
        self.pipeline = self.rules.pipeline.joinedBy(user)
        if IDelivery.providedBy(user):
            self.delivery = user

    def leave(self) -> None:
        """Who was logged in by address is so no longer, and is given time to log in."""
        self.logOut()
        session = self.session
        session.user, session.mechanism = None, ""
        self._commandsBefore = session.commands  # the log tells of all
        self.begun = self.submission.clock.seconds()
        self.pipeline = self.rules.pipeline
        self.delivery = self.submission.delivery

    def _forget(self) -> None:
        self.logOut()
        self.session.forget()
        self.pipeline = self.rules.pipeline
        self.delivery = self.submission.delivery

    def reset(self) -> None:
        """Drop the mail transaction, if any (RFC 5321 4.1.1.5)."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            incoming.abort()
        self.decoder = None
        self.refusedChunks = None
        envelope, self.session.envelope = self.session.envelope, None
        if envelope is not None:
            envelope.message = None  # or message, delivery and envelope would hold each other
        if self.session.xforward:
            self.session.xforward = {}  # it was said of this transaction alone
        if self.state is not GREETED:
            self.state = READY

    def newEnvelopeId(self) -> str:
        """An id for the next transaction: the session's with a number; an Atom (RFC 5321 4.4)."""
        return f"{self.session.id}-{self.session.transactions + 1}"

    # Outcomes.

    def after(
        self, waiting: Deferred[Any] | None, then: Callable[..., Outcome], *arguments: Any
    ) -> Outcome:
        """``then(*arguments)``, now or once ``waiting`` has fired and the client is still there."""
        if waiting is None:
            return then(*arguments)
        return waiting.addCallback(lambda _: self._resume(then, arguments))

    def _resume(self, then: Callable[..., Outcome], arguments: tuple[Any, ...]) -> Outcome:
        if self.state is CLOSED:
            raise Refused(LOCAL_ERROR, "the client is gone")
        return then(*arguments)

    def _guarded(self, run: Callable[..., Outcome], *arguments: Any) -> Outcome:
        """Run something that ends in a reply, and turn all that goes wrong into one."""
        try:
            outcome = run(*arguments)
        except Refused as refused:
            return self.refuse(refused)
        except Exception:
            return self.refuse(self.asRefused(Failure()))
        if type(outcome) is Reply:  # isinstance of Deferred, an abstract class, costs five times it
            return outcome
        if isinstance(outcome, Deferred):
            self._waiting = outcome
            self._since = self.submission.clock.seconds()
            return outcome.addBoth(self._settled)
        return outcome

    def _settled(self, result: Answer | Failure) -> Answer:
        self._waiting = None
        if not isinstance(result, Failure):
            return result
        if self.state is CLOSED:  # nobody is there to be answered, or to be logged about
            return LOCAL_ERROR
        self._waited = self.submission.clock.seconds() - self._since
        reply = self.refuse(self.asRefused(result))
        self._waited = 0.0
        return reply

    def asRefused(self, failure: Failure) -> Refused:
        """The refusal that a failure stands for; an unexpected one is logged with its traceback."""
        if isinstance(failure.value, Refused):
            return failure.value
        origin = self._verb.decode("ascii") or "connection"
        if isinstance(failure.value, TooLate):  # of ours; nothing that a traceback would explain
            refused = Refused(LOCAL_ERROR, str(failure.value))
            refused.origin = origin
            return refused
        events.emit(events.POLICY_FAILED, session=self.session.id, origin=origin, failure=failure)
        return Refused(LOCAL_ERROR, f"{type(failure.value).__name__} at {origin}")

    def forEach(self, count: int, run: Callable[..., Outcome], *arguments: Any) -> Outcome:
        """Run something that ends in a reply, and give a single reply so many times.

        RFC 2033 4.2: behind a message one reply is due for each recipient, refused or not.
        """
        outcome = self._guarded(run, *arguments)
        if isinstance(outcome, Deferred):
            return outcome.addCallback(_times, count)
        return _times(outcome, count)

    def outOfStep(self, refused: Refused) -> Replies:
        """Refuse a line behind which octets come that nobody can count, and close.

        Reading on would take text of a message for commands: somebody else's text, perhaps.  The
        first reply says what was wrong, and that it is permanent; 421 is the only one that a server
        may close with (RFC 5321 3.8).
        """
        return Replies((self.refuse(refused), self.refuse(Refused(OUT_OF_STEP))))

    def refuse(self, refused: Refused) -> Reply:
        """Log a refusal, count it, and give its reply; 421 closes.

        Of who was turned away already, the log has heard enough.
        """
        reply = self._counted(refused)
        isAway = self.turnedAway is not None
        if self.state is CONNECTED:
            reply = self._sendAway(reply)
        told = reply if isAway else self.told(refused, reply)
        if reply.code == 421:
            self.reset()
            self.state = CLOSED
        elif FRAMING[self.state] is OCTETS:
            # The message has been read to its end; staying here would take commands for its text.
            self.reset()
        return told

    def _sendAway(self, reply: Reply) -> Reply:
        """What is said in place of the greeting (RFC 5321 3.1, 4.3.2).

        For later it is 421, which closes.  For good it is what was said, commonly 554, and then
        the client is waited for to say QUIT.
        """
        if reply.isTransient:
            return attrs.evolve(reply, code=421)
        self._objection = Refused(BAD_SEQUENCE, "turned away in place of the greeting")
        self.turnedAway = self.submission.clock.seconds()
        self.state = GREETED
        return reply

    def told(self, refused: Refused, reply: Reply) -> Reply:
        """Log a refusal, and give the reply to it with its id."""
        session, ids = self.session, self.submission.refusalIds
        user = session.user
        fields: dict[str, Any] = {
            "session": session.id,
            "peer": session.remoteAddress,
            "user": user.avatarId if user is not None else None,
            "command": self._verb,
            "reply": f"{reply.code} {reply.status} {reply.lines[0]}",
            "cause": refused.cause or "",
            "origin": refused.origin,
            **(refused.transaction or self.transaction()),
            "seconds": round(self.submission.clock.seconds() - self._began, 3),
        }
        if self.proposed is not None and self._verb in (b"MAIL", b"RCPT"):
            fields["address"] = str(self.proposed)
        if self._waited:
            fields["waited"] = round(self._waited, 3)
        if session.waits:
            fields["waits"] = ", ".join(f"{name} {time:.3f} s" for name, time in session.waits)
        if ids is not None:
            fields["refusal"] = id = ids()
            reply = reply.marked(id)
        events.emit(events.REFUSED, **fields)
        return reply

    def transaction(self) -> dict[str, object]:
        """What the log says of the mail transaction; empty where there is none."""
        envelope = self.session.envelope
        if envelope is None:
            return {}
        message = envelope.message
        return {
            "id": envelope.id,
            "sender": str(envelope.reversePath),
            "recipients": len(envelope.recipients),
            "size": envelope.size if message is None else message.byteLength,
        }

    def _counted(self, refused: Refused) -> Reply:
        session, limits, reply = self.session, self.submission.limits, refused.reply
        self._refusals += 1
        # One mistyped address among many recipients is no sign of a client that speaks no SMTP; to
        # go on where one can only quit is.
        isStrange = reply.code in (500, 501, 502) and self._verb != b"RCPT"
        if isStrange or refused is self._objection:
            session.unrecognized += 1
        tooMany = (
            0 < limits.unrecognized < session.unrecognized or 0 < limits.refusals < self._refusals
        )
        return TOO_MANY_ERRORS if tooMany and reply.code != 421 else reply
