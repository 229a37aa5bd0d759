"""Next hops without a socket, and messages for them."""

from __future__ import annotations

from typing import Any

from submitd.envelope import Recipient
from submitd.relay.client import Client, Profile
from submitd.relay.outgoing import Outcome, Outgoing
from submitd.relay.states import BodyWanted, Done, Ended, Event, Ready
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath

TEXT = b"Subject: x\r\n\r\n.a line\r\nthe end\r\n"
EVERYTHING = "PIPELINING,8BITMIME,SMTPUTF8,SIZE 1000,DSN,CHUNKING,BINARYMIME,MT-PRIORITY"


def recipient(address: str, **fields: Any) -> Recipient:
    """A recipient, with what RCPT said beside its address."""
    return Recipient(Mailbox.parse(address.encode("utf-8")), **fields)


def outgoing(
    *addresses: str | Recipient, sender: str = "me@example.org", **fields: Any
) -> Outgoing:
    """A message to some addresses, ``you@example.net`` at least."""
    recipients = [
        recipient(each) if isinstance(each, str) else each
        for each in addresses or ("you@example.net",)
    ]
    path = ReversePath(Mailbox.parse(sender.encode("utf-8"))) if sender else NULL_PATH
    given: dict[str, Any] = {"id": "M1", "reversePath": path, "recipients": tuple(recipients)}
    return Outgoing(**{**given, **fields})


class Hop:
    """A client, and the lines of a next hop that a test says.

    :ivar heard: the commands that came out, since they were looked at last.
    :ivar events: the events that came out, without those for the body.
    """

    def __init__(self, **profile: Any) -> None:
        self.client = Client(Profile(**{"hostname": "relay.example", **profile}))
        self.events: list[Event] = []
        self.body: list[bytes] = []
        self.client.connectionMade()

    def say(self, *lines: str) -> str:
        """Say lines, and give what the client answers."""
        return self.send("".join(f"{line}\r\n" for line in lines).encode("utf-8"))

    def send(self, data: bytes) -> str:
        """Say octets, and give what the client answers."""
        self.client.dataReceived(data)
        return self.heard()

    def heard(self) -> str:
        """What the client says now; the message is given to it as it asks for it."""
        output = self.client.takeOutput()
        for event in self.client.takeEvents():
            if isinstance(event, BodyWanted):
                if self.body:
                    self.client.body(self.body.pop(0))
                else:
                    self.client.bodyEnded()
                output += self.heard().encode("latin-1")
            else:
                self.events.append(event)
        return output.decode("latin-1")

    def greet(self, extensions: str = EVERYTHING) -> Hop:
        """Greeting and EHLO, until it is ready."""
        self.say("220 hop.example ESMTP")
        said = self.say(*ehlo(extensions))
        assert any(isinstance(event, Ready) for event in self.events), (said, self.events)
        return self

    def offer(self, message: Outgoing, *chunks: bytes) -> str:
        """Send a message, and give what the client says first."""
        self.body = list(chunks or (TEXT,))
        self.client.send(message)
        return self.heard()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Those of the last message."""
        return [event for event in self.events if isinstance(event, Done)][-1].outcomes

    @property
    def results(self) -> list[tuple[str, int]]:
        """Verdict and code for each recipient of the last message."""
        return [(each.result.value, each.reply.code) for each in self.outcomes]

    @property
    def ended(self) -> Ended | None:
        """How the session ended, if it did."""
        found = [event for event in self.events if isinstance(event, Ended)]
        return found[0] if found else None


def ehlo(extensions: str) -> list[str]:
    """The answer to EHLO."""
    lines = ["hop.example", *filter(None, extensions.split(","))]
    return [f"250{' ' if at == len(lines) - 1 else '-'}{line}" for at, line in enumerate(lines)]
