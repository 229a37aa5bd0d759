"""Postfix's lmtp client, which hands mail to the service for each recipient.

It is an instance of its own, as in tests/clients/test_postfix.py.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from unittest import SkipTest

from tests.clients import messages
from tests.clients.case import ADA, find
from tests.clients.test_postfix import MASTER, WAIT, Postfix
from tests.lmtp.case import LMTPTestCase

MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
myhostname = relay.example.org
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
lmtp_dns_support_level = disabled
lmtp_host_lookup = native
alias_maps =
alias_database =
local_transport = error:there is none
default_transport = lmtp:{nexthop}
lmtp_tls_security_level = {security}
lmtp_tls_secure_cert_match = nexthop
lmtp_tls_CAfile = {authority}
lmtp_tls_loglevel = 1
lmtp_sasl_auth_enable = {login}
lmtp_sasl_password_maps = static:{user}:{secret}
lmtp_sasl_mechanism_filter = plain
lmtp_sasl_security_options = noanonymous
minimal_backoff_time = 1h
notify_classes =
"""

# Who has no mailbox here, for the report about "nobody" goes there.
SENDER = "origin@example.org"

_STATUS = re.compile(
    r"postfix/lmtp\[\d+\]: .* to=<([^>]*)>,.* dsn=([0-9.]+), status=(\w+) \((.*)\)"
)


class LMTPPostfix(Postfix):
    """One that delivers by LMTP."""

    main = MAIN
    master = f"{MASTER}lmtp      unix  -       -       n       -       -       lmtp\n"

    def outcomes(self, count: int) -> dict[str, tuple[str, str, str]]:
        """Wait for what has become of so many recipients: status code, word, and the reply."""
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            found = {to: tuple(rest) for to, *rest in _STATUS.findall(self.log)}
            if len(found) >= count:
                return found  # type: ignore[return-value]
            time.sleep(0.05)
        raise AssertionError(f"not {count} outcomes:\n{self.log}")


class PostfixTests(LMTPTestCase):
    """Messages for several recipients."""

    def setUp(self) -> None:
        """Have the right to start a Postfix, and the service."""
        if find("postfix") is None:
            raise SkipTest("postfix is not installed")
        if os.geteuid() != 0:
            raise SkipTest("only root can start a Postfix")
        super().setUp()

    def postfix(self, nexthop: str, security: str = "none") -> LMTPPostfix:
        """A Postfix that hands its mail to this."""
        directory = Path(tempfile.mkdtemp(prefix="submitd-postfix-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        postfix = LMTPPostfix(directory)
        postfix.configure(
            nexthop=nexthop,
            security=security,
            authority=self.service.directory / "authority.pem",
            login="no" if security == "none" else "yes",
            user=ADA.name,
            secret=ADA.secret.replace("$", "$$"),
        )
        started = postfix.control("start")
        self.assertEqual(started.returncode, 0, f"{started.stdout!r}\n{postfix.log}")
        self.addCleanup(postfix.control, "stop")
        return postfix

    def deliver(self, nexthop: str, message: bytes, security: str = "none") -> LMTPPostfix:
        """Each recipient has the outcome that is its own, and the right ones have the message."""
        postfix = self.postfix(nexthop, security)
        names = ("ada", "nobody", "bob", "full")
        postfix.submit(message, SENDER, *(f"{name}@example.net" for name in names))
        outcomes = postfix.outcomes(len(names))
        for name, code, word, reply in (
            ("ada", "2.1.5", "sent", "250 2.1.5 Delivered"),
            ("bob", "2.1.5", "sent", "250 2.1.5 Delivered"),
            ("nobody", "5.1.1", "bounced", "550 5.1.1 No such mailbox"),
            ("full", "4.2.2", "deferred", "452 4.2.2 Mailbox full"),
        ):
            outcome = outcomes[f"{name}@example.net"]
            self.assertEqual(outcome[:2], (code, word), postfix.log)
            self.assertIn(reply, outcome[2])
        for name in ("ada", "bob"):
            [kept] = self.kept(name)
            self.assertIn(f"Delivered-To: {name}@example.net\r\n".encode(), kept)
            self.assertTrue(kept.endswith(message), kept[-400:])
        return postfix

    def test_tcp(self) -> None:
        """Over TCP, with a message that has everything in it."""
        message = messages.small()
        self.deliver(f"inet:127.0.0.1:{self.service.ports['tcp']}", message)
        self.assertIn("with LMTP", self.kept("ada")[0].decode("utf-8", "replace"))

    def test_unix(self) -> None:
        """Over a unix socket, whose clients have no address."""
        self.deliver(f"unix:{self.socket}", messages.small())

    def test_secure(self) -> None:
        """Over TLS with a verified certificate, logged in, as LMTPSA (RFC 3848)."""
        port = self.service.ports["secure"]
        postfix = self.deliver(f"inet:localhost:{port}", messages.small(), "secure")
        self.assertIn("Verified TLS connection established", postfix.log)
        self.assertIn("with LMTPSA (TLSv1.3) ", self.kept("ada")[0].decode("utf-8", "replace"))
        self.assertIn(f"user={ADA.name} mechanism=PLAIN", self.logged)
