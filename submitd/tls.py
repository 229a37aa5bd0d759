"""TLS of the listeners: the server's contexts and the certificate of the demonstration.

A :class:`ServerTLS` is made once from :class:`TLSSettings` and hands its context to every
handshake, whichever transport makes it (``startTLS``, or TLS from the first octet).  What it
promises: nothing below TLS 1.2, no compression (CRIME), no renegotiation, session tickets without
a cache in memory, no buffers kept for idle connections, and, unless other ciphers are asked for,
forward secrecy and authenticated ciphers alone.

Files are read when the object is made, so before privileges are dropped and before any port opens.
It fails with :class:`TLSMistake`, which names the setting and says in a sentence what is wrong;
:func:`mistakes` finds all of them at once.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

Version = Literal["TLSv1.2", "TLSv1.3"]
PrivateKey = (
    rsa.RSAPrivateKey
    | dsa.DSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

VERSIONS: dict[str, int] = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}

# RFC 9325 4.2: ECDHE with an AEAD.  The suites of TLS 1.3 are all of that kind already.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

OPTIONS = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_SINGLE_ECDH_USE
)

DEMO_LIFETIME = datetime.timedelta(days=365)
DEMO_RENEWAL = datetime.timedelta(days=30)


class TLSMistake(ValueError):
    """A setting that no context can be made of.

    :param key: the name of the setting, such as ``"certificate"``.
    :param sentence: what is wrong with it.
    """

    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(f"{key}: {sentence}")
        self.key = key
        self.sentence = sentence


@attrs.frozen(kw_only=True)
class TLSSettings:
    """``[tls]``: the certificate, and which versions and ciphers are spoken."""

    certificate: Path = attrs.field(
        metadata={"help": "PEM file: the server's certificate, then the chain up to the root."}
    )
    private_key: Path = attrs.field(
        metadata={"help": "PEM file: the certificate's private key, without a passphrase."}
    )
    minimum_version: Version = attrs.field(
        default="TLSv1.2",
        metadata={"help": "The oldest version of TLS that is spoken (RFC 8996 forbids older)."},
    )
    maximum_version: Version = attrs.field(
        default="TLSv1.3", metadata={"help": "The newest version of TLS that is spoken."}
    )
    ciphers: str = attrs.field(
        default=CIPHERS,
        metadata={
            "help": "The cipher suites of TLS 1.2, as an OpenSSL cipher list; best first. "
            "The default is forward secret and authenticated (RFC 9325)."
        },
    )


@implementer(IOpenSSLContextFactory)
class ServerTLS:
    """The server's side of every handshake.

    :param settings: which files and versions.
    :raise TLSMistake: when no context can be made of them.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self.settings = settings
        self._context = _makeContext(settings)

    def getContext(self) -> SSL.Context:
        """The context for the next handshake; the same one for all, so that sessions resume."""
        return self._context


def mistakes(settings: TLSSettings) -> list[TLSMistake]:
    """All that is wrong with the settings, without changing or opening anything.

    :return: the mistakes in the order of the keys; empty when a context can be made.
    """
    found: list[TLSMistake] = []

    def attempt(step: Callable[[], object]) -> bool:
        try:
            step()
        except TLSMistake as mistake:
            found.append(mistake)
            return False
        return True

    files = [
        attempt(lambda: readCertificates(settings.certificate)),
        attempt(lambda: readPrivateKey(settings.private_key)),
    ]
    if all(files):
        attempt(lambda: _readPair(settings))
    attempt(lambda: _setVersions(SSL.Context(SSL.TLS_SERVER_METHOD), settings))
    attempt(lambda: _setCiphers(SSL.Context(SSL.TLS_SERVER_METHOD), settings))
    if not found:
        attempt(lambda: _makeContext(settings))
    return found


def readCertificates(path: Path) -> list[x509.Certificate]:
    """Read a certificate and its chain.

    :raise TLSMistake: when the file cannot be read or holds no certificate.
    """
    data = _readFile("certificate", path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise TLSMistake("certificate", f"{path} holds no certificate in PEM form") from None


def readPrivateKey(path: Path) -> PrivateKey:
    """Read a private key.

    :raise TLSMistake: when the file cannot be read, holds no key, or wants a passphrase.
    """
    data = _readFile("private_key", path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        # Left to OpenSSL, this would ask at the terminal and hang a daemon's start.
        raise TLSMistake(
            "private_key", f"the key in {path} has a passphrase; the service needs one without"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise TLSMistake("private_key", f"{path} holds no private key in PEM form") from None
    if not isinstance(key, PrivateKey):
        raise TLSMistake("private_key", f"the key in {path} is of a kind that cannot sign")
    return key


def _readFile(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TLSMistake(key, f"cannot read {path}: {error.strerror}") from None


def _readPair(settings: TLSSettings) -> tuple[list[x509.Certificate], PrivateKey]:
    certificates = readCertificates(settings.certificate)
    key = readPrivateKey(settings.private_key)
    if certificates[0].public_key() != key.public_key():
        raise TLSMistake(
            "private_key",
            f"the key in {settings.private_key} does not belong to the first certificate in"
            f" {settings.certificate}",
        )
    return certificates, key


def _setVersions(context: SSL.Context, settings: TLSSettings) -> None:
    low, high = VERSIONS[settings.minimum_version], VERSIONS[settings.maximum_version]
    if low > high:
        raise TLSMistake(
            "minimum_version",
            f"{settings.minimum_version} is newer than maximum_version,"
            f" {settings.maximum_version}; no client could connect",
        )
    context.set_min_proto_version(low)
    context.set_max_proto_version(high)


def _setCiphers(context: SSL.Context, settings: TLSSettings) -> None:
    try:
        context.set_cipher_list(settings.ciphers.encode("utf-8"))
    except SSL.Error:
        raise TLSMistake("ciphers", f'OpenSSL knows no cipher of "{settings.ciphers}"') from None


def _makeContext(settings: TLSSettings) -> SSL.Context:
    certificates, key = _readPair(settings)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _setVersions(context, settings)
    _setCiphers(context, settings)
    context.set_options(OPTIONS)
    # 34 KB less for each idle connection.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # Tickets hold the session at the client; a cache here would be memory that clients control.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # Without it, resuming fails as soon as client certificates are asked for.
    context.set_session_id(b"submitd")
    try:
        context.use_certificate(certificates[0])
        for issuer in certificates[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(key)
    except SSL.Error as error:
        # such as a key below the security level that the system sets for OpenSSL
        reason = error.args[0][0][2] if error.args and error.args[0] else "no reason given"
        raise TLSMistake("certificate", f"OpenSSL refuses it: {reason}") from None
    return context


def selfSigned(directory: Path, now: datetime.datetime) -> tuple[Path, Path]:
    """A certificate for this machine's own names, made when there is none; for the demonstration.

    :param directory: where it is kept, made if missing; the key can be read by its owner alone.
    :param now: the time, with its zone; a certificate with less than 30 days left is replaced.
    :return: the files of the certificate and of the key.
    :raise OSError: when the directory cannot be written.
    """
    certificate, key = directory / "certificate.pem", directory / "private_key.pem"
    if not _stillGood(certificate, key, now):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = ec.generate_private_key(ec.SECP256R1())
        _write(key, _pemOfKey(private))
        _write(certificate, _sign(private, now).public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _stillGood(certificate: Path, key: Path, now: datetime.datetime) -> bool:
    settings = TLSSettings(certificate=certificate, private_key=key)
    try:
        found, _ = _readPair(settings)
    except TLSMistake:
        return False
    return found[0].not_valid_before_utc <= now < found[0].not_valid_after_utc - DEMO_RENEWAL


def _pemOfKey(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _sign(private: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
    )
    public = private.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + DEMO_LIFETIME)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )


def _write(path: Path, data: bytes) -> None:
    # Made readable for the owner alone and then renamed: nobody sees half a key, or reads one.
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    fresh.rename(path)
