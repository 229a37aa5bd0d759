"""SASL from the client's side (RFC 4422, RFC 4954): PLAIN, LOGIN, CRAM-MD5 and XOAUTH2.

An exchange is a generator: it yields responses and is sent challenges, all decoded.  The first one
it yields goes with AUTH itself; ``None`` there means that the server has to begin.  When a server
asks for more than the mechanism has to say, the generator has ended, and the login is cancelled.

Whether a password may travel at all, over this connection, is the client's question, not ours.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Generator, Iterable

import attrs

# RFC 4954 4: AUTH with its initial response is still a command line.
MAX_COMMAND = 510

Exchange = Generator[bytes | None, bytes, None]


@attrs.frozen
class Account:
    """Whom we log in as at a next hop.

    :param user: the user name.
    :param secret: the password, or the access token of XOAUTH2; in no ``repr``.
    :param mechanisms: what may be used, best first.
    """

    user: str
    secret: bytes = attrs.field(repr=False)
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN", "CRAM-MD5")


def _plain(account: Account) -> Exchange:
    yield b"\0" + account.user.encode("utf-8") + b"\0" + account.secret


def _login(account: Account) -> Exchange:
    yield None
    yield account.user.encode("utf-8")
    yield account.secret


def _cramMD5(account: Account) -> Exchange:
    challenge = yield None
    digest = hmac.new(account.secret, challenge, "md5").hexdigest()
    yield f"{account.user} {digest}".encode()


def _xoauth2(account: Account) -> Exchange:
    yield b"user=%b\x01auth=Bearer %b\x01\x01" % (account.user.encode("utf-8"), account.secret)
    # A refusal comes as one more challenge, JSON that says why; the empty answer brings the 535.
    yield b""


MECHANISMS: dict[str, Callable[[Account], Exchange]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "CRAM-MD5": _cramMD5,
    "XOAUTH2": _xoauth2,
}


class Login:
    """One login, as the lines of AUTH (RFC 4954 4), without CRLF.

    :param mechanism: one of ``MECHANISMS``.
    :ivar command: the first line.
    :ivar isCancelled: whether we have given up, so that no further challenge is answered.
    """

    def __init__(self, mechanism: str, account: Account) -> None:
        self._exchange = MECHANISMS[mechanism](account)
        self._initial = next(self._exchange)
        self._isGiven = False  # with the command
        self.isCancelled = False
        self.command = f"AUTH {mechanism}".encode("ascii")
        if self._initial is not None:
            line = b"%b %b" % (self.command, base64.b64encode(self._initial) or b"=")
            if len(line) <= MAX_COMMAND:
                self.command, self._isGiven = line, True

    def response(self, challenge: str) -> bytes:
        """The line that answers a challenge.

        :param challenge: the text of the 334.
        """
        if self._initial is not None:
            initial, self._initial = self._initial, None
            # Who has not read what came with the command asks for it.
            if not challenge or not self._isGiven:
                return base64.b64encode(initial)
        try:
            decoded = base64.b64decode(challenge.encode("ascii"), validate=True)
            response = self._exchange.send(decoded)
        except (binascii.Error, StopIteration):
            # RFC 4954 4: the client gives up; the server answers with 501.
            self.isCancelled = True
            return b"*"
        return base64.b64encode(response or b"")


def choose(account: Account, offered: Iterable[str]) -> Login | None:
    """A login with the best mechanism that both sides take; ``None`` where there is none.

    :param offered: what the server lists, in upper case.
    """
    names = frozenset(offered)
    for mechanism in account.mechanisms:
        if mechanism in names and mechanism in MECHANISMS:
            return Login(mechanism, account)
    return None
