"""Tests for :mod:`submitd.checkers.userfile`."""

from __future__ import annotations

import os
from typing import Any

from submitd.checkers import LoginUnavailable
from submitd.checkers.userfile import MAX_NAMED_LINES, BadLine, UserFile
from tests.checkers.files import FileTestCase


def parse(value: bytes) -> bytes:
    """An entry is its own value; "bad" is a bad line."""
    if value == b"bad":
        raise BadLine("it is bad")
    return value


class UserFileTests(FileTestCase):
    """:class:`submitd.checkers.userfile.UserFile`."""

    def setUp(self) -> None:
        """The clock stands well after every write, so that files count as settled."""
        super().setUp()
        self.seconds = 1e12
        self.reads = 0

    def open(self, **options: Any) -> UserFile[bytes]:
        """The file as an object that counts how often it is read."""
        file = UserFile(self.path, parse, seconds=lambda: self.seconds, **options)
        read = file._read

        def counted() -> bytes:
            self.reads += 1
            return read()

        self.patch(file, "_read", counted)
        return file

    def entries(self, file: UserFile[bytes]) -> dict[bytes, tuple[bytes, ...]]:
        """Names as written, with their entries."""
        return {account.name: account.entries for account in file.accounts().values()}

    def test_lines(self) -> None:
        """Comments, blank lines, CR at the end and a byte order mark are no trouble."""
        self.write(b"\xef\xbb\xbfalice:1", "# bob:2", "", "  ", " # x", "carol:a:b\r", "jörg:3 ")
        self.assertEqual(
            self.entries(self.open()),
            {b"alice": (b"1",), b"carol": (b"a:b",), "jörg".encode(): (b"3 ",)},
        )
        self.assertEqual(self.problems(), [])

    def test_badLines(self) -> None:
        """A bad line is named by number and reason, never by content, and the rest works."""
        self.write(
            "alice:1", "s3cret", ":s3cret", "b\x07b:s3cret", b"\xff:s3cret", "eve:bad", "d:2"
        )
        file = self.open()
        self.assertEqual(set(self.entries(file)), {b"alice", b"d"})
        told = self.problems()
        self.assertEqual([line for line, _ in told], [2, 3, 4, 5, 6])
        self.assertNotIn("s3cret", repr(told))
        self.assertIn("it is bad", told[4][1])
        self.assertEqual(file.check(), [])
        self.assertEqual(file.warnings(), [f"{self.path}:{line}: {said}" for line, said in told])

    def test_parsedOnce(self) -> None:
        """What stays as it was when the file changes is not looked at again, as it takes long."""
        parsed: list[bytes] = []

        def slowly(value: bytes) -> bytes:
            parsed.append(value)
            return value

        self.write("alice:1", "bob:2")
        file = UserFile(self.path, slowly)
        self.entries(file)
        for lines in (("alice:1", "bob:3"), ("alice:1", "carol:1"), ("alice:2",)):
            self.write(*lines)
            self.assertEqual(len(self.entries(file)), len(lines))
        self.assertEqual(parsed, [b"1", b"2", b"3", b"2"])
        for lines in ((), ("alice:2",), ("nonsense",), ("alice:2",)):
            self.write(*lines)
            self.entries(file)
        self.assertEqual(parsed, [b"1", b"2", b"3", b"2"])

    def test_manyBadLines(self) -> None:
        """A file of nothing but rubbish does not fill the log."""
        self.write("alice:1", *["rubbish"] * 1000)
        self.assertEqual(len(self.open().warnings()), MAX_NAMED_LINES + 1)
        told = self.problems()
        self.assertEqual(len(told), MAX_NAMED_LINES + 1)
        self.assertEqual(told[-1], (None, f"{1000 - MAX_NAMED_LINES} more lines are left out"))

    def test_namedTwice(self) -> None:
        """Of two lines for one user the first counts, in any case, and the second is named."""
        self.write("Alice:1", "alice:2")
        self.assertEqual(self.entries(self.open()), {b"Alice": (b"1",)})
        self.assertEqual([line for line, _ in self.problems()], [2])

    def test_several(self) -> None:
        """Where a user may have several lines, all count."""
        self.write("Alice:1", "bob:2", "alice:3")
        self.assertEqual(
            self.entries(self.open(several=True)), {b"Alice": (b"1", b"3"), b"bob": (b"2",)}
        )

    def test_readOnce(self) -> None:
        """A file that does not change is read once, not at each login."""
        self.write("alice:1")
        file = self.open()
        for _ in range(3):
            file.accounts()
            file.revision()
        self.assertEqual(self.reads, 1)

    def test_changed(self) -> None:
        """A file that changes is in force at the next look, with another revision."""
        self.write("alice:1")
        file = self.open()
        file.accounts()
        before = file.revision()
        self.write("bob:1")
        self.assertNotEqual(file.revision(), before)
        self.assertEqual(set(self.entries(file)), {b"bob"})

    def test_touched(self) -> None:
        """A file written anew with the same users keeps its revision: nobody is logged out."""
        self.write("alice:1", "rubbish")
        file = self.open()
        before = file.revision()
        self.problems()
        self.write("alice:1", "rubbish")
        self.assertEqual(file.revision(), before)
        self.assertEqual((self.reads, self.problems()), (2, []))

    def test_changedWithinOneTick(self) -> None:
        """A second change that leaves size and times as they were is not missed."""
        self.write("alice:1")
        self.seconds = os.stat(self.path).st_mtime + 0.5
        file = self.open()
        file.accounts()
        status = os.stat(self.path)
        self.patch(file, "_status", lambda: status)
        self.write("carol:1")
        self.assertEqual(set(self.entries(file)), {b"carol"})

    def test_vanished(self) -> None:
        """A file that vanishes stays in force as it was, with one line in the log."""
        self.write("alice:1")
        file = self.open()
        file.accounts()
        os.remove(self.path)
        for _ in range(3):
            self.assertEqual(set(self.entries(file)), {b"alice"})
        self.assertEqual(
            self.problems(),
            [(None, "there is no such file; the users read before stay in force")],
        )
        self.assertEqual(file.check(), [f"{self.path}: there is no such file"])
        self.write("alice:1")
        self.assertEqual(file.check(), [])

    def test_garbage(self) -> None:
        """A file that has turned into something else altogether stays in force as it was."""
        self.write("alice:1")
        file = self.open()
        file.accounts()
        self.write(b"\x1f\x8b\x08\0", "<html>")
        for _ in range(3):
            self.assertEqual(set(self.entries(file)), {b"alice"})
        [(_, problem)] = self.problems()
        self.assertEqual(
            problem, "no usable line; line 1: no colon; the users read before stay in force"
        )
        self.assertEqual(self.reads, 2)

    def test_lastUserRemoved(self) -> None:
        """An emptied file is believed: the last user who is removed is out."""
        self.write("alice:1")
        file = self.open()
        file.accounts()
        self.write("# nobody")
        self.assertEqual(self.entries(file), {})
        self.assertEqual(file.check(), [f"{self.path}: no users"])

    def test_neverGood(self) -> None:
        """A file that was never there makes logins unavailable, but the object can be made."""
        file = self.open()
        for _ in range(2):
            refused = self.assertRaises(LoginUnavailable, file.accounts)
            self.assertIn("no such file", str(refused))
        self.assertEqual(self.problems(), [(None, "there is no such file; nobody can log in")])
        self.assertEqual(file.revision(), 0)
        self.write("alice:1")
        self.assertEqual(set(self.entries(file)), {b"alice"})

    def test_check(self) -> None:
        """Each thing that can be wrong with the file is one sentence that names it."""
        self.assertEqual(self.open().check(), [f"{self.path}: there is no such file"])
        os.mkdir(self.path)
        self.assertEqual(self.open().check(), [f"{self.path}: is a directory"])
        os.rmdir(self.path)
        os.mkfifo(self.path)
        self.assertEqual(self.open().check(), [f"{self.path}: is not a regular file"])
        os.remove(self.path)
        self.write("rubbish")
        self.assertEqual(self.open().check(), [f"{self.path}: no usable line; line 1: no colon"])
        self.write("alice:1")
        self.assertEqual(self.open().check(), [])

    def test_unreadable(self) -> None:
        """An error of the system is told in its words."""
        self.write("alice:1")
        file = self.open()

        def refuse() -> bytes:
            raise PermissionError(13, "Permission denied")

        self.patch(file, "_read", refuse)
        self.assertEqual(file.check(), [f"{self.path}: cannot be read: Permission denied"])

    def test_private(self) -> None:
        """A private file is refused as soon as its group or others have any access."""
        for mode in (0o640, 0o604, 0o620, 0o644):
            self.write("alice:1", mode=mode)
            [problem] = self.open(private=True).check()
            self.assertIn(f"(mode {mode:04o}); it needs 0600", problem)
        self.write("alice:1", mode=0o400)
        self.assertEqual(self.open(private=True).check(), [])

    def test_openedToOthers(self) -> None:
        """A private file that is opened to others later is named, and read again once closed."""
        self.write("alice:1")
        file = self.open(private=True)
        file.accounts()
        os.chmod(self.path, 0o644)
        self.assertEqual(set(self.entries(file)), {b"alice"})
        self.assertEqual(len(self.problems()), 1)
        os.chmod(self.path, 0o600)
        self.assertEqual(file.check(), [])

    def test_readableByEverybody(self) -> None:
        """Hashes that everybody can read are a warning, not an error."""
        self.write("alice:1", mode=0o644)
        self.assertEqual(self.open().check(), [])
        self.assertEqual(self.problems(), [(None, "everybody can read it (mode 0644)")])
