"""Data bases that are not there."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred

from submitd.policies.ownersquery import OwnersQuery
from submitd.policies.senderowner import SenderOwner


def ownersAway() -> SenderOwner:
    """The policy sender-owner, with a data base that does not answer."""
    policy = SenderOwner()
    url, query = "sqlite:////nonexistent/owners.db", "SELECT address FROM owners WHERE login=:login"
    policy._database = OwnersQuery(url, query, 60, maybeDeferred)
    return policy
