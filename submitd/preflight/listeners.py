"""Listeners: where they are, whom they believe, and whether anybody can send by them."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path

from submitd import sasl
from submitd.listener import keepingAllOut
from submitd.preflight.addresses import Address, addressOf, endpoints, socketProblem
from submitd.sasl.credentials import nameProblem
from submitd.settings import ListenerSettings, Settings
from submitd.typed import Finding
from submitd.wire.network import Networks


def sections(settings: Settings) -> Iterator[Finding]:
    """Each listener by itself, and whether two of them want the same."""
    if not settings.listener:
        yield Finding("listener", "is missing: there must be one section [[listener]] at least")
    seen: dict[Address, str] = {}
    for at, listener in enumerate(settings.listener):
        path = f"listener[{at}]"
        yield from _endpoint(listener, f"{path}.endpoint", seen)
        yield from _proxies(listener, path)
    names = [listener.name for listener in settings.listener]
    for at, name in enumerate(names):
        if name and name in names[:at]:
            said = f'"{name}" is the name of listener[{names.index(name)}] already'
            yield Finding(f"listener[{at}].name", said)


def _endpoint(listener: ListenerSettings, path: str, seen: dict[Address, str]) -> Iterator[Finding]:
    try:
        address = addressOf(listener.endpoint)
    except ValueError as error:
        yield Finding(path, str(error))
        return
    if address is None:
        return
    for other, where in seen.items():
        if address.overlaps(other):
            yield Finding(path, f"{listener.endpoint} is taken by {where} already")
    if listener.lmtp and address.port == 25:
        said = "LMTP must not be spoken on port 25 (RFC 2033 5), where others expect SMTP"
        yield Finding(path, f"{said}; take another, such as 24, or lmtp = false")
    seen[address] = path
    if address.port is None and (problem := socketProblem(Path(address.host))):
        yield Finding(path, problem)


def closed(settings: Settings) -> Iterator[Finding]:
    """Listeners that nobody could ever send by."""
    auth = settings.auth
    mechanisms = []
    for name in auth.mechanisms:
        with contextlib.suppress(LookupError):  # said of the mechanism
            mechanisms.append(sasl.mechanism(name))
    for at, listener in enumerate(settings.listener):
        for key, said in keepingAllOut(listener, mechanisms, auth.required, auth.insecure):
            more = " (auth.required, auth.insecure)" if key == "tls" else ""
            yield Finding(f"listener[{at}].{key}", f"{said}{more}")


PROXY_KEYS = ("proxy_protocol_from", "xclient_from", "xforward_from")


def _proxies(listener: ListenerSettings, path: str) -> Iterator[Finding]:
    for key in PROXY_KEYS:
        # Behind a PROXY header, peers come from anywhere.
        direct = key == "proxy_protocol_from" or not listener.proxy_protocol_from
        for at, name in enumerate(getattr(listener, key)):
            yield from _network(name, listener.endpoint if direct else "", f"{path}.{key}[{at}]")
    if listener.xclient_login and not listener.xclient_from:
        yield Finding(f"{path}.xclient_login", "needs xclient_from: nobody may say XCLIENT")
    kind = listener.endpoint.partition(":")[0]
    if kind == "haproxy":
        yield Finding(
            f"{path}.endpoint",
            "haproxy: believes everybody's PROXY header; use the endpoint behind it, with"
            " proxy_protocol_from",
        )
    elif kind in ("ssl", "tls") and listener.proxy_protocol_from:
        yield Finding(
            f"{path}.proxy_protocol_from",
            f'cannot be with {kind}:, which has TLS begin first; use tcp: with tls = "implicit"',
        )


def _network(name: str, endpoint: str, path: str) -> Iterator[Finding]:
    try:
        networks = Networks.parse([name])
    except ValueError as error:
        yield Finding(
            path, f'must be a network such as "10.0.0.0/8", an address, or "unix" ({error})'
        )
        return
    kind = endpoint.partition(":")[0]
    if kind == "unix" and not networks.unix:
        yield Finding(path, f'nobody comes from there on {endpoint}; its peers are "unix"')
    elif kind in ("tcp", "tcp4", "tcp6") and networks.unix:
        yield Finding(path, f'nobody comes from "unix" on {endpoint}')
    if any(network.prefixlen == 0 for network in networks.networks):
        yield Finding(path, f"{name} is everybody, whatever they say is believed", isWarning=True)


# The prefixes of the largest networks that are somebody's own: 10.0.0.0/8 and fc00::/7.
SHORTEST = {4: 8, 6: 7}


def byAddress(settings: Settings) -> Iterator[Finding]:
    """Logins without a password, for networks."""
    for at, listener in enumerate(settings.listener):
        path = f"listener[{at}].login_by_address"
        if listener.login_by_address and not settings.auth.required:
            said = "is never used: with auth.required = false everybody may send without a login"
            yield Finding(path, said)
        seen: dict[Networks, str] = {}
        for name, login in listener.login_by_address.items():
            yield from _networkLogin(listener, name, login, f'{path}."{name}"', seen)


def _networkLogin(
    listener: ListenerSettings, name: str, login: str, path: str, seen: dict[Networks, str]
) -> Iterator[Finding]:
    problem = nameProblem(login.encode("utf-8", "surrogatepass"))
    if problem:
        yield Finding(path, problem)
    # Behind a proxy, clients come from anywhere.
    isBehind = bool(listener.proxy_protocol_from or listener.xclient_from)
    unusable = list(_network(name, "" if isBehind else listener.endpoint, path))
    yield from (finding for finding in unusable if not finding.isWarning)
    if any(not finding.isWarning for finding in unusable):
        return
    networks = Networks.parse([name])
    if networks in seen:
        yield Finding(path, f'is the same network as "{seen[networks]}"')
    seen[networks] = name
    isLarge = any(each.prefixlen < SHORTEST[each.version] for each in networks.networks)
    if isLarge and (isBehind or not _isLocal(listener)):
        yield Finding(
            path,
            "is an open relay: everybody on the Internet could send without a password; name the"
            " networks of the clients that cannot log in",
        )


def _isLocal(listener: ListenerSettings) -> bool:
    """Whether nobody from another machine can come to a listener."""
    try:
        address = addressOf(listener.endpoint)
        return address is not None and (
            address.port is None or ipaddress.ip_address(address.host).is_loopback
        )
    except ValueError:
        return False  # a name, or nothing: all interfaces


def metrics(settings: Settings) -> Iterator[Finding]:
    """The port of the metrics, which no listener may have."""
    endpoint = settings.metrics.endpoint
    if not endpoint:
        return
    try:
        address = addressOf(endpoint)
    except ValueError as error:
        yield Finding("metrics.endpoint", str(error))
        return
    for path, other in endpoints(settings):
        with contextlib.suppress(ValueError):  # said of the listener
            where = addressOf(other)
            if address and where and path != "metrics.endpoint" and address.overlaps(where):
                yield Finding("metrics.endpoint", f"{endpoint} is taken by {path} already")
