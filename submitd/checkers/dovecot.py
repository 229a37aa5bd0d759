"""``dovecot:SOCKET``: the users of a Dovecot, wherever it has them.

Dovecot's authentication service is asked, as Postfix does with ``smtpd_sasl_type = dovecot``.
SOCKET is the path of a unix socket, or a client endpoint of Twisted's such as
``tcp:host=127.0.0.1:port=12345``.  Passwords are verified by its PLAIN, bearer tokens by its
OAUTHBEARER or XOAUTH2.

The user's name is the one that Dovecot gives, which may have rewritten what the client said.  An OK
is not yet a yes: with ``nologin`` or ``proxy`` Dovecot knows the user, and lets nobody in here.
What is no answer to the question (nobody listens, a data base behind it is away, nonsense) is
:class:`submitd.checkers.LoginUnavailable`.

Dovecot tells nobody of changes, so there is no ``revision()``: a password that was changed is known
here when the memory for good logins is over at the latest.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import quoteStringArgument
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId, LoginUnavailable
from submitd.checkers.dovecotserver import DovecotServer, NoAnswer, Way
from submitd.endpoint import addressOf, clientEndpoint, mistake
from submitd.interfaces import IBearerToken, IChecked, IIncapable, IRunning, IWarns
from submitd.sasl.credentials import nameProblem
from submitd.wire import dovecotauth
from submitd.wire.dovecotauth import (
    OAUTHBEARER,
    PLAIN,
    XOAUTH2,
    Answer,
    AnswerReader,
    TalkError,
)

TIMEOUT = 30.0
"""Seconds for a login.  Dovecot itself has failed ones wait for some, and PAM for some more."""

LOOK = 2.0
"""Seconds for what Dovecot offers, before a start."""

# Dovecot's codes for what is no answer to the question; the rest are ways to say no.
_CANNOT_TELL = frozenset(
    {"temp_fail", "invalid_base64", "auth_mech_invalid", "auth_mech_ssl_required"}
)
# Before 2.3 they were names of their own.
_OLD_CODES = {"temp": "temp_fail", "authz": "authz_fail"}
_OLD_CODES |= {name: name for name in ("user_disabled", "pass_expired")}

# Pairs, for bandit takes a value behind a key with "pass" in it for a password.
_WORDS = (
    ("authz_fail", "not authorized"),
    ("pass_expired", "the password has expired"),
    ("temp_fail", "a temporary failure"),
    ("user_disabled", "the user is disabled"),
)
_SAID = dict(_WORDS)

MAX_REASON = 200
"""Octets of Dovecot's own words that are logged."""

Dial = Callable[[str | tuple[str, int], float], socket.socket]
"""Connects to a path, or a host and a port, within some seconds."""


def dial(address: str | tuple[str, int], seconds: float) -> socket.socket:
    """Connect, and wait for it."""
    if not isinstance(address, str):
        return socket.create_connection(address, seconds)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(seconds)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


@implementer(ICredentialsChecker, IChecked, IWarns, IIncapable, IRunning)
class DovecotChecker:
    """Asks Dovecot.

    :param where: the path of a unix socket, or a client endpoint.
    :param timeout: seconds for a login.
    :param dial: connects before a start.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (IUsernamePassword, IBearerToken)

    def __init__(self, where: str, *, timeout: float = TIMEOUT, dial: Dial = dial) -> None:
        isPath = where.startswith("/")
        self._endpoint = f"unix:{quoteStringArgument(where)}" if isPath else where
        self._timeout = timeout
        self._dial = dial
        self._server: DovecotServer | None = None
        self._offered: frozenset[str] | None = None

    # Before a start.

    def check(self) -> list[str]:
        """Whether there can be such an endpoint; one where nobody is yet is no mistake."""
        wrong = mistake(self._endpoint)
        return [f"a socket's path begins with /; an endpoint {wrong}"] if wrong else []

    def warnings(self) -> list[str]:
        """Whether Dovecot is there now."""
        address = addressOf(self._endpoint)
        if address is None:
            return []
        try:
            self._offered = self._look(address)
        except (OSError, TalkError) as error:
            said = getattr(error, "strerror", None) or error
            return [f"{self._endpoint}: {said}; logins are 454 until Dovecot answers there"]
        return []

    def cannotVerify(self) -> dict[type[Interface], str]:
        """What Dovecot does not offer, where :meth:`warnings` has found it."""
        if self._offered is None:
            return {}
        found: dict[type[Interface], str] = {}
        if PLAIN not in self._offered:
            found[IUsernamePassword] = "Dovecot does not offer PLAIN"
        if not self._offered & {OAUTHBEARER, XOAUTH2}:
            found[IBearerToken] = "Dovecot offers neither OAUTHBEARER nor XOAUTH2"
        return found

    def _look(self, address: str | tuple[str, int]) -> frozenset[str]:
        reader, end = AnswerReader(), time.monotonic() + LOOK
        with self._dial(address, LOOK) as connection:
            connection.sendall(dovecotauth.greeting(os.getpid()))
            while reader.mechanisms is None:
                left = end - time.monotonic()  # in all, however slowly it speaks
                if left <= 0:
                    raise TimeoutError("timed out")
                connection.settimeout(left)
                octets = connection.recv(dovecotauth.MAX_LINE)
                if not octets:
                    raise TalkError("it ended the connection; is it Dovecot's socket for clients?")
                reader.feed(octets)
        return reader.mechanisms

    # While it runs.

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`; nothing is connected yet."""
        endpoint = clientEndpoint(reactor, self._endpoint)
        self._server = DovecotServer(endpoint, reactor, self._timeout)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.stop`."""
        if self._server is not None:
            self._server.close()
        return succeed(None)

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as Dovecot gives it.

        :raise UnauthorizedLogin: (the Deferred) when Dovecot says no; the text may say why.
        :raise LoginUnavailable: (the Deferred) when it does not say.
        """
        return Deferred.fromCoroutine(self._verify(credentials))

    async def _verify(self, credentials: Any) -> AvatarId:
        if self._server is None:
            raise LoginUnavailable(f"{self._endpoint}: the back end has not been started")
        try:
            answer = await self._server.ask(_ways(credentials))
            return _verdict(answer)
        except NoAnswer as error:
            raise LoginUnavailable(f"{self._endpoint}: {error}") from None


def _ways(credentials: Any) -> Sequence[Way]:
    """How these can be asked about.

    :raise UnauthorizedLogin: for what nobody can have, and what would be read as something else.
    """
    name, isPassword = credentials.username, IUsernamePassword.providedBy(credentials)
    secret = credentials.password if isPassword else credentials.token
    if (name or isPassword) and nameProblem(name):
        raise UnauthorizedLogin(nameProblem(name))
    if b"\0" in secret or (not isPassword and b"\x01" in secret):
        raise UnauthorizedLogin("nobody can have such a secret")
    if isPassword:
        return (Way(PLAIN, dovecotauth.plain(name, secret)),)
    ways = [Way(OAUTHBEARER, dovecotauth.oauthBearer(name, secret))]
    if name:
        ways.append(Way(XOAUTH2, dovecotauth.xoauth2(name, secret)))
    return ways


def _verdict(answer: Answer) -> bytes:
    """The name of who is let in.

    :raise UnauthorizedLogin: for a no.
    :raise NoAnswer: for what is neither yes nor no.
    """
    if answer.verdict == "FAIL":
        raise _refusal(answer)
    for mark in ("nologin", "proxy"):
        if mark in answer.values:
            raise UnauthorizedLogin(_cause(answer, f"no login here ({mark})"))
    name = answer.values.get("user", b"")
    if nameProblem(name):
        raise NoAnswer(f"it says yes, but {nameProblem(name)}")
    return name


def _refusal(answer: Answer) -> Exception:
    code = answer.values.get("code", b"").decode("ascii", "replace")
    for old, new in _OLD_CODES.items():
        if not code and old in answer.values:
            code = new
    if code in _CANNOT_TELL:
        return NoAnswer(_cause(answer, _SAID.get(code, code)))
    return UnauthorizedLogin(_cause(answer, _SAID.get(code, _printable(code[:MAX_REASON]))))


def _cause(answer: Answer, said: str) -> str:
    """What is logged: what it means, and Dovecot's own words."""
    reason = answer.values.get("reason", b"")[:MAX_REASON].decode("utf-8", "replace")
    told = ": ".join(filter(None, (said, _printable(reason))))
    return f"Dovecot: {told}" if told else ""


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)
