"""Certificates and their keys."""

from __future__ import annotations

from collections.abc import Iterator

from submitd import tls
from submitd.preflight.files import othersCanRead
from submitd.settings import Settings
from submitd.typed import Finding


def section(settings: Settings) -> Iterator[Finding]:
    """What ``[tls]`` names."""
    if settings.tls is None:
        return
    for mistake in tls.mistakes(settings.tls):
        yield Finding(f"tls.{mistake.key}", mistake.sentence)
    for warning in tls.warnings(settings.tls):
        yield Finding(f"tls.{warning.key}", warning.sentence, isWarning=True)
    yield from othersCanRead("tls.private_key", settings.tls.private_key)
    for name, each in settings.tls.sni.items():
        yield from othersCanRead(f'tls.sni."{name}".private_key', each.private_key)
    if settings.tls.client_ca is not None and settings.tls.client_certificate == "no":
        said = 'is not used: with client_certificate = "no" clients are not asked for one'
        yield Finding("tls.client_ca", said, isWarning=True)


def missing(settings: Settings) -> Iterator[Finding]:
    """Listeners with TLS, where there is no ``[tls]``."""
    for at, listener in enumerate(settings.listener):
        if listener.tls != "off" and settings.tls is None:
            yield Finding(
                f"listener[{at}].tls",
                f'is "{listener.tls}", but there is no section [tls] with a certificate',
            )
