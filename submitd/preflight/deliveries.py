"""Where accepted messages go: the delivery, and the relay behind it."""

from __future__ import annotations

from collections.abc import Iterator

from submitd import deliveries
from submitd.interfaces import IDelivery
from submitd.preflight.asking import asked
from submitd.relay import routes
from submitd.relay.settings import RelaySettings
from submitd.settings import Settings
from submitd.typed import Finding


def section(settings: Settings) -> Iterator[Finding]:
    """The delivery is made, and asked."""
    component = settings.delivery
    made, findings = component.make(deliveries.REGISTRY, "delivery")
    yield from findings
    if not findings and not IDelivery.providedBy(made):
        yield Finding("delivery.use", f'"{component.use}" does not provide IDelivery')
    elif not findings:
        yield from asked(made, "delivery")


def relay(settings: Settings) -> Iterator[Finding]:
    """Whether the relay has a spool to deliver from, and the spool a relay; and its routes."""
    isSpool = settings.delivery.use == "spool"
    if settings.relay is None and not settings.route:
        if isSpool:
            said = "messages stay in the spool: there is neither [relay] nor [[route]]"
            yield Finding("delivery", said, isWarning=True)
        return
    yield from routes.mistakes(settings.relay or RelaySettings(), settings.route)
    if not isSpool:
        key = "relay" if settings.relay is not None else "route"
        yield Finding(key, 'needs [delivery] use = "spool", from which it takes the messages')
