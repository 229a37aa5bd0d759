"""Command lines, the arguments of MAIL, RCPT and BDAT, and encoded parameter values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire import command
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from submitd.wire.command import (
    decodeUtf8AddrXtext,
    decodeXtext,
    encodeUtf8AddrXtext,
    encodeXtext,
    parseBdat,
    parseCommand,
    parseMail,
    parseRcpt,
    parseSize,
)
from submitd.wire.errors import Refused
from submitd.wire.reply import BAD_LINE, UNRECOGNIZED
from tests.wire.test_address import BAD, BROKEN_UTF8, CONTROLS, GOOD, character, mailboxes

quickly = settings(deadline=None, max_examples=300)

ALICE = Mailbox("alice", "example.org")

# Arguments near the ordinary: both ways of reading must take the same of them.
nearly = strategies.lists(
    strategies.sampled_from(
        ["FROM:", "to:", "From:", "TO:", " ", "\t", "<", ">", "a", "b.c", "@", "@", ".", "-", "..",
         "é", '"', '" "', "\\", "SIZE=1", "size=2", "X", "=", "<a@b.c>", "<>", "<postmaster>",
         "a" * 64, "b" * 63, "@r:", "\x1c", "\n"]
    ),
    max_size=9,
).map(lambda pieces: "".join(pieces).encode())  # fmt: skip
ordinary = strategies.builds(
    lambda word, path, rest: f"{word}:<{path}>{rest}".encode(),
    strategies.sampled_from(["FROM", "TO", "from", "tO"]),
    strategies.from_regex(
        r"[a-z0-9+.-]{1,70}@[a-z0-9.-]{1,9}(\.[a-z]{50,63}){0,4}", fullmatch=True
    ),
    strategies.sampled_from(["", " ", " SIZE=1", " A=b C", "  A\tB=c ", " A A", " A=", "A", " é"]),
)


class Parser(SynchronousTestCase):
    """What the tests of all parsers share."""

    def assertRefused(
        self, code: int, status: str, parse: Callable[..., Any], *arguments: Any
    ) -> None:
        """It is refused with the code and the status."""
        refused = self.assertRaises(Refused, parse, *arguments)
        self.assertEqual((refused.reply.code, refused.reply.status), (code, status), arguments)


class CommandTests(Parser):
    """The line."""

    def test_good(self) -> None:
        """Verb and argument are cut at white space; the verb is in upper case."""
        for line, wanted in {
            b"QUIT": (b"QUIT", b""),
            b"quit ": (b"QUIT", b""),
            b"EhLo client.example": (b"EHLO", b"client.example"),
            b"MAIL \t FROM:<a@b> SIZE=1 \t": (b"MAIL", b"FROM:<a@b> SIZE=1"),
            b"NOOP\tx y": (b"NOOP", b"x y"),
            b"VRFY \xc3\xa9\xff": (b"VRFY", b"\xc3\xa9\xff"),
            b"GET / HTTP/1.1": (b"GET", b"/ HTTP/1.1"),
        }.items():
            self.assertEqual(parseCommand(line), wanted)

    def test_controls(self) -> None:
        """A bare CR or LF, a NUL or another control in a line is refused whole: behind it could
        stand a second command (``RSET<LF>NOOP``)."""
        for octet in (*range(0x09), *range(0x0A, 0x20), 0x7F):
            for form in (b"RSET%bNOOP", b"RSET %bNOOP", b"%bRSET", b"RSET%b", b"RSET a%b", b"%b"):
                refused = self.assertRaises(Refused, parseCommand, form % bytes([octet]))
                self.assertIs(refused.reply, BAD_LINE)

    def test_noVerb(self) -> None:
        """A line that does not begin with letters and white space is no command."""
        for line in (b"", b" ", b"\t", b" QUIT", b"QUIT.", b"Q1", b"250 ok", b"MAIL:", b"\xc3\xa9"):
            refused = self.assertRaises(Refused, parseCommand, line)
            self.assertIs(refused.reply, UNRECOGNIZED)

    @given(strategies.binary(max_size=40))
    @quickly
    def test_anything(self, line: bytes) -> None:
        """Any line gives a verb and an argument, or a refusal."""
        try:
            verb, argument = parseCommand(line)
        except Refused as refused:
            self.assertEqual(refused.reply.code, 500)
        else:
            self.assertTrue(verb.isalpha() and verb.isupper())
            self.assertEqual(argument, argument.strip())
            self.assertTrue(line.upper().startswith(verb))


class MailTests(Parser):
    """The argument of MAIL."""

    def test_addresses(self) -> None:
        """Every address that can be read can stand here, but a bare postmaster."""
        for text, (local, domain) in GOOD.items():
            argument = f"FROM:<{text}> X=y".encode()
            if domain:
                wanted = ReversePath(Mailbox(local, domain))
                self.assertEqual(parseMail(argument), (wanted, {"X": "y"}))
            else:
                self.assertRefused(501, "5.1.7", parseMail, argument)

    def test_badAddresses(self) -> None:
        """No other can, with a source route or without."""
        for data in BAD:
            if data not in (b"", b"@relay.example:a@b"):
                self.assertRefused(501, "5.1.7", parseMail, b"FROM:<%b>" % data)
                self.assertRefused(501, "5.1.7", parseMail, b"FROM:<@r.example:%b>" % data)

    def test_null(self) -> None:
        """The null reverse-path is one."""
        self.assertEqual(parseMail(b"FROM:<>"), (NULL_PATH, {}))
        self.assertEqual(parseMail(b"FROM: <> SIZE=1"), (NULL_PATH, {"SIZE": "1"}))

    def test_lenient(self) -> None:
        """White space behind the colon and around parameters is let through, as is any case."""
        wanted = (ReversePath(ALICE), {"SIZE": "1", "BODY": "8BITMIME"})
        for argument in (
            b"FROM:<alice@example.org> SIZE=1 BODY=8BITMIME",
            b"from: <alice@example.org>  size=1\tBody=8BITMIME ",
            b"From:\t<@a,@b:alice@example.org> SIZE=1 BODY=8BITMIME",
        ):
            self.assertEqual(parseMail(argument), wanted)

    def test_syntax(self) -> None:
        """What is not FROM: with an address in brackets is refused, and so is what sticks to it."""
        for argument in (b"", b"<a@b>", b"TO:<a@b>", b"FROM <a@b>", b"FROM :<a@b>",
                         b"XFROM:<a@b>", b"FROM:<a@b>SIZE=1", b"FROM:<a@b>>", b'FROM:<"a"@b>X',
                         b"FROM:<>X"):  # fmt: skip
            self.assertRefused(501, "5.5.4", parseMail, argument)
        for argument in (b"FROM:", b"FROM:a@b", b"FROM:a@b SIZE=1", b"FROM:<a@b", b"FROM:a@b>",
                         b"FROM:Alice <a@b>", b'FROM:<"a@b>', b'FROM:<"a\\">@b>'):  # fmt: skip
            self.assertRefused(501, "5.1.7", parseMail, argument)

    def test_parameters(self) -> None:
        """Keywords are in upper case, values as they came, and may be missing."""
        _, parameters = parseMail(b"FROM:<a@b> smtputf8 ENVID=Qq+3D AUTH=<> 8x-Y=" + b"/:;,@" * 3)
        self.assertEqual(
            parameters, {"SMTPUTF8": None, "ENVID": "Qq+3D", "AUTH": "<>", "8X-Y": "/:;,@" * 3}
        )

    def test_utf8Parameter(self) -> None:
        """A value may be UTF-8 (RFC 6531 3.3), a keyword may not."""
        argument = "FROM:<a@b> X=é".encode()
        self.assertEqual(parseMail(argument)[1], {"X": "é"})
        self.assertRefused(501, "5.5.4", parseMail, "FROM:<a@b> É=x".encode())

    def test_badParameters(self) -> None:
        """Malformed and repeated parameters are refused, none is chosen from two."""
        for rest in (b"=", b"=1", b"SIZE=", b"SIZE=1=2", b"-A=1", b"A_B=1", b"A.B", b"A:1",
                     b"SIZE=1 SIZE=1", b"SIZE=1 size=2", b"A A", b"<b@c>", b"A=\xff",
                     b"\xc0\xaf"):  # fmt: skip
            for path in (b"<a@b>", b"<>", b'<"a"@b>'):
                self.assertRefused(501, "5.5.4", parseMail, b"FROM:" + path + b" " + rest)

    def test_controls(self) -> None:
        """No control gets through, even if the line was not looked at before; tabs separate."""
        for control in CONTROLS:
            self.assertRefused(501, "5.1.7", parseMail, b"FROM:<a%bb@c>" % control)
            self.assertRefused(501, "5.1.7", parseMail, b'FROM:<"a%bb"@c>' % control)
            if control != b"\t":
                self.assertRefused(501, "5.5.4", parseMail, b"FROM:<a@b> X%bY" % control)
                self.assertRefused(501, "5.5.4", parseMail, b"FROM:<a@b> X=%bY" % control)
                self.assertRefused(501, "5.5.4", parseMail, b"FROM:<a@b>%bX" % control)

    def test_brokenUtf8(self) -> None:
        """Broken UTF-8 is the address's fault in an address, the parameter's in a parameter."""
        for broken in BROKEN_UTF8:
            self.assertRefused(501, "5.1.7", parseMail, b"FROM:<a%bb@c> X=1" % broken)
            self.assertRefused(501, "5.5.4", parseMail, b"FROM:<a@b> X=%b" % broken)

    @given(nearly | ordinary)
    @quickly
    def test_bothWaysAgree(self, argument: bytes) -> None:
        """The quick way takes nothing that the exact way refuses or takes otherwise."""
        self.assertEqual(outcome(parseMail, argument), outcome(command._exactMail, argument))
        self.assertEqual(outcome(parseRcpt, argument), outcome(command._exactRcpt, argument))

    @given(mailboxes)
    @quickly
    def test_roundTrip(self, mailbox: Mailbox) -> None:
        """What a path writes is read here as the same path."""
        path = ReversePath(mailbox)
        found = outcome(parseMail, b"FROM:" + bytes(path) + b" X")
        self.assertIn(found, ((path, {"X": None}), (501, "5.1.7")))

    @given(strategies.binary(max_size=30), strategies.sampled_from([b"", b"FROM:", b"FROM:<a@b>"]))
    @quickly
    def test_anything(self, argument: bytes, before: bytes) -> None:
        """Any octets give a path and parameters, or a refusal."""
        outcome(parseMail, before + argument)
        outcome(parseRcpt, argument)

    def test_linear(self) -> None:
        """The longest line of anything takes no time to speak of: no pattern runs wild."""
        for piece in (
            b"a.",
            b"a-",
            b"@a,",
            b'"',
            b'\\"',
            b"a=",
            b"=",
            b"<",
            b"<a@b> ",
            b"\xc3\xa9",
        ):
            outcome(parseMail, b"FROM:<" + piece * 200_000)
            outcome(parseMail, b"FROM:<a@b> " + piece * 20_000)
            outcome(parseRcpt, b'TO:<"' + piece * 200_000 + b"@")


def outcome(parse: Callable[[bytes], Any], argument: bytes) -> Any:
    """What it gives, or code and status of what it is refused with."""
    try:
        return parse(argument)
    except Refused as refused:
        return refused.reply.code, refused.reply.status


class RcptTests(Parser):
    """The argument of RCPT."""

    def test_addresses(self) -> None:
        """Every address that can be read can stand here, a bare postmaster among them."""
        for text, (local, domain) in GOOD.items():
            argument = f"TO:<{text}> NOTIFY=NEVER".encode()
            self.assertEqual(parseRcpt(argument), (Mailbox(local, domain), {"NOTIFY": "NEVER"}))

    def test_badAddresses(self) -> None:
        """No other can; the null path cannot either."""
        for data in BAD:
            if data != b"@relay.example:a@b":
                self.assertRefused(501, "5.1.3", parseRcpt, b"TO:<%b>" % data)
        self.assertRefused(501, "5.1.3", parseRcpt, b"TO:<>")

    def test_bracketInQuotes(self) -> None:
        """A ">" within quotes does not end the path, and what looks like parameters is none."""
        mailbox, parameters = parseRcpt(rb'TO:<"a> NOTIFY=NEVER \"<"@b.c> X')
        self.assertEqual(mailbox, Mailbox('a> NOTIFY=NEVER "<', "b.c"))
        self.assertEqual(parameters, {"X": None})

    def test_syntax(self) -> None:
        """What is not TO: with an address in brackets is refused."""
        self.assertRefused(501, "5.5.4", parseRcpt, b"FROM:<a@b>")
        self.assertRefused(501, "5.5.4", parseRcpt, b"TO:<a@b>X")
        self.assertRefused(501, "5.5.4", parseRcpt, b"TO:<a@b> X X")
        self.assertRefused(501, "5.1.3", parseRcpt, b"TO:a@b")


class BdatTests(Parser):
    """The argument of BDAT."""

    def test_good(self) -> None:
        """A size, and LAST in any case."""
        self.assertEqual(parseBdat(b"0"), (0, False))
        self.assertEqual(parseBdat(b"1000"), (1000, False))
        self.assertEqual(parseBdat(b"0 LAST"), (0, True))
        self.assertEqual(parseBdat(b"86400 \t last"), (86400, True))
        self.assertEqual(parseBdat(b"9" * 20), (10**20 - 1, False))

    def test_bad(self) -> None:
        """Nothing but digits is a size: -1 or 1e3 read wrongly puts the dialogue out of step."""
        for argument in (b"", b"-1", b"+1", b"1e3", b"0x10", b"1.0", b"1_000", b"LAST", b"1LAST",
                         b"1 LAST x", b"1 LASTX", b"1 2", b"9" * 21, b" 1", b"1\n", b"\xd9\xa1",
                         b"1 LAST LAST", b"1 "):  # fmt: skip
            self.assertRefused(501, "5.5.4", parseBdat, argument)


class SizeTests(Parser):
    """The value of SIZE=."""

    def test_good(self) -> None:
        """One to twenty digits."""
        self.assertEqual(parseSize("0"), 0)
        self.assertEqual(parseSize("00012"), 12)
        self.assertEqual(parseSize("9" * 20), 10**20 - 1)

    def test_bad(self) -> None:
        """Nothing else, digits of other scripts included."""
        for value in (None, "", "-1", "+1", "1e3", " 1", "1 ", "1_0", "٣", "²", "9" * 21, "1\n"):
            self.assertRefused(501, "5.5.4", parseSize, value)


class XtextTests(Parser):
    """Encoded values of ENVID=, ORCPT= and AUTH=."""

    def test_encode(self) -> None:
        """All but printable ASCII without + and = is encoded (RFC 3461 4)."""
        self.assertEqual(encodeXtext(b"a+b=c d\n\xc3\xa9~!"), b"a+2Bb+3Dc+20d+0A+C3+A9~!")

    def test_decode(self) -> None:
        """It is decoded, as UTF-8."""
        self.assertEqual(decodeXtext("a+2Bb+3Dc+20d+C3+A9"), "a+b=c dé")
        self.assertEqual(decodeXtext(""), "")

    def test_bad(self) -> None:
        """Lower-case, cut or broken codes and raw characters are refused."""
        for text in (
            "+2b",
            "+",
            "+2",
            "+GG",
            "a=b",
            "a b",
            "é",
            "+C3",
            "+C0+AF",
            "+ED+A0+80",
            "\n",
        ):
            self.assertRefused(501, "5.5.4", decodeXtext, text)

    def test_controls(self) -> None:
        """No control comes out of it into a header field or the next server's command."""
        for control in CONTROLS:
            self.assertRefused(501, "5.5.4", decodeXtext, "a" + encodeXtext(control).decode() + "b")

    @given(strategies.text(character))
    @quickly
    def test_roundTrip(self, text: str) -> None:
        """What is encoded is decoded again, and is a value of a parameter."""
        encoded = encodeXtext(text.encode())
        self.assertEqual(decodeXtext(encoded.decode("ascii")), text)
        if text:
            _, parameters = parseMail(b"FROM:<> ENVID=" + encoded)
            self.assertEqual(parameters, {"ENVID": encoded.decode("ascii")})

    @given(strategies.text("+=2BCE9A8c ~é\n", max_size=12))
    @quickly
    def test_anything(self, text: str) -> None:
        """Any text gives a text without controls, or a refusal."""
        try:
            decoded = decodeXtext(text)
        except Refused:
            return
        self.assertTrue(decoded.isprintable())


class Utf8AddrXtextTests(Parser):
    """Addresses of type utf-8 (RFC 6533)."""

    def test_encode(self) -> None:
        """Each character that cannot stand for itself is written as its number."""
        self.assertEqual(
            encodeUtf8AddrXtext("ü+=\\ 😀@a.b"), rb"\x{FC}\x{2B}\x{3D}\x{5C}\x{20}\x{1F600}@a.b"
        )

    def test_decode(self) -> None:
        """Numbers and raw UTF-8 are read."""
        self.assertEqual(decodeUtf8AddrXtext(r"\x{FC}\x{20}\x{10FFFD}ü@a.b"), "ü \U0010fffdü@a.b")

    def test_bad(self) -> None:
        """Other spellings, surrogates, numbers beyond Unicode and controls are refused."""
        for text in ("", r"\x{fc}", r"\x{41}", r"\x{0FC}", r"\x{}", r"\x{FC", r"\xFC", r"\X{FC}",
                     r"\x{D800}", r"\x{DFFF}", r"\x{110000}", r"\x{0A}", r"\x{A}", r"\x{7F}",
                     r"\x{85}", r"\x{2028}", "a b", "a+b", "a=b", "\\", "a\n",
                     "a\x85"):  # fmt: skip
            self.assertRefused(501, "5.5.4", decodeUtf8AddrXtext, text)

    @given(strategies.text(character, min_size=1))
    @quickly
    def test_roundTrip(self, text: str) -> None:
        """What is encoded is decoded again, and is a value of a parameter."""
        encoded = encodeUtf8AddrXtext(text)
        self.assertEqual(decodeUtf8AddrXtext(encoded.decode("ascii")), text)
        _, parameters = parseRcpt(b"TO:<a@b> ORCPT=utf-8;" + encoded)
        self.assertEqual(parameters, {"ORCPT": "utf-8;" + encoded.decode("ascii")})
