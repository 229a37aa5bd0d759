"""Tests of :mod:`submitd.preflight.policies`."""

from __future__ import annotations

from typing import Any

import attrs
from zope.interface import implementer

from submitd import preflight
from submitd.interfaces import IDelays, IHelloPolicy, IMessagePolicy
from submitd.settings import Component, LimitSettings, ListenerSettings
from submitd.typed import Count, Seconds
from tests.preflight.support import DATA, GOOD, ExamineTestCase


@implementer(IMessagePolicy)
class Changes:
    """A policy that may change messages."""

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
        """Never called."""


@implementer(IHelloPolicy, IDelays)
@attrs.frozen
class Slow:
    """A policy of somebody else's that has clients wait, or that cannot say for how long."""

    tarpit: float = 0.0

    def helloReceived(self, session: Any, domain: str) -> None:
        """Never called."""

    def delays(self) -> dict[str, float]:
        """How long at most."""
        if not self.tarpit:
            raise RuntimeError("who knows")
        return {"tarpit": self.tarpit}


class Wordy(Slow):
    """One that answers something else."""

    def delays(self) -> Any:
        """A text, as in a configuration."""
        return {"tarpit": "5 min"}


class OrderTests(ExamineTestCase):
    """Policies that stand where they must not."""

    def test_filters(self) -> None:
        """A filter may sign: what changes the header behind it is a warning."""
        keys = {"endpoint": "unix:/run/filter.sock", "quarantine": False}
        milter = Component("milter", keys)
        fixups = Component("message-fixups")
        [found] = self.said(policy=(milter, fixups))
        self.assertTrue(found.startswith("warning: policy[0].use: "), found)
        self.assertEqual(self.said(policy=(fixups, milter)), [])
        rewrite = Component("rewrite", {"senders": f"{DATA}/../../etc/senders.example"})
        [found] = self.said(policy=(milter, rewrite))
        self.assertIn('policy[1], "rewrite", which changes the header', found)

    def test_filtersElsewhere(self) -> None:
        """It is none where no listener has both."""
        keys = {"endpoint": "unix:/run/filter.sock", "quarantine": False}
        named = tuple(attrs.evolve(GOOD.listener[0], name=name) for name in ("in", "out"))
        listeners = (attrs.evolve(named[0], endpoint="tcp:1"), named[1])
        milter = Component("milter", keys, listeners=["in"])
        for wanted, count in ((["out"], 0), (["in", "out"], 1), ([], 1)):
            policy = (milter, Component("message-fixups", listeners=wanted))
            self.assertEqual(len(self.said(listener=listeners, policy=policy)), count, wanted)
        for wrong in (3, [[]], None):
            policy = (milter, Component("message-fixups", listeners=wrong))
            said = self.said(listener=listeners, policy=policy)
            self.assertTrue(said and all("policy[1].listeners" in each for each in said), said)

    def test_signing(self) -> None:
        """A policy that signs stands behind those that may change messages."""
        key = {"domain": "example.com", "selector": "s1", "file": self.mktemp()}
        dkim, changes = Component("dkim", {"key": [key]}), Component(f"{__name__}:Changes")
        mistake = f'must stand behind policy[2], "{changes.use}", which may change messages'
        for policies, expected in (
            ((dkim, dkim, changes), [f'policy[{at}].use: "dkim" signs, and ' for at in (0, 1)]),
            ((changes, dkim, dkim), []),
        ):
            found = [each for each in self.said(policy=policies) if "must stand" in each]
            self.assertEqual(found, [f"{each}{mistake}" for each in expected])

    def test_signingByListener(self) -> None:
        """Only where one listener has both."""
        key = {"domain": "example.com", "selector": "s1", "file": self.mktemp()}
        listeners = tuple(
            ListenerSettings(name=name, endpoint=f"tcp:{port}", tls="off", require_tls=False)
            for name, port in (("a", 587), ("b", 588))
        )
        for one, other, isMistake in (
            (["a"], ["b"], False),
            (["a"], ["b", "a"], True),
            ([], ["b"], True),
            (["a"], [], True),
        ):
            dkim = Component("dkim", {"key": [key]}, listeners=one)
            changes = Component(f"{__name__}:Changes", listeners=other)
            said = " ".join(self.said(listener=listeners, policy=(dkim, changes)))
            self.assertEqual("must stand behind policy[1]" in said, isMistake, (one, other))


class DelayTests(ExamineTestCase):
    """Policies that have clients wait."""

    def test_delays(self) -> None:
        """A stage in which the longest delay of a login is not over would be 451 each time."""
        throttle = Component("login-throttle", {})
        short = Component("login-throttle", {"max_delay": "1 s"})
        none = Component("login-throttle", {"delay": 0})
        for stage, expected in ((2.0, [1]), (15.0, [1]), (16.0, []), (0.0, [])):
            found = preflight.examine(
                attrs.evolve(
                    GOOD,
                    policy=(short, throttle, none),
                    limits=LimitSettings(stage=Seconds(stage), connections=Count(10)),
                )
            )
            self.assertEqual(
                [(each.key, each.isWarning) for each in found],
                [(f"policy[{at}].max_delay", False) for at in expected],
            )
            for each in found:
                said = f"is 15 s, and limits.stage is {stage:g} s, "
                self.assertEqual(each.sentence[: len(said)], said)

    def test_ownDelays(self) -> None:
        """A policy of somebody else's says itself how long it has clients wait."""
        slow, vague = (Component(f"{__name__}:Slow", {"tarpit": each}) for each in (61.0, 0.0))
        said = self.said(policy=(slow, vague, Component(f"{__name__}:Wordy")))
        found = [each for each in said if each.startswith("policy")]
        self.assertEqual(
            found[:2],
            [
                "policy[0].tarpit: is 61 s, and limits.stage is 60 s, in which all must be over:"
                " raise limits.stage above tarpit, or lower tarpit",
                "policy[1]: cannot be checked: RuntimeError: who knows",
            ],
        )
        [wordy] = found[2:]
        self.assertTrue(wordy.startswith("policy[2]: cannot be checked: TypeError: "))
