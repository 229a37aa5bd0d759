"""When two addresses are one.

Local parts are equal but for the case of ASCII letters, as in logins; domains are equal as RFC 5891
has it: without case, and an A-label the same as its U-label.  Any text is taken, and none raises.
"""

from __future__ import annotations

import idna

from submitd.wire.address import Mailbox


def sameDomain(domain: str) -> str:
    """The form in which equal domains are equal strings; anything is taken."""
    lowered = domain.lower()
    # What IDNA makes of plain names; it is on the path of each message, and idna takes 20 us.
    if domain.isascii() and "xn--" not in lowered:
        return lowered
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return lowered


def sameLocalPart(localPart: str) -> str:
    """The form in which equal local parts are equal strings."""
    return localPart.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def sameAddress(mailbox: Mailbox) -> tuple[str, str]:
    """The form in which equal mailboxes are equal."""
    return sameLocalPart(mailbox.localPart), sameDomain(mailbox.domain)


def isAddressOf(login: str, mailbox: Mailbox) -> bool:
    """Whether a login is an address, and that one."""
    localPart, at, domain = login.rpartition("@")
    if not at:
        return False
    if (localPart, domain) == (mailbox.localPart, mailbox.domain):
        return True
    return (sameLocalPart(localPart), sameDomain(domain)) == sameAddress(mailbox)
