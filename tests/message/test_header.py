"""The header section: fields, exact octets, changes, bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.message.header import Field, Header

CRLF = "\r\n"

names = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1
)
lines = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2000, exclude_categories=["Cc", "Cs", "Z"]),
    min_size=1,
)


@st.composite
def wellFormed(draw: st.DrawFn) -> bytes:
    """One field, perhaps folded."""
    folded = [draw(lines), *(f" {line}" for line in draw(st.lists(lines, max_size=2)))]
    return f"{draw(names)}:{CRLF.join(folded)}{CRLF}".encode()


class FieldTests(SynchronousTestCase):
    """One field."""

    def test_parts(self) -> None:
        """A field has a name without case, and a value without folds and white space around it."""
        field = Field(b"SUBject \t: one\r\n\ttwo: \r\n  three \r\n")
        self.assertEqual(field.name, b"subject")
        self.assertEqual(field.value, b"one\ttwo:   three")
        self.assertEqual(Field(b"no colon\r\n").name, b"")
        self.assertEqual(Field(b"no field\r\n but: a colon\r\n").name, b"")
        self.assertIn("no colon", repr(Field(b"no colon\r\n")))


class HeaderTests(SynchronousTestCase):
    """A whole section."""

    octets = b"From: a\r\nTo: b,\r\n c\r\nfrom: d\r\n"

    @given(st.binary(max_size=200) | st.text("aA: \r\n\t\0", max_size=60).map(str.encode))
    @settings(deadline=None, max_examples=200)
    def test_anything(self, octets: bytes) -> None:
        """Any octets are taken, none is lost or changed, and a malformed section has a culprit."""
        header = Header(octets)
        self.assertIs(header.octets, octets)
        self.assertEqual(b"".join(field.raw for field in header.fields), octets)
        self.assertEqual(header.isMalformed, header.malformedField() is not None)
        asked = Header(octets)
        for name in {b"a", *(field.name for field in header.fields)}:
            expected = [field for field in header.fields if field.name == name]
            self.assertEqual(asked.named(name), expected)

    @given(st.lists(wellFormed(), max_size=5))
    @settings(deadline=None, max_examples=100)
    def test_wellFormed(self, fields: list[bytes]) -> None:
        """What is well-formed is cut into the fields that it was made of, and is called so."""
        header = Header(b"".join(fields))
        self.assertEqual([field.raw for field in header.fields], fields)
        self.assertFalse(header.isMalformed)

    def test_named(self) -> None:
        """Fields are found by their name, in their order."""
        header = Header(self.octets)
        self.assertEqual([field.value for field in header.named(b"from")], [b"a", b"d"])
        self.assertEqual([field.value for field in header.named(b"to")], [b"b, c"])
        self.assertEqual(header.named(b"cc"), [])

    def test_namedAsFields(self) -> None:
        """The fields of a name are those of all fields, however the header has been asked."""
        octets = b" before\r\nFrom : a\r\n b\r\nTo: c\r\nno field\r\nfrom: d"
        for change in (
            lambda header: None,
            lambda header: header.fields,
            lambda header: header.prepend(b"From: e\r\n"),
            lambda header: header.append(b"From: f\r\n"),
            lambda header: header.remove(b"to"),
            lambda header: header.change(b"from", 2, b"From: g\r\n"),
            lambda header: header.rewrite(b"from", lambda field: b"From: h\r\n"),
        ):
            header = Header(octets)
            before = [field.raw for field in header.named(b"from")]
            self.assertEqual(before, [b"From : a\r\n b\r\n", b"from: d"])
            change(header)
            for name in (b"from", b"to", b"", b"cc"):
                self.assertEqual(
                    [field.raw for field in header.named(name)],
                    [field.raw for field in header.fields if field.name == name],
                )

    def test_equal(self) -> None:
        """A field that was found by its name is found among all fields, too."""
        header = Header(b"A: 1\r\nB: 2\r\nB: 3\r\n")
        self.assertEqual([header.fields.index(field) for field in header.named(b"b")], [1, 2])
        self.assertNotEqual(header.fields[0], b"A: 1\r\n")

    def test_malformed(self) -> None:
        """Whatever two readers could see different fields in is malformed."""
        for octets in (
            b"no colon\r\n",
            b": no name\r\n",
            b"white space : x\r\n",
            b"A: 1\r\n \r\nFrom: somebody\r\n",
            b"A: 1\nFrom: x\r\n",
            b"A: 1\rFrom: x\r\n",
            b"A: \0\r\n",
            "Ü: x\r\n".encode(),
            b"From somebody Mon Jan 1 00:00:00 2024\r\n",
        ):
            header = Header(b"Good: 1\r\n" + octets + b"Better: 1\r\n")
            self.assertTrue(header.isMalformed, octets)
            culprit = header.malformedField()
            assert culprit is not None
            self.assertNotEqual(culprit.name, b"better", octets)
        self.assertTrue(Header(b" continues nothing: x\r\nA: 1\r\n").isMalformed)

    def test_noEnd(self) -> None:
        """A section whose last line has no end gets one with a new field."""
        header = Header(b"A: 1\r\nB: 2")
        self.assertFalse(header.isMalformed)
        self.assertIsNone(header.malformedField())
        header.append(b"C: 3\r\n")
        self.assertEqual(header.octets, b"A: 1\r\nB: 2\r\nC: 3\r\n")

    def test_changes(self) -> None:
        """Fields can be added, replaced and removed; all others stay as they are."""
        header = Header(self.octets)
        header.append(b"Last: 1\r\n")
        header.prepend(b"First: 1\r\n folded\r\n")
        header.rewrite(b"to", lambda field: b"To: e\r\n")
        self.assertEqual(
            header.octets,
            b"First: 1\r\n folded\r\nFrom: a\r\nTo: e\r\nfrom: d\r\nLast: 1\r\n",
        )
        self.assertEqual(header.remove(b"from"), 2)
        self.assertEqual(header.remove(b"from"), 0)
        self.assertEqual(header.octets, b"First: 1\r\n folded\r\nTo: e\r\nLast: 1\r\n")
        self.assertEqual(header.named(b"from"), [])
        empty = Header(b"")
        empty.append(b"A: 1\r\n")
        self.assertEqual(empty.octets, b"A: 1\r\n")

    def test_onlyFields(self) -> None:
        """Nothing but one whole field can be added: nobody ends the header by accident."""
        header = Header(self.octets)
        for field in (
            b"",
            b"A",
            b"A: 1",
            b"A: 1\n",
            b"A: 1\r\nB: 2\r\n",
            b"A: 1\r\n\r\n",
            b"A : 1\r\n",
        ):
            self.assertRaises(ValueError, header.append, field)
            self.assertRaises(ValueError, header.prepend, field)
            self.assertRaises(ValueError, header.insert, 1, field)
            self.assertRaises(ValueError, header.insert, 99, field)
            self.assertRaises(ValueError, header.rewrite, b"to", lambda _, field=field: field)
            if field:
                self.assertRaises(ValueError, header.change, b"to", 1, field)
        header.rewrite(b"from", lambda field: field.raw)
        self.assertIs(header.octets, self.octets)

    def test_places(self) -> None:
        """A field can be put at a place, and one of several of a name changed or taken out."""
        header = Header(b"A: 1\r\nB: 1\r\na: 2\r\n")
        header.insert(1, b"C: 1\r\n")
        header.insert(99, b"D: 1\r\n")
        self.assertEqual(header.octets, b"A: 1\r\nC: 1\r\nB: 1\r\na: 2\r\nD: 1\r\n")
        self.assertTrue(header.change(b"a", 2, b"E: 1\r\n"))
        self.assertFalse(header.change(b"a", 2, b"E: 2\r\n"))
        self.assertTrue(header.change(b"a", 1, b""))
        self.assertEqual(header.octets, b"C: 1\r\nB: 1\r\nE: 1\r\nD: 1\r\n")
        self.assertEqual([field.raw for field in header.named(b"e")], [b"E: 1\r\n"])
