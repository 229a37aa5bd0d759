"""Every log event, by name, in one place.

An :class:`Event` names the fields it takes, and :func:`emit` takes no others: what is not named
here cannot reach a log, and no field can be named for a password, a token or another secret.
Values are data: before an observer sees them, what is not printable is replaced and what is long
is cut, and in a line of text a value that could be read as two is put in quotes; so no client can
forge a line or a field of one.

Events are twisted.logger's and go to whatever observers are installed.  As text, one is
``message accepted: session=... id=...``; :func:`jsonObserver` writes one JSON object per line.
:func:`textObserver` writes the lines of Twisted's own text observer at less than half its price.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import NoneType
from typing import Any, TextIO

import attrs
from twisted.logger import (
    Logger,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from submitd.logwriter import LogWriter

# Longest value of one field, in characters: RFC 5321 4.5.3.1.3 gives a path 256 octets.
MAX_VALUE = 512
# A traceback is ours, not a client's; but an exception's text may quote a client at any length.
MAX_TRACEBACK = 8192

# One observer for all; Logger.emit itself looks each level up again, which costs as much as the
# rest of an event (it is on the path of every message), so emit() below hands over the dict.
log = Logger(namespace="submitd")

_SECRET = re.compile(r"passw|secret|credential|token|response|challenge|private", re.IGNORECASE)
# What twisted.logger and twisted.python.log keep for themselves in an event.
_TAKEN = frozenset({"event", "time", "system", "message", "format", "isError", "why", "level"})
# What is shown as it is: printable ASCII without space, quote, backslash and equals sign.
_PLAIN = rf"[!#-<>-\[\]-~]{{1,{MAX_VALUE}}}"
_SIMPLE = frozenset({str, int, float, NoneType})
_NEEDS_QUOTES = re.compile(r'[\s"=]')


def _fieldNames(event: Event, attribute: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if _SECRET.search(name):
            raise ValueError(f"no event may carry a secret: {name}")
        if name in _TAKEN or name.startswith("log_"):
            raise ValueError(f"the log keeps this name for itself: {name}")


@attrs.frozen(eq=False)
class Event:
    """One kind of log event.

    :param name: for machines: ``message-accepted``.
    :param text: for people: ``message accepted``.
    :param fields: names of the values it carries, in the order of the text; ``failure`` is a
        ``Failure``, whose traceback is logged too.
    :raise ValueError: for a field that is named like a secret, or that the log itself uses.
    """

    name: str
    text: str
    fields: tuple[str, ...] = attrs.field(validator=_fieldNames)
    level: Any = LogLevel.info
    _template: str = attrs.field(init=False)
    _isPlain: Callable[[str], object] = attrs.field(init=False)

    @_template.default
    def _makeTemplate(self) -> str:
        return f"{self.text}: " + " ".join(f"{name}=%s" for name in self.fields)

    @_isPlain.default
    def _makePattern(self) -> Callable[[str], object]:
        # A value can pass for two in the text only with a space or an equals sign in it.
        pairs = " ".join(f"{name}={_PLAIN}" for name in self.fields)
        return re.compile(f"{re.escape(self.text)}: {pairs}").fullmatch

    def plain(self, fields: dict[str, Any]) -> str | None:
        """The text, where all fields are there and none needs care; most events are like that."""
        if not fields or tuple(fields) != self.fields:
            return None
        values = tuple(fields.values())
        kinds = {*map(type, values)}
        if not kinds <= _SIMPLE:
            return None
        if NoneType in kinds:
            values = tuple(["-" if value is None else value for value in values])
        text = self._template % values
        return text if self._isPlain(text) else None


CONNECTION_CLOSED = Event(
    "connection-closed",
    "connection closed",
    ("session", "peer", "user", "secure", "seconds", "commands", "messages", "reason"),
)
TLS_FAILED = Event("tls-failed", "TLS handshake failed", ("session", "peer", "cause"))
TLS_RELOADED = Event("tls-reloaded", "certificates reloaded", ("files", "expires"))
TLS_NOT_RELOADED = Event(
    "tls-not-reloaded", "not reloaded, the old one stays", ("problem",), LogLevel.warn
)
TLS_OUT_OF_TIME = Event(
    "tls-out-of-time", "clients will refuse a certificate", ("problem",), LogLevel.warn
)
LOGIN_SUCCEEDED = Event(
    "login-succeeded", "login", ("session", "peer", "user", "mechanism", "secure")
)
LOGIN_FAILED = Event(
    "login-failed",
    "login failed",
    ("session", "peer", "user", "mechanism", "cause"),
    LogLevel.warn,
)
PROXY_REFUSED = Event("proxy-refused", "PROXY header refused", ("peer", "cause"), LogLevel.warn)
XCLIENT_ACCEPTED = Event(
    "xclient-accepted", "client named by proxy", ("session", "proxy", "peer", "port")
)
LOOKUP_FAILED = Event(
    "lookup-failed", "reverse lookup failed", ("session", "peer", "cause"), LogLevel.warn
)
MESSAGE_ACCEPTED = Event(
    "message-accepted",
    "message accepted",
    ("session", "id", "peer", "user", "sender", "recipients", "size", "protocol"),
)
# When it is to go out, where the client has said so: priority, hold and deadline as in MAIL.
MESSAGE_TIMED = Event("message-timed", "message timed", ("session", "id", "asked"))
# ``command`` is the verb alone: what follows it may be a password (RFC 4954 4).  ``address`` is
# that of MAIL or RCPT, where it is one; ``id`` to ``size`` are the message's.  ``waits`` says how
# long which policies took their time, ``waited`` the whole command, ``seconds`` the session.
REFUSED = Event(
    "refused",
    "refused",
    (
        *("session", "peer", "user", "command", "reply", "cause", "origin"),
        *("refusal", "address", "id", "sender", "recipients", "size"),
        *("seconds", "waited", "waits"),
    ),
)
NOT_SIGNED = Event("not-signed", "message not signed", ("session", "id", "cause"))
POLICY_FAILED = Event(
    "policy-failed", "policy failed", ("session", "origin", "failure"), LogLevel.error
)
SUBMISSION_REPEATED = Event(
    "submission-repeated", "submission repeated", ("session", "id", "first", "user")
)
LEASE_TAKEN_OVER = Event(
    "lease-taken-over", "lease taken over", ("id", "recipients"), LogLevel.warn
)
MESSAGE_DAMAGED = Event("message-damaged", "message damaged", ("id", "problem"), LogLevel.error)
# ``reply`` is what the next hop said, or what we say in its place.
_RECIPIENT = ("id", "sender", "recipient", "host", "attempts", "reply")
RECIPIENT_DELIVERED = Event("recipient-delivered", "delivered", _RECIPIENT)
RECIPIENT_DELAYED = Event("recipient-delayed", "delayed", (*_RECIPIENT, "due"))
RECIPIENT_FAILED = Event("recipient-failed", "failed", _RECIPIENT, LogLevel.warn)
RECIPIENT_EXPIRED = Event("recipient-expired", "expired", _RECIPIENT, LogLevel.warn)
DELIVERY_ATTEMPTED = Event(
    "delivery-attempted",
    "delivery attempted",
    ("id", "recipient", "host", "result", "reply", "seconds"),
    LogLevel.debug,
)
# ``seconds`` is for how long; ``route`` the section of the configuration that names the next hop.
NEXT_HOP_AWAY = Event(
    "next-hop-away", "next hop away", ("route", "host", "reply", "seconds"), LogLevel.warn
)
NEXT_HOP_BACK = Event("next-hop-back", "next hop back", ("route", "host", "seconds"))
# Hosts that DNS names: nothing that the operator could mend, and there is often another one.
HOST_AWAY = Event("host-away", "host away", ("domain", "host", "reply", "seconds"))
HOST_BACK = Event("host-back", "host back", ("domain", "host", "seconds"))
REPORTED = Event("reported", "reported", ("id", "report", "sender", "recipient", "action"))
RELAY_PROBLEM = Event("relay-problem", "relay problem", ("id", "problem"), LogLevel.warn)
# ``seconds`` is for how long.
QUEUE_AWAY = Event(
    "queue-away", "queue cannot keep messages", ("queue", "cause", "seconds"), LogLevel.error
)
QUEUE_BACK = Event("queue-back", "queue keeps messages again", ("queue", "seconds"))
QUEUE_CHANGED = Event("queue-changed", "queue changed", ("id", "action", "who", "recipients"))
LIMIT_NEAR = Event(
    "limit-near",
    "limit near",
    ("session", "peer", "user", "scope", "what", "limit", "used"),
    LogLevel.warn,
)
LOGIN_BLOCKED = Event(
    "login-blocked",
    "login blocked",
    ("session", "peer", "scope", "limit", "user"),
    LogLevel.warn,
)
COPY_FAILED = Event(
    "copy-failed", "copy failed", ("session", "id", "copy", "cause"), LogLevel.error
)
DELEGATION_AWAY = Event(
    "delegation-away", "delegation away", ("policy", "cause", "verdict"), LogLevel.error
)
DELEGATION_BACK = Event("delegation-back", "delegation back", ("policy",))
DELEGATION_ACTION = Event(
    "delegation-action",
    "delegation action",
    ("session", "id", "peer", "user", "policy", "stage", "action", "problem"),
)
MESSAGE_DISCARDED = Event(
    "message-discarded",
    "message discarded",
    ("session", "id", "peer", "user", "sender", "recipients", "size", "reason"),
)
ADDRESS_REWRITTEN = Event(
    "address-rewritten", "address rewritten", ("session", "id", "where", "before", "after")
)
MESSAGE_HELD = Event("message-held", "message held", ("session", "id", "peer", "user", "reason"))
BRAKE_APPLIED = Event(
    "brake-applied",
    "brake applied",
    ("session", "id", "peer", "user", "reason", "until"),
    LogLevel.error,
)
BRAKE_PROBLEM = Event("brake-problem", "brake problem", ("problem",), LogLevel.error)
BRAKE_BACK = Event("brake-back", "brake can use its file again", ("file",))
FILTER_FAILED = Event(
    "filter-failed",
    "filter failed",
    ("session", "policy", "stage", "cause", "verdict"),
    LogLevel.error,
)
FILTER_BACK = Event("filter-back", "filter answers again", ("policy",))
COUNTERS_AWAY = Event(
    "counters-away", "counters away", ("policy", "cause", "verdict"), LogLevel.error
)
COUNTERS_BACK = Event("counters-back", "counters back", ("policy",))
FILE_READ = Event("file-read", "file read", ("file", "entries"))
FILE_PROBLEM = Event("file-problem", "file problem", ("file", "line", "problem"), LogLevel.warn)
SERVICE_STARTED = Event("service-started", "service started", ("hostname", "release"))
SERVICE_LISTENING = Event("service-listening", "listening", ("endpoint", "tls"))
SERVICE_STOPPED = Event("service-stopped", "service stopped", ("hostname", "reason"))
SERVICE_RELOADED = Event("service-reloaded", "service reloaded", ("workers",))
SERVICE_NOT_RELOADED = Event(
    "service-not-reloaded", "not reloaded, all stays as it was", ("problem",), LogLevel.error
)
# ``process`` is the process id; ``again`` the seconds until there is another one.
WORKER_STARTED = Event("worker-started", "worker started", ("worker", "process"))
WORKER_ENDED = Event("worker-ended", "worker ended", ("worker", "process"))
WORKER_DIED = Event(
    "worker-died", "worker died", ("worker", "process", "cause", "again"), LogLevel.error
)
SERVICE_PROBLEM = Event("service-problem", "service problem", ("problem", "failure"), LogLevel.warn)


def emit(event: Event, **fields: Any) -> None:
    """Log an event.  Fields that are left out are not shown.

    Observers find ``event`` (its name), each field, cleaned, under its own name, and the names of
    those present under ``log_fields``.

    :param event: one of this module, or an :class:`Event` of your own.
    :param fields: values for its fields: text, bytes, numbers, ``None``, or anything with a
        ``str()``; ``failure`` is a ``Failure``.
    :raise TypeError: for a field the event does not name.
    """
    published: dict[str, Any] = {
        "event": event.name,
        # One field is the cheapest format, and braces in a value mean nothing in it.
        "log_format": "{log_text}",
        "log_logger": log,
        "log_level": event.level,
        "log_namespace": log.namespace,
        "log_source": None,
        "log_time": time.time(),
    }
    text = event.plain(fields)
    if text is not None:
        published.update(fields)
        published["log_fields"] = event.fields
        published["log_text"] = text
    else:
        _format(published, event, fields)
    log.observer(published)


def _format(published: dict[str, Any], event: Event, fields: dict[str, Any]) -> None:
    names = [name for name in event.fields if name in fields]
    if len(names) != len(fields):
        raise TypeError(f"{event.name} has no field {', '.join(sorted({*fields} - {*names}))}")
    if "failure" in fields:
        names.remove("failure")
        published["log_failure"] = fields["failure"]
    text = f"{event.text}:" if names else event.text
    for name in names:
        value = _clean(fields[name])
        text += f" {name}={_quoted(value)}"
        published[name] = value
    published["log_fields"] = names
    published["log_text"] = text


def _clean(value: Any) -> Any:
    """The value as a log may show it: a number or ``None`` as it is, else a bounded, safe text."""
    if type(value) is not str:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, bytes):
            value = value[: MAX_VALUE + 1].decode("utf-8", "backslashreplace")
        else:
            value = safe_str(value)
    if len(value) > MAX_VALUE:
        value = value[: MAX_VALUE - 3] + "..."
    if not value.isprintable():
        value = _escaped(value)
    return value


def _escaped(value: str) -> str:
    """Controls, line separators, direction marks and surrogates shown as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in value
    )


def _quoted(value: Any) -> str:
    text = "-" if value is None else str(value)
    if not text or _NEEDS_QUOTES.search(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _traceback(failure: Failure) -> str:
    """A traceback within bounds: its end, for that is where the exception stands."""
    text = failure.getTraceback()
    return text if len(text) <= MAX_TRACEBACK else "..." + text[-MAX_TRACEBACK:]


def jsonObserver(outFile: TextIO, reactor: Any = None) -> LogWriter:
    """An observer that writes one JSON object per line.

    Each has ``time`` (ISO 8601, UTC), ``level``, ``event`` and the event's fields; an event of
    somebody else is called ``log`` and has ``namespace`` and ``message``.  A failure adds
    ``traceback``.

    :param outFile: a text file open for writing.
    :param reactor: tells when lines that waited for others are written; ``None``: each at once.
    """
    return LogWriter(outFile, asJson, reactor)


def asJson(event: dict[str, Any]) -> str:
    """An event as :func:`jsonObserver` writes it, a line."""
    when = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    level = event.get("log_level")
    record: dict[str, Any] = {
        "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name if level is not None else "info",
        "event": "log",
    }
    names = event.get("log_fields")
    if names is None:
        record["namespace"] = _clean(event.get("log_namespace", "-"))
        record["message"] = _clean(formatEvent(event))
    else:
        record["event"] = event["event"]
        record.update((name, event[name]) for name in names)
    if "log_failure" in event:
        record["traceback"] = _traceback(event["log_failure"])
    return json.dumps(record) + "\n"


def textObserver(outFile: TextIO, reactor: Any = None) -> LogWriter:
    """An observer that writes the lines of ``twisted.logger.textFileLogObserver``, only faster.

    :param outFile: a text file open for writing.
    :param reactor: as for :func:`jsonObserver`.
    """
    return LogWriter(outFile, TextLines(), reactor)


class TextLines:
    """Formats an event as Twisted does, and makes the time stamp once per second.

    An event with ``log_lines`` is what another process has formatted.
    """

    def __init__(self) -> None:
        self._second = -1
        self._stamp = ""

    def __call__(self, event: dict[str, Any]) -> str | None:
        if "log_fields" not in event or "log_failure" in event:
            lines: str | None = event.get("log_lines")
            return lines or formatEventAsClassicLogText(event, self._time)
        stamp = self._time(event["log_time"])
        return f"{stamp} [submitd#{event['log_level'].name}] {event['log_text']}\n"

    def _time(self, when: float | None) -> str:
        if when is None:
            return formatTime(None)
        if int(when) != self._second:
            self._second = int(when)
            self._stamp = formatTime(when)
        return self._stamp
