"""TOML values become typed objects, strictly, and every mistake is found.

:func:`structure` makes an attrs object of a table.  Nothing is guessed: a number in quotes is no
number, one string is no list, an unknown key is a mistake with the nearest known one beside it.
Sizes (``"25 MiB"``) and times (``"5 min"``) may be written with their unit.  A relative ``Path`` is
taken from the directory it is given, never from the one the process happens to be in.  A class with
a class method ``fromTable(table, directory)`` is made by that.

It never raises for a wrong value: the mistakes come back as :class:`Finding`, each with the path of
its key.  It raises ``TypeError`` for a class that it cannot make, which is a programming error.
"""

from __future__ import annotations

import codecs
import difflib
import functools
import os
import re
import tomllib
import types
import typing
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NewType, TypeVar

import attrs
from cattrs import (
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    IterableValidationNote,
    StructureHandlerNotFoundError,
)
from cattrs.gen import make_dict_structure_fn, override

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]

if TYPE_CHECKING:
    # To a type checker they are what they hold, so that a program may write ``stage=10``.
    Size = int
    Seconds = float
    Count = int
    Workers = int
    Rates = str
else:
    Size = NewType("Size", int)
    """Octets; ``"25 MiB"``, ``"10 kB"`` or a plain number."""

    Seconds = NewType("Seconds", float)
    """Seconds; ``"5 min"``, ``"1 h"``, ``"30 s"`` or a plain number."""

    Count = NewType("Count", int)
    """A whole number, not negative."""

    Workers = NewType("Workers", int)
    """A whole number from 1 to 60, or ``"auto"`` for the cores that the process may use."""

    Rates = NewType("Rates", str)
    """How much in which time: ``"100/hour, 1000/day"``, or empty for any amount."""

# Four of each, old and new, those that serve and those that end, must have a number below 256.
MAX_WORKERS = 60

SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)")

_KINDS: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}

# What a list may become, and how it is made of one.
_LISTS: dict[Any, Callable[[list[Any]], Any]] = {
    tuple: tuple,
    list: list,
    set: set,
    frozenset: frozenset,
    Sequence: tuple,
    MutableSequence: list,
    Set: frozenset,
    MutableSet: set,
}


class WrongValue(ValueError):
    """A value that its key cannot have; the text is the sentence that says so."""


@attrs.frozen
class Finding:
    """Something to say about a key.

    :param key: its path, such as ``listener[0].tls``; empty for the file as a whole.
    :param sentence: what is wrong, and what would be right.
    :param isWarning: whether it is unwise rather than wrong; a start goes on.
    """

    key: str
    sentence: str
    isWarning: bool = False

    def __str__(self) -> str:
        said = f"{self.key}: {self.sentence}" if self.key else self.sentence
        # A key or value with a line feed in it must not look like two findings.
        said = "".join(map(_visible, said))
        return f"warning: {said}" if self.isWarning else said


def _visible(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


@attrs.frozen
class Table:
    """A table of the configuration as it was written, for whoever knows what is in it.

    :param values: as TOML has them.
    :param directory: where relative paths begin.
    """

    values: Mapping[str, Any]
    directory: Path

    @classmethod
    def fromTable(cls, table: Mapping[str, Any], directory: Path) -> Table:
        """See :func:`structure`."""
        return cls(table, directory)


def structure(
    value: Any, kind: type[T] | Any, directory: Path, key: str
) -> tuple[T | None, list[Finding]]:
    """Make a typed object of what TOML gave.

    :param value: a table, list, string, number or truth value.
    :param kind: an attrs class, or any type that a field of one may have.
    :param directory: where relative paths begin.
    :param key: the path of the value, for the findings.
    :return: the object and no findings, or ``None`` and all of them.
    """
    try:
        return _converter(directory).structure(value, kind), []
    except StructureHandlerNotFoundError as error:
        raise TypeError(f"no configuration key can be of type {error.type_}") from error
    except Exception as error:
        return None, list(_findings(error, key))


def readTable(file: Path) -> dict[str, Any]:
    """The table that a TOML file is.

    :raise ValueError: when there is none; the text says why, without the file's name.
    """
    try:
        octets = file.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return parseTable(octets)


# What tomllib says of the mistakes that are made most, and what they are.
_HINTS = {
    "Invalid value": 'a text stands in straight quotes, "like this"',
    "Cannot overwrite a value": "the key stands there already",
    "Cannot declare": "the section, or a key of its name, stands there already",
}


def parseTable(octets: bytes) -> dict[str, Any]:
    """The table that the octets of a TOML file are.

    :raise ValueError: when there is none; the text says why.
    """
    octets = octets.removeprefix(codecs.BOM_UTF8)  # editors on Windows put it in front
    try:
        return tomllib.loads(octets.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        said = f"is not UTF-8 (line {line})"
    except tomllib.TOMLDecodeError as error:
        hints = [f"; {hint}" for words, hint in _HINTS.items() if str(error).startswith(words)]
        said = f"is not TOML: {error}{''.join(hints)}"
    raise ValueError(said)


def readObject(file: Path, kind: type[T]) -> T:
    """The typed object that a TOML file describes.

    :raise ValueError: when it cannot be made; the text says all that is wrong, without the file's
        name.
    """
    made: T | None
    made, findings = structure(readTable(file), kind, file.absolute().parent, "")
    if made is None:
        raise ValueError("; ".join(map(str, findings)))
    return made


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known.

    :return: ``did you mean "..."?``, or else the list of what is known.
    """
    names = list(known)
    lowered = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    if close:
        return f'did you mean "{lowered[close[0]]}"?'
    return f"known are: {', '.join(names) or 'none'}"


def describe(value: Any) -> str:
    """What a value is, for a sentence; a long one is cut."""
    if isinstance(value, list | dict):
        return _KINDS[type(value)]
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f'"{text}"' if isinstance(value, str) else text


def parseSize(value: Any) -> Size:
    """Octets from a number or from a string such as ``"25 MiB"``.

    :raise WrongValue: when it is neither.
    """
    return Size(round(_quantity(value, SIZE_UNITS, "a size", "25 MiB")))


def parseSeconds(value: Any) -> Seconds:
    """Seconds from a number or from a string such as ``"5 min"``.

    :raise WrongValue: when it is neither.
    """
    return Seconds(_quantity(value, TIME_UNITS, "a time", "5 min"))


def _quantity(value: Any, units: dict[str, Any], what: str, example: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return value
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise WrongValue(
            f'must be {what} such as "{example}" (units: {known}), not {describe(value)}'
        )
    return float(match[1]) * float(units[match[2]])


def parseCount(value: Any) -> Count:
    """A whole number that is not negative.

    :raise WrongValue: when it is not.
    """
    if type(value) is not int or value < 0:
        raise WrongValue(f"must be a whole number, 0 or more, not {describe(value)}")
    return Count(value)


def parseWorkers(value: Any) -> Workers:
    """A number of processes, or ``"auto"``.

    :raise WrongValue: when it is neither.
    """
    if value == "auto":
        return Workers(min(len(os.sched_getaffinity(0)), MAX_WORKERS))
    if type(value) is not int or not 0 < value <= MAX_WORKERS:
        said = f'must be a whole number from 1 to {MAX_WORKERS}, or "auto"'
        raise WrongValue(f"{said}, not {describe(value)}")
    return Workers(value)


def parseRates(value: Any) -> Rates:
    """A string such as ``"100/hour, 1000/day"``.

    :raise WrongValue: when it is not.
    """
    # The package behind it takes its time to be imported; most configurations have no rates.
    from submitd.counters.windows import parseWindows

    try:
        parseWindows(_exactly(str)(value, str))
    except ValueError as error:
        raise WrongValue(str(error)) from None
    return Rates(value)


def _exactly(kind: type) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is kind or (kind is float and type(value) is int):
            return value
        raise WrongValue(f"must be {_KINDS[kind]}, not {describe(value)}")

    return hook


def _oneOf(value: Any, kind: Any) -> Any:
    choices = typing.get_args(kind)
    if value in choices and isinstance(value, str):
        return value
    named = [f'"{choice}"' for choice in choices]
    listed = " or ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
    raise WrongValue(f"must be {listed}, not {describe(value)}")


def _list(kind: Any, converter: Converter) -> Hook:
    structureItems = list_structure_factory(kind, converter)
    make = _LISTS[typing.get_origin(kind) or kind]
    # A string is a sequence too: without this, "PLAIN" would become ("P", "L", "A", ...).
    return lambda value, _: make(structureItems(_exactly(list)(value, list), kind))


def _fixed(kind: Any, converter: Converter) -> Hook:
    kinds = typing.get_args(kind)

    def hook(value: Any, _: Any) -> Any:
        if len(_exactly(list)(value, list)) != len(kinds):
            raise WrongValue(f"must be a list of {len(kinds)}, and has {len(value)}")
        return tuple(map(converter.structure, value, kinds))

    return hook


def _named(kind: Any, converter: Converter) -> Hook:
    structureItems = mapping_structure_factory(kind, converter)

    def hook(value: Any, _: Any) -> Any:
        return structureItems(_exactly(dict)(value, dict), kind)

    return hook


def _table(kind: Any, converter: Converter) -> Hook:
    # Made by its class alone, a wrong value would be one of the whole table.
    checked: dict[str, Any] = {
        field.name: override(struct_hook=_validated(field, converter))
        for field in attrs.fields(kind)
        if field.init and field.validator is not None
    }
    structureFields = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, **checked
    )

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise WrongValue(f"must be a table, not {describe(value)}")
        return structureFields(value, kind)

    return hook


def _validated(field: Any, converter: Converter) -> Hook:
    def hook(value: Any, kind: Any) -> Any:
        made = converter.structure(value, kind)
        try:
            field.validator(None, field, made if field.converter is None else field.converter(made))
        except ValueError as error:
            said = str(error.args[0]) if error.args else ""
            # As attrs says it: "'timeout' must be > 0.0: 0".
            raise WrongValue(said.removeprefix(f"'{field.name}' ")) from None
        except Exception:
            return made  # it wants the whole object, and has it when the class makes one
        return made

    return hook


def _orNone(kind: Any, converter: Converter) -> Hook:
    # TOML has no null: whatever is given must be of the other type.
    [inner] = [each for each in typing.get_args(kind) if each is not types.NoneType]
    return lambda value, _: converter.structure(value, inner)


def _isOptional(kind: Any) -> bool:
    arguments = typing.get_args(kind)
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return union and len(arguments) == 2 and types.NoneType in arguments


def _isList(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) in _LISTS


def _isFixed(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] != (Ellipsis,)


def _isMapping(kind: Any) -> bool:
    return typing.get_origin(kind) is dict


def _isLiteral(kind: Any) -> bool:
    origin: object = typing.get_origin(kind)
    return origin is Literal


def _makesItself(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "fromTable")


@functools.lru_cache(maxsize=8)
def _converter(directory: Path) -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)

    def path(value: Any, _: Any) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise WrongValue(f"must be the path of a file, not {describe(value)}")
        return directory / value

    for kind in (str, bool, int, float):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(Path, path)
    converter.register_structure_hook(Size, lambda value, _: parseSize(value))
    converter.register_structure_hook(Seconds, lambda value, _: parseSeconds(value))
    converter.register_structure_hook(Count, lambda value, _: parseCount(value))
    converter.register_structure_hook(Workers, lambda value, _: parseWorkers(value))
    converter.register_structure_hook(Rates, lambda value, _: parseRates(value))
    converter.register_structure_hook_func(_isLiteral, _oneOf)
    converter.register_structure_hook_factory(_isList, _list)
    converter.register_structure_hook_factory(_isFixed, _fixed)
    converter.register_structure_hook_factory(_isMapping, _named)
    converter.register_structure_hook_factory(_isOptional, _orNone)
    converter.register_structure_hook_factory(attrs.has, _table)
    converter.register_structure_hook_func(
        _makesItself, lambda value, kind: kind.fromTable(_exactly(dict)(value, dict), directory)
    )
    return converter


def _findings(error: BaseException, key: str) -> Iterator[Finding]:
    if isinstance(error, ClassValidationError | IterableValidationError):
        for inner in error.exceptions:
            yield from _findings(inner, _deeper(inner, key))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.alias for field in attrs.fields(error.cl) if field.init]
        for extra in sorted(error.extra_fields):
            yield Finding(_join(key, extra), f"unknown key; {nearest(extra, known)}")
    elif isinstance(error, KeyError):
        yield Finding(key, "is missing")
    else:
        yield Finding(key, str(error))


def _deeper(error: BaseException, key: str) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return _join(key, note.name)
        if isinstance(note, IterableValidationNote):
            isName = isinstance(note.index, str)
            return _join(key, f'"{note.index}"') if isName else f"{key}[{note.index}]"
    return key


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
