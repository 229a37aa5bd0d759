"""submitd-policy: what it says is what the service would do, and nothing is left behind."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from submitd import policies
from submitd.counters.counters import Counters
from submitd.counters.history import HistoryFile, Usual, packed
from submitd.counters.names import shortened
from submitd.counters.windows import Room, Taken, Want, Window
from submitd.envelope import Recipient
from submitd.interfaces import (
    IConnectionPolicy,
    IHeaderPolicy,
    IMessagePolicy,
    IRehearsed,
    IRunning,
    ISecurePolicy,
    ISenderPolicy,
)
from submitd.tools import policy as tool
from submitd.tools.rehearsal import Client, Rehearsal, Wire
from submitd.tools.replay import _isAlike, readSession
from submitd.wire.address import NULL_PATH, Mailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply
from tests import running

DATA = Path(__file__).parents[1] / "data"
NO = Reply(550, "5.7.1", "Not that")
ALICE = ("--login", "alice@example.com", "--from", "alice@example.com", "--to", "bob@example.net")
CONFIGURATION = f"""
hostname = "mail.example.com"

[[listener]]
endpoint = "tcp:587"

[[listener]]
endpoint = "tcp:465"
tls = "implicit"

[[listener]]
endpoint = "unix:/tmp/submitd-lmtp.sock"
tls = "off"
require_tls = false
lmtp = true
xclient_from = ["unix"]
xclient_login = true

[tls]
certificate = "{DATA}/certificate.pem"
private_key = "{DATA}/private_key.pem"

[auth]
checkers = ["htpasswd:{DATA}/passwd"]

[delivery]
path = "spool"
"""
# Where printers send from without a login.
OPEN = """
hostname = "mail.example.com"

[[listener]]
endpoint = "tcp:587"
tls = "off"
require_tls = false

[auth]
required = false

[delivery]
path = "spool"
"""
# Every policy that needs no server, one after the other.
EVERY = """
[[policy]]
use = "login-throttle"

[[policy]]
use = "sender-owner"

[[policy]]
use = "require-tls"

[[policy]]
use = "recipients"
most = 2

[[policy]]
use = "message-fixups"

[[policy]]
use = "rate-limit"
messages_per_login = "1/hour"

[[policy]]
use = "brake"
path = "usual.sqlite"
first_time = "1/hour"
command = ["/bin/false"]
"""
OWN = f"""
[[policy]]
use = "{__name__}:%s"
"""


@implementer(IConnectionPolicy, ISecurePolicy)
class Slow:
    """Takes its time at the door."""

    def connectionMade(self, session: Any) -> Deferred[None]:
        return _later(None)

    def handshakeCompleted(self, session: Any) -> Deferred[None]:
        return _later(None)


@implementer(IConnectionPolicy)
class Shut:
    """Lets nobody in."""

    def connectionMade(self, session: Any) -> None:
        raise Refused(Reply(554, "5.7.1", "Not from there"))


@implementer(ISenderPolicy, IRunning)
class Broken:
    """Fails wherever it can."""

    def validateFrom(self, session: Any, envelope: Any) -> Any:
        raise ValueError("oops")

    async def start(self, reactor: Any) -> None:
        raise ValueError("not today")

    async def stop(self) -> None:
        pass


@implementer(ISenderPolicy)
class Yes:
    """Has misunderstood what consent is."""

    def validateFrom(self, session: Any, envelope: Any) -> Any:
        return True


@implementer(IMessagePolicy)
class Late:
    """Refuses late, behind the message."""

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> Any:
        return _later(Refused(NO, "on second thoughts"))


@implementer(IMessagePolicy)
class Elsewhere:
    """Has the message go from somebody else, and to somebody else, as a filter may."""

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
        envelope.reversePath = NULL_PATH
        envelope.asked = envelope.recipients
        envelope.recipients = [
            *envelope.recipients[1:],
            Recipient(Mailbox("carol", "example.org")),
        ]


@implementer(IHeaderPolicy, IRehearsed)
class Stamp:
    """Notes in which directory it may write."""

    where = Path()

    def headerReceived(self, session: Any, envelope: Any, header: Any) -> None:
        header.append(b"X-Directory: %d\r\n" % self.where.is_dir())

    def rehearse(self, directory: Path) -> None:
        self.where = directory


def _later(error: Exception | None) -> Deferred[None]:
    later: Deferred[None] = Deferred()
    clock: Any = reactor
    clock.callLater(0.001, later.callback if error is None else later.errback, error)
    return later


class Case(TestCase):
    """Has a directory with a configuration."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def configure(self, more: str = "", text: str = CONFIGURATION) -> Path:
        """Write a configuration."""
        file = self.directory / "submitd.toml"
        file.write_text(text + more)
        return file

    async def told(self, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Exit status, standard output and standard error of a command line."""
        out, err = io.StringIO(), io.StringIO()
        arguments = tool.parser().parse_args(
            ["try", "--config", str(self.directory / "submitd.toml"), *words]
        )
        with patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))):
            try:
                status = await tool.work(reactor, arguments, out, err)
            except tool.Problem as problem:
                return 2, out.getvalue(), str(problem)
        return status, out.getvalue(), err.getvalue()

    async def found(self, *words: str) -> dict[str, Any]:
        """What it says as JSON."""
        _, out, err = await self.told(*words, "--json")
        self.assertTrue(out, err)
        found: dict[str, Any] = json.loads(out)
        return found

    def everything(self) -> dict[str, bytes]:
        """All files there are, and what is in them."""
        return {
            str(path.relative_to(self.directory)): path.read_bytes() if path.is_file() else b""
            for path in self.directory.rglob("*")
        }


class TryTests(Case):
    """One message."""

    async def test_taken(self) -> None:
        """Every stage is asked in its order, by name; the changes of the header are shown."""
        self.configure(EVERY)
        message = self.directory / "message"
        message.write_bytes(b"From: alice@example.com\nBcc: x@example.net\n\nhello\n.\nend")
        found = await self.found(*ALICE, "--message", str(message))
        self.assertTrue(found["accepted"], found)
        stages = [each["stage"] for step in found["steps"] for each in step["policies"]]
        self.assertEqual(
            list(dict.fromkeys(stages)),
            ["connection", "hello", "secure", "login", "sender", "recipient", "data", "header"],
        )
        names = {each["policy"] for step in found["steps"] for each in step["policies"]}
        self.assertEqual(
            names,
            set(policies.REGISTRY)
            & {line.split('"')[1] for line in EVERY.splitlines() if "use" in line},
        )
        self.assertTrue(
            all(each["seconds"] >= 0 for step in found["steps"] for each in step["policies"])
        )
        changes = "\n".join(found["header"])
        self.assertIn("-Bcc: x@example.net", changes)
        self.assertIn("+Message-ID: <", changes)
        self.assertIn("+Received: from client.example ([192.0.2.1])", changes)
        self.assertNotIn("From:", changes)
        self.assertFalse(found["bodyChanged"])

    async def test_envelope(self) -> None:
        """Another sender and other recipients are shown, and those that stay are not."""
        self.configure("\n[[policy]]\nuse = 'tests.tools.test_policy:Elsewhere'\n")
        expected = [
            "-MAIL FROM:<alice@example.com>",
            "+MAIL FROM:<>",
            "-RCPT TO:<bob@example.net>",
            "+RCPT TO:<carol@example.org>",
        ]
        more = ("--to", "dave@example.net")
        self.assertEqual((await self.found(*ALICE, *more))["envelope"], expected)
        _, out, _ = await self.told(*ALICE, *more)
        self.assertIn("envelope\n" + "".join(f"  {line}\n" for line in expected), out)

    async def test_refused(self) -> None:
        """A refusal is shown with the policy, its private cause and the reply; status 1."""
        self.configure(EVERY)
        words = ("--login", "alice@example.com", "--from", "mallory@example.com")
        status, out, _ = await self.told(*words, "--to", "bob@example.net")
        self.assertEqual(status, 1)
        self.assertRegex(
            out, r"sender     sender-owner     refused +\d+\.\d\d ms  553 .*mallory@example.com"
        )
        self.assertTrue(
            out.endswith("refused: 553 5.7.1 Sender address rejected: not owned by user\n")
        )
        self.assertNotIn("(id", out)

    async def test_someRecipients(self) -> None:
        """Where one recipient is refused the others go on, and it is no success."""
        self.configure(EVERY)
        found = await self.found(*ALICE, "--to", "c@example.net", "--to", "d@example.net")
        self.assertEqual(
            [step["replies"][0][:3] for step in found["steps"][-5:]],
            ["250", "250", "452", "354", "250"],
        )
        self.assertFalse(found["accepted"])

    async def test_noRecipient(self) -> None:
        """Where all are refused there is no DATA."""
        (self.directory / "none").write_text("@example.net\n")
        self.configure('\n[[policy]]\nuse = "recipients"\nrefused = "none"\n')
        found = await self.found(*ALICE)
        self.assertEqual(found["steps"][-1]["said"], "RCPT TO:<bob@example.net>")
        self.assertFalse(found["accepted"])

    async def test_listeners(self) -> None:
        """Implicit TLS and LMTP go their way; a client without TLS or login is refused as ever."""
        self.configure()
        self.assertTrue((await self.found(*ALICE, "--listener", "1"))["accepted"])
        found = await self.found(*ALICE, "--listener", "2", "--to", "c@example.net")
        self.assertTrue(found["accepted"], found)
        self.assertEqual(len(found["steps"][-1]["replies"]), 2)
        self.assertIn("530 5.7.0 Must issue", (await self.found(*ALICE, "--no-tls"))["result"])
        self.assertIn("530 5.7.0 Auth", (await self.found(*ALICE[2:]))["result"])
        status, _, err = await self.told(*ALICE, "--listener", "3")
        self.assertEqual(status, 2)
        self.assertIn("there is no listener[3]; there are 3", err)

    async def test_namedListeners(self) -> None:
        """A listener has the policies that are for it; which one it is is said."""
        named = CONFIGURATION.replace('"tcp:465"', '"tcp:465"\nname = "inside"')
        self.configure(OWN % "Shut" + 'listeners = ["inside"]\n', named)
        self.assertTrue((await self.found(*ALICE))["accepted"])
        found = await self.found(*ALICE, "--listener", "inside")
        self.assertEqual(found["result"], "refused: 554 5.7.1 Not from there")
        self.assertEqual(found["steps"][0]["said"], "(connects from 192.0.2.1 to inside)")
        found = await self.found(*ALICE, "--listener", "2")
        endpoint = "unix:/tmp/submitd-lmtp.sock"
        self.assertEqual(found["steps"][0]["said"], f"(connects from 192.0.2.1 to {endpoint})")
        status, _, err = await self.told(*ALICE, "--listener", "insid")
        self.assertEqual(status, 2)
        self.assertIn('there is no listener "insid"; did you mean "inside"?', err)

    async def test_byAddress(self) -> None:
        """A client without a login has that of its network here, too."""
        text = OPEN.replace("required = false", "").replace(
            "[auth]", '[listener.login_by_address]\n"10.1.2.0/24" = "alice@example.com"\n'
        )
        self.configure(text=text + '\n[[policy]]\nuse = "sender-owner"\n')
        inside = (*ALICE[2:], "--client-address", "10.1.2.3")
        self.assertTrue((await self.found(*inside))["accepted"])
        self.assertIn("553", (await self.found(*inside, "--from", "bob@example.net"))["result"])
        self.assertIn("530", (await self.found(*ALICE[2:]))["result"])
        _, out, _ = await self.told(*inside)
        self.assertRegex(out, "note: login: .* user=alice@example.com mechanism=ADDRESS")

    async def test_unix(self) -> None:
        """The peer of a unix socket has no address, but may have a login."""
        text = OPEN.replace("required = false", "").replace(
            "[auth]", '[listener.login_by_address]\nunix = "alice@example.com"\n'
        )
        text = re.sub('endpoint = ".*"', 'endpoint = "unix:/tmp/submitd-policy.sock"', text)
        self.configure(text=text + '\n[[policy]]\nuse = "sender-owner"\n')
        found = await self.found(*ALICE[2:], "--client-address", "unix")
        self.assertEqual(found["steps"][0]["said"], "(connects from a unix socket)")
        self.assertTrue(found["accepted"])

    async def test_waiting(self) -> None:
        """Policies that take their time are waited for, and their time is told."""
        self.configure(OWN % "Slow")
        for listener in ("0", "1"):
            found = await self.found(*ALICE, "--listener", listener)
            self.assertTrue(found["accepted"], found)
            slow = [each for step in found["steps"] for each in step["policies"]]
            self.assertEqual({each["stage"] for each in slow}, {"connection", "secure"})
            self.assertTrue(all(each["seconds"] >= 0.001 for each in slow))

    async def test_late(self) -> None:
        """A refusal behind the message is one; nothing has been kept, so there is no header."""
        self.configure(OWN % "Late")
        found = await self.found(*ALICE)
        self.assertEqual(found["result"], "refused: 550 5.7.1 Not that")
        self.assertEqual(found["header"], [])
        [verdict] = found["steps"][-1]["policies"]
        self.assertEqual((verdict["stage"], verdict["outcome"]), ("message", "refused"))
        self.assertIn("on second thoughts", verdict["cause"])

    async def test_broken(self) -> None:
        """What fails in a policy is shown with its error, at the start and at its stage."""
        self.configure(OWN % "Broken")
        status, out, _ = await self.told(*ALICE)
        self.assertEqual(status, 1)
        self.assertIn("Broken: not today", out)
        self.assertRegex(out, r"sender +Broken +failed .* ValueError: oops")
        self.assertIn("note: policy failed: ", out)
        self.assertIn("refused: 451 4.3.0", out)
        self.flushLoggedErrors(ValueError)
        self.configure(OWN % "Yes")
        self.assertIn("failed", (await self.told(*ALICE))[1])
        self.flushLoggedErrors(TypeError)

    async def test_held(self) -> None:
        """A message that would be held says so, and nobody is told but who asks."""
        self.configure(EVERY)
        found = await self.found(*ALICE, "--to", "carol@example.net")
        self.assertTrue(found["result"].startswith("held: brake: more than 1 per hour"), found)
        notes = [note for step in found["steps"] for note in step["notes"]]
        self.assertTrue(any(note.startswith("brake applied") for note in notes), notes)
        self.assertFalse((self.directory / "usual.sqlite").exists())

    async def test_usual(self) -> None:
        """What is usual for a login is known from the file, and the file stays as it is."""
        file = HistoryFile(self.directory / "usual.sqlite")
        file.brake("alice@example.com", 4e9, "because")
        file.write([("bob@example.com", *packed(Usual()))])
        self.configure(EVERY)
        before = self.everything()
        found = await self.found(*ALICE)
        self.assertEqual(found["result"], "held: brake: because")
        self.assertEqual(self.everything(), before)
        file.close()

    async def test_nothingChanged(self) -> None:
        """Nothing appears, nothing changes, and a second try finds what the first one found."""
        self.configure(EVERY + '\n[log]\njson = "log"\n[refusals]\nfile = "refusals"\n')
        before = self.everything()
        temporary = self.directory / "temporary"
        with patch("tempfile.tempdir", str(self.directory)):
            first = await self.found(*ALICE)
            second = await self.found(*ALICE)
        self.assertTrue(first["accepted"] and second["accepted"], second)
        self.assertEqual(self.everything(), before)
        self.assertFalse(temporary.exists())

    async def test_others(self) -> None:
        """Servers are asked, a second delivery gets nothing, and a signature is shown."""
        key = self.directory / "key.pem"
        key.write_bytes(
            Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
        )
        key.chmod(0o600)
        [port] = running.freePorts(1)
        self.configure(
            f"""
[[policy]]
use = "delegation"
endpoint = "tcp:127.0.0.1:{port}"
on_failure = "permit"

[[policy]]
use = "archive"
address = "journal@example.org"
delivery = {{ use = "maildir", path = "archive" }}

[[policy]]
use = "dkim"
key = [{{ domain = "example.com", selector = "a", file = "key.pem" }}]
"""
        )
        before = self.everything()
        found = await self.found(*ALICE)
        self.assertTrue(found["accepted"], found)
        notes = [note for step in found["steps"] for note in step["notes"]]
        self.assertTrue(any(note.startswith("delegation away") for note in notes), notes)
        self.assertTrue(any(line.startswith("+DKIM-Signature: ") for line in found["header"]))
        self.assertEqual(found["blind"], ["journal@example.org"])
        self.assertEqual(self.everything(), before)

    async def test_rewritten(self) -> None:
        """What becomes of addresses is told where it happens, and each new one is asked about."""
        (self.directory / "senders").write_text("root@printer.local alice@example.com\n")
        (self.directory / "aliases").write_text("root@printer.local a@example.net b@example.net\n")
        self.configure(
            """
[[policy]]
use = "rewrite"
senders = "senders"
aliases = "aliases"

[[policy]]
use = "sender-owner"

[[policy]]
use = "recipients"
"""
        )
        found = await self.found(
            *("--login", "alice@example.com", "--from", "root@printer.local"),
            *("--to", "root@printer.local"),
        )
        self.assertTrue(found["accepted"], found)
        steps = {step["said"].partition(" ")[0]: step for step in found["steps"]}
        for verb, text in (
            ("MAIL", "where=MAIL before=root@printer.local after=alice@example.com"),
            ("RCPT", 'before=root@printer.local after="a@example.net, b@example.net"'),
            ("(sends", "where=From before=root@printer.local after=alice@example.com"),
        ):
            self.assertTrue(any(note.endswith(text) for note in steps[verb]["notes"]), steps[verb])
        asked = [each["policy"] for each in steps["RCPT"]["policies"]]
        self.assertEqual(asked, ["rewrite", "recipients", "recipients"])
        self.assertIn("+From: alice@example.com", found["header"])

    async def test_rehearse(self) -> None:
        """A policy of somebody else is given a directory of its own."""
        self.configure((OWN % "Stamp") * 2)
        self.assertIn("+X-Directory: 1", (await self.found(*ALICE))["header"])

    async def test_null(self) -> None:
        """The null sender, 8-bit text and UTF-8 addresses are sent with what they need."""
        self.configure()
        words = ("--login", "alice", "--from", "", "--to", "bj\u00f6rn@example.net", "--json")
        _, out, _ = await self.told(*words)
        said = [step["said"] for step in json.loads(out)["steps"]]
        self.assertTrue(any(line.endswith("BODY=8BITMIME SMTPUTF8") for line in said), said)
        self.assertTrue(json.loads(out)["accepted"], out)

    async def test_message(self) -> None:
        """A message comes from standard input; LF alone becomes CRLF, and CRLF is left alone."""
        self.configure()
        for octets in (b"A: b\n\n..\n", b"A: b\r\n\r\n..\r\n", b""):
            status, _, err = await self.told(*ALICE, "--message", "-", stdin=octets)
            self.assertEqual(status, 0, err)
        status, out, _ = await self.told(*ALICE, "--message", "-", stdin=b"A: b\r\n\r\nx\ny\r\n")
        self.assertEqual(status, 1)
        self.assertIn("554 5.6.0", out)


class WrongTests(Case):
    """What cannot be tried is status 2."""

    async def test_configuration(self) -> None:
        """Every mistake of a candidate is named, as by --check."""
        self.configure("\n[[policy]]\nuse = 'nothing'\n[log]\njson = 'no/where'\n[limits]\nx = 1\n")
        status, out, err = await self.told(*ALICE)
        self.assertEqual((status, out), (2, ""))
        for path in ("policy[0].use", "log.json", "limits.x"):
            self.assertIn(path, err)

    async def test_options(self) -> None:
        """Options that do not go together, and files that are not there."""
        self.configure()
        for words, said in (
            ((), "needs --from and --to"),
            (("--from", "a@example.com"), "needs --from and --to"),
            (("--session", "x", "--from", "a@example.com"), "brings its own"),
            (("--from", "a b", "--to", "b@example.com"), '"a b" is no address'),
            (("--from", "", "--to", "b@c>\r\nDATA"), "is no address"),
            ((*ALICE, "--helo", "x\r\nDATA"), "no control characters"),
            ((*ALICE, "--message", str(self.directory / "none")), "No such file"),
            (("--session", str(self.directory)), "Is a directory"),
        ):
            status, _, err = await self.told(*words)
            self.assertEqual(status, 2, words)
            self.assertIn(said, err)
        with patch.object(sys, "stderr", io.StringIO()):
            for words in ((), ("try", "--client-address", "nowhere")):
                error = self.assertRaises(SystemExit, tool.parser().parse_args, words)
                self.assertEqual(error.code, 2)

    async def test_unmade(self) -> None:
        """A setting that was good at the examination only is one sentence."""
        self.configure()
        why = tool.CannotStart("the disk went away")
        with patch.object(tool, "Rehearsal", side_effect=why):
            status, _, err = await self.told(*ALICE)
        self.assertEqual(status, 2)
        self.assertIn("submitd.toml: the disk went away", err)

    async def test_timeout(self) -> None:
        """Nobody waits for a reply that will not come."""
        self.configure()
        loaded = tool.load(self.directory / "submitd.toml").settings
        async with Rehearsal(loaded, 0, Client(), reactor) as rehearsal:
            await rehearsal.connect()
            self.assertEqual((await rehearsal.send(b"NOO", "NOO")).replies, ())
            step = await rehearsal.send(b"P\r\nQUIT\r\n", "P", 5)
            self.assertEqual([reply.code for reply in step.replies], [250, 221])
            self.assertEqual((await rehearsal.say("NOOP")).replies, ())


class SessionTests(Case):
    """A recorded session."""

    RECORDED = (
        "# recorded yesterday\n"
        "S: 220 *\n"
        "C: EHLO client.example\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\n"
        "S: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250 *\n"
        "C: STARTTLS\nS: 220 2.0.0 Ready to start TLS\nTLS\n"
        "C: EHLO client.example\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\n"
        "S: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250 *\n"
        "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: (hidden)\nS: 334 UGFzc3dvcmQ6\nC: (hidden)\n"
        "S: 235 2.7.0 Authentication successful\n"
        "C: MAIL FROM:<mallory@example.com>\nS: 250 2.1.0 Originator ok\n"
        "C: RCPT TO:<bob@example.net>\nS: 250 2.1.5 Recipient ok\n"
        "C: RCPT TO:<@>\nS: 501 5.1.3 * (id AAAAAAAA)\n"
        "C: DATA\nS: 354 Start mail input; end with <CRLF>.<CRLF>\n"
        "C: Subject: x\nC:\nC> hello\\r\\n\nC: .\nS: 250 2.0.0 Ok: queued as ABC-1\n"
        "C: QUIT\nS: 221 2.0.0 Bye\n"
    )

    async def replay(self, *words: str, text: str = RECORDED) -> tuple[int, str, str]:
        """Replay a session."""
        recorded = self.directory / "recorded"
        recorded.write_text(text)
        return await self.told("--session", str(recorded), *words)

    async def test_same(self) -> None:
        """It goes as it went, whatever the ids are; the login is given, not the password."""
        self.configure()
        status, out, _ = await self.replay("--login", "alice@example.com")
        self.assertEqual((status, out), (0, "the session goes as it went\n"))

    async def test_different(self) -> None:
        """Where a candidate would refuse, the recorded reply, the new one and the policy are shown.

        The rest goes on as far as it makes sense.
        """
        self.configure('\n[[policy]]\nuse = "sender-owner"\n')
        status, out, _ = await self.replay("--login", "alice@example.com")
        self.assertEqual(status, 1)
        self.assertTrue(
            out.startswith(
                "C: MAIL FROM:<mallory@example.com>\n"
                "- S: 250 2.1.0 Originator ok\n"
                "+ S: 553 5.7.1 Sender address rejected: not owned by user\n"
                "  sender     sender-owner     refused "
            ),
            out,
        )
        self.assertIn("- S: 354 Start mail input; end with <CRLF>.<CRLF>\n+ S: 503 5.5.1", out)
        self.assertTrue(out.endswith("the rest makes no sense behind this, and was left out\n"))
        self.assertNotIn("Subject", out)

    async def test_manualPage(self) -> None:
        """The example of the manual page goes as it went, where clients need no login."""
        page = (DATA.parents[1] / "docs" / "man" / "submitd-policy.1.rst").read_text()
        example = re.search(r"and a comment::\n\n((?:    .*\n)+)", page)
        assert example is not None
        self.configure(text=OPEN)
        status, out, _ = await self.replay(text=textwrap.dedent(example[1]))
        self.assertEqual((status, out), (0, "the session goes as it went\n"))

    async def test_manyLines(self) -> None:
        """A code with "-*" is one line or several, and no more than the lines of that code."""
        self.configure(text=OPEN)
        for lines, expected in (
            ("250-*\nS: 250 *", 0),
            ("250-mail.example.com*\nS: 250-*\nS: 250-SIZE*\nS: 250-*\nS: 250 *", 0),
            ("250-*\nS: 250-NOTHING\nS: 250 *", 1),
            ("250-*", 1),
            ("250 *", 1),
            ("220-*\nS: 250 *", 1),
            ("250-*\n" + "S: 250-*\n" * 40 + "S: 250 *", 1),
        ):
            status, _, _ = await self.replay(text=f"C: EHLO printer.example\nS: {lines}\n")
            self.assertEqual(status, expected, lines)

    def test_sharedOut(self) -> None:
        """Many lines of "any number" and a long answer are compared in no time, alike or not."""
        answer = [*["250-line"] * 200, "250 Ok"]
        for many, last, expected in (
            (100, "250 *", True),
            (200, "250 *", True),
            (201, "250 *", False),
            (100, "250 No", False),
        ):
            self.assertIs(_isAlike(["250-*"] * many + [last], answer), expected)
        self.assertTrue(_isAlike([], []))
        self.assertFalse(_isAlike(["250-*"], []))
        self.assertFalse(_isAlike([], ["250 Ok"]))

    async def test_json(self) -> None:
        """The same for a program."""
        self.configure('\n[[policy]]\nuse = "sender-owner"\n')
        _, out, _ = await self.replay("--login", "alice@example.com", "--json")
        found = json.loads(out)
        self.assertTrue(found["cut"])
        self.assertEqual(found["differences"][0]["said"], "MAIL FROM:<mallory@example.com>")
        self.assertEqual(found["differences"][0]["policies"][0]["policy"], "sender-owner")

    async def test_login(self) -> None:
        """Without a login, the session's own is checked by the configuration."""
        self.configure()
        text = "C: EHLO x.example\nC: AUTH PLAIN AGEAYg==\nS: 250-*\nS: 250 *\nS: 235 2.7.0 *\n"
        _, out, _ = await self.replay("--listener", "1", text=text)
        self.assertIn("+ S: 535 5.7.8 Authentication credentials invalid\n", out)

    async def test_closed(self) -> None:
        """A session that ends before its time was cut."""
        self.configure()
        _, out, _ = await self.replay(text="C: QUIT\nS: 221 *\nC: NOOP\nS: 250 *\n")
        self.assertIn("left out", out)

    async def test_turnedAway(self) -> None:
        """Where nobody is greeted any more, that is the one difference there is."""
        self.configure(OWN % "Shut")
        _, out, _ = await self.replay()
        self.assertIn("- S: 220 *\n+ S: 554 5.7.1 Not from there\n", out)
        self.assertIn("left out", out)
        self.assertNotIn("503", out)
        same = await self.replay(text="S: 554 *\nC: NOOP\nS: 503 *\nC: QUIT\nS: 221 *\n")
        self.assertEqual(same[:2], (0, "the session goes as it went\n"))

    async def test_malformed(self) -> None:
        """What is no recorded session is named by its line."""
        self.configure()
        status, _, err = await self.replay(text="S: 220 *\nhello\n")
        self.assertEqual(status, 2)
        self.assertIn("line 2 begins neither with C:, C>, S: nor TLS: hello", err)


class PartTests(SynchronousTestCase):
    """The parts that a whole run does not reach."""

    def test_counters(self) -> None:
        """In a Redis nothing is counted: what would come of it is worked out from the room."""
        window = Window(5, 60, "5 per minute")
        asked: list[str] = []

        @attrs.define
        class Storage:
            left: int

            def rooms(self, wants: Any, now: float) -> list[Room]:
                asked.append("rooms")
                return [Room(self.left, 5 - self.left, 30.0) for _ in wants]

            def take(self, *arguments: Any) -> Taken:
                raise AssertionError("counted")

        def run(call: Any, *arguments: Any) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()
            answer.callback(call(*arguments))
            return answer

        counters = Counters("redis://127.0.0.1:1", "open", 1.0, "test")
        counters.rehearse()
        counters.start(Clock(), run)
        wants = [Want(shortened("a"), window), Want(shortened("b"), window, 2)]
        for left, taken in ((5, Taken()), (1, Taken(1, 30.0)), (0, Taken(0, 30.0))):
            counters._storage = Storage(left)  # type: ignore[assignment]
            answer: Any = counters.take(wants)
            self.assertEqual(self.successResultOf(answer), taken)
        self.assertEqual(asked, ["rooms"] * 3)
        counters._storage = None
        with patch("submitd.counters.counters.Redis", side_effect=OSError("away")):
            answer = counters.take(wants)
        self.assertIsNone(self.successResultOf(answer))

    def test_turns(self) -> None:
        """Lines of a client that come without an answer in between are one turn."""
        turns = readSession("C: A\nC: B\nS: 250 x\nS: 250 y\nTLS\nC> C\\n\nS: 500 z\nC: TLS\n")
        self.assertEqual([turn.sent for turn in turns], [["A", "B"], ["TLS"], ["C\\n"], ["TLS"]])
        self.assertEqual([turn.octets for turn in turns], [b"A\r\nB\r\n", b"", b"C\n", b"TLS\r\n"])
        self.assertEqual([turn.isHandshake for turn in turns], [False, True, False, False])
        self.assertEqual(readSession("\n# nothing\n"), [])

    def test_changes(self) -> None:
        """Only fields that changed are shown; a message without header or body is one too."""
        changed = tool.headerChanges
        self.assertEqual(changed(b"A: 1\r\nB: 2\r\n\r\nx", b"A: 1\r\n\r\nx"), ["-B: 2"])
        self.assertEqual(changed(b"\r\nx", b"C: 3\r\n\r\nx"), ["+C: 3"])
        self.assertEqual(changed(b"A: \xff\x1b[m\r\n\r\n", b""), ["-A: \\xff\\x1b[m"])

    def test_wire(self) -> None:
        """The transport that is none has what a protocol looks for."""
        wire = Wire(Clock())
        self.assertEqual(wire.getPeer(), wire.getHost())
        wire.startTLS(None)
        wire.abortConnection()
        self.assertTrue(wire.isClosed and wire.startedTLS)


class ProcessTests(Case):
    """The console script."""

    def test_main(self) -> None:
        """What cannot be tried is a sentence on standard error, and status 2."""
        running: list[Any] = []
        with (
            patch.object(tool, "react", running.append),
            patch.object(sys, "stderr", io.StringIO()),
        ):
            tool.main(["try"])
            ended = Deferred.fromCoroutine(running[0](reactor))
            self.assertEqual(self.failureResultOf(ended, SystemExit).value.code, 2)
            self.assertIn("submitd-policy: needs --from and --to", sys.stderr.getvalue())

    def test_process(self) -> None:
        """Exit status and streams are those of a program; nobody listens anywhere."""
        file = self.configure(EVERY)
        for words, status in (
            (ALICE, 0),
            (ALICE[:2] + ALICE[4:] + ("--from", "x@y.z"), 1),
            ((), 2),
        ):
            done = subprocess.run(
                [
                    *(sys.executable, "-c", "from submitd.tools.policy import main; main()"),
                    *("try", "--config", str(file), *words),
                ],
                env=running.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
        self.assertIn("submitd-policy: needs --from", done.stderr)
        self.assertEqual(sorted(os.listdir(self.directory)), ["submitd.toml"])
