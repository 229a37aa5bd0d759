"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): each side proves what it knows.

The client proves that it knows the password, and the server that it knows the password's keys;
neither is sent, and the server need not have the password.  ``-PLUS`` is bound to the connection's
TLS: with somebody in the middle, whose certificate the client has believed, the proof is worth
nothing.  A client that could do so and was shown no ``-PLUS``, where we show it, has been lied to
(``y``), and is refused.

Both ask for TLS: whoever listens can try passwords against a proof at leisure, and without TLS can
take over the connection after it.  The binding needs TLS 1.3, whose clients have ``tls-exporter``
(RFC 9266); what those of TLS 1.2 would ask for, ``tls-unique``, has been found broken.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

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
from submitd.sasl.credentials import checkName, malformed
from submitd.sasl.gs2 import HEADER, unescaped
from submitd.sasl.scramkeys import KEY, prepared
from submitd.session import TLSInfo
from submitd.wire.base64text import decodeBase64
from submitd.wire.errors import Refused
from submitd.wire.reply import LOGIN_FAILED

Binding = Callable[[str], bytes | None]
"""Kind of channel binding -> its octets; ``None`` for one that cannot be had."""

MAX_NONCE = 256
# Octets as they are sent.  Preparing a name takes ten microseconds for each letter that is not
# ASCII, and anybody may send one.
MAX_NAME = 255

# RFC 5802 5.1: a name with any other "=" must fail.
_NAME = rb"(?:[^\0=,]|=2C|=3D)+"
# RFC 5802 7.  Values are UTF-8, which names are held to; nobody reads the extensions, which can be
# none of the attributes that there are: "m" is one that must not be passed over.
_NONCE = rb"[\x21-\x2b\x2d-\x7e]+"
_MORE = rb"(?:,[A-Zbdfghjkloqtuwxyz]=[^\0,]+)*"
_BASE64 = rb"[A-Za-z0-9+/]+=*"
_FIRST = re.compile(
    rb"(?P<header>%b)(?P<bare>n=(?P<name>%b),r=(?P<nonce>%b)%b)" % (HEADER, _NAME, _NONCE, _MORE)
)
_FINAL = re.compile(
    rb"(?P<unproved>c=(?P<bound>%b),r=(?P<nonce>%b)%b),p=(?P<proof>%b)"
    % (_BASE64, _NONCE, _MORE, _BASE64)
)


def _nonce() -> bytes:
    return secrets.token_urlsafe(24).encode("ascii")


@implementer(IMechanism, IMechanismAmong)
@attrs.frozen
class Scram:
    """The mechanism SCRAM-SHA-256.

    :param nonce: makes what no two logins have in common: printable, without a comma.
    :param isBindable: whether ``-PLUS`` is offered beside it.
    """

    name = "SCRAM-SHA-256"
    credentialsInterface = IScramProof
    needsTLS = True

    nonce: Callable[[], bytes] = _nonce
    isBindable: bool = False

    def among(self, names: Collection[str]) -> Scram:
        """The mechanism for a client that is shown these."""
        return attrs.evolve(self, isBindable=ScramPlus.name in names)

    def server(self, hostname: str) -> ScramExchange:
        """A fresh exchange with a fresh nonce; the host name plays no part."""
        return ScramExchange(self.nonce(), isBindable=self.isBindable)


@implementer(IMechanism, ITLSMechanism)
@attrs.frozen
class ScramPlus:
    """The mechanism SCRAM-SHA-256-PLUS.

    :param nonce: as for :class:`Scram`.
    :param binding: of the connection.
    """

    name = "SCRAM-SHA-256-PLUS"
    credentialsInterface = IScramProof
    needsTLS = True

    nonce: Callable[[], bytes] = _nonce
    binding: Binding = lambda kind: None

    def over(self, tls: TLSInfo | None) -> ScramPlus | None:
        """The mechanism bound to a connection of TLS 1.3."""
        if tls is None or tls.version != "TLSv1.3" or tls.channelBinding is None:
            return None
        return attrs.evolve(self, binding=tls.channelBinding)

    def server(self, hostname: str) -> ScramExchange:
        """A fresh exchange with a fresh nonce; the host name plays no part."""
        return ScramExchange(self.nonce(), self.binding)


@implementer(IScramProof)
@attrs.define(eq=False)
class ScramProof:
    """A user name with the proof that its client knows the password.

    :param authorizationId: whom the user asks to act as; empty for themselves.
    :param said: all that both sides have said, which the proof is of.
    :ivar signature: our own proof, once the client's has been found to be right.
    """

    username: bytes
    authorizationId: bytes
    said: bytes = attrs.field(repr=False)
    proof: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(init=False, default=b"", repr=False)

    def checkKeys(self, storedKey: bytes, serverKey: bytes) -> bool:
        """See :meth:`submitd.interfaces.IScramProof.checkKeys`."""
        clientKey = _xor(self.proof, hmac.digest(storedKey, self.said, "sha256"))
        if not hmac.compare_digest(hashlib.sha256(clientKey).digest(), storedKey):
            return False
        self.signature = hmac.digest(serverKey, self.said, "sha256")
        return True


@implementer(IQuestion)
@attrs.frozen
class SaltOf:
    """Asks for a user's salt, for the challenge.

    :param challenge: makes it of salt and iterations.
    """

    credentialsInterface = IScramProof

    username: bytes
    challenge: Callable[[bytes, int], bytes]

    def ask(self, checker: Any) -> Deferred[bytes]:
        """See :meth:`submitd.interfaces.IQuestion.ask`."""
        asked: Deferred[Any] = maybeDeferred(self._saltOf, checker)
        return asked.addCallback(lambda found: self.challenge(found.salt, found.iterations))

    def _saltOf(self, checker: Any) -> Any:
        return IScramSalts(checker).saltOf(self.username)


@implementer(IExchange, ISuccessChallenge)
class ScramExchange:
    """Client's name and nonce; our nonce and the salt; the client's proof; ours.

    :param nonce: our part of it.
    :param binding: of the connection; ``None`` for a login that is not bound to it.
    :param isBindable: whether the client could have chosen one that is.
    """

    def __init__(
        self, nonce: bytes, binding: Binding | None = None, isBindable: bool = False
    ) -> None:
        self._nonce = nonce
        self._binding = binding
        self._isBindable = isBindable
        self._username = self._authorizationId = b""
        self._bound = b""  # what the client has to repeat as it sees it
        self._said = b""
        self._proof: ScramProof | None = None

    def respond(self, response: bytes | None) -> bytes | SaltOf | ScramProof:
        """The question for the salt, or credentials behind the challenge that it made."""
        if not self._said:
            return b"" if response is None else self._first(response)
        self._proof = self._final(response or b"")
        return self._proof

    def _first(self, message: bytes) -> SaltOf:
        match = _FIRST.fullmatch(message)
        if match is None:
            raise malformed("SCRAM begins with a GS2 header, a name and a nonce")
        if len(match["nonce"]) > MAX_NONCE:
            raise malformed(f"the nonce has more than {MAX_NONCE} octets")
        self._username = _name(match["name"])
        if match["identity"] is not None:
            self._authorizationId = _name(match["identity"])
            if self._authorizationId.lower() == self._username.lower():
                self._authorizationId = b""  # some clients send the same name twice
        self._bound = match["header"] + self._bindingOf(match["flag"], match["kind"])
        self._nonce = match["nonce"] + self._nonce
        self._said = match["bare"]
        return SaltOf(self._username, self._challenge)

    def _bindingOf(self, flag: bytes, kind: bytes | None) -> bytes:
        """What the connection is known by, of the kind that the client has chosen."""
        if (kind is None) is (self._binding is not None):
            raise malformed("a channel binding with -PLUS, and only there")
        if flag == b"y" and self._isBindable:
            # RFC 5802 6: it knows channel bindings, and has not seen that we do.
            raise Refused(LOGIN_FAILED, "the client was not shown SCRAM-SHA-256-PLUS")
        if kind is None or self._binding is None:
            return b""
        octets = self._binding(kind.decode("ascii"))
        if octets is None:
            raise Refused(LOGIN_FAILED, "no channel binding of the kind that the client wants")
        return octets

    def _challenge(self, salt: bytes, iterations: int) -> bytes:
        text = base64.b64encode(salt)
        challenge = b"r=%b,s=%b,i=%d" % (self._nonce, text, iterations)
        self._said += b"," + challenge
        return challenge

    def _final(self, message: bytes) -> ScramProof:
        match = _FINAL.fullmatch(message)
        if match is None:
            raise malformed("SCRAM ends with a channel binding, the nonce and a proof")
        if not hmac.compare_digest(match["nonce"], self._nonce):
            raise malformed("the nonce is not the one of this login")
        bound, proof = _octets(match["bound"]), _octets(match["proof"])
        if len(proof) != KEY:
            raise malformed(f"a proof has {KEY} octets")
        if not hmac.compare_digest(bound, self._bound):
            raise Refused(LOGIN_FAILED, "the channel binding is that of another connection")
        said = self._said + b"," + match["unproved"]
        return ScramProof(self._username, self._authorizationId, said, proof)

    def loginSucceeded(self) -> bytes:
        """The proof that we know the keys.

        :raise ValueError: when the checker has said yes without a look at the client's.
        """
        if self._proof is None or not self._proof.signature:
            raise ValueError("a login without keys")
        return b"v=" + base64.b64encode(self._proof.signature)


def _name(text: bytes) -> bytes:
    """A name as it was before it was sent, and as it is kept."""
    if len(text) > MAX_NAME:
        raise malformed(f"the user name has more than {MAX_NAME} octets")
    try:
        name = prepared(unescaped(text).decode("utf-8"))
    except ValueError:
        raise malformed("the user name is none that can be kept (SASLprep)") from None
    return checkName(name.encode("utf-8"))


def _octets(text: bytes) -> bytes:
    try:
        return decodeBase64(text)
    except ValueError as error:
        raise malformed(str(error)) from None


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
