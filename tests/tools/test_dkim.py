"""submitd-dkim: keys that nobody else can read, and records that fit them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest, mock

from twisted.trial.unittest import SynchronousTestCase

from submitd.message.dkimkeys import readKeyFile, recordText
from submitd.tools import dkim
from tests.policies.test_dkim import privateKey, write
from tests.running import environment


class DKIMCase(SynchronousTestCase):
    """Runs the program's function, with its input and output."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.file = self.directory / "keys" / "s1.pem"

    def run_(self, *words: str | Path, given: bytes = b"") -> tuple[int, str, str]:
        """The exit status, and what was printed."""
        out, wrong = io.StringIO(), io.StringIO()
        standardInput = io.TextIOWrapper(io.BytesIO(given))
        with (
            mock.patch.object(sys, "stdin", standardInput),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(wrong),
        ):
            try:
                status = dkim.main([str(word) for word in words])
            except SystemExit as end:
                status = int(end.code or 0)
        return status, out.getvalue(), wrong.getvalue()

    def mode(self, path: Path) -> int:
        """The permission bits."""
        return stat.S_IMODE(path.stat().st_mode)


class NewTests(DKIMCase):
    """Making keys."""

    def test_new(self) -> None:
        """A key is RSA with 2048 bits, and its owner's alone whatever the umask is."""
        self.addCleanup(os.umask, os.umask(0))
        status, out, wrong = self.run_("new", self.file, "-s", "s1", "-d", "example.com.")
        self.assertEqual((status, wrong), (0, ""))
        self.assertEqual(self.mode(self.file), 0o600)
        self.assertEqual([self.mode(each) for each in self.file.parents[:2]], [0o700, 0o700])
        key = readKeyFile(self.file)
        self.assertEqual(key.algorithm, "rsa-sha256")
        self.assertTrue(out.startswith("s1._domainkey.example.com. IN TXT ( "))
        self.assertEqual("".join(re.findall('"(.*?)"', out)), recordText(key.public))
        self.assertEqual(os.listdir(self.file.parent), ["s1.pem"])

    def test_ed25519(self) -> None:
        """The other kind, with the record's text where no name is given."""
        status, out, _ = self.run_("new", "--type", "ed25519", self.file)
        self.assertEqual(status, 0)
        self.assertRegex(out, "^v=DKIM1; k=ed25519; p=.{44}\n$")
        self.assertEqual(readKeyFile(self.file).algorithm, "ed25519-sha256")

    def test_bits(self) -> None:
        """An RSA key may be longer."""
        self.assertEqual(self.run_("new", "--bits", "3072", self.file)[0], 0)
        self.assertGreater(len(self.run_("record", self.file)[1]), 550)

    def test_neverWrittenOver(self) -> None:
        """A key that is there stays: mail may be signed with it right now."""
        self.run_("new", "--type", "ed25519", self.file)
        before = self.file.read_bytes()
        status, _, wrong = self.run_("new", "--type", "ed25519", self.file)
        self.assertEqual(status, 1)
        self.assertIn("is there already", wrong)
        self.assertEqual(self.file.read_bytes(), before)
        self.assertEqual(os.listdir(self.file.parent), ["s1.pem"])

    def test_cannotBeWritten(self) -> None:
        """A directory that is a file is a sentence, and no traceback."""
        self.directory.write_text("x")
        status, _, wrong = self.run_("new", "--type", "ed25519", self.file)
        self.assertEqual(status, 1)
        self.assertRegex(wrong, "^submitd-dkim: .*: Not a directory\n$")


class RecordTests(DKIMCase):
    """Records of keys that are there."""

    def test_check(self) -> None:
        """A record fits its own key and no other; what is wrong is said."""
        self.directory.mkdir()
        key = write(self.directory / "a", privateKey("2048"))
        other = write(self.directory / "b", privateKey("2048", 1))
        for words in ([], ["-s", "s1", "-d", "example.com"]):
            record = self.run_("record", key, *words)[1].encode()
            self.assertEqual(
                self.run_("check", key, given=record), (0, "the record fits the key\n", "")
            )
            self.assertEqual(
                self.run_("check", other, given=record),
                (1, "", "submitd-dkim: the record has another public key\n"),
            )
        status, _, wrong = self.run_("check", key, given=b"\xff\xff")
        self.assertEqual(status, 1)
        self.assertIn("is malformed", wrong)

    def test_openDKIM(self) -> None:
        """Keys and records that opendkim-genkey made are as good as our own."""
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
        program = shutil.which("opendkim-genkey", path=path)
        if program is None:
            raise SkipTest("opendkim-genkey is not installed")
        self.directory.mkdir()
        subprocess.run(
            [program, "-D", str(self.directory), "-d", "example.com", "-s", "s1"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        record = (self.directory / "s1.txt").read_bytes()
        self.assertEqual(
            self.run_("check", self.directory / "s1.private", given=record)[1:],
            ("the record fits the key\n", ""),
        )

    def test_notAKey(self) -> None:
        """A file that the service would not take is not taken here."""
        self.directory.mkdir()
        for octets, mode, said in (
            (b"x", 0o600, "is no private key"),
            (privateKey("ed25519"), 0o644, "may be read or written by others"),
        ):
            path = write(self.directory / "a", octets, mode)
            status, _, wrong = self.run_("record", path)
            self.assertEqual(status, 1)
            self.assertIn(said, wrong)
        status, _, wrong = self.run_("record", self.directory / "missing")
        self.assertEqual(status, 1)
        self.assertIn("No such file or directory", wrong)


class CommandLineTests(DKIMCase):
    """What can be asked for."""

    def test_usage(self) -> None:
        """What makes no sense is status 2, and nothing is made."""
        for words in (
            [],
            ["new"],
            ["make", "x"],
            ["new", "--bits", "1024", "x"],
            ["new", "--bits", "many", "x"],
            ["new", "--type", "dsa", "x"],
            ["new", "-s", "s1", "x"],
            ["new", "-s", "s1", "-d", "no domain", "x"],
            ["new", "-s", "a..b", "-d", "example.com", "x"],
        ):
            self.assertEqual(self.run_(*words)[0], 2, words)
        self.assertFalse(Path("x").exists())

    def test_international(self) -> None:
        """Domains are printed as the DNS has them."""
        out = self.run_(
            "new", "--type", "ed25519", self.file, "-s", "s1", "-d", "b\u00fccher.example"
        )
        self.assertIn("s1._domainkey.xn--bcher-kva.example. IN TXT", out[1])

    def test_help(self) -> None:
        """The help tells every command."""
        status, out, _ = self.run_("--help")
        self.assertEqual(status, 0)
        for command in dkim.COMMANDS:
            self.assertIn(f"\n  {command} ", out)

    def test_interrupted(self) -> None:
        """Whoever interrupts it gets a word and status 1."""
        self.patch(dkim, "makeKey", mock.Mock(side_effect=KeyboardInterrupt))
        self.assertEqual(self.run_("new", self.file), (1, "", "submitd-dkim: interrupted\n"))

    def test_process(self) -> None:
        """It runs as a program, and reads the record from a pipe."""
        self.directory.mkdir()
        key = write(self.directory / "a", privateKey("ed25519"))
        program = "import sys; from submitd.tools.dkim import main; sys.exit(main())"
        for record, status in ((recordText(readKeyFile(key).public), 0), ("v=DKIM1; p=", 1)):
            done = subprocess.run(
                [sys.executable, "-c", program, "check", str(key)],
                input=record.encode(),
                env=environment(),
                capture_output=True,
                timeout=60,
            )
            self.assertEqual(done.returncode, status, done.stderr)
