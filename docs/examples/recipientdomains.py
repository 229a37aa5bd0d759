"""A policy: mail to some domains only.

In the configuration::

    [[policy]]
    use = "recipientdomains:RecipientDomains"
    domains = ["example.com", "example.org"]
"""

from __future__ import annotations

from typing import ClassVar

import attrs
from zope.interface import implementer

from submitd.envelope import Envelope, Recipient
from submitd.equality import sameDomain
from submitd.interfaces import IChecked, IRecipientPolicy
from submitd.session import Session
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

NOT_HERE = Reply(550, "5.7.1", "Recipient domain not allowed")


@implementer(IRecipientPolicy, IChecked)
@attrs.define(eq=False)
class RecipientDomains:
    """Refuses recipients in other domains than the stated ones.

    :param domains: the domains that mail may go to.
    """

    name: ClassVar[str] = "recipient-domains"

    domains: tuple[str, ...] = attrs.field(
        metadata={"help": "The domains that mail may go to."},
    )

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        return [] if self.domains else ["domains: is empty, so that no mail could be sent"]

    def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """Refuse a recipient elsewhere.

        :raise Refused: 550 5.7.1.
        """
        domain = sameDomain(recipient.mailbox.domain)
        if domain not in map(sameDomain, self.domains):
            raise Refused(NOT_HERE, f"{domain} is not one of {', '.join(self.domains)}")
