"""A policy: what a TLS handshake agreed on, for the log, and a say in it.

In the configuration::

    [[policy]]
    use = "tlsfacts:TLSFacts"
"""

from __future__ import annotations

from twisted.logger import Logger
from zope.interface import implementer

from submitd.interfaces import ISecurePolicy
from submitd.session import Session
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

WEAK = Reply(554, "5.7.0", "Cipher not strong enough")


@implementer(ISecurePolicy)
class TLSFacts:
    """Tells the facts, and refuses ciphers below 128 bits."""

    name = "tls-facts"
    log = Logger()

    def handshakeCompleted(self, session: Session) -> None:
        """Behind each handshake, of STARTTLS or implicit TLS.

        :raise Refused: 554 5.7.0, in place of the greeting or of what follows STARTTLS.
        """
        tls = session.tls
        assert tls is not None
        self.log.info(
            "TLS with {peer}: {version}, {cipher} of {bits} bits, asked for {name}",
            peer=session.remoteAddress,
            version=tls.version,
            cipher=tls.cipher,
            bits=tls.bits,
            name=session.servername,
        )
        if tls.bits < 128:
            raise Refused(WEAK, f"{tls.cipher} has {tls.bits} bits")
