"""Tests of :mod:`submitd.config`: broken configurations, as files, and good ones."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from twisted.cred import strcred
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from submitd import config, deliveries, policies, typed
from submitd.checkers.dovecot import DovecotChecker
from submitd.checkers.factory import CheckerFactory
from submitd.interfaces import IBearerToken
from submitd.relay.settings import RelaySettings, RouteSettings, TimeoutSettings
from submitd.settings import (
    AuthSettings,
    Component,
    DNSSettings,
    LimitSettings,
    ListenerSettings,
    LogSettings,
    MetricsSettings,
    Settings,
    SMTPSettings,
)
from submitd.tls import TLSSettings

HERE = Path(__file__).parent
DATA = HERE / "data"

GOOD = f"""
hostname = "mail.example.com"

[[listener]]
endpoint = "tcp:587"

[[listener]]
endpoint = "tcp:465:interface=192.0.2.1"
tls = "implicit"

[tls]
certificate = "{DATA}/certificate.pem"
private_key = "key.pem"

[auth]
checkers = ["htpasswd:passwd"]
cache = "90 s"

[limits]
message_size = "10 MB"

[delivery]
use = "maildir"
path = "mail"

[log]
json = "events.json"
"""


# Those of the service itself; the relay's are in the rooms of the relay.
OWN_SECTIONS: dict[str, type] = {
    "listener": ListenerSettings,
    "tls": TLSSettings,
    "auth": AuthSettings,
    "limits": LimitSettings,
    "dns": DNSSettings,
    "smtp": SMTPSettings,
    "log": LogSettings,
    "metrics": MetricsSettings,
}


def checkerFactory(authType: str, **more: Any) -> CheckerFactory:
    """A back end of somebody's."""
    return CheckerFactory(
        authType=authType,
        checker="nowhere:Checker",
        argStringFormat="something",
        authHelp="",
        credentialInterfaces=(),
        **more,
    )


def said(file: Path) -> list[str]:
    """The mistakes in a configuration, without the warnings."""
    try:
        config.load(file)
    except config.ConfigurationError as error:
        mistakes = [finding for finding in error.findings if not finding.isWarning]
        return config.lines(file, mistakes)
    return []


class BadConfigurationTests(SynchronousTestCase):
    """tests/badconfigs: a directory each, with ``submitd.toml`` and what must be ``expected``.

    In ``expected`` the file is called FILE and its directory DIR.  Warnings are left out: whether a
    file can be read by others depends on how the tree was checked out.
    """

    def test_all(self) -> None:
        """Every mistake of every broken configuration is said, in order, and nothing else."""
        directories = sorted(path for path in (HERE / "badconfigs").iterdir() if path.is_dir())
        self.assertGreater(len(directories), 11)
        for directory in directories:
            file = directory / "submitd.toml"
            lines = [
                line.replace(str(file), "FILE").replace(str(directory), "DIR")
                for line in said(file)
            ]
            expected = (directory / "expected").read_text("utf-8").splitlines()
            self.assertEqual(lines, expected, directory.name)

    def test_everyKey(self) -> None:
        """A wrong value of every key of the service is a mistake that names this key."""
        named = {
            re.sub(r'\[\d+\]|"[^"]*"\.', "", line.split(": ")[1])
            for file in (HERE / "badconfigs").glob("*/expected")
            for line in file.read_text("utf-8").splitlines()
        }
        missing = {
            f"{section}.{field.name}"
            for section, kind in OWN_SECTIONS.items()
            for field in attrs.fields(kind)
        } - named
        self.assertEqual(missing, set())

    def test_unreadable(self) -> None:
        """A configuration that is not there is one mistake, not a traceback."""
        file = Path(self.mktemp())
        self.assertEqual(said(file), [f"{file}: cannot be read: No such file or directory"])


class LoadTests(SynchronousTestCase):
    """A good configuration."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = self.directory / "submitd.toml"
        self.file.write_text(GOOD)
        self.put("key.pem", (DATA / "private_key.pem").read_bytes())
        self.put("passwd", (DATA / "passwd").read_bytes())

    def put(self, name: str, content: bytes) -> Path:
        """A file beside the configuration, for its owner alone."""
        path = self.directory / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def warnings(self) -> list[str]:
        """What is unwise in the configuration."""
        return [str(finding) for finding in config.load(self.file).warnings]

    def test_settings(self) -> None:
        """What the file says is what the settings hold, sizes and times with their units."""
        loaded = config.load(self.file)
        self.assertEqual(loaded.warnings, [])
        settings = loaded.settings
        self.assertEqual(settings.hostname, "mail.example.com")
        self.assertEqual([each.tls for each in settings.listener], ["starttls", "implicit"])
        self.assertEqual(settings.auth.cache, 90)
        self.assertEqual(settings.limits, LimitSettings(message_size=typed.Size(10_000_000)))

    def test_relative(self) -> None:
        """Paths are relative to the file, wherever the process was started."""
        settings = config.load(self.file).settings
        here = self.directory.absolute()
        assert settings.tls is not None
        self.assertEqual(settings.tls.private_key, here / "key.pem")
        self.assertEqual(settings.auth.checkers, (f"htpasswd:{here}/passwd",))
        self.assertEqual(settings.log.json, f"{here}/events.json")
        made, findings = settings.delivery.make(
            {"maildir": "submitd.deliveries.maildir:Maildir"}, "delivery"
        )
        self.assertEqual(findings, [])
        self.assertEqual(made.path, here / "mail")

    def test_spoolUnlessNamed(self) -> None:
        """Where no delivery is named it is the durable queue; where that is must be said."""
        settings = Settings(delivery=Component(None, {"path": "/var/spool/submitd"}))
        self.assertEqual(settings.delivery, Component("spool", {"path": "/var/spool/submitd"}))
        self.assertEqual(Settings().delivery, Component("spool"))
        self.assertEqual(Settings(delivery=Component("discard")).delivery.use, "discard")

    def test_othersCanRead(self) -> None:
        """Files with secrets that others can read are named, and the start goes on."""
        (self.directory / "key.pem").chmod(0o644)
        (self.directory / "passwd").chmod(0o644)
        here = self.directory.absolute()
        self.assertEqual(
            self.warnings(),
            [
                f"warning: tls.private_key: {here}/key.pem can be read by others"
                f" (chmod o= {here}/key.pem)",
                f"warning: auth.checkers[0]: {here}/passwd can be read by others"
                f" (chmod o= {here}/passwd)",
            ],
        )

    def test_mark(self) -> None:
        """A byte order mark in front, as editors on Windows put it, is no mistake."""
        self.file.write_text("\ufeff" + GOOD)
        self.assertEqual(self.warnings(), [])

    def test_notOffered(self) -> None:
        """A mechanism that no checker can verify is a warning: it would silently be missing."""
        self.file.write_text(
            GOOD.replace("[auth]", '[auth]\nmechanisms = ["PLAIN", "CRAM-MD5"]\ninsecure = true')
        )
        self.assertEqual(
            self.warnings(),
            [
                "warning: auth.mechanisms[1]: no checker can verify CRAM-MD5; it is not offered",
                "warning: auth.insecure: passwords may travel without TLS",
            ],
        )

    def test_withoutCertificates(self) -> None:
        """So is a login by certificate where nobody is asked for one."""
        (self.directory / "certificates").write_text("a:subject:CN=a\n")
        (self.directory / "certificates").chmod(0o600)
        external = 'mechanisms = ["EXTERNAL"]\ncheckers = ["certificates:certificates"]'
        self.file.write_text(GOOD.replace('checkers = ["htpasswd:passwd"]', external))
        [said] = self.warnings()
        self.assertIn("auth.mechanisms[0]: EXTERNAL is not offered: no client is asked", said)

    def test_cannotVerify(self) -> None:
        """Nor is one offered in vain, where the checkers that take it cannot verify it now."""
        mechanisms = '[auth]\nmechanisms = ["PLAIN", "XOAUTH2"]'
        good = GOOD.replace("[auth]", mechanisms)
        self.patch(DovecotChecker, "warnings", lambda self: [])
        self.patch(DovecotChecker, "cannotVerify", lambda self: {IBearerToken: "no tokens there"})
        self.file.write_text(good.replace("htpasswd:passwd", "dovecot:/run/auth"))
        said = "no checker can verify XOAUTH2; no tokens there; each login is 454"
        self.assertEqual(self.warnings(), [f"warning: auth.mechanisms[1]: {said}"])
        (self.directory / "tokens").write_text(f"alice:{'0' * 64}\n")
        (self.directory / "tokens").chmod(0o600)
        self.file.write_text(
            good.replace('"htpasswd:passwd"', '"dovecot:/run/auth", "tokens:tokens"')
        )
        self.assertEqual(self.warnings(), [])

    def test_cannotSay(self) -> None:
        """A checker with a defect hides nothing else."""
        self.patch(DovecotChecker, "warnings", lambda self: [])
        self.patch(DovecotChecker, "cannotVerify", lambda self: 1 / 0)
        self.file.write_text(GOOD.replace("htpasswd:passwd", "dovecot:/run/auth"))
        with self.assertRaises(config.ConfigurationError) as caught:
            config.load(self.file)
        said = "auth.checkers[0]: cannot be checked: ZeroDivisionError: division by zero"
        self.assertIn(said, str(caught.exception))

    def test_warningsWithMistakes(self) -> None:
        """Where there are mistakes, the warnings come with them."""
        self.file.write_text(GOOD.replace("[auth]", "[auth]\ninsecure = true\nx = 1"))
        (self.directory / "key.pem").chmod(0o644)
        with self.assertRaises(config.ConfigurationError) as caught:
            config.load(self.file)
        self.assertEqual(
            [finding.key for finding in caught.exception.findings], ["auth.x", "tls.private_key"]
        )
        self.assertIn(f"{self.file}: auth.x: unknown key", str(caught.exception))

    def test_anyChecker(self) -> None:
        """A checker of another plug-in keeps its argument, whatever it means there."""
        self.file.write_text(GOOD.replace("htpasswd:passwd", "memory:alice:secret"))
        self.assertEqual(config.load(self.file).settings.auth.checkers, ("memory:alice:secret",))


class SettingsTests(SynchronousTestCase):
    """The settings classes are the reference."""

    def test_help(self) -> None:
        """Every key has its help, for the documentation is made of it."""
        for cls in config.SECTIONS:
            for field in attrs.fields(cls):
                self.assertTrue(field.metadata.get("help"), f"{cls.__name__}.{field.name}")

    def test_logPaths(self) -> None:
        """Standard output and no log at all are no paths."""
        for target in ("", "-"):
            log = attrs.evolve(Settings().log, json=target)
            self.assertEqual(log.anchored(Path("/x")).json, target)

    def test_checkerWithoutArgument(self) -> None:
        """A checker without an argument is left for its own parser to complain about."""
        auth = AuthSettings(checkers=("htpasswd",))
        self.assertEqual(auth.anchored(Path("/x")).checkers, ("htpasswd",))

    def test_checkersWithFiles(self) -> None:
        """Where a back end takes a file is what it says itself, be it ours or somebody's."""
        ownFile = checkerFactory("acme", argumentIsFile=True)
        factories = [*strcred.findCheckerFactories(), ownFile, checkerFactory("vault")]
        self.patch(strcred, "findCheckerFactories", lambda: factories)
        for name, isFile in (
            *((each, True) for each in ("htpasswd", "secrets", "tokens", "file", "acme")),
            *((each, False) for each in ("memory", "vault", "nobody")),
        ):
            auth = AuthSettings(checkers=(f"{name}:a:b", f"{name}:/a:b"))
            relative, absolute = auth.anchored(Path("/x")).checkers
            self.assertEqual(relative, f"{name}:/x/a:b" if isFile else f"{name}:a:b")
            self.assertEqual(absolute, f"{name}:/a:b")


@attrs.frozen
class Picky:
    """A class that does not like its keys."""

    number: int

    def __attrs_post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("the number is negative")


def make(number: int, *, text: str = "") -> tuple[int, str]:
    """A function that makes something."""
    if number < 0:
        raise ValueError("negative")
    return number, text


READY = object()


class ComponentTests(SynchronousTestCase):
    """Policies and deliveries are made of their own keys."""

    def made(self, name: str, **keys: object) -> tuple[object, list[str]]:
        """Make something of this module."""
        component = Component(f"{__name__}:{name}", keys)
        made, findings = component.make({}, "policy[0]")
        return made, [str(finding) for finding in findings]

    def test_attrs(self) -> None:
        """An attrs class has its fields as keys, typed."""
        self.assertEqual(self.made("Picky", number=3), (Picky(3), []))
        self.assertEqual(
            self.made("Picky", number="3"),
            (None, ['policy[0].number: must be a whole number, not "3"']),
        )

    def test_attrsComplains(self) -> None:
        """What the class itself says is wrong is said."""
        self.assertEqual(
            self.made("Picky", number=-1), (None, ["policy[0]: the number is negative"])
        )

    def test_function(self) -> None:
        """Any other callable is called with the keys."""
        self.assertEqual(self.made("make", number=3, text="x"), ((3, "x"), []))

    def test_functionKeys(self) -> None:
        """Keys that it does not take are a mistake."""
        self.assertEqual(
            self.made("make", numbr=3),
            (None, ["policy[0]: missing a required argument: 'number'"]),
        )

    def test_functionFails(self) -> None:
        """What it raises is a mistake, with its type."""
        self.assertEqual(
            self.made("make", number=-1),
            (None, ["policy[0]: cannot be made: ValueError: negative"]),
        )

    def test_object(self) -> None:
        """An object that stands in a module is used as it is, and takes no keys."""
        self.assertEqual(self.made("READY"), (READY, []))
        self.assertEqual(self.made("READY", a=1), (None, ["policy[0]: takes no keys: a"]))


class SampleTests(SynchronousTestCase):
    """etc/submitd.toml: every key, with its default."""

    def setUp(self) -> None:
        text = (HERE.parent / "etc" / "submitd.toml").read_text("utf-8")
        self.sample = tomllib.loads(text)
        # A key that is left at its default has "#" directly before it.
        self.full = tomllib.loads(
            re.sub(r"^#(?=[a-z_]+ = |\[tls|\[\[route)", "", text, flags=re.MULTILINE)
        )

    def sections(self) -> Iterator[tuple[type, dict[str, Any]]]:
        """Each settings class with what the sample says, defaults spelled out."""
        top = {key: value for key, value in self.full.items() if not isinstance(value, dict | list)}
        yield ListenerSettings, self.full["listener"][0]
        yield TLSSettings, self.full["tls"]
        yield AuthSettings, self.full["auth"]
        yield LimitSettings, self.full["limits"]
        yield SMTPSettings, self.full["smtp"]
        yield RelaySettings, self.full["relay"]
        yield TimeoutSettings, self.full["relay"]["timeouts"]
        yield RouteSettings, self.full["route"][0]
        yield LogSettings, self.full["log"]
        yield MetricsSettings, self.full["metrics"]
        yield Settings, {**top, **{key: self.full[key] for key in self.full if key not in top}}

    def test_types(self) -> None:
        """The sample has no mistake that does not come from the machine it is read on."""
        for document in (self.sample, self.full):
            for name, value in document.items():
                kind = typing.get_type_hints(Settings)[name]
                _, findings = typed.structure(value, kind, Path("/etc/submitd"), name)
                self.assertEqual(findings, [])

    def test_everyKey(self) -> None:
        """Every key stands in it, and no other."""
        for cls, section in self.sections():
            self.assertEqual(set(section), {field.name for field in attrs.fields(cls)}, cls)

    def test_defaults(self) -> None:
        """What is said to be the default is the default."""
        for cls, section in self.sections():
            if cls is Settings:
                continue
            made, _ = typed.structure(section, cls, Path("/etc/submitd"), "")
            for field in attrs.fields(cls):
                # What is none, or none at all, by default is shown with a value.
                has = isinstance(field.default, str | bool | int | float | tuple)
                if has and field.name not in ("checkers", "smarthost"):
                    self.assertEqual(getattr(made, field.name), field.default, field.name)

    def test_components(self) -> None:
        """So do the keys of every policy, and of the delivery that it uses."""
        written = {each["use"]: each for each in (*self.full["policy"], self.full["delivery"])}
        self.assertEqual(
            set(written) | set(deliveries.REGISTRY),
            set(policies.REGISTRY) | set(deliveries.REGISTRY),
        )
        for name, keys in written.items():
            cls = namedAny({**policies.REGISTRY, **deliveries.REGISTRY}[name].replace(":", "."))
            known = {field.name for field in attrs.fields(cls) if field.init}
            self.assertEqual(set(keys) - {"use", "listeners"}, known, name)

    def test_components_good(self) -> None:
        """The sample's policies and delivery can be made."""
        for section in (*self.sample["policy"], self.sample["delivery"]):
            component = Component.fromTable(section, Path("/etc/submitd"))
            _, findings = component.make({**policies.REGISTRY, **deliveries.REGISTRY}, "x")
            self.assertEqual(findings, [])
