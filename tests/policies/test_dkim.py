"""Policy dkim: which messages are signed, by which keys, and what becomes of the others."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd import events
from submitd.interfaces import (
    IChecked,
    IHeaderPolicy,
    IMessagePolicy,
    IReloaded,
    IRunning,
    ISigning,
)
from submitd.message.dkimkeys import readKeyFile, recordText
from submitd.policies.dkim import DKIM, Key
from submitd.policies.fixups import MessageFixups
from submitd.submission import Limits
from submitd.typed import Seconds
from tests.fixtures import Conversation, MemoryDelivery, makeSubmission

NOW = 1_700_000_000.9


@cache
def privateKey(kind: str, number: int = 0) -> bytes:
    """A PEM file; the same one for the same arguments."""
    private: Any = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else rsa.generate_private_key(65537, int(kind))
    )
    octets: bytes = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return octets


def write(path: Path, octets: bytes, mode: int = 0o600) -> Path:
    """Put a file there, in the place of another, and one that is read again at once."""
    path.unlink(missing_ok=True)
    path.write_bytes(octets)
    path.chmod(mode)
    return path


def signatures(message: bytes) -> list[dict[str, str]]:
    """The tags of each signature, from the top."""
    fields = message.split(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").split(b"\r\n")
    return [
        {
            name.strip(): value.replace(" ", "")
            for name, _, value in (part.partition("=") for part in text[15:].split(";"))
        }
        for text in (field.decode("latin-1") for field in fields)
        if text.startswith("DKIM-Signature:")
    ]


@implementer(IMessagePolicy)
class Stamp:
    """Puts a field in front of each message."""

    name = "stamp"

    def __init__(self, field: bytes) -> None:
        self.field = field

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
        message.prepend(self.field)


@implementer(IHeaderPolicy, IMessagePolicy)
class Rewrites:
    """Holds messages, and puts others in their place, as a milter may."""

    name = "rewrites"

    def headerReceived(self, session: Any, envelope: Any, header: Any) -> None:
        self.held = envelope.message.holdBody(lambda octets: None)

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> Any:
        self.held.header.append(b"List-Id: <list.example.com>\r\n")
        self.held.header.rewrite(b"subject", lambda field: b"Subject: [list] x\r\n")
        self.held.replaceBody(b"Another \r\n")
        self.held.replaceBody(b"\r\nbody\r\n\r\n")
        return self.held.release()


class DKIMCase(SynchronousTestCase):
    """Has key files, a policy whose threads run at once, and the events."""

    def setUp(self) -> None:
        super().setUp()
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.records: dict[bytes, bytes] = {}

    def key(self, selector: str = "s1", domain: str = "example.com", kind: str = "ed25519") -> Key:
        """A key with its file and its record."""
        file = write(self.directory / f"{selector}.{domain}", privateKey(kind))
        key = Key(domain, selector, file)
        record = recordText(readKeyFile(file).public).encode()
        self.records[f"{key.selector}._domainkey.{key.domain}.".encode()] = record
        return key

    def policy(self, *keys: Key, **settings: Any) -> DKIM:
        """A policy that runs."""
        policy = DKIM(key=keys or (self.key(),), **settings)
        policy.seconds = lambda: NOW
        self.successResultOf(policy.start(Clock(), maybeDeferred))
        return policy

    def send(self, message: bytes, *policies: Any, mail: str = "", **changes: Any) -> str:
        """Send a message; what the client is told, and what is kept in ``self.kept``."""
        self.delivery = MemoryDelivery()
        submission = makeSubmission(
            delivery=self.delivery,
            policies=policies,
            portal=None,
            loginRequired=False,
            requireTLS=False,
            **changes,
        )
        talk = Conversation(submission)
        talk.transport.clear()
        talk.say("EHLO client.example")
        talk.say(f"MAIL FROM:<a@example.com>{mail}", "RCPT TO:<b@example.org>", "DATA")
        talk.transport.clear()
        said = talk.send(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        kept = self.delivery.messages
        self.kept = kept[0].octets if kept else b""
        return said.decode().strip()

    def signed(self, message: bytes, *policies: Any, **changes: Any) -> list[dict[str, str]]:
        """Send a message, have dkimpy verify all its signatures, and give their tags."""
        said = self.send(message, *policies, **changes)
        self.assertTrue(said.startswith("250 "), said)
        found = signatures(self.kept)
        for index in range(len(found)):
            verifier = dkim.DKIM(self.kept)
            self.assertTrue(verifier.verify(index, lambda name, timeout: self.records[name]))
        return found

    def names(self) -> list[str]:
        """The events that were logged."""
        return [each["event"] for each in self.logged]

    def causes(self) -> list[str]:
        """Why messages were not signed."""
        return [each["cause"] for each in self.logged if each["event"] == "not-signed"]


MESSAGE = b"From: Alice <a@example.com>\r\nSubject: x\r\n\r\nHello\r\n"


class SigningTests(DKIMCase):
    """What is signed."""

    def test_interfaces(self) -> None:
        """It sees header and message, runs, is reloaded and checked, and says that it signs."""
        policy = self.policy()
        for interface in (
            *(IHeaderPolicy, IMessagePolicy, IRunning, IReloaded, IChecked, ISigning),
        ):
            self.assertTrue(verifyObject(interface, policy))
        self.assertIsNone(self.successResultOf(policy.stop()))

    def test_both(self) -> None:
        """Every key of the domain signs, RSA and Ed25519; the fields stand above Received."""
        policy = self.policy(self.key("s1", kind="2048"), self.key("s2"))
        found = self.signed(MESSAGE, policy)
        self.assertEqual([tags["a"] for tags in found], ["ed25519-sha256", "rsa-sha256"])
        self.assertEqual([tags["s"] for tags in found], ["s2", "s1"])
        self.assertLess(self.kept.rindex(b"DKIM-Signature:"), self.kept.index(b"Received:"))

    def test_tags(self) -> None:
        """The domain of From signs; by default with the time and without an end."""
        [tags] = self.signed(MESSAGE, self.policy())
        self.assertEqual((tags["d"], tags["t"]), ("example.com", "1700000000"))
        self.assertNotIn("x", tags)
        self.assertNotIn("i", tags)
        self.assertEqual(tags["h"].split(":").count("from"), 2)

    def test_times(self) -> None:
        """A signature may have an end, and no beginning."""
        policy = self.policy(timestamp=False, expires=Seconds(4e8))
        [tags] = self.signed(MESSAGE, policy)
        self.assertEqual(tags["x"], "2100000000")
        self.assertNotIn("t", tags)

    def test_headers(self) -> None:
        """Which fields are signed can be said; From always is, twice."""
        policy = self.policy(headers=["Subject", "X-a"], oversigned=["subject"])
        [tags] = self.signed(MESSAGE, policy)
        self.assertEqual(tags["h"], "from:from:subject:subject")

    def test_fixups(self) -> None:
        """What message-fixups adds and removes is as it leaves, in whatever order they stand."""
        message = b"Bcc: c@example.org\r\n" + MESSAGE
        for policies in ([MessageFixups(), self.policy()], [self.policy(), MessageFixups()]):
            [tags] = self.signed(message, *policies)
            self.assertEqual(tags["h"].split(":").count("date"), 2)
            self.assertNotIn(b"Bcc", self.kept)

    def test_prepended(self) -> None:
        """What other policies put in front is signed with the rest."""
        stamp = Stamp(b"Reply-To: r@example.com\r\nX-Checked: yes\r\n")
        [tags] = self.signed(MESSAGE, stamp, self.policy())
        self.assertEqual(tags["h"].split(":").count("reply-to"), 2)

    def test_rewritten(self) -> None:
        """What a policy before it has changed at the end of the message is signed as it leaves."""
        [tags] = self.signed(MESSAGE, Rewrites(), self.policy())
        self.assertIn("list-id", tags["h"])
        self.assertIn(b"Subject: [list] x", self.kept)
        self.assertTrue(self.kept.endswith(b"\r\n\r\nAnother \r\n\r\nbody\r\n\r\n"))

    def test_subdomains(self) -> None:
        """The closest domain above signs, unless that is switched off."""
        message = MESSAGE.replace(b"@example.com", b"@Lists.Sub.Example.com")
        below = self.key("s2", "sub.example.com")
        [tags] = self.signed(message, self.policy(self.key(), below))
        self.assertEqual(tags["d"], "sub.example.com")
        self.assertEqual(self.signed(message, self.policy(self.key(), subdomains=False)), [])
        self.assertEqual(self.causes(), ["no key for lists.sub.example.com"])

    def test_default(self) -> None:
        """A domain without a key of its own may be signed for by another one."""
        message = MESSAGE.replace(b"@example.com", b"@example.net")
        [tags] = self.signed(message, self.policy(default="example.com"))
        self.assertEqual(tags["d"], "example.com")

    def test_international(self) -> None:
        """The domain is compared and named in A-labels (RFC 8616)."""
        message = (
            "From: J\u00f6rg <j\u00f6rg@b\u00fccher.example>\r\n\r\nGr\u00fc\u00dfe\r\n".encode()
        )
        policy = self.policy(self.key("s1", "b\u00fccher.example"))
        [tags] = self.signed(message, policy, mail=" SMTPUTF8 BODY=8BITMIME")
        self.assertEqual(tags["d"], "xn--bcher-kva.example")

    def test_eightBit(self) -> None:
        """Octets above 127 are signed as they are."""
        message = b"From: a@example.com\r\nSubject: \xff\xe9\r\n\r\n\xfe\xff\r\n"
        self.assertEqual(len(self.signed(message, self.policy(), mail=" BODY=8BITMIME")), 1)

    def test_firstAuthor(self) -> None:
        """Of several mailboxes in From the first one counts."""
        message = MESSAGE.replace(b"Alice", b"Bob <b@example.com>, Carol")
        message = message.replace(b"a@example.com", b"c@example.net")
        self.assertEqual(len(self.signed(message, self.policy())), 1)

    def test_noBody(self) -> None:
        """A message without a body, or without the empty line before it, is signed too."""
        for message in (b"From: a@example.com\r\n\r\n", b"From: a@example.com\r\n"):
            self.assertEqual(len(self.signed(message, self.policy())), 1)

    def test_dots(self) -> None:
        """What is signed is the text, not its form in SMTP."""
        self.assertEqual(len(self.signed(MESSAGE + b".\r\n..x\r\n", self.policy())), 1)

    @settings(deadline=None, max_examples=25)
    @given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b".", b"word", b"\r\n\r\n"])))
    def test_anyBody(self, parts: list[bytes]) -> None:
        """Whatever the body is made of, dkimpy verifies it as it was kept."""
        body = b"".join(parts)
        body += b"" if body.endswith(b"\r\n") else b"\r\n"
        section = b"From: a@example.com\r\n\r\n"
        self.assertEqual(len(self.signed(section + body, self.policy())), 1)

    def test_chunks(self) -> None:
        """A message in chunks, cut anywhere, is signed as a whole (RFC 3030)."""
        policy = self.policy()
        for size in range(1, len(MESSAGE)):
            delivery = MemoryDelivery()
            talk = Conversation(
                makeSubmission(
                    delivery=delivery,
                    policies=[policy],
                    portal=None,
                    loginRequired=False,
                    requireTLS=False,
                )
            )
            talk.say("EHLO x.example")
            talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>")
            talk.send(b"BDAT %d\r\n%b" % (size, MESSAGE[:size]))
            said = talk.send(b"BDAT %d LAST\r\n%b" % (len(MESSAGE) - size, MESSAGE[size:]))
            self.assertTrue(said.startswith(b"250 "), said)
            [message] = delivery.messages
            verifier = dkim.DKIM(message.octets)
            self.assertTrue(verifier.verify(0, lambda name, timeout: self.records[name]))


class UnsignedTests(DKIMCase):
    """What is not signed, and what becomes of it."""

    BROKEN = (
        (b"Subject: x\r\n\r\n", "no From"),
        (b"From: a@example.com\r\nFrom: b@example.com\r\n\r\n", "more than one From"),
        (b"From: a@example.com\r\nno field\r\n\r\n", "a line of the header is malformed"),
        (b"From: a@@example.com\r\n\r\n", "From is malformed: a domain is missing"),
        (b"From: nobody:;\r\n\r\n", "From names nobody"),
        (b"From: a@example.net\r\n\r\n", "no key for example.net"),
        (b"From: a@[192.0.2.1]\r\n\r\n", "no key for [192.0.2.1]"),
        (b"From: a@example.com\r\n" + b"To: b@x.org\r\n" * 201, "too many header fields to sign"),
    )

    def test_pass(self) -> None:
        """By default it goes on without a signature, and an event says why."""
        policy = self.policy()
        for message, cause in self.BROKEN:
            self.logged.clear()
            self.assertEqual(self.signed(message, policy), [])
            self.assertEqual(self.causes(), [cause])

    def test_refuse(self) -> None:
        """With "refuse" it is 550 5.7.1."""
        policy = self.policy(unsigned="refuse")
        for message, cause in self.BROKEN:
            self.assertEqual(
                self.send(message, policy),
                "550 5.7.1 Message cannot be signed for the domain in From",
            )
            self.assertEqual(self.logged[-1]["cause"], cause)
        self.assertEqual(self.causes(), [])

    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(
            st.sampled_from([b"From", b"from ", b":", b" ", b"\t", b"\r\n", b"a@example.com", b"<"])
            | st.binary(max_size=3).filter(lambda octets: not set(octets) & set(b"\0\r\n")),
            max_size=15,
        )
    )
    def test_nonsense(self, parts: list[bytes]) -> None:
        """Whatever a header section is made of, a message is signed well, or goes on unsigned."""
        self.logged.clear()
        message = b"From: a@example.com\r\n" + b"".join(parts)
        policy = self.policy(self.key(), timestamp=False)
        said = self.send(message + b"\r\n\r\nx\r\n", policy)
        self.assertTrue(said.startswith("250 "), said)
        self.assertEqual(len(signatures(self.kept)) + len(self.causes()), 1)
        self.assertNotIn("policy-failed", self.names())

    def test_secondFromInFront(self) -> None:
        """A From that another policy puts in front is no author of a signed message."""
        self.assertEqual(
            self.signed(MESSAGE, Stamp(b"From: evil@example.com\r\n"), self.policy()), []
        )

    def test_noFileYet(self) -> None:
        """Keys that cannot be read are told of once; what is not to go unsigned is 451 4.3.0."""
        key = Key("example.com", "s1", self.directory / "missing")
        self.assertEqual(self.signed(MESSAGE, self.policy(key)), [])
        self.assertEqual(self.causes(), ["no key of example.com can be read"])
        said = self.send(MESSAGE, self.policy(key, unsigned="refuse"))
        self.assertTrue(said.startswith("451 4.3.0"), said)
        self.assertEqual(self.names().count("file-problem"), 2)

    def test_headerTooLarge(self) -> None:
        """A header section above the limit is 552, for nobody has seen all of it."""
        said = self.send(
            b"From: a@example.com\r\nX: " + b"x" * 500 + b"\r\n\r\n",
            self.policy(),
            limits=Limits(headerSize=400),
        )
        self.assertTrue(said.startswith("552 5.3.4"), said)

    def test_bug(self) -> None:
        """What goes wrong in the thread refuses with 451: nothing goes unsigned by accident."""
        policy = self.policy()
        self.patch(policy, "_run", lambda *arguments: maybeDeferred(lambda: 1 / 0))
        said = self.send(MESSAGE, policy)
        self.assertTrue(said.startswith("451 4.3.0"), said)
        self.assertEqual(self.delivery.messages, [])

    def test_clientGoes(self) -> None:
        """A client that goes while the signature is made leaves nothing behind."""
        policy, waiting = self.policy(), Deferred[Any]()
        self.patch(policy, "_run", lambda *arguments: waiting)
        delivery = MemoryDelivery()
        submission = makeSubmission(
            delivery=delivery, policies=[policy], portal=None, loginRequired=False, requireTLS=False
        )
        talk = Conversation(submission)
        talk.say("EHLO x.example")
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA")
        talk.send(MESSAGE + b".\r\n")
        talk.lose()
        self.assertEqual([each.state for each in delivery.begun], ["aborted"])
        self.assertEqual(len(policy._begun), 0)


class KeyTests(DKIMCase):
    """Key files that change."""

    def test_changed(self) -> None:
        """Another key in the file signs the next message."""
        key = self.key()
        policy = self.policy(key)
        self.assertEqual(len(self.signed(MESSAGE, policy)), 1)
        write(key.file, privateKey("ed25519", 1))
        self.records[b"s1._domainkey.example.com."] = recordText(
            readKeyFile(key.file).public
        ).encode()
        self.assertEqual(len(self.signed(MESSAGE, policy)), 1)
        self.assertEqual(self.names().count("file-read"), 2)

    def test_broken(self) -> None:
        """A file that is no key any more leaves the one before in use, and is told of once."""
        key = self.key()
        policy = self.policy(key)
        for octets, mode, said in (
            (b"nonsense", 0o600, "is no private key in PEM format"),
            (privateKey("ed25519", 1), 0o644, "may be read or written by others"),
        ):
            self.logged.clear()
            write(key.file, octets, mode)
            for _ in range(3):
                self.assertEqual(len(self.signed(MESSAGE, policy)), 1)
            [problem] = [each for each in self.logged if each["event"] == "file-problem"]
            self.assertIn(said, problem["problem"])
            self.assertIn("the key before stays in use", problem["problem"])
        key.file.unlink()
        self.assertEqual(len(self.signed(MESSAGE, policy)), 1)
        self.assertIn("cannot be read", self.logged[-2]["problem"])

    def test_reload(self) -> None:
        """A reload reads again at once, and says what is wrong."""
        key = self.key()
        policy = self.policy(key)
        os.utime(key.file, (1, 1))
        self.successResultOf(policy.reload())
        write(key.file, b"nonsense")
        self.logged.clear()
        self.successResultOf(policy.reload())
        self.assertEqual(self.names(), ["file-problem"])

    def test_oneOfTwo(self) -> None:
        """Where one of two keys cannot be read, the other one signs."""
        missing = Key("example.com", "s2", self.directory / "missing")
        [tags] = self.signed(MESSAGE, self.policy(missing, self.key()))
        self.assertEqual(tags["s"], "s1")

    def test_check(self) -> None:
        """The examination names each file that cannot be used."""
        good, missing = self.key(), Key("example.com", "s2", self.directory / "missing")
        wrong = Key("example.com", "s3", write(self.directory / "wrong", b"x"))
        self.assertEqual(
            DKIM(key=[good, missing, wrong]).check(),
            [
                f"{missing.file}: cannot be read: No such file or directory",
                f"{wrong.file}: is no private key in PEM format",
            ],
        )

    def test_beforeTheStart(self) -> None:
        """A policy that was not started signs as well, in the thread that asks."""
        self.assertEqual(len(self.signed(MESSAGE, DKIM(key=[self.key()]))), 1)

    def test_mistakes(self) -> None:
        """What cannot be meant is refused when the policy is made."""
        key = self.key()
        for mistake, said in (
            ({"key": []}, "has no key"),
            ({"key": [key, key]}, 'two keys are "s1" of example.com'),
            ({"key": [key], "default": "example.net"}, "there is no key for the default"),
            ({"key": [key], "headers": ["Received"]}, "is changed on the way"),
            ({"key": [key], "oversigned": ["a:b"]}, "is none"),
        ):
            with self.subTest(said):
                error = self.assertRaises(ValueError, DKIM, **mistake)
                self.assertIn(said, str(error))
        for words in (("", "s1"), ("example.com", ""), ("exa mple", "s1"), ("example.com", "a..b")):
            self.assertRaises(ValueError, Key, *words, Path("x"))
