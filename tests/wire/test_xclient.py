"""Tests of :mod:`submitd.wire.xclient`."""

from __future__ import annotations

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from submitd.wire.errors import Refused
from submitd.wire.xclient import XCLIENT, XFORWARD, parseAttributes


class AttributesTests(SynchronousTestCase):
    """The attributes of XCLIENT and XFORWARD."""

    def test_xclient(self) -> None:
        """Each attribute of XCLIENT is read, its name in any case, its value out of xtext."""
        argument = (
            b"NAME=client.example.net addr=IPV6:2001:DB8::7 PORT=40000 PROTO=esmtp "
            b"Helo=[192.0.2.7] LOGIN=ada+40example.org DESTADDR=192.0.2.1 DESTPORT=587"
        )
        self.assertEqual(
            parseAttributes(argument, XCLIENT),
            {
                "NAME": "client.example.net",
                "ADDR": "2001:db8::7",
                "PORT": "40000",
                "PROTO": "ESMTP",
                "HELO": "[192.0.2.7]",
                "LOGIN": "ada@example.org",
                "DESTADDR": "192.0.2.1",
                "DESTPORT": "587",
            },
        )

    def test_xforward(self) -> None:
        """XFORWARD has two attributes that XCLIENT has not, and no LOGIN."""
        self.assertEqual(
            parseAttributes(b"IDENT=4bXyz SOURCE=remote", XFORWARD),
            {"IDENT": "4bXyz", "SOURCE": "REMOTE"},
        )
        self.assertRaises(Refused, parseAttributes, b"IDENT=1", XCLIENT)
        self.assertRaises(Refused, parseAttributes, b"LOGIN=ada", XFORWARD)

    def test_unknown(self) -> None:
        """What a proxy does not know is empty, of every attribute."""
        for word in (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]", b""):
            for known in (XCLIENT, XFORWARD):
                for name in known:
                    argument = name.encode() + b"=" + word
                    self.assertEqual(parseAttributes(argument, known), {name: ""})

    def test_malformed(self) -> None:
        """What does not fit its attribute's grammar is 501, and nothing of it is kept."""
        for argument in (
            b"",
            b"ADDR",
            b"=",
            b"WHAT=1",
            b"ADDR=192.0.2.1 addr=192.0.2.1",
            b"ADDR=192.0.2",
            b"ADDR=client.example.net",
            b"ADDR=2001:db8::1",
            b"ADDR=IPV6:192.0.2.1",
            b"ADDR=IPV6:fe80::1%eth0",
            b"ADDR=[192.0.2.1]",
            b"PORT=65536",
            b"PORT=-1",
            b"PORT=1e3",
            b"PORT=000001",
            b"PROTO=HTTP",
            b"NAME=-client.example",
            b"NAME=a+20b",
            b"NAME=[192.0.2.1]",
            b"HELO=a+0Ab",
            b"HELO=a+0D+0AX-Header:+20b",
            b"HELO=a+00",
            b"HELO=a+7F",
            b"HELO=a+C2+85",
            b"HELO=a+0a",
            b"HELO=a+",
            b"HELO=a+F",
            b"HELO=+FF",
            b"HELO=a=b",
            b"HELO=" + b"x" * 256,
            b"LOGIN=a+0Ab",
            b"LOGIN=\xc3\xa4",
        ):
            refused = self.assertRaises(Refused, parseAttributes, argument, XCLIENT)
            self.assertEqual((refused.reply.code, refused.reply.status), (501, "5.5.4"), argument)

    @given(strategies.binary(max_size=60))
    @settings(deadline=None, max_examples=200)
    def test_anything(self, octets: bytes) -> None:
        """Whatever comes is printable text or a refusal."""
        for prefix in (b"", b"HELO=", b"ADDR=", b"LOGIN="):
            try:
                attributes = parseAttributes(prefix + octets, XCLIENT)
            except Refused:
                continue
            for value in attributes.values():
                self.assertFalse(any(ord(letter) < 32 for letter in value), value)
