"""Our side of the TLS handshakes with next hops: whose certificates are good, and what for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    CertificateOptions,
    optionsForClientTLS,
    platformTrust,
)
from zope.interface import implementer

from submitd.certificates import trustOf


@implementer(IOpenSSLClientConnectionCreator)
class UnverifiedTLS:
    """TLS with whoever answers: better than none against those who only listen (RFC 7435).

    :param context: without verification.
    :param host: asked for by SNI, where it is a name that can be: an address is none, nor is all
        that DNS may give.
    """

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._name = b"" if _isAddress(host) else _encoded(host)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See ``IOpenSSLClientConnectionCreator``."""
        connection = SSL.Connection(self._context, None)
        if self._name:
            connection.set_tlsext_host_name(self._name)
        return connection


def _encoded(host: str) -> bytes:
    """A name as TLS has it (RFC 6066 3); empty where it cannot be had there."""
    try:
        name = host.encode("idna")
    except UnicodeError:
        return b""
    return b"" if b"\0" in name else name


def _isAddress(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


class ClientTLS:
    """Our side of the handshakes with next hops.

    :param authorities: a PEM file of the certificates to trust; ``None`` for the system's.
    :raise ValueError: when the file holds no certificate, or cannot be read.
    """

    def __init__(self, authorities: Path | None = None) -> None:
        self._trust: Any = platformTrust() if authorities is None else trustOf(authorities)
        self._verified: dict[str, Any] = {}
        self._unverified: SSL.Context | None = None

    def creator(self, host: str, verify: bool) -> Any:
        """What makes a TLS connection with a host.

        :param host: its name, which its certificate has to bear (RFC 9525) if it is verified.
        """
        if not verify:
            if self._unverified is None:
                self._unverified = CertificateOptions(verify=False).getContext()
            return UnverifiedTLS(self._unverified, host)
        if host not in self._verified:
            # Reading the system's authorities takes some 10 ms; most services have one smarthost.
            if len(self._verified) >= 64:
                self._verified.clear()
            self._verified[host] = optionsForClientTLS(host, self._trust)
        return self._verified[host]
