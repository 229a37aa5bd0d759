"""How much in which time: the notation, and what storages are asked.

``"100/hour, 1000/day"`` is two windows (the notation of the package ``limits``): no more than 100
in any hour, and no more than 1000 in any day.  A window moves: what was counted leaves it when it
is old enough, one by one, so nobody gets twice the amount around a full hour.

Pure values; text that is none of this notation is a ``ValueError`` with a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import attrs
from limits import parse_many

# A storage keeps a time for each that it has counted.
MAX_AMOUNT = 1_000_000
# Anything longer is no limit but a memory for ever.
MAX_SECONDS = 366 * 86400


@attrs.frozen
class Window:
    """So much in so many seconds.

    :param amount: how much at most.
    :param seconds: in which time.
    :param text: as people read it, such as ``100 per hour``.
    """

    amount: int
    seconds: int
    text: str


def parseWindows(text: str) -> tuple[Window, ...]:
    """Read the notation.

    :param text: such as ``"100/hour, 1000 per 2 days"``; empty for no window.
    :return: the windows, the shortest first.
    :raise ValueError: for anything else; its text is the sentence that says so.
    """
    if not text.strip():
        return ()
    try:
        items = parse_many(text)
    except ValueError:
        raise ValueError(
            'must be rates such as "100/hour, 1000/day" (second, minute, hour, day, month, year),'
            f' not "{text[:60]}"'
        ) from None
    windows = [Window(item.amount, item.get_expiry(), _inWords(item)) for item in items]
    for window in windows:
        if not 0 < window.amount <= MAX_AMOUNT or window.seconds > MAX_SECONDS:
            raise ValueError(
                f'must be between 1 and {MAX_AMOUNT} in a year at most, not "{text[:60]}"'
            )
    return tuple(sorted(windows, key=lambda window: window.seconds))


def _inWords(item: object) -> str:
    amount, multiples = getattr(item, "amount", 0), getattr(item, "multiples", 1)
    unit: str = getattr(item, "GRANULARITY").name  # noqa: B009
    return f"{amount} per {unit}" if multiples == 1 else f"{amount} per {multiples} {unit}s"


class Want(NamedTuple):
    """Something to be counted in one window.

    :param key: whose window.
    :param window: how much it may be.
    :param cost: how much is to be counted.
    :param mark: tell when the count reaches this; 0 for never.
    """

    key: str
    window: Window
    cost: int = 1
    mark: int = 0


class Taken(NamedTuple):
    """What came of counting.

    :param shortage: which of the wants found no room, as an index, or ``None``.  Where all were to
        be counted or none, none was then.
    :param until: when there will be room for that one, in the time of ``now``.
    :param marked: those that have reached their mark with this.
    """

    shortage: int | None = None
    until: float = 0.0
    marked: tuple[int, ...] = ()


class Room(NamedTuple):
    """How much room a window has.

    :param left: how much more may be counted now.
    :param used: how much is in it.
    :param until: when there will be more room, in the time of ``now``; ``now`` when it is empty.
    """

    left: int
    used: int
    until: float


class Storage(Protocol):
    """What keeps counts.  A storage may be slow and may raise anything."""

    def take(self, wants: Sequence[Want], now: float, together: bool) -> Taken:
        """Count.

        :param now: seconds, by a clock that all who count there have in common; where the storage
            has one of its own, by any.
        :param together: all or none; otherwise each where it has room.
        """

    def rooms(self, wants: Sequence[Want], now: float) -> list[Room]:
        """How much room there is, without counting anything."""
