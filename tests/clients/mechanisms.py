"""What is tried with every client: a message by each mechanism, over both kinds of TLS.

A client's tests say how it submits (:class:`Passwords`), that it has tokens too (:class:`Tokens`),
and, where it is a program, how that is run (:class:`Program`).
"""

from __future__ import annotations

import subprocess

from tests.clients import messages
from tests.clients.case import PASSWORDS, WRONG, ClientTestCase


class Passwords(ClientTestCase):
    """The mechanisms with a password or a secret."""

    mechanisms: tuple[str, ...] = PASSWORDS

    def submit(self, mechanism: str, message: bytes, implicit: bool = False) -> None:
        """Submit a message, and see that it was kept."""
        raise NotImplementedError

    def test_starttls(self) -> None:
        """A message with everything arrives over STARTTLS as it was sent."""
        self.submit("PLAIN", messages.full())

    def test_implicit(self) -> None:
        """A message with everything arrives over implicit TLS as it was sent."""
        self.submit("PLAIN", messages.full(), implicit=True)

    def test_login(self) -> None:
        """LOGIN logs in."""
        self.submit("LOGIN", messages.small())

    def test_cramMD5(self) -> None:
        """CRAM-MD5 logs in."""
        self.submit("CRAM-MD5", messages.small(), implicit=True)


class Tokens(Passwords):
    """The mechanism with a token besides."""

    mechanisms = (*PASSWORDS, "XOAUTH2")

    def test_xoauth2(self) -> None:
        """XOAUTH2 logs in."""
        self.submit("XOAUTH2", messages.small())


class Program(Passwords):
    """A client that is a program of its own."""

    def send(
        self,
        mechanism: str,
        message: bytes,
        *,
        secret: str = "",
        implicit: bool = False,
        authority: str = "",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it.

        :param secret: where it is not the user's own.
        :param authority: the file of the one to trust, where it is not the service's.
        """
        raise NotImplementedError

    def submit(self, mechanism: str, message: bytes, implicit: bool = False) -> None:
        """See :meth:`Passwords.submit`."""
        self.assertSent(self.send(mechanism, message, implicit=implicit))
        self.assertKept(message, mechanism)

    def test_wrong(self) -> None:
        """A wrong password, secret or token is 535, by each mechanism."""
        for mechanism in self.mechanisms:
            self.assertRefusedLogin(self.send(mechanism, messages.small(), secret=WRONG))
            self.assertIn(f"mechanism={mechanism}", self.logged)

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""
        for implicit in (False, True):
            self.assertDistrusted(
                self.send("PLAIN", messages.small(), implicit=implicit, authority=self.stranger)
            )
