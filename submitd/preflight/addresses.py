"""Where an endpoint would listen, and why it could not.

:func:`portsInUse` is asked only when the service is about to start: it binds each address without
listening and lets go of it again, so that one port in use is a clear message while all ports are
still closed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from OpenSSL.crypto import Error as SSLError
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    serverFromString,
)
from twisted.internet.protocol import Factory

from submitd.endpoint import MAX_PATH
from submitd.settings import Settings
from submitd.typed import Finding

# What an endpoint without an interface listens on; it is compared here, and nothing is bound to it.
ANY_IPV4 = "0.0.0.0"  # noqa: S104  # nosec B104

PORT_RANGE = "a port is a number from 0 to 65535"


@attrs.frozen
class Address:
    """Where an endpoint would listen.

    :param host: the interface; empty for all of IPv4; for a unix socket its path.
    :param port: the port; ``None`` for a unix socket.
    """

    host: str
    port: int | None = None

    def overlaps(self, other: Address) -> bool:
        """Whether only one of the two can be listened on."""
        if self.port is None or other.port is None:
            return self == other
        if self.port != other.port or self.port == 0:
            return False
        one, two = self.host or ANY_IPV4, other.host or ANY_IPV4
        # A socket on "::" takes the IPv4 connections too.
        if one == two or "::" in (one, two):
            return True
        return ANY_IPV4 in (one, two) and ":" not in one + two


class _Ears:
    """Stands in for a reactor, to learn where an endpoint would listen."""

    address: Address | None = None

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        """Note where TCP would be listened to."""
        self.address = Address(interface, port)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> None:
        """Note where TLS would be listened to."""
        self.address = Address(interface, port)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> None:
        """Note the path of a unix socket."""
        self.address = Address(os.fsdecode(address))


def addressOf(endpoint: str) -> Address | None:
    """Where an endpoint string listens.

    :return: the address; ``None`` for a kind of endpoint that keeps it to itself (``systemd:``).
    :raise ValueError: when it is no endpoint string, with the sentence that says so.
    """
    ears: Any = _Ears()
    if endpoint.startswith("systemd:"):
        return None  # its sockets are there when systemd starts the service, and not before
    try:
        parsed = serverFromString(ears, endpoint)
    except Exception as error:
        # Parsers raise what int(), a function call or a look-up happens to raise.
        reason = PORT_RANGE if "int()" in str(error) else str(error)
        if isinstance(error, SSLError):
            reason = "its certKey or its privateKey is no such PEM file"
        raise ValueError(_notEndpoint(endpoint, reason)) from None
    if isinstance(
        parsed, TCP4ServerEndpoint | TCP6ServerEndpoint | SSL4ServerEndpoint | UNIXServerEndpoint
    ):
        parsed.listen(Factory())
    address: Address | None = ears.address
    if address and address.port is not None and not 0 <= address.port <= 65535:
        raise ValueError(_notEndpoint(endpoint, PORT_RANGE))
    return address


def _notEndpoint(endpoint: str, reason: str) -> str:
    return (
        f'must be an endpoint such as "tcp:587" or "unix:/run/submitd.sock", not "{endpoint}"'
        f" ({reason})"
    )


def endpoints(settings: Settings) -> Iterator[tuple[str, str]]:
    """All endpoints that are to be listened on, by their keys."""
    for at, listener in enumerate(settings.listener):
        yield f"listener[{at}].endpoint", listener.endpoint
    if settings.metrics.endpoint:
        yield "metrics.endpoint", settings.metrics.endpoint


def socketProblem(path: Path) -> str:
    """Why there can be no unix socket of that name."""
    if len(os.fsencode(path)) > MAX_PATH:
        return f"a unix socket's path has {MAX_PATH} octets at most, and this one more: {path}"
    try:
        if not path.parent.is_dir():
            return f"there is no directory {path.parent}"
        if path.exists() and not path.is_socket():
            return f"{path} is there, and no socket"
    except OSError as error:
        return f"cannot look at {path}: {error.strerror}"
    return ""


def portsInUse(settings: Settings) -> list[Finding]:
    """The endpoints whose address cannot be had now; ``examine`` looks at the others."""
    found = []
    for path, endpoint in endpoints(settings):
        try:
            address = addressOf(endpoint)
        except ValueError:
            continue
        reason = _whyTaken(address) if address is not None else None
        if reason:
            found.append(Finding(path, f"cannot listen on {endpoint}: {reason}"))
    return found


def _whyTaken(address: Address) -> str | None:
    if address.port is None:
        return _whySocketTaken(address.host)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the service does it: connections of an earlier run that linger are no reason.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        return whyNotBound(error)
    return None


def whyNotBound(error: OSError) -> str:
    """Why an address cannot be listened on, for an operator."""
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program"
    if isinstance(error, socket.gaierror):
        return "what an interface is called here is its address, such as 192.0.2.1"
    if error.errno == errno.EAFNOSUPPORT:
        return "this machine has no IPv6"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if error.errno == errno.EACCES:
        return "ports below 1024 are for root; see the options --uid and --gid of twistd"
    return str(error.strerror or error)


def _whySocketTaken(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            # Nobody there: a socket left behind is removed when the service listens.
            return str(error) if error.errno == errno.EACCES else None
    return "the socket is in use by another program"
