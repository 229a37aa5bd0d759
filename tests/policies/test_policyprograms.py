"""Policy delegation with policy servers of others: postgrey, policyd-rate-limit, policyd-spf."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from submitd import events
from submitd.envelope import Recipient
from submitd.policies.delegation import Delegation
from submitd.typed import Seconds
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from tests.spool.support import makeEnvelope, makeSession

SEARCHED = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"

RATE_LIMITS = """\
debug: False
user: "{user}"
group: "{group}"
pidfile: "{directory}/pid"
sqlite_config:
    database: "{directory}/db.sqlite3"
backend: 0
SOCKET: "{socket}"
socket_permission: 0666
limits:
    - [3, 3600]
limits_by_id: {{}}
limit_by_sasl: True
limit_by_sender: False
limit_by_ip: False
limited_networks: []
success_action: "dunno"
fail_action: "defer_if_permit Rate limit reach, retry later"
db_error_action: "dunno"
report: False
report_from: null
report_to: null
report_subject: "report"
report_limits: [86400]
report_only_if_needed: True
smtp_server: ["localhost", 25]
smtp_starttls: False
smtp_credentials: null
delay_to_close: 300
"""


class ProgramCase(TestCase):
    """Starts a program that listens on a unix socket."""

    programs: ClassVar[tuple[str, ...]] = ()

    def setUp(self) -> None:
        for name in self.programs:
            if shutil.which(name, path=SEARCHED) is None:
                self.skipTest(f"{name} is not installed")
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        # Not in trial's directory: the path of a socket has about 100 octets at most.
        self.directory = Path(tempfile.mkdtemp(prefix="submitd-policy-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.socket = self.directory / "policy.sock"
        self.child = self.start()
        self.addCleanup(self.end)
        self.waitForSocket()
        self.session = makeSession("alice")

    def command(self) -> list[str]:
        """What is run."""
        raise NotImplementedError

    def start(self) -> subprocess.Popen[bytes]:
        """Start it."""
        with open(self.directory / "output", "ab") as output:
            return subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env={**os.environ, "PATH": SEARCHED},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self) -> None:
        """End it, and what it has started, and wait."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGCONT)
            os.killpg(self.child.pid, signal.SIGTERM)
            try:
                self.child.wait(1)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()

    def waitForSocket(self) -> None:
        """Wait until it listens."""
        until = time.monotonic() + 30
        while time.monotonic() < until and self.child.poll() is None:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(self.socket))
                    return
                except OSError:
                    time.sleep(0.02)
        raise AssertionError((self.directory / "output").read_text("utf-8", "replace"))

    def policy(self, **keys: Any) -> Delegation:
        """A policy that asks it."""
        policy = Delegation(endpoint=f"unix:{self.socket}", **keys)
        self.successResultOf(policy.start(reactor))
        self.addCleanup(self.stop, policy)
        return policy

    async def _stop(self, policy: Delegation) -> None:
        await policy.stop()
        # The reactor is to see that the connections have ended.
        turn: Deferred[None] = Deferred()
        reactor.callLater(0.05, turn.callback, None)  # type: ignore[attr-defined]
        await turn

    def stop(self, policy: Delegation) -> Deferred[None]:
        """Stop a policy."""
        return Deferred.fromCoroutine(self._stop(policy))

    async def rcpt(
        self, policy: Delegation, envelope: Any, address: str = "bob@example.net"
    ) -> str:
        """The reply to RCPT; empty where it is taken."""
        recipient = Recipient(Mailbox.parse(address.encode()))
        try:
            await policy.validateTo(self.session, envelope, recipient)  # type: ignore[misc]
        except Refused as refused:
            return refused.reply.wire.decode("ascii").rstrip()
        return ""


class PostgreyTests(ProgramCase):
    """postgrey: greylisting."""

    programs = ("postgrey",)

    def command(self) -> list[str]:
        user = "postgrey" if os.getuid() == 0 else str(os.getuid())
        group = "postgrey" if os.getuid() == 0 else str(os.getgid())
        if os.getuid() == 0:
            os.chmod(self.directory, 0o777)
        return [
            "postgrey",
            f"--unix={self.socket}",
            f"--dbdir={self.directory}",
            f"--user={user}",
            f"--group={group}",
            "--delay=1",
            "--greylist-text=Greylisted for %s seconds",
        ]

    async def test_greylisted(self) -> None:
        """450 at first, and taken with a header field when the time is over."""
        policy = self.policy()
        self.session.clientHostname = "client.example"
        said = await self.rcpt(policy, makeEnvelope("A-1"))
        self.assertRegex(said, r"^450 4\.\d\.\d Greylisted for \d seconds$")
        for attempt in range(100):
            envelope = makeEnvelope(f"A-{attempt + 2}")
            said = await self.rcpt(policy, envelope)
            if not said:
                break
            await self.pause(0.1)
        self.assertEqual(said, "")
        actions = [each["action"] for each in self.logged if each["event"] == "delegation-action"]
        self.assertEqual(len(actions), 1)
        self.assertRegex(actions[0], "^PREPEND X-Greylist: delayed ")

    async def pause(self, seconds: float) -> None:
        """Let time go by; greylisting is about time."""
        turn: Deferred[None] = Deferred()
        reactor.callLater(seconds, turn.callback, None)  # type: ignore[attr-defined]
        await turn

    async def test_hangs(self) -> None:
        """Stopped it is silent, which is 451 when the time is over; going on it answers again."""
        policy = self.policy(timeout=Seconds(0.3))
        self.assertRegex(await self.rcpt(policy, makeEnvelope("A-1")), "^450")
        os.killpg(self.child.pid, signal.SIGSTOP)
        self.assertRegex(await self.rcpt(policy, makeEnvelope("A-2")), "^451 4.3.0")
        os.killpg(self.child.pid, signal.SIGCONT)
        policy = self.policy(timeout=Seconds(10.0))
        self.assertNotRegex(await self.rcpt(policy, makeEnvelope("A-3")), "^451")

    async def test_restarted(self) -> None:
        """It ends and is started again: the connection that was kept is replaced, unnoticed."""
        policy = self.policy()
        await self.rcpt(policy, makeEnvelope("A-1"))
        self.end()
        self.assertRegex(await self.rcpt(self.policy(), makeEnvelope("A-2")), "^451 4.3.0")
        self.logged.clear()
        self.child = self.start()
        self.waitForSocket()
        self.assertNotRegex(await self.rcpt(policy, makeEnvelope("A-3")), "^451")
        self.assertNotIn("delegation-away", [each["event"] for each in self.logged])


class RateLimitTests(ProgramCase):
    """policyd-rate-limit: so many messages of a login."""

    programs = ("policyd-rate-limit",)

    def command(self) -> list[str]:
        import grp
        import pwd

        file = self.directory / "policyd.yaml"
        text = RATE_LIMITS.format(
            user=pwd.getpwuid(os.getuid()).pw_name,
            group=grp.getgrgid(os.getgid()).gr_name,
            directory=self.directory,
            socket=self.socket,
        )
        file.write_text(text)
        return ["policyd-rate-limit", "--file", str(file)]

    async def test_limit(self) -> None:
        """Three are taken, the fourth is 450, and another login is not concerned."""
        policy = self.policy()
        said = [await self.rcpt(policy, makeEnvelope(f"A-{at}")) for at in range(4)]
        self.assertEqual(said, ["", "", "", "450 4.7.1 Rate limit reach, retry later"])
        self.session = makeSession("bob")
        self.assertEqual(await self.rcpt(policy, makeEnvelope("B-1")), "")
        self.assertEqual(self.logged, [])


class SPFTests(ProgramCase):
    """policyd-spf, which Postfix runs by spawn: here something else listens for it."""

    programs = ("policyd-spf", "socat")

    def command(self) -> list[str]:
        return ["socat", f"UNIX-LISTEN:{self.socket},fork", "EXEC:policyd-spf"]

    async def test_localhost(self) -> None:
        """The header field that it wants is taken; for a local client no name is looked up."""
        policy = self.policy()
        self.session.remoteAddress = "127.0.0.1"
        self.session.heloName = "client.example"
        self.assertEqual(await self.rcpt(policy, makeEnvelope("A-1")), "")
        [event] = self.logged
        self.assertRegex(event["action"], r"^PREPEND \S+: .*SPF.* local")
        self.assertNotIn("problem", event)
