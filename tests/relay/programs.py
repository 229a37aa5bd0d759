"""Next hops as real programs: a whole Postfix smtpd, smtp-sink, and Dovecot's auth and LMTP.

Each is an instance of its own in a directory of its own below /tmp, whose daemons' users can enter
it; the system's are left alone.  They need root, and are ended by who started them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

from tests.clients.running import freePorts
from tests.clients.test_postfix import Postfix

WAIT = 20.0
"""Seconds for a program to listen, or for a message to arrive."""

USER, PASSWORD = "alice@example.com", "wonder land"

SMARTHOST = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
myhostname = localhost
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
smtp_dns_support_level = disabled
alias_maps =
alias_database =
local_transport = error:there is none
virtual_mailbox_domains = example.net
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 100
message_size_limit = 500000
virtual_mailbox_limit = 0
smtputf8_enable = yes
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {auth}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =
    check_recipient_access inline:{{ {{ no@example.net = 550 5.1.1 no such user }},
        {{ later@example.net = 450 4.2.1 try later }} }},
    permit_sasl_authenticated, reject
"""

SMARTHOST_MASTER = """\
postlog   unix-dgram n  -       n       -       1       postlogd
127.0.0.1:%d inet n     -       n       -       -       smtpd
127.0.0.1:%d inet n     -       n       -       -       smtpd -o smtpd_tls_wrappermode=yes
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
virtual   unix  -       n       n       -       -       virtual
proxymap  unix  -       -       n       -       -       proxymap
anvil     unix  -       -       n       -       1       anvil
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
"""

DOVECOT = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
auth_mechanisms = plain login cram-md5
disable_plaintext_auth = no
mail_location = maildir:{directory}/mail/%n
postmaster_address = postmaster@example.net
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {directory}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {directory}/users
  default_fields = uid=65534 gid=65534 home={directory}/mail/%n
}}
service auth {{
  unix_listener {directory}/auth {{
    mode = 0666
  }}
}}
service lmtp {{
  unix_listener {directory}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service stats {{
  client_limit = 100
}}
"""


def needs(*programs: str) -> None:
    """Skip a test where a program is not there, or nobody may start it."""
    if os.geteuid() != 0:
        raise SkipTest("only root can start it")
    for program in programs:
        if find(program) is None:
            raise SkipTest(f"there is no {program}")


def find(program: str) -> str | None:
    """Where a program is; those for daemons are not in everybody's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def place(name: str) -> Path:
    """A directory that users of the system can enter."""
    directory = Path(tempfile.mkdtemp(prefix=f"submitd-{name}-", dir="/tmp"))
    directory.chmod(0o755)
    return directory


def until(happened: Callable[[], object], what: Callable[[], str]) -> None:
    """Wait for something.

    :raise AssertionError: with what is known, when it does not happen.
    """
    end = time.monotonic() + WAIT
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(what())
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Child:
    """A program in the foreground."""

    def __init__(self, command: list[str], directory: Path) -> None:
        with open(directory / "output", "wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def isRunning(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Sink:
    """Postfix's smtp-sink, which takes everything.

    :param options: of its command line.
    """

    def __init__(self, *options: str) -> None:
        self.directory = place("sink")
        shutil.chown(self.directory, "nobody")
        with freePorts(1) as [self.port]:
            pass
        self._command = [str(find("smtp-sink")), "-u", "nobody", *options]
        # Each message has a file of its own.
        self._command += ["-d", f"{self.directory}/m.", f"127.0.0.1:{self.port}", "100"]
        self.start()

    def start(self) -> None:
        """Start it, again at the same port."""
        self._child = Child(self._command, self.directory)
        until(lambda: accepts(self.port), lambda: (self.directory / "output").read_text())

    def kill(self) -> None:
        """End it as a crash would."""
        self._child.kill()

    @property
    def messages(self) -> list[bytes]:
        """What it has taken."""
        return [each.read_bytes() for each in sorted(self.directory.glob("m.*"))]

    def stop(self) -> None:
        """End it, and remove what it has left."""
        self._child.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class Dovecot:
    """Dovecot: LMTP over TCP and a unix socket, and logins for Postfix."""

    def __init__(self) -> None:
        self.directory = place("dovecot")
        with freePorts(1) as [self.port]:
            pass
        (self.directory / "mail").mkdir()
        shutil.chown(self.directory / "mail", "nobody")
        users = self.directory / "users"
        users.write_text(
            "".join(
                f"{each}::::::\n"
                for each in (f"{USER}:{PASSWORD}", "you@example.net:x", "her@example.net:x")
            )
        )
        users.chmod(0o644)
        config = self.directory / "dovecot.conf"
        config.write_text(DOVECOT.format(directory=self.directory, port=self.port))
        self._child = Child([str(find("dovecot")), "-F", "-c", str(config)], self.directory)
        until(lambda: accepts(self.port) and self.auth.exists(), lambda: self.log)

    @property
    def auth(self) -> Path:
        """The socket that Postfix asks."""
        return self.directory / "auth"

    @property
    def lmtp(self) -> Path:
        """The socket for messages."""
        return self.directory / "lmtp"

    @property
    def log(self) -> str:
        """What it has said."""
        files = [self.directory / "output", self.directory / "log"]
        return "".join(each.read_text() for each in files if each.exists())

    def messages(self, user: str) -> list[bytes]:
        """What a user has."""
        return [each.read_bytes() for each in (self.directory / "mail" / user / "new").glob("*")]

    def stop(self) -> None:
        """End it, and remove what it has left."""
        self._child.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class Smarthost(Postfix):
    """A Postfix that takes mail for everybody from who logs in, and keeps that for example.net."""

    main = SMARTHOST

    def __init__(self, certificate: Path, key: Path, auth: Path) -> None:
        super().__init__(place("smarthost"))
        with freePorts(2) as [self.port, self.implicit]:
            pass
        self.master = SMARTHOST_MASTER % (self.port, self.implicit)  # type: ignore[misc]
        (self.directory / "mail").mkdir()
        shutil.chown(self.directory / "mail", pwd.getpwuid(65534).pw_name)
        for file in (certificate, key):
            shutil.copy(file, self.directory / file.name)
        self.configure(
            certificate=self.directory / certificate.name,
            key=self.directory / key.name,
            auth=auth,
        )
        started = self.control("start")
        if started.returncode != 0:
            raise AssertionError(f"{started.stdout!r}\n{self.log}")
        until(lambda: accepts(self.port) and accepts(self.implicit), lambda: self.log)

    @property
    def messages(self) -> list[bytes]:
        """What it has kept."""
        return [each.read_bytes() for each in (self.directory / "mail" / "box" / "new").glob("*")]

    def stop(self) -> None:
        """End it, and remove what it has left."""
        self.control("stop")
        shutil.rmtree(self.directory, ignore_errors=True)
