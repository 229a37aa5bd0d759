"""Policy ``require-tls``: no mail without TLS, or without TLS that is good enough.

Without TLS, MAIL is refused with 530 5.7.0 (RFC 3207 4).  With a protocol version or a cipher below
the stated ones the client is refused after the handshake, and again at MAIL, with 554 5.7.0
(RFC 3207 4.1).  A version this module does not know counts as too low.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.interfaces import ISecurePolicy, ISenderPolicy
from submitd.session import Session
from submitd.wire.errors import Refused
from submitd.wire.reply import TLS_REQUIRED, Reply

# RFC 3207 4.1: "554 Command refused due to lack of security"
NOT_SECURE_ENOUGH = Reply(554, "5.7.0", "Command refused due to lack of security")

_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


@implementer(ISecurePolicy, ISenderPolicy)
@attrs.define(eq=False)
class RequireTLS:
    """Refuses mail that does not come over TLS.

    :param minimum_version: lowest version of the protocol to take; ``None`` for any.
    :param minimum_bits: lowest strength of the cipher to take, in bits.
    """

    name: ClassVar[str] = "require-tls"

    minimum_version: Literal["TLSv1.2", "TLSv1.3"] | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.in_(_VERSIONS)),
        metadata={"help": "Lowest version of TLS that may send mail."},
    )
    minimum_bits: int = attrs.field(
        default=0,
        validator=attrs.validators.ge(0),
        metadata={"help": "Lowest strength of the cipher that may send mail, in bits."},
    )

    def handshakeCompleted(self, session: Session) -> None:
        """Refuse a handshake that agreed on too little.

        :raise Refused: 554 5.7.0.
        """
        tls = session.tls
        if tls is None:
            raise Refused(TLS_REQUIRED, "nothing is known about the handshake")
        least = self.minimum_version
        if least is not None and _rank(tls.version) < _rank(least):
            raise Refused(NOT_SECURE_ENOUGH, f"{tls.version} is below {least}")
        if tls.bits < self.minimum_bits:
            raise Refused(NOT_SECURE_ENOUGH, f"{tls.bits} bits are below {self.minimum_bits}")

    def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """Refuse mail in the clear.

        :raise Refused: 530 5.7.0 without TLS, 554 5.7.0 when it is not good enough.
        """
        if not session.secure:
            raise Refused(TLS_REQUIRED)
        self.handshakeCompleted(session)


def _rank(version: str) -> int:
    """Its place among the versions; -1 for one that is not known."""
    return _VERSIONS.index(version) if version in _VERSIONS else -1
