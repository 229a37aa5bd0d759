"""The SMTP and LMTP client without I/O (RFC 5321, RFC 2033).

Octets of the next hop go in (:meth:`Client.dataReceived`), octets for it come out
(:meth:`Client.takeOutput`), and events say what the connection has to do
(:meth:`Client.takeEvents`).  Nothing here waits, and nothing holds a transport.

What it promises:

- each recipient of a message that was sent gets one outcome, whatever the next hop says or does;
- what was announced before TLS is forgotten, and what came behind the 220 to STARTTLS in the clear
  ends the session unused (RFC 3207 4.2 and 5);
- no password travels without TLS unless the configuration says so;
- what the next hop cannot take is failed with the code that says so.  What is found only while the
  message is sent (an octet above 127, a lone CR) ends the connection before the end of the
  message, so that nothing of it can have been taken;
- who offers BDAT and does not know it delays the recipients, and has to be left;
- an answer that is no reply, or none to what was asked, delays the recipients, with that answer on
  record.  So does whatever happens before MAIL: a broken next hop bounces nobody's mail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal

import attrs

from submitd.relay.capabilities import (
    Capabilities,
    mailCommand,
    rcptCommand,
    readKeywords,
    recipientRefusal,
    refusal,
)
from submitd.relay.content import Content
from submitd.relay.login import Account, Login, choose
from submitd.relay.outgoing import Outcome, Outgoing, Result, inOneLine, judge
from submitd.relay.states import (
    STATES,
    BodyWanted,
    Done,
    Ended,
    Event,
    Ready,
    StartTLS,
    State,
)
from submitd.wire.reply import Reply, ReplyParser, ReplySyntaxError

TLS = Literal["required", "opportunistic", "off"]

# Chunks (RFC 3030) that may be on their way without a reply: bounds what a refusal wastes.
CHUNKS_AHEAD = 8

# To BDAT: the next hop, or what stands before it, does not know what it offers (RFC 5321 4.2.4).
UNKNOWN = frozenset({500, 502})

# What the last reply of a message answers.
END = "the end of the message"

TLS_NOT_OFFERED = Reply(451, "4.7.4", "TLS is required, and the next hop does not offer it")
INJECTED = Reply(451, "4.7.5", "Next hop sent more in the clear behind its 220 to STARTTLS")
LOGIN_NEEDS_TLS = Reply(451, "4.7.11", "Login needs TLS, and there is none with the next hop")
NO_MECHANISM = Reply(451, "4.7.0", "Next hop offers no login that is configured for it")


@attrs.frozen(kw_only=True)
class Profile:
    """How to talk to a next hop.

    :param hostname: our own name, for EHLO.
    :param lmtp: speak LMTP.
    :param tls: whether STARTTLS is required, used where offered, or not used.
    :param account: whom to log in as; ``None`` for no login.
    :param insecureLogin: log in without TLS.
    :param host: the next hop's name, for the outcomes.
    :param chunking: whether BDAT may be used.
    """

    hostname: str
    lmtp: bool = False
    tls: TLS = "opportunistic"
    account: Account | None = None
    insecureLogin: bool = False
    host: str = ""
    chunking: bool = True


@attrs.define(eq=False)
class _Transaction:
    """One message on its way."""

    message: Outgoing
    chunked: bool
    content: Content
    outcomes: list[Outcome | None]
    accepted: list[int] = attrs.field(factory=list)
    awaited: int = 0  # replies to RCPT that have not come
    begun: bool = False  # MAIL was accepted, so there is something to reset
    held: bytes | None = None  # the chunk that may be the last
    knowsChunks: bool = False  # and what it refuses is the message, not BDAT


@attrs.frozen
class _Awaited:
    """A reply that is due.

    :param command: what it answers, for messages.
    :param take: what to do with it.
    """

    command: str
    take: Callable[[Reply], None]


class Client:
    """A dialogue with one next hop: several messages, one after the other.

    :param profile: how to talk to it.
    :ivar capabilities: what it offered last; nothing before EHLO was answered.
    :ivar progress: grows with each reply and each chunk; while it stands still time is running out.
    :ivar isChunkingUnknown: whether BDAT was offered, and is not known when it comes.
    :ivar isMailRefused: whether MAIL of the last message was: no recipient was asked for.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.state = State.NEW
        self.capabilities = Capabilities()
        self.progress = 0
        self.isChunkingUnknown = False
        self.isMailRefused = False
        self._hasTaken = False
        self._output: list[bytes] = []
        self._events: list[Event] = []
        self._parser = ReplyParser()
        self._commands: deque[tuple[bytes, _Awaited]] = deque()
        self._waiting: deque[_Awaited] = deque()
        self._secure = False
        self._verified = False
        self._transaction: _Transaction | None = None
        self._needsReset = False

    # What comes out.

    def takeOutput(self) -> bytes:
        """What to send now."""
        output, self._output = b"".join(self._output), []
        return output

    def takeEvents(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    @property
    def limit(self) -> str:
        """The name of the time limit that holds now."""
        return STATES[self.state].limit

    @property
    def isSpent(self) -> bool:
        """Whether MAIL was refused after one had been taken: another connection may do."""
        return self.isMailRefused and self._hasTaken

    @property
    def waitingFor(self) -> str:
        """What the next hop owes, for messages."""
        if self.state is State.GREETING:
            return "the greeting"
        if self._waiting:
            command = self._waiting[0].command
            # RFC 1047: it may have the message, and will get it again.
            twice = ", which may arrive twice" if command == END else ""
            return f"the reply to {command}{twice}"
        if self.state is State.BODY:
            return "the message to go out"
        # Where nothing has been said yet, TLS begins with the connection.
        isHandshake = self.state in (State.NEW, State.HANDSHAKE)
        return "the TLS handshake" if isHandshake else "the next hop"

    # What goes in.

    def connectionMade(self, secure: bool = False, verified: bool = False) -> None:
        """The connection is there.

        :param secure: whether TLS is active already, with its handshake over (RFC 8314).
        :param verified: whether the certificate has been verified.
        """
        self._secure, self._verified = secure, verified
        self._become(State.GREETING)
        self._waiting.append(_Awaited("the connection", self._greeted))

    def handshakeCompleted(self, verified: bool) -> None:
        """The handshake after :class:`StartTLS` is over.

        :param verified: whether the certificate has been verified.
        """
        self._secure, self._verified = True, verified
        self._parser = ReplyParser()
        self._hello()

    def dataReceived(self, data: bytes) -> None:
        """Octets of the next hop, however they are cut."""
        if self.state is State.STARTTLS:
            # Line by line, so that what follows the 220 is seen before it is read.
            while data and self.state is State.STARTTLS:
                line, end, data = data.partition(b"\n")
                self._feed(line + end)
        if not data or self.state is State.CLOSED:
            return
        if self.state is State.HANDSHAKE:
            self._fail(INJECTED)
            return
        self._feed(data)

    def connectionLost(self, reply: Reply) -> None:
        """The connection is gone, or has to be given up.

        :param reply: what goes on record for the recipients that have no outcome yet.
        """
        self._fail(reply)

    def send(self, message: Outgoing) -> None:
        """Send a message; :class:`Done` has its outcomes.

        :raise ValueError: when the dialogue is not ready for one.
        """
        if self.state is not State.READY:
            raise ValueError(f"no message can be sent while {self.state.value}")
        self._become(State.ENVELOPE)
        self.isMailRefused = False
        chunked = message.bodyType == "BINARYMIME" or (
            self.profile.chunking and self.capabilities.chunking
        )
        content = Content(message, self.capabilities, chunked)
        transaction = _Transaction(message, chunked, content, [None] * len(message.recipients))
        self._transaction = transaction
        reply = refusal(message, self.capabilities)
        wanted: list[int] = []
        for at, recipient in enumerate(message.recipients):
            said = reply or recipientRefusal(recipient, self.capabilities)
            if said is not None:
                self._settle(at, Result.FAILED, said, isRemote=False)
            else:
                wanted.append(at)
        if wanted:
            self._open(transaction, wanted)
        else:
            self._finish()

    def body(self, chunk: bytes) -> None:
        """The next chunk of the message; not empty.  Nothing is done once it is not wanted."""
        if not self._wantsBody:
            return
        transaction = self._ongoing
        self.progress += 1
        octets = transaction.content.feed(chunk)
        if isinstance(octets, Reply):
            self._giveUp(octets)
            return
        if transaction.chunked:
            held, transaction.held = transaction.held, octets
            if held is not None:
                self._sendChunk(held)
        else:
            self._output.append(octets)
        self._wantBody()

    def bodyEnded(self) -> None:
        """The message is complete."""
        if not self._wantsBody:
            return
        transaction = self._ongoing
        octets = transaction.content.finish()
        if isinstance(octets, Reply):
            self._giveUp(octets)
            return
        self._become(State.END)
        if transaction.chunked:
            held = transaction.held or b""
            octets = b"BDAT %d LAST\r\n%b" % (len(held), held)
        self._output.append(octets)
        self._awaitVerdict()

    def quit(self) -> None:
        """End the session in order, when it is ready; at once, when it is not."""
        if self.state is State.READY:
            self._become(State.QUIT)
            self._command(b"QUIT", "QUIT", lambda reply: self._close(None))
        else:
            self._close(None)

    # Replies.

    def _feed(self, data: bytes) -> None:
        nonsense = None
        try:
            replies = self._parser.feed(data)
        except ReplySyntaxError as error:
            replies = error.replies
            said = data[:100].decode("latin-1").replace("\n", "?")
            nonsense = Reply(451, "4.5.0", f"Next hop answered what is no reply ({error}): {said}")
        for reply in replies:
            if self.state is State.CLOSED:
                return
            self._take(reply)
        if nonsense is not None:
            self._fail(nonsense)

    def _take(self, reply: Reply) -> None:
        self.progress += 1
        # RFC 5321 3.8: 421 may answer anything, and then the connection is closed.
        if reply.code == 421 and self.state is not State.QUIT:
            self._fail(reply, isRemote=True)
        elif self._waiting:
            self._waiting.popleft().take(reply)
            self._pump()
        else:
            self._unasked(reply)

    def _unasked(self, reply: Reply) -> None:
        """Nothing was asked: a refusal in the midst of a message counts, all else is nonsense."""
        if self.state is State.BODY and reply.code >= 400:
            self._settleRest(judge(reply), reply, isRemote=True)
        self._nonsense("nothing that was asked", reply)

    def _nonsense(self, command: str, reply: Reply) -> None:
        said = f"Next hop answered {command} with: {inOneLine(reply)}"
        self._fail(Reply(451, "4.5.0", said))

    # From the greeting to the login.

    def _greeted(self, reply: Reply) -> None:
        if reply.code // 100 != 2:
            self._fail(reply, isRemote=True)
        else:
            self._hello()

    def _hello(self) -> None:
        self._become(State.HELLO)
        # RFC 3207 4.2: all that was known of the server is discarded.
        self.capabilities = Capabilities()
        verb = "LHLO" if self.profile.lmtp else "EHLO"
        self._command(f"{verb} {self.profile.hostname}".encode("ascii"), verb, self._introduced)

    def _introduced(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._know(readKeywords(reply))
            self._secureOrLogin()
        elif reply.code >= 500 and not self.profile.lmtp and not self._secure:
            # RFC 5321 3.2: a server without extensions.
            self._command(f"HELO {self.profile.hostname}".encode("ascii"), "HELO", self._greetedOld)
        else:
            self._fail(reply, isRemote=True)

    def _greetedOld(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._know({})
            self._secureOrLogin()
        else:
            self._fail(reply, isRemote=True)

    def _know(self, keywords: dict[str, str]) -> None:
        self.capabilities = Capabilities(keywords, self._secure, self._verified, self.profile.lmtp)

    def _secureOrLogin(self) -> None:
        wanted = not self._secure and self.profile.tls != "off"
        if wanted and self.capabilities.offers("STARTTLS"):
            self._become(State.STARTTLS)
            self._command(b"STARTTLS", "STARTTLS", self._mayStartTLS)
        elif wanted and self.profile.tls == "required":
            self._fail(TLS_NOT_OFFERED)
        else:
            self._login()

    def _mayStartTLS(self, reply: Reply) -> None:
        if reply.code == 220:
            self._become(State.HANDSHAKE)
            self._events.append(StartTLS())
        elif self.profile.tls == "opportunistic" and reply.code >= 400:
            self._login()
        else:
            self._fail(reply, isRemote=True)

    def _login(self) -> None:
        account = self.profile.account
        if account is None:
            self._beReady()
            return
        if not (self._secure or self.profile.insecureLogin):
            self._fail(LOGIN_NEEDS_TLS)
            return
        login = choose(account, self.capabilities.mechanisms)
        if login is None:
            self._fail(NO_MECHANISM)
            return
        self._become(State.LOGIN)
        self._command(login.command, "AUTH", partial(self._challenged, login))

    def _challenged(self, login: Login, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._beReady()
        elif reply.code // 100 == 3 and not login.isCancelled:
            line = login.response("".join(reply.lines))
            self._command(line, "AUTH", partial(self._challenged, login))
        elif reply.code // 100 == 3:
            self._nonsense("the end of AUTH", reply)
        else:
            self._fail(reply, isRemote=True)

    def _beReady(self) -> None:
        self._become(State.READY)
        self._events.append(Ready())

    # The mail transaction.

    def _open(self, transaction: _Transaction, wanted: list[int]) -> None:
        message = transaction.message
        transaction.awaited = len(wanted)
        if self._needsReset:
            self._needsReset = False
            self._enqueue(b"RSET", "RSET", self._wasReset)
        self._enqueue(mailCommand(message, self.capabilities), "MAIL", self._mailAnswered)
        for at in wanted:
            self._enqueue(
                rcptCommand(message, message.recipients[at], self.capabilities),
                "RCPT",
                partial(self._rcptAnswered, at),
            )
        if self._pipelining and not transaction.chunked and not self.profile.lmtp:
            # RFC 2920 3.1: DATA may be the last of a group.
            self._enqueue(b"DATA", "DATA", self._dataAnswered)
        self._pump()

    def _wasReset(self, reply: Reply) -> None:
        if reply.code // 100 != 2:
            self._nonsense("RSET", reply)

    def _mailAnswered(self, reply: Reply) -> None:
        transaction = self._ongoing
        if reply.code // 100 == 2:
            transaction.begun = self._hasTaken = True
        elif reply.code < 400:
            self._nonsense("MAIL", reply)
        else:
            self.isMailRefused = True
            self._settleRest(judge(reply), reply, isRemote=True)
            self._commands.clear()
            if not self._waiting:
                self._finish()

    def _rcptAnswered(self, at: int, reply: Reply) -> None:
        transaction = self._ongoing
        transaction.awaited -= 1
        if 300 <= reply.code < 400:
            self._nonsense("RCPT", reply)
            return
        if transaction.outcomes[at] is None:
            if reply.code < 400:
                transaction.accepted.append(at)
            elif transaction.accepted and _isExcess(reply):
                self._settle(at, Result.DELAYED, reply, isRemote=True, isExcess=True)
            else:
                self._settle(at, judge(reply), reply, isRemote=True)
        elif reply.code < 400:
            # A recipient of a message whose sender it refuses, as where it has another one open:
            # the dot that a 354 asks for would deliver an empty message (RFC 2920 3.1).
            self._nonsense("RCPT behind a refused MAIL", reply)
            return
        if transaction.awaited == 0:
            self._rcptsAnswered(transaction)

    def _rcptsAnswered(self, transaction: _Transaction) -> None:
        if self._waiting:
            self._become(State.OPENING)  # DATA is on its way already
        elif not transaction.accepted:
            self._finish()
        elif transaction.chunked:
            self._beginBody()
        else:
            self._become(State.OPENING)
            self._command(b"DATA", "DATA", self._dataAnswered)

    def _dataAnswered(self, reply: Reply) -> None:
        transaction = self._ongoing
        if self.state is State.ENVELOPE:
            self._become(State.OPENING)
        if reply.code < 300:
            self._nonsense("DATA", reply)
        elif reply.code >= 400:
            self._settleRest(judge(reply), reply, isRemote=True)
            self._finish()
        elif transaction.accepted:
            self._beginBody()
        else:
            # RFC 2920 3.1: it says 354 although it took no recipient; the message is a lone dot.
            self._become(State.END)
            self._command(b".", "the empty message", lambda reply: self._finish())

    def _beginBody(self) -> None:
        self._become(State.BODY)
        self._wantBody()

    @property
    def _wantsBody(self) -> bool:
        # One that was refused on its way is over when what was sent of it is answered.
        return self.state is State.BODY and bool(self._unsettled)

    def _wantBody(self) -> None:
        if self._wantsBody and len(self._waiting) < self._chunksAhead:
            self._events.append(BodyWanted())

    def _sendChunk(self, chunk: bytes) -> None:
        self._output.append(b"BDAT %d\r\n%b" % (len(chunk), chunk))
        self._waiting.append(_Awaited("BDAT", self._chunkAnswered))

    def _chunkAnswered(self, reply: Reply) -> None:
        if reply.code // 100 == 3:
            self._nonsense("BDAT", reply)
        elif reply.code < 300:
            self._ongoing.knowsChunks = True
        elif self._isUnknown(reply):
            self._chunkUnknown(reply)
        else:
            self._ongoing.knowsChunks = True
            self._settleRest(judge(reply), reply, isRemote=True)
            if self.state is State.END and self.profile.lmtp:
                # How many replies will come now is anybody's guess (RFC 2033 4.3).
                self._close(reply)
        if self._wantsBody:
            if len(self._waiting) == self._chunksAhead - 1:
                self._wantBody()
        elif self.state is State.BODY and not self._waiting:
            # No more chunks, and those on their way are answered (RFC 3030 4.2).
            self._finish()

    def _isUnknown(self, reply: Reply) -> bool:
        transaction = self._ongoing
        return reply.code in UNKNOWN and transaction.chunked and not transaction.knowsChunks

    def _chunkUnknown(self, reply: Reply) -> None:
        """What was sent as a chunk are commands to the next hop: nothing more is said to it."""
        self.isChunkingUnknown = True
        if self._ongoing.message.bodyType == "BINARYMIME":
            self._settleRest(judge(reply), reply, isRemote=True)  # it goes no other way
        self._fail(reply, isRemote=True)

    def _awaitVerdict(self) -> None:
        # RFC 2033 4.2: in LMTP each recipient that was accepted has a reply, in their order.
        accepted = self._ongoing.accepted
        for each in [[at] for at in accepted] if self.profile.lmtp else [accepted]:
            self._waiting.append(_Awaited(END, partial(self._judged, each)))

    def _judged(self, recipients: list[int], reply: Reply) -> None:
        if 300 <= reply.code < 400:
            self._nonsense(END, reply)
            return
        if self._isUnknown(reply):
            self._chunkUnknown(reply)
            return
        # In LMTP others may have the message, and would get it twice if we left before they say so.
        self._ongoing.knowsChunks = self._ongoing.knowsChunks or reply.code not in UNKNOWN
        for at in recipients:
            if self._ongoing.outcomes[at] is None:
                self._settle(at, judge(reply), reply, isRemote=True)
        if not self._waiting:
            # RFC 3030 2: who has refused a chunk may have the transaction open yet.
            self._ongoing.begun = self._ongoing.chunked and reply.code >= 400
            self._finish()

    # Outcomes.

    @property
    def _ongoing(self) -> _Transaction:
        assert self._transaction is not None, "only within a transaction"
        return self._transaction

    @property
    def _unsettled(self) -> list[int]:
        if self._transaction is None:
            return []
        return [at for at, each in enumerate(self._transaction.outcomes) if each is None]

    def _settle(
        self, at: int, result: Result, reply: Reply, isRemote: bool, isExcess: bool = False
    ) -> None:
        delivered = result is Result.DELIVERED
        self._ongoing.outcomes[at] = Outcome(
            result,
            reply,
            isRemote,
            dsn=delivered and self.capabilities.offers("DSN"),
            deliverBy=delivered and self.capabilities.offers("DELIVERBY"),
            host=self.profile.host,
            isFinal=delivered and self.profile.lmtp,
            isExcess=isExcess,
        )

    def _settleRest(self, result: Result, reply: Reply, isRemote: bool) -> None:
        for at in self._unsettled:
            self._settle(at, result, reply, isRemote)

    def _finish(self) -> None:
        """The transaction is over, the connection is not."""
        transaction = self._ongoing
        self._needsReset = self._needsReset or transaction.begun
        self._report()
        self._beReady()

    def _report(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            outcomes = [each for each in transaction.outcomes if each is not None]
            assert len(outcomes) == len(transaction.outcomes), "each recipient has its outcome"
            self._events.append(Done(tuple(outcomes)))

    def _giveUp(self, reply: Reply) -> None:
        """The message cannot go on; without its end the next hop has taken nothing."""
        self._settleRest(Result.FAILED, reply, isRemote=False)
        self._close(reply)

    def _fail(self, reply: Reply, isRemote: bool = False) -> None:
        """The session cannot go on: who has no outcome yet is tried again later."""
        self._settleRest(Result.DELAYED, reply, isRemote)
        self._close(reply, isRemote)

    def _close(self, reply: Reply | None, isRemote: bool = False) -> None:
        if self.state is State.CLOSED:
            return
        state = self.state
        self._become(State.CLOSED)
        self._commands.clear()
        self._waiting.clear()
        if reply is not None:
            self._output.clear()
        # A handshake that was asked for in the same breath is not to begin.
        self._events = [each for each in self._events if not isinstance(each, StartTLS)]
        self._report()
        self._events.append(Ended(state, reply, isRemote))

    # The queue of commands.

    @property
    def _pipelining(self) -> bool:
        return self.capabilities.offers("PIPELINING")

    @property
    def _chunksAhead(self) -> int:
        return CHUNKS_AHEAD if self._pipelining else 1

    def _become(self, state: State) -> None:
        assert state in STATES[self.state].following, f"{self.state} to {state}"
        self.state = state

    def _command(self, line: bytes, name: str, take: Callable[[Reply], None]) -> None:
        self._enqueue(line, name, take)
        self._pump()

    def _enqueue(self, line: bytes, name: str, take: Callable[[Reply], None]) -> None:
        self._commands.append((line, _Awaited(name, take)))

    def _pump(self) -> None:
        """Send what may be sent: one command at a time, or all where they may be pipelined."""
        while self._commands and (self._pipelining or not self._waiting):
            line, awaited = self._commands.popleft()
            self._output.append(line + b"\r\n")
            self._waiting.append(awaited)


def _isExcess(reply: Reply) -> bool:
    """Whether there may be no more recipients in this transaction (RFC 5321 4.5.3.1.10).

    552 is how it was said of old.
    """
    return reply.code in (452, 552) and reply.status[1:] in ("", ".5.3")
