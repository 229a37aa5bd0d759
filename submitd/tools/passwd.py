"""``submitd-passwd``: keeps the files of users that submitd reads.

Passwords come from the terminal or from standard input, never from the command line, where every
user of the machine could read them.  The file is replaced as a whole: whatever happens, it is the
old one or the new one.  Comments and lines that this tool does not understand stay as they are, and
two of it at once wait for each other.  Exit status: 0 done, 1 not done (standard error says why),
2 wrong usage.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import getpass
import hmac
import os
import secrets
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

import submitd
from submitd.checkers import foldName
from submitd.checkers.hashes import COSTS, hashPassword, parseHash, verify
from submitd.checkers.salts import SALT
from submitd.checkers.secrets import matches, parseSecret
from submitd.checkers.tokens import digestOf, parseExpiry, parseToken
from submitd.checkers.userfile import BadLine, isUserLine
from submitd.files import syncDirectory
from submitd.sasl.bearer import isToken
from submitd.sasl.credentials import checkPassword, nameProblem
from submitd.sasl.scramkeys import COST, ScramKeys
from submitd.wire.errors import Refused

DESCRIPTION = """\
Add, change, remove, list and verify the users of a file that submitd reads
logins from. The running service sees a change at the next login.

commands:
  add USER      add a user; refused when the user is there already
  change USER   give a user a new password
  remove USER   remove a user
  list          print the names of all users that can log in, one per line
  verify USER   tell whether a password is the user's, and has not expired

The password is asked for at the terminal, twice for a new one, or read with
--stdin from the first line of standard input. It cannot be given on the
command line, where every user of the machine could read it.
"""

EPILOG = """\
files:
  Without an option, FILE has password hashes in Apache's htpasswd format, for
  "htpasswd:FILE" in the configuration. With --secrets it has the secrets
  themselves (for CRAM-MD5, "secrets:FILE") and gets mode 0600; with --scram
  too, it has keys from which a secret cannot be had again, for all mechanisms
  but CRAM-MD5, and "change" leaves it so. With --tokens it has digests of
  bearer tokens (for XOAUTH2 and OAUTHBEARER, "tokens:FILE"): "add" makes a
  token and prints it, once; "add" again gives the user one more; "change"
  replaces all tokens of the user by a new one.

  FILE is made, with mode 0600, by the first "add", and replaced as a whole by
  each change, with the owner and mode it had. Comments and lines that cannot be
  understood stay as they are. FILE.lock keeps two changes from mixing.

exit status:
  0  done, or the password is the user's
  1  not done, or the password is not the user's or has expired; standard error
     says why
  2  wrong usage

examples:
  submitd-passwd /etc/submitd/passwd add alice@example.com
  pwgen 16 1 | submitd-passwd /etc/submitd/passwd change printer --stdin
  submitd-passwd --secrets /etc/submitd/secrets add scanner
  submitd-passwd --secrets --scram /etc/submitd/secrets add bob@example.com
  submitd-passwd --tokens /etc/submitd/tokens add webapp --expires 2030-12-31
"""


class Problem(Exception):
    """What is told on standard error, with exit status 1."""


@attrs.frozen
class Kind:
    """One kind of file.

    :param what: what a user has in it, for people.
    :param parse: what the service makes of a line's value; raises ``BadLine``.
    :param matches: whether a password is the one of such an entry.
    :param make: a line's value for a new password, from the password and the options.
    :param hasExpired: whether nobody can log in with such an entry any more.
    :param several: whether a user may have several lines.
    :param makesItself: whether a new password is made here, in place of being asked for.
    :param mode: the permission bits that a file may have.
    """

    what: str
    parse: Callable[[bytes], Any]
    matches: Callable[[bytes, Any], bool]
    make: Callable[[bytes, argparse.Namespace], str]
    hasExpired: Callable[[Any], bool] = lambda entry: False
    several: bool = False
    makesItself: bool = False
    mode: int = 0o777


def _makeHash(password: bytes, options: argparse.Namespace) -> str:
    try:
        return hashPassword(password, options.scheme)
    except ValueError as error:
        raise Problem(str(error)) from None


def _makeSecret(password: bytes, options: argparse.Namespace) -> str:
    if options.scram:
        return str(ScramKeys.derive(password, os.urandom(SALT), COST))
    return "{base64}" + base64.b64encode(password).decode("ascii")


def _makeToken(password: bytes, options: argparse.Namespace) -> str:
    if not isToken(password):
        raise Problem("a bearer token has letters, digits and -._~+/ with = at the end (RFC 6750)")
    digest = digestOf(password).hex()
    return f"{digest}:{options.expires}" if options.expires else digest


HASHES = Kind("password", parseHash, verify, _makeHash)
SECRETS = Kind("secret", parseSecret, matches, _makeSecret, mode=0o700)
TOKENS = Kind(
    "token",
    parseToken,
    lambda token, entry: hmac.compare_digest(digestOf(token), entry.digest),
    _makeToken,
    hasExpired=lambda entry: entry.goodUntil <= time.time(),
    several=True,
    makesItself=True,
)


# The commands.


def add(options: argparse.Namespace) -> int:
    """Add a user."""
    kind: Kind = options.kind
    if not kind.several:
        _refuseKnown(options, _readLines(options.file, missing=True))
    password, value = _new(options)
    with _changing(options.file, kind.mode, missing=True) as lines:
        if not kind.several:
            _refuseKnown(options, lines)
        lines.append(options.user + b":" + value.encode("ascii"))
    _announce(options, password)
    return 0


def change(options: argparse.Namespace) -> int:
    """Give a user a new password."""
    lines = _readLines(options.file)
    if _hasKeys(options, lines[_require(options, lines)[0]]):
        options.scram = True  # who has had none in the clear does not want one
    password, value = _new(options)
    with _changing(options.file, options.kind.mode) as lines:
        first, *others = _require(options, lines)
        name, _, old = lines[first].partition(b":")
        # Apache leaves a user's further fields alone, and so does this.
        further = old[old.index(b":") :] if options.kind is HASHES and b":" in old else b""
        lines[first] = name + b":" + value.encode("ascii") + further
        for at in reversed(others):
            del lines[at]
    _announce(options, password)
    return 0


def _hasKeys(options: argparse.Namespace, line: bytes) -> bool:
    if options.kind is not SECRETS:
        return False
    try:
        return isinstance(parseSecret(line.partition(b":")[2]), ScramKeys)
    except BadLine:
        return False


def remove(options: argparse.Namespace) -> int:
    """Remove a user."""
    _require(options, _readLines(options.file))
    with _changing(options.file, options.kind.mode) as lines:
        for at in reversed(_require(options, lines)):
            del lines[at]
    return 0


def listUsers(options: argparse.Namespace) -> int:
    """Print the users that can log in; name the lines that nobody can log in with."""
    names: dict[bytes, str] = {}
    for number, line in enumerate(_readLines(options.file), 1):
        if isUserLine(line):
            name, colon, value = line.partition(b":")
            problem = nameProblem(name) if colon else "no colon"
            try:
                if options.kind.hasExpired(options.kind.parse(value)) and not problem:
                    problem = f"the {options.kind.what} of {_shown(name)} has expired"
            except BadLine as error:
                problem = problem or str(error)
            if problem:
                _tell(f"{options.file}: line {number}: {problem}")
            else:
                names.setdefault(foldName(name), name.decode("utf-8"))
    for text in names.values():
        print(text)
    return 0


def verifyUser(options: argparse.Namespace) -> int:
    """Tell whether a password is the user's."""
    lines = _readLines(options.file)
    found = _require(options, lines)
    kind: Kind = options.kind
    password = _checked(options, _fromInput() if options.stdin else _ask(kind.what))
    entries = _entries(options, lines, found)
    # Several lines may have the same token, each until another time.
    right = [entry for entry in entries if kind.matches(password, entry)]
    if all(kind.hasExpired(entry) for entry in right):
        raise Problem(f"the {kind.what} {'has expired' if right else 'is wrong'}")
    print(f"the {kind.what} is right")
    return 0


def _entries(
    options: argparse.Namespace, lines: Sequence[bytes], found: Sequence[int]
) -> list[Any]:
    """What the service would take of a user's lines; the broken ones are named."""
    kind: Kind = options.kind
    entries = []
    for at in found:
        try:
            entries.append(kind.parse(lines[at].partition(b":")[2]))
        except BadLine as error:
            _tell(f"{options.file}: line {at + 1}: {error}")
    if not entries:
        raise Problem(f"{options.file}: no line of {_shown(options.user)} can be used")
    return entries if kind.several else entries[:1]


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "add": add,
    "change": change,
    "remove": remove,
    "list": listUsers,
    "verify": verifyUser,
}


# Passwords.


def _new(options: argparse.Namespace) -> tuple[bytes, str]:
    """A new password, and a line's value for it."""
    kind: Kind = options.kind
    if options.stdin:
        password = _fromInput()
    elif kind.makesItself:
        # Hexadecimal: a token that begins with "-" would be an option where it is pasted.
        password = secrets.token_hex(32).encode("ascii")
    else:
        password = _askTwice(kind.what)
    return password, kind.make(_checked(options, password), options)


def _checked(options: argparse.Namespace, password: bytes) -> bytes:
    try:
        return checkPassword(password)
    except Refused as refused:
        said = (refused.cause or "").replace("password", options.kind.what)
        raise Problem(said) from None


def _fromInput() -> bytes:
    line: bytes = sys.stdin.buffer.readline()
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _askTwice(what: str) -> bytes:
    password = _ask(f"New {what}")
    if _ask(f"The same {what} again") != password:
        raise Problem(f"the two {what}s differ")
    return password


def _ask(prompt: str) -> bytes:
    with warnings.catch_warnings():
        # Without a terminal getpass would warn and read the password with echo.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return os.fsencode(getpass.getpass(f"{prompt.capitalize()}: "))
        except (EOFError, getpass.GetPassWarning):
            raise Problem("there is no terminal to ask at; use --stdin") from None


def _announce(options: argparse.Namespace, password: bytes) -> None:
    if options.kind.makesItself and not options.stdin:
        print(password.decode("ascii"))


# Users in lines.


def _find(lines: Sequence[bytes], user: bytes) -> list[int]:
    return [
        at
        for at, line in enumerate(lines)
        if isUserLine(line) and foldName(line.partition(b":")[0]) == foldName(user)
    ]


def _require(options: argparse.Namespace, lines: Sequence[bytes]) -> list[int]:
    found = _find(lines, options.user)
    if not found:
        raise Problem(f"{options.file}: there is no user {_shown(options.user)}")
    return found


def _refuseKnown(options: argparse.Namespace, lines: Sequence[bytes]) -> None:
    if _find(lines, options.user):
        user = _shown(options.user)
        raise Problem(f'{options.file}: {user} is there already; "change" sets a new password')


def _shown(user: bytes) -> str:
    return user.decode("utf-8", "backslashreplace")


# The file.


def _readLines(path: str, missing: bool = False) -> list[bytes]:
    """The lines of the file, without their ends.

    :param missing: whether a file that is not there has no lines, in place of being a problem.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        if missing:
            return []
        raise
    return content.removesuffix(b"\n").split(b"\n") if content else []


@contextlib.contextmanager
def _changing(path: str, allowed: int, missing: bool = False) -> Iterator[list[bytes]]:
    """Lines to be changed in place; written when the block ends well."""
    path = os.path.realpath(path)  # a link stays a link
    with _locked(path + ".lock"):
        lines = _readLines(path, missing)
        yield lines
        _replace(path, b"".join(line + b"\n" for line in lines), allowed)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    # A file of its own, which stays: the one that is locked must not be replaced meanwhile.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: str, content: bytes, allowed: int) -> None:
    """Put a file in the place of another, whole, on disk, and as accessible as the old one."""
    directory, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            _likeBefore(descriptor, path, allowed)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    syncDirectory(directory)


def _likeBefore(descriptor: int, path: str, allowed: int) -> None:
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return  # mkstemp has made it 0600
    made = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (made.st_uid, made.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & allowed)


# The command line.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="submitd-passwd",
        usage="%(prog)s [OPTION ...] FILE {add,change,remove,verify} USER\n"
        "       %(prog)s [OPTION ...] FILE list",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the file of users")
    parser.add_argument("command", choices=COMMANDS, help="what to do, see above")
    parser.add_argument("user", metavar="USER", nargs="?", help="the user's name, often an address")
    parser.add_argument(
        "--scheme",
        choices=COSTS,
        default="argon2",
        help="how a new password is hashed (default: %(default)s)",
    )
    parser.add_argument(
        "--stdin",
        action="store_true",
        help="read the password (or token) from the first line of standard input",
    )
    parser.add_argument(
        "--expires",
        metavar="DATE",
        help="with --tokens, the last day, or the time, at which a new token is good (ISO 8601)",
    )
    parser.add_argument(
        "--scram",
        action="store_true",
        help="with --secrets, keep the keys of SCRAM-SHA-256 in place of a new secret",
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.set_defaults(kind=HASHES)
    kinds.add_argument(
        "--secrets",
        dest="kind",
        action="store_const",
        const=SECRETS,
        help="FILE has the secrets themselves",
    )
    kinds.add_argument(
        "--tokens",
        dest="kind",
        action="store_const",
        const=TOKENS,
        help="FILE has digests of bearer tokens",
    )
    parser.add_argument("--version", action="version", version=submitd.__version__)
    return parser


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, understood; leaves with status 2 where it cannot be."""
    parser = _parser()
    # Intermixed, or an option between the command and the user would end the positional ones.
    options = parser.parse_intermixed_args(arguments)
    if (options.command == "list") is (options.user is not None):
        parser.error(f"{options.command} takes {'no' if options.user is not None else 'a'} USER")
    if options.user is not None:
        options.user = os.fsencode(options.user)
        problem = _userProblem(options.user)
        if problem:
            parser.error(problem)
    if options.scram and options.kind is not SECRETS:
        parser.error("--scram goes with --secrets")
    if options.expires is not None:
        if options.kind is not TOKENS:
            parser.error("--expires goes with --tokens")
        try:
            goodUntil = parseExpiry(options.expires)
        except BadLine as error:
            parser.error(str(error))
        if goodUntil <= time.time():
            parser.error(f"--expires {options.expires} is past: nobody could log in with the token")
    return options


def _userProblem(user: bytes) -> str:
    if b":" in user:
        return "a user name cannot have a colon, which ends it in the file"
    if user and not isUserLine(user):
        return "a user name cannot be blank or begin with #, which begins a comment"
    return nameProblem(user)


def _tell(text: str) -> None:
    print(f"submitd-passwd: {text}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: what follows the program's name; ``None`` for the process's own.
    :return: the exit status.
    """
    options = _options(arguments)
    try:
        return COMMANDS[options.command](options)
    except Problem as problem:
        _tell(str(problem))
    except OSError as error:
        # After a call on a descriptor the name is a number, or missing.
        path = error.filename if isinstance(error.filename, str) else options.file
        _tell(f"{path}: {error.strerror}")
    except KeyboardInterrupt:
        _tell("interrupted")
    return 1
