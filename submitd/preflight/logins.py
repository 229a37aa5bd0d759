"""Logins: the mechanisms, the checkers, and which of these can verify which of those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.strcred import InvalidAuthType, findCheckerFactories, makeChecker

from submitd import sasl
from submitd.checkers.factory import takesFile
from submitd.interfaces import ICertificateLogin, IIncapable, IScramProof
from submitd.preflight.asking import ask, asked, unasked, warnings
from submitd.preflight.files import othersCanRead
from submitd.preflight.names import words
from submitd.settings import Settings
from submitd.typed import Finding, nearest


def section(settings: Settings) -> Iterator[Finding]:
    """Mechanisms and checkers are made, and asked; and held against each other."""
    auth = settings.auth
    yield from words("auth.required_text", auth.required_text)
    mechanisms: dict[int, Any] = {}
    yield from _mechanisms(auth.mechanisms, mechanisms)
    verified: dict[Any, list[str]] = {}
    takes: dict[str, tuple[Any, ...]] = {}
    for at, description in enumerate(auth.checkers):
        checker, findings = _checker(description, f"auth.checkers[{at}]")
        yield from findings
        yield from _taken(checker, f"auth.checkers[{at}]", verified)
        takes[f"auth.checkers[{at}]"] = tuple(getattr(checker, "credentialInterfaces", ()))
    asksCertificates = settings.tls is not None and settings.tls.client_certificate != "no"
    if not asksCertificates:
        yield from _withoutCertificates(mechanisms)
        mechanisms = {
            at: each
            for at, each in mechanisms.items()
            if each.credentialsInterface is not ICertificateLogin
        }
    if auth.required and not auth.checkers and not _isTrusting(settings):
        yield Finding(
            "auth.checkers",
            'is empty, but a login is required; name one, such as "htpasswd:FILE", or set'
            " auth.required = false",
        )
    elif verified:
        yield from _unverified(mechanisms, verified)
        yield from _someUnable(mechanisms, takes)
    if auth.insecure:
        yield Finding("auth.insecure", "passwords may travel without TLS", isWarning=True)


def _isTrusting(settings: Settings) -> bool:
    """Whether each listener may know a login without a checker."""
    return bool(settings.listener) and all(
        listener.xclient_login or listener.login_by_address for listener in settings.listener
    )


def _mechanisms(names: Iterable[str], found: dict[int, Any]) -> Iterator[Finding]:
    """Add the mechanism of each name, by its place."""
    for at, name in enumerate(names):
        try:
            found[at] = sasl.mechanism(name)
        except LookupError as error:
            said = str(error)
            if ":" not in name:
                said = f'there is no mechanism "{name}"; {nearest(name, sasl.REGISTRY)}'
            yield Finding(f"auth.mechanisms[{at}]", said)
        else:
            yield from asked(found[at], f"auth.mechanisms[{at}]")


def _checker(description: str, path: str) -> tuple[Any, list[Finding]]:
    name, _, argument = description.partition(":")
    try:
        checker = makeChecker(description)
    except InvalidAuthType:
        known = sorted(factory.authType for factory in findCheckerFactories())
        return None, [Finding(path, f'there is no checker "{name}"; {nearest(name, known)}')]
    except Exception as error:
        # A checker's own parser may raise anything for an argument it does not understand.
        return None, [Finding(path, f'"{description}" is not usable: {error}')]
    findings = ask(checker, path)
    if not findings:
        findings = warnings(checker, path)
        if takesFile(name):
            findings.extend(othersCanRead(path, Path(argument)))
    return checker, findings


def _taken(checker: Any, path: str, verified: dict[Any, list[str]]) -> list[Finding]:
    """Add for each interface of credentials that it takes why it cannot verify them, or nothing."""
    cannot: dict[Any, str] = {}
    findings = []
    if IIncapable.providedBy(checker):
        try:
            cannot = checker.cannotVerify()
        except Exception as error:
            findings.append(unasked(error, path))
    for each in getattr(checker, "credentialInterfaces", ()):
        verified.setdefault(each, []).append(cannot.get(each, ""))
    return findings


def _unverified(mechanisms: dict[int, Any], verified: dict[Any, list[str]]) -> Iterator[Finding]:
    for at, mechanism in mechanisms.items():
        takers = [each for each in verified if each.isOrExtends(mechanism.credentialsInterface)]
        causes = [cause for each in takers for cause in verified[each]]
        if all(causes):  # none of them is able to, or there is none
            said = f"no checker can verify {mechanism.name}"
            told = f"{'; '.join(causes)}; each login is 454" if causes else "it is not offered"
            yield Finding(f"auth.mechanisms[{at}]", f"{said}; {told}", isWarning=True)


# What a password's hash is not enough for.
NEED_SECRETS = (IUsernameHashedPassword, IScramProof)


def _someUnable(mechanisms: dict[int, Any], takes: dict[str, tuple[Any, ...]]) -> Iterator[Finding]:
    """Many programs take the mechanism they like best, and no other when that fails."""
    for at, mechanism in mechanisms.items():
        wanted = mechanism.credentialsInterface
        able = [name for name, found in takes.items() if any(i.isOrExtends(wanted) for i in found)]
        unable = [
            name for name, found in takes.items() if name not in able and IUsernamePassword in found
        ]
        if wanted in NEED_SECRETS and able and unable:
            said = f"the users of {' and '.join(unable)} cannot log in by {mechanism.name}"
            yield Finding(
                f"auth.mechanisms[{at}]",
                f"{said}, and programs that see it offered may try nothing else",
                isWarning=True,
            )


def _withoutCertificates(mechanisms: dict[int, Any]) -> Iterator[Finding]:
    for at, mechanism in mechanisms.items():
        if mechanism.credentialsInterface is ICertificateLogin:
            yield Finding(
                f"auth.mechanisms[{at}]",
                f"{mechanism.name} is not offered: no client is asked for a certificate"
                ' (tls.client_certificate is "no")',
                isWarning=True,
            )
