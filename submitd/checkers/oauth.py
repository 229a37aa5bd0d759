"""``oauth:FILE``: bearer tokens of an OAuth 2.0 provider, which is asked about each of them.

The file is TOML and says whom to ask, in one of two ways::

    introspection = "https://id.example.com/oauth2/introspect"      # RFC 7662
    client_id = "submitd"
    client_secret_file = "oauth.secret"

    userinfo = "https://id.example.com/oauth2/userinfo"             # OpenID Connect Core 5.3

Whose the token is, a claim of the answer says (provider.py, claims.py).  A client that names
somebody else is refused; one that names nobody is whoever that is.  A provider that is away, slow
or says nonsense makes a login :class:`LoginUnavailable`.

A token that was good is remembered for a short time (memory.py), never longer than it is valid;
one that has been revoked is good for as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId, LoginUnavailable
from submitd.checkers.claims import Owner
from submitd.checkers.memory import Memory
from submitd.checkers.provider import QUESTIONS, Means, OAuthSettings, Provider
from submitd.http import makeAgent, makePool
from submitd.interfaces import IBearerToken, IChecked, IRunning, IWarns
from submitd.password import othersCanRead
from submitd.sasl.bearer import TokenRefused, isToken

REMEMBERED = 10_000
"""Tokens that are remembered."""


@implementer(ICredentialsChecker, IChecked, IWarns, IRunning)
class OAuthChecker:
    """Checks bearer tokens by asking a provider.

    :param path: the file that says whom, and how.
    :param seconds: the time of day, since 1970.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (IBearerToken,)

    def __init__(self, path: str, *, seconds: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._seconds = seconds
        self._problem = f"{path}: the service has not been started"
        self._settings = OAuthSettings()
        self._provider: Provider | None = None
        self._memory: Memory[Owner] | None = None
        self._pool: Any = None

    def check(self) -> list[str]:
        """What is wrong with the file, or with those it names; nobody is asked."""
        try:
            Means.read(self._path)
        except ValueError as error:
            return [f"{self._path}: {error}"]
        return []

    def warnings(self) -> list[str]:
        """That others can read the secret."""
        file = Means.read(self._path).settings.client_secret_file
        said = othersCanRead(file) if file is not None else ""
        return [f"{self._path}: client_secret_file: {said}"] if said else []

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`; nothing is connected yet."""
        return maybeDeferred(self._start, reactor)

    def _start(self, reactor: Any) -> None:
        try:
            means = Means.read(self._path)
        except ValueError as error:
            self._problem = f"{self._path}: {error}"
            raise LoginUnavailable(self._problem) from None
        self._settings = means.settings
        self._pool = makePool(reactor, QUESTIONS)
        agent = makeAgent(reactor, means.settings.timeout, self._pool, means.trust)
        self._provider = Provider(means, agent, reactor, self._seconds)
        self._memory = Memory(reactor, REMEMBERED)

    def stop(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.stop`; no connection is kept any more."""
        closed = succeed(None) if self._pool is None else self._pool.closeCachedConnections()
        return closed.addCallback(lambda _: None)

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as the provider writes it.

        :raise TokenRefused: (the Deferred) for a token that is not good, or somebody else's.
        :raise LoginUnavailable: (the Deferred) when nobody can tell now.
        """
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> AvatarId:
        try:
            owner = await self._ownerOf(credentials.token)
            return owner.nameFor(credentials.username)
        except TokenRefused as refused:
            raise TokenRefused(str(refused), **{**self._settings.told, **refused.told}) from None

    async def _ownerOf(self, token: bytes) -> Owner:
        provider = self._provider
        if provider is None or self._memory is None:
            raise LoginUnavailable(self._problem)
        if not isToken(token):  # there is none where a client asks what would be accepted
            raise TokenRefused("there is no bearer token")

        def ask() -> Deferred[Owner]:
            return Deferred.fromCoroutine(provider.ownerOf(token))

        return await self._memory.answer((token,), ask, self._lasts)

    def _lasts(self, owner: Owner) -> float:
        return min(self._settings.cache, owner.expires - self._seconds())
