"""Before a start: whether what the settings say can work.

:func:`examine` looks at files, certificates and endpoint strings, and makes every mechanism,
checker, policy, delivery and resolver, to ask its ``check()`` (``IChecked``) and ``warnings()``
(``IWarns``), and what it is.  It opens no port and writes nothing; the objects it makes, some of
them several times, are thrown away.  :func:`logNotWritten` is asked by ``--check``, in the place of
the start, which opens that file, and :func:`portsInUse` only when the service is about to start.
The table :data:`CHECKS` says which file of this room looks at what.

Nothing here raises for a wrong setting: everything comes back as findings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import NoReturn

import attrs

from submitd.preflight import certificates, deliveries, files, listeners, logins, names, policies
from submitd.preflight.addresses import addressOf, portsInUse
from submitd.preflight.files import logNotWritten
from submitd.settings import Settings
from submitd.typed import Finding

__all__ = [
    "CHECKS",
    "READ_BEFORE",
    "addressOf",
    "examine",
    "examineAs",
    "logNotWritten",
    "portsInUse",
]

CHECKS: tuple[tuple[frozenset[str], Callable[[Settings], Iterator[Finding]]], ...] = (
    (frozenset({"hostname", "banner"}), names.greeting),
    (frozenset({"hostname", "relay", "route"}), names.ownName),
    (frozenset({"smtp"}), names.smtpSection),
    (frozenset({"limits"}), files.descriptors),
    (frozenset({"listener"}), listeners.sections),
    (frozenset({"listener", "auth"}), listeners.closed),
    (frozenset({"listener", "tls"}), certificates.missing),
    (frozenset({"tls"}), certificates.section),
    (frozenset({"auth"}), logins.section),
    (frozenset({"listener", "auth"}), listeners.byAddress),
    (frozenset({"policy"}), policies.sections),
    (frozenset({"policy", "listener"}), policies.listeners),
    (frozenset({"policy"}), policies.signing),
    (frozenset({"policy"}), policies.filters),
    (frozenset({"policy", "limits"}), policies.delays),
    (frozenset({"delivery"}), deliveries.section),
    (frozenset({"policy", "delivery"}), policies.needs),
    (frozenset({"delivery", "relay", "route"}), deliveries.relay),
    (frozenset({"dns"}), names.dnsSection),
    (frozenset({"refusals"}), files.refusals),
    (frozenset({"log"}), files.log),
    (frozenset({"metrics", "listener"}), listeners.metrics),
)

READ_BEFORE = frozenset({"tls", "log", "listener"})
"""The sections whose files are opened before the service gives up the rights it is started with."""


def examine(settings: Settings, broken: frozenset[str] = frozenset()) -> list[Finding]:
    """All that is wrong or unwise in what the settings mean.

    :param broken: the sections whose types were wrong already; what needs them is not looked at.
    """
    return [
        finding
        for sections, check in CHECKS
        if not broken.intersection(sections)
        for finding in check(settings)
    ]


def examineAs(settings: Settings, become: Callable[[], object]) -> list[Finding]:
    """Examine what the service will use as somebody else, in a process that is that somebody.

    Root can read everything: a password file that the service's user cannot would be found out at
    the first login.

    :param settings: with no mistake that root can see.
    :param become: gives up the rights; called in the child alone.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _tell(writing, settings, become)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    if not said:
        return [Finding("", "cannot be examined as the user who is to run the service")]
    return [Finding(**each) for each in json.loads(said)]


def _tell(writing: int, settings: Settings, become: Callable[[], object]) -> NoReturn:
    """The child: write the findings down, and end without all that the parent would do then."""
    try:
        become()
        found = examine(settings, READ_BEFORE)
        with open(writing, "w", encoding="utf-8") as answer:
            json.dump([attrs.asdict(each) for each in found], answer)
    finally:
        os._exit(0)
