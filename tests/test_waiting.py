"""What is answered now or later: at once where it is there, and no failure is lost."""

from __future__ import annotations

import gc
import sys
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd.waiting import Overdue, allOf, asDeferred, over, overdue, promised, runNow, then


class AnswerTests(SynchronousTestCase):
    """One answer."""

    def test_overdue(self) -> None:
        """What did not come in time is not what nobody wanted any more."""
        clock = Clock()
        waiting: Deferred[None] = Deferred()
        waiting.addTimeout(2, clock, onTimeoutCancel=overdue)
        clock.advance(2)
        failure = self.failureResultOf(waiting, Overdue)
        self.assertEqual(failure.getErrorMessage(), "no answer within 2 s")

    def test_asDeferred(self) -> None:
        """Deferreds and coroutines are waited for, and all else is a mistake."""

        async def one() -> int:
            return 1

        waiting: Deferred[int] = Deferred()
        self.assertIs(asDeferred(waiting), waiting)
        self.assertEqual(self.successResultOf(asDeferred(one())), 1)
        self.assertRaises(TypeError, asDeferred, True)

    def test_promised(self) -> None:
        """A coroutine becomes a Deferred, and what is there stays what it is."""

        async def one() -> int:
            return 1

        self.assertEqual(self.successResultOf(promised(one())), 1)
        self.assertEqual(promised("now"), "now")

    def test_then(self) -> None:
        """What follows is done at once, or when it has fired."""
        waiting: Deferred[int] = Deferred()
        self.assertEqual(then(1, divmod, 2), (0, 1))
        later = then(waiting, divmod, 2)
        waiting.callback(5)
        self.assertEqual(self.successResultOf(later), (2, 1))

    def test_over(self) -> None:
        """Nothing is waited for where there is nothing, and what fails fails."""
        waiting: Deferred[int] = Deferred()
        self.assertIsNone(runNow(over(None)))
        later = runNow(over(waiting))
        assert isinstance(later, Deferred)
        waiting.errback(ZeroDivisionError())
        self.failureResultOf(later, ZeroDivisionError)


class AllTests(SynchronousTestCase):
    """Several at once."""

    def setUp(self) -> None:
        """Two that have not fired."""
        self.each: list[Deferred[int]] = [Deferred(), Deferred()]
        self.all = allOf(self.each)

    def test_all(self) -> None:
        """All of them are waited for, and what they say is nobody's business."""
        self.each[1].callback(1)
        self.assertNoResult(self.all)
        self.each[0].callback(0)
        self.assertIsNone(self.successResultOf(self.all))

    def test_failed(self) -> None:
        """The first failure is the failure of all, as it is; the others are not logged."""
        self.each[1].errback(ZeroDivisionError("first"))
        failure = self.failureResultOf(self.all, ZeroDivisionError)
        self.assertEqual(str(failure.value), "first")
        self.each[0].errback(KeyError("second"))


class RunNowTests(SynchronousTestCase):
    """A coroutine that is run at once."""

    def test_atOnce(self) -> None:
        """One that nobody keeps waiting returns or raises, as a function does."""

        async def add(one: Deferred[int], two: int) -> int:
            return await one + two

        self.assertEqual(runNow(add(succeed(1), 2)), 3)
        with self.assertRaises(ZeroDivisionError):
            runNow(add(fail(ZeroDivisionError()), 2))

    def test_later(self) -> None:
        """One that has to wait is a Deferred, however often it waits, and sees what failed."""
        one: Deferred[int] = Deferred()
        two: Deferred[int] = Deferred()
        three: Deferred[int] = Deferred()

        async def wait() -> list[object]:
            seen: list[object] = [await one]
            try:
                await two
            except ZeroDivisionError as error:
                seen.append(error.args[0])
            return [*seen, await three]

        waiting = runNow(wait())
        assert isinstance(waiting, Deferred)
        one.callback(1)
        two.errback(ZeroDivisionError("two"))
        self.assertNoResult(waiting)
        three.callback(3)
        self.assertEqual(self.successResultOf(waiting), [1, "two", 3])

    def test_failsLater(self) -> None:
        """What it raises behind a wait is the Deferred's failure."""
        one: Deferred[int] = Deferred()

        async def wait() -> None:
            await one
            raise ZeroDivisionError

        waiting = runNow(wait())
        assert isinstance(waiting, Deferred)
        one.callback(1)
        self.failureResultOf(waiting, ZeroDivisionError)

    def test_cancelled(self) -> None:
        """Who no longer wants it cancels what it waits for."""
        cancelled: list[Deferred[int]] = []
        one: Deferred[int] = Deferred(cancelled.append)

        async def wait() -> int:
            return await one

        waiting = runNow(wait())
        assert isinstance(waiting, Deferred)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(cancelled, [one])

    def test_forgotten(self) -> None:
        """One that waits for what nobody remembers is closed, and nothing complains."""
        complaints: list[Any] = []
        self.patch(sys, "unraisablehook", complaints.append)
        closed: list[str] = []

        async def wait() -> None:
            try:
                await Deferred()
            finally:
                closed.append("closed")

        waiting = runNow(wait())
        assert isinstance(waiting, Deferred)
        del waiting
        gc.collect()
        self.assertEqual((closed, complaints), (["closed"], []))
