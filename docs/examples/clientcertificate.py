"""Client certificates: required by TLS, and looked at by a policy.

In the configuration::

    [tls]
    certificate = "certificate.pem"
    private_key = "private_key.pem"
    client_certificate = "require"
    client_ca = "authority.pem"
    [[policy]]
    use = "clientcertificate:KnownClients"
    names = ["printer"]
"""

from __future__ import annotations

from pathlib import Path

import attrs
from cryptography.x509.oid import NameOID
from zope.interface import implementer

from submitd.interfaces import ISecurePolicy
from submitd.session import Session
from submitd.tls import ServerTLS, TLSSettings
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

NOT_KNOWN = Reply(554, "5.7.0", "Client certificate not accepted")


def requiringCertificates(certificate: Path, key: Path, authority: Path) -> ServerTLS:
    """TLS that a client without a certificate of that authority does not get through."""
    return ServerTLS(
        TLSSettings(
            certificate=certificate,
            private_key=key,
            client_certificate="require",
            client_ca=authority,
        )
    )


@implementer(ISecurePolicy)
@attrs.frozen
class KnownClients:
    """Lets clients in by the common name of their certificate.

    :param names: the common names.
    """

    names: tuple[str, ...] = attrs.field(
        metadata={"help": "The common names of the certificates."}, converter=tuple
    )

    def handshakeCompleted(self, session: Session) -> None:
        """The certificate has been verified by TLS; whose it is, is ours to say.

        :raise Refused: 554 5.7.0.
        """
        tls = session.tls
        if tls is None or tls.peerCertificate is None or not tls.verified:
            raise Refused(NOT_KNOWN, "no verified certificate")
        subject = tls.peerCertificate.to_cryptography().subject
        names = [each.value for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if not set(names).intersection(self.names):
            raise Refused(NOT_KNOWN, f"certificate of {tls.peerSubject}")
        # For the stages that follow.
        session.notes["client-certificate"] = names[0]
