"""Certificates and keys in files: read, held against each other, kept when a new one is bad.

An :class:`Identity` is a certificate with its chain and its key, which have been seen to belong
together and to be taken by OpenSSL.  :class:`Kept` is what has been read of some files, and what
stays when they change to something that cannot be used.  :func:`trustOf` is whom we trust when it
is we who connect, and :func:`selfSigned` makes the certificate of the demonstration.

Everything that is wrong with a file is a :class:`TLSMistake`, which names the setting and says in a
sentence what it is, or for :func:`trustOf` that sentence alone; nothing else is raised for a file,
whatever stands in it.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate, trustRootFromCertificates

from submitd.files import Stamp, stampAt

PrivateKey = (
    rsa.RSAPrivateKey
    | dsa.DSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

# What cryptography raises for a certificate or key that it cannot make sense of.
UNREADABLE = (
    *(ValueError, UnsupportedAlgorithm, x509.InvalidVersion),
    *(x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)

DEMO_LIFETIME = datetime.timedelta(days=365)
DEMO_RENEWAL = datetime.timedelta(days=30)

# The longest time before its end at which a certificate is said to expire.
NOTICE = datetime.timedelta(days=30)

_MOMENT = "%Y-%m-%d %H:%M UTC"

T = TypeVar("T")


class TLSMistake(ValueError):
    """A setting that no context can be made of.

    :param key: the name of the setting, such as ``"certificate"``.
    :param sentence: what is wrong with it.
    """

    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(f"{key}: {sentence}")
        self.key = key
        self.sentence = sentence


@attrs.frozen
class Identity:
    """A certificate and its key.

    :param certificates: the server's own, then the chain.
    :param key: the key of the first.
    :param expires: when the first of them to expire does.
    """

    certificates: Sequence[x509.Certificate]
    key: PrivateKey = attrs.field(repr=False)
    expires: datetime.datetime

    @classmethod
    def read(
        cls, certificate: Path, privateKey: Path, section: str = "", ciphers: str = ""
    ) -> Identity:
        """Read both files.

        :param section: what stands before the names of the settings in a mistake.
        :param ciphers: an OpenSSL cipher list, whose ``@SECLEVEL`` says how weak a key may be.
        :raise TLSMistake: when one cannot be read, they do not belong together, or OpenSSL refuses
            them.
        """
        certificates = readCertificates(certificate, f"{section}certificate")
        key = readPrivateKey(privateKey, f"{section}private_key")
        try:
            # Only some of a certificate is looked at when it is loaded, the rest when it is asked.
            public, expires = certificates[0].public_key(), _earliest(certificates)
        except UNREADABLE:
            said = f"the certificate in {certificate} cannot be read"
            raise TLSMistake(f"{section}certificate", said) from None
        if public != key.public_key():
            raise TLSMistake(
                f"{section}private_key",
                f"the key in {privateKey} does not belong to the first certificate in"
                f" {certificate}",
            )
        identity = cls(certificates, key, expires)
        trial = SSL.Context(SSL.TLS_SERVER_METHOD)
        try:
            if ciphers:
                trial.set_cipher_list(ciphers.encode("utf-8"))
            identity.put(trial)
        except (SSL.Error, crypto.Error) as error:
            # such as a key below the security level that the system sets for OpenSSL
            raise TLSMistake(f"{section}certificate", _refused(error)) from None
        return identity

    def put(self, context: SSL.Context) -> None:
        """Have a context present it."""
        context.use_certificate(self.certificates[0])
        for issuer in self.certificates[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(self.key)


def _earliest(certificates: Sequence[x509.Certificate]) -> datetime.datetime:
    return min(each.not_valid_after_utc for each in certificates)


def outOfTime(certificates: Sequence[x509.Certificate], now: datetime.datetime) -> str:
    """What clients will say, or soon say, of the dates of a certificate and its chain.

    A renewal that has failed is noticed by nobody until the day when no client connects any more.
    Those that renew do so with a third of the time left, so the last tenth tells that it was not
    done, whether a certificate is made for days or for years.

    :param certificates: the server's own, then the chain.
    :param now: the time, with its zone.
    :return: a predicate for the file; empty when all is well.
    """
    for at, each in enumerate(certificates):
        begin, end = each.not_valid_before_utc, each.not_valid_after_utc
        which = "" if at == 0 else "has in its chain one that "
        if now < begin:
            return f"{which}is not valid before {begin:{_MOMENT}}; is the clock right?"
        if end <= now:
            return f"{which}has expired on {end:{_MOMENT}}"
        if end - now < min((end - begin) / 10, NOTICE):
            return f"{which}expires on {end:{_MOMENT}}"
    return ""


def lacksChain(certificates: Sequence[x509.Certificate]) -> str:
    """Whether the chain has been left out, as with the wrong one of two files (certbot's cert.pem).

    Public authorities sign by an intermediate certificate, and say where that is; browsers look for
    it there, mail programs do not.  A private one may sign itself, and clients know it.

    :param certificates: the server's own, then the chain.
    :return: a predicate for the file; empty when all is well.
    """
    if len(certificates) != 1:
        return ""
    [alone] = certificates
    try:
        where = alone.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return ""
    if not any(each.access_method == AuthorityInformationAccessOID.CA_ISSUERS for each in where):
        return ""
    return "has one certificate and no chain behind it, without which most clients refuse it"


def _refused(error: Exception) -> str:
    reason = error.args[0][0][2] if error.args and error.args[0] else "no reason given"
    return f"OpenSSL refuses it: {reason}"


class Kept(Generic[T]):
    """What has been read of some files, for as long as they cannot be read better.

    :param files: what is looked at for a change; one that is not there may come.
    :param read: reads them, or raises :class:`TLSMistake`.
    :raise TLSMistake: when they are bad from the beginning.
    :ivar value: what was read when they were good the last time.
    :ivar mistake: what is wrong with them now, or ``None``.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], T]) -> None:
        self._files = files
        self._read = read
        self.mistake: TLSMistake | None = None
        # Looked at before they are read: a change in between is then seen the next time.
        self._seen = self._look()
        self.value = read()

    def _look(self) -> list[Stamp | None]:
        return [stampAt(file) for file in self._files]

    def refresh(self, always: bool = False) -> bool:
        """Read the files again if they have changed, or could not be used the last time.

        A certificate and its key cannot be replaced in one step: between the two steps they do not
        belong together, the old ones stay, and the next call tries again.

        :param always: read them in any case.
        :return: whether there is something to say: another value, another mistake, or the same one
            to whoever has asked.
        """
        seen = self._look()
        if seen == self._seen and self.mistake is None and not always:
            return False
        self._seen = seen
        before = self.mistake
        try:
            self.value = self._read()
        except TLSMistake as mistake:
            self.mistake = mistake
            return always or str(before) != str(mistake)
        self.mistake = None
        return True


def readCertificates(path: Path, key: str = "certificate") -> list[x509.Certificate]:
    """Read a certificate and its chain, or a bundle of authorities.

    :param key: the setting, for the mistake.
    :raise TLSMistake: when the file cannot be read or holds no certificate.
    """
    data = _readFile(key, path)
    try:
        return x509.load_pem_x509_certificates(data)
    except UNREADABLE:
        raise TLSMistake(key, f"{path} holds no certificate in PEM form") from None


def readAuthorities(path: Path) -> list[x509.Certificate]:
    """Read the bundle ``client_ca``.

    :raise TLSMistake: when the file cannot be read, holds no certificate, or one that OpenSSL does
        not take.
    """
    authorities = readCertificates(path, "client_ca")
    trial = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        trust(trial, authorities)
    except (SSL.Error, crypto.Error) as error:
        raise TLSMistake("client_ca", _refused(error)) from None
    return authorities


def trust(context: SSL.Context, authorities: Sequence[x509.Certificate]) -> None:
    """Have a context verify clients with these authorities, and tell clients which they are."""
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)


def readPrivateKey(path: Path, key: str = "private_key") -> PrivateKey:
    """Read a private key.

    :param key: the setting, for the mistake.
    :raise TLSMistake: when the file cannot be read, holds no key, or wants a passphrase.
    """
    data = _readFile(key, path)
    try:
        private = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        # Left to OpenSSL, this would ask at the terminal and hang a daemon's start.
        raise TLSMistake(
            key, f"the key in {path} has a passphrase; the service needs one without"
        ) from None
    except UNREADABLE:
        raise TLSMistake(key, f"{path} holds no private key in PEM form") from None
    if not isinstance(private, PrivateKey):
        raise TLSMistake(key, f"the key in {path} is of a kind that cannot sign")
    return private


def _readFile(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TLSMistake(key, f"cannot read {path}: {error.strerror}") from None


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
    try:
        found = Identity.read(certificate, key).certificates[0]
    except TLSMistake:
        return False
    return found.not_valid_before_utc <= now < found.not_valid_after_utc - DEMO_RENEWAL


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


def trustOf(file: Path) -> Any:
    """What trusts the authorities of a PEM file, and no others, for connections of ours.

    :raise ValueError: when the file holds no certificate, cannot be read, or OpenSSL refuses one.
    """
    try:
        found = [crypto.X509.from_cryptography(each) for each in readCertificates(file)]
    except TLSMistake as mistake:
        raise ValueError(mistake.sentence) from None
    except crypto.Error as error:
        raise ValueError(f"{file}: {_refused(error)}") from None
    return trustRootFromCertificates(list(map(Certificate, found)))
