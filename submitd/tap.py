"""``twistd submitd``: the command line.

``--config FILE`` runs the service that the file describes; ``--check`` only says what is wrong with
it.  Without a configuration it is the demonstration of demo.py.  A service that cannot start says
why on stderr, one line for each mistake, before any port is open, and exits with status 1.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import attrs
from twisted.application.service import IService
from twisted.python import usage
from twisted.python.util import switchUID

from submitd import __version__, logwriter
from submitd.collector import spareCollector
from submitd.config import ConfigurationError, Loaded, lines, load
from submitd.demo import PORTS, prepare, stateDirectory
from submitd.events import TextLines
from submitd.preflight import examineAs, logNotWritten, portsInUse
from submitd.settings import LogSettings, Settings
from submitd.steady import steady
from submitd.typed import Finding

if TYPE_CHECKING:
    from submitd.workers.parent import Source

EXAMPLES = """
Examples:
  twistd -n submitd                          a demonstration on 127.0.0.1, in the foreground
  twistd submitd -c submitd.toml --check     every mistake in a configuration, all at once
  twistd submitd -c submitd.toml             the service, in the background

What concerns the process is an option of twistd and stands before the word submitd:
  -n, --nodaemon; --pidfile; --logfile, --syslog, --logger; --umask, --chroot;
  --uid, --gid: who it becomes, once the ports are open.
"""


class Options(usage.Options):
    """The options behind ``twistd submitd``.

    :cvar log: where the text log of this process goes, for :func:`textLog`.
    :cvar together: whether its lines may wait for others.
    """

    log: ClassVar[str | None] = None
    together: ClassVar[bool] = True

    longdesc = """\
An authenticated mail submission service (RFC 6409): it proves who is sending, decides what they may
send, and takes the message durably."""

    optParameters = [
        ["config", "c", None, "The configuration, a TOML file; without it, the demonstration."],
        ["json-log", None, None, 'Append every event to this file as a line of JSON; "-": stdout.'],
        ["state", None, None, "Where the demonstration keeps certificate, password and messages."],
        [
            "demo-ports",
            None,
            ",".join(map(str, PORTS)),
            "The demonstration's ports for STARTTLS and for implicit TLS.",
        ],
    ]
    optFlags = [
        ["check", None, "Say what is wrong with the configuration and exit; opens no port."],
    ]

    def getUsage(self, width: int | None = None) -> str:
        """The help: the options, and behind them what would not survive being wrapped."""
        return f"{super().getUsage(width)}{EXAMPLES}"

    def opt_version(self) -> NoReturn:
        """Display the version and exit."""
        print(f"submitd {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        """Look at the options together; with ``--check`` this is where it ends.

        :raise usage.UsageError: for options that do not go together.
        """
        self["ports"] = _ports(self["demo-ports"])
        if self["check"]:
            if not self["config"]:
                raise usage.UsageError("--check needs --config FILE")
            # Here and not in makeService, where twistd would want the pid file of a service that
            # is running while its next configuration is checked.
            sys.exit(check(Path(self["config"]), becoming(self.parent)))
        twistd: Any = self.parent
        Options.log = logwriter.target(twistd) if twistd is not None else None
        if Options.log is not None:
            # twistd looks for what makes its log by this name, and gives it no arguments.
            twistd["logger"] = "submitd.tap.textLog"


def _ports(text: str) -> tuple[int, int]:
    try:
        starttls, implicit = (int(port) for port in text.split(","))
        if not (0 < starttls < 65536 and 0 < implicit < 65536):
            raise ValueError
    except ValueError:
        raise usage.UsageError(
            f'--demo-ports takes two ports such as "2587,2465", not "{text}"'
        ) from None
    return starttls, implicit


def becoming(process: Any) -> Callable[[], None] | None:
    """What makes the process whom twistd's ``--uid`` and ``--gid`` name; ``None`` without.

    :param process: twistd's own options, if there are any.
    """
    uid, gid = ((process or {}).get(name) for name in ("uid", "gid"))
    if (uid is None and gid is None) or os.geteuid() != 0 or process.get("chroot"):
        return None
    return functools.partial(switchUID, uid, gid, False)


def check(file: Path, become: Callable[[], None] | None = None) -> int:
    """Print what is wrong with a configuration on stderr, or that nothing is.

    :param become: see :func:`becoming`.
    :return: the exit status: 0 when a service could be started with it.
    """
    try:
        loaded = _load(file, become)
        if mistakes := list(logNotWritten(loaded.settings)):
            raise ConfigurationError(file, [*loaded.warnings, *mistakes])
    except ConfigurationError as error:
        more = logNotWritten(error.settings) if error.settings is not None else ()
        _say(lines(file, [*error.findings, *more]))
        return 1
    _say([*lines(file, loaded.warnings), f"{file}: ok"])
    return 0


def makeService(options: Options) -> IService:
    """What twistd runs.

    :raise SystemExit: when it cannot start; everything that is wrong has been printed.
    """
    _raiseDescriptors()
    settings = (
        _configured(Path(options["config"]), becoming(options.parent))
        if options["config"]
        else _demo(options)
    )
    target = None
    if options["json-log"]:
        target = attrs.evolve(settings.log, json=options["json-log"]).anchored(Path.cwd())
        settings = attrs.evolve(settings, log=target)
    Options.together = settings.log.together
    if settings.workers > 1:
        _refuseChroot(options)
        from submitd.workers import parent

        return parent.WorkersService(settings, _source(options, target), _reactor())
    from submitd import service

    made: IService = service.makeService(settings, _reactor())
    spareCollector()
    return made


def _refuseChroot(options: Options) -> None:
    process: Any = options.parent or {}
    if process.get("chroot"):
        said = f"{options['config']}: workers: each is started as a program of its own, and"
        _stop([f"{said} Python is not to be found behind --chroot; there it is workers = 1"])


def _raiseDescriptors() -> None:
    """Have as many file descriptors as may be had: 1024, the usual soft limit, is for select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _source(options: Options, log: LogSettings | None) -> Source:
    """Where workers find what this process was told."""
    from submitd.workers.parent import Source

    process: Any = options.parent or {}  # twistd's own options
    return Source(
        file=Path(options["config"]).absolute(),
        json=log.json if log is not None else None,
        reactor=process.get("reactor") or "",
        logs={None: "events", "-": "direct"}.get(options.log, "lines"),
    )


def textLog() -> logwriter.LogWriter:
    """The text log that twistd would have, at a fraction of its price.

    :raise SystemExit: when its file cannot be written; that has been printed.
    """
    assert Options.log is not None
    reactor = _reactor()
    waits = reactor if Options.together else None
    try:
        return logwriter.textLog(Options.log, TextLines(), reactor, waits)
    except OSError as error:
        _stop([f"submitd: cannot write {Options.log}: {error.strerror} (--logfile)"])


def _reactor() -> Any:
    # twistd has chosen one by now; importing it earlier would choose the default one.
    from twisted.internet import reactor

    return steady(reactor)


def _load(file: Path, become: Callable[[], None] | None) -> Loaded:
    """Load, and examine once more as whoever the service becomes."""
    loaded = load(file)
    known = {attrs.astuple(each) for each in loaded.warnings}
    found = examineAs(loaded.settings, become) if become is not None else []
    findings = [*loaded.warnings, *(each for each in found if attrs.astuple(each) not in known)]
    if any(not each.isWarning for each in findings):
        raise ConfigurationError(file, findings, loaded.settings)
    return Loaded(loaded.settings, findings)


def _configured(file: Path, become: Callable[[], None] | None) -> Settings:
    try:
        loaded = _load(file, become)
    except ConfigurationError as error:
        taken = portsInUse(error.settings) if error.settings is not None else []
        _stop(lines(file, [*error.findings, *taken]))
    _say(lines(file, loaded.warnings))
    _stopIfAny(portsInUse(loaded.settings), file)
    return loaded.settings


def _demo(options: Any) -> Settings:
    state = Path(options["state"]) if options["state"] else stateDirectory(os.environ)
    try:
        demo = prepare(state, options["ports"], datetime.datetime.now(datetime.UTC))
    except OSError as error:
        _stop([f"submitd: cannot keep the demonstration in {state}: {error.strerror}"])
    _stopIfAny(portsInUse(demo.settings), Path("submitd demonstration (see --demo-ports)"))
    print(demo.words(), flush=True)
    return demo.settings


def _stopIfAny(findings: Sequence[Finding], file: Path) -> None:
    if findings:
        _stop(lines(file, findings))


def _say(said: Sequence[str]) -> None:
    for line in said:
        print(line, file=sys.stderr)


def _stop(said: Sequence[str]) -> NoReturn:
    _say(said)
    sys.exit(1)
