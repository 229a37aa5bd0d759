"""Files: those that are written, those with secrets, and how many may be open."""

from __future__ import annotations

import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from submitd.settings import Settings
from submitd.typed import Finding

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
    file = settings.refusals.file
    if file is not None:
        yield from _cannotBe("refusals.file", file)


def log(settings: Settings) -> Iterator[Finding]:
    """The JSON log."""
    target = settings.log.json
    if target not in ("", "-"):
        yield from _cannotBe("log.json", Path(target))


def _cannotBe(path: str, file: Path) -> Iterator[Finding]:
    """A file that is made where it is not there yet."""
    if file.is_dir():
        yield Finding(path, f"{file} is a directory")
    elif not file.parent.is_dir():
        yield Finding(path, f"there is no directory {file.parent}")


def othersCanRead(path: str, file: Path) -> Iterator[Finding]:
    """A file with a secret is for its owner alone."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # said by whoever reads it
    if stat.S_ISREG(mode) and mode & 0o004:
        yield Finding(path, f"{file} can be read by others (chmod o= {file})", isWarning=True)
