"""``submitd-policy``: what a configuration would do with a message, without sending it.

``try`` asks every stage of a configuration, running or candidate, about one message or about a
recorded session; rehearsal.py has what that is and is not.  Exit status: 0 it was taken (or the
session goes as it went), 1 it was refused (or goes another way), 2 wrong usage or a configuration
with mistakes, all of which are named on standard error.
"""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import attrs
from twisted.internet.task import react

import submitd
from submitd.config import ConfigurationError, lines, load
from submitd.errors import CannotStart
from submitd.settings import Settings
from submitd.tools.rehearsal import Client, KeptMessage, Rehearsal, Step, Try, Verdict
from submitd.tools.replay import Difference, Replay, Turn, readSession
from submitd.typed import nearest
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from submitd.wire.network import UNIX

DESCRIPTION = """\
Ask a configuration of submitd what it would do. Nothing is sent, counted or
changed, and no port is opened; it may be done beside the running service.

commands:
  try            run one message, or a recorded session, through all stages
"""

TRY = """\
Run one message through all stages of a configuration, and print what each
policy says, how long it takes, and what becomes of the header. With --session,
run a recorded session, and print where it goes another way.

The login is believed without a password. Servers that policies ask are asked:
data bases, filters, a Redis (which counts nothing of it). What the running
service has counted in its memory is not known here.
"""

EPILOG = """\
examples:
  submitd-policy try --login alice@example.com --from alice@example.com --to bob@example.net
  submitd-policy try --config new.toml --login alice --from alice@example.com \\
      --to bob@example.net --message letter.eml
  submitd-policy try --config new.toml --session recorded.smtp --json

exit status:
  0  taken; a session goes as it went
  1  refused; a session goes another way
  2  wrong usage, or a configuration with mistakes
"""

CONFIGURATION = Path("/etc/submitd/submitd.toml")


class Problem(Exception):
    """Why it cannot be tried; the text is a sentence, or several lines of them."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="submitd-policy",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"submitd {submitd.__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "try",
        description=TRY,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--config", metavar="FILE", type=Path, default=CONFIGURATION)
    add("--login", metavar="LOGIN", default="", help="who has logged in; left out, nobody has")
    add("--from", metavar="ADDRESS", dest="sender", help='the reverse-path; "" for the null one')
    add("--to", metavar="ADDRESS", dest="recipients", action="append", default=[])
    add("--message", metavar="FILE", help="the message, - for standard input; else a small one")
    add("--session", metavar="FILE", help="a recorded session in place of a message, or -")
    add("--listener", metavar="NAME", default="0", help="which [[listener]], or its number from 0")
    add("--client-address", metavar="IP", default=Client().address, type=_address)
    add("--helo", metavar="NAME", default=Client().name, help="what the client calls itself")
    add("--no-tls", action="store_true", help="the client does not ask for STARTTLS")
    add("--json", action="store_true", help="print JSON")
    return made


def _address(text: str) -> str:
    if text == UNIX:
        return ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is no IP address, nor "{UNIX}"') from None


def check(arguments: argparse.Namespace) -> None:
    """Look at the options together.

    :raise Problem: for those that do not go together.
    """
    if arguments.session is not None:
        if arguments.sender is not None or arguments.recipients or arguments.message is not None:
            raise Problem("--session brings its own --from, --to and --message")
        return
    if arguments.sender is None or not arguments.recipients:
        raise Problem("needs --from and --to, or --session")
    for address in filter(None, (arguments.sender, *arguments.recipients)):
        try:
            Mailbox.parse(address.encode("utf-8", "surrogateescape"))
        except Refused:
            raise Problem(f'"{address}" is no address') from None
    if any(ord(letter) < 32 for letter in arguments.helo + arguments.login):
        raise Problem("a name has no control characters")


def settingsOf(arguments: argparse.Namespace, err: TextIO) -> Settings:
    """The configuration; what is unwise in it is printed.

    :raise Problem: with every mistake in it.
    """
    file: Path = arguments.config
    try:
        loaded = load(file)
    except ConfigurationError as error:
        raise Problem("\n".join(lines(file, error.findings))) from None
    err.writelines(f"{line}\n" for line in lines(file, loaded.warnings))
    return loaded.settings


def listenerOf(settings: Settings, wanted: str) -> int:
    """Which listener a name means, or a number where none has that name.

    :raise Problem: when there is no such listener.
    """
    names = [listener.name for listener in settings.listener]
    if wanted and wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    if wanted.isdecimal():
        raise Problem(f"there is no listener[{wanted}]; there are {len(names)}")
    raise Problem(f'there is no listener "{wanted}"; {nearest(wanted, filter(None, names))}')


def read(name: str) -> bytes:
    """A file, or standard input.

    :raise Problem: when it cannot be read.
    """
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Problem(f"{name}: {error.strerror}") from None


def messageOf(arguments: argparse.Namespace) -> bytes | None:
    """The message with CRLF at its ends of lines; one that has any is taken as it is."""
    if arguments.message is None:
        return None
    octets = read(arguments.message)
    return octets if b"\r" in octets else octets.replace(b"\n", b"\r\n")


def turnsOf(arguments: argparse.Namespace) -> list[Turn]:
    """The recorded session.

    :raise Problem: when it is none.
    """
    try:
        return readSession(read(arguments.session).decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise Problem(f"{arguments.session}: {error}") from None


async def work(reactor: Any, arguments: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Try what is wanted, and print it.

    :return: the exit status.
    :raise Problem: when it cannot be tried.
    """
    check(arguments)
    turns = turnsOf(arguments) if arguments.session is not None else []
    message = messageOf(arguments)
    settings = settingsOf(arguments, err)
    at = listenerOf(settings, arguments.listener)
    client = Client(arguments.client_address, arguments.helo, arguments.login, not arguments.no_tls)
    try:
        rehearsal = Rehearsal(settings, at, client, reactor)
    except CannotStart as error:
        raise Problem(f"{arguments.config}: {error}") from None
    async with rehearsal:
        if arguments.session is not None:
            replay = Replay(rehearsal, turns)
            await replay.run()
            return _printReplay(replay, arguments.json, out)
        trial = Try(rehearsal, arguments.sender, arguments.recipients, message)
        return _printTry(trial, await trial.run(), arguments.json, out)


# What is printed.


def headerChanges(before: bytes, after: bytes) -> list[str]:
    """The header fields that were added and removed, as a diff without context."""
    return [
        line
        for line in difflib.unified_diff(_header(before), _header(after), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]


def envelopeChanges(trial: Try, kept: KeptMessage) -> list[str]:
    """The sender and the recipients that policies have put in the place of others, alike."""
    changes = []
    if kept.sender.lower() != f"<{trial.sender}>".lower():
        changes += [f"-MAIL FROM:<{trial.sender}>", f"+MAIL FROM:{kept.sender}"]
    changes += [f"-RCPT TO:{each}" for each in kept.known if each not in kept.recipients]
    changes += [f"+RCPT TO:{each}" for each in kept.recipients if each not in kept.known]
    return changes


def _header(message: bytes) -> list[str]:
    lines = _shown(b"\r\n" + message).partition("\r\n\r\n")[0].split("\r\n")
    return [line for line in lines if line]


def _body(message: bytes) -> bytes:
    return (b"\r\n" + message).partition(b"\r\n\r\n")[2]


def _shown(octets: bytes) -> str:
    text = octets.decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() or letter in "\r\n\t" else repr(letter)[1:-1]
        for letter in text
    )


def _result(trial: Try, isTaken: bool) -> str:
    kept = trial.kept
    if kept is not None and kept.envelope.hold is not None:
        return f"held: {kept.envelope.hold}"
    if isTaken:
        return "accepted" if kept is not None else "accepted, and dropped"
    steps = trial.rehearsal.steps
    last = [step for step in steps if step.isRefused or not step.replies][-1]
    return f"refused: {last.lines[-1]}" if last.replies else "refused: without a reply"


def _printTry(trial: Try, isTaken: bool, asJson: bool, out: TextIO) -> int:
    kept, result = trial.kept, _result(trial, isTaken)
    changes = headerChanges(trial.message, kept.octets) if kept is not None else []
    envelope = envelopeChanges(trial, kept) if kept is not None else []
    isChanged = kept is not None and _body(kept.octets) != _body(trial.message)
    if asJson:
        found = {
            "accepted": isTaken,
            "result": result,
            "steps": [_stepAsJson(step) for step in trial.rehearsal.steps],
            "envelope": envelope,
            "header": changes,
            "bodyChanged": isChanged,
            "blind": _blind(trial),
        }
        out.write(json.dumps(found, indent=2) + "\n")
        return 0 if isTaken else 1
    for step in trial.rehearsal.steps:
        out.writelines(f"{line}\n" for line in _stepAsText(step))
    for what, changed in (("envelope", envelope), ("header", changes)):
        if changed:
            out.write(f"{what}\n")
            out.writelines(f"  {line}\n" for line in changed)
    if isChanged:
        out.write("the body is changed\n")
    out.writelines(f"a blind copy goes to {address}\n" for address in _blind(trial))
    out.write(f"{result}\n")
    return 0 if isTaken else 1


def _blind(trial: Try) -> list[str]:
    kept = trial.kept
    return [] if kept is None else [str(each.mailbox) for each in kept.envelope.blind]


def _stepAsText(step: Step) -> Iterator[str]:
    yield step.said
    for verdict in step.verdicts:
        yield f"  {_verdict(verdict)}"
    for note in step.notes:
        yield f"  note: {_shown(note.encode('utf-8', 'backslashreplace'))}"
    for reply in step.replies:
        said = reply.wire.decode("ascii").splitlines()
        # What EHLO offers is long, and the same at each try; JSON has it.
        more = [f"... {len(said)} lines"] if reply.isPositive and len(said) > 2 else said[1:]
        yield from (f"  {line}" for line in (said[0], *more))
    yield f"  after {_time(step.seconds)}"


def _verdict(verdict: Verdict) -> str:
    cause = f"  {verdict.cause}" if verdict.cause else ""
    return (
        f"{verdict.stage:<10} {verdict.policy:<16} {verdict.outcome:<8} "
        f"{_time(verdict.seconds):>10}{cause}"
    )


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _stepAsJson(step: Step) -> dict[str, Any]:
    return {
        "said": step.said,
        "replies": list(step.lines),
        "seconds": round(step.seconds, 6),
        "policies": [_verdictAsJson(verdict) for verdict in step.verdicts],
        "notes": list(step.notes),
    }


def _verdictAsJson(verdict: Verdict) -> dict[str, Any]:
    return {**attrs.asdict(verdict), "seconds": round(verdict.seconds, 6)}


def _printReplay(replay: Replay, asJson: bool, out: TextIO) -> int:
    if asJson:
        found = {
            "differences": [_differenceAsJson(each) for each in replay.differences],
            "cut": replay.isCut,
        }
        out.write(json.dumps(found, indent=2) + "\n")
        return 1 if replay.differences or replay.isCut else 0
    for each in replay.differences:
        out.write(f"C: {each.said}\n")
        out.writelines(f"- S: {line}\n" for line in each.recorded)
        out.writelines(f"+ S: {line}\n" for line in each.now)
        out.writelines(f"  {_verdict(verdict)}\n" for verdict in each.verdicts)
    if replay.isCut:
        out.write("the rest makes no sense behind this, and was left out\n")
    if not replay.differences and not replay.isCut:
        out.write("the session goes as it went\n")
    return 1 if replay.differences or replay.isCut else 0


def _differenceAsJson(difference: Difference) -> dict[str, Any]:
    return {
        "said": difference.said,
        "recorded": list(difference.recorded),
        "now": list(difference.now),
        "policies": [_verdictAsJson(verdict) for verdict in difference.verdicts],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; ends the process."""
    parsed = parser().parse_args(arguments)

    async def run(reactor: Any) -> None:
        try:
            status = await work(reactor, parsed, sys.stdout, sys.stderr)
        except Problem as problem:
            print(f"submitd-policy: {problem}", file=sys.stderr)
            status = 2
        raise SystemExit(status)

    react(run)
