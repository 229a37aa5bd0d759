"""Tests of :mod:`submitd.endpoint`: where programs listen that are asked something."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.trial.unittest import SynchronousTestCase

from submitd.endpoint import anchored, clientEndpoint, mistake


class EndpointTests(SynchronousTestCase):
    """What can be connected to, and what cannot."""

    def test_good(self) -> None:
        """Twisted's forms, and that of other mail servers."""
        for text in (
            "tcp:127.0.0.1:8891",
            "inet:127.0.0.1:8891",
            "tcp:filter.example:port=65535",
            r"tcp:\:\:1:1",
            "unix:/run/x.sock",
            "unix:/" + "x" * 106,
            "tls:filter.example:8891",
        ):
            self.assertEqual(mistake(text), "")
        self.assertIsInstance(clientEndpoint(None, "inet:127.0.0.1:1"), TCP4ClientEndpoint)

    def test_anchored(self) -> None:
        """A path of a server's that is relative begins at a directory; all else is left alone."""
        for text, expected in (
            ("unix:x.sock:mode=600", r"unix:/a\:b/x.sock:mode=600"),
            ("unix:/x.sock", "unix:/x.sock"),
            ("unix:", "unix:"),
            ("unix:mode=600:address=/x.sock", "unix:mode=600:address=/x.sock"),
            ("unix:address=/x.sock", "unix:address=/x.sock"),
            ("tcp:587", "tcp:587"),
            ("", ""),
        ):
            self.assertEqual(anchored(text, Path("/a:b")), expected)

    def test_bad(self) -> None:
        """Also what Twisted would only find when it connects."""
        for text, why in (
            ("", "Unknown endpoint type: ''"),
            ("inet", "Unknown endpoint type: 'inet'"),
            ("tcp:localhost:0", "a port is a number from 1 to 65535"),
            ("tcp:localhost:65536", "a port is a number from 1 to 65535"),
            ("tcp:localhost:-1", "a port is a number from 1 to 65535"),
            ("tcp::8891", "there is no host"),
            ("tcp:host=::1:port=1", "there is no host"),
            ("unix:", "there is no path"),
            ("unix:run/x.sock", "a unix socket's path begins with /"),
            ("unix:/" + "x" * 107, "a unix socket's path has 107 octets at most"),
        ):
            self.assertEqual(
                mistake(text),
                'must be "tcp:HOST:PORT", "unix:PATH" or another client endpoint of Twisted\'s,'
                f' not "{text}" ({why})',
            )
