"""Policies and deliveries that raise, hang or answer nonsense, in a started service."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.robustness.checks import Talk
from tests.robustness.faulty import FAULTS, STAGES, STEPS
from tests.robustness.peer import plain
from tests.robustness.service import ROBUST, Robust

# A stage has the time that a password takes to be checked on a busy machine.
FAULTY = (
    ROBUST.replace('use = "maildir"', 'use = "tests.robustness.faulty:Delivery"').replace(
        'message_size = "20 MiB"', 'message_size = "20 MiB"\nstage = "3 s"'
    )
    + """
[[policy]]
use = "tests.robustness.faulty:Policy"
"""
)

_faulty: Robust | None = None


def faulty() -> Robust:
    """The service with the faulty policy and delivery; started once, and ends with the tests."""
    global _faulty
    if _faulty is None or not _faulty.service.isRunning:
        _faulty = Robust(FAULTY)
    return _faulty


class FailureTests(SynchronousTestCase):
    """4yz and never 250, in time, the dialogue in step, nothing kept and nothing left."""

    def setUp(self) -> None:
        """Have the service."""
        self.robust = faulty()
        self.talk = Talk(self.robust.target)
        self.addCleanup(self.talk.close)
        self.before = self.robust.kept

    def fails(self, how: str, where: str) -> None:
        """Go as far as the fault, and see what is said."""
        peer = self.talk.beginSecure()
        peer.expect("220")
        target = self.robust.target
        response = plain(target.user, target.password)
        text = self.talk.header + b"x" * 300_000 + b"\r\n."
        commands = {
            "hello": (b"EHLO %b.%b.example" % (how.encode(), where.encode()), "250"),
            "login": (b"AUTH PLAIN " + response, "235"),
            "sender": (b"MAIL FROM:<ada@example.org>", "250"),
            "recipient": (b"RCPT TO:<bob@example.net>", "250"),
            "data": (b"DATA", "354"),
            "message": (text, "250"),
        }
        meant = {"begin": "data", "chunk": "message", "end": "message"}.get(where, where)
        for stage, (line, good) in commands.items():
            if stage == meant:
                peer.say(line, "451")
                break
            peer.say(line, good)
        peer.say(b"EHLO client.example", "250")
        peer.say(b"NOOP", "250")
        peer.inStep()
        self.assertEqual(self.robust.kept, self.before)
        self.assertEqual(self.robust.unfinished, [])

    def test_otherClients(self) -> None:
        """While one client waits for a policy that hangs, others are served at once."""
        peer = self.talk.beginSecure()
        peer.expect("220")
        peer.send(b"EHLO hang.hello.example\r\n")
        self.talk.stillServes()
        peer.expect("451")
        self.assertEqual(self.robust.kept, self.before + 1)

    def test_leaving(self) -> None:
        """Clients that leave while something hangs leave nothing behind."""
        for where in ("sender", "begin", "end"):
            peer = self.talk.beginSecure()
            response = plain(self.robust.target.user, self.robust.target.password)
            peer.send(
                b"EHLO hang.%b.example\r\nAUTH PLAIN %b\r\nMAIL FROM:<ada@example.org>\r\n"
                b"RCPT TO:<bob@example.net>\r\nDATA\r\n" % (where.encode(), response)
            )
            while (answer := peer.hear()) is not None and not answer.lines[0].startswith("2.7.0"):
                pass
            peer.reset()
        self.talk.stillServes()
        self.assertEqual(self.robust.kept, self.before + 1)
        self.assertEqual(self.robust.unfinished, [])


def _test(how: str, where: str) -> Callable[[FailureTests], None]:
    def test(self: FailureTests) -> None:
        self.fails(how, where)

    what = "policy" if where in STAGES else "delivery"
    said = {"raise": "raises", "hang": "hangs", "wrong": "answers nonsense", "late": "fails late"}
    test.__doc__ = f"A {what} that {said[how]} at {where} is 451."
    return test


for _how in FAULTS:
    for _where in (*STAGES, *STEPS):
        setattr(FailureTests, f"test_{_how}_{_where}", _test(_how, _where))
