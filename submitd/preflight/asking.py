"""Ask an object that the settings name what it finds wrong or unwise in itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from submitd.interfaces import IChecked, IWarns
from submitd.typed import Finding


def ask(made: Any, path: str) -> list[Finding]:
    """What it finds wrong, if it is one that can say so."""
    return _said(made.check, path) if IChecked.providedBy(made) else []


def warnings(made: Any, path: str) -> list[Finding]:
    """What it finds unwise, if it is one that can say so."""
    return _said(made.warnings, path, isWarning=True) if IWarns.providedBy(made) else []


def asked(made: Any, path: str) -> list[Finding]:
    """Both."""
    return [*ask(made, path), *warnings(made, path)]


def _said(ask: Callable[[], list[str]], path: str, isWarning: bool = False) -> list[Finding]:
    try:
        return [Finding(path, sentence, isWarning) for sentence in ask()]
    except Exception as error:
        return [unasked(error, path)]


def unasked(error: Exception, path: str) -> Finding:
    """One object's bug must not hide the mistakes of the others."""
    if isinstance(error, OSError) and error.filename is not None:
        # No bug: what it was to look at cannot be looked at.
        return Finding(path, f"cannot look at {error.filename}: {error.strerror}")
    return Finding(path, f"cannot be checked: {type(error).__name__}: {error}")
