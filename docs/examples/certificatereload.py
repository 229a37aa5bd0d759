"""Certificates renewed by the program itself, without a restart.

``twistd submitd`` and every ``submissionService`` look at their files each minute.  A program that
makes its certificates itself, by ACME say, need not wait: it puts them in place and has them read.

The handshakes from then on have the new certificate; connections that are there keep the one they
began with.  Files that are no good leave the old certificate in use.
"""

from __future__ import annotations

import os
from pathlib import Path

from submitd.tls import ServerTLS


def install(tls: ServerTLS, certificate: bytes, key: bytes) -> list[str]:
    """Put a new certificate and its key in place, and use them.

    :param tls: what was given to ``submissionService``.
    :return: what is wrong with them; nothing when they are in use.
    """
    _replace(tls.settings.private_key, key)
    _replace(tls.settings.certificate, certificate)
    return [str(mistake) for mistake in tls.reload()]


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    # For its owner alone, and renamed when it is complete: nobody reads half a key.
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    fresh.rename(path)
