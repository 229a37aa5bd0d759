"""When two addresses are one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd import equality
from submitd.equality import LONGEST, isAddressOf, sameAddress, sameDomain, sameLocalPart
from submitd.wire.address import Mailbox


class EqualityTests(SynchronousTestCase):
    """Equal addresses, and different ones."""

    def test_domains(self) -> None:
        """Case makes no difference, nor whether a domain is written in U-labels or A-labels."""
        for other in ("BÜCHER.example", "xn--bcher-kva.example", "XN--BCHER-KVA.Example"):
            self.assertEqual(sameDomain(other), sameDomain("bücher.example"))
        self.assertEqual(sameDomain("Example.COM"), "example.com")
        self.assertNotEqual(sameDomain("bücher.example"), sameDomain("bucher.example"))

    def test_remembered(self) -> None:
        """What domains of a large message are compared as is worked out once for all who ask."""
        worked: list[str] = []

        def encode(domain: str, uts46: bool) -> bytes:
            worked.append(domain)
            return b"xn--" + str(len(worked)).encode()

        self.patch(equality.idna, "encode", encode)
        equality._remembered.cache_clear()
        self.addCleanup(equality._remembered.cache_clear)
        domains = [f"é{number}.example" for number in range(1000)]
        self.assertEqual(*([sameDomain(domain) for domain in domains] for _ in range(2)))
        self.assertEqual(worked, domains)
        for _ in range(2):
            sameDomain("é" * (LONGEST + 1))  # nobody fills the memory with them
        self.assertEqual(len(worked), 1002)

    def test_localParts(self) -> None:
        """Only ASCII letters are equal without their case: other rules differ by language."""
        self.assertEqual(sameLocalPart("Alice.B"), "alice.b")
        self.assertNotEqual(sameLocalPart("ZOË"), sameLocalPart("zoë"))

    def test_logins(self) -> None:
        """A login that is an address is that address; any other is none."""
        mailbox = Mailbox("Alice", "Example.com")
        self.assertTrue(isAddressOf("alice@example.com", mailbox))
        self.assertFalse(isAddressOf("alice@example.org", mailbox))
        self.assertFalse(isAddressOf("alice", mailbox))
        self.assertFalse(isAddressOf("", Mailbox("", "")))

    @settings(deadline=None, max_examples=200)
    @given(*[st.sampled_from(["a", "A", "é", "É", "ß", "xn--tda", ""])] * 4)
    def test_sameLogin(self, local: str, domain: str, otherLocal: str, otherDomain: str) -> None:
        """A login is an address exactly where the two addresses are the same."""
        mailbox, other = Mailbox(local, domain), Mailbox(otherLocal, otherDomain)
        isSame = sameAddress(mailbox) == sameAddress(other)
        self.assertEqual(isAddressOf(f"{otherLocal}@{otherDomain}", mailbox), isSame)

    @settings(deadline=None, max_examples=200)
    @given(st.text(), st.text())
    def test_anything(self, local: str, domain: str) -> None:
        """Any text is taken, and its form is its own form."""
        first = sameAddress(Mailbox(local, domain))
        self.assertEqual(sameLocalPart(first[0]), first[0])
        self.assertEqual(sameDomain(first[1]), first[1])
