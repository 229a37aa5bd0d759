"""The configuration: a TOML file becomes :class:`submitd.settings.Settings`.

:func:`load` reads the file, then the types of all values (typed.py), then what the values mean
(preflight/).  It opens no port and writes nothing.  All mistakes come together in one
:class:`ConfigurationError`, as lines ``FILE: key.path[0].name: what is wrong``; a section whose
types are wrong does not keep the others from being examined.  What works but is unwise is a
warning, and comes back beside the settings.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from submitd.preflight import examine
from submitd.relay.settings import RelaySettings, RouteSettings, TimeoutSettings
from submitd.settings import (
    AuthSettings,
    LimitSettings,
    ListenerSettings,
    LogSettings,
    MetricsSettings,
    RefusalSettings,
    Settings,
    SMTPSettings,
)
from submitd.tls import CertificateSettings, TLSSettings
from submitd.typed import Finding, nearest, readTable, structure

# Where the keys are described, section by section, for the documentation.
SECTIONS: tuple[type, ...] = (
    Settings,
    ListenerSettings,
    TLSSettings,
    CertificateSettings,
    AuthSettings,
    LimitSettings,
    SMTPSettings,
    RelaySettings,
    TimeoutSettings,
    RouteSettings,
    RefusalSettings,
    LogSettings,
    MetricsSettings,
)


class ConfigurationError(Exception):
    """A configuration that nothing can be started from.

    :param file: where it was read.
    :param findings: the mistakes and warnings.
    :param settings: what could be understood of it all the same, if anything.
    """

    def __init__(
        self, file: Path, findings: Iterable[Finding], settings: Settings | None = None
    ) -> None:
        self.file = file
        self.settings = settings
        self.findings = list(findings)
        super().__init__("\n".join(lines(file, self.findings)))


@attrs.frozen
class Loaded:
    """A configuration without mistakes.

    :param settings: what it says.
    :param warnings: what is unwise in it.
    """

    settings: Settings
    warnings: list[Finding]


def lines(file: Path, findings: Iterable[Finding]) -> list[str]:
    """The findings as they are printed."""
    return [f"{file}: {finding}" for finding in findings]


def load(file: Path) -> Loaded:
    """Read, type and examine a configuration.

    :param file: a TOML file.
    :raise ConfigurationError: with everything that is wrong.
    """
    settings, broken, findings = _typed(_parse(file), file.absolute().parent)
    findings += examine(settings, frozenset(broken))
    if any(not finding.isWarning for finding in findings):
        raise ConfigurationError(file, findings, settings)
    return Loaded(settings, findings)


def _parse(file: Path) -> dict[str, Any]:
    try:
        return readTable(file)
    except ValueError as error:
        raise ConfigurationError(file, [Finding("", str(error))]) from None


def _typed(document: dict[str, Any], directory: Path) -> tuple[Settings, set[str], list[Finding]]:
    kinds = typing.get_type_hints(Settings)
    values: dict[str, Any] = {}
    broken: set[str] = set()
    findings: list[Finding] = []
    for name in document:
        if name not in kinds:
            findings.append(Finding(name, f"unknown key; {nearest(name, kinds)}"))
            continue
        made, wrong = structure(document[name], kinds[name], directory, name)
        findings += [_withHeader(each, name) for each in wrong]
        if wrong:
            broken.add(name)
        else:
            values[name] = made
    settings = Settings(**values)
    anchored = attrs.evolve(
        settings,
        listener=tuple(each.anchored(directory) for each in settings.listener),
        auth=settings.auth.anchored(directory),
        log=settings.log.anchored(directory),
        metrics=settings.metrics.anchored(directory),
    )
    return anchored, broken, findings


def _withHeader(finding: Finding, name: str) -> Finding:
    """How the header of a section is written, where it has brackets too few or too many."""
    headers = {
        "must be a list, not a table": f"[[{name}]]",
        "must be a table, not a list": f"[{name}]",
    }
    header = headers.get(finding.sentence) if finding.key == name else None
    if header is None:
        return finding
    return attrs.evolve(finding, sentence=f"{finding.sentence}: write {header}")
