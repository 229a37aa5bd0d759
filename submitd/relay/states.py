"""The dialogue with a next hop as a table, and the events that come out of it.

:mod:`submitd.relay.client` goes from state to state; nothing else does.
"""

from __future__ import annotations

import enum

import attrs

from submitd.relay.outgoing import Outcome
from submitd.wire.reply import Reply


class State(enum.Enum):
    """Where the dialogue with a next hop stands."""

    NEW = "new"  # not connected yet
    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    LOGIN = "login"
    READY = "ready"  # a message may be sent
    ENVELOPE = "envelope"  # RSET, MAIL, RCPT
    OPENING = "opening"  # DATA, before its 354
    BODY = "body"  # the message is asked for, chunk by chunk
    END = "end"  # all has been sent, the verdict has not come
    QUIT = "quit"
    CLOSED = "closed"


@attrs.frozen
class Stand:
    """What a state allows.

    :param following: the states that may come next; CLOSED may come after all of them.
    :param limit: which time limit holds while the next hop owes us something (RFC 5321 4.5.3.2).
    """

    following: frozenset[State]
    limit: str


def _stand(limit: str, *following: State) -> Stand:
    return Stand(frozenset({*following, State.CLOSED}), limit)


STATES: dict[State, Stand] = {
    State.NEW: _stand("connect", State.GREETING),
    State.GREETING: _stand("greeting", State.HELLO),
    State.HELLO: _stand("hello", State.STARTTLS, State.LOGIN, State.READY),
    State.STARTTLS: _stand("hello", State.HANDSHAKE, State.READY),
    State.HANDSHAKE: _stand("handshake", State.HELLO),
    State.LOGIN: _stand("login", State.READY),
    State.READY: _stand("idle", State.ENVELOPE, State.QUIT),
    State.ENVELOPE: _stand("envelope", State.OPENING, State.BODY, State.READY),
    State.OPENING: _stand("opening", State.BODY, State.END, State.READY),
    State.BODY: _stand("body", State.END, State.READY),
    State.END: _stand("end", State.READY),
    State.QUIT: _stand("quit"),
    State.CLOSED: Stand(frozenset(), "quit"),
}


@attrs.frozen
class StartTLS:
    """Event: begin the TLS handshake."""


@attrs.frozen
class Ready:
    """Event: a message may be sent."""


@attrs.frozen
class BodyWanted:
    """Event: pull the message's next chunk, for :meth:`Client.body`."""


@attrs.frozen
class Done:
    """Event: each recipient has its outcome.

    :param outcomes: in the order of the recipients.
    """

    outcomes: tuple[Outcome, ...]


@attrs.frozen
class Ended:
    """Event: the session is over, and the connection to be closed.

    :param state: where it ended.
    :param reply: why; ``None`` after an orderly QUIT.
    :param isRemote: whether the next hop said it.
    """

    state: State
    reply: Reply | None
    isRemote: bool = False


Event = StartTLS | Ready | BodyWanted | Done | Ended
