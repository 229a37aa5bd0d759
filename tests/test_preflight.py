"""Tests of :mod:`submitd.preflight`: addresses, ports in use, and objects that misbehave."""

from __future__ import annotations

import datetime
import errno
import os
import socket
from pathlib import Path
from typing import Any

import attrs
from twisted.cred.credentials import IUsernamePassword
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer

from submitd import preflight
from submitd.interfaces import (
    IChecked,
    IDelays,
    IDelivery,
    IHelloPolicy,
    IMechanism,
    IMessagePolicy,
    IReverseResolver,
    IWarns,
)
from submitd.preflight import Address
from submitd.relay.settings import RelaySettings
from submitd.settings import (
    AuthSettings,
    Component,
    DNSSettings,
    LimitSettings,
    ListenerSettings,
    LogSettings,
    Settings,
)
from submitd.tls import CertificateSettings, TLSSettings, selfSigned
from submitd.typed import Count, Seconds

DATA = Path(__file__).with_name("data")
OWN_TLS = f"certKey={DATA}/certificate.pem:privateKey={DATA}/private_key.pem"


@implementer(IChecked, IDelivery, IHelloPolicy)
@attrs.frozen
class Sick:
    """A policy, or a delivery, that finds something wrong with itself, or fails to."""

    problem: str = ""

    def begin(self, session: Any, envelope: Any) -> Any:
        """Never called."""

    def helloReceived(self, session: Any, domain: str) -> None:
        """Never called."""

    def check(self) -> list[str]:
        """What is wrong."""
        if not self.problem:
            raise RuntimeError("cannot even look")
        return [self.problem]


@implementer(IMessagePolicy)
class Changes:
    """A policy that may change messages."""

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
        """Never called."""


@implementer(IHelloPolicy, IDelays)
@attrs.frozen
class Slow:
    """A policy of somebody else's that has clients wait, or that cannot say for how long."""

    tarpit: float = 0.0

    def helloReceived(self, session: Any, domain: str) -> None:
        """Never called."""

    def delays(self) -> dict[str, float]:
        """How long at most."""
        if not self.tarpit:
            raise RuntimeError("who knows")
        return {"tarpit": self.tarpit}


class Wordy(Slow):
    """One that answers something else."""

    def delays(self) -> Any:
        """A text, as in a configuration."""
        return {"tarpit": "5 min"}


@implementer(IReverseResolver)
class Names:
    """A resolver of one's own."""

    def namesOf(self, address: str) -> list[str]:
        """Never called."""
        return []

    def addressesOf(self, name: str, version: int) -> list[str]:
        """Never called."""
        return []


@implementer(IDelivery, IMechanism, IReverseResolver, IChecked, IWarns)
class Unwise(Names):
    """A delivery, a mechanism and a resolver of somebody else's."""

    name = "UNWISE"
    credentialsInterface = IUsernamePassword
    needsTLS = True

    def server(self, hostname: str) -> Any:
        """Never called."""

    def begin(self, session: Any, envelope: Any) -> Any:
        """Never called."""

    def check(self) -> list[str]:
        """What is wrong."""
        return ["is wrong"]

    def warnings(self) -> list[str]:
        """What is unwise."""
        return ["is unwise"]


def sick(problem: str = "") -> Component:
    """A component that is in no registry."""
    return Component(f"{__name__}:Sick", {"problem": problem})


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
            self.assertEqual(preflight.addressOf(endpoint), address)

    def test_unknowable(self) -> None:
        """A systemd socket is there when systemd starts the service, so a check says nothing."""
        self.assertIsNone(preflight.addressOf("systemd:domain=INET:name=submission"))

    def test_otherKinds(self) -> None:
        """An endpoint of another kind is taken, and is not made to listen."""
        self.assertIsNone(preflight.addressOf("haproxy:tcp:587"))

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


GOOD = Settings(
    listener=(ListenerSettings(endpoint="tcp:587", tls="off", require_tls=False),),
    auth=AuthSettings(required=False),
    delivery=Component("discard"),
)


class ExamineTests(SynchronousTestCase):
    """What broken configuration files do not show."""

    def said(self, **changes: Any) -> list[str]:
        """What is found in settings that are good but for some changes."""
        found = map(str, preflight.examine(attrs.evolve(GOOD, **changes)))
        # How the tests' own files are readable, depends on who has unpacked them.
        return [each for each in found if f"{DATA}/passwd can be read by others" not in each]

    def test_good(self) -> None:
        """Nothing is said of what works: no TLS and no login, where both are asked for so."""
        self.assertEqual(self.said(), [])

    def test_warnings(self) -> None:
        """What is allowed only because somebody asked for it is a warning, and no mistake."""
        everybody = ListenerSettings(
            endpoint="tcp:587", tls="off", require_tls=False, proxy_protocol_from=("0.0.0.0/0",)
        )
        for changes, key in (
            ({"auth": AuthSettings(required=False, insecure=True)}, "auth.insecure"),
            ({"listener": (everybody,)}, "listener[0].proxy_protocol_from[0]"),
        ):
            [finding] = preflight.examine(attrs.evolve(GOOD, **changes))
            self.assertEqual((finding.key, finding.isWarning), (key, True))

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
        self.assertIn(preflight.PORT_RANGE, range_)
        noKey = OWN_TLS.replace("private_key.pem", "passwd")
        [key] = self.said(listener=(attrs.evolve(plain, endpoint=f"ssl:587:{noKey}"),))
        self.assertIn("(its certKey or its privateKey is no such PEM file)", key)

    def test_hashesAlone(self) -> None:
        """A mechanism that some users cannot log in by, and programs try first, is a warning."""
        hashes, secrets = f"htpasswd:{DATA}/passwd", f"secrets:{self.secrets()}"
        mechanisms = ("PLAIN", "CRAM-MD5", "SCRAM-SHA-256")

        def found(*checkers: str, **keys: Any) -> list[str]:
            auth = AuthSettings(
                required=False, checkers=checkers, mechanisms=keys.get("mechanisms", mechanisms)
            )
            return self.said(auth=auth)

        said = "warning: auth.mechanisms[{}]: the users of auth.checkers[{}] cannot log in by {}, "
        both = found(secrets, hashes)
        self.assertEqual(
            [each.partition("and programs")[0] for each in both],
            [said.format(1, 1, "CRAM-MD5"), said.format(2, 1, "SCRAM-SHA-256")],
        )
        self.assertEqual(found(secrets), [])
        self.assertEqual(found(secrets, hashes, mechanisms=("PLAIN", "LOGIN")), [])
        self.assertTrue(all("no checker can verify" in each for each in found(hashes)))

    def secrets(self) -> Path:
        """A file of secrets."""
        file = Path(self.mktemp()).absolute()
        file.write_text("alice:secret\n")
        file.chmod(0o600)
        return file

    def test_socketPath(self) -> None:
        """A unix socket's path that there can be no socket at is found before the start."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
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
            before.bind(os.path.relpath(directory / "left"))
        listener = attrs.evolve(GOOD.listener[0], endpoint=f"unix:{directory / 'left'}")
        self.assertEqual(self.said(listener=(listener,)), [])

    def test_filters(self) -> None:
        """A filter may sign: what changes the header behind it is a warning."""
        keys = {"endpoint": "unix:/run/filter.sock", "quarantine": False}
        milter = Component("milter", keys)
        fixups = Component("message-fixups")
        [found] = self.said(policy=(milter, fixups))
        self.assertTrue(found.startswith("warning: policy[0].use: "), found)
        self.assertEqual(self.said(policy=(fixups, milter)), [])
        rewrite = Component("rewrite", {"senders": f"{DATA}/../../etc/senders.example"})
        [found] = self.said(policy=(milter, rewrite))
        self.assertIn('policy[1], "rewrite", which changes the header', found)

    def test_filtersElsewhere(self) -> None:
        """It is none where no listener has both."""
        keys = {"endpoint": "unix:/run/filter.sock", "quarantine": False}
        named = tuple(attrs.evolve(GOOD.listener[0], name=name) for name in ("in", "out"))
        listeners = (attrs.evolve(named[0], endpoint="tcp:1"), named[1])
        milter = Component("milter", keys, listeners=["in"])
        for wanted, count in ((["out"], 0), (["in", "out"], 1), ([], 1)):
            policy = (milter, Component("message-fixups", listeners=wanted))
            self.assertEqual(len(self.said(listener=listeners, policy=policy)), count, wanted)
        for wrong in (3, [[]], None):
            policy = (milter, Component("message-fixups", listeners=wrong))
            said = self.said(listener=listeners, policy=policy)
            self.assertTrue(said and all("policy[1].listeners" in each for each in said), said)

    def test_externalOnce(self) -> None:
        """A mechanism that nobody is asked a certificate for is warned of once."""
        auth = AuthSettings(
            required=False, checkers=(f"htpasswd:{DATA}/passwd",), mechanisms=("PLAIN", "EXTERNAL")
        )
        [found] = self.said(auth=auth)
        self.assertIn("EXTERNAL is not offered: no client is asked", found)

    def test_ownName(self) -> None:
        """A name without a domain is a warning where other servers will hear it, and only there."""
        self.patch(preflight.socket, "getfqdn", lambda: "box7")
        smarthost, local = (
            RelaySettings(smarthost="smtp.example.net"),
            RelaySettings(maildir="/x/{local}"),
        )
        for hostname, relay, key in (
            ("mail.example.com", smarthost, []),
            ("[192.0.2.1]", smarthost, []),
            ("box7", smarthost, ["hostname"]),
            ("", smarthost, ["hostname"]),
            ("", local, []),
            ("", None, []),
        ):
            settings = attrs.evolve(GOOD, hostname=hostname, relay=relay)
            found = [each for each in preflight.examine(settings) if each.isWarning]
            self.assertEqual([each.key for each in found], key, (hostname, relay))
            for each in found:
                self.assertIn('"box7"', each.sentence)

    def test_dates(self) -> None:
        """A certificate that has expired stops no start, but is named, also one for a name."""
        now = datetime.datetime.now(datetime.UTC)
        pairs = {
            days: selfSigned(Path(self.mktemp()), now - datetime.timedelta(days=days))
            for days in (0, 400)
        }
        (good, goodKey), (old, oldKey) = pairs[0], pairs[400]
        named = {"a.example": CertificateSettings(certificate=old, private_key=oldKey)}
        found = preflight.examine(
            attrs.evolve(GOOD, tls=TLSSettings(certificate=good, private_key=goodKey, sni=named))
        )
        self.assertEqual(
            [(each.key, each.isWarning, each.sentence.rpartition(" on ")[0]) for each in found],
            [('tls.sni."a.example".certificate', True, f"{old} has expired")],
        )

    def test_brokenLines(self) -> None:
        """A typo in a file that is read again keeps no service from starting, but is named."""
        people, owners = Path(self.mktemp()), Path(self.mktemp())
        people.write_text("alice:{SHA}x\n" + (DATA / "passwd").read_text())
        people.chmod(0o600)
        owners.write_text("info@example.com\nsales@example.com alice\n")
        found = preflight.examine(
            attrs.evolve(
                GOOD,
                auth=AuthSettings(required=False, checkers=(f"htpasswd:{people}",)),
                policy=(Component("sender-owner", {"map": str(owners)}),),
            )
        )
        self.assertEqual(
            [(each.key, each.isWarning, each.sentence.split(": ")[0]) for each in found],
            [
                ("auth.checkers[0]", True, f"{people}:1"),
                ("policy[0]", True, f"{owners}:1"),
            ],
        )

    def test_check(self) -> None:
        """What an object says of itself is said with its section."""
        self.assertEqual(
            self.said(policy=(sick("is unwell"),), delivery=sick("has no disk")),
            ["policy[0]: is unwell", "delivery: has no disk"],
        )

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

    def test_signing(self) -> None:
        """A policy that signs stands behind those that may change messages."""
        key = {"domain": "example.com", "selector": "s1", "file": self.mktemp()}
        dkim, changes = Component("dkim", {"key": [key]}), Component(f"{__name__}:Changes")
        mistake = f'must stand behind policy[2], "{changes.use}", which may change messages'
        for policies, expected in (
            ((dkim, dkim, changes), [f'policy[{at}].use: "dkim" signs, and ' for at in (0, 1)]),
            ((changes, dkim, dkim), []),
        ):
            found = [each for each in self.said(policy=policies) if "must stand" in each]
            self.assertEqual(found, [f"{each}{mistake}" for each in expected])

    def test_signingByListener(self) -> None:
        """Only where one listener has both."""
        key = {"domain": "example.com", "selector": "s1", "file": self.mktemp()}
        listeners = tuple(
            ListenerSettings(name=name, endpoint=f"tcp:{port}", tls="off", require_tls=False)
            for name, port in (("a", 587), ("b", 588))
        )
        for one, other, isMistake in (
            (["a"], ["b"], False),
            (["a"], ["b", "a"], True),
            ([], ["b"], True),
            (["a"], [], True),
        ):
            dkim = Component("dkim", {"key": [key]}, listeners=one)
            changes = Component(f"{__name__}:Changes", listeners=other)
            said = " ".join(self.said(listener=listeners, policy=(dkim, changes)))
            self.assertEqual("must stand behind policy[1]" in said, isMistake, (one, other))

    def test_delays(self) -> None:
        """A stage in which the longest delay of a login is not over would be 451 each time."""
        throttle = Component("login-throttle", {})
        short = Component("login-throttle", {"max_delay": "1 s"})
        none = Component("login-throttle", {"delay": 0})
        for stage, expected in ((2.0, [1]), (15.0, [1]), (16.0, []), (0.0, [])):
            found = preflight.examine(
                attrs.evolve(
                    GOOD,
                    policy=(short, throttle, none),
                    limits=LimitSettings(stage=Seconds(stage), connections=Count(10)),
                )
            )
            self.assertEqual(
                [(each.key, each.isWarning) for each in found],
                [(f"policy[{at}].max_delay", False) for at in expected],
            )
            for each in found:
                said = f"is 15 s, and limits.stage is {stage:g} s, "
                self.assertEqual(each.sentence[: len(said)], said)

    def test_ownDelays(self) -> None:
        """A policy of somebody else's says itself how long it has clients wait."""
        slow, vague = (Component(f"{__name__}:Slow", {"tarpit": each}) for each in (61.0, 0.0))
        said = self.said(policy=(slow, vague, Component(f"{__name__}:Wordy")))
        found = [each for each in said if each.startswith("policy")]
        self.assertEqual(
            found[:2],
            [
                "policy[0].tarpit: is 61 s, and limits.stage is 60 s, in which all must be over:"
                " raise limits.stage above tarpit, or lower tarpit",
                "policy[1]: cannot be checked: RuntimeError: who knows",
            ],
        )
        [wordy] = found[2:]
        self.assertTrue(wordy.startswith("policy[2]: cannot be checked: TypeError: "))

    def test_everybodyIsAsked(self) -> None:
        """What mechanisms, resolver and deliveries find wrong or unwise is said."""
        name = f"{__name__}:Unwise"
        found = self.said(
            auth=AuthSettings(required=False, mechanisms=(name,)),
            dns=DNSSettings(reverse_lookup=True, resolver=name),
            delivery=Component(name),
            policy=(Component("archive", {"delivery": {"use": name}}),),
        )
        for path in ("auth.mechanisms[0]", "dns.resolver", "delivery"):
            self.assertEqual(found.count(f"{path}: is wrong"), 1, found)
            self.assertEqual(found.count(f"warning: {path}: is unwise"), 1, found)
        self.assertIn("policy[0]: delivery: is wrong", found)
        self.assertIn("warning: policy[0].delivery: is unwise", found)

    def test_checkFails(self) -> None:
        """An object whose check fails does not hide the others."""
        self.assertEqual(
            self.said(policy=(sick(), sick("is unwell"))),
            [
                "policy[0]: cannot be checked: RuntimeError: cannot even look",
                "policy[1]: is unwell",
            ],
        )

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
            (f"unix:{Path(self.mktemp()).absolute()}", True, 0),
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
        socketPath = f"unix:{Path(self.mktemp()).absolute()}"
        for key in preflight.PROXY_KEYS:
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

    def test_passwordFile(self) -> None:
        """A file of a back end that others can read is a warning; what is no file is none."""
        file = Path(self.mktemp())
        file.write_text("alice:wonderland\n")
        for mode, warnings in ((0o640, 0), (0o644, 1)):
            file.chmod(mode)
            checkers = (f"file:{file}", "memory:a:b")
            found = self.said(auth=AuthSettings(checkers=checkers, required=False))
            self.assertEqual(len(found), warnings, found)
            self.assertTrue(all("auth.checkers[0]" in each for each in found))

    def test_loginByProxy(self) -> None:
        """Where proxies vouch for everybody, no other checker is needed."""
        listener = ListenerSettings(
            endpoint="tcp:587",
            tls="off",
            require_tls=False,
            xclient_from=("10.0.0.1",),
            xclient_login=True,
        )
        self.assertEqual(self.said(listener=(listener,), auth=AuthSettings()), [])

    def test_resolver(self) -> None:
        """A resolver of one's own is made as it will be, and what fails then is said now."""
        for name, said in (
            ("submitd.checkers.nothing:Resolver", "cannot be imported"),
            ("resolver", 'there is no "resolver"'),
            (f"{__name__}:sick", "does not provide IReverseResolver"),
            (f"{__name__}:Names", ""),
        ):
            found = self.said(dns=DNSSettings(reverse_lookup=True, resolver=name))
            self.assertEqual(len(found), 1 if said else 0, found)
            self.assertIn(said, "".join(found))
            self.assertNotIn("dns.resolver.use", "".join(found))

    def test_log(self) -> None:
        """A log that is a directory is a mistake; standard output is none."""
        directory = self.mktemp()
        Path(directory).mkdir()
        self.assertEqual(
            self.said(log=LogSettings(json=directory)), [f"log.json: {directory} is a directory"]
        )
        self.assertEqual(self.said(log=LogSettings(json="-")), [])


class PortsInUseTests(SynchronousTestCase):
    """Asked just before a start."""

    def said(self, *endpoints: str) -> list[str]:
        """The listeners that cannot be had."""
        listeners = tuple(ListenerSettings(endpoint=each) for each in endpoints)
        return [str(each) for each in preflight.portsInUse(Settings(listener=listeners))]

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

        self.patch(preflight.socket, "socket", refuse)
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
        self.assertIn(
            "--uid", preflight.whyNotBound(PermissionError(errno.EACCES, "Permission denied"))
        )
