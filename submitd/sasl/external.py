"""EXTERNAL (RFC 4422 appendix A): who the client is, TLS has shown by the client's certificate.

The one response is whom the client wants to be, or empty for whose certificate it is.  It is
offered where a certificate was verified (``client_certificate``, ``client_ca``), and nowhere else.
"""

from __future__ import annotations

import attrs
from zope.interface import implementer

from submitd.interfaces import ICertificateLogin, IExchange, IMechanism, ITLSMechanism
from submitd.sasl.credentials import CertificateLogin, checkName
from submitd.session import TLSInfo


@implementer(IMechanism, ITLSMechanism)
@attrs.frozen
class External:
    """The mechanism EXTERNAL.

    :param tls: of the connection, once it is for one.
    """

    name = "EXTERNAL"
    credentialsInterface = ICertificateLogin
    needsTLS = True

    tls: TLSInfo | None = None

    def over(self, tls: TLSInfo | None) -> External | None:
        """Itself with what the handshake agreed on, where that has a verified certificate."""
        return External(tls) if tls is not None and tls.verified else None

    def server(self, hostname: str) -> ExternalExchange:
        """A fresh exchange; the host name plays no part."""
        assert self.tls is not None
        return ExternalExchange(self.tls)


@implementer(IExchange)
@attrs.frozen
class ExternalExchange:
    """One response, with AUTH itself or after an empty challenge."""

    _tls: TLSInfo

    def respond(self, response: bytes | None) -> bytes | CertificateLogin:
        """The credentials, or the empty challenge where AUTH brought no response."""
        if response is None:
            return b""
        return CertificateLogin(checkName(response) if response else b"", self._tls)
