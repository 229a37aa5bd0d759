"""ESMTP extensions: one file each, and one line here.

An extension provides :class:`submitd.interfaces.IExtension`.  The order below is the order in which
EHLO shows them.
"""

from __future__ import annotations

from twisted.python.reflect import namedAny

from submitd.interfaces import IExtension

REGISTRY: dict[str, str] = {
    "PIPELINING": "submitd.extensions.pipelining:Pipelining",
    "SIZE": "submitd.extensions.size:Size",
    "STARTTLS": "submitd.extensions.starttls:StartTLS",
    "AUTH": "submitd.extensions.auth:Auth",
    "ENHANCEDSTATUSCODES": "submitd.extensions.enhancedstatuscodes:EnhancedStatusCodes",
    "8BITMIME": "submitd.extensions.eightbitmime:EightBitMIME",
    "SMTPUTF8": "submitd.extensions.smtputf8:SMTPUTF8",
    "DSN": "submitd.extensions.dsn:DSN",
    "REQUIRETLS": "submitd.extensions.requiretls:RequireTLS",
    "CHUNKING": "submitd.extensions.chunking:Chunking",
    # Behind 8BITMIME: it takes BODY over, for one more value.
    "BINARYMIME": "submitd.extensions.binarymime:BinaryMIME",
    "LIMITS": "submitd.extensions.limits:LimitsExtension",
    "FUTURERELEASE": "submitd.extensions.futurerelease:FutureRelease",
    "MT-PRIORITY": "submitd.extensions.mtpriority:MTPriority",
    "DELIVERBY": "submitd.extensions.deliverby:DeliverByExtension",
    "XCLIENT": "submitd.extensions.xclient:Xclient",
    "XFORWARD": "submitd.extensions.xforward:Xforward",
}


def extensions() -> tuple[IExtension, ...]:
    """A fresh object of every extension, in the order of the registry."""
    return tuple(namedAny(path.replace(":", "."))() for path in REGISTRY.values())
