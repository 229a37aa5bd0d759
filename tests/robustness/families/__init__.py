"""The families of input, one module each, and all of them in order."""

from __future__ import annotations

from tests.robustness.checks import Family
from tests.robustness.families import (
    addresses,
    characters,
    chunking,
    commandlines,
    endofdata,
    handshake,
    heavy,
    login,
    proxies,
    starttls,
    usernames,
)

FAMILIES: tuple[Family, ...] = (
    endofdata.FAMILY,
    commandlines.FAMILY,
    chunking.FAMILY,
    starttls.FAMILY,
    handshake.FAMILY,
    login.FAMILY,
    usernames.FAMILY,
    addresses.FAMILY,
    characters.FAMILY,
    proxies.FAMILY,
    heavy.FAMILY,
)
