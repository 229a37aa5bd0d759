"""A filter that changes a message, and the service's own signature behind it."""

from __future__ import annotations

from twisted.internet.task import Clock

from tests.policies.filters import (
    CONTINUE,
    Script,
    addHeader,
    changeHeader,
    insertHeader,
    made,
    replaceBody,
)
from tests.policies.test_dkim import MESSAGE, DKIMCase


class SignedBehindFilterTests(DKIMCase):
    """Policy milter, then policy dkim."""

    def test_signed(self) -> None:
        """What is signed is what the filter has made of the message, and it verifies."""
        changes = (
            changeHeader(1, "Subject", "another"),
            insertHeader(1, "Reply-To", "<list@example.com>"),
            insertHeader(0, "X-Top", "1"),
            addHeader("To", "<b@example.org>"),
            replaceBody(b"Another body,\n"),
            replaceBody(b"in two parts \r\n\r\n"),
        )
        script = Script({b"E": b"".join(changes) + CONTINUE})
        policy = made(script)
        policy.start(Clock())
        [tags] = self.signed(MESSAGE, policy, self.policy())
        self.assertIn("reply-to", tags["h"].lower().split(":"))
        self.assertIn(b"Subject: another\r\n", self.kept)
        self.assertTrue(self.kept.endswith(b"Another body,\r\nin two parts \r\n\r\n"))

    def test_large(self) -> None:
        """The same with a body that is kept aside in a file."""
        script = Script({b"E": addHeader("X-Checked", "1") + CONTINUE})
        policy = made(script)
        policy.start(Clock())
        body = b"".join(b"%070d\r\n" % number for number in range(10_000))
        self.signed(b"From: <a@example.com>\r\n\r\n" + body, policy, self.policy())
        self.assertTrue(self.kept.endswith(body))
