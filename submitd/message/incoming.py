"""A message on its way from the dialogue into a delivery.

It counts octets, keeps the header section (bounded) for the message policies, and remembers the
first thing that went wrong: from then on the delivery is told to abort, and what still comes is
read and dropped, so that there is one reply after the true end of the data (rule 3).

Where policies take part in the stage *header*, the header section is held back until it is whole,
shown to them, and goes to the delivery as they left it, with the body behind it, past those that
asked to see or to hold it (:mod:`submitd.message.body`).  One that is
longer than its limit, or has more than :data:`submitd.message.header.MAX_LINES` lines, is refused
with 552 5.3.4 then, for nobody has seen all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events
from submitd.interfaces import IHeldMessage, IMessage, IReceivedMessage
from submitd.message.body import BodyPath, Observe
from submitd.message.header import MAX_LINES, Header
from submitd.waiting import asDeferred, promised
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, MESSAGE_TOO_LARGE, Reply

HEADER_TOO_LARGE = Reply(552, "5.3.4", "Header section exceeds the fixed limit")

Review = Callable[[Header], "Deferred[None] | None"]

Limited = Callable[[Deferred[Any]], Deferred[Any]]

_HEADER_END = b"\r\n\r\n"


def drop(sink: IMessage) -> None:
    """Have a delivery drop a message.

    Nobody waits for one that takes its time, but it is run to its end, and what fails is logged.
    """
    maybeDeferred(sink.connectionLost).addErrback(
        lambda failure: events.emit(
            events.POLICY_FAILED, origin="delivery, to abort", failure=failure
        )
    )


def prepend(sink: Any, fields: bytes) -> None:
    """Have a delivery put header fields in front of a message.

    :raise TypeError: where ``prepend`` is a coroutine, which nobody would run: the message would be
        kept without the fields.
    """
    answer = sink.prepend(fields)
    if iscoroutine(answer):
        answer.close()
        raise TypeError(f"{type(sink).__name__}.prepend must not be a coroutine")


def _unlimited(waiting: Deferred[Any]) -> Deferred[Any]:
    return waiting


@implementer(IReceivedMessage)
class IncomingMessage:
    """One message, from 354 to its end.

    :param sink: what the delivery gave for this message.
    :param sizeLimit: largest message in octets, 0 for no limit.
    :param headerLimit: how much of the header section to keep, in octets; 0 keeps none.
    :param began: when, in the clock's seconds.
    :param review: has the policies look at the header section before it goes on; ``None`` where
        there are none, and nothing is held back.
    :param reviewLimit: the largest header section that they are shown, in octets; 0 for no limit.
    :param limited: has a Deferred of the delivery, or of those that look at the body, fail when it
        takes too long.
    :ivar problem: why the message cannot be kept: a ``Refused`` or any other exception, or
        ``None`` while all is well.
    :ivar committing: whether the delivery was told to commit; then nothing is aborted any more.
    :ivar discarded: why it is to be dropped in place of the commit; empty where it is not.
    """

    def __init__(
        self,
        sink: IMessage,
        sizeLimit: int,
        headerLimit: int,
        began: float = 0.0,
        review: Review | None = None,
        reviewLimit: int = 0,
        limited: Limited = _unlimited,
    ) -> None:
        self.began = began
        self.byteLength = 0
        self.problem: Failure | None = None
        self.sizeExceeded = False
        self.prepended: list[bytes] = []
        self._sink = sink
        self._sizeLimit = sizeLimit
        self._headerLimit = headerLimit
        self._head = b""
        self._headOpen = headerLimit > 0
        self._review = review
        self._reviewLimit = reviewLimit
        self._limited = limited
        self._held = bytearray()
        self._body: BodyPath | None = None
        self.committing = False
        self.discarded = ""
        self._aborted = False

    @property
    def header(self) -> bytes:
        """The header section with the empty line's CRLF left out, as far as it was kept."""
        if self._body is not None and self._body.header is not None:
            return self._body.header.octets[: self._headerLimit]
        if self._head.startswith(b"\r\n"):
            return b""
        end = self._head.find(_HEADER_END)
        return self._head if end < 0 else self._head[: end + 2]

    def prepend(self, field: bytes) -> None:
        """See :meth:`submitd.interfaces.IReceivedMessage.prepend`."""
        bare = field.replace(b"\r\n", b"")
        if not field.endswith(b"\r\n") or b"\r" in bare or b"\n" in bare:
            raise ValueError("a header field is made of whole lines, each ended with CRLF")
        self.prepended.append(field)

    def observeBody(self, observe: Observe) -> None:
        """See :meth:`submitd.interfaces.IReceivedMessage.observeBody`."""
        self._bodyPath().observe(observe)

    def holdBody(self, observe: Observe) -> IHeldMessage:
        """See :meth:`submitd.interfaces.IReceivedMessage.holdBody`."""
        return self._bodyPath().hold(observe)

    def _bodyPath(self) -> BodyPath:
        if self._body is None:
            self._body = BodyPath(self._forwardOrRaise, self._sizeLimit)
        return self._body

    def discard(self, reason: str) -> None:
        """See :meth:`submitd.interfaces.IReceivedMessage.discard`."""
        self.discarded = self.discarded or reason

    def trace(self, field: bytes) -> Deferred[None] | None:
        """Give the delivery a trace field of our own, which counts for nobody's limit."""
        return self._pass(field)

    def dataReceived(self, chunk: bytes) -> Deferred[None] | None:
        """Take octets of the message; a Deferred asks for time before the next ones.

        :return: what it fires with means nothing, and it does not fail.
        """
        self.byteLength += len(chunk)
        if self.problem is not None:
            return None
        if self._sizeLimit and self.byteLength > self._sizeLimit:
            self.sizeExceeded = True
            self.fail(Failure(Refused(MESSAGE_TOO_LARGE, "more octets than message_size")))
            return None
        if self._review is not None:
            return self._hold(chunk)
        if self._body is not None:
            return self._along(self._body.write, chunk)
        return self._forward(chunk)

    def finish(self) -> Deferred[None] | None:
        """There are no more octets: a header section that still waits for its end has it now."""
        if self._review is None or self.problem is not None:
            return None
        return self._reviewed(bytes(self._held), b"")

    def _hold(self, chunk: bytes) -> Deferred[None] | None:
        held, before = self._held, len(self._held)
        if before:
            held += chunk
        octets = held if before else chunk  # most come in one piece, which need not be kept
        end = _endOfHeader(octets, before)
        if end >= 0:
            return self._reviewed(bytes(octets[:end]), bytes(octets[end:]))
        if not before:
            held += chunk
        # Two octets may belong to the end that has not come whole.
        if 0 < self._reviewLimit < len(held) - 2:
            self._tooLarge("a header section without end")
        return None

    def _reviewed(self, octets: bytes, rest: bytes) -> Deferred[None] | None:
        """Show the policies the header section, and let it go on with what is behind it."""
        review, self._review = self._review, None
        assert review is not None
        self._held.clear()
        # A line has two octets at least: most sections need not be counted through.
        hasMany = len(octets) > 2 * MAX_LINES and octets.count(b"\r\n") > MAX_LINES
        if 0 < self._reviewLimit < len(octets) or hasMany:
            self._tooLarge("too many octets or lines of header")
            return None
        header = Header(octets)
        try:
            waiting = review(header)
        except Exception:
            self.fail(Failure())
            return None
        if waiting is None:
            return self._goOn(header, rest)
        waiting.addCallback(lambda _: self._goOn(header, rest))
        return waiting.addErrback(self.fail)

    def _goOn(self, header: Header, rest: bytes) -> Deferred[None] | None:
        # While policies made up their minds the client may have gone.
        if self._aborted:
            return None
        if self._body is not None:
            return self._along(self._body.begin, header, rest)
        return self._forward(header.octets + rest)

    def _along(
        self, go: Callable[..., Deferred[None] | None], *arguments: Any
    ) -> Deferred[None] | None:
        """Send something past the policies that look at the body."""
        try:
            waiting = go(*arguments)
        except Exception:
            self.fail(Failure())
            return None
        return None if waiting is None else self._limited(waiting).addErrback(self.fail)

    def _forwardOrRaise(self, chunk: bytes) -> Deferred[None] | None:
        """For those who wait to know: what comes to nothing is an exception to them."""
        if self._aborted:
            self._raiseProblem(None)
            raise Refused(LOCAL_ERROR, "the client is gone")
        waiting = self._forward(chunk)
        if self.problem is not None:
            self.problem.raiseException()
        return None if waiting is None else waiting.addCallback(self._raiseProblem)

    def _raiseProblem(self, result: None) -> None:
        if self.problem is not None:
            self.problem.raiseException()

    def _tooLarge(self, cause: str) -> None:
        self._review = None
        self._held.clear()
        self.fail(Failure(Refused(HEADER_TOO_LARGE, cause)))

    def _forward(self, chunk: bytes) -> Deferred[None] | None:
        if self._headOpen:
            self._keepHead(chunk)
        return self._pass(chunk)

    def _keepHead(self, chunk: bytes) -> None:
        self._head += chunk[: self._headerLimit - len(self._head)]
        self._headOpen = len(self._head) < self._headerLimit and _HEADER_END not in self._head

    def _pass(self, chunk: bytes) -> Deferred[None] | None:
        try:
            answered = self._sink.dataReceived(chunk)
            waiting = None if answered is None else asDeferred(answered)
        except Exception:
            self.fail(Failure())
            return None
        return None if waiting is None else self._limited(waiting).addErrback(self.fail)

    def fail(self, problem: Failure) -> None:
        """Note why the message cannot be kept, and have the delivery drop it; the first wins."""
        if self.problem is None:
            self.problem = problem
            self.abort()

    def commit(self) -> Any:
        """Commit: the delivery's queue id or outcomes, or a Deferred of them."""
        if self.discarded:
            self.abort()
            return None
        if self._body is not None and self._body.isHeld:
            raise RuntimeError("a policy has not let the message go")
        if self.prepended:
            # The last policy's field stands on top, as a trace field does.
            prepend(self._sink, b"".join(reversed(self.prepended)))
        self.committing = True
        return promised(self._sink.eomReceived())

    def abort(self) -> None:
        """Have the delivery drop the message; nothing happens once it was told to commit."""
        if not self.committing and not self._aborted:
            self._aborted = True
            self._review = None
            self._held.clear()
            if self._body is not None:
                self._body.close()
            drop(self._sink)


def _endOfHeader(octets: bytes | bytearray, before: int) -> int:
    """Where the empty line behind a header section begins; -1 where it has not come.

    :param before: how many of the octets have been looked at without finding it.
    """
    if octets.startswith(b"\r\n"):
        return 0
    end = octets.find(_HEADER_END, max(0, before - len(_HEADER_END) + 1))
    return end if end < 0 else end + 2
