"""Tests of :mod:`submitd.given`, by what ``submissionService`` says."""

from __future__ import annotations

import socket
from typing import Any

import attrs
from twisted.cred.portal import Portal
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd import service
from submitd.checkers.trusted import TrustedProxy
from submitd.deliveries.discard import Discard
from submitd.extensions.extension import Extension
from submitd.policies.fixups import MessageFixups
from submitd.realm import SubmissionRealm
from submitd.settings import LimitSettings
from submitd.states import State, Verb
from submitd.wire.reply import OK
from tests.fixtures import makePortal
from tests.test_service import DATA, LISTENER, Part, listenersOf


class Own(Extension):
    """An extension with a command, of a program's own."""

    keyword = "XOWN"
    verbs = ((Verb(b"XOWN", frozenset({State.READY}), "XOWN"), lambda dialogue, argument: OK),)


class GivenTests(SynchronousTestCase):
    """What a program gives is held to what a configuration may say, before a port is opened."""

    def make(self, *listeners: Any, **changes: Any) -> service.SubmissionService:
        """A service that everybody may send through, if nothing else is said."""
        usual = {"delivery": Discard(), "loginRequired": False}
        return service.submissionService(Clock(), listeners, **{**usual, **changes})

    def wrong(self, *listeners: Any, error: Any = ValueError, **changes: Any) -> str:
        """What is said to a mistake."""
        return str(self.assertRaises(error, self.make, *listeners, **changes))

    def test_units(self) -> None:
        """Sizes and times may have their unit."""
        limits: Any = {"message_size": "10 MiB", "idle": "5 min", "stage": 10}
        networks: Any = ["127.0.0.1"]
        made = self.make(
            attrs.evolve(LISTENER, proxy_protocol_from=networks), bounds=LimitSettings(**limits)
        )
        [factory] = [each.factory for each in made if isinstance(each, service.ListenerService)]
        limits = factory.rules.submission.limits
        self.assertEqual((limits.messageSize, limits.idle, limits.stage), (10 * 2**20, 300, 10))
        self.assertIn("127.0.0.1", factory.proxies)

    def test_types(self) -> None:
        """A word that is none would have left TLS off, a size in words have cut each message."""
        kind: Any = "implict"
        networks: Any = "10.0.0.0/8"
        listener = attrs.evolve(LISTENER, tls=kind, proxy_protocol_from=networks)
        said = self.wrong(LISTENER, listener)
        self.assertIn('listeners[1].tls: must be "starttls", "implicit" or "off"', said)
        self.assertIn('listeners[1].proxy_protocol_from: must be a list, not "10.0.0.0/8"', said)
        size: Any = "much"
        said = self.wrong(LISTENER, bounds=LimitSettings(message_size=size))
        self.assertIn("bounds.message_size: must be a size", said)

    def test_misplaced(self) -> None:
        """What each listener says for itself would have been overwritten without a word."""
        said = self.wrong(LISTENER, error=TypeError, lmtp=True, requireTLS=False)
        self.assertIn("lmtp, requireTLS: each listener says that for itself", said)

    def test_context(self) -> None:
        """What is no context factory would have failed at each handshake."""
        said = self.wrong(LISTENER, error=TypeError, tls=object())
        self.assertIn("has no getContext()", said)

    def test_certificate(self) -> None:
        """Where there is none, it says which listener wants one, and what to do."""
        said = self.wrong(LISTENER, attrs.evolve(LISTENER, tls="implicit"))
        self.assertIn('listeners[1].tls: is "implicit", and there is no certificate', said)
        self.assertNotIn("listeners[0]", said)

    def test_words(self) -> None:
        """What clients are told can be said to them, and is what was meant."""
        for given, expected in (
            ({"banner": "Grüße"}, "banner: must be printable ASCII"),
            ({"loginRequiredText": "a\nb"}, "loginRequiredText: must be printable ASCII"),
            ({"helloText": "grüßt {client}"}, "helloText: must be printable ASCII"),
            ({"helloText": "%s Nice to meet you, %s"}, "helloText: nothing is filled in for %s"),
            ({"hostname": "mail example"}, "hostname: must be a domain or an address literal"),
            ({"hostname": ""}, "hostname: must be a domain or an address literal"),
        ):
            self.assertIn(expected, self.wrong(LISTENER, **given))
        self.patch(socket, "getfqdn", lambda: "my_machine")
        self.make(LISTENER)

    def test_notThere(self) -> None:
        """A command that is not there would have been disabled, and the one that was meant not."""
        said = self.wrong(LISTENER, hiddenExtensions=["STARTTLS", "DNS"], disabledVerbs=["vfry"])
        self.assertIn('hiddenExtensions[0]: there is no extension "DNS"; did you mean "DSN"?', said)
        self.assertIn('disabledVerbs[0]: there is no command "VFRY"; did you mean "VRFY"?', said)
        self.make(LISTENER, hiddenExtensions=["dsn"], disabledVerbs=["vrfy", "AUTH", "starttls"])
        self.make(LISTENER, extensions=[Own()], hiddenExtensions=["XOWN"], disabledVerbs=["XOWN"])

    def test_nobody(self) -> None:
        """Where nobody could send it is a mistake; where somebody could it is none."""
        closed = attrs.evolve(LISTENER, require_tls=True)
        self.assertIn("listeners[0].require_tls: must be false", self.wrong(closed))
        keys = f"certKey={DATA}/certificate.pem:privateKey={DATA}/private_key.pem"
        self.make(attrs.evolve(closed, endpoint=f"ssl:0:{keys}"))
        for portal in (None, Portal(SubmissionRealm())):
            said = self.wrong(closed, loginRequired=True, portal=portal)
            self.assertIn("require_tls", said)
            self.assertIn("loginRequired: nobody can log in", said)
        said = self.wrong(LISTENER, loginRequired=True, portal=makePortal())
        self.assertIn('listeners[0].tls: is "off", where nobody can log in by PLAIN', said)
        self.make(LISTENER, loginRequired=True, portal=makePortal(), insecureLogin=True)
        trusting = attrs.evolve(LISTENER, xclient_login=True, xclient_from=("127.0.0.1",))
        self.make(trusting, loginRequired=True)
        self.make(loginRequired=True)

    def test_policiesOf(self) -> None:
        """A listener may have policies of its own, which are named and run with the others."""
        calls: list[str] = []
        every, part, fixups = Part(calls), Part(calls), MessageFixups()
        made = self.make(
            LISTENER,
            attrs.evolve(LISTENER, name="inside"),
            hostname="own.example.com",
            policies=[every],
            policiesOf={"inside": [fixups, part]},
        )
        lists = [each.factory.rules.submission.policies for each in listenersOf(made)]
        self.assertEqual(lists, [(every,), (fixups, part)])
        self.assertEqual(fixups.hostname, "own.example.com")
        for each in listenersOf(made):
            each.disownServiceParent()  # no port is opened
        made.startService()
        self.assertEqual(calls, ["start", "start"])
        self.successResultOf(made.stopService())
        said = self.wrong(attrs.evolve(LISTENER, name="inside"), policiesOf={"insid": []})
        self.assertIn('policiesOf: there is no listener "insid"; did you mean "inside"?', said)
        self.wrong(LISTENER, error=TypeError, policiesOf={"": [object()]})

    def test_byAddress(self) -> None:
        """Logins of networks need a Portal that takes them."""
        printers = attrs.evolve(LISTENER, login_by_address={"10.1.2.0/24": "printers"})
        for portal in (None, makePortal()):
            said = self.wrong(printers, loginRequired=True, portal=portal)
            self.assertIn("listeners[0].login_by_address: the portal has no checker", said)
        self.make(printers, loginRequired=True, portal=Portal(SubmissionRealm(), [TrustedProxy()]))
