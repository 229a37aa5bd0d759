"""Clients that cannot log in, such as printers: their network says whose login is theirs.

RFC 6409 4.3 lets a server take mail without AUTH from those whose authorization is established
otherwise, "such as being within a protected subnetwork".  Here this is a login like any other: it
goes through the Portal (``ITrustedLogin``), the login policies are asked, and who sends is known to
all that look at the login.

It happens at the first command that would be refused for want of a login, and costs the client no
round trip.  A client that has said AUTH by then has its own.  A later AUTH ends it, and so do
STARTTLS and XCLIENT, as any login; the next such command brings it back where nobody is logged in
by then, for the address that holds by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitd.sasl.credentials import TrustedLogin
from submitd.session import BY_ADDRESS, Session
from submitd.submission import Submission
from submitd.wire.errors import Refused
from submitd.wire.reply import LOGIN_FAILED

if TYPE_CHECKING:
    from submitd.dialogue import Dialogue


def loginOf(session: Session, submission: Submission) -> str:
    """Whose login a client has by its address; empty for nobody's.

    A proxy that has not told its client's address has none: it would be the login of everybody
    behind it.
    """
    logins, address = submission.loginByAddress, session.remoteAddress
    if not logins:
        return ""
    if "ADDR" in session.xclient:
        return logins.of(address) if address else ""  # told as unknown is no unix socket
    if address in submission.xclientFrom:
        return ""
    if not session.proxyAddress and address in submission.proxyFrom:
        return ""  # PROXY UNKNOWN, or LOCAL
    return logins.of(address)


async def logIn(dialogue: Dialogue, login: str) -> None:
    """Log a client in.

    :raise Refused: for whatever is in the way; 530 where the login itself is not taken.
    """
    # Not above: twisted.mail, which it needs, installs a reactor, and the dialogue needs none.
    from submitd.login import Login

    try:
        await Login(dialogue, BY_ADDRESS).finish(TrustedLogin(login.encode("utf-8")))
    except Refused as refused:
        if refused.reply is LOGIN_FAILED:  # which is for AUTH alone (RFC 4954 6)
            raise Refused(dialogue.rules.loginRequired, refused.cause) from None
        raise
