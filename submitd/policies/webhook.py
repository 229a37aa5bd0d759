"""A web hook: facts as a JSON object, sent by POST.

What is answered is not read, and only 2yz is success.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from submitd.http import URL, HTTPFailed, makeAgent

HOOK_TIME = 30.0
"""Seconds for all of it."""


class WebHook:
    """One URL.

    :param url: without a mistake.
    :param agent: a :class:`twisted.web.client.Agent`.
    :param clock: for the time limit.
    """

    def __init__(self, url: str, agent: Any, clock: IReactorTime) -> None:
        self._url = URL(url, agent, clock)

    def tell(self, facts: Mapping[str, str]) -> Deferred[None]:
        """Send the facts.

        :return: fails with :class:`submitd.http.HTTPFailed`.
        """
        return Deferred.fromCoroutine(self._tell(facts))

    async def _tell(self, facts: Mapping[str, str]) -> None:
        body = json.dumps(dict(facts)).encode("ascii")
        headers = {"Content-Type": "application/json"}
        answer = await self._url.ask(b"POST", headers, body, seconds=HOOK_TIME)
        if not 200 <= answer.code < 300:
            raise HTTPFailed(f"{self._url.host}: answered {answer.code}")


def makeHook(url: str, reactor: Any) -> WebHook:
    """A hook with an agent of its own: certificates are verified, no connection is kept."""
    return WebHook(url, makeAgent(reactor, HOOK_TIME), reactor)
