"""Checks: what a server must answer to malformed, unusual and heavy input, in families.

A check is a function of a :class:`Talk`, which opens connections to a :class:`Target` by one of the
ways of peer.py.  Its docstring is the promise.  It returns, or raises :class:`Wrong` (the answer is
not right) or :class:`NotOffered` (there is nothing to check).  A check is about any server; what
only a server of ours lets be seen (messages kept, memory) is looked at where the target shows it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from tests.robustness.peer import WAYS, WHOLE, NotOffered, Peer, Way, Wrong, plain

__all__ = ["Check", "Family", "NotOffered", "Talk", "Target", "Wrong"]

Run = Callable[["Talk"], None]


@attrs.frozen(kw_only=True)
class Target:
    """A server on 127.0.0.1.

    :param port: where the dialogue begins in the clear.
    :param implicit: where it begins with TLS; 0 for none.
    :param user: who may log in; empty where messages are taken without a login.
    :param kept: how many messages it has kept so far, where that can be seen.
    :param pid: its process, whose memory is looked at; 0 for none.
    :param trusting: its port that believes XCLIENT and XFORWARD from here; 0 for none.
    :param proxied: its port that wants a PROXY header from here; 0 for none.
    """

    port: int
    implicit: int = 0
    user: str = ""
    password: str = ""
    sender: str = "ada@example.org"
    recipient: str = "bob@example.net"
    kept: Callable[[], int] | None = None
    pid: int = 0
    trusting: int = 0
    proxied: int = 0

    @property
    def memory(self) -> int:
        """Resident memory in KiB; 0 where it cannot be seen."""
        if self.pid:
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        return 0

    @property
    def processorTime(self) -> float:
        """Seconds of processor time used so far; 0 where it cannot be seen."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


class Talk:
    """What one check does with one target by one way; it ends all its connections."""

    def __init__(self, target: Target, way: Way = WHOLE) -> None:
        self.target = target
        self.way = way
        self._peers: list[Peer] = []

    def connect(self, port: int = 0) -> Peer:
        """A connection, nothing said and nothing heard."""
        peer = Peer(port or self.target.port, self.way)
        self._peers.append(peer)
        return peer

    def clear(self, port: int = 0) -> Peer:
        """A connection in the clear, behind EHLO."""
        peer = self.connect(port)
        peer.expect("220")
        peer.say(b"EHLO client.example", "250")
        return peer

    def hello(self, port: int = 0) -> Peer:
        """A connection behind EHLO, under TLS where the server has it."""
        peer = self.connect(port)
        peer.expect("220")
        answer = peer.say(b"EHLO client.example", "250")
        if "STARTTLS" in (line.upper() for line in answer.lines):
            peer.say(b"STARTTLS", "220")
            peer.handshake()
            peer.say(b"EHLO client.example", "250")
        return peer

    def secure(self) -> Peer:
        """A connection that begins with TLS, behind EHLO.

        :raise NotOffered: when there is no such port.
        """
        peer = self.beginSecure()
        peer.expect("220")
        peer.say(b"EHLO client.example", "250")
        return peer

    def beginSecure(self) -> Peer:
        """A connection that begins with TLS, nothing said and nothing heard.

        :raise NotOffered: when there is no such port.
        """
        if not self.target.implicit:
            raise NotOffered("no port with implicit TLS")
        peer = self.connect(self.target.implicit)
        peer.handshake()
        return peer

    def ready(self, port: int = 0) -> Peer:
        """A connection that may send a message.

        :raise NotOffered: when that takes a login, and there is none.
        """
        peer = self.hello(port)
        if self.target.user:
            peer.say(b"AUTH PLAIN " + plain(self.target.user, self.target.password), "235")
        elif peer.say(b"MAIL FROM:<%b>" % self.target.sender.encode(), "250", "530").code == 530:
            raise NotOffered("it wants a login: --user and --password")
        else:
            peer.say(b"RSET", "250")
        return peer

    def transaction(self, peer: Peer | None = None, parameters: bytes = b"") -> Peer:
        """A connection with a sender and a recipient."""
        peer = peer or self.ready()
        peer.say(b"MAIL FROM:<%b>%b" % (self.target.sender.encode(), parameters), "250")
        peer.say(b"RCPT TO:<%b>" % self.target.recipient.encode(), "250")
        return peer

    def data(self) -> Peer:
        """A connection within DATA."""
        peer = self.transaction()
        peer.say(b"DATA", "354")
        return peer

    def offers(self, keyword: str) -> Peer:
        """A connection that may send a message.

        :raise NotOffered: when EHLO does not show the keyword.
        """
        peer = self.ready()
        shown = peer.say(b"EHLO client.example", "250").lines
        if keyword not in (line.partition(" ")[0].upper() for line in shown):
            raise NotOffered(f"no {keyword}")
        return peer

    @property
    def header(self) -> bytes:
        """The header of a message that nothing is wrong with."""
        return b"From: <%b>\r\nSubject: x\r\n\r\n" % self.target.sender.encode()

    def keptBefore(self) -> Callable[[], int]:
        """A function that tells how many messages were kept since; -1 where it cannot be seen."""
        count = self.target.kept
        if count is None:
            return lambda: -1
        before = count()
        return lambda: count() - before

    def stillServes(self) -> None:
        """Another client sends a message."""
        other = Talk(self.target)
        try:
            peer = other.data()
            peer.say(self.header + b"another client\r\n.", "250")
            peer.inStep()
        finally:
            other.close()

    def close(self) -> None:
        """End all connections."""
        for peer in self._peers:
            peer.close()


@attrs.frozen
class Check:
    """One check.

    :param ways: how it is run.
    """

    name: str
    promise: str
    run: Run
    ways: Sequence[Way] = WAYS

    def __call__(self, target: Target, way: Way = WHOLE) -> None:
        """Run it once.

        :raise Wrong: when the server's answer is not right.
        :raise NotOffered: when there is nothing to check.
        """
        talk = Talk(target, way)
        try:
            self.run(talk)
        finally:
            talk.close()


@attrs.frozen
class Family:
    """Checks of one kind of input."""

    name: str
    checks: list[Check] = attrs.field(factory=list)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def check(self, run: Run) -> Run:
        """Decorate a function that is a check, by every way."""
        self._add(run.__name__, run, WAYS)
        return run

    def once(self, run: Run) -> Run:
        """Decorate a function that is a check, run once: what it sends has a cut of its own."""
        self._add(run.__name__, run, (WHOLE,))
        return run

    def inputs(
        self, inputs: Mapping[str, bytes], ways: Sequence[Way] = WAYS
    ) -> Callable[[Callable[[Talk, bytes], None]], Callable[[Talk, bytes], None]]:
        """Decorate a function of a talk and an input: one check for each input, by its name."""

        def decorate(run: Callable[[Talk, bytes], None]) -> Callable[[Talk, bytes], None]:
            for name, octets in inputs.items():
                self._add(
                    f"{run.__name__}: {name}", functools.partial(_given, run, octets), ways, run
                )
            return run

        return decorate

    def _add(
        self, name: str, run: Run, ways: Sequence[Way], told: Callable[..., None] | None = None
    ) -> None:
        promise = ((told or run).__doc__ or "").strip()
        assert promise, f"{name} promises nothing"
        self.checks.append(Check(name, promise, run, ways))


def _given(run: Callable[[Talk, bytes], None], octets: bytes, talk: Talk) -> None:
    run(talk, octets)
