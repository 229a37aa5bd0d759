"""Before a start: whether what the settings say can work.

:func:`examine` looks at files, certificates and endpoint strings, and makes every mechanism,
checker, policy, delivery and resolver, to ask its ``check()`` (``IChecked``) and ``warnings()``
(``IWarns``), and what it is.  It opens no port and writes nothing; the objects it makes, some of
them several times, are thrown away.
:func:`portsInUse` is asked only when the service is about to start: it binds each address without
listening and lets go of it again, so that one port in use is a clear message while all ports are
still closed.

Nothing here raises for a wrong setting: everything comes back as findings.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import re
import resource
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import attrs
from OpenSSL.crypto import Error as SSLError
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.strcred import InvalidAuthType, findCheckerFactories, makeChecker
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    serverFromString,
)
from twisted.internet.protocol import Factory

from submitd import deliveries, extensions, policies, sasl, tls
from submitd.checkers.factory import takesFile
from submitd.endpoint import MAX_PATH
from submitd.interfaces import (
    IBlindCopyDelivery,
    IBringsDelivery,
    ICertificateLogin,
    IChecked,
    IDelays,
    IDelivery,
    IHoldingDelivery,
    IIncapable,
    IMayBlindCopy,
    IMayHold,
    IMessagePolicy,
    IReverseResolver,
    IScramProof,
    ISigning,
    IWarns,
)
from submitd.listener import keepingAllOut
from submitd.relay import routes
from submitd.relay.settings import RelaySettings
from submitd.reverselookup import parseServer
from submitd.sasl.credentials import nameProblem
from submitd.settings import Component, ListenerSettings, Settings
from submitd.states import VERBS
from submitd.submission import isPolicy
from submitd.typed import Finding, nearest
from submitd.wire import abnf
from submitd.wire.network import Networks

_HOSTNAME = re.compile(f"(?:{abnf.ASCII_DOMAIN}|{abnf.ADDRESS_LITERAL})")

# RFC 4865 4 and RFC 2852 4: nine digits.
LONGEST = 999_999_999

# What an endpoint without an interface listens on; it is compared here, and nothing is bound to it.
ANY_IPV4 = "0.0.0.0"  # noqa: S104  # nosec B104

# What a service has open beside its connections, with messages that are being written among it.
OTHER_DESCRIPTORS = 64

PORT_RANGE = "a port is a number from 0 to 65535"


@attrs.frozen
class Address:
    """Where an endpoint would listen.

    :param host: the interface; empty for all of IPv4; for a unix socket its path.
    :param port: the port; ``None`` for a unix socket.
    """

    host: str
    port: int | None = None

    def overlaps(self, other: Address) -> bool:
        """Whether only one of the two can be listened on."""
        if self.port is None or other.port is None:
            return self == other
        if self.port != other.port or self.port == 0:
            return False
        one, two = self.host or ANY_IPV4, other.host or ANY_IPV4
        # A socket on "::" takes the IPv4 connections too.
        if one == two or "::" in (one, two):
            return True
        return ANY_IPV4 in (one, two) and ":" not in one + two


class _Ears:
    """Stands in for a reactor, to learn where an endpoint would listen."""

    address: Address | None = None

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        """Note where TCP would be listened to."""
        self.address = Address(interface, port)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> None:
        """Note where TLS would be listened to."""
        self.address = Address(interface, port)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> None:
        """Note the path of a unix socket."""
        self.address = Address(os.fsdecode(address))


def addressOf(endpoint: str) -> Address | None:
    """Where an endpoint string listens.

    :return: the address; ``None`` for a kind of endpoint that keeps it to itself (``systemd:``).
    :raise ValueError: when it is no endpoint string, with the sentence that says so.
    """
    ears: Any = _Ears()
    if endpoint.startswith("systemd:"):
        return None  # its sockets are there when systemd starts the service, and not before
    try:
        parsed = serverFromString(ears, endpoint)
    except Exception as error:
        # Parsers raise what int(), a function call or a look-up happens to raise.
        reason = PORT_RANGE if "int()" in str(error) else str(error)
        if isinstance(error, SSLError):
            reason = "its certKey or its privateKey is no such PEM file"
        raise ValueError(_notEndpoint(endpoint, reason)) from None
    if isinstance(
        parsed, TCP4ServerEndpoint | TCP6ServerEndpoint | SSL4ServerEndpoint | UNIXServerEndpoint
    ):
        parsed.listen(Factory())
    address: Address | None = ears.address
    if address and address.port is not None and not 0 <= address.port <= 65535:
        raise ValueError(_notEndpoint(endpoint, PORT_RANGE))
    return address


def _notEndpoint(endpoint: str, reason: str) -> str:
    return (
        f'must be an endpoint such as "tcp:587" or "unix:/run/submitd.sock", not "{endpoint}"'
        f" ({reason})"
    )


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


def _names(settings: Settings) -> Iterator[Finding]:
    if settings.hostname and not _HOSTNAME.fullmatch(settings.hostname):
        yield Finding(
            "hostname", f'must be a domain or an address literal, not "{settings.hostname}"'
        )
    if not (settings.banner.isascii() and settings.banner.isprintable()):
        yield Finding("banner", "must be printable ASCII (RFC 5321 4.2)")


def _ownName(settings: Settings) -> Iterator[Finding]:
    """What the relay says in EHLO, and where its reports come from."""
    hops = (settings.relay, *settings.route)
    if not any(hop is not None and (hop.smarthost or hop.mx) for hop in hops):
        return
    name = settings.hostname or socket.getfqdn()
    if "." not in name and _HOSTNAME.fullmatch(name) and not name.startswith("["):
        whose = f'"{name}"' if settings.hostname else f'is empty, and the system\'s "{name}"'
        said = "has no domain: next hops may refuse it in EHLO, and reports that come from it"
        yield Finding("hostname", f"{whose} {said}", isWarning=True)


def _refusals(settings: Settings) -> Iterator[Finding]:
    file = settings.refusals.file
    if file is None:
        return
    if file.is_dir():
        yield Finding("refusals.file", f"{file} is a directory")
    elif not file.parent.is_dir():
        yield Finding("refusals.file", f"there is no directory {file.parent}")


def _smtp(settings: Settings) -> Iterator[Finding]:
    smtp = settings.smtp
    if not (smtp.hello_text.isascii() and smtp.hello_text.isprintable()):
        yield Finding("smtp.hello_text", "must be printable ASCII (RFC 5321 4.2)")
    verbs = [row.name.decode("ascii") for row in VERBS]
    for extension in extensions.extensions():
        verbs += [row.name.decode("ascii") for row, _ in extension.verbs]
    yield from _unknown("smtp.hide", "extension", smtp.hide, extensions.REGISTRY)
    yield from _unknown("smtp.disabled_commands", "command", smtp.disabled_commands, verbs)
    for key, seconds in (("max_hold", smtp.max_hold), ("min_deliver_by", smtp.min_deliver_by)):
        if seconds > LONGEST:
            yield Finding(f"smtp.{key}", f"must be {LONGEST} seconds at most (RFC 4865, RFC 2852)")


def _unknown(key: str, what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[Finding]:
    for at, name in enumerate(names):
        if name not in known:
            yield Finding(f"{key}[{at}]", f'there is no {what} "{name}"; {nearest(name, known)}')


def _listeners(settings: Settings) -> Iterator[Finding]:
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


def _closed(settings: Settings) -> Iterator[Finding]:
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


def _descriptors(settings: Settings) -> Iterator[Finding]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections + OTHER_DESCRIPTORS
    if most != resource.RLIM_INFINITY and wanted > most:
        said = f"needs {wanted} file descriptors, and there are {most} (ulimit -Hn, LimitNOFILE)"
        yield Finding("limits.connections", said, isWarning=True)


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


def _metrics(settings: Settings) -> Iterator[Finding]:
    endpoint = settings.metrics.endpoint
    if not endpoint:
        return
    try:
        address = addressOf(endpoint)
    except ValueError as error:
        yield Finding("metrics.endpoint", str(error))
        return
    for path, other in _endpoints(settings):
        with contextlib.suppress(ValueError):  # said of the listener
            where = addressOf(other)
            if address and where and path != "metrics.endpoint" and address.overlaps(where):
                yield Finding("metrics.endpoint", f"{endpoint} is taken by {path} already")


# The prefixes of the largest networks that are somebody's own: 10.0.0.0/8 and fc00::/7.
SHORTEST = {4: 8, 6: 7}


def _byAddress(settings: Settings) -> Iterator[Finding]:
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
    if address.port is None and (problem := _socketProblem(Path(address.host))):
        yield Finding(path, problem)


def _socketProblem(path: Path) -> str:
    """Why there can be no unix socket of that name."""
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    if len(os.fsencode(path)) > MAX_PATH:
        return f"a unix socket's path has {MAX_PATH} octets at most, and this one more: {path}"
    if path.exists() and not path.is_socket():
        return f"{path} is there, and no socket"
    return ""


def _certificate(settings: Settings) -> Iterator[Finding]:
    if settings.tls is None:
        return
    for mistake in tls.mistakes(settings.tls):
        yield Finding(f"tls.{mistake.key}", mistake.sentence)
    for warning in tls.warnings(settings.tls):
        yield Finding(f"tls.{warning.key}", warning.sentence, isWarning=True)
    yield from _othersCanRead("tls.private_key", settings.tls.private_key)
    for name, each in settings.tls.sni.items():
        yield from _othersCanRead(f'tls.sni."{name}".private_key', each.private_key)
    if settings.tls.client_ca is not None and settings.tls.client_certificate == "no":
        said = 'is not used: with client_certificate = "no" clients are not asked for one'
        yield Finding("tls.client_ca", said, isWarning=True)


def _noCertificate(settings: Settings) -> Iterator[Finding]:
    for at, listener in enumerate(settings.listener):
        if listener.tls != "off" and settings.tls is None:
            yield Finding(
                f"listener[{at}].tls",
                f'is "{listener.tls}", but there is no section [tls] with a certificate',
            )


def _othersCanRead(path: str, file: Path) -> Iterator[Finding]:
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # said by whoever reads it
    if stat.S_ISREG(mode) and mode & 0o004:
        yield Finding(path, f"{file} can be read by others (chmod o= {file})", isWarning=True)


def _auth(settings: Settings) -> Iterator[Finding]:
    auth = settings.auth
    if not (auth.required_text.isascii() and auth.required_text.isprintable()):
        yield Finding("auth.required_text", "must be printable ASCII (RFC 5321 4.2)")
    mechanisms: dict[int, Any] = {}
    for at, name in enumerate(auth.mechanisms):
        try:
            mechanisms[at] = sasl.mechanism(name)
        except LookupError as error:
            said = str(error)
            if ":" not in name:
                said = f'there is no mechanism "{name}"; {nearest(name, sasl.REGISTRY)}'
            yield Finding(f"auth.mechanisms[{at}]", said)
        else:
            yield from _asked(mechanisms[at], f"auth.mechanisms[{at}]")
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
    listeners = settings.listener
    isTrusting = bool(listeners) and all(
        listener.xclient_login or listener.login_by_address for listener in listeners
    )
    if auth.required and not auth.checkers and not isTrusting:
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


def _taken(checker: Any, path: str, verified: dict[Any, list[str]]) -> list[Finding]:
    """Add for each interface of credentials that it takes why it cannot verify them, or nothing."""
    cannot: dict[Any, str] = {}
    findings = []
    if IIncapable.providedBy(checker):
        try:
            cannot = checker.cannotVerify()
        except Exception as error:
            findings.append(_unasked(error, path))
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
    findings = _ask(checker, path)
    if not findings:
        findings = _warnings(checker, path)
        if takesFile(name):
            findings.extend(_othersCanRead(path, Path(argument)))
    return checker, findings


def _ask(made: Any, path: str) -> list[Finding]:
    return _said(made.check, path) if IChecked.providedBy(made) else []


def _warnings(made: Any, path: str) -> list[Finding]:
    return _said(made.warnings, path, isWarning=True) if IWarns.providedBy(made) else []


def _asked(made: Any, path: str) -> list[Finding]:
    return [*_ask(made, path), *_warnings(made, path)]


def _said(ask: Callable[[], list[str]], path: str, isWarning: bool = False) -> list[Finding]:
    try:
        return [Finding(path, sentence, isWarning) for sentence in ask()]
    except Exception as error:
        return [_unasked(error, path)]


def _unasked(error: Exception, path: str) -> Finding:
    """One object's bug must not hide the mistakes of the others."""
    return Finding(path, f"cannot be checked: {type(error).__name__}: {error}")


def _policies(settings: Settings) -> Iterator[Finding]:
    for at, component in enumerate(settings.policy):
        path = f"policy[{at}]"
        made, findings = component.make(policies.REGISTRY, path)
        yield from findings
        if not findings and not isPolicy(made):
            yield Finding(
                f"{path}.use",
                f'"{component.use}" provides no stage interface of submitd.interfaces',
            )
        elif not findings:
            yield from _ownDelivery(made, f"{path}.delivery")
            yield from _asked(made, path)


def _listenersOfPolicies(settings: Settings) -> Iterator[Finding]:
    names = {listener.name: None for listener in settings.listener if listener.name}
    for at, component in enumerate(settings.policy):
        wanted = component.listeners
        if isinstance(wanted, list) and all(isinstance(name, str) for name in wanted):
            yield from _unknown(f"policy[{at}].listeners", "listener", wanted, names)


def _meet(one: Component, other: Component) -> bool:
    """Whether two policies are for the same listener."""
    try:
        mine, others = set(one.listeners), set(other.listeners)
    except TypeError:
        return False  # no list of names, which is a finding by itself
    return not mine or not others or not mine.isdisjoint(others)


def _ownDelivery(policy: Any, path: str) -> Iterator[Finding]:
    if not IBringsDelivery.providedBy(policy) or policy.delivery is None:
        return
    component = Component.fromTable(policy.delivery.values, policy.delivery.directory)
    made, findings = component.make(deliveries.REGISTRY, path)
    yield from findings
    if IDelivery.providedBy(made):
        policy.sink = made  # whose check() is the policy's to ask
        yield from _warnings(made, path)
    elif not findings:
        yield Finding(f"{path}.use", f'"{component.use}" does not provide IDelivery')


# What a policy may do, what a delivery must be for it, and how a mistake says so.
NEEDS = (
    (IMayHold, IHoldingDelivery, "holds messages"),
    (IMayBlindCopy, IBlindCopyDelivery, "copies messages to an address"),
)


def _needs(settings: Settings) -> Iterator[Finding]:
    """Some policies need a delivery that can do what they ask for."""
    delivery, findings = settings.delivery.make(deliveries.REGISTRY, "delivery")
    if findings:
        return
    for at, component in enumerate(settings.policy):
        made, findings = component.make(policies.REGISTRY, f"policy[{at}]")
        for may, must, said in NEEDS:
            if not findings and may.providedBy(made) and not must.providedBy(delivery):
                yield Finding(
                    f"policy[{at}].use",
                    f'"{component.use}" {said}, and the delivery "{settings.delivery.use}"'
                    ' cannot; it needs [delivery] use = "spool"',
                )


def _signing(settings: Settings) -> Iterator[Finding]:
    """What is changed behind a signature breaks it."""
    made = [component.make(policies.REGISTRY, "")[0] for component in settings.policy]
    for at, policy in enumerate(made):
        if not ISigning.providedBy(policy):
            continue
        later = [
            behind
            for behind in range(at + 1, len(made))
            if IMessagePolicy.providedBy(made[behind]) and not ISigning.providedBy(made[behind])
            if _meet(settings.policy[at], settings.policy[behind])
        ]
        if later:
            yield Finding(
                f"policy[{at}].use",
                f'"{settings.policy[at].use}" signs, and must stand behind policy[{later[-1]}],'
                f' "{settings.policy[later[-1]].use}", which may change messages',
            )


# What changes the header; a filter in front of it would sign another one.
CHANGE_HEADER = ("message-fixups", "rewrite")


def _filters(settings: Settings) -> Iterator[Finding]:
    """A filter sees the header as it is left by the policies in front of it."""
    policy = settings.policy
    for at, component in enumerate(policy):
        later = [
            behind
            for behind in range(at + 1, len(policy))
            if policy[behind].use in CHANGE_HEADER and _meet(component, policy[behind])
        ]
        if component.use == "milter" and later:
            said = (
                f'stands before policy[{later[-1]}], "{policy[later[-1]].use}", which changes the'
            )
            yield Finding(
                f"policy[{at}].use",
                f'"milter" {said} header: a signature of the filter\'s would not fit',
                isWarning=True,
            )


def _delays(settings: Settings) -> Iterator[Finding]:
    """A delay that a stage has no time for would make every delayed command a 451."""
    stage = settings.limits.stage
    for at, component in enumerate(settings.policy):
        made, findings = component.make(policies.REGISTRY, "")
        if findings or not IDelays.providedBy(made):
            continue
        path = f"policy[{at}]"
        try:
            yield from list(_tooLong(made.delays(), stage, path))
        except Exception as error:
            yield _unasked(error, path)


def _tooLong(delays: dict[str, float], stage: float, path: str) -> Iterator[Finding]:
    for key, delay in delays.items():
        if 0 < stage <= delay:
            yield Finding(
                f"{path}.{key}",
                f"is {delay:g} s, and limits.stage is {stage:g} s, in which all must be over:"
                f" raise limits.stage above {key}, or lower {key}",
            )


def _delivery(settings: Settings) -> Iterator[Finding]:
    component = settings.delivery
    made, findings = component.make(deliveries.REGISTRY, "delivery")
    yield from findings
    if not findings and not IDelivery.providedBy(made):
        yield Finding("delivery.use", f'"{component.use}" does not provide IDelivery')
    elif not findings:
        yield from _asked(made, "delivery")


def _dns(settings: Settings) -> Iterator[Finding]:
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
        yield from _asked(made, "dns.resolver")
        if dns.servers:
            yield Finding("dns.servers", "cannot be with dns.resolver, which asks whom it likes")


def _relay(settings: Settings) -> Iterator[Finding]:
    isSpool = settings.delivery.use == "spool"
    if settings.relay is None and not settings.route:
        if isSpool:
            said = "messages stay in the spool: there is neither [relay] nor [[route]]"
            yield Finding("delivery", said, isWarning=True)
        return
    yield from routes.mistakes(settings.relay or RelaySettings(), settings.route)
    if not isSpool:
        key = "relay" if settings.relay is not None else "route"
        yield Finding(key, 'needs [delivery] use = "spool", from which it takes the messages')


def _log(settings: Settings) -> Iterator[Finding]:
    target = settings.log.json
    if target in ("", "-"):
        return
    if Path(target).is_dir():
        yield Finding("log.json", f"{target} is a directory")
    elif not Path(target).parent.is_dir():
        yield Finding("log.json", f"there is no directory {Path(target).parent}")


CHECKS: tuple[tuple[frozenset[str], Callable[[Settings], Iterator[Finding]]], ...] = (
    (frozenset({"hostname", "banner"}), _names),
    (frozenset({"hostname", "relay", "route"}), _ownName),
    (frozenset({"smtp"}), _smtp),
    (frozenset({"limits"}), _descriptors),
    (frozenset({"listener"}), _listeners),
    (frozenset({"listener", "auth"}), _closed),
    (frozenset({"listener", "tls"}), _noCertificate),
    (frozenset({"tls"}), _certificate),
    (frozenset({"auth"}), _auth),
    (frozenset({"listener", "auth"}), _byAddress),
    (frozenset({"policy"}), _policies),
    (frozenset({"policy", "listener"}), _listenersOfPolicies),
    (frozenset({"policy"}), _signing),
    (frozenset({"policy"}), _filters),
    (frozenset({"policy", "limits"}), _delays),
    (frozenset({"delivery"}), _delivery),
    (frozenset({"policy", "delivery"}), _needs),
    (frozenset({"delivery", "relay", "route"}), _relay),
    (frozenset({"dns"}), _dns),
    (frozenset({"refusals"}), _refusals),
    (frozenset({"log"}), _log),
    (frozenset({"metrics", "listener"}), _metrics),
)


READ_BEFORE = frozenset({"tls", "log", "listener"})
"""The sections whose files are opened before the service gives up the rights it is started with."""


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


def portsInUse(settings: Settings) -> list[Finding]:
    """The endpoints whose address cannot be had now; :func:`examine` looks at the others."""
    found = []
    for path, endpoint in _endpoints(settings):
        try:
            address = addressOf(endpoint)
        except ValueError:
            continue
        reason = _whyTaken(address) if address is not None else None
        if reason:
            found.append(Finding(path, f"cannot listen on {endpoint}: {reason}"))
    return found


def _endpoints(settings: Settings) -> Iterator[tuple[str, str]]:
    for at, listener in enumerate(settings.listener):
        yield f"listener[{at}].endpoint", listener.endpoint
    if settings.metrics.endpoint:
        yield "metrics.endpoint", settings.metrics.endpoint


def _whyTaken(address: Address) -> str | None:
    if address.port is None:
        return _whySocketTaken(address.host)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the service does it: connections of an earlier run that linger are no reason.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        return whyNotBound(error)
    return None


def whyNotBound(error: OSError) -> str:
    """Why an address cannot be listened on, for an operator."""
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program"
    if isinstance(error, socket.gaierror):
        return "what an interface is called here is its address, such as 192.0.2.1"
    if error.errno == errno.EAFNOSUPPORT:
        return "this machine has no IPv6"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if error.errno == errno.EACCES:
        return "ports below 1024 are for root; see the options --uid and --gid of twistd"
    return str(error.strerror or error)


def _whySocketTaken(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            # Nobody there: a socket left behind is removed when the service listens.
            return str(error) if error.errno == errno.EACCES else None
    return "the socket is in use by another program"
