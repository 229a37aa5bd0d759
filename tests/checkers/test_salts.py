"""Tests for :mod:`submitd.checkers.salts`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers.salts import machineSecret, numberFor, saltFor


class SecretTests(SynchronousTestCase):
    """:func:`submitd.checkers.salts.machineSecret`."""

    def idOf(self, text: str) -> bytes:
        """The secret of a machine with this id."""
        path = self.mktemp()
        Path(path).write_text(text)
        return machineSecret(path)

    def test_stable(self) -> None:
        """It stays, in all processes, as long as the machine's id does; and is not the id."""
        id = "0123456789abcdef" * 2
        self.assertEqual(self.idOf(id + "\n"), self.idOf(id))
        self.assertNotEqual(self.idOf(id), self.idOf("f" * 32))
        self.assertNotIn(bytes.fromhex(id), self.idOf(id))

    def test_none(self) -> None:
        """Without an id, each process has one of its own, which nobody can know."""
        for text in ("", "uninitialized\n", "0123456789abcdef", "é"):
            self.assertNotEqual(self.idOf(text), self.idOf(text))
        missing = self.mktemp()
        self.assertNotEqual(machineSecret(missing), machineSecret(missing))


class SaltTests(SynchronousTestCase):
    """:func:`submitd.checkers.salts.saltFor`."""

    def test_names(self) -> None:
        """One for each name, whatever its case; as long as is asked for."""
        self.assertEqual(saltFor(b"Alice"), saltFor(b"alice"))
        self.assertEqual(len({saltFor(b"%d" % number) for number in range(100)}), 100)
        self.assertEqual([len(saltFor(b"a", length)) for length in (8, 16, 64)], [8, 16, 64])

    def test_number(self) -> None:
        """The number of a name tells nothing of its salt."""
        self.assertEqual(numberFor(b"Alice"), numberFor(b"alice"))
        self.assertNotEqual(numberFor(b"a"), int.from_bytes(saltFor(b"a", 8), "big"))
