"""Tests for :mod:`submitd.checkers.secrets`."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface.verify import verifyObject

from submitd.checkers.salts import Salt, saltFor
from submitd.checkers.secrets import SecretsChecker, parseSecret
from submitd.checkers.userfile import BadLine
from submitd.interfaces import IChecked, IRevised, IScramSalts, ISubmitter, IWarns
from submitd.realm import SubmissionRealm
from submitd.sasl.credentials import UsernameDigest, UsernamePassword
from submitd.sasl.scram import ScramExchange, ScramProof
from submitd.sasl.scramkeys import ScramKeys
from tests.checkers.files import HASHES, FileTestCase
from tests.sasl.scramclient import ScramClient
from tests.sasl.test_scramkeys import PENCIL, SALT


def digest(name: bytes, secret: bytes) -> UsernameDigest:
    """What CRAM-MD5 makes of a client with that secret."""
    challenge = b"<1@mail.example.com>"
    return UsernameDigest(name, challenge, hmac.new(secret, challenge, "md5").hexdigest().encode())


class SecretsCheckerTests(FileTestCase):
    """:class:`submitd.checkers.secrets.SecretsChecker`."""

    def test_interfaces(self) -> None:
        """It provides what the Portal, the start and the cache ask for."""
        checker = SecretsChecker(self.path)
        for interface in (ICredentialsChecker, IChecked, IRevised, IWarns, IScramSalts):
            verifyObject(interface, checker)

    def test_login(self) -> None:
        """Password and digest are both checked; the name comes back as the file writes it."""
        checker = SecretsChecker(self.write("Alice:wonder", "bob:{base64}YnVpbGRlcg=="))
        self.assertLogin(checker.requestAvatarId(digest(b"alice", b"wonder")), b"Alice")
        self.assertLogin(checker.requestAvatarId(UsernamePassword(b"ALICE", b"wonder")), b"Alice")
        self.assertLogin(checker.requestAvatarId(digest(b"bob", b"builder")), b"bob")

    def test_wrong(self) -> None:
        """A wrong secret, another user's secret and an unknown user are refused alike."""
        checker = SecretsChecker(self.write("alice:wonder", "bob:builder"))
        for name, secret in ((b"alice", b"builder"), (b"alice", b"wonde"), (b"eve", b"wonder")):
            self.assertRefused(checker.requestAvatarId(digest(name, secret)))
            self.assertRefused(checker.requestAvatarId(UsernamePassword(name, secret)))

    def test_unknownUserIsCompared(self) -> None:
        """An unknown user costs the same comparison, with a secret that nobody has."""
        checker = SecretsChecker(self.write("alice:wonder"))
        compared = []

        class Watched(UsernameDigest):
            def checkPassword(self, password: bytes) -> bool:
                compared.append(password)
                return True

        self.assertRefused(checker.requestAvatarId(Watched(b"eve", b"<1@x>", b"0" * 32)))
        self.assertEqual(len(compared), 1)
        self.assertNotIn(b"wonder", compared)

    def test_changed(self) -> None:
        """A changed secret is in force at once, with another revision."""
        checker = SecretsChecker(self.write("alice:wonder"))
        before = checker.revision()
        self.write("alice:land")
        self.assertNotEqual(checker.revision(), before)
        self.assertRefused(checker.requestAvatarId(digest(b"alice", b"wonder")))
        self.assertLogin(checker.requestAvatarId(digest(b"alice", b"land")), b"alice")

    def test_openToOthers(self) -> None:
        """A file that others can read is refused: nobody logs in, and the start says why."""
        checker = SecretsChecker(self.write("alice:wonder", mode=0o644))
        [problem] = checker.check()
        self.assertIn("it needs 0600", problem)
        self.assertUnavailable(checker.requestAvatarId(digest(b"alice", b"wonder")))

    def test_portal(self) -> None:
        """Behind a Portal it serves both kinds of credentials."""
        portal = Portal(SubmissionRealm(), [SecretsChecker(self.write("alice:wonder"))])
        for credentials in (digest(b"alice", b"wonder"), UsernamePassword(b"alice", b"wonder")):
            login = portal.login(credentials, None, ISubmitter)
            self.assertEqual(self.successResultOf(login)[1].avatarId, "alice")


class Threads:
    """In place of the reactor's.

    :ivar calls: what has been run in them.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        names = [each.__qualname__ for each in arguments if callable(each)]
        self.calls.append(names[-1])  # those in front bring it into the right thread
        return maybeDeferred(call, *arguments)


class ScramTests(FileTestCase):
    """SCRAM, with secrets in the clear and with keys."""

    def setUp(self) -> None:
        """Threads that are none."""
        super().setUp()
        self.threads = Threads()

    def checker(self, *lines: str) -> SecretsChecker:
        return SecretsChecker(self.write(*lines), self.threads)

    def saltOf(self, checker: SecretsChecker, name: bytes) -> Salt:
        salt: Salt = self.successResultOf(checker.saltOf(name))
        return salt

    def proof(self, checker: SecretsChecker, name: bytes, password: bytes) -> ScramProof:
        """The credentials of a whole exchange."""
        exchange, client = ScramExchange(b"ours"), ScramClient(name, password)
        question: Any = exchange.respond(client.first)
        proof = exchange.respond(client.final(self.successResultOf(question.ask(checker))))
        assert isinstance(proof, ScramProof)
        return proof

    def test_login(self) -> None:
        """Who has the password logs in, whether the file has it too or only its keys."""
        checker = self.checker("Alice:wonder", f"Bob:{PENCIL}")
        for name, password in ((b"ALICE", b"wonder"), (b"bob", b"pencil")):
            login = checker.requestAvatarId(self.proof(checker, name, password))
            self.assertLogin(login, name.capitalize())

    def test_wrong(self) -> None:
        """A wrong password, another user's password and an unknown user are refused alike."""
        checker = self.checker("alice:wonder", f"bob:{PENCIL}")
        for name, password in (
            (b"alice", b"pencil"),
            (b"bob", b"wonder"),
            (b"bob", b""),
            *((b"nobody%d" % number, b"pencil") for number in range(8)),
        ):
            proof = self.proof(checker, name, password)
            self.assertRefused(checker.requestAvatarId(proof))
            self.assertEqual(proof.signature, b"")

    def test_password(self) -> None:
        """PLAIN and LOGIN are verified with keys, in a thread."""
        checker = self.checker(f"bob:{PENCIL}")
        self.assertLogin(checker.requestAvatarId(UsernamePassword(b"bob", b"pencil")), b"bob")
        self.assertRefused(checker.requestAvatarId(UsernamePassword(b"bob", b"pencils")))
        self.assertEqual(self.threads.calls, ["matches", "matches"])

    def test_challengeDigest(self) -> None:
        """CRAM-MD5 is not, whatever it is made with."""
        checker = self.checker(f"bob:{PENCIL}")
        keys = ScramKeys.derive(b"pencil", SALT, 4096)
        for secret in (b"pencil", b"", PENCIL.encode(), keys.storedKey, keys.serverKey):
            self.assertRefused(checker.requestAvatarId(digest(b"bob", secret)))

    def test_typed(self) -> None:
        """An accent may be typed in more than one way."""
        cafe = "caf\xe9".encode()
        checker = self.checker(f"bob:{ScramKeys.derive(cafe, SALT, 4096)}", "al:cafe\u0301")
        for name in (b"bob", b"al"):
            proof = self.proof(checker, name, cafe)
            self.assertLogin(checker.requestAvatarId(proof), name)
        typed = UsernamePassword(b"bob", "cafe\u0301".encode())
        self.assertLogin(checker.requestAvatarId(typed), b"bob")

    def test_salts(self) -> None:
        """Keys come with theirs; secrets in the clear and unknown users have one by their name."""
        checker = self.checker("alice:wonder")
        for name in (b"alice", b"eve"):
            self.assertEqual(self.saltOf(checker, name).salt, saltFor(name))
            self.assertEqual(self.saltOf(checker, name.upper()).salt, saltFor(name))
            self.assertEqual(self.saltOf(checker, name).iterations, 4096)
        self.assertNotEqual(saltFor(b"alice"), saltFor(b"eve"))
        checker = self.checker(f"bob:{PENCIL}")
        self.assertEqual(self.saltOf(checker, b"bob"), Salt(SALT, 4096))

    def test_known(self) -> None:
        """A salt says whose it is, for the one who asks several back ends."""
        checker = self.checker("alice:wonder", f"bob:{PENCIL}")
        known = [self.saltOf(checker, name).isKnown for name in (b"alice", b"bob", b"eve")]
        self.assertEqual(known, [True, True, False])

    def test_likeSomebodys(self) -> None:
        """An unknown user's salt looks like that of somebody in the file, always the same."""
        keys = ScramKeys.derive(b"x", b"12 octets...", 5000)
        checker = self.checker(f"bob:{keys}")
        salt = self.saltOf(checker, b"eve")
        self.assertEqual((len(salt.salt), salt.iterations), (12, 5000))
        self.assertEqual(salt, self.saltOf(self.checker(f"bob:{keys}", "# more"), b"Eve"))

    def test_work(self) -> None:
        """A login costs the same each time, and for an unknown user what somebody's costs."""
        for line, password, proof in (
            ("a:wonder", [], ["ScramKeys.derive"]),
            (f"a:{PENCIL}", ["matches"], []),
        ):
            checker = self.checker(line)
            for name in (b"a", b"eve") * 2:
                self.threads.calls.clear()
                self.assertRefused(checker.requestAvatarId(UsernamePassword(name, b"x")))
                self.assertEqual(self.threads.calls, password)
                self.threads.calls.clear()
                self.assertRefused(checker.requestAvatarId(self.proof(checker, name, b"x")))
                self.assertEqual(self.threads.calls, proof)

    def test_unavailable(self) -> None:
        """A file that was never usable is no "no", nor is a queue that is full."""
        checker = SecretsChecker(self.path)
        self.assertUnavailable(checker.saltOf(b"alice"))
        self.assertUnavailable(checker.requestAvatarId(ScramProof(b"a", b"", b"", bytes(32))))
        slow = SecretsChecker(self.write(f"bob:{PENCIL}"), lambda *call: Deferred())
        for _ in range(100):
            slow.requestAvatarId(UsernamePassword(b"bob", b"x"))
        self.assertUnavailable(slow.requestAvatarId(UsernamePassword(b"bob", b"x")))

    def test_nobody(self) -> None:
        """A file without users has salts all the same."""
        checker = self.checker("# nobody yet")
        self.assertEqual(self.saltOf(checker, b"eve"), Salt(saltFor(b"eve"), 4096, False))
        self.assertRefused(checker.requestAvatarId(self.proof(checker, b"eve", b"x")))

    def test_portal(self) -> None:
        """Behind a Portal it serves proofs and digests by itself."""
        checker = self.checker("alice:wonder")
        portal = Portal(SubmissionRealm(), [checker])
        self.assertIn(IUsernameHashedPassword, portal.checkers)
        login = portal.login(self.proof(checker, b"alice", b"wonder"), None, ISubmitter)
        self.assertEqual(self.successResultOf(login)[1].avatarId, "alice")


class ParseSecretTests(FileTestCase):
    """:func:`submitd.checkers.secrets.parseSecret`."""

    def test_kept(self) -> None:
        """Secrets come out as they went in, however they are kept."""
        for value, secret in (
            (b"wonder", b"wonder"),
            (b" a:b # c ", b" a:b # c "),
            (b"{plain}{x}y", b"{x}y"),
            (b"{PLAIN}$6$x", b"$6$x"),
            (b"{base64}d29uZGVy", b"wonder"),
            (b"{Base64}AP8= ", b"\0\xff"),
            (b"{", b"{"),
            (b"{}x", b"{}x"),
            (b"$5", b"$5"),
            (PENCIL.encode(), ScramKeys.derive(b"pencil", SALT, 4096)),
            (b"{scram-sha-256}" + PENCIL[15:].encode() + b" ", ScramKeys.parse(PENCIL[15:])),
        ):
            self.assertEqual(parseSecret(value), secret)

    def test_refused(self) -> None:
        """Nothing, unknown schemes, bad base64 and hashes are bad lines, and are not quoted."""
        for value in (
            b"",
            b"{plain}",
            b"{base64}",
            b"{base64}d29uZGVy=",
            b"{base64}!",
            b"{SHA}d29uZGVy",
            b"{SCRAM-SHA-256}",
            b"{SCRAM-SHA-256}d29uZGVy",
            b"{SCRAM-SHA-256}\xff" + PENCIL[15:].encode(),
            b"{SCRAM-SHA-1}" + PENCIL[15:].encode(),
            *[text.encode() for text in HASHES.values()],
        ):
            error = self.assertRaises(BadLine, parseSecret, value)
            self.assertNotIn("d29u", str(error))
