"""LOGIN: user name and password, each in a response of its own.

It was never a standard (draft-murchison-sasl-login), and a great deal of mail software can do
nothing else.  AUTH may bring the user name as its initial response.
"""

from __future__ import annotations

import attrs
from twisted.cred.credentials import IUsernamePassword
from zope.interface import implementer

from submitd.interfaces import IExchange, IMechanism
from submitd.sasl.credentials import UsernamePassword, checkName, checkPassword


@implementer(IMechanism)
@attrs.frozen
class Login:
    """The mechanism LOGIN."""

    name = "LOGIN"
    credentialsInterface = IUsernamePassword
    needsTLS = True

    def server(self, hostname: str) -> LoginExchange:
        """A fresh exchange; the host name plays no part."""
        return LoginExchange()


@implementer(IExchange)
class LoginExchange:
    """``Username:``, then ``Password:``; some clients look for exactly these words."""

    def __init__(self) -> None:
        self._username = b""

    def respond(self, response: bytes | None) -> bytes | UsernamePassword:
        """The next challenge, or the credentials after the password."""
        if response is None:
            return b"Username:"
        if not self._username:
            self._username = checkName(response)
            return b"Password:"
        return UsernamePassword(self._username, checkPassword(response))
