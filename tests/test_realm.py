"""Tests for :mod:`submitd.realm`."""

from __future__ import annotations

from twisted.cred.checkers import ANONYMOUS, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface
from zope.interface.verify import verifyObject

from submitd.interfaces import ISubmitter
from submitd.realm import SubmissionRealm, Submitter
from submitd.sasl.credentials import UsernamePassword
from submitd.wire.address import Mailbox


class RealmTests(SynchronousTestCase):
    """:class:`submitd.realm.SubmissionRealm`."""

    def test_interfaces(self) -> None:
        """Realm and avatar provide what they promise."""
        verifyObject(IRealm, SubmissionRealm())
        verifyObject(ISubmitter, Submitter("alice"))

    def test_login(self) -> None:
        """A login through a Portal gives a submitter and a logout that can be called."""
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"pass")
        portal = Portal(SubmissionRealm(lambda name: {"name": name.title()}), [checker])
        login = portal.login(UsernamePassword(b"alice", b"pass"), None, ISubmitter)
        interface, avatar, logout = self.successResultOf(login)
        self.assertIs(interface, ISubmitter)
        self.assertEqual(avatar, Submitter("alice"))
        self.assertEqual(avatar.attributes, {"name": "Alice"})
        logout()

    def test_asked(self) -> None:
        """What is known may come later, as from a data base; there is no avatar before it has."""
        questions: list[Deferred[dict[str, int]]] = []

        def ask(name: str) -> Deferred[dict[str, int]]:
            questions.append(Deferred())
            return questions[-1]

        async def awaits(name: str) -> dict[str, int]:
            return await ask(name)

        for attributes in (ask, awaits):
            checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"pass")
            portal = Portal(SubmissionRealm(attributes), [checker])
            login = portal.login(UsernamePassword(b"alice", b"pass"), None, ISubmitter)
            self.assertNoResult(login)
            questions.pop().callback({"id": 42})
            _, avatar, _ = self.successResultOf(login)
            self.assertEqual((avatar.avatarId, avatar.attributes), ("alice", {"id": 42}))

    def test_avatarId(self) -> None:
        """Octets from a checker are UTF-8; a str is taken as it is."""
        for avatarId in ("jörg", "jörg".encode()):
            _, avatar, _ = SubmissionRealm().requestAvatar(avatarId, None, ISubmitter)
            self.assertEqual((avatar.avatarId, avatar.attributes), ("jörg", {}))

    def test_oneOfSeveralInterfaces(self) -> None:
        """Who asks for several interfaces, this one among them, gets this one."""
        interface, _, _ = SubmissionRealm().requestAvatar(b"a", None, Interface, ISubmitter)
        self.assertIs(interface, ISubmitter)

    def test_otherInterface(self) -> None:
        """Who asks only for something else is told so, as Cred wants."""
        realm = SubmissionRealm()
        self.assertRaises(NotImplementedError, realm.requestAvatar, b"a", None, Interface)

    def test_anonymous(self) -> None:
        """Nobody submits without a name."""
        realm = SubmissionRealm()
        for avatarId in (ANONYMOUS, b""):
            self.assertRaises(UnauthorizedLogin, realm.requestAvatar, avatarId, None, ISubmitter)


class OwnsTests(SynchronousTestCase):
    """:meth:`submitd.realm.Submitter.owns`."""

    def assertOwns(self, avatarId: str, localPart: str, domain: str, expected: bool = True) -> None:
        """Check one pair."""
        owns = Submitter(avatarId).owns(Mailbox(localPart, domain))
        self.assertIs(owns, expected, (avatarId, localPart, domain))

    def test_ownAddress(self) -> None:
        """A login that is an address owns it, in any case."""
        self.assertOwns("alice@example.com", "alice", "example.com")
        self.assertOwns("alice@example.com", "Alice", "EXAMPLE.com")
        self.assertOwns("Alice@Example.com", "alice", "example.com")

    def test_otherAddress(self) -> None:
        """It owns no other one."""
        self.assertOwns("alice@example.com", "alice", "example.net", False)
        self.assertOwns("alice@example.com", "bob", "example.com", False)
        self.assertOwns("alice@example.com", "alice+x", "example.com", False)
        self.assertOwns("alice@example.com", "alice", "", False)

    def test_notAnAddress(self) -> None:
        """A login that is no address owns nothing, not even a mailbox without a domain."""
        self.assertOwns("alice", "alice", "example.com", False)
        self.assertOwns("alice", "alice", "", False)
        self.assertOwns("alice", "", "alice", False)

    def test_internationalDomain(self) -> None:
        """A-label and U-label are the same domain (RFC 5891), in any case."""
        self.assertOwns("a@bücher.example", "a", "xn--bcher-kva.example")
        self.assertOwns("a@XN--BCHER-KVA.example", "a", "BÜCHER.example")
        self.assertOwns("a@bücher.example", "a", "bucher.example", False)

    def test_internationalLocalPart(self) -> None:
        """Beyond ASCII, local parts that only look alike are different."""
        self.assertOwns("jörg@example.com", "JöRG", "example.com")
        self.assertOwns("karl@example.com", "\u212aarl", "example.com", False)
        self.assertOwns("alice@example.com", "\u0430lice", "example.com", False)

    def test_whatIdnaRefuses(self) -> None:
        """Literals and names that IDNA does not know are still compared, without case."""
        self.assertOwns("a@[IPv6:2001:db8::1]", "a", "[ipv6:2001:DB8::1]")
        self.assertOwns("a@my_host.example", "a", "MY_host.example")
        self.assertOwns("a@my_host.example", "a", "my-host.example", False)

    def test_quotedAt(self) -> None:
        """The domain stands behind the last @, as a quoted local part may have one too."""
        self.assertOwns("a@b@example.com", "a@b", "example.com")
        self.assertOwns("a@b@example.com", "a", "b@example.com", False)
