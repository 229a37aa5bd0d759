"""AUTH (RFC 4954): which mechanisms are offered, and the command that begins a login (login.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.envelope import Envelope
from submitd.extensions.extension import Extension
from submitd.interfaces import IMechanism, IMechanismAmong, ITLSMechanism
from submitd.login import Login, decode
from submitd.session import BY_ADDRESS
from submitd.states import State, Verb
from submitd.wire.address import readMailbox
from submitd.wire.command import decodeXtext
from submitd.wire.errors import Refused
from submitd.wire.reply import ALREADY_LOGGED_IN, LOGIN_NEEDS_TLS, NO_SUCH_MECHANISM, SYNTAX

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue, Outcome


def auth(dialogue: Dialogue, argument: bytes) -> Outcome:
    """AUTH mechanism [initial-response]."""
    session = dialogue.session
    if session.user is not None and session.mechanism != BY_ADDRESS:
        raise Refused(ALREADY_LOGGED_IN)  # RFC 4954 4: no second AUTH after a good one
    if not argument:
        raise Refused(SYNTAX)
    name, _, initial = argument.partition(b" ")
    known = dialogue.rules.mechanisms.get(name.upper())
    if known is None:
        raise Refused(NO_SUCH_MECHANISM)
    if not _allowed(dialogue, known):
        raise Refused(LOGIN_NEEDS_TLS)
    mechanism = _over(dialogue, known)
    if mechanism is None:
        raise Refused(NO_SUCH_MECHANISM, "it cannot be used over this connection's TLS")
    if IMechanismAmong.providedBy(mechanism):
        mechanism = mechanism.among(_offered(dialogue))
    if session.user is not None:
        dialogue.leave()
    login = Login(dialogue, mechanism.name, mechanism.server(dialogue.submission.hostname))
    # RFC 4954 4: "=" is an initial response of no octets, which is not the same as none.
    return login.respond((b"" if initial == b"=" else decode(initial)) if initial else None)


def _allowed(dialogue: Dialogue, mechanism: IMechanism) -> bool:
    return bool(
        dialogue.session.secure or dialogue.submission.insecureLogin or not mechanism.needsTLS
    )


def _over(dialogue: Dialogue, mechanism: IMechanism) -> IMechanism | None:
    """The mechanism for this connection."""
    if not ITLSMechanism.providedBy(mechanism):
        return mechanism
    bound: IMechanism | None = mechanism.over(dialogue.session.tls)
    return bound


def _offered(dialogue: Dialogue) -> list[str]:
    """The mechanisms that a client may use here, as its TLS is now."""
    return [
        mechanism.name
        for mechanism in dialogue.rules.mechanisms.values()
        if _allowed(dialogue, mechanism) and _over(dialogue, mechanism) is not None
    ]


def authParameter(dialogue: Dialogue, envelope: Envelope, value: str | None) -> None:
    """AUTH= of MAIL (RFC 4954 5): who submitted it first; kept, and trusted by nobody here."""
    if value is None:
        raise Refused(SYNTAX)
    identity = decodeXtext(value)
    try:
        if identity != "<>":
            readMailbox(identity.encode("utf-8"))
    except ValueError as error:
        raise Refused(SYNTAX, f"AUTH= is no address: {error}") from None
    envelope.auth = identity


class Auth(Extension):
    """Offered with the mechanisms that a client may use here, as its TLS is now.

    EHLO says the same behind a login, which RFC 4954 leaves to the server: what has to be is that
    a second AUTH is 503 (4).
    """

    keyword = "AUTH"
    mailParameters = {"AUTH": authParameter}
    verbs = (
        (
            Verb(
                b"AUTH",
                frozenset({State.READY}),
                "AUTH <mechanism> [<initial response>]",
                beforeTLS=False,
            ),
            auth,
        ),
    )

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword with the mechanisms, or nothing when there is none to offer."""
        if dialogue.submission.requireTLS and not dialogue.session.secure:
            return None
        offered = _offered(dialogue)
        return " ".join(["AUTH", *offered]) if offered else None
