"""What a login may do with an address: nothing, send on behalf of it, or send as it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from submitd.policies.addresses import Addresses, Pattern


class Right(enum.IntEnum):
    """The greater one includes the lesser."""

    NONE = 0
    ON_BEHALF = 1
    AS = 2


# As files and data bases write them.
RIGHTS = {"as": Right.AS, "on-behalf": Right.ON_BEHALF}


def best(rights: Iterable[Right]) -> Right:
    """The greatest of several."""
    return max(rights, default=Right.NONE)


def give(addresses: Addresses[Right], pattern: Pattern, right: Right) -> None:
    """Give a right, unless there is a greater one already."""
    addresses.set(pattern, max(right, addresses.get(pattern) or Right.NONE))
