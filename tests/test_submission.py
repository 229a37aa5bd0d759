"""Tests of :mod:`submitd.submission`: what a program gives is what takes part, or it is told."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd import interfaces
from submitd.extensions.extension import Extension
from submitd.interfaces import IRecipientPolicy, IRunning
from submitd.settings import LimitSettings
from submitd.submission import isPolicy
from tests.fixtures import MemoryDelivery, makeSubmission


@implementer(IRecipientPolicy)
class Policy:
    """Takes part in one stage."""

    def validateTo(self, session: Any, envelope: Any, recipient: Any) -> None:
        """Never called."""


class Undeclared:
    """Has the method and the attribute, and says nothing of an interface."""

    begin = validateTo = None


@implementer(IRunning)
class Running:
    """Is started and stopped, and asked nothing."""


class SubmissionTests(SynchronousTestCase):
    """What is no policy or delivery must not be passed over: whom it refuses would be let in."""

    def test_everyStage(self) -> None:
        """A policy of any single stage is one."""
        stages = {each for name, each in vars(interfaces).items() if name.endswith("Policy")}
        observers = {interfaces.ILoginObserver, interfaces.IDisconnectObserver}
        self.assertEqual(set(interfaces.STAGES), stages | observers)

    def test_policy(self) -> None:
        """An object of a class that names its stage is taken."""
        policy = Policy()
        self.assertTrue(isPolicy(policy))
        self.assertEqual(makeSubmission(policies=[policy]).policies, (policy,))

    def test_noPolicy(self) -> None:
        """A class in place of its object, or one without @implementer, is an error that says so."""
        for given in (Policy, Undeclared(), Running(), None):
            error = self.assertRaises(TypeError, makeSubmission, policies=[Policy(), given])
            self.assertIn(f"policies[1], {given!r}, provides no stage interface", str(error))
            self.assertIn("@implementer", str(error))

    def test_noPolicyLater(self) -> None:
        """What is put into a copy is looked at in the same way."""
        self.assertRaises(TypeError, attrs.evolve, makeSubmission(), policies=[Policy])

    def test_generator(self) -> None:
        """Policies that can be gone through only once take part all the same."""
        self.assertEqual(len(makeSubmission(policies=(Policy() for _ in range(2))).policies), 2)

    def test_names(self) -> None:
        """Verbs and extensions may be written as one likes; a string in place of several is none.

        A name that was taken letter by letter would have disabled nothing.
        """
        made = makeSubmission(disabledVerbs=["vrfy"], hiddenExtensions={"Dsn"})
        self.assertEqual((made.disabledVerbs, made.hiddenExtensions), ({"VRFY"}, {"DSN"}))
        for name in ("disabledVerbs", "hiddenExtensions"):
            self.assertRaises(TypeError, makeSubmission, **{name: "VRFY"})

    def test_parts(self) -> None:
        """A mechanism by its name alone is none, nor is the class of an extension."""
        for name, given, said in (
            (
                "mechanisms",
                "PLAIN",
                "'PLAIN', does not provide IMechanism; submitd.sasl.mechanism(",
            ),
            ("extensions", Extension, "does not provide IExtension; give an object"),
        ):
            error = self.assertRaises(TypeError, makeSubmission, **{name: [given]})
            self.assertIn(f"{name}[0], ", str(error))
            self.assertIn(said, str(error))

    def test_limits(self) -> None:
        """The limits of a connection are not those that a configuration has."""
        self.assertRaises(TypeError, makeSubmission, limits=LimitSettings())

    def test_noDelivery(self) -> None:
        """The same for where messages go."""
        for given in (MemoryDelivery, Undeclared(), None):
            error = self.assertRaises(TypeError, makeSubmission, delivery=given)
            self.assertIn(f"delivery, {given!r}, does not provide IDelivery", str(error))
