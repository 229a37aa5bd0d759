"""Files: those that are written, those with secrets, and how many may be open."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from submitd.settings import Settings
from submitd.typed import Finding
from submitd.writable import unwritable

# What a service has open beside its connections, with messages that are being written among it.
OTHER_DESCRIPTORS = 64


def descriptors(settings: Settings) -> Iterator[Finding]:
    """Connections without a descriptor would wait."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections + OTHER_DESCRIPTORS
    if most != resource.RLIM_INFINITY and wanted > most:
        said = f"needs {wanted} file descriptors, and there are {most} (ulimit -Hn, LimitNOFILE)"
        yield Finding("limits.connections", said, isWarning=True)


def refusals(settings: Settings) -> Iterator[Finding]:
    """The file of the refusals."""
    if settings.refusals.file is not None:
        yield from _written("refusals.file", settings.refusals.file)


def log(settings: Settings) -> Iterator[Finding]:
    """The place of the JSON log."""
    target = settings.log.json
    if target in ("", "-"):
        return
    if "\0" in target:
        yield Finding("log.json", "there is a NUL in the name")
    elif os.path.isdir(target):
        yield Finding("log.json", f"{target} is a directory")
    elif not os.path.isdir(Path(target).parent):
        yield Finding("log.json", f"there is no directory {Path(target).parent}")


def logNotWritten(settings: Settings) -> Iterator[Finding]:
    """A JSON log that cannot be opened by who we are now.

    It stays open when the service gives up its rights, and whoever it is then need not be able to
    open it; so this is no mistake for one that runs already.
    """
    if settings.log.json not in ("", "-") and not any(log(settings)):
        yield from _written("log.json", Path(settings.log.json), alone=True)


def _written(path: str, file: Path, alone: bool = False) -> Iterator[Finding]:
    if said := unwritable(file, alone):
        yield Finding(path, said)


def othersCanRead(path: str, file: Path) -> Iterator[Finding]:
    """A file with a secret is for its owner alone."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # said by whoever reads it
    if stat.S_ISREG(mode) and mode & 0o004:
        yield Finding(path, f"{file} can be read by others (chmod o= {file})", isWarning=True)
