"""Policy recipients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.envelope import Envelope, Recipient
from submitd.interfaces import IChecked, IConnectionPolicy, IRecipientPolicy, ISenderPolicy
from submitd.policies.recipients import Recipients
from submitd.realm import Submitter
from submitd.session import Session
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from submitd.wire.errors import Refused
from submitd.wire.proxy import Ends

OWN = Envelope("ID", ReversePath(Mailbox("a", "example.com")))


class RecipientsTests(SynchronousTestCase):
    """Recipients."""

    def write(self, text: str) -> Path:
        """A file of recipients."""
        path = Path(self.mktemp())
        path.write_text(text, "utf-8")
        return path

    def refusal(self, policy: Recipients, address: str) -> str:
        """Empty, or the start of what RCPT is answered with."""
        local, _, domain = address.rpartition("@")
        try:
            policy.validateTo(Session(), OWN, Recipient(Mailbox(local, domain)))
        except Refused as refused:
            return f"{refused.reply.code} {refused.reply.status}"
        return ""

    def nullAllowed(self, login: str | None, address: str, **keys: Any) -> bool:
        """Whether the null sender may be used."""
        session = Session(address, user=None if login is None else Submitter(login))
        try:
            Recipients(**keys).validateFrom(session, Envelope("ID", NULL_PATH))
        except Refused as refused:
            self.assertEqual(refused.reply.wire, b"553 5.7.1 Null sender not allowed\r\n")
            return False
        return True

    def test_interfaces(self) -> None:
        """It takes part when a connection comes in, at MAIL and at RCPT, and can be checked."""
        for interface in (IConnectionPolicy, ISenderPolicy, IRecipientPolicy, IChecked):
            self.assertTrue(verifyObject(interface, Recipients()))

    def test_nothing(self) -> None:
        """Without keys everything is allowed."""
        session = Session(maxRecipients=100)
        Recipients().connectionMade(session)
        self.assertEqual(session.maxRecipients, 100)
        self.assertEqual(self.refusal(Recipients(), "x@example.com"), "")
        self.assertTrue(self.nullAllowed(None, "192.0.2.1"))
        self.assertEqual(Recipients().check(), [])

    def test_most(self) -> None:
        """The number is lowered and never raised; no limit is the highest."""
        for before, most, after in ((100, 5, 5), (3, 5, 3), (0, 5, 5), (0, 0, 0), (7, 0, 7)):
            session = Session(maxRecipients=before)
            Recipients(most=most).connectionMade(session)
            self.assertEqual(session.maxRecipients, after)

    def test_refused(self) -> None:
        """Who is in the file is refused, and everybody else is taken."""
        policy = Recipients(
            refused=self.write("# x\nspam@example.com\n@bücher.example\n@*.example.org")
        )
        for address, said in (
            ("SPAM@Example.com", "550 5.7.1"),
            ("x@xn--bcher-kva.example", "550 5.7.1"),
            ("x@a.example.org", "550 5.7.1"),
            ("x@example.org", ""),
            ("ham@example.com", ""),
        ):
            self.assertEqual(self.refusal(policy, address), said, address)

    def test_allowed(self) -> None:
        """Only who is in the file is taken; who is in both is refused."""
        policy = Recipients(allowed=self.write("@example.com"), refused=self.write("x@example.com"))
        self.assertEqual(self.refusal(policy, "a@example.com"), "")
        self.assertEqual(self.refusal(policy, "x@example.com"), "550 5.7.1")
        self.assertEqual(self.refusal(policy, "a@example.org"), "550 5.7.1")

    def test_postmaster(self) -> None:
        """<Postmaster> without a domain (RFC 5321 4.5.1) is in no domain."""
        policy = Recipients(allowed=self.write("@example.com"))
        self.assertEqual(self.refusal(policy, "postmaster@"), "550 5.7.1")

    def test_neverRead(self) -> None:
        """A file that is not there refuses for now: not to know whom to refuse is to refuse."""
        for key in ("allowed", "refused"):
            policy = Recipients(**{key: Path(self.mktemp())})
            self.assertEqual(self.refusal(policy, "a@example.com"), "451 4.3.0")
            [finding] = policy.check()
            self.assertIn("cannot be read", finding)

    def test_changed(self) -> None:
        """A change counts at once; a file that goes leaves what it said."""
        path = self.write("a@example.com")
        policy = Recipients(refused=path)
        self.assertEqual(self.refusal(policy, "a@example.com"), "550 5.7.1")
        path.write_text("b@example.com")
        self.assertEqual(self.refusal(policy, "a@example.com"), "")
        path.unlink()
        self.assertEqual(self.refusal(policy, "b@example.com"), "550 5.7.1")

    def test_brokenLines(self) -> None:
        """Broken lines are named beforehand, as a warning, and the others work."""
        path = self.write("a@example.com b@example.com\nnonsense\nc@example.com\n")
        policy = Recipients(refused=path)
        self.assertEqual(policy.check(), [])
        self.assertEqual(
            [each.split(": ")[0] for each in policy.warnings()], [f"{path}:1", f"{path}:2"]
        )
        self.assertEqual(self.refusal(policy, "c@example.com"), "550 5.7.1")

    def test_null(self) -> None:
        """The null sender is for some logins and networks, where either is given."""
        logins = {"null_sender_logins": ("reports", "Daemon@Example.com")}
        self.assertTrue(self.nullAllowed("reports", "192.0.2.1", **logins))
        self.assertTrue(self.nullAllowed("daemon@example.com", "192.0.2.1", **logins))
        self.assertFalse(self.nullAllowed("Reports", "192.0.2.1", **logins))
        self.assertFalse(self.nullAllowed(None, "192.0.2.1", **logins))
        networks = {"null_sender_from": ("192.0.2.0/24", "unix")}
        self.assertTrue(self.nullAllowed("x", "192.0.2.1", **networks))
        self.assertTrue(self.nullAllowed(None, "", **networks))
        self.assertFalse(self.nullAllowed("x", "198.51.100.1", **networks))
        self.assertTrue(self.nullAllowed("reports", "198.51.100.1", **logins, **networks))
        self.assertFalse(self.nullAllowed("reports", "192.0.2.1", null_sender_logins=()))
        self.assertFalse(self.nullAllowed("reports", "192.0.2.1", null_sender_from=()))
        proxied = Session(direct=Ends("192.0.2.1", 1, "192.0.2.2", 2))
        with self.assertRaises(Refused):  # its proxy knows no address: that is no unix socket
            Recipients(null_sender_from=("unix",)).validateFrom(proxied, Envelope("ID", NULL_PATH))
        Recipients(null_sender_logins=()).validateFrom(Session(), OWN)
        self.assertRaises(ValueError, Recipients, null_sender_from=("nonsense",))
