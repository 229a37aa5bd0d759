"""Policies: who may do what.  One file each, and one line here."""

from __future__ import annotations

# name in the configuration -> "module:Class"; code outside the tree is named there in this form.
REGISTRY: dict[str, str] = {
    "message-fixups": "submitd.policies.fixups:MessageFixups",
    "recipients": "submitd.policies.recipients:Recipients",
    "require-tls": "submitd.policies.requiretls:RequireTLS",
    "sender-owner": "submitd.policies.senderowner:SenderOwner",
}
