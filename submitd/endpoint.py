"""Where a program listens that is asked something: a client endpoint of Twisted's, as text.

``inet:`` stands for ``tcp:``, as other mail servers write it.  :func:`mistake` finds beforehand
what Twisted finds only at each attempt to connect: a host or path that is empty, a port that is
none, a path that no unix socket can have.  :func:`addressOf` is for those who want to connect
without a reactor.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
    quoteStringArgument,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

# Octets of the path of a unix socket, without the NUL behind it (unix(7)).
MAX_PATH = 107


def clientEndpoint(reactor: Any, text: str) -> IStreamClientEndpoint:
    """The endpoint itself.

    :raise Exception: for a text that is none; whatever Twisted raises.
    """
    kind, colon, rest = text.partition(":")
    made: IStreamClientEndpoint = clientFromString(
        reactor, f"tcp:{rest}" if kind == "inet" and colon else text
    )
    return made


def anchored(text: str, directory: Path) -> str:
    """A server endpoint with a unix socket's path that is relative to no directory of the process.

    :param directory: where one begins that is relative.
    """
    kind, _, path = text.partition(":")
    # Arguments may come by their names, in any order; a path with "=" in it is written with "\\=".
    if kind != "unix" or not path or re.match(r"/|[A-Za-z]+=", path):
        return text
    return f"unix:{quoteStringArgument(str(directory))}/{path}"


def mistake(text: str) -> str:
    """What is wrong with the text of an endpoint; empty when all is well."""
    try:
        found = _ask(text).mistake
    except Exception as error:
        found = str(error) or type(error).__name__
    said = 'must be "tcp:HOST:PORT", "unix:PATH" or another client endpoint of Twisted\'s'
    return f'{said}, not "{text}" ({found})' if found else ""


def addressOf(text: str) -> str | tuple[str, int] | None:
    """The path, or the host and port, that an endpoint without mistake connects to.

    :return: ``None`` for one that does more than that, such as TLS.
    """
    return _ask(text).address


class _Asked:
    """Stands in for a reactor, to learn what would be connected to.

    :ivar address: what that is.
    :ivar mistake: why it cannot be.
    """

    address: str | tuple[str, int] | None = None
    mistake = ""

    def connectTCP(self, host: str, port: int, *_: object, **__: object) -> None:
        """A host and a port."""
        self.address = host, port
        if not host:
            self.mistake = "there is no host"
        elif not 0 < port <= 65535:
            self.mistake = "a port is a number from 1 to 65535"

    def connectUNIX(self, path: str, *_: object, **__: object) -> None:
        """A unix socket."""
        self.address = path
        if not path:
            self.mistake = "there is no path"
        elif not os.path.isabs(path):
            self.mistake = "a unix socket's path begins with /"
        elif len(os.fsencode(path)) > MAX_PATH:
            self.mistake = f"a unix socket's path has {MAX_PATH} octets at most"


def _ask(text: str) -> _Asked:
    asked = _Asked()
    made = clientEndpoint(asked, text)
    if isinstance(made, TCP4ClientEndpoint | UNIXClientEndpoint):
        made.connect(Factory())
    return asked
