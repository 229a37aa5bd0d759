"""The Received field that a message gets in front (RFC 5321 4.4).

It follows the grammar of RFC 5321 4.4 exactly, with the protocol words of RFC 3848 and RFC 6531
4.3, whatever a client called itself: what is no domain goes into a comment, escaped.  It says what
the TLS handshake agreed on, by the clause ``tls`` (RFC 8314 4.3), and the priority that the client
asked for (RFC 6710); and it never names the login: a message is read by strangers, and the
log has both the login and this field's id.  Of a private transaction (``envelope.private``) it does
not name the client either: ``from localhost``, as for a unix socket.  ``for`` is there for a single
recipient only, so that no recipient reads about another.

Lines are folded at 78 octets where there is a space, and stay below 998 in any case, since each
part is bounded by the parsers: 255 octets for a domain, 256 for a path.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache

from submitd.envelope import Envelope
from submitd.equality import sameDomain
from submitd.session import Session
from submitd.wire.address import isDomain
from submitd.wire.network import addressLiteral

# RFC 5322 2.1.1: a line should have no more than 78 characters.
FOLD_AT = 78

NOBODY = ("", "", "")

# RFC 5322 3.2.2: ctext has no parentheses and no backslash.
_NOT_CTEXT = re.compile(r"([()\\])")
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_REGISTERED = re.compile("TLS_[A-Z0-9_]+")
_OPENSSL = re.compile(r"(ECDHE|DHE)-(RSA|ECDSA)-(?:AES(128|256)-GCM-(SHA\d+)|CHACHA20-POLY1305)")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def receivedField(session: Session, envelope: Envelope, hostname: str, now: float) -> bytes:
    """The trace field for a message, whole lines, each ended with CRLF.

    :param session: whom it comes from, and how.
    :param envelope: the mail transaction, its recipients complete.
    :param hostname: our own name.
    :param now: the time, in seconds since 1970.
    """
    client = (session.heloName, session.clientHostname, session.remoteAddress)
    if envelope.private:
        client = NOBODY
    tls = session.tls
    suite = suiteOf(tls.cipher) if tls is not None else ""
    handshake = "" if tls is None else tls.version if suite else f"{tls.version} {tls.cipher}"
    folded, line = _beginning(*client, hostname, session.transmissionType, handshake)
    parts = [f"id {envelope.id}"]
    if len(envelope.recipients) == 1:
        # RFC 6531 3.7.3: UTF-8 only in a message that is sent with SMTPUTF8.
        mailbox = envelope.recipients[0].mailbox
        if envelope.smtpUtf8 or mailbox.isAscii:
            parts.append(f"for <{mailbox}>")
    # Clauses that were registered later stand behind all others.
    priority = envelope.extensions.get("MT-PRIORITY")
    if priority is not None:
        parts.append(f"priority {priority}")
    if suite:
        parts.append(f"tls {suite}")
    parts[-1] += ";"
    parts.append(dateTime(int(now)))
    more, line = _folded(line, parts)
    return f"{folded}{more}{line}\r\n".encode()


def _folded(line: str, parts: list[str]) -> tuple[str, str]:
    """Parts behind a line, with a space between them, or a new line before one that would not fit.

    :return: the lines that are full, with their ends; the last one, without.
    """
    full = ""
    for part in parts:
        if len(line) + len(part) < FOLD_AT:
            line = f"{line} {part}"
        else:
            full += f"{line}\r\n"
            line = f" {part}"
    return full, line


@lru_cache(maxsize=64)
def suiteOf(cipher: str) -> str:
    """The registered name of a cipher suite, where it follows from OpenSSL's; else nothing.

    It does for TLS 1.3, and for what ``[tls] ciphers`` has by default.
    """
    if _REGISTERED.fullmatch(cipher):
        return cipher
    known = _OPENSSL.fullmatch(cipher)
    if known is None:
        return ""
    exchange, signature, bits, digest = known.groups()
    encryption = f"AES_{bits}_GCM_{digest}" if bits else "CHACHA20_POLY1305_SHA256"
    return f"TLS_{exchange}_{signature}_WITH_{encryption}"


@lru_cache(maxsize=1024)
def _beginning(
    heloName: str, clientHostname: str, address: str, hostname: str, word: str, handshake: str
) -> tuple[str, str]:
    """What is the same in each message of a session, folded."""
    protocol = f"with {word} {_comment(handshake)}" if handshake else f"with {word}"
    parts = [*_from(heloName, clientHostname, address), f"by {sameDomain(hostname)}", protocol]
    return _folded("Received:", parts)


def _from(heloName: str, clientHostname: str, remoteAddress: str) -> tuple[str, ...]:
    """``From-domain`` of RFC 5321 4.4, cut where it may be folded."""
    literal = addressLiteral(remoteAddress)
    if not literal:  # a unix socket
        parts: tuple[str, ...] = (f"from {heloName if isDomain(heloName) else 'localhost'}",)
    else:
        # TCP-info = address-literal / ( Domain FWS address-literal )
        known = f"{clientHostname} " if isDomain(clientHostname) else ""
        said = heloName if isDomain(heloName) or heloName == literal else literal
        parts = (f"from {said}", f"({known}{literal})")
    if parts[0] != f"from {heloName}" and heloName:
        parts += (_comment(f"helo {heloName}"),)
    return parts


def _comment(text: str) -> str:
    """A comment in which nothing of the text can end it or begin a line."""
    printable = _NOT_PRINTABLE.sub("?", text[:255])
    return f"({_NOT_CTEXT.sub(_escaped, printable)})"


def _escaped(match: re.Match[str]) -> str:
    return "\\" + match[1]


@lru_cache(maxsize=2)
def dateTime(second: int) -> str:
    """RFC 5322 3.3: date-time in local time; made once a second.  Names stay English.

    :param second: in seconds since 1970.
    """
    when = time.localtime(second)
    minutes = when.tm_gmtoff // 60
    sign = "-" if minutes < 0 else "+"
    hours, minutes = divmod(abs(minutes), 60)
    return (
        f"{_DAYS[when.tm_wday]}, {when.tm_mday:02} {_MONTHS[when.tm_mon - 1]} {when.tm_year:04} "
        f"{when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02} {sign}{hours:02}{minutes:02}"
    )
