"""Metrics: what has happened so far, in numbers, for Prometheus and what reads its format.

Every log event is counted by its name, and of accepted messages their recipients and octets.  The
port of ``[metrics]`` shows them (metricspage.py): there is nothing in them of any user, address or
message.  With several workers each tells the parent what it has counted since the last time
(:meth:`Counts.taken`), and the parent adds it up: what a worker counted in the second before it was
killed is lost.

How long the queue is, :class:`QueueLook` asks the spool now and then, in its thread; what shows it
waits for nobody.
"""

# mypy: allow-untyped-calls
# Twisted's services are not annotated throughout.

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from submitd import events
from submitd.events import MESSAGE_ACCEPTED, Event

if TYPE_CHECKING:
    from submitd.spool.records import Totals

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

RECIPIENTS, OCTETS = "accepted_recipients", "accepted_octets"

_EVENTS_HELP = "Log events, by name."
# Name, type and help of the others.
_OTHERS = (
    (f"{RECIPIENTS}_total", "counter", "Recipients of accepted messages."),
    (f"{OCTETS}_total", "counter", "Octets of accepted messages."),
    ("connections", "gauge", "Connections of clients."),
    ("workers", "gauge", "Processes that serve."),
    ("start_time_seconds", "gauge", "When the service was started, since 1970."),
    ("queue_messages", "gauge", "Messages in the spool that are not finished."),
    ("queue_recipients", "gauge", "Recipients in the spool, by where they stand."),
    ("queue_oldest_seconds", "gauge", "Age of the oldest message with such a recipient."),
)
PLACES = ("due", "later", "underway", "held")
"""Where a recipient in the spool stands, as ``Totals`` has it."""

LOOK_EVERY = 15.0
"""Seconds between two looks at the queue."""

LOOK_SHARE = 50.0
"""How many times as long as the last look took it is until the next one, at least."""

LOOK_LIMIT = 30.0
"""Seconds after which a look without an answer counts as one that has failed."""

# What ends a label's value, or the line (the format, version 0.0.4).
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

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

    def open(self) -> None:
        """Count from now on."""
        globalLogPublisher.addObserver(self)

    def close(self) -> None:
        """Count no more."""
        globalLogPublisher.removeObserver(self)


class QueueLook(Service):
    """Looks now and then how long the queue is.

    A long queue is looked at more rarely.  While there is no answer, there are no numbers: better
    none than old ones.

    :param ask: the spool's ``totals()``.
    :param told: called with the gauges.
    :param reactor: calls later and tells the time.
    """

    def __init__(
        self,
        ask: Callable[[], Deferred[Totals]],
        told: Callable[[Mapping[str, float]], object],
        reactor: Any,
    ) -> None:
        self._ask = ask
        self._told = told
        self._reactor = reactor
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Look for the first time, as soon as the spool has been started, too."""
        super().startService()
        self._next = self._reactor.callLater(0, self._look)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _look(self) -> None:
        began = self._reactor.seconds()
        self._next = self._reactor.callLater(LOOK_LIMIT, self._told, {})
        asking = self._ask().addCallback(lambda totals: queueGauges(totals, time.time()))
        # What is wrong with the data base is said by those who cannot do without it.
        asking.addErrback(lambda _: {}).addCallback(self._answered, began)

    def _answered(self, gauges: Mapping[str, float], began: float) -> None:
        if not self.running:
            return
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._told(gauges)
        took = self._reactor.seconds() - began
        self._next = self._reactor.callLater(max(LOOK_EVERY, LOOK_SHARE * took), self._look)


def queueGauges(totals: Totals, now: float) -> dict[str, float]:
    """The gauges of a queue.

    :param now: in seconds since 1970.
    """
    gauges: dict[str, float] = {"queue_messages": totals.messages}
    for place in PLACES:
        arrived = totals.oldest.get(place, now)
        gauges[_sample("queue_recipients", "state", place)] = totals.recipients.get(place, 0)
        gauges[_sample("queue_oldest_seconds", "state", place)] = max(0.0, now - arrived)
    return gauges


def exposition(counted: Mapping[str, int], gauges: Mapping[str, float]) -> bytes:
    """The text that is shown.

    :param counted: as a :class:`Counts` has it.
    :param gauges: the others, by name, with a label where there are several of a name.
    """
    # Also what has not happened yet: a rate needs a number to begin with.
    found = {**dict.fromkeys(_EVENTS, 0), **counted}
    others = {f"{name}_total": found.pop(name, 0) for name in (RECIPIENTS, OCTETS)} | dict(gauges)
    lines = _head("events_total", "counter", _EVENTS_HELP)
    lines += [
        f"submitd_{_sample('events_total', 'event', name)} {found[name]}" for name in sorted(found)
    ]
    for name, kind, told in _OTHERS:
        samples = [each for each in others if each.partition("{")[0] == name]
        if samples:
            lines += _head(name, kind, told)
            lines += [f"submitd_{each} {others[each]}" for each in samples]
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def _sample(name: str, label: str, value: str) -> str:
    return f'{name}{{{label}="{value.translate(_ESCAPES)}"}}'


def _head(name: str, kind: str, told: str) -> list[str]:
    return [f"# HELP submitd_{name} {told}", f"# TYPE submitd_{name} {kind}"]
