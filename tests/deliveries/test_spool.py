"""The delivery into the queue, and the service with it."""

from __future__ import annotations

import smtplib
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from submitd import service
from submitd.deliveries import REGISTRY
from submitd.deliveries.spool import MAX_HEADER, Spool, hasMessageId
from submitd.interfaces import IChecked, IExtendedDelivery, IMessage, IRunning
from submitd.settings import Component, ListenerSettings
from submitd.spool.records import Filter
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR
from tests.fixtures import makeSubmission
from tests.spool.support import TRACE, Gate, SpoolCase, makeEnvelope, makeSession


class ConfigurationTests(SpoolCase):
    """``[delivery] use = "spool"``."""

    def make(self, **keys: Any) -> tuple[Any, list[str]]:
        component = Component.fromTable({"use": "spool", **keys}, Path("/srv"))
        made, findings = component.make(REGISTRY, "delivery")
        return made, [str(each) for each in findings]

    def test_path(self) -> None:
        """A path is relative to the file; times have units."""
        made, findings = self.make(path="spool", window="2 h", keep="1 d")
        self.assertEqual(findings, [])
        self.assertEqual(made.queue.database.path, Path("/srv/spool"))
        self.assertEqual((made.queue.window, made.queue.keep), (7200.0, 86400.0))

    def test_url(self) -> None:
        """Or it is PostgreSQL."""
        made, findings = self.make(url="postgresql://me@db.example/submitd")
        self.assertEqual(findings, [])
        self.assertIn("db.example", made.queue.database.name)

    def test_mistakes(self) -> None:
        """Neither, both, an unknown key, no time: each is said."""
        for keys in ({}, {"path": "x", "url": "postgresql:///x"}, {"path": "x", "window": "soon"}):
            made, findings = self.make(**keys)
            self.assertIsNone(made)
            self.assertEqual(len(findings), 1, findings)
        _, findings = self.make(path="x", pth="x")
        self.assertIn("pth", findings[0])

    def test_interfaces(self) -> None:
        """It is what the service asks it to be, and acts on what it says it acts on."""
        for interface in (IExtendedDelivery, IChecked, IRunning):
            verifyObject(interface, self.spool)
        verifyObject(IMessage, self.begin("A-1"))
        self.assertEqual(set(self.spool.extensions), {"FUTURERELEASE", "MT-PRIORITY", "DELIVERBY"})

    def test_check(self) -> None:
        """What is wrong with the place is known beforehand."""
        self.assertEqual(self.spool.check(), [])
        self.assertEqual(len(Spool(Path(self.mktemp()) / "x").check()), 1)


class MessageTests(SpoolCase):
    """One message."""

    def test_foreignTrace(self) -> None:
        """What is no trace field of ours is the client's, and kept as it is."""
        for at, first in enumerate((b"Received: x\r\nSubject: y\r\n", b"Subject: y\r\n", b"x")):
            message = self.spool.begin(makeSession(), makeEnvelope(f"A-{at}"))
            message.dataReceived(first)
            self.successResultOf(message.eomReceived())
            self.assertEqual(self.body(f"A-{at}"), first)
        fields = self.sql("SELECT fields FROM message")
        self.assertEqual([row[0] for row in fields], [b"", b"", b""])

    def test_prepend(self) -> None:
        """What policies put in front stands above the trace field, and costs no copy."""
        message = self.begin("A-1")
        message.dataReceived(b"x" * 600_000)
        message.prepend(b"DKIM-Signature: x\r\n")
        self.successResultOf(message.eomReceived())
        content = self.body("A-1")
        self.assertTrue(content.startswith(b"DKIM-Signature: x\r\n" + TRACE))
        self.assertEqual(len(content), 600_000 + len(TRACE) + 19)

    def test_waits(self) -> None:
        """A client waits while a chunk is written, and for nothing below that."""
        gate = Gate()
        self.patch(self.queue._writer, "_run", gate.run)
        message = self.begin("A-1")
        self.assertIsNone(message.dataReceived(b"x" * 262_143))
        waiting = message.dataReceived(b"x" * 300_000)
        self.assertNoResult(waiting)
        gate.open()
        # A result would be taken for a reply.
        self.assertIsNone(self.successResultOf(waiting))

    def test_durable(self) -> None:
        """Nothing is answered before the transaction is over."""
        gate = Gate()
        self.patch(self.queue._writer, "_run", gate.run)
        message = self.begin("A-1")
        answer = message.eomReceived()
        self.assertNoResult(answer)
        gate.open()
        self.assertEqual(self.successResultOf(answer), "A-1")

    def test_timedOut(self) -> None:
        """A commit that waits too long and is given up is not done any more."""
        gate = Gate()
        self.patch(self.queue._writer, "_run", gate.run)
        first, second = self.begin("A-1"), self.begin("B-1")
        answers = [first.eomReceived(), second.eomReceived()]
        answers[1].cancel()
        self.failureResultOf(answers[1], CancelledError)
        gate.open()
        self.successResultOf(answers[0])
        self.assertEqual(self.sql("SELECT id FROM message"), [("A-1",)])

    def test_abortFails(self) -> None:
        """An abort that cannot be written down is nobody's trouble; it is cleared away later."""
        message = self.begin("A-1")
        message.dataReceived(b"x" * 300_000)
        failing: Deferred[Any] = Deferred()
        self.patch(self.queue, "abandon", lambda id: failing)
        message.connectionLost()
        failing.errback(Refused(LOCAL_ERROR))

    def test_chunkFails(self) -> None:
        """Of several chunks in one call the first failure counts, as the reply that it is."""
        results: list[Deferred[Any]] = [Deferred(), Deferred()]
        waiting = list(results)
        self.patch(self.queue, "add", lambda upload: waiting.pop(0))
        message = self.begin("A-1")
        answer = message.dataReceived(b"x" * 300_000)
        results[1].callback(None)
        self.assertNoResult(answer)
        results[0].errback(Refused(LOCAL_ERROR))
        self.failureResultOf(answer, Refused)

    def test_messageId(self) -> None:
        """A Message-ID is one in the header section alone, with something in it."""
        for head, expected in (
            (b"Message-ID: <x>\r\n\r\n", True),
            (b"Subject: x\r\nMESSAGE-id:\r\n <x>\r\n", True),
            (b"Message-ID:\r\nSubject: x\r\n\r\n", False),
            (b"X-Message-ID: <x>\r\n\r\n", False),
            (b"\r\nMessage-ID: <x>\r\n\r\n", False),
            (b"Subject: x\r\n\r\nMessage-ID: <x>\r\n\r\n", False),
            (b"X: " + b"x" * MAX_HEADER + b"\r\nMessage-ID: <x>\r\n\r\n", False),
            (b"", False),
        ):
            self.assertIs(hasMessageId(head), expected, head[:40])


class ServiceTests(TestCase):
    """A whole service with threads, real clients and a queue."""

    @inlineCallbacks
    def test_service(self) -> Any:
        """Many clients at once: each 250 names a message that is there; the end closes all."""
        path = Path(self.mktemp())
        listener = ListenerSettings(
            endpoint="tcp:0:interface=127.0.0.1", tls="off", require_tls=False
        )
        spool = Spool(path)
        common = makeSubmission()
        running = service.submissionService(
            reactor,
            [listener],
            hostname="mail.example.com",
            delivery=spool,
            portal=common.portal,
            loginRequired=False,
        )
        running.privilegedStartService()
        running.startService()
        port = next(iter(running)).address.port
        told = [deferToThread(self.submit, port, at) for at in range(4)]
        answers = []
        for each in told:
            answers += yield each
        found = yield spool.queue.messages(Filter(), limit=1000)
        self.assertEqual(sorted(answers), sorted(each.id for each in found))
        self.assertEqual(len(set(answers)), 40)
        yield running.stopService()
        names = {thread.name for thread in threading.enumerate()}
        self.assertFalse({each for each in names if each.startswith("spool")})
        self.assertEqual([each.name for each in path.iterdir()], ["spool.db"])

    def submit(self, port: int, client: int) -> list[str]:
        ids = []
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as smtp:
            smtp.ehlo()
            for at in range(10):
                smtp.mail("alice@example.com")
                smtp.rcpt("bob@example.net")
                text = f"Message-ID: <{client}.{at}@x>\r\n\r\n" + "x" * 30_000 * at
                code, said = smtp.data(text.encode())
                assert code == 250, said
                ids.append(said.decode().rpartition(" ")[2])
        return ids

    @inlineCallbacks
    def test_notStarted(self) -> Any:
        """A queue that cannot be opened at the start is logged; the service runs and says 451."""
        path = Path(self.mktemp())
        path.touch()
        listener = ListenerSettings(
            endpoint="tcp:0:interface=127.0.0.1", tls="off", require_tls=False
        )
        spool = Spool(path)
        running = service.submissionService(
            reactor, [listener], hostname="mail.example.com", delivery=spool, loginRequired=False
        )
        said: list[dict[str, Any]] = []
        self.patch(service.events, "emit", lambda event, **fields: said.append(fields))
        running.privilegedStartService()
        running.startService()
        port = next(iter(running)).address.port
        code = yield deferToThread(self.refused, port)
        self.assertEqual(code, 451)
        self.assertTrue([each for each in said if "not started" in each.get("problem", "")])
        path.unlink()
        ids = yield deferToThread(self.submit, port, 1)
        self.assertEqual(len(ids), 10)
        yield running.stopService()

    def refused(self, port: int) -> int:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as smtp:
            try:
                smtp.sendmail("alice@example.com", ["bob@example.net"], "Subject: x\r\n\r\nx")
            except smtplib.SMTPDataError as error:
                return error.smtp_code
        return 250
