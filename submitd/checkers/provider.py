"""An OAuth 2.0 provider, as an operator describes it in a file, and how it is asked about a token.

Only so many questions are asked at one time, and only so many wait.  Neither a token nor our secret
nor what the provider says is told to anybody.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import attrs
from twisted.internet.defer import Deferred

from submitd.certificates import trustOf
from submitd.checkers import LoginUnavailable
from submitd.checkers.claims import Owner, Unusable, Wanted, isActive, readClaims
from submitd.http import URL, Answer, HTTPFailed, isPrivate, mistake
from submitd.password import Password
from submitd.sasl.bearer import TokenRefused
from submitd.turns import Turns
from submitd.typed import Finding, Seconds, readObject

MAX_ANSWER = 65_536
"""Octets of an answer that are read."""

QUESTIONS = 10
"""Questions that are asked at one time, and connections that are kept for more."""

PENDING = 100
"""Questions that are asked or wait; beyond that a login cannot be decided now."""

# RFC 6749 3.3: scope = scope-token *( SP scope-token ), scope-token = 1*NQCHAR
SCOPE = re.compile(r"(?:[!#-\[\]-~]+(?: [!#-\[\]-~]+)*)?")


def toldOf(scope: str, configuration: str) -> dict[str, str]:
    """What a client is told when its token is refused (RFC 7628 3.2.2)."""
    told = {"scope": scope, "openid-configuration": configuration}
    return {name: value for name, value in told.items() if value}


def urlMistakes(urls: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with the URLs of some keys; an empty one is none."""
    for key, url in urls.items():
        if url and mistake(url):
            yield Finding(key, mistake(url))
        elif url and not isPrivate(url):
            yield Finding(key, "must begin with https://, unless it is on this machine")


def readNamed(key: str, read: Callable[[Path], Any], file: Path | None) -> Any:
    """What a file of some key is read as, if there is one.

    :raise ValueError: as ``read`` does, with the key.
    """
    try:
        return None if file is None else read(file)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


@attrs.frozen(kw_only=True)
class OAuthSettings:
    """What the file says."""

    introspection: str = attrs.field(
        metadata={"help": "The URL that tells about a token (RFC 7662)."}, default=""
    )
    client_id: str = attrs.field(
        metadata={"help": "Who we are to the provider; empty where it wants nobody."}, default=""
    )
    client_secret_file: Path | None = attrs.field(
        metadata={"help": "A file with the password of client_id as its first line."}, default=None
    )
    userinfo: str = attrs.field(
        metadata={"help": "In place of introspection: the URL of OpenID Connect's UserInfo."},
        default="",
    )
    name_claim: str = attrs.field(
        metadata={
            "help": 'The claim that has the user\'s name. Empty for "username", or "email" with '
            "userinfo."
        },
        default="",
    )
    scope: str = attrs.field(
        metadata={"help": "The scope, or scopes, that a token must have."}, default=""
    )
    audience: str = attrs.field(
        metadata={"help": "Whom a token must be for; empty for anybody."}, default=""
    )
    claims: dict[str, str] = attrs.field(
        metadata={"help": "Claims that the answer must have, with their values."}, factory=dict
    )
    openid_configuration: str = attrs.field(
        metadata={"help": "A URL that clients are told after a refusal, to find the provider by."},
        default="",
    )
    ca_file: Path | None = attrs.field(
        metadata={"help": "PEM file: the authorities to trust; left out, the system's."},
        default=None,
    )
    timeout: Seconds = attrs.field(
        metadata={"help": "How long an answer is waited for, connecting included."},
        default=Seconds(10.0),
        validator=attrs.validators.gt(0),
    )
    cache: Seconds = attrs.field(
        metadata={"help": "How long a good token is remembered; 0 for never."},
        default=Seconds(60.0),
    )

    @property
    def wanted(self) -> Wanted:
        """What makes a token one for us."""
        return Wanted(
            nameClaim=self.name_claim or ("username" if self.introspection else "email"),
            scopes=frozenset(self.scope.split()),
            audience=self.audience,
            values=self.claims,
        )

    @property
    def told(self) -> dict[str, str]:
        """What a client is told when its token is refused (RFC 7628 3.2.2)."""
        return toldOf(self.scope, self.openid_configuration)

    def mistakes(self) -> Iterator[Finding]:
        """What cannot be meant."""
        if bool(self.introspection) == bool(self.userinfo):
            yield Finding("", "needs either introspection or userinfo")
        urls = ("introspection", "userinfo", "openid_configuration")
        yield from urlMistakes({key: getattr(self, key) for key in urls})
        if bool(self.client_id) != (self.client_secret_file is not None):
            yield Finding("", "client_id and client_secret_file go together")
        if not SCOPE.fullmatch(self.scope):
            yield Finding("scope", "must be scopes with one space between them (RFC 6749 3.3)")
        if self.userinfo:
            for key in ("client_id", "scope", "audience"):
                if getattr(self, key):
                    yield Finding(key, "goes with introspection; UserInfo knows nothing of it")


@attrs.frozen(kw_only=True)
class Means:
    """All that the file leads to.

    :param trust: the authorities of connections; ``None`` for the system's.
    """

    settings: OAuthSettings
    password: Password | None
    trust: Any

    @classmethod
    def read(cls, path: Path) -> Means:
        """What there is now.

        :raise ValueError: when it cannot be used; the text says all that is wrong.
        """
        settings = readObject(path, OAuthSettings)
        wrong = list(map(str, settings.mistakes()))
        if wrong:
            raise ValueError("; ".join(wrong))
        return cls(
            settings=settings,
            password=readNamed("client_secret_file", Password, settings.client_secret_file),
            trust=readNamed("ca_file", trustOf, settings.ca_file),
        )


class Provider:
    """Who is asked.

    :param means: how.
    :param agent: a :class:`twisted.web.client.Agent`.
    :param reactor: tells the time.
    :param seconds: the time of day, since 1970.
    """

    def __init__(
        self, means: Means, agent: Any, reactor: Any, seconds: Callable[[], float]
    ) -> None:
        self._means = means
        self._settings = means.settings
        self._url = URL(self._settings.introspection or self._settings.userinfo, agent, reactor)
        self._seconds = seconds
        self._turns = Turns(QUESTIONS)
        self._pending = 0

    async def ownerOf(self, token: bytes) -> Owner:
        """Whose a token is.

        :raise TokenRefused: when it is none of this provider's, or not for us.
        :raise LoginUnavailable: when nobody can tell now.
        """
        if self._pending >= PENDING:
            raise LoginUnavailable(f"{self._pending} tokens wait for provider {self._url.host}")
        self._pending += 1
        try:
            answer = await self._inTurn(token)
            claims = readClaims(self._bodyOf(answer))
            if self._settings.introspection and not isActive(claims):
                raise TokenRefused("the token is not active")
            return self._settings.wanted.ownerOf(claims, self._seconds())
        except HTTPFailed as error:
            raise LoginUnavailable(f"provider {error}") from None
        except Unusable as error:
            raise LoginUnavailable(f"provider {self._url.host}: {error}") from None
        finally:
            self._pending -= 1

    async def _inTurn(self, token: bytes) -> Answer:
        await self._turns.acquire()
        try:
            return await (self._introspect if self._settings.introspection else self._userinfo)(
                token.decode("ascii")
            )
        finally:
            self._turns.release()

    def _introspect(self, token: str) -> Deferred[Answer]:
        # Pairs, for bandit takes a value behind a key with "token" in it for a password.
        pairs = (("token", token), ("token_type_hint", "access_token"))
        body = urlencode(pairs).encode("ascii")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._means.password is not None:
            # RFC 6749 2.3.1: each is encoded as in a form before they are put together.
            login = (
                f"{quote_plus(self._settings.client_id)}:{quote_plus(self._means.password.secret)}"
            )
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        return self._ask(b"POST", headers, body)

    def _userinfo(self, token: str) -> Deferred[Answer]:
        return self._ask(b"GET", {"Authorization": f"Bearer {token}"})

    def _ask(self, method: bytes, headers: dict[str, str], body: bytes = b"") -> Deferred[Answer]:
        return self._url.ask(
            method,
            {"Accept": "application/json", **headers},
            body,
            seconds=self._settings.timeout,
            most=MAX_ANSWER,
            twice=True,  # a question changes nothing
        )

    def _bodyOf(self, answer: Answer) -> bytes:
        """The body of an answer that is one to our question."""
        if answer.code == 200:
            return answer.body
        if self._settings.userinfo and answer.code == 401:  # RFC 6750 3.1
            raise TokenRefused("the provider refuses the token")
        if self._settings.userinfo and answer.code == 403:
            raise TokenRefused("the token has not the scope", status="insufficient_scope")
        whom = ": it refuses client_id with its secret" if answer.code == 401 else ""
        raise Unusable(f"answered {answer.code}{whom}")
