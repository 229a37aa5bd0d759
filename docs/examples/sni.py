"""A certificate for each name of the server (SNI), and a policy that knows which was asked for.

In the configuration::

    [tls]
    certificate = "default.pem"
    private_key = "default.key"
    [tls.sni."mail.example.com"]
    certificate = "example.pem"
    private_key = "example.key"
    [[policy]]
    use = "sni:NamesOnly"
    names = ["mail.example.com"]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
from zope.interface import implementer

from submitd.interfaces import ISecurePolicy
from submitd.session import Session
from submitd.tls import CertificateSettings, ServerTLS, TLSSettings
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

Files = tuple[Path, Path]


def certificates(default: Files, named: Mapping[str, Files]) -> ServerTLS:
    """TLS with a certificate and key for each name, and for no name or another one."""
    certificate, key = default
    return ServerTLS(
        TLSSettings(
            certificate=certificate,
            private_key=key,
            sni={
                name: CertificateSettings(certificate=certificate, private_key=key)
                for name, (certificate, key) in named.items()
            },
        )
    )


@implementer(ISecurePolicy)
@attrs.frozen
class NamesOnly:
    """Turns away clients that asked for another name, or for none.

    :param names: as clients send them, in lower case.
    """

    names: tuple[str, ...] = attrs.field(
        metadata={"help": "The names that clients may ask for."}, converter=tuple
    )

    def handshakeCompleted(self, session: Session) -> None:
        """The name is data of the client's: it is compared, and goes nowhere else.

        :raise Refused: 554 5.7.0.
        """
        if (session.servername or "").lower() not in self.names:
            raise Refused(Reply(554, "5.7.0", "No such server here"), "server name of TLS")
