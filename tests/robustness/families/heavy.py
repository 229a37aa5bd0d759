"""Very much of everything: memory and work stay bounded, and other clients are served."""

from __future__ import annotations

import time

from tests.robustness.checks import Family, Talk, Wrong

FAMILY = Family("heavy input")

ALLOWED = 40_000
"""KiB by which the server's memory may grow in one check."""


def bounded(talk: Talk, before: int, seconds: float, began: float) -> None:
    """Other clients are served, and neither memory nor processor time has run away."""
    talk.stillServes()
    if talk.target.memory - before > ALLOWED:
        raise Wrong(f"{talk.target.memory - before} KiB more")
    used = talk.target.processorTime - began
    if used > seconds:
        raise Wrong(f"{used:.1f} s of processor time")


@FAMILY.once
def endlessCommand(talk: Talk) -> None:
    """64 MB of a command without an end are not kept."""
    before, began = talk.target.memory, talk.target.processorTime
    peer = talk.hello()
    for _ in range(64):
        peer.send(b"x" * (1 << 20))
        if peer.gone:
            break
    if not peer.gone:
        peer.send(b"\r\n").expect("500", "421")
    bounded(talk, before, 20, began)


@FAMILY.once
def endlessLine(talk: Talk) -> None:
    """16 MB of a line within a message are passed on or refused, not kept in memory."""
    before, began = talk.target.memory, talk.target.processorTime
    peer = talk.data()
    for _ in range(16):
        peer.send(b"x" * (1 << 20))
    peer.send(b"\r\n.\r\n").expect("250", "5")
    peer.inStep()
    bounded(talk, before, 20, began)


@FAMILY.once
def manyHeaderLines(talk: Talk) -> None:
    """100,000 header fields are one message or one refusal."""
    before, began = talk.target.memory, talk.target.processorTime
    peer = talk.data()
    peer.send(b"".join(b"X-%d: y\r\n" % number for number in range(100_000)))
    peer.send(b"\r\ntext\r\n.\r\n").expect("250", "5")
    peer.inStep()
    bounded(talk, before, 20, began)


@FAMILY.once
def manyRecipients(talk: Talk) -> None:
    """100,000 recipients: from some number on 4yz or 5yz, and in the end the connection's."""
    before, began = talk.target.memory, talk.target.processorTime
    peer = talk.transaction()
    taken = 0
    for batch in range(100):
        peer.send(b"".join(b"RCPT TO:<r%d.%d@example.net>\r\n" % (batch, n) for n in range(1000)))
        while taken < (batch + 1) * 1000 and (answer := peer.hear()) is not None:
            taken += 1
            if answer.code == 421:
                bounded(talk, before, 60, began)
                return
            if answer.code == 250 and taken > 50_000:
                raise Wrong("more than 50,000 recipients were taken")
    raise Wrong("100,000 recipients were answered one by one")


@FAMILY.once
def manyNoops(talk: Talk) -> None:
    """100,000 pipelined commands have 100,000 replies in bounded memory, or an end."""
    before, began = talk.target.memory, talk.target.processorTime
    peer = talk.ready()
    peer.send(b"NOOP\r\n" * 100_000)
    for _ in range(100_000):
        answer = peer.hear()
        if answer is None or answer.code == 421:
            break
        assert answer.code == 250
    else:
        peer.inStep()
    bounded(talk, before, 60, began)


@FAMILY.once
def repliesNotRead(talk: Talk) -> None:
    """A client that sends and never reads is held back: its replies do not pile up in memory."""
    before, began = talk.target.memory, talk.target.processorTime
    peer = talk.ready()
    sent = peer.sendUntilHeld(b"NOOP\r\n" * 2_000, 40_000_000)
    if sent >= 40_000_000:
        raise Wrong("40 MB of commands were taken from a client that reads nothing")
    bounded(talk, before, 60, began)


@FAMILY.once
def idle(talk: Talk) -> None:
    """Idle connections, as many as one address may have, keep nobody else out."""
    before, began = talk.target.memory, talk.target.processorTime
    for _ in range(30):
        talk.connect().expect("220")
    bounded(talk, before, 20, began)


@FAMILY.once
def slow(talk: Talk) -> None:
    """Clients that send an octet now and then, and wait within a message, keep nobody waiting."""
    before, began = talk.target.memory, talk.target.processorTime
    peers = [talk.data() for _ in range(5)]
    for octet in talk.header + b"text\r\n.\r\n":
        for peer in peers:
            peer.send(bytes([octet]))
        time.sleep(0.01)
    for peer in peers:
        peer.expect("250")
        peer.inStep()
    bounded(talk, before, 20, began)


@FAMILY.once
def hurried(talk: Talk) -> None:
    """300 connections that are opened and left at once, by turns, are no harm to others."""
    before, began = talk.target.memory, talk.target.processorTime
    for number in range(300):
        peer = talk.connect()
        if number % 3 == 1:
            peer.send(b"EHLO x\r\nSTARTTLS\r\n")
        if number % 2:
            peer.reset()
        else:
            peer.close()
    # It may take them all before it sees that they are gone, and they count until then.
    until = time.monotonic() + 10
    while talk.connect().expect("220", "421").code == 421 and time.monotonic() < until:
        time.sleep(0.05)
    bounded(talk, before, 20, began)
