"""Lines: what has been taken from the spool and waits for its next hop, and how much may be taken.

More is taken than can be on its way, so that a next hop that is slow, or is full, keeps nobody else
waiting.  A line may be half as long as there is room left: the first one gets a third of all, and
there is some for the next one.  With a line that is as long, the rest of the spool waits for a
moment.  When it moves, it is filled up again.  When it does not, its next hop is slow, and what
else is found for it goes back to the spool for a while, so that what is behind it is found.  That
comes again at a bounded pace: a long queue for a slow next hop is not looked through all the time.

A place to deliver that is free goes to the line that has the fewest, and of those to the one whose
deliveries took the least time until now: many that are slow leave one that is quick its share.

The spool gives all recipients of a message at once, which may be more than there is room for; one
message that begins with room stays, as long as its next hop is not slow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable

import attrs

PATIENCE = 5.0
"""Seconds for which a line may stand still, and for which what has no room goes back."""

LOOK = 10
"""How many are taken at once where there is no more room: those whose next hop has none go back."""


@attrs.define(eq=False)
class Line:
    """What has been taken for one next hop.

    :ivar waiting: what has not begun, and since when it waits.
    :ivar begun: the others, and since when they have a place.
    :ivar used: the seconds for which places were had, in all; at first the most that any had.
    :ivar message: the last one that began to come in while there was room.
    :ivar look: when what goes back now is looked at again, counted in ``PATIENCE``.
    :ivar looked: how many come again then.
    """

    waiting: dict[Hashable, float] = attrs.field(factory=dict)
    begun: dict[Hashable, float] = attrs.field(factory=dict)
    used: float = 0.0
    message: Hashable = None
    look: int = 0
    looked: int = 0

    def __len__(self) -> int:
        return len(self.begun) + len(self.waiting)

    def isSlow(self, now: float) -> bool:
        """Whether some wait, and the first one of them has done so for long.

        :param now: by the clock that tells since when.
        """
        return bool(self.waiting) and now - next(iter(self.waiting.values())) >= PATIENCE

    def isMoving(self, now: float) -> bool:
        """Whether some wait, and none of them has done so for long."""
        return bool(self.waiting) and not self.isSlow(now)


_EMPTY = Line()


class Lines:
    """All lines.

    :param places: how many may be on their way; there is room for three times as many.
    :param seconds: a clock that nobody sets.
    """

    def __init__(self, places: int, seconds: Callable[[], float]) -> None:
        self._places = places
        self._seconds = seconds
        self._taken = self._begun = 0
        # Of all lines that there are and were.  Did new ones begin with less, as many of them as
        # there are would be in front of an old one, for ever.
        self._mostUsed = 0.0
        self._lines: dict[Hashable, Line] = {}
        self._lengths: Counter[int] = Counter()  # how many lines are so long

    def join(self, key: Hashable, one: Hashable, message: Hashable) -> None:
        """One has been taken.

        :param key: of its next hop.
        :param message: which it is a part of.
        """
        self._taken += 1
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(used=self._mostUsed)
        line.waiting[one] = self._seconds()
        self._changed(len(line) - 1, len(line))
        if self._left >= 0:
            line.message = message

    def begin(self, key: Hashable, one: Hashable) -> None:
        """Its turn has come."""
        line = self._lines[key]
        del line.waiting[one]
        line.begun[one] = self._seconds()
        self._begun += 1

    def leave(self, key: Hashable, one: Hashable) -> None:
        """It is over, if it was not sent back."""
        line = self._lines.get(key, Line())
        if one in line.begun:
            line.used += self._seconds() - line.begun.pop(one)
            self._mostUsed = max(self._mostUsed, line.used)
            self._begun -= 1
        elif line.waiting.pop(one, None) is None:
            return
        self._taken -= 1
        self._changed(len(line) + 1, len(line))
        if not line:
            del self._lines[key]

    def rank(self, waiting: tuple[int, Hashable]) -> tuple[int, int, float]:
        """Who has the next place: the highest priority, then the line with the fewest, the least.

        :param waiting: the priority, and the key of the next hop.
        """
        priority, key = waiting
        line = self._lines.get(key, _EMPTY)
        return priority, -len(line.begun), -line.used

    def _changed(self, before: int, now: int) -> None:
        for length, count in ((before, -1), (now, 1)):
            self._lengths[length] += count
            if not (length and self._lengths[length]):
                del self._lengths[length]

    @property
    def room(self) -> int:
        """How many may be taken; all of them may be for the next hop with the longest line."""
        left = self._left
        if left <= 0:
            # There may be something for a next hop that has no line.
            return min(LOOK, self._places - self._begun)
        now = self._seconds()
        moving = (len(line) for line in self._lines.values() if line.isMoving(now))
        # Each of them makes a line longer, and what is left shorter.
        return math.ceil((left - 2 * max(moving, default=0)) / 3)

    def hasRoom(self, count: int) -> bool:
        """Whether so many may be taken.  This is asked often, and looks at no line in vain."""
        left, least = self._left, 3 * (count - 1)
        if 0 < left <= least:
            return False
        # All lines, slow ones among them, leave no more than those that move.
        return left - 2 * max(self._lengths, default=0) > least or self.room >= count

    def isCrowded(self, key: Hashable, message: Hashable) -> bool:
        """Whether one that has joined is to go back."""
        line = self._lines[key]
        if self._left < 0 and line.message != message:
            return len(line.waiting) > 1
        return 2 * len(line) > self._left and line.isSlow(self._seconds())

    @property
    def _left(self) -> int:
        return 3 * self._places - self._taken

    def sendBack(self, key: Hashable, one: Hashable, now: float) -> float:
        """One has no room, and leaves.

        :param now: the time of day.
        :return: the time of day at which it comes again.  It is the same for as many as there are
            places, then for twice as many, and so on: so a long queue is not looked through all
            the time, and yet is soon back for a next hop that has stood still for a moment.
        """
        line, seconds = self._lines[key], self._seconds()
        self.leave(key, one)
        soonest = math.floor(seconds / PATIENCE) + 1
        if line.look < soonest:
            line.look, line.looked = soonest, 0
        elif line.looked >= self._places * (line.look - soonest + 1):
            line.look, line.looked = line.look + 1, 0
        line.looked += 1
        due = now + line.look * PATIENCE - seconds
        return math.ceil(due / PATIENCE) * PATIENCE
