"""The name of a client's address, looked up and confirmed.

:func:`verifiedName` asks a resolver (``IReverseResolver``) for the names of an address and believes
one only if that name has the address; anybody can give his own addresses any name.  Names are data
from outside: only what is an ASCII domain is looked at, and no more than a few.

:class:`DNS` is the resolver of the configuration: twisted.names, asking the name servers of
/etc/resolv.conf or those it is given, a fresh port for each question.  It takes no thread, so a
slow name server never holds up the logins that are checked in threads; it does not read /etc/hosts
or the system's other sources of names, for which one's own resolver can be given.
"""

# mypy: allow-untyped-calls
# Twisted's resolver is not annotated.

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from inspect import isawaitable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import DNSNameError
from zope.interface import implementer

from submitd.files import Stamp, stampAt
from submitd.interfaces import IReverseResolver
from submitd.wire.address import isDomain
from submitd.wire.network import parseAddress

# An address may have any number of names; an honest one has one.
MAX_NAMES = 3
DNS_PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")

_ADDRESS = re.compile(r"[0-9.]+")
_SERVER = re.compile(r"([0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)|(?:\[([^\]]+)\]|([^:]+))(?::([0-9]{1,5}))?")

Server = tuple[str, int]


async def verifiedName(resolver: IReverseResolver, address: str) -> str:
    """The name of an address that has this address.

    :param address: IPv4 or IPv6, as text.
    :return: in lower case, without a dot at the end; empty when there is none.
    :raise Exception: whatever the resolver raises.
    """
    wanted = parseAddress(address.partition("%")[0])
    for said in (await _result(resolver.namesOf(str(wanted))))[:MAX_NAMES]:
        name = _domain(said)
        if name and wanted in _addresses(await _result(resolver.addressesOf(name, wanted.version))):
            return name
    return ""


async def _result(given: Any) -> Sequence[str]:
    result: Sequence[str] = await given if isawaitable(given) else given
    if isinstance(result, (str, bytes)):
        raise TypeError("a resolver gives a list")
    return result


def _domain(said: object) -> str:
    """What was said as a domain, or nothing when it is none: a dotted number is none."""
    name = said.removesuffix(".").lower() if isinstance(said, str) else ""
    return name if isDomain(name) and not _ADDRESS.fullmatch(name) else ""


def _addresses(texts: Sequence[str]) -> list[object]:
    found: list[object] = []
    for text in texts:
        try:
            found.append(parseAddress(str(text)))
        except ValueError:
            continue
    return found


def parseServer(text: str) -> Server:
    """Read a name server: ``192.0.2.53``, ``192.0.2.53:5353``, ``2001:db8::53``, ``[::1]:5353``.

    :raise ValueError: when it is none.
    """
    matched = _SERVER.fullmatch(text)
    if matched is None:
        raise ValueError("no name server")
    host, port = matched[1] or matched[2] or matched[3], int(matched[4] or DNS_PORT)
    ipaddress.ip_address(host)
    if not 0 < port < 65536:
        raise ValueError("no port")
    return host, port


class _Asking(Resolver):
    """Twisted's resolver, in which a question that cannot even be sent fails.

    One that raises (there is no descriptor left) it would keep for one that is on its way, and who
    asks the same later would wait for its answer for ever.
    """

    def queryUDP(self, queries: Any, timeout: Any = None) -> Deferred[Any]:
        """See ``twisted.names.client.Resolver.queryUDP``."""
        return maybeDeferred(super().queryUDP, queries, timeout)


@implementer(IReverseResolver)
class DNS:
    """Asks name servers.

    :param reactor: listens on UDP, connects by TCP and calls later.
    :param servers: whom to ask; none for those of ``file``, read again when it changes.
    :param limit: seconds until a question is given up; it is repeated once within them.
    :param file: such as /etc/resolv.conf.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[Server] = (),
        limit: float = 2.0,
        file: Path = RESOLV_CONF,
    ) -> None:
        self._reactor = reactor
        self._timeouts = (limit / 3, limit * 2 / 3)
        self._file = None if servers else file
        self._stamp: Stamp | None = None
        self._resolver = self._asking(list(servers))

    def _asking(self, servers: list[Server]) -> Resolver:
        # resolv.conf(5): without a name server, the one on this machine is asked.
        return _Asking(
            servers=servers or [("127.0.0.1", DNS_PORT)],
            timeout=self._timeouts,
            reactor=self._reactor,
        )

    def current(self) -> Resolver:
        """The resolver of twisted.names.

        Twisted's own watch of the file is a delayed call that never ends.
        """
        if self._file is not None:
            stamp = stampAt(self._file)
            if stamp != self._stamp:
                self._resolver, self._stamp = self._asking(_servers(self._file)), stamp
        return self._resolver

    async def namesOf(self, address: str) -> list[str]:
        """PTR of an address."""
        pointer = ipaddress.ip_address(address).reverse_pointer
        records = await _answers(self.current().lookupPointer(pointer), dns.PTR)
        return [str(record.name) for record in records]

    async def addressesOf(self, name: str, version: int) -> list[str]:
        """A or AAAA of a name."""
        resolver = self.current()
        if version == 4:
            records = await _answers(resolver.lookupAddress(name), dns.A)
        else:
            records = await _answers(resolver.lookupIPV6Address(name), dns.AAAA)
        return [str(ipaddress.ip_address(record.address)) for record in records]


async def _answers(asking: Any, kind: int) -> list[Any]:
    try:
        answers, _, _ = await asking
    except DNSNameError:
        return []
    return [record.payload for record in answers if record.type == kind]


def _servers(file: Path) -> list[Server]:
    try:
        words = [line.split() for line in file.read_text("ascii", "replace").splitlines()]
    except OSError:
        return []
    found = []
    for word in words:
        if len(word) >= 2 and word[0] == "nameserver":
            try:
                found.append(parseServer(word[1].partition("%")[0]))
            except ValueError:
                continue
    return found
