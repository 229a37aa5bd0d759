"""The whole way: a client, the service in a process of its own, its spool, real next hops."""

from __future__ import annotations

import email
import shutil
import smtplib
import ssl
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from submitd import service
from submitd.preflight import deliveries
from submitd.relay.settings import RelaySettings
from submitd.settings import Component, Settings
from tests.clients.running import RunningService
from tests.relay.programs import PASSWORD, USER, Sink, needs, place, until
from tests.relay.test_programs import Programs

CONFIG = """\
hostname = "submission.example.org"

[[listener]]
endpoint = "tcp:$implicit:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"

[auth]
checkers = ["secrets:secrets"]
mechanisms = ["PLAIN"]

[delivery]
use = "spool"
path = "$directory/spool"

[relay]
%s

[log]
json = "$directory/events"
"""


class ServiceTests(SynchronousTestCase):
    """Postfix as the smarthost, Dovecot for the senders' own domain, smtp-sink."""

    def start(self, relay: str) -> RunningService:
        """The service with these sections."""
        programs = Programs.shared()
        directory = Path(self.mktemp())
        directory.mkdir()
        programs.authority.issue(directory)
        for name, line in (("secrets", "alice:x\n"), ("password", f"{PASSWORD}\n")):
            (directory / name).write_text(line)
            (directory / name).chmod(0o600)
        made = RunningService(directory, CONFIG % relay, ports=("implicit",)).start()
        self.addCleanup(made.stop)
        return made

    def send(self, running: RunningService, text: bytes, *to: str, **options: Any) -> None:
        """Submit a message."""
        context = ssl.create_default_context(cafile=str(Programs.shared().authority.file))
        port = running.ports["implicit"]
        with smtplib.SMTP_SSL("localhost", port, context=context, timeout=30) as client:
            client.login("alice", "x")
            client.sendmail("you@home.example", to, b"From: you@home.example\r\n" + text, **options)

    def test_smarthost(self) -> None:
        """250, then the message is at the smarthost; a refused recipient is a report at home."""
        needs("postfix", "dovecot")
        programs = Programs.shared()
        running = self.start(
            f'smarthost = "localhost:{programs.postfix.port}"\n'
            f'user = "{USER}"\npassword_file = "password"\n'
            f'ca_file = "{programs.authority.file}"\n'
            f'[[route]]\nrecipients = ["home.example"]\nlmtp = "unix:{programs.dovecot.lmtp}"\n'
        )
        users = programs.dovecot.directory / "users"
        users.write_text(users.read_text() + "you@home.example:x::::::\n")
        mark = f"X-Mark: {time.time()}".encode()
        text = mark + b"\r\nSubject: hello\r\n\r\n.\r\nthe end\r\n"
        self.send(
            running,
            text,
            "box@example.net",
            "no@example.net",
            mail_options=["ENVID=E1", "HOLDFOR=1"],
            rcpt_options=["NOTIFY=FAILURE"],
        )
        until(
            lambda: [each for each in programs.postfix.messages if mark in each],
            lambda: running.log + programs.postfix.log,
        )
        reports: list[bytes] = []

        def reported() -> bool:
            reports[:] = [each for each in programs.dovecot.messages("you") if mark in each]
            return bool(reports)

        until(reported, lambda: running.log + programs.dovecot.log)
        report = email.message_from_bytes(reports[0])
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertIn("no@example.net", report.as_string())
        self.assertIn("Original-Envelope-Id: E1", report.as_string())
        self.assertIn("Future-Release-Request: for;1", report.as_string())
        self.assertNotIn(PASSWORD, running.log)
        running.stop()
        events = (running.directory / "events").read_text()
        for name in ("recipient-delivered", "recipient-failed", "reported", "service-stopped"):
            self.assertIn(f'"event": "{name}"', events)
        self.assertNotIn(PASSWORD, events)

    def test_burst(self) -> None:
        """Many messages over few connections, none lost, none twice; a stop in between as well."""
        needs("postfix", "smtp-sink", "dovecot")
        sink = Sink()
        self.addCleanup(sink.stop)
        relay = f'smarthost = "127.0.0.1:{sink.port}"\ntls = "off"\nconnections = 3\n'
        running = self.start(relay)
        for n in range(30):
            self.send(running, f"X-N: <{n}>\r\n\r\nx\r\n".encode(), "a@b.example", "c@d.example")
        running.stop()
        running.start()
        until(lambda: len(sink.messages) >= 30, lambda: f"{len(sink.messages)} {running.log}")
        time.sleep(0.2)
        kept = b"".join(sink.messages)
        self.assertEqual([kept.count(f"X-N: <{n}>".encode()) for n in range(30)], [1] * 30)

    def test_localDomain(self) -> None:
        """A Maildir for the local domain, and nothing for those who are not there."""
        needs("postfix", "dovecot")
        root = place("local")
        self.addCleanup(shutil.rmtree, root, ignore_errors=True)
        (root / "you").mkdir()
        running = self.start(f'maildir = "{root}/{{local}}/Maildir"\n')
        self.send(running, b"X: y\r\n\r\nx\r\n", "you@home.example")
        new = root / "you" / "Maildir" / "new"
        until(lambda: new.is_dir() and list(new.iterdir()), lambda: running.log)
        [file] = new.iterdir()
        self.assertTrue(file.read_bytes().endswith(b"X: y\r\n\r\nx\r\n"))


class WiringTests(SynchronousTestCase):
    """What the configuration makes of it."""

    def test_warning(self) -> None:
        """A spool that nobody delivers from is said to be one."""
        spool = Component("spool", {"path": "/x/y"})
        said = [str(each) for each in deliveries.relay(Settings(delivery=spool))]
        self.assertIn("messages stay in the spool", said[0])
        relay = Settings(delivery=Component("discard"), relay=RelaySettings(smarthost="a"))
        self.assertIn("relay: needs [delivery]", str(next(iter(deliveries.relay(relay)))))

    def test_changedSince(self) -> None:
        """What was good at the examination and is no longer is one sentence."""
        from twisted.internet.task import Clock

        from submitd.deliveries.spool import Spool

        clock: Any = Clock()
        common: Any = type("Common", (), {"hostname": "x", "delivery": Spool(Path("/x/y"))})
        for wrong in (
            RelaySettings(),
            RelaySettings(smarthost="a", ca_file=Path("/does/not/exist")),
        ):
            with self.assertRaises(service.CannotStart):
                service._relay(Settings(relay=wrong), common, clock)
        self.assertIsNone(service._relay(Settings(), common, clock))
        made = service._relay(Settings(relay=RelaySettings(smarthost="a")), common, clock)
        assert made is not None
        self.assertIsNone(made.stopService())
