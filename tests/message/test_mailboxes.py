"""The mailboxes of a From field, compared with the email package's own reader."""

from __future__ import annotations

from email import policy
from email.headerregistry import HeaderRegistry
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.message.mailboxes import MAX_OCTETS, readMailboxes, rewriteMailboxes
from submitd.wire.address import Mailbox

ATEXT = "abcXYZ019!#$%&'*+-/=?^_`{|}~"
atoms = st.text(ATEXT, min_size=1, max_size=6)
dotAtoms = st.lists(atoms, min_size=1, max_size=3).map(".".join)
quoted = st.text("ab <>@,:;().\t", max_size=8).map(lambda text: f'"{text}"')
escaped = st.text('ab"\\()', max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
labels = st.text("abz09", min_size=1, max_size=5)
domains = st.lists(labels, min_size=2, max_size=3).map(".".join)
comments = st.recursive(
    st.text("ab @,:;<>.", max_size=6).map(lambda text: f"({text})"),
    lambda inner: inner.map(lambda text: f"(x {text} y)"),
    max_leaves=3,
)
gaps = st.sampled_from(["", " ", "\t "]) | comments.map(lambda text: f" {text} ")


@st.composite
def addrSpecs(draw: st.DrawFn) -> tuple[str, Mailbox]:
    """An address, and what it means."""
    local, domain = draw(dotAtoms), draw(domains)
    return f"{local}@{domain}", Mailbox(local, domain)


@st.composite
def mailboxes(draw: st.DrawFn) -> tuple[str, list[Mailbox]]:
    """A mailbox with or without a display name, with comments anywhere."""
    spec, mailbox = draw(addrSpecs())
    if draw(st.booleans()):
        return f"{draw(gaps)}{spec}{draw(gaps)}", [mailbox]
    words = draw(st.lists(atoms | quoted | escaped, max_size=3))
    name = " ".join(words) + (" " if words else "")
    return f"{draw(gaps)}{name}<{draw(gaps)}{spec}{draw(gaps)}>{draw(gaps)}", [mailbox]


@st.composite
def groups(draw: st.DrawFn) -> tuple[str, list[Mailbox]]:
    """A group, perhaps empty."""
    members = draw(st.lists(mailboxes(), max_size=2))
    text = ",".join(text for text, _ in members)
    return f"{draw(atoms)}:{text};", [each for _, found in members for each in found]


addressLists = st.lists(mailboxes() | groups(), min_size=1, max_size=4)


def asEmailReadsIt(text: str) -> list[str]:
    """The addresses that the email package finds."""
    field: Any = HeaderRegistry()("from", text)
    assert policy.SMTP is not None
    return [address.addr_spec for address in field.addresses]


class MailboxesTests(SynchronousTestCase):
    """readMailboxes."""

    def reason(self, value: bytes | str, limit: int = 0) -> str:
        """Why a list is malformed."""
        octets = value.encode() if isinstance(value, str) else value
        return str(self.assertRaises(ValueError, readMailboxes, octets, limit))

    @given(addressLists)
    @settings(deadline=None, max_examples=150)
    def test_asEmail(self, parts: list[tuple[str, list[Mailbox]]]) -> None:
        """What is valid is read as it was made, and as the email package reads it."""
        text = ",".join(text for text, _ in parts)
        expected = [each for _, found in parts for each in found]
        self.assertEqual(list(readMailboxes(text.encode())), expected)
        self.assertEqual(asEmailReadsIt(text), [str(each) for each in expected])

    @given(st.binary(max_size=80) | st.text('a@b.c<>,:;()"\\[] \t\0é', max_size=40).map(str.encode))
    @settings(deadline=None, max_examples=300)
    def test_anything(self, value: bytes) -> None:
        """Any octets are a list of mailboxes or a ValueError, never something else."""
        try:
            found = readMailboxes(value)
        except ValueError as error:
            self.assertTrue(str(error))
        else:
            self.assertTrue(all(mailbox.domain for mailbox in found))

    def test_forms(self) -> None:
        """What mail programs write is read."""
        for text, local in (
            ("alice@example.com", "alice"),
            ("Alice <alice@example.com>", "alice"),
            ("John Q. Public <john@example.com>", "john"),
            ('"Doe, John" <john@example.com>', "john"),
            ("=?utf-8?q?broken?= =?x? <john@example.com>", "john"),
            ("alice@example.com (Alice)", "alice"),
            ('"quoted local"@example.com', "quoted local"),
            ("Jürgen <jürgen@example.com>", "jürgen"),
            ("a (\\) still) @ (b) example.com", "a"),
        ):
            self.assertEqual(readMailboxes(text.encode()), (Mailbox(local, "example.com"),), text)
        self.assertEqual(readMailboxes(b"undisclosed-recipients:;"), ())
        self.assertEqual(readMailboxes(b"a@[192.0.2.1]"), (Mailbox("a", "[192.0.2.1]"),))

    def test_refused(self) -> None:
        """What readers differ about is malformed, with a reason."""
        for value in (
            b"",
            b",",
            b"a@b.example,",
            b"a@b.example,,c@d.example",
            b"alice",
            b"<>",
            b"<@route.example:a@b.example>",
            b"Alice a@b.example",
            b"a . b@example.com",
            b"a..b@example.com",
            b'"a"."b"@example.com',
            b"a@b.example c@d.example",
            b"a@b.example <c@d.example>",
            b"<a@b.example",
            b"<a@b.example> x",
            b"a@",
            b"a@b.example;",
            b"g: a@b.example",
            b":;",
            b"g: h: a@b.example;;",
            b'"no end <a@b.example>',
            b"(no end a@b.example",
            b"a@b.example)",
            b"a\0@b.example",
            b"(\x01) a@b.example",
            b'"\r" <a@b.example>',
            b"\xff <a@b.example>",
            b"a@[not an address]",
            b"a\\b@example.com",
        ):
            self.assertTrue(self.reason(value), value)

    def test_limit(self) -> None:
        """There are as many as there may be, however long their field is."""
        for count in (3, 100):
            value = b", ".join(b"x%d@example.com" % at for at in range(count))
            self.assertEqual(len(readMailboxes(value)), count)
            self.assertEqual(len(readMailboxes(value, count)), count)
            self.assertEqual(self.reason(value, count - 1), "too many mailboxes")

    def test_bound(self) -> None:
        """A field that is longer than any is not read at all."""
        self.assertEqual(self.reason(b"(" * (MAX_OCTETS + 1)), "too long")
        nested = b"(" * 30000 + b")" * 30000 + b"a@b.example"
        self.assertEqual(readMailboxes(nested), (Mailbox("a", "b.example"),))


class RewriteTests(SynchronousTestCase):
    """rewriteMailboxes."""

    @given(addressLists, st.lists(st.integers(0, 200), max_size=4))
    @settings(deadline=None, max_examples=150)
    def test_asRead(self, parts: list[tuple[str, list[Mailbox]]], folds: list[int]) -> None:
        """Each address is another one behind it, folded or not, and all else is as it was."""
        text = ",".join(text for text, _ in parts)
        expected = [each for _, found in parts for each in found]
        for at in folds:
            if " " in text[at:]:
                space = text.index(" ", at)
                if "\r\n" not in text[space - 2 : space + 3]:
                    text = f"{text[:space]}\r\n{text[space:]}"
        body = f" {text}\r\n".encode()
        self.assertEqual(rewriteMailboxes(body, lambda each: each), body)
        new = Mailbox('new "one', "new.example")
        seen: list[Mailbox] = []

        def rewritten(mailbox: Mailbox) -> Mailbox:
            seen.append(mailbox)
            return new

        made = rewriteMailboxes(body, rewritten)
        self.assertEqual(seen, expected)
        unfolded = made.replace(b"\r\n", b"").strip()
        self.assertEqual(readMailboxes(unfolded), (new,) * len(expected))
        if len({str(each) for each in expected}) == len(expected) == 1:
            self.assertEqual(len(made), len(body) + len(str(new)) - len(str(expected[0])))

    @given(
        st.binary(max_size=80) | st.text('ab.<>,:;()"\\[] \t\r\n@é', max_size=40).map(str.encode)
    )
    @settings(deadline=None, max_examples=300)
    def test_anything(self, body: bytes) -> None:
        """Any octets are rewritten or a ValueError, never something else."""
        try:
            made = rewriteMailboxes(body, lambda each: Mailbox("new", "new.example"))
        except ValueError as error:
            self.assertTrue(str(error))
        else:
            # A line may have ended within a quoted local part.
            self.assertLessEqual(made.count(b"\n"), body.count(b"\n"))

    def test_partAlone(self) -> None:
        """A part of an address that stays keeps the octets that it came with."""
        for body, new, made in (
            (' "a\\b"@x.example', Mailbox("ab", "y.example"), ' "a\\b"@y.example'),
            (" a (c) @ X.example", Mailbox("b", "X.example"), " b (c) @ X.example"),
            (" ü <ü@é.example> ü", Mailbox("u", "é.example"), None),
            (" ü <ü@é.example> (ü)", Mailbox("u", "é.example"), " ü <u@é.example> (ü)"),
            (" root (Cron)", Mailbox("r", "x.example"), " r@x.example (Cron)"),
            (" <root>", Mailbox("r", "[192.0.2.1]"), " <r@[192.0.2.1]>"),
        ):
            rewritten = lambda _, new=new: new  # noqa: E731
            if made is None:
                self.assertRaises(ValueError, rewriteMailboxes, body.encode(), rewritten)
            else:
                found = rewriteMailboxes(body.encode() + b"\r\n", rewritten)
                self.assertEqual(found, made.encode() + b"\r\n")

    def test_nameAlone(self) -> None:
        """A name alone is an address without a domain here, and malformed elsewhere."""
        seen: list[Mailbox] = []

        def rewritten(mailbox: Mailbox) -> Mailbox:
            seen.append(mailbox)
            return mailbox

        rewriteMailboxes(b' root, Cron <"ro ot">, a@b.example', rewritten)
        self.assertEqual(
            seen, [Mailbox("root", ""), Mailbox("ro ot", ""), Mailbox("a", "b.example")]
        )
        self.assertRaises(ValueError, readMailboxes, b"root")
        self.assertRaises(ValueError, rewriteMailboxes, b"root user", rewritten)

    def test_tooLong(self) -> None:
        """A list that is never read is never rewritten."""
        body = b"a@b.example" + b" " * MAX_OCTETS
        self.assertRaises(ValueError, rewriteMailboxes, body, lambda each: each)
