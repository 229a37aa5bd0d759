"""Tests of README.rst and docs/: what the pages say is so, and their examples run."""

from __future__ import annotations

import importlib
import re
import smtplib
import ssl
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.cred.strcred import ICheckerFactory
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

from submitd import deliveries, extensions, interfaces, policies, sasl, service
from submitd.config import SECTIONS
from submitd.deliveries.discard import Discard
from submitd.demo import USER, Demo
from submitd.envelope import Envelope
from submitd.realm import SubmissionRealm
from submitd.sasl.credentials import UsernamePassword
from submitd.settings import Component, ListenerSettings, Settings
from submitd.tls import ServerTLS, TLSSettings
from submitd.wire.address import Mailbox, ReversePath
from submitd.wire.errors import Refused
from tests import running
from tests.fixtures import Conversation, makeSubmission
from twisted.plugins import submitd_cred

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
DATA = ROOT / "tests" / "data"
# In the order of docs/extending.rst.
REGISTRIES = {
    "policy": list(policies.REGISTRY),
    "delivery": list(deliveries.REGISTRY),
    "checker": [
        each.authType for each in vars(submitd_cred).values() if ICheckerFactory.providedBy(each)
    ],
    "mechanism": list(sasl.REGISTRY),
    "extension": list(extensions.REGISTRY),
}


def page(name: str) -> str:
    """The source of a page."""
    return (ROOT / name).read_text("utf-8")


def sources() -> Iterator[tuple[Path, str]]:
    """Every module of the project that is not a test."""
    for folder in ("submitd", "twisted"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, path.read_text("utf-8")


def blocks(text: str) -> list[str]:
    """The literal blocks of a page."""
    found = re.findall(r"::\n\n((?:    .*\n|\n)+)", text)
    return ["\n".join(line[4:] for line in block.splitlines()).strip() for block in found]


class BuildTests(SynchronousTestCase):
    """Sphinx makes the pages."""

    if find_spec("sphinx") is None:
        skip = "sphinx is not installed; it comes with the extra dev"

    def build(self, builder: str) -> Path:
        """Build all pages; a warning is an error."""
        made = Path(self.mktemp())
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", "-qWb", builder, "-d", self.mktemp(), DOCS, made],
            env=running.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return made

    def test_html(self) -> None:
        """The pages build without a warning, and the configuration has every key, with its help."""
        made = self.build("html")
        written = re.sub("<[^>]*>", "", (made / "configuration.html").read_text("utf-8"))
        for section in SECTIONS:
            for field in attrs.fields(section):
                self.assertIn(field.name, written)
        for name in (*policies.REGISTRY, *deliveries.REGISTRY):
            self.assertIn(f"use = &quot;{name}&quot;", written)
        self.assertIn("message_size (size; default &quot;25 MiB&quot;)", written)
        self.assertIn("IMessagePolicy", (made / "interfaces.html").read_text("utf-8"))

    def test_man(self) -> None:
        """There is a page for each program and one for the configuration, with what they take."""
        made = self.build("man")
        pages = {each.name: each.read_text("utf-8") for each in made.glob("*.[1-8]")}
        tools = ("dkim", "passwd", "policy", "queue", "why")
        expected = {"submitd.8", "submitd.toml.5", *(f"submitd-{tool}.1" for tool in tools)}
        self.assertEqual(set(pages), expected)
        for name, words in (
            ("submitd.8", ("demo\\-ports", "check", "json\\-log")),
            ("submitd-passwd.1", ("stdin", "scheme", "tokens")),
            ("submitd-why.1", ("config", "log", "json")),
            ("submitd-policy.1", ("session", "client\\-address", "listener", "no\\-tls")),
            ("submitd.toml.5", ("message_size", "sender\\-owner")),
        ):
            for word in words:
                self.assertIn(word, pages[name])


class ReadmeTests(SynchronousTestCase):
    """README.rst against the code."""

    def test_commands(self) -> None:
        """Both commands are one line each, and make knows what they ask for."""
        given = [block for block in blocks(page("README.rst")) if block.startswith("git clone URL")]
        self.assertEqual(
            given,
            [f"git clone URL submitd && cd submitd && make {word}" for word in ("run", "test")],
        )
        for target in ("run", "test"):
            self.assertRegex(page("Makefile"), f"(?m)^{target}:")

    def test_demo(self) -> None:
        """What it shows of the demonstration is what the demonstration prints."""
        demo = Demo(
            state=Path("STATE"), ports=(2587, 2465), password="PASSWORD", settings=Settings()
        )
        table, _, paste = demo.words().partition("Send a message with any of these:\n\n")
        shown = blocks(page("README.rst"))
        lines = [line.strip() for line in table.strip().splitlines()[2:]]
        self.assertIn("\n".join(lines), shown)
        for pasted in paste.strip().split("\n\n"):
            self.assertIn(pasted, shown)
        self.assertIn(f"a user ``{USER}``", page("README.rst"))

    def test_configuration(self) -> None:
        """The configuration of the tour has no mistake but the files that are not there yet."""
        [text] = [
            block.partition("<<'END'\n")[2].partition("\nEND")[0]
            for block in blocks(page("README.rst"))
            if "submitd.toml <<" in block
        ]
        directory = Path(self.mktemp())
        directory.mkdir()
        for name in ("certificate", "key"):
            data = (DATA / f"{name.replace('key', 'private_key')}.pem").read_bytes()
            (directory / f"{name}.pem").write_bytes(data)
        (directory / "passwd").write_bytes((DATA / "passwd").read_bytes())
        (directory / "submitd.toml").write_text(text)
        done = running.run("--config", "submitd.toml", "--check", cwd=directory)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_links(self) -> None:
        """Every link to a file leads to one."""
        for name in re.findall(r"<([\w./-]+)>`_", page("README.rst")):
            self.assertTrue((ROOT / name).is_file(), name)


class ReferenceTests(SynchronousTestCase):
    """Pages and samples against the code."""

    def test_extending(self) -> None:
        """Every registry entry stands in docs/extending.rst, where its kind is described."""
        listed = re.findall(r"There are: ([^.]+)\.", page("docs/extending.rst"))
        self.assertEqual(len(listed), len(REGISTRIES))
        for (kind, names), text in zip(REGISTRIES.items(), listed, strict=True):
            missing = set(names).difference(re.findall("``([^`]+)``", text))
            self.assertEqual(missing, set(), f"{kind} not in extending.rst")

    def test_sample(self) -> None:
        """Every policy, delivery, mechanism and back end stands in etc/submitd.toml."""
        text = page("etc/submitd.toml")
        for kind in ("mechanism", "checker", "policy", "delivery"):
            for name in REGISTRIES[kind]:
                self.assertRegex(text, rf"\b{re.escape(name)}\b")

    def test_sampleKeys(self) -> None:
        """Every key stands in etc/submitd.toml, in its section, with its default."""
        sample = uncommented(page("etc/submitd.toml"))
        for section, kind in sectionsOf(Settings):
            given = tablesOf(sample, section)
            for field in attrs.fields(kind):
                if sectionName(typing.get_type_hints(kind)[field.name]) is None:
                    self.assertTrue(any(field.name in table for table in given), field.name)
            known = {field.name for field in attrs.fields(kind)}
            self.assertEqual([key for table in given for key in table if key not in known], [])

    def test_sampleComponents(self) -> None:
        """Every key of the policies and deliveries that it uses stands there, too."""
        sample = uncommented(page("etc/submitd.toml"))
        tables = [*sample["policy"], sample["delivery"]]
        for table in tables:
            where = {**policies.REGISTRY, **deliveries.REGISTRY}[table["use"]]
            module, _, name = where.partition(":")
            kind = getattr(importlib.import_module(module), name)
            keys = [field.name for field in attrs.fields(kind) if field.init]
            self.assertEqual(sorted(["use", *keys]), sorted(table.keys() - {"listeners"}))
        self.assertLessEqual(set(policies.REGISTRY), {table["use"] for table in tables})

    def test_standards(self) -> None:
        """Every RFC that the code names stands in docs/standards.rst."""
        named = {number for _, text in sources() for number in re.findall(r"RFC (\d+)", text)}
        listed = set(re.findall(r"RFC (\d+)", page("docs/standards.rst")))
        self.assertEqual(named - listed, set(), "not in standards.rst")

    def test_standardsFiles(self) -> None:
        """Every file and every test that docs/standards.rst names is there."""
        for row in re.split(r"\n   \* - ", page("docs/standards.rst"))[1:]:
            _, _, files, tests = re.split(r"\n     - ?", row.partition("\n\n")[0])
            for folder, cell in (("submitd", files), ("tests", tests)):
                for name in re.findall(r"``([^`]+)``", cell):
                    self.assertTrue(list((ROOT / folder).glob(name.rstrip("/"))), name)

    def test_files(self) -> None:
        """Every file of submitd that the other pages name is there."""
        for each in set(DOCS.glob("*.rst")) - {DOCS / "standards.rst"}:
            for name in re.findall(r"``([\w/]+\.py)``", each.read_text("utf-8")):
                folders = (ROOT, ROOT / "submitd", ROOT / "submitd" / "checkers", DOCS, EXAMPLES)
                self.assertTrue(any((folder / name).exists() for folder in folders), (each, name))

    def test_rooms(self) -> None:
        """Every room stands in docs/architecture.rst."""
        text = page("docs/architecture.rst")
        paths = [path.relative_to(ROOT) for path, _ in sources()]
        rooms = {path.parts[1] for path in paths if path.parts[0] == "submitd"} - {"__init__.py"}
        missing = [room for room in sorted(rooms) if f"``{room}" not in text]
        self.assertEqual(missing, [], "not in architecture.rst")

    def test_stages(self) -> None:
        """Every stage interface stands in the table of docs/extending.rst."""
        text = page("docs/extending.rst")
        for name in vars(interfaces):
            if name.endswith("Policy"):
                self.assertIn(f"``{name}``", text)

    def test_firstInterfaces(self) -> None:
        """The page of the interfaces names the first and the last stage; the others are between."""
        found = [each for each in vars(interfaces).values() if isinstance(each, InterfaceClass)]
        own = [each for each in found if each.__module__ == interfaces.__name__]
        stages = interfaces.STAGES
        self.assertEqual(tuple(own[: len(stages)]), stages)
        first, last = stages[0].__name__, stages[-1].__name__
        text = " ".join(page("docs/interfaces.rst").split())
        self.assertIn(f"which are the first, from ``{first}`` to ``{last}``.", text)


def uncommented(text: str) -> dict[str, Any]:
    """What the sample configuration says with its commented keys in force."""
    return tomllib.loads(re.sub(r"(?m)^#(?=[\w\[])", "", text))


def sectionName(kind: Any) -> type | None:
    """The class of the section that a field stands for; ``None`` for a key."""
    inner = [each for each in typing.get_args(kind) if each not in (Ellipsis, type(None))]
    found = inner[0] if len(inner) == 1 else kind
    return found if attrs.has(found) else None


def sectionsOf(kind: type) -> Iterator[tuple[str, type]]:
    """The sections of the configuration with their classes; the top level has no name."""
    yield "", kind
    for name, each in typing.get_type_hints(kind).items():
        found = sectionName(each)
        if found is not None and not issubclass(found, Component):
            yield name, found


def tablesOf(sample: dict[str, Any], section: str) -> list[dict[str, Any]]:
    """All tables of a section."""
    found = sample[section] if section else sample
    return found if isinstance(found, list) else [found]


class Examples(TestCase):
    """The files in docs/examples/ can be imported, and a port can be opened for them."""

    def setUp(self) -> None:
        self.patch(sys, "path", [str(EXAMPLES), *sys.path])
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def example(self, name: str) -> Any:
        """One of them."""
        self.addCleanup(sys.modules.pop, name, None)
        return importlib.import_module(name)

    def start(self, parent: MultiService) -> int:
        """Start a service with one listener; its port."""
        parent.startService()
        self.addCleanup(parent.stopService)
        [submission] = parent
        [listener] = [each for each in submission if isinstance(each, service.ListenerService)]
        return listener.address.port

    def listen(self, **common: Any) -> int:
        """Open a port with these objects."""
        parent = MultiService()
        tls = ServerTLS(
            TLSSettings(certificate=DATA / "certificate.pem", private_key=DATA / "private_key.pem")
        )
        made = service.submissionService(reactor, [listener()], tls, **common)
        made.setServiceParent(parent)
        return self.start(parent)

    def portal(self, realm: Any = None, **users: bytes) -> Portal:
        """A Portal of one's own."""
        checker = InMemoryUsernamePasswordDatabaseDontUse(**users)
        return Portal(realm or SubmissionRealm(), [checker])

    def submit(
        self, port: int, login: str, sender: str, recipients: list[str], options: Sequence[str] = ()
    ) -> Any:
        """Send a message as a mail program does, from a thread."""
        return deferToThread(send, port, login, sender, recipients, options)


def listener(endpoint: str = "") -> ListenerSettings:
    """A listener on a port that the system chooses."""
    return ListenerSettings(endpoint="tcp:0:interface=127.0.0.1")


def send(
    port: int, login: str, sender: str, recipients: list[str], options: Sequence[str] = ()
) -> dict[str, tuple[int, bytes]]:
    """Send ``hello`` over STARTTLS, the certificate verified.

    :return: the refused recipients.
    """
    context = ssl.create_default_context(cafile=str(DATA / "certificate.pem"))
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.starttls(context=context)
        client.login(login, "secret")
        return client.sendmail(sender, recipients, "Subject: hello\r\n\r\nhello\r\n", options)


class EmbeddingTests(Examples):
    """docs/examples/embed.py and docs/examples/twistedmail_realm.py."""

    async def test_embed(self) -> None:
        """Ten lines open a submission port for one's own Portal, policy and delivery."""
        embed = self.example("embed")
        self.patch(embed, "ListenerSettings", listener)
        parent, delivery = MultiService(), embed.TicketDelivery()
        embed.addSubmission(parent, reactor, self.portal(alice=b"secret"), delivery, DATA)
        refused = await self.submit(
            self.start(parent), "alice", "a@example.com", ["tickets@example.org", "b@example.org"]
        )
        self.assertEqual(
            [(to, code) for to, (code, _) in refused.items()], [("b@example.org", 550)]
        )
        [(sender, text)] = delivery.tickets
        self.assertEqual(sender, "<a@example.com>")
        self.assertTrue(text.startswith(b"Received: from "))
        self.assertTrue(text.endswith(b"Subject: hello\r\n\r\nhello\r\n"))

    def test_tenLines(self) -> None:
        """The part that the page shows has ten lines."""
        text = (EXAMPLES / "embed.py").read_text("utf-8")
        shown = text.partition("# Ten lines.\n")[2].partition("    # That is all.")[0]
        self.assertEqual(len(shown.splitlines()), 10)

    def test_interfaces(self) -> None:
        """The objects of the example provide what they promise."""
        embed = self.example("embed")
        delivery = embed.TicketDelivery()
        verifyObject(interfaces.IRecipientPolicy, embed.TicketsOnly())
        verifyObject(interfaces.IDelivery, delivery)
        message = delivery.begin(None, makeEnvelope())
        verifyObject(interfaces.IMessage, message)
        message.dataReceived(b"hello\r\n")
        message.prepend(b"X: y\r\n")
        message.connectionLost()
        self.assertEqual((message.text, delivery.tickets), (b"X: y\r\nhello\r\n", []))

    async def test_twistedmail(self) -> None:
        """A realm written for Twisted's own mail server works unchanged."""
        realm = self.example("twistedmail_realm").FileRealm(self.directory)
        login = "a@example.com"
        port = self.listen(portal=self.portal(realm, **{login: b"secret"}), delivery=Discard())
        await self.submit(port, login, login, ["b@example.org", "c@example.org"])
        for name in ("b", "c"):
            text = (self.directory / name).read_bytes()
            self.assertTrue(text.startswith(b"Received: by tickets.example.com\nSubject: hello\n"))
        refused = await self.assertFailure(
            self.submit(port, login, "x@example.com", ["b@example.org"]),
            smtplib.SMTPSenderRefused,
        )
        self.assertEqual(refused.smtp_code, 550)


def makeEnvelope(sender: str = "a@example.com", **changes: Any) -> Any:
    """An envelope with that sender."""
    localPart, _, domain = sender.partition("@")
    return Envelope("id", ReversePath(Mailbox(localPart, domain)), **changes)


class ExtendingTests(Examples):
    """The examples of docs/extending.rst, one by one."""

    def test_checker(self) -> None:
        """The back end lets its one user in; without the variable, nobody at all."""
        made = self.example("environment").EnvironmentChecker
        checker = made("LOGIN", {"LOGIN": "web:se:cret"})
        self.assertEqual(checker.check(), [])
        good = UsernamePassword(b"web", b"se:cret")
        self.assertEqual(checker.requestAvatarId(good), b"web")
        for name, password in ((b"web", b"x"), (b"x", b"se:cret"), (b"x", b"x")):
            with self.assertRaises(UnauthorizedLogin):
                checker.requestAvatarId(UsernamePassword(name, password))
        for held in ({}, {"LOGIN": "web"}, {"LOGIN": ":x"}):
            empty = made("LOGIN", held)
            self.assertEqual(empty.check(), ["LOGIN does not hold name:password"])
            with self.assertRaises(UnauthorizedLogin):
                empty.requestAvatarId(UsernamePassword(b"", b""))

    def test_mechanism(self) -> None:
        """The mechanism reads a name and a key, and refuses what is none."""
        mechanism = sasl.mechanism("apikey:APIKey")
        self.addCleanup(sys.modules.pop, "apikey")
        verifyObject(interfaces.IMechanism, mechanism)
        exchange = mechanism.server("mail.example.com")
        verifyObject(interfaces.IExchange, exchange)
        self.assertEqual(exchange.respond(None), b"")
        given = exchange.respond(b"printer 2\0change-me")
        self.assertTrue(interfaces.IBearerToken.providedBy(given))
        self.assertEqual((given.username, given.token), (b"printer 2", b"change-me"))
        for wrong in (b"", b"\0k", b"n\0", b"n", b"n\0k\0", b"n\0k k", b"n\n\0k", b"\xff\0k"):
            self.assertEqual(
                self.assertRaises(Refused, exchange.respond, wrong).reply.status, "5.5.2"
            )

    def test_policy(self) -> None:
        """The policy is made of its keys, each checked; an empty list is named beforehand."""
        self.example("recipientdomains")

        def make(**keys: Any) -> Any:
            return Component("recipientdomains:RecipientDomains", keys).make({}, "policy[0]")

        made, findings = make(domains=["Example.com"])
        self.assertEqual((made.check(), findings), ([], []))
        self.assertEqual(make(domains="x")[0], None)
        self.assertEqual(len(make(domains=[])[0].check()), 1)

    async def test_delivery(self) -> None:
        """The delivery keeps whole messages, one behind the other, in the form of an mbox."""
        delivery = self.example("mbox").Mbox(self.directory / "mbox")
        verifyObject(interfaces.IDelivery, delivery)
        for at in range(2):
            message = delivery.begin(None, makeEnvelope())
            verifyObject(interfaces.IMessage, message)
            message.dataReceived(b"Subject: %d\r\n\r\nFrom me\r\n" % at)
            message.prepend(b"X: y\r\n")
            await message.eomReceived()
        dropped = delivery.begin(None, makeEnvelope())
        dropped.dataReceived(b"half of")
        dropped.connectionLost()
        entries = (self.directory / "mbox").read_text().split("From a@example.com ")[1:]
        texts = [entry.partition("\n")[2] for entry in entries]
        self.assertEqual(
            texts, [f"X: y\nSubject: {at}\n\n>From me\n\n" for at in range(2)], entries
        )
        self.assertEqual(len(self.example("mbox").Mbox(Path("/none/x")).check()), 1)

    async def test_deliveryFull(self) -> None:
        """When the disk says no, nothing of the message is left."""
        mbox = self.example("mbox")
        delivery = mbox.Mbox(self.directory / "mbox")
        delivery.append(b"before")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(mbox.os, "fsync", full)
        message = delivery.begin(None, makeEnvelope())
        message.dataReceived(b"hello\r\n")
        await self.assertFailure(message.eomReceived(), OSError)
        self.assertEqual((self.directory / "mbox").read_bytes(), b"before")

    def test_extension(self) -> None:
        """The extension is shown, its parameter is checked, and its policy makes a field of it."""
        xtag = self.example("xtag")
        extension = xtag.XTag()
        verifyObject(interfaces.IExtension, extension)
        submission = makeSubmission(
            extensions=[*extensions.extensions(), extension], policies=[xtag.TagField()]
        )
        talk = Conversation(submission)
        talk.login()
        self.assertIn("250 XTAG", talk.say("EHLO client.example"))
        for wrong in ("XTAG", "XTAG=a_b", "XTAG=" + 65 * "x"):
            self.assertTrue(talk.say(f"MAIL FROM:<a@example.com> {wrong}").startswith("501 5.5.4"))
        for parameter in (" XTAG=news-1", ""):
            talk.say(f"MAIL FROM:<a@example.com>{parameter}", "RCPT TO:<b@example.org>", "DATA")
            self.assertTrue(talk.say("hello", ".").startswith("250"))
        tagged, plain = (message.octets for message in submission.delivery.messages)
        self.assertTrue(tagged.startswith(b"X-Tag: news-1\r\nReceived: "))
        self.assertTrue(plain.startswith(b"Received: "))


CONFIGURATION = """
hostname = "mail.example.com"
[[listener]]
endpoint = "tcp:PORT:interface=127.0.0.1"
[tls]
certificate = "DATA/certificate.pem"
private_key = "DATA/private_key.pem"
[auth]
mechanisms = ["PLAIN", "apikey:APIKey"]
checkers = ["environment:SMTP_LOGIN", "tokens:DIRECTORY/tokens"]
[[policy]]
use = "recipientdomains:RecipientDomains"
domains = ["example.org"]
[delivery]
use = "mbox:Mbox"
path = "DIRECTORY/mbox"
"""


class OutsideTheTreeTests(SynchronousTestCase):
    """A configuration that names the examples, in a process of its own."""

    def test_configured(self) -> None:
        """Mechanism, back end, policy and delivery from elsewhere work when they are named."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        token = "e2186dbdb1bb4193608605e84f33208765b5693b55edd4f730a719a100eeea6f"
        (directory / "tokens").write_text(f"web:{token}\n")
        [port] = running.freePorts(1)
        text = CONFIGURATION.replace("PORT", str(port)).replace("DATA", str(DATA))
        text = text.replace("DIRECTORY", str(directory))
        (directory / "submitd.toml").write_text(text)
        child = running.Process(
            running.twistd("submitd", "--config", "submitd.toml"), directory, self.environment()
        )
        self.addCleanup(child.stop)
        child.waitFor(port)
        refused = send(port, "web", "a@example.com", ["b@example.org", "b@example.net"])
        self.assertEqual(list(refused), ["b@example.net"])
        self.assertIn("\n\nhello\n", (directory / "mbox").read_text())
        self.device(port)

    def device(self, port: int) -> None:
        """Log in with the mechanism from elsewhere, as a device would."""
        context = ssl.create_default_context(cafile=str(DATA / "certificate.pem"))
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.starttls(context=context)
            client.ehlo()
            self.assertEqual(client.esmtp_features["auth"].split(), ["PLAIN", "X-APIKEY"])
            code, _ = client.auth("X-APIKEY", lambda challenge=None: "web\0change-me")
            self.assertEqual(code, 235)

    def environment(self) -> dict[str, str]:
        """An environment in which Python finds a copy of the examples."""
        copy = Path(self.mktemp()).absolute()
        for path in EXAMPLES.rglob("*.py"):
            target = copy / path.relative_to(EXAMPLES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        found = running.environment()
        found["PYTHONPATH"] += f":{copy}"
        found["SMTP_LOGIN"] = "web:secret"
        return found


class PromiseTests(SynchronousTestCase):
    """The pages that name the test of each promise."""

    def test_modules(self) -> None:
        """Each module of tests that is named is there."""
        for page in ("security", "faults"):
            text = (ROOT / "docs" / f"{page}.rst").read_text()
            named = set(re.findall(r"``(tests\.[a-z0-9_.]+)``", text))
            self.assertTrue(named)
            for name in named:
                path = ROOT.joinpath(*name.split("."))
                self.assertTrue(path.is_dir() or path.with_suffix(".py").exists(), name)
