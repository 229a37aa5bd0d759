"""What a next hop offers, what it cannot take, and how MAIL and RCPT are put to it.

Pure functions over the keywords of EHLO (RFC 5321 4.1.1.1).  What a next hop cannot take is failed
here with the code that says so, before anything is sent: a message is never changed on its way.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from submitd.envelope import Recipient
from submitd.relay.outgoing import Outgoing
from submitd.wire.command import encodeUtf8AddrXtext, encodeXtext
from submitd.wire.reply import Reply

REQUIRETLS_UNSUPPORTED = Reply(
    550, "5.7.30", "REQUIRETLS was asked for, and the next hop does not support it"
)
REQUIRETLS_UNVERIFIED = Reply(
    550, "5.7.30", "REQUIRETLS was asked for, and the next hop's certificate is not verified"
)
TOO_LARGE = Reply(552, "5.3.4", "Message is larger than the next hop takes")
EIGHT_BIT = Reply(554, "5.6.3", "Message has octets above 127, which the next hop does not take")
BINARY = Reply(554, "5.6.3", "Message is BINARYMIME, which the next hop does not take")
UTF8_ADDRESS = Reply(553, "5.6.7", "Address is not ASCII, and the next hop does not take SMTPUTF8")
UTF8_HEADER = Reply(554, "5.6.7", "Header is not ASCII, and the next hop does not take SMTPUTF8")
DELIVERBY_UNSUPPORTED = Reply(
    550, "5.3.3", "Delivery in time was asked for, and the next hop does not promise it"
)
TOO_LATE = Reply(550, "5.4.7", "Less time is left than the next hop needs to deliver or return it")

# MAIL parameters that are passed on as they are, and the keyword that allows each.
PASSED_ON = {"BY": "DELIVERBY", "MT-PRIORITY": "MT-PRIORITY"}


@attrs.frozen
class Capabilities:
    """What a next hop said to EHLO.

    :param keywords: keyword in upper case -> what follows it.
    :param secure: whether TLS is active.
    :param verified: whether its certificate was verified.
    :param lmtp: whether it speaks LMTP, so that its recipients are at their last stop.
    """

    keywords: Mapping[str, str] = attrs.field(factory=dict)
    secure: bool = False
    verified: bool = False
    lmtp: bool = False

    def offers(self, keyword: str) -> bool:
        """Whether an extension may be used."""
        return keyword in self.keywords

    @property
    def chunking(self) -> bool:
        """Whether messages go by BDAT (RFC 3030)."""
        return "CHUNKING" in self.keywords

    @property
    def maximumSize(self) -> int:
        """The largest message it takes (RFC 1870), in octets; 0 when it does not say."""
        value = self.keywords.get("SIZE", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else 0

    @property
    def minimumDeliverBy(self) -> int:
        """The shortest time for by-mode R that it takes (RFC 2852 2), in seconds; 0 for any."""
        value = self.keywords.get("DELIVERBY", "").partition(",")[0]
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else 0

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms, in upper case."""
        return tuple(self.keywords.get("AUTH", "").upper().split())


def readKeywords(reply: Reply) -> dict[str, str]:
    """The keywords of an answer to EHLO; the first line is a greeting (RFC 5321 4.1.1.1)."""
    keywords: dict[str, str] = {}
    for line in reply.lines[1:]:
        # "AUTH=LOGIN" is what some servers said before RFC 2554, and still say.
        keyword, _, value = line.strip().replace("AUTH=", "AUTH ", 1).partition(" ")
        name, value = keyword.upper(), value.strip()
        if name == "AUTH" and name in keywords:
            # Some have a line of each kind, or one for each mechanism.
            keywords[name] += f" {value}"
        keywords.setdefault(name, value)
    return keywords


def refusal(message: Outgoing, capabilities: Capabilities) -> Reply | None:
    """Why a next hop can take this message for none of its recipients; ``None`` when it may."""
    if message.requireTLS:
        if not (capabilities.secure and capabilities.verified):
            return REQUIRETLS_UNVERIFIED
        if not capabilities.offers("REQUIRETLS"):
            return REQUIRETLS_UNSUPPORTED
    if 0 < capabilities.maximumSize < (message.size or 0):
        return TOO_LARGE
    if message.bodyType == "BINARYMIME":
        if not (capabilities.chunking and capabilities.offers("BINARYMIME")):
            return BINARY
    elif message.eightBit and not capabilities.offers("8BITMIME"):
        return EIGHT_BIT
    mailbox = message.reversePath.mailbox
    if mailbox is not None and not mailbox.isAscii and not capabilities.offers("SMTPUTF8"):
        return UTF8_ADDRESS
    return _byRefusal(message, capabilities)


def _byRefusal(message: Outgoing, capabilities: Capabilities) -> Reply | None:
    """Why a deadline keeps a message from a next hop.

    RFC 2852 4.1.4: by-mode R must not be relayed to who does not know DELIVERBY, nor to who needs
    more time than is left: it could be delivered after the time at which the sender believes it
    withdrawn.  Many next hops do not know it; but a sender who only wants to be told has by-mode N.
    """
    seconds, _, mode = message.parameters.get("BY", "").partition(";")
    if not mode.upper().startswith("R") or capabilities.lmtp:
        return None
    if not capabilities.offers("DELIVERBY"):
        return DELIVERBY_UNSUPPORTED
    return TOO_LATE if int(seconds) < max(1, capabilities.minimumDeliverBy) else None


def recipientRefusal(recipient: Recipient, capabilities: Capabilities) -> Reply | None:
    """Why a next hop cannot take this recipient; ``None`` when it may."""
    if recipient.mailbox.isAscii or capabilities.offers("SMTPUTF8"):
        return None
    return UTF8_ADDRESS


def mailCommand(message: Outgoing, capabilities: Capabilities) -> bytes:
    """MAIL with the parameters that the next hop knows; without CRLF."""
    words = [b"MAIL FROM:" + bytes(message.reversePath)]
    if message.size is not None and capabilities.offers("SIZE"):
        words.append(b"SIZE=%d" % message.size)
    if message.bodyType == "BINARYMIME":
        words.append(b"BODY=BINARYMIME")
    elif capabilities.offers("8BITMIME") and (message.eightBit or _declared(message)):
        words.append(b"BODY=8BITMIME")
    if capabilities.offers("SMTPUTF8") and _needsUtf8(message):
        words.append(b"SMTPUTF8")
    if message.requireTLS:
        words.append(b"REQUIRETLS")
    if capabilities.offers("DSN"):
        if message.ret is not None:
            words.append(b"RET=" + message.ret.encode("ascii"))
        if message.envid is not None:
            words.append(b"ENVID=" + encodeXtext(message.envid.encode("utf-8")))
    for keyword, value in message.parameters.items():
        if capabilities.offers(PASSED_ON[keyword]):
            words.append(f"{keyword}={value}".encode("ascii"))
    return b" ".join(words)


def _declared(message: Outgoing) -> bool:
    return message.eightBit is None and message.bodyType == "8BITMIME"


def _needsUtf8(message: Outgoing) -> bool:
    if message.smtpUtf8:
        return True
    mailboxes = [recipient.mailbox for recipient in message.recipients]
    if message.reversePath.mailbox is not None:
        mailboxes.append(message.reversePath.mailbox)
    return not all(mailbox.isAscii for mailbox in mailboxes)


def rcptCommand(message: Outgoing, recipient: Recipient, capabilities: Capabilities) -> bytes:
    """RCPT with the parameters that the next hop knows; without CRLF."""
    words = [b"RCPT TO:<%b>" % bytes(recipient.mailbox)]
    if capabilities.offers("DSN"):
        if notify := _notify(message, recipient, capabilities):
            words.append(b"NOTIFY=" + ",".join(notify).encode("ascii"))
        if recipient.orcpt is not None:
            words.append(b"ORCPT=" + originalRecipient(recipient.orcpt))
    return b" ".join(words)


def _notify(message: Outgoing, recipient: Recipient, capabilities: Capabilities) -> tuple[str, ...]:
    """What the next hop is to report.

    RFC 2852 4.1.4.2: where the sender wants to be told when it is late, one that knows nothing of
    deadlines is asked for its notice of delay, unless nothing is wanted at all.
    """
    seconds, _, mode = message.parameters.get("BY", "").partition(";")
    isOpen = mode.upper().startswith("N") and int(seconds) > 0
    if not isOpen or capabilities.offers("DELIVERBY") or {"NEVER", "DELAY"} & {*recipient.notify}:
        return recipient.notify
    return (*(recipient.notify or ("FAILURE",)), "DELAY")


def originalRecipient(orcpt: tuple[str, str]) -> bytes:
    """An original recipient in ASCII (RFC 3461 4.2, RFC 6533 3), for commands."""
    kind, address = orcpt
    if kind.lower() == "utf-8":
        encoded = encodeUtf8AddrXtext(address)
    else:
        encoded = encodeXtext(address.encode("utf-8"))
    return kind.encode("ascii") + b";" + encoded
