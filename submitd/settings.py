"""The settings: every section and key of the configuration, with type, default and help.

These classes are the reference of the configuration: the page of the documentation is made from
them.  Each field is a key of its section.  They hold values and decide nothing; what the values
must be is in preflight/, what is made of them in service.py.

Policies and deliveries bring keys of their own, kept as they were written in a :class:`Component`
until :meth:`Component.make` makes the object.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from submitd import endpoint as endpoints
from submitd.checkers.factory import takesFile
from submitd.relay.settings import RelaySettings, RouteSettings
from submitd.tls import TLSSettings
from submitd.typed import Count, Finding, Seconds, Size, Workers, nearest, structure
from submitd.wire.reply import LOGIN_REQUIRED


def _anchor(checker: str, directory: Path) -> str:
    name, _, argument = checker.partition(":")
    return f"{name}:{directory / argument}" if argument and takesFile(name) else checker


@attrs.frozen(kw_only=True)
class ListenerSettings:
    """``[[listener]]``: a port or socket to listen on; one section for each."""

    endpoint: str = attrs.field(
        metadata={
            "help": 'A Twisted server endpoint: "tcp:587", "tcp:465:interface=192.0.2.1", '
            '"tcp6:587", "unix:/run/submitd/submission.sock", '
            '"systemd:domain=INET:name=submission". "tcp:" is IPv4 alone, "tcp6:" IPv6 and, on '
            "most systems, IPv4 too."
        }
    )
    name: str = attrs.field(
        metadata={"help": "What policies that are for some listeners only call this one."},
        default="",
    )
    tls: Literal["starttls", "implicit", "off"] = attrs.field(
        metadata={
            "help": 'How TLS begins: "starttls" (RFC 3207, port 587), "implicit" (RFC 8314, port '
            '465) or "off".'
        },
        default="starttls",
    )
    require_tls: bool = attrs.field(
        metadata={"help": "No login and no message before TLS. Must be false where TLS is off."},
        default=True,
    )
    lmtp: bool = attrs.field(
        metadata={
            "help": "Speak LMTP (RFC 2033): LHLO, and one reply per recipient behind a message. "
            "Not on port 25."
        },
        default=False,
    )
    login_by_address: dict[str, str] = attrs.field(
        metadata={
            "help": "Whose login a client has that cannot log in, by its network, such as "
            '"10.1.2.0/24" = "printers@example.com"; the longest prefix wins, and "unix" means the '
            "peers of a unix socket. A client that does log in has its own."
        },
        factory=dict,
    )
    proxy_protocol_from: tuple[str, ...] = attrs.field(
        metadata={
            "help": 'The proxies, such as ["10.0.0.0/8"], that begin each connection with a PROXY '
            "header, version 1 or 2, which is required of them and believed; from any other peer "
            'it is refused. "unix" means the peers of a unix socket.'
        },
        default=(),
    )
    xclient_from: tuple[str, ...] = attrs.field(
        metadata={
            "help": "The proxies that may say by XCLIENT (Postfix, nginx) whom they speak for; "
            "networks as above."
        },
        default=(),
    )
    xclient_login: bool = attrs.field(
        metadata={
            "help": "LOGIN= of XCLIENT logs in without a password: the proxy has checked it."
        },
        default=False,
    )
    xforward_from: tuple[str, ...] = attrs.field(
        metadata={
            "help": "The proxies that may say by XFORWARD (Postfix) where a message came from, for "
            "policies and deliveries; networks as above."
        },
        default=(),
    )

    def anchored(self, directory: Path) -> ListenerSettings:
        """The same with a socket's path that is relative to no directory of the process."""
        return attrs.evolve(self, endpoint=endpoints.anchored(self.endpoint, directory))


@attrs.frozen(kw_only=True)
class AuthSettings:
    """``[auth]``: who may log in, and how."""

    required: bool = attrs.field(metadata={"help": "No message before a login."}, default=True)
    required_text: str = attrs.field(
        metadata={"help": "What 530 says to a client that sends without one."},
        default=LOGIN_REQUIRED.lines[0],
    )
    mechanisms: tuple[str, ...] = attrs.field(
        metadata={
            "help": "The SASL mechanisms to offer, best first: PLAIN, LOGIN, CRAM-MD5, XOAUTH2, "
            "OAUTHBEARER, EXTERNAL, SCRAM-SHA-256-PLUS, SCRAM-SHA-256, or "
            '"package.module:Name". One that no checker can verify is not offered.'
        },
        default=("PLAIN", "LOGIN"),
    )
    checkers: tuple[str, ...] = attrs.field(
        metadata={
            "help": 'Where logins are checked, in this order: "htpasswd:FILE", "secrets:FILE", '
            '"tokens:FILE", "sql:FILE", "oauth:FILE", "jwt:FILE", "certificates:FILE", '
            '"dovecot:SOCKET", or any other that a Twisted ICheckerFactory plug-in brings.'
        },
        default=(),
    )
    insecure: bool = attrs.field(
        metadata={"help": "Passwords may travel without TLS. For tests and closed networks alone."},
        default=False,
    )
    cache: Seconds = attrs.field(
        metadata={
            "help": "How long a verified login is remembered, so that its hash need not be "
            "computed again; a change of a file is seen at once all the same, one in a data base "
            "or in Dovecot when this is over. 0 for never."
        },
        default=Seconds(300.0),
    )
    cache_size: Count = attrs.field(
        metadata={"help": "How many verified logins are remembered."}, default=Count(10000)
    )

    def anchored(self, directory: Path) -> AuthSettings:
        """The same with paths that are relative to no directory of the process."""
        return attrs.evolve(
            self, checkers=tuple(_anchor(each, directory) for each in self.checkers)
        )


@attrs.frozen(kw_only=True)
class LimitSettings:
    """``[limits]``: what a client may use. 0 is no limit."""

    message_size: Size = attrs.field(
        metadata={"help": "The largest message, announced by SIZE (RFC 1870)."},
        default=Size(25 * 1024 * 1024),
    )
    header_size: Size = attrs.field(
        metadata={"help": "The largest header section that is kept for policies."},
        default=Size(256 * 1024),
    )
    recipients: Count = attrs.field(
        metadata={"help": "Recipients of one message; RFC 5321 wants 100 at least."},
        default=Count(1000),
    )
    connections: Count = attrs.field(
        metadata={"help": "Connections at one time, over all listeners."}, default=Count(1000)
    )
    connections_per_address: Count = attrs.field(
        metadata={
            "help": "Connections at one time from one address. Many people can stand behind one."
        },
        default=Count(50),
    )
    transactions: Count = attrs.field(
        metadata={
            "help": "Messages over one connection; announced by LIMITS (RFC 9422), then 421."
        },
        default=Count(0),
    )
    commands_before_login: Count = attrs.field(
        metadata={"help": "Commands before a login, where one is required."}, default=Count(20)
    )
    unrecognized: Count = attrs.field(
        metadata={
            "help": "Unknown or malformed commands, RCPT aside, before the connection is closed."
        },
        default=Count(10),
    )
    refusals: Count = attrs.field(
        metadata={
            "help": "Commands of any kind that may be refused on one connection before it is "
            "closed; each costs a reply and a line of log."
        },
        default=Count(1000),
    )
    login_failures: Count = attrs.field(
        metadata={"help": "Failed logins before the connection is closed."}, default=Count(3)
    )
    idle: Seconds = attrs.field(
        metadata={
            "help": "How long a client may be silent between two commands, or within a message; "
            "RFC 5321 wants 5 minutes."
        },
        default=Seconds(300.0),
    )
    handshake: Seconds = attrs.field(
        metadata={"help": "How long a TLS handshake may take."}, default=Seconds(60.0)
    )
    login: Seconds = attrs.field(
        metadata={"help": "How long a client may stay without a login, where one is required."},
        default=Seconds(180.0),
    )
    message: Seconds = attrs.field(
        metadata={"help": "How long one message may take to arrive."}, default=Seconds(3600.0)
    )
    stage: Seconds = attrs.field(
        metadata={
            "help": "How long a policy, a login or a delivery may take. With 0, who waits for one "
            "that hangs does so until the service stops."
        },
        default=Seconds(60.0),
    )
    drain: Seconds = attrs.field(
        metadata={
            "help": "How long transactions under way get when the service stops. New connections "
            "are refused and idle ones closed at once."
        },
        default=Seconds(30.0),
    )


@attrs.frozen(kw_only=True)
class DNSSettings:
    """``[dns]``: the names of the clients' addresses."""

    reverse_lookup: bool = attrs.field(
        metadata={
            "help": "Look up the name of each client's address, confirm it by the name's address, "
            "and put it in Received. Off: the clients of a submission service come from "
            "dial-up lines, whose names say nothing, and each greeting would wait for it."
        },
        default=False,
    )
    timeout: Seconds = attrs.field(
        metadata={"help": "How long a greeting waits for the name at most."}, default=Seconds(2.0)
    )
    servers: tuple[str, ...] = attrs.field(
        metadata={
            "help": 'The name servers to ask, such as "192.0.2.53" or "[::1]:5353". Empty for '
            "those of /etc/resolv.conf."
        },
        default=(),
    )
    resolver: str = attrs.field(
        metadata={
            "help": 'A resolver of your own (IReverseResolver): "package.module:Name". Empty for '
            "the name servers."
        },
        default="",
    )


@attrs.frozen(kw_only=True)
class SMTPSettings:
    """``[smtp]``: what is said and offered."""

    hello_text: str = attrs.field(
        metadata={
            "help": "What follows the server's name in the answer to EHLO; {client} stands for the "
            "client's."
        },
        default="greets {client}",
    )
    hide: tuple[str, ...] = attrs.field(
        metadata={
            "help": 'Extensions that EHLO does not show, such as "DSN". They work all the same.'
        },
        default=(),
    )
    disabled_commands: tuple[str, ...] = attrs.field(
        metadata={
            "help": 'Commands that are answered 502, such as "VRFY"; an extension that brings one '
            "is not offered."
        },
        default=(),
    )
    max_hold: Seconds = attrs.field(
        metadata={
            "help": "How long a client may have a message held back (FUTURERELEASE, RFC 4865), "
            "where the delivery does so; 0 offers it to nobody."
        },
        default=Seconds(30 * 86400.0),
    )
    min_deliver_by: Seconds = attrs.field(
        metadata={
            "help": "The shortest time in which a client may ask for delivery or return (DELIVERBY,"
            " RFC 2852), where the delivery does so; 0 for any."
        },
        default=Seconds(0.0),
    )
    priority_profile: Literal["", "MIXER", "STANAG4406", "NSEP"] = attrs.field(
        metadata={
            "help": "What the priorities of messages mean (MT-PRIORITY, RFC 6710), shown to clients"
            ' where the delivery has priorities: "MIXER", "STANAG4406", "NSEP", or empty.'
        },
        default="",
    )


@attrs.frozen(kw_only=True)
class LogSettings:
    """``[log]``: what is written beside twistd's own log."""

    json: str = attrs.field(
        metadata={
            "help": 'A file to which every event is appended as one line of JSON; "-" for standard '
            "output, empty for none."
        },
        default="",
    )
    together: bool = attrs.field(
        metadata={
            "help": "Write the lines of one moment together, here and in twistd's own log: a tenth "
            "of a second late at most, warnings at once. Without, a busy server takes a fifth more."
        },
        default=True,
    )

    def anchored(self, directory: Path) -> LogSettings:
        """The same with a path that is relative to no directory of the process."""
        if self.json in ("", "-"):
            return self
        return attrs.evolve(self, json=str(directory / self.json))


@attrs.frozen(kw_only=True)
class MetricsSettings:
    """``[metrics]``: numbers for Prometheus, and for what reads its format."""

    endpoint: str = attrs.field(
        metadata={
            "help": 'Where they are shown, at /metrics: "tcp:9587:interface=127.0.0.1". Empty for '
            "nowhere. A change needs a restart."
        },
        default="",
    )

    def anchored(self, directory: Path) -> MetricsSettings:
        """The same with a socket's path that is relative to no directory of the process."""
        return attrs.evolve(self, endpoint=endpoints.anchored(self.endpoint, directory))


@attrs.frozen(kw_only=True)
class RefusalSettings:
    """``[refusals]``: how what was refused is found again (``submitd-why``)."""

    ids: bool = attrs.field(
        metadata={
            "help": "End each reply that refuses with an id, such as (id 7BQK2ZXA). submitd-why "
            "and the log know it."
        },
        default=True,
    )
    file: Path | None = attrs.field(
        metadata={
            "help": "Where refusals are kept, a line of JSON each; its directory must be there. "
            "Left out, it is refusals.jsonl in the directory of the spool; without one, there is "
            "none."
        },
        default=None,
    )
    size: Size = attrs.field(
        metadata={
            "help": "How large the file grows before a new one is begun; the one before is kept "
            "as FILE.1. A refusal takes about 500 octets."
        },
        default=Size(8 * 1024 * 1024),
        validator=attrs.validators.ge(Size(64 * 1024)),
    )

    def path(self, delivery: Component) -> Path | None:
        """Where refusals are kept; ``None`` for nowhere.

        :param delivery: the ``[delivery]`` of the same configuration.
        """
        if self.file is not None or delivery.use != "spool":
            return self.file
        spool = delivery.keys.get("path")
        return delivery.directory / spool / "refusals.jsonl" if isinstance(spool, str) else None


@attrs.frozen
class Component:
    """A policy or a delivery: which one, and its own keys.

    :param use: a name of the registry, or ``package.module:Name``.
    :param keys: what the configuration gives it, as TOML has it.
    :param directory: where relative paths begin.
    :param listeners: the names of the listeners that a policy is for, as they are written; empty
        for all.
    """

    use: Any
    keys: Mapping[str, Any] = attrs.field(factory=dict)
    directory: Path = Path()
    listeners: Any = attrs.field(factory=list)

    def isFor(self, listener: ListenerSettings) -> bool:
        """Whether a policy is for this listener."""
        return not self.listeners or listener.name in self.listeners

    @classmethod
    def fromTable(cls, table: Mapping[str, Any], directory: Path) -> Component:
        """What a section ``[[policy]]`` or ``[delivery]`` says.

        Whether it says which one it is, is left to :meth:`make`: the mistake of one is not to hide
        those of the others.
        """
        keys = {name: value for name, value in table.items() if name != "use"}
        return cls(table.get("use"), keys, directory)

    def make(self, registry: Mapping[str, str], path: str) -> tuple[Any, list[Finding]]:
        """Make the object.

        :param registry: name -> ``module:Class``.
        :param path: the section, such as ``policy[0]``, for the findings.
        :return: the object and no findings, or ``None`` and all of them.
        """
        _, wrong = structure(self.listeners, tuple[str, ...], self.directory, f"{path}.listeners")
        target, finding = self._find(registry, path)
        if finding is not None:
            return None, [*wrong, finding]
        if attrs.has(target):
            made, findings = structure(dict(self.keys), target, self.directory, path)
        else:
            made, findings = _call(target, self.keys, path)
        return (None, wrong + findings) if wrong else (made, findings)

    def _find(self, registry: Mapping[str, str], path: str) -> tuple[Any, Finding | None]:
        if not isinstance(self.use, str):
            said = "is missing" if self.use is None else "must be a string"
            return None, Finding(f"{path}.use", f"{said}; known are: {', '.join(registry)}")
        where = self.use if ":" in self.use else registry.get(self.use)
        if where is None:
            said = (
                f'there is no "{self.use}"; {nearest(self.use, registry)};'
                ' your own is named "package.module:Name"'
            )
            return None, Finding(f"{path}.use", said)
        module, _, name = where.partition(":")
        try:
            return getattr(importlib.import_module(module), name), None
        except Exception as error:
            # Whatever somebody's module does when it is imported is one mistake among the others.
            said = f'"{self.use}" cannot be imported: {type(error).__name__}: {error}'
            return None, Finding(f"{path}.use", said)


class PolicySettings(Component):
    """``[[policy]]``: a component with a key that is its section's and not its own."""

    @classmethod
    def fromTable(cls, table: Mapping[str, Any], directory: Path) -> PolicySettings:
        """What a section says; as in :meth:`Component.fromTable`, it is looked at later."""
        keys = {name: value for name, value in table.items() if name not in ("use", "listeners")}
        return cls(table.get("use"), keys, directory, table.get("listeners", []))


def spoolUnlessNamed(delivery: Component) -> Component:
    """A ``[delivery]`` whose use is the spool where it names none."""
    return delivery if delivery.use is not None else attrs.evolve(delivery, use="spool")


def _call(target: Any, keys: Mapping[str, Any], path: str) -> tuple[Any, list[Finding]]:
    if not callable(target):
        if keys:
            return None, [Finding(path, f"takes no keys: {', '.join(keys)}")]
        return target, []
    try:
        inspect.signature(target).bind(**keys)
    except TypeError as error:
        return None, [Finding(path, f"{error}")]
    try:
        return target(**keys), []
    except Exception as error:
        return None, [Finding(path, f"cannot be made: {type(error).__name__}: {error}")]


@attrs.frozen(kw_only=True)
class Settings:
    """The whole file: its top-level keys and sections."""

    hostname: str = attrs.field(
        metadata={
            "help": "The name of this server, in the greeting and in Received fields. Empty for "
            "the name that the system gives it."
        },
        default="",
    )
    banner: str = attrs.field(
        metadata={"help": "Text behind the name in the greeting."}, default=""
    )
    workers: Workers = attrs.field(
        metadata={
            "help": 'How many processes serve; "auto" for one on each core. With more than one '
            "there is a parent beside them, and a process for the relay."
        },
        default=Workers(1),
    )
    listener: tuple[ListenerSettings, ...] = attrs.field(
        metadata={"help": "The listeners."}, default=()
    )
    tls: TLSSettings | None = attrs.field(metadata={"help": "The certificate."}, default=None)
    auth: AuthSettings = attrs.field(metadata={"help": "Logins."}, factory=AuthSettings)
    limits: LimitSettings = attrs.field(metadata={"help": "Limits."}, factory=LimitSettings)
    dns: DNSSettings = attrs.field(metadata={"help": "Names of clients."}, factory=DNSSettings)
    policy: tuple[PolicySettings, ...] = attrs.field(
        metadata={"help": "The policies, in the order they are asked."}, default=()
    )
    delivery: Component = attrs.field(
        metadata={"help": "Where messages go; the spool, where no use is named."},
        default=Component("spool"),
        converter=spoolUnlessNamed,
    )
    relay: RelaySettings | None = attrs.field(
        metadata={"help": "Where the spool's messages go on to."}, default=None
    )
    route: tuple[RouteSettings, ...] = attrs.field(
        metadata={"help": "Next hops for some of them."}, default=()
    )
    smtp: SMTPSettings = attrs.field(
        metadata={"help": "What is said and offered."}, factory=SMTPSettings
    )
    refusals: RefusalSettings = attrs.field(
        metadata={"help": "What was refused."}, factory=RefusalSettings
    )
    log: LogSettings = attrs.field(metadata={"help": "Logs."}, factory=LogSettings)
    metrics: MetricsSettings = attrs.field(
        metadata={"help": "What is counted."}, factory=MetricsSettings
    )
