"""The connections to a policy server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd.policies.policyserver import (
    MAX_IDLE,
    PAUSE,
    Lost,
    PolicyServer,
    Unavailable,
)
from submitd.waiting import Overdue
from submitd.wire.policyrequest import Action, AnswerError
from tests.policies.policyservers import Endpoint

DUNNO = b"action=DUNNO\n\n"


class PolicyServerTests(SynchronousTestCase):
    """A server, and what can be wrong with it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.endpoint = Endpoint()
        self.server = PolicyServer(self.endpoint, self.clock, 10.0, 2)

    def ask(self) -> Any:
        """Ask something."""
        return self.server.ask(b"request=x\n\n")

    def good(self) -> None:
        """Ask, and have it answered."""
        asking = self.ask()
        self.endpoint.answer(DUNNO)
        self.assertEqual(self.successResultOf(asking), Action("DUNNO"))

    def test_reuse(self) -> None:
        """One connection serves one question after the other."""
        for _ in range(5):
            self.good()
        self.assertEqual(len(self.endpoint.lines), 1)

    def test_awayForMany(self) -> None:
        """Hundreds that wait for a server that is not there all hear of it."""
        self.endpoint.isSlow = True
        asking = [self.ask() for _ in range(500)]
        for opening in self.endpoint.opening:
            opening.errback(ConnectionRefusedError())
        for each in asking:
            self.failureResultOf(each, Unavailable)

    def test_turns(self) -> None:
        """Two are asked at a time; the third waits for its turn and gets its own answer."""
        asking = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.endpoint.lines), 2)
        self.endpoint.answer(b"action=OK one\n\n", 0)
        self.endpoint.answer(b"action=OK three\n\n", 0)
        self.endpoint.answer(b"action=OK two\n\n", 1)
        texts = [self.successResultOf(each).text for each in asking]
        self.assertEqual(texts, ["one", "two", "three"])
        self.assertEqual(len(self.endpoint.lines), 2)

    def test_idle(self) -> None:
        """A connection that nobody uses is ended after a while."""
        self.good()
        self.clock.advance(MAX_IDLE)
        self.assertTrue(self.endpoint.lines[0].isLost)
        self.good()
        self.assertEqual(len(self.endpoint.lines), 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_endedMeanwhile(self) -> None:
        """A connection that the server has ended is not used again."""
        self.good()
        self.endpoint.end()
        self.good()
        self.assertEqual(len(self.endpoint.lines), 2)

    def test_endedUnnoticed(self) -> None:
        """One that ends as soon as it is asked: asked once more, over a new one."""
        self.good()
        asking = self.ask()
        self.endpoint.end()
        self.assertNoResult(asking)
        self.assertEqual(len(self.endpoint.lines), 2)
        self.endpoint.answer(DUNNO)
        self.assertEqual(self.successResultOf(asking).name, "DUNNO")

    def test_restarted(self) -> None:
        """After that the others that were kept are not tried, either."""
        both = [self.ask(), self.ask()]
        for at in range(2):
            self.endpoint.answer(DUNNO, at)
            self.successResultOf(both[at])
        asking = self.ask()
        self.endpoint.end(1)
        self.assertTrue(self.endpoint.lines[0].isLost)
        self.endpoint.answer(DUNNO)
        self.successResultOf(asking)

    def test_diesTwice(self) -> None:
        """Asked again once, not for ever; and a new connection that ends is not tried again."""
        self.good()
        asking = self.ask()
        self.endpoint.end()
        self.endpoint.end()
        self.failureResultOf(asking, Lost)
        self.assertEqual(len(self.endpoint.lines), 2)

    def test_diesWithin(self) -> None:
        """With a part of an answer the question was heard, and is not asked twice."""
        self.good()
        asking = self.ask()
        self.endpoint.answer(b"action=")
        self.endpoint.end()
        self.failureResultOf(asking, Lost)
        self.assertEqual(len(self.endpoint.lines), 1)

    def test_hangs(self) -> None:
        """Silence is over at the time limit, and so is the connection: an answer that comes late
        is not taken for that of the next question."""
        asking = self.ask()
        self.clock.advance(9.9)
        self.assertNoResult(asking)
        self.clock.advance(0.2)
        self.failureResultOf(asking, Overdue)
        self.assertTrue(self.endpoint.lines[0].isLost)
        self.endpoint.answer(b"action=OK late\n\n", 0)
        self.good()
        self.assertEqual(len(self.endpoint.lines), 2)

    def test_slowOctets(self) -> None:
        """An octet now and then does not prolong it."""
        asking = self.ask()
        for octet in b"action=DUNNO":
            self.endpoint.answer(bytes([octet]))
            self.clock.advance(1)
        self.failureResultOf(asking, Overdue)

    def test_waitsTooLong(self) -> None:
        """Waiting for a turn counts; nobody's turn is lost by it."""
        asking = [self.ask() for _ in range(5)]
        self.clock.advance(10)
        for each in asking:
            self.failureResultOf(each, Overdue)
        self.good()

    def test_connectsTooLong(self) -> None:
        """Connecting counts; that there was too little time for it stops nobody else."""
        self.endpoint.isSlow = True
        asking = self.ask()
        self.clock.advance(10)
        self.failureResultOf(asking, Overdue)
        self.endpoint.isSlow = False
        self.good()

    def test_away(self) -> None:
        """Nobody there: said at once, and for a while nobody tries."""
        self.endpoint.isAway = True
        self.failureResultOf(self.ask(), Unavailable)
        self.endpoint.isAway = False
        self.failureResultOf(self.ask(), Unavailable)
        self.clock.advance(PAUSE)
        self.good()

    def test_crowded(self) -> None:
        """Who has a full queue is not away: it is tried again, for all that ask, in a moment."""
        self.endpoint.isCrowded = True
        asking = [self.ask(), self.ask()]
        self.clock.pump([0.01, 0.03, 0.1])
        self.endpoint.isCrowded = False
        self.assertEqual(self.endpoint.lines, [])
        self.clock.advance(0.3)
        for at in range(2):
            self.endpoint.answer(DUNNO, at)
            self.assertEqual(self.successResultOf(asking[at]).name, "DUNNO")

    def test_alwaysCrowded(self) -> None:
        """One whose queue is full for the whole time of a question is away."""
        self.endpoint.isCrowded = True
        asking = self.ask()
        self.clock.pump([0.01] * 900)
        self.assertNoResult(asking)
        self.clock.pump([0.01] * 100)
        failure = self.failureResultOf(asking, Unavailable)
        said = "cannot connect: its queue of new connections is full"
        self.assertEqual(failure.getErrorMessage(), said)
        self.failureResultOf(self.ask(), Unavailable)

    def test_goneWhileCrowded(self) -> None:
        """A client that goes meanwhile leaves nothing behind."""
        self.endpoint.isCrowded = True
        asking = self.ask()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.endpoint.isCrowded = False
        self.good()

    def test_nonsense(self) -> None:
        """What is no answer fails, and ends the connection; the next question has a new one."""
        for octets in (b"\x00\xff\n\n", b"action=ok\n\naction=ok\n\n", b"x" * 9000):
            asking = self.ask()
            self.endpoint.answer(octets)
            self.failureResultOf(asking, AnswerError)
            self.assertTrue(self.endpoint.lines[-1].isLost)
        self.good()

    def test_unasked(self) -> None:
        """What comes unasked ends the connection: it would be the answer to the next question."""
        self.good()
        self.endpoint.answer(b"action=OK\n\n")
        self.assertTrue(self.endpoint.lines[0].isLost)
        self.good()
        self.assertEqual(len(self.endpoint.lines), 2)

    def test_cancelled(self) -> None:
        """A client that goes frees its turn and its connection."""
        for _ in range(5):
            asking = self.ask()
            asking.cancel()
            self.failureResultOf(asking, CancelledError)
        self.assertTrue(all(line.isLost for line in self.endpoint.lines))
        self.endpoint.isSlow = True
        asking = self.ask()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.endpoint.isSlow = False
        self.good()

    def test_close(self) -> None:
        """At the end there is no connection, also not one that was still in use."""
        self.good()
        asking = self.ask()
        other = self.ask()
        self.endpoint.answer(DUNNO, 0)
        self.server.close()
        self.endpoint.answer(DUNNO, 1)
        for each in (asking, other):
            self.assertEqual(self.successResultOf(each).name, "DUNNO")
        self.assertTrue(all(line.isLost for line in self.endpoint.lines))
        self.assertEqual(self.clock.getDelayedCalls(), [])
