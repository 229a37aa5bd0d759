"""Whose messages a policy is about: a login, or ``@DOMAIN`` for all logins that are addresses of a
domain, or ``@*.DOMAIN`` for those of all domains below it.

A login that is no address is compared letter by letter, one that is an address as addresses are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from submitd.equality import sameDomain, sameLocalPart
from submitd.policies.addresses import Addresses, Pattern, readPattern
from submitd.wire.address import readMailbox

_MEMBER = True


def readLogins(key: str, names: Iterable[str]) -> Addresses[bool]:
    """A list of the configuration.

    :param key: its name, for the mistake.
    :raise ValueError: for what nobody has as a login.
    """
    logins: Addresses[bool] = Addresses()
    for name in names:
        try:
            if not name or name != name.strip():
                raise ValueError("nobody has such a login")
            logins.set(_pattern(name.encode()), _MEMBER)
        except ValueError as error:
            raise ValueError(f'{key}: "{name}": {error}') from None
    return logins


def readLoginLine(words: list[bytes], logins: Addresses[bool]) -> None:
    """Take a line of a file.

    :raise ValueError: when it is broken; says why.
    """
    if len(words) > 1:
        raise ValueError("more than one login")
    logins.set(_pattern(words[0]), _MEMBER)


def includes(logins: Addresses[bool], login: str) -> bool:
    """Whether a login is among these."""
    return any(_found(logins, login))


def sameLogin(login: str) -> str:
    """The form in which equal logins are equal strings."""
    localPart, at, domain = login.rpartition("@")
    return f"{sameLocalPart(localPart)}@{sameDomain(domain)}" if at else login


def _pattern(word: bytes) -> Pattern:
    """What a login or a domain of logins is found by; a login need not be an address."""
    return readPattern(word) if b"@" in word else (word.decode(), "")


def _found(logins: Addresses[bool], login: str) -> Iterator[bool]:
    if "@" not in login:
        yield logins.get((login, "")) is not None
        return
    try:
        yield from logins.find(readMailbox(login.encode("utf-8", "surrogatepass")))
    except ValueError:
        return
