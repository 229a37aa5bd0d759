"""The direction of imports, read from the source: what the rooms of the house may know.

Imports inside of functions count: a loop between two modules is a loop whenever it is closed.  Only
what stands under ``if TYPE_CHECKING:`` is left out, since it is not there when the program runs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "submitd"

# From the bottom to the top; a room may import from its own layer and from those below it.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"wire"}),
    frozenset(
        {
            "equality",
            "envelope",
            "errors",
            "events",
            "interfaces",
            "logwriter",
            "session",
            "states",
            "submission",
        }
    ),
    frozenset(
        {
            "collector",
            "connecting",
            "counters",
            "databases",
            "endpoint",
            "files",
            "http",
            "jsonlog",
            "metrics",
            "password",
            "query",
            "refusals",
            "reverselookup",
            "steady",
            "threads",
            "turns",
            "twistedmail",
            "typed",
            "waiting",
            "writable",
        }
    ),
    frozenset(
        {
            "byaddress",
            "commands",
            "extensions",
            "login",
            "message",
            "pipeline",
            "policies",
            "sasl",
        }
    ),
    frozenset({"dialogue"}),
    frozenset(
        {
            "certificates",
            "channelbinding",
            "checkers",
            "connections",
            "deliveries",
            "realm",
            "spool",
            "tally",
            "openssl",
            "polling",
            "ports",
            "transport",
        }
    ),
    frozenset({"protocol", "proxy", "relay", "reload", "tls"}),
    frozenset({"settings"}),
    frozenset({"listener", "preflight"}),
    frozenset({"metricspage"}),
    frozenset({"config", "demo", "given"}),
    frozenset({"service"}),
    frozenset({"workers"}),
    frozenset({"tap", "tools"}),
)
HEIGHT = {room: at for at, layer in enumerate(LAYERS) for room in layer}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package: its name without ``submitd.``, and its source."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_bytes(), str(path))


def room(module: str) -> str:
    """The room that a module stands in: the package, or the module itself."""
    return module.partition(".")[0]


def isTypeChecking(node: ast.AST) -> bool:
    """Whether a statement is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(node: ast.AST) -> Iterator[str]:
    """All modules that a module imports, with what is taken from them as ``module.name``."""
    for child in ast.iter_child_nodes(node):
        if isTypeChecking(child):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imports(child)


class DirectionTests(SynchronousTestCase):
    """Imports run one way."""

    def test_everyRoom(self) -> None:
        """A new module has its place in the order, or nobody would know what it may import."""
        rooms = {room(name) for name, _ in modules()} - {"__init__"}
        self.assertEqual(rooms - set(HEIGHT), set())

    def test_downward(self) -> None:
        """No room imports from one above it."""
        upward = [
            f"{name} imports {imported}"
            for name, source in modules()
            for imported in imports(source)
            if imported.startswith("submitd.")
            and HEIGHT.get(room(imported.removeprefix("submitd.")), -1) > HEIGHT.get(room(name), -1)
        ]
        self.assertEqual(upward, [])

    def test_wire(self) -> None:
        """wire/ can be taken out and used anywhere: the standard library and attrs, no more."""
        allowed = sys.stdlib_module_names | {"attrs", "attr"}
        foreign = [
            f"{name} imports {imported}"
            for name, source in modules()
            if room(name) == "wire"
            for imported in imports(source)
            if imported.partition(".")[0] not in allowed
            and not imported.startswith("submitd.wire.")
        ]
        self.assertEqual(foreign, [])


class DangerTests(SynchronousTestCase):
    """What nobody needs who takes octets from strangers."""

    def test_modules(self) -> None:
        """Nothing reads objects from octets, or runs a shell."""
        found = [
            f"{name} imports {imported}"
            for name, source in modules()
            for imported in imports(source)
            if imported.partition(".")[0] in ("pickle", "marshal", "shelve", "subprocess", "pty")
        ]
        self.assertEqual(found, [])

    def test_calls(self) -> None:
        """Nothing makes code of text, or a command of a line."""
        found = [
            f"{name}: {ast.unparse(node.func)}"
            for name, source in modules()
            for node in ast.walk(source)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("eval", "exec", "compile", "os.system", "os.popen")
        ]
        self.assertEqual(found, [])


class ReactorTests(SynchronousTestCase):
    """Reactors, clocks and transports are passed in."""

    def test_globalReactor(self) -> None:
        """Only service.py and tap.py name the global reactor: a second one hides in no test."""
        naming = {
            name
            for name, source in modules()
            for imported in imports(source)
            if imported == "twisted.internet.reactor"
        }
        self.assertEqual(naming - {"service", "tap"}, set())

    def test_lateReactor(self) -> None:
        """Nothing installs a reactor by being imported: twistd has not chosen one by then."""
        early = [
            name
            for name, source in modules()
            for node in source.body
            if not isinstance(node, ast.FunctionDef | ast.ClassDef)
            for imported in imports(ast.Module([node], []))
            if imported in ("twisted.internet.reactor", "twisted.internet.threads")
        ]
        self.assertEqual(early, [])

    def test_transport(self) -> None:
        """Only protocol.py and the PROXY reader before it hold one; ports.py makes them."""
        holding = {
            name
            for name, source in modules()
            for node in ast.walk(source)
            if isinstance(node, ast.Attribute) and node.attr == "transport"
        }
        filters = {"policies.milterclient", "policies.policyserver", "http"}
        known = {"protocol", "proxy", "relay.connection", "ports", "transport", *filters}
        known |= {"checkers.dovecotserver"}
        known |= {"tools.rehearsal"}  # the transport that is no socket
        self.assertEqual(holding - known, set())


class PluginTests(SynchronousTestCase):
    """twisted/plugins."""

    def test_noPackage(self) -> None:
        """It is no package of ours: an __init__.py there would hide everybody else's plug-ins."""
        self.assertFalse((ROOT / "twisted" / "__init__.py").exists())
        self.assertFalse((ROOT / "twisted" / "plugins" / "__init__.py").exists())
