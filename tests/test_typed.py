"""Tests of :mod:`submitd.typed`: nothing is guessed, and every mistake has its key."""

from __future__ import annotations

from collections.abc import MutableSequence, MutableSet, Sequence, Set
from pathlib import Path
from typing import Any, Literal

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd import typed

HERE = Path("/etc/submitd")


@attrs.frozen
class Inner:
    """A table within a table."""

    name: str
    size: typed.Size = attrs.field(default=1)


@attrs.frozen(kw_only=True)
class Outer:
    """A field of every type."""

    flag: bool = False
    number: int = 0
    ratio: float = 0.5
    time: typed.Seconds = attrs.field(default=1.0)
    count: typed.Count = attrs.field(default=0)
    file: Path = Path("none")
    words: tuple[str, ...] = ()
    inner: tuple[Inner, ...] = ()
    perhaps: Inner | None = None
    choice: Literal["a", "b", "c"] = "a"
    even: int = attrs.field(default=0)

    @even.validator
    def _isEven(self, attribute: attrs.Attribute[int], value: int) -> None:
        if value % 2:
            raise ValueError(f"{attribute.name} must be even")


@attrs.frozen
class Odd:
    """A class with a field that no TOML value can become."""

    field: dict[complex, object] | list[int] | set[bytes]


@attrs.frozen
class Both:
    """A field that another one bounds."""

    low: int
    high: int = attrs.field()

    @high.validator
    def _isNotBelow(self, attribute: attrs.Attribute[int], value: int) -> None:
        if value < self.low:
            raise ValueError("high is below low")


def said(value: Any, kind: Any = Outer, key: str = "") -> list[str]:
    """What is found wrong with a value."""
    made, findings = typed.structure(value, kind, HERE, key)
    assert (made is None) == bool(findings)
    return [str(finding) for finding in findings]


class StructureTests(SynchronousTestCase):
    """TOML's values become typed objects."""

    def test_everything(self) -> None:
        """Each type takes what it is meant for."""
        made, findings = typed.structure(
            {
                "flag": True,
                "number": -3,
                "ratio": 2,
                "time": "5 min",
                "count": 7,
                "file": "x/y",
                "words": ["a", "b"],
                "inner": [{"name": "n", "size": "1 KiB"}],
                "perhaps": {"name": "p"},
                "choice": "b",
                "even": 4,
            },
            Outer,
            HERE,
            "",
        )
        self.assertEqual(findings, [])
        self.assertEqual(
            made,
            Outer(
                flag=True,
                number=-3,
                ratio=2,
                time=typed.Seconds(300.0),
                count=typed.Count(7),
                file=HERE / "x/y",
                words=("a", "b"),
                inner=(Inner("n", typed.Size(1024)),),
                perhaps=Inner("p"),
                choice="b",
                even=4,
            ),
        )

    def test_absolute(self) -> None:
        """An absolute path stays what it is."""
        made, _ = typed.structure("/var/x", Path, HERE, "")
        self.assertEqual(made, Path("/var/x"))

    def test_strict(self) -> None:
        """No type is made of another: "false" in quotes would otherwise be true."""
        self.assertEqual(
            said({"flag": "false", "number": True, "ratio": "1", "count": -1, "choice": "d"}),
            [
                'flag: must be true or false, not "false"',
                "number: must be a whole number, not true",
                'ratio: must be a number, not "1"',
                "count: must be a whole number, 0 or more, not -1",
                'choice: must be "a", "b" or "c", not "d"',
            ],
        )

    def test_oneString(self) -> None:
        """A string is no list of its letters."""
        self.assertEqual(said({"words": "PLAIN"}), ['words: must be a list, not "PLAIN"'])

    def test_everyList(self) -> None:
        """So it is with whatever a list may become, for policies that others write."""
        for kind, made in (
            (list[str], ["a", "b"]),
            (list, ["a", "b"]),
            (Sequence[str], ("a", "b")),
            (MutableSequence[str], ["a", "b"]),
            (set[str], {"a", "b"}),
            (frozenset[str], frozenset({"a", "b"})),
            (Set[str], frozenset({"a", "b"})),
            (MutableSet[str], {"a", "b"}),
            (tuple[str, ...], ("a", "b")),
            (tuple[str, str], ("a", "b")),
            (tuple, ("a", "b")),
            (list[str] | None, ["a", "b"]),
        ):
            self.assertEqual(typed.structure(["a", "b"], kind, HERE, "x"), (made, []))
            for value, described in (("ab", '"ab"'), ({"a": 1, "b": 2}, "a table"), (5, "5")):
                self.assertEqual(said(value, kind, "x"), [f"x: must be a list, not {described}"])

    def test_inLists(self) -> None:
        """What is wrong in a list is said with its place; a tuple has the length it has."""
        for kind in (list[str], Set[str]):
            self.assertEqual(said(["a", 1], kind, "x"), ["x[1]: must be a string, not 1"])
        self.assertEqual(said(["ab"], list[list[str]], "x"), ['x[0]: must be a list, not "ab"'])
        self.assertEqual(typed.structure(["a", "1 h"], tuple[str, typed.Seconds], HERE, "x")[1], [])
        self.assertEqual(said(["a"], tuple[str, int], "x"), ["x: must be a list of 2, and has 1"])
        self.assertEqual(
            said(["a", "b"], tuple[str, int], "x"), ['x: must be a whole number, not "b"']
        )

    def test_nested(self) -> None:
        """A mistake deep inside has the whole path of its key."""
        self.assertEqual(
            said({"inner": [{"name": "n"}, {"name": 1, "sise": 2}, {}], "perhaps": []}, key="top"),
            [
                "top.inner[1].name: must be a string, not 1",
                'top.inner[1].sise: unknown key; did you mean "size"?',
                "top.inner[2].name: is missing",
                "top.perhaps: must be a table, not a list",
            ],
        )

    def test_unknown(self) -> None:
        """Where no known key is near, all of them are named."""
        self.assertEqual(
            said({"name": "n", "zzz": 1}, Inner), ["zzz: unknown key; known are: name, size"]
        )

    def test_validator(self) -> None:
        """What a class says itself is said in its own words, of the key and with all the rest."""
        self.assertEqual(
            said({"even": 3, "flag": 1}, key="policy[0]"),
            [
                "policy[0].flag: must be true or false, not 1",
                "policy[0].even: even must be even",
            ],
        )

    def test_validatorOfTwo(self) -> None:
        """A validator that looks at another field is asked when there are both."""
        self.assertEqual(said({"low": 1, "high": 2}, Both), [])
        self.assertEqual(said({"low": 3, "high": 2}, Both, "x"), ["x: high is below low"])

    def test_path(self) -> None:
        """A path is a string that is not empty and has no NUL."""
        self.assertEqual(
            said({"file": ""}) + said({"file": 3}),
            [
                'file: must be the path of a file, not ""',
                "file: must be the path of a file, not 3",
            ],
        )
        self.assertEqual(len(said({"file": "a\0b"})), 1)

    def test_long(self) -> None:
        """A long value is cut in the message."""
        [line] = said({"number": "x" * 1000})
        self.assertLess(len(line), 120)

    def test_programmingError(self) -> None:
        """A field of a type that cannot be is the programmer's mistake, not the operator's."""
        self.assertRaises(TypeError, typed.structure, {"field": []}, Odd, HERE, "")

    @settings(deadline=None, max_examples=100)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from([field.name for field in attrs.fields(Outer)]) | st.text(),
                    inner,
                    max_size=4,
                )
            ),
        )
    )
    def test_anything(self, value: Any) -> None:
        """Whatever stands in a file, there is an object or a list of findings."""
        made, findings = typed.structure(value, Outer, HERE, "")
        self.assertEqual(made is None, bool(findings))


class TableTests(SynchronousTestCase):
    """TOML."""

    def test_notUTF8(self) -> None:
        """The line is told, also behind a byte order mark."""
        for octets in (b"a = 1\n\xff", b"\xef\xbb\xbfa = 1\n\xff"):
            error = self.assertRaises(ValueError, typed.parseTable, octets)
            self.assertEqual(str(error), "is not UTF-8 (line 2)")


class QuantityTests(SynchronousTestCase):
    """Sizes and times with their units."""

    def test_sizes(self) -> None:
        """Decimal and binary units are told apart; a bare number is octets."""
        for text, octets in (
            ("25 MiB", 26214400),
            ("10MB", 10000000),
            ("1.5 KiB", 1536),
            ("7", 7),
            (7, 7),
            ("0 B", 0),
        ):
            self.assertEqual(typed.parseSize(text), octets)

    def test_times(self) -> None:
        """From milliseconds to days; a bare number is seconds."""
        for text, seconds in (("5 min", 300), ("250 ms", 0.25), ("2 d", 172800), (1.5, 1.5)):
            self.assertEqual(typed.parseSeconds(text), seconds)

    def test_neither(self) -> None:
        """A unit that does not exist, or a negative number, is a mistake."""
        for value in ("5 minutes", "-1 s", "", "s", -1, True, [], "1 MiB"):
            self.assertRaises(typed.WrongValue, typed.parseSeconds, value)
        for value in ("25 Mib", "1 s", None):
            self.assertRaises(typed.WrongValue, typed.parseSize, value)


class FindingTests(SynchronousTestCase):
    """How a finding reads."""

    def test_str(self) -> None:
        """Key and sentence; a warning says that it is one."""
        self.assertEqual(str(typed.Finding("a.b", "is wrong")), "a.b: is wrong")
        self.assertEqual(str(typed.Finding("", "is wrong")), "is wrong")
        self.assertEqual(str(typed.Finding("a", "is unwise", True)), "warning: a: is unwise")

    def test_oneLine(self) -> None:
        """A key with a line feed in it is still one line, and steers no terminal."""
        said = str(typed.Finding("a\nb", 'is unknown, "\x1b[2J\u202e\u2028"'))
        self.assertEqual(said, 'a\\nb: is unknown, "\\x1b[2J\\u202e\\u2028"')

    def test_nearest(self) -> None:
        """The nearest name is found without regard to case; with none known, none are listed."""
        self.assertEqual(typed.nearest("plian", ["LOGIN", "PLAIN"]), 'did you mean "PLAIN"?')
        self.assertEqual(typed.nearest("x", []), "known are: none")
