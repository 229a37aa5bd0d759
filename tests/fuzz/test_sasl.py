"""SASL exchanges with any lines: a login ends well with the right credentials, and never else.

The input is what a client says behind EHLO, line by line.  ``%PLAIN%``, ``%CRAM%`` and the like
stand for a right response, so that an exchange can get to its end at all.  A second reading of each
exchange, written here and nowhere else, says whether it has to end well.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from submitd.checkers.salts import Salt
from submitd.interfaces import IBearerToken, IScramProof, IScramSalts
from submitd.realm import SubmissionRealm
from submitd.sasl import REGISTRY, mechanism
from submitd.sasl.scramkeys import ScramKeys
from submitd.states import State
from submitd.submission import Limits
from tests.fixtures import Conversation, makeSubmission
from tests.fuzz.target import Target, nothingLogged, same
from tests.fuzz.test_wire import ODD
from tests.sasl.scramclient import ScramClient

USER, SECRET, TOKEN = b"alice", b"w0nderland!", b"t0ken.t0ken-t0ken"
NAMED = b"n,a=%b,\x01host=x\x01port=587\x01auth=Bearer %b\x01\x01" % (USER, TOKEN)
BEARER = b"user=%b\x01auth=Bearer %b\x01\x01" % (USER, TOKEN)


KEYS = ScramKeys.derive(SECRET, b"salt of alice", 4096)


@implementer(ICredentialsChecker, IScramSalts)
class Checker:
    """Knows one user."""

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword, IBearerToken, IScramProof)

    def saltOf(self, username: bytes) -> Deferred[Salt]:
        """The user's, whoever asks."""
        return succeed(Salt(KEYS.salt, KEYS.iterations))

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        """The user's name, or no."""
        if IBearerToken.providedBy(credentials):
            right = credentials.token == TOKEN
        elif IScramProof.providedBy(credentials):
            right = credentials.checkKeys(KEYS.storedKey, KEYS.serverKey)
        else:
            right = credentials.checkPassword(SECRET)
        if right and credentials.username == USER:
            return succeed(credentials.username)
        return fail(UnauthorizedLogin())


def encoded(octets: bytes) -> bytes:
    """Base64; ``=`` for none, which AUTH takes as an initial response."""
    return base64.b64encode(octets) or b"="


RIGHT = {
    b"%PLAIN%": encoded(b"\0" + USER + b"\0" + SECRET),
    b"%TWICE%": encoded(USER + b"\0" + USER + b"\0" + SECRET),
    b"%USER%": encoded(USER),
    b"%SECRET%": encoded(SECRET),
    b"%BEARER%": encoded(BEARER),
    b"%NAMED%": encoded(NAMED),
    b"%FIRST%": encoded(ScramClient(USER, SECRET).first),
}


class Reading:
    """What an exchange comes to, read a second time."""

    def __init__(self) -> None:
        self.name = b""
        self.responses: list[bytes] = []
        self.challenge = b""
        self.challenges: list[bytes] = []

    def begin(self, line: bytes) -> None:
        """AUTH, and what stands behind it."""
        # Any white space may stand behind the verb.
        argument = re.sub(rb"^\S*[ \t]*", b"", line.rstrip(b" \t"))
        name, _, initial = argument.partition(b" ")
        self.name = name.upper()
        self.responses = [initial] if initial else []
        self.challenges = []

    @property
    def isRight(self) -> bool:
        """Whether these responses are those of the user."""
        octets = []
        for response in self.responses:
            try:
                octets.append(base64.b64decode(response, validate=True))
            except binascii.Error:
                return False
        if self.name == b"PLAIN":
            return octets in ([b"\0" + USER + b"\0" + SECRET], [_twice(octets)])
        if self.name == b"LOGIN":
            return octets == [USER, SECRET]
        if self.name == b"CRAM-MD5" and self.challenge:
            return octets == [_digest(self.challenge)]
        if self.name == b"OAUTHBEARER":
            return len(octets) == 1 and _isNamed(octets[0])
        if self.name == b"SCRAM-SHA-256":
            return len(octets) == 3 and octets[1] == _proof(self.challenges) and not octets[2]
        lowered = [each.replace(b"auth=bearer", b"auth=Bearer") for each in map(_scheme, octets)]
        return self.name == b"XOAUTH2" and lowered == [BEARER]


def _twice(octets: list[bytes]) -> bytes:
    """PLAIN with the user's own name, in any case, as the identity."""
    identity, _, rest = (octets or [b""])[0].partition(b"\0")
    right = identity.lower() == USER and rest == USER + b"\0" + SECRET
    return octets[0] if right else b"never"


def _scheme(octets: bytes) -> bytes:
    return re.sub(rb"(?i:\x01auth=bearer) +", b"\x01auth=Bearer ", octets)


def _isNamed(octets: bytes) -> bool:
    """OAUTHBEARER with the user's name and token, whatever else it says."""
    header, _, rest = octets.partition(b"\x01")
    pairs = rest.removesuffix(b"\x01\x01").split(b"\x01")
    tokens = [re.sub(rb"(?i)^auth=bearer +", b"", each) for each in pairs if each[:5] == b"auth="]
    return (
        header in (b"n,a=" + USER + b",", b"y,a=" + USER + b",")
        and rest[-2:] == b"\x01\x01"
        and all(re.fullmatch(rb"[A-Za-z]+=[ -~\t\r\n]*", each) for each in pairs)
        and tokens == [TOKEN]
    )


def _digest(challenge: bytes) -> bytes:
    return USER + b" " + hmac.new(SECRET, challenge, "md5").hexdigest().encode()


def _proof(challenges: list[bytes]) -> bytes:
    """The proof behind the challenge that has the salt, for the first message of ``%FIRST%``."""
    salted = [each for each in challenges if each.startswith(b"r=")]
    return ScramClient(USER, SECRET).final(salted[-1]) if salted else b"none"


def exchange(data: bytes) -> None:
    """One reply to each line, success with the right credentials alone, no secret said."""
    lines = data.split(b"\n")[:12]
    same([_exchanged(lines, fine) for fine in (False, True)])


def _exchanged(lines: list[bytes], fine: bool) -> list[int]:
    talk = Conversation(
        makeSubmission(
            Clock(),
            portal=Portal(SubmissionRealm(), [Checker()]),
            mechanisms=[mechanism(name) for name in REGISTRY],
            requireTLS=False,
            loginRequired=False,
            insecureLogin=True,
            limits=Limits(loginFailures=0, unrecognized=0, refusals=0, commandsBeforeLogin=0),
        )
    )
    talk.send(b"EHLO client.example\r\n")
    reading, codes, dialogue = Reading(), [], talk.protocol.dialogue
    for line in lines:
        if talk.transport.disconnecting:
            break
        line = _filled(line, reading.challenge)
        wasOpen, user = dialogue.state is State.AUTH, dialogue.session.user
        if wasOpen:
            reading.responses.append(line)
        else:
            reading.begin(line)
        with nothingLogged():
            said = _said(talk, line + b"\r\n", fine)
        assert re.fullmatch(rb"(?:\d{3}-[^\r\n]*\r\n)*\d{3} [^\r\n]*\r\n", said) or (
            talk.transport.disconnecting and re.fullmatch(rb"50[01] .*\r\n421 .*\r\n", said)
        ), said
        assert SECRET not in said and TOKEN not in said and RIGHT[b"%SECRET%"] not in said
        code = int(said[:3])
        codes.append(code)
        if code == 334:
            reading.challenge = base64.b64decode(said[4:])
            reading.challenges.append(reading.challenge)
        if code == 235:
            assert reading.isRight and user is None and dialogue.session.user is not None
            assert dialogue.session.user.avatarId == USER.decode()
        elif wasOpen or line[:5].upper() == b"AUTH ":
            assert code in (334, 500, 501, 503, 504, 535), said
            wellMade = all(map(_isCanonical, reading.responses))
            assert not (reading.isRight and wellMade and code not in (334, 503)), said
            assert dialogue.session.user is user
        assert (dialogue.state is State.AUTH) is (code == 334), said
        if code != 334:
            reading.challenge = b""
    return codes


def _filled(line: bytes, challenge: bytes) -> bytes:
    line = re.sub(rb"[\r\n]", b"", line)
    for name, response in RIGHT.items():
        line = line.replace(name, response)
    line = line.replace(b"%CRAM%", encoded(_digest(challenge)))
    line = line.replace(b"%PROOF%", encoded(_proof([challenge])))
    return line.replace(b"%LONG%", b"A" * 13000)


def _said(talk: Conversation, octets: bytes, fine: bool) -> bytes:
    if fine:
        for at in range(len(octets) - 1):
            talk.protocol.dataReceived(octets[at : at + 1])
        octets = octets[-1:]
    return talk.send(octets)


def _isCanonical(response: bytes) -> bool:
    try:
        return base64.b64encode(base64.b64decode(response, validate=True)) == response
    except binascii.Error:
        return False


SASL = Target(
    "sasl",
    exchange,
    [
        b"AUTH PLAIN %PLAIN%\n",
        b"AUTH PLAIN %TWICE%\n",
        b"AUTH PLAIN\n",
        b"AUTH LOGIN\n",
        b"%PLAIN%\n",
        b"AUTH LOGIN %USER%\n",
        b"%USER%\n",
        b"%SECRET%\n",
        b"AUTH CRAM-MD5\n",
        b"%CRAM%\n",
        b"AUTH XOAUTH2 %BEARER%\n",
        b"AUTH XOAUTH2\n",
        b"AUTH OAUTHBEARER %NAMED%\n",
        b"AUTH OAUTHBEARER\n",
        b"%NAMED%\n",
        b"AQ==\n",
        encoded(b"y,,\x01auth=Bearer " + TOKEN + b"\x01\x01") + b"\n",
        encoded(b"n,a=" + USER + b",\x01auth=\x01\x01") + b"\n",
        b"%BEARER%\n",
        b"*\n",
        b"\n",
        b"=\n",
        b"!!\n",
        b"AUTH ",
        b"PLAIN ",
        b"AUTH CRAM-MD5 %CRAM%\n",
        b"AUTH SCRAM-SHA-256 %FIRST%\n",
        b"AUTH SCRAM-SHA-256\n",
        b"%FIRST%\n",
        b"%PROOF%\n",
        b"AUTH SCRAM-SHA-256 %FIRST%\n%PROOF%\n\n",
        encoded(b"y,,n=alice,r=abc") + b"\n",
        encoded(b"p=tls-exporter,,n=alice,r=abc") + b"\n",
        b"AUTH XYZZY\n",
        b"AUTH\n",
        b"%LONG%\n",
        b"NOOP\n",
        b"AUTH PLAIN =\n",
        b"AGE=",
        b"AGEAYg==\n",
        b"AGEAYh==\n",
        b"QUIT\n",
        b"RSET\n",
        b"EHLO x\n",
        encoded(USER + b" " + b"0" * 32) + b"\n",
        encoded(b"\x00" + USER + b"\x00wrong") + b"\n",
        encoded(b"eve\x00" + USER + b"\x00" + SECRET) + b"\n",
        encoded(b"\x00\x00\x00") + b"\n",
        *ODD,
    ],
    60,
)

SaslTests = SASL.tests(__name__)
