"""Connections and destinations against next hops on loopback, honest and not."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger, globalLogPublisher
from twisted.trial.unittest import TestCase

from submitd import events
from submitd.password import Password
from submitd.relay import destinations as relayDestinations
from submitd.relay.destinations import Destinations
from submitd.relay.mx import Exchanger, NoHosts
from submitd.relay.outgoing import Outcome, Result
from submitd.relay.routes import Route, Target
from submitd.relay.tls import ClientTLS
from submitd.typed import Count, Seconds
from submitd.wire.reply import Reply
from tests.relay.hops import TEXT, outgoing
from tests.relay.servers import Body, HopCase, Misbehaving, Scripted, Server, clock, send


def result(outcomes: tuple[Outcome, ...]) -> tuple[str, int, str]:
    """Verdict, code and status of the only recipient."""
    [outcome] = outcomes
    return outcome.result.value, outcome.reply.code, outcome.reply.status


def refusingMail(said: str) -> Callable[[Scripted, str], list[str] | None]:
    """What a next hop answers that refuses MAIL, and so all that comes with it."""
    replies = {"MAIL": [said], "RCPT": ["503 5.5.1 MAIL first"], "DATA": ["503 5.5.1 MAIL first"]}
    return lambda protocol, line: replies.get(line[:4])


async def _awaited(waiting: Deferred[None]) -> None:
    await waiting


class DeliveryTests(HopCase):
    """Messages over real connections."""

    async def test_delivered(self) -> None:
        """A message arrives with its dots stuffed, and the next hop's word is on record."""
        outcomes = await send(self.destination(), outgoing())
        self.assertEqual(result(outcomes), ("delivered", 250, "2.0.0"))
        self.assertEqual(outcomes[0].host, "localhost")
        self.assertEqual(self.server.text, TEXT.replace(b"\r\n.", b"\r\n..") + b".\r\n")

    async def test_quiet(self) -> None:
        """Twisted's own lines for each connection are not in the log."""
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        await send(self.destination(), outgoing())
        self.assertEqual([event for event in events if "factory" in event], [])

    async def test_reused(self) -> None:
        """The next message goes over the same connection."""
        hop = self.destination()
        for _ in range(3):
            await send(hop, outgoing())
        self.assertEqual((len(self.server.connections), self.server.messages), (1, 3))
        await hop.close()
        self.assertEqual(self.server.heard[-1], "QUIT")

    async def test_notForEver(self) -> None:
        """A connection takes so many messages and no more."""
        hop = self.destination(messages_per_connection=Count(2))
        for _ in range(3):
            await send(hop, outgoing())
        self.assertEqual(len(self.server.connections), 2)

    async def test_quitCounts(self) -> None:
        """A connection counts until it is gone: the next hop has no more of them at one time."""
        hop = self.destination(connections=Count(1), messages_per_connection=Count(1))
        opened: list[int] = []

        def count(protocol: Scripted, line: str) -> Any:
            if line.startswith("EHLO"):
                opened.append(sum(not each.lost for each in self.server.connections))
            if line == "QUIT":
                clock.callLater(0.02, protocol.transport.loseConnection)
                return ()
            return None

        self.server.answer = count
        sending = [Deferred.fromCoroutine(send(hop, outgoing())) for _ in range(4)]
        await gatherResults(sending)
        self.assertEqual(opened, [1] * 4)

    async def test_idleCounts(self) -> None:
        """So does one that ends because nobody has needed it."""
        hop = self.destination(connections=Count(1), timeouts={"idle": Seconds(0.05)})
        opened: list[int] = []

        def count(protocol: Scripted, line: str) -> Any:
            if line.startswith("EHLO"):
                opened.append(sum(not each.lost for each in self.server.connections))
            return () if line == "QUIT" else None

        self.server.answer = count
        await send(hop, outgoing())
        await self.until(lambda: "QUIT" in self.server.heard)
        sending = Deferred.fromCoroutine(send(hop, outgoing()))
        await deferLater(clock, 0.05, lambda: None)
        self.server.connections[0].transport.loseConnection()
        await sending
        self.assertEqual(opened, [1, 1])

    async def test_idle(self) -> None:
        """A connection that nobody needs is closed."""
        hop = self.destination(timeouts={"idle": Seconds(0.05)})
        await send(hop, outgoing())
        await deferLater(clock, 0.2, lambda: None)
        self.assertEqual(self.server.heard[-1], "QUIT")
        self.assertTrue(hop.isIdle)
        await send(hop, outgoing())
        self.assertEqual(len(self.server.connections), 2)

    async def test_keptTooLong(self) -> None:
        """A kept connection that the next hop has closed costs nobody an attempt."""
        hop = self.destination()
        await send(hop, outgoing())

        def bye(protocol: Scripted, line: str) -> Any:
            if protocol is self.server.connections[0] and line.startswith("MAIL"):
                protocol.transport.abortConnection()
                return ()
            return None

        self.server.answer = bye
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        self.assertEqual(len(self.server.connections), 2)

    async def test_spent(self) -> None:
        """A next hop that takes so many messages over a connection gets the others over new ones.

        It may say so by any refusal of MAIL, and would say it of all mail for as long as there is
        more of it: with 5yz each message came back to its sender.
        """
        for said in ("452 4.5.3 too many messages", "450 no more", "503 5.5.1 say EHLO first"):
            self.server.connections.clear()

            def once(protocol: Scripted, line: str, said: str = said) -> Any:
                mails = protocol.mails = getattr(protocol, "mails", 0) + (line[:4] == "MAIL")
                return [said] if mails > 1 and line[:4] in ("MAIL", "RCPT", "DATA") else None

            self.server.answer = once
            hop = self.destination(connections=Count(1))
            for _ in range(3):
                self.assertEqual(result(await send(hop, outgoing()))[0], "delivered", said)
            self.assertEqual(len(self.server.connections), 3, said)

    async def test_chunkingUnknown(self) -> None:
        """A next hop that offers BDAT and does not know it has its mail by DATA from then on."""
        self.server.extensions = ("PIPELINING", "8BITMIME", "CHUNKING")
        self.server.answer = lambda protocol, line: (
            None if line.split(" ")[0] in ("EHLO", "MAIL", "RCPT", "DATA", "(end)") else ["502 no"]
        )
        hop = self.destination()
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 502, ""))
        for _ in range(2):
            self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        self.assertEqual(len(self.server.connections), 2)

    async def test_refusesSenders(self) -> None:
        """One that refuses the sender over a new connection, too, is asked no third time.

        Nor is a new one opened for each message while it takes none at all.
        """
        hop = self.destination()
        await send(hop, outgoing())
        for code, expected in ((550, "failed"), (451, "delayed")):
            self.server.answer = lambda protocol, line, code=code: (
                [f"{code} not now"] if line[:4] in ("MAIL", "RCPT", "DATA") else None
            )
            for _ in range(2):
                self.assertEqual(result(await send(hop, outgoing()))[:2], (expected, code))
        self.assertEqual(len(self.server.connections), 2)

    async def test_fewer(self) -> None:
        """A next hop that takes fewer connections than we may have is not away for all others."""
        hop = self.destination(connections=Count(5), backoff=Seconds(60.0))
        greet = Scripted.greet
        late: list[Scripted] = []

        def full(protocol: Scripted) -> None:
            if sum(not each.lost for each in self.server.connections) > 2:
                late.append(protocol)
            else:
                greet(protocol)
            refuse()

        def refuse(*_: object) -> None:
            # Not before: the first to be refused may be the first that tried.
            while late and any(line.startswith("MAIL") for line in self.server.heard):
                late[0].send("421 4.7.0 too many connections")
                late.pop(0).transport.loseConnection()

        self.patch(Scripted, "greet", full)
        self.server.answer = refuse
        sending = [Deferred.fromCoroutine(send(hop, outgoing())) for _ in range(40)]
        results = [result(outcomes)[0] for outcomes in await gatherResults(sending)]
        self.assertEqual(self.server.messages, results.count("delivered"))
        # Each connection too many costs one message its attempt, and is not tried again at once.
        self.assertEqual(results.count("delayed"), 3)
        self.assertEqual(len(self.server.connections), 5)

    async def test_fewerAtFirst(self) -> None:
        """Nor where the first to try is refused while another has been greeted, and no more."""
        hop = self.destination(connections=Count(2), backoff=Seconds(60.0))
        self.patch(Scripted, "greet", lambda protocol: None)
        self.server.answer = lambda protocol, line: ()
        sending = []
        for count in (1, 2):
            sending.append(Deferred.fromCoroutine(send(hop, outgoing())))
            await self.until(lambda count=count: len(self.server.connections) == count)
        first, second = self.server.connections
        second.send("220 hop")
        await self.until(lambda: any(line.startswith("EHLO") for line in self.server.heard))
        first.send("421 4.7.0 too many connections")
        self.assertEqual(result(await sending[0]), ("delayed", 421, "4.7.0"))
        sending.append(Deferred.fromCoroutine(send(hop, outgoing())))
        self.server.answer = None
        second.answer("EHLO")
        self.assertEqual(result(await sending[1])[0], "delivered")
        self.assertEqual(result(await sending[2])[0], "delivered")

    async def test_away(self) -> None:
        """One that refuses all connections is away for all, after one attempt with each of them."""
        hop = self.destination(connections=Count(5), backoff=Seconds(60.0))
        self.server.greeting = "421 4.7.0 no"
        sending = [Deferred.fromCoroutine(send(hop, outgoing())) for _ in range(40)]
        for outcomes in await gatherResults(sending):
            self.assertEqual(result(outcomes), ("delayed", 421, "4.7.0"))
        self.assertEqual(len(self.server.connections), 5)

    async def test_awaySlowly(self) -> None:
        """So is one that lets us wait first, although there is always somebody who waits."""
        hop = self.destination(backoff=Seconds(60.0))
        self.patch(Scripted, "greet", lambda protocol: None)
        sending = []
        for count in (1, 2):
            sending.append(Deferred.fromCoroutine(send(hop, outgoing())))
            await self.until(lambda count=count: len(self.server.connections) == count)
        first, second = self.server.connections
        first.send("421 4.7.0 no")
        self.assertEqual(result(await sending[0]), ("delayed", 421, "4.7.0"))
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 421, "4.7.0"))
        self.assertEqual(len(self.server.connections), 2)
        second.send("421 4.7.0 no")
        await sending[1]

    async def test_concurrency(self) -> None:
        """No more connections at one time than the settings allow."""
        hop = self.destination(connections=Count(2))
        sending = [Deferred.fromCoroutine(send(hop, outgoing())) for _ in range(9)]
        await gatherResults(sending)
        self.assertEqual(len(self.server.connections), 2)
        self.assertEqual(self.server.messages, 9)

    async def test_large(self) -> None:
        """A message is pulled as fast as the next hop takes it, and no faster."""
        paused: list[Scripted] = []

        def slow(protocol: Scripted, line: str) -> Any:
            if line == "DATA":
                protocol.pauseProducing()
                paused.append(protocol)
            return None

        self.server.answer = slow
        body = Body(*[b"x" * 65534 + b"\r\n"] * 400)
        hop = self.destination()
        sending = Deferred.fromCoroutine(hop.deliver(outgoing(), lambda: body))
        await deferLater(clock, 0.3, lambda: None)
        self.assertLess(body.pulled, 200)
        self.server.connections[0].MAX_LENGTH = 1 << 20
        paused[0].resumeProducing()
        self.assertEqual(result(await sending)[0], "delivered")
        self.assertEqual(len(self.server.text), 400 * 65536 + 3)

    async def test_unix(self) -> None:
        """LMTP over a unix socket, one reply for each recipient."""
        path = f"/tmp/_submitd_{self.server.port}.sock"
        port = await UNIXServerEndpoint(clock, path).listen(self.server)
        self.addCleanup(port.stopListening)
        answers = iter([["250 2.1.5 one", "452 4.2.2 full"]])
        self.server.answer = lambda protocol, line: next(answers) if line == "(end)" else None
        hop = self.destination(kind="lmtp", host=path, port=0)
        outcomes = await send(hop, outgoing("a@b.example", "c@d.example"))
        self.assertEqual([each.reply.code for each in outcomes], [250, 452])
        self.assertTrue(self.server.heard[0].startswith("LHLO"))

    async def test_unixPath(self) -> None:
        """What goes wrong at a unix socket is told to senders, and its path is not."""
        path = f"/tmp/_submitd_{self.server.port}_path.sock"
        hop = self.destination(kind="lmtp", host=path, port=0)
        [outcome] = await send(hop, outgoing())
        said = "Cannot connect to the socket of the next hop: No such file or directory"
        self.assertEqual(outcome.reply.lines, (said,))
        port = await UNIXServerEndpoint(clock, path).listen(self.server)
        self.addCleanup(port.stopListening)

        def drop(protocol: Scripted, line: str) -> Any:
            return protocol.transport.abortConnection() or ()

        for answer in (drop, lambda protocol, line: ()):
            self.server.answer = answer
            hop = self.destination(kind="lmtp", host=path, port=0, timeouts={"hello": Seconds(0.1)})
            [outcome] = await send(hop, outgoing())
            self.assertIn("the socket of the next hop", outcome.reply.lines[0])
            self.assertNotIn(path, outcome.reply.lines[0])

    async def test_unixFull(self) -> None:
        """A unix socket whose queue is full for a moment is not one that nobody listens at."""
        path = f"/tmp/_submitd_{self.server.port}_full.sock"
        self.addCleanup(Path(path).unlink, missing_ok=True)
        listening, waiting = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.addCleanup(waiting.close)
        listening.bind(path)
        listening.setblocking(False)
        listening.listen(0)
        waiting.connect(path)
        hop = self.destination(kind="lmtp", host=path, port=0, backoff=Seconds(60.0))
        sending = Deferred.fromCoroutine(send(hop, outgoing()))
        await deferLater(clock, 0.0, lambda: None)
        self.assertFalse(sending.called)
        with listening:
            taken = clock.adoptStreamPort(listening.fileno(), socket.AF_UNIX, self.server)
        await sending
        await maybeDeferred(taken.stopListening)
        self.assertIn("LHLO relay.example", self.server.heard)

    async def test_bodyBroken(self) -> None:
        """A message that cannot be read to its end is never taken for a whole one."""

        class Broken(Body):
            def next(self) -> Any:
                if self.chunks:
                    return super().next()
                broken: Deferred[bytes] = Deferred()
                broken.errback(RuntimeError("disk"))
                return broken

        hop = self.destination()
        outcomes = await hop.deliver(outgoing(), lambda: Broken(b"half\r\n"))
        self.assertEqual(result(outcomes), ("delayed", 451, "4.3.0"))
        self.assertEqual(self.server.messages, 0)

    async def test_cancelled(self) -> None:
        """A delivery that is broken off closes its connection before the message's end."""
        self.server.answer = lambda protocol, line: () if line.startswith("RCPT") else None
        await self.breakOff(lambda: any(each.startswith("RCPT") for each in self.server.heard))
        self.assertEqual(self.server.messages, 0)

    async def breakOff(self, begun: Callable[[], bool]) -> None:
        """Cancel a delivery when it has begun, and wait until the next hop has seen its end."""
        sending = Deferred.fromCoroutine(send(self.destination(), outgoing()))
        await self.until(begun)
        sending.addErrback(lambda failure: None)
        sending.cancel()
        await sending
        await self.until(lambda: self.server.connections[0].lost)

    async def test_cancelledAtTheEnd(self) -> None:
        """The same while the reply to the end of the message is waited for; it is no error."""
        ended: list[str] = []

        def silent(protocol: Scripted, line: str) -> Any:
            return ended.append(line) or () if line == "(end)" else None

        self.server.answer = silent
        await self.breakOff(lambda: bool(ended))
        await deferLater(clock, 0, lambda: None)

    async def test_cancelledWhenOver(self) -> None:
        """What came of a message is told, although it is broken off when that is known."""
        hop = self.destination()
        await send(hop, outgoing())
        [connection] = hop._free
        delivering = connection.deliver(outgoing(), Body(TEXT))
        done = connection._done

        def doneAndOver(outcomes: Any) -> None:
            done(outcomes)
            delivering.cancel()

        self.patch(connection, "_done", doneAndOver)
        self.assertEqual(result(await delivering), ("delivered", 250, "2.0.0"))

    async def test_cancelledInPart(self) -> None:
        """Who has the message of an LMTP server already has it, although the rest is broken off."""
        self.server.answer = lambda protocol, line: ("250 2.1.5 ok",) if line == "(end)" else None
        hop = self.destination(kind="lmtp")
        await send(hop, outgoing())
        [connection] = hop._free
        message = outgoing("you@example.net", "them@example.net")
        delivering = connection.deliver(message, Body(TEXT))
        transaction: Any = connection._client._transaction
        await self.until(lambda: any(transaction.outcomes))
        delivering.cancel()
        outcomes = await delivering
        self.assertEqual([each.result.value for each in outcomes], ["delivered", "delayed"])
        self.assertIn("may arrive twice", outcomes[1].reply.lines[0])

    async def test_cancelledWhileConnecting(self) -> None:
        """The same before there is a connection, whatever an endpoint calls that."""

        class Never:
            def connect(self, factory: Any) -> Deferred[Any]:
                return Deferred(lambda waiting: waiting.errback(ConnectingCancelledError(None)))

        hop = self.destination()
        self.patch(hop, "_endpoint", lambda target: Never())
        sending = Deferred.fromCoroutine(send(hop, outgoing()))
        sending.cancel()
        await self.assertFailure(sending, CancelledError)

    async def test_forgotten(self) -> None:
        """No more next hops are kept than a number; one that somebody has is the same for all."""
        self.patch(relayDestinations, "MAX_IDLE", 2)
        destinations = Destinations(self.destination()._means)
        route = Route(name="relay", kind="mx")
        destinations.find(Route(name="route[0]", kind="smarthost", host="a"), "a.example", False)
        had = destinations.find(route, "a.example", False)
        for domain in ("b.example", "c.example", "d.example", "e.example"):
            destinations.find(route, domain, False)
            self.assertLessEqual(len(destinations._hops), 4)
        self.assertIn(("route[0]", "", False), destinations._kept)
        self.assertIs(destinations.find(route, "a.example", False)[1], had[1])

    async def test_closedTogether(self) -> None:
        """At the end no next hop waits for another one to answer to QUIT."""
        closing: list[Deferred[None]] = []

        class Slow:
            def close(self) -> Any:
                closing.append(Deferred())
                return _awaited(closing[-1])

        destinations = Destinations(self.destination()._means)
        hops: Any = {("a", "", False): Slow(), ("b", "", False): Slow()}
        self.patch(destinations, "_hops", hops)
        closed = Deferred.fromCoroutine(destinations.close())
        self.assertEqual(len(closing), 2)
        for each in closing:
            each.callback(None)
        await closed

    async def test_cancelledEarly(self) -> None:
        """The same while the connection is being opened."""
        self.server.greeting = "220-wait"
        await self.breakOff(lambda: bool(self.server.connections))


class TroubleTests(HopCase):
    """Next hops that are not there, slow, or out of their mind."""

    async def test_nobody(self) -> None:
        """Nobody listens: delayed, and the next message does not even try for a while."""
        hop = self.destination(port=1, backoff=Seconds(60.0))
        [refused] = await send(hop, outgoing())
        self.assertEqual(result([refused]), ("delayed", 451, "4.4.1"))
        self.assertEqual(refused.reply.lines, ("Cannot connect to localhost: Connection refused",))
        outcomes = await send(hop, outgoing())
        self.assertEqual(result(outcomes), ("delayed", 451, "4.4.1"))
        self.assertFalse(outcomes[0].isRemote)

    async def test_leavesAtOnce(self) -> None:
        """A host that says 421 right behind its extensions is one that has not taken us."""

        def leave(protocol: Scripted, line: str) -> Any:
            return ("250 hop.example", "421 4.3.2 too busy") if line.startswith("EHLO") else None

        self.server.answer = leave
        hop = self.destination(backoff=Seconds(60.0))
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 421, "4.3.2"))

    async def test_nobodyForMany(self) -> None:
        """Hundreds that wait for a next hop that is not there all hear of it."""
        hop = self.destination(port=1, backoff=Seconds(60.0), connections=2)
        waiting = [Deferred.fromCoroutine(send(hop, outgoing())) for _ in range(500)]
        for outcomes in await gatherResults(waiting):
            self.assertEqual(result(outcomes), ("delayed", 451, "4.4.1"))

    async def test_refusesAll(self) -> None:
        """554 in place of a greeting bounces nobody's mail, now or for the next one."""
        self.server.greeting = "554 5.7.1 go away"
        hop = self.destination(backoff=Seconds(60.0))
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 554, "5.7.1"))
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 554, "5.7.1"))

    async def test_saidBeforeMail(self) -> None:
        """What a next hop says before MAIL is on record as its own words, and under its name.

        So it is for the messages that are not tried for a while because of that.
        """
        for step, said in (("EHLO", "421 4.3.2 busy"), ("EHLO", "550 5.7.1 listed"), ("", "")):
            self.server.answer = lambda protocol, line, step=step, said=said: (
                [said] if line.startswith((step, "HELO")) else None
            )
            if not step:
                self.server.greeting = said = "554 5.7.1 go away"
            hop = self.destination(backoff=Seconds(60.0))
            for _ in range(2):
                [outcome] = await send(hop, outgoing())
                self.assertIs(outcome.result, Result.DELAYED)
                self.assertEqual(outcome.reply.wire, f"{said}\r\n".encode())
                self.assertEqual((outcome.isRemote, outcome.host), (True, "localhost"))

    async def test_closedBeforeMail(self) -> None:
        """Where it only leaves, the words are ours, and the name is its own."""
        self.server.answer = lambda protocol, line: protocol.transport.loseConnection() or ()
        [outcome] = await send(self.destination(), outgoing())
        self.assertEqual(outcome.reply.status, "4.4.2")
        self.assertEqual((outcome.isRemote, outcome.host), (False, "localhost"))

    async def test_dropsAtEachStep(self) -> None:
        """A connection that is dropped delays, wherever it happens."""
        for step in ("EHLO", "MAIL", "RCPT", "DATA", "(end)"):

            def drop(protocol: Scripted, line: str, step: str = step) -> Any:
                if line.startswith(step):
                    protocol.transport.abortConnection()
                    return ()
                return None

            self.server.answer = drop
            outcomes = await send(self.destination(), outgoing())
            self.assertEqual(result(outcomes), ("delayed", 451, "4.4.2"), step)

    async def test_slowAtEachStep(self) -> None:
        """A next hop that says nothing is given up in time, wherever it happens."""
        limits = dict.fromkeys(
            ("greeting", "hello", "envelope", "opening", "body", "end"), Seconds(0.1)
        )
        self.server.extensions = ()
        for step in ("EHLO", "MAIL", "RCPT", "DATA", "(end)"):
            self.server.answer = lambda protocol, line, step=step: (
                () if line.startswith(step) else None
            )
            outcomes = await send(self.destination(timeouts=limits), outgoing())
            self.assertEqual(result(outcomes), ("delayed", 451, "4.4.2"), step)
            self.assertIn("timed out", outcomes[0].reply.lines[0])
        self.server.greeting = "220-never ends"
        outcomes = await send(self.destination(timeouts=limits), outgoing())
        self.assertEqual(result(outcomes), ("delayed", 451, "4.4.2"))

    async def test_slowQuit(self) -> None:
        """A next hop that does not answer QUIT does not hold up the end."""
        hop = self.destination(timeouts={"quit": Seconds(0.1)})
        await send(hop, outgoing())
        self.server.answer = lambda protocol, line: () if line == "QUIT" else None
        await hop.close()

    async def test_talksOn(self) -> None:
        """Nor does one that goes on to talk, and neither reads nor closes."""
        self.server.context = self.context()
        hop = self.destination(tls="starttls", timeouts={"quit": Seconds(0.3)})
        await send(hop, outgoing())
        [protocol] = self.server.connections
        talking = LoopingCall(protocol.send, "250 more")
        talking.clock = clock

        def talk(protocol: Scripted, line: str) -> Any:
            if line != "QUIT":
                return None
            # TLS ends when both sides have said so.
            protocol.transport.pauseProducing()
            talking.start(0.05)
            return ["221 bye"]

        self.server.answer = talk
        try:
            await hop.close()
        finally:
            talking.stop()

    async def test_nonsense(self) -> None:
        """What is no reply delays, with what was said on record."""
        self.server.greeting = "SSH-2.0-OpenSSH"
        outcomes = await send(self.destination(), outgoing())
        self.assertEqual(result(outcomes), ("delayed", 451, "4.5.0"))
        self.assertIn("SSH-2.0", outcomes[0].reply.lines[0])

    async def test_oddReplies(self) -> None:
        """Odd replies at each step: a delivery where they are replies, a delay where they are not.

        Never is a message taken to be delivered for a reply that was to something else.
        """
        for step, code in (("MAIL", 250), ("RCPT", 250), ("DATA", 354), ("(end)", 250)):
            for said, expected in (
                (f"{code} a\0b", "delivered"),
                (f"{code} \u00fc\u2028", "delivered"),
                (f"{code}", "delivered"),
                (f"{code}-\r\n{code} ", "delivered"),
                (f"{code}-a\r\n550 b", "delayed"),
                (f"{code} a\nb", "delayed"),
                (f"{code} a\rb", "delayed"),
                (f"{code} a\r\n{code} b", "delivered" if step == "(end)" else "delayed"),
                ("150 wait", "delayed"),
                ("600 no", "delayed"),
                ("", "delayed"),
                ("354 go" if code == 250 else "250 ok", "delayed"),
                (f"{code} {'x' * 5000}", "delayed"),
                (f"{code}-x\r\n" * 600 + f"{code} x", "delayed"),
            ):

                def answer(
                    protocol: Scripted,
                    line: str,
                    step: str = step,
                    said: str = said,
                ) -> Any:
                    if not line.startswith(step):
                        return None
                    protocol.inData = said.startswith("354") and step == "DATA"
                    return [said]

                self.server.answer = answer
                outcomes = await send(self.destination(), outgoing())
                self.assertEqual(result(outcomes)[0], expected, (step, said[:30]))

    async def test_drip(self) -> None:
        """Octets that complete no reply do not keep a connection alive."""

        def drip(protocol: Scripted, line: str) -> Any:
            if line.startswith("MAIL"):
                for at in range(25):
                    clock.callLater(at / 50, protocol.transport.write, b"2")
                return ()
            return None

        self.server.answer = drip
        begun = clock.seconds()
        hop = self.destination(timeouts={"envelope": Seconds(0.15)})
        self.assertEqual(result(await send(hop, outgoing()))[0], "delayed")
        self.assertLess(clock.seconds() - begun, 0.4)
        await deferLater(clock, 0.6, lambda: None)


class TLSTests(HopCase):
    """TLS with next hops."""

    async def test_starttls(self) -> None:
        """Required and verified."""
        self.server.context = self.context()
        outcomes = await send(self.destination(tls="starttls"), outgoing())
        self.assertEqual(result(outcomes)[0], "delivered")
        self.assertEqual(self.server.handshakes, 1)
        self.assertEqual([each[:4] for each in self.server.heard[:3]], ["EHLO", "STAR", "EHLO"])

    async def test_implicit(self) -> None:
        """From the first octet."""
        self.server.context, self.server.implicit = self.context(), True
        outcomes = await send(self.destination(tls="implicit"), outgoing())
        self.assertEqual(result(outcomes)[0], "delivered")

    async def test_untrusted(self) -> None:
        """An authority that we do not know: nothing is sent, and it is tried again later."""
        for implicit, word in ((False, "starttls"), (True, "implicit")):
            self.server.context, self.server.implicit = self.context(), implicit
            outcomes = await send(self.destination(tls=word, trusted=False), outgoing())
            self.assertEqual(result(outcomes), ("delayed", 451, "4.7.5"))
            self.assertEqual(self.server.messages, 0)

    async def test_otherName(self) -> None:
        """A certificate for another name is none (RFC 9525)."""
        self.server.context = self.context()
        exchangers: Any = Exchangers([Exchanger("mx.example.net", ("127.0.0.1",))])
        hop = self.destination(
            kind="mx",
            tls="starttls",
            exchangers=exchangers,
            mx_port=Count(self.server.port),
        )
        outcomes = await send(hop, outgoing())
        self.assertEqual(result(outcomes), ("delayed", 451, "4.7.5"))
        said = "TLS with mx.example.net failed: its certificate is not for that name"
        self.assertEqual(outcomes[0].reply.lines, (said,))

    async def test_notVerified(self) -> None:
        """verify = false takes any certificate; it is said to be unverified all the same."""
        self.server.context = self.context()
        hop = self.destination(tls="starttls", trusted=False, verify=False)
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")

    async def test_opportunistic(self) -> None:
        """Where it is offered, whoever it is."""
        self.server.context = self.context()
        hop = self.destination(tls="opportunistic", trusted=False)
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        self.assertEqual(self.server.handshakes, 1)
        self.server.context = None
        await hop.close()
        hop = self.destination(tls="opportunistic")
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")

    async def test_brokenHandshake(self) -> None:
        """A handshake that fails: in the clear where TLS was only a wish, and nowhere else."""

        def breaks(protocol: Scripted, line: str) -> Any:
            if line.startswith("EHLO"):
                return ["250-hop", "250 STARTTLS"]
            if line == "STARTTLS":
                protocol.setRawMode()
                protocol.rawDataReceived = lambda data: protocol.transport.write(
                    b"this is no TLS at all\r\n"
                )
                return ["220 go"]
            return None

        self.server.answer = breaks
        self.assertEqual(
            result(await send(self.destination(tls="opportunistic"), outgoing()))[0], "delivered"
        )
        self.assertEqual(
            result(await send(self.destination(tls="starttls"), outgoing())),
            ("delayed", 451, "4.7.5"),
        )

    async def test_injected(self) -> None:
        """Capabilities together with the 220, in the clear: dropped, and nothing is sent."""

        def injects(protocol: Scripted, line: str) -> Any:
            if line == "STARTTLS":
                return ["220 go", "250-evil", "250 AUTH PLAIN"]
            return None

        self.server.context, self.server.answer = self.context(), injects
        for word in ("starttls", "opportunistic"):
            outcomes = await send(self.destination(tls=word), outgoing())
            self.assertEqual(result(outcomes), ("delayed", 451, "4.7.5"))
        self.assertFalse(any(each.startswith(("AUTH", "MAIL")) for each in self.server.heard))

    async def test_requireTLS(self) -> None:
        """REQUIRETLS: verified TLS and a next hop that offers it, or 5.7.30."""
        message = outgoing(requireTLS=True)
        hop = self.destination(tls="opportunistic", requireTLS=True)
        self.assertEqual(result(await send(hop, message)), ("failed", 550, "5.7.30"))
        self.server.context = self.context()
        hop = self.destination(tls="opportunistic", requireTLS=True)
        self.assertEqual(result(await send(hop, message)), ("failed", 550, "5.7.30"))
        self.server.extensions = ("REQUIRETLS",)
        hop = self.destination(tls="opportunistic", requireTLS=True)
        self.assertEqual(result(await send(hop, message)), ("delivered", 250, "2.0.0"))
        hop = self.destination(tls="opportunistic", requireTLS=True, trusted=False)
        self.assertEqual(result(await send(hop, message)), ("delayed", 451, "4.7.5"))
        self.assertTrue(any("REQUIRETLS" in each for each in self.server.heard))

    async def test_requireTLSByMX(self) -> None:
        """MX records can be forged: only a host below the domain itself will do."""
        exchangers: Any = Exchangers([Exchanger("mx.evil.example", ("127.0.0.1",))])
        hop = self.destination(
            kind="mx", tls="opportunistic", requireTLS=True, exchangers=exchangers
        )
        outcomes = await send(hop, outgoing(requireTLS=True))
        self.assertEqual(result(outcomes), ("failed", 550, "5.7.30"))
        self.assertEqual(self.server.connections, [])

    async def test_requireTLSSpare(self) -> None:
        """A host that has nothing of it is passed over; without any it fails, unless one is away.

        RFC 8689 4.2.1.
        """
        servers: dict[str, Server] = {}
        for name, certificate in (("a", False), ("b", True), ("c", True)):
            await self.listen(server := Server(), f"127.0.0.{ord(name) - 94}", self.server.port)
            server.context = self.context() if certificate else None
            server.extensions = ("REQUIRETLS",) if name == "c" else ()
            servers[name] = server
        message = outgoing(requireTLS=True)
        for names, expected in (
            ("abc", ("delivered", 250, "2.0.0")),
            ("ab", ("failed", 550, "5.7.30")),
            ("ba", ("failed", 550, "5.7.30")),
            ("xab", ("delayed", 451, "4.4.1")),
            ("abx", ("delayed", 451, "4.4.1")),
        ):
            hosts: Any = Exchangers(
                [
                    Exchanger(
                        "x.localhost" if name == "x" else "localhost",
                        (f"127.0.0.{ord(name) - 94}",),
                    )
                    for name in names
                ]
            )
            hop = self.destination(
                kind="mx",
                tls="opportunistic",
                requireTLS=True,
                exchangers=hosts,
                mx_port=Count(self.server.port),
                domain="localhost",
            )
            self.assertEqual(result(await send(hop, message)), expected, names)
        self.assertEqual([each.messages for each in servers.values()], [0, 0, 1])

    async def test_login(self) -> None:
        """The password goes out under TLS alone, in what it was changed to last."""
        file = self.directory / "password"
        file.write_text("first\n")
        self.server.context, self.server.extensions = self.context(), ("AUTH PLAIN",)
        account = {"user": "u", "password": Password(file), "mechanisms": ("PLAIN",)}
        file.write_text("changed\n")
        hop = self.destination(tls="starttls", **account)
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        self.assertIn("AUTH PLAIN AHUAY2hhbmdlZA==", self.server.heard)
        self.server.heard.clear()
        hop = self.destination(tls="off", **account)
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 451, "4.7.11"))
        self.assertFalse(any("AUTH" in each for each in self.server.heard))

    async def test_badName(self) -> None:
        """A name that no certificate can bear is a delay."""
        hop = self.destination(host="x" * 70 + ".example", tls="starttls")
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 451, "4.7.5"))

    async def test_nameFromDNS(self) -> None:
        """Where nothing is verified it does not matter, whatever DNS gives as a name."""
        self.server.context = self.context()
        for name in ("\ufffd.example", "a..example", "a\0b.example", "x" * 70, "a_b.example"):
            hosts: Any = Exchangers([Exchanger(name, ("127.0.0.1",))])
            hop = self.destination(
                kind="mx", tls="opportunistic", exchangers=hosts, mx_port=Count(self.server.port)
            )
            self.assertEqual(result(await send(hop, outgoing()))[0], "delivered", name)
        self.assertEqual(self.server.handshakes, 5)

    def test_authorities(self) -> None:
        """A file without certificates is no authority."""
        self.assertRaises(ValueError, ClientTLS, self.key)
        self.assertRaises(ValueError, ClientTLS, Path("/does/not/exist"))

    def test_creators(self) -> None:
        """What makes connections is kept for each name, and for a bounded number of them."""
        tls = ClientTLS(self.authority.file)
        self.assertIs(tls.creator("a.example", True), tls.creator("a.example", True))
        for n in range(70):
            tls.creator(f"{n}.example", True)
        self.assertLess(len(tls._verified), 65)


class Exchangers:
    """MX without DNS."""

    def __init__(self, hosts: list[Exchanger] | NoHosts) -> None:
        self.found = hosts

    async def hosts(self, domain: str) -> list[Exchanger]:
        if isinstance(self.found, NoHosts):
            raise self.found
        return self.found


class MXTests(HopCase):
    """Several hosts."""

    def hop(self, hosts: list[Exchanger] | NoHosts, **changes: Any) -> Any:
        """A destination by MX."""
        exchangers: Any = Exchangers(hosts)
        return self.destination(
            kind="mx",
            tls="opportunistic",
            exchangers=exchangers,
            mx_port=Count(self.server.port),
            **changes,
        )

    async def test_fallback(self) -> None:
        """The next host is tried when one does not take us."""
        await self.listen(bad := Server())
        bad.greeting = "421 4.3.2 not now"
        hosts = [
            Exchanger("a.example", ("127.0.0.2", "::1")),
            Exchanger("b.example", ("127.0.0.1",)),
        ]
        outcomes = await send(self.hop(hosts), outgoing())
        self.assertEqual(result(outcomes)[0], "delivered")
        self.assertEqual(outcomes[0].host, "b.example")

    async def test_left(self) -> None:
        """The next host is tried when one leaves us before the end of a message, and not behind."""
        bad = Server()
        await self.listen(bad, "127.0.0.2", self.server.port)
        hosts = [Exchanger("a.example", ("127.0.0.2",)), Exchanger("b.example", ("127.0.0.1",))]
        for step in ("MAIL", "RCPT", "DATA"):
            for last in ("421 4.3.2 bye", ""):

                def leaves(
                    protocol: Scripted, line: str, step: str = step, last: str = last
                ) -> Any:
                    if not line.startswith(step):
                        return None
                    if not last:
                        protocol.transport.abortConnection()
                    return [last] if last else ()

                bad.answer = leaves
                outcomes = await send(self.hop(hosts), outgoing())
                self.assertEqual(result(outcomes)[0], "delivered", (step, last))
                self.assertEqual(outcomes[0].host, "b.example")
        bad.answer = lambda protocol, line: ["421 4.3.2 bye"] if line == "(end)" else None
        self.assertEqual(result(await send(self.hop(hosts), outgoing())), ("delayed", 421, "4.3.2"))
        bad.answer = lambda protocol, line: ["451 4.3.0 later"] if line[:4] == "RCPT" else None
        self.assertEqual(result(await send(self.hop(hosts), outgoing()))[0], "delayed")
        self.assertEqual(self.server.messages, 6)

    async def test_takesNone(self) -> None:
        """Nor is a host waited for that takes no mail for now, where there is another.

        It is tried last for a time then; and where none takes it, the message waits.
        """
        await self.listen(full := Server(), "127.0.0.2", self.server.port)

        def refusing(protocol: Scripted, line: str) -> Any:
            return ["452 4.3.1 disk full"] if line.startswith("MAIL") else None

        spare = Target("127.0.0.1", self.server.port, "off")
        hop = self.destination(host="127.0.0.2", spares=(spare,), backoff=Seconds(60.0))
        self.assertEqual((await send(hop, outgoing()))[0].host, "127.0.0.2")
        full.answer = refusing
        for _ in range(3):
            outcomes = await send(hop, outgoing())
            self.assertEqual(result(outcomes)[0], "delivered")
            self.assertEqual(outcomes[0].host, "127.0.0.1")
        # The one that was kept, and one that was new.
        self.assertEqual((len(full.connections), len(self.server.connections)), (2, 1))
        self.server.answer = refusing
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 452, "4.3.1"))

    async def test_takesNoneAnyMore(self) -> None:
        """So it is over a connection that is kept, and has taken nothing before."""
        await self.listen(full := Server(), "127.0.0.2", self.server.port)
        spare = Target("127.0.0.1", self.server.port, "off")
        hop = self.destination(host="127.0.0.2", spares=(spare,))
        for said, expected in (("550 5.7.1 no", "failed"), ("452 4.3.1 disk full", "delivered")):
            full.answer = refusingMail(said)
            self.assertEqual(result(await send(hop, outgoing()))[0], expected)

    async def test_lastForATime(self) -> None:
        """A host that could not be had is tried behind the others, until the time is over."""
        bad = Server()
        await self.listen(bad, "127.0.0.2", self.server.port)
        bad.greeting = "421 4.3.2 not now"
        spare = Target("127.0.0.1", self.server.port, "off")
        for backoff, expected in ((60.0, 1), (0.0, 3)):
            hop = self.destination(
                host="127.0.0.2",
                spares=(spare,),
                backoff=Seconds(backoff),
                messages_per_connection=Count(1),
            )
            before = len(bad.connections)
            for _ in range(3):
                outcomes = await send(hop, outgoing())
                self.assertEqual(result(outcomes)[0], "delivered")
                self.assertEqual(outcomes[0].host, "127.0.0.1")
            self.assertEqual(len(bad.connections) - before, expected)

    async def test_spareAlone(self) -> None:
        """One that is last for a time is still had where no other can be."""
        bad = Server()
        await self.listen(bad, "127.0.0.2", self.server.port)
        spare = Target("127.0.0.2", self.server.port, "off")
        hop = self.destination(spares=(spare,), backoff=Seconds(60.0), host="127.0.0.1")
        self.server.greeting = "421 4.3.2 not now"
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        hop._free.pop().quit()
        bad.greeting, self.server.greeting = "421 4.3.2 not now", "220 here"
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")

    async def test_badNameAmongOthers(self) -> None:
        """A name that no certificate can bear does not keep us from the other hosts."""
        self.server.context = self.context()
        good = Target("localhost", self.server.port, "starttls")
        bad = Target("x" * 70 + ".example", self.server.port, "starttls")
        for first, spare in ((bad, good), (good, bad)):
            hop = self.destination(host=first.host, tls="starttls", spares=(spare,))
            self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")

    async def test_requireTLSLater(self) -> None:
        """REQUIRETLS is given up where no host offers TLS, and not while one of them is away."""
        port, message = self.server.port, outgoing(requireTLS=True)
        for first, second, expected in (
            ("127.0.0.2", "127.0.0.1", "delayed"),
            ("127.0.0.1", "127.0.0.2", "delayed"),
            ("127.0.0.1", "127.0.0.1", "failed"),
        ):
            spares = (Target(second, port, "starttls"),)
            hop = self.destination(host=first, tls="starttls", spares=spares, requireTLS=True)
            self.assertEqual(result(await send(hop, message))[0], expected, (first, second))

    async def test_unfit(self) -> None:
        """A host that cannot take a message is passed over, and where one is away it may wait."""
        await self.listen(less := Server(), "127.0.0.2", self.server.port)
        less.extensions = ("PIPELINING",)
        first = Exchanger("a.example", ("127.0.0.2",))
        hop = self.hop([first, Exchanger("b.example", ("127.0.0.1",))])
        for message in (outgoing(), outgoing(eightBit=True), outgoing(eightBit=True)):
            self.assertEqual(result(await send(hop, message))[0], "delivered")
        self.assertEqual((less.messages, self.server.messages), (1, 2))
        hop = self.hop([first])
        self.assertEqual(result(await send(hop, outgoing(eightBit=True))), ("failed", 554, "5.6.3"))
        away = Exchanger("c.example", ("127.0.0.3",))
        hop = self.hop([away, first], backoff=Seconds(60.0))
        self.assertEqual(
            result(await send(hop, outgoing(eightBit=True))), ("delayed", 451, "4.4.1")
        )
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")

    async def test_unfitSpare(self) -> None:
        """So is one of several that the configuration names; one alone is kept for the next one."""
        await self.listen(less := Server(), "127.0.0.2", self.server.port)
        less.extensions = ("PIPELINING",)
        message, unfit = outgoing(eightBit=True), ("failed", 554, "5.6.3")
        for hosts, expected in (
            ((2, 1), ("delivered", 250, "2.0.0")),
            ((3, 2), ("delayed", 451, "4.4.1")),
            ((2, 2), unfit),
            ((2,), unfit),
        ):
            first, *spares = [Target(f"127.0.0.{n}", self.server.port) for n in hosts]
            hop = self.destination(host=first.host, spares=tuple(spares))
            self.assertEqual(result(await send(hop, message)), expected, hosts)
        had = len(less.connections)
        self.assertEqual(result(await send(hop, message)), unfit)
        self.assertEqual(len(less.connections), had)

    async def test_unfitAddress(self) -> None:
        """Nor does it wait for another address of such a host, where that cannot be reached."""
        await self.listen(less := Server(), "127.0.0.2", self.server.port)
        less.extensions = ("PIPELINING",)
        for addresses in (("127.0.0.3", "127.0.0.2"), ("127.0.0.2", "127.0.0.3")):
            hop = self.hop([Exchanger("a.example", addresses)])
            said = result(await send(hop, outgoing(eightBit=True)))
            self.assertEqual(said, ("failed", 554, "5.6.3"), addresses)

    async def test_unfitAtKept(self) -> None:
        """What a kept connection does not take is not tried anew beside it.

        A next hop that takes one connection at once would be known as dead.
        """
        greet = Scripted.greet

        def oneAtOnce(protocol: Scripted) -> None:
            if all(each.lost for each in self.server.connections if each is not protocol):
                greet(protocol)
            else:
                protocol.send("421 4.7.0 too many connections")
                protocol.transport.loseConnection()

        self.patch(Scripted, "greet", oneAtOnce)
        self.server.extensions = ("PIPELINING",)
        hop = self.hop([Exchanger("a.example", ("127.0.0.1",))], connections=Count(1))
        for fields, expected in (({}, "delivered"), ({"eightBit": True}, "failed")) * 2:
            self.assertEqual(result(await send(hop, outgoing(**fields)))[0], expected)

    async def test_many(self) -> None:
        """However many addresses a domain names, an attempt ends some time."""
        self.server.greeting = "421 4.3.2 not now"
        hosts = [Exchanger(f"{n}.example", ("127.0.0.1",) * 4) for n in range(10)]
        self.assertEqual(result(await send(self.hop(hosts), outgoing())), ("delayed", 421, "4.3.2"))
        self.assertEqual(len(self.server.connections), relayDestinations.MAX_PLACES)

    async def test_none(self) -> None:
        """A domain without hosts is failed or delayed as DNS said."""
        for code, status, verdict in ((556, "5.1.10", "failed"), (451, "4.4.3", "delayed")):
            outcomes = await send(self.hop(NoHosts(Reply(code, status, "x"))), outgoing())
            self.assertEqual(result(outcomes), (verdict, code, status))


class MisbehavingTests(HopCase):
    """An aiosmtpd that misbehaves on demand."""

    def start(self, said: dict[str, str], tls: bool = False) -> Misbehaving:
        """Start one."""
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key)
        made = Misbehaving(said, context)
        self.addCleanup(made.stop)
        return made

    async def test_honest(self) -> None:
        """It takes a message that it is given, under TLS."""
        server = self.start({}, tls=True)
        outcomes = await send(self.destination(port=server.port, tls="starttls"), outgoing())
        self.assertEqual(result(outcomes)[0], "delivered")
        self.assertEqual(server.contents, [TEXT])

    async def test_refusals(self) -> None:
        """4yz delays and 5yz fails at each step of the transaction."""
        server = self.start({})
        for step in ("EHLO", "MAIL", "RCPT", "DATA"):
            for reply in ("451 4.3.0 not now", "554 5.7.1 never"):
                server.said = {step: reply}
                outcomes = await send(self.destination(port=server.port), outgoing())
                expected = ("failed" if reply[0] == "5" else "delayed", int(reply[:3]))
                if (step, reply[0]) == ("EHLO", "5"):
                    expected = ("delivered", 250)  # it is greeted with HELO then
                self.assertEqual(result(outcomes)[:2], expected, (step, reply))

    async def test_drops(self) -> None:
        """A dropped connection delays, at each step, and the next attempt is as good as new."""
        server = self.start({})
        for step in ("EHLO", "MAIL", "RCPT", "DATA"):
            server.said = {step: "drop"}
            hop = self.destination(port=server.port)
            self.assertEqual(result(await send(hop, outgoing()))[0], "delayed", step)
            server.said = {}
            self.assertEqual(result(await send(hop, outgoing()))[0], "delivered", step)

    async def test_slow(self) -> None:
        """A slow one is given up in time."""
        server = self.start({"RCPT": "slow"})
        hop = self.destination(port=server.port, timeouts={"envelope": Seconds(0.2)})
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 451, "4.4.2"))

    async def test_wrongCertificate(self) -> None:
        """Its certificate is not trusted by everybody."""
        server = self.start({}, tls=True)
        hop = self.destination(port=server.port, tls="starttls", trusted=False)
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 451, "4.7.5"))
        self.assertEqual(server.contents, [])


class StandingTests(HopCase):
    """What the log is told of next hops that do not take us."""

    def setUp(self) -> Any:
        seen: list[dict[str, Any]] = []
        self.seen = seen
        self.patch(events, "log", Logger(namespace="submitd", observer=seen.append))
        return super().setUp()

    def told(self) -> list[tuple[str, str]]:
        """Which events there were since the last look, and of which hosts."""
        told = [(event["event"], event["host"]) for event in self.seen]
        self.seen.clear()
        return told

    def named(self, port: int = 0) -> str:
        """What the configuration calls our server."""
        return f"localhost:{port or self.server.port}"

    async def test_login(self) -> None:
        """A login that is refused is told of once for all messages, and when it is taken again."""
        file = self.directory / "password"
        file.write_text("secret\n")
        self.server.context, self.server.extensions = self.context(), ("AUTH PLAIN",)
        self.server.answer = lambda protocol, line: (
            ["535 5.7.8 bad login"] if line.startswith("AUTH") else None
        )
        hop = self.destination(
            tls="starttls", user="u", password=Password(file), mechanisms=("PLAIN",)
        )
        for _ in range(3):
            await send(hop, outgoing())
        self.assertIn("535 5.7.8 bad login", self.seen[0]["log_text"])
        self.assertEqual(self.told(), [("next-hop-away", self.named())])
        self.server.answer = None
        await send(hop, outgoing())
        await send(hop, outgoing())
        self.assertEqual(self.told(), [("next-hop-back", self.named())])

    async def test_takesNoneOfOne(self) -> None:
        """What a host has against one sender has no other one's mail go another way."""
        await self.listen(picky := Server(), "127.0.0.2", self.server.port)
        spare = Target("127.0.0.1", self.server.port, "off")
        hop = self.destination(host="127.0.0.2", spares=(spare,), backoff=Seconds(60.0))
        picky.answer = refusingMail("451 4.1.8 domain of sender does not resolve")
        self.assertEqual(result(await send(hop, outgoing())), ("delayed", 451, "4.1.8"))
        picky.answer = None
        await send(hop, outgoing())
        self.assertEqual((picky.messages, self.server.messages, self.told()), (1, 0, []))

    async def test_wantsLogin(self) -> None:
        """A smarthost that wants a login, and is given none, bounces nobody's mail either."""
        hop = self.destination()
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        for step in ("MAIL", "RCPT"):
            self.server.answer = lambda protocol, line, step=step: (
                ["530 5.7.0 log in first"] if line.startswith(step) else None
            )
            for _ in range(2):
                self.assertEqual(
                    result(await send(hop, outgoing())), ("delayed", 530, "5.7.0"), step
                )
        self.assertEqual(self.told(), [("next-hop-away", self.named())])
        self.server.answer = None
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        self.assertEqual(self.told(), [("next-hop-back", self.named())])

    async def test_wantsLoginForSome(self) -> None:
        """Nor does one that wants it for some recipients, as those of other domains."""
        self.server.answer = lambda protocol, line: (
            ["530 5.7.0 log in first"] if "far.example" in line else None
        )
        near, far = await send(self.destination(), outgoing("a@near.example", "b@far.example"))
        self.assertEqual((near.result, far.result), (Result.DELIVERED, Result.DELAYED))
        self.assertEqual((far.reply.code, self.told()), (530, []))

    async def test_wantsLoginSpare(self) -> None:
        """Where one of several wants a login, the next one gets the mail, and the log is told."""
        await self.listen(first := Server(), "127.0.0.2", self.server.port)
        first.answer = lambda protocol, line: (
            ["530 5.7.0 log in first"] if line.startswith("MAIL") else None
        )
        spare = Target("127.0.0.1", self.server.port, "off")
        hop = self.destination(host="127.0.0.2", spares=(spare,))
        self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        self.assertEqual(self.told(), [("next-hop-away", f"127.0.0.2:{self.server.port}")])

    async def test_causes(self) -> None:
        """So are no common mechanism, a bad certificate, and nobody who listens."""
        file = self.directory / "password"
        file.write_text("secret\n")
        self.server.context = self.context()
        account = {"user": "u", "password": Password(file), "mechanisms": ("PLAIN",)}
        for said, changes in (
            ("4.7.0", account),
            ("4.7.5", {"trusted": False}),
            ("4.4.1", {"port": 1}),
        ):
            given: dict[str, Any] = {"tls": "starttls", **changes}
            await send(self.destination(**given), outgoing())
            self.assertIn(said, self.seen[0]["reply"])
            self.assertEqual(self.told(), [("next-hop-away", self.named(given.get("port", 0)))])

    async def test_fewer(self) -> None:
        """A next hop that refuses one connection while it has others is not away."""
        hop = self.destination(connections=Count(2))
        self.server.answer = lambda protocol, line: () if line == "(end)" else None
        sending = Deferred.fromCoroutine(send(hop, outgoing()))
        await self.until(lambda: b"\r\n.\r\n" in self.server.text)
        self.server.greeting = "421 4.7.0 too many connections"
        self.assertEqual(result(await send(hop, outgoing()))[0], "delayed")
        self.server.connections[0].send("250 2.0.0 taken")
        await sending
        self.assertEqual(self.told(), [])

    async def test_configuredSpare(self) -> None:
        """A host of the configuration is told of although a spare takes the mail, at once."""
        port = self.server.port
        hop = self.destination(
            host="127.0.0.2",
            spares=(Target("127.0.0.3", port, "off"), Target("127.0.0.1", port, "off")),
            messages_per_connection=Count(1),
        )
        self.server.answer = lambda protocol, line: () if line == "(end)" else None
        sending = Deferred.fromCoroutine(send(hop, outgoing()))
        await self.until(lambda: b"\r\n.\r\n" in self.server.text)
        away = [("next-hop-away", f"127.0.0.{n}:{port}") for n in (2, 3)]
        self.assertEqual(self.told(), away)
        self.server.connections[0].send("250 2.0.0 taken")
        await sending
        self.server.answer = None
        await send(hop, outgoing())
        await self.listen(Server(), "127.0.0.2", port)
        await send(hop, outgoing())
        self.assertEqual(self.told(), [("next-hop-back", f"127.0.0.2:{port}")])

    async def test_stillOpening(self) -> None:
        """One that refuses a connection while another one waits for its greeting may not be away.

        Who has tried for the longest tells of it, or nobody would where it says nothing at all.
        """
        port = self.server.port
        await self.listen(first := Server(), "127.0.0.2", port)
        greet = Scripted.greet
        self.patch(Scripted, "greet", lambda each: each.server is first or greet(each))
        hop = self.destination(host="127.0.0.2", spares=(Target("127.0.0.1", port, "off"),))
        sending = []
        for n in (1, 2, 3):
            sending.append(Deferred.fromCoroutine(send(hop, outgoing())))
            await self.until(lambda n=n: len(first.connections) == n)
        for at in (1, 2):
            first.connections[at].send("421 4.7.0 too many connections")
        await sending[1]
        await sending[2]
        self.assertEqual(self.told(), [])
        first.connections[0].transport.abortConnection()
        await sending[0]
        self.assertEqual(self.told(), [("next-hop-away", f"127.0.0.2:{port}")])

    async def test_greetsAnother(self) -> None:
        """Nor is one away that refuses a connection and has greeted a later one."""
        await self.listen(first := Server(), "127.0.0.2", self.server.port)
        first.answer = lambda protocol, line: ()
        greet = Scripted.greet
        self.patch(Scripted, "greet", lambda each: each.server is first or greet(each))
        spare = Target("127.0.0.1", self.server.port, "off")
        hop = self.destination(host="127.0.0.2", spares=(spare,))
        sending = []
        for n in (1, 2):
            sending.append(Deferred.fromCoroutine(send(hop, outgoing())))
            await self.until(lambda n=n: len(first.connections) == n)
        greet(first.connections[1])
        await self.until(lambda: len(first.heard) == 1)
        first.connections[0].send("421 4.7.0 too many connections")
        await sending[0]
        self.assertEqual(self.told(), [])
        first.connections[1].transport.abortConnection()
        await sending[1]

    async def test_spare(self) -> None:
        """A host by MX that is away is told of although a spare takes the mail; no address is."""
        exchangers: Any = Exchangers(
            [
                Exchanger("a.example", ("127.0.0.2",)),
                Exchanger("b.example", ("127.0.0.3", "127.0.0.1")),
            ]
        )
        given: dict[str, Any] = {
            "kind": "mx",
            "tls": "opportunistic",
            "exchangers": exchangers,
            "mx_port": Count(self.server.port),
            "messages_per_connection": Count(1),
        }
        hop = self.destination(**given)
        for _ in range(3):
            self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        self.assertEqual(self.told(), [("host-away", "a.example")])
        await self.listen(first := Server(), "127.0.0.2", self.server.port)
        await send(hop, outgoing())
        self.assertEqual(self.told(), [("host-back", "a.example")])
        self.assertEqual((first.messages, self.server.messages), (1, 3))
        first.answer = lambda protocol, line: ["421 4.3.2 bye"] if line.startswith("MAIL") else None
        for _ in range(2):
            self.assertEqual(result(await send(hop, outgoing()))[0], "delivered")
        self.assertEqual(self.told(), [("host-away", "a.example")])


class RouteTests(TestCase):
    """What a destination is told by its route."""

    def test_noAccount(self) -> None:
        """Without a user there is no login."""
        self.assertIsNone(Route(name="relay", kind="smarthost").account)
