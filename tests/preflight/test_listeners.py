"""Tests of :mod:`submitd.preflight.listeners`."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import attrs

from submitd import preflight
from submitd.preflight.addresses import PORT_RANGE
from submitd.preflight.listeners import PROXY_KEYS
from submitd.settings import AuthSettings, ListenerSettings
from tests.preflight.support import DATA, GOOD, OWN_TLS, ExamineTestCase


class ListenerTests(ExamineTestCase):
    """Where they are, and whom they believe."""

    def test_nobodyCanLogIn(self) -> None:
        """Without TLS, and without insecure logins, a login that is required keeps all out."""
        passwords = AuthSettings(checkers=(f"htpasswd:{DATA}/passwd",))
        said = 'listener[0].tls: is "off", where nobody can log in by PLAIN or LOGIN'
        [found] = self.said(auth=passwords)
        self.assertTrue(found.startswith(said), found)
        plain = GOOD.listener[0]
        for listener, auth in (
            (plain, attrs.evolve(passwords, insecure=True)),
            (plain, attrs.evolve(passwords, required=False)),
            (attrs.evolve(plain, xclient_login=True, xclient_from=("127.0.0.1",)), passwords),
            (attrs.evolve(plain, endpoint=f"ssl:587:{OWN_TLS}"), passwords),
        ):
            found = [each for each in self.said(listener=(listener,), auth=auth) if said in each]
            self.assertEqual(found, [])
        own = attrs.evolve(plain, endpoint=f"ssl:587:{OWN_TLS}", require_tls=True)
        self.assertEqual(self.said(listener=(own,)), [])

    def test_ownTLS(self) -> None:
        """Endpoints that bring their own TLS are looked at as the others are."""
        plain = GOOD.listener[0]
        own = attrs.evolve(plain, endpoint=f"ssl:587:{OWN_TLS}")
        [taken] = self.said(listener=(plain, own))
        self.assertIn("is taken by listener[0].endpoint already", taken)
        [range_] = self.said(listener=(attrs.evolve(plain, endpoint=f"ssl:99999:{OWN_TLS}"),))
        self.assertIn(PORT_RANGE, range_)
        noKey = OWN_TLS.replace("private_key.pem", "passwd")
        [key] = self.said(listener=(attrs.evolve(plain, endpoint=f"ssl:587:{noKey}"),))
        self.assertIn("(its certKey or its privateKey is no such PEM file)", key)

    def test_socketPath(self) -> None:
        """A unix socket's path that there can be no socket at is found before the start."""
        # short wherever the tests run: their own directory alone may be too long for a socket
        directory = Path(tempfile.mkdtemp(prefix="submitd-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, directory)
        (directory / "file").touch()
        for name, why in (
            ("file", "is there, and no socket"),
            ("x" * 108, "107 octets at most"),
            ("no/such", "there is no directory"),
        ):
            listener = attrs.evolve(GOOD.listener[0], endpoint=f"unix:{directory / name}")
            [found] = self.said(listener=(listener,))
            self.assertIn(why, found)
        with socket.socket(socket.AF_UNIX) as before:
            before.bind(str(directory / "left"))
        listener = attrs.evolve(GOOD.listener[0], endpoint=f"unix:{directory / 'left'}")
        self.assertEqual(self.said(listener=(listener,)), [])

    def test_systemd(self) -> None:
        """Several systemd sockets are no duplicates of each other."""
        listener = ListenerSettings(
            endpoint="systemd:domain=INET:index=0", tls="off", require_tls=False
        )
        self.assertEqual(self.said(listener=(listener, listener)), [])

    def test_lmtp(self) -> None:
        """LMTP is spoken anywhere but on port 25 (RFC 2033 5), and there only SMTP is."""
        for endpoint, lmtp, count in (
            ("tcp:25", True, 1),
            ("tcp6:25:interface=\\:\\:1", True, 1),
            ("tcp:25", False, 0),
            ("tcp:24", True, 0),
            ("unix:/tmp/submitd-lmtp.sock", True, 0),
        ):
            listener = ListenerSettings(endpoint=endpoint, tls="off", require_tls=False, lmtp=lmtp)
            found = preflight.examine(attrs.evolve(GOOD, listener=(listener,)))
            self.assertEqual(
                [(each.key, each.isWarning) for each in found],
                [("listener[0].endpoint", False)] * count,
            )

    def test_proxies(self) -> None:
        """Peers are networks where there are addresses, and "unix" where there are none."""

        def found(endpoint: str, **keys: Any) -> list[str]:
            listener = ListenerSettings(endpoint=endpoint, tls="off", require_tls=False, **keys)
            return self.said(listener=(listener,))

        networks, unix = ("10.0.0.0/8", "2001:db8::/32", "192.0.2.1"), ("unix",)
        socketPath = "unix:/tmp/submitd-proxy.sock"
        for key in PROXY_KEYS:
            self.assertEqual(found("tcp:587", **{key: networks}), [])
            self.assertEqual(found(socketPath, **{key: unix}), [])
            self.assertEqual(found("systemd:domain=UNIX:index=0", **{key: networks + unix}), [])
            self.assertEqual(len(found("tcp6:587", **{key: unix})), 1)
            self.assertEqual(len(found(socketPath, **{key: networks})), 3)
        self.assertEqual(
            found(socketPath, proxy_protocol_from=unix, xclient_from=networks, xclient_login=True),
            [],
        )

    def test_proxyBeforeTLS(self) -> None:
        """No header can be read where the endpoint itself begins with TLS."""
        listener = ListenerSettings(
            endpoint=f"ssl:465:privateKey={DATA / 'private_key.pem'}"
            f":certKey={DATA / 'certificate.pem'}",
            tls="off",
            require_tls=False,
            proxy_protocol_from=("10.0.0.1",),
        )
        [said] = self.said(listener=(listener,))
        self.assertIn("listener[0].proxy_protocol_from: cannot be with ssl:", said)

    def test_byAddress(self) -> None:
        """A login for everybody is an open relay, but where nobody can come from elsewhere."""

        def found(network: str, endpoint: str = "tcp:587", **changes: Any) -> list[str]:
            listener = ListenerSettings(
                endpoint=endpoint,
                tls="off",
                require_tls=False,
                login_by_address={network: "printers@example.com"},
                **changes,
            )
            return self.said(listener=(listener,), auth=AuthSettings())

        everybody = ("0.0.0.0/0", "::/0", "2000::/3", "128.0.0.0/1")
        for network in everybody:
            [said] = found(network)
            self.assertIn(f'login_by_address."{network}": is an open relay: everybody on', said)
            local = "tcp:587:interface=127.0.0.1"
            self.assertEqual(found(network, local), [])
            self.assertEqual(found(network, "tcp:587:interface=\\:\\:1"), [])
            for proxies in ("proxy_protocol_from", "xclient_from"):
                [said] = found(network, local, **{proxies: ("127.0.0.1",)})
                self.assertIn("is an open relay", said)
            for endpoint in ("tcp:587:interface=192.0.2.1", "systemd:domain=INET:name=a"):
                self.assertIn("is an open relay", found(network, endpoint)[0])
        for network in ("10.0.0.0/8", "fc00::/7", "192.0.2.7"):
            self.assertEqual(found(network), [])
        self.assertEqual(found("unix", "unix:/tmp/submitd.sock"), [])
