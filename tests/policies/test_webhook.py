"""Web hooks."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.resource import Resource
from twisted.web.server import Site

from submitd.http import HTTPFailed
from submitd.policies import brake
from submitd.policies.brake import Brake
from submitd.policies.webhook import HOOK_TIME, WebHook, makeHook
from submitd.typed import Rates
from tests.policies.test_brake import BrakeCase

URL = "https://chat.example.com/hooks/KEY"


class Agent:
    """Answers what a test wants."""

    def __init__(self, answer: Deferred[Any]) -> None:
        self.answer = answer

    def request(self, *arguments: Any) -> Deferred[Any]:
        return self.answer


class WebHookTests(SynchronousTestCase):
    """One hook, and what can be wrong with it."""

    def failed(self, telling: Deferred[None]) -> str:
        """What the log is told."""
        said = str(self.failureResultOf(telling, HTTPFailed).value)
        self.assertNotIn("KEY", said)
        return said

    def test_hangs(self) -> None:
        """Silence is over at the time limit."""
        clock = Clock()
        telling = WebHook(URL, Agent(Deferred()), clock).tell({})
        clock.advance(HOOK_TIME)
        self.assertEqual(self.failed(telling), "chat.example.com: TimeoutError")

    def test_answersNever(self) -> None:
        """So it is where the agent has asked, and says only that something has gone wrong."""

        def cancelled(asking: Deferred[Any]) -> None:
            asking.errback(ResponseNeverReceived([Failure(CancelledError())]))

        clock = Clock()
        telling = WebHook(URL, Agent(Deferred(cancelled)), clock).tell({})
        clock.advance(HOOK_TIME)
        self.assertEqual(self.failed(telling), "chat.example.com: TimeoutError")

    def test_refused(self) -> None:
        """The name of an exception is told, or of the one within, and never its text."""
        inner = ResponseNeverReceived([Failure(ValueError(URL))])
        for error, name in (
            (ConnectionRefusedError(), "ConnectionRefusedError"),
            (inner, "ValueError"),
        ):
            telling = WebHook(URL, Agent(fail(error)), Clock()).tell({})
            self.assertEqual(self.failed(telling), f"chat.example.com: {name}")


class Hook(Resource):
    """Notes what it is sent."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.code = 204
        self.said: list[Any] = []

    def render_POST(self, request: Any) -> bytes:
        request.setResponseCode(self.code)
        kind = request.getHeader("content-type")
        self.said.append((request.path, kind, json.loads(request.content.read())))
        return b"" if self.code == 204 else b"x" * 100_000


class ServerTests(TestCase):
    """A real web server."""

    def setUp(self) -> None:
        self.hook = Hook()
        port = reactor.listenTCP(0, Site(self.hook), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}/hooks/KEY"

    async def turn(self) -> None:
        """Let the server see that its client is gone."""
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.05, waiting.callback, None)  # type: ignore[attr-defined]
        await waiting

    async def test_told(self) -> None:
        """The facts arrive, as JSON, whatever is in them."""
        facts = {"login": 'jürgen"\n\udc80', "reason": "x"}
        await makeHook(self.url, reactor).tell(facts)
        self.assertEqual(self.hook.said, [(b"/hooks/KEY", "application/json", facts)])
        await self.turn()

    async def test_answers(self) -> None:
        """Only 2yz is success; a long answer is not read."""
        for code in (301, 404, 500):
            self.hook.code = code
            with self.assertRaises(HTTPFailed) as raised:
                await makeHook(self.url, reactor).tell({})
            self.assertEqual(str(raised.exception), f"127.0.0.1: answered {code}")
        self.hook.code = 200
        await makeHook(self.url, reactor).tell({})
        self.assertEqual(len(self.hook.said), 4)
        await self.turn()


class BrakeTests(BrakeCase):
    """The brake tells it."""

    def test_told(self) -> None:
        """Once, with the facts of the event; when that fails, the log says so, and no secret."""
        told: list[Any] = []
        answer: Deferred[None] = Deferred()

        class Told:
            def tell(self, facts: Any) -> Deferred[None]:
                told.append(facts)
                return answer

        self.patch(brake, "makeHook", lambda url, reactor: told.append(url) or Told())
        policy = self.brake(first_time=Rates("5/hour"), web_hook=URL)
        for _ in range(3):
            self.assertIsNotNone(self.held(policy, *self.strangers(6)))
        self.assertEqual(
            [each if isinstance(each, str) else each["login"] for each in told], [URL, "alice"]
        )
        self.assertEqual(told[1]["event"], "brake-applied")
        self.assertEqual(set(told[1]), {"event", "login", "reason", "address", "until"})
        answer.errback(HTTPFailed("chat.example.com: answered 500"))
        self.assertEqual(self.logged[-1]["event"], "brake-problem")
        self.assertEqual(self.logged[-1]["problem"], "web hook: chat.example.com: answered 500")
        self.assertNotIn("KEY", repr(policy) + repr(self.logged))

    def test_broken(self) -> None:
        """A hook that cannot even be made is a problem in the log, and no more."""
        for broken in (
            lambda url, reactor: 1 / 0,
            lambda url, reactor: WebHook(url, Agent(Deferred()), None),
        ):
            self.patch(brake, "makeHook", broken)
            policy = self.brake(first_time=Rates("5/hour"), web_hook=URL)
            self.assertIsNotNone(self.held(policy, *self.strangers(6), login=str(id(broken))))
            self.assertIn("brake-problem", self.names())

    def test_check(self) -> None:
        """A URL that is none is found before the start."""
        [sentence] = Brake(path=self.file, web_hook="KEY").check()
        self.assertEqual(
            sentence, 'web_hook: must be a URL that begins with "https://" or "http://"'
        )
