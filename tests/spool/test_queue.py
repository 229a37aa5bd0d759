"""The queue over SQLite and PostgreSQL alike: what goes in, leases, outcomes, operators."""

from __future__ import annotations

from typing import Any

import attrs
import sqlalchemy as sa
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from submitd.deliveries.spool import Spool
from submitd.extensions.deliverby import DeliverBy
from submitd.interfaces import IBody, ISpool, ISpoolOperations
from submitd.spool import accepting, outcomes, tidying
from submitd.spool.queue import STOP_LIMIT
from submitd.spool.records import (
    Action,
    Damaged,
    Filter,
    LeaseLost,
    NewMessage,
    Settlement,
    State,
)
from submitd.wire.errors import Refused
from tests.spool.support import TRACE, Gate, PostgresCase, SpoolCase, makeEnvelope, makeSession


class QueueTests:
    """What holds for both data bases."""

    def test_interfaces(self: Any) -> None:
        """It is what the relay and operators are told it is."""
        verifyObject(ISpool, self.queue)
        verifyObject(ISpoolOperations, self.queue)
        verifyObject(IBody, self.queue.read("x"))

    # In and out.

    def test_roundTrip(self: Any) -> None:
        """All of the envelope comes back: reports and the next hop need each part of it."""
        envelope = makeEnvelope(
            "A-1", '"o\'brien \\"x\\""@example.net', "käthe@bücher.example", "postmaster"
        )
        envelope.smtpUtf8, envelope.requireTLS, envelope.ret = True, True, "HDRS"
        envelope.envid, envelope.bodyType, envelope.size = "QQ314159", "8BITMIME", 99
        envelope.parameters = {"SIZE": "99", "SMTPUTF8": None}
        envelope.extensions = {
            "MT-PRIORITY": 3,
            "DELIVERBY": DeliverBy(self.time.now + 60, "R", True),
            "FUTURERELEASE": self.time.now - 1,
        }
        envelope.recipients[0].notify = ("SUCCESS", "DELAY")
        envelope.recipients[0].orcpt = ("rfc822", "bob@example.org")
        envelope.recipients[1].parameters = {"NOTIFY": "NEVER"}
        message = self.spool.begin(makeSession(), envelope)
        message.dataReceived(TRACE)
        message.dataReceived("Grüße\r\n".encode())
        message.prepend(b"DKIM-Signature: x\r\n")
        self.assertEqual(self.successResultOf(message.eomReceived()), "A-1")
        works = self.lease()
        found = works[0].message
        for field in attrs.fields(type(envelope)):
            if field.name != "recipients":
                self.assertEqual(
                    getattr(found.envelope, field.name), getattr(envelope, field.name), field.name
                )
        self.assertEqual((found.login, found.client), ("alice", "192.0.2.7"))
        self.assertEqual((found.priority, found.eightBit), (3, True))
        self.assertEqual(found.fields, b"DKIM-Signature: x\r\n" + TRACE)
        content = found.fields + "Grüße\r\n".encode()
        self.assertEqual((found.size, found.arrived), (len(content), self.time.now))
        self.assertEqual(self.body("A-1"), content)
        recipients = sorted((r for w in works for r in w.recipients), key=lambda r: r.position)
        for given, kept in zip(envelope.recipients, recipients, strict=True):
            self.assertEqual(kept.mailbox, given.mailbox)
            self.assertEqual(kept.recipient.notify, given.notify)
            self.assertEqual(kept.recipient.orcpt, given.orcpt)
            self.assertEqual(kept.recipient.parameters, given.parameters)
            self.assertEqual(kept.expires, self.time.now + 60)
        self.assertEqual([w.domain for w in works], ["example.net", "xn--bcher-kva.example", ""])

    def test_large(self: Any) -> None:
        """A large message goes in and out in chunks, and is there only when it is whole."""
        message = self.begin("A-1")
        pieces = [bytes([65 + at]) * 100_000 + b"\r\n" for at in range(20)]
        waited = [message.dataReceived(piece) for piece in pieces]
        self.assertTrue(any(isinstance(each, Deferred) for each in waited))
        self.assertEqual(self.lease(), [])
        self.assertEqual(self.successResultOf(self.queue.messages(Filter())), [])
        self.successResultOf(message.eomReceived())
        body = self.queue.read("A-1")
        chunks = []
        while chunk := self.successResultOf(body.next()):
            chunks.append(chunk)
        self.assertEqual(b"".join(chunks), TRACE + b"".join(pieces))
        self.assertLessEqual(max(map(len, chunks)), accepting.CHUNK + len(TRACE))
        self.assertEqual(self.sql("SELECT * FROM upload"), [])

    def test_emptyBody(self: Any) -> None:
        """A message without an octet is a message."""
        message = self.begin("A-1")
        self.successResultOf(message.eomReceived())
        self.assertEqual(self.body("A-1"), TRACE)

    def test_aborted(self: Any) -> None:
        """An aborted message leaves nothing, though its first chunks have been written."""
        message = self.begin("A-1")
        message.dataReceived(b"x" * 300_000)
        self.assertEqual(len(self.sql("SELECT sequence FROM part")), 2)
        message.connectionLost()
        for table in ("part", "upload", "message", "recipient"):
            self.assertEqual(self.sql(f"SELECT * FROM {table}"), [])

    def test_leftover(self: Any) -> None:
        """What a crash left of a message is cleared away after a day; one under way is not."""
        message = self.begin("A-1")
        message.dataReceived(b"x" * 300_000)
        self.time.now += tidying.STALE - 10
        other = self.begin("B-1")
        other.dataReceived(b"x" * 300_000)
        self.time.now += 60
        other.dataReceived(b"x" * 300_000)
        self.send("C-1")
        self.assertEqual(self.sql("SELECT message FROM upload"), [("B-1",)])
        self.assertNotIn(("A-1",), self.sql("SELECT message FROM part"))
        self.successResultOf(other.eomReceived())
        failure = self.failureResultOf(message.eomReceived())
        self.assertEqual(failure.value.reply.code, 451)
        late = message.dataReceived(b"x" * 300_000)
        self.assertEqual(self.failureResultOf(late).value.reply.code, 451)
        self.assertEqual(self.sql("SELECT * FROM upload"), [])

    def test_sameId(self: Any) -> None:
        """An id that is there already is refused, and does nothing to the one that has it."""
        self.send("A-1", text=b"first\r\n")
        message = self.begin("A-1")
        message.dataReceived(b"second\r\n")
        failure = self.failureResultOf(message.eomReceived())
        self.assertEqual(failure.value.reply.code, 451)
        self.assertEqual(self.body("A-1"), TRACE + b"first\r\n")

    # Leases.

    def test_lease(self: Any) -> None:
        """What is leased is not had by another, until the lease ends."""
        self.send("A-1")
        other = self.makeSpool().queue
        [work] = self.lease()
        self.assertEqual(work.until, self.time.now + 60)
        self.assertEqual(self.lease(queue=other), [])
        self.time.now += 61
        [again] = self.lease(queue=other)
        self.assertEqual(again.message.id, "A-1")
        self.assertEqual(again.recipients[0].state, State.QUEUED)
        delivered = [Settlement(position=0, state=State.DELIVERED, reply="")]
        failure = self.failureResultOf(self.queue.settle(work, delivered), LeaseLost)
        self.assertEqual((failure.value.messageId, failure.value.positions), ("A-1", (0,)))
        self.failureResultOf(self.queue.extend(work, 60), LeaseLost)
        self.successResultOf(self.queue.giveBack(work))
        self.assertEqual(self.lease(), [])
        self.successResultOf(other.settle(again, delivered))
        self.assertEqual(self.sql("SELECT * FROM message"), [])

    def test_leaseLostInPart(self: Any) -> None:
        """Of a lease that is lost in part it is told in which; the rest can be settled still."""
        self.send("A-1", "a@one.example", "b@one.example", "c@one.example")
        [work] = self.lease()
        self.time.now += 61
        held = Filter(ids=("A-1",), recipient="b@one.example")
        self.successResultOf(self.queue.change(Action.HOLD, held, "root"))
        delivered = [Settlement(position=n, state=State.DELIVERED, reply="") for n in range(3)]
        failure = self.failureResultOf(self.queue.settle(work, delivered), LeaseLost)
        self.assertEqual(failure.value.positions, (1,))
        states = "SELECT state FROM recipient ORDER BY position"
        self.assertEqual(self.sql(states), [("leased",), ("held",), ("leased",)])
        self.successResultOf(self.queue.settle(work, [delivered[0], delivered[2]]))
        self.assertEqual(self.sql(states), [("delivered",), ("held",), ("delivered",)])

    def test_lateLease(self: Any) -> None:
        """A lease that has ended still counts while nobody else has taken it."""
        self.send("A-1")
        [work] = self.lease()
        self.time.now += 61
        self.settle(work, State.DELIVERED)
        self.assertEqual(self.sql("SELECT * FROM recipient"), [])

    def test_takeover(self: Any) -> None:
        """That a lease is taken over is in the log, for a duplicate may come of it."""
        self.send("A-1")
        self.lease()
        self.time.now += 61
        said: list[dict[str, Any]] = []
        self.patch(store_events(), "emit", lambda event, **fields: said.append(fields))
        self.lease()
        self.assertEqual(said, [{"id": "A-1", "recipients": 1}])

    def test_unheard(self: Any) -> None:
        """What was leased by a commit whose answer was lost is to be had at once."""
        for id, attempts in (("A-1", 0), ("A-2", 1)):
            self.send(id)
            self.sql(f"UPDATE recipient SET attempts={attempts} WHERE message='{id}'")
        link = self.queue._links[0]
        write = link.write

        def deaf(work: Any) -> None:
            write(work)
            raise sa.exc.OperationalError("COMMIT", {}, Exception("connection lost"))

        def away(work: Any) -> None:
            raise sa.exc.OperationalError("BEGIN", {}, Exception("no connection"))

        for failing in (deaf, away):
            patched = self.patch(link, "write", failing)
            self.failureResultOf(self.queue.lease(10, 60), Refused)
            patched.restore()
        self.assertEqual(self.sql("SELECT state FROM recipient"), [("leased",)] * 2)
        said: list[dict[str, Any]] = []
        self.patch(store_events(), "emit", lambda event, **fields: said.append(fields))
        works = self.lease()
        # What has been taken over by the lost lease may have begun, and is not known any more.
        self.assertEqual([each["id"] for each in said], ["A-1", "A-2"])
        self.assertEqual([work.message.id for work in works], ["A-1", "A-2"])
        states = [each.state for work in works for each in work.recipients]
        self.assertEqual(states, [State.QUEUED, State.DELAYED])
        self.assertEqual(self.queue._unheard, [])

    def test_unheardAtTheEnd(self: Any) -> None:
        """The queue that goes gives it to others."""
        self.send("A-1")
        other = self.makeSpool().queue
        link = other._links[0]
        write = link.write

        def deaf(work: Any) -> None:
            write(work)
            raise sa.exc.OperationalError("COMMIT", {}, Exception("connection lost"))

        patched = self.patch(link, "write", deaf)
        self.failureResultOf(other.lease(10, 60), Refused)
        self.assertEqual(self.lease(), [])
        patched.restore()
        self.successResultOf(other.stop())
        [work] = self.lease()
        self.assertEqual(work.message.id, "A-1")

    def test_unheardForLong(self: Any) -> None:
        """What such a commit has leased is nobody's care any more when the lease has ended."""
        link = self.queue._links[0]

        def away(work: Any) -> None:
            raise sa.exc.OperationalError("BEGIN", {}, Exception("no connection"))

        patched = self.patch(link, "write", away)
        for _ in range(5):
            self.failureResultOf(self.queue.lease(10, 60), Refused)
            self.time.now += 50
        self.assertEqual(len(self.queue._unheard), 2)
        patched.restore()

    def test_extend(self: Any) -> None:
        """A lease can be made longer while it lasts."""
        self.send("A-1")
        [work] = self.lease()
        self.time.now += 50
        longer = self.successResultOf(self.queue.extend(work, 60))
        self.assertEqual(longer.until, self.time.now + 60)
        self.time.now += 50
        self.assertEqual(self.lease(), [])

    def test_extendRest(self: Any) -> None:
        """A lease whose parts end one by one is extended for those that have not."""
        self.send("A-1", "a@one.example", "b@one.example")
        [work] = self.lease()
        delivered = Settlement(position=0, state=State.DELIVERED, reply="250")
        self.successResultOf(self.queue.settle(work, [delivered]))
        self.time.now += 50
        self.successResultOf(self.queue.extend(work, 60))
        self.time.now += 50
        self.assertEqual(self.lease(), [])
        self.time.now += 50
        [again] = self.lease()
        self.assertEqual([each.position for each in again.recipients], [1])
        self.failureResultOf(self.queue.extend(work, 60), LeaseLost)

    def test_giveBack(self: Any) -> None:
        """What is given back stands where it stood, and counts no attempt."""
        self.send("A-1")
        [work] = self.lease()
        self.settle(work, State.DELAYED)
        self.time.now += 300
        [work] = self.lease()
        self.successResultOf(self.queue.giveBack(work))
        [again] = self.lease()
        self.assertEqual(again.recipients[0].state, State.DELAYED)
        self.assertEqual(again.recipients[0].attempts, 1)
        self.assertEqual(again.recipients[0].due, work.recipients[0].due)

    def test_grouped(self: Any) -> None:
        """One message to one domain is one piece of work, and its pieces stand together."""
        self.send("A-1", "a@one.example", "b@two.example", "c@ONE.example")
        self.send("B-1", "d@one.example")
        works = [
            (each.message.id, each.domain, [r.position for r in each.recipients])
            for each in self.lease()
        ]
        self.assertEqual(
            works,
            [
                ("A-1", "one.example", [0, 2]),
                ("A-1", "two.example", [1]),
                ("B-1", "one.example", [0]),
            ],
        )

    def test_order(self: Any) -> None:
        """The more urgent comes first (RFC 6710), then what has waited longer."""
        self.send("A-1")
        self.time.now += 1
        self.send("B-1", **{"MT-PRIORITY": -2})
        self.send("C-1", **{"MT-PRIORITY": 4})
        self.send("D-1")
        self.assertEqual([w.message.id for w in self.lease()], ["C-1", "A-1", "D-1", "B-1"])

    def test_limit(self: Any) -> None:
        """No more than asked for, but for the other recipients of a message."""
        for at in range(5):
            self.send(f"A-{at}", "a@one.example", "b@two.example")
        self.assertEqual(len(self.lease(limit=4)), 4)
        self.assertEqual(len(self.lease(limit=100)), 6)

    def test_held(self: Any) -> None:
        """A message with FUTURERELEASE (RFC 4865) is not due before its time."""
        self.send("A-1", FUTURERELEASE=self.time.now + 100)
        self.assertEqual(self.lease(), [])
        self.assertEqual(self.successResultOf(self.queue.nextDue()), self.time.now + 100)
        self.time.now += 100
        self.assertEqual(len(self.lease()), 1)

    def test_nextDue(self: Any) -> None:
        """When to look again: the earliest of all priorities, leases among them."""
        self.assertIsNone(self.successResultOf(self.queue.nextDue()))
        self.send("A-1", FUTURERELEASE=self.time.now + 100)
        self.send("B-1", FUTURERELEASE=self.time.now + 50, **{"MT-PRIORITY": 1})
        self.assertEqual(self.successResultOf(self.queue.nextDue()), self.time.now + 50)
        self.time.now += 50
        self.lease(seconds=7)
        self.assertEqual(self.successResultOf(self.queue.nextDue()), self.time.now + 7)

    def test_hasten(self: Any) -> None:
        """Behind a clock that was set back, all is due soon but what its sender wants to wait."""
        self.time.now += 86400
        for id, extensions in (
            ("A-tried", {}),
            ("B-new", {"MT-PRIORITY": 1}),
            ("C-later", {"FUTURERELEASE": self.time.now + 50}),
        ):
            self.send(id, **extensions)
        works = {work.message.id: work for work in self.lease()}
        self.settle(works["A-tried"], State.DELAYED)
        self.successResultOf(self.queue.giveBack(works["B-new"]))
        later = self.time.now + 50
        self.time.now -= 86400
        self.successResultOf(self.queue.hasten(self.time.now + 20))
        due = {
            id: self.successResultOf(self.queue.show(id)).recipients[0].due
            for id in ("A-tried", "B-new", "C-later")
        }
        expected = {"A-tried": self.time.now + 20, "B-new": self.time.now, "C-later": later}
        self.assertEqual(due, expected)
        self.successResultOf(self.queue.hasten(self.time.now + 30))
        shown = self.successResultOf(self.queue.show("A-tried"))
        self.assertEqual(shown.recipients[0].due, self.time.now + 20)

    def test_whenDue(self: Any) -> None:
        """Whoever delivers is told of what has come, and need not ask all the time."""
        told: list[float] = []
        self.queue.whenDue(told.append)
        self.send("A-1")
        self.send("B-1", FUTURERELEASE=self.time.now + 100)
        self.assertEqual(told, [self.time.now, self.time.now + 100])
        [work] = self.lease()
        self.settle(work, State.DELAYED)
        self.assertEqual(told[2:], [self.time.now + 300])
        ids = Filter(ids=("A-1",))
        self.successResultOf(self.queue.change(Action.HOLD, ids, "root"))
        self.assertEqual(len(told), 3)
        self.successResultOf(self.queue.change(Action.RELEASE, ids, "root"))
        self.assertEqual(told[3:], [self.time.now])

    # Outcomes.

    def test_delayed(self: Any) -> None:
        """A delayed recipient comes back at its time, with what was said, and on record."""
        self.send("A-1")
        [work] = self.lease()
        outcome = Settlement(
            position=0,
            state=State.DELAYED,
            reply="451 4.7.1 later\0" + "x" * 5000,
            due=self.time.now + 10,
            notified=self.time.now,
        )
        self.successResultOf(self.queue.settle(work, [outcome]))
        self.assertEqual(self.lease(), [])
        self.time.now += 10
        [work] = self.lease()
        [recipient] = work.recipients
        self.assertEqual((recipient.state, recipient.attempts), (State.DELAYED, 1))
        self.assertEqual(recipient.notified, self.time.now - 10)
        self.assertTrue(recipient.reply.startswith("451 4.7.1 later?x"))
        self.assertEqual(len(recipient.reply), 2000)
        self.settle(work, State.DELAYED, "452 again")
        shown = self.successResultOf(self.queue.show("A-1"))
        self.assertEqual(
            [(e.position, e.event, e.text[:9], e.who) for e in shown.history],
            [
                (0, "delayed", "451 4.7.1", self.queue.owner),
                (0, "delayed", "452 again", self.queue.owner),
            ],
        )
        self.assertEqual(shown.recipients[0].notified, self.time.now - 10)

    def test_notAttempted(self: Any) -> None:
        """What was not tried, for want of a connection, counts no attempt."""
        self.send("A-1")
        [work] = self.lease()
        outcome = Settlement(
            position=0, state=State.DELAYED, reply="no route", due=self.time.now, attempted=False
        )
        self.successResultOf(self.queue.settle(work, [outcome]))
        self.assertEqual(self.lease()[0].recipients[0].attempts, 0)
        self.assertEqual(self.sql("SELECT count(*) FROM history"), [(0,)])

    def test_parts(self: Any) -> None:
        """Outcomes may come one by one; the message goes with the last of its recipients."""
        self.send("A-1", "a@one.example", "b@one.example", "c@two.example")
        one, two = self.lease()
        delivered = Settlement(position=0, state=State.DELIVERED, reply="250")
        self.successResultOf(self.queue.settle(one, [delivered]))
        self.settle(two, State.FAILED)
        self.assertEqual(self.body("A-1")[:9], b"Received:")
        rest = Settlement(position=1, state=State.DELIVERED, reply="250")
        self.successResultOf(self.queue.settle(one, [rest]))
        for table in ("message", "part", "recipient", "history"):
            self.assertEqual(self.sql(f"SELECT * FROM {table}"), [])

    def test_reports(self: Any) -> None:
        """A report is queued with the outcome that it is about; both or neither."""
        self.send("A-1")
        [work] = self.lease()
        report = NewMessage(
            envelope=makeEnvelope("R-1", "alice@example.com", sender=""),
            content=b"Subject: failed\r\n\r\n" + b"x" * 300_000,
        )
        self.settle(work, State.FAILED, reports=[report])
        [work] = self.lease()
        self.assertEqual(work.message.id, "R-1")
        self.assertTrue(work.message.envelope.reversePath.isNull)
        self.assertEqual(self.body("R-1"), report.content)
        self.send("B-1")
        [other] = self.lease()
        failed = [Settlement(position=0, state=State.FAILED, reply="550")]
        same = self.queue.settle(other, failed, [report])
        self.assertEqual(self.failureResultOf(same).value.reply.code, 451)
        self.assertEqual(self.sql("SELECT DISTINCT state FROM recipient"), [("leased",)])

    def test_settledTogether(self: Any) -> None:
        """Outcomes of one message that share a commit look at its recipients once."""
        count = 50
        self.send("A-1", *[f"r{at}@example.net" for at in range(count)])
        [work] = self.lease()
        gate, looks, look = Gate(), [], outcomes._STANDING.run
        self.patch(self.queue._writer, "_run", gate.run)
        self.patch(outcomes._STANDING, "run", lambda *given: looks.append(given) or look(*given))
        settling = [
            self.queue.settle(work, [Settlement(position=at, state=State.DELIVERED, reply="250")])
            for at in range(count)
        ]
        gate.open()
        for each in settling:
            self.assertIsNone(self.successResultOf(each))
        self.assertEqual(self.sql("SELECT * FROM message"), [])
        self.assertEqual(len(looks), 2, "for the first one, and for the others")

    def test_keep(self: Any) -> None:
        """The record of a finished message is kept as long as was asked for, without its body."""
        queue = self.makeSpool(keep=1000.0).queue
        self.send("A-1")
        [work] = self.lease(queue=queue)
        self.queue = queue
        self.settle(work, State.DELIVERED, "250 fine")
        self.assertEqual(self.sql("SELECT * FROM part"), [])
        shown = self.successResultOf(queue.show("A-1"))
        self.assertEqual(shown.recipients[0].reply, "250 fine")
        self.assertEqual([each.event for each in shown.history], ["delivered"])
        self.assertEqual(self.successResultOf(queue.messages(Filter())), [])
        done = Filter(states=(State.DELIVERED,))
        self.assertEqual(len(self.successResultOf(queue.messages(done))), 1)
        self.time.now += 1001
        self.assertEqual(self.lease(), [])
        self.assertIsNone(self.successResultOf(queue.show("A-1")))

    def test_wrongSettlement(self: Any) -> None:
        """An outcome that would leave a recipient waiting for ever cannot be made."""
        for state, due in (
            (State.DELAYED, None),
            (State.FAILED, 1.0),
            (State.QUEUED, None),
            (State.LEASED, None),
        ):
            with self.assertRaises(ValueError):
                Settlement(position=0, state=state, reply="", due=due)

    # The same submission again.

    MAIL = b"message-id: <1@example.com>\r\nSubject: x\r\n\r\nx\r\n"

    def test_repeated(self: Any) -> None:
        """A client whose 250 was lost sends again: it is told the first id, and kept once."""
        self.assertEqual(self.send("A-1", text=self.MAIL), "A-1")
        self.time.now += 3600
        self.assertEqual(self.send("B-1", text=self.MAIL), "A-1")
        self.assertEqual(self.sql("SELECT id FROM message"), [("A-1",)])
        self.time.now += 1
        self.assertEqual(self.send("C-1", text=self.MAIL), "C-1")
        self.assertEqual(self.send("D-1", text=self.MAIL), "C-1")

    def test_repeatedSetBack(self: Any) -> None:
        """What was submitted by a clock far ahead is not known for ever when it is set back."""
        self.time.now += 10 * 365 * 86400
        self.assertEqual(self.send("A-1", text=self.MAIL), "A-1")
        self.time.now -= 3600
        self.assertEqual(self.send("B-1", text=self.MAIL), "A-1")
        self.time.now -= 9 * 365 * 86400
        self.assertEqual(self.send("C-1", text=self.MAIL), "C-1")
        self.assertEqual(self.send("D-1", text=self.MAIL), "C-1")

    def test_repeatedLarge(self: Any) -> None:
        """So is a large one, and its chunks are dropped."""
        text = self.MAIL + b"x" * 600_000
        self.assertEqual(self.send("A-1", text=text), "A-1")
        self.assertEqual(self.send("B-1", text=text), "A-1")
        self.assertEqual(self.sql("SELECT DISTINCT message FROM part"), [("A-1",)])
        self.assertEqual(self.sql("SELECT * FROM upload"), [])

    def test_repeatedAfterDelivery(self: Any) -> None:
        """The first one may have been delivered meanwhile."""
        self.send("A-1", text=self.MAIL)
        self.settle(self.lease()[0], State.DELIVERED)
        self.assertEqual(self.send("B-1", text=self.MAIL), "A-1")

    def test_repeatedAfterFailure(self: Any) -> None:
        """After it has been given up it is sent again on purpose."""
        self.send("A-1", text=self.MAIL)
        self.settle(self.lease()[0], State.FAILED)
        self.assertEqual(self.send("B-1", text=self.MAIL), "B-1")
        self.successResultOf(self.queue.change(Action.DELETE, Filter(ids=("B-1",)), "root"))
        self.assertEqual(self.send("C-1", text=self.MAIL), "C-1")

    def sendAsking(self: Any, id: str, **parameters: str | None) -> str:
        """Submit the message with parameters of MAIL."""
        message = self.begin(id)
        message._envelope.parameters.update(parameters)
        message.dataReceived(self.MAIL)
        kept: str = self.successResultOf(message.eomReceived())
        return kept

    def test_notRepeated(self: Any) -> None:
        """Whatever differs is another submission; without a Message-ID every one is."""
        self.send("A-1", text=self.MAIL)
        others = (
            {"text": self.MAIL + b"y\r\n"},
            {"text": self.MAIL, "sender": "carol@example.com"},
            {"text": self.MAIL, "session": makeSession("carol")},
            {"text": self.MAIL, "session": makeSession("")},
            {"text": b"Subject: Message-ID: x\r\n\r\nMessage-ID: <1@example.com>\r\n"},
            {"text": b"Subject: Message-ID: x\r\n\r\nMessage-ID: <1@example.com>\r\n"},
        )
        for at, other in enumerate(others):
            self.assertEqual(self.send(f"B-{at}", **other), f"B-{at}")
        self.assertEqual(self.send("C-1", "carol@example.net", text=self.MAIL), "C-1")
        for at, asked in enumerate(({"REQUIRETLS": None}, {"HOLDFOR": "60"}, {"HOLDFOR": "61"})):
            self.assertEqual(self.sendAsking(f"P-{at}", **asked), f"P-{at}")
        self.assertEqual(self.sendAsking("P-3", HOLDFOR="61", SIZE="100"), "P-2")
        self.assertEqual(self.sendAsking("P-4"), "A-1")
        self.assertEqual(self.send("D-1", text=self.MAIL, spool=self.makeSpool(window=0.0)), "D-1")

    # Damage.

    def test_damagedEnvelope(self: Any) -> None:
        """A row that cannot be read is put on hold with its id, and does not stop the rest."""
        self.send("A-1")
        self.send("B-1", "a@one.example", "b@two.example")
        self.send("C-1")
        self.sql("UPDATE message SET envelope = '[]' WHERE id = 'A-1'")
        self.sql(
            "UPDATE recipient SET address = 'nonsense @' WHERE message = 'B-1' AND position = 1"
        )
        said: list[dict[str, Any]] = []
        self.patch(store_events(), "emit", lambda event, **fields: said.append(fields))
        self.assertEqual([each.message.id for each in self.lease()], ["C-1"])
        self.assertEqual([each["id"] for each in said], ["A-1", "B-1"])
        states = self.sql("SELECT message, state, reply FROM recipient ORDER BY message")
        self.assertEqual([row[1] for row in states], ["held", "held", "held", "leased"])
        self.assertIn("damaged: its envelope cannot be read", states[0][2])
        listed = self.successResultOf(self.queue.messages(Filter(states=(State.HELD,))))
        self.assertEqual([each.id for each in listed], ["A-1", "B-1"])
        self.assertIsNone(listed[0].message)
        self.assertIn("recipient 1", listed[1].damage)
        shown = self.successResultOf(self.queue.show("B-1"))
        self.assertIn("recipient 1", shown.damage)
        self.assertEqual(len(shown.recipients), 1)
        self.successResultOf(self.queue.change(Action.DELETE, Filter(ids=("A-1",)), "root"))
        self.assertIsNone(self.successResultOf(self.queue.show("A-1")))

    def test_goneMeanwhile(self: Any) -> None:
        """A large message that ends while somebody reads it has gone, and is not damaged."""
        said: list[dict[str, Any]] = []
        for keep in (0.0, 3600.0):
            self.queue.keep = keep
            id = f"A-{keep:.0f}"
            message = self.begin(id)
            self.successResultOf(message.dataReceived(b"x" * 600_000))
            self.successResultOf(message.eomReceived())
            body = self.queue.read(id)
            self.assertTrue(self.successResultOf(body.next()))
            self.settle(self.lease()[0], State.DELIVERED)
            patch = self.patch(store_events(), "emit", lambda event, **fields: said.append(fields))
            self.failureResultOf(body.next(), LookupError)
            patch.restore()
        self.assertEqual(said, [])
        self.assertEqual(self.sql("SELECT * FROM history WHERE event = 'held'"), [])

    def test_damagedState(self: Any) -> None:
        """A state that is none keeps nobody from settling the others, nor from counting them."""
        self.send("A-1", "a@one.example", "b@two.example")
        self.sql("UPDATE recipient SET state = '?', due = NULL WHERE position = 1")
        [work] = self.lease()
        self.settle(work, State.DELIVERED)
        states = self.sql("SELECT state FROM recipient ORDER BY position")
        self.assertEqual(states, [("delivered",), ("?",)])
        counts = self.successResultOf(self.queue.counts())
        self.assertEqual([each.state for each in counts], [State.DELIVERED, State.HELD])

    def test_missingMessage(self: Any) -> None:
        """Recipients of a message that is gone are put on hold, too."""
        self.send("A-1")
        self.sql("DELETE FROM message")
        self.assertEqual(self.lease(), [])
        self.assertEqual(self.sql("SELECT state FROM recipient"), [("held",)])

    def test_missingPart(self: Any) -> None:
        """A body with a hole is not delivered: whoever reads is told, and it is put on hold."""
        self.send("A-1", text=b"x" * 600_000)
        self.sql("DELETE FROM part WHERE sequence = 1")
        body = self.queue.read("A-1")
        self.successResultOf(body.next())
        failure = self.failureResultOf(body.next(), Damaged)
        self.assertEqual(failure.value.messageId, "A-1")
        self.assertEqual(self.sql("SELECT state, due FROM recipient"), [("held", None)])

    def test_damagedPart(self: Any) -> None:
        """Nor is one with a chunk that is not what was written: a disk may give back another."""
        for number, sequence in enumerate((0, 2)):
            id = f"{number}-1"
            self.send(id, text=b"x" * 600_000)
            self.sql(f"UPDATE part SET checksum = checksum + 1 WHERE sequence = {sequence}")
            body = self.queue.read(id)
            for _ in range(sequence):
                self.assertNotEqual(self.successResultOf(body.next()), b"")
            self.assertEqual(self.failureResultOf(body.next(), Damaged).value.messageId, id)
            state = f"SELECT state, reply FROM recipient WHERE message = '{id}'"
            said = f"damaged: chunk {sequence} of its body is not what it was"
            self.assertEqual(self.sql(state), [("held", said)])

    def test_uncheckedPart(self: Any) -> None:
        """One of before there were checksums is given as it is."""
        self.send("A-1", text=b"x" * 600_000)
        written = self.body("A-1")
        self.sql("UPDATE part SET checksum = NULL")
        self.assertEqual(self.body("A-1"), written)

    def test_secondVersion(self: Any) -> None:
        """A data base of version 2 gets the column, and keeps what it has."""
        self.send("A-1")
        self.sql("ALTER TABLE part DROP COLUMN checksum")
        self.sql("UPDATE spool SET version = 2")
        self.makeSpool()
        self.assertEqual(self.body("A-1")[:9], b"Received:")
        self.send("B-1")
        found = self.sql("SELECT message, checksum IS NULL FROM part ORDER BY message")
        self.assertEqual([tuple(row) for row in found], [("A-1", True), ("B-1", False)])

    def test_longerPart(self: Any) -> None:
        """Nor is one that is longer than it was."""
        self.send("A-1")
        self.sql("UPDATE message SET size = 5")
        self.failureResultOf(self.queue.read("A-1").next(), Damaged)

    def test_noMessage(self: Any) -> None:
        """Reading what is not there is a LookupError."""
        self.failureResultOf(self.queue.read("A-1").next(), LookupError)
        self.assertIsNone(self.successResultOf(self.queue.show("A-1")))

    # Operators.

    def fill(self: Any) -> None:
        self.send("A-1", "a@one.example")
        self.time.now += 100
        self.send("B-1", "b@two.example", sender="carol@example.com", session=makeSession("carol"))
        self.send("C-1", "c@one.example", "c@two.example", sender="")

    def found(self: Any, **which: Any) -> list[str]:
        return [each.id for each in self.successResultOf(self.queue.messages(Filter(**which)))]

    def test_filters(self: Any) -> None:
        """Messages are found by each thing that an operator may know of them."""
        self.fill()
        self.assertEqual(self.found(), ["A-1", "B-1", "C-1"])
        self.assertEqual(self.found(ids=("B-1", "X-1")), ["B-1"])
        self.assertEqual(self.found(sender="ALICE@example.com"), ["A-1"])
        self.assertEqual(self.found(sender=""), ["C-1"])
        self.assertEqual(self.found(login="carol"), ["B-1"])
        self.assertEqual(self.found(recipient="c@One.example"), ["C-1"])
        self.assertEqual(self.found(domain="TWO.example"), ["B-1", "C-1"])
        self.assertEqual(self.found(domain="two.example", login="alice"), ["C-1"])
        self.assertEqual(self.found(olderThan=50.0), ["A-1"])
        self.assertEqual(self.found(youngerThan=50.0), ["B-1", "C-1"])
        self.assertEqual(self.found(states=(State.HELD,)), [])
        [listed] = self.successResultOf(self.queue.messages(Filter(recipient="c@one.example")))
        self.assertEqual([each.position for each in listed.recipients], [0])

    def test_filterUtf8(self: Any) -> None:
        """An address with capitals beyond ASCII is found, as it was written."""
        self.send("A-1", "\u00c4pfel@one.example")
        self.assertEqual(self.found(recipient="\u00c4pfel@ONE.example"), [])
        self.assertEqual(self.found(recipient="\u00c4pfel@one.example"), ["A-1"])

    def test_totals(self: Any) -> None:
        """How long the queue is, and since when the oldest of each kind waits."""
        self.fill()
        self.change(Action.HOLD, ids=("B-1",))
        [one, *_] = self.lease()
        self.settle(one, State.DELAYED)
        self.time.now += 10
        self.send("D-1", "d@one.example")
        [gone] = [each for each in self.lease() if each.message.id == "D-1"]
        self.settle(gone, State.DELIVERED)
        self.send("E-1", "e@one.example", "f@one.example")
        totals = self.successResultOf(self.queue.totals())
        self.assertEqual(totals.messages, 4)
        self.assertEqual(dict(totals.recipients), {"later": 1, "underway": 2, "held": 1, "due": 2})
        began = self.time.now - 110
        later = {"underway": began + 100, "held": began + 100, "due": began + 110}
        self.assertEqual(dict(totals.oldest), {"later": began, **later})

    def test_totalsOfNothing(self: Any) -> None:
        """An empty queue is no queue."""
        totals = self.successResultOf(self.queue.totals())
        self.assertEqual((totals.messages, totals.recipients, totals.oldest), (0, {}, {}))

    def test_pages(self: Any) -> None:
        """A list goes on behind the last id of the page before, by either way of looking."""
        self.fill()
        for which in (Filter(), Filter(domain="two.example")):
            first = self.successResultOf(self.queue.messages(which, limit=1))
            second = self.successResultOf(self.queue.messages(which, limit=9, after=first[0].id))
            every = self.successResultOf(self.queue.messages(which))
            self.assertEqual([e.id for e in first + second], [e.id for e in every])

    def test_show(self: Any) -> None:
        """All about a message: envelope, header section, recipients, history."""
        self.send("A-1", text=b"Subject: hello\r\n\r\nbody\r\n")
        shown = self.successResultOf(self.queue.show("A-1"))
        self.assertEqual(shown.header, TRACE + b"Subject: hello\r\n")
        self.assertEqual((shown.message.id, shown.damage, shown.history), ("A-1", "", ()))
        self.assertEqual(str(shown.recipients[0].mailbox), "bob@example.net")

    def change(self: Any, action: Action, **which: Any) -> int:
        changed: int = self.successResultOf(self.queue.change(action, Filter(**which), "root"))
        return changed

    def test_holdAndRelease(self: Any) -> None:
        """What is on hold is not delivered; released, it is due at once."""
        self.fill()
        ids = ("A-1", "B-1", "C-1")
        self.assertEqual(self.change(Action.HOLD, ids=ids, domain="one.example"), 2)
        self.assertEqual(
            [(w.message.id, w.domain) for w in self.lease()],
            [("B-1", "two.example"), ("C-1", "two.example")],
        )
        self.assertEqual(self.change(Action.RETRY, ids=ids), 0)
        self.assertEqual(self.change(Action.RELEASE, ids=ids), 2)
        self.assertEqual([w.domain for w in self.lease()], ["one.example", "one.example"])
        shown = self.successResultOf(self.queue.show("A-1"))
        self.assertEqual(
            [(each.event, each.who, each.position) for each in shown.history],
            [("hold", "root", 0), ("release", "root", 0)],
        )

    def test_retry(self: Any) -> None:
        """Retry makes a delayed recipient due; one that is being delivered is left alone."""
        self.send("A-1")
        [work] = self.lease()
        self.assertEqual(self.change(Action.RETRY, ids=("A-1",)), 0)
        self.settle(work, State.DELAYED)
        self.assertEqual(self.change(Action.RETRY, ids=("A-1",)), 1)
        [work] = self.lease()
        self.assertEqual(work.recipients[0].state, State.DELAYED)
        self.time.now += 61
        self.assertEqual(self.change(Action.HOLD, ids=("A-1",)), 1)

    def test_expire(self: Any) -> None:
        """What is to be given up is due, so that the relay reports it to the sender."""
        self.send("A-1", FUTURERELEASE=self.time.now + 100)
        self.assertEqual(self.change(Action.EXPIRE, ids=("A-1",)), 1)
        [work] = self.lease()
        self.assertEqual(work.recipients[0].expires, self.time.now)

    def test_delete(self: Any) -> None:
        """What is deleted is gone, and the message with its last recipient."""
        self.fill()
        self.assertEqual(self.change(Action.DELETE, ids=("C-1",), domain="one.example"), 1)
        self.assertEqual(self.found(), ["A-1", "B-1", "C-1"])
        self.assertEqual(self.change(Action.DELETE, ids=("C-1",)), 1)
        self.assertEqual(self.found(), ["A-1", "B-1"])
        self.assertEqual(self.sql("SELECT message FROM history"), [])

    def test_deleteAndKeep(self: Any) -> None:
        """Where records are kept, this one says who deleted it."""
        self.queue = self.makeSpool(keep=100.0).queue
        self.send("A-1")
        self.assertEqual(self.change(Action.DELETE, ids=("A-1",)), 1)
        shown = self.successResultOf(self.queue.show("A-1"))
        self.assertEqual([(e.event, e.who) for e in shown.history], [("delete", "root")])

    def test_changeNeedsIds(self: Any) -> None:
        """A change names its messages, so that no slip of a filter deletes the queue."""
        with self.assertRaises(ValueError):
            self.queue.change(Action.DELETE, Filter(), "root")

    def test_counts(self: Any) -> None:
        """How many recipients each domain has, in each state, and since when."""
        self.fill()
        self.change(Action.HOLD, ids=("A-1",))
        self.assertEqual(
            [
                (each.domain, each.state, each.recipients, each.oldest - self.time.now)
                for each in self.successResultOf(self.queue.counts())
            ],
            [
                ("one.example", State.HELD, 1, -100.0),
                ("one.example", State.QUEUED, 1, 0.0),
                ("two.example", State.QUEUED, 2, 0.0),
            ],
        )

    def test_stopUnanswered(self: Any) -> None:
        """A data base that hangs is waited for at the end, but not for ever; the log says so."""
        gate, clock = Gate(), Clock()
        hanging = Spool(**self.options()).queue
        hanging.runIn(gate.run, gate.run)
        hanging._clock = clock
        said: list[dict[str, Any]] = []
        self.patch(store_events(), "emit", lambda event, **fields: said.append(fields))
        stopping = hanging.stop()
        clock.advance(STOP_LIMIT - 1)
        self.assertNoResult(stopping)
        self.assertEqual(said, [])
        clock.advance(1)
        self.successResultOf(stopping)
        self.assertIn("has not answered for 10 s at the end", said[0]["problem"])
        gate.open()  # and when it answers after all, that is nobody's trouble
        self.assertEqual(len(said), 1)
        hanging._links[0].close()


def store_events() -> Any:
    """The module whose ``emit`` the queue calls."""
    from submitd.spool import queue

    return queue.events


class SQLiteTests(QueueTests, SpoolCase):
    """Over SQLite."""


class PostgresTests(QueueTests, PostgresCase):
    """Over PostgreSQL."""
