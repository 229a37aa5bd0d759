"""Policy require-tls."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.envelope import Envelope
from submitd.interfaces import ISecurePolicy, ISenderPolicy
from submitd.policies.requiretls import RequireTLS
from submitd.session import Session, TLSInfo
from submitd.wire.address import NULL_PATH
from submitd.wire.errors import Refused


class RequireTLSTests(SynchronousTestCase):
    """RequireTLS."""

    envelope = Envelope("ID", NULL_PATH)

    def refusal(self, policy: RequireTLS, session: Session) -> str:
        """The start of what MAIL is answered with."""
        refused = self.assertRaises(Refused, policy.validateFrom, session, self.envelope)
        return f"{refused.reply.code} {refused.reply.status}"

    def secure(self, version: str = "TLSv1.3", bits: int = 256) -> Session:
        """A session after a handshake."""
        return Session(secure=True, tls=TLSInfo(version, "CIPHER", bits))

    def test_interfaces(self) -> None:
        """It takes part in the stages it says."""
        self.assertTrue(verifyObject(ISecurePolicy, RequireTLS()))
        self.assertTrue(verifyObject(ISenderPolicy, RequireTLS()))

    def test_clear(self) -> None:
        """Mail in the clear is refused with the words of RFC 3207."""
        self.assertEqual(self.refusal(RequireTLS(), Session()), "530 5.7.0")

    def test_secure(self) -> None:
        """Mail over any TLS is taken when nothing more is asked for."""
        RequireTLS().handshakeCompleted(self.secure("TLSv1", 40))
        RequireTLS().validateFrom(self.secure("TLSv1", 40), self.envelope)

    def test_version(self) -> None:
        """A version below the minimum is refused at the handshake, and again at MAIL."""
        policy = RequireTLS(minimum_version="TLSv1.3")
        policy.handshakeCompleted(self.secure("TLSv1.3"))
        refused = self.assertRaises(Refused, policy.handshakeCompleted, self.secure("TLSv1.2"))
        self.assertEqual((refused.reply.code, refused.reply.status), (554, "5.7.0"))
        self.assertEqual(self.refusal(policy, self.secure("TLSv1.2")), "554 5.7.0")

    def test_unknownVersion(self) -> None:
        """A version that nobody has heard of does not pass for a high one."""
        policy = RequireTLS(minimum_version="TLSv1.2")
        self.assertEqual(self.refusal(policy, self.secure("SSLv3")), "554 5.7.0")

    def test_bits(self) -> None:
        """A cipher below the minimum is refused."""
        policy = RequireTLS(minimum_bits=256)
        policy.validateFrom(self.secure(bits=256), self.envelope)
        self.assertEqual(self.refusal(policy, self.secure(bits=128)), "554 5.7.0")

    def test_noFacts(self) -> None:
        """Without the facts of a handshake it fails closed."""
        self.assertEqual(self.refusal(RequireTLS(), Session(secure=True)), "530 5.7.0")

    def test_wrongKeys(self) -> None:
        """Values that make no sense are refused when it is made."""
        with self.assertRaises(ValueError):
            RequireTLS(minimum_version="TLSv9")  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            RequireTLS(minimum_bits=-1)
