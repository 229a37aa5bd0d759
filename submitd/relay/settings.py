"""The keys of ``[relay]``, ``[[route]]`` and ``[relay.timeouts]``, their defaults and their help.

:mod:`submitd.relay.routes` says what is wrong with their values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from submitd.typed import Count, Seconds, Size

TLSWord = Literal["auto", "starttls", "implicit", "opportunistic", "off"]


@attrs.frozen(kw_only=True)
class TargetSettings:
    """The next hop of a section: one of ``smarthost``, ``lmtp``, ``mx`` and ``maildir``."""

    smarthost: str = attrs.field(
        metadata={
            "help": 'The server that takes our mail: "HOST", or "HOST:PORT"; port 587. Of several, '
            "with commas, the next is asked where those before it cannot be had, or take no mail "
            "for now."
        },
        default="",
    )
    lmtp: str = attrs.field(
        metadata={"help": 'An LMTP server (RFC 2033): "HOST:PORT", or "unix:/path".'}, default=""
    )
    mx: bool = attrs.field(
        metadata={"help": "Deliver to the hosts that DNS names for each recipient's domain."},
        default=False,
    )
    maildir: str = attrs.field(
        metadata={
            "help": 'A Maildir, such as "/var/mail/{domain}/{local}/Maildir"; the directory above '
            "it must be there, or the recipient is unknown."
        },
        default="",
    )
    tls: TLSWord = attrs.field(
        metadata={
            "help": '"starttls" (required), "implicit" (RFC 8314), "opportunistic" (where offered, '
            'never verified), "off". "auto" is starttls for a smarthost, implicit on port 465, '
            "opportunistic for mx, off for lmtp."
        },
        default="auto",
    )
    verify: bool = attrs.field(
        metadata={"help": "Whether the certificate must be good and bear the host's name."},
        default=True,
    )
    user: str = attrs.field(metadata={"help": "Whom to log in as; empty for no login."}, default="")
    password_file: Path | None = attrs.field(
        metadata={"help": "A file, mode 0600, with the password (or token) as its first line."},
        default=None,
    )
    mechanisms: tuple[str, ...] = attrs.field(
        metadata={"help": "The SASL mechanisms that may be used, best first; also XOAUTH2."},
        default=("PLAIN", "LOGIN", "CRAM-MD5"),
    )
    insecure_login: bool = attrs.field(
        metadata={"help": "Whether the password may travel without TLS."}, default=False
    )
    chunking: bool = attrs.field(
        metadata={"help": "Use BDAT (RFC 3030) where it is offered."}, default=True
    )


@attrs.frozen(kw_only=True)
class RouteSettings(TargetSettings):
    """``[[route]]``: a next hop for some of the mail; the first that matches wins."""

    senders: tuple[str, ...] = attrs.field(
        metadata={"help": 'Senders: domains, ".domain" for all below one, or addresses.'},
        default=(),
    )
    logins: tuple[str, ...] = attrs.field(metadata={"help": "Who has submitted it."}, default=())
    recipients: tuple[str, ...] = attrs.field(
        metadata={"help": "Recipients, written like senders."}, default=()
    )


@attrs.frozen(kw_only=True)
class TimeoutSettings:
    """``[relay.timeouts]``: how long a next hop may take; RFC 5321 4.5.3.2 has the defaults."""

    connect: Seconds = attrs.field(
        metadata={"help": "For the connection to be made."}, default=Seconds(30.0)
    )
    greeting: Seconds = attrs.field(
        metadata={"help": "From the connection to the greeting."}, default=Seconds(300.0)
    )
    hello: Seconds = attrs.field(
        metadata={"help": "For the replies to EHLO and STARTTLS."}, default=Seconds(300.0)
    )
    handshake: Seconds = attrs.field(
        metadata={"help": "For the TLS handshake."}, default=Seconds(60.0)
    )
    login: Seconds = attrs.field(
        metadata={"help": "For each step of AUTH."}, default=Seconds(120.0)
    )
    envelope: Seconds = attrs.field(
        metadata={"help": "For the replies to MAIL and to each RCPT."}, default=Seconds(300.0)
    )
    opening: Seconds = attrs.field(
        metadata={"help": "For the reply to DATA."}, default=Seconds(120.0)
    )
    body: Seconds = attrs.field(
        metadata={"help": "For each part of the message to be taken."}, default=Seconds(180.0)
    )
    end: Seconds = attrs.field(
        metadata={"help": "For the reply behind the message."}, default=Seconds(600.0)
    )
    idle: Seconds = attrs.field(
        metadata={"help": "How long a connection is kept for the next message."},
        default=Seconds(10.0),
    )
    quit: Seconds = attrs.field(metadata={"help": "For the reply to QUIT."}, default=Seconds(5.0))


@attrs.frozen(kw_only=True)
class RelaySettings(TargetSettings):
    """``[relay]``: the next hop of all that no ``[[route]]`` takes, and what holds for all."""

    ca_file: Path | None = attrs.field(
        metadata={"help": "PEM file: the authorities to trust in place of the system's."},
        default=None,
    )
    retry: tuple[Seconds, ...] = attrs.field(
        metadata={"help": "The times between attempts; the last one repeats."},
        default=tuple(map(Seconds, (300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0))),
    )
    jitter: float = attrs.field(
        metadata={"help": "How much those may vary, as a part of them."}, default=0.1
    )
    expire: Seconds = attrs.field(
        metadata={"help": "How long it is tried; then the sender is told."},
        default=Seconds(5 * 86400.0),
    )
    delay_notice: Seconds = attrs.field(
        metadata={"help": "After how long the sender is told of a delay; 0 for never."},
        default=Seconds(4 * 3600.0),
    )
    deliveries: Count = attrs.field(
        metadata={"help": "Messages on their way at one time."}, default=Count(100)
    )
    connections: Count = attrs.field(
        metadata={
            "help": "Connections to one next hop at one time, and so its share of deliveries."
        },
        default=Count(10),
    )
    messages_per_connection: Count = attrs.field(
        metadata={"help": "Messages over one connection."}, default=Count(100)
    )
    recipients_per_message: Count = attrs.field(
        metadata={"help": "Recipients of one message at a next hop."}, default=Count(100)
    )
    backoff: Seconds = attrs.field(
        metadata={
            "help": "How long a next hop is left alone that cannot be connected to; one that "
            "refuses a connection while it has others gets one less for so long."
        },
        default=Seconds(60.0),
    )
    lease: Seconds = attrs.field(
        metadata={
            "help": "How long taken work is safe from other processes; it is extended while it "
            "goes on.  With PostgreSQL it is what a crash may delay; with SQLite a dead process's "
            "work is taken back within a minute."
        },
        default=Seconds(900.0),
    )
    hops: Count = attrs.field(
        metadata={"help": "Received fields at which a message is taken to be in a loop."},
        default=Count(50),
    )
    report_size: Size = attrs.field(
        metadata={"help": "The most of a message that a report gives back."},
        default=Size(64 * 1024),
    )
    mx_port: Count = attrs.field(
        metadata={"help": "The port that hosts of mx are spoken to at."}, default=Count(25)
    )
    timeouts: TimeoutSettings = attrs.field(
        metadata={"help": "Time limits."}, factory=TimeoutSettings
    )
