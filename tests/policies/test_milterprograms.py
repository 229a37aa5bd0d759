"""Policy ``milter`` with real filters from Debian: OpenDKIM and rspamd, over real sockets.

Each is started for the test, on a unix socket or a port of the kernel's choice, in a directory of
its own, and ended by its process id.  Neither asks anybody else: there is no DNS server.
"""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from submitd.policies.milter import Milter
from tests.fixtures import Conversation, makeSubmission
from tests.policies.filters import CONTINUE, FakeFilter, Script, changeHeader, replaceBody
from tests.running import freePorts

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"
HEADER = (
    "From: Alice <alice@a.example>\r\nTo: bob@b.example\r\nSubject:  two spaces,\r\n\tfolded\r\n"
    "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <1@a.example>\r\n\r\n"
)
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"

OPENDKIM = """
Syslog no
Background no
UserID {user}
RequireSafeKeys no
Mode s
Domain a.example
Selector s1
KeyFile {directory}/key.pem
Canonicalization {canonicalization}
InternalHosts 192.0.2.0/24
Socket {socket}
"""

RSPAMD = """
options {{
  pidfile = "{directory}/pid";
  tempdir = "{directory}";
  cache_file = "{directory}/symbols.cache";
  hs_cache_dir = "{directory}/";
  url_tld = "{directory}/tld";
  control_socket = "{directory}/control mode=0600";
  filters = "";
  local_addrs = [];
  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "warning"; }}
modules {{ path = "/usr/share/rspamd/plugins/milter_headers.lua"; }}
milter_headers {{ use = ["x-spam-status"]; skip_local = false; }}
actions {{ reject = 15; add_header = 6; }}
worker "rspamd_proxy" {{
  bind_socket = "{socket}";
  milter = yes;
  timeout = 30s;
  count = 1;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
"""


class Program:
    """A filter in a process of its own.

    :param name: the program.
    :param port: where it listens, on loopback; 0 for a unix socket.
    """

    def __init__(self, name: str, port: int = 0) -> None:
        program = shutil.which(name, path=PATH)
        if program is None:
            raise SkipTest(f"{name} is not installed")
        self.program = program
        self.port = port
        # Not in trial's directory: the path of a socket has about 100 octets at most.
        self.directory = Path(tempfile.mkdtemp(prefix="submitd-filter-"))
        self.socket = self.directory / "socket"
        self.endpoint = f"inet:127.0.0.1:{port}" if port else f"unix:{self.socket}"

    def start(self, *arguments: str) -> None:
        """Start it, and wait until it listens."""
        with open(self.directory / "output", "wb") as output:
            self.child = subprocess.Popen(
                [self.program, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + 60
        while not self._listens():
            if time.monotonic() > until or self.child.poll() is not None:
                raise AssertionError((self.directory / "output").read_text())
            time.sleep(0.05)

    def _listens(self) -> bool:
        family = socket.AF_INET if self.port else socket.AF_UNIX
        where: Any = ("127.0.0.1", self.port) if self.port else str(self.socket)
        with socket.socket(family) as probe:
            try:
                probe.connect(where)
            except OSError:
                return False
        return True

    def remove(self) -> None:
        """End it, and leave nothing."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(20)
        shutil.rmtree(self.directory)


class ProgramsCase(TestCase):
    """Messages past a real filter."""

    timeout = 120

    def makePolicy(self, endpoint: str, **keys: Any) -> None:
        """A submission that asks the filter."""
        self.policy = Milter(endpoint, **keys)
        self.policy.start(reactor)
        self.addCleanup(self.policy.stop)
        self.submission = makeSubmission(
            reactor,  # type: ignore[arg-type]
            policies=[self.policy],
            loginRequired=False,
            requireTLS=False,
        )

    async def say(self, talk: Conversation, line: str) -> str:
        """Say something and wait for the reply."""
        said = talk.say(*line.split("\r\n"))
        for _ in range(3000):
            if said:
                break
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            said = talk.say()
        return said

    async def send(self, message: str) -> str:
        """One message over a connection of its own; the last reply."""
        talk = Conversation(self.submission)
        while not talk.transport.value():
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        talk.transport.clear()
        said = ""
        for line in (
            "EHLO client.example",
            "MAIL FROM:<alice@a.example>",
            "RCPT TO:<bob@b.example>",
            "DATA",
            message + ".",
        ):
            said = await self.say(talk, line)
            self.assertIn(said[:1], "235")
        talk.lose()
        return said

    @property
    def kept(self) -> bytes:
        """The last message that was kept."""
        delivery: Any = self.submission.delivery
        octets: bytes = delivery.messages[-1].octets
        return octets


class OpenDKIMTests(ProgramsCase):
    """OpenDKIM signs."""

    def begin(self, canonicalization: str, port: int = 0) -> None:
        """Start it with a key of its own."""
        filter_ = Program("opendkim", port)
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (filter_.directory / "key.pem").write_bytes(pem)
        self.public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        where = f"inet:{port}@127.0.0.1" if port else f"local:{filter_.socket}"
        config = filter_.directory / "opendkim.conf"
        config.write_text(
            OPENDKIM.format(
                user=pwd.getpwuid(os.geteuid()).pw_name,
                directory=filter_.directory,
                canonicalization=canonicalization,
                socket=where,
            )
        )
        filter_.start("-f", "-x", str(config))
        self.addCleanup(filter_.remove)
        self.filter = filter_
        self.makePolicy(filter_.endpoint, quarantine=False)

    def isSigned(self) -> bool:
        """Whether a verifier agrees to the signature of the message that was kept."""
        record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(self.public)
        good: bool = dkim.verify(self.kept, dnsfunc=lambda name, timeout=5: record)
        return good

    async def check(self) -> None:
        """Three clients, one after the other: each message is signed, the header to the octet."""
        for body in ("hello\r\n", "", ".." + "x" * 70 + "\r\n" + ("y" * 200 + "\r\n\r\n") * 1000):
            self.assertEqual((await self.send(HEADER + body))[:3], "250")
            self.assertIn(b"DKIM-Signature: v=1; a=rsa-sha256;", self.kept)
            self.assertTrue(self.isSigned())
            self.assertIn(HEADER.encode(), self.kept)

    def test_simple(self) -> Deferred[None]:
        """Signed with simple canonicalization, in which each octet counts."""
        self.begin("simple/simple")
        return Deferred.fromCoroutine(self.check())

    def test_relaxed(self) -> Deferred[None]:
        """The same over TCP, relaxed."""
        self.begin("relaxed/relaxed", freePorts(1)[0])
        return Deferred.fromCoroutine(self.check())

    def test_behind(self) -> Deferred[None]:
        """Behind a filter that changes the message, what is signed is what goes on."""
        self.begin("simple/simple")
        changes = changeHeader(1, "Subject", "changed") + replaceBody(b"another\n")
        script = Script({b"E": changes + CONTINUE})
        factory = Factory.forProtocol(lambda: FakeFilter(script))
        factory.noisy = False
        reactor_: Any = reactor
        port = reactor_.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        first = Milter(f"tcp:127.0.0.1:{port.getHost().port}")
        first.start(reactor)
        self.submission = attrs.evolve(self.submission, policies=[first, self.policy])

        async def check() -> None:
            self.assertEqual((await self.send(HEADER + "hello\r\n"))[:3], "250")
            self.assertIn(b"\r\nSubject: changed\r\n", self.kept)
            self.assertTrue(self.kept.endswith(b"\r\n\r\nanother\r\n"))
            self.assertTrue(self.isSigned())
            await first.stop()
            while script.open:
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]

        return Deferred.fromCoroutine(check())

    def test_killed(self) -> Deferred[None]:
        """A filter that is killed between two messages: the next one is for later."""
        self.begin("simple/simple")

        async def check() -> None:
            self.assertEqual((await self.send(HEADER))[:3], "250")
            talk = Conversation(self.submission)
            self.assertIn("250", await self.say(talk, "HELO client.example"))
            self.filter.child.kill()
            self.filter.child.wait(20)
            said = await self.say(talk, "MAIL FROM:<alice@a.example>")
            self.assertEqual(said, "451 4.7.1 A filter does not answer, try again later")
            talk.lose()

        return Deferred.fromCoroutine(check())


class RspamdTests(ProgramsCase):
    """rspamd judges."""

    def test_judges(self) -> Deferred[None]:
        """GTUBE is refused in rspamd's words; what is no spam passes with a field added."""
        filter_ = Program("rspamd")
        (filter_.directory / "tld").write_text("example\n")
        config = filter_.directory / "rspamd.conf"
        where = f"{filter_.socket} mode=0600"
        config.write_text(RSPAMD.format(directory=filter_.directory, socket=where))
        arguments = ["-f", "-c", str(config)]
        if os.geteuid() == 0:
            arguments += ["-i", "-u", "root", "-g", "root"]
        filter_.start(*arguments)
        self.addCleanup(filter_.remove)
        self.makePolicy(filter_.endpoint)

        async def check() -> None:
            for _ in range(3):
                self.assertEqual((await self.send(HEADER + "hello\r\n"))[:3], "250")
                self.assertIn(b"\r\nX-Spam-Status: No, score=0.00\r\n\r\nhello\r\n", self.kept)
                said = await self.send(HEADER + GTUBE)
                self.assertEqual(said, "554 5.7.1 Gtube pattern")
            delivery: Any = self.submission.delivery
            self.assertEqual(len(delivery.messages), 3)

        return Deferred.fromCoroutine(check())
