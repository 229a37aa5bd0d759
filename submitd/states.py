"""The dialogue's states and verbs, as tables.

Pure data: what state a connection can be in, how the bytes of that state are framed, and for every
verb in which states it may come, whether before TLS and before login, and how HELP shows it.  The
order of commands (RFC 5321 4.1.4) is decided here and nowhere else.
"""

from __future__ import annotations

import enum

import attrs


class State(enum.Enum):
    """Where a connection stands."""

    CONNECTED = "connected"  # the greeting has not gone out yet
    GREETED = "greeted"  # no EHLO, HELO or LHLO yet
    READY = "ready"  # introduced, no mail transaction
    MAIL = "mail"  # MAIL accepted, no recipient yet
    RCPT = "rcpt"  # at least one recipient accepted
    AUTH = "auth"  # within a SASL exchange: the next line is a response
    DATA = "data"  # message text until CRLF.CRLF
    BDAT = "bdat"  # message octets, counted (RFC 3030)
    CHUNKED = "chunked"  # between two BDAT chunks of one message
    TLS = "tls"  # STARTTLS answered, the handshake is on
    CLOSED = "closed"  # the last reply has been given

    # Enum's own hash is a Python function; states are looked up several times per command.
    __hash__ = object.__hash__


# Looked up at each command: a module's name is cheaper than an attribute of an Enum.
CONNECTED, GREETED, READY, MAIL, RCPT, AUTH, DATA, BDAT, CHUNKED, TLS, CLOSED = State


class Framing(enum.Enum):
    """How the bytes that arrive in a state are cut."""

    LINES = "lines"
    OCTETS = "octets"
    NOTHING = "nothing"


LINES, OCTETS, NOTHING = Framing


FRAMING: dict[State, Framing] = {
    State.CONNECTED: Framing.LINES,
    State.GREETED: Framing.LINES,
    State.READY: Framing.LINES,
    State.MAIL: Framing.LINES,
    State.RCPT: Framing.LINES,
    State.AUTH: Framing.LINES,
    State.DATA: Framing.OCTETS,
    State.BDAT: Framing.OCTETS,
    State.CHUNKED: Framing.LINES,
    State.TLS: Framing.NOTHING,
    State.CLOSED: Framing.NOTHING,
}

INTRODUCED = frozenset({State.READY, State.MAIL, State.RCPT, State.CHUNKED})
ANY = INTRODUCED | {State.GREETED}


@attrs.frozen
class Verb:
    """One command of the dialogue.

    :param name: the verb in upper case.
    :param states: the states in which it may come; in any other it is 503 5.5.1.
    :param syntax: how HELP shows it.
    :param beforeTLS: whether it may come before TLS where TLS is required (RFC 3207 4).
    :param beforeLogin: whether it may come before login where login is required (RFC 4954 6).
    :param argument: ``True`` it must have one, ``False`` it must have none, ``None`` either.
    :param octets: whether octets follow the line at once (BDAT).  They must be read even when the
        command is refused, or they would be taken for commands: the verb's function is called
        wherever the verb comes, and asks :meth:`submitd.dialogue.Dialogue.admit` itself.
    :param forProxies: whether HELP leaves it out, for it is of no use to a client.
    """

    name: bytes
    states: frozenset[State]
    syntax: str
    beforeTLS: bool = True
    beforeLogin: bool = True
    argument: bool | None = None
    octets: bool = False
    forProxies: bool = False


# The verbs of RFC 5321 and RFC 2033; what extensions add stands in their own files.
VERBS: tuple[Verb, ...] = (
    Verb(b"EHLO", ANY, "EHLO <domain or address literal>"),
    Verb(b"HELO", ANY, "HELO <domain>"),
    Verb(b"LHLO", ANY, "LHLO <domain or address literal>"),
    Verb(
        b"MAIL",
        frozenset({State.READY}),
        "MAIL FROM:<address> [<parameter> ...]",
        False,
        False,
        True,
    ),
    Verb(
        b"RCPT",
        frozenset({State.MAIL, State.RCPT}),
        "RCPT TO:<address> [<parameter> ...]",
        False,
        False,
        True,
    ),
    Verb(b"DATA", frozenset({State.RCPT}), "DATA", False, False, False),
    Verb(b"RSET", ANY, "RSET", argument=False),
    Verb(b"NOOP", ANY, "NOOP [<text>]"),
    Verb(b"VRFY", ANY, "VRFY <text>", False, False, True),
    Verb(b"HELP", ANY, "HELP [<verb>]"),
    Verb(b"QUIT", ANY, "QUIT", argument=False),
)
