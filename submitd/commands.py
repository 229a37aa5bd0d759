"""The verbs of RFC 5321, one function each.

Every function takes the dialogue and the argument (white space around it is gone) and gives a
reply, now or as a Deferred; it refuses by raising ``Refused``.  The table of states has already
been asked: a function runs only where its verb may come.  Verbs that extensions bring have the same
signature and live in their own files.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from submitd import events
from submitd.envelope import Envelope, Recipient
from submitd.equality import sameAddress
from submitd.interfaces import IBlindCopyDelivery, IHoldingDelivery, IMessage, ITraceField
from submitd.message.copied import begin, beginningOf
from submitd.message.incoming import IncomingMessage, Review, drop
from submitd.message.received import receivedField
from submitd.states import CLOSED, MAIL, RCPT, READY, VERBS, Verb
from submitd.waiting import runNow
from submitd.wire.address import parseHello
from submitd.wire.command import parseMail, parseRcpt
from submitd.wire.errors import Refused
from submitd.wire.reply import (
    BARE_LINE_ENDING,
    BINARY_NEEDS_BDAT,
    CANNOT_VERIFY,
    CLOSING,
    LOCAL_ERROR,
    NUL_IN_MESSAGE,
    OK,
    RECIPIENT_OK,
    RESET,
    SENDER_OK,
    START_MAIL_INPUT,
    TOO_MANY_RECIPIENTS,
    TOO_MANY_TRANSACTIONS,
    UNKNOWN_PARAMETER,
    UTF8_ADDRESS,
    Replies,
    Reply,
)

if TYPE_CHECKING:
    from submitd.dialogue import Answer, Command, Dialogue, Outcome

# Parameters of MAIL that say when a message is to go out: RFC 6710, RFC 4865, RFC 2852.
_WHEN = ("MT-PRIORITY", "HOLDFOR", "HOLDUNTIL", "BY")


def ehlo(dialogue: Dialogue, argument: bytes) -> Outcome:
    """EHLO (RFC 5321 4.1.1.1): introduce, and be told the extensions."""
    return _hello(dialogue, "EHLO", argument)


def helo(dialogue: Dialogue, argument: bytes) -> Outcome:
    """HELO (RFC 5321 4.1.1.1): introduce, without extensions."""
    return _hello(dialogue, "HELO", argument)


def lhlo(dialogue: Dialogue, argument: bytes) -> Outcome:
    """LHLO (RFC 2033 4.1): EHLO of LMTP."""
    return _hello(dialogue, "LHLO", argument)


def _hello(dialogue: Dialogue, opening: str, argument: bytes) -> Outcome:
    domain = parseHello(argument)
    dialogue.reset()  # RFC 5321 4.1.4: a second EHLO acts as RSET
    dialogue.session.rcptMax = dialogue.session.mailMax = 0  # the policies say it anew
    waiting = dialogue.pipeline.hello.run(dialogue.session, domain)
    return dialogue.after(waiting, _introduced, dialogue, opening, domain)


def _introduced(dialogue: Dialogue, opening: str, domain: str) -> Reply:
    session, submission = dialogue.session, dialogue.submission
    session.openingCommand = opening
    session.heloName = domain
    dialogue.state = READY
    lines = [f"{submission.hostname} {submission.helloText.replace('{client}', domain)}".rstrip()]
    if opening != "HELO":
        lines += advertised(dialogue)
    return _helloReply(tuple(lines))


# Clients call themselves the same at each connection, and are offered the same.
@functools.lru_cache(maxsize=256)
def _helloReply(lines: tuple[str, ...]) -> Reply:
    return Reply(250, "", lines)


def advertised(dialogue: Dialogue) -> list[str]:
    """The lines of EHLO, one per extension that is offered now."""
    lines = [extension.advertise(dialogue) for extension in dialogue.rules.shown]
    return [line for line in lines if line is not None]


def mail(dialogue: Dialogue, argument: bytes) -> Outcome:
    """MAIL (RFC 5321 4.1.1.2): begin a mail transaction."""
    session = dialogue.session
    if 0 < session.maxTransactions <= session.transactions:
        raise Refused(TOO_MANY_TRANSACTIONS)
    path, parameters = parseMail(argument)
    dialogue.proposed = path
    envelope = Envelope(dialogue.newEnvelopeId(), path, parameters)
    known = dialogue.rules.mailParameters
    for keyword, value in parameters.items():
        apply = known.get(keyword)
        if apply is None:
            raise Refused(UNKNOWN_PARAMETER, f"MAIL parameter {keyword}")
        apply(dialogue, envelope, value)
    if path.mailbox is not None and not envelope.smtpUtf8 and not path.mailbox.isAscii:
        raise Refused(UTF8_ADDRESS)
    waiting = dialogue.pipeline.sender.run(dialogue.session, envelope)
    return dialogue.after(waiting, _begun, dialogue, envelope)


def _begun(dialogue: Dialogue, envelope: Envelope) -> Reply:
    dialogue.session.envelope = envelope
    dialogue.session.transactions += 1
    dialogue.state = MAIL
    return SENDER_OK


def rcpt(dialogue: Dialogue, argument: bytes) -> Outcome:
    """RCPT (RFC 5321 4.1.1.3): one more recipient."""
    envelope = _transaction(dialogue)
    _checkRoom(dialogue, envelope)
    mailbox, parameters = parseRcpt(argument)
    dialogue.proposed = mailbox
    if not envelope.smtpUtf8 and not mailbox.isAscii:
        raise Refused(UTF8_ADDRESS)
    recipient = Recipient(mailbox, parameters)
    known = dialogue.rules.rcptParameters
    for keyword, value in parameters.items():
        apply = known.get(keyword)
        if apply is None:
            raise Refused(UNKNOWN_PARAMETER, f"RCPT parameter {keyword}")
        apply(dialogue, envelope, recipient, value)
    waiting = dialogue.pipeline.recipient.run(dialogue.session, envelope, recipient)
    return dialogue.after(waiting, _added, dialogue, envelope, recipient)


def _checkRoom(dialogue: Dialogue, envelope: Envelope) -> None:
    limit = dialogue.session.maxRecipients
    # Where aliases name the same addresses, a client may know of more than there are.
    isFull = len(envelope.recipients) >= limit
    if limit and (isFull or (envelope.asked is not None and len(envelope.asked) >= limit)):
        raise Refused(TOO_MANY_RECIPIENTS)


def _added(dialogue: Dialogue, envelope: Envelope, recipient: Recipient) -> Outcome:
    if recipient.others:
        joining = runNow(_addAll(dialogue, envelope, recipient))
        waiting = joining if isinstance(joining, Deferred) else None
        return dialogue.after(waiting, _taken, dialogue)
    envelope.recipients.append(recipient)
    if envelope.asked is not None:
        envelope.asked.append(recipient)
    dialogue.state = RCPT
    return RECIPIENT_OK


def _taken(dialogue: Dialogue) -> Reply:
    dialogue.state = RCPT
    return RECIPIENT_OK


async def _addAll(dialogue: Dialogue, envelope: Envelope, recipient: Recipient) -> None:
    """Add a recipient and those that policies have put beside it, or none of them.

    :raise Refused: as a policy says of one of them; 452 4.5.3 when they are too many.
    """
    stage, recipients = dialogue.pipeline.recipient, envelope.recipients
    known, waiting = [*envelope.known, recipient], deque([recipient])
    before = len(recipients)
    try:
        while waiting:
            each = waiting.popleft()
            if each is not recipient:
                await stage.behind(each.placedBy, dialogue.session, envelope, each)
            _checkRoom(dialogue, envelope)
            recipients.append(each)
            waiting.extend(each.others)
    except BaseException:
        del recipients[before:]
        raise
    envelope.asked = known


def data(dialogue: Dialogue, argument: bytes) -> Outcome:
    """DATA (RFC 5321 4.1.1.4): the message follows."""
    if _transaction(dialogue).bodyType == "BINARYMIME":
        raise Refused(BINARY_NEEDS_BDAT)  # RFC 3030 3
    return openMessage(dialogue, _expectText)


def _expectText(dialogue: Dialogue, incoming: IncomingMessage) -> Reply:
    dialogue.beginData(incoming)
    return START_MAIL_INPUT


def openMessage(
    dialogue: Dialogue, then: Callable[[Dialogue, IncomingMessage], Outcome]
) -> Outcome:
    """Ask the policies, have the delivery begin, write the Received field, go on with ``then``."""
    envelope = _transaction(dialogue)
    waiting = dialogue.pipeline.data.run(dialogue.session, envelope)
    return dialogue.after(waiting, _beginMessage, dialogue, envelope, then)


def _beginMessage(
    dialogue: Dialogue,
    envelope: Envelope,
    then: Callable[[Dialogue, IncomingMessage], Outcome],
) -> Outcome:
    if envelope.copies:
        beginning = begin(dialogue.session, envelope, dialogue.delivery)
        waiting = dialogue.rules.limited(Deferred.fromCoroutine(beginning))
        return waiting.addCallback(_opened, dialogue, envelope, then)
    sink = dialogue.delivery.begin(dialogue.session, envelope)
    if IMessage.providedBy(sink):
        return _opened(sink, dialogue, envelope, then)
    waiting = dialogue.rules.limited(beginningOf(sink))
    return waiting.addCallback(_opened, dialogue, envelope, then)


def _opened(
    sink: IMessage,
    dialogue: Dialogue,
    envelope: Envelope,
    then: Callable[[Dialogue, IncomingMessage], Outcome],
) -> Outcome:
    if dialogue.state is CLOSED:  # the delivery began although it was told to give up
        drop(sink)
        raise Refused(LOCAL_ERROR, "the client is gone")
    limits, now = dialogue.submission.limits, dialogue.submission.clock.seconds()
    headerLimit = limits.headerSize if dialogue.pipeline.message else 0
    incoming = IncomingMessage(
        sink,
        limits.messageSize,
        headerLimit,
        now,
        _review(dialogue, envelope),
        limits.headerSize,
        dialogue.rules.limited,
    )
    try:
        field = _traceField(dialogue, envelope)
    except Exception:
        incoming.abort()
        raise
    envelope.message = incoming
    dialogue.incoming = incoming
    return dialogue.after(incoming.trace(field), then, dialogue, incoming)


def _review(dialogue: Dialogue, envelope: Envelope) -> Review | None:
    stage = dialogue.pipeline.header
    if not stage:
        return None
    return functools.partial(stage.run, dialogue.session, envelope)


def _traceField(dialogue: Dialogue, envelope: Envelope) -> bytes:
    session, delivery, submission = dialogue.session, dialogue.delivery, dialogue.submission
    if ITraceField.providedBy(delivery):
        field = delivery.receivedField(session, envelope)
        if field is not None:
            return field
    return receivedField(session, envelope, submission.hostname, submission.timeOfDay())


def endOfMessage(dialogue: Dialogue) -> Outcome:
    """The true end of the data has been read: let the policies look, commit, and answer once."""
    envelope = _transaction(dialogue)
    if not dialogue.submission.lmtp:
        return _finish(dialogue, envelope)
    return dialogue.forEach(len(envelope.known), _finish, dialogue, envelope)


def _finish(dialogue: Dialogue, envelope: Envelope) -> Outcome:
    incoming = dialogue.incoming
    assert incoming is not None
    lookForBroken(dialogue, incoming)
    return dialogue.after(incoming.finish(), _received, dialogue, envelope, incoming)


def _received(dialogue: Dialogue, envelope: Envelope, incoming: IncomingMessage) -> Outcome:
    if incoming.problem is not None:
        incoming.problem.raiseException()
    waiting = dialogue.pipeline.message.run(dialogue.session, envelope, incoming)
    return dialogue.after(waiting, _commit, dialogue, envelope, incoming)


def lookForBroken(dialogue: Dialogue, incoming: IncomingMessage) -> None:
    """Rule 3: a bare CR or LF is what smuggles a second message past somebody's end of data."""
    decoder = dialogue.decoder
    if decoder.bareLineEnding:
        incoming.fail(Failure(Refused(BARE_LINE_ENDING)))
    elif decoder.nul:
        incoming.fail(Failure(Refused(NUL_IN_MESSAGE)))


def _commit(dialogue: Dialogue, envelope: Envelope, incoming: IncomingMessage) -> Outcome:
    if envelope.hold is not None and not incoming.discarded and not _holds(dialogue):
        raise Refused(LOCAL_ERROR, f"to be held, and the delivery cannot: {envelope.hold}")
    if envelope.blind and not IBlindCopyDelivery.providedBy(dialogue.delivery):
        raise Refused(LOCAL_ERROR, "to be copied to others, and the delivery cannot")
    outcome = incoming.commit()
    # Of what is no Deferred, isinstance asks its abstract class, at length.
    if outcome is not None and isinstance(outcome, Deferred):
        return dialogue.rules.limited(outcome).addCallback(_committed, dialogue, envelope, incoming)
    return _committed(outcome, dialogue, envelope, incoming)


def _holds(dialogue: Dialogue) -> bool:
    holds: bool = IHoldingDelivery.providedBy(dialogue.delivery)
    return holds


def _committed(
    outcome: Any, dialogue: Dialogue, envelope: Envelope, incoming: IncomingMessage
) -> Answer:
    if outcome is None or isinstance(outcome, str):
        queueId = outcome or envelope.id
        replies = [Reply(250, "2.0.0", f"Ok: queued as {queueId}")]
    else:
        queueId = envelope.id
        replies = _repliesIn(outcome, len(envelope.recipients))
    _logAccepted(dialogue, envelope, incoming, queueId, replies)
    if envelope.asked is not None:  # whoever was added or left out, these are to be answered
        replies = _repliesTo(envelope.asked, envelope.recipients, replies)
        envelope.recipients = envelope.asked
    answer = _answer(dialogue, envelope, replies)
    dialogue.reset()
    return answer


def _repliesIn(outcome: Any, count: int) -> list[Reply]:
    if isinstance(outcome, Reply):
        return [outcome] * count
    replies = list(outcome) if isinstance(outcome, Iterable) else []
    if len(replies) != count or not all(isinstance(each, Reply) for each in replies):
        raise TypeError(
            f"eomReceived gave {type(outcome).__name__},"
            f" neither a queue id (str) nor a Reply nor a list of {count}, one for each recipient"
        )
    return replies


def _repliesTo(
    known: list[Recipient], recipients: list[Recipient], replies: list[Reply]
) -> list[Reply]:
    """The replies to the recipients that the client knows, or one for all of them.

    An alias fails with the first whom it stands for.  One who fails and is nobody's, as a filter
    may have added, fails for all: the client would not hear of it otherwise.
    """
    failed = {
        sameAddress(each.mailbox): reply
        for each, reply in zip(recipients, replies, strict=False)
        if not reply.isPositive
    }
    if not failed:
        return replies[:1]
    found = [[each for each in _everybody(one) if each in failed] for one in known]
    if not failed.keys() <= {each for some in found for each in some}:
        return [next(iter(failed.values()))]
    others = next((reply for reply in replies if reply.isPositive), replies[0])
    return [failed[some[0]] if some else others for some in found]


def _everybody(recipient: Recipient) -> Iterator[tuple[str, str]]:
    """A recipient and all that have been put beside it, as they are compared."""
    yield sameAddress(recipient.mailbox)
    for each in recipient.others:
        yield from _everybody(each)


def _answer(dialogue: Dialogue, envelope: Envelope, replies: list[Reply]) -> Answer:
    if dialogue.submission.lmtp:  # RFC 2033 4.2: one reply for each accepted recipient
        count = len(envelope.recipients)
        every = replies if len(replies) == count else replies * count
        pairs = zip(every, envelope.recipients, strict=True)
        return Replies(tuple(_outcome(dialogue, *pair) for pair in pairs))
    if len(replies) == 1 and replies[0].isPositive:
        return replies[0]
    # SMTP has one reply.  Saying 250 although one recipient failed would lose that one silently.
    at = next((at for at, reply in enumerate(replies) if not reply.isPositive), 0)
    return _outcome(dialogue, replies[at], envelope.recipients[at])


def _outcome(dialogue: Dialogue, reply: Reply, recipient: Recipient) -> Reply:
    if reply.isPositive:
        return reply
    return dialogue.told(Refused(reply, f"the delivery, for {recipient.mailbox}"), reply)


def _logAccepted(
    dialogue: Dialogue,
    envelope: Envelope,
    incoming: IncomingMessage,
    queueId: str,
    replies: list[Reply],
) -> None:
    if not replies[0].isPositive and not any(reply.isPositive for reply in replies):
        return
    session = dialogue.session
    if incoming.discarded:
        _logDiscarded(dialogue, envelope, incoming)
        return
    events.emit(
        events.MESSAGE_ACCEPTED,
        session=session.id,
        id=queueId,
        peer=session.remoteAddress,
        user=session.user.avatarId if session.user is not None else None,
        sender=str(envelope.reversePath),
        recipients=len(envelope.recipients),
        size=incoming.byteLength,
        protocol=session.transmissionType,
    )
    if envelope.extensions:
        _logTimed(dialogue, envelope, queueId)


def _logTimed(dialogue: Dialogue, envelope: Envelope, queueId: str) -> None:
    given = envelope.parameters
    asked = " ".join(f"{key}={given[key]}" for key in _WHEN if key in given)
    if asked:
        events.emit(events.MESSAGE_TIMED, session=dialogue.session.id, id=queueId, asked=asked)


def _logDiscarded(dialogue: Dialogue, envelope: Envelope, incoming: IncomingMessage) -> None:
    session = dialogue.session
    events.emit(
        events.MESSAGE_DISCARDED,
        session=session.id,
        id=envelope.id,
        peer=session.remoteAddress,
        user=session.user.avatarId if session.user is not None else None,
        sender=str(envelope.reversePath),
        recipients=len(envelope.recipients),
        size=incoming.byteLength,
        reason=incoming.discarded,
    )


def rset(dialogue: Dialogue, argument: bytes) -> Outcome:
    """RSET (RFC 5321 4.1.1.5): forget the mail transaction."""
    dialogue.reset()
    return RESET


def noop(dialogue: Dialogue, argument: bytes) -> Outcome:
    """NOOP (RFC 5321 4.1.1.9)."""
    return OK


def vrfy(dialogue: Dialogue, argument: bytes) -> Outcome:
    """VRFY (RFC 5321 3.5.3): 252, since a true answer would be a list of users for everybody."""
    return CANNOT_VERIFY


def help(dialogue: Dialogue, argument: bytes) -> Outcome:
    """HELP (RFC 5321 4.1.1.8): the verbs, or the syntax of one, from the table."""
    rules = dialogue.rules
    offered = {
        name: row
        for name, (row, _) in rules.verbs.items()
        if name not in rules.disabled and not row.forProxies and _isThere(dialogue, name)
    }
    if argument:
        row = offered.get(argument.upper())
        if row is None:
            raise Refused(Reply(504, "5.5.4", "HELP is not available for that"))
        return Reply(214, "2.0.0", row.syntax)
    names = b" ".join(offered).decode("ascii")
    return Reply(214, "2.0.0", ["Commands:", names, "HELP <verb> tells the syntax of one"])


def _isThere(dialogue: Dialogue, verb: bytes) -> bool:
    """Whether a verb could do anything on this listener; what it needs first may still come."""
    if verb == b"STARTTLS":
        return dialogue.submission.startTLS
    return verb != b"AUTH" or bool(dialogue.rules.mechanisms)


def quit(dialogue: Dialogue, argument: bytes) -> Outcome:
    """QUIT (RFC 5321 4.1.1.10)."""
    dialogue.reset()
    dialogue.state = CLOSED
    return CLOSING


def _transaction(dialogue: Dialogue) -> Envelope:
    """The mail transaction; the table of states has made sure that there is one."""
    envelope = dialogue.session.envelope
    assert envelope is not None
    return envelope


_FUNCTIONS: dict[bytes, Command] = {
    b"EHLO": ehlo,
    b"HELO": helo,
    b"LHLO": lhlo,
    b"MAIL": mail,
    b"RCPT": rcpt,
    b"DATA": data,
    b"RSET": rset,
    b"NOOP": noop,
    b"VRFY": vrfy,
    b"HELP": help,
    b"QUIT": quit,
}

TABLE: dict[bytes, tuple[Verb, Command]] = {row.name: (row, _FUNCTIONS[row.name]) for row in VERBS}
