"""Redis hangs, dies and comes again while messages are counted there."""

from __future__ import annotations

import time
from unittest import SkipTest

from tests.counters.server import MISSING, RedisServer
from tests.faults.case import FaultCase

LIMITED = """
[[policy]]
use = "rate-limit"
storage = "{store}"
on_failure = "{then}"
messages_per_login = "1000/hour"
"""


class RedisTests(FaultCase):
    """Both answers to an outage."""

    def outage(self, then: str, code: str) -> None:
        """Have a Redis that hangs, then one that is gone, then a new one.

        :param code: what a message gets meanwhile.
        """
        if MISSING:
            raise SkipTest(MISSING)
        redis = RedisServer()
        self.addCleanup(redis.remove)
        redis.start()
        self.serve(LIMITED.format(store=redis.url, then=then))
        self.sends("250")
        redis.hang()
        self.sends(code)
        self.assertEqual(self.logged("counters away"), 1)
        redis.goOn()
        self.back(1)
        redis.stop()
        self.sends(code)
        self.assertEqual(self.logged("counters away"), 2)
        redis.start()
        self.back(2)
        self.sends("250")
        self.assertEqual(self.logged("Traceback"), 0)

    def back(self, times: int) -> None:
        """Messages come until it counts again."""

        def counts() -> bool:
            return self.attempt() == "250" and self.logged("counters back") == times

        self.waitFor(counts, "it counts again")

    def attempt(self) -> str:
        """Send a message as far as it goes.

        :return: the first code that refuses it, or that of its end.
        """
        peer = self.talk.ready()
        answer = None
        text = self.talk.header + b"x\r\n."
        for line in (b"MAIL FROM:<ada@example.org>", b"RCPT TO:<bob@example.net>", b"DATA", text):
            answer = peer.say(line, "2", "3", "4")
            if answer.code >= 400:
                break
        assert answer is not None
        peer.close()
        return str(answer.code)

    def sends(self, code: str) -> None:
        """A message gets this answer, and soon."""
        before, began = self.kept, time.monotonic()
        self.assertEqual(self.attempt(), code)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(self.kept - before, int(code == "250"))

    def test_open(self) -> None:
        """on_failure = "open": messages are taken all the time."""
        self.outage("open", "250")

    def test_closed(self) -> None:
        """on_failure = "closed": messages are put off, and taken again by themselves."""
        self.outage("closed", "451")
