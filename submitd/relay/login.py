"""SASL from the client's side (RFC 4422, RFC 4954): PLAIN, LOGIN, CRAM-MD5 and XOAUTH2.

An exchange is a generator: it yields responses and is sent challenges, all decoded.  The first one
it yields goes with AUTH itself; ``None`` there means that the server has to begin.  When a server
asks for more than the mechanism has to say, the generator has ended, and the login is cancelled.

Whether a password may travel at all, over this connection, is the client's question, not ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Generator, Iterable

import attrs

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


def choose(account: Account, offered: Iterable[str]) -> tuple[str, Exchange] | None:
    """The mechanism to log in with.

    :param offered: what the server lists, in upper case.
    :return: its name and a fresh exchange; ``None`` when there is none that both sides take.
    """
    names = frozenset(offered)
    for name in account.mechanisms:
        if name in names and name in MECHANISMS:
            return name, MECHANISMS[name](account)
    return None
