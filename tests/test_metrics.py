"""Tests for :mod:`submitd.metrics`."""

from __future__ import annotations

import http.client
import re
import smtplib
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from submitd import events
from submitd.metrics import (
    LOOK_EVERY,
    LOOK_LIMIT,
    LOOK_SHARE,
    OCTETS,
    RECIPIENTS,
    Counts,
    QueueLook,
    exposition,
    queueGauges,
)
from submitd.metricspage import MetricsService
from submitd.spool.records import Totals
from tests.clients.running import HOST, RunningService

CONFIG = """\
hostname = "localhost"
workers = WORKERS
[[listener]]
endpoint = "tcp:$starttls:interface=127.0.0.1"
tls = "off"
require_tls = false
[auth]
required = false
[delivery]
use = "spool"
path = "spool"
[metrics]
endpoint = "tcp:$metrics:interface=127.0.0.1"
"""


LISTENING = {1: 2, 2: 4}
"""How often it is said, by two listeners; the one for clients says it in each process."""


def accepted(size: int, recipients: int) -> None:
    """Log an accepted message."""
    events.emit(
        events.MESSAGE_ACCEPTED,
        session="s",
        id="i",
        peer="127.0.0.1",
        user=None,
        sender="a@example.com",
        recipients=recipients,
        size=size,
        protocol="ESMTP",
    )


class CountsTests(SynchronousTestCase):
    """:class:`submitd.metrics.Counts`."""

    def setUp(self) -> None:
        self.counts = Counts()
        self.counts.open()
        self.addCleanup(self.counts.close)

    def test_events(self) -> None:
        """Events are counted by their names, messages with what is in them; all else is not."""
        accepted(100, 2)
        accepted(50, 1)
        events.emit(events.SERVICE_PROBLEM, problem="x")
        Logger(namespace="somebody").info("else's", event=["anything"])
        expected = {"message-accepted": 2, RECIPIENTS: 3, OCTETS: 150, "service-problem": 1}
        self.assertEqual(dict(self.counts.counted), expected)

    def test_relogged(self) -> None:
        """What a worker has counted the parent does not count when it logs it again."""
        Logger(namespace="worker").info("x", event="refused", log_fields=[], log_worker=True)
        self.assertEqual(self.counts.taken(), {})

    def test_taken(self) -> None:
        """What is told is counted once, and can be added elsewhere."""
        total = Counts()
        for size in (10, 20):
            accepted(size, 1)
            total.add(self.counts.taken())
        self.assertEqual(self.counts.taken(), {})
        self.assertEqual(dict(total.counted), {"message-accepted": 2, RECIPIENTS: 2, OCTETS: 30})


class ExpositionTests(SynchronousTestCase):
    """:func:`submitd.metrics.exposition`."""

    def test_form(self) -> None:
        """Each metric has its help and type, and each line is one of the format's."""
        text = exposition({OCTETS: 2**53}, {"connections": 3, "workers": 1}).decode()
        lines = text.splitlines()
        self.assertTrue(text.endswith("\n"))
        form = re.compile(
            r"# (HELP submitd_[a-z_]+ .+|TYPE submitd_[a-z_]+ (counter|gauge))"
            r'|submitd_[a-z_]+(\{event="[a-z-]+"\})? [0-9.e+]+'
        )
        self.assertEqual([line for line in lines if not form.fullmatch(line)], [])
        self.assertIn("submitd_connections 3", lines)
        self.assertIn(f"submitd_accepted_octets_total {2**53}", lines)

    def test_nothingYet(self) -> None:
        """What has not happened yet is 0, so that a rate has a number to begin with."""
        lines = exposition({"of-ones-own": 2}, {}).decode().splitlines()
        self.assertIn('submitd_events_total{event="login-failed"} 0', lines)
        self.assertIn('submitd_events_total{event="of-ones-own"} 2', lines)
        self.assertIn("submitd_accepted_recipients_total 0", lines)

    def test_escaped(self) -> None:
        """Whatever an event is called, its name ends neither the label nor the line."""
        text = exposition({'a"b\\c\nd\u00e9\ud800': 1}, {}).decode()
        self.assertIn('submitd_events_total{event="a\\"b\\\\c\\nd\u00e9\\ud800"} 1\n', text)

    def test_queue(self) -> None:
        """The queue's gauges have a help and a type each, and a label."""
        totals = Totals(messages=3, recipients={"due": 4, "held": 1}, oldest={"due": 90.0})
        text = exposition({}, queueGauges(totals, 100.0)).decode()
        head, _, samples = text.partition("# TYPE submitd_queue_recipients gauge\n")
        self.assertTrue(head.endswith("by where they stand.\n"))
        self.assertIn("\nsubmitd_queue_messages 3\n", head)
        lines = samples.splitlines()
        self.assertEqual(
            [line for line in lines if not line.startswith("#")],
            [
                'submitd_queue_recipients{state="due"} 4',
                'submitd_queue_recipients{state="later"} 0',
                'submitd_queue_recipients{state="underway"} 0',
                'submitd_queue_recipients{state="held"} 1',
                'submitd_queue_oldest_seconds{state="due"} 10.0',
                'submitd_queue_oldest_seconds{state="later"} 0.0',
                'submitd_queue_oldest_seconds{state="underway"} 0.0',
                'submitd_queue_oldest_seconds{state="held"} 0.0',
            ],
        )


class QueueLookTests(SynchronousTestCase):
    """:class:`submitd.metrics.QueueLook`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[Any] = []
        self.asked: list[Deferred[Any]] = []
        self.look = QueueLook(self.ask, self.told.append, self.clock)
        self.look.startService()
        self.clock.advance(0)

    def ask(self) -> Deferred[Any]:
        """The spool's."""
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self, messages: int) -> None:
        """What the spool says."""
        self.asked[-1].callback(Totals(messages=messages, recipients={}, oldest={}))

    def test_again(self) -> None:
        """It looks again behind an answer, and more rarely when that took long."""
        self.clock.advance(0.25)
        self.answer(1)
        self.clock.advance(LOOK_EVERY)
        self.clock.advance(2)
        self.answer(2)
        self.assertEqual([each["queue_messages"] for each in self.told], [1, 2])
        self.clock.advance(2 * LOOK_SHARE - 1)
        self.assertEqual(len(self.asked), 2)
        self.clock.advance(1)
        self.assertEqual(len(self.asked), 3)

    def test_failed(self) -> None:
        """Where the spool cannot be asked there are no numbers, until it can."""
        self.asked[-1].errback(RuntimeError())
        self.clock.advance(LOOK_EVERY)
        self.answer(3)
        self.assertEqual([each.get("queue_messages") for each in self.told], [None, 3])

    def test_silent(self) -> None:
        """One that does not answer is not asked once more, and old numbers are not shown."""
        self.clock.pump([LOOK_LIMIT, 1000])
        self.assertEqual((len(self.asked), self.told), (1, [{}]))
        self.answer(4)
        self.assertEqual(self.told[-1]["queue_messages"], 4)

    def test_stopped(self) -> None:
        """Stopped, it looks no more, and an answer that comes then is nobody's."""
        self.look.stopService()
        self.answer(5)
        self.clock.advance(1000)
        self.assertEqual((self.told, self.clock.getDelayedCalls()), ([], []))


class PageTests(SynchronousTestCase):
    """:mod:`submitd.metricspage`, without a port."""

    def setUp(self) -> None:
        self.clock: Any = Clock()
        service = MetricsService("tcp:9587", self.clock, Counts(), dict)
        self.channel: Any = service._listener.factory.buildProtocol(None)
        self.transport: Any = StringTransport()
        self.channel.makeConnection(self.transport)

    def test_head(self) -> None:
        """HEAD is answered without the text, and is no line in the log either."""
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.channel.dataReceived(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, text = self.transport.value().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "))
        self.assertNotIn(b"Content-Length: 0", head)
        self.assertEqual((text, logged), (b"", []))

    def test_below(self) -> None:
        """There is nothing below the page."""
        self.channel.dataReceived(b"GET /metrics/anything HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(self.transport.value().startswith(b"HTTP/1.1 404 "))

    def test_content(self) -> None:
        """What is sent to it is kept nowhere."""
        self.channel.dataReceived(
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n"
        )
        self.channel.dataReceived(b"x" * 200000)
        [request] = self.channel._channel.requests
        self.assertEqual((type(request.content), request.content.tell()), (BytesIO, 0))
        self.channel.dataReceived(b"x" * 100000)
        self.assertTrue(self.transport.value().startswith(b"HTTP/1.1 405 "))

    def test_silent(self) -> None:
        """Who connects and says nothing is not waited for for ever, by the clock it was given."""
        self.clock.advance(3600)
        self.assertTrue(self.transport.disconnecting)


class ServiceTests(SynchronousTestCase):
    """A running service."""

    def shown(self, service: RunningService) -> str:
        """What is at ``/metrics``."""
        connection = http.client.HTTPConnection(HOST, service.ports["metrics"], timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        self.assertIn("version=0.0.4", answer.headers["Content-Type"])
        return answer.read().decode()

    def through(self, workers: int) -> None:
        """Count messages and connections of one process or several."""
        config = CONFIG.replace("WORKERS", str(workers))
        directory = Path(self.mktemp())
        service = RunningService(directory, config, ("starttls", "metrics")).start()
        self.addCleanup(service.stop)
        port = service.ports["starttls"]
        open_ = [smtplib.SMTP(HOST, port, timeout=30) for _ in range(6)]
        for at, client in enumerate(open_):
            client.sendmail("a@example.com", ["b@example.org"] * (at + 1), "Subject: x\n\nx\n")
        expected = (
            'submitd_events_total{event="message-accepted"} 6',
            "submitd_accepted_recipients_total 21",
            'submitd_queue_recipients{state="held"} 0',
            "submitd_connections 6",
            f"submitd_workers {workers}",
            f'submitd_events_total{{event="service-started"}} {workers}',
            f'submitd_events_total{{event="service-listening"}} {LISTENING[workers]}',
        )
        until = time.monotonic() + 60
        while not all(f"{line}\n" in self.shown(service) for line in expected):
            self.assertLess(time.monotonic(), until, self.shown(service))
            time.sleep(0.1)
        for client in open_:
            client.close()
        self.assertNotIn("GET /metrics", service.log)

    def test_one(self) -> None:
        """One process counts for itself."""
        self.through(1)

    def test_workers(self) -> None:
        """The parent adds up what its workers have counted."""
        self.through(2)
