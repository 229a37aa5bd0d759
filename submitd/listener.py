"""A listener: the port of one ``[[listener]]`` and its life.

The port is opened in ``privilegedStartService``, before twistd gives up its rights; one that cannot
be had is :class:`CannotStart`.  An endpoint that takes its time fails when the service runs, and
perhaps others listen: that is logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from submitd import events
from submitd.errors import CannotStart
from submitd.interfaces import IMechanism
from submitd.ports import PortReactor
from submitd.settings import ListenerSettings


class ListenerService(Service):
    """One listener.

    :param settings: what it is, for messages.
    :param endpoint: where to listen.
    :param factory: what to serve.
    """

    def __init__(
        self, settings: ListenerSettings, endpoint: IStreamServerEndpoint, factory: Factory
    ) -> None:
        self.settings = settings
        self.factory = factory
        self._endpoint = endpoint
        self._port: IListeningPort | None = None
        self._opening: Deferred[None] | None = None

    @property
    def port(self) -> IListeningPort | None:
        """The port; ``None`` while there is none."""
        return self._port

    @property
    def address(self) -> IAddress | None:
        """Where it listens; ``None`` while it does not."""
        return self._port.getHost() if self._port is not None else None

    def privilegedStartService(self) -> None:
        """Open the port.

        :raise CannotStart: when it cannot be opened.
        """
        failed: list[Failure] = []
        opening = self._endpoint.listen(self.factory).addCallbacks(self._opened, failed.append)
        if failed:
            raise CannotStart(f"cannot listen on {self.settings.endpoint}: {_reason(failed[0])}")
        self._opening = opening.addCallback(lambda _: self._complain(failed))

    def _opened(self, port: IListeningPort) -> None:
        self._port = port
        events.emit(
            events.SERVICE_LISTENING, endpoint=self.settings.endpoint, tls=self.settings.tls
        )

    def _complain(self, failed: list[Failure]) -> None:
        # An endpoint that takes its time: the service is running by now, and others may listen.
        for failure in failed:
            if not failure.check(CancelledError):
                said = f"cannot listen on {self.settings.endpoint}: {_reason(failure)}"
                events.emit(events.SERVICE_PROBLEM, problem=said)

    def startService(self) -> None:
        """Open the port, unless it is open already."""
        if self._opening is None:
            self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[None] | None:
        """Close the port, or give up opening it."""
        super().stopService()
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        port, self._port = self._port, None
        closing: Deferred[None] | None = port.stopListening() if port is not None else None
        return closing


def keepingAllOut(
    listener: ListenerSettings,
    mechanisms: Sequence[IMechanism],
    loginRequired: bool,
    insecure: bool,
) -> Iterator[tuple[str, str]]:
    """Why nobody could ever send there: keys, each with what is wrong with it.

    :param mechanisms: by which somebody could log in.
    :param insecure: whether passwords may travel in the clear.
    """
    if listener.tls != "off" or listener.endpoint.startswith(("ssl:", "tls:")):
        return
    if listener.require_tls:
        yield (
            "require_tls",
            'must be false where tls is "off", or no message could ever be sent',
        )
        return
    needTLS = mechanisms and all(each.needsTLS for each in mechanisms)
    isTrusting = listener.xclient_login or listener.login_by_address
    if needTLS and loginRequired and not insecure and not isTrusting:
        names = " or ".join(each.name for each in mechanisms)
        yield "tls", f'is "off", where nobody can log in by {names}, and a login is required'


def _reason(failure: Failure) -> str:
    error = failure.value
    if isinstance(error, CannotListenError):
        error = error.socketError
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def endpointOf(listener: ListenerSettings, reactor: Any) -> IStreamServerEndpoint:
    """Where a listener listens.

    :raise CannotStart: for an endpoint string that is none.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(PortReactor(reactor), listener.endpoint)
    except Exception as error:
        said = repr(error)
        if isinstance(error, LookupError) and listener.endpoint.startswith("systemd:"):
            said = "systemd has handed over no such socket (ListenStream, FileDescriptorName)"
        raise CannotStart(f"cannot listen on {listener.endpoint}: {said}") from None
    return endpoint
