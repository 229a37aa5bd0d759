"""Routes: which one is taken, and what is wrong with a section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from submitd.relay.routes import Target, makeRoutes, mistakes
from submitd.relay.settings import RelaySettings, RouteSettings
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath


def mailbox(text: str) -> Mailbox:
    """An address."""
    return Mailbox.parse(text.encode())


class RouteTests(SynchronousTestCase):
    """The first that matches wins."""

    def found(
        self, *routes: RouteSettings, to: str = "you@example.net", **given: Any
    ) -> str | None:
        """The name of the route that is taken."""
        made, findings = makeRoutes(given.pop("relay", RelaySettings(smarthost="last")), routes)
        self.assertEqual(findings, [])
        sender = given.get("sender", "me@example.org")
        path = ReversePath(mailbox(sender)) if sender else NULL_PATH
        route = made.find(given.get("login", "me"), path, mailbox(to))
        return route.name if route else None

    def test_recipients(self) -> None:
        """By address, by domain, by all domains below one; in any case, in any form."""
        for entry, hits, misses in (
            ("you@example.net", ["You@EXAMPLE.net"], ["him@example.net"]),
            ("example.net", ["you@example.net"], ["you@sub.example.net", "you@xexample.net"]),
            (".example.net", ["you@sub.example.net"], ["you@example.net"]),
            ("@example.net", ["you@example.net"], ["you@example.org"]),
            ("jörg.example", ["you@xn--jrg-sna.example"], ["you@jorg.example"]),
        ):
            route = RouteSettings(smarthost="a", recipients=(entry,))
            for to in hits:
                self.assertEqual(self.found(route, to=to), "route[0]", (entry, to))
            for to in misses:
                self.assertEqual(self.found(route, to=to), "relay", (entry, to))

    def test_senders(self) -> None:
        """By sender; the null sender is nobody's."""
        route = RouteSettings(smarthost="a", senders=("example.org",))
        self.assertEqual(self.found(route), "route[0]")
        self.assertEqual(self.found(route, sender="me@example.com"), "relay")
        self.assertEqual(self.found(route, sender=""), "relay")

    def test_logins(self) -> None:
        """By login."""
        route = RouteSettings(smarthost="a", logins=("Me",))
        self.assertEqual(self.found(route), "route[0]")
        self.assertEqual(self.found(route, login="you"), "relay")

    def test_all(self) -> None:
        """All lists must match, and the first route wins."""
        both = RouteSettings(smarthost="a", logins=("me",), recipients=("example.com",))
        every = RouteSettings(smarthost="b")
        self.assertEqual(self.found(both, every), "route[1]")
        self.assertEqual(self.found(both, every, to="x@example.com"), "route[0]")

    def test_none(self) -> None:
        """There need not be one for all."""
        route = RouteSettings(smarthost="a", logins=("you",))
        self.assertIsNone(self.found(route, relay=RelaySettings()))


class TargetTests(SynchronousTestCase):
    """What is made of a section."""

    def made(self, **keys: Any) -> Any:
        """The route of [relay]."""
        routes, findings = makeRoutes(RelaySettings(**keys))
        self.assertEqual([each for each in findings if not each.isWarning], [])
        return routes.routes[0]

    def test_targets(self) -> None:
        """Hosts, ports, sockets, and the TLS that goes with them."""
        for keys, expected in (
            ({"smarthost": "a"}, ("a", 587, "starttls")),
            ({"smarthost": "a:25"}, ("a", 25, "starttls")),
            ({"smarthost": "a:465"}, ("a", 465, "implicit")),
            ({"smarthost": "[::1]:465"}, ("::1", 465, "implicit")),
            ({"smarthost": "a", "tls": "off"}, ("a", 587, "off")),
            ({"lmtp": "a"}, ("a", 24, "off")),
            ({"lmtp": "unix:/run/lmtp"}, ("/run/lmtp", 0, "off")),
            ({"mx": True}, ("", 0, "opportunistic")),
            ({"maildir": "/var/mail/{local}"}, ("/var/mail/{local}", 0, "off")),
        ):
            route = self.made(**keys)
            self.assertEqual((route.host, route.port, route.tls), expected)
            self.assertEqual(route.targets, (Target(*expected),))

    def test_spares(self) -> None:
        """Several hosts, each with its port and the TLS that goes with it."""
        route = self.made(smarthost="a, b:465,[::1]:25")
        first, *others = route.targets
        self.assertEqual(first, Target("a", 587, "starttls"))
        self.assertEqual(others, [Target("b", 465, "implicit"), Target("::1", 25, "starttls")])

    def test_account(self) -> None:
        """The password is read from its file, and again when that changes."""
        file = Path(self.mktemp())
        file.write_text("one\r\nmore\n")
        file.chmod(0o600)
        route = self.made(smarthost="a", user="u", password_file=file, mechanisms=("plain",))
        self.assertEqual((route.account.secret, route.account.mechanisms), (b"one", ("PLAIN",)))
        file.write_text("another\n")
        self.assertEqual(route.account.secret, b"another")
        file.unlink()
        self.assertEqual(route.account.secret, b"another")
        self.assertNotIn("another", repr(route))

    def said(self, *routes: RouteSettings, **keys: Any) -> list[str]:
        """What is said about the sections."""
        return [str(each) for each in mistakes(RelaySettings(**keys), routes)]

    def test_mistakes(self) -> None:
        """Each mistake with its key."""
        file = Path(self.mktemp())
        file.write_text("")
        for keys, expected in (
            ({}, "relay: needs one of smarthost, lmtp, mx and maildir, or a [[route]]"),
            ({"smarthost": "a", "mx": True}, "relay: needs exactly one of smarthost, lmtp, mx and"),
            ({"smarthost": "a b"}, 'relay.smarthost: must be "HOST" or "HOST:PORT", or several'),
            ({"smarthost": "a,,b"}, 'relay.smarthost: must be "HOST" or "HOST:PORT", or several'),
            ({"smarthost": "a:99999"}, 'relay.smarthost: must be "HOST" or "HOST:PORT"'),
            ({"lmtp": "unix:"}, "relay.lmtp: the path of a unix socket has from 1 to 107 octets"),
            ({"lmtp": "unix:/" + "x" * 107}, "relay.lmtp: the path of a unix socket has from 1"),
            ({"maildir": "x"}, "relay.maildir: must be an absolute path"),
            ({"lmtp": "unix:x"}, "relay.lmtp: a unix socket's path must be an absolute one"),
            (
                {"maildir": "/var/mail/{domain}/{local}/{user}"},
                "relay.maildir: has {user}; known are {local} and {domain}",
            ),
            ({"smarthost": "a", "user": "u"}, "relay: user and password_file go together"),
            ({"smarthost": "a", "mechanisms": ("X",)}, 'relay.mechanisms[0]: there is no "X"'),
            (
                {"smarthost": "a", "user": "u", "password_file": file},
                f"relay.password_file: {file} is empty",
            ),
            (
                {"smarthost": "a", "user": "u", "password_file": Path("/no")},
                "relay.password_file: cannot read /no: No such file or directory",
            ),
            ({"smarthost": "a", "retry": ()}, "relay.retry: needs one time at least"),
            ({"smarthost": "a", "jitter": 1.0}, "relay.jitter: must be from 0 to less than 1"),
            ({"smarthost": "a", "lease": 0}, "relay.lease: must be more than 0"),
            ({"smarthost": "a", "mx_port": 0}, "relay.mx_port: must be from 1 to 65535"),
            ({"smarthost": "a", "ca_file": file}, f"relay.ca_file: {file} holds no certificate"),
        ):
            said = self.said(**keys)
            self.assertEqual(len(said), 1, said)
            self.assertTrue(said[0].startswith(expected), said)

    def test_routeMistakes(self) -> None:
        """The same of a [[route]], with its number."""
        self.assertEqual(
            self.said(RouteSettings(recipients=("@",)), RouteSettings(smarthost="a", logins=("",))),
            [
                "route[0]: needs exactly one of smarthost, lmtp, mx and maildir; there is none",
                "route[1].logins[0]: is empty",
            ],
        )

    def test_unwise(self) -> None:
        """A password for everybody is a warning, one that cannot be sent a mistake."""
        file = Path(self.mktemp())
        file.write_text("x\n")
        file.chmod(0o644)
        keys = {"smarthost": "a", "user": "u", "password_file": file}
        self.assertIn("can be read by others (chmod ", self.said(**keys)[0])
        file.chmod(0o600)
        self.assertEqual(self.said(**keys), [])
        self.assertIn("no login is possible", self.said(**keys, tls="off")[0])
        self.assertIn("may reach others", self.said(**keys, verify=False)[0])
        self.assertIn("may reach others", self.said(**keys, tls="off", insecure_login=True)[0])
