"""The loads: what clients do to a server, and the goal for each.

Pure: nothing here starts anything.  :data:`LOADS` are the rows of the table; a goal is the ratio of
submitd's CPU per message to that of the load's reference, in the same run.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import attrs

USER, PASSWORD = "user@example.org", "a good long password"

LOGIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
"""The response of AUTH PLAIN."""

NUMBER = b"#" * 20
"""Where the generator puts a number that no other message has: a spool knows equal ones again."""

KB, MB = 1000, 1_000_000


@attrs.frozen(kw_only=True)
class Load:
    """One way of submitting messages.

    :param name: for command line, files and tables.
    :param text: what it is, for people.
    :param size: of the message, in octets.
    :param perConnection: messages over one connection.
    :param connections: clients at one time.
    :param durable: the message must be on disk before its 250.
    :param isAwkward: the message is that of :func:`awkward`, whatever the size.
    :param limits: of submitd's configuration, where the load goes beyond the defaults.
    :param goal: at most this ratio to the reference.
    :param toBeat: the ratio of bun-smtp to the reference, where it was once measured beside it.
    """

    name: str
    text: str
    size: int = KB
    perConnection: int = 1
    connections: int = 16
    recipients: int = 1
    pipelined: bool = False
    tls: bool = False
    login: bool = False
    resume: bool = False
    durable: bool = False
    isAwkward: bool = False
    limits: Mapping[str, str] = attrs.field(factory=dict)
    goal: float = 1.0
    toBeat: float | None = None

    @property
    def reference(self) -> str:
        """The name of the server that the goal is about."""
        return "postfix" if self.durable else "smtp-server"

    def content(self) -> bytes:
        """The message, as its reader gets it."""
        return awkward() if self.isAwkward else message(self.size)

    def wire(self) -> bytes:
        """The message as it goes over the wire."""
        return stuffed(self.content())


def message(size: int) -> bytes:
    """A message of so many octets, with a small header, in lines as base64 has them."""
    header = (
        b"From: <user@example.org>\r\nTo: <reader@example.net>\r\nSubject: a load\r\n"
        b"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nMessage-ID: <%s@example.org>\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    ) % NUMBER
    line = b"QSBsaW5lIG9mIGJhc2U2NCwgYXMgYXR0YWNobWVudHMgaGF2ZSB0aGVtLCA3NiBjaGFyYWN0ZXJz\r\n"
    whole, rest = divmod(max(size - len(header), 2), len(line))
    if rest < 2:
        # The last line ends with CRLF too.
        whole, rest = whole - 1, rest + len(line)
    return header + line * whole + line[: rest - 2] + b"\r\n"


def awkward() -> bytes:
    """A message that is easily broken: dots, 8-bit octets, long, empty and blank lines."""
    body = [b".", b"..", b".. two and a tail ..", b".leading", b"", b" ", b"x" * 990]
    body += ["Grüße, 日本".encode(), b".", b""]
    return message(400) + b"\r\n".join(body * 40) + b"\r\n.\r\n"


def stuffed(content: bytes) -> bytes:
    """A message as DATA carries it (RFC 5321 4.5.2)."""
    body = content.replace(b"\r\n.", b"\r\n..")
    return (b"." if body.startswith(b".") else b"") + body + b".\r\n"


_TLS: dict[str, Any] = {"tls": True, "login": True}
# Enough that a server which holds its greeting back is busy all the same.
_MANY = 128

LOADS = (
    Load(
        name="plain",
        text="plain, 600 messages a connection",
        perConnection=600,
        goal=0.60,
        toBeat=0.75,
    ),
    Load(
        name="pipelined",
        text="plain, pipelined, 600 messages a connection",
        perConnection=600,
        pipelined=True,
        goal=0.55,
        toBeat=0.79,
    ),
    Load(
        name="single",
        text="plain, 1 message a connection",
        connections=4 * _MANY,
        goal=0.30,
        toBeat=0.42,
    ),
    Load(
        name="large",
        text="plain, 1 MB messages",
        size=MB,
        perConnection=600,
        goal=0.60,
        toBeat=0.70,
    ),
    Load(
        name="tls-single",
        text="TLS, AUTH, 1 message a connection",
        connections=_MANY,
        goal=0.42,
        toBeat=0.50,
        **_TLS,
    ),
    Load(
        name="tls-resumed",
        text="the same, TLS session resumed",
        connections=_MANY,
        resume=True,
        goal=0.36,
        toBeat=0.42,
        **_TLS,
    ),
    Load(
        name="tls",
        text="TLS, AUTH, 200 messages a connection",
        perConnection=200,
        goal=0.54,
        toBeat=0.54,
        **_TLS,
    ),
    Load(
        name="tls-large",
        text="TLS, AUTH, 1 MB messages",
        size=MB,
        perConnection=200,
        goal=0.58,
        toBeat=0.60,
        **_TLS,
    ),
)

DURABLE = (
    Load(
        name="durable-single",
        text="durable, 1 message a connection",
        connections=64,
        durable=True,
        goal=0.4,
        **_TLS,
    ),
    Load(
        name="durable",
        text="durable, 60 messages a connection",
        perConnection=60,
        durable=True,
        goal=0.4,
        **_TLS,
    ),
    Load(
        name="durable-large",
        text="durable, 1 MB messages",
        size=MB,
        perConnection=60,
        durable=True,
        goal=0.4,
        **_TLS,
    ),
)

IDLE = Load(name="idle", text="memory of an idle TLS connection", tls=True, login=True)
"""The ninth row: connections that do nothing."""

IDLE_GOAL = 20.0
"""KiB of an idle TLS connection."""

AWKWARD = Load(
    name="awkward", text="a message that is easily broken", isAwkward=True, durable=True, **_TLS
)
