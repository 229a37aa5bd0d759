"""Golden dialogues: each file in tests/dialogues/ is a conversation that must come out as written.

A file has one step a line; ``#`` begins a comment.

- ``set: key=value ...`` changes a setting of the submission (first lines only): ``login=no``,
  ``tls=no``, ``implicit=yes``, ``lmtp=yes``, ``size=N``, ``recipients=N``, ``users=no`` and so on;
  see :data:`SETTINGS`.
- ``policy: use = "..."`` a policy with its keys, as in the configuration; paths are in tests/data/.
- ``C: text`` the client sends a line; ``C> text`` sends octets with Python's escapes and no CRLF.
- ``S: text`` the server says this line; ``*`` stands for anything.
- ``TLS`` the handshake that was started is finished.
- ``M: text`` the last message kept has this line next; ``N: number`` so many messages were kept.
- ``WAIT number`` so many seconds go by.
- ``CLOSED`` the server has closed the connection.

Every dialogue runs three times: turn by turn, octet by octet, and with each run of client lines in
one segment.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from submitd import policies
from submitd.checkers.trusted import TrustedProxy
from submitd.interfaces import IRunning
from submitd.refusals import RefusalIds
from submitd.settings import Component
from submitd.submission import Limits
from submitd.wire.network import Networks
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


def trustedLogin(settings: Settings, value: str) -> None:
    settings["portal"] = makePortal()
    settings["portal"].registerChecker(TrustedProxy())
    settings["xclientLogin"] = True


def outcomes(settings: Settings, value: str) -> None:
    """A delivery that has an outcome of its own for each recipient."""
    replies = [Reply(int(code), f"{code[0]}.0.0", "outcome") for code in value.split(",")]

    def end(message: MemoryMessage) -> list[Reply]:
        message.delivery.messages.append(message)
        return replies[: len(message.envelope.recipients)]

    settings["delivery"] = MemoryDelivery(onEnd=end)


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
    "users": portal,
    "user": user,
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
    "ids": ids,
}


def steps(path: Path) -> Iterator[tuple[int, str, str]]:
    """The steps of a file: line number, kind, text."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            match = re.fullmatch(r"(set:|policy:|C:|C>|S:|M:|N:|TLS|WAIT|CLOSED) ?(.*)", line)
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
        self.conversation: Conversation | None = None
        self.clock = ThreadClock()

    def run(self) -> None:
        for number, kind, text in steps(self.path):
            where = f"{self.path.name}:{number} ({self.how})"
            try:
                self.step(kind, text)
            except self.test.failureException as error:
                raise self.test.failureException(f"{where}: {error}") from None
        self.hear()
        self.test.assertEqual(self.heard, [], f"{self.path.name}: said more than was expected")

    def step(self, kind: str, text: str) -> None:
        if kind == "set:":
            self.change(text)
        elif kind == "policy:":
            self.add(text)
        elif kind == "C:":
            self.send(text.encode("utf-8") + b"\r\n")
        elif kind == "C>":
            self.send(text.encode("latin-1").decode("unicode_escape").encode("latin-1"))
        else:
            self.deliver()
            {
                "S:": self.expect,
                "M:": self.expectText,
                "N:": self.expectCount,
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
        table = tomllib.loads(f"policy = {{ {text} }}")["policy"]
        made, findings = Component.fromTable(table, DATA).make(policies.REGISTRY, "policy")
        self.test.assertEqual(findings, [])
        self.settings.setdefault("policies", []).append(made)

    @property
    def talk(self) -> Conversation:
        if self.conversation is None:
            submission = makeSubmission(self.clock, **self.settings)
            for policy in submission.policies:
                if IRunning.providedBy(policy):
                    policy.start(self.clock)
            self.conversation = Conversation(submission, self.implicit)
        return self.conversation

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


for _path in sorted(DIALOGUES.glob("*.smtp")):
    for _how in ("line by line", "octets", "together"):
        _name = f"test_{_path.stem}_{_how.replace(' ', '_')}"
        setattr(GoldenDialogueTests, _name, _case(_path, _how))
