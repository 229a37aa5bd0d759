"""``certificates:FILE``: whose certificates the clients have, for EXTERNAL.

One ``name:mark`` per line; a user may have several, and a mark several users.  A mark is one of:

- ``sha256:`` and the certificate's fingerprint, as ``openssl x509 -fingerprint -sha256`` prints it,
- ``email:`` or ``dns:`` and a name in its subjectAltName (RFC 5280 4.2.1.6),
- ``subject:`` and its whole subject, as RFC 4514 writes it: ``CN=printer,O=Example``.

All but the first believe whatever the authorities of ``client_ca`` sign.  A client that does not
say who it wants to be is the one user that its certificate has; where it has several, it must.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, execute
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId, foldName
from submitd.checkers.userfile import BadLine, FileChecker, UserFile
from submitd.interfaces import ICertificateLogin
from submitd.session import TLSInfo

_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}")


@attrs.frozen
class Mark:
    """What a certificate is known by.

    :param kind: ``sha256``, ``email``, ``dns`` or ``subject``.
    :param value: in the form in which two of a kind can be compared.
    """

    kind: str
    value: str


def parseMark(value: bytes) -> Mark:
    """The mark that a line has.

    :raise BadLine: when it is none.
    """
    try:
        kind, _, text = value.decode("utf-8").strip().partition(":")
    except UnicodeDecodeError:
        raise BadLine("not UTF-8") from None
    if kind not in ("sha256", "email", "dns", "subject"):
        raise BadLine("the mark must begin with sha256:, email:, dns: or subject:")
    if kind == "sha256" and not _FINGERPRINT.fullmatch(text):
        raise BadLine("the fingerprint is not 64 hexadecimal digits")
    if not text:
        raise BadLine(f"nothing behind {kind}:")
    return _mark(kind, text)


def _mark(kind: str, text: str) -> Mark:
    if kind == "sha256":
        text = text.replace(":", "").lower()
    elif kind == "dns":
        text = text.lower()
    elif kind == "email":
        local, _, domain = text.rpartition("@")
        text = f"{local}@{domain.lower()}"
    return Mark(kind, text)


def marksOf(tls: TLSInfo) -> set[Mark]:
    """All that the client's certificate can be known by."""
    marks = {_mark("sha256", tls.peerFingerprint), _mark("subject", tls.peerSubject)}
    marks.update(_mark("email", each) for each in tls.peerEmails)
    marks.update(_mark("dns", each) for each in tls.peerNames)
    return marks


@implementer(ICredentialsChecker)
class CertificatesChecker(FileChecker[Mark]):
    """Checks whose certificate it is against a file, as the file is now.

    :param path: the file.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (ICertificateLogin,)

    def __init__(self, path: str) -> None:
        super().__init__(UserFile(path, parseMark, several=True))
        self._indexed = -1
        self._owners: dict[Mark, list[bytes]] = {}

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as the file writes it.

        :raise UnauthorizedLogin: (the Deferred) when the certificate is nobody's, not of the one
            that was named, or of several where none was.
        :raise LoginUnavailable: (the Deferred) when the file was never usable.
        """
        return execute(self._find, credentials.username, credentials.tls)

    def _find(self, username: bytes, tls: TLSInfo) -> bytes:
        names = self._namesOf(tls)
        if username:
            folded = foldName(username)
            names = {name for name in names if foldName(name) == folded}
        if not names:
            raise UnauthorizedLogin(f"not the certificate of such a user: {tls.peerSubject}")
        if len(names) > 1:
            raise UnauthorizedLogin(f"the certificate of several users: {tls.peerSubject}")
        # The handshake has seen to that; but a session of then may have been resumed.
        if tls.peerCertificate.has_expired():
            raise UnauthorizedLogin(f"the certificate has expired: {tls.peerSubject}")
        return names.pop()

    def _namesOf(self, tls: TLSInfo) -> set[bytes]:
        # In this order: a file that changes in between is indexed again by the next login.
        revision, accounts = self.revision(), self._file.accounts()
        if revision != self._indexed:
            self._indexed = revision
            self._owners = {}
            for account in accounts.values():
                for mark in account.entries:
                    self._owners.setdefault(mark, []).append(account.name)
        return {name for mark in marksOf(tls) for name in self._owners.get(mark, ())}
