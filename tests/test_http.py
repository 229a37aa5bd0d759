"""Tests for :mod:`submitd.http`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as globalReactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from submitd.certificates import trustOf
from submitd.http import KEPT, URL, Answer, HTTPFailed, isPrivate, makeAgent, makePool, mistake
from tests.clients.authority import Authority

reactor: Any = globalReactor

ADDRESS = "https://id.example.com/introspect?key=KEY"


class Response:
    """An answer that comes as the test has it."""

    def __init__(self, code: int = 200) -> None:
        self.code = code
        self.protocol: Any = None
        self.closed = 0

    def deliverBody(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.makeConnection(self)

    def loseConnection(self) -> None:
        self.closed += 1

    def end(self, reason: Exception) -> None:
        self.protocol.connectionLost(Failure(reason))


class Agent:
    """Answers what a test wants, one after another."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    def request(self, *arguments: Any) -> Deferred[Any]:
        self.asked.append(arguments)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            return fail(answer)
        return answer if isinstance(answer, Deferred) else succeed(answer)


class URLTests(SynchronousTestCase):
    """One URL, and what can be wrong with it."""

    def test_mistakes(self) -> None:
        """What is no URL is told without quoting it."""
        for good in (ADDRESS, "http://127.0.0.1:8080/", "https://[::1]/x?token=y"):
            self.assertEqual(mistake(good), "")
        for wrong in (
            "KEY",
            "ftp://x/",
            "https://",
            "https:///KEY",
            "https://x:KEY/",
            "https://x y/",
        ):
            self.assertEqual(mistake(wrong)[:13], "must be a URL")
        self.assertEqual(mistake("https://a:KEY@x/")[:17], "must have no user")

    def test_private(self) -> None:
        """Without TLS nothing leaves this machine."""
        for good in ("https://x/", "http://localhost/", "http://127.3.2.1:8/", "http://[::1]/"):
            self.assertTrue(isPrivate(good), good)
        for wrong in ("http://x/", "http://192.0.2.1/", "http://localhost.example.com/"):
            self.assertFalse(isPrivate(wrong), wrong)

    def ask(self, agent: Agent, clock: Clock | None = None, **how: Any) -> Deferred[Answer]:
        """Ask, and read up to ten octets."""
        how = {"seconds": 5, "most": 10, **how}
        return URL(ADDRESS, agent, clock or Clock()).ask(b"POST", {"Accept": "x/y"}, b"z", **how)

    def failed(self, asking: Deferred[Answer]) -> str:
        """What the log is told: the host, and no secret."""
        said = str(self.failureResultOf(asking, HTTPFailed).value)
        self.assertNotIn("KEY", said)
        host, _, cause = said.partition(": ")
        self.assertEqual(host, "id.example.com")
        return cause

    def test_answer(self) -> None:
        """The answer is there when all of its body has come, whichever way that ended."""
        for end in (ResponseDone(), PotentialDataLoss()):
            response = Response(404)
            agent, clock = Agent(response), Clock()
            asking = self.ask(agent, clock)
            response.protocol.dataReceived(b"hel")
            response.protocol.dataReceived(b"lo")
            self.assertNoResult(asking)
            response.end(end)
            self.assertEqual(self.successResultOf(asking), Answer(404, b"hello"))
            self.assertEqual(clock.getDelayedCalls(), [])
            [(method, url, headers, _)] = agent.asked
            self.assertEqual((method, url), (b"POST", ADDRESS.encode()))
            self.assertEqual(headers.getRawHeaders("user-agent"), ["submitd"])
            self.assertEqual(headers.getRawHeaders("accept"), ["x/y"])

    def test_reprHidesBody(self) -> None:
        """An answer in a traceback is not shown."""
        self.assertNotIn("KEY", repr(Answer(200, b"KEY")))

    def test_tooLong(self) -> None:
        """Of an answer that is too long no more is read, and the connection is closed."""
        response = Response()
        asking = self.ask(Agent(response))
        response.protocol.dataReceived(b"x" * 10)
        self.assertNoResult(asking)
        response.protocol.dataReceived(b"x")
        self.assertEqual(self.failed(asking), "more than 10 octets")
        response.protocol.dataReceived(b"more")
        response.end(ResponseDone())
        self.assertEqual(response.closed, 1)

    def test_broken(self) -> None:
        """An answer that breaks off is none."""
        response = Response()
        asking = self.ask(Agent(response))
        response.protocol.dataReceived(b"KEY")
        response.end(ResponseFailed([Failure(ConnectionLost("KEY"))]))
        self.assertEqual(self.failed(asking), "ConnectionLost")

    def test_late(self) -> None:
        """Silence is over at the time limit, wherever it is."""

        def cancelled(asking: Deferred[Any]) -> None:
            asking.errback(ResponseNeverReceived([Failure(CancelledError())]))

        for answer in (Deferred(), Deferred(cancelled), Response()):
            clock = Clock()
            agent = Agent(answer)
            asking = self.ask(agent, clock, twice=True)
            clock.advance(4.9)
            self.assertNoResult(asking)
            clock.advance(0.1)
            self.assertEqual(self.failed(asking), "TimeoutError")
            self.assertEqual(len(agent.asked), 1)
            if isinstance(answer, Response):
                self.assertEqual(answer.closed, 1)
                answer.end(ConnectionLost())

    def test_twice(self) -> None:
        """A kept connection that the server has just closed is not the end, once."""
        gone = ResponseNeverReceived([Failure(ConnectionDone())])
        response = Response()
        agent = Agent(gone, response)
        asking = self.ask(agent, twice=True)
        response.end(ResponseDone())
        self.assertEqual(self.successResultOf(asking), Answer(200, b""))
        self.assertEqual(len(agent.asked), 2)
        self.assertEqual(self.failed(self.ask(Agent(gone, gone), twice=True)), "ConnectionDone")
        self.assertEqual(self.failed(self.ask(Agent(gone))), "ConnectionDone")

    def test_kinds(self) -> None:
        """The name of what went wrong is told, or of what is within; OpenSSL has words for it."""
        tls = SSL.Error([("SSL routines", "", "certificate verify failed")])
        for error, name in (
            (ConnectionRefusedError("KEY"), "ConnectionRefusedError"),
            (ResponseNeverReceived([Failure(ValueError(ADDRESS))]), "ValueError"),
            (ResponseNeverReceived([Failure(tls)]), "TLS: certificate verify failed"),
            (SSL.Error(), "Error"),
        ):
            self.assertEqual(self.failed(self.ask(Agent(error), twice=True)), name)


class Page(Resource):
    """Notes what it is asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def render(self, request: Any) -> Any:
        self.asked.append((request.method, request.path, request.content.read()))
        if request.path == b"/redirect":
            request.redirect(b"/elsewhere")
            return b""
        if request.path == b"/never":
            request.write(b"x")
            return NOT_DONE_YET
        return b"x" * int(request.path[1:])


class ServerTests(TestCase):
    """A real web server."""

    def setUp(self) -> None:
        self.page = Page()
        self.connected = 0
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def serve(self, factory: Any, context: Any = None, interface: str = "127.0.0.1") -> str:
        """Have it served; the beginning of its URLs."""

        class Counted(type(factory)):  # type: ignore[misc]
            def buildProtocol(counted, address: Any) -> Any:
                self.connected += 1
                return super().buildProtocol(address)

        factory.__class__ = Counted
        if context is None:
            port = reactor.listenTCP(0, factory, interface=interface)
        else:
            port = reactor.listenSSL(0, factory, context, interface=interface)
        self.addCleanup(port.stopListening)
        scheme = "http" if context is None else "https"
        host = "localhost" if interface == "127.0.0.1" else interface
        return f"{scheme}://{host}:{port.getHost().port}"

    def agent(self, **how: Any) -> Any:
        """An agent whose connections are closed at the end."""
        pool = makePool(reactor, 2)
        self.addCleanup(pool.closeCachedConnections)
        return makeAgent(reactor, 10, pool, **how)

    async def test_kept(self) -> None:
        """Connections are kept for the next question."""
        base, agent = self.serve(Site(self.page)), self.agent()
        for size in (0, 10, 20_000):
            answer = await URL(f"{base}/{size}", agent, reactor).ask(
                b"POST", {}, b"body", seconds=10, most=20_000
            )
            self.assertEqual(answer, Answer(200, b"x" * size))
        self.assertEqual(self.page.asked[1], (b"POST", b"/10", b"body"))
        self.assertEqual(self.connected, 1)

    async def test_redirect(self) -> None:
        """Nobody goes where a redirection leads, with what was for another."""
        url = URL(f"{self.serve(Site(self.page))}/redirect", self.agent(), reactor)
        answer = await url.ask(b"GET", {}, seconds=10, most=1000)
        self.assertEqual((answer.code, len(self.page.asked)), (302, 1))

    async def test_tooLong(self) -> None:
        """An answer that is too long ends its connection."""
        base, agent = self.serve(Site(self.page)), self.agent()
        with self.assertRaises(HTTPFailed):
            await URL(f"{base}/300000", agent, reactor).ask(b"GET", {}, seconds=10, most=1000)
        await URL(f"{base}/1", agent, reactor).ask(b"GET", {}, seconds=10, most=1000)
        self.assertEqual(self.connected, 2)

    async def test_closed(self) -> None:
        """A server that answers nothing is asked twice, and no more."""

        class Closing(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]

        url = URL(f"{self.serve(Factory.forProtocol(Closing))}/1", self.agent(), reactor)
        with self.assertRaises(HTTPFailed) as raised:
            await url.ask(b"POST", {}, b"x", seconds=10, most=1, twice=True)
        self.assertEqual(str(raised.exception), "localhost: ConnectionDone")
        self.assertEqual(self.connected, 2)

    async def test_certificate(self) -> None:
        """A certificate is verified, against the authorities that are named."""
        authority = Authority.make(self.directory, "authority")
        stranger = Authority.make(self.directory, "stranger")
        certificate, key = authority.issue(self.directory)
        context = DefaultOpenSSLContextFactory(str(key), str(certificate))
        base = self.serve(Site(self.page), context)
        good = self.agent(trust=trustOf(authority.file))
        answer = await URL(f"{base}/1", good, reactor).ask(b"GET", {}, seconds=10, most=1)
        self.assertEqual(answer.body, b"x")
        other = URL(f"{self.serve(Site(self.page), context, '127.0.0.2')}/1", good, reactor)
        with self.assertRaises(HTTPFailed) as raised:
            await other.ask(b"GET", {}, seconds=10, most=1)
        self.assertEqual(
            str(raised.exception), "127.0.0.2: TLS: the certificate is another server's"
        )
        for agent in (self.agent(trust=trustOf(stranger.file)), self.agent()):
            with self.assertRaises(HTTPFailed) as raised:
                await URL(f"{base}/1", agent, reactor).ask(b"GET", {}, seconds=10, most=1)
            self.assertEqual(str(raised.exception), "localhost: TLS: certificate verify failed")

    async def test_quiet(self) -> None:
        """A connection makes no line in the log."""
        base = self.serve(Site(self.page))
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        await URL(f"{base}/1", self.agent(), reactor).ask(b"GET", {}, seconds=10, most=1)
        said = [each for each in map(formatEvent, logged) if "factory" in str(each)]
        self.assertEqual(said, [])

    def test_pool(self) -> None:
        """A pool keeps so many, for so long, and asks nothing again by itself."""
        pool = makePool(reactor, 7)
        self.assertEqual((pool.maxPersistentPerHost, pool.cachedConnectionTimeout), (7, KEPT))
        self.assertFalse(pool.retryAutomatically)
