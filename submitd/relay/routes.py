"""Routes: which next hop a recipient's mail goes to, and how it is spoken to.

``[[route]]`` sections are asked in their order; the first that matches wins, and ``[relay]`` itself
is the last one.  A route matches when each of its lists that is not empty has an entry that
matches: a domain (``example.org``), all below one (``.example.org``), or an address; logins are
compared without the case of ASCII letters.  A recipient without a route is failed with 5.4.4.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import attrs

from submitd.equality import sameAddress, sameDomain, sameLocalPart
from submitd.password import Password, othersCanRead
from submitd.relay.local import PLACEHOLDERS
from submitd.relay.login import MECHANISMS, Account
from submitd.relay.settings import RelaySettings, RouteSettings, TargetSettings, TLSWord
from submitd.relay.tls import ClientTLS
from submitd.typed import Finding
from submitd.wire.address import Mailbox, ReversePath

Kind = Literal["smarthost", "lmtp", "mx", "maildir"]

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/,\[\]]+))(?::([0-9]{1,5}))?")
MAX_PATH = 107  # of a unix socket, without the NUL behind it (unix(7))
_PORTS = {"smarthost": 587, "lmtp": 24}


@attrs.frozen
class Target:
    """A host that a route leads to.

    :param host: the path of a unix socket or Maildir; empty for mx.
    :param port: 0 for a unix socket.
    :param tls: never ``"auto"``.
    """

    host: str = ""
    port: int = 0
    tls: TLSWord = "off"

    @property
    def text(self) -> str:
        """What it is called in the log."""
        return f"{self.host}:{self.port}" if self.port else self.host


@attrs.frozen(kw_only=True, eq=False)
class Route:
    """One route.

    :param name: the section, such as ``route[0]``, for messages.
    :param kind: what stands at its end.
    :param host: of the next hop, as in :class:`Target`; port and tls, too.
    :param spares: further hosts, for when those before them cannot be had.
    """

    name: str
    kind: Kind
    host: str = ""
    port: int = 0
    tls: TLSWord = "off"
    spares: tuple[Target, ...] = ()
    verify: bool = True
    user: str = ""
    password: Password | None = None
    mechanisms: tuple[str, ...] = ()
    insecureLogin: bool = False
    chunking: bool = True
    senders: tuple[str, ...] = ()
    logins: frozenset[str] = frozenset()
    recipients: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """All hosts, in the order in which they are tried."""
        return (Target(self.host, self.port, self.tls), *self.spares)

    @property
    def account(self) -> Account | None:
        """Whom to log in as."""
        if not self.user or self.password is None:
            return None
        return Account(self.user, self.password.secret, self.mechanisms)

    def matches(self, login: str, sender: ReversePath, recipient: Mailbox) -> bool:
        """Whether mail takes this route."""
        if self.logins and sameLocalPart(login) not in self.logins:
            return False
        if self.senders and (sender.mailbox is None or not _listed(sender.mailbox, self.senders)):
            return False
        return not self.recipients or _listed(recipient, self.recipients)


def _listed(mailbox: Mailbox, entries: Iterable[str]) -> bool:
    local, domain = sameAddress(mailbox)
    address = f"{local}@{domain}"
    return any(
        entry in (domain, address) or (entry[0] == "." and domain.endswith(entry))
        for entry in entries
    )


def _normal(entry: str) -> str:
    """An entry in the form that :func:`_listed` compares."""
    local, at, domain = entry.rpartition("@")
    if at and local:
        return f"{sameLocalPart(local)}@{sameDomain(domain)}"
    dot = "." if domain.startswith(".") else ""
    return dot + sameDomain(domain.removeprefix("."))


@attrs.frozen(eq=False)
class Routes:
    """All routes, in their order."""

    routes: tuple[Route, ...]

    def find(self, login: str, sender: ReversePath, recipient: Mailbox) -> Route | None:
        """The first route that matches; ``None`` when there is none."""
        for route in self.routes:
            if route.matches(login, sender, recipient):
                return route
        return None


def mistakes(relay: RelaySettings, routes: Iterable[RouteSettings] = ()) -> list[Finding]:
    """All that is wrong or unwise in the sections ``[relay]`` and ``[[route]]``."""
    return [*makeRoutes(relay, routes)[1], *_numbers(relay)]


def _numbers(relay: RelaySettings) -> Iterator[Finding]:
    if not relay.retry or min(relay.retry) <= 0:
        yield Finding("relay.retry", "needs one time at least, and none may be 0")
    if not 0 <= relay.jitter < 1:
        yield Finding("relay.jitter", "must be from 0 to less than 1")
    for key in ("lease", "deliveries", "connections", "expire"):
        if not getattr(relay, key):
            yield Finding(f"relay.{key}", "must be more than 0")
    if not 0 < relay.mx_port < 65536:
        yield Finding("relay.mx_port", "must be from 1 to 65535")
    if relay.ca_file is not None:
        try:
            ClientTLS(relay.ca_file)
        except ValueError as error:
            yield Finding("relay.ca_file", str(error))


def makeRoutes(
    relay: RelaySettings, routes: Iterable[RouteSettings] = ()
) -> tuple[Routes, list[Finding]]:
    """The routes of a configuration, and all that is wrong or unwise in them."""
    made: list[Route] = []
    findings: list[Finding] = []
    for at, settings in enumerate(routes):
        _make(f"route[{at}]", settings, made, findings)
    if any((relay.smarthost, relay.lmtp, relay.mx, relay.maildir)):
        _make("relay", relay, made, findings)
    elif not made and not findings:
        findings.append(
            Finding("relay", "needs one of smarthost, lmtp, mx and maildir, or a [[route]]")
        )
    return Routes(tuple(made)), findings


def _make(name: str, settings: TargetSettings, made: list[Route], findings: list[Finding]) -> None:
    wrong = list(_mistakes(name, settings))
    findings += wrong
    if any(not finding.isWarning for finding in wrong):
        return
    try:
        made.append(_route(name, settings))
    except ValueError as error:
        findings.append(Finding(name, str(error)))


def _route(name: str, settings: TargetSettings) -> Route:
    kind = _kinds(settings)[0]
    first, *spares = _targets(kind, settings)
    matching: dict[str, Any] = {}
    if isinstance(settings, RouteSettings):
        matching = {
            "senders": tuple(map(_normal, settings.senders)),
            "logins": frozenset(map(sameLocalPart, settings.logins)),
            "recipients": tuple(map(_normal, settings.recipients)),
        }
    return Route(
        name=name,
        kind=kind,
        host=first.host,
        port=first.port,
        tls=first.tls,
        spares=tuple(spares),
        verify=settings.verify,
        user=settings.user,
        password=Password(settings.password_file) if settings.password_file else None,
        mechanisms=tuple(each.upper() for each in settings.mechanisms),
        insecureLogin=settings.insecure_login,
        chunking=settings.chunking,
        **matching,
    )


def _kinds(settings: TargetSettings) -> list[Kind]:
    kinds: tuple[Kind, ...] = ("smarthost", "lmtp", "mx", "maildir")
    return [kind for kind in kinds if getattr(settings, kind)]


def _targets(kind: Kind, settings: TargetSettings) -> list[Target]:
    """What a section names, one at least.

    :raise ValueError: when it cannot be understood; says what it must be.
    """
    text: str = "" if kind == "mx" else getattr(settings, kind)
    if kind in ("mx", "maildir"):
        return [Target(text, tls=_tls(kind, 0, settings.tls))]
    if kind == "lmtp" and text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not 0 < len(os.fsencode(path)) <= MAX_PATH:
            raise ValueError(f"the path of a unix socket has from 1 to {MAX_PATH} octets")
        return [Target(path, tls=_tls(kind, 0, settings.tls))]
    return [_target(kind, each.strip(), settings.tls) for each in text.split(",")]


def _target(kind: Kind, text: str, word: TLSWord) -> Target:
    matched = _HOST_PORT.fullmatch(text)
    if matched is None or not 0 < int(matched[3] or _PORTS[kind]) < 65536:
        raise ValueError(f'must be "HOST" or "HOST:PORT", or several with commas, not "{text}"')
    port = int(matched[3] or _PORTS[kind])
    return Target(matched[1] or matched[2], port, _tls(kind, port, word))


def _tls(kind: Kind, port: int, word: TLSWord) -> TLSWord:
    if word != "auto":
        return word
    if kind == "smarthost":
        return "implicit" if port == 465 else "starttls"
    return "opportunistic" if kind == "mx" else "off"


def _mistakes(name: str, settings: TargetSettings) -> Iterator[Finding]:
    kinds = _kinds(settings)
    if len(kinds) != 1:
        said = " and ".join(kinds) if kinds else "none"
        yield Finding(
            name, f"needs exactly one of smarthost, lmtp, mx and maildir; there is {said}"
        )
        return
    try:
        targets = _targets(kinds[0], settings)
    except ValueError as error:
        yield Finding(f"{name}.{kinds[0]}", str(error))
        return
    if settings.maildir and not settings.maildir.startswith("/"):
        yield Finding(f"{name}.maildir", "must be an absolute path")
    if kinds == ["lmtp"] and not targets[0].port and not targets[0].host.startswith("/"):
        yield Finding(f"{name}.lmtp", "a unix socket's path must be an absolute one")
    for placeholder in re.findall(r"\{.*?\}", settings.maildir):
        if placeholder not in PLACEHOLDERS:
            known = " and ".join(PLACEHOLDERS)
            yield Finding(f"{name}.maildir", f"has {placeholder}; known are {known}")
    yield from _loginMistakes(name, settings, targets)
    if isinstance(settings, RouteSettings):
        for key in ("senders", "recipients", "logins"):
            for at, entry in enumerate(getattr(settings, key)):
                if not entry.strip("@. "):
                    yield Finding(f"{name}.{key}[{at}]", "is empty")


def _loginMistakes(name: str, settings: TargetSettings, targets: list[Target]) -> Iterator[Finding]:
    if bool(settings.user) != (settings.password_file is not None):
        yield Finding(name, "user and password_file go together")
        return
    for at, mechanism in enumerate(settings.mechanisms):
        if mechanism.upper() not in MECHANISMS:
            known = ", ".join(MECHANISMS)
            yield Finding(
                f"{name}.mechanisms[{at}]", f'there is no "{mechanism}"; known are: {known}'
            )
    file = settings.password_file
    if file is None:
        return
    try:
        Password(file)
        if othersCanRead(file):
            yield Finding(f"{name}.password_file", othersCanRead(file), isWarning=True)
    except ValueError as error:
        yield Finding(f"{name}.password_file", str(error))
    words = {each.tls for each in targets}
    if "off" in words and not settings.insecure_login:
        yield Finding(f"{name}.tls", "is off, so that no login is possible; see insecure_login")
    elif settings.insecure_login or "opportunistic" in words or not settings.verify:
        yield Finding(
            f"{name}.user", "the password may reach others than the next hop", isWarning=True
        )
