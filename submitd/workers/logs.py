"""The log of a worker, which the parent writes: as events, or as lines that are formatted already.

Both ends are here.  What goes through the channel is bounded, for the parent reads it whole.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from submitd import events
from submitd.workers.channel import Channel, Message

MAX_TEXT = 8192
"""Characters that are sent to the parent's log in one message, each of them 12 octets at worst."""


def portable(event: dict[str, Any]) -> Message:
    """An event as it is sent to the parent; what is too long is cut."""
    names = event.get("log_fields")
    said: Message = {
        "time": event.get("log_time", 0.0),
        "level": (event.get("log_level") or LogLevel.info).name,
        "namespace": event.get("log_namespace", "-"),
        "text": event["log_text"] if names is not None else formatEvent(event),
    }
    if names is not None:
        said["event"] = event["event"]
        said["fields"] = {name: event[name] for name in names}
    if "log_failure" in event:
        said["text"] += "\n" + event["log_failure"].getTraceback()[-events.MAX_TRACEBACK :]
    if len(said["text"]) > MAX_TEXT:
        said["text"] = said["text"][: MAX_TEXT - 3] + "..."
    if "fields" in said and len(str(said["fields"])) > MAX_TEXT:
        said["fields"] = {}
    return said


class LinesToParent:
    """The parent's text log, as a file that is written to.

    :param channel: to the parent.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def write(self, text: str) -> None:
        """Write lines, as many together as there is room for in a message."""
        start = 0
        while start < len(text):
            bound = start + MAX_TEXT
            end = len(text) if len(text) <= bound else text.rfind("\n", start, bound) + 1 or bound
            self._channel.send({"lines": text[start:end]})
            start = end

    def flush(self) -> None:
        """Nothing is kept back."""


def relog(record: Message) -> None:
    """Log what a worker has logged."""
    event: dict[str, Any] = {
        "log_format": "{log_text}",
        "log_text": record["text"],
        "log_logger": events.log,
        "log_level": LogLevel.lookupByName(record["level"]),
        "log_namespace": record["namespace"],
        "log_source": None,
        "log_time": record["time"],
        "log_worker": True,
    }
    if "event" in record:
        event.update(record["fields"])
        event["event"] = record["event"]
        event["log_fields"] = list(record["fields"])
    globalLogPublisher(event)


def relogLines(lines: str, now: float) -> None:
    """Log what a worker has formatted.

    :param now: seconds since 1970.
    """
    globalLogPublisher(
        {
            "log_format": "{log_lines}",
            "log_lines": lines,
            "log_logger": events.log,
            "log_level": LogLevel.info,
            "log_namespace": "submitd",
            "log_source": None,
            "log_time": now,
            "log_worker": True,
        }
    )
