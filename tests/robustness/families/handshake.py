"""TLS where none belongs, none where TLS belongs, old versions, very many names."""

from __future__ import annotations

import shutil
import ssl
import subprocess

from tests.robustness.checks import Family, NotOffered, Talk, Wrong
from tests.robustness.families.starttls import offering
from tests.robustness.peer import HOST, WHOLE, clientContext

FAMILY = Family("TLS")

PLAINTEXT = {
    "EHLO": b"EHLO client.example\r\n",
    "HTTP": b"GET / HTTP/1.0\r\n\r\n",
    "nothing": b"",
    "zeros": bytes(1000),
    "a megabyte": b"x" * (1 << 20),
}


@FAMILY.inputs(PLAINTEXT)
def plaintextOnImplicit(talk: Talk, octets: bytes) -> None:
    """Plaintext on the port of implicit TLS: no word of SMTP, and a clean end."""
    if not talk.target.implicit:
        raise NotOffered("no port with implicit TLS")
    peer = talk.connect(talk.target.implicit)
    peer.sendAtOnce(octets)
    if octets:
        said = peer.finish()
        if said and said[0] != 0x15:
            raise Wrong(f"plaintext was answered: {said[:40]!r}")
    peer.close()
    talk.stillServes()


@FAMILY.once
def helloOnSubmission(talk: Talk) -> None:
    """A ClientHello in place of a command: refused in the clear, no handshake."""
    peer = talk.connect()
    peer.expect("220")
    context = clientContext()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        peer.sendAtOnce(outgoing.read())
    peer.sendAtOnce(b"\r\n")
    answer = peer.hear()
    if answer is not None and answer.code not in (421, 500, 501, 502):
        raise Wrong(f"a ClientHello was answered {answer}")
    peer.close()
    talk.stillServes()


VERBS = {
    "GET": b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    "POST": b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n"
    b"EHLO x\r\nMAIL FROM:<a@b>\r\n",
    "CONNECT": b"CONNECT mail.example:25 HTTP/1.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@FAMILY.inputs(VERBS)
def http(talk: Talk, octets: bytes) -> None:
    """A web browser that was led here gets nothing done: each line is refused, or the end."""
    kept = talk.keptBefore()
    peer = talk.connect()
    peer.expect("220")
    peer.send(octets)
    for _ in range(octets.count(b"\r\n")):
        answer = peer.hear()
        if answer is None or answer.code == 421:
            break
        if answer.code == 354:
            raise Wrong("a web page can send a message")
    if kept() not in (-1, 0):
        raise Wrong("a message was kept")


OLD = {"TLS 1.0": b"TLSv1", "TLS 1.1": b"TLSv1_1"}


@FAMILY.inputs(OLD, ways=(WHOLE,))
def oldVersion(talk: Talk, version: bytes) -> None:
    """TLS 1.0 and 1.1 are not spoken (RFC 8996)."""
    peer = offering(talk)
    peer.say(b"STARTTLS", "220")
    spoken = ssl.TLSVersion[version.decode()]
    try:
        peer.handshake(clientContext(spoken, spoken))
    except Wrong:
        talk.stillServes()
        return
    raise Wrong(f"{peer.cipherVersion} was spoken")


@FAMILY.check
def goodVersions(talk: Talk) -> None:
    """TLS 1.2 and 1.3 are spoken."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        peer = offering(talk)
        peer.say(b"STARTTLS", "220")
        peer.handshake(clientContext(version, version))
        peer.inStep()


@FAMILY.once
def manyNames(talk: Talk) -> None:
    """A thousand names asked for by SNI: all get an answer, and memory stays flat."""
    offering(talk)
    before = 0
    for number in range(1000 if talk.target.implicit else 100):
        if number == 100:
            before = talk.target.memory
        peer = talk.connect(talk.target.implicit or talk.target.port)
        if not talk.target.implicit:
            peer.expect("220")
            peer.say(b"EHLO x", "250")
            peer.say(b"STARTTLS", "220")
        name = "a" * (number % 60 + 1) + f".{number}.example"
        peer.handshake(name=name)
        peer.close()
    if talk.target.memory - before > 20_000:
        raise Wrong(f"{talk.target.memory - before} KiB more")


@FAMILY.once
def renegotiation(talk: Talk) -> None:
    """A client cannot have the handshake done again and again."""
    if not talk.target.implicit or shutil.which("openssl") is None:
        raise NotOffered("no port with implicit TLS, or no openssl to ask it with")
    command = ["openssl", "s_client", "-tls1_2", "-quiet"]
    ran = subprocess.run(
        [*command[:-1], "-connect", f"{HOST}:{talk.target.implicit}"],
        input=b"EHLO x\nR\nEHLO x\nQUIT\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=20,
        check=False,
    )
    told = ran.stdout
    if b"RENEGOTIATING" in told and b"verify return" in told.partition(b"RENEGOTIATING")[2]:
        raise Wrong("renegotiated")
    talk.stillServes()


@FAMILY.once
def truncated(talk: Talk) -> None:
    """The end of a connection without close_notify, within a message, keeps nothing."""
    kept = talk.keptBefore()
    for leave in ("close", "reset"):
        peer = talk.data()
        peer.send(talk.header + b"half a mess")
        getattr(peer, leave)()
    talk.stillServes()
    if kept() not in (-1, 1):
        raise Wrong("half a message was kept")
