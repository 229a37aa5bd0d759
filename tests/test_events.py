"""Events: names, fields, and what observers make of them."""

from __future__ import annotations

import io
import json
from typing import Any

from twisted.logger import (
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from submitd import events

# The logger as it is when nobody has patched it.
LOG = events.log


class Unprintable:
    """An object that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class EventsTestCase(SynchronousTestCase):
    """Collects what is emitted, in a publisher of its own."""

    def setUp(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.publisher = LogPublisher(self.seen.append)
        self.patch(events, "log", Logger(namespace="submitd", observer=self.publisher))

    def text(self, **fields: Any) -> str:
        """The text of one MESSAGE_ACCEPTED."""
        events.emit(events.MESSAGE_ACCEPTED, **fields)
        text: str = self.seen[-1]["log_text"]
        return text


class CatalogueTests(SynchronousTestCase):
    """All events of the module."""

    catalogue = [each for each in vars(events).values() if isinstance(each, events.Event)]

    def test_noSecrets(self) -> None:
        """No event has a field that could carry a password, a token or a key."""
        self.assertGreater(len(self.catalogue), 10)
        for event in self.catalogue:
            for name in event.fields:
                self.assertNotRegex(name, "(?i)pass|secret|cred|token|response|challenge|key|auth")

    def test_names(self) -> None:
        """Each event has a name of its own, so that it can be counted by it."""
        names = [event.name for event in self.catalogue]
        self.assertEqual(len(names), len(set(names)))

    def test_secretFieldRefused(self) -> None:
        """An event of somebody's own cannot name a secret either."""
        for name in ("password", "clientSecret", "accessToken", "credentials", "private"):
            with self.assertRaises(ValueError):
                events.Event("mine", "mine", (name,))

    def test_takenFieldRefused(self) -> None:
        """A field cannot hide what the log itself keeps under that name."""
        for name in ("event", "time", "isError", "log_time", "level"):
            with self.assertRaises(ValueError):
                events.Event("mine", "mine", (name,))


class EmitTests(EventsTestCase):
    """emit()."""

    def test_published(self) -> None:
        """Observers find the name, the level and each field."""
        events.emit(events.LOGIN_FAILED, session="S", user="alice", mechanism="PLAIN")
        [event] = self.seen
        self.assertEqual(event["event"], "login-failed")
        self.assertEqual(event["session"], "S")
        self.assertEqual(event["user"], "alice")
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertEqual(event["log_fields"], ["session", "user", "mechanism"])
        self.assertNotIn("cause", event)

    def test_toGlobalPublisher(self) -> None:
        """Events reach the observers that twistd installs, through the module's own logger."""
        self.assertIs(LOG.observer, globalLogPublisher)

    def test_text(self) -> None:
        """The text names each field, in the order of the event."""
        self.assertEqual(
            self.text(size=12, session="S", user=None, sender="<a@example.com>"),
            "message accepted: session=S user=- sender=<a@example.com> size=12",
        )

    def test_textWithoutFields(self) -> None:
        """An event without fields is its text."""
        events.emit(events.SERVICE_STARTED)
        self.assertEqual(self.seen[0]["log_text"], "service started")

    def test_unknownField(self) -> None:
        """A field that the event does not name is a mistake, so that nothing slips into a log."""
        with self.assertRaises(TypeError):
            events.emit(events.LOGIN_FAILED, session="S", password="x")
        self.assertEqual(self.seen, [])

    def test_lineFeeds(self) -> None:
        """A client cannot begin a line of the log, by any character that some reader breaks at."""
        for broken in ("\n", "\r", "\r\n", "\x00", "\x1b", "\x85", "\u2028", "\u2029", "\u202e"):
            text = self.text(sender=f"a{broken}2026-01-01 login: user=root")
            self.assertTrue(text.isprintable(), ascii(text))

    def test_fields(self) -> None:
        """A client cannot forge a field: what could be read as two is in quotes."""
        self.assertEqual(
            self.text(sender='<"a size=1 \\" b"@example.com>', size=2),
            r'message accepted: sender="<\"a size=1 \\\" b\"@example.com>" size=2',
        )
        self.assertEqual(self.text(user=""), 'message accepted: user=""')

    def test_bounded(self) -> None:
        """A value of any length takes a bounded part of a line."""
        self.text(sender="x" * 100_000)
        self.assertEqual(len(self.seen[0]["sender"]), events.MAX_VALUE)
        self.assertTrue(self.seen[0]["sender"].endswith("..."))
        self.text(sender=b"\xff" * 100_000)
        self.assertEqual(len(self.seen[1]["sender"]), events.MAX_VALUE)

    def test_bytes(self) -> None:
        """Bytes are shown as UTF-8, and what is none of it as escapes."""
        self.text(user="zoë".encode() + b"\xff\n")
        self.assertEqual(self.seen[0]["user"], "zoë\\xff\\n")

    def test_surrogates(self) -> None:
        """Half a character cannot make writing the log fail."""
        self.assertIn("\\ud800", self.text(user="\ud800"))

    def test_otherObjects(self) -> None:
        """Any object can be a value, even one that cannot be shown."""
        self.text(user=Unprintable())
        self.assertIn("Unprintable", self.seen[0]["user"])

    def test_braces(self) -> None:
        """Braces in a value mean nothing to the log's formatting."""
        out = io.StringIO()
        self.publisher.addObserver(textFileLogObserver(out))
        self.text(sender="{log_logger} {0}{")
        self.assertIn('sender="{log_logger} {0}{"', out.getvalue())

    def test_failure(self) -> None:
        """A failure is logged with its traceback, and is no field."""
        failure = Failure(ZeroDivisionError("oops"))
        events.emit(events.POLICY_FAILED, session="S", origin="mine", failure=failure)
        self.assertIs(self.seen[0]["log_failure"], failure)
        self.assertEqual(self.seen[0]["log_text"], "policy failed: session=S origin=mine")
        self.assertEqual(self.seen[0]["log_level"], LogLevel.error)


class JsonTests(EventsTestCase):
    """jsonObserver."""

    def setUp(self) -> None:
        super().setUp()
        self.out = io.StringIO()
        self.publisher.addObserver(events.jsonObserver(self.out))

    def record(self) -> dict[str, Any]:
        """The one line that was written."""
        text = self.out.getvalue()
        self.assertEqual(text.count("\n"), 1)
        self.assertTrue(text.endswith("\n"))
        parsed: dict[str, Any] = json.loads(text)
        return parsed

    def test_event(self) -> None:
        """A line has the time in UTC, the level, the name, the fields, and nothing else."""
        self.patch(events.time, "time", lambda: 1_000_000_000.25)
        self.text(session="S", size=3, user=None, sender="<zoë@example.com>")
        self.assertEqual(
            self.record(),
            {
                "time": "2001-09-09T01:46:40.250Z",
                "level": "info",
                "event": "message-accepted",
                "session": "S",
                "user": None,
                "sender": "<zoë@example.com>",
                "size": 3,
            },
        )

    def test_foreignEvent(self) -> None:
        """What Twisted itself logs is one bounded line as well."""
        Logger(namespace="other", observer=self.publisher).warn("a\nb {x}", x="y" * 9999)
        record = self.record()
        self.assertEqual((record["event"], record["level"]), ("log", "warn"))
        self.assertEqual(record["namespace"], "other")
        self.assertTrue(record["message"].startswith("a\\nb yyy"))
        self.assertEqual(len(self.seen), 1)

    def test_bareEvent(self) -> None:
        """An event without level or time, as old observers make them, is written too."""
        self.publisher({"log_format": "hello"})
        self.assertEqual(self.record()["level"], "info")

    def test_traceback(self) -> None:
        """A failure adds its traceback, in the same line and within bounds."""
        failure = Failure(ZeroDivisionError("oops\n" * 9999))
        events.emit(events.POLICY_FAILED, session="S", failure=failure)
        record = self.record()
        self.assertEqual(record["session"], "S")
        self.assertLessEqual(len(record["traceback"]), events.MAX_TRACEBACK + 3)
        self.assertIn("oops", record["traceback"])

    def test_shortTraceback(self) -> None:
        """A traceback within the bounds is whole."""
        failure = Failure(ZeroDivisionError("oops"))
        events.emit(events.POLICY_FAILED, session="S", failure=failure)
        self.assertEqual(self.record()["traceback"], failure.getTraceback())


class TextTests(EventsTestCase):
    """textObserver."""

    def setUp(self) -> None:
        super().setUp()
        self.ours, self.theirs = io.StringIO(), io.StringIO()
        self.publisher.addObserver(events.textObserver(self.ours))
        self.publisher.addObserver(textFileLogObserver(self.theirs))

    def test_sameLines(self) -> None:
        """Every kind of event gives the line that Twisted's own observer writes."""
        self.text(session="S", sender="<a@example.com>")
        self.text(session="S", sender='"a b"')
        events.emit(events.POLICY_FAILED, session="S", failure=Failure(ZeroDivisionError("oops")))
        Logger(namespace="other", observer=self.publisher).info("hello {x}", x=1)
        self.assertEqual(self.ours.getvalue(), self.theirs.getvalue())
        self.assertEqual(len(self.seen), 4)

    def test_stamp(self) -> None:
        """The time stamp follows the clock although it is made once per second."""
        times = iter([10.0, 10.9, 11.0, 1_000_000_000.0])
        self.patch(events.time, "time", lambda: next(times))
        for _ in range(4):
            self.text(session="S")
        self.assertEqual(self.ours.getvalue(), self.theirs.getvalue())

    def test_noTime(self) -> None:
        """An event without a time has Twisted's dash in its place."""
        self.publisher({"log_format": "hello"})
        self.assertEqual(self.ours.getvalue(), self.theirs.getvalue())
