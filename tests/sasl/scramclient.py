"""The client's side of SCRAM-SHA-256, for the tests: written from RFC 5802 3 and 5."""

from __future__ import annotations

import base64
import hashlib
import hmac


def hmacOf(key: bytes, text: bytes) -> bytes:
    """HMAC."""
    return hmac.new(key, text, hashlib.sha256).digest()


class ScramClient:
    """One login.

    :param nonce: the client's part of it.
    :param header: the GS2 header.
    :param binding: the octets of the channel that the header names.
    :ivar verified: whether the server has proved itself.
    :ivar said: what was said of nonces, proofs and salt, by both sides.
    """

    def __init__(
        self,
        name: bytes,
        password: bytes,
        nonce: bytes = b"rOprNGfwEbeRWgbNEkqO",
        header: bytes = b"n,,",
        binding: bytes = b"",
    ) -> None:
        self.password = password
        self.header, self.binding = header, binding
        self.bare = b"n=" + name + b",r=" + nonce
        self.first = header + self.bare
        self.verified = False
        self.said: list[str] = []

    def final(self, challenge: bytes) -> bytes:
        """The message behind the challenge."""
        nonce, salt, iterations = (each[2:] for each in challenge.split(b","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", self.password, base64.b64decode(salt), int(iterations)
        )
        clientKey = hmacOf(salted, b"Client Key")
        bound = base64.b64encode(self.header + self.binding)
        unproved = b"c=" + bound + b",r=" + nonce
        said = self.bare + b"," + challenge + b"," + unproved
        signature = hmacOf(hashlib.sha256(clientKey).digest(), said)
        proof = bytes(one ^ other for one, other in zip(clientKey, signature, strict=True))
        self._expected = b"v=" + base64.b64encode(hmacOf(hmacOf(salted, b"Server Key"), said))
        final = unproved + b",p=" + base64.b64encode(proof)
        self.said += [challenge.decode(), final.decode()]
        return final

    def verify(self, last: bytes) -> None:
        """Take the server's last word."""
        self.said.append(last.decode())
        self.verified = last == self._expected
