"""XFORWARD (Postfix, XFORWARD_README): a trusted proxy says where the next message came from.

It is kept as ``session.xforward`` for policies and deliveries until the end of the transaction, and
changes nothing else: no address, no right.  Who may say it is decided by the connection's own
address; from anybody else it is 550 and not advertised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.extensions.extension import Extension
from submitd.states import State, Verb
from submitd.wire.errors import Refused
from submitd.wire.reply import OK, PROXY_NOT_TRUSTED
from submitd.wire.xclient import XFORWARD, parseAttributes

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue, Outcome


def _isTrusted(dialogue: Dialogue) -> bool:
    return dialogue.session.peerAddress in dialogue.submission.xforwardFrom


def xforward(dialogue: Dialogue, argument: bytes) -> Outcome:
    """XFORWARD name=value ...: what several say before one message adds up."""
    if not _isTrusted(dialogue):
        raise Refused(PROXY_NOT_TRUSTED)
    session = dialogue.session
    session.xforward = {**session.xforward, **parseAttributes(argument, XFORWARD)}
    return OK


class Xforward(Extension):
    """Offered to trusted proxies alone."""

    keyword = "XFORWARD"
    verbs = (
        (
            Verb(
                b"XFORWARD",
                frozenset({State.READY}),
                "XFORWARD <attribute>=<value> ...",
                forProxies=True,
            ),
            xforward,
        ),
    )

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword with its attributes."""
        return " ".join(["XFORWARD", *XFORWARD]) if _isTrusted(dialogue) else None
