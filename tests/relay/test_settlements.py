"""What the sender is told of a message that has been in the queue, and when."""

from __future__ import annotations

from submitd.extensions.deliverby import DeliverBy
from tests.relay.test_runner import LATER, NO, RunnerCase
from tests.spool.support import NOW

BOB = "bob@example.net"


class TimesTests(RunnerCase):
    """What of the sender's times the queue has kept for a report."""

    def fields(self) -> list[str]:
        """What the one report says of the message as a whole, but for who reports."""
        [(_, report)] = self.reports
        [block, *_] = report.get_payload()[1].get_payload()
        return [f"{name}: {value}" for name, value in block.items()][1:]

    def test_deliverBy(self) -> None:
        """The deadline."""
        self.hop.said = {BOB: LATER}
        self.send("M1", BOB, DELIVERBY=DeliverBy(NOW + 120.0, "R"))
        self.run_()
        self.run_(120.0)
        self.assertEqual(
            self.fields(),
            [
                "Arrival-Date: Fri, 15 Jan 2027 08:00:00 -0000",
                "Deliver-By-Date: Fri, 15 Jan 2027 08:02:00 -0000",
            ],
        )

    def test_hold(self) -> None:
        """The hold, as the client said it."""
        self.hop.said = {BOB: NO}
        message = self.begin("M1", BOB, FUTURERELEASE=NOW + 50.0)
        message._envelope.parameters = {"HOLDFOR": "50"}
        message.dataReceived(b"Subject: x\r\n\r\nx\r\n")
        self.successResultOf(message.eomReceived())
        self.run_()
        self.run_(50.0)
        self.assertEqual(
            self.fields(),
            [
                "Arrival-Date: Fri, 15 Jan 2027 08:00:00 -0000",
                "Future-Release-Request: for;50",
            ],
        )
