"""The long form finds what is wrong, says it, and ends with the status that says so."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import __main__ as program
from tests.fuzz import target as module
from tests.fuzz.target import CORPUS, Machine, Target, cuttings


def broken(data: bytes) -> None:
    """Cannot bear two line feeds."""
    assert data.count(b"\n") < 2, "two line feeds"


class ProgramTests(SynchronousTestCase):
    """``python -m tests.fuzz``."""

    def setUp(self) -> None:
        """A corpus of its own."""
        corpus = Path(self.mktemp())
        (corpus / "broken").mkdir(parents=True)
        (corpus / "broken" / "one").write_bytes(b"a\nb")
        self.patch(module, "CORPUS", corpus)
        self.target = Target("broken", broken, [b"a", b"b\n", b"c"])
        self.directory = corpus / "broken"

    def test_found(self) -> None:
        """A failure is found, made small, and kept for the next runs."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            tally = program.fuzz(self.target, 1, 20.0, keep=True)
        self.assertIn("FAILED broken", str(tally))
        self.assertIn("kept as", said.getvalue())
        [kept] = [each for each in self.directory.iterdir() if each.name != "one"]
        self.assertEqual(kept.read_bytes().count(b"\n"), 2)
        self.assertLess(len(kept.read_bytes()), 6)
        with self.assertRaises(AssertionError):
            self.target.replay()

    def test_good(self) -> None:
        """Where nothing is wrong the time is used up."""
        tally = program.fuzz(Target("broken", len, [b"a"]), 1, 0.01, keep=False)
        self.assertEqual((tally.failures, tally.replayed), ([], 1))
        self.assertGreater(tally.tried, 0)

    def test_status(self) -> None:
        """The exit status is 1 when anything failed, and 0 when nothing did."""
        for target, status in ((self.target, 1), (Target("broken", len, [b"a"]), 0)):
            self.patch(program, "targets", lambda target=target: [target])
            with contextlib.redirect_stdout(io.StringIO()) as said:
                found = program.main(["--seconds", "2", "--seed", "1"])
            self.assertEqual(found, status)
            self.assertIn(f", {status} failed\n", said.getvalue())

    def test_list(self) -> None:
        """All targets can be named; each has its part of the corpus, and no part is nobody's."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(program.main(["--list"]), 0)
        names = set(said.getvalue().split())
        machines = {each.name for each in program.targets() if isinstance(each, Machine)}
        self.assertEqual(names - machines, {each.name for each in CORPUS.iterdir()})
        self.assertEqual(machines, {"dialogue", "lmtp"})


class CuttingsTests(SynchronousTestCase):
    """Ways of cutting."""

    def test_whole(self) -> None:
        """Nothing is lost or added by them."""
        for data in (b"", b"\r", b"a\r\nb\r", b"x" * 2000):
            for chunks in cuttings(data):
                self.assertEqual(b"".join(chunks), data)
