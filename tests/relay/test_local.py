"""Maildirs as a next hop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from submitd.deliveries.maildir import Maildir
from submitd.relay.destinations import Destinations, Means
from submitd.relay.local import LocalHop, maildirOf
from submitd.relay.routes import Route
from submitd.turns import Turns
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import STORAGE_FULL
from tests.relay.hops import outgoing


class Body:
    """A message of two chunks."""

    def __init__(self) -> None:
        self.chunks = [b"Subject: x\r\n\r\n", b"hello\r\n"]

    def next(self) -> Deferred[bytes]:
        return succeed(self.chunks.pop(0) if self.chunks else b"")


class LocalTests(SynchronousTestCase):
    """One file for each recipient."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        (self.root / "example.net" / "you").mkdir(parents=True)
        self.hop = LocalHop(f"{self.root}/{{domain}}/{{local}}/Maildir", Turns(1), maybeDeferred)

    def deliver(self, *addresses: str) -> list[tuple[str, int]]:
        """Deliver a message; verdicts and codes."""
        delivering = Deferred.fromCoroutine(self.hop.deliver(outgoing(*addresses), Body))
        outcomes = self.successResultOf(delivering)
        self.successResultOf(Deferred.fromCoroutine(self.hop.close()))
        return [(each.result.value, each.reply.code) for each in outcomes]

    def test_delivered(self) -> None:
        """What is known gets it, with its envelope; what is not is unknown."""
        self.assertEqual(
            self.deliver("You+tag@example.NET", "who@example.net"),
            [("delivered", 250), ("failed", 550)],
        )
        [file] = (self.root / "example.net" / "you" / "Maildir" / "new").iterdir()
        self.assertEqual(
            file.read_bytes(),
            b"Return-Path: <me@example.org>\r\nDelivered-To: You+tag@example.NET\r\n"
            b"Subject: x\r\n\r\nhello\r\n",
        )
        self.deliver("you@example.net")
        self.assertEqual(len(list(file.parent.iterdir())), 2)

    def test_paths(self) -> None:
        """No address leads anywhere else."""
        for address in ('"../x"@example.net', ".x@example.net", '"a/b"@example.net', "ö@b.example"):
            try:
                mailbox = Mailbox.parse(address.encode())
            except Refused:
                continue
            self.assertIsNone(maildirOf("/{domain}/{local}", mailbox), address)
        self.assertIsNone(maildirOf("/{domain}/{local}", Mailbox("..", "example.net")))
        self.assertIsNone(maildirOf("/{domain}/{local}", Mailbox("x", "[192.0.2.1]")))

    def test_failures(self) -> None:
        """A full disk delays, and so does whatever else goes wrong."""

        def full(maildir: Any, session: Any, envelope: Any) -> Any:
            return Failing(Refused(STORAGE_FULL))

        def broken(maildir: Any, session: Any, envelope: Any) -> Any:
            return Failing(RuntimeError("bug"))

        class Failing:
            def __init__(self, error: Exception) -> None:
                self.error = error

            def dataReceived(self, chunk: bytes) -> Deferred[None]:
                return succeed(None)

            def eomReceived(self) -> Any:
                raise self.error

            def connectionLost(self) -> None:
                pass

        self.patch(Maildir, "begin", full)
        self.assertEqual(self.deliver("you@example.net"), [("delayed", 452)])
        self.patch(Maildir, "begin", broken)
        self.assertEqual(self.deliver("you@example.net"), [("delayed", 451)])


class DestinationsTests(SynchronousTestCase):
    """The same next hop each time."""

    def test_find(self) -> None:
        """By route, by domain for mx, and apart for REQUIRETLS; those that are idle go."""
        means: Any = Means(
            reactor=None,
            hostname="x",
            settings=type("S", (), {"connections": 1}),  # type: ignore[arg-type]
            tls=None,  # type: ignore[arg-type]
            exchangers=None,  # type: ignore[arg-type]
        )
        destinations = Destinations(means)
        self.patch(__import__("submitd.relay.destinations", fromlist=["x"]), "MAX_IDLE", 4)
        smarthost = Route(name="relay", kind="smarthost", host="a", port=1)
        byMX = Route(name="route[0]", kind="mx")
        local = Route(name="route[1]", kind="maildir", host="/x")
        one = destinations.find(smarthost, "a.example", False)
        self.assertEqual(one, destinations.find(smarthost, "b.example", False))
        self.assertNotEqual(one, destinations.find(smarthost, "a.example", True))
        self.assertIsInstance(destinations.find(local, "a.example", False)[1], LocalHop)
        self.assertNotEqual(
            destinations.find(byMX, "a.example", False), destinations.find(byMX, "b.example", False)
        )
        self.assertLess(len(destinations._hops), 5)
        self.successResultOf(Deferred.fromCoroutine(destinations.close()))
