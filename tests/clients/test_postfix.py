"""Postfix, which hands all its mail to the service: a smarthost's other side.

It is an instance of its own, in a directory of its own, and needs root.  The system's Postfix, its
configuration and its queue are left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

from tests.clients import messages
from tests.clients.case import (
    RECIPIENT,
    SENDER,
    USERS,
    UTF8_RECIPIENT,
    UTF8_SENDER,
    WRONG,
    ClientTestCase,
)

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
smtp_bind_address = 127.0.0.1
smtp_dns_support_level = disabled
smtp_host_lookup = native
alias_maps =
alias_database =
local_transport = error:there is none
relayhost = [localhost]:{port}
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = nexthop
smtp_tls_CAfile = {authority}
smtp_tls_wrappermode = {wrapper}
smtp_tls_loglevel = 1
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{ {{ [localhost]:{port} = {user}:{secret} }} }}
smtp_sasl_mechanism_filter = {mechanism}
smtp_sasl_security_options = noanonymous
smtp_sasl_tls_security_options = noanonymous
smtputf8_enable = yes
minimal_backoff_time = 1h
"""

MASTER = """\
postlog   unix-dgram n  -       n       -       1       postlogd
pickup    unix  n       -       n       1       1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
smtp      unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
"""

# What Postfix puts in front of a message from its own sendmail.
_RECEIVED = re.compile(rb"Received: by relay\.example\.org \(Postfix, .*\r\n(?:[ \t].*\r\n)*")

WAIT = 30.0
"""Seconds for a message to leave the queue, or to be deferred."""


class Postfix:
    """One instance.

    :param directory: all that it has; users of the system can enter it.
    :cvar main: its ``main.cf``, to be filled in.
    :cvar master: its ``master.cf``.
    """

    main: ClassVar[str] = MAIN
    master: ClassVar[str] = MASTER

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def configure(self, **values: object) -> None:
        """Write the configuration."""
        for name in ("config", "queue", "data"):
            (self.directory / name).mkdir()
        shutil.chown(self.directory / "data", "postfix")
        main = self.main.format(directory=self.directory, **values)
        self._config.joinpath("main.cf").write_text(main)
        self._config.joinpath("master.cf").write_text(self.master)
        # A map with a password in it.
        self._config.joinpath("main.cf").chmod(0o600)

    @property
    def _config(self) -> Path:
        return self.directory / "config"

    @property
    def log(self) -> str:
        """What it has logged."""
        file = self.directory / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def control(self, command: str) -> subprocess.CompletedProcess[bytes]:
        """``postfix start``, ``postfix stop``."""
        return self._run("postfix", "-c", str(self._config), command)

    def submit(self, message: bytes, sender: str, *recipients: str) -> None:
        """Put a message into the queue with its sendmail."""
        text = message.replace(b"\r\n", b"\n")
        command = ("sendmail", "-C", str(self._config), "-i", "-f", sender, "--", *recipients)
        ran = self._run(*command, stdin=text)
        if ran.returncode != 0:
            raise AssertionError(f"{ran.stdout!r}\n{self.log}")

    def _run(self, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        # Its daemons would hold a pipe open: what it says goes to a file.
        with tempfile.TemporaryFile() as said:
            ran = subprocess.run(
                command,
                input=stdin,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LANG": "C.UTF-8"},
                timeout=60,
                check=False,
            )
            said.seek(0)
            return subprocess.CompletedProcess(command, ran.returncode, said.read())

    def status(self) -> str:
        """Wait for what has become of the next message: ``sent`` or ``deferred``, and why."""
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            match = re.search(r"postfix/smtp\[\d+\]: .* status=(.*)", self.log)
            if match:
                return match[1]
            time.sleep(0.05)
        raise AssertionError(f"neither sent nor deferred:\n{self.log}")


class PostfixTests(ClientTestCase):
    """A message by each mechanism, over both kinds of TLS."""

    program = "postfix"

    def setUp(self) -> None:
        """Have the right to start a Postfix, and the service."""
        if os.geteuid() != 0:
            raise SkipTest("only root can start a Postfix")
        super().setUp()

    def _postfix(
        self, mechanism: str, *, secret: str = "", implicit: bool = False, authority: str = ""
    ) -> Postfix:
        user = USERS[mechanism]
        directory = Path(tempfile.mkdtemp(prefix="submitd-postfix-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        # Postfix does not run as root, and the tests' directories may be root's alone.
        file = directory / "authority.pem"
        shutil.copy(authority or self.authority, file)
        file.chmod(0o644)
        postfix = Postfix(directory)
        postfix.configure(
            port=self.service.ports["implicit" if implicit else "starttls"],
            authority=file,
            wrapper="yes" if implicit else "no",
            mechanism=mechanism.lower(),
            user=user.name,
            secret=(secret or user.secret).replace("$", "$$"),
        )
        started = postfix.control("start")
        self.assertEqual(started.returncode, 0, f"{started.stdout!r}\n{postfix.log}")
        self.addCleanup(postfix.control, "stop")
        return postfix

    def _relay(
        self,
        mechanism: str,
        message: bytes,
        sender: str = SENDER,
        recipients: tuple[str, ...] = (RECIPIENT,),
        protocol: str = "ESMTPSA",
        implicit: bool = False,
    ) -> None:
        postfix = self._postfix(mechanism, implicit=implicit)
        postfix.submit(message, sender, *recipients)
        self.assertRegex(postfix.status(), r"^sent \(250 2\.0\.0 Ok: queued as ", postfix.log)
        self.assertIn("Verified TLS connection established", postfix.log)
        kept = self.kept(sender, recipients, protocol)
        self.assertLogin(mechanism)
        match = _RECEIVED.match(kept.message)
        assert match is not None, kept.message[:400]
        self.assertSame(kept.message[match.end() :], message)

    def test_starttls(self) -> None:
        """A message with everything is relayed over STARTTLS as it was sent."""
        self._relay("PLAIN", messages.full())

    def test_implicit(self) -> None:
        """A message with everything is relayed over implicit TLS as it was sent."""
        self._relay("PLAIN", messages.full(), implicit=True)

    def test_login(self) -> None:
        """LOGIN logs in."""
        self._relay("LOGIN", messages.small())

    def test_cramMD5(self) -> None:
        """CRAM-MD5 logs in."""
        self._relay("CRAM-MD5", messages.small())

    def test_utf8(self) -> None:
        """A message with UTF-8 in addresses and header is relayed under SMTPUTF8."""
        recipients = (UTF8_RECIPIENT, RECIPIENT)
        self._relay("PLAIN", messages.utf8(), UTF8_SENDER, recipients, "UTF8SMTPSA")

    def test_wrong(self) -> None:
        """A wrong password is 535, and Postfix keeps the message."""
        postfix = self._postfix("PLAIN", secret=WRONG)
        postfix.submit(messages.small(), SENDER, RECIPIENT)
        self.assertRegex(postfix.status(), r"^deferred \(SASL authentication failed; .* 535 ")
        self.assertNoLogin()

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed, and Postfix keeps the message."""
        for implicit in (False, True):
            postfix = self._postfix("PLAIN", implicit=implicit, authority=self.stranger)
            postfix.submit(messages.small(), SENDER, RECIPIENT)
            self.assertRegex(postfix.status(), r"^deferred \(Server certificate not verified\)")
        self.assertToldNothing()
