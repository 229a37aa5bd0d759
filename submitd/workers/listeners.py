"""The parent's ports: open for its workers to accept from, and read by nobody here."""

# mypy: allow-untyped-calls
# Twisted's services are not annotated throughout.

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.protocol import Factory

from submitd.errors import CannotStart
from submitd.listener import ListenerService, endpointOf
from submitd.settings import ListenerSettings


class Listeners(MultiService):
    """All ports, by their endpoints.

    :param listeners: those there are at the start.
    :param reactor: listens.
    """

    def __init__(self, listeners: Iterable[ListenerSettings], reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._listeners: dict[str, ListenerService] = {}
        for each in listeners:
            self._add(each)

    def privilegedStartService(self) -> None:
        """Open all ports, or none.

        :raise CannotStart: when one cannot be opened, or is none that processes can share.
        """
        self._begin(super().privilegedStartService)

    def startService(self) -> None:
        """The same, where it has not been done yet."""
        self._begin(super().startService)

    def _begin(self, start: Callable[[], None]) -> None:
        try:
            start()
            for each in self._listeners.values():
                handOver(each)
        except CannotStart:
            for each in self._listeners.values():
                each.stopService()
            raise

    def open(self, listeners: Iterable[ListenerSettings]) -> None:
        """Open those that are not open yet, or none of them.

        :raise CannotStart: as at the start.
        """
        new = {each.endpoint: each for each in listeners if each.endpoint not in self._listeners}
        try:
            for each in new.values():
                handOver(self._add(each))
        except CannotStart:
            self._close(new)
            raise

    def keep(self, endpoints: Container[str]) -> None:
        """Close all others."""
        self._close([each for each in self._listeners if each not in endpoints])

    def files(self, endpoints: Iterable[str]) -> list[int]:
        """The descriptors of open ports."""
        return [_fileOf(self._listeners[each]) for each in endpoints]

    def _add(self, listener: ListenerSettings) -> ListenerService:
        factory = Factory()
        factory.noisy = False
        made = ListenerService(listener, endpointOf(listener, self._reactor), factory)
        self._listeners[listener.endpoint] = made
        made.setServiceParent(self)
        return made

    def _close(self, endpoints: Iterable[str]) -> None:
        for endpoint in endpoints:
            if endpoint in self._listeners:
                # Taken out of the service, it closes its port.
                self._listeners.pop(endpoint).disownServiceParent()


def handOver(listener: ListenerService) -> None:
    """Have a port stay open, for others to accept from.

    :raise CannotStart: when it is none of this machine's sockets.
    """
    _fileOf(listener)
    port: Any = listener.port
    port.stopReading()


def _fileOf(listener: ListenerService) -> int:
    port: Any = listener.port
    file = getattr(port, "fileno", lambda: -1)()
    if file < 0 or not hasattr(port, "stopReading"):
        endpoint = listener.settings.endpoint
        raise CannotStart(f"{endpoint} is none that several workers can listen on")
    return int(file)
