"""Tests for :mod:`submitd.tools.passwd`."""

from __future__ import annotations

import datetime
import getpass
import io
import os
import stat
import subprocess
import sys
import types
import unittest.mock
import warnings
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import execute
from twisted.trial.unittest import SynchronousTestCase

import submitd
from submitd.checkers import hashes
from submitd.checkers.htpasswd import HtpasswdChecker
from submitd.checkers.secrets import SecretsChecker
from submitd.checkers.tokens import TokensChecker
from submitd.sasl.credentials import BearerToken, UsernamePassword
from submitd.tools import passwd

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(submitd.__file__)))


class PasswdTestCase(SynchronousTestCase):
    """The command run in this process, with its files and streams.

    :ivar path: the file of users.
    :ivar typed: what the person at the terminal types, one answer after the other.
    :ivar now: the time of day.
    """

    def setUp(self) -> None:
        """No file yet, cheap hashes, nobody at the terminal."""
        os.mkdir(directory := self.mktemp())
        self.path = os.path.join(directory, "users")
        self.typed: list[str] = []
        self.prompts: list[str] = []
        self.patch(getpass, "getpass", self.ask)
        self.now = datetime.datetime(2026, 6, 15, 12, tzinfo=datetime.UTC).timestamp()
        self.patch(passwd, "time", types.SimpleNamespace(time=lambda: self.now))
        cheap = {
            "argon2": {"memory_cost": 64, "time_cost": 1, "parallelism": 1},
            "bcrypt": {"rounds": 4},
            "scrypt": {"rounds": 2},
            "sha512_crypt": {"rounds": 1000},
            "pbkdf2_sha256": {"rounds": 10},
        }
        self.assertEqual(set(cheap), set(hashes.COSTS))
        self.patch(hashes, "COSTS", cheap)

    def ask(self, prompt: str) -> str:
        """Answer like a person, or like no terminal."""
        self.prompts.append(prompt)
        if not self.typed:
            warnings.warn("no terminal", getpass.GetPassWarning, stacklevel=1)
        return self.typed.pop(0)

    def run_(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        streams = [io.TextIOWrapper(io.BytesIO(stdin), "utf-8"), io.StringIO(), io.StringIO()]
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            self.patch(sys, name, stream)
        try:
            status = passwd.main(arguments)
        except SystemExit as left:
            status = int(left.code or 0)
        return status, streams[1].getvalue(), streams[2].getvalue()  # type: ignore[attr-defined]

    def do(self, *arguments: str, stdin: bytes = b"") -> str:
        """Standard output of a command that is done."""
        status, said, error = self.run_(*arguments, stdin=stdin)
        self.assertEqual((status, error), (0, ""))
        return said

    def fails(self, *arguments: str, stdin: bytes = b"", status: int = 1) -> str:
        """Standard error of a command that is not."""
        left, said, error = self.run_(*arguments, stdin=stdin)
        self.assertEqual((left, said), (status, ""))
        return error

    def write(self, *lines: str, mode: int = 0o600) -> None:
        """The file as somebody else has written it."""
        with open(self.path, "w") as file:
            file.write("".join(line + "\n" for line in lines))
        os.chmod(self.path, mode)

    def content(self) -> list[str]:
        """The file's lines now."""
        with open(self.path) as file:
            return file.read().splitlines()

    def assertLogin(self, checker: Any, credentials: Any, good: bool = True) -> None:
        """Whether the service would let these in."""
        login = checker.requestAvatarId(credentials)
        if good:
            self.assertEqual(self.successResultOf(login), credentials.username)
        else:
            self.failureResultOf(login, UnauthorizedLogin)

    def assertPassword(self, user: bytes, password: bytes, good: bool = True) -> None:
        """Whether the service takes that password."""
        checker = HtpasswdChecker(self.path, execute)
        self.assertLogin(checker, UsernamePassword(user, password), good)


class HashesTests(PasswdTestCase):
    """A file of password hashes."""

    def test_add(self) -> None:
        """A user who is added can log in; the new file is for its owner alone."""
        self.typed = ["wonder", "wonder"]
        self.assertEqual(self.do(self.path, "add", "alice@example.com"), "")
        self.assertPassword(b"alice@example.com", b"wonder")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(self.prompts, ["New password: ", "The same password again: "])

    def test_stdin(self) -> None:
        """With --stdin the first line is the password, whatever ends it, and nobody is asked."""
        for at, line in enumerate((b"wonder\n", b"wonder\r\n", b"wonder", b"wonder\nmore\n")):
            self.do(self.path, "add", "--stdin", f"user{at}", stdin=line)
            self.assertPassword(b"user%d" % at, b"wonder")
        self.assertEqual(self.prompts, [])

    def test_schemes(self) -> None:
        """Each scheme makes a hash that the service takes; argon2 is the default."""
        for scheme in hashes.COSTS:
            self.do("--scheme", scheme, self.path, "add", scheme, "--stdin", stdin=b"wonder")
            self.assertPassword(scheme.encode(), b"wonder")
        self.do(self.path, "add", "alice", "--stdin", stdin=b"wonder")
        self.assertIn("alice:$argon2id$", self.content()[-1])

    def test_odd(self) -> None:
        """Passwords and names outside ASCII are the octets that a mail program sends."""
        self.do(self.path, "add", "jörg", "--stdin", stdin=b" p\xe4\xdf:wort ")
        self.assertPassword("jörg".encode(), b" p\xe4\xdf:wort ")
        self.typed = ["пароль", "пароль"]
        self.do(self.path, "add", "olga")
        self.assertPassword(b"olga", "пароль".encode())

    def test_addKnown(self) -> None:
        """A user who is there, in any case, is not added, and nobody is asked for a password."""
        self.write("Alice:x")
        error = self.fails(self.path, "add", "alice")
        self.assertIn(f'{self.path}: alice is there already; "change" sets a new', error)
        self.assertEqual((self.content(), self.prompts), (["Alice:x"], []))

    def test_addedMeanwhile(self) -> None:
        """A user whom somebody else adds while the password is typed is not added twice."""

        def ask(prompt: str) -> str:
            self.write("alice:x")
            return "wonder"

        self.patch(getpass, "getpass", ask)
        self.assertIn("there already", self.fails(self.path, "add", "alice"))
        self.assertEqual(self.content(), ["alice:x"])

    def test_change(self) -> None:
        """A change replaces the line where it is; all else stays, also what is not understood."""
        self.write("# people", "", "Alice:$apr1$weak:Alice L.", "rubbish", "bob:x", "alice:two")
        self.typed = ["land", "land"]
        self.do(self.path, "change", "alice")
        lines = self.content()
        self.assertRegex(lines.pop(2), r"^Alice:\$argon2id\$[^:]*:Alice L\.$")
        self.assertEqual(lines, ["# people", "", "rubbish", "bob:x"])
        self.assertPassword(b"Alice", b"land")

    def test_remove(self) -> None:
        """A user who is removed is out, with every line, and no other is."""
        self.write("alice:1", "# alice:1", "Alice:2", "alice2:3")
        self.do(self.path, "remove", "ALICE")
        self.assertEqual(self.content(), ["# alice:1", "alice2:3"])

    def test_lastUser(self) -> None:
        """The last user can be removed too."""
        self.write("alice:1")
        self.do(self.path, "remove", "alice")
        self.assertEqual(self.content(), [])

    def test_unknown(self) -> None:
        """Commands for a user who is not there say so, and ask for nothing."""
        self.write("alice:x")
        for command in ("change", "remove", "verify"):
            error = self.fails(self.path, command, "bob")
            self.assertEqual(error, f"submitd-passwd: {self.path}: there is no user bob\n")
        self.assertEqual((self.content(), self.prompts), (["alice:x"], []))

    def test_list(self) -> None:
        """Users are listed by name, once; lines that let nobody in are named on standard error."""
        self.do(self.path, "add", "jörg", "--stdin", stdin=b"x")
        self.do(self.path, "add", "bob", "--stdin", stdin=b"x")
        [one, two] = self.content()
        self.write(
            "# people", one, two, two.replace("bob", "Bob"), "s3cret", "eve:s3cret", "\x07:x"
        )
        status, said, error = self.run_(self.path, "list")
        self.assertEqual((status, said), (0, "jörg\nbob\n"))
        self.assertEqual(
            [text.split(": ")[2] for text in error.splitlines()][:2], ["line 5", "line 6"]
        )
        self.assertEqual(len(error.splitlines()), 3)
        self.assertNotIn("s3cret", error)

    def test_verify(self) -> None:
        """The exit status tells whether the password is right."""
        self.do(self.path, "add", "alice", "--stdin", stdin=b"wonder")
        self.typed = ["wonder"]
        self.assertEqual(self.do(self.path, "verify", "alice"), "the password is right\n")
        self.assertEqual(self.prompts, ["Password: "])
        error = self.fails(self.path, "verify", "ALICE", "--stdin", stdin=b"land")
        self.assertEqual(error, "submitd-passwd: the password is wrong\n")

    def test_verifyBadLine(self) -> None:
        """A line that lets nobody in is named, not called a wrong password."""
        self.write("", "alice:{SHA}s3cret")
        error = self.fails(self.path, "verify", "alice", "--stdin", stdin=b"x")
        self.assertIn(f"{self.path}: line 2: SHA-1 hashes are too weak", error)
        self.assertIn("no line of alice can be used", error)
        self.assertNotIn("s3cret", error)

    def test_verifyBehindBadLine(self) -> None:
        """A broken line is named, and the next one counts, as it does for the service."""
        token = self.do("--tokens", self.path, "add", "alice").strip()
        self.write("alice:s3cret", *self.content())
        verify = ("--tokens", self.path, "verify", "alice", "--stdin")
        for stdin, wanted in ((token.encode(), (0, "the token is right\n")), (b"x", (1, ""))):
            status, said, error = self.run_(*verify, stdin=stdin)
            self.assertEqual((status, said), wanted)
            self.assertIn(f"{self.path}: line 1: the digest is not 64 hexadecimal digits", error)
            self.assertNotIn("s3cret", error)
        self.write("alice:{SHA}s3cret", "alice:" + hashes.hashPassword(b"wonder"))
        status, said, _ = self.run_(self.path, "verify", "alice", "--stdin", stdin=b"wonder")
        self.assertEqual((status, said), (0, "the password is right\n"))

    def test_impossiblePasswords(self) -> None:
        """What no client could send, or the scheme would not read, is refused; no file is made."""
        for stdin, options, said in (
            (b"", (), "the password is empty"),
            (b"\n", (), "the password is empty"),
            (b"a\0b", (), "the password has a NUL"),
            (b"x" * 1025, (), "the password has more than 1024 octets"),
            (b"x" * 73, ("--scheme", "bcrypt"), "bcrypt reads 72 octets"),
        ):
            error = self.fails(self.path, "add", "alice", "--stdin", *options, stdin=stdin)
            self.assertIn(said, error)
        self.assertFalse(os.path.exists(self.path))

    def test_typedTwice(self) -> None:
        """A slip of the finger is noticed."""
        self.typed = ["wonder", "wunder"]
        self.assertIn("the two passwords differ", self.fails(self.path, "add", "alice"))

    def test_noTerminal(self) -> None:
        """Without a terminal the password is not read with echo: it says what to do."""
        self.assertIn("use --stdin", self.fails(self.path, "add", "alice"))

    def test_interrupted(self) -> None:
        """Ctrl-C leaves everything as it was, without a traceback."""

        def ask(prompt: str) -> str:
            raise KeyboardInterrupt

        self.patch(getpass, "getpass", ask)
        self.assertEqual(self.fails(self.path, "add", "alice"), "submitd-passwd: interrupted\n")
        self.assertFalse(os.path.exists(self.path))


class OtherFilesTests(PasswdTestCase):
    """Files of secrets and of tokens."""

    def test_secrets(self) -> None:
        """A secret is kept so that the service gets it back, whatever octets it has."""
        for user, secret in (("alice", b"wonder"), ("bob", b"{x} $6$:# "), ("eve", b"\xff")):
            self.do("--secrets", self.path, "add", user, "--stdin", stdin=secret)
            self.assertLogin(SecretsChecker(self.path), UsernamePassword(user.encode(), secret))
            said = self.do("--secrets", self.path, "verify", user, "--stdin", stdin=secret)
            self.assertEqual(said, "the secret is right\n")
        self.typed = ["land", "land"]
        self.do("--secrets", self.path, "change", "alice")
        self.assertEqual(self.prompts[0], "New secret: ")
        self.assertEqual(self.do("--secrets", self.path, "list"), "alice\nbob\neve\n")
        self.assertIn(
            "the secret is empty", self.fails(self.path, "change", "bob", "--secrets", "--stdin")
        )

    def test_keys(self) -> None:
        """With --scram the file has keys, which "verify" and the service know the secret by."""
        self.patch(passwd, "COST", 4096)
        self.do("--secrets", "--scram", self.path, "add", "bob", "--stdin", stdin=b"pencil")
        self.do("--secrets", self.path, "add", "eve", "--stdin", stdin=b"in the clear")
        self.assertKeys("bob", b"pencil")
        self.do("--secrets", self.path, "change", "bob", "--stdin", stdin=b"chalk")
        self.assertKeys("bob", b"chalk")
        self.do("--secrets", "--scram", self.path, "change", "eve", "--stdin", stdin=b"ink")
        self.assertKeys("eve", b"ink")
        self.write(*self.content(), "al:{SCRAM-SHA-256}broken")
        self.do("--secrets", self.path, "change", "al", "--stdin", stdin=b"in the clear")
        self.assertIn("al:{base64}aW4gdGhlIGNsZWFy", self.content())

    def assertKeys(self, user: str, secret: bytes) -> None:
        """The user's line has keys of this secret."""
        [line] = [line for line in self.content() if line.startswith(user + ":")]
        self.assertRegex(line, r":\{SCRAM-SHA-256\}4096,[A-Za-z0-9+/]{22}==,")
        credentials = UsernamePassword(user.encode(), secret)
        checker = SecretsChecker(self.path, execute)
        self.assertLogin(checker, credentials)
        said = self.do("--secrets", self.path, "verify", user, "--stdin", stdin=secret)
        self.assertEqual(said, "the secret is right\n")
        self.fails("--secrets", self.path, "verify", user, "--stdin", stdin=secret + b"s")

    def test_secretsOfOthers(self) -> None:
        """A file of secrets that others could read is for its owner alone after a change."""
        self.write("alice:wonder", mode=0o644)
        self.do("--secrets", self.path, "add", "bob", "--stdin", stdin=b"x")
        self.assertEqual(SecretsChecker(self.path).check(), [])

    def test_tokens(self) -> None:
        """A token is made and shown once; a user may have several; a change leaves one."""
        one = self.do("--tokens", self.path, "add", "alice").strip().encode()
        two = self.do("--tokens", self.path, "add", "alice").strip().encode()
        for token in (one, two):
            # Where it is pasted into a command, none is taken for an option.
            self.assertRegex(token, rb"\A[0-9a-f]{64}\Z")
            self.assertLogin(TokensChecker(self.path), BearerToken(b"alice", token))
            self.do("--tokens", self.path, "verify", "alice", "--stdin", stdin=token)
        three = self.do("--tokens", self.path, "change", "alice").strip().encode()
        self.assertLogin(TokensChecker(self.path), BearerToken(b"alice", three))
        self.assertLogin(TokensChecker(self.path), BearerToken(b"alice", two), False)
        self.assertEqual(len(self.content()), 1)
        self.assertNotIn(three.decode(), self.content()[0])
        self.fails("--tokens", self.path, "verify", "alice", "--stdin", stdin=two)

    def test_tokenOfOnesOwn(self) -> None:
        """A token from elsewhere is taken from standard input and not repeated."""
        said = self.do("--tokens", self.path, "add", "alice", "--stdin", stdin=b"abc.def==\n")
        self.assertEqual(said, "")
        self.assertLogin(TokensChecker(self.path), BearerToken(b"alice", b"abc.def=="))
        error = self.fails("--tokens", self.path, "add", "alice", "--stdin", stdin=b"a b")
        self.assertIn("RFC 6750", error)

    def test_expiry(self) -> None:
        """The last day goes into the file as it was given."""
        self.do("--tokens", self.path, "add", "alice", "--expires", "2030-12-31")
        self.assertTrue(self.content()[0].endswith(":2030-12-31"))

    def test_expired(self) -> None:
        """Who has no token any more but expired ones cannot log in; each of them is named."""
        self.do("--tokens", self.path, "add", "alice", "--expires", "2030-12-30")
        self.do("--tokens", self.path, "add", "bob", "--expires", "2030-12-30")
        self.do("--tokens", self.path, "add", "bob", "--expires", "2030-12-31")
        self.now = datetime.datetime(2030, 12, 31, 12, tzinfo=datetime.UTC).timestamp()
        status, said, error = self.run_("--tokens", self.path, "list")
        self.assertEqual((status, said), (0, "bob\n"))
        self.assertEqual(
            [each.split(": ", 2)[2] for each in error.splitlines()],
            ["line 1: the token of alice has expired", "line 2: the token of bob has expired"],
        )

    def test_expiredVerified(self) -> None:
        """A token that has expired is not called right, unless another line has it for longer."""
        verify = ("--tokens", self.path, "verify", "alice", "--stdin")
        one = self.do("--tokens", self.path, "add", "alice", "--expires", "2030-12-30").encode()
        self.assertEqual(self.do(*verify, stdin=one), "the token is right\n")
        self.now = datetime.datetime(2030, 12, 31, 12, tzinfo=datetime.UTC).timestamp()
        self.assertEqual(self.fails(*verify, stdin=one), "submitd-passwd: the token has expired\n")
        self.do("--tokens", self.path, "add", "alice", "--stdin", stdin=one)
        self.assertEqual(self.do(*verify, stdin=one), "the token is right\n")

    def test_past(self) -> None:
        """A token that is expired before it is made is refused, and the file left alone."""
        for date in ("2026-06-14", "2026-06-15T11:59"):
            error = self.fails("--tokens", self.path, "add", "alice", "--expires", date, status=2)
            self.assertIn(f"--expires {date} is past", error)
        self.assertFalse(os.path.exists(self.path))
        self.do("--tokens", self.path, "add", "alice", "--expires", "2026-06-15")


class UsageTests(PasswdTestCase):
    """The command line."""

    def test_wrong(self) -> None:
        """Wrong usage is status 2 and a line that says what is wrong."""
        for arguments, said in (
            ((), "FILE"),
            (("f",), "command"),
            (("f", "frobnicate", "alice"), "frobnicate"),
            (("f", "add"), "add takes a USER"),
            (("f", "list", "alice"), "list takes no USER"),
            (("f", "add", ""), "the user name is empty"),
            (("f", "add", "a:b"), "colon"),
            (("f", "add", "#a"), "begin with #"),
            (("f", "add", " "), "blank"),
            (("f", "add", "a\nb"), "control"),
            (("f", "add", "a\udcff"), "UTF-8"),
            (("f", "add", "alice", "wonder"), "wonder"),
            (("f", "add", "alice", "--scheme", "md5"), "md5"),
            (("f", "add", "alice", "--expires", "2030-01-01"), "--expires goes with --tokens"),
            (("f", "add", "alice", "--tokens", "--expires", "soon"), "ISO 8601"),
            (("f", "list", "--tokens", "--secrets"), "not allowed"),
            (("f", "add", "a", "--scram"), "--scram goes with --secrets"),
        ):
            self.assertIn(said, self.fails(*arguments, status=2), arguments)

    def test_optionsAnywhere(self) -> None:
        """Options may stand before, between and behind the other words."""
        for at, arguments in enumerate(
            (
                ("--stdin", self.path, "add", "user0"),
                (self.path, "--stdin", "add", "user1"),
                (self.path, "add", "--stdin", "user2"),
                (self.path, "add", "user3", "--stdin"),
            )
        ):
            self.do(*arguments, stdin=b"wonder")
            self.assertPassword(b"user%d" % at, b"wonder")

    def test_help(self) -> None:
        """The help explains commands, files, exit status, and has examples."""
        said = self.do("--help")
        for word in (
            *passwd.COMMANDS,
            "--stdin",
            "--secrets",
            "--tokens",
            "exit status:",
            "examples:",
        ):
            self.assertIn(word, said)
        self.assertEqual(self.do("--version").strip(), submitd.__version__)


class FileTests(PasswdTestCase):
    """How the file is replaced."""

    def test_modeAndOwner(self) -> None:
        """The new file has the mode and owner of the old one, or the service could not read it."""
        self.write("bob:x", mode=0o640)
        if os.getuid() == 0:
            os.chown(self.path, 12345, 54321)
        before = os.stat(self.path)
        self.do(self.path, "add", "alice", "--stdin", stdin=b"x")
        after = os.stat(self.path)
        self.assertNotEqual(after.st_ino, before.st_ino)
        for each in ("st_mode", "st_uid", "st_gid"):
            self.assertEqual(getattr(after, each), getattr(before, each))

    def test_ownerCannotBeKept(self) -> None:
        """Where the owner cannot be kept nothing is changed."""
        self.write("bob:x")
        status = os.fstat

        def another(descriptor: int) -> Any:
            real = list(status(descriptor))
            real[stat.ST_UID] += 1
            return os.stat_result(real)

        def refuse(descriptor: int, *arguments: int) -> None:
            raise PermissionError(1, "Operation not permitted", descriptor)

        self.patch(os, "fstat", another)
        self.patch(os, "fchown", refuse)
        error = self.fails(self.path, "remove", "bob")
        self.assertEqual(error, f"submitd-passwd: {self.path}: Operation not permitted\n")
        self.assertEqual(self.content(), ["bob:x"])

    def test_link(self) -> None:
        """A symbolic link stays one; what it points to is replaced."""
        self.write("bob:x")
        link = self.path + ".link"
        os.symlink(os.path.basename(self.path), link)
        self.do(link, "remove", "bob")
        self.assertTrue(os.path.islink(link))
        self.assertEqual(self.content(), [])

    def test_failsLate(self) -> None:
        """When the file cannot be replaced, the old one is whole and nothing else is left."""
        self.write("bob:x")

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        for step in ("fsync", "rename"):
            with self.subTest(step), self.replaced(step, full):
                self.assertIn("No space left", self.fails(self.path, "remove", "bob"))
            self.assertEqual(self.content(), ["bob:x"])
            self.assertEqual(
                sorted(os.listdir(os.path.dirname(self.path))), ["users", "users.lock"]
            )

    def replaced(self, name: str, function: Any) -> Any:
        """For a block, another function of the system."""
        return unittest.mock.patch.object(os, name, function)

    def test_missing(self) -> None:
        """A file or directory that is not there is named; only "add" makes a file."""
        for command in ("change", "remove", "verify"):
            error = self.fails(self.path, command, "alice", "--stdin", stdin=b"x")
            self.assertEqual(error, f"submitd-passwd: {self.path}: No such file or directory\n")
        self.fails(self.path, "list")
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])
        nowhere = os.path.join(self.path, "users")
        self.assertIn(nowhere, self.fails(nowhere, "add", "alice", "--stdin", stdin=b"x"))

    def test_directory(self) -> None:
        """A directory in place of the file is one clear line."""
        directory = os.path.dirname(self.path)
        self.assertIn(f"{directory}: Is a directory", self.fails(directory, "list"))

    def test_noNewlineAtTheEnd(self) -> None:
        """A last line without its end is not glued to the new one."""
        with open(self.path, "w") as file:
            file.write("bob:x")
        self.do(self.path, "add", "alice", "--stdin", stdin=b"x")
        self.assertEqual(self.content()[0], "bob:x")
        self.assertEqual(len(self.content()), 2)


class ProcessTests(PasswdTestCase):
    """The command as a process."""

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it."""
        program = "import sys; from submitd.tools.passwd import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": ROOT},
            start_new_session=True,  # without a terminal to ask at
        )

    def test_atOnce(self) -> None:
        """Several at once wait for each other: no user is lost."""
        path = os.path.abspath(self.path)
        running = [self.start(path, "add", "--stdin", f"user{at}") for at in range(4)]
        for process in running:
            assert process.stdin is not None
            process.stdin.write(b"wonder")
            process.stdin.close()
        for process in running:
            assert process.stdout is not None
            with process.stdout as stdout:
                self.assertEqual(stdout.read(), b"")
            self.assertEqual(process.wait(), 0)
        names = self.do(self.path, "list").split()
        self.assertEqual(sorted(names), [f"user{at}" for at in range(4)])

    def test_withoutTerminal(self) -> None:
        """From a script without --stdin it does not hang and does not read with echo."""
        said, _ = self.start(os.path.abspath(self.path), "add", "alice").communicate(b"wonder\n")
        self.assertIn(b"use --stdin", said)
