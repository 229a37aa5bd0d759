"""An issuer of signed tokens, as an operator describes it in a file, and where its keys are had.

The keys are in a file of ours, which is read again when it changes, or the issuer publishes them.
Then they are fetched at the start and every ``refresh``, and when a token has none of them: the
issuer may have a new one.  Whatever clients send, that is once in :data:`PAUSE` at most, and all
who come meanwhile wait for the one answer.  While the issuer is known to be away the keys of before
are good, for ``keep`` in all; a token that they do not verify cannot be decided then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import attrs
from twisted.internet.defer import Deferred, succeed

from submitd import events
from submitd.certificates import trustOf
from submitd.checkers import LoginUnavailable
from submitd.checkers.claims import Wanted, readOnce
from submitd.checkers.keys import KeySet, readJWKSet, readKeys
from submitd.checkers.provider import MAX_ANSWER, SCOPE, readNamed, toldOf, urlMistakes
from submitd.checkers.signedtoken import Rules
from submitd.files import Stamp, stampAt
from submitd.http import URL, HTTPFailed
from submitd.typed import Finding, Seconds, readObject

PAUSE = 60.0
"""Seconds from one time that keys are fetched to the next, at least."""

SOON = 10.0
"""The same, where there are none to go on with."""

WELL_KNOWN = "/.well-known/openid-configuration"

_GO_ON = "the keys of before are used"

Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
]


@attrs.frozen(kw_only=True)
class JWTSettings:
    """What the file says."""

    issuer: str = attrs.field(
        metadata={"help": 'Who signs the tokens: their "iss", character by character.'}
    )
    audience: str = attrs.field(
        metadata={"help": 'Whom a token must be for: one of its "aud".'}, default=""
    )
    any_audience: bool = attrs.field(
        metadata={"help": "Take tokens that were made for anybody."}, default=False
    )
    name_claim: str = attrs.field(
        metadata={"help": "The claim that has the user's name."}, default="email"
    )
    scope: str = attrs.field(
        metadata={"help": "The scope, or scopes, that a token must have."}, default=""
    )
    scope_claim: str = attrs.field(
        metadata={"help": 'The claim that has the scopes; "scp" for some.'}, default="scope"
    )
    claims: dict[str, str] = attrs.field(
        metadata={"help": "Claims that a token must have, with their values."}, factory=dict
    )
    jwks_uri: str = attrs.field(
        metadata={
            "help": "The URL of the issuer's keys (RFC 7517). Empty: openid_configuration says it."
        },
        default="",
    )
    keys_file: Path | None = attrs.field(
        metadata={"help": "In place of any URL: a file of keys, a JWK Set or PEM."}, default=None
    )
    openid_configuration: str = attrs.field(
        metadata={
            "help": "The URL that describes the issuer, which clients are told after a refusal. "
            f'Empty for "ISSUER{WELL_KNOWN}", which they are not.'
        },
        default="",
    )
    algorithms: tuple[Algorithm, ...] = attrs.field(
        metadata={"help": "The algorithms of signatures that are taken."},
        default=("RS256", "PS256", "ES256", "Ed25519", "EdDSA"),
        validator=attrs.validators.min_len(1),
    )
    type: str = attrs.field(
        metadata={"help": 'What the tokens\' "typ" must be; empty for any, or none.'},
        default="at+jwt",
    )
    leeway: Seconds = attrs.field(
        metadata={"help": "How far the issuer's clock may be from ours."},
        default=Seconds(30.0),
        validator=attrs.validators.le(300),
    )
    refresh: Seconds = attrs.field(
        metadata={"help": "How often the keys are fetched again."},
        default=Seconds(3600.0),
        validator=attrs.validators.ge(PAUSE),
    )
    keep: Seconds = attrs.field(
        metadata={"help": "How long keys are good while the issuer is away, from when they came."},
        default=Seconds(86400.0),
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

    @property
    def rules(self) -> Rules:
        """What a token must be like."""
        return Rules(
            issuer=self.issuer,
            wanted=Wanted(
                nameClaim=self.name_claim,
                scopes=frozenset(self.scope.split()),
                audience=self.audience,
                scopeClaim=self.scope_claim,
                values=self.claims,
            ),
            algorithms=self.algorithms,
            kind=self.type,
            leeway=self.leeway,
        )

    @property
    def told(self) -> dict[str, str]:
        """What a client is told when its token is refused (RFC 7628 3.2.2)."""
        return toldOf(self.scope, self.openid_configuration)

    @property
    def metadata(self) -> str:
        """The URL that describes the issuer (OpenID Connect Discovery 4, RFC 8414 3)."""
        return self.openid_configuration or self.issuer.removesuffix("/") + WELL_KNOWN

    def mistakes(self) -> Iterator[Finding]:
        """What cannot be meant."""
        if not self.issuer:
            yield Finding("issuer", "must be that of the tokens")
        if bool(self.audience) == self.any_audience:
            yield Finding("", "needs either audience or any_audience = true")
        if not self.name_claim:
            yield Finding("name_claim", "must be the name of a claim")
        if not SCOPE.fullmatch(self.scope):
            yield Finding("scope", "must be scopes with one space between them (RFC 6749 3.3)")
        if self.jwks_uri and self.keys_file is not None:
            yield Finding("", "jwks_uri and keys_file do not go together")
        yield from urlMistakes(
            {"jwks_uri": self.jwks_uri, "openid_configuration": self.openid_configuration}
        )
        if not self.jwks_uri and self.keys_file is None and not self.openid_configuration:
            # Where it is no URL, one of the others is needed.
            yield from urlMistakes({"issuer": self.issuer})
        if self.keep < self.refresh:
            yield Finding("keep", "must not be less than refresh")


@attrs.frozen(kw_only=True)
class Means:
    """All that the file leads to.

    :param trust: the authorities of connections; ``None`` for the system's.
    """

    settings: JWTSettings
    trust: Any

    @classmethod
    def read(cls, path: Path) -> Means:
        """What there is now.

        :raise ValueError: when it cannot be used; the text says all that is wrong.
        """
        settings = readObject(path, JWTSettings)
        wrong = list(map(str, settings.mistakes()))
        if wrong:
            raise ValueError("; ".join(wrong))
        readNamed("keys_file", _checkFile, settings.keys_file)
        return cls(settings=settings, trust=readNamed("ca_file", trustOf, settings.ca_file))


class Keys(Protocol):
    """Where keys are had."""

    def current(self) -> Awaitable[KeySet]:
        """Those that there are.

        :raise LoginUnavailable: when there are none that are still good.
        """

    def newer(self) -> Awaitable[KeySet]:
        """Those that there are, after a look at whether there are others now.

        :raise LoginUnavailable: when that cannot be told.
        """


def _readFile(file: Path) -> KeySet:
    try:
        return readKeys(file.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def _checkFile(file: Path) -> None:
    try:
        _readFile(file)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None


class FileKeys:
    """Keys in a file, which is read again when it changes; the last ones, while it cannot be used.

    :param file: a JWK Set or PEM.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys: KeySet | None = None
        self._stamp: Stamp | None = None
        self._problem = ""
        self._refresh()

    async def current(self) -> KeySet:
        """See :class:`Keys`."""
        self._refresh()
        if self._keys is None:
            raise LoginUnavailable(f"{self._file} {self._problem}")
        return self._keys

    newer = current

    def _refresh(self) -> None:
        stamp = stampAt(self._file)  # where there is none, reading says why
        if stamp is not None and stamp == self._stamp:
            return
        try:
            self._keys = _readFile(self._file)
        except ValueError as error:
            self._complain(str(error))
        else:
            self._problem = ""
            events.emit(events.FILE_READ, file=str(self._file), entries=len(self._keys.keys))
        self._stamp = stamp

    def _complain(self, problem: str) -> None:
        if problem != self._problem:  # once, not at each login
            self._problem = problem
            meaning = "tokens cannot be verified" if self._keys is None else _GO_ON
            events.emit(events.FILE_PROBLEM, file=str(self._file), problem=f"{problem}; {meaning}")


class PublishedKeys:
    """Keys that an issuer publishes.

    :param settings: who, and how often.
    :param agent: a :class:`twisted.web.client.Agent`.
    :param reactor: tells the time.
    """

    def __init__(self, settings: JWTSettings, agent: Any, reactor: Any) -> None:
        self._settings = settings
        self._agent = agent
        self._reactor = reactor
        self._keys: KeySet | None = None
        self._came = self._looked = float("-inf")
        self._problem = ""
        self._looking: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._isOver = False

    async def current(self) -> KeySet:
        """See :class:`Keys`."""
        if self._age >= self._settings.refresh:
            looked = self.look()
            # Nobody waits for one that is known to be away, unless there are no keys to go on with.
            if not self._problem or self._age >= self._settings.keep:
                await looked
        return self._usable()

    async def newer(self) -> KeySet:
        """See :class:`Keys`."""
        await self.look()
        if self._problem:
            raise LoginUnavailable(self._problem)
        return self._usable()

    def stop(self) -> None:
        """Fetch nothing any more."""
        self._isOver = True
        if self._looking is not None:
            self._looking.cancel()

    def look(self) -> Deferred[None]:
        """Fetch the keys, unless that was done a short time ago.

        :return: fires when it is over, however it has ended.
        """
        if self._looking is None and self._reactor.seconds() - self._looked >= self._pause:
            self._looked = self._reactor.seconds()
            looking = self._looking = Deferred.fromCoroutine(self._look())
            if looking.called:
                self._looking = None
        if self._looking is None:
            return succeed(None)
        # Who goes away ends nobody's waiting but their own, and not the question.
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    @property
    def _age(self) -> float:
        return float(self._reactor.seconds() - self._came)

    @property
    def _pause(self) -> float:
        return PAUSE if self._age < self._settings.keep else SOON

    def _usable(self) -> KeySet:
        if self._keys is None or self._age >= self._settings.keep:
            raise LoginUnavailable(self._problem)
        return self._keys

    async def _look(self) -> None:
        asked = self._reactor.seconds()
        try:
            self._keys = await self._fetch()
        except (_Unusable, HTTPFailed) as error:
            self._complain(f"keys of {error}")
        else:
            self._came, self._problem = asked, ""
        finally:
            self._looking = None
            while self._waiting:
                self._waiting.pop(0).callback(None)

    def _complain(self, problem: str) -> None:
        if problem != self._problem and not self._isOver:  # once, not each time
            self._problem = problem
            kept = self._age < self._settings.keep
            meaning = _GO_ON if kept else "tokens cannot be verified"
            events.emit(events.SERVICE_PROBLEM, problem=f"{problem}; {meaning}")

    async def _fetch(self) -> KeySet:
        url = self._settings.jwks_uri or await self._discover()
        host, body = await self._ask(url)
        try:
            return readJWKSet(body)
        except ValueError as error:
            raise _Unusable(f"{host}: the answer {error}") from None

    async def _discover(self) -> str:
        host, body = await self._ask(self._settings.metadata)
        try:
            metadata = readOnce(body)
        except ValueError as error:
            raise _Unusable(f"{host}: the description {error}") from None
        if metadata.get("issuer") != self._settings.issuer:  # RFC 8414 3.3
            raise _Unusable(f"{host}: the description is another issuer's")
        url = metadata.get("jwks_uri")
        if not url or not isinstance(url, str):
            raise _Unusable(f'{host}: the description has no "jwks_uri"')
        for finding in urlMistakes({"jwks_uri": url}):
            raise _Unusable(f"{host}: its {finding}")
        return url

    async def _ask(self, url: str) -> tuple[str, bytes]:
        asked = URL(url, self._agent, self._reactor)
        answer = await asked.ask(
            b"GET",
            {"Accept": "application/json"},
            seconds=self._settings.timeout,
            most=MAX_ANSWER,
            twice=True,  # a question changes nothing
        )
        if answer.code != 200:
            raise _Unusable(f"{asked.host}: answered {answer.code}")
        return asked.host, answer.body


class _Unusable(Exception):
    """An answer that has no keys; the text begins with the host's name."""
