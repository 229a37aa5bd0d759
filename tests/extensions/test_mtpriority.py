"""Tests of :mod:`submitd.extensions.mtpriority`."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from submitd import events
from tests.extensions.base import ExtensionTestCase, PlainDelivery


class PriorityTests(ExtensionTestCase):
    """MT-PRIORITY."""

    def test_kept(self) -> None:
        """Every priority there is comes to the envelope as a number."""
        self.talk()
        user: Any = object()
        self.conversation.protocol.dialogue.session.user = user
        for priority in range(-9, 10):
            self.assertTrue(self.mail(f"MT-PRIORITY={priority}").startswith("250"))
            self.assertEqual(self.envelope.extensions, {"MT-PRIORITY": priority})

    def test_withoutLogin(self) -> None:
        """Whom nobody knows may be less urgent than others, and not more (RFC 6710 4.1)."""
        self.talk()
        for priority, code in ((-9, "250"), (0, "250"), (1, "530 5.7.0"), (9, "530 5.7.0")):
            self.assertTrue(self.mail(f"MT-PRIORITY={priority}").startswith(code), priority)

    def test_wrong(self) -> None:
        """Nothing else is a priority."""
        self.talk()
        for wrong in ("10", "-10", "+1", "-0", "00", "x", "1.0", "\u0661"):
            self.assertTrue(self.mail(f"MT-PRIORITY={wrong}").startswith("501 5.5.4"), wrong)
        self.assertTrue(self.mail("MT-PRIORITY").startswith("501 5.5.4"))

    def test_announced(self) -> None:
        """EHLO shows the name of the profile, if there is one."""
        self.talk()
        self.assertIn("MT-PRIORITY", self.ehlo())
        self.talk(priorityProfile="STANAG4406")
        self.assertIn("MT-PRIORITY STANAG4406", self.ehlo())

    def test_notOffered(self) -> None:
        """Where the delivery has no priorities, the parameter is unknown."""
        self.talk(delivery=PlainDelivery())
        self.assertNotIn("MT-PRIORITY", self.ehlo())
        self.assertTrue(self.mail("MT-PRIORITY=1").startswith("555 5.5.4"))

    def test_logged(self) -> None:
        """What says when a message goes out is in the log with it, where somebody asked for it."""
        seen: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=seen.append))
        self.talk()
        for asked in ("HOLDFOR=60 BY=3600;N SIZE=100 MT-PRIORITY=-3", "SIZE=100"):
            self.mail(asked)
            self.conversation.say("RCPT TO:<b@example.org>", "DATA", "", ".")
        self.assertEqual(
            [event["asked"] for event in seen if event["event"] == "message-timed"],
            ["MT-PRIORITY=-3 HOLDFOR=60 BY=3600;N"],
        )
