"""submitd as it is installed: from a wheel, with ``pip install .``, and run from a checkout.

Each way gets a virtual environment of its own, into which only submitd itself is installed
(``--no-deps``); Twisted and the others come from the environment that runs the tests, by a ``.pth``
file.  That keeps the test to seconds and loses nothing that it is about: what a wheel holds, and
whether twistd finds the plug-in in it.  (pip fetches setuptools, to build with.)  A submitd that
the tests' environment may have itself stays out of sight, for the ``.pth`` file names a directory
of links to everything else.  .ci/run installs the wheel with its dependencies, as declared.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import running

CHECK = "import submitd, twisted; print(submitd.__file__); print(twisted.__file__)"


def pipCommand() -> list[str]:
    """A pip: this environment's own, or the one that made it.

    :raise SkipTest: when there is none.
    """
    for command in ([sys.executable, "-m", "pip"], [_base(), "-m", "pip"], ["pip"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "--version"], capture_output=True, timeout=60)
            if done.returncode == 0:
                return command
    raise SkipTest("there is no pip")


def _base() -> str:
    return getattr(sys, "_base_executable", sys.executable)


def copyTree(target: Path) -> Path:
    """A copy of the checkout without what builds and tests leave there."""
    ignore = shutil.ignore_patterns(
        ".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", "_trial_temp*", ".*_cache"
    )
    for name in ("submitd", "twisted"):
        shutil.copytree(running.ROOT / name, target / name, ignore=ignore)
    for path in running.ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, target)
    return target


class Installed(SynchronousTestCase):
    """A directory to work in."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.pip = pipCommand()

    def run_(self, *command: str) -> str:
        """Run a command to its end; gives what it printed."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=running.environment(None),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def source(self) -> Path:
        """A fresh copy of the checkout."""
        tree = self.directory / "source"
        tree.mkdir()
        return copyTree(tree)

    def environment(self) -> Path:
        """A new virtual environment with our dependencies and without submitd; its Python."""
        venv.create(self.directory / "venv", with_pip=False, symlinks=True)
        others = self.directory / "others"
        others.mkdir()
        for name in ("purelib", "platlib"):
            for path in Path(sysconfig.get_path(name)).iterdir():
                link = others / path.name
                if "submitd" not in path.name.lower() and not link.exists():
                    link.symlink_to(path)
        [site] = (self.directory / "venv" / "lib").glob("python*/site-packages")
        (site / "others.pth").write_text(f"{others}\n")
        return self.directory / "venv" / "bin" / "python"

    def install(self, python: Path, *what: str) -> None:
        """Install something into that environment, alone."""
        self.run_(
            *self.pip,
            "--quiet",
            "--disable-pip-version-check",
            "--python",
            str(python),
            "install",
            "--no-deps",
            *what,
        )

    def tryOut(self, python: Path, checkout: Path | None = None) -> None:
        """twistd knows us, the service runs, and a message gets through to the Maildir."""
        done = subprocess.run(
            running.twistd("submitd", "--help", python=str(python)),
            cwd=self.directory,
            env=running.environment(checkout),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("--config", done.stdout)
        demo = running.startDemo(self.directory, str(python), checkout)
        self.addCleanup(demo.stop)
        demo.send("installed")
        [message] = demo.messages()
        self.assertIn(b"installed", message)
        self.assertEqual(demo.stop(), -15, demo.output)


class WheelTests(Installed):
    """The wheel."""

    def test_wheel(self) -> None:
        """It holds the package, the plug-ins and nothing of twisted's own, and it runs."""
        self.run_(
            *self.pip,
            "--quiet",
            "--disable-pip-version-check",
            "wheel",
            "--no-deps",
            "--wheel-dir",
            "dist",
            str(self.source()),
        )
        [wheel] = (self.directory / "dist").glob("submitd-*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        packaged = {
            str(path.relative_to(running.ROOT)) for path in (running.ROOT / "submitd").rglob("*.py")
        }
        self.assertEqual(packaged - names, set())
        self.assertIn("submitd/py.typed", names)
        self.assertEqual(
            {name for name in names if name.startswith("twisted/")},
            {"twisted/plugins/submitd_cred.py", "twisted/plugins/submitd_plugin.py"},
        )
        shutil.rmtree(self.directory / "source")
        python = self.environment()
        self.install(python, str(wheel))
        where = self.run_(str(python), "-c", CHECK).splitlines()
        self.assertIn(str(self.directory / "venv"), where[0])
        self.tryOut(python)
        version = self.run_(str(python.with_name("submitd-passwd")), "--help")
        self.assertIn("usage", version.lower())


class SourceTests(Installed):
    """The source tree."""

    def test_pipInstall(self) -> None:
        """``pip install .`` does what the wheel does."""
        python = self.environment()
        self.install(python, str(self.source()))
        shutil.rmtree(self.directory / "source")
        self.tryOut(python)

    def test_editable(self) -> None:
        """An editable install, as ``make run`` makes it, shows twistd the plug-in."""
        python = self.environment()
        tree = self.source()
        self.install(python, "--config-settings", "editable_mode=compat", "--editable", str(tree))
        where = self.run_(str(python), "-c", CHECK).splitlines()
        self.assertIn(str(tree), where[0])
        self.tryOut(python)

    def test_checkout(self) -> None:
        """A checkout on the path runs without being installed."""
        self.tryOut(self.environment(), self.source())
