"""Tests of :mod:`submitd.listener`: one listener, without sockets."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from submitd.errors import CannotStart
from submitd.listener import ListenerService
from submitd.settings import ListenerSettings


@attrs.define
class Endpoint:
    """An endpoint that does as it is told."""

    answer: Deferred[Any]

    def listen(self, factory: Factory) -> Deferred[Any]:
        """Give the answer."""
        return self.answer


class ListenerServiceTests(SynchronousTestCase):
    """One listener, without sockets."""

    def listener(self, answer: Deferred[Any]) -> ListenerService:
        """A listener at an endpoint with that answer."""
        settings = ListenerSettings(endpoint="tcp:587")
        return ListenerService(settings, Endpoint(answer), Factory())

    def refusal(self, error: Exception) -> str:
        """What is said when listening fails."""
        answer: Deferred[Any] = Deferred()
        answer.errback(Failure(error))
        with self.assertRaises(CannotStart) as caught:
            self.listener(answer).startService()
        return str(caught.exception)

    def test_reasons(self) -> None:
        """Whatever listening fails with, there is a reason to read."""
        for error, reason in (
            (CannotListenError("", 587, OSError(98, "In use")), "In use"),
            (ValueError("odd"), "odd"),
            (KeyError(), "KeyError"),
        ):
            self.assertEqual(self.refusal(error), f"cannot listen on tcp:587: {reason}")

    def test_stoppedEarly(self) -> None:
        """An endpoint that takes its time is not waited for by a stop."""
        answer: Deferred[Any] = Deferred()
        listener = self.listener(answer)
        listener.startService()
        self.assertIsNone(listener.address)
        listener.stopService()
        self.assertTrue(answer.called)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failedLate(self) -> None:
        """Where such an endpoint fails, the log says so."""
        seen: list[Any] = []
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        answer: Deferred[Any] = Deferred()
        self.listener(answer).startService()
        answer.errback(Failure(ValueError("no circuit")))
        self.assertEqual(
            [event.get("problem") for event in seen], ["cannot listen on tcp:587: no circuit"]
        )

    def test_stopTwice(self) -> None:
        """Stopping what is stopped does nothing."""
        listener = self.listener(succeed(None))
        listener.startService()
        self.assertIsNone(listener.stopService())
        self.assertIsNone(listener.stopService())
