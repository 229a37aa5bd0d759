"""Deliveries: where an accepted message goes.  One file each, and one line here."""

from __future__ import annotations

# name in the configuration -> "module:Class"; code outside the tree is named there in this form.
REGISTRY: dict[str, str] = {
    "discard": "submitd.deliveries.discard:Discard",
    "maildir": "submitd.deliveries.maildir:Maildir",
    "spool": "submitd.deliveries.spool:Spool",
}
