"""``submitd-queue``: looks at the spool and changes it, while the service runs or not.

It opens the data base itself; the service finds what was changed by itself.  A change that names
messages by a filter first says how many it would touch, and asks; it goes through them page by
page, says how far it is, and records who did it in each message's history and in the system's log
(syslog, facility mail), where it stays when the message is gone.  Exit status: 0 done, 1 not done
(standard error says why), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import sys
import syslog
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import attrs
import sqlalchemy as sa
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater, react
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import provider

import submitd
from submitd import deliveries, events, policies
from submitd.deliveries.spool import Spool
from submitd.interfaces import ISpool, ISpoolOperations
from submitd.policies.brake import Brake
from submitd.settings import Component, PolicySettings, spoolUnlessNamed
from submitd.spool.database import FILE
from submitd.spool.records import Action, Damaged, Filter, Listed, State
from submitd.tools.queuetext import asJson, asLine, asText, stamp
from submitd.typed import WrongValue, parseSeconds, parseTable
from submitd.wire.errors import Refused

DESCRIPTION = """\
Look at the messages that wait in the queue of submitd, and change what becomes
of them. Works while the service runs and while it does not.

commands:
  list           the messages that the filters mean, oldest first
  show ID        one message: envelope, header fields, history with each reply
  body ID        one message as it would be sent
  counts         how many recipients each domain has in each state
  retry [ID...]  try now (within 30 s), whatever the schedule says
  hold [ID...]   try no more until it is released
  release [ID...]  let what is on hold go; with --login alone, a braked login too
  expire [ID...] give up now, and report that to the sender
  delete [ID...] drop, and report to nobody
"""

EPILOG = """\
A change needs queue ids, or filters, or --all. With filters or --all it says
how many recipients it would touch and asks; --yes answers. What is being
delivered at this moment is left alone.

examples:
  submitd-queue list --domain example.org --older-than 1h
  submitd-queue show 679VDQN9F15I30-1
  submitd-queue hold --login alice@example.com --yes
  submitd-queue --spool /var/spool/submitd counts --json

exit status:
  0  done
  1  not done; standard error says why
  2  wrong usage
"""

CONFIGURATION = Path("/etc/submitd/submitd.toml")

# Messages that one look at the queue, and one change, comprises.
PAGE = 200

# Seconds between two pages of a change.  SQLite looks at a lock that another process holds every
# tenth of a second: without a pause a long change would keep the service from writing for seconds.
MOMENT = 0.15


class Problem(Exception):
    """Why it cannot be done; the text is one sentence."""


def duration(text: str) -> float:
    """A time such as ``90``, ``5min`` or ``2 h``, in seconds."""
    try:
        return float(parseSeconds(float(text) if text.replace(".", "", 1).isdigit() else text))
    except WrongValue as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """A number that is not negative.

    :raise ValueError: for anything else.
    """
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="submitd-queue",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"submitd {submitd.__version__}")
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=CONFIGURATION,
        help=f"the configuration whose [delivery] is the queue (default: {CONFIGURATION})",
    )
    where.add_argument(
        "--spool", metavar="PATH|URL", help="the queue itself: a directory or postgresql://..."
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in ("list", "counts", "show", "body", *(action.value for action in Action)):
        command = commands.add_parser(name)
        if name in ("list", "counts", "show"):
            command.add_argument("--json", action="store_true", help="print JSON, not a table")
        if name in ("show", "body"):
            command.add_argument("ids", metavar="ID", nargs=1)
        if name == "list":
            command.add_argument("--limit", type=count, default=0, help="list no more than so many")
            _addFilters(command)
        if name in {action.value for action in Action}:
            command.add_argument("ids", metavar="ID", nargs="*", help="a queue id")
            command.add_argument("--all", action="store_true", help="everything in the queue")
            command.add_argument("--yes", action="store_true", help="do not ask")
            _addFilters(command)
    return made


def _addFilters(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--sender", metavar="ADDRESS", help='the reverse-path; "" for the null one'
    )
    command.add_argument("--login", metavar="LOGIN", help="who sent it")
    command.add_argument("--recipient", metavar="ADDRESS")
    command.add_argument("--domain", metavar="DOMAIN", help="a recipient's domain")
    command.add_argument(
        "--state", action="append", default=[], choices=[state.value for state in State]
    )
    command.add_argument("--older-than", metavar="TIME", type=duration, help="such as 90s, 1h, 2d")
    command.add_argument("--younger-than", metavar="TIME", type=duration)


def filterOf(arguments: argparse.Namespace) -> Filter:
    """The filter that the options mean, queue ids included."""
    return Filter(
        ids=tuple(getattr(arguments, "ids", ())) or None,
        sender=arguments.sender,
        login=arguments.login,
        recipient=arguments.recipient,
        domain=arguments.domain,
        states=tuple(State(name) for name in arguments.state),
        olderThan=arguments.older_than,
        youngerThan=arguments.younger_than,
    )


def openSpool(arguments: argparse.Namespace) -> Spool:
    """The delivery that holds the queue; nothing is opened yet.

    :raise Problem: when the configuration cannot be read, or has no queue.
    """
    if arguments.spool:
        isUrl = "://" in arguments.spool
        return Spool(url=arguments.spool) if isUrl else Spool(path=Path(arguments.spool))
    file: Path = arguments.config
    table = _documentOf(file).get("delivery", {})
    component = spoolUnlessNamed(Component.fromTable(table, file.absolute().parent))
    made, findings = component.make(deliveries.REGISTRY, "delivery")
    if findings:
        raise Problem("; ".join(f"{file}: {finding}" for finding in findings))
    if not isinstance(made, Spool):
        raise Problem(f'{file}: delivery.use is "{component.use}", which has no queue')
    return made


def _documentOf(file: Path) -> dict[str, Any]:
    try:
        return parseTable(file.read_bytes())
    except OSError as error:
        raise Problem(f"{file}: {error.strerror}; name it with --config, or --spool") from None
    except ValueError as error:
        raise Problem(f"{file}: {error}") from None


def brakesOf(arguments: argparse.Namespace) -> list[Brake]:
    """The policies that have braked logins, and what they have learned in their files.

    :raise Problem: when the section of one is wrong.
    """
    if arguments.spool:
        return []
    file: Path = arguments.config
    found = []
    for at, table in enumerate(_documentOf(file).get("policy", [])):
        if table.get("use") == Brake.name:
            component = PolicySettings.fromTable(table, file.absolute().parent)
            made, findings = component.make(policies.REGISTRY, f"policy[{at}]")
            if findings:
                raise Problem("; ".join(f"{file}: {finding}" for finding in findings))
            found.append(made)
    return found


def letGo(arguments: argparse.Namespace) -> bool:
    """Let a login go that is braked, so that its next messages are not held as well.

    :return: whether it was braked.
    :raise Problem: when that cannot be done.
    """
    braked = False
    for brake in brakesOf(arguments):
        if brake.path.exists():
            try:
                braked |= brake.letGo(arguments.login, time.time() + brake.lasts)
            except sa.exc.SQLAlchemyError as error:
                raise Problem(f"{brake.path}: {error}") from None
    return braked


def isUnreadable(listed: Listed) -> bool:
    """Whether the data base gives nothing of a message but its id."""
    return listed.message is None and not listed.recipients


@attrs.define
class Command:
    """What the command line wants, done on an open queue.

    :param queue: the queue.
    :param arguments: the command line.
    :param out: where the answer goes.
    :param err: where questions and progress go.
    :param who: what the history says.
    :param giveWay: waits a moment between two pages of a change.
    """

    queue: Any
    arguments: argparse.Namespace
    out: TextIO
    err: TextIO
    who: str
    giveWay: Callable[[], Deferred[None]] = lambda: succeed(None)

    async def run(self) -> None:
        """Do what the command line says."""
        command = self.arguments.command
        if command in {action.value for action in Action}:
            await self.change(Action(command))
        else:
            look = {"list": self.list, "show": self.show, "body": self.body, "counts": self.counts}
            await look[command]()

    async def list(self) -> None:
        """Print the messages, page by page."""
        which, limit, after, shown = filterOf(self.arguments), self.arguments.limit, "", 0
        unreadable = 0
        while not (limit and shown >= limit):
            size = min(PAGE, limit - shown) if limit else PAGE
            page = await self.queue.messages(which, size, after)
            if not page:
                break
            for listed in page:
                self.say(json.dumps(asJson(listed)) if self.arguments.json else asLine(listed))
                unreadable += isUnreadable(listed)
            shown += len(page)
            after = page[-1].id
        if unreadable:
            raise Problem(
                f"{unreadable} message(s) cannot be read, for the data base is damaged;"
                " docs/durability.rst says how to begin with a new one"
            )

    async def show(self) -> None:
        """Print all about one message."""
        [id] = self.arguments.ids
        shown = await self.queue.show(id)
        if shown is None:
            raise Problem(f"there is no message {id}")
        self.say(json.dumps(asJson(shown), indent=2) if self.arguments.json else asText(shown))

    async def body(self) -> None:
        """Write one message as it would be sent."""
        [id] = self.arguments.ids
        content, raw = self.queue.read(id), getattr(self.out, "buffer", None)
        while chunk := await content.next():
            if raw is not None:
                raw.write(chunk)
            else:
                self.out.write(chunk.decode("utf-8", "surrogateescape"))

    async def counts(self) -> None:
        """Print the numbers by domain and state."""
        counts = await self.queue.counts()
        if self.arguments.json:
            found = [
                {
                    "domain": c.domain,
                    "state": c.state.value,
                    "recipients": c.recipients,
                    "oldest": stamp(c.oldest),
                }
                for c in counts
            ]
            self.say(json.dumps(found, indent=2))
            return
        for count in counts:
            self.say(
                f"{count.recipients:8d}  {count.state.value:9s}  {stamp(count.oldest)}"
                f"  {count.domain}"
            )

    async def change(self, action: Action) -> None:
        """Do it to all that is meant, after asking where that was not named by id."""
        which = filterOf(self.arguments)
        if which == Filter() and not self.arguments.all:
            raise Problem(f"{action.value} what? Name queue ids, filters, or --all")
        messages = await self.meant(which)
        isLogin = action is Action.RELEASE and which == Filter(login=which.login) != Filter()
        if not messages:
            if isLogin and letGo(self.arguments):
                self.say(f"{which.login} is no longer braked")
                return
            raise Problem("no message is meant")
        recipients = sum(messages.values())
        what = f"{action.value} {recipients} recipient(s) of {len(messages)} message(s)"
        if which.ids is None and not self.arguments.yes and not self.confirmed(what):
            raise Problem("nothing was changed")
        if isLogin and letGo(self.arguments):
            self.say(f"{which.login} is no longer braked")
        ids, changed = sorted(messages), 0
        for at in range(0, len(ids), PAGE):
            if at:
                await self.giveWay()
            page = attrs.evolve(which, ids=tuple(ids[at : at + PAGE]))
            changed += await self.queue.change(action, page, self.who)
            self.progress(min(at + PAGE, len(ids)), len(ids))
        self.say(f"{action.value}: {changed} recipient(s) changed")
        if not changed:
            raise Problem("what is meant is final, under way, or not in a state for this")

    async def meant(self, which: Filter) -> dict[str, int]:
        """The ids of the messages that are meant, each with its number of recipients."""
        found: dict[str, int] = {}
        after = ""
        while page := await self.queue.messages(which, PAGE, after):
            for listed in page:
                if which.ids is None and isUnreadable(listed):
                    # It would keep all others of its page from being changed.
                    self.err.write(f"{asLine(listed)}: left as it is\n")
                else:
                    found[listed.id] = len(listed.recipients)
            after = page[-1].id
        return found

    def confirmed(self, what: str) -> bool:
        """Whether a person says yes; nobody at the terminal is a no."""
        self.err.write(f"{what}? [y/N] ")
        self.err.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def progress(self, done: int, all: int) -> None:
        """Say how far a change is, when it takes more than one page."""
        if all > PAGE:
            self.err.write(f"{done} of {all} messages\n")

    def say(self, line: str) -> None:
        """A line of the answer."""
        self.out.write(line + "\n")


def operator() -> str:
    """Who is at it, for the record: the login, and behind sudo whose it was."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no such user in a small container
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"operator {name} ({behind})" if behind else f"operator {name}"


async def work(reactor: Any, arguments: argparse.Namespace, out: TextIO, err: TextIO) -> None:
    """Open the queue, do what is wanted, and close it.

    :raise Problem: when it cannot be done.
    """
    spool = openSpool(arguments)
    # On a full disk, most of all, one must be able to look and to delete.
    mistakes = spool.queue.database.check(needsRoom=False)
    if not mistakes and spool.path is not None and not (spool.path / FILE).exists():
        # A new, empty queue in a mistyped place would look like good news; and one that root has
        # made the service could not open.
        mistakes = [f"{spool.path}: there is no queue"]
    if mistakes:
        raise Problem("; ".join(mistakes))
    queue: Any = spool.queue
    queue.tidies = False
    assert ISpool.providedBy(queue) and ISpoolOperations.providedBy(queue)
    try:
        await queue.start(reactor)
        giveWay = partial(deferLater, reactor, MOMENT, lambda: None)
        await Command(queue, arguments, out, err, operator(), giveWay).run()
    except Refused as refused:
        raise Problem(f"the queue cannot be used: {refused.cause or refused}") from None
    except (Damaged, LookupError) as error:
        raise Problem(str(error.args[0] if error.args else error)) from None
    finally:
        await queue.stop()


@provider(ILogObserver)
def toSyslog(event: dict[str, Any]) -> None:
    """Have a change in the system's log: a message that was deleted has no history any more."""
    if event.get("event") == events.QUEUE_CHANGED.name:
        syslog.syslog(syslog.LOG_NOTICE, event["log_text"])


def jsonLogOf(arguments: argparse.Namespace) -> Path | None:
    """Where the service writes its events, which a change is one of; ``None`` for nowhere.

    :raise Problem: when the configuration cannot be read.
    """
    if arguments.spool or arguments.command not in {action.value for action in Action}:
        return None
    file: Path = arguments.config
    log = _documentOf(file).get("log", {})
    target = log.get("json", "") if isinstance(log, dict) else ""
    return None if target in ("", "-") else file.absolute().parent / str(target)


@contextlib.contextmanager
def recorded(path: Path | None) -> Iterator[None]:
    """Have changes in the log of the service, too; each is one line, appended.

    :raise Problem: when it cannot be written: a change must be on record.
    """
    if path is None:
        yield
        return
    try:
        opened = _appending(path)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(opened, "w", encoding="utf-8") as file:
        write = events.jsonObserver(file)

        @provider(ILogObserver)
        def toJSON(event: dict[str, Any]) -> None:
            if event.get("event") == events.QUEUE_CHANGED.name:
                write(event)

        globalLogPublisher.addObserver(toJSON)
        try:
            yield
        finally:
            globalLogPublisher.removeObserver(toJSON)


def _appending(path: Path) -> int:
    """The file, open; a new one belongs to whom its directory does.

    Root may be who makes it, when it has just been moved away, and the service must go on with it.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    try:
        made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    try:
        if os.geteuid() == 0:
            above = path.parent.stat()
            os.fchown(made, above.st_uid, above.st_gid)
    except OSError:
        os.close(made)
        path.unlink()
        raise
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; ends the process."""
    parsed = parser().parse_args(arguments)
    syslog.openlog("submitd-queue", syslog.LOG_PID, syslog.LOG_MAIL)
    globalLogPublisher.addObserver(toSyslog)

    async def run(reactor: Any) -> None:
        try:
            with recorded(jsonLogOf(parsed)):
                await work(reactor, parsed, sys.stdout, sys.stderr)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has read enough, as head has; Python would flush the rest at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except Problem as problem:
            print(f"submitd-queue: {problem}", file=sys.stderr)
            raise SystemExit(1) from None

    react(run)
