"""``submitd-why``: explains a refusal by the id that its reply ended with.

It reads the file of refusals that the configuration names, the one before it, and the JSON log
where there is one; it changes nothing.  Exit status: 0 found, 1 not found (standard error says
where it was looked for) or nothing could be read, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import submitd
from submitd.demo import stateDirectory
from submitd.refusals import Record, find, previous
from submitd.settings import Component, LogSettings, RefusalSettings, spoolUnlessNamed
from submitd.typed import parseTable, structure

DESCRIPTION = """\
Explain why submitd refused something. Each reply that refuses ends with an id,
such as (id 7BQK2ZXA); ID is that, or the whole reply.
"""

EPILOG = """\
examples:
  submitd-why 7BQK2ZXA
  submitd-why '553 5.7.1 Not your address (id 7BQK2ZXA)' --json
  submitd-why 7BQK2ZXA --log /var/lib/submitd/refusals.jsonl.1

exit status:
  0  found
  1  not found; standard error says where it was looked for
  2  wrong usage
"""

CONFIGURATION = Path("/etc/submitd/submitd.toml")

_ID = re.compile(r"[A-Z2-7]{8}")
_MARK = re.compile(r"\(id ([A-Z2-7]{8})\)", re.IGNORECASE)


class Problem(Exception):
    """Why it cannot be said; the text is one sentence."""


def idOf(text: str) -> str:
    """The id in what was typed: alone, or in a whole reply."""
    found = _MARK.search(text)
    id = (found[1] if found else text.strip()).upper()
    if not _ID.fullmatch(id):
        raise argparse.ArgumentTypeError("an id is eight of the letters A to Z and digits 2 to 7")
    return id


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="submitd-why",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"submitd {submitd.__version__}")
    made.add_argument("id", metavar="ID", type=idOf, help="the id, or the reply that ends with it")
    made.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="the configuration that says where refusals are kept (default: "
        f"{CONFIGURATION}, and where there is none, the demonstration's)",
    )
    made.add_argument(
        "--log",
        metavar="FILE",
        type=Path,
        action="append",
        help="look in this file instead: a file of refusals, or a JSON log; may be repeated",
    )
    made.add_argument("--json", action="store_true", help="print JSON, an object a line")
    return made


def files(arguments: argparse.Namespace) -> list[Path]:
    """Where to look, the oldest first.

    :raise Problem: when the configuration does not say so.
    """
    if arguments.log:
        return list(arguments.log)
    config = arguments.config
    if config is None and not CONFIGURATION.exists():
        kept = stateDirectory(os.environ) / "refusals.jsonl"
        return [previous(kept), kept]
    return _configured(config or CONFIGURATION)


def _configured(config: Path) -> list[Path]:
    # Not by config.load: it wants all to be well, and looks into files of passwords.
    try:
        document = parseTable(config.read_bytes())
    except OSError as error:
        raise Problem(f"{config}: {error.strerror}; name a file with --log") from None
    except ValueError as error:
        raise Problem(f"{config}: {error}") from None
    directory = config.absolute().parent
    refusals: RefusalSettings = _section(document, "refusals", RefusalSettings, config)
    log: LogSettings = _section(document, "log", LogSettings, config).anchored(directory)
    table = document.get("delivery")
    table = table if isinstance(table, dict) else {}
    kept = refusals.path(spoolUnlessNamed(Component.fromTable(table, directory)))
    found = [Path(log.json)] if log.json not in ("", "-") else []
    if kept is not None:
        found += [previous(kept), kept]
    if not found:
        raise Problem(
            f"{config}: keeps refusals nowhere; name a file in [refusals], or, with --log, a log"
        )
    return found


def _section(document: dict[str, Any], name: str, kind: type, config: Path) -> Any:
    directory = config.absolute().parent
    made, findings = structure(document.get(name, {}), kind, directory, name)
    if findings:
        raise Problem("; ".join(f"{config}: {finding}" for finding in findings))
    return made


def records(paths: Sequence[Path], id: str) -> list[Record]:
    """The refusals of an id, the oldest first; each once, however many files have it.

    :raise Problem: when a file is there and cannot be read.
    """
    found: list[Record] = []
    for path in paths:
        try:
            found += (record for record in find(path, id) if record not in found)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Problem(f"{path}: {error.strerror}") from None
    return sorted(found, key=lambda record: str(record.get("time", "")))


def explained(record: Record) -> str:
    """All that is known about a refusal, for a person."""
    return "\n".join(f"{name:<9}  {text}" for name, text in _lines(record))


def _lines(record: Record) -> Iterator[tuple[str, str]]:
    policy, _, stage = str(record.get("origin", "")).rpartition(" at ")
    command = f"{record.get('command') or ''} {record.get('address') or ''}".strip()
    yield "refusal", str(record["refusal"])
    yield "time", str(record.get("time", "-"))
    yield "reply", str(record.get("reply", "-"))
    yield "policy", policy or "none: the service itself"
    yield "stage", stage or "-"
    yield "rule", str(record.get("cause") or "- (the reply says it all)")
    yield "command", command or "-"
    yield "client", str(record.get("peer") or "a unix socket")
    yield "login", str(record.get("user") or "-")
    yield "session", str(record.get("session", "-"))
    if "id" in record:
        size = record.get("size")
        yield (
            "message",
            f"{record['id']} from {record.get('sender')} to {record.get('recipients')} "
            f"recipient(s), {'size unknown' if size is None else f'{size} octets'}",
        )
    yield "after", f"{record.get('seconds', '-')} s of the session"
    if "waited" in record:
        yield "waited", f"{record['waited']} s for this command"
    if "waits" in record:
        yield "policies", str(record["waits"])


def run(arguments: argparse.Namespace, out: TextIO) -> None:
    """Print what is known about the id.

    :raise Problem: when nothing is.
    """
    paths = files(arguments)
    found = records(paths, arguments.id)
    if not found:
        where = ", ".join(str(path) if path.exists() else f"{path} (not there)" for path in paths)
        raise Problem(f"there is no refusal {arguments.id} in {where}")
    if arguments.json:
        out.writelines(json.dumps(record) + "\n" for record in found)
    else:
        out.write("\n\n".join(map(explained, found)) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; ends the process where it fails."""
    parsed = parser().parse_args(arguments)
    try:
        run(parsed, sys.stdout)
    except Problem as problem:
        print(f"submitd-why: {problem}", file=sys.stderr)
        raise SystemExit(1) from None
