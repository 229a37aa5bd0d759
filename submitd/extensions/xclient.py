"""XCLIENT (Postfix, XCLIENT_README): a trusted proxy says whom it speaks for.

The address, port and name it gives take the place of the connection's own, and the connection
begins again: everything said before is forgotten, the connection stage runs for the new address,
and the answer is the greeting.  Attributes add up over several XCLIENT, but for LOGIN, PROTO and
HELO, which hold for one.  ``HELO`` and ``PROTO`` are kept and believed in nothing: the client's own
EHLO follows.

Who may say it is decided by the connection's own address, whatever earlier XCLIENT said; from
anybody else it is 550 and not advertised.  ``LOGIN`` logs in only where the configuration says so,
through the Portal like any login (``ITrustedLogin``).  STARTTLS wipes all of it, address included:
said in the clear, it may have been anybody's word (RFC 3207 4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from submitd import events
from submitd.extensions.extension import Extension
from submitd.interfaces import ITrustedLogin
from submitd.login import Login
from submitd.sasl.credentials import TrustedLogin, checkName
from submitd.session import Session
from submitd.states import State, Verb
from submitd.wire.errors import Refused
from submitd.wire.proxy import Ends
from submitd.wire.reply import (
    NO_TRUSTED_LOGIN,
    PROXY_NOT_TRUSTED,
    TOO_MANY_CONNECTIONS,
)
from submitd.wire.xclient import XCLIENT, parseAttributes

if TYPE_CHECKING:
    from submitd.dialogue import Answer, Dialogue, Outcome

# They are said of one client's session, and a second XCLIENT begins another.
_ONCE = frozenset({"LOGIN", "PROTO", "HELO"})


def _isTrusted(dialogue: Dialogue) -> bool:
    return dialogue.session.peerAddress in dialogue.submission.xclientFrom


def xclient(dialogue: Dialogue, argument: bytes) -> Outcome:
    """XCLIENT name=value ...: begin again, for that client."""
    if not _isTrusted(dialogue):
        raise Refused(PROXY_NOT_TRUSTED)
    attributes = parseAttributes(argument, XCLIENT)
    credentials = _credentials(dialogue, attributes.get("LOGIN", ""))
    session = dialogue.session
    kept = {name: value for name, value in session.xclient.items() if name not in _ONCE}
    dialogue.startOver()
    _become(session, {**kept, **attributes})
    events.emit(
        events.XCLIENT_ACCEPTED,
        session=session.id,
        proxy=session.peerAddress,
        peer=session.remoteAddress,
        port=session.remotePort,
    )
    if not dialogue.moved():
        raise Refused(TOO_MANY_CONNECTIONS)
    greeting = dialogue.greet()
    if credentials is None:
        return greeting
    return Deferred.fromCoroutine(_logIn(dialogue, greeting, credentials))


def _credentials(dialogue: Dialogue, login: str) -> TrustedLogin | None:
    if not login:
        return None
    portal = dialogue.submission.portal
    taken = portal.listCredentialsInterfaces() if portal is not None else []
    if not dialogue.submission.xclientLogin or ITrustedLogin not in taken:
        raise Refused(NO_TRUSTED_LOGIN)
    return TrustedLogin(checkName(login.encode("utf-8")))


def _become(session: Session, attributes: dict[str, str]) -> None:
    """Put what the proxy said in the place of the connection's own."""
    own = session.ends
    session.direct = own
    session.ends = Ends(
        attributes.get("ADDR", own.remoteAddress),
        _port(attributes, "PORT", own.remotePort),
        attributes.get("DESTADDR", own.localAddress),
        _port(attributes, "DESTPORT", own.localPort),
    )
    session.clientHostname = attributes.get("NAME") or session.clientHostname
    session.xclient = attributes


def _port(attributes: dict[str, str], name: str, own: int) -> int:
    return int(attributes[name] or 0) if name in attributes else own


async def _logIn(dialogue: Dialogue, greeting: Outcome, credentials: TrustedLogin) -> Answer | None:
    answer = await greeting if isinstance(greeting, Deferred) else greeting
    await Login(dialogue, "XCLIENT").finish(credentials)
    return answer


class Xclient(Extension):
    """Offered to trusted proxies alone."""

    keyword = "XCLIENT"
    verbs = (
        (
            Verb(
                b"XCLIENT",
                frozenset({State.GREETED, State.READY}),
                "XCLIENT <attribute>=<value> ...",
                forProxies=True,
            ),
            xclient,
        ),
    )

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword with the attributes that would be taken."""
        if not _isTrusted(dialogue):
            return None
        login = dialogue.submission.xclientLogin
        return " ".join(["XCLIENT", *(name for name in XCLIENT if login or name != "LOGIN")])
