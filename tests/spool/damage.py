"""What a failing disk does to a queue in SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from submitd.spool.database import FILE
from submitd.spool.queue import Queue

# How a page of a b-tree begins that has others below it: of an index, or of a table with row ids.
_INNER = (2, 5)


def spoil(queue: Queue, path: Path, name: str, holding: bytes = b"") -> None:
    """Have a table or an index lose one page that holds some octets.

    :param queue: which has pages in its memory; it reads them again.
    :param holding: empty for the first page.
    """
    at, page = pageOf(queue, path, name, holding)
    putBack(path, at, b"\xa5" * len(page))


def pageOf(queue: Queue, path: Path, name: str, holding: bytes = b"") -> tuple[int, bytes]:
    """Where a page of the file is, and what is in it."""
    for link in queue._links:
        link.close()
    file = sqlite3.connect(path / FILE)
    file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    [size] = file.execute("PRAGMA page_size").fetchone()
    [root] = file.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [name]).fetchone()
    file.close()
    octets = (path / FILE).read_bytes()
    page = octets[(root - 1) * size : root * size]
    numbers = _below(page) if page[0] in _INNER else [root]
    pages = {(each - 1) * size: octets[(each - 1) * size : each * size] for each in numbers}
    return next((at, page) for at, page in pages.items() if holding in page)


def putBack(path: Path, at: int, page: bytes) -> None:
    """Have the file hold a page as it is given here."""
    with open(path / FILE, "r+b") as opened:
        opened.seek(at)
        opened.write(page)


def _below(page: bytes) -> list[int]:
    """The numbers of the pages below one (SQLite's file format, 1.6)."""
    cells = [_number(page[at : at + 2]) for at in range(12, 12 + 2 * _number(page[3:5]), 2)]
    return [*(_number(page[at : at + 4]) for at in cells), _number(page[8:12])]


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")
