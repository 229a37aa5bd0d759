"""Tests of what is hidden or disabled: :mod:`submitd.extensions` and the section [smtp]."""

from __future__ import annotations

from twisted.internet.task import Clock

from submitd.extensions import REGISTRY, extensions
from submitd.service import makeService
from submitd.settings import Component, ListenerSettings, Settings, SMTPSettings
from tests.extensions.base import ExtensionTestCase
from tests.fixtures import Conversation, makeSubmission

# What shows that an extension works: what is said, and how the answer begins.
WORKS = {
    "PIPELINING": ("NOOP\r\nNOOP", "250 2.0.0 Ok\n250 2.0.0 Ok"),
    "SIZE": ("MAIL FROM:<a@b.c> SIZE=99999999", "552 5.3.4"),
    "STARTTLS": ("STARTTLS", "220 2.0.0"),
    "ENHANCEDSTATUSCODES": ("NOOP", "250 2.0.0 Ok"),
    "8BITMIME": ("MAIL FROM:<a@b.c> BODY=8BITMIME", "250"),
    "SMTPUTF8": ("MAIL FROM:<\u00e4@b.c> SMTPUTF8", "250"),
    "DSN": ("MAIL FROM:<a@b.c> RET=FULL ENVID=x", "250"),
    "CHUNKING": ("BDAT 6\r\nQUIT", "503 5.5.1"),
    "BINARYMIME": ("MAIL FROM:<a@b.c> BODY=BINARYMIME", "250"),
    "LIMITS": ("NOOP", "250"),
    "FUTURERELEASE": ("MAIL FROM:<a@b.c> HOLDFOR=5", "250"),
    "MT-PRIORITY": ("MAIL FROM:<a@b.c> MT-PRIORITY=-5", "250"),
    "DELIVERBY": ("MAIL FROM:<a@b.c> BY=5;R", "250"),
}
# These two take a login or TLS to be shown.
SECURE = {
    "AUTH": ("AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=", "235"),
    "REQUIRETLS": ("MAIL FROM:<a@b.c> REQUIRETLS", "250"),
}

# What is not offered without a verb of another name.
OFFERS = {"BDAT": "CHUNKING"}


class HiddenTests(ExtensionTestCase):
    """Hidden extensions."""

    def keywords(self) -> set[str]:
        """The keywords EHLO shows."""
        return {line.split(" ")[0] for line in self.ehlo()}

    def test_each(self) -> None:
        """Each extension is shown unless it is hidden, and works either way."""
        for keyword, (said, answer) in WORKS.items():
            for hidden in (frozenset[str](), frozenset({keyword})):
                talk = self.talk(hiddenExtensions=hidden)
                self.assertEqual(keyword in self.keywords(), not hidden, keyword)
                self.assertTrue(talk.say(said).startswith(answer), keyword)

    def test_underTLS(self) -> None:
        """So are those that need TLS."""
        for keyword, (said, answer) in SECURE.items():
            for hidden in (frozenset[str](), frozenset({keyword})):
                talk = self.talk(hiddenExtensions=hidden)
                talk.say("STARTTLS")
                talk.secure()
                self.assertEqual(keyword in self.keywords(), not hidden, keyword)
                self.assertTrue(talk.say(said).startswith(answer), keyword)

    def test_all(self) -> None:
        """This module knows every extension that mail programs use."""
        known = {*WORKS, *SECURE}
        self.assertEqual(set(REGISTRY) - known, {"XCLIENT", "XFORWARD"})
        self.assertEqual([each.keyword for each in extensions()], list(REGISTRY))

    def test_order(self) -> None:
        """EHLO shows them in the order of the registry, whatever it is asked."""
        self.talk()
        shown = [line.split(" ")[0] for line in self.ehlo()]
        self.assertEqual(shown, [keyword for keyword in REGISTRY if keyword in shown])

    def test_settings(self) -> None:
        """The section [smtp] says what is hidden, disabled and said."""
        smtp = SMTPSettings(
            hide=("DSN",), disabled_commands=("VRFY",), hello_text="at your service", max_hold=0.0
        )  # type: ignore[arg-type]
        listener = ListenerSettings(endpoint="tcp:0", tls="off", require_tls=False)
        made = makeService(
            Settings(
                hostname="h.example", listener=(listener,), smtp=smtp, delivery=Component("discard")
            ),
            Clock(),
        )
        submission = next(iter(made)).factory.rules.submission
        self.assertEqual(submission.hiddenExtensions, {"DSN"})
        self.assertEqual(submission.disabledVerbs, {"VRFY"})
        self.assertEqual(submission.helloText, "at your service")
        self.assertEqual((submission.maxHold, submission.minDeliverBy), (0.0, 0))


class DisabledTests(ExtensionTestCase):
    """Disabled verbs."""

    def test_each(self) -> None:
        """Every verb can be disabled: 502, not in HELP, and an extension that has it not shown."""
        verbs = [name.decode() for name in self.talk().factory.rules.verbs if name != b"HELO"]
        for verb in verbs:
            talk = self.talk(disabledVerbs=frozenset({verb}))
            said = talk.say(f"{verb} 0")
            self.assertEqual(said, "502 5.5.1 Command not implemented", verb)
            if verb != "HELP":
                self.assertNotIn(f" {verb}", talk.say("HELP").split("\n")[1])
            if verb != "EHLO":
                shown = {line.split(" ")[0] for line in self.ehlo()}
                self.assertTrue(shown.isdisjoint({verb, OFFERS.get(verb)}), verb)

    def test_unknown(self) -> None:
        """A disabled verb that nobody has is 502 too, and not 500."""
        self.assertTrue(self.talk(disabledVerbs=frozenset({"ETRN"})).say("ETRN").startswith("502"))

    def test_helo(self) -> None:
        """So can HELO."""
        talk = Conversation(makeSubmission(disabledVerbs=frozenset({"HELO"})))
        talk.transport.clear()
        self.assertTrue(talk.say("HELO c").startswith("502"))
