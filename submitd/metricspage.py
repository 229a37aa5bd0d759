"""The port of ``[metrics]``: at ``/metrics``, for everybody who can connect.

It is imported where that is wanted alone, for Twisted's web server with it.
"""

# mypy: allow-untyped-calls
# twisted.web is not annotated throughout.

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.interfaces import IAddress
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from submitd.listener import ListenerService, endpointOf
from submitd.metrics import CONTENT_TYPE, Counts, exposition
from submitd.settings import ListenerSettings


class _Page(Resource):
    """What is at ``/metrics``."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        super().__init__()
        self._text = text

    def render_GET(self, request: Request) -> int:
        """The metrics as they are now."""
        text = self._text()
        request.setHeader(b"content-type", CONTENT_TYPE)
        request.setHeader(b"content-length", b"%d" % len(text))
        # Not as the result: with HEAD each would be a line in the log.
        request.write(text)
        request.finish()
        return NOT_DONE_YET


class _Request(Request):
    """A request whose content is thrown away, and not kept in a file until its end."""

    def gotLength(self, length: int | None) -> None:
        """As if there were none."""
        super().gotLength(0)

    def handleContentChunk(self, data: bytes) -> None:
        """Nothing."""


class _Site(Site):
    """A site without a line in the log for each look at it."""

    noisy = False
    requestFactory = _Request

    def log(self, request: Any) -> None:
        """Nothing."""


class MetricsService(MultiService):
    """The port that shows them.

    :param endpoint: where it listens.
    :param reactor: listens.
    :param counts: what is shown; it belongs to somebody who has it count from before the start.
    :param gauges: what ``connections`` and ``workers`` are now.
    :ivar queue: the gauges of the queue.
    :raise CannotStart: for an endpoint that is none.
    """

    def __init__(
        self,
        endpoint: str,
        reactor: Any,
        counts: Counts,
        gauges: Callable[[], Mapping[str, float]],
    ) -> None:
        super().__init__()
        self.queue: Mapping[str, float] = {}
        self._counts = counts
        self._gauges = gauges
        self._began = time.time()
        root = Resource()
        root.putChild(b"metrics", _Page(self._text))
        site: Any = _Site(root, reactor=reactor)
        settings = ListenerSettings(endpoint=endpoint, tls="off", require_tls=False)
        self._listener = ListenerService(settings, endpointOf(settings, reactor), site)
        self._listener.setServiceParent(self)

    @property
    def address(self) -> IAddress | None:
        """Where it listens; ``None`` while it does not."""
        return self._listener.address

    def show(self, queue: Mapping[str, float]) -> None:
        """Show how long the queue is, from now on."""
        self.queue = queue

    def _text(self) -> bytes:
        gauges = {**self._gauges(), **self.queue, "start_time_seconds": self._began}
        return exposition(self._counts.counted, gauges)
