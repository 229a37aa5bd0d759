"""Metrics: what has happened so far, in numbers, for Prometheus and what reads its format.

Every log event is counted by its name, and of accepted messages their recipients and octets.  The
port of ``[metrics]`` shows them at ``/metrics``, to everybody who can connect: there is nothing in
them of any user, address or message.  With several workers each tells the parent what it has
counted since the last time (:meth:`Counts.taken`), and the parent adds it up: what a worker counted
in the second before it was killed is lost.
"""

# mypy: allow-untyped-calls
# twisted.web is not annotated throughout.

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from submitd import events
from submitd.events import MESSAGE_ACCEPTED, Event
from submitd.listener import ListenerService, endpointOf
from submitd.settings import ListenerSettings

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

RECIPIENTS, OCTETS = "accepted_recipients", "accepted_octets"

_EVENTS_HELP = "Log events, by name."
# Name, type and help of those of which there is one number.
_SINGLE = (
    (f"{RECIPIENTS}_total", "counter", "Recipients of accepted messages."),
    (f"{OCTETS}_total", "counter", "Octets of accepted messages."),
    ("connections", "gauge", "Connections of clients."),
    ("workers", "gauge", "Processes that serve."),
    ("start_time_seconds", "gauge", "When the service was started, since 1970."),
)
_EVENTS = [each.name for each in vars(events).values() if isinstance(each, Event)]


@implementer(ILogObserver)
class Counts:
    """Counts events.

    :ivar counted: each kind of event by its name, and :data:`RECIPIENTS` and :data:`OCTETS`.
    """

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """See ``ILogObserver``."""
        # Those of others may have anything under that name; and what a worker has logged, and
        # counted, the parent logs again.
        if "log_fields" not in event or "log_worker" in event:
            return
        name = event["event"]
        self.counted[name] += 1
        if name == MESSAGE_ACCEPTED.name:
            self.counted[RECIPIENTS] += event["recipients"]
            self.counted[OCTETS] += event["size"]

    def taken(self) -> dict[str, int]:
        """What has been counted since the last time."""
        counted, self.counted = dict(self.counted), Counter()
        return counted

    def add(self, counted: Mapping[str, int]) -> None:
        """Count what somebody else has counted."""
        self.counted.update(counted)

    def start(self) -> None:
        """Count from now on."""
        globalLogPublisher.addObserver(self)

    def stop(self) -> None:
        """Count no more."""
        globalLogPublisher.removeObserver(self)


def exposition(counted: Mapping[str, int], gauges: Mapping[str, float]) -> bytes:
    """The text that is shown.

    :param counted: as a :class:`Counts` has it.
    :param gauges: the others, by name.
    """
    # Also what has not happened yet: a rate needs a number to begin with.
    found = {**dict.fromkeys(_EVENTS, 0), **counted}
    single = {f"{name}_total": found.pop(name, 0) for name in (RECIPIENTS, OCTETS)} | dict(gauges)
    lines = _head("events_total", "counter", _EVENTS_HELP)
    lines += [f'submitd_events_total{{event="{name}"}} {found[name]}' for name in sorted(found)]
    for name, kind, told in _SINGLE:
        if name in single:
            lines += [*_head(name, kind, told), f"submitd_{name} {single[name]}"]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _head(name: str, kind: str, told: str) -> list[str]:
    return [f"# HELP submitd_{name} {told}", f"# TYPE submitd_{name} {kind}"]


class _Page(Resource):
    """What is at ``/metrics``."""

    isLeaf = True

    def __init__(self, text: Callable[[], bytes]) -> None:
        super().__init__()
        self._text = text

    def render_GET(self, request: Request) -> bytes:
        """The metrics as they are now."""
        request.setHeader(b"content-type", CONTENT_TYPE)
        return self._text()


class _Site(Site):
    """A site without a line in the log for each look at it."""

    noisy = False

    def log(self, request: Any) -> None:
        """Nothing."""


class MetricsService(MultiService):
    """The port that shows them.

    :param endpoint: where it listens.
    :param reactor: listens.
    :param gauges: what ``connections`` and ``workers`` are now.
    :ivar counts: what is shown.
    :raise CannotStart: for an endpoint that is none.
    """

    def __init__(
        self, endpoint: str, reactor: Any, gauges: Callable[[], Mapping[str, float]]
    ) -> None:
        super().__init__()
        self.counts = Counts()
        self._gauges = gauges
        self._began = time.time()
        root = Resource()
        root.putChild(b"metrics", _Page(self._text))
        site: Any = _Site(root)
        settings = ListenerSettings(endpoint=endpoint, tls="off", require_tls=False)
        self._listener = ListenerService(settings, endpointOf(settings, reactor), site)
        self._listener.setServiceParent(self)

    @property
    def address(self) -> IAddress | None:
        """Where it listens; ``None`` while it does not."""
        return self._listener.address

    def _text(self) -> bytes:
        gauges = {**self._gauges(), "start_time_seconds": self._began}
        return exposition(self.counts.counted, gauges)

    def startService(self) -> None:
        """Listen and count.

        :raise CannotStart: when it cannot listen.
        """
        self.counts.start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Close the port."""
        if self.running:
            self.counts.stop()
        closing: Deferred[None] = super().stopService()
        return closing
