"""``submitd-dkim``: makes DKIM keys, and shows and checks their DNS records.

A new key is a file with mode 0600, made in one step: whatever happens, it is whole or not there,
and a file that is there is never written over.  Missing directories above it are made with mode
0700.  Nothing is asked of the DNS.  Exit status: 0 done, 1 not done, or the record does not fit
(standard error says why), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

import submitd
from submitd.equality import sameDomain
from submitd.files import syncDirectory
from submitd.message.dkimkeys import (
    MAX_BITS,
    SigningKey,
    readKeyFile,
    recordLine,
    recordProblem,
    recordText,
)
from submitd.wire.address import isDomain

DESCRIPTION = """\
Make DKIM keys, print their DNS records, and check whether a published record
fits a key. The keys are for the policy "dkim" of submitd.

commands:
  new       make a key and print its record
  record    print the record of a key
  check     tell whether a record, read from standard input, fits a key
"""

EPILOG = """\
files:
  FILE is a private key in PEM format. "new" makes it with mode 0600, and
  missing directories above it with mode 0700; it is never written over. Give
  it to the user that the service runs as.

records:
  With --selector and --domain a record is printed as a line of a zone file,
  in strings of 255 octets at most; else as its text. "check" takes both, and
  what dig prints.

exit status:
  0  done, or the record fits
  1  not done, or the record does not fit; standard error says why
  2  wrong usage

examples:
  submitd-dkim new /etc/submitd/dkim/2026a.pem -s 2026a -d example.com
  submitd-dkim new --type ed25519 /etc/submitd/dkim/2026e.pem
  dig +short TXT 2026a._domainkey.example.com |
    submitd-dkim check /etc/submitd/dkim/2026a.pem
"""

COMMANDS = ("new", "record", "check")
MIN_BITS = 2048
"""Bits of a new RSA key; fewer would be taken, and nobody should want them (RFC 8301 3.2)."""

# Octets of standard input; a record is shorter than a DNS message.
_MAX_RECORD = 65536


class Problem(Exception):
    """What is told on standard error, with exit status 1."""


def makeKey(kind: str, bits: int) -> bytes:
    """A new private key, as its file has it.

    :param kind: ``"rsa"`` or ``"ed25519"``.
    :param bits: of RSA.
    """
    isRSA = kind == "rsa"
    private = generate_private_key(65537, bits) if isRSA else Ed25519PrivateKey.generate()
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def writeKey(path: Path, octets: bytes) -> None:
    """Make a key file that its owner alone can read.

    :raise Problem: when there is something already.
    :raise OSError: when it cannot be written; then nothing is left behind but directories.
    """
    _makeDirectories(path.parent)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        # A link fails where a name is taken; a rename would put the old key away.
        os.link(temporary, path)
    except FileExistsError:
        raise Problem(f"{path}: is there already, and is not written over") from None
    finally:
        os.unlink(temporary)
    syncDirectory(path.parent)


def _makeDirectories(directory: Path) -> None:
    # mkdir(parents=True) would give the mode to the last one alone.
    for each in reversed((directory, *directory.parents)):
        if not each.exists():
            each.mkdir(stat.S_IRWXU)


def _read(path: Path) -> SigningKey:
    try:
        return readKeyFile(path)
    except ValueError as error:
        raise Problem(f"{path}: {error}") from None


def _show(options: argparse.Namespace) -> None:
    public = _read(options.file).public
    if options.selector is None:
        print(recordText(public))
    else:
        print(recordLine(public, options.selector, options.domain), end="")


def _new(options: argparse.Namespace) -> None:
    writeKey(options.file, makeKey(options.type, options.bits))
    _show(options)


def _check(options: argparse.Namespace) -> None:
    key = _read(options.file)
    text = sys.stdin.buffer.read(_MAX_RECORD).decode("utf-8", "replace")
    problem = recordProblem(text, key.public)
    if problem:
        raise Problem(f"the record {problem}")
    print("the record fits the key")


_RUN = {"new": _new, "record": _show, "check": _check}


# The command line.


def _domain(text: str) -> str:
    """A domain or selector, in A-labels."""
    domain = sameDomain(text.removesuffix("."))
    if not isDomain(domain) or len(domain) > 253:
        raise argparse.ArgumentTypeError(f"not a domain: {text!r}")
    return domain


def _bits(text: str) -> int:
    if not text.isdecimal() or not MIN_BITS <= int(text) <= MAX_BITS:
        raise argparse.ArgumentTypeError(f"must be {MIN_BITS} to {MAX_BITS}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="submitd-dkim",
        usage="%(prog)s [OPTION ...] {new,record,check} FILE",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help="what to do, see above")
    parser.add_argument("file", metavar="FILE", type=Path, help="the private key")
    parser.add_argument(
        "--type",
        choices=("rsa", "ed25519"),
        default="rsa",
        help="what kind of key is made (default: %(default)s)",
    )
    parser.add_argument(
        "--bits",
        type=_bits,
        default=MIN_BITS,
        help="how long a new RSA key is (default: %(default)s)",
    )
    parser.add_argument(
        "-s", "--selector", type=_domain, help="what stands before ._domainkey.DOMAIN"
    )
    parser.add_argument("-d", "--domain", type=_domain, help="the domain that signs")
    parser.add_argument("--version", action="version", version=submitd.__version__)
    return parser


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    if (options.selector is None) is not (options.domain is None):
        parser.error("--selector and --domain belong together")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: what follows the program's name; ``None`` for the process's own.
    :return: the exit status.
    """
    options = _options(arguments)
    try:
        _RUN[options.command](options)
    except Problem as problem:
        _tell(str(problem))
    except OSError as error:
        _tell(f"{error.filename or options.file}: {error.strerror}")
    except KeyboardInterrupt:
        _tell("interrupted")
    else:
        return 0
    return 1


def _tell(text: str) -> None:
    print(f"submitd-dkim: {text}", file=sys.stderr)
