"""DKIM keys: the private one in its file, the public one in the DNS (RFC 6376 3.6, RFC 8463).

A private key is a PEM file, RSA or Ed25519, without a password, and nobody but its owner and group
may read it.  RSA keys have 1024 to 4096 bits (RFC 8301 3.2): what verifiers must not accept is not
signed with, nor what they need not accept.

:class:`KeyFile` reads its file again when it has changed.  A file that can no longer be read, or is
no good key, leaves the one before in use.  All of it may be called in any thread; what is to be
logged is kept for :meth:`KeyFile.tell`, which belongs to the reactor's.

Only the cryptography package is used, which has the algorithms in C and in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from submitd import events
from submitd.events import Event
from submitd.files import Stamp, settledStamp, stampOf

MIN_BITS, MAX_BITS = 1024, 4096
"""Bits of an RSA key."""

MAX_OCTETS = 64 * 1024
"""Octets of the largest key file; what is longer is something else."""

# RFC 1035 3.3: a character-string has up to 255 octets; a TXT record has any number of them.
STRING_OCTETS = 255

_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')

PublicKey = RSAPublicKey | Ed25519PublicKey


class SigningKey:
    """A private key with what DKIM calls it.

    :ivar algorithm: the tag a= of a signature.
    """

    def __init__(self, private: RSAPrivateKey | Ed25519PrivateKey) -> None:
        self._private = private
        isRSA = isinstance(private, RSAPrivateKey)
        self.algorithm = "rsa-sha256" if isRSA else "ed25519-sha256"

    @property
    def public(self) -> PublicKey:
        """The other half of it."""
        return self._private.public_key()

    def sign(self, octets: bytes) -> bytes:
        """Sign octets; a millisecond or less."""
        if isinstance(self._private, RSAPrivateKey):
            return self._private.sign(octets, padding.PKCS1v15(), hashes.SHA256())
        # RFC 8463 3: the digest is what Ed25519 signs.
        return self._private.sign(hashlib.sha256(octets).digest())


def readKey(octets: bytes) -> SigningKey:
    """The key in a PEM file; takes 30 ms for RSA, since it is examined.

    :raise ValueError: when it is none that mail can be signed with; says why.
    """
    try:
        private = serialization.load_pem_private_key(octets, None)
    except TypeError:
        raise ValueError("is encrypted with a password, and nobody is there to type it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no private key in PEM format") from None
    if isinstance(private, RSAPrivateKey):
        if not MIN_BITS <= private.key_size <= MAX_BITS:
            said = (
                f"is an RSA key of {private.key_size} bits; it must have {MIN_BITS} to {MAX_BITS}"
            )
            raise ValueError(f"{said}, and should have 2048")
    elif not isinstance(private, Ed25519PrivateKey):
        raise ValueError("is neither an RSA nor an Ed25519 key")
    return SigningKey(private)


def readKeyFile(path: Path) -> SigningKey:
    """The key in a file that nobody else can read.

    :raise ValueError: when it is no such file; says why.
    :raise OSError: when it cannot be read.
    """
    with open(path, "rb", opener=_withoutWaiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is no file")
        mode = stat.S_IMODE(found.st_mode)
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            said = "may be read or written by others than its owner and group"
            raise ValueError(f"{said} (mode {mode:04o}); chmod 0600 it, and make a new key")
        octets = file.read(MAX_OCTETS + 1)
    if len(octets) > MAX_OCTETS:
        raise ValueError("is too large for a key")
    return readKey(octets)


def _withoutWaiting(path: str, flags: int) -> int:
    # A pipe without a writer would be waited for.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


class KeyFile:
    """A private key that is read again when its file has changed.

    :param path: the file.
    :param seconds: the time of day, to compare with the file's.
    """

    def __init__(self, path: Path, seconds: Callable[[], float] = time.time) -> None:
        self.path = path
        self._seconds = seconds
        self._key: SigningKey | None = None
        self._stamp: Stamp | None = None
        self._problem = ""
        self._news: deque[tuple[Event, dict[str, object]]] = deque()
        self._lock = threading.Lock()

    def key(self, again: bool = False) -> SigningKey | None:
        """The key as it is now; ``None`` as long as there has been none.

        :param again: whether it is read even when it has not changed.
        """
        with self._lock:
            try:
                found = os.stat(self.path)
                if again or stampOf(found) != self._stamp:
                    self._stamp = settledStamp(found, self._seconds())
                    self._take(readKeyFile(self.path))
            except OSError as error:
                self._stamp = None
                self._broken(f"cannot be read: {error.strerror}")
            except ValueError as error:
                self._broken(str(error))
            return self._key

    def _take(self, key: SigningKey) -> None:
        self._problem = ""
        if self._key is None or fingerprint(key.public) != fingerprint(self._key.public):
            self._news.append((events.FILE_READ, {"file": self.path, "entries": 1}))
        self._key = key

    def _broken(self, problem: str) -> None:
        # Once, and not at each message until somebody repairs it.
        if problem != self._problem:
            self._problem = problem
            kept = "; the key before stays in use" if self._key is not None else ""
            self._news.append((events.FILE_PROBLEM, {"file": self.path, "problem": problem + kept}))

    def tell(self) -> None:
        """Log what has happened; on the reactor's thread."""
        while self._news:
            event, fields = self._news.popleft()
            events.emit(event, **fields)

    def check(self) -> list[str]:
        """What is wrong with the file, in sentences."""
        try:
            readKeyFile(self.path)
        except OSError as error:
            return [f"{self.path}: cannot be read: {error.strerror}"]
        except ValueError as error:
            return [f"{self.path}: {error}"]
        return []


# The public key, as the DNS has it.


def fingerprint(key: PublicKey) -> bytes:
    """The octets behind ``p=``, before base64 (RFC 6376 3.6.1, RFC 8463 4.2)."""
    if isinstance(key, RSAPublicKey):
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return key.public_bytes(serialization.Encoding.DER, form)
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def recordText(key: PublicKey) -> str:
    """The text of the TXT record for a key (RFC 6376 3.6.1)."""
    kind = "rsa" if isinstance(key, RSAPublicKey) else "ed25519"
    return f"v=DKIM1; k={kind}; p={base64.b64encode(fingerprint(key)).decode('ascii')}"


def recordLine(key: PublicKey, selector: str, domain: str) -> str:
    """The TXT record as a zone file has it (RFC 1035 5.1), in strings of 255 octets at most.

    :param selector: and ``domain``, both as A-labels.
    """
    text = recordText(key)
    cut = [text[at : at + STRING_OCTETS] for at in range(0, len(text), STRING_OCTETS)]
    strings = "\n\t".join(f'"{each}"' for each in cut)
    return f"{selector}._domainkey.{domain}. IN TXT ( {strings} )\n"


def recordProblem(text: str, key: PublicKey) -> str:
    """Why a published record does not fit a key; empty when it does.

    :param text: the record's text, or its strings in quotes as ``dig`` and zone files show them.
    """
    try:
        tags = _tags(text)
        published = base64.b64decode("".join(tags.get("p", "").split()), validate=True)
    except (ValueError, binascii.Error) as error:
        return f"is malformed: {error}"
    problem = _tagProblem(tags, key)
    if problem:
        return problem
    found = _readPublic(published)
    same = published if found is None else fingerprint(found)
    return "" if same == fingerprint(key) else "has another public key"


def _tagProblem(tags: dict[str, str], key: PublicKey) -> str:
    """What RFC 6376 3.6.1 has a verifier look at, but for the key itself."""
    kind = "rsa" if isinstance(key, RSAPublicKey) else "ed25519"
    if "v" in tags and (tags["v"] != "DKIM1" or next(iter(tags)) != "v"):
        return "does not begin with v=DKIM1"
    if "p" not in tags:
        return "has no public key (p=)"
    if not tags["p"]:
        return "says that the key is revoked (p= is empty)"
    if tags.get("k", "rsa") != kind:
        return f"is for a key of type {tags.get('k', 'rsa')}, not {kind}"
    if "sha256" not in _words(tags.get("h", "sha256")):
        return "does not allow SHA-256 (h=)"
    if not {"*", "email"} & set(_words(tags.get("s", "*"))):
        return "is not for mail (s=)"
    return ""


def _words(value: str) -> list[str]:
    return [word.strip() for word in value.split(":")]


def _tags(text: str) -> dict[str, str]:
    """A tag-list (RFC 6376 3.2)."""
    quoted = _QUOTED.findall(text)
    whole = re.sub(r"\\(.)", r"\1", "".join(quoted)) if quoted else text
    tags: dict[str, str] = {}
    for part in whole.strip().removesuffix(";").split(";"):
        match = _TAG.fullmatch(part)
        if match is None:
            raise ValueError("a part of it is no tag=value")
        if match[1] in tags:
            raise ValueError(f"{match[1]}= stands there twice")
        tags[match[1]] = match[2].strip()
    return tags


def _readPublic(octets: bytes) -> PublicKey | None:
    """An RSA key, with or without what SubjectPublicKeyInfo puts around it (RFC 6376 3.6.1)."""
    try:
        found = serialization.load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return found if isinstance(found, RSAPublicKey) else None
