"""TLS connections, read and written with OpenSSL's own functions and with pyOpenSSL's methods."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, ClassVar

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from submitd import openssl
from tests.test_transport import Contexts


class Other(SSL.Connection):
    """Not the class whose inner names are known: its public methods are called."""


class Reading:
    """What is asked of both."""

    kind: ClassVar[Any]

    def setUp(self: Any) -> None:
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
            self.addCleanup(each.close)
        self.theirs = theirs
        self.server = self.kind(Contexts().getContext(), ours)
        self.server.set_accept_state()
        self.client = self.kind(SSL.Context(SSL.TLS_METHOD), theirs)
        self.client.set_connect_state()
        for _ in range(3):
            for end in (self.client, self.server):
                with contextlib.suppress(SSL.WantReadError):
                    end.do_handshake()

    def test_octets(self: Any) -> None:
        """What is written is read, a record at a time, and nothing that was read before."""
        self.assertEqual(openssl.write(self.client, b"a longer one"), 12)
        self.assertEqual(openssl.read(self.server), b"a longer one")
        self.assertEqual(openssl.write(self.client, memoryview(b"short")), 5)
        self.assertEqual(openssl.write(self.client, b"next"), 4)
        self.assertEqual(openssl.read(self.server), b"short")
        self.assertEqual(openssl.read(self.server), b"next")
        whole = bytes(range(256)) * 64
        self.assertEqual(openssl.write(self.client, whole), openssl.RECORD)
        self.assertEqual(openssl.read(self.server), whole)

    def test_nothingThere(self: Any) -> None:
        """Nothing to read yet is said so."""
        with self.assertRaises(SSL.WantReadError):
            openssl.read(self.server)

    def test_noRoom(self: Any) -> None:
        """When the socket takes no more, that is said, and the same octets can be sent again."""
        with self.assertRaises(SSL.WantWriteError):
            while True:
                openssl.write(self.server, bytes(openssl.RECORD))
        with self.assertRaises(SSL.WantWriteError):
            openssl.write(self.server, bytes(openssl.RECORD))
        for _ in range(8):
            openssl.read(self.client)
        self.assertEqual(openssl.write(self.server, bytes(openssl.RECORD)), openssl.RECORD)

    def test_ended(self: Any) -> None:
        """The peer's close_notify is the end."""
        self.client.shutdown()
        with self.assertRaises(SSL.ZeroReturnError):
            openssl.read(self.server)

    def test_cutOff(self: Any) -> None:
        """A peer that goes without it is something else; so is a write to it."""
        self.theirs.close()
        with self.assertRaises(SSL.SysCallError):
            openssl.read(self.server)
        with self.assertRaises(SSL.Error):
            openssl.write(self.server, b"x")

    def test_noRecord(self: Any) -> None:
        """Octets that are no TLS are an error."""
        self.theirs.send(b"QUIT\r\n" * 10)
        with self.assertRaises(SSL.Error):
            openssl.read(self.server)


class InnerTests(Reading, SynchronousTestCase):
    """By OpenSSL's own functions."""

    kind = SSL.Connection

    def test_isKnown(self) -> None:
        """This pyOpenSSL has the names that are needed."""
        self.assertIs(openssl._Known, SSL.Connection)

    def test_wasResumed(self) -> None:
        """A first session has not been resumed (tests.test_tls has one that has)."""
        self.assertFalse(openssl.wasResumed(self.server))

    def test_neither(self) -> None:
        """A failure that is no error gives away nothing of what the buffer has from others."""
        self.patch(SSL.Connection, "_raise_ssl_error", lambda *_: None)
        with self.assertRaises(SSL.Error):
            openssl.read(self.server)


class PublicTests(Reading, SynchronousTestCase):
    """By pyOpenSSL's public methods."""

    kind = Other

    def test_wasResumed(self) -> None:
        """Where it cannot be known, it was not."""
        self.assertFalse(openssl.wasResumed(self.server))
