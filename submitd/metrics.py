"""Metrics: what has happened so far, in numbers, for Prometheus and what reads its format.

Every log event is counted by its name, and of accepted messages their recipients and octets.  The
port of ``[metrics]`` shows them (metricspage.py): there is nothing in them of any user, address or
message.  With several workers each tells the parent what it has counted since the last time
(:meth:`Counts.taken`), and the parent adds it up: what a worker counted in the second before it was
killed is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from submitd import events
from submitd.events import MESSAGE_ACCEPTED, Event

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
