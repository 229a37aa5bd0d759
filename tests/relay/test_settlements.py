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


class LateTests(RunnerCase):
    """By-mode N: what the sender is told when the time is over (RFC 2852 4.1.3)."""

    def told(self) -> list[tuple[str, str, str]]:
        """Action, status and diagnostic of all reports."""
        recipients = [report.get_payload()[1].get_payload()[1] for _, report in self.reports]
        fields = ("Action", "Status", "Diagnostic-Code")
        return [tuple(str(each[name]) for name in fields) for each in recipients]

    def test_status(self) -> None:
        """The status says that the time is over, the diagnostic what the next hop said."""
        self.hop.said = {BOB: LATER}
        self.send("M1", BOB, DELIVERBY=DeliverBy(NOW + 120.0, "N"))
        self.run_()
        self.assertEqual(self.told(), [])
        self.run_(120.0)
        self.run_(1000.0)
        self.assertEqual(self.told(), [("delayed", "4.4.7", "smtp; 450 4.2.1 later")])

    def test_afterNotice(self) -> None:
        """Who has been told of the delay before is told that the time is over, and once."""
        self.make(retry=(100.0,), delay_notice=100.0)
        self.hop.said = {BOB: LATER}
        self.send("M1", BOB, DELIVERBY=DeliverBy(NOW + 250.0, "N"))
        self.run_()
        for _ in range(6):
            self.run_(100.0)
        self.assertEqual([status for _, status, _ in self.told()], ["4.2.1", "4.4.7"])

    def test_inTime(self) -> None:
        """It is tried when the time is over, also by whom an earlier delay was told already."""
        self.make(retry=(100.0, 100.0, 1000.0), delay_notice=100.0)
        self.hop.said = {BOB: LATER}
        self.send("M1", BOB, DELIVERBY=DeliverBy(NOW + 250.0, "N"))
        self.run_()
        self.run_(100.0)
        self.run_(100.0)
        self.run_(49.0)
        self.assertEqual([status for _, status, _ in self.told()], ["4.2.1"])
        self.run_(1.0)
        self.assertEqual([status for _, status, _ in self.told()], ["4.2.1", "4.4.7"])

    def test_takenLater(self) -> None:
        """That it is passed on later, to who knows nothing of deadlines, is not told any more."""
        self.hop.said = {BOB: LATER}
        self.send("M1", BOB, DELIVERBY=DeliverBy(NOW + 120.0, "N"))
        self.run_()
        self.run_(120.0)
        self.hop.said = {}
        self.run_(1000.0)
        self.assertEqual(self.states("M1"), [])
        self.assertEqual([action for action, *_ in self.told()], ["delayed"])

    def test_crowded(self) -> None:
        """A message that has not had its turn by then is late as well."""
        self.make(deliveries=1, connections=1, delay_notice=1.0)
        self.hop.holding = True
        for n in range(20):
            self.send(f"M{n}")
        self.run_()
        self.run_(10.0)
        self.send("N", DELIVERBY=DeliverBy(NOW + 5.0, "N"))
        self.run_()
        self.assertEqual(self.states("N")[0][:2], ("delayed", 0))
        self.hop.holding = False
        while self.hop.held:
            self.hop.release()
            self.run_(60.0)
        self.assertEqual(self.told(), [("delayed", "4.4.7", "None")])
