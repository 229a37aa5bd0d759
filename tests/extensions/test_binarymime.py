"""Tests of :mod:`submitd.extensions.binarymime`."""

from __future__ import annotations

from tests.extensions.base import ExtensionTestCase


class BinaryMIMETests(ExtensionTestCase):
    """BODY=BINARYMIME."""

    def test_kept(self) -> None:
        """The body type is on the envelope, and those of 8BITMIME are as before."""
        self.talk()
        for value in ("BINARYMIME", "8BITMIME", "7BIT"):
            self.mail(f"BODY={value.lower()}")
            self.assertEqual(self.envelope.bodyType, value)
        for wrong in ("BODY", "BODY=BINARY", "BODY=9BIT"):
            self.assertTrue(self.mail(wrong).startswith("501 5.5.4"))

    def test_octets(self) -> None:
        """The delivery gets the octets as they came, a lone CR at the end among them."""
        talk = self.talk()
        self.mail("BODY=BINARYMIME")
        self.rcpt("")
        octets = bytes(range(256)) + b"\n\r.\r\n\r"
        self.assertTrue(talk.send(b"BDAT 262 LAST\r\n" + octets).startswith(b"250 "))
        self.assertEqual(self.delivery.messages[0].text, octets)

    def test_data(self) -> None:
        """DATA cannot carry it (RFC 3030 3), and leaves the transaction as it was."""
        talk = self.talk()
        self.mail("BODY=BINARYMIME")
        self.rcpt("")
        self.assertEqual(talk.say("DATA"), "503 5.5.1 BODY=BINARYMIME needs BDAT")
        self.assertTrue(talk.send(b"BDAT 1 LAST\r\n\0").startswith(b"250 "))

    def test_withoutChunking(self) -> None:
        """It is shown with CHUNKING or not at all; where BDAT is disabled it is refused."""
        self.talk(hiddenExtensions=frozenset({"CHUNKING"}))
        self.assertNotIn("BINARYMIME", self.ehlo())
        self.assertTrue(self.mail("BODY=BINARYMIME").startswith("250"))
        self.talk(disabledVerbs=frozenset({"BDAT"}))
        self.assertNotIn("BINARYMIME", self.ehlo())
        self.assertTrue(self.mail("BODY=BINARYMIME").startswith("501"))
        self.talk(extensions=[])
        self.assertTrue(self.mail("BODY=BINARYMIME").startswith("555"))
