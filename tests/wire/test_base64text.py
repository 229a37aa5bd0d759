"""Tests of :mod:`submitd.wire.base64text`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from submitd.wire.base64text import decodeBase64


class DecodeTests(SynchronousTestCase):
    """:func:`submitd.wire.base64text.decodeBase64`."""

    def test_good(self) -> None:
        """The one form of some octets, or of none."""
        for text, octets in ((b"", b""), (b"AA==", b"\0"), (b"d29uZGVy", b"wonder")):
            self.assertEqual(decodeBase64(text), octets)

    def test_bad(self) -> None:
        """Anything else says what it is, without quoting it."""
        for text, said in (
            (b"d29uZGV", "valid"),
            (b"d29u\nZGVy", "valid"),
            (b"=", "valid"),
            ("é".encode(), "valid"),
            (b"AB==", "canonical"),
        ):
            with self.assertRaises(ValueError) as caught:
                decodeBase64(text)
            self.assertEqual(str(caught.exception), f"not {said} base64")
