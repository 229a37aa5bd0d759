"""Golden dialogues: each file in tests/dialogues/ is a conversation that must come out as written.

A file has one step a line; ``#`` begins a comment.

- ``set: key=value ...`` changes a setting of the submission (first lines only): ``login=no``,
  ``tls=no``, ``implicit=yes``, ``lmtp=yes``, ``size=N``, ``recipients=N``, ``users=no`` and so on;
  see :data:`SETTINGS`.
- ``policy: use = "..."`` a policy with its keys, as in the configuration; paths are in tests/data/,
  ``TEMPORARY`` is an empty directory.
- ``C: text`` the client sends a line; ``C> text`` sends octets with Python's escapes and no CRLF.
- ``C*: number text`` the client sends a line so many times.
- ``CONNECT`` another client connects, and speaks from now on; ``BACK`` the one before it does.
- ``S: text`` the server says this line; ``*`` stands for anything.
- ``TLS`` the handshake that was started is finished.
- ``M: text`` the last message kept has this line next; ``N: number`` so many messages were kept;
  ``H: text`` the last one is held for this reason.
- ``WAIT number`` so many seconds go by.
- ``CLOSED`` the server has closed the connection.

Every dialogue runs three times: turn by turn, octet by octet, and with each run of client lines in
one segment.
"""

from __future__ import annotations

import fnmatch
import importlib
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from twisted.cred.portal import Portal
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from submitd import policies
from submitd.checkers.jwt import JWTChecker
from submitd.checkers.tokens import TokensChecker
from submitd.checkers.trusted import TrustedProxy
from submitd.interfaces import IHoldingDelivery, IRunning
from submitd.realm import SubmissionRealm
from submitd.refusals import RefusalIds
from submitd.sasl import mechanism
from submitd.settings import Component
from submitd.submission import Limits
from submitd.wire.network import NetworkLogins, Networks
from submitd.wire.reply import Reply
from tests.fixtures import (
    Conversation,
    MemoryDelivery,
    MemoryMessage,
    ThreadClock,
    makePortal,
    makeSubmission,
)

DIALOGUES = Path(__file__).with_name("dialogues")
DATA = Path(__file__).with_name("data")

Settings = dict[str, Any]


def limit(name: str) -> Callable[[Settings, str], None]:
    """A setting that is a limit."""

    def apply(settings: Settings, value: str) -> None:
        settings["limits"] = attrs.evolve(settings.get("limits", Limits()), **{name: int(value)})

    return apply


def flag(name: str) -> Callable[[Settings, str], None]:
    """A setting that is yes or no."""

    def apply(settings: Settings, value: str) -> None:
        settings[name] = {"yes": True, "no": False}[value]

    return apply


def words(name: str) -> Callable[[Settings, str], None]:
    """A setting that is a set of words."""

    def apply(settings: Settings, value: str) -> None:
        settings[name] = frozenset(value.split(","))

    return apply


def portal(settings: Settings, value: str) -> None:
    settings["portal"] = None


def networks(name: str) -> Callable[[Settings, str], None]:
    """A setting that is a list of networks."""

    def apply(settings: Settings, value: str) -> None:
        settings[name] = Networks.parse(value.split(","))

    return apply


def user(settings: Settings, value: str) -> None:
    settings["portal"] = makePortal(**{value: "wonderland"})


def tokens(settings: Settings, value: str) -> None:
    """Logins by token: the file says whose each is."""
    checker = TokensChecker(str(DATA / value))
    settings["portal"] = Portal(SubmissionRealm(), [checker])
    settings["mechanisms"] = [mechanism("XOAUTH2"), mechanism("OAUTHBEARER")]


def jwt(settings: Settings, value: str) -> None:
    """Logins by signed token, on a day of January 2027: the file says whose are taken."""
    checker = JWTChecker(str(DATA / value), seconds=lambda: 1_800_000_000.0)
    checker.start(Clock())
    settings["portal"] = Portal(SubmissionRealm(), [checker])
    settings["mechanisms"] = [mechanism("XOAUTH2"), mechanism("OAUTHBEARER")]


def trustedLogin(settings: Settings, value: str) -> None:
    settings["portal"] = makePortal()
    settings["portal"].registerChecker(TrustedProxy())
    settings["xclientLogin"] = True


def byAddress(settings: Settings, value: str) -> None:
    """Networks with their logins, such as ``192.0.2.0/24=printers``."""
    settings["portal"] = makePortal()
    settings["portal"].registerChecker(TrustedProxy())
    settings["loginByAddress"] = NetworkLogins.parse(
        dict(each.split("=") for each in value.split(","))
    )


def outcomes(settings: Settings, value: str) -> None:
    """A delivery that has an outcome of its own for each recipient."""
    replies = [Reply(int(code), f"{code[0]}.0.0", "outcome") for code in value.split(",")]

    def end(message: MemoryMessage) -> list[Reply]:
        message.delivery.messages.append(message)
        return replies[: len(message.envelope.recipients)]

    settings["delivery"] = MemoryDelivery(onEnd=end)


def holds(settings: Settings, value: str) -> None:
    """A delivery that can hold messages."""
    delivery = MemoryDelivery()
    directlyProvides(delivery, IHoldingDelivery)
    settings["delivery"] = delivery


def ids(settings: Settings, value: str) -> None:
    """Ids that can be foretold: AAAAAAAB is the first one."""
    settings["refusalIds"] = RefusalIds(lambda count: bytes(count))


SETTINGS: dict[str, Callable[[Settings, str], None]] = {
    "login": flag("loginRequired"),
    "tls": flag("requireTLS"),
    "starttls": flag("startTLS"),
    "insecure": flag("insecureLogin"),
    "lmtp": flag("lmtp"),
    "outcomes": outcomes,
    "holds": holds,
    "users": portal,
    "user": user,
    "tokens": tokens,
    "jwt": jwt,
    "size": limit("messageSize"),
    "header": limit("headerSize"),
    "recipients": limit("recipients"),
    "transactions": limit("transactions"),
    "unrecognized": limit("unrecognized"),
    "refusals": limit("refusals"),
    "before_login": limit("commandsBeforeLogin"),
    "failures": limit("loginFailures"),
    "hide": words("hiddenExtensions"),
    "disable": words("disabledVerbs"),
    "xclient": networks("xclientFrom"),
    "xclient_login": trustedLogin,
    "xforward": networks("xforwardFrom"),
    "by_address": byAddress,
    "ids": ids,
}


_STEP = r"(set:|policy:|C:|C>|C\*:|CONNECT|BACK|S:|M:|N:|H:|TLS|WAIT|CLOSED) ?(.*)"


def steps(path: Path) -> Iterator[tuple[int, str, str]]:
    """The steps of a file: line number, kind, text."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            match = re.fullmatch(_STEP, line)
            assert match, f"{path.name}:{number}: not a step: {line}"
            yield number, match[1], match[2]


class Run:
    """One run of a dialogue."""

    def __init__(self, test: SynchronousTestCase, path: Path, how: str) -> None:
        self.test = test
        self.path = path
        self.how = how
        self.settings: Settings = {}
        self.implicit = False
        self.pending = b""
        self.heard: list[str] = []
        self.messageLines: list[str] | None = None
        self.conversations: list[Conversation] = []
        self.clock = ThreadClock()

    def run(self) -> None:
        for number, kind, text in steps(self.path):
            where = f"{self.path.name}:{number} ({self.how})"
            try:
                self.step(kind, text)
            except self.test.failureException as error:
                raise self.test.failureException(f"{where}: {error}") from None
        self.hear()
        self.expectNothing()

    def step(self, kind: str, text: str) -> None:
        if kind == "set:":
            self.change(text)
        elif kind == "policy:":
            self.add(text)
        elif kind == "C:":
            self.send(text.encode("utf-8") + b"\r\n")
        elif kind == "C>":
            self.send(text.encode("latin-1").decode("unicode_escape").encode("latin-1"))
        elif kind == "C*:":
            times, _, line = text.partition(" ")
            self.send((line.encode("utf-8") + b"\r\n") * int(times))
        else:
            self.deliver()
            {
                "S:": self.expect,
                "M:": self.expectText,
                "N:": self.expectCount,
                "H:": self.expectHold,
                "CONNECT": self.connect,
                "BACK": self.goBack,
                "TLS": self.secure,
                "WAIT": self.wait,
                "CLOSED": self.expectClosed,
            }[kind](text)

    def change(self, text: str) -> None:
        for word in text.split():
            key, _, value = word.partition("=")
            if key == "implicit":
                self.implicit = True
            else:
                SETTINGS[key](self.settings, value)

    def add(self, text: str) -> None:
        if "TEMPORARY" in text:
            directory = Path(self.test.mktemp())
            directory.mkdir()
            text = text.replace("TEMPORARY", str(directory.absolute()))
        table = tomllib.loads(f"policy = {{ {text} }}")["policy"]
        made, findings = Component.fromTable(table, DATA).make(policies.REGISTRY, "policy")
        self.test.assertEqual(findings, [])
        self.settings.setdefault("policies", []).append(made)

    @property
    def talk(self) -> Conversation:
        if not self.conversations:
            submission = makeSubmission(self.clock, **self.settings)
            for policy in submission.policies:
                if IRunning.providedBy(policy):
                    policy.start(self.clock)
            self.conversations.append(Conversation(submission, self.implicit))
        return self.conversations[-1]

    def connect(self, text: str) -> None:
        self.hear()
        self.expectNothing()
        self.conversations.append(Conversation(self.talk.submission, self.implicit))

    def goBack(self, text: str) -> None:
        self.hear()
        self.expectNothing()
        self.conversations.pop().lose()

    def expectNothing(self) -> None:
        self.test.assertEqual(self.heard, [], f"{self.path.name}: said more than was expected")

    def send(self, data: bytes) -> None:
        if self.how == "together":
            self.pending += data
        elif self.how == "octets":
            for at in range(len(data)):
                self.talk.protocol.dataReceived(data[at : at + 1])
        else:
            self.talk.protocol.dataReceived(data)

    def deliver(self) -> None:
        data, self.pending = self.pending, b""
        if data:
            self.talk.protocol.dataReceived(data)

    def hear(self) -> None:
        self.heard += self.talk.transport.taken().decode("ascii").split("\r\n")[:-1]

    def expect(self, text: str) -> None:
        self.hear()
        said = self.heard.pop(0) if self.heard else "(nothing)"
        pattern = text.replace("[", "[[]")
        self.test.assertTrue(
            fnmatch.fnmatchcase(said, pattern), f"{text!r} is not what {said!r} is"
        )

    @property
    def delivery(self) -> MemoryDelivery:
        delivery = self.talk.submission.delivery
        assert isinstance(delivery, MemoryDelivery)
        return delivery

    def expectText(self, text: str) -> None:
        if self.messageLines is None:
            kept = self.delivery.messages[-1].text.decode("utf-8", "surrogateescape")
            self.messageLines = kept.split("\r\n")[:-1]
        self.test.assertTrue(self.messageLines, f"the message ends before {text!r}")
        self.test.assertEqual(self.messageLines.pop(0), text)

    def expectCount(self, text: str) -> None:
        self.messageLines = None
        self.test.assertEqual(len(self.delivery.messages), int(text))
        unfinished = [message for message in self.delivery.begun if message.state == "open"]
        self.test.assertEqual(unfinished, [], "a message was neither committed nor aborted")

    def expectHold(self, text: str) -> None:
        self.test.assertEqual(self.delivery.messages[-1].envelope.hold, text)

    def secure(self, text: str) -> None:
        self.test.assertEqual(self.talk.transport.startedTLS, 1)
        self.talk.secure()

    def wait(self, text: str) -> None:
        self.clock.advance(float(text))

    def expectClosed(self, text: str) -> None:
        self.test.assertTrue(self.talk.transport.disconnecting, "the connection is still open")


def _case(path: Path, how: str) -> Callable[[SynchronousTestCase], None]:
    def test(self: SynchronousTestCase) -> None:
        Run(self, path, how).run()

    test.__doc__ = f"{path.name} comes out as written, sent {how}."
    return test


class GoldenDialogueTests(SynchronousTestCase):
    """One test per file and per way of cutting what the client sends."""

    def test_number(self) -> None:
        """The directory has not been emptied by accident."""
        self.assertGreaterEqual(len(list(DIALOGUES.glob("*.smtp"))), 25)


# Whose refusals stand in which modules.
REFUSING = {
    "brake": ("brake",),
    "delegation": ("delegation", "policyserver"),
    "dkim": ("dkim",),
    "archive": ("archive",),
    "login-throttle": ("loginthrottle",),
    "message-fixups": ("fixups",),
    "milter": ("milter", "milterchanges", "milterclient", "miltertalk"),
    "rate-limit": ("ratelimit",),
    "recipients": ("recipients",),
    "require-tls": ("requiretls",),
    "rewrite": ("rewrite", "newaddresses"),
    "sender-owner": ("senderowner", "ownersquery"),
}
SHARED = {"addresses", "holding", "logins", "rights", "webhook"}
# Policies of these tests, and which they stand for.
STAND_INS = {
    "tests.policies.databases:ownersAway": "sender-owner",
    "tests.policies.filters:scripted": "milter",
    "tests.policies.policyservers:Answering": "delegation",
}
# Refusals that are put together as they are needed.
COMPOSED = {
    "brake": ("451 4.3.0 ",),
    "archive": ("451 4.3.0 Temporary",),
    "delegation": ("450 ", "421 ", "550 ", "554 "),
    "login-throttle": ("421 4.7.0 Too many failed logins; try again after ", "454 4.7.0 "),
    "message-fixups": ("550 5.6.0 Header field ", "550 5.6.0 A line of the header is malformed"),
    "milter": ("451 4.3.0 ",),
    "rate-limit": (
        "450 4.7.1 Too many messages: ",
        "452 4.5.3 Too many recipients: ",
        "451 4.3.0 ",
    ),
    "rewrite": (
        *("451 4.3.0 ", "501 5.1.7 ", "501 5.1.3 ", "553 5.6.7 "),
        "550 5.6.0 From cannot be rewritten: ",
    ),
    "sender-owner": ("550 5.6.0 From is malformed: ", "550 5.6.0 Sender is malformed: "),
}


class EveryRefusalTests(SynchronousTestCase):
    """Whatever a policy refuses with stands in a dialogue with that policy."""

    def test_modules(self) -> None:
        """No module of a policy has been left out here."""
        known = {each for modules in REFUSING.values() for each in modules} | SHARED
        found = {each.stem for each in Path(policies.__file__).parent.glob("[!_]*.py")}
        self.assertEqual(found, known)
        self.assertEqual(set(REFUSING), set(policies.REGISTRY))

    def test_replies(self) -> None:
        """Each reply that is a name of a policy's module is given in one of its dialogues."""
        given = self.given()
        for policy, modules in REFUSING.items():
            for module in modules:
                names = vars(importlib.import_module(f"submitd.policies.{module}"))
                for reply in names.values():
                    if isinstance(reply, Reply) and reply.code >= 400:
                        first = f"{reply.code} {reply.status} {reply.lines[0]}"
                        self.assertTrue(
                            any(fnmatch.fnmatchcase(first, each) for each in given[policy]),
                            f"{policy} is never seen to say {first}",
                        )

    def test_composed(self) -> None:
        """So is each that is put together."""
        given = self.given()
        for policy, beginnings in COMPOSED.items():
            for beginning in beginnings:
                self.assertTrue(
                    any(each.startswith(beginning) for each in given[policy]),
                    f"{policy} is never seen to say {beginning}...",
                )

    def given(self) -> dict[str, set[str]]:
        """Policy -> what the server says where it takes part, as the dialogues write it."""
        found: dict[str, set[str]] = {policy: set() for policy in REFUSING}
        for path in DIALOGUES.glob("*.smtp"):
            read = list(steps(path))
            said = {text for _, kind, text in read if kind == "S:" and text[:1] in ("4", "5")}
            for _, kind, text in read:
                if kind == "policy:":
                    use = tomllib.loads(f"policy = {{ {text} }}")["policy"]["use"]
                    use = STAND_INS.get(use, use)
                    if use in found:
                        found[use] |= said
        return found


for _path in sorted(DIALOGUES.glob("*.smtp")):
    for _how in ("line by line", "octets", "together"):
        _name = f"test_{_path.stem}_{_how.replace(' ', '_')}"
        setattr(GoldenDialogueTests, _name, _case(_path, _how))
