"""Tests for :mod:`submitd.sasl.scram`."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd.checkers.salts import Salt
from submitd.interfaces import (
    IExchange,
    IMechanism,
    IMechanismAmong,
    IQuestion,
    IScramProof,
    IScramSalts,
    ISuccessChallenge,
    ITLSMechanism,
)
from submitd.sasl import mechanism
from submitd.sasl.scram import MAX_NAME, MAX_NONCE, SaltOf, Scram, ScramPlus, ScramProof
from submitd.sasl.scramkeys import ScramKeys
from submitd.session import TLSInfo
from submitd.wire.errors import Refused
from tests.sasl.scramclient import ScramClient
from tests.sasl.test_scramkeys import SALT

# The example of RFC 7677 3.
NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
CHALLENGE = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
LAST = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

KEYS = ScramKeys.derive(b"pencil", SALT, 4096)


@implementer(IScramSalts)
class Salts:
    """A checker that has one salt for all.

    :ivar asked: for whom.
    """

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def saltOf(self, username: bytes) -> Any:
        self.asked.append(username)
        return succeed(Salt(SALT, 4096))


class ScramTestCase(SynchronousTestCase):
    """Exchanges with the nonce of the example."""

    def setUp(self) -> None:
        """A checker."""
        self.salts = Salts()

    def begin(self, server: Any, first: bytes) -> bytes:
        """Come as far as the challenge."""
        question = server.respond(first)
        assert isinstance(question, SaltOf)
        challenge: bytes = self.successResultOf(question.ask(self.salts))
        return challenge

    def exchange(self, **changes: Any) -> Any:
        return Scram(lambda: NONCE, **changes).server("mail.example.com")

    def plus(self, kind: str, octets: bytes) -> Any:
        """An exchange on a connection that has one channel binding."""
        tls = TLSInfo("TLSv1.3", "x", channelBinding={kind: octets}.get)
        bound = ScramPlus(lambda: NONCE).over(tls)
        assert bound is not None
        return bound.server("mail.example.com")

    def assertMalformed(self, run: Any, *arguments: Any) -> None:
        """It is 501 5.5.2."""
        reply = self.assertRaises(Refused, run, *arguments).reply
        self.assertEqual((reply.code, reply.status), (501, "5.5.2"), arguments)

    def assertFailed(self, run: Any, *arguments: Any) -> None:
        """It is 535, as for a wrong password."""
        reply = self.assertRaises(Refused, run, *arguments).reply
        self.assertEqual((reply.code, reply.status), (535, "5.7.8"), arguments)


class ScramTests(ScramTestCase):
    """SCRAM-SHA-256."""

    def test_interfaces(self) -> None:
        """What the parts say of themselves holds."""
        made = mechanism("SCRAM-SHA-256")
        verifyObject(IMechanism, made)
        verifyObject(IMechanismAmong, made)
        exchange = self.exchange()
        verifyObject(IExchange, exchange)
        verifyObject(ISuccessChallenge, exchange)
        verifyObject(IQuestion, exchange.respond(FIRST))
        verifyObject(IScramProof, ScramProof(b"user", b"", b"", bytes(32)))

    def test_example(self) -> None:
        """The example of RFC 7677 3, octet by octet."""
        exchange = self.exchange()
        self.assertEqual(exchange.respond(None), b"")
        self.assertEqual(self.begin(exchange, FIRST), CHALLENGE)
        self.assertEqual(self.salts.asked, [b"user"])
        proof = exchange.respond(FINAL)
        self.assertEqual((proof.username, proof.authorizationId), (b"user", b""))
        self.assertTrue(proof.checkKeys(KEYS.storedKey, KEYS.serverKey))
        self.assertEqual(exchange.loginSucceeded(), LAST)

    def test_client(self) -> None:
        """The client of the tests says what the example does."""
        client = ScramClient(b"user", b"pencil")
        self.assertEqual((client.first, client.final(CHALLENGE)), (FIRST, FINAL))
        client.verify(LAST)
        self.assertTrue(client.verified)

    def test_wrongPassword(self) -> None:
        """Another password's proof is none, and is answered with none."""
        exchange = self.exchange()
        client = ScramClient(b"user", b"pencils")
        proof = exchange.respond(client.final(self.begin(exchange, client.first)))
        self.assertFalse(proof.checkKeys(KEYS.storedKey, KEYS.serverKey))
        self.assertRaises(ValueError, exchange.loginSucceeded)

    def test_notChecked(self) -> None:
        """A checker that lets somebody in without a look at keys proves nothing."""
        exchange = self.exchange()
        self.assertRaises(ValueError, exchange.loginSucceeded)

    def test_nonce(self) -> None:
        """No two logins have the same; it is printable and has no comma."""
        nonces = {self.begin(Scram().server("x"), FIRST) for _ in range(100)}
        self.assertEqual(len(nonces), 100)
        for challenge in nonces:
            self.assertRegex(challenge.decode(), r"^r=rOprNGfwEbeRWgbNEkqO[A-Za-z0-9_-]{32},s=")

    def test_names(self) -> None:
        """A name is decoded, and has one form; it comes back as it was sent."""
        for sent, name in (
            (b"a=2Cb=3Dc", b"a,b=c"),
            ("e\u0301".encode(), "\xe9".encode()),
            (b"with blank", b"with blank"),
        ):
            exchange = self.exchange()
            client = ScramClient(sent, b"pencil")
            proof = exchange.respond(client.final(self.begin(exchange, client.first)))
            self.assertEqual(proof.username, name)
            self.assertEqual(self.salts.asked[-1], name)
            self.assertTrue(proof.checkKeys(KEYS.storedKey, KEYS.serverKey))

    def test_identity(self) -> None:
        """Whom the user asks to act as is in the credentials, where that is somebody else."""
        for header, identity in ((b"n,a=Bob=2C,", b"Bob,"), (b"n,a=USER,", b"")):
            exchange = self.exchange()
            client = ScramClient(b"user", b"pencil", header=header)
            proof = exchange.respond(client.final(self.begin(exchange, client.first)))
            self.assertEqual(proof.authorizationId, identity)
            self.assertTrue(proof.checkKeys(KEYS.storedKey, KEYS.serverKey))

    def test_extensions(self) -> None:
        """An attribute that nobody knows is passed over, and is part of what is proved."""
        exchange = self.exchange()
        client = ScramClient(b"user", b"pencil", nonce=b"abc,x=y,Z=1")
        proof = exchange.respond(client.final(self.begin(exchange, client.first)))
        self.assertTrue(proof.checkKeys(KEYS.storedKey, KEYS.serverKey))
        exchange = self.exchange()
        self.begin(exchange, FIRST)
        exchange.respond(FINAL.replace(b",p=", b",x=y,p="))

    def test_malformedFirst(self) -> None:
        """What is no first message is 501 5.5.2, whoever sends it."""
        for message in (
            b"",
            b"n",
            b"n=user,r=abc",
            b"n,n=user,r=abc",
            b"n,,n=user",
            b"n,,r=abc,n=user",
            b"n,,n=,r=abc",
            b"n,,n=user,r=",
            b"n,,m=x,n=user,r=abc",
            b"n,,n=user,r=abc,m=x",
            b"n,,n=user,r=abc,x=",
            b"n,,n=user,r=abc,xy=z",
            b"n,,n=user,r=abc,",
            b"n,,n=user,r=ab c",
            b"n,,n=user,r=ab\x7fc",
            b"n,,n=user,r=ab\xc3\xa9c",
            b"n,,n=user,r=abc\n",
            b"n,,n=user,r=" + b"a" * (MAX_NONCE + 1),
            b"n,,n=" + b"a" * (MAX_NAME + 1) + b",r=abc",
            b"n,a=" + b"a" * (MAX_NAME + 1) + b",n=user,r=abc",
            b"n,,n=us=er,r=abc",
            b"n,,n=us=2cer,r=abc",
            b"n,,n=us\0er,r=abc",
            b"n,,n=us\ner,r=abc",
            b"n,,n=\xff,r=abc",
            "n,,n=\xad,r=abc".encode(),
            "n,,n=\u0627\u0031,r=abc".encode(),
            b"n,a=,n=user,r=abc",
            b"n,a=\xff,n=user,r=abc",
            b"n,user,n=user,r=abc",
            b"N,,n=user,r=abc",
            b"F,n,,n=user,r=abc",
            b"p=,,n=user,r=abc",
            b"p=tls-exporter,,n=user,r=abc",
        ):
            self.assertMalformed(self.exchange().respond, message)
        self.assertEqual(self.salts.asked, [])

    def test_malformedFinal(self) -> None:
        """What is no last message, or one of another login, is 501 5.5.2."""
        proof = FINAL.rpartition(b"p=")[2]
        for message in (
            None,
            b"",
            FINAL[:-1],
            FINAL + b"=",
            FINAL + b",x=y",
            FINAL.replace(b"c=biws,", b""),
            FINAL.replace(b"c=biws,", b"c=,"),
            FINAL.replace(b"c=biws,", b"c=biw,"),
            FINAL.replace(b"c=biws,", b"c=biws=,"),
            FINAL.replace(b"hNlF$k0", b"hNlF$k1"),
            FINAL.replace(b"hNlF$k0", b""),
            FINAL.replace(NONCE, b""),
            FINAL.replace(proof, base64.b64encode(bytes(31))),
            FINAL.replace(proof, base64.b64encode(bytes(33))),
            FINAL.replace(b"VQ=", b"VR="),
            FINAL.replace(b",p=", b",p=%b,p=" % proof),
            FINAL.replace(b",p=", b",m=x,p="),
            b"e=other-error",
        ):
            exchange = self.exchange()
            self.begin(exchange, FIRST)
            self.assertMalformed(exchange.respond, message)

    def test_header(self) -> None:
        """The GS2 header that is repeated is the one that was sent: nobody changed it between."""
        exchange = self.exchange()
        self.begin(exchange, FIRST)
        changed = base64.b64encode(b"y,,")
        self.assertFailed(exchange.respond, FINAL.replace(b"biws", changed))

    def test_downgrade(self) -> None:
        """Who says that we have no -PLUS has been lied to, where we do show it."""
        first = FIRST.replace(b"n,,", b"y,,")
        self.assertIsInstance(self.exchange().respond(first), SaltOf)
        self.assertIsInstance(self.exchange(isBindable=True).respond(FIRST), SaltOf)
        self.assertFailed(self.exchange(isBindable=True).respond, first)
        shown = Scram().among(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
        self.assertFailed(shown.server("x").respond, first)
        alone = Scram().among(["SCRAM-SHA-256"])
        self.assertIsInstance(alone.server("x").respond(first), SaltOf)

    def test_hidden(self) -> None:
        """Nothing of a proof is shown."""
        shown = repr(ScramProof(b"user", b"", b"all-said", b"the-proof"))
        self.assertNotIn("all-said", shown)
        self.assertNotIn("the-proof", shown)

    def test_noSalts(self) -> None:
        """A checker that has no salts makes the question fail, and is no surprise."""
        question = self.exchange().respond(FIRST)
        self.failureResultOf(question.ask(object()), TypeError)

    @given(
        st.lists(
            st.sampled_from([b"n", b"y", b"p=x", b",", b"a=", b"n=", b"r=", b"m=", b"=2C", b"\xff"])
            | st.binary(max_size=8),
            max_size=12,
        ).map(b"".join)
    )
    def test_anyFirst(self, message: bytes) -> None:
        """Whatever comes is a question for a name that somebody can have, or 501."""
        try:
            made = self.exchange().respond(message)
        except Refused as refused:
            self.assertEqual(refused.reply.code, 501)
        else:
            self.assertTrue(made.username.decode())

    @given(st.integers(0, len(FINAL) - 1), st.binary(max_size=3))
    def test_anyFinal(self, at: int, octets: bytes) -> None:
        """No change of a proof makes another one that holds."""
        changed = FINAL[:at] + octets + FINAL[at + 1 :]
        exchange = self.exchange()
        exchange.respond(FIRST).challenge(SALT, 4096)
        try:
            proof = exchange.respond(changed)
        except Refused as refused:
            self.assertIn(refused.reply.code, (501, 535))
        else:
            good = proof.checkKeys(KEYS.storedKey, KEYS.serverKey)
            self.assertIs(good, changed == FINAL)


class ScramPlusTests(ScramTestCase):
    """SCRAM-SHA-256-PLUS."""

    def test_interfaces(self) -> None:
        """It takes part of TLS."""
        made = mechanism("SCRAM-SHA-256-PLUS")
        verifyObject(IMechanism, made)
        verifyObject(ITLSMechanism, made)

    def test_where(self) -> None:
        """It needs TLS 1.3, and one that can be bound to."""
        made = ScramPlus()
        self.assertIsNone(made.over(None))
        self.assertIsNone(made.over(TLSInfo("TLSv1.3", "x")))
        self.assertIsNone(made.over(TLSInfo("TLSv1.2", "x", channelBinding={}.get)))
        self.assertIsNotNone(made.over(TLSInfo("TLSv1.3", "x", channelBinding={}.get)))

    def test_bound(self) -> None:
        """The proof is one of this connection."""
        for kind in ("tls-exporter", "tls-server-end-point"):
            octets = hashlib.sha256(kind.encode()).digest()
            exchange = self.plus(kind, octets)
            header = f"p={kind},a=bob,".encode()
            client = ScramClient(b"user", b"pencil", header=header, binding=octets)
            proof = exchange.respond(client.final(self.begin(exchange, client.first)))
            self.assertTrue(proof.checkKeys(KEYS.storedKey, KEYS.serverKey))
            self.assertEqual(proof.authorizationId, b"bob")
            client.verify(exchange.loginSucceeded())
            self.assertTrue(client.verified)

    def test_otherConnection(self) -> None:
        """The binding of another connection is 535."""
        for octets in (b"there", b"", b"her", b"here!"):
            exchange = self.plus("tls-exporter", b"here")
            client = ScramClient(b"user", b"pencil", header=b"p=tls-exporter,,", binding=octets)
            challenge = self.begin(exchange, client.first)
            self.assertFailed(exchange.respond, client.final(challenge))

    def test_otherKind(self) -> None:
        """A kind that this connection has not is 535."""
        for kind in (b"tls-unique", b"tls-server-end-point", b"x"):
            exchange = self.plus("tls-exporter", b"here")
            self.assertFailed(exchange.respond, b"p=%b,,n=user,r=abc" % kind)

    def test_unbound(self) -> None:
        """Without a binding it is not -PLUS."""
        for flag in (b"n", b"y"):
            exchange = self.plus("tls-exporter", b"here")
            self.assertMalformed(exchange.respond, flag + b",,n=user,r=abc")

    def test_byItself(self) -> None:
        """One that was never given a connection has no binding at all."""
        exchange = ScramPlus().server("x")
        self.assertFailed(exchange.respond, b"p=tls-exporter,,n=user,r=abc")
