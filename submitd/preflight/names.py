"""The service's own name, what it says of itself, and who looks up the names of clients."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator

import attrs

from submitd import extensions
from submitd.interfaces import IExtension, IReverseResolver
from submitd.preflight.asking import asked
from submitd.reverselookup import parseServer
from submitd.settings import Component, Settings
from submitd.states import VERBS
from submitd.typed import Finding, nearest
from submitd.wire import abnf

_HOSTNAME = re.compile(f"(?:{abnf.ASCII_DOMAIN}|{abnf.ADDRESS_LITERAL})")

# RFC 4865 4 and RFC 2852 4: nine digits.
LONGEST = 999_999_999


def greeting(settings: Settings) -> Iterator[Finding]:
    """What the greeting says: hostname and banner."""
    if settings.hostname:
        yield from hostname("hostname", settings.hostname)
    yield from words("banner", settings.banner)


def hostname(key: str, name: str) -> Iterator[Finding]:
    """What is no name for a server."""
    if not _HOSTNAME.fullmatch(name):
        yield Finding(key, f'must be a domain or an address literal, not "{name}"')


def words(key: str, text: str) -> Iterator[Finding]:
    """What cannot stand in a reply."""
    if not (text.isascii() and text.isprintable()):
        yield Finding(key, "must be printable ASCII (RFC 5321 4.2)")


def hello(key: str, text: str) -> Iterator[Finding]:
    """What cannot stand in the answer to EHLO; clients would be shown a place that nobody fills."""
    yield from words(key, text)
    if "%s" in text:
        yield Finding(
            key,
            "nothing is filled in for %s: {client} stands for the client's name, and ours is in"
            " front of the text",
        )


def ownName(settings: Settings) -> Iterator[Finding]:
    """What the relay says in EHLO, and where its reports come from."""
    hops = (settings.relay, *settings.route)
    if not any(hop is not None and (hop.smarthost or hop.mx) for hop in hops):
        return
    name = settings.hostname or socket.getfqdn()
    if "." not in name and _HOSTNAME.fullmatch(name) and not name.startswith("["):
        whose = f'"{name}"' if settings.hostname else f'is empty, and the system\'s "{name}"'
        said = "has no domain: next hops may refuse it in EHLO, and reports that come from it"
        yield Finding("hostname", f"{whose} {said}", isWarning=True)


def smtpSection(settings: Settings) -> Iterator[Finding]:
    """What EHLO says, and the commands that there are."""
    smtp = settings.smtp
    yield from hello("smtp.hello_text", smtp.hello_text)
    verbs = commands(extensions.extensions())
    yield from unknown("smtp.hide", "extension", smtp.hide, extensions.REGISTRY)
    yield from unknown("smtp.disabled_commands", "command", smtp.disabled_commands, verbs)
    for key, seconds in (("max_hold", smtp.max_hold), ("min_deliver_by", smtp.min_deliver_by)):
        if seconds > LONGEST:
            yield Finding(f"smtp.{key}", f"must be {LONGEST} seconds at most (RFC 4865, RFC 2852)")


def commands(offered: Iterable[IExtension]) -> list[str]:
    """The names of all commands that there are with these extensions."""
    rows = [*VERBS, *(row for extension in offered for row, _ in extension.verbs)]
    return [row.name.decode("ascii") for row in rows]


def unknown(key: str, what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[Finding]:
    """Those of some names that nobody knows, with the one that was meant."""
    for at, name in enumerate(names):
        if name not in known:
            yield Finding(f"{key}[{at}]", f'there is no {what} "{name}"; {nearest(name, known)}')


def dnsSection(settings: Settings) -> Iterator[Finding]:
    """Who looks up the names of clients."""
    dns = settings.dns
    for at, server in enumerate(dns.servers):
        try:
            parseServer(server)
        except ValueError:
            yield Finding(
                f"dns.servers[{at}]",
                f'must be an address such as "192.0.2.53" or "[::1]:5353", not "{server}"',
            )
    if dns.reverse_lookup and not dns.timeout:
        yield Finding("dns.timeout", "must be more than 0: every greeting would wait for ever")
    if dns.resolver:
        made, findings = Component(dns.resolver).make({}, "dns.resolver")
        yield from (attrs.evolve(each, key="dns.resolver") for each in findings)
        if not findings and not IReverseResolver.providedBy(made):
            yield Finding("dns.resolver", f'"{dns.resolver}" does not provide IReverseResolver')
        yield from asked(made, "dns.resolver")
        if dns.servers:
            yield Finding("dns.servers", "cannot be with dns.resolver, which asks whom it likes")
