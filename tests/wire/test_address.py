"""Addresses: what is read, what is refused, and that reading undoes writing."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire.address import (
    NULL_PATH,
    Mailbox,
    ReversePath,
    isDomain,
    parseHello,
    readMailbox,
    readPath,
)
from submitd.wire.errors import Refused

quickly = settings(deadline=None, max_examples=300)

# All that a local part may mean: anything but controls, once it is quoted.
character = strategies.characters(
    codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"
)
localParts = strategies.one_of(
    strategies.from_regex(r"[a-z0-9+_-]{1,12}(\.[a-z0-9]{1,6}){0,2}", fullmatch=True),
    strategies.text(character, max_size=16),
    strategies.text('ab. "\\@<>,:é', max_size=12),
)
labels = strategies.one_of(
    strategies.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?", fullmatch=True),
    strategies.sampled_from(["bücher", "例え", "xn--bcher-kva", "пример", "भारत"]),
)
domains = strategies.one_of(
    strategies.lists(labels, min_size=1, max_size=4).map(".".join),
    strategies.ip_addresses(v=4).map(lambda address: f"[{address}]"),
    strategies.ip_addresses(v=6).map(lambda address: f"[IPv6:{address}]"),
)
mailboxes = strategies.builds(Mailbox, localParts, domains)

GOOD = {
    "a@b": ("a", "b"),
    "alice@example.org": ("alice", "example.org"),
    "Alice.B+tag@Sub-Domain.example.ORG": ("Alice.B+tag", "Sub-Domain.example.ORG"),
    "!#$%&'*+-/=?^_`{|}~@example.org": ("!#$%&'*+-/=?^_`{|}~", "example.org"),
    '"a b"@example.org': ("a b", "example.org"),
    '"alice"@example.org': ("alice", "example.org"),
    '"a\\"b\\\\c\\d"@example.org': ('a"b\\cd', "example.org"),
    '"a@b>, <c"@example.org': ("a@b>, <c", "example.org"),
    '""@example.org': ("", "example.org"),
    '"..a.."@example.org': ("..a..", "example.org"),
    "alice@1.example": ("alice", "1.example"),
    "alice@[192.0.2.1]": ("alice", "[192.0.2.1]"),
    "alice@[IPv6:2001:db8::1]": ("alice", "[IPv6:2001:db8::1]"),
    "alice@[ipv6:::ffff:192.0.2.1]": ("alice", "[ipv6:::ffff:192.0.2.1]"),
    "alice@xn--bcher-kva.example": ("alice", "xn--bcher-kva.example"),
    "jürgen@bücher.example": ("jürgen", "bücher.example"),
    "用户@例え.テスト": ("用户", "例え.テスト"),
    '"ü ü"@example.org': ("ü ü", "example.org"),
    "a@" + "b" * 63 + ".example": ("a", "b" * 63 + ".example"),
    "a" * 242 + "@example.org": ("a" * 242, "example.org"),
    "é" * 121 + "@example.org": ("é" * 121, "example.org"),
    "PostMaster": ("PostMaster", ""),
    "postmaster@example.org": ("postmaster", "example.org"),
}

BAD = [
    b"",
    b"@",
    b"a",
    b"a@",
    b"@b",
    b"a@b@c",
    b"a b@c",
    b" a@b",
    b"a@b ",
    b"a@b c",
    b"<a@b>",
    b".a@b",
    b"a.@b",
    b"a..b@c",
    b"a(b)@c",
    b"a,b@c",
    b"a:b@c",
    b"a[b]@c",
    b'a"b"@c',
    b'"a"b@c',
    b'"a@b',
    b'"a""b"@c',
    b'"a\\"@b',
    b'"a"',
    b"a@.b",
    b"a@b.",
    b"a@b..c",
    b"a@-b",
    b"a@b-",
    b"a@b.-c.d",
    b"a@b_c.example",
    b"a@b/c",
    b"a@b!c",
    b"a@" + b"b" * 64 + b".example",
    b"a" * 243 + b"@example.org",
    ("é" * 122 + "@example.org").encode(),
    b"a@" + b".".join([b"b" * 63] * 4),
    b"a@" + b"b." * 127 + b"cc",
    b"a@[192.0.2.256]",
    b"a@[192.0.2]",
    b"a@[192.0.2.1",
    b"a@192.0.2.1]",
    b"a@[]",
    b"a@[192.0.2.01]",
    b"a@[2001:db8::1]",
    b"a@[IPv6:2001:db8:::1]",
    b"a@[IPv6:fe80::1%eth0]",
    b"a@[IPv6:]",
    b"a@[tag:text]",
    b"a@[192.0.2.1].example",
    "a@[IPv6:\uff12::1]".encode(),
    b"@relay.example:a@b",
    b"postmaster@",
    b'"postmaster',
]

CONTROLS = [bytes([octet]) for octet in (*range(0x20), 0x7F)] + [
    c.encode() for c in ("\x80", "\x85", "\x9f", "\u2028", "\u2029")
]

BROKEN_UTF8 = [
    b"\xff",
    b"\x80",
    b"\xc3",
    b"\xc0\xaf",  # an overlong "/"
    b"\xc0\x80",  # an overlong NUL
    b"\xe0\x80\x8a",  # an overlong LF
    b"\xf0\x80\x80\x8a",
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xe9",  # Latin-1
]


class MailboxTests(SynchronousTestCase):
    """Mailbox.parse and back."""

    def assertRefused(self, data: bytes) -> None:
        """It is refused with 501 5.1.3, and the reply quotes nothing of it."""
        refused = self.assertRaises(Refused, Mailbox.parse, data)
        self.assertEqual((refused.reply.code, refused.reply.status), (501, "5.1.3"), data)

    def test_good(self) -> None:
        """Each kind of address is read as what it means."""
        for text, (local, domain) in GOOD.items():
            mailbox = Mailbox.parse(text.encode())
            self.assertEqual((mailbox.localPart, mailbox.domain), (local, domain))
            self.assertEqual(Mailbox.parse(bytes(mailbox)), mailbox)

    def test_bad(self) -> None:
        """What is no address is refused."""
        for data in BAD:
            self.assertRefused(data)

    def test_controls(self) -> None:
        """No control character gets into an address, where it could end a line: not in quotes,
        not behind a backslash."""
        for control in CONTROLS:
            for form in (b"a%bb@c", b'"a%bb"@c', b'"a\\%bb"@c', b"a@b%bc", b"a@b%b", b"%ba@b"):
                self.assertRefused(form % control)

    def test_brokenUtf8(self) -> None:
        """Broken and overlong UTF-8 is refused, for two readers would read it differently."""
        for broken in BROKEN_UTF8:
            for form in (b"a%bb@c", b'"a%bb"@c', b"a@b%bc.example"):
                self.assertRefused(form % broken)

    def test_namesThatTurnIntoOthers(self) -> None:
        """A domain that normalises into another one, or hides a character, is refused."""
        for domain in (
            "example\uff0eorg",  # fullwidth full stop
            "example\u3002org",  # ideographic full stop
            "example\uff61org",
            "exam\u2100ple.org",  # becomes "a/c"
            "\uff45xample.org",  # fullwidth e
            "example\u2024org",
            "example.org\uff20evil.example",  # fullwidth @
            "bu\u0308cher.example",  # not NFC
            "exam\u00adple.org",  # soft hyphen
            "exam\u200bple.org",  # zero width space
            "exam\u202eple.org",  # right-to-left override
            "exam\u00a0ple.org",
            "exam\u1680ple.org",
            "exam\ue000ple.org",
        ):
            self.assertRefused(b"a@" + domain.encode())

    def test_joiners(self) -> None:
        """The joiners that some scripts need stand in a label (RFC 5892 A.1)."""
        text = "a@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example"
        self.assertEqual(str(Mailbox.parse(text.encode())), text)

    def test_longUnicodeLabel(self) -> None:
        """A label is as long as its A-label, which DNS has to hold."""
        # "ü" repeated: one Punycode digit each, and the first takes more
        self.assertEqual(str(Mailbox.parse(("a@" + "ü" * 55).encode())), "a@" + "ü" * 55)
        self.assertRefused(("a@" + "ü" * 60).encode())

    def test_quoting(self) -> None:
        """Quotes are written where they are needed and nowhere else."""
        for mailbox, text in (
            (Mailbox("a b", "c"), '"a b"@c'),
            (Mailbox('a"\\', "c"), '"a\\"\\\\"@c'),
            (Mailbox("", "c"), '""@c'),
            (Mailbox("a..b", "c"), '"a..b"@c'),
            (Mailbox("a.b", "c"), "a.b@c"),
            (Mailbox("ü", "c"), "ü@c"),
            (Mailbox("Postmaster", ""), "Postmaster"),
        ):
            self.assertEqual(str(mailbox), text)
            self.assertEqual(bytes(mailbox), text.encode("utf-8"))

    def test_isAscii(self) -> None:
        """Either part makes an address need SMTPUTF8."""
        self.assertTrue(Mailbox("a b", "c").isAscii)
        self.assertFalse(Mailbox("ü", "c").isAscii)
        self.assertFalse(Mailbox("a", "bücher.example").isAscii)

    def test_value(self) -> None:
        """A mailbox can be a key and cannot be changed."""
        self.assertEqual({Mailbox("a", "b"): 1}[Mailbox("a", "b")], 1)
        self.assertRaises(AttributeError, setattr, Mailbox("a", "b"), "domain", "c")

    @given(mailboxes)
    @quickly
    def test_roundTrip(self, mailbox: Mailbox) -> None:
        """What is written is read back as the same, alone and in a path."""
        wire = bytes(mailbox)
        try:
            found = Mailbox.parse(wire)
        except Refused as refused:
            self.assertIn("too long", refused.reply.lines[0])
        else:
            self.assertEqual(found, mailbox)
            self.assertEqual(readPath(b"<%b>" % wire), mailbox)
            self.assertEqual(readPath(b"<@a.example,@b:%b>" % wire), mailbox)

    @given(strategies.binary(max_size=40) | mailboxes.map(bytes), strategies.data())
    @quickly
    def test_anything(self, data: bytes, draw: strategies.DataObject) -> None:
        """Any octets give a mailbox or a refusal; what is given is safe and stays itself."""
        if data:
            at = draw.draw(strategies.integers(0, len(data)))
            data = data[:at] + draw.draw(strategies.binary(max_size=3)) + data[at:]
        try:
            mailbox = Mailbox.parse(data)
        except Refused:
            return
        self.assertEqual(Mailbox.parse(bytes(mailbox)), mailbox)
        self.assertFalse(set(bytes(mailbox)) & {*range(32), 127})
        if mailbox.domain[:1] == "[":
            ipaddress.ip_address(mailbox.domain[1:-1].lower().removeprefix("ipv6:"))


class PathTests(SynchronousTestCase):
    """Paths: brackets, the null one, source routes."""

    def test_reversePath(self) -> None:
        """A reverse-path has its brackets, or is null."""
        path = ReversePath.parse(b"<a@b>")
        self.assertEqual((path.mailbox, path.isNull), (Mailbox("a", "b"), False))
        self.assertEqual((str(path), bytes(path)), ("<a@b>", b"<a@b>"))
        null = ReversePath.parse(b"<>")
        self.assertEqual((null, null.isNull), (NULL_PATH, True))
        self.assertEqual((str(null), bytes(null)), ("<>", b"<>"))

    def test_badReversePath(self) -> None:
        """Anything else is 501 5.1.7; <postmaster> too, to whom nothing could be returned."""
        for data in (b"", b"a@b", b"<a@b", b"a@b>", b"<<a@b>>", b"< >", b"<postmaster>", b"<a>"):
            refused = self.assertRaises(Refused, ReversePath.parse, data)
            self.assertEqual((refused.reply.code, refused.reply.status), (501, "5.1.7"))

    def test_sourceRoute(self) -> None:
        """A source route is read and dropped (RFC 5321 appendix C)."""
        for route in (b"@a:", b"@a,@b.example:"):
            self.assertEqual(readPath(b"<" + route + b'"x y"@c>'), Mailbox("x y", "c"))

    def test_badSourceRoute(self) -> None:
        """A malformed source route does not become part of an address."""
        for route in (b"@:", b"@a", b"@a,:", b"@a,b:", b"a:", b"@a@b:", b"@a,,@b:", b"@a:@b:"):
            self.assertRaises(ValueError, readPath, b"<" + route + b"x@c>")

    def test_length(self) -> None:
        """A path of 256 octets is the longest (RFC 5321 4.5.3.1.3), an address has two less."""
        domain = b".".join([b"b" * 60] * 4)
        longest = b"a" * (254 - 1 - len(domain)) + b"@" + domain
        self.assertEqual(bytes(readMailbox(longest)), longest)
        self.assertEqual(bytes(readPath(b"<%b>" % longest)), longest)
        self.assertRaises(ValueError, readMailbox, b"a" + longest)
        self.assertRaises(ValueError, readPath, b"<a%b>" % longest)

    def test_longDomain(self) -> None:
        """A domain is bounded in octets of UTF-8 as in ASCII."""
        self.assertRaises(ValueError, readPath, ("<a@" + "ü." * 90 + "b>").encode())


class DomainTests(SynchronousTestCase):
    """A domain by itself."""

    def test_isDomain(self) -> None:
        """ASCII alone, without a dot at its end, and no longer than a path could hold it."""
        longest = ".".join(["a" * 63] * 4)
        for good in ("a.example", "localhost", "xn--bcher-kva.example", longest):
            self.assertTrue(isDomain(good), good)
        for bad in (
            "",
            "a.",
            ".a",
            "a_b",
            "a b",
            "b\u00fccher.example",
            "[192.0.2.1]",
            longest + "a",
        ):
            self.assertFalse(isDomain(bad), bad)


class HelloTests(SynchronousTestCase):
    """What clients call themselves."""

    def test_good(self) -> None:
        """Names and addresses pass, well-formed or as mail programs really send them."""
        for name in (
            "client.example.com",
            "localhost",
            "DESKTOP_42",
            "my-pc.local.",
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
            "192.0.2.1",
            "2001:db8::1",
            "[2001:db8::1]",
            "[IPv6:fe80::1%en0]",
            "a" * 255,
        ):
            self.assertEqual(parseHello(name.encode()), name)

    def test_bad(self) -> None:
        """Nothing passes that could mean something in a header field, a path or a log."""
        for data in (
            b"",
            b" ",
            b"a b",
            b"a\tb",
            b"a" * 256,
            b"a(b)",
            b"a;b",
            b"<a>",
            b'"a"',
            b"../etc",
            b"a\\b",
            b"{a}",
            b"%s",
            b"a@b",
            b"[a b]",
            b"[]",
            b"[a",
            b"a]",
            b"a\nb",
            b"a\n",
            b"a\r",
            b"\0",
            b"\x1b[2J",
            "bücher".encode(),
            b"b\xfccher",
            "a\u0661".encode(),
        ):
            refused = self.assertRaises(Refused, parseHello, data)
            self.assertEqual((refused.reply.code, refused.reply.status), (501, "5.5.4"))

    @given(strategies.binary(max_size=30))
    @quickly
    def test_anything(self, data: bytes) -> None:
        """Any octets give themselves as text, or a refusal."""
        try:
            name = parseHello(data)
        except Refused:
            return
        self.assertEqual(name.encode("ascii"), data)
        self.assertTrue(name.isprintable())
