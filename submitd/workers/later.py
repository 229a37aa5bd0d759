"""A reactor that is not there yet, for the template: it is imported, and must not exist.

Twisted's own modules import the global reactor when they are imported.  A reactor has files that no
two processes may share, so a template has none; what is imported instead hands everything on to the
worker's own reactor, once there is one, and has nothing before that.
"""

from __future__ import annotations

import sys
from typing import Any

import twisted.internet
from zope.interface import directlyProvides, providedBy

NAME = "twisted.internet.reactor"


class LaterReactor:
    """Stands where the global reactor will be."""

    _reactor: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._reactor is None:
            raise AttributeError(f"there is no reactor yet that could have {name}")
        return getattr(self._reactor, name)

    def become(self, reactor: Any) -> None:
        """Be this one from now on."""
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))


def install() -> None:
    """Be imported in place of a reactor, which must not have been imported."""
    assert NAME not in sys.modules
    later: Any = LaterReactor()
    sys.modules[NAME] = later
    setattr(twisted.internet, "reactor", later)  # noqa: B010


def remove() -> LaterReactor:
    """Make room for the reactor of this process.

    :return: what has been imported until now, to be told which one that is.
    """
    later = sys.modules.pop(NAME)
    delattr(twisted.internet, "reactor")
    assert isinstance(later, LaterReactor)
    return later
