"""The connection to Dovecot."""

from __future__ import annotations

import base64
import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers.dovecotserver import MAX_AGE, DovecotServer, NoAnswer, Way
from submitd.wire.dovecotauth import MAX_ID, MAX_LINE, Answer
from tests.policies.policyservers import Endpoint
from tests.wire.test_dovecotauth import GREETING

HELLO = b"VERSION\t1\t2\nCPID\t%d\n" % os.getpid()
PASSWORD = Way("PLAIN", b"\0alice\0wonderland")


class DovecotServerTests(SynchronousTestCase):
    """A server, and what can be wrong with it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.endpoint = Endpoint()
        self.server = DovecotServer(self.endpoint, self.clock, 30.0)

    def tearDown(self) -> None:
        """Whatever came, no call waits for its time in vain."""
        self.server.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ask(self, *ways: Way) -> Deferred[Answer]:
        """Ask something."""
        return self.server.ask(ways or (PASSWORD,))

    def greeted(self) -> Deferred[Answer]:
        """Ask the first question, over a connection that is there then."""
        asking = self.ask()
        self.endpoint.answer(GREETING)
        return asking

    def sent(self, at: int = -1) -> bytes:
        """What has been sent over a connection since this was asked last."""
        transport = self.endpoint.lines[at].transport
        octets: bytes = transport.value()
        transport.clear()
        return octets

    def numbers(self, at: int = -1) -> list[int]:
        """The numbers of the questions that were sent."""
        lines = self.sent(at).removeprefix(HELLO).splitlines()
        return [int(line.split(b"\t")[1]) for line in lines if line.startswith(b"AUTH")]

    def why(self, asking: Deferred[Answer]) -> str:
        """Why there is no answer."""
        said = str(self.failureResultOf(asking, NoAnswer).value)
        self.assertNotIn("wonderland", said)
        return said

    def test_first(self) -> None:
        """We greet at once, and ask behind the server's greeting."""
        asking = self.ask()
        self.assertEqual(self.sent(), HELLO)
        self.endpoint.answer(GREETING[:-1])
        self.assertEqual(self.sent(), b"")
        self.endpoint.answer(b"\n")
        response = base64.b64encode(PASSWORD.response)
        self.assertEqual(
            self.sent(),
            b"AUTH\t1\tPLAIN\tservice=smtp\tsecured\tno-penalty\tresp=" + response + b"\n",
        )
        self.endpoint.answer(b"OK\t1\tuser=alice\n")
        self.assertEqual(self.successResultOf(asking), Answer("OK", 1, {"user": b"alice"}))

    def test_together(self) -> None:
        """All share one connection, and each gets its own answer, in whatever order."""
        asking = [self.ask() for _ in range(3)]
        self.endpoint.answer(GREETING)
        asking.append(self.ask())
        self.assertEqual(self.numbers(), [1, 2, 3, 4])
        self.endpoint.answer(b"OK\t4\tuser=d\nOK\t2\tuser=b\n")
        self.endpoint.answer(b"FAIL\t1\nOK\t3\tuser=c\n")
        answers = [self.successResultOf(each) for each in asking]
        self.assertEqual([each.number for each in answers], [1, 2, 3, 4])
        self.assertEqual(answers[0].verdict, "FAIL")
        self.assertEqual(len(self.endpoint.lines), 1)

    def test_retired(self) -> None:
        """It is kept for a while, and then ends: behind it may be a Dovecot of before."""
        asking = self.greeted()
        self.endpoint.answer(b"OK\t1\tuser=a\n")
        self.successResultOf(asking)
        self.clock.advance(MAX_AGE - 1)
        asking = self.ask()
        self.endpoint.answer(b"OK\t2\tuser=a\n")
        self.successResultOf(asking)
        self.clock.advance(1)
        self.assertTrue(self.endpoint.lines[0].transport.disconnected)
        asking = self.greeted()
        self.endpoint.answer(b"OK\t1\tuser=a\n")
        self.successResultOf(asking)
        self.assertEqual(len(self.endpoint.lines), 2)

    def test_retiredWithin(self) -> None:
        """Those that wait get their answers; those that come get a new connection."""
        self.server = DovecotServer(self.endpoint, self.clock, 1000.0)
        asking = [self.greeted(), self.ask(), self.ask()]
        self.clock.advance(MAX_AGE)
        later = self.greeted()
        self.assertEqual(len(self.endpoint.lines), 2)
        self.endpoint.answer(b"OK\t2\tuser=b\n", 0)
        asking[0].cancel()
        self.failureResultOf(asking[0], CancelledError)
        self.assertFalse(self.endpoint.lines[0].transport.disconnected)
        self.endpoint.answer(b"OK\t3\tuser=c\n", 0)
        self.assertTrue(self.endpoint.lines[0].transport.disconnected)
        self.endpoint.answer(b"OK\t1\tuser=d\n")
        for each, name in ((asking[1], b"b"), (asking[2], b"c"), (later, b"d")):
            self.assertEqual(self.successResultOf(each).values["user"], name)

    def test_numbersBeginAnew(self) -> None:
        """Behind the highest number comes 1, or the next that nobody waits for."""
        asking = [self.greeted(), self.ask()]
        self.endpoint.lines[0]._lastNumber = MAX_ID - 1
        asking += [self.ask(), self.ask()]
        self.assertEqual(self.numbers(), [1, 2, MAX_ID, 3])
        self.endpoint.answer(b"OK\t%d\tuser=x\nOK\t3\tuser=y\n" % MAX_ID)
        self.assertNoResult(asking[0])
        self.assertEqual(self.successResultOf(asking[2]).values["user"], b"x")
        for each in asking[:2]:
            each.cancel()
            self.failureResultOf(each, CancelledError)

    # The ways.

    def test_bestWay(self) -> None:
        """The first that the server knows."""
        bearer, old = Way("OAUTHBEARER", b"new"), Way("XOAUTH2", b"old")
        asking = self.ask(bearer, old)
        self.endpoint.answer(GREETING)
        self.assertIn(b"\tXOAUTH2\t", self.sent())
        self.endpoint.answer(b"OK\t1\tuser=a\n")
        self.successResultOf(asking)

    def test_noWay(self) -> None:
        """A mechanism that is not offered is not asked with: Dovecot would end the connection."""
        asking = self.ask(Way("OAUTHBEARER", b"secret"))
        self.endpoint.answer(GREETING)
        self.assertEqual(self.why(asking), "it does not offer OAUTHBEARER")
        self.assertEqual(self.sent(), HELLO)

    def test_tooLong(self) -> None:
        """Nor is what it would not read; the others go on."""
        asking = self.greeted()
        self.assertIn("more than", self.why(self.ask(Way("PLAIN", b"x" * MAX_LINE))))
        self.endpoint.answer(b"OK\t1\tuser=a\n")
        self.successResultOf(asking)

    def test_reasonOfFailure(self) -> None:
        """OAUTHBEARER says why in a challenge, and FAIL when that is acknowledged."""
        asking = self.ask(Way("XOAUTH2", b"x"))
        self.endpoint.answer(GREETING)
        self.sent()
        self.endpoint.answer(b"CONT\t1\teyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=\n")
        self.assertEqual(self.sent(), b"CONT\t1\tAQ==\n")
        self.endpoint.answer(b"FAIL\t1\tuser=alice\n")
        self.assertEqual(self.successResultOf(asking).verdict, "FAIL")

    def test_wantsMore(self) -> None:
        """A second challenge, or one behind a password, is not answered for ever."""
        asking = self.ask(Way("XOAUTH2", b"x"))
        self.endpoint.answer(GREETING)
        self.endpoint.answer(b"CONT\t1\t\nCONT\t1\t\n")
        self.assertEqual(self.why(asking), "it wants to know more than was asked for")
        asking = self.ask()
        self.sent()
        self.endpoint.answer(b"CONT\t2\t\n")
        self.assertEqual(self.why(asking), "it wants to know more than was asked for")
        self.assertEqual(self.sent(), b"CANCEL\t2\n")
        self.endpoint.answer(b"FAIL\t2\n")

    # Who does not wait.

    def test_cancelled(self) -> None:
        """The server is told, and its late answer is nobody's."""
        asking, other = self.greeted(), self.ask()
        self.sent()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.sent(), b"CANCEL\t1\n")
        self.endpoint.answer(b"FAIL\t1\tuser=alice\nOK\t2\tuser=b\n")
        self.successResultOf(other)

    def test_cancelledBefore(self) -> None:
        """One that leaves while we connect does not keep the others from being asked about."""
        self.endpoint.isSlow = True
        asking, other = self.ask(), self.ask()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertNoResult(other)
        self.endpoint.opening[0].errback(ConnectionRefusedError())
        self.assertIn("cannot connect", self.why(other))
        self.assertEqual(len(self.endpoint.opening), 1)

    def test_oneEndsAnother(self) -> None:
        """Who is told may have another one leave: nobody is told twice, and nobody is forgotten."""
        for isGreeted in (False, True):
            asking = [self.ask() for _ in range(4)]
            asking[0].addErrback(lambda _, asking=asking: asking[2].cancel())
            asking[2].addErrback(lambda _: None)
            if isGreeted:
                self.endpoint.answer(GREETING)
            self.endpoint.answer(b"nonsense without end" * 1000)
            self.assertIn("cannot be understood", self.why(asking[1]))
            self.assertIn("cannot be understood", self.why(asking[3]))
            for each in (asking[0], asking[2]):
                self.assertIsNone(self.successResultOf(each))

    def test_readsNothing(self) -> None:
        """What the server does not read is sent when it does, unless nobody waits any more."""
        first = self.greeted()
        self.assertEqual(self.numbers(), [1])
        talk = self.endpoint.lines[0]
        talk.pauseProducing()
        asking = [self.ask() for _ in range(4)]
        asking[1].cancel()
        self.failureResultOf(asking[1], CancelledError)
        self.assertEqual(self.sent(), b"")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.sent(), b"CANCEL\t1\n")
        talk.resumeProducing()
        self.assertEqual(self.numbers(), [2, 4, 5])
        self.endpoint.answer(b"OK\t2\tuser=a\nOK\t4\tuser=b\n")
        self.assertEqual(self.successResultOf(asking[2]).values["user"], b"b")
        talk.pauseProducing()
        last = self.ask()
        self.endpoint.end()
        self.endpoint.answer(GREETING)
        self.assertEqual(self.numbers(), [1, 2])
        self.endpoint.answer(b"OK\t2\tuser=c\n")
        self.assertEqual(self.successResultOf(last).values["user"], b"c")
        asking[3].cancel()
        self.failureResultOf(asking[3], CancelledError)

    # What can be wrong.

    def test_away(self) -> None:
        """Nobody is there; the next login tries again."""
        self.endpoint.isAway = True
        self.assertEqual(
            self.why(self.ask()),
            "cannot connect: Connection was refused by other side.",
        )
        self.endpoint.isAway = False
        asking = self.greeted()
        self.endpoint.answer(b"OK\t1\tuser=a\n")
        self.successResultOf(asking)

    def test_awayForMany(self) -> None:
        """Hundreds wait for one attempt, and all hear of it."""
        self.endpoint.isSlow = True
        asking = [self.ask() for _ in range(500)]
        [opening] = self.endpoint.opening
        opening.errback(ConnectionRefusedError())
        for each in asking:
            self.assertIn("cannot connect", self.why(each))

    def test_crowded(self) -> None:
        """Its queue of connections is full, which is tried for as long as a login may take."""
        self.endpoint.isCrowded = True
        asking = self.ask()
        self.clock.pump([0.3] * 20)
        self.assertNoResult(asking)
        self.endpoint.isCrowded = False
        self.clock.advance(0.3)
        self.endpoint.answer(GREETING + b"OK\t1\tuser=a\n")
        self.successResultOf(asking)
        self.endpoint.end()
        self.endpoint.isCrowded = True
        asking = self.ask()
        self.clock.pump([0.3] * 101)
        self.assertIn("its queue of new connections is full", self.why(asking))

    def test_neverConnected(self) -> None:
        """Nobody takes the connection; those that come later wait no longer than is left."""
        self.endpoint.isSlow = True
        first = self.ask()
        self.clock.advance(29)
        second = self.ask()
        self.clock.advance(1)
        for each in (first, second):
            self.assertEqual(self.why(each), "no connection within 30 s")
        self.ask().addErrback(lambda _: None)
        self.assertEqual(len(self.endpoint.opening), 2)

    def test_neverGreets(self) -> None:
        """It is connected to, and says nothing: the connection is not kept."""
        asking = self.ask()
        self.clock.advance(30)
        self.assertEqual(self.why(asking), "no greeting within 30 s")
        self.assertTrue(self.endpoint.lines[0].transport.disconnected)

    def test_endsBeforeGreeting(self) -> None:
        """As Dovecot's other sockets do when they are asked for a login; not tried twice."""
        asking = self.ask()
        self.endpoint.answer(b"VERSION\t1\t1\nSPID\t12658\n")
        self.endpoint.end()
        self.assertEqual(
            self.why(asking),
            "the connection has ended before the greeting was over:"
            " is it Dovecot's socket for clients?",
        )
        self.assertEqual(len(self.endpoint.lines), 1)

    def test_nonsense(self) -> None:
        """Something else listens: nobody gets an answer from it, and it is tried again."""
        asking = self.ask()
        self.endpoint.answer(b"220 mail.example.org ESMTP\r\n")
        said = "it does not speak Dovecot's authentication protocol, version 1"
        self.assertEqual(self.why(asking), f"it cannot be understood: {said}")
        both = [self.greeted(), self.ask()]
        self.endpoint.answer(b"OK\t1\tuser=a\nOK\tnobody\n")
        for each in both:
            self.assertEqual(self.why(each), "it cannot be understood: an answer to no question")
        self.assertTrue(self.endpoint.lines[1].transport.disconnected)
        self.endpoint.lines[1].dataReceived(b"OK\t1\tuser=a\n")
        asking = self.greeted()
        self.endpoint.answer(b"OK\t1\tuser=a\n")
        self.successResultOf(asking)

    def test_restarted(self) -> None:
        """The connection is lost: those that wait are asked about once more, over a new one."""
        both = [self.greeted(), self.ask()]
        self.endpoint.end()
        self.assertEqual(len(self.endpoint.lines), 2)
        self.endpoint.answer(GREETING)
        self.assertEqual(self.numbers(), [1, 2])
        self.endpoint.answer(b"OK\t2\tuser=b\nFAIL\t1\n")
        self.assertEqual([self.successResultOf(each).verdict for each in both], ["FAIL", "OK"])

    def test_stopped(self) -> None:
        """The connection is lost, and there is no new one."""
        asking = self.greeted()
        self.endpoint.isAway = True
        self.endpoint.end()
        self.assertIn("cannot connect", self.why(asking))

    def test_lostTwice(self) -> None:
        """Asked again once, not for ever."""
        asking = self.greeted()
        self.endpoint.end()
        self.endpoint.answer(GREETING)
        self.endpoint.end()
        self.assertEqual(self.why(asking), "the connection has ended in place of an answer")
        self.assertEqual(len(self.endpoint.lines), 2)

    def test_lostUnasked(self) -> None:
        """One that is lost meanwhile is not missed before the next login."""
        asking = self.greeted()
        self.endpoint.answer(b"OK\t1\tuser=a\n")
        self.successResultOf(asking)
        self.endpoint.end()
        self.assertEqual(len(self.endpoint.lines), 1)
        asking = self.greeted()
        self.endpoint.answer(b"OK\t1\tuser=a\n")
        self.successResultOf(asking)
        self.assertEqual(len(self.endpoint.lines), 2)

    def test_slow(self) -> None:
        """One login takes too long, such as by a directory that hangs; the others go on."""
        slow = self.greeted()
        self.clock.advance(20)
        other = self.ask()
        self.endpoint.answer(b"OK\t2\tuser=b\n")
        self.successResultOf(other)
        other = self.ask()
        self.sent()
        self.clock.advance(10)
        self.assertEqual(self.why(slow), "no answer within 30 s")
        self.assertEqual(self.sent(), b"CANCEL\t1\n")
        self.endpoint.answer(b"OK\t3\tuser=b\n")
        self.successResultOf(other)
        self.assertEqual(len(self.endpoint.lines), 1)

    def test_frozen(self) -> None:
        """Nothing at all comes any more: the others do not wait for that connection in vain."""
        first = self.greeted()
        self.clock.advance(20)
        second = self.ask()
        self.clock.advance(10)
        self.assertEqual(self.why(first), "no answer within 30 s")
        self.assertEqual(len(self.endpoint.lines), 2)
        self.endpoint.answer(GREETING + b"OK\t1\tuser=b\n")
        self.successResultOf(second)

    def test_frozenAgain(self) -> None:
        """A new connection prolongs nothing."""
        self.greeted().addErrback(lambda _: None)
        self.clock.advance(20)
        second = self.ask()
        self.clock.advance(10)
        self.clock.advance(20)
        self.assertEqual(self.why(second), "no greeting within 30 s")

    # The end.

    def test_close(self) -> None:
        """Nobody is left waiting, connected or not, and there is no new connection."""
        asking = self.greeted()
        self.server.close()
        self.assertEqual(self.why(asking), "the service stops")
        self.assertEqual(self.why(self.ask()), "the service stops")
        self.assertTrue(self.endpoint.lines[0].transport.disconnected)
        self.assertEqual(len(self.endpoint.lines), 1)

    def test_closedByAnother(self) -> None:
        """Who hears of the greeting first may close: the others are not asked about in vain."""
        first = self.ask(Way("OAUTHBEARER", b"x"))
        first.addErrback(lambda _: self.server.close())
        second = self.ask()
        self.endpoint.answer(GREETING)
        self.successResultOf(first)
        self.assertEqual(self.why(second), "the service stops")

    def test_closeWhileConnecting(self) -> None:
        """Before the connection, and before the greeting."""
        for isSlow in (True, False):
            self.endpoint.isSlow = isSlow
            server = DovecotServer(self.endpoint, self.clock, 30.0)
            asking: Any = server.ask((PASSWORD,))
            server.close()
            self.assertEqual(self.why(asking), "the service stops")
        self.assertTrue(self.endpoint.lines[0].transport.disconnected)
