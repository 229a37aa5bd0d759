"""What the garbage collector looks at: what connections leave behind, and nothing else.

That is CPython's.  PyPy's leaves alone what has lived for long by itself, and has no such settings.
"""

from __future__ import annotations

import gc

# Whether this Python's collector can be told what to leave out.
_HAS_SETTINGS = hasattr(gc, "freeze")


def spareCollector() -> None:
    """Leave out all that there is now, and look less often.

    Modules and settings live as long as the process.  Connections make few cycles, so there is
    little to find, and it can wait until there are more objects than Python's 700.
    """
    if not _HAS_SETTINGS:
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def leaveShared() -> None:
    """In a process that was forked: leave out what it has of its parent.

    A collection writes into each object that it looks at, and so would make a copy of its own of
    all the memory that processes have in common.
    """
    if _HAS_SETTINGS:
        gc.freeze()
