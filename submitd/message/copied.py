"""A message that several deliveries take.

The service's own delivery comes last: when its commit begins, all copies have committed theirs, so
a 250 means that there is a copy of the message.  A copy that cannot be made refuses the message
(451; 452 where the disk is full), or where it is not required, an event says so and the others go
on without it.  When the service's own delivery fails behind a copy, that copy stays: the client is
told to come again, and a second copy is better than none.

Each delivery is given the same chunks, one at a time; the client waits for the slowest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events
from submitd.envelope import Envelope
from submitd.interfaces import IDelivery, IMessage
from submitd.message.incoming import drop, prepend
from submitd.session import Session
from submitd.waiting import allOf, asDeferred, promised
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, Reply


@attrs.frozen(eq=False)
class Copy:
    """A delivery that takes a message as well.

    :param delivery: where it goes.
    :param required: whether the message is refused when this fails.
    :param name: what it is called in the log.
    """

    delivery: IDelivery
    required: bool
    name: str


async def begin(session: Session, envelope: Envelope, delivery: IDelivery) -> IMessage:
    """Have the delivery and all ``envelope.copies`` begin.

    :raise Refused: when a copy that is required cannot begin.
    """
    tracks: list[_Track] = []
    try:
        for copy in envelope.copies:
            track = _Track(session, envelope, copy)
            try:
                track.sink = await _begun(copy.delivery, session, envelope)
            except Exception:
                track.fail(Failure())
            else:
                tracks.append(track)
        return CopiedMessage(await _begun(delivery, session, envelope), tracks)
    except BaseException:
        for track in tracks:
            track.abort()
        raise


async def _begun(delivery: IDelivery, session: Session, envelope: Envelope) -> IMessage:
    begun: Any = delivery.begin(session, envelope)
    sink: IMessage = begun if IMessage.providedBy(begun) else await beginningOf(begun)
    return sink


def beginningOf(begun: Any) -> Deferred[Any]:
    """A Deferred for what a delivery gave that is no message yet.

    :raise TypeError: where nothing comes of it.
    """
    begun = promised(begun)
    if not isinstance(begun, Deferred):
        raise TypeError(
            f"begin gave {type(begun).__name__}, which provides no IMessage;"
            " name the interface to @implementer of its class"
        )
    return begun


class _Track:
    """One copy on its way.

    :ivar sink: what takes its octets.
    """

    def __init__(self, session: Session, envelope: Envelope, copy: Copy) -> None:
        self.sink: Any = None
        self._session = session.id
        self._id = envelope.id
        self._copy = copy
        self._over = False

    def dataReceived(self, chunk: bytes) -> Deferred[Any] | None:
        """Take octets, unless it has failed."""
        if self._over:
            return None
        try:
            answered = self.sink.dataReceived(chunk)
            waiting = None if answered is None else asDeferred(answered)
        except Exception:
            self.fail(Failure())
            return None
        return None if waiting is None else waiting.addErrback(self.fail)

    def prepend(self, fields: bytes) -> None:
        """Put header fields in front."""
        if not self._over:
            try:
                prepend(self.sink, fields)
            except Exception:
                self.fail(Failure())

    async def commit(self) -> None:
        """Make it safe.

        :raise Refused: when that fails and it is required.
        """
        if self._over:
            return
        try:
            outcome: Any = promised(self.sink.eomReceived())
            if isinstance(outcome, Deferred):
                outcome = await outcome
            _raiseRefusal(outcome)
        except Exception:
            # A delivery that refuses at the end has left nothing behind.
            self._over = True
            self.fail(Failure())
        self._over = True

    def fail(self, failure: Failure) -> None:
        """It cannot be made.

        :raise Refused: when it is required.
        """
        self.abort()
        error: Any = failure.value
        cause = f"{self._copy.name}: {getattr(error, 'cause', None) or error!r}"
        if self._copy.required:
            transient = isinstance(error, Refused) and error.reply.isTransient
            raise Refused(error.reply if transient else LOCAL_ERROR, cause) from error
        events.emit(
            events.COPY_FAILED,
            session=self._session,
            id=self._id,
            copy=self._copy.name,
            cause=cause,
        )

    def abort(self) -> None:
        """Drop it, unless it is safe."""
        if not self._over:
            self._over = True
            if self.sink is not None:  # it may never have begun
                drop(self.sink)


def _raiseRefusal(outcome: Any) -> None:
    if isinstance(outcome, Reply):
        outcome = (outcome,)
    replies = () if outcome is None or isinstance(outcome, str) else outcome
    refusal: Reply | None = next((each for each in replies if not each.isPositive), None)
    if refusal is not None:
        raise Refused(refusal)


@implementer(IMessage)
class CopiedMessage:
    """A message on its way into several deliveries.

    :param own: the service's own.
    :param tracks: the copies.
    """

    def __init__(self, own: IMessage, tracks: list[_Track]) -> None:
        self._own = own
        self._tracks = tracks
        self._committing = False

    def dataReceived(self, chunk: bytes) -> Deferred[None] | None:
        """See :meth:`submitd.interfaces.IMessage.dataReceived`."""
        waiting = [
            each
            for each in (
                self._own.dataReceived(chunk),
                *(track.dataReceived(chunk) for track in self._tracks),
            )
            if each is not None
        ]
        if not waiting:
            return None
        # Every one of them counts, or there would be a hole.
        return allOf(map(asDeferred, waiting))

    def prepend(self, fields: bytes) -> None:
        """See :meth:`submitd.interfaces.IMessage.prepend`."""
        prepend(self._own, fields)
        self._each(lambda track: track.prepend(fields))

    def eomReceived(self) -> Deferred[Any]:
        """See :meth:`submitd.interfaces.IMessage.eomReceived`."""
        return Deferred.fromCoroutine(self._commit())

    async def _commit(self) -> Any:
        try:
            for track in self._tracks:
                await track.commit()
        except BaseException:
            self.connectionLost()
            raise
        self._committing = True
        outcome: Any = promised(self._own.eomReceived())
        return await outcome if isinstance(outcome, Deferred) else outcome

    def connectionLost(self) -> None:
        """See :meth:`submitd.interfaces.IMessage.connectionLost`."""
        self._each(lambda track: track.abort())
        if not self._committing:
            self._committing = True
            drop(self._own)

    def _each(self, call: Callable[[_Track], None]) -> None:
        for track in self._tracks:
            call(track)
