"""``jwt:FILE``: bearer tokens that an issuer has signed (RFC 9068), verified here.

The file is TOML and says whose tokens are taken, for whom they must have been made, and which claim
is the user's name::

    issuer = "https://id.example.com/realms/example"
    audience = "submission.example.com"
    name_claim = "email"

The issuer's keys are found by its description (OpenID Connect Discovery, RFC 8414), at
``jwks_uri``, or in ``keys_file`` (issuer.py).  Nobody is asked about a token, so one that was
revoked is good until it expires.  A client that names somebody else than the token does is refused;
one that names nobody is whoever that is.

What a token says decides whether it could be one for us (signedtoken.py); only then keys are looked
for, and only their signature makes it good.  To verify it takes less than a thread would, and is
done at each login: nothing is remembered.
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
from submitd.checkers.issuer import FileKeys, Keys, Means, PublishedKeys
from submitd.checkers.signedtoken import Rules, SignedToken
from submitd.http import makeAgent
from submitd.interfaces import IBearerToken, IChecked, IRunning
from submitd.sasl.bearer import TokenRefused, isToken


@implementer(ICredentialsChecker, IChecked, IRunning)
class JWTChecker:
    """Checks bearer tokens by their signatures.

    :param path: the file that says whose, and for whom.
    :param seconds: the time of day, since 1970.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (IBearerToken,)

    def __init__(self, path: str, *, seconds: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._seconds = seconds
        self._problem = f"{path}: the service has not been started"
        self._rules: Rules | None = None
        self._told: dict[str, str] = {}
        self._keys: Keys | None = None

    def check(self) -> list[str]:
        """What is wrong with the file, or with those it names; nobody is asked."""
        try:
            Means.read(self._path)
        except ValueError as error:
            return [f"{self._path}: {error}"]
        return []

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`; the keys come when they come."""
        return maybeDeferred(self._start, reactor)

    def _start(self, reactor: Any) -> None:
        try:
            means = Means.read(self._path)
        except ValueError as error:
            self._problem = f"{self._path}: {error}"
            raise LoginUnavailable(self._problem) from None
        settings = means.settings
        self._rules, self._told = settings.rules, settings.told
        if settings.keys_file is not None:
            self._keys = FileKeys(settings.keys_file)
        else:
            agent = makeAgent(reactor, settings.timeout, trust=means.trust)
            self._keys = PublishedKeys(settings, agent, reactor)
            self._keys.look()

    def stop(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.stop`."""
        if isinstance(self._keys, PublishedKeys):
            self._keys.stop()
        return succeed(None)

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as the token has it.

        :raise TokenRefused: (the Deferred) for a token that is not good, or somebody else's.
        :raise LoginUnavailable: (the Deferred) when there are no keys to tell now.
        """
        return Deferred.fromCoroutine(self._verify(credentials))

    async def _verify(self, credentials: Any) -> AvatarId:
        try:
            owner = await self._ownerOf(credentials.token)
            return owner.nameFor(credentials.username)
        except TokenRefused as refused:
            raise type(refused)(str(refused), **{**self._told, **refused.told}) from None

    async def _ownerOf(self, octets: bytes) -> Owner:
        if self._rules is None or self._keys is None:
            raise LoginUnavailable(self._problem)
        if not isToken(octets):  # there is none where a client asks what would be accepted
            raise TokenRefused("there is no bearer token")
        token = SignedToken.parse(octets, self._rules)
        # What is not for us, or has expired, is refused even while there are no keys.
        owner = self._rules.ownerOf(token.claims, self._seconds())
        keys = await self._keys.current()
        if token.isSignedBy(keys):
            return owner
        if keys.knows(token.kid) or not token.isSignedBy(await self._keys.newer()):
            raise TokenRefused("the token is signed with none of the issuer's keys")
        return owner
