"""Networks: whose word is believed, and whose login is theirs.

:class:`Networks` is a list of address ranges, such as the proxies that a listener trusts.  A peer
is in it or it is not; what is no address is in none, so a doubt never gives a right.  An IPv4
address or network written as IPv6 (``::ffff:192.0.2.1``) is the IPv4 one.  :class:`NetworkLogins`
has a login for each range.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache

import attrs

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix"

# The prefix of ::ffff:0:0/96, which has all IPv4 addresses in it.
_MAPPED = 96


def parseAddress(text: str) -> Address:
    """Read an address without a zone.

    :raise ValueError: when it is none.
    """
    if "%" in text:
        raise ValueError("an address with a zone")
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=1024)
def addressLiteral(address: str) -> str:
    """The address literal of RFC 5321 4.1.3, such as ``[192.0.2.1]``; empty for no address."""
    try:
        parsed = parseAddress(address.partition("%")[0])
    except ValueError:
        return ""
    return f"[{parsed}]" if parsed.version == 4 else f"[IPv6:{parsed}]"


def _network(name: str) -> Network:
    network = ipaddress.ip_network(name)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED))


def _parse(names: Iterable[str]) -> tuple[Network, ...]:
    return tuple(_network(name) for name in names if name != UNIX)


@attrs.frozen
class Networks:
    """Some networks.

    :param networks: the address ranges.
    :param unix: whether those who come by a unix socket, and have no address, are in it.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, names: Iterable[str]) -> Networks:
        """Read names such as ``192.0.2.0/24``, ``2001:db8::/32``, ``192.0.2.1`` and ``unix``.

        :raise ValueError: for one that is no network, or that has bits set behind its prefix.
        """
        names = tuple(names)
        return cls(_parse(names), UNIX in names)

    def __bool__(self) -> bool:
        return bool(self.networks) or self.unix

    def __contains__(self, address: object) -> bool:
        if not address:
            return self.unix
        if not self.networks or not isinstance(address, str):
            return False
        try:
            parsed = parseAddress(address.partition("%")[0])
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)


NONE = Networks()


@attrs.frozen
class NetworkLogins:
    """Whose login comes from which network.

    :param networks: the address ranges with their logins, those with the longest prefix first.
    :param unix: the login of those who come by a unix socket; empty for none.
    """

    networks: tuple[tuple[Network, str], ...] = ()
    unix: str = ""

    @classmethod
    def parse(cls, logins: Mapping[str, str]) -> NetworkLogins:
        """Read names as :meth:`Networks.parse` does, each with a login.

        :raise ValueError: for one that is no network, or that has bits set behind its prefix.
        """
        networks = [(_network(name), login) for name, login in logins.items() if name != UNIX]
        networks.sort(key=lambda pair: pair[0].prefixlen, reverse=True)
        return cls(tuple(networks), logins.get(UNIX, ""))

    def __bool__(self) -> bool:
        return bool(self.networks) or bool(self.unix)

    def of(self, address: str) -> str:
        """The login of an address, as the longest prefix that it is in has it; empty for none."""
        if not address:
            return self.unix
        try:
            parsed = parseAddress(address.partition("%")[0])
        except ValueError:
            return ""
        return next((login for network, login in self.networks if parsed in network), "")


NO_LOGINS = NetworkLogins()
