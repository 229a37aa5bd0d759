"""A policy for the started service: what XFORWARD said goes into a header field."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from submitd.interfaces import IMessagePolicy


@implementer(IMessagePolicy)
class Trace:
    """Writes ``X-Forward: name=value ...`` in front of a message."""

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
        """Prepend the field."""
        said = " ".join(f"{name}={value}" for name, value in sorted(session.xforward.items()))
        message.prepend(f"X-Forward: {said}\r\n".encode())
