"""What a back end of SCRAM needs besides keys: a salt for each name, whether it is a user's or not.

The salt is told to everybody who asks, so it must not tell who is a user: for other names one is
made up that is always the same, in all workers and after each start, as those of users are.  It is
made with a secret of the machine, its id (machine-id(5)); where there is none, with one of the
process.  Nothing that a user's secret could be tried against goes into it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import attrs

from submitd.checkers import foldName

# Octets of a salt that we make: RFC 5802 says nothing, and all others take so many.
SALT = 16


@attrs.frozen
class Salt:
    """What a client has to know before it can prove that it knows a password.

    :param isKnown: whether the name is a user's; the next back end is asked where it is not.
    """

    salt: bytes
    iterations: int
    isKnown: bool = True


def machineSecret(path: str = "/etc/machine-id") -> bytes:
    """What does not change as long as the machine is the same; a random one where it has no id."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        text = ""
    known = bytes.fromhex(text) if re.fullmatch("[0-9a-f]{32}", text) else os.urandom(16)
    return hashlib.blake2b(b"submitd SCRAM salts", key=known).digest()


_secret = machineSecret()


def numberFor(name: bytes, purpose: bytes = b"number") -> int:
    """A number that is always the same for a name, and that nobody else can tell.

    :param purpose: what it chooses among; numbers for two of them have nothing in common.
    """
    return int.from_bytes(saltFor(name, 8, purpose), "big")


def saltFor(name: bytes, length: int = SALT, purpose: bytes = b"salt") -> bytes:
    """A salt that is always the same for a name, and that nobody else can tell."""
    return hashlib.shake_256(_secret + purpose + b"\0" + foldName(name)).digest(length)
