"""Tests of :mod:`submitd.extensions.dsn`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from submitd.wire.command import encodeUtf8AddrXtext, encodeXtext
from tests.extensions.base import ExtensionTestCase


class MailTests(ExtensionTestCase):
    """RET and ENVID."""

    def setUp(self) -> None:
        self.talk()

    def test_kept(self) -> None:
        """What was asked for is on the envelope, decoded and in upper case."""
        self.mail("RET=Full ENVID=QQ+2B314+20159")
        self.assertEqual((self.envelope.ret, self.envelope.envid), ("FULL", "QQ+314 159"))

    def test_notGiven(self) -> None:
        """Without parameters there is nothing on the envelope."""
        self.mail("")
        self.assertEqual((self.envelope.ret, self.envelope.envid), (None, None))

    def test_ret(self) -> None:
        """RET has two values and no other."""
        for wrong in ("RET", "RET=ALL", "RET=FULL,HDRS"):
            self.assertEqual(self.mail(wrong), "501 5.5.4 RET must be FULL or HDRS")

    def test_envidLength(self) -> None:
        """100 characters fit, counted when decoded; 101 do not."""
        self.assertEqual(self.mail("ENVID=" + "+2B" * 100), "250 2.1.0 Originator ok")
        self.assertEqual(self.envelope.envid, "+" * 100)
        self.assertTrue(self.mail("ENVID=" + "x" * 101).startswith("501 5.5.4 ENVID"))

    def test_envidPrintable(self) -> None:
        """What decodes to a line end, to more than ASCII or to nothing is refused."""
        for wrong in ("a+0D+0A", "a+00", "a+7F", "+C3+B6", "+FF", "a+0a", "a+", "j\u00f6rg"):
            self.assertTrue(self.mail(f"ENVID={wrong}").startswith("501 5.5.4 ENVID"), wrong)
        self.assertTrue(self.mail("ENVID").startswith("501 5.5.4 ENVID"))

    @settings(deadline=None, max_examples=50)
    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100))
    def test_envidRoundTrip(self, envid: str) -> None:
        """Any printable ENVID comes out as it was meant."""
        self.mail(f"ENVID={encodeXtext(envid.encode()).decode()}")
        self.assertEqual(self.envelope.envid, envid)


class RcptTests(ExtensionTestCase):
    """NOTIFY and ORCPT."""

    def setUp(self) -> None:
        self.talk()
        self.mail("")

    def test_notify(self) -> None:
        """The list is kept in its order, in upper case."""
        self.rcpt("NOTIFY=failure,Success")
        self.assertEqual(self.recipient.notify, ("FAILURE", "SUCCESS"))
        self.rcpt("NOTIFY=NEVER")
        self.assertEqual(self.recipient.notify, ("NEVER",))
        self.rcpt("")
        self.assertEqual((self.recipient.notify, self.recipient.orcpt), ((), None))

    def test_notifyWrong(self) -> None:
        """NEVER stands alone; nothing is named twice, and nothing unknown."""
        for wrong in ("NEVER,FAILURE", "NEVER,NEVER", "DELAY,delay", "ALWAYS", "DELAY,", ","):
            self.assertTrue(self.rcpt(f"NOTIFY={wrong}").startswith("501 5.5.4 NOTIFY"), wrong)
        self.assertTrue(self.rcpt("NOTIFY").startswith("501 5.5.4 NOTIFY"))
        self.assertEqual(self.envelope.recipients, [])

    def test_orcpt(self) -> None:
        """The type is kept as it was given, for it is passed on; the address is decoded."""
        self.rcpt("ORCPT=RFC822;Bob+2Btag@example.com")
        self.assertEqual(self.recipient.orcpt, ("RFC822", "Bob+tag@example.com"))
        self.rcpt("ORCPT=x400;/C+3Dde/+20;x")
        self.assertEqual(self.recipient.orcpt, ("x400", "/C=de/ ;x"))

    def test_orcptWrong(self) -> None:
        """No type, no address, broken xtext, or controls in it."""
        for wrong in (";a@b", "rfc822", "rfc822;", "rfc822;a+0A", "rfc822;a+C3+B6", "a b;c", "(;c"):
            self.assertTrue(self.rcpt(f"ORCPT={wrong}").startswith("501 5.5.4"), wrong)
        self.assertTrue(self.rcpt("ORCPT").startswith("501 5.5.4 ORCPT"))

    def test_orcptLength(self) -> None:
        """500 octets are allowed, 501 are not."""
        self.assertEqual(self.rcpt("ORCPT=rfc822;" + "x" * 493), "250 2.1.5 Recipient ok")
        self.assertTrue(self.rcpt("ORCPT=rfc822;" + "x" * 494).startswith("501 5.5.4 ORCPT"))

    def test_utf8(self) -> None:
        """An address of type utf-8 may be raw where SMTPUTF8 was asked for, encoded anywhere."""
        encoded = encodeUtf8AddrXtext("j\u00f6rg@example.com").decode()
        self.rcpt(f"ORCPT=utf-8;{encoded}")
        self.assertEqual(self.recipient.orcpt, ("utf-8", "j\u00f6rg@example.com"))
        self.assertTrue(self.rcpt("ORCPT=UTF-8;j\u00f6rg@b.c").startswith("501 5.5.4 ORCPT"))
        self.mail("SMTPUTF8")
        self.rcpt("ORCPT=UTF-8;j\u00f6rg@b.c")
        self.assertEqual(self.recipient.orcpt, ("UTF-8", "j\u00f6rg@b.c"))
        for wrong in ("utf-8;a\\x{0A}b", "utf-8;a\\x{zz}", "rfc822;j\u00f6rg@b.c"):
            self.assertTrue(self.rcpt(f"ORCPT={wrong}").startswith("501 5.5.4 ORCPT"), wrong)

    @settings(deadline=None, max_examples=80)
    @given(st.binary(max_size=600))
    def test_anything(self, octets: bytes) -> None:
        """Whatever octets come as a value, there is one reply and no control character is kept."""
        value = octets.replace(b"\r\n", b"")
        for keyword in (b"NOTIFY", b"ORCPT"):
            said = self.conversation.send(b"RCPT TO:<b@c.d> %s=%s\r\n" % (keyword, value))
            self.assertEqual(said.count(b"\r\n"), 1)
        self.conversation.protocol.dialogue.session.unrecognized = 0
        for recipient in self.envelope.recipients:
            self.assertTrue((recipient.orcpt or ("", ""))[1].isprintable())
        self.mail("")
