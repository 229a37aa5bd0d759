"""Names under which somebody is counted, and times as replies show them."""

from __future__ import annotations

import functools
import hashlib
import math
from datetime import UTC, datetime

from submitd.wire.network import parseAddress

# Longer names are cut, with a digest in place of the rest: they are kept for as long as counts.
_MAX_NAME = 100


def shortened(name: str) -> str:
    """A name as part of a key: bounded, and unlike any other's."""
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name[:40]}...{digest}"


@functools.lru_cache(maxsize=4096)
def addressOf(text: str) -> str:
    """An address as it is counted: without a zone, and IPv4 where it is written as IPv6."""
    try:
        return str(parseAddress(text.partition("%")[0]))
    except ValueError:
        return text


@functools.lru_cache(maxsize=4096)
def networkOf(text: str) -> str:
    """Whose an address is, as far as that can be told: the /64 of IPv6, else the address."""
    try:
        address = parseAddress(text.partition("%")[0])
    except ValueError:
        return text
    if address.version == 4:
        return str(address)
    return f"{type(address)(int(address) >> 64 << 64)}/64"


def asTime(seconds: float) -> str:
    """A time as a reply shows it: UTC, not before its second has come."""
    return datetime.fromtimestamp(math.ceil(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
