"""What one TLS connection has and no other (RFC 5056), for logins that hold in it alone.

It is worked out when somebody asks for it, since few do.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from functools import partial

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL


def bindingOf(connection: SSL.Connection) -> Callable[[str], bytes | None]:
    """What gives a connection's bindings, by the names of their kinds.

    It does not keep the connection: with Twisted's own transport they would hold each other.
    """
    return partial(_binding, weakref.ref(connection))


def _binding(reference: weakref.ref[SSL.Connection], kind: str) -> bytes | None:
    connection, make = reference(), KINDS.get(kind)
    return None if connection is None or make is None else make(connection)


def exported(connection: SSL.Connection) -> bytes | None:
    """``tls-exporter`` (RFC 9266): key material that only the two ends have.

    Of TLS 1.3 alone: before that, two connections may be made to have the same.
    """
    if connection.get_protocol_version_name() != "TLSv1.3":
        return None
    return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")


def serverEndPoint(connection: SSL.Connection) -> bytes | None:
    """``tls-server-end-point`` (RFC 5929 4): the digest of the certificate that we have shown.

    It is made with the hash of the certificate's own signature, or with SHA-256 where that is too
    weak; where the signature has none (Ed25519), nobody has said what to take.  A client that
    resumes a session of before a change of the certificate knows the old one, and cannot be bound
    by this kind until it begins a new session.
    """
    shown = connection.get_certificate()
    if shown is None:
        return None
    certificate: x509.Certificate = shown.to_cryptography()
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(name, certificate.public_bytes(Encoding.DER)).digest()


KINDS: dict[str, Callable[[SSL.Connection], bytes | None]] = {
    "tls-exporter": exported,
    "tls-server-end-point": serverEndPoint,
}
