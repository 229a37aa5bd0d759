"""What is known about one connection.

One :class:`Session` lives as long as its connection.  The dialogue fills it in; policies, checkers
and deliveries read it.  It holds no transport and can say nothing to the client.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from submitd.wire.network import addressLiteral
from submitd.wire.proxy import Ends

if TYPE_CHECKING:
    from submitd.envelope import Envelope
    from submitd.interfaces import ISubmitter


# The mechanism of a login that nobody has said: the client's network has it (byaddress.py).
BY_ADDRESS = "ADDRESS"

# The number of this process among the workers of one service, where there are several.
_worker: int | None = None

# Two digits of base32hex (RFC 4648 7) for each number of ten bits.
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]


def numberIds(worker: int) -> None:
    """From now on, have no id that another worker could have at the same time.

    :param worker: below 256.
    """
    global _worker
    _worker = worker


def newId() -> str:
    """A session's id: 14 characters of base32hex, 53 bits of time (1.024 us) and 17 random ones.

    Unique in the logs; and they grow with time, so that a queue whose keys begin with them appends
    its rows, whatever its length.  Of several workers, 8 of the random bits are each one's number.
    """
    last = int.from_bytes(os.urandom(3), "big") >> 7
    if _worker is not None:
        last = _worker << 9 | last & 0x1FF
    number = time.time_ns() >> 10 << 17 | last
    return "".join([_PAIRS[number >> shift & 0x3FF] for shift in range(60, -1, -10)])


@attrs.frozen
class TLSInfo:
    """What a TLS handshake agreed on.

    :param version: such as ``"TLSv1.3"``.
    :param cipher: OpenSSL's name of the cipher suite.
    :param bits: the strength of the cipher, in bits.
    :param serverName: the name the client asked for by SNI (RFC 6066 3), or ``None``.
    :param peerCertificate: the client's certificate (an ``OpenSSL.crypto.X509``), or ``None``.
    :param resumed: whether an earlier session was resumed.  What was verified then is not verified
        again.
    :param verified: whether the client's certificate was verified with ``client_ca``; with
        ``client_certificate = "request"`` there may be one that was not, and says nothing.
    :param channelBinding: gives what this connection alone has, by the name of its kind
        (``"tls-exporter"``, ``"tls-server-end-point"``; RFC 5056), as bytes, or ``None`` where it
        cannot be had, as once the connection is gone; ``None`` where nobody knows.

    What a certificate says is told by the properties; one that was not verified may say anything,
    and what cannot be read in it is empty.
    """

    version: str
    cipher: str
    bits: int = 0
    serverName: str | None = None
    peerCertificate: Any = None
    resumed: bool = False
    verified: bool = False
    channelBinding: Callable[[str], bytes | None] | None = attrs.field(
        default=None, eq=False, repr=False
    )

    @property
    def _peer(self) -> x509.Certificate | None:
        if self.peerCertificate is None:
            return None
        try:
            certificate: x509.Certificate = self.peerCertificate.to_cryptography()
        except (ValueError, x509.InvalidVersion):
            return None
        return certificate

    @property
    def peerSubject(self) -> str:
        """The subject of the client's certificate (RFC 4514), such as ``"CN=printer,O=Example"``.

        Empty where there is none.
        """
        try:
            return "" if self._peer is None else self._peer.subject.rfc4514_string()
        except ValueError:
            return ""

    @property
    def peerEmails(self) -> tuple[str, ...]:
        """The addresses in the client's certificate: rfc822Name of subjectAltName (RFC 5280)."""
        return tuple(_alternativeNames(self._peer, x509.RFC822Name))

    @property
    def peerNames(self) -> tuple[str, ...]:
        """The host names in the client's certificate: dNSName of subjectAltName."""
        return tuple(_alternativeNames(self._peer, x509.DNSName))

    @property
    def peerFingerprint(self) -> str:
        """SHA-256 of the client's certificate, 64 hexadecimal digits in lower case; or empty."""
        return "" if self._peer is None else self._peer.fingerprint(hashes.SHA256()).hex()


# Why extensions of a certificate cannot be read.
_STRANGE = (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError)


def _alternativeNames(certificate: x509.Certificate | None, kind: type[Any]) -> list[str]:
    if certificate is None:
        return []
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_STRANGE):
        return []
    return names.get_values_for_type(kind)


@attrs.define(eq=False)
class Session:
    """One connection, as policies see it.

    :param remoteAddress: the client's address, the real one behind a PROXY header or XCLIENT; empty
        for a unix socket.
    :param localAddress: the address it came in on.
    :ivar proxyAddress: the proxy whose PROXY header told these; empty for none.
    :ivar direct: the connection's own ends, once XCLIENT's stand in their place, or ``None``.
    :ivar secure: whether TLS is active.
    :ivar tls: what the handshake agreed on, or ``None``.
    :ivar clientHostname: the verified name of the address, or its literal (``[192.0.2.1]``).
    :ivar heloName: what the client calls itself; it may be anything that the grammar allows.
    :ivar openingCommand: ``"EHLO"``, ``"HELO"``, ``"LHLO"``, or empty before it.
    :ivar user: the avatar, once logged in.
    :ivar mechanism: how: by which SASL mechanism, ``"XCLIENT"``, or ``"ADDRESS"`` where the
        client's network has the login.
    :ivar mechanismTried: how somebody tries to log in, or did last, whatever came of it; for the
        policies that are asked about the login itself.
    :ivar maxRecipients: how many recipients a message may have, 0 for no limit; a policy may lower
        it, and LIMITS shows it.
    :ivar maxTransactions: how many mail transactions may be begun, in the same way.
    :ivar rcptMax: what LIMITS shows in place of ``maxRecipients`` where it is less, 0 for nothing:
        a policy that counts over several connections says here how much room there is, and refuses
        in its own words what goes beyond.
    :ivar mailMax: what LIMITS shows in place of ``maxTransactions``, in the same way.
    :ivar transactions: how many mail transactions have been begun.
    :ivar envelope: the mail transaction in progress, or ``None``.
    :ivar xclient: what a trusted proxy said with XCLIENT, by upper-case name.
    :ivar xforward: what a trusted proxy said with XFORWARD, by upper-case name.
    :ivar notes: a place for policies to keep their own facts, by their name.
    :ivar notesAtGreeting: what connection policies had noted before the client said anything.
    :ivar directNotes: what they had noted of the connection's own ends, once XCLIENT's stand in
        their place.
    :ivar waits: the last policies that took their time, and how long, in seconds.
    """

    remoteAddress: str = ""
    remotePort: int = 0
    localAddress: str = ""
    localPort: int = 0
    id: str = attrs.field(factory=newId)
    secure: bool = False
    tls: TLSInfo | None = None
    clientHostname: str = attrs.field(
        default=attrs.Factory(lambda self: addressLiteral(self.remoteAddress), takes_self=True)
    )
    heloName: str = ""
    openingCommand: str = ""
    user: ISubmitter | None = None
    mechanism: str = ""
    mechanismTried: str = ""
    maxRecipients: int = 0
    maxTransactions: int = 0
    rcptMax: int = 0
    mailMax: int = 0
    transactions: int = 0
    commands: int = 0
    unrecognized: int = 0
    loginFailures: int = 0
    envelope: Envelope | None = None
    xclient: dict[str, str] = attrs.field(factory=dict)
    xforward: dict[str, str] = attrs.field(factory=dict)
    proxyAddress: str = ""
    direct: Ends | None = None
    notes: dict[str, Any] = attrs.field(factory=dict)
    notesAtGreeting: dict[str, Any] = attrs.field(factory=dict)
    directNotes: dict[str, Any] = attrs.field(factory=dict)
    waits: tuple[tuple[str, float], ...] = ()

    @property
    def servername(self) -> str | None:
        """The name the client asked for by SNI, or ``None``."""
        return self.tls.serverName if self.tls else None

    @property
    def transmissionType(self) -> str:
        """The protocol word of the Received field (RFC 3848, RFC 6531 4.3), such as ``ESMTPSA``.

        The A is for AUTH, and not for a login that the client's network has.
        """
        if self.openingCommand == "HELO":
            return "SMTP"
        word = "LMTP" if self.openingCommand == "LHLO" else "ESMTP"
        if self.envelope is not None and self.envelope.smtpUtf8:
            word = "UTF8LMTP" if word == "LMTP" else "UTF8SMTP"
        if self.secure:
            word += "S"
        return word if self.user is None or self.mechanism == BY_ADDRESS else word + "A"

    @property
    def ends(self) -> Ends:
        """Both ends of the connection."""
        return Ends(self.remoteAddress, self.remotePort, self.localAddress, self.localPort)

    @ends.setter
    def ends(self, ends: Ends) -> None:
        self.remoteAddress, self.remotePort = ends.remoteAddress, ends.remotePort
        self.localAddress, self.localPort = ends.localAddress, ends.localPort
        self.clientHostname = addressLiteral(ends.remoteAddress)

    @property
    def peerAddress(self) -> str:
        """Who is at the other end of the connection, whatever XCLIENT has said."""
        return self.remoteAddress if self.direct is None else self.direct.remoteAddress

    def forget(self) -> None:
        """Drop all that the client said, for STARTTLS (RFC 3207 4.2).

        Counters stay, and what policies noted of the connection before the client said anything.
        """
        self.heloName = ""
        self.openingCommand = ""
        self.user = None
        self.mechanism = ""
        self.mechanismTried = ""
        self.envelope = None
        self.rcptMax = 0
        self.mailMax = 0
        self.xforward = {}
        if self.direct is not None:
            self.xclient = {}
            self.ends, self.direct = self.direct, None
            self.notesAtGreeting = self.directNotes
        self.notes = dict(self.notesAtGreeting)
