"""Tests of docs/parity.rst: each row names things that exist and tests that exist."""

from __future__ import annotations

import importlib
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

from submitd import demo, envelope, interfaces, realm, service, session, settings, submission, tls
from submitd.sasl import bearer, credentials
from submitd.settings import Component, Settings
from submitd.wire import errors, reply

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests"
MODULES = (
    interfaces,
    session,
    envelope,
    submission,
    service,
    settings,
    tls,
    realm,
    credentials,
    bearer,
    errors,
    reply,
    demo,
)
# What the documents name.  A row may be worded in any way, but none of these may be lost.
NAMES = re.findall(
    r"\S+",
    """
    secure needsUpgrade name banner lmtp heloResponse authMethods authOptional allowInsecureAuth
    authRequiredMessage hideSTARTTLS hideSize hidePIPELINING hideDSN hideENHANCEDSTATUSCODES
    hideREQUIRETLS hide8BITMIME hideSMTPUTF8 disabledCommands size maxClients socketTimeout
    closeTimeout maxAllowedUnauthenticatedCommands useXClient useXForward useProxy
    disableReverseLookup resolver resolver.reverse key cert ca requestCert rejectUnauthorized
    minVersion maxVersion sniOptions updateSecureContext server.listen(port) server.close()
    onConnect onSecure onAuth onMailFrom onRcptTo onData onClose auth.method auth.validatePassword
    response.user response.message response.responseCode response.data session.id session.secure
    session.servername session.remoteAddress session.tlsOptions session.user session.envelope
    session.clientHostname session.xClient session.xForward envelope.mailFrom envelope.rcptTo
    envelope.bodyType envelope.smtpUtf8 envelope.requireTLS envelope.dsn stream stream.byteLength
    stream.sizeExceeded callback(err) callback(null) responseCode password
""",
)
METHODS = ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "XCLIENT")


@attrs.frozen
class Row:
    """One row of a table."""

    reference: str
    ours: str
    default: str
    test: str

    def words(self, cell: str) -> list[str]:
        """What a cell names."""
        return re.findall(r"``([^`]+)``", getattr(self, cell))


def rows() -> Iterator[Row]:
    """All rows, without the heads."""
    text = (ROOT / "docs" / "parity.rst").read_text("utf-8")
    for table in re.findall(r"\.\. list-table::\n(?:   .*\n|\n)+", text):
        for row in re.split(r"\n   \* - ", table)[2:]:
            cells = [" ".join(cell.split()) for cell in re.split(r"\n     -(?: |(?=\n)|$)", row)]
            yield Row(*cells)


def hasAttribute(found: Any, name: str) -> bool:
    """Whether a class has an attribute, or an interface a method."""
    if isinstance(found, InterfaceClass):
        return name in found.names(all=True)
    if attrs.has(found) and name in {field.name for field in attrs.fields(found)}:
        return True
    if hasattr(found, name):
        return True
    # Set in ``__init__``: the class's own documentation names it.
    return f":param {name}:" in (found.__doc__ or "") or f"self.{name} = " in source(found)


def source(found: Any) -> str:
    """The text of the module in which a class stands."""
    return Path(str(importlib.import_module(found.__module__).__file__)).read_text("utf-8")


def kindOf(section: str) -> Any:
    """The class of a section."""
    hint = typing.get_type_hints(Settings)[section]
    return next(each for each in (hint, *typing.get_args(hint)) if attrs.has(each))


def isSetting(section: str, key: str) -> bool:
    """Whether the configuration has a section, and the key in it."""
    if section not in typing.get_type_hints(Settings):
        return False
    kind = kindOf(section)
    return not key or kind is Component or key in {field.name for field in attrs.fields(kind)}


def exists(name: str) -> bool:
    """Whether what the page names is there: a key, a class, an attribute, an example."""
    matched = re.fullmatch(r"\[\[?(\w+)\]\]?(?: (\w+))?", name)
    if matched is not None:
        return isSetting(matched[1], matched[2] or "")
    if name.startswith("examples/"):
        return (ROOT / "docs" / name).is_file()
    first, _, attribute = name.partition(".")
    if first in ("None", *typing.get_type_hints(Settings)):
        return True
    found = next((getattr(each, first) for each in MODULES if hasattr(each, first)), None)
    return found is not None and (not attribute or hasAttribute(found, attribute))


def isTest(name: str) -> bool:
    """Whether a test is there: a dialogue, a broken configuration, or ``module.Class.method``."""
    if name.startswith(("dialogues/", "badconfigs/")):
        return (TESTS / name).exists()
    module, kind, method = name.rsplit(".", 2)
    case = getattr(importlib.import_module(f"tests.{module}"), kind, None)
    return method.startswith("test_") and callable(getattr(case, method, None))


class ParityTests(SynchronousTestCase):
    """The page against the code."""

    def test_complete(self) -> None:
        """Nothing that the documents name is missing, and there are no rows without a test."""
        found = list(rows())
        named = {word for row in found for word in row.words("reference")}
        self.assertEqual(set(NAMES) - named, set())
        references = " ".join(row.reference for row in found)
        for method in METHODS:
            self.assertIn(method, references)
        for row in found:
            self.assertTrue(row.words("ours") and row.words("test"), row)
            self.assertNotRegex(f"{row.ours} {row.default}", r"(?i)planned|later|not yet|todo")

    def test_ours(self) -> None:
        """Every setting, attribute, interface and example that it names is there."""
        for row in rows():
            for name in row.words("ours"):
                self.assertTrue(exists(name), f"{name} of {row.reference}")

    def test_defaults(self) -> None:
        """The defaults are those that it tells, and the reasons for another one stand there."""
        for section, key, default, told in (
            ("listener", "tls", "starttls", '``"starttls"``'),
            ("listener", "require_tls", True, "true"),
            ("listener", "lmtp", False, "false"),
            ("auth", "mechanisms", ("PLAIN", "LOGIN"), "PLAIN and LOGIN"),
            ("auth", "required", True, "required is true"),
            ("auth", "insecure", False, "false"),
            ("auth", "required_text", "Authentication required", "Authentication required"),
            ("limits", "commands_before_login", 20, "20"),
            ("limits", "message_size", 25 * 1024 * 1024, "25 MiB"),
            ("limits", "connections", 1000, "1000"),
            ("limits", "connections_per_address", 50, "50"),
            ("limits", "idle", 300, "5 min"),
            ("limits", "drain", 30, "30 s"),
            ("smtp", "hello_text", "greets {client}", "greets {client}"),
            ("smtp", "disabled_commands", (), "None"),
            ("dns", "reverse_lookup", False, "Off"),
            ("tls", "client_certificate", "no", '``"no"``'),
            ("tls", "minimum_version", "TLSv1.2", "TLSv1.2"),
            ("tls", "maximum_version", "TLSv1.3", "TLSv1.3"),
        ):
            brackets = f"[[{section}]] {key}" if section == "listener" else f"[{section}] {key}"
            cells = [row.default for row in rows() if brackets in row.words("ours")]
            self.assertTrue(any(told in cell for cell in cells), brackets)
            self.assertEqual(getattr(attrs.fields(kindOf(section)), key).default, default)

    def test_tests(self) -> None:
        """Every test that it names is there."""
        for row in rows():
            for name in row.words("test"):
                self.assertTrue(isTest(name), f"{name} of {row.reference}")

    def test_wrongNames(self) -> None:
        """What is not there is found: these tests can fail."""
        for name in (
            "[limits] patience",
            "[nowhere]",
            "Session.shoeSize",
            "INothing",
            "examples/x",
        ):
            self.assertFalse(exists(name), name)
        for name in ("dialogues/x.smtp", "test_parity.ParityTests.test_x", "test_parity.X.test_y"):
            self.assertFalse(isTest(name), name)

    def test_linked(self) -> None:
        """The page is among the others."""
        self.assertIn("\n   parity\n", (ROOT / "docs" / "index.rst").read_text("utf-8"))
