"""Policies: each by itself, what they need of the delivery, their order, and their time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from submitd import deliveries, policies
from submitd.interfaces import (
    IBlindCopyDelivery,
    IBringsDelivery,
    IDelays,
    IDelivery,
    IHoldingDelivery,
    IMayBlindCopy,
    IMayHold,
    IMessagePolicy,
    ISigning,
)
from submitd.preflight.asking import asked, unasked, warnings
from submitd.preflight.names import unknown
from submitd.settings import Component, Settings
from submitd.submission import isPolicy
from submitd.typed import Finding


def sections(settings: Settings) -> Iterator[Finding]:
    """Each policy is made, and asked."""
    for at, component in enumerate(settings.policy):
        path = f"policy[{at}]"
        made, findings = component.make(policies.REGISTRY, path)
        yield from findings
        if not findings and not isPolicy(made):
            yield Finding(
                f"{path}.use",
                f'"{component.use}" provides no stage interface of submitd.interfaces',
            )
        elif not findings:
            yield from _ownDelivery(made, f"{path}.delivery")
            yield from asked(made, path)


def _ownDelivery(policy: Any, path: str) -> Iterator[Finding]:
    if not IBringsDelivery.providedBy(policy) or policy.delivery is None:
        return
    component = Component.fromTable(policy.delivery.values, policy.delivery.directory)
    made, findings = component.make(deliveries.REGISTRY, path)
    yield from findings
    if IDelivery.providedBy(made):
        policy.sink = made  # whose check() is the policy's to ask
        yield from warnings(made, path)
    elif not findings:
        yield Finding(f"{path}.use", f'"{component.use}" does not provide IDelivery')


def listeners(settings: Settings) -> Iterator[Finding]:
    """The listeners that policies are for, by their names."""
    names = {listener.name: None for listener in settings.listener if listener.name}
    for at, component in enumerate(settings.policy):
        wanted = component.listeners
        if isinstance(wanted, list) and all(isinstance(name, str) for name in wanted):
            yield from unknown(f"policy[{at}].listeners", "listener", wanted, names)


# What a policy may do, what a delivery must be for it, and how a mistake says so.
NEEDS = (
    (IMayHold, IHoldingDelivery, "holds messages"),
    (IMayBlindCopy, IBlindCopyDelivery, "copies messages to an address"),
)


def needs(settings: Settings) -> Iterator[Finding]:
    """Some policies need a delivery that can do what they ask for."""
    delivery, findings = settings.delivery.make(deliveries.REGISTRY, "delivery")
    if findings:
        return
    for at, component in enumerate(settings.policy):
        made, findings = component.make(policies.REGISTRY, f"policy[{at}]")
        for may, must, said in NEEDS:
            if not findings and may.providedBy(made) and not must.providedBy(delivery):
                yield Finding(
                    f"policy[{at}].use",
                    f'"{component.use}" {said}, and the delivery "{settings.delivery.use}"'
                    ' cannot; it needs [delivery] use = "spool"',
                )


def signing(settings: Settings) -> Iterator[Finding]:
    """What is changed behind a signature breaks it."""
    made = [component.make(policies.REGISTRY, "")[0] for component in settings.policy]
    for at, policy in enumerate(made):
        if not ISigning.providedBy(policy):
            continue
        later = [
            behind
            for behind in range(at + 1, len(made))
            if IMessagePolicy.providedBy(made[behind]) and not ISigning.providedBy(made[behind])
            if _meet(settings.policy[at], settings.policy[behind])
        ]
        if later:
            yield Finding(
                f"policy[{at}].use",
                f'"{settings.policy[at].use}" signs, and must stand behind policy[{later[-1]}],'
                f' "{settings.policy[later[-1]].use}", which may change messages',
            )


# What changes the header; a filter in front of it would sign another one.
CHANGE_HEADER = ("message-fixups", "rewrite")


def filters(settings: Settings) -> Iterator[Finding]:
    """A filter sees the header as it is left by the policies in front of it."""
    policy = settings.policy
    for at, component in enumerate(policy):
        later = [
            behind
            for behind in range(at + 1, len(policy))
            if policy[behind].use in CHANGE_HEADER and _meet(component, policy[behind])
        ]
        if component.use == "milter" and later:
            said = (
                f'stands before policy[{later[-1]}], "{policy[later[-1]].use}", which changes the'
            )
            yield Finding(
                f"policy[{at}].use",
                f'"milter" {said} header: a signature of the filter\'s would not fit',
                isWarning=True,
            )


def _meet(one: Component, other: Component) -> bool:
    """Whether two policies are for the same listener."""
    try:
        mine, others = set(one.listeners), set(other.listeners)
    except TypeError:
        return False  # no list of names, which is a finding by itself
    return not mine or not others or not mine.isdisjoint(others)


def delays(settings: Settings) -> Iterator[Finding]:
    """A delay that a stage has no time for would make every delayed command a 451."""
    stage = settings.limits.stage
    for at, component in enumerate(settings.policy):
        made, findings = component.make(policies.REGISTRY, "")
        if findings or not IDelays.providedBy(made):
            continue
        path = f"policy[{at}]"
        try:
            yield from list(_tooLong(made.delays(), stage, path))
        except Exception as error:
            yield unasked(error, path)


def _tooLong(delays: dict[str, float], stage: float, path: str) -> Iterator[Finding]:
    for key, delay in delays.items():
        if 0 < stage <= delay:
            yield Finding(
                f"{path}.{key}",
                f"is {delay:g} s, and limits.stage is {stage:g} s, in which all must be over:"
                f" raise limits.stage above {key}, or lower {key}",
            )
