"""Tests of :mod:`submitd.sasl.gs2`."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from submitd.sasl.gs2 import HEADER, unescaped


class HeaderTests(SynchronousTestCase):
    """RFC 5801 4."""

    def test_good(self) -> None:
        """The flag, the kind of a binding, and the name."""
        for header, found in (
            (b"n,,", (b"n", None, None)),
            (b"y,a=alice,", (b"y", None, b"alice")),
            (b"p=tls-exporter,a=a=2Cb=3d,", (b"p=tls-exporter", b"tls-exporter", b"a=2Cb=3d")),
        ):
            match = re.fullmatch(HEADER, header)
            assert match is not None, header
            self.assertEqual(match.group("flag", "kind", "identity"), found)

    def test_bad(self) -> None:
        """Other flags and orders, and names that could be read as something else."""
        for header in (b"", b"n,", b"N,,", b"F,n,,", b"p,,", b"p=,,", b"n,a=,", b"n,alice,"):
            self.assertIsNone(re.fullmatch(HEADER, header), header)
        for name in (b"a=b", b"a=2Db", b"a\0b", b"a\x01b", b"a,b"):
            self.assertIsNone(re.fullmatch(HEADER, b"n,a=" + name + b","), name)

    def test_unescaped(self) -> None:
        """Commas and equals signs come back, each once."""
        for name, sent in ((b"a,b=c", b"a=2Cb=3Dc"), (b"=2C", b"=3D2C"), (b",=", b"=2c=3d")):
            self.assertEqual(unescaped(sent), name)
