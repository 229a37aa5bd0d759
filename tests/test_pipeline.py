"""The pipeline: stages, order, waiting, failing closed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd.interfaces import IDisconnectObserver, ISenderPolicy
from submitd.pipeline import Pipeline
from submitd.session import Session
from submitd.waiting import asDeferred
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, Reply

NO = Reply(550, "5.7.1", "No")


@implementer(ISenderPolicy)
class Sender:
    """Calls a function at the sender stage, and notes that it was asked."""

    def __init__(self, calls: list[str], name: str, answer: Any = lambda: None) -> None:
        self.calls, self.name, self.answer = calls, name, answer

    def validateFrom(self, session: Any, envelope: Any) -> Any:
        self.calls.append(self.name)
        return self.answer()


def refuse() -> None:
    raise Refused(NO, "because")


class PipelineTests(SynchronousTestCase):
    """One stage stands for all: they are made alike."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        self.clock = Clock()

    def policy(self, name: str, answer: Any = lambda: None) -> Sender:
        return Sender(self.calls, name, answer)

    def run_(self, *policies: Any, user: Any = None) -> Any:
        pipeline = Pipeline(policies, self.clock, 30)
        return pipeline.joinedBy(user).sender.run(Session(user=user), object())

    def test_nobody(self) -> None:
        """A stage without policies is no Deferred and no objection."""
        self.assertIsNone(self.run_())
        self.assertFalse(Pipeline([], self.clock, 30).sender)

    def test_order(self) -> None:
        """Policies run in their order, without waiting where nobody waits."""
        self.assertIsNone(self.run_(self.policy("a"), self.policy("b")))
        self.assertEqual(self.calls, ["a", "b"])

    def test_onlyTheirStages(self) -> None:
        """A policy is asked only at the stages whose interface it provides."""
        pipeline = Pipeline([self.policy("a")], self.clock, 30)
        self.assertIsNone(pipeline.recipient.run(Session(), object(), object()))
        self.assertEqual(self.calls, [])

    def test_firstRefusalWins(self) -> None:
        """Whoever stands behind a refusal is not asked; the refusal knows its origin."""
        error = self.assertRaises(Refused, self.run_, self.policy("a", refuse), self.policy("b"))
        self.assertEqual(error.reply, NO)
        self.assertEqual(error.origin, "a at sender")
        self.assertEqual(self.calls, ["a"])

    def test_waiting(self) -> None:
        """The next policy is asked once the one before has made up its mind."""
        first: Deferred[None] = Deferred()
        waiting = self.run_(self.policy("a", lambda: first), self.policy("b"))
        self.assertNoResult(waiting)
        self.assertEqual(self.calls, ["a"])
        first.callback(None)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(self.calls, ["a", "b"])

    def test_coroutine(self) -> None:
        """A coroutine is as good as a Deferred, in the first and in a later place."""

        async def slowly() -> None:
            return None

        waiting = self.run_(self.policy("a", slowly), self.policy("b", slowly), self.policy("c"))
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(self.calls, ["a", "b", "c"])

    def test_refusedLater(self) -> None:
        """A refusal from a Deferred, and from a policy behind a Deferred, both count."""

        async def no() -> None:
            raise Refused(NO)

        async def yes() -> None:
            return None

        for second in (no, refuse):
            waiting = self.run_(self.policy("a", yes), self.policy("b", second))
            failure = self.failureResultOf(waiting, Refused)
            self.assertEqual(failure.value.origin, "b at sender")

    def test_late(self) -> None:
        """A policy that hangs is a 451 after its time: the client is not kept for ever."""
        waiting = self.run_(self.policy("a", Deferred))
        self.clock.advance(30)
        failure = self.failureResultOf(waiting, Refused)
        self.assertEqual(failure.value.reply, LOCAL_ERROR)
        self.assertEqual(failure.value.cause, "no verdict within 30 s")
        self.assertEqual(failure.value.origin, "a at sender")

    def test_noLimit(self) -> None:
        """Without a limit nothing is left in the clock."""
        result: Deferred[None] = Deferred()
        pipeline = Pipeline([self.policy("a", lambda: result)], self.clock, 0)
        waiting = pipeline.sender.run(Session(), object())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        result.callback(None)
        assert waiting is not None
        self.successResultOf(waiting)

    def test_neitherYesNorNo(self) -> None:
        """``True`` is not consent: a policy that returns it has misunderstood (fail closed)."""
        self.assertRaises(TypeError, self.run_, self.policy("a", lambda: True))

        async def true() -> bool:
            return True

        self.failureResultOf(self.run_(self.policy("a", true)), TypeError)

    def test_avatarLast(self) -> None:
        """An avatar that provides a stage's interface is asked behind the policies."""
        self.assertIsNone(self.run_(self.policy("a"), user=self.policy("user")))
        self.assertEqual(self.calls, ["a", "user"])
        self.assertIsNone(self.run_(user=object()))

    def test_behind(self) -> None:
        """Those behind one of them can be asked alone, and may wait and refuse as ever."""
        waiting: Deferred[None] = Deferred()
        first, second = self.policy("a"), self.policy("b")
        third, last = self.policy("c", lambda: waiting), self.policy("d", refuse)
        stage = Pipeline([first, second, third, last], self.clock, 30).sender
        asking = asDeferred(stage.behind(second, Session(), object()))
        self.assertEqual(self.calls, ["c"])
        self.assertNoResult(asking)
        waiting.callback(None)
        self.assertEqual(self.failureResultOf(asking, Refused).value.origin, "d at sender")
        self.calls.clear()
        self.successResultOf(asDeferred(stage.behind(last, Session(), object())))
        self.assertEqual(self.calls, [])
        asking = asDeferred(stage.behind(None, Session(), object()))
        error = self.failureResultOf(asking, TypeError).value
        self.assertEqual(str(error), "None takes no part at sender")

    def test_unexpected(self) -> None:
        """Another exception comes out as it is: the dialogue makes 451 of it."""
        self.assertRaises(
            ZeroDivisionError, self.run_, self.policy("a", lambda: 1 / 0), self.policy("b")
        )
        self.assertEqual(self.calls, ["a"])

    def test_observers(self) -> None:
        """One observer that fails does not keep the others from being told."""

        @implementer(IDisconnectObserver)
        class Observer:
            def __init__(self, name: str, answer: Any) -> None:
                self.name, self.answer = name, answer

            def connectionLost(observer, session: Any, reason: Any) -> None:
                self.calls.append(observer.name)
                observer.answer()

        observers = [Observer("a", refuse), Observer("b", lambda: None)]
        failed: list[str] = []
        pipeline = Pipeline(observers, self.clock, 30)
        pipeline.close.tell(Session(), None, failed=lambda origin, failure: failed.append(origin))
        self.assertEqual(self.calls, ["a", "b"])
        self.assertEqual(failed, ["a at close"])

    def test_observerAwaits(self) -> None:
        """One that takes its time is run to its end, and its failure is heard; nobody waits."""
        waiting: list[Deferred[None]] = []

        @implementer(IDisconnectObserver)
        class Observer:
            async def connectionLost(observer, session: Any, reason: Any) -> None:
                waiting.append(Deferred())
                await waiting[-1]
                self.calls.append("told")
                raise ZeroDivisionError

        failed: list[Any] = []
        pipeline = Pipeline([Observer(), Observer()], self.clock, 30)
        pipeline.close.tell(Session(), None, failed=lambda *told: failed.append(told))
        self.assertEqual((len(waiting), self.calls, failed), (2, [], []))
        for each in waiting:
            each.callback(None)
        self.assertEqual(self.calls, ["told", "told"])
        [(origin, failure), _] = failed
        self.assertEqual((origin, failure.type), ("Observer at close", ZeroDivisionError))
