"""Tests for :mod:`submitd.sasl.scramkeys`."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from submitd.sasl.scramkeys import ScramKeys, prepared, preparedPassword

# The password of the example of RFC 7677 3, "pencil", with its salt and iterations.
PENCIL = (
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
BARE = PENCIL.removeprefix("{SCRAM-SHA-256}")


class ScramKeysTests(SynchronousTestCase):
    """:class:`submitd.sasl.scramkeys.ScramKeys`."""

    def test_line(self) -> None:
        """Keys are written as they are read, and are those of the password."""
        keys = ScramKeys.derive(b"pencil", SALT, 4096)
        self.assertEqual(str(keys), PENCIL)
        self.assertEqual(ScramKeys.parse(BARE), keys)

    def test_verify(self) -> None:
        """They know their password, and no other."""
        keys = ScramKeys.parse(BARE)
        self.assertTrue(keys.verify(b"pencil"))
        self.assertFalse(keys.verify(b"pencils"))

    def test_hidden(self) -> None:
        """No key is in what is shown of them."""
        shown = repr(ScramKeys.parse(BARE))
        for secret in ("WG5d", "wfPL", r"Xn]\xf2", "storedKey", "serverKey"):
            self.assertNotIn(secret, shown)

    def test_malformed(self) -> None:
        """What is not such a line, or out of bounds, is refused and never quoted."""
        iterations, salt, stored, server = BARE.split(",")
        for fields in (
            ("",),
            (iterations, salt, stored),
            (iterations, salt, stored, server, ""),
            ("4095", salt, stored, server),
            ("1000001", salt, stored, server),
            ("99999999", salt, stored, server),
            ("04096", salt, stored, server),
            ("+4096", salt, stored, server),
            ("٤٠٩٦", salt, stored, server),
            (iterations, "", stored, server),
            (iterations, "c2hvcnQ=", stored, server),
            (iterations, base64.b64encode(bytes(65)).decode(), stored, server),
            (iterations, salt.rstrip("="), stored, server),
            (iterations, salt[:-3] + "h==", stored, server),
            (iterations, salt, stored[4:], server),
            (iterations, salt, stored, server[4:]),
            (iterations, salt, stored + "=", server),
            (iterations, salt, stored, server + "\n"),
        ):
            error = self.assertRaises(ValueError, ScramKeys.parse, ",".join(fields))
            for field in filter(None, fields):
                self.assertNotIn(field, str(error))


class PreparedTests(SynchronousTestCase):
    """SASLprep (RFC 4013)."""

    def test_examples(self) -> None:
        """The examples of RFC 4013 3."""
        for text, form in (
            ("I\xadX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\xaa", "a"),
            ("\u2168", "IX"),
        ):
            self.assertEqual(prepared(text), form)
        for text in ("\x07", "\u0627\u0031"):
            self.assertRaises(ValueError, prepared, text)

    def test_typed(self) -> None:
        """A letter with an accent is one, however it was typed."""
        self.assertEqual(prepared("e\u0301"), "\xe9")

    def test_passwords(self) -> None:
        """A password that has no such form stays as it is."""
        for password in (b"\xff", b"bell\x07", "\u0627\u0031".encode()):
            self.assertEqual(preparedPassword(password), password)
        self.assertEqual(preparedPassword("e\u0301".encode()), "\xe9".encode())
