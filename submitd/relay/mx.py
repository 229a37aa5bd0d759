"""Which hosts take mail for a domain (RFC 5321 5.1).

MX records in the order of their preference, those of one preference shuffled; without any, the
domain itself.  A null MX (RFC 7505), a name that does not exist, and a list that leads back to us
are final; a DNS that does not answer is not.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError
from twisted.names import dns
from twisted.names.error import DNSNameError

from submitd.equality import sameDomain
from submitd.relay.outgoing import inOneLine
from submitd.wire.reply import Reply

# More hosts than this are not tried in one attempt.
MAX_HOSTS = 10

# Nor are more addresses of one host than this, of each kind: an attempt is to end some time,
# whatever somebody writes into the DNS (RFC 5321 5.1 allows for a limit).
MAX_ADDRESSES = 2

# A label of DNS may hold any octets, and what is no name of a host would be in reports and logs.
_HOST = re.compile(r"[A-Za-z0-9._-]+")

NULL_MX = Reply(556, "5.1.10", "Domain takes no mail (null MX)")
NO_SUCH_DOMAIN = Reply(550, "5.1.2", "Domain does not exist")
NO_ADDRESS = Reply(550, "5.4.4", "Domain has no host that takes mail")
LOOP = Reply(554, "5.4.6", "Mail for this domain would come back to us")


class NoHosts(Exception):
    """There is no host to be tried.

    :param reply: why, for the record; 4yz when another attempt may find one.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(inOneLine(reply))
        self.reply = reply


@attrs.frozen
class Exchanger:
    """One host of a domain.

    :param name: of the host.
    :param addresses: IPv6 and IPv4, as text.
    """

    name: str
    addresses: tuple[str, ...]


@attrs.frozen(eq=False)
class MailExchangers:
    """Looks hosts up.

    :param resolver: gives a resolver of twisted.names (``IResolver``).
    :param hostname: our own name, to know a loop by.
    :param shuffle: puts a list in random order, in place.
    """

    resolver: Callable[[], Any]
    hostname: str
    shuffle: Callable[[list[Any]], None] = random.shuffle

    async def hosts(self, domain: str) -> list[Exchanger]:
        """The hosts of a domain, the best first.

        :param domain: in any form, or an address literal.
        :raise NoHosts: when there are none.
        """
        if domain.startswith("["):
            # Equal domains are equal strings, in lower case, by the time they come here.
            address = domain[1:-1].lower().removeprefix("ipv6:")
            return [Exchanger(address, (address,))]
        name = sameDomain(domain)
        found: list[Exchanger] = []
        troubled = False
        for host in (await self._names(name))[:MAX_HOSTS]:
            try:
                addresses = await self.addresses(host)
            except NoHosts as error:
                troubled = troubled or error.reply.isTransient
                continue
            if addresses:
                found.append(Exchanger(host, addresses))
        if not found:
            raise NoHosts(_unanswered(name) if troubled else NO_ADDRESS)
        return found

    async def _names(self, domain: str) -> list[str]:
        records = await self._records(self.resolver().lookupMailExchange, domain, dns.MX)
        exchangers = [(each.preference, _text(each.name).lower()) for each in records]
        if not exchangers:
            return [domain]
        if any(name == "" for _, name in exchangers):
            if len(exchangers) == 1:
                raise NoHosts(NULL_MX)
            exchangers = [each for each in exchangers if each[1]]
        ours = [preference for preference, name in exchangers if name == self.hostname.lower()]
        if ours:
            # RFC 5321 5.1: those as far from the goal as we are lead back to us.
            exchangers = [each for each in exchangers if each[0] < min(ours)]
            if not exchangers:
                raise NoHosts(LOOP)
        self.shuffle(exchangers)
        exchangers.sort(key=lambda each: each[0])
        return [name for _, name in exchangers if _HOST.fullmatch(name)]

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The first addresses of a host, IPv6 before IPv4.

        :raise NoHosts: when DNS does not answer.
        """
        resolver = self.resolver()
        found: list[str] = []
        troubled: NoHosts | None = None
        for lookup, record in (
            (resolver.lookupIPV6Address, dns.AAAA),
            (resolver.lookupAddress, dns.A),
        ):
            try:
                records = await self._records(lookup, host, record)
                found += [_address(each) for each in records[:MAX_ADDRESSES]]
            except NoHosts as error:
                troubled = error
        if not found and troubled is not None:
            raise troubled
        return tuple(found)

    async def _records(self, lookup: Callable[[str], Any], name: str, of: int) -> Sequence[Any]:
        try:
            answers, _, _ = await lookup(name)
        except CancelledError:
            raise
        except DNSNameError:
            raise NoHosts(NO_SUCH_DOMAIN) from None
        except Exception as error:
            # Time limits, refusals, broken packets: whatever it is, it may pass.
            raise NoHosts(_unanswered(name, type(error).__name__)) from None
        return [each.payload for each in answers if each.type == of]


def _unanswered(name: str, why: str = "") -> Reply:
    return Reply(451, "4.4.3", f"DNS does not answer about {name}" + (f" ({why})" if why else ""))


def _text(name: Any) -> str:
    text: str = name.name.decode("ascii", "replace")
    return text.rstrip(".")


def _address(record: Any) -> str:
    if isinstance(record, dns.Record_A):
        return str(record.dottedQuad())

    return str(ipaddress.IPv6Address(record.address))
