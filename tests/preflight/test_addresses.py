"""Tests of :mod:`submitd.preflight.addresses`."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from submitd.preflight.addresses import Address, addressOf, portsInUse, whyNotBound
from submitd.settings import ListenerSettings, Settings


class AddressTests(SynchronousTestCase):
    """Where endpoint strings listen."""

    def test_addresses(self) -> None:
        """Ports, interfaces and paths are learned without a reactor."""
        for endpoint, address in (
            ("tcp:587", Address("", 587)),
            ("tcp:465:interface=192.0.2.1", Address("192.0.2.1", 465)),
            ("tcp6:587", Address("::", 587)),
            ("unix:/run/submitd.sock", Address("/run/submitd.sock")),
        ):
            self.assertEqual(addressOf(endpoint), address)

    def test_unknowable(self) -> None:
        """A systemd socket is there when systemd starts the service, so a check says nothing."""
        self.assertIsNone(addressOf("systemd:domain=INET:name=submission"))

    def test_otherKinds(self) -> None:
        """An endpoint of another kind is taken, and is not made to listen."""
        self.assertIsNone(addressOf("haproxy:tcp:587"))

    def test_overlaps(self) -> None:
        """One port on one interface can be had once; "::" takes the IPv4 connections too."""
        for one, two, overlap in (
            (Address("", 587), Address("127.0.0.1", 587), True),
            (Address("127.0.0.1", 587), Address("127.0.0.2", 587), False),
            (Address("::", 587), Address("127.0.0.1", 587), True),
            (Address("", 587), Address("::1", 587), False),
            (Address("", 587), Address("", 465), False),
            (Address("", 0), Address("", 0), False),
            (Address("/a"), Address("/a"), True),
            (Address("/a"), Address("/b"), False),
            (Address("/a"), Address("", 587), False),
        ):
            self.assertEqual(one.overlaps(two), overlap, (one, two))
            self.assertEqual(two.overlaps(one), overlap, (two, one))


class PortsInUseTests(SynchronousTestCase):
    """Asked just before a start."""

    def said(self, *endpoints: str) -> list[str]:
        """The listeners that cannot be had."""
        listeners = tuple(ListenerSettings(endpoint=each) for each in endpoints)
        return [str(each) for each in portsInUse(Settings(listener=listeners))]

    def listening(self, family: int, address: Any) -> Any:
        """A socket that listens until the test ends; gives its address."""
        held = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(held.close)
        held.bind(address)
        held.listen()
        return held.getsockname()

    def test_noIPv6(self) -> None:
        """Where the kernel has no IPv6, there is not even a socket to try."""

        def refuse(*arguments: object) -> Any:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

        self.patch(socket, "socket", refuse)
        self.assertIn("this machine has no IPv6", self.said("tcp6:587")[0])

    def test_notHere(self) -> None:
        """An interface goes by its address."""
        [name] = self.said("tcp:0:interface=no interface")
        self.assertIn("what an interface is called here is its address", name)

    def test_used(self) -> None:
        """A port that another program listens on is named, each with its key."""
        _, port = self.listening(socket.AF_INET, ("127.0.0.1", 0))
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        self.assertEqual(
            self.said("tcp:0", "systemd:domain=INET:index=0", endpoint),
            [
                f"listener[2].endpoint: cannot listen on {endpoint}:"
                " the port is in use by another program"
            ],
        )

    def test_used6(self) -> None:
        """The same for IPv6."""
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError as error:
            raise SkipTest(f"no IPv6 here: {error}") from error
        _, port, _, _ = self.listening(socket.AF_INET6, ("::1", 0))
        self.assertEqual(len(self.said(rf"tcp6:{port}:interface=\:\:1")), 1)

    def test_free(self) -> None:
        """A port that was closed a moment ago is free, and stays free after the question."""
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        self.assertEqual(self.said(endpoint) + self.said(endpoint), [])

    def test_unix(self) -> None:
        """A socket that somebody answers on is in use; one left behind is not."""
        path = self.mktemp()
        self.assertEqual(self.said(f"unix:{path}"), [])
        self.listening(socket.AF_UNIX, path)
        [line] = self.said(f"unix:{path}")
        self.assertIn("the socket is in use by another program", line)

    def test_unixLeftBehind(self) -> None:
        """A socket without a listener is removed at the start, so it is no reason."""
        path = self.mktemp()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
            held.bind(path)
        self.assertEqual(self.said(f"unix:{path}"), [])

    def test_notOurAddress(self) -> None:
        """An address that this machine does not have is said in the system's words."""
        [line] = self.said("tcp:0:interface=192.0.2.1", "tcp:4587:interface=192.0.2.1")[:1]
        self.assertIn("this machine has no such address", line)

    def test_rights(self) -> None:
        """A low port without the right to it names the way out."""
        self.assertIn("--uid", whyNotBound(PermissionError(errno.EACCES, "Permission denied")))
