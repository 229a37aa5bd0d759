"""What a program gives to ``submissionService``, held to what a configuration may say.

A configuration is read by typed.py and examined by preflight/; what is mistaken in the same way
here is found by the same means, and said in the same words.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
from twisted.cred.portal import Portal

from submitd import extensions
from submitd.dialogue import Rules
from submitd.interfaces import ITrustedLogin
from submitd.listener import keepingAllOut
from submitd.preflight.names import commands, hello, hostname, unknown, words
from submitd.settings import ListenerSettings
from submitd.submission import Submission
from submitd.typed import nearest, structure

# The parameters of a Submission that follow from the settings of each listener: what
# service.forListener sets.
_LISTENERS_OWN = frozenset(
    {
        "startTLS",
        "requireTLS",
        "lmtp",
        "xclientFrom",
        "xclientLogin",
        "xforwardFrom",
        "loginByAddress",
        "proxyFrom",
    }
)

S = TypeVar("S")


def checkKinds(common: Mapping[str, Any], tls: object) -> None:
    """See that nothing is given to all that each listener says, and that TLS is a context factory.

    :raise TypeError: where it is not so.
    """
    if not common.keys().isdisjoint(_LISTENERS_OWN):
        misplaced = ", ".join(sorted(_LISTENERS_OWN & common.keys()))
        raise TypeError(f"{misplaced}: each listener says that for itself, see ListenerSettings")
    if tls is not None and not hasattr(tls, "getContext"):
        raise TypeError(f"tls, {tls!r}, has no getContext(); a ServerTLS has")


def checkWhole(
    submission: Submission,
    listeners: Sequence[ListenerSettings],
    policiesOf: Mapping[str, Sequence[Any]],
    tls: object,
) -> None:
    """See that somebody can send by each listener, and that all that are named are there.

    :raise ValueError: with all that is wrong.
    """
    wrong = [
        *_withoutCertificate(listeners, tls),
        *_keepingAllOut(submission, listeners),
        *_misnamed(policiesOf, listeners),
    ]
    if wrong:
        raise ValueError("; ".join(wrong))


def checkWords(submission: Submission, common: Container[str]) -> None:
    """See that what is said to clients can be said, and that what is hidden or disabled is there.

    :param common: what the program says itself; the system's own name need not be a good one.
    :raise ValueError: with all that is wrong.
    """
    own = (each for each in submission.extensions if each.keyword not in extensions.REGISTRY)
    known = [*extensions.extensions(), *own]
    wrong = [
        *words("banner", submission.banner),
        *hello("helloText", submission.helloText),
        *words("loginRequiredText", submission.loginRequiredText),
        *unknown(
            "hiddenExtensions",
            "extension",
            sorted(submission.hiddenExtensions),
            [each.keyword for each in known],
        ),
        *unknown("disabledVerbs", "command", sorted(submission.disabledVerbs), commands(known)),
    ]
    if "hostname" in common:
        wrong += hostname("hostname", submission.hostname)
    if wrong:
        raise ValueError("; ".join(map(str, wrong)))


def typed(settings: S, key: str) -> S:
    """A program's settings, held to what a configuration may say; ``"25 MiB"`` is a size here too.

    :raise ValueError: with all that is wrong.
    """
    written = attrs.asdict(cast(Any, settings), value_serializer=_asWritten)
    made, findings = structure(written, type(settings), Path(), key)
    if findings:
        raise ValueError("; ".join(map(str, findings)))
    return cast(S, made)


def _asWritten(settings: object, field: object, value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value  # TOML has lists


def _withoutCertificate(listeners: Sequence[ListenerSettings], tls: object) -> Iterator[str]:
    for at, listener in enumerate(listeners):
        if tls is None and listener.tls != "off":
            yield (
                f'listeners[{at}].tls: is "{listener.tls}", and there is no certificate: tls must'
                ' be a ServerTLS, or this "off" and require_tls false'
            )


def _keepingAllOut(submission: Submission, listeners: Sequence[ListenerSettings]) -> Iterator[str]:
    """What would have everybody refused, of what preflight/ finds in a configuration."""
    mechanisms = list(Rules(submission).mechanisms.values())
    for at, listener in enumerate(listeners):
        for key, said in keepingAllOut(
            listener, mechanisms, submission.loginRequired, submission.insecureLogin
        ):
            yield f"listeners[{at}].{key}: {said}"
        if listener.login_by_address and not _takesTrusted(submission.portal):
            yield (
                f"listeners[{at}].login_by_address: the portal has no checker for ITrustedLogin,"
                " such as submitd.checkers.trusted.TrustedProxy"
            )
    isTrusting = any(each.xclient_login or each.login_by_address for each in listeners)
    mayLogIn = isTrusting or mechanisms
    if listeners and submission.loginRequired and not mayLogIn:
        yield (
            "loginRequired: nobody can log in: there is no portal, or it has no checker for"
            " what the mechanisms ask for"
        )


def _takesTrusted(portal: Portal | None) -> bool:
    return portal is not None and ITrustedLogin in portal.listCredentialsInterfaces()


def _misnamed(
    policiesOf: Mapping[str, Sequence[Any]], listeners: Sequence[ListenerSettings]
) -> Iterator[str]:
    names = [listener.name for listener in listeners]
    for name in policiesOf:
        if name not in names:
            yield f'policiesOf: there is no listener "{name}"; {nearest(name, filter(None, names))}'
