"""Targets: what is tried with input that nobody has thought of, and how.

A target is a function of octets that returns when all is well, whatever the octets are.  Its
*corpus* is a directory of small files (``corpus/NAME/``): every input that was interesting once,
and every one that a failure was found with.  They are replayed in each run, and half of what
hypothesis makes up begins with them.  A target that is a state machine has no octets, and no
corpus.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, seed
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.examples import examples

CORPUS = Path(__file__).parent / "corpus"

FINE = 600
LAST = 6
"""Octets at the beginning and at the end that are cut one by one; between them is one piece."""


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    """Ways of cutting octets: whole, octet by octet, at line ends, and two at random.

    They depend on nothing but the octets, so that a failure can be had again.
    """
    yield [data]
    last = max(FINE, len(data) - LAST)
    ends = [*range(min(FINE, len(data))), *range(last, len(data))]
    yield [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    yield [line + b"\r" for line in data.split(b"\r")[:-1]] + [data.rpartition(b"\r")[2]]
    for turn in range(2):
        chance = random.Random(zlib.crc32(data) + turn)
        ends = sorted(chance.randrange(len(data) + 1) for _ in range(5))
        yield [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def same(results: Sequence[Any]) -> Any:
    """What is the same for all ways of cutting; an ``AssertionError`` where it is not."""
    for result in results[1:]:
        assert result == results[0], f"depends on the cut: {results[0]!r:.300} and {result!r:.300}"
    return results[0]


@contextlib.contextmanager
def nothingLogged() -> Iterator[None]:
    """Raise what is logged as an error within the context: it would be hidden else."""
    found: list[Any] = []

    def observe(event: Any) -> None:
        if "log_failure" in event or event.get("log_level") is LogLevel.critical:
            found.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    for event in found:
        failure = event.get("log_failure")
        said = failure.getTraceback() if failure is not None else str(event)
        raise AssertionError(f"logged: {said}")


@attrs.frozen
class Target:
    """Something that takes octets.

    :param name: also of its directory in the corpus.
    :param check: returns where all is well, and raises anything where it is not.
    :param pieces: what its input is made of.
    :param count: examples in each run of the tests.
    :param longest: pieces of the longest input.
    """

    name: str
    check: Callable[[bytes], None]
    pieces: Sequence[bytes]
    count: int = 60
    longest: int = 12

    @property
    def directory(self) -> Path:
        """Its part of the corpus."""
        return CORPUS / self.name

    @property
    def corpus(self) -> list[tuple[str, bytes]]:
        """File names and their octets."""
        return [(each.name, each.read_bytes()) for each in sorted(self.directory.glob("*"))]

    @property
    def strategy(self) -> st.SearchStrategy[bytes]:
        """Pieces and noise, one behind the other; and the corpus, with parts of it changed."""
        known = [octets for _, octets in self.corpus]
        piece = st.one_of(st.sampled_from(self.pieces), st.binary(max_size=8))
        made = st.lists(piece, max_size=self.longest).map(b"".join)
        return st.one_of(made, st.builds(_changed, st.sampled_from(known), _changes(piece)))

    def round(self, number: int, count: int) -> int:
        """Try so many examples.

        :param number: the same one, the same examples.
        :return: how many there were.
        """
        tried = 0

        @seed(number)
        @examples(count, quick=False)
        @given(self.strategy)
        def trial(data: bytes) -> None:
            nonlocal tried
            tried += 1
            self.check(data)

        trial()
        return tried

    def replay(self) -> int:
        """Check all of the corpus, and say how many files it has."""
        for name, octets in self.corpus:
            try:
                self.check(octets)
            except BaseException as error:
                error.add_note(f"with {self.directory / name}")
                raise
        return len(self.corpus)

    def tests(self, module: str) -> type[SynchronousTestCase]:
        """Its tests for trial.

        :param module: where they stand.
        """
        return _case(self, module)


def _changes(piece: st.SearchStrategy[bytes]) -> Any:
    one = st.tuples(st.integers(0, 400), st.integers(0, 12), piece)
    return st.lists(one, max_size=4)


def _changed(octets: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Octets with parts of them replaced; counted modulo their length."""
    for at, length, piece in changes:
        at %= len(octets) + 1
        octets = octets[:at] + piece + octets[at + length :]
    return octets


def _case(target: Target, module: str) -> type[SynchronousTestCase]:
    def corpus(self: SynchronousTestCase) -> None:
        """Every input that was interesting once is taken as it should be."""
        self.assertGreater(target.replay(), 0)

    def anything(self: SynchronousTestCase) -> None:
        """Whatever comes: what is promised holds."""
        trial = examples(target.count)(given(target.strategy)(target.check))
        trial()

    return type(
        "".join(word.capitalize() for word in target.name.split("-")) + "Tests",
        (SynchronousTestCase,),
        {
            "__doc__": target.check.__doc__,
            "__module__": module,
            "test_corpus": corpus,
            "test_anything": anything,
        },
    )


@attrs.frozen
class Machine:
    """A state machine of hypothesis as a target of the long form."""

    name: str
    machine: type[Any]
    steps: int = 80

    def round(self, number: int, count: int) -> int:
        """See :meth:`Target.round`; one example of these is worth many others."""
        count = max(1, count // 10)
        numbered = seed(number)(type(self.machine.__name__, (self.machine,), {}))
        run_state_machine_as_test(numbered, settings=examples(count, self.steps, quick=False))
        return count

    def replay(self) -> int:
        """It has no corpus: its input is made of choices, not of octets."""
        return 0
