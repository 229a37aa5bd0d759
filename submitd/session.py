"""What is known about one connection.

One :class:`Session` lives as long as its connection.  The dialogue fills it in; policies, checkers
and deliveries read it.  It holds no transport and can say nothing to the client.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

import attrs

from submitd.wire.network import addressLiteral
from submitd.wire.proxy import Ends

if TYPE_CHECKING:
    from submitd.envelope import Envelope
    from submitd.interfaces import ISubmitter


def newId() -> str:
    """A session's id: 10 characters of base32, 50 random bits; unique in the logs."""
    return base64.b32encode(os.urandom(7))[:10].decode("ascii")


@attrs.frozen
class TLSInfo:
    """What a TLS handshake agreed on.

    :param version: such as ``"TLSv1.3"``.
    :param cipher: OpenSSL's name of the cipher suite.
    :param bits: the strength of the cipher, in bits.
    :param serverName: the name the client asked for by SNI (RFC 6066 3), or ``None``.
    :param peerCertificate: the client's certificate (an ``OpenSSL.crypto.X509``), or ``None``.
    :param resumed: whether an earlier session was resumed.
    """

    version: str
    cipher: str
    bits: int = 0
    serverName: str | None = None
    peerCertificate: Any = None
    resumed: bool = False


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
    :ivar maxRecipients: how many recipients a message may have, 0 for no limit; a policy may lower
        it, and LIMITS shows it.
    :ivar maxTransactions: how many mail transactions may be begun, in the same way.
    :ivar transactions: how many mail transactions have been begun.
    :ivar envelope: the mail transaction in progress, or ``None``.
    :ivar xclient: what a trusted proxy said with XCLIENT, by upper-case name.
    :ivar xforward: what a trusted proxy said with XFORWARD, by upper-case name.
    :ivar notes: a place for policies to keep their own facts, by their name.
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
    maxRecipients: int = 0
    maxTransactions: int = 0
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

    @property
    def servername(self) -> str | None:
        """The name the client asked for by SNI, or ``None``."""
        return self.tls.serverName if self.tls else None

    @property
    def transmissionType(self) -> str:
        """The protocol word of the Received field (RFC 3848, RFC 6531 4.3), such as ``ESMTPSA``."""
        if self.openingCommand == "HELO":
            return "SMTP"
        lmtp = self.openingCommand == "LHLO"
        utf8 = self.envelope is not None and self.envelope.smtpUtf8
        base = ("UTF8LMTP" if lmtp else "UTF8SMTP") if utf8 else ("LMTP" if lmtp else "ESMTP")
        return base + ("S" if self.secure else "") + ("A" if self.user is not None else "")

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
        """Drop all that the client said, for STARTTLS (RFC 3207 4.2); counters stay."""
        self.heloName = ""
        self.openingCommand = ""
        self.user = None
        self.mechanism = ""
        self.envelope = None
        self.notes.clear()
        self.xforward = {}
        if self.direct is not None:
            self.xclient = {}
            self.ends, self.direct = self.direct, None
