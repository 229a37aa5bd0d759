"""CHUNKING (RFC 3030 2): BDAT carries a message in chunks of counted octets.

The octets of a chunk follow its line at once and are always read before anything is said, whatever
was refused: the state, the login, a policy, the size of the message.  So they are never taken for
commands.  A refused chunk ends the mail transaction; chunks of that message that were on their way
already are read and answered with the same refusal, up to the LAST one or the next command that
ends a transaction.

A line that does not say how many octets follow is answered 501 and the connection is closed with
421: there is no way to find the next command, and reading on would let a message give commands.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NoReturn

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from submitd.commands import endOfMessage, lookForBroken, openMessage
from submitd.extensions.extension import Extension
from submitd.message.incoming import IncomingMessage
from submitd.states import State, Verb
from submitd.wire.command import parseBdat
from submitd.wire.data import ChunkDecoder, ChunkedDecoder
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue, Outcome

_SYNTAX = Reply(501, "5.5.4", "Syntax: BDAT <size> [LAST]")
_SIZE = re.compile(rb"([0-9]{1,20})(?=[ \t]|$)")

BDAT = Verb(
    b"BDAT",
    frozenset({State.RCPT, State.CHUNKED}),
    "BDAT <size> [LAST]",
    beforeTLS=False,
    beforeLogin=False,
    argument=True,
    octets=True,
)


@attrs.frozen
class Chunk:
    """What one BDAT announces.

    :param size: the octets behind its line.
    :param last: whether the message ends with them.
    """

    size: int
    last: bool = False


def bdat(dialogue: Dialogue, argument: bytes) -> Outcome:
    """BDAT: so many octets of the message follow (RFC 3030 2)."""
    chunk, malformed = _announced(argument)
    if chunk is None:
        return dialogue.outOfStep(Refused(_SYNTAX, "BDAT without a size"))
    try:
        _checkRefused(dialogue)
        dialogue.admit(BDAT, argument)
        if malformed:
            raise Refused(_SYNTAX, "something behind the size")
        if dialogue.state is State.CHUNKED:
            return _expect(dialogue, chunk)
        begin = functools.partial(_begun, chunk)
        outcome = openMessage(dialogue, begin)
    except Exception:
        return _discard(dialogue, chunk, dialogue.asRefused(Failure()))
    if isinstance(outcome, Deferred):
        outcome.addErrback(_failed, dialogue, chunk)
    return outcome


def _announced(argument: bytes) -> tuple[Chunk | None, bool]:
    """The chunk, ``None`` where its size cannot be told; whether anything is wrong."""
    try:
        return Chunk(*parseBdat(argument)), False
    except Refused:
        size = _SIZE.match(argument)
        return (Chunk(int(size[1])) if size else None), True


def _checkRefused(dialogue: Dialogue) -> None:
    if dialogue.refusedChunks is not None and dialogue.session.envelope is None:
        refused, _ = dialogue.refusedChunks
        raise Refused(refused.reply, "a further chunk of a refused message")


def _begun(chunk: Chunk, dialogue: Dialogue, incoming: IncomingMessage) -> Outcome:
    envelope = dialogue.session.envelope
    assert envelope is not None
    dialogue.incoming = incoming
    dialogue.decoder = ChunkedDecoder(binary=envelope.bodyType == "BINARYMIME")
    return _expect(dialogue, chunk)


def _expect(dialogue: Dialogue, chunk: Chunk) -> Outcome:
    decoder = dialogue.decoder
    decoder.expect(chunk.size)
    return dialogue.beginChunk(decoder, chunk.size, functools.partial(_chunkReceived, chunk))


def _chunkReceived(chunk: Chunk, dialogue: Dialogue) -> Outcome:
    if chunk.last:
        dialogue.decoder.finish()
        return endOfMessage(dialogue)
    incoming = dialogue.incoming
    assert incoming is not None
    lookForBroken(dialogue, incoming)
    if incoming.problem is not None:
        return _discard(dialogue, Chunk(0), dialogue.asRefused(incoming.problem))
    dialogue.state = State.CHUNKED
    return Reply(250, "2.0.0", f"{chunk.size} octets received")


# What is refused.


def _failed(failure: Failure, dialogue: Dialogue, chunk: Chunk) -> Outcome | Failure:
    if dialogue.state is State.CLOSED:
        return failure
    return _discard(dialogue, chunk, dialogue.asRefused(failure))


def _discard(dialogue: Dialogue, chunk: Chunk, refused: Refused) -> Outcome:
    """End the transaction (RFC 3030 2), have the octets read, and then refuse."""
    if refused.reply.code == 421:
        raise refused  # it closes, so nothing is read any more
    before, recipients = dialogue.state, _recipients(dialogue)
    told = Refused(refused.reply, refused.cause)  # a policy may raise one object for many
    told.origin, told.transaction = refused.origin, dialogue.transaction()
    dialogue.reset()
    state = State.GREETED if before is State.GREETED else State.READY
    remembered = (told, recipients) if recipients and not chunk.last else None
    count = recipients if chunk.last and dialogue.submission.lmtp else 1
    end = functools.partial(_discarded, told, state, remembered, count)
    return dialogue.beginChunk(ChunkDecoder(chunk.size), chunk.size, end)


def _recipients(dialogue: Dialogue) -> int:
    """The recipients of the message that a chunk belongs to; 0 where there is no such message."""
    envelope = dialogue.session.envelope
    if envelope is not None:
        return len(envelope.known)
    return dialogue.refusedChunks[1] if dialogue.refusedChunks is not None else 0


def _discarded(
    refused: Refused,
    state: State,
    remembered: tuple[Refused, int] | None,
    count: int,
    dialogue: Dialogue,
) -> Outcome:
    dialogue.state = state
    dialogue.refusedChunks = remembered
    return dialogue.forEach(count, _raise, refused)


def _raise(refused: Refused) -> NoReturn:
    raise refused


class Chunking(Extension):
    """Messages may come in chunks."""

    keyword = "CHUNKING"
    verbs = ((BDAT, bdat),)
