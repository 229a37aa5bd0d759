"""The queue runner as a child of the service: it begins and ends with it."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from submitd.relay.runner import Runner


class RelayService(Service):
    """The queue runner as a child of the service.

    :param runner: what runs.
    :param drainSeconds: what deliveries under way get at the end.
    """

    def __init__(self, runner: Runner, drainSeconds: float) -> None:
        self.runner = runner
        self.drainSeconds = drainSeconds

    def startService(self) -> None:
        """Begin to deliver."""
        super().startService()
        self.runner.start()

    def stopService(self) -> Deferred[None] | None:
        """Finish what is on its way, and give the rest back."""
        if not self.running:
            return None
        super().stopService()
        return Deferred.fromCoroutine(self.runner.stop(self.drainSeconds))
