"""Questions to URLs: HTTP as a client.

Redirections are not followed.  Connecting, asking and answering together have a time limit, and of
an answer no more is read than whoever asks can use.  A URL may have a secret in it, and so may a
question and its answer: what goes wrong is told with the host's name and no text of theirs.

The parts of Twisted that do it are imported when they are used: most services ask nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from io import BytesIO
from typing import Any, NoReturn
from urllib.parse import urlsplit

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

KEPT = 60.0
"""Seconds that a connection is kept for the next question."""


class HTTPFailed(Exception):
    """There is no answer, or not the one that was asked for; the text names no secret."""


@attrs.frozen
class Answer:
    """What a server has said.

    :param body: as much as was asked for; all of it, unless nothing was.
    """

    code: int
    body: bytes = attrs.field(repr=False)


def mistake(url: str) -> str:
    """What is wrong with a URL, without what may be a secret; empty when all is well."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        return 'must be a URL that begins with "https://" or "http://"'
    return "must have no user or password in it" if "@" in parts.netloc else ""


def isPrivate(url: str) -> bool:
    """Whether nobody on the way can read what is asked: https, or within this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


class URL:
    """One URL.

    :param url: without a mistake.
    :param agent: a :class:`twisted.web.client.Agent`.
    :param clock: for time limits.
    """

    def __init__(self, url: str, agent: Any, clock: IReactorTime) -> None:
        self._url = url.encode("ascii")
        self._agent = agent
        self._clock = clock
        self.host = urlsplit(url).hostname or ""

    def ask(
        self,
        method: bytes,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        seconds: float,
        most: int = 0,
        twice: bool = False,
    ) -> Deferred[Answer]:
        """Ask.

        :param seconds: for all of it.
        :param most: octets of an answer; 0 for an answer that is not read.
        :param twice: whether the same may be asked again, where the server closes the connection
            without an answer: it may have done so before it was asked.
        :return: fails with :class:`HTTPFailed`.
        """
        asking = Deferred.fromCoroutine(self._ask(method, headers, body, most, twice))
        return asking.addTimeout(seconds, self._clock, onTimeoutCancel=self._late)

    def _late(self, result: object, seconds: float) -> NoReturn:
        # Where an agent is asked already, it wraps what cancels it, and nobody would see that.
        raise HTTPFailed(f"{self.host}: TimeoutError")

    async def _ask(
        self, method: bytes, headers: Mapping[str, str], body: bytes, most: int, twice: bool
    ) -> Answer:
        try:
            return await self._answer(method, headers, body, most)
        except HTTPFailed:
            raise
        except Exception as error:
            if twice and isinstance(_inner(error), ConnectionClosed):
                return await self._ask(method, headers, body, most, False)
            # The text of an exception may quote the URL.
            raise HTTPFailed(f"{self.host}: {_kind(_inner(error))}") from None

    async def _answer(
        self, method: bytes, headers: Mapping[str, str], body: bytes, most: int
    ) -> Answer:
        from twisted.web.client import FileBodyProducer
        from twisted.web.http_headers import Headers

        said = Headers({name: [value] for name, value in headers.items()})
        said.addRawHeader("User-Agent", "submitd")
        producer = FileBodyProducer(BytesIO(body)) if body else None
        response = await self._agent.request(method, self._url, said, producer)
        if not most:
            response.deliverBody(_Unread())
            return Answer(response.code, b"")
        reader = _Reader(most, self.host)
        response.deliverBody(reader)
        return Answer(response.code, await reader.body)


def _inner(error: Exception) -> BaseException:
    """An exception, or the first that it wraps."""
    reasons = getattr(error, "reasons", None)
    first: Any = reasons[0] if reasons else error
    inner: Any = first.value if isinstance(first, Failure) else first
    return inner or error


def _kind(error: BaseException) -> str:
    """What went wrong, in a word; for TLS, in OpenSSL's words."""
    from OpenSSL import SSL
    from service_identity import VerificationError

    if isinstance(error, VerificationError):
        return "TLS: the certificate is another server's"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return f"TLS: {error.args[0][-1][-1]}"
    return type(error).__name__


class _Unread(Protocol):
    """Ends the connection in place of reading."""

    def connectionMade(self) -> None:
        """The answer's body would come."""
        transport: Any = self.transport
        transport.loseConnection()


class _Reader(Protocol):
    """Reads an answer's body.

    :param most: octets; one that is longer is a failure.
    :ivar body: all of it, when it has come.
    """

    def __init__(self, most: int, host: str) -> None:
        self._most = most
        self._host = host
        self._read = bytearray()
        self._isOver = False
        self.body: Deferred[bytes] = Deferred(lambda _: self._end())

    def dataReceived(self, data: bytes) -> None:
        """More of it."""
        self._read += data
        if len(self._read) > self._most and not self._isOver:
            self._end()
            self.body.errback(HTTPFailed(f"{self._host}: more than {self._most} octets"))

    def _end(self) -> None:
        self._isOver = True
        transport: Any = self.transport
        transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """There is no more."""
        from twisted.web.client import ResponseDone
        from twisted.web.http import PotentialDataLoss

        if self._isOver:
            return
        self._isOver = True
        # An answer without a length ends with its connection; its reader sees what is missing.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.body.callback(bytes(self._read))
        else:
            self.body.errback(reason)


def makePool(reactor: Any, connections: int) -> Any:
    """Connections that are kept for the next question.

    :param connections: how many at most.
    """
    from twisted.web.client import HTTPConnectionPool

    pool: Any = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = connections
    pool.cachedConnectionTimeout = KEPT
    pool.retryAutomatically = False  # that is asked of URL.ask
    return pool


def makeAgent(reactor: Any, seconds: float, pool: Any = None, trust: Any = None) -> Any:
    """An agent that verifies certificates.

    :param seconds: for a connection.
    :param pool: from :func:`makePool`; without, no connection is kept.
    :param trust: the authorities that are trusted; ``None`` for the system's.
    """
    from twisted.web.client import Agent

    return Agent.usingEndpointFactory(reactor, _Endpoints(reactor, seconds, trust), pool)


class _Endpoints:
    """Where servers are connected to (IAgentEndpointFactory), quietly."""

    def __init__(self, reactor: Any, seconds: float, trust: Any) -> None:
        from twisted.web.client import BrowserLikePolicyForHTTPS, HostnameCachingHTTPSPolicy

        self._reactor = reactor
        self._seconds = seconds
        # Reading the system's authorities takes some 10 ms.
        self._policy = HostnameCachingHTTPSPolicy(BrowserLikePolicyForHTTPS(trust))

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        """The server of a URL."""
        host = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=self._seconds)
        if uri.scheme == b"https":
            return _Quiet(wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), host))
        return _Quiet(host)


@implementer(IStreamClientEndpoint)
@attrs.frozen
class _Quiet:
    """An endpoint without the two lines that Twisted logs for each connection of others' making."""

    _endpoint: Any

    def connect(self, factory: Any) -> Any:
        """Connect."""
        factory.noisy = False
        return self._endpoint.connect(factory)
