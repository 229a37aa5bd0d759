"""When two addresses are one.

Local parts are equal but for the case of ASCII letters, as in logins; domains are equal as RFC 5891
has it: without case, and an A-label the same as its U-label.  Any text is taken, and none raises.
"""

from __future__ import annotations

from functools import lru_cache

import idna

from submitd.wire.address import Mailbox

# Domains of which is remembered what they are compared as: all of a large message.  And how long
# they may be: no longer one can be delivered to, but any text is taken, as of a header field.
REMEMBERED = 4096
LONGEST = 255


def sameDomain(domain: str) -> str:
    """The form in which equal domains are equal strings; anything is taken."""
    lowered = domain.lower()
    # What IDNA makes of plain names; it is on the path of each message, and idna takes 20 us.
    if domain.isascii() and "xn--" not in lowered:
        return lowered
    return _remembered(domain) if len(domain) <= LONGEST else _international(domain)


def _international(domain: str) -> str:
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return domain.lower()


# It takes 70 us, and for a domain that is as long as may be more than a millisecond.  A message can
# have a thousand of those, and each policy and the delivery ask.
_remembered = lru_cache(REMEMBERED)(_international)


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
