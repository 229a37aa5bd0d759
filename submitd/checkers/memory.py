"""A short memory of what was verified, for back ends that take long or ask others.

Kept is a keyed digest of what was asked (the key lives as long as the process), never that itself,
and only where the answer was yes: guessing stays as slow as it was.  An entry lasts for a time from
the moment when it was verified, and the oldest go when there are too many.  Who asks the same at
the same time shares one question.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

Answer = TypeVar("Answer")


@attrs.frozen
class _Known(Generic[Answer]):
    """A good answer, and until when it counts, in the clock's seconds."""

    answer: Answer
    until: float


@attrs.define(eq=False)
class _Question(Generic[Answer]):
    """A question that was asked, and who waits for its answer."""

    waiting: list[Deferred[Answer]] = attrs.field(factory=list)
    asked: Deferred[Any] | None = None

    def leave(self, answer: Deferred[Answer]) -> None:
        """One does not wait any more; a question for nobody would be joined by all who come."""
        self.waiting.remove(answer)
        if not self.waiting and self.asked is not None:
            self.asked.cancel()


class Memory(Generic[Answer]):
    """Answers to questions that were asked a short time ago.

    :param clock: what tells the time.
    :param size: how many are remembered at most.
    """

    def __init__(self, clock: IReactorTime, size: int) -> None:
        self._clock = clock
        self._size = size
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, _Known[Answer]] = OrderedDict()
        self._questions: dict[bytes, _Question[Answer]] = {}

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._known)

    def forget(self) -> None:
        """Remember nothing of what was asked until now.

        Those already waiting get their answer, but nobody joins them.
        """
        self._known.clear()
        self._questions = {}

    def answer(
        self,
        words: tuple[bytes, ...],
        ask: Callable[[], Any],
        lasts: Callable[[Answer], float],
    ) -> Deferred[Answer]:
        """What is remembered, or else what the question comes to.

        :param words: what is asked about.
        :param ask: asks, and gives the answer or a Deferred of it.
        :param lasts: for how many seconds an answer is remembered.
        """
        digest = self._digestOf(words)
        known = self._known.get(digest)
        if known is not None and self._clock.seconds() < known.until:
            self._known.move_to_end(digest)
            return succeed(known.answer)
        questions = self._questions
        question = questions.setdefault(digest, _Question())
        answer: Deferred[Answer] = Deferred(question.leave)
        question.waiting.append(answer)
        if len(question.waiting) == 1:
            asked = maybeDeferred(ask)
            asked.addCallback(self._remember, digest, questions, lasts)
            asked.addBoth(self._tell, digest, questions)
            question.asked = asked
        return answer

    def _digestOf(self, words: tuple[bytes, ...]) -> bytes:
        # The lengths in front keep ("ab", "c") from being ("a", "bc").
        lengths = b"".join(len(word).to_bytes(8, "big") for word in words)
        return hashlib.blake2b(lengths + b"".join(words), key=self._key).digest()

    def _remember(
        self,
        answer: Answer,
        digest: bytes,
        questions: dict[bytes, _Question[Answer]],
        lasts: Callable[[Answer], float],
    ) -> Answer:
        seconds = lasts(answer)
        if seconds > 0 and questions is self._questions:  # nothing was forgotten meanwhile
            self._known[digest] = _Known(answer, self._clock.seconds() + seconds)
            self._known.move_to_end(digest)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return answer

    def _tell(
        self,
        result: Answer | Failure,
        digest: bytes,
        questions: dict[bytes, _Question[Answer]],
    ) -> None:
        for answer in questions.pop(digest).waiting:
            answer.callback(result)
