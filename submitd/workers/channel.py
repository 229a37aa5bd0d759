"""Messages between the parent and a process of its: small JSON objects over a pair of sockets.

The sockets keep the bounds of messages (SOCK_SEQPACKET), and can carry open files.  When one side
is gone, however it went, the other side is told: that is how the parent learns that a worker has
ended, and how a worker learns that there is no parent any more.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

MAX_MESSAGE = 131072
MAX_FILES = 200

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Message, files: Sequence[int] = ()) -> None:
    """Send, and wait until there is room for it.

    :raise OSError: when the other side is gone.
    """
    data = json.dumps(message).encode("ascii")
    if files:
        socket.send_fds(sock, [data], list(files))
    else:
        sock.send(data)


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """Wait for a message.

    :return: the message, ``None`` when the other side is gone; and the files that came with it.
    """
    try:
        data, files, _, _ = socket.recv_fds(sock, MAX_MESSAGE, MAX_FILES)
    except ConnectionError:
        return None, []
    return (json.loads(data) if data else None), files


@implementer(IReadWriteDescriptor)
class Channel:
    """One end, for a reactor.

    :param sock: the end; it belongs to the channel from now on.
    :param reactor: reads and writes.
    :param received: called with each message.
    :param lost: called once, when the other side is gone or this one was closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        reactor: Any,
        received: Callable[[Message], None],
        lost: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._reactor = reactor
        self._received = received
        self._lost = lost
        self._unsent: deque[tuple[Message, Sequence[int]]] = deque()
        self._isOpen = True
        sock.setblocking(False)
        reactor.addReader(self)

    def send(self, message: Message, files: Sequence[int] = ()) -> None:
        """Send a message; behind the end of the other side it is dropped.

        :param files: open files for the other side; they must stay open until they are sent, which
            is at once unless the other side does not read.
        """
        self._unsent.append((message, files))
        if self._isOpen:
            self.doWrite()

    def close(self) -> None:
        """Close this end."""
        if self._isOpen:
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self.connectionLost(Failure(CONNECTION_LOST))

    def sendRest(self) -> None:
        """Send what there was no room for, and wait for that: nothing is to be done behind it."""
        if self._isOpen:
            self._socket.setblocking(True)
            self.doWrite()

    def receiveRest(self) -> None:
        """Receive what the other side has sent before it ended."""
        while self._isOpen:
            try:
                data = self._socket.recv(MAX_MESSAGE)
            except OSError:
                return
            if not data:
                return
            self._received(json.loads(data))

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "workers"

    def doRead(self) -> Exception | None:  # type: ignore[override]
        """A message has come, or the end."""
        try:
            data = self._socket.recv(MAX_MESSAGE)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_LOST
        self._received(json.loads(data))
        return None

    def doWrite(self) -> Exception | None:  # type: ignore[override]
        """Send what there is room for."""
        while self._unsent:
            try:
                send(self._socket, *self._unsent[0])
            except BlockingIOError:
                self._reactor.addWriter(self)
                return None
            except OSError:
                # The end is read, and told, behind the last message of the other side.
                self._unsent.clear()
                break
            self._unsent.popleft()
        self._reactor.removeWriter(self)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The other side is gone."""
        if self._isOpen:
            self._isOpen = False
            self._socket.close()
            self._lost()
