"""What the workers of one service count together: connections in the tally, all else in a file."""

from __future__ import annotations

import os
from collections.abc import Collection

from submitd.counters import shared
from submitd.errors import CannotStart
from submitd.tally import NOBODY, PAGES, Tally, makeFile
from submitd.workers.channel import Message


class Common:
    """The parent's hold of it.

    :ivar file: the tally's descriptor.
    :raise CannotStart: when it cannot be made.
    """

    def __init__(self) -> None:
        try:
            self.file = makeFile()
            self._counts = shared.Place()
        except OSError as error:
            said = "cannot count for all workers together, in a directory for temporary files"
            raise CannotStart(f"{said}: {error}; TMPDIR may name another one") from None
        self._tally = Tally(self.file)
        self._key = os.urandom(32)

    @property
    def connections(self) -> int:
        """How many connections all workers have."""
        total, _ = self._tally.counted(NOBODY)
        return total

    def number(self, taken: Collection[int]) -> int:
        """A page of the tally for a new worker.

        :param taken: the pages of those that live.
        """
        number = next(at for at in range(1, PAGES) if at not in taken)
        self._tally.wipe(number)
        self._tally.look(max({number, *taken}) + 1)
        return number

    def wipe(self, number: int) -> None:
        """Forget the connections of a worker that is gone."""
        self._tally.wipe(number)

    def order(self) -> Message:
        """What a worker is told of it."""
        return {"counts": str(self._counts.path()), "key": self._key.hex()}

    def close(self) -> None:
        """Remove it."""
        self._tally.close()
        os.close(self.file)
        self._counts.close()
