"""Policies: who may do what.  One file each, and one line here.

What is no policy and stands here all the same is what policies are made of: ``addresses``, the
files of addresses that several read; ``logins``, whose messages some of them are about;
``holding``, what the log says of a message that one of them has held; ``rights`` and
``ownersquery`` of sender-owner; ``newaddresses`` of rewrite;
``policyserver`` of delegation; ``milterclient``, ``miltertalk`` and ``milterchanges`` of milter;
``webhook`` of brake.
"""

from __future__ import annotations

# name in the configuration -> "module:Class"; code outside the tree is named there in this form.
REGISTRY: dict[str, str] = {
    "archive": "submitd.policies.archive:Archive",
    "brake": "submitd.policies.brake:Brake",
    "delegation": "submitd.policies.delegation:Delegation",
    "dkim": "submitd.policies.dkim:DKIM",
    "login-throttle": "submitd.policies.loginthrottle:LoginThrottle",
    "message-fixups": "submitd.policies.fixups:MessageFixups",
    "milter": "submitd.policies.milter:Milter",
    "rate-limit": "submitd.policies.ratelimit:RateLimit",
    "recipients": "submitd.policies.recipients:Recipients",
    "require-tls": "submitd.policies.requiretls:RequireTLS",
    "rewrite": "submitd.policies.rewrite:Rewrite",
    "sender-owner": "submitd.policies.senderowner:SenderOwner",
}
