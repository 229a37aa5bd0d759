"""The queue runner: what comes of recipients, when, and who is told."""

from __future__ import annotations

import contextlib
import email
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from submitd import events
from submitd.counters.names import asTime
from submitd.extensions.deliverby import DeliverBy
from submitd.interfaces import IBody
from submitd.relay.outgoing import Outcome, Outgoing, Result, judge
from submitd.relay.reports import Reporter
from submitd.relay.routes import Route, Routes
from submitd.relay.runner import Runner
from submitd.relay.settings import RelaySettings
from submitd.spool.records import Action, Damaged, Filter
from submitd.turns import Turns
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, Reply
from tests.spool.damage import spoil
from tests.spool.support import NOW, SpoolCase

OK = Reply(250, "2.0.0", "taken")
LATER = Reply(450, "4.2.1", "later")
NO = Reply(550, "5.1.1", "no such user")


class FakeHop:
    """A next hop that says what the test wants.

    :ivar said: address -> reply; ``OK`` for all others.
    :ivar seen: what was sent, with its octets.
    :ivar held: deliveries that wait for :meth:`release`.
    """

    def __init__(self, connections: int) -> None:
        self.turns = Turns(connections)
        self.said: dict[str, Reply] = {}
        self.seen: list[tuple[Outgoing, bytes]] = []
        self.dsn = False
        self.deliverBy = False
        self.isFinal = False
        self.holding = False
        self.queueing = False
        self.held: list[Deferred[None]] = []
        self.broken: Exception | None = None
        self.closed = 0

    async def deliver(self, message: Outgoing, read: Callable[[], IBody]) -> tuple[Outcome, ...]:
        if self.broken is not None:
            raise self.broken
        if self.queueing:
            await self._wait()
        body, content = read(), b""
        while chunk := await body.next():
            content += chunk
        if self.holding:
            await self._wait()
        self.seen.append((message, content))
        return tuple(self._outcome(str(each.mailbox)) for each in message.recipients)

    async def _wait(self) -> None:
        self.held.append(Deferred())
        await self.held[-1]

    def release(self) -> None:
        held, self.held = self.held, []
        for each in held:
            each.callback(None)

    def _outcome(self, address: str) -> Outcome:
        reply = self.said.get(address, OK)
        result = judge(reply)
        delivered = result is Result.DELIVERED
        isFinal = self.isFinal and delivered
        return Outcome(result, reply, True, self.dsn, "hop.example", isFinal, self.deliverBy)

    async def close(self) -> None:
        self.closed += 1

    @property
    def addresses(self) -> list[list[str]]:
        """The recipients of each transaction."""
        return [[str(each.mailbox) for each in message.recipients] for message, _ in self.seen]


class FakeDestinations:
    """One next hop for each route, and those of a domain apart where it is an mx."""

    def __init__(self, connections: int) -> None:
        self.hops: dict[Any, FakeHop] = {}
        self.connections = connections

    def find(self, route: Route, domain: str, requireTLS: bool) -> Any:
        key = (route.name, domain if route.kind == "mx" else "", requireTLS)
        return key, self.hops.setdefault(key, FakeHop(self.connections))

    async def close(self) -> None:
        for hop in self.hops.values():
            await hop.close()


class RunnerCase(SpoolCase):
    """A runner on a real queue without threads, with a clock that stands."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.clock.rightNow = NOW
        self.time.now = NOW
        self.queue.now = self.timeOfDay
        self.make()

    ahead = 0.0

    def timeOfDay(self) -> float:
        """The clock, and by how much somebody has set it."""
        return self.clock.seconds() + self.ahead

    def make(self, *routes: Route, **changes: Any) -> Runner:
        """A runner with these settings; the route is one smarthost."""
        settings = attrs.evolve(RelaySettings(jitter=0.0), **changes)
        self.destinations = FakeDestinations(settings.connections)
        self.routes = Routes(routes or (Route(name="relay", kind="smarthost", host="hop"),))
        destinations: Any = self.destinations
        self.runner = Runner(
            self.queue,
            self.routes,
            destinations,
            settings,
            "mail.example.com",
            self.clock,
            self.timeOfDay,
        )
        self.hop = self.destinations.find(self.routes.routes[0], "", False)[1]
        return self.runner

    def run_(self, seconds: float = 0.0) -> None:
        """Start, and let some time pass."""
        if not self.runner._running:
            self.runner.start()
            self.addCleanup(self.stop)
        self.clock.advance(0)
        if seconds:
            self.clock.advance(seconds)
        for _ in range(5):
            self.clock.advance(0)

    def stop(self, drain: float = 1.0) -> None:
        stopping = Deferred.fromCoroutine(self.runner.stop(drain))
        for _ in range(300):
            if stopping.called:
                break
            self.clock.advance(0.05)
        self.successResultOf(stopping)

    def states(self, id: str) -> list[tuple[str, int, str]]:
        """State, attempts and reply of each recipient of a message that is still there."""
        shown = self.successResultOf(self.queue.show(id))
        if shown is None:
            return []
        return [(each.state.value, each.attempts, each.reply) for each in shown.recipients]

    def due(self, id: str) -> float | None:
        """When the first recipient is tried again, from the beginning of the test."""
        shown = self.successResultOf(self.queue.show(id))
        assert shown is not None
        due = shown.recipients[0].due
        return None if due is None else due - NOW

    @property
    def reports(self) -> list[tuple[Outgoing, Any]]:
        """The reports that went to the next hop, parsed."""
        return [
            (message, email.message_from_bytes(content))
            for message, content in self.hop.seen
            if message.reversePath.isNull
        ]


class DeliveryTests(RunnerCase):
    """What comes of a message."""

    def test_delivered(self) -> None:
        """A message goes out as it came in, its envelope with it, and leaves the queue."""
        self.send("M1", "bob@example.net", text=b"Subject: x\r\n\r\nhello\r\n")
        self.run_()
        [(message, content)] = self.hop.seen
        self.assertEqual(str(message.reversePath), "<alice@example.com>")
        self.assertTrue(content.startswith(b"Received: "))
        self.assertTrue(content.endswith(b"Subject: x\r\n\r\nhello\r\n"))
        self.assertEqual(message.size, len(content))
        self.assertEqual(self.states("M1"), [])

    def test_woken(self) -> None:
        """A message that comes while the runner runs goes out at once."""
        self.run_()
        self.send("M1")
        self.run_()
        self.assertEqual(len(self.hop.seen), 1)

    def test_delayIsLogged(self) -> None:
        """The log says when it is tried again, as people read it."""
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1", "bob@example.net")
        self.run_()
        [due] = [each["due"] for each in logged if each.get("event") == "recipient-delayed"]
        self.assertEqual(due, asTime(NOW + 300))

    def test_oneTransaction(self) -> None:
        """Recipients of several domains at one next hop go in one transaction."""
        self.send("M1", "a@b.example", "c@d.example", "e@f.example")
        self.run_()
        self.assertEqual(self.hop.addresses, [["a@b.example", "c@d.example", "e@f.example"]])

    def test_manyRecipients(self) -> None:
        """No transaction has more recipients than the settings allow."""
        self.make(recipients_per_message=2)
        self.send("M1", *(f"{n}@b.example" for n in range(5)))
        self.run_()
        self.assertEqual([len(each) for each in self.hop.addresses], [2, 2, 1])
        self.assertEqual(self.states("M1"), [])

    def test_tooManyRecipients(self) -> None:
        """Who is too many for a transaction goes in the next one, and that is at once.

        Unless the transaction has come to nothing.
        """
        excess = Outcome(Result.DELAYED, Reply(452, "4.5.3", "too many"), isExcess=True)
        first = Outcome(Result.DELIVERED, OK)

        async def deliver(message: Outgoing, read: Any) -> tuple[Outcome, ...]:
            outcomes = (first, *[excess] * len(message.recipients))[: len(message.recipients)]
            self.hop.seen.append((message, b""))
            return outcomes

        self.patch(self.hop, "deliver", deliver)
        self.send("M1", "a@b.example", "c@d.example", "e@f.example")
        self.run_()
        self.assertEqual([len(each) for each in self.hop.addresses], [3, 2, 1])
        self.assertEqual(self.states("M1"), [])
        self.hop.seen.clear()
        self.send("M3", "a@b.example", "c@d.example", "e@f.example")
        self.ahead = 10 * 86400.0  # the last attempt is one for all of them
        self.run_()
        self.assertEqual([len(each) for each in self.hop.addresses], [3, 2, 1])
        self.ahead = 0.0
        first = Outcome(Result.DELAYED, LATER)
        self.send("M2", "a@b.example", "c@d.example")
        self.run_()
        self.assertEqual(len(self.hop.seen), 4)
        self.assertEqual(self.due("M2"), 300.0)

    def test_mixed(self) -> None:
        """Each recipient has its own fate; the failed one alone is reported."""
        self.hop.said = {"no@b.example": NO, "later@b.example": LATER}
        self.send("M1", "yes@b.example", "no@b.example", "later@b.example")
        self.run_()
        self.assertEqual(
            self.states("M1"),
            [
                ("delivered", 1, "250 2.0.0 taken"),
                ("failed", 1, "550 5.1.1 no such user"),
                ("delayed", 1, "450 4.2.1 later"),
            ],
        )
        [(envelope, report)] = self.reports
        self.assertEqual([str(each.mailbox) for each in envelope.recipients], ["alice@example.com"])
        self.assertIn("no@b.example", report.as_string())
        self.assertNotIn("later@b.example", report.as_string())

    def test_retries(self) -> None:
        """A delayed recipient is tried again when its time has come, and not before."""
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1")
        self.run_()
        self.assertEqual(self.due("M1"), 300.0)
        self.run_(299.0)
        self.assertEqual(len(self.hop.seen), 1)
        self.hop.said = {}
        self.run_(1.0)
        self.assertEqual(len(self.hop.seen), 2)
        self.assertEqual(self.states("M1"), [])

    def test_expired(self) -> None:
        """In the end it is given up, with the last reply in the report."""
        self.make(expire=1000.0, delay_notice=0.0)
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1")
        self.run_()
        self.run_(300.0)
        self.run_(700.0)
        [(_, report)] = self.reports
        self.assertIn("Status: 5.4.7", report.as_string())
        self.assertIn("Diagnostic-Code: smtp; 450 4.2.1 later", report.as_string())
        self.assertEqual(self.states("M1"), [])

    def test_triedOnce(self) -> None:
        """What has waited too long while the service was down is tried once all the same."""
        self.make(expire=1000.0)
        self.send("M1")
        self.clock.advance(2000.0)
        self.run_()
        self.assertEqual(len(self.hop.seen), 1)
        self.assertEqual(self.reports, [])

    def test_triedOnceMore(self) -> None:
        """So is what had been tried before, or was on hold: it may work now, and fails else."""
        self.make(expire=1000.0)
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1")
        self.send("M2")
        self.run_()
        self.stop()
        for action in (Action.HOLD, Action.RELEASE):
            self.successResultOf(self.queue.change(action, Filter(ids=("M2",)), "root"))
            self.clock.advance(2000.0)
        self.run_()
        self.assertEqual(len(self.hop.seen), 4 + len(self.reports))
        self.assertEqual((self.states("M1"), self.states("M2")), ([], []))
        self.assertEqual(len(self.reports), 2)
        self.hop.said = {}

    def test_operatorExpires(self) -> None:
        """What an operator expires is failed without another attempt."""
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1")
        self.run_()
        self.hop.said = {}
        self.clock.advance(10.0)
        self.successResultOf(self.queue.change(Action.EXPIRE, Filter(ids=("M1",)), "root"))
        self.run_(1.0)
        [(_, report)] = self.reports
        self.assertIn("Action: failed", report.as_string())
        self.assertEqual(self.hop.addresses, [["bob@example.net"], ["alice@example.com"]])

    def test_damagedExpires(self) -> None:
        """One that is damaged waits for an operator, who can have its sender told."""
        self.send("M1")
        self.sql("UPDATE part SET checksum = checksum + 1")
        self.run_()
        self.assertEqual(self.states("M1")[0][0], "held")
        self.assertEqual(self.hop.seen, [])
        self.successResultOf(self.queue.change(Action.EXPIRE, Filter(ids=("M1",)), "root"))
        self.run_(1.0)
        [(_, report)] = self.reports
        self.assertIn("Action: failed", report.as_string())
        self.assertNotIn("Subject: x", report.as_string())
        self.assertEqual(self.hop.addresses, [["alice@example.com"]])

    def test_expiresInLine(self) -> None:
        """What has to arrive by a time that ends while it waits for its turn is not sent."""
        self.make(connections=1)
        self.hop.holding = True
        self.send("M1")
        self.run_()
        self.send("M2", DELIVERBY=DeliverBy(NOW + 20.0, "R"))
        self.run_(30.0)
        self.hop.holding = False
        self.hop.release()
        self.run_()
        self.assertEqual(self.hop.addresses, [["bob@example.net"], ["alice@example.com"]])
        self.assertIn("Status: 5.4.7", self.reports[0][1].as_string())

    def test_expiresPostponed(self) -> None:
        """What goes back is not told of too late: it comes again before its time has ended."""
        self.make(deliveries=1, connections=1)
        self.hop.holding = True
        for n in range(20):
            self.send(f"M{n}")
        self.run_()
        self.run_(10.0)
        self.send("D", DELIVERBY=DeliverBy(NOW + 18.0, "R"))
        self.run_()
        self.assertEqual(self.due("D"), 18.0)
        self.run_(8.0)
        self.assertEqual(self.states("D"), [])

    def test_noRoute(self) -> None:
        """An address without a route is failed with 5.4.4."""
        self.make(Route(name="route[0]", kind="smarthost", recipients=("example.com",)))
        self.send("M1", "bob@example.net")
        self.run_()
        [(_, report)] = self.reports
        self.assertIn("Status: 5.4.4", report.as_string())

    def test_loop(self) -> None:
        """A message that has been on its way too often goes nowhere: 5.4.6."""
        self.make(hops=3)
        self.send("M1", text=b"Received: a\r\nReceived: b\r\n\r\nx\r\n")
        self.run_()
        [(_, report)] = self.reports
        self.assertIn("Status: 5.4.6", report.as_string())
        self.assertEqual(self.hop.addresses, [["alice@example.com"]])

    def test_futureRelease(self) -> None:
        """What is to wait waits (RFC 4865)."""
        self.send("M1", FUTURERELEASE=NOW + 50.0)
        self.run_()
        self.assertEqual(self.hop.seen, [])
        self.run_(50.0)
        self.assertEqual(len(self.hop.seen), 1)

    def test_futureReleaseLater(self) -> None:
        """The time to try, and that to a notice, begin when it may be sent."""
        self.make(retry=(100.0,), expire=1000.0, delay_notice=500.0)
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1", FUTURERELEASE=NOW + 5000.0)
        self.run_()
        self.run_(5000.0)
        self.assertEqual(self.states("M1")[0][:2], ("delayed", 1))
        self.assertEqual(self.reports, [])
        for _ in range(9):
            self.run_(100.0)
        self.assertEqual(len(self.reports), 1)
        self.assertEqual(self.states("M1")[0][:2], ("delayed", 10))
        self.run_(100.0)
        self.assertEqual(self.states("M1"), [])

    def test_priority(self) -> None:
        """The urgent goes first (RFC 6710), and the next hop is told how urgent."""
        self.make(deliveries=1)
        self.send("M1")
        self.send("M2", **{"MT-PRIORITY": 5})
        self.run_()
        self.assertEqual([message.id for message, _ in self.hop.seen], ["M2", "M1"])
        self.assertEqual(self.hop.seen[0][0].parameters, {"MT-PRIORITY": "5"})

    def test_deliverBy(self) -> None:
        """By-mode R: the next hop is told the time that is left, and what is late is returned."""
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1", DELIVERBY=DeliverBy(NOW + 120.0, "R"))
        self.run_()
        self.assertEqual(self.hop.seen[0][0].parameters, {"BY": "120;R"})
        self.assertEqual(self.due("M1"), 120.0)
        self.run_(120.0)
        [(_, report)] = self.reports
        self.assertIn("Action: failed", report.as_string())

    def test_deliverByNotify(self) -> None:
        """By-mode N: the sender is told that it is late, once, and it goes on."""
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1", DELIVERBY=DeliverBy(NOW + 120.0, "N", True))
        self.run_()
        self.assertEqual(self.hop.seen[0][0].parameters, {"BY": "120;NT"})
        self.run_(120.0)
        self.run_(1000.0)
        self.run_(1000.0)
        [(_, report)] = self.reports
        self.assertIn("Action: delayed", report.as_string())

    def test_gone(self) -> None:
        """A message that an operator deletes in between is nobody's problem."""
        self.send("M1")
        [work] = self.lease()
        self.successResultOf(self.queue.giveBack(work))
        read = self.queue.read

        class Gone:
            def next(self) -> Deferred[bytes]:
                result: Deferred[bytes] = Deferred()
                result.errback(LookupError("M1"))
                return result

        self.patch(self.queue, "read", lambda id, holds=True: Gone())
        self.run_()
        self.assertEqual(self.hop.seen, [])
        self.patch(self.queue, "read", read)

    def test_bug(self) -> None:
        """An error of our own delays the recipient; it does not spin, and it is in the log."""
        self.hop.broken = RuntimeError("bug")
        self.send("M1")
        self.run_()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.states("M1")[0][:2], ("delayed", 1))


class ReportTests(RunnerCase):
    """Who is told what."""

    def notify(self, *wishes: str, **changes: Any) -> None:
        """Send a message with a NOTIFY, and run."""
        message = self.begin("M1", "bob@example.net", **changes)
        message._envelope.recipients[0].notify = wishes
        message.dataReceived(b"Subject: x\r\n\r\nhello\r\n")
        self.successResultOf(message.eomReceived())
        self.run_()

    def test_never(self) -> None:
        """NOTIFY=NEVER: nothing is said of a failure."""
        self.hop.said = {"bob@example.net": NO}
        self.notify("NEVER")
        self.assertEqual(self.reports, [])
        self.assertEqual(self.states("M1"), [])

    def test_noFailure(self) -> None:
        """NOTIFY without FAILURE: the same."""
        self.hop.said = {"bob@example.net": NO}
        self.notify("SUCCESS", "DELAY")
        self.assertEqual(self.reports, [])

    def test_relayed(self) -> None:
        """NOTIFY=SUCCESS at a next hop without DSN: it was passed on."""
        self.notify("SUCCESS")
        [(_, report)] = self.reports
        self.assertIn("Action: relayed", report.as_string())

    def test_final(self) -> None:
        """NOTIFY=SUCCESS at the recipient's mailbox: it has been delivered."""
        self.hop.isFinal = True
        self.notify("SUCCESS")
        [(_, report)] = self.reports
        self.assertIn("Action: delivered", report.as_string())

    def test_passedOn(self) -> None:
        """NOTIFY=SUCCESS at a next hop with DSN: that one will say it."""
        self.hop.dsn = True
        self.notify("SUCCESS")
        self.assertEqual(self.reports, [])

    def test_traced(self) -> None:
        """By-trace T: the sender is told that it was passed on (RFC 2852 4.1.4)."""
        self.hop.dsn = self.hop.deliverBy = True
        self.notify(DELIVERBY=DeliverBy(NOW + 120.0, "R", True))
        [(_, report)] = self.reports
        self.assertIn("Action: relayed", report.as_string())

    def test_deadlineUnkept(self) -> None:
        """By-mode N at a next hop that knows nothing of deadlines: the sender is told so."""
        self.notify(DELIVERBY=DeliverBy(NOW + 120.0, "N"))
        [(_, report)] = self.reports
        self.assertIn("Action: relayed", report.as_string())

    def test_notTraced(self) -> None:
        """Not where the next hop keeps the deadline, nor at the mailbox, nor after NEVER."""
        traced = DeliverBy(NOW + 120.0, "N", True)
        self.notify("NEVER", DELIVERBY=traced)
        self.hop.isFinal = True
        self.notify(DELIVERBY=traced)
        self.hop.isFinal, self.hop.deliverBy = False, True
        self.notify(DELIVERBY=DeliverBy(NOW + 120.0, "N"))
        self.assertEqual(len(self.hop.seen), 3)
        self.assertEqual(self.reports, [])

    def test_oneReport(self) -> None:
        """One transaction that is refused is one report, whatever the domains."""
        addresses = ("a@one.example", "b@two.example", "c@three.example")
        self.hop.said = dict.fromkeys(addresses, NO)
        self.send("M1", *addresses)
        self.run_()
        [(_, report)] = self.reports
        self.assertEqual(report.as_string().count("Action: failed"), 3)

    def test_nullSender(self) -> None:
        """No report about a report."""
        self.hop.said = {"bob@example.net": NO}
        self.notify("SUCCESS", "FAILURE", sender="")
        self.assertEqual(len(self.hop.seen), 1)

    def test_reportFails(self) -> None:
        """A report that cannot be delivered is dropped, and no other is made."""
        self.hop.said = {"bob@example.net": NO, "alice@example.com": NO}
        self.notify()
        self.run_(1000.0)
        self.assertEqual(len(self.hop.seen), 2)
        self.assertEqual(self.successResultOf(self.queue.counts()), [])

    def test_reportBug(self) -> None:
        """An error of our own in a report does not have the message sent again and again."""
        self.hop.said = {"bob@example.net": NO}

        def report(*arguments: Any) -> Any:
            raise RuntimeError("bug")

        self.patch(Reporter, "report", report)
        self.send("M1", "bob@example.net", "carol@example.net")
        self.run_()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((len(self.hop.seen), self.states("M1"), self.reports), (1, [], []))

    def test_delay(self) -> None:
        """The sender is told of a delay once, with the time at which it will be given up."""
        self.make(delay_notice=1000.0)
        self.hop.said = {"bob@example.net": LATER}
        self.notify()
        for _ in range(8):
            self.run_(900.0)
        [(_, report)] = self.reports
        self.assertIn("Action: delayed", report.as_string())
        self.assertIn("Will-Retry-Until:", report.as_string())

    def test_content(self) -> None:
        """A report gives back the header, or with RET=FULL the whole of a small message."""
        self.hop.said = {"bob@example.net": NO}
        self.notify()
        [(_, report)] = self.reports
        self.assertIn("Subject: x", report.as_string())
        self.assertNotIn("hello", report.as_string())
        self.stop()
        for limit, has in ((1000, True), (10, False)):
            self.make(report_size=limit)
            self.hop.said = {"bob@example.net": NO}
            message = self.begin(f"M{limit}")
            message._envelope.ret = "FULL"
            message.dataReceived(b"Subject: x\r\n\r\nhello\r\n")
            self.successResultOf(message.eomReceived())
            self.run_()
            [(_, report)] = self.reports
            self.assertEqual("hello" in report.as_string(), has)
            self.stop()

    def test_longHeader(self) -> None:
        """A header without end is given back in part."""
        self.hop.said = {"bob@example.net": NO}
        self.send("M1", text=b"X: " + b"y" * 60 + b"\r\n" + b"Z: 1\r\n" * 20000 + b"\r\n\r\n")
        self.run_()
        [(_, report)] = self.reports
        self.assertLess(len(report.as_string()), 100_000)


class QueueTests(RunnerCase):
    """Taking work, and giving it back."""

    def test_room(self) -> None:
        """No more messages are on their way than the settings allow; the rest follows."""
        self.make(deliveries=3)
        self.hop.holding = True
        for n in range(7):
            self.send(f"M{n}")
        self.run_()
        self.assertEqual(len(self.hop.held), 3)
        while self.hop.held:
            self.hop.release()
            self.run_()
        self.assertEqual(len(self.hop.seen), 7)

    def slowAndFast(self, **changes: Any) -> tuple[FakeHop, FakeHop]:
        """Two next hops; the first one holds what it gets."""
        slow = Route(name="route[0]", kind="smarthost", recipients=("slow.example",))
        fast = Route(name="relay", kind="smarthost")
        self.make(slow, fast, **changes)
        self.hop.holding = True
        return self.hop, self.destinations.find(fast, "", False)[1]

    def test_slowAlone(self) -> None:
        """A next hop that is slow keeps nobody else waiting for long, even where it was alone."""
        slow, fast = self.slowAndFast(deliveries=4, connections=2)
        for n in range(40):
            self.send(f"S{n}", "a@slow.example")
        self.run_()
        self.run_(60.0)
        self.assertEqual(len(slow.held), 2)
        self.send("F0", "a@fast.example")
        self.run_()
        self.run_(5.0)
        self.assertEqual(len(fast.seen), 1)
        self.send("F1", "a@fast.example")
        self.run_()
        self.assertEqual(len(fast.seen), 2)
        waited = [each for n in range(40) for each in self.states(f"S{n}") if each[0] != "leased"]
        turn = ("delayed", 0, "451 4.3.2 Waits for its turn at the next hop")
        self.assertEqual(set(waited), {turn})
        self.assertEqual(self.sql("SELECT count(*) FROM history"), [(0,)])
        slow.holding = False
        slow.release()
        for _ in range(20):
            self.run_(5.0)
        self.assertEqual(len(slow.seen), 40)

    def test_slowLong(self) -> None:
        """A long queue for a slow next hop is not looked through again and again."""
        self.slowAndFast(deliveries=4, connections=1)
        for n in range(200):
            self.send(f"S{n}", "a@slow.example")
        self.run_()
        for _ in range(10):
            self.run_(5.0)
        settle, settled = self.queue.settle, []

        def counted(*arguments: Any) -> Deferred[Any]:
            settled.append(arguments)
            return settle(*arguments)

        self.patch(self.queue, "settle", counted)
        for _ in range(60):
            self.run_(5.0)
        # Some thirty each five seconds: the root of 200 times the four places.
        self.assertLess(len(settled), 60 * 40)

    def test_stall(self) -> None:
        """A next hop that stands still for a moment soon has all of a long queue."""
        slow, _ = self.slowAndFast(deliveries=4, connections=1)
        for n in range(200):
            self.send(f"S{n}", "a@slow.example")
        for _ in range(2):
            self.run_(5.0)
        slow.holding = False
        slow.release()
        for _ in range(12):
            self.run_(5.0)
        self.assertEqual(len(slow.seen), 200)

    def test_quickLong(self) -> None:
        """Nothing goes back of a long queue for a next hop that takes it."""
        self.make(deliveries=4, connections=1)
        self.hop.holding = True
        for n in range(40):
            self.send(f"M{n}")
        self.run_()
        for n in range(40):
            self.assertEqual((len(self.hop.held), len(self.hop.seen)), (1, n))
            self.hop.release()
            self.run_(1.0)
        self.assertEqual(self.sql("SELECT count(*) FROM recipient WHERE reply <> ''"), [(0,)])

    def test_places(self) -> None:
        """The next place is for whose next hop has the fewest, however many others wait for it."""
        self.make(Route(name="relay", kind="mx"), deliveries=4, connections=4)
        one, other, quick = hops = [FakeHop(4) for _ in range(3)]
        for n, hop in enumerate(hops):
            self.destinations.hops["relay", f"{n}.example", False] = hop
        one.holding = other.holding = True
        for m in range(4):
            self.send(f"A{m}", "a@0.example")
            self.send(f"B{m}", "a@1.example")
        self.run_()
        self.assertEqual(len(one.held) + len(other.held), 4)
        for m in range(2):
            self.send(f"C{m}", "a@2.example")
        for _ in range(3):
            self.run_(5.0)  # until its messages are found behind the others
        self.assertEqual(quick.seen, [])
        for _ in range(2):
            one.held.pop().callback(None)
            self.run_()
        self.assertEqual((len(other.held), len(quick.seen)), (2, 2))

    def test_manyParts(self) -> None:
        """Nothing goes back of one message with many parts, where the next hop takes them."""
        self.make(deliveries=4, connections=2, recipients_per_message=1)
        self.hop.holding = True
        self.send("M1", *(f"{n}@b.example" for n in range(40)))
        self.run_()
        for n in range(20):
            self.assertEqual((len(self.hop.held), len(self.hop.seen)), (2, 2 * n))
            self.hop.release()
            self.run_(0.1)
        self.assertEqual(self.states("M1"), [])

    def test_manySlow(self) -> None:
        """Some next hops that are slow leave room for one more."""
        self.make(Route(name="relay", kind="mx"), deliveries=20, connections=1)
        hops = {}
        for n in range(8):
            key = ("relay", f"slow{n}.example", False)
            hops[n] = self.destinations.hops[key] = FakeHop(1)
            hops[n].holding = True
            for m in range(20):
                self.send(f"S{n}-{m}", f"a@slow{n}.example")
        for _ in range(10):
            self.run_(5.0)
        self.assertEqual([len(each.held) for each in hops.values()], [1] * 8)
        self.send("F", "a@fast.example")
        self.run_()
        self.run_(5.0)
        fast = self.destinations.hops["relay", "fast.example", False]
        self.assertEqual(len(fast.seen), 1)

    def test_quickBesideSlow(self) -> None:
        """One that is quick is filled up again in the little room that long lines leave."""
        self.make(Route(name="relay", kind="mx"), deliveries=20, connections=1)
        for n in range(5):
            slow = self.destinations.hops["relay", f"slow{n}.example", False] = FakeHop(1)
            slow.holding = True
            for m in range(20):
                self.send(f"S{n}-{m}", f"a@slow{n}.example")
        for _ in range(10):
            self.run_(5.0)
        fast = self.destinations.hops["relay", "fast.example", False] = FakeHop(1)
        fast.holding = True
        for n in range(20):
            self.send(f"F{n}", "a@fast.example")
        self.run_()
        for _ in range(20):
            fast.release()
            self.run_(0.2)
        self.assertEqual(len(fast.seen), 20)

    def test_manyDomains(self) -> None:
        """A message for many next hops is on its way to no more at one time than may be."""
        self.make(Route(name="relay", kind="mx"), deliveries=4)
        domains = [f"d{n}.example" for n in range(30)]
        hops = [FakeHop(1) for _ in domains]
        for domain, hop in zip(domains, hops, strict=True):
            hop.holding = True
            self.destinations.hops["relay", domain, False] = hop
        self.send("M1", *(f"a@{domain}" for domain in domains))
        self.run_()
        for _ in range(8):
            self.assertLessEqual(sum(len(hop.held) for hop in hops), 4)
            for hop in hops:
                hop.release()
            self.run_()
        self.assertEqual([len(hop.seen) for hop in hops], [1] * 30)
        self.assertEqual(self.states("M1"), [])

    def test_urgentInLine(self) -> None:
        """Who waits for a next hop waits behind the urgent ones (RFC 6710)."""
        self.make(connections=1)
        self.hop.holding = True
        for n in range(3):
            self.send(f"M{n}")
        self.run_()
        self.send("U", **{"MT-PRIORITY": 4})
        self.run_()
        for _ in range(4):
            self.hop.release()
            self.run_()
        self.assertEqual([message.id for message, _ in self.hop.seen], ["M0", "U", "M1", "M2"])

    def test_extends(self) -> None:
        """A lease is extended while its delivery takes long; nobody else gets the work."""
        self.make(lease=30.0)
        self.hop.holding = True
        self.send("M1")
        self.run_()
        for _ in range(12):
            self.run_(10.0)
        self.assertEqual(self.lease(), [])
        self.hop.release()
        self.run_()
        self.assertEqual(self.states("M1"), [])

    def test_extendsTheRest(self) -> None:
        """When a part of a lease is settled, the rest of it is extended still."""
        self.make(lease=30.0, recipients_per_message=1)
        self.hop.holding = True
        self.send("M1", "a@slow.example", "b@slow.example")
        self.run_()
        first, second = self.hop.held
        first.callback(None)
        for _ in range(12):
            self.run_(10.0)
        self.assertEqual(self.lease(), [])
        second.callback(None)
        self.run_()
        self.assertEqual(self.states("M1"), [])
        self.assertEqual(len(self.hop.seen), 2)

    def test_extendingBug(self) -> None:
        """An error of our own in extending leases is logged, and tried again."""
        self.make(lease=30.0)
        self.hop.holding = True
        self.send("M1")
        self.run_()
        extend = self.queue.extend

        def fails(*arguments: Any) -> Deferred[Any]:
            raise RuntimeError("bug")

        self.patch(self.queue, "extend", fails)
        self.run_(10.0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.patch(self.queue, "extend", extend)
        for _ in range(6):
            self.run_(10.0)
        self.assertEqual(self.lease(), [])
        self.hop.release()
        self.run_()

    def test_settlingBug(self) -> None:
        """An error of our own in settling delivers no message again and again."""
        settle, broken = self.queue.settle, ["M1"]

        def fails(work: Any, *arguments: Any) -> Deferred[Any]:
            if work.message.id in broken:
                raise RuntimeError("bug")
            return settle(work, *arguments)

        self.patch(self.queue, "settle", fails)
        self.send("M1")
        self.send("M2")
        self.run_()
        self.run_(60.0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.hop.seen), 2)
        self.assertEqual((self.states("M1")[0][0], self.states("M2")), ("leased", []))
        broken.clear()
        self.run_(900.0)
        self.assertEqual([message.id for message, _ in self.hop.seen], ["M1", "M2", "M1"])
        self.assertEqual(self.states("M1"), [])

    def test_oneCommit(self) -> None:
        """What came of one transaction is written down at once, whatever the domains."""
        settle, settled = self.queue.settle, []

        def counted(work: Any, outcomes: Any, reports: Any) -> Deferred[Any]:
            settled.append(len(outcomes))
            return settle(work, outcomes, reports)

        self.patch(self.queue, "settle", counted)
        self.send("M1", "a@one.example", "b@two.example", "c@three.example")
        self.run_()
        self.assertEqual(settled, [3])
        self.assertEqual(self.states("M1"), [])

    def test_lost(self) -> None:
        """A lease that is lost is not settled: whoever has it now will; the log has a line."""
        self.make(lease=30.0)
        self.hop.holding = True
        self.send("M1")
        self.run_()
        self.time.now = NOW + 100.0
        self.queue.now = self.time
        [work] = self.lease()
        self.queue.now = self.clock.seconds
        self.hop.release()
        self.run_()
        self.assertEqual(self.states("M1")[0][0], "leased")
        self.assertEqual(work.message.id, "M1")

    def test_lostInPart(self) -> None:
        """Of a lease that is lost in part, the rest is settled, with reports of the rest alone.

        So has the log it: a report that was not queued is no line in it.
        """
        seen: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=seen.append))
        self.make(lease=30.0)
        self.hop.holding = True
        self.hop.said = dict.fromkeys(("no@b.example", "held@b.example"), NO)
        self.send("M1", "yes@b.example", "no@b.example", "held@b.example")
        self.run_()
        self.queue.now = lambda: NOW + 100.0
        held = Filter(ids=("M1",), recipient="held@b.example")
        self.successResultOf(self.queue.change(Action.HOLD, held, "root"))
        self.queue.now = self.timeOfDay
        self.hop.holding = False
        self.hop.release()
        self.run_()
        self.assertEqual(
            [state for state, _, _ in self.states("M1")], ["delivered", "failed", "held"]
        )
        [(_, report)] = self.reports
        self.assertIn("no@b.example", report.as_string())
        self.assertNotIn("held@b.example", report.as_string())
        told = [event["recipient"] for event in seen if event["event"] == "reported"]
        self.assertEqual(told, ["no@b.example"])

    def test_lostInPartUnanswered(self) -> None:
        """The same when the data base did not answer first: what was lost is not called ours."""
        settle, calls = self.queue.settle, []

        def fails(work: Any, *arguments: Any) -> Deferred[Any]:
            calls.append(arguments)
            if len(calls) > 1:
                return settle(work, *arguments)
            self.sql("UPDATE recipient SET state='held', due=NULL, token=NULL WHERE position=0")
            result: Deferred[Any] = Deferred()
            result.errback(Refused(LOCAL_ERROR, "gone"))
            return result

        self.patch(self.queue, "settle", fails)
        self.send("M1", "a@b.example", "c@b.example")
        self.run_()
        self.run_(5.0)
        self.assertEqual([state for state, _, _ in self.states("M1")], ["held", "delivered"])

    def test_clockForward(self) -> None:
        """A day forward, while a message is on its way: it is not taken a second time."""
        self.hop.holding = True
        self.send("M1")
        self.run_()
        self.ahead = 86400.0
        self.run_(60.0)
        self.assertEqual(len(self.hop.held), 1)
        self.hop.release()
        self.run_()
        self.assertEqual(len(self.hop.seen), 1)
        self.assertEqual(self.states("M1"), [])

    def test_clockForwardDelayed(self) -> None:
        """A day forward, and what was to be tried again within it is tried again at once."""
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1")
        self.run_()
        self.hop.said = {}
        self.ahead = 86400.0
        self.run_(30.0)
        self.assertEqual(len(self.hop.seen), 2)
        self.assertEqual(self.states("M1"), [])

    def test_clockBack(self) -> None:
        """A day back: what comes from then on goes at once, and what is on its way ends once."""
        self.hop.holding = True
        self.send("M1")
        self.run_()
        self.ahead = -86400.0
        self.hop.release()
        self.hop.holding = False
        self.run_()
        self.assertEqual(self.states("M1"), [])
        self.send("M2")
        self.run_()
        self.assertEqual(len(self.hop.seen), 2)
        self.assertEqual(self.states("M2"), [])

    def test_clockBackDelayed(self) -> None:
        """What waits by a clock that is set back waits no longer than the longest interval."""
        self.make(retry=(300.0, 1000.0))
        self.hop.said = {"bob@example.net": LATER}
        self.ahead = 86400.0
        self.send("M1")
        self.run_()
        self.assertEqual(self.due("M1"), 86700.0)
        self.ahead = 0.0
        self.run_(31.0)
        self.assertEqual(self.due("M1"), 1031.0)
        self.run_(1010.0)
        self.assertEqual(len(self.hop.seen), 2)

    def test_clockBackMeanwhile(self) -> None:
        """So it is when the clock was set back while nobody ran, and although it fails first."""
        self.hop.said = {"bob@example.net": LATER}
        self.ahead = 86400.0
        self.send("M1")
        self.run_()
        self.stop()
        self.ahead = 0.0
        self.make(retry=(300.0, 1000.0))
        hasten, failing = self.queue.hasten, [fail(Refused(LOCAL_ERROR, "gone"))]
        self.patch(
            self.queue, "hasten", lambda latest: failing.pop() if failing else hasten(latest)
        )
        self.run_()
        self.assertEqual(self.due("M1"), 86700.0)
        self.run_(30.0)
        self.assertEqual(self.due("M1"), 1030.0)

    def test_clockBackUnreadable(self) -> None:
        """One message that cannot be read at that does not keep the others back."""
        refused = Refused(LOCAL_ERROR, "database disk image is malformed")
        self.patch(self.queue, "hasten", lambda latest: fail(refused))
        self.send("M1")
        self.run_()
        self.assertEqual(self.hop.addresses, [["bob@example.net"]])
        asked: list[float] = []
        self.patch(self.queue, "hasten", lambda latest: asked.append(latest) or fail(refused))
        for at in range(60):
            self.send(f"N{at}")
            self.run_(1.0)
        self.assertIn(len(asked), range(2, 13))

    def test_lostWhileExtending(self) -> None:
        """The same, seen when the lease is to be extended."""
        self.make(lease=30.0)
        self.hop.holding = True
        self.send("M1")
        self.run_()
        self.queue.now = lambda: NOW + 100.0
        self.lease(seconds=1000.0)
        self.queue.now = self.clock.seconds
        self.run_(10.0)
        self.assertEqual(len(self.runner._leases), 0)
        self.hop.release()
        self.run_()

    def test_stop(self) -> None:
        """At the end what is on its way is finished, and the rest is due again at once."""
        self.hop.holding = True
        self.send("M1")
        self.run_()
        queued = FakeHop(10)
        queued.queueing = True
        self.destinations.hops["relay", "", True] = queued
        message = self.begin("M2")
        message._envelope.requireTLS = True
        message.dataReceived(b"\r\nx\r\n")
        self.successResultOf(message.eomReceived())
        self.run_()
        self.assertEqual(len(queued.held), 1)
        stopping = Deferred.fromCoroutine(self.runner.stop(30.0))
        self.clock.advance(0.05)
        self.assertNoResult(stopping)
        self.hop.release()
        self.clock.advance(0.05)
        self.clock.advance(0.05)
        self.successResultOf(stopping)
        self.assertEqual(self.states("M1"), [])
        self.assertEqual(self.states("M2")[0][:2], ("queued", 0))
        self.assertEqual([work.message.id for work in self.lease()], ["M2"])
        self.assertEqual(self.hop.closed, 1)

    def test_stopWhileConnecting(self) -> None:
        """A connection that is broken off at the end is no attempt, whatever its endpoint says."""

        async def deliver(message: Outgoing, read: Callable[[], IBody]) -> tuple[Outcome, ...]:
            with contextlib.suppress(CancelledError):
                await Deferred()
            return (Outcome(Result.DELAYED, LOCAL_ERROR, isRemote=False),)

        self.patch(self.hop, "deliver", deliver)
        self.send("M1")
        self.run_()
        self.stop()
        self.assertEqual(self.states("M1")[0][:2], ("queued", 0))

    def test_stopBreaksOff(self) -> None:
        """What is not finished when the time is over is broken off and given back."""
        self.hop.holding = True
        self.send("M1")
        self.run_()
        self.stop(0.2)
        self.assertEqual([work.message.id for work in self.lease()], ["M1"])

    def stopWhileSettling(self, *results: Any) -> list[str]:
        """Stop while an outcome is being written down, which ends so; problems in the log."""
        settle, waiting = self.queue.settle, []

        def slowly(*arguments: Any) -> Deferred[Any]:
            waiting.append(Deferred().addCallback(lambda result: result or settle(*arguments)))
            return waiting[-1]

        self.patch(self.queue, "settle", slowly)
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.send("M1")
        self.run_()
        stopping = Deferred.fromCoroutine(self.runner.stop(0.2))
        for _ in range(8):
            self.clock.advance(0.05)
        for each, result in zip(waiting, results, strict=True):
            each.callback(result)
        for _ in range(2):
            self.clock.advance(0.05)
        self.successResultOf(stopping)
        self.assertEqual(len(self.hop.seen), 1)
        return [each["problem"] for each in logged if "problem" in each]

    def test_stopWhileSettling(self) -> None:
        """What has come of a message is written down, although the time is over."""
        self.assertEqual(self.stopWhileSettling(None), [])
        self.assertEqual(self.states("M1"), [])

    def test_stopWhileGone(self) -> None:
        """Where that cannot be done now, it is not waited for any longer."""
        [gone, brokenOff] = self.stopWhileSettling(Failure(Refused(LOCAL_ERROR, "gone")))
        self.assertIn("(gone)", gone)
        self.assertIn("may arrive twice", brokenOff)
        self.assertEqual([work.message.id for work in self.lease()], ["M1"])

    def test_stopWhileTaking(self) -> None:
        """Work that comes when nobody wants it any more goes back."""
        self.send("M1")
        lease = self.queue.lease
        waiting: list[Deferred[Any]] = []

        def slowly(limit: int, seconds: float) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(self.queue, "lease", slowly)
        self.run_()
        stopping = Deferred.fromCoroutine(self.runner.stop(1.0))
        self.patch(self.queue, "lease", lease)
        waiting[0].callback(self.lease())
        self.clock.advance(0.05)
        self.clock.advance(0.05)
        self.successResultOf(stopping)
        self.assertEqual(len(self.lease()), 1)

    def test_answerLost(self) -> None:
        """What was written down, though its answer was lost, is a line of the log as ever."""
        settle, lost = self.queue.settle, [True]

        def unanswered(*arguments: Any) -> Deferred[Any]:
            result: Deferred[Any] = settle(*arguments)
            if lost.pop():
                result.addCallback(lambda _: Failure(Refused(LOCAL_ERROR, "gone")))
                lost.append(False)
            return result

        self.patch(self.queue, "settle", unanswered)
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.send("M1")
        self.run_()
        self.run_(5.0)
        self.assertEqual((len(self.hop.seen), self.states("M1")), (1, []))
        self.assertEqual([each["problem"][-6:] for each in logged if "problem" in each], ["(gone)"])
        ended = [each["id"] for each in logged if each.get("event") == "recipient-delivered"]
        self.assertEqual(ended, ["M1"])

    def test_damagedDelayed(self) -> None:
        """A page of recipients who are to be tried later is told of once, not at each look."""
        self.hop.said = {"bob@example.net": LATER}
        self.send("M1", "bob@example.net")
        self.run_()
        self.stop()
        spoil(self.queue, self.path, "recipient")
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.make()
        for _ in range(4):
            self.run_(30.0)
        problems = [each["problem"] for each in logged if "problem" in each]
        self.assertEqual(len(problems), 1)
        self.assertIn("malformed", problems[0])

    def test_damagedHistory(self) -> None:
        """What was delivered while a page of history is lost goes out once, with its report."""
        hop = self.hop
        hop.holding = True
        hop.said = {"bob@example.net": NO}
        self.send("M1", "bob@example.net", "carol@example.net")
        self.run_()
        spoil(self.queue, self.path, "history_message")
        hop.holding = False
        hop.release()
        for _ in range(4):
            self.run_(300.0)
        sent = [["bob@example.net", "carol@example.net"], ["alice@example.com"]]
        self.assertEqual(hop.addresses, sent)
        found = self.sql("SELECT state FROM recipient WHERE message = 'M1' ORDER BY position")
        self.assertEqual(found, [("failed",), ("delivered",)])
        self.stop()
        self.queue = self.makeSpool().queue
        self.queue.now = self.timeOfDay
        self.make()
        for _ in range(4):
            self.run_(300.0)
        self.assertEqual(self.hop.addresses, [])

    def test_notSettled(self) -> None:
        """What cannot be written at all is not tried again, and has no place."""
        self.make(deliveries=1)
        settle, calls = self.queue.settle, []

        def fails(work: Any, *arguments: Any) -> Deferred[Any]:
            calls.append(work.message.id)
            if work.message.id == "M1":
                return fail(Damaged("M1", "a page of the data base"))
            return settle(work, *arguments)

        self.patch(self.queue, "settle", fails)
        self.send("M1")
        self.send("M2")
        self.run_()
        for _ in range(3):
            self.run_(5.0)
        self.assertEqual(calls, ["M1", "M2"])
        self.assertEqual((len(self.hop.seen), self.states("M2")), (2, []))

    def test_dataBaseGone(self) -> None:
        """While the data base is away nothing is taken, and what was delivered is settled later."""
        self.make(lease=30.0)
        self.hop.holding = True
        self.send("M1")
        self.run_()
        settle, calls = self.queue.settle, []

        def fails(*arguments: Any) -> Deferred[Any]:
            calls.append(arguments)
            result: Deferred[Any] = Deferred()
            result.errback(Refused(LOCAL_ERROR, "gone"))
            return result

        self.patch(self.queue, "settle", fails)
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.hop.release()
        self.run_()
        for _ in range(3):
            self.run_(5.0)
        self.assertEqual(len(calls), 4)
        # With the lease as it is by then: a spool may give another work when it is extended.
        self.assertGreater(calls[-1][0].until, calls[0][0].until)
        problems = [each["problem"] for each in logged if "problem" in each]
        # Once, however long it lasts.
        self.assertEqual([each[-6:] for each in problems], ["(gone)"])
        self.patch(self.queue, "settle", settle)
        self.run_(5.0)
        self.assertEqual(self.states("M1"), [])
        self.assertEqual(len(self.hop.seen), 1)
        lease = self.queue.lease
        self.patch(self.queue, "lease", fails)
        self.send("M2")
        self.run_()
        self.patch(self.queue, "lease", lease)
        self.hop.holding = False
        self.run_(5.0)
        self.assertEqual(len(self.hop.seen), 2)

    def test_leaseBug(self) -> None:
        """An error of our own while work is taken is logged, and not the end of all deliveries."""
        lease = self.queue.lease

        def fails(*arguments: Any) -> Deferred[Any]:
            raise RuntimeError("bug")

        self.patch(self.queue, "lease", fails)
        self.send("M1")
        self.run_()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.patch(self.queue, "lease", lease)
        self.run_(5.0)
        self.assertEqual(len(self.hop.seen), 1)

    def test_bodyUnreadable(self) -> None:
        """A body that cannot be read now delays its message."""

        class Unreadable:
            def next(self) -> Deferred[bytes]:
                result: Deferred[bytes] = Deferred()
                result.errback(Refused(LOCAL_ERROR, "gone"))
                return result

        self.send("M1")
        self.patch(self.queue, "read", lambda id: Unreadable())
        self.run_()
        self.assertEqual(self.states("M1")[0][0], "delayed")

    def test_twoRunners(self) -> None:
        """What another process has added is found without being told."""
        self.run_()
        other = self.makeSpool()
        other.queue.now = self.clock.seconds
        self.send("M1", spool=other)
        self.run_()
        self.assertEqual(self.hop.seen, [])
        self.run_(30.0)
        self.assertEqual(len(self.hop.seen), 1)
