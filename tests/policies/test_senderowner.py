"""Policy sender-owner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd import events
from submitd.envelope import Envelope
from submitd.interfaces import IChecked, ISenderPolicy
from submitd.policies.senderowner import SenderOwner, readOwners
from submitd.realm import Submitter
from submitd.session import Session
from submitd.wire.address import Mailbox, ReversePath
from submitd.wire.errors import Refused

EXAMPLE = Path(__file__).parents[2] / "etc" / "owners.example"


class SenderOwnerTestCase(SynchronousTestCase):
    """Has a file of owners, and the events that were emitted."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.logged: list[dict[str, Any]] = []
        log = Logger(namespace="submitd", observer=self.logged.append)
        self.patch(events, "log", log)

    def write(self, text: str | bytes) -> None:
        """A new file of owners, in place of the old one."""
        data = text.encode() if isinstance(text, str) else text
        new = self.path.with_suffix(".new")
        new.write_bytes(data)
        os.replace(new, self.path)

    def allowed(self, policy: SenderOwner, login: str | None, sender: str) -> bool:
        """Whether MAIL is accepted; a refusal must be the one that tells nothing."""
        session = Session(user=None if login is None else Submitter(login))
        local, _, domain = sender.rpartition("@")
        path = ReversePath(Mailbox(local, domain) if sender else None)
        try:
            policy.validateFrom(session, Envelope("ID", path))
        except Refused as refused:
            expected = b"553 5.7.1 Sender address rejected: not owned by user\r\n"
            if login is None:
                expected = b"530 5.7.0 Authentication required\r\n"
            self.assertEqual(refused.reply.wire, expected)
            return False
        return True


class LoginTests(SenderOwnerTestCase):
    """Without a file."""

    def test_interfaces(self) -> None:
        """It takes part in MAIL and can be checked."""
        self.assertTrue(verifyObject(ISenderPolicy, SenderOwner()))
        self.assertTrue(verifyObject(IChecked, SenderOwner()))
        self.assertEqual(SenderOwner().check(), [])

    def test_own(self) -> None:
        """A login that is an address owns it, and no other."""
        policy = SenderOwner()
        self.assertTrue(self.allowed(policy, "alice@example.com", "Alice@EXAMPLE.com"))
        self.assertFalse(self.allowed(policy, "alice@example.com", "bob@example.com"))
        self.assertFalse(self.allowed(policy, "alice", "alice@example.com"))

    def test_noLogin(self) -> None:
        """Without a login nothing is owned."""
        self.assertFalse(self.allowed(SenderOwner(), None, "alice@example.com"))
        self.assertFalse(self.allowed(SenderOwner(allow_null=True), None, ""))

    def test_null(self) -> None:
        """The null sender is refused unless the key allows it."""
        self.assertFalse(self.allowed(SenderOwner(), "alice@example.com", ""))
        self.assertTrue(self.allowed(SenderOwner(allow_null=True), "alice@example.com", ""))


class FileTests(SenderOwnerTestCase):
    """With a file."""

    def test_lines(self) -> None:
        """A line gives an address to each of its logins; several lines add up."""
        self.write("# comment\n\ninfo@example.com alice  bob@example.org\r\nINFO@example.com eve\n")
        policy = SenderOwner(map=self.path)
        for login in ("alice", "bob@example.org", "BOB@Example.ORG", "eve"):
            self.assertTrue(self.allowed(policy, login, "Info@Example.com"), login)
        self.assertFalse(self.allowed(policy, "mallory", "info@example.com"))
        self.assertFalse(self.allowed(policy, "alice", "sales@example.com"))
        [event] = self.logged
        self.assertEqual(event["log_text"], f"file read: file={self.path} entries=1")

    def test_plainLoginsKeepCase(self) -> None:
        """Two logins that differ in case may be two persons."""
        self.write("info@example.com alice\n")
        self.assertFalse(self.allowed(SenderOwner(map=self.path), "Alice", "info@example.com"))

    def test_domain(self) -> None:
        """@domain stands for all its addresses, not for those of domains below it."""
        self.write("@example.com alice\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "anything@EXAMPLE.com"))
        self.assertFalse(self.allowed(policy, "alice", "x@sub.example.com"))
        self.assertFalse(self.allowed(policy, "alice", "x@notexample.com"))

    def test_emptyLocalPart(self) -> None:
        """The address with an empty local part is one address, and no whole domain."""
        self.write('""@example.com alice\n')
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "@example.com"))
        self.assertFalse(self.allowed(policy, "alice", "bob@example.com"))

    def test_internationalDomains(self) -> None:
        """A domain in A-labels and in U-labels is the same domain."""
        self.write("info@xn--bcher-kva.example alice\n@bücher.example bob\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "info@Bücher.example"))
        self.assertTrue(self.allowed(policy, "bob", "x@XN--bcher-kva.example"))

    def test_example(self) -> None:
        """The example in etc/ has no broken line."""
        owners, problems = readOwners(EXAMPLE)
        self.assertEqual(problems, [])
        self.assertTrue(owners.owns("listmaster", Mailbox("x", "lists.example.com")))

    def test_byteOrderMark(self) -> None:
        """A mark that some editors write belongs to no address."""
        self.write(b"\xef\xbb\xbfinfo@example.com alice\n")
        self.assertTrue(self.allowed(SenderOwner(map=self.path), "alice", "info@example.com"))

    def test_brokenLines(self) -> None:
        """Broken lines are named with file and number, in the log and at a check; others work."""
        self.write(
            b"nonsense alice\ninfo@example.com\n@ bob\na@b.example \xff\nok@example.com alice\n"
        )
        policy = SenderOwner(map=self.path)
        findings = policy.check()
        self.assertEqual(
            [finding.split(": ")[0] for finding in findings],
            [f"{self.path}:{line}" for line in (1, 2, 3, 4)],
        )
        self.assertTrue(self.allowed(policy, "alice", "ok@example.com"))
        named = [each["line"] for each in self.logged if each["event"] == "file-problem"]
        self.assertEqual(named, [1, 2, 3, 4])

    def test_changed(self) -> None:
        """A change counts from the next message on, and an unchanged file is not read again."""
        self.write("info@example.com alice\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "info@example.com"))
        self.assertTrue(self.allowed(policy, "alice", "info@example.com"))
        self.assertEqual(len(self.logged), 1)
        self.write("info@example.com bobby\n")
        self.assertFalse(self.allowed(policy, "alice", "info@example.com"))
        self.assertTrue(self.allowed(policy, "bobby", "info@example.com"))

    def test_unreadable(self) -> None:
        """When the file goes, what it said stays, and one line says so until it is back."""
        self.write("info@example.com alice\n")
        policy = SenderOwner(map=self.path)
        self.assertTrue(self.allowed(policy, "alice", "info@example.com"))
        self.path.unlink()
        for _ in range(3):
            self.assertTrue(self.allowed(policy, "alice", "info@example.com"))
        self.assertEqual([each["event"] for each in self.logged], ["file-read", "file-problem"])
        self.assertIn("No such file", self.logged[1]["problem"])
        self.write("info@example.com bob\n")
        self.assertFalse(self.allowed(policy, "alice", "info@example.com"))
        self.assertEqual(len(self.logged), 3)

    def test_neverRead(self) -> None:
        """A file that was never there gives nothing to anybody, and a check says so."""
        policy = SenderOwner(map=self.path)
        self.assertFalse(self.allowed(policy, "alice", "info@example.com"))
        self.assertTrue(self.allowed(policy, "a@example.com", "a@example.com"))
        [finding] = policy.check()
        self.assertIn(f"{self.path}: cannot be read", finding)
