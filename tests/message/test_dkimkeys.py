"""DKIM keys: files that can be signed with, and records that fit them."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from submitd import events
from submitd.message.dkimkeys import (
    KeyFile,
    readKey,
    readKeyFile,
    recordLine,
    recordProblem,
    recordText,
)
from tests.policies.test_dkim import privateKey, write

PKCS1 = serialization.PublicFormat.PKCS1


def asPEM(private: Any, password: bytes | None = None) -> bytes:
    """A private key of any kind in the oldest format, perhaps encrypted."""
    octets: bytes = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )
    return octets


class ReadTests(SynchronousTestCase):
    """What is a key."""

    def test_kinds(self) -> None:
        """RSA in either format, and Ed25519."""
        self.assertEqual(readKey(privateKey("2048")).algorithm, "rsa-sha256")
        self.assertEqual(readKey(privateKey("ed25519")).algorithm, "ed25519-sha256")
        traditional = asPEM(rsa.generate_private_key(65537, 1024))
        self.assertEqual(readKey(traditional).algorithm, "rsa-sha256")

    def test_refused(self) -> None:
        """What nobody would verify, and what cannot be read, says why."""
        for octets, said in (
            (b"", "is no private key in PEM format"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is no private"),
            (asPEM(rsa.generate_private_key(65537, 1024), b"x"), "is encrypted"),
            (asPEM(ec.generate_private_key(ec.SECP256R1())), "is neither an RSA nor"),
            (asPEM(dsa.generate_private_key(1024)), "is neither an RSA nor"),
            (WEAK, "is an RSA key of 512 bits; it must have 1024 to 4096"),
        ):
            error = self.assertRaises(ValueError, readKey, octets)
            self.assertIn(said, str(error))

    def test_files(self) -> None:
        """Others may neither read nor change a key file, and it must be a file of some size."""
        path = Path(self.mktemp())
        for mode in (0o600, 0o400, 0o640, 0o440):
            write(path, privateKey("ed25519"), mode)
            self.assertEqual(readKeyFile(path).algorithm, "ed25519-sha256")
        for mode in (0o644, 0o604, 0o602, 0o601, 0o660, 0o666):
            write(path, privateKey("ed25519"), mode)
            error = self.assertRaises(ValueError, readKeyFile, path)
            self.assertIn(f"(mode {mode:04o})", str(error))
        error = self.assertRaises(ValueError, readKeyFile, write(path, b"x" * 70_000))
        self.assertIn("too large", str(error))
        path.unlink()
        os.mkfifo(path, 0o600)
        error = self.assertRaises(ValueError, readKeyFile, path)
        self.assertEqual(str(error), "is no file")


# Whoever makes keys today makes none that is that small.
WEAK = b"""-----BEGIN RSA PRIVATE KEY-----
MIIBOgIBAAJBAND5uH3gAV+CJSuiEhJ36XQTUqc7WVqOxRlLIt6aRLmNyGx6DkOr
fCh6BekCcGiGLgkrIDl3VaVaEy1L4Nyzhl0CAwEAAQJAFRLp0P/TA5+rQfAxJF2l
VEhSkHzCsQguxjM2i/5Aqfl8d/WpMXXAQ35EdjLrCyzw1nubmsVAc5yU2MTLLLKt
HQIhAP+HHjtKDIGl38vp81Fo3YBRtK911Jf65VchaPuHcLDbAiEA0VyUhr1j4SsA
fSUVCcSqf6TuFvYwxhOe0mIMCN9vTycCIAiN63MsrXKBrRZUhLLLAe9TzOq61R0p
ZxgdpDgXdqxVAiAanSU4V5z5w6ilP/CDtF9kKIgnnRYoJ9hZsCMNgbG5owIhAINA
XcDqwcefUlCOvD1c/4935I5V6Lh+a3NU6DF+c3TJ
-----END RSA PRIVATE KEY-----
"""


class KeyFileTests(SynchronousTestCase):
    """A file that is read again when it has changed."""

    def setUp(self) -> None:
        super().setUp()
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.path = write(Path(self.mktemp()), privateKey("ed25519"))
        os.utime(self.path, (1000, 1000))
        self.now = 1000.0
        self.file = KeyFile(self.path, lambda: self.now)

    def test_onlyWhenChanged(self) -> None:
        """A settled file is looked at and not read."""
        self.now = 2000.0
        first = self.file.key()
        self.assertIs(self.file.key(), first)
        self.assertIsNot(self.file.key(again=True), first)
        os.utime(self.path, (1001, 1001))
        self.assertIsNot(self.file.key(), first)

    def test_young(self) -> None:
        """A file that was just written is read again: the next write may leave the same time."""
        first = self.file.key()
        self.assertIsNot(self.file.key(), first)

    def test_told(self) -> None:
        """It is told of when somebody says so, and the same key is no news."""
        self.file.key()
        self.file.key()
        self.assertEqual(self.logged, [])
        self.file.tell()
        self.file.tell()
        self.assertEqual([each["event"] for each in self.logged], ["file-read"])

    def test_repaired(self) -> None:
        """What is broken is told of once, and again when it was repaired in between."""
        for _ in range(2):
            write(self.path, b"x")
            self.file.key()
            self.file.key()
            write(self.path, privateKey("ed25519"))
            self.file.key()
        self.file.tell()
        self.assertEqual(
            [each["event"] for each in self.logged],
            ["file-problem", "file-read", "file-problem"],
        )


class RecordTests(SynchronousTestCase):
    """The record in the DNS."""

    def setUp(self) -> None:
        self.rsa = readKey(privateKey("2048")).public
        self.ed25519 = readKey(privateKey("ed25519")).public

    def test_text(self) -> None:
        """The text names the kind and has the key."""
        self.assertRegex(recordText(self.rsa), r"^v=DKIM1; k=rsa; p=[A-Za-z0-9+/]{392}$")
        self.assertRegex(recordText(self.ed25519), r"^v=DKIM1; k=ed25519; p=[A-Za-z0-9+/]{43}=$")

    def test_line(self) -> None:
        """A zone file has the name, and strings that are short enough."""
        line = recordLine(self.rsa, "s1", "example.com")
        self.assertTrue(line.startswith("s1._domainkey.example.com. IN TXT ( "))
        strings = re.findall(r'"([^"]*)"', line)
        self.assertEqual("".join(strings), recordText(self.rsa))
        self.assertEqual(len(strings), 2)
        self.assertLessEqual(max(map(len, strings)), 255)

    def test_fits(self) -> None:
        """A record fits its key, as text, in quotes, with other tags, or without the envelope."""
        bare = self.rsa.public_bytes(serialization.Encoding.DER, PKCS1)
        published = base64.b64encode(bare).decode()
        for text, key in (
            (recordText(self.rsa), self.rsa),
            (recordText(self.ed25519), self.ed25519),
            (recordLine(self.rsa, "s1", "example.com"), self.rsa),
            (f" v=DKIM1 ; h=sha1:sha256; s=email:x; t=y; n=note; p={published} ;", self.rsa),
            (f"p={published[:90]} {published[90:]}", self.rsa),
        ):
            self.assertEqual(recordProblem(text, key), "")

    def test_doesNotFit(self) -> None:
        """What keeps a verifier from taking the key is said."""
        good = recordText(self.rsa)
        for text, said in (
            ("", "is malformed: a part of it is no tag=value"),
            ("v=DKIM1; nonsense", "is malformed: a part"),
            ("v=DKIM1; p=AAAA; p=AAAA", "is malformed: p= stands there twice"),
            ("v=DKIM1; p=A", "is malformed"),
            ("v=DKIM1; k=rsa", "has no public key"),
            ("v=DKIM1; p=", "is revoked"),
            ("v=DKIM1; p=AAAA", "has another public key"),
            (good.replace("DKIM1", "DKIM2"), "does not begin with v=DKIM1"),
            (good.removeprefix("v=DKIM1; ") + "; v=DKIM1", "does not begin with v=DKIM1"),
            (good + "; h=sha1", "does not allow SHA-256"),
            (good + "; s=tlsrpt", "is not for mail"),
            (recordText(self.ed25519), "is for a key of type ed25519, not rsa"),
            (recordText(readKey(privateKey("2048", 1)).public), "has another public key"),
        ):
            self.assertIn(said, recordProblem(text, self.rsa))
