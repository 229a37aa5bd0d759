"""Tests of :mod:`submitd.jsonlog`."""

from __future__ import annotations

import io
import json
import sys

from twisted.trial.unittest import SynchronousTestCase

from submitd import events
from submitd.errors import CannotStart
from submitd.jsonlog import JSONLog


class JSONLogTests(SynchronousTestCase):
    """The log of lines of JSON."""

    def test_unwritable(self) -> None:
        """A file that cannot be written stops the start."""
        with self.assertRaises(CannotStart) as caught:
            JSONLog("/nowhere/events.json").open()
        self.assertEqual(
            str(caught.exception), "cannot write /nowhere/events.json: No such file or directory"
        )

    def test_standardOutput(self) -> None:
        """It is the process's own standard output, which twistd's log has taken the place of."""
        out = io.StringIO()
        self.patch(sys, "__stdout__", out)
        log = JSONLog("-")
        log.open()
        log.open()
        events.emit(events.SERVICE_STARTED, hostname="mail.example.com")
        log.close()
        log.close()
        events.emit(events.SERVICE_STARTED, hostname="later.example.com")
        [record] = [json.loads(line) for line in out.getvalue().splitlines()]
        self.assertEqual(record["hostname"], "mail.example.com")
