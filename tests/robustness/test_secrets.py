"""Nothing that a service writes has a credential or a word of a message in it, and nobody else
can read what it creates.

A service is driven through everything that handles secrets, good and bad; then every file of its
directory is searched, but for those that are to have them: the users' files and the messages.
"""

from __future__ import annotations

import base64
import hmac
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.case import ADA, GRACE, LINUS, USERS, WRONG
from tests.robustness.checks import Talk
from tests.robustness.faulty import STAGES, STEPS
from tests.robustness.peer import Peer, plain
from tests.robustness.service import Robust
from tests.robustness.test_failures import FAULTY

BODY = "The meeting is at the old mill"
GUESS = "AlphabeticGuessOfAPassword"
"""In base64 it has letters alone at its beginning: it looks like a verb."""

KEPT = ("passwd", "secrets", "tokens", "Maildir", "authority.pem", "stranger.pem")
"""Files and directories that are to have secrets or messages, or are public."""

SPOOLED = """\
hostname = "submission.example.org"

[[listener]]
endpoint = "tcp:$starttls:interface=127.0.0.1"

[[listener]]
endpoint = "tcp:$implicit:interface=127.0.0.1"
tls = "implicit"

[[listener]]
endpoint = "tcp:$proxied:interface=127.0.0.1"

[[listener]]
endpoint = "tcp:$trusting:interface=127.0.0.1"

[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"

[auth]
checkers = ["htpasswd:passwd"]

[delivery]
use = "spool"
path = "$directory/spool"

[relay]
smarthost = "127.0.0.1:1"
tls = "off"

[log]
json = "$directory/events.json"
"""


BRAKED = """
[refusals]
file = "$directory/refusals.jsonl"

[[policy]]
use = "brake"
path = "$directory/usual.sqlite"
"""

COUNTED = """
[[policy]]
use = "rate-limit"
messages_per_login = "100/hour"
"""

SYSLOG = """\
LOG_ALERT = LOG_CRIT = LOG_DAEMON = LOG_DEBUG = LOG_ERR = LOG_INFO = LOG_PID = LOG_WARNING = 0
LOG_EMERG = LOG_NOTICE = LOG_USER = LOG_MAIL = 0

def openlog(*arguments, **named):
    pass

def syslog(*arguments):
    with open("syslog", "a") as file:
        print(*arguments, file=file)
"""
"""In the place of Python's own module: writes into a file what the system's log would have."""


def shapes(secret: str) -> Iterator[bytes]:
    """How a secret may look when it has got somewhere."""
    octets = secret.encode()
    yield octets
    yield octets.upper()
    yield repr(octets)[2:-1].encode()
    yield octets.hex().encode()
    # Base64 of the secret wherever it begins in the octets, without its uncertain ends.
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + octets)
        inner = encoded[4 if before else 0 : -4]
        if len(inner) >= 8:
            yield inner
            yield inner.upper()


def writtenBy(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that the service has written, with what is in it."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.relative_to(directory).parts[0] not in KEPT:
            yield str(path.relative_to(directory)), path.read_bytes()


class SecretTests(SynchronousTestCase):
    """A run through everything that handles secrets, and then a search."""

    def test_nothing(self) -> None:
        """No password, token, response or text of a message is in a log or any other file."""
        robust = Robust(FAULTY)
        self.run_(robust)
        self.assertSilent(robust, "service.log")

    def test_syslog(self) -> None:
        """Nor is it in what goes to the system's log."""
        modules = Path(self.mktemp()).absolute()
        modules.mkdir()
        (modules / "syslog.py").write_text(SYSLOG)
        robust = Robust(FAULTY, ["--syslog"], [modules])
        self.run_(robust)
        self.assertSilent(robust, "syslog")

    def run_(self, robust: Robust) -> None:
        """Go through everything."""
        self.digests: list[str] = []
        self.addCleanup(robust.service.stop)
        talk = Talk(robust.target)
        self.addCleanup(talk.close)
        self.good(talk)
        self.bad(talk)
        self.messages(talk)
        self.faults(talk)

    def assertSilent(self, robust: Robust, log: str) -> None:
        """Search.

        :param log: the file that has the lines of the text log.
        """
        files = dict(writtenBy(robust.service.directory))
        self.assertLessEqual({log, "events.json"}, set(files))
        self.assertIn(b"login failed", files[log])
        self.assertIn(b"Traceback", files[log])
        self.assertIn(b"traceback", files["events.json"])
        secrets = (ADA.secret, GRACE.secret, LINUS.secret, WRONG, GUESS, BODY, *self.digests)
        self.assertEqual(len(self.digests), 2)
        for name, octets in files.items():
            for secret in secrets:
                for shape in shapes(secret):
                    self.assertNotIn(shape, octets, f"{secret!r} is in {name}")

    def good(self, talk: Talk) -> None:
        """Log in by every mechanism."""
        for mechanism, user in USERS.items():
            peer = talk.secure()
            if mechanism == "PLAIN":
                peer.say(b"AUTH PLAIN " + plain(user.name, user.secret), "235")
            elif mechanism == "LOGIN":
                peer.say(b"AUTH LOGIN", "334")
                peer.say(base64.b64encode(user.name.encode()), "334")
                peer.say(base64.b64encode(user.secret.encode()), "235")
            elif mechanism == "CRAM-MD5":
                self.digest(peer, user.name, user.secret, "235")
            else:
                first = f"user={user.name}" if mechanism == "XOAUTH2" else f"n,a={user.name},"
                text = f"{first}\1auth=Bearer {user.secret}\1\1".encode()
                peer.say(f"AUTH {mechanism} ".encode() + base64.b64encode(text), "235")
            peer.inStep()

    def digest(self, peer: Peer, name: str, secret: str, code: str) -> None:
        """Log in by CRAM-MD5."""
        challenge = base64.b64decode(peer.say(b"AUTH CRAM-MD5", "334").lines[0])
        digest = hmac.new(secret.encode(), challenge, "md5").hexdigest()
        self.digests.append(digest)
        peer.say(base64.b64encode(f"{name} {digest}".encode()), code)

    def bad(self, talk: Talk) -> None:
        """Fail to log in, in every way in which a secret is at hand."""
        for secret in (WRONG, GUESS, ADA.secret):
            encoded = base64.b64encode(secret.encode())
            bearer = base64.b64encode(f"user=x\1auth=Bearer {secret}\1\1".encode())
            nameless = base64.b64encode(f"n,,\1auth=Bearer {secret}\1\1".encode())
            for lines in (
                (b"AUTH PLAIN " + plain("nobody", secret),),
                (b"AUTH PLAIN " + plain(ADA.name, secret, "root"),),
                (b"AUTH PLAIN " + encoded,),
                (b"AUTH PLAIN " + encoded[:-1],),
                (b"AUTH PLAIN", plain("nobody", secret)),
                (b"AUTH LOGIN", base64.b64encode(b"nobody"), encoded),
                (b"AUTH LOGIN", base64.b64encode(b"nobody"), encoded + b"!"),
                (b"AUTH XOAUTH2 " + bearer, b""),
                (b"AUTH XOAUTH2 " + bearer[:-2],),
                (b"AUTH OAUTHBEARER " + nameless, b"AQ=="),
                (b"AUTH OAUTHBEARER " + bearer,),
                (b"AUTH XYZZY " + encoded,),
                # Clients that go on although AUTH was refused, and people who type.
                (b"AUTH XYZZY", base64.b64encode(b"nobody"), encoded, encoded.rstrip(b"=")),
                (b"PASS " + secret.encode(), secret.encode().split()[0], b"NOOP " + encoded),
                (b"MAIL FROM:<x@example.org> AUTH=" + encoded.rstrip(b"="),),
                (b"EHLO " + secret.encode() + b" x",),
            ):
                peer = talk.secure()
                for line in lines:
                    peer.say(line, "2", "3", "5", "421")
                peer.close()
        self.digest(talk.secure(), GRACE.name, WRONG, "535")
        peer = talk.clear()
        peer.say(b"AUTH PLAIN " + plain(ADA.name, ADA.secret), "5")

    def messages(self, talk: Talk) -> None:
        """Send messages that are taken, refused, cut off, and text where commands belong."""
        text = talk.header + BODY.encode()
        for end, code in ((b"\r\n.\r\n", "250"), (b"\nx\r\n.\r\n", "5"), (b"\0\r\n.\r\n", "5")):
            talk.data().send(text + end).expect(code)
        talk.data().send(text).reset()
        peer = talk.ready()
        for line in (text + b"\r\n").split(b"\r\n"):
            peer.say(line, "2", "5")
        peer = talk.transaction()
        peer.send(b"BDAT x\r\n" + text + b"\r\n").expect("501")
        peer.finish()

    def faults(self, talk: Talk) -> None:
        """Have policies and the delivery fail, with secrets and text on their stacks."""
        for where in (*STAGES, *STEPS):
            peer = talk.beginSecure()
            peer.expect("220")
            peer.send(b"EHLO raise.%b.example\r\n" % where.encode()).expect("250", "451")
            for line in (
                b"AUTH PLAIN " + plain(ADA.name, ADA.secret),
                b"MAIL FROM:<ada@example.org>",
                b"RCPT TO:<bob@example.net>",
                b"DATA",
            ):
                answer = peer.say(line, "2", "3", "4", "5")
            if answer.code == 354:
                peer.send(talk.header + BODY.encode() + b"\r\n.\r\n").expect("250", "451")
            peer.close()


class RightsTests(SynchronousTestCase):
    """Files that a service creates are 0600, directories 0700, whatever its umask."""

    def modes(self, config: str, made: set[str], options: Sequence[str] = ()) -> None:
        """Start a service, send a message, and look at what is new in its directory.

        :param made: files and directories that must be among it.
        :param options: twistd's own.
        """
        self.addCleanup(os.umask, os.umask(0))
        robust = Robust(config, options)
        self.addCleanup(robust.service.stop)
        directory = robust.service.directory
        # Made by the test: the configuration, the users, and where the output goes.
        before = {path for path in directory.iterdir() if path.name in ("submitd.toml", *KEPT[:3])}
        before |= {*directory.glob("*.pem"), directory / "service.log"}
        talk = Talk(robust.target)
        self.addCleanup(talk.close)
        peer = talk.data()
        peer.send(talk.header + b"x" * 300_000 + b"\r\n")
        during = set(directory.rglob("*"))
        peer.send(b".\r\n").expect("250")
        talk.clear().say(b"MAIL FROM:<>", "5")
        new = (during | set(directory.rglob("*"))) - before
        self.assertLessEqual(made, {path.relative_to(directory).parts[0] for path in new})
        for path in new:
            if path.exists():
                status = path.stat()
                right = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
                self.assertEqual(oct(stat.S_IMODE(status.st_mode)), oct(right), path)

    def test_maildir(self) -> None:
        """A Maildir, a message in it, one that is being written, and the JSON log."""
        self.modes(FAULTY, {"Maildir", "events.json"})

    def test_spool(self) -> None:
        """A spool, its data base and messages, refusals, what is usual, and twistd's log."""
        self.modes(
            SPOOLED + BRAKED,
            {"spool", "events.json", "refusals.jsonl", "usual.sqlite", "twistd.log"},
            ["--logfile=twistd.log"],
        )

    def test_workers(self) -> None:
        """What several processes share."""
        temporary = Path(self.mktemp()).absolute()
        temporary.mkdir()
        before = os.environ.get("TMPDIR")
        self.addCleanup(os.environ.pop, "TMPDIR", None)
        if before is not None:
            self.addCleanup(os.environ.__setitem__, "TMPDIR", before)
        os.environ["TMPDIR"] = str(temporary)
        self.modes("workers = 2\n" + SPOOLED + COUNTED, {"spool", "events.json"})
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in temporary.rglob("*")}
        self.assertIn("counts.db", found)
        wrong = [name for name, mode in found.items() if mode & 0o077]
        self.assertEqual(wrong, [], found)
