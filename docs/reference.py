"""Sphinx directives that write the reference from the code, so that it cannot drift.

``settings``      every section and key of the configuration file, of each policy and delivery
``checkers``      the credential back ends
``command-line``  the options of ``twistd submitd`` or of ``submitd-passwd``
``interfaces``    every interface of submitd.interfaces
``rooms``         which room may import which, as tests/test_imports.py holds it

Each makes reStructuredText of what it finds and has it parsed.  A type or default that it has no
words for fails the build.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from twisted.cred.strcred import ICheckerFactory
from zope.interface.interface import InterfaceClass, Method

from submitd import deliveries, interfaces, policies, sasl, tap
from submitd.settings import Component, Settings
from submitd.tools import passwd
from submitd.typed import MAX_WORKERS, SIZE_UNITS, Count, Rates, Seconds, Size, Table, Workers

COMPONENTS = {"policy": policies.REGISTRY, "delivery": deliveries.REGISTRY}

TYPES: dict[Any, str] = {
    str: "string",
    bool: "true or false",
    int: "whole number",
    float: "number",
    Count: "whole number, 0 or more",
    Size: "size",
    Seconds: "time",
    Rates: "rates",
    Workers: f'whole number, 1 to {MAX_WORKERS}, or ``"auto"``',
    Path: "path",
    Table: "table",
}


# What stands in the configuration.


def typeName(kind: Any) -> str:
    """A type in the words of the configuration."""
    if kind in TYPES:
        return TYPES[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f'``"{choice}"``' for choice in arguments)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return f"list, each a {typeName(arguments[0])}"
    if origin is dict:
        return f"table, each value a {typeName(arguments[1])}"
    if origin in (typing.Union, types.UnionType):
        [inner] = [each for each in arguments if each is not types.NoneType]
        return typeName(inner)
    raise TypeError(f"no words for the type {kind}")


def toml(value: Any, kind: Any = None) -> str:
    """A default as it would be written in the configuration."""
    if isinstance(value, bool):
        return str(value).lower()
    if kind is Size and value:
        return _withUnit(value, [(size, unit) for unit, size in SIZE_UNITS.items() if unit])
    if kind is Seconds and value:
        return _withUnit(value, [(3600, "h"), (60, "min"), (1, "s")])
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str | Path):
        return f'"{value}"'
    if value == attrs.Factory(dict):
        return "{}"
    raise TypeError(f"no words for the default {value!r}")


def _withUnit(value: float, units: list[tuple[int, str]]) -> str:
    size, unit = max(each for each in units if value % each[0] == 0)
    return f'"{value / size:g} {unit}"'


def fieldsOf(section: type) -> Iterator[tuple[attrs.Attribute[Any], Any]]:
    """The keys of a section with their types; what has a section of its own is no key."""
    kinds = typing.get_type_hints(section)
    for field in attrs.fields(section):
        kind = kinds[field.name]
        if field.init and sectionOf(kind) is None and not _isNamed(kind):
            yield field, kind


def _isNamed(kind: Any) -> bool:
    return typing.get_origin(kind) is dict and attrs.has(typing.get_args(kind)[1])


def namedSections(section: type) -> Iterator[tuple[attrs.Attribute[Any], type]]:
    """The keys that are sections themselves, one for each name, with the class of these."""
    kinds = typing.get_type_hints(section)
    for field in attrs.fields(section):
        if _isNamed(kinds[field.name]):
            yield field, typing.get_args(kinds[field.name])[1]


def sectionOf(kind: Any) -> type | None:
    """The class of the section that a field of :class:`Settings` stands for, or ``None``."""
    inner = [each for each in typing.get_args(kind) if each not in (Ellipsis, types.NoneType)]
    section = inner[0] if len(inner) == 1 else kind
    return section if attrs.has(section) and section not in TYPES else None


def describeKeys(section: type) -> Iterator[str]:
    """The keys of a section as a definition list."""
    for field, kind in fieldsOf(section):
        if field.default is attrs.NOTHING:
            default = "required"
        elif field.default is None:
            default = "none by default"
        else:
            default = f"default ``{toml(field.default, kind)}``"
        yield f"``{field.name}`` ({typeName(kind)}; {default})"
        yield f"    {prose(field.metadata['help'])}"
        yield ""


def prose(text: str) -> str:
    """Plain text of the code as reStructuredText; what stands in quotes becomes literal."""
    parts = re.split(r'("[^"]+")', text)
    parts[::2] = [re.sub(r"([\\*`|_])", r"\\\1", each) for each in parts[::2]]
    parts[1::2] = [f"``{each}``" for each in parts[1::2]]
    return "".join(parts)


def heading(text: str, underline: str) -> list[str]:
    """A section's title."""
    return [text, underline * len(text), ""]


def summary(described: Any) -> str:
    """The first paragraph of a section's docstring, without the name of the section in front."""
    text = inspect.cleandoc(described.__doc__).partition("\n\n")[0].replace("\n", " ")
    text = text.partition("``: ")[2] if text.startswith("``[") else text
    return text[:1].upper() + text[1:]


def describeComponent(name: str, registry: dict[str, str]) -> Iterator[str]:
    """A policy or delivery: what its module promises, and its keys."""
    path, _, attribute = registry[name].partition(":")
    module = importlib.import_module(path)
    yield inspect.cleandoc(module.__doc__ or "")
    yield ""
    component = getattr(module, attribute)
    keys = [*describeKeys(component), *describeInner(component)]
    yield from keys or ["It has no keys.", ""]


def describeInner(component: type) -> Iterator[str]:
    """The keys of a component that are lists of tables."""
    kinds = typing.get_type_hints(component)
    for field in attrs.fields(component):
        inner = sectionOf(kinds[field.name]) if field.init else None
        if inner is not None:
            yield f"``{field.name}`` (list of tables)"
            yield f"    {prose(field.metadata['help'])} The keys of each:"
            yield ""
            yield from (f"    {line}" if line else "" for line in describeKeys(inner))


class Reference(SphinxDirective):
    """A directive whose content is written by :meth:`lines`."""

    def run(self) -> list[nodes.Node]:
        """Write it, and have it parsed."""
        text = "\n".join(self.lines())
        return self.parse_text_to_nodes(text, allow_section_headings=True)

    def lines(self) -> Iterator[str]:
        """The reStructuredText."""
        raise NotImplementedError


class SettingsDirective(Reference):
    """Every section and key of the file."""

    def lines(self) -> Iterator[str]:
        """The top level, then each section in the order of :class:`Settings`."""
        yield from heading("Top level", "-")
        yield from describeKeys(Settings)
        for name, kind in typing.get_type_hints(Settings).items():
            section = sectionOf(kind)
            if section is None:
                continue
            several = typing.get_origin(kind) is tuple
            yield from heading(f"[[{name}]]" if several else f"[{name}]", "-")
            if issubclass(section, Component):
                yield from self.components(name)
            else:
                yield summary(section)
                yield ""
                yield from describeKeys(section)
                for inner, each in typing.get_type_hints(section).items():
                    within = sectionOf(each)
                    if within is not None:
                        yield from heading(f"[{name}.{inner}]", "~")
                        yield summary(within)
                        yield ""
                        yield from describeKeys(within)
                for field, each in namedSections(section):
                    yield from heading(f'[{name}.{field.name}."NAME"]', "~")
                    yield prose(field.metadata["help"])
                    yield ""
                    yield from describeKeys(each)

    def components(self, name: str) -> Iterator[str]:
        """What a section may ``use``."""
        yield prose(attrs.fields_dict(Settings)[name].metadata["help"])
        yield ""
        default = attrs.fields_dict(Settings)[name].default
        usual = f'default ``"{default.use}"``' if isinstance(default, Component) else "required"
        yield f"``use`` (string; {usual})"
        yield "    One of the names below, or ``package.module:Name`` for your own."
        yield ""
        if name == "policy":
            yield "``listeners`` (list, each a string; default ``[]``)"
            yield "    The names of the listeners that it is for; empty for all."
            yield ""
        yield "The other keys depend on it."
        yield ""
        for each in COMPONENTS[name]:
            yield from heading(f'use = "{each}"', "~")
            yield from describeComponent(each, COMPONENTS[name])


def mechanismsOf(factory: ICheckerFactory) -> Iterator[str]:
    """The SASL mechanisms whose credentials a back end verifies."""
    for name in sasl.REGISTRY:
        wanted = sasl.mechanism(name).credentialsInterface
        if any(each.isOrExtends(wanted) for each in factory.credentialInterfaces):
            yield name


class CheckersDirective(Reference):
    """The credential back ends that the plug-in file of submitd brings."""

    def lines(self) -> Iterator[str]:
        """A definition list."""
        # Not findCheckerFactories: that would describe what else is installed on this machine.
        found = vars(importlib.import_module("twisted.plugins.submitd_cred")).values()
        for factory in found:
            if ICheckerFactory.providedBy(factory):
                verified = ", ".join(f"``{each}``" for each in mechanismsOf(factory))
                word, told = factory.argument, " ".join(factory.authHelp.split())
                yield f"``{factory.authType}:{word}``"
                said = f"{told} {word} is {factory.argStringFormat}."
                yield f"    {prose(said)}"
                yield f"    For {verified}."
                yield ""


class CommandLineDirective(Reference):
    """The options of a command."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """A definition list."""
        described = self.twistd() if self.arguments[0] == "submitd" else self.passwd()
        for option, text in described:
            yield f"``{option}``"
            yield f"    {prose(text)}"
            yield ""

    def twistd(self) -> Iterator[tuple[str, str]]:
        """Those of ``twistd submitd``."""
        for name, short, default, text in tap.Options.optParameters:
            option = f"-{short} {name.upper()}, " if short else ""
            said = f' Default: "{default}".' if default else ""
            yield f"{option}--{name} {name.upper().rpartition('-')[2]}", text + said
        for name, short, text in tap.Options.optFlags:
            yield f"-{short}, --{name}" if short else f"--{name}", text
        yield "--help", "Display the help and exit."
        yield "--version", "Display the version and exit."

    def passwd(self) -> Iterator[tuple[str, str]]:
        """Those of ``submitd-passwd``."""
        for action in passwd._parser()._actions:
            if not action.option_strings:
                continue
            value = f" {action.metavar}" if action.metavar else ""
            if action.choices:
                value = f" {{{','.join(action.choices)}}}"
            text = (action.help or "") % {"default": action.default, "prog": "submitd-passwd"}
            yield ", ".join(action.option_strings) + value, text[:1].upper() + text[1:] + "."


class InterfacesDirective(Reference):
    """Every interface, in the order of the module."""

    def lines(self) -> Iterator[str]:
        """A section each."""
        for interface in vars(interfaces).values():
            if (
                isinstance(interface, InterfaceClass)
                and interface.__module__ == "submitd.interfaces"
            ):
                yield from heading(interface.__name__, "-")
                yield inspect.cleandoc(interface.getDoc())
                yield ""
                yield from self.members(interface)

    def members(self, interface: InterfaceClass) -> Iterator[str]:
        """Methods and attributes as a definition list."""
        for name, member in interface.namesAndDescriptions():
            signature = member.getSignatureString() if isinstance(member, Method) else ""
            yield f"``{name}{signature}``"
            for line in inspect.cleandoc(member.getDoc()).splitlines():
                yield f"    {line}".rstrip()
            yield ""


class RoomsDirective(Reference):
    """The order of the rooms."""

    def lines(self) -> Iterator[str]:
        """A literal block, a line for each layer."""
        from tests.test_imports import LAYERS

        yield "::"
        yield ""
        for layer in reversed(LAYERS):
            yield f"    {', '.join(sorted(layer))}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx about the directives."""
    for name, directive in DIRECTIVES.items():
        app.add_directive(name, directive)
    app.connect("env-before-read-docs", readAgain)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}


def readAgain(app: Sphinx, env: Any, docnames: list[str]) -> None:
    """Pages made of code are read each time: Sphinx knows only when their own text changes."""
    for name in env.found_docs:
        source = Path(env.doc2path(name)).read_text(encoding="utf-8")
        if name not in docnames and any(f".. {each}::" in source for each in DIRECTIVES):
            docnames.append(name)


DIRECTIVES: dict[str, type[Reference]] = {
    "settings": SettingsDirective,
    "checkers": CheckersDirective,
    "command-line": CommandLineDirective,
    "interfaces": InterfacesDirective,
    "rooms": RoomsDirective,
}
