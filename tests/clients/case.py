"""What the tests of all clients have in common: the service, its users, and what must hold.

One service per class of tests, started for its first test.  After every test it must still run,
have said nothing of a password and nothing that it did not expect, and have no unfinished file in
its Maildir.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import attrs
from passlib.hash import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from tests.clients.authority import Authority
from tests.clients.running import RunningService

CONFIG = """\
hostname = "submission.example.org"

[[listener]]
endpoint = "tcp:$starttls:interface=127.0.0.1"
tls = "starttls"

[[listener]]
endpoint = "tcp:$implicit:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"

[auth]
mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"]
checkers = ["htpasswd:passwd", "secrets:secrets", "tokens:tokens"]

[delivery]
use = "maildir"
path = "$directory/Maildir"
"""


@attrs.frozen
class User:
    """A user, and the password, secret or token."""

    name: str
    secret: str


ADA = User("ada@example.org", "open=sesame:42+$x")
GRACE = User("grace", "a secret, kept as it is")
LINUS = User("linus@example.org", "ya29.a0AfH6SMB-token_of~linus+/==")

USERS = {
    "PLAIN": ADA,
    "LOGIN": ADA,
    "CRAM-MD5": GRACE,
    "XOAUTH2": LINUS,
    "OAUTHBEARER": LINUS,
}
"""Who logs in by which mechanism: each from another file of the service."""

PASSWORDS = ("PLAIN", "LOGIN", "CRAM-MD5")

WRONG = "not-the-secret-of-anybody"


def _traces(user: User, secret: str) -> Iterator[str]:
    """What a secret looks like, by itself and as the mechanisms send it."""
    yield secret
    for sent in (secret, f"\0{user.name}\0{secret}", f"user={user.name}\1auth=Bearer {secret}\1\1"):
        yield base64.b64encode(sent.encode()).decode()


_SHOWN = frozenset(
    trace
    for user in USERS.values()
    for said in (user.secret, WRONG)
    for trace in _traces(user, said)
)
"""What no log may have in it."""

SENDER, RECIPIENT = "ada@example.org", "bob@example.net"
UTF8_SENDER, UTF8_RECIPIENT = "adä@example.org", "日本@bücher.example"

_KEPT = re.compile(
    rb"Return-Path: (?P<path>.*)\r\n"
    rb"(?P<to>(?:Delivered-To: .*\r\n)+)"
    rb"(?P<received>Received: .*\r\n(?:[ \t].*\r\n)*)"
)
_DELIVERED_TO = re.compile(rb"Delivered-To: (.*)\r\n")

# What the service logs when something happened that should not happen.
_UNEXPECTED = re.compile(r"Traceback|Unhandled|#error|#critical|policy failed")


@attrs.frozen
class Kept:
    """A message in the Maildir.

    :param received: the Received field of the service, without line ends.
    :param message: what stands behind it.
    """

    returnPath: str
    deliveredTo: list[str]
    received: str
    message: bytes = attrs.field(repr=False)

    @classmethod
    def read(cls, octets: bytes) -> Kept:
        """Take the service's own fields off.

        :raise ValueError: when they are not there.
        """
        match = _KEPT.match(octets)
        if match is None:
            raise ValueError(f"not what the service puts in front: {octets[:400]!r}")
        return cls(
            match["path"].decode(),
            [each.decode() for each in _DELIVERED_TO.findall(match["to"])],
            match["received"].decode().replace("\r\n\t", " "),
            octets[match.end() :],
        )


class ClientTestCase(SynchronousTestCase):
    """Tests of one client.

    :cvar program: the program they need; without it they are skipped.
    :cvar config: the service's configuration.
    """

    program: ClassVar[str] = ""
    config: ClassVar[str] = CONFIG
    _service: ClassVar[RunningService | None] = None
    _latest: ClassVar[RunningService | None] = None

    def setUp(self) -> None:
        """Have the service of this class."""
        if self.program and find(self.program) is None:
            raise SkipTest(f"{self.program} is not installed")
        self.service = self.serve()
        self.directory = self.service.directory
        self._logged = len(self.service.log)
        # trial calls tearDown behind what was added here, which may have ended the service.
        self.addCleanup(self._leave)

    def serve(self) -> RunningService:
        """The service for this test: that of its class."""
        return self._shared()

    @classmethod
    def _shared(cls) -> RunningService:
        # trial calls no setUpClass.
        if "_service" not in cls.__dict__ or cls._service is None:
            if ClientTestCase._latest is not None:
                ClientTestCase._latest.stop()
            directory = Path(tempfile.mkdtemp(prefix="service-", dir=os.getcwd()))
            cls.prepare(directory)
            cls._service = ClientTestCase._latest = RunningService(directory, cls.config).start()
        return cls._service

    @classmethod
    def prepare(cls, directory: Path) -> None:
        """Make what the service needs: users and certificates."""
        authority = Authority.make(directory, "authority")
        authority.issue(directory)
        Authority.make(directory, "stranger")
        writePrivately(
            directory / "passwd", f"{ADA.name}:{bcrypt.using(rounds=4).hash(ADA.secret)}"
        )
        writePrivately(directory / "secrets", f"{GRACE.name}:{GRACE.secret}")
        digest = hashlib.sha256(LINUS.secret.encode()).hexdigest()
        writePrivately(directory / "tokens", f"{LINUS.name}:{digest}")

    def _leave(self) -> None:
        """See that the service is as it should be."""
        self.assertTrue(self.service.isRunning, self.service.log)
        log = self.service.log
        for shown in _SHOWN:
            self.assertNotIn(shown, log)
        self.assertIsNone(_UNEXPECTED.search(log[self._logged :]), log[self._logged :])
        self.assertEqual(self.files("tmp"), [])
        for file in self.files("new"):
            file.unlink()

    @property
    def authority(self) -> str:
        """The file of the authority that has signed the service's certificate."""
        return str(self.directory / "authority.pem")

    @property
    def stranger(self) -> str:
        """The file of an authority that has not."""
        return str(self.directory / "stranger.pem")

    @property
    def logged(self) -> str:
        """What the service has said during this test."""
        return self.service.log[self._logged :]

    def files(self, folder: str) -> list[Path]:
        """The files of one folder of the Maildir."""
        path = self.service.maildir / folder
        return sorted(path.iterdir()) if path.is_dir() else []

    def file(self, octets: bytes) -> Path:
        """A file with these octets, for a program to read."""
        path = self.directory / "message"
        path.write_bytes(octets)
        return path

    def runProgram(
        self,
        *command: str,
        stdin: bytes = b"",
        environment: dict[str, str] | None = None,
        seconds: float = 60,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end, as a user who has configured nothing."""
        base = {"PATH": _PATH, "HOME": str(self.directory), "LANG": "C.UTF-8"}
        return subprocess.run(
            command,
            input=stdin,
            env={**base, **(environment or {})},
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )

    def assertSent(self, ran: subprocess.CompletedProcess[bytes]) -> None:
        """The program says that it has sent its message."""
        self.assertEqual(ran.returncode, 0, f"{_end(ran.stdout)}\n{self.logged}")

    def assertRefusedLogin(self, ran: subprocess.CompletedProcess[bytes]) -> None:
        """The program says that it has failed, and quotes 535."""
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn("535", _end(ran.stdout), self.logged)
        self.assertNoLogin()

    def assertNoLogin(self) -> None:
        """The service has refused a login, let nobody in and kept nothing."""
        self.assertIn("[submitd#warn] login failed: ", self.logged)
        self.assertNotIn("login: ", self.logged)
        self.assertEqual(self.files("new"), [])

    def assertDistrusted(self, ran: subprocess.CompletedProcess[bytes]) -> None:
        """The program has failed before it told anything."""
        self.assertNotEqual(ran.returncode, 0)
        self.assertToldNothing()

    def assertToldNothing(self) -> None:
        """Nobody has tried to log in and nothing was kept."""
        self.assertNotIn("login", self.logged)
        self.assertEqual(self.files("new"), [])

    def assertKept(
        self,
        sent: bytes,
        mechanism: str,
        sender: str = SENDER,
        recipients: Sequence[str] = (RECIPIENT,),
        protocol: str = "ESMTPSA",
    ) -> Kept:
        """One message is in the Maildir, and it is what was sent, octet by octet.

        :param mechanism: how its sender has logged in.
        :param protocol: the word of RFC 3848 or RFC 6531 in its Received field.
        """
        kept = self.kept(sender, recipients, protocol)
        self.assertLogin(mechanism)
        self.assertSame(kept.message, sent)
        return kept

    def kept(
        self, sender: str, recipients: Sequence[str], protocol: str, tls: str = "TLSv1.3)"
    ) -> Kept:
        """The one message in the Maildir, its envelope being this."""
        files = self.files("new")
        self.assertEqual(len(files), 1, self.logged)
        kept = Kept.read(files[0].read_bytes())
        self.assertEqual(kept.returnPath, f"<{sender}>")
        self.assertEqual(kept.deliveredTo, list(recipients))
        self.assertIn(f" with {protocol} ({tls} id ", kept.received)
        self.assertRegex(kept.received, r"\stls TLS_[A-Z0-9_]+;\s")
        return kept

    def assertLogin(self, mechanism: str) -> None:
        """The user of this mechanism has logged in by it, under TLS."""
        user = USERS[mechanism].name
        self.assertRegex(
            self.logged, f"login: .*user={re.escape(user)} mechanism={mechanism} secure=TLSv1"
        )

    def assertSame(self, found: bytes, sent: bytes) -> None:
        """Equal octets, or the place of the first difference."""
        if found == sent:
            return
        pairs = enumerate(zip(found, sent, strict=False))
        at = next((at for at, (one, other) in pairs if one != other), min(len(found), len(sent)))
        around = slice(max(0, at - 60), at + 60)
        self.fail(
            f"{len(found)} octets kept, {len(sent)} sent, first difference at {at}:\n"
            f"kept {found[around]!r}\nsent {sent[around]!r}"
        )


# Debian keeps the programs of administrators out of the path of others.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find(program: str) -> str | None:
    """Where a program is."""
    return shutil.which(program, path=_PATH)


def writePrivately(path: Path, line: str) -> None:
    """One line in a file that nobody else can read."""
    path.write_text(f"{line}\n", encoding="utf-8")
    path.chmod(0o600)


def _end(output: bytes) -> str:
    return output[-4000:].decode("utf-8", "replace")
