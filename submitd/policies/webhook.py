"""A web hook: facts as a JSON object, sent by POST.

Redirections are not followed, what is answered is not read, and only 2yz is success.  Connecting
and answering together have :data:`HOOK_TIME` seconds.  A URL may have a secret in it, so no more
than its host is ever named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any, NoReturn
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

HOOK_TIME = 30.0
"""Seconds for all of it."""


class HookFailed(Exception):
    """Nobody was told; the text says why, and names no secret."""


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


class WebHook:
    """One URL.

    :param url: without a mistake.
    :param agent: a :class:`twisted.web.client.Agent`.
    :param clock: for the time limit.
    """

    def __init__(self, url: str, agent: Any, clock: IReactorTime) -> None:
        self._url = url.encode("ascii")
        self._agent = agent
        self._clock = clock
        self.host = urlsplit(url).hostname or ""

    def tell(self, facts: Mapping[str, str]) -> Deferred[None]:
        """Send the facts.

        :return: fails with :class:`HookFailed`.
        """
        return Deferred.fromCoroutine(self._tell(facts))

    async def _tell(self, facts: Mapping[str, str]) -> None:
        # Imported where they are used: most services have no hook.
        from twisted.web.client import FileBodyProducer
        from twisted.web.http_headers import Headers

        body = FileBodyProducer(BytesIO(json.dumps(dict(facts)).encode("ascii")))
        headers = Headers({"Content-Type": ["application/json"], "User-Agent": ["submitd"]})
        asking: Deferred[Any] = self._agent.request(b"POST", self._url, headers, body)
        asking.addTimeout(HOOK_TIME, self._clock, onTimeoutCancel=_late)
        try:
            response = await asking
        except Exception as error:
            # The text of an exception may quote the URL.
            raise HookFailed(f"{self.host}: {_kind(error)}") from None
        response.deliverBody(_Unread())
        if not 200 <= response.code < 300:
            raise HookFailed(f"{self.host}: answered {response.code}")


def _late(result: object, seconds: float) -> NoReturn:
    # Where an agent is asked already, it wraps what cancels it, and nobody would see that.
    raise TimeoutError


def _kind(error: Exception) -> str:
    """The name of an exception, or of the first that it wraps."""
    reasons = getattr(error, "reasons", None)
    inner = reasons[0] if reasons else error
    return type(inner.value if isinstance(inner, Failure) else inner).__name__


class _Unread(Protocol):
    """Ends the connection in place of reading."""

    def connectionMade(self) -> None:
        """The answer's body would come."""
        transport: Any = self.transport
        transport.loseConnection()


def makeHook(url: str, reactor: Any) -> WebHook:
    """A hook with an agent of its own: certificates are verified, no connection is kept."""
    from twisted.web.client import Agent

    return WebHook(url, Agent(reactor, connectTimeout=HOOK_TIME), reactor)
