"""Cutting octets into chunks, for the tests of everything that is fed."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies


def allSplits(data: bytes) -> Iterator[list[bytes]]:
    """The octets whole, one by one, and cut in two at each place."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def chunked(data: bytes, sizes: list[int]) -> list[bytes]:
    """The octets in chunks of the sizes (some may be 0), and the remainder."""
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


sizes = strategies.lists(strategies.integers(0, 7), max_size=40)
