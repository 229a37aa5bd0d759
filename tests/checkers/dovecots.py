"""A real Dovecot, with its authentication service and nothing else.

It is an instance of its own in a directory of its own below /tmp, needs root, and is ended by who
started it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

from tests.clients.running import freePorts
from tests.relay.programs import Child, accepts, find, place, until

CONFIG = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols =
ssl = no
first_valid_uid = 1
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  mechanisms = plain
  args = scheme=PLAIN username_format=%u {directory}/users
}}
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {directory}/oauth2
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service auth {{
  unix_listener {directory}/auth {{
    mode = 0666
  }}
  unix_listener {directory}/not-userdb {{
    mode = 0666
  }}
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service stats {{
  client_limit = 100
}}
"""

# Tokens are verified with a key; nobody is asked.
OAUTH2 = """\
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={directory}/keys/
username_attribute = sub
"""

USERS = """\
alice:wonder::::::
carl:pw::::::nologin reason=Moved_away
dan:pw::::::allow_nets=192.0.2.0/24
eve:pw::::::user=Eve@example.com
"""

KEY = b"a key of thirty-two octets or so"


class Dovecot:
    """One Dovecot.

    :param mechanisms: what it offers.
    """

    def __init__(self, mechanisms: str = "plain xoauth2") -> None:
        self.directory = place("dovecot")
        with freePorts(1) as [self.port]:
            pass
        self.users = self.directory / "users"
        self.users.write_text(USERS)
        self.users.chmod(0o644)
        (self.directory / "oauth2").write_text(OAUTH2.format(directory=self.directory))
        key = self.directory / "keys" / "default" / "HS256" / "default"
        key.parent.mkdir(parents=True)
        key.write_bytes(base64.b64encode(KEY))
        self._config = self.directory / "dovecot.conf"
        self._config.write_text(
            CONFIG.format(directory=self.directory, mechanisms=mechanisms, port=self.port)
        )
        self.start()

    def start(self) -> None:
        """Start it, again at the same places."""
        command = [str(find("dovecot")), "-F", "-c", str(self._config)]
        self._child = Child(command, self.directory)
        until(lambda: self._answers() and accepts(self.port), lambda: self.log)

    def _answers(self) -> bool:
        # The socket of one that has ended may still be there.
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.auth))
        except OSError:
            return False
        return True

    @property
    def auth(self) -> str:
        """The socket for clients."""
        return str(self.directory / "auth")

    @property
    def other(self) -> str:
        """A socket of it that is not for clients."""
        return str(self.directory / "not-userdb")

    @property
    def log(self) -> str:
        """What it has said."""
        files = [self.directory / "output", self.directory / "log"]
        return "".join(each.read_text() for each in files if each.exists())

    def stop(self) -> None:
        """End it, and the processes that it has started: with a client they would outlive it."""
        pid = self._child.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._child.stop()
        for each in filter(_runs, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(each), signal.SIGTERM)
        until(lambda: not any(map(_runs, children)), lambda: self.log)

    def remove(self) -> None:
        """End it, and remove what it has left."""
        if self._child.isRunning:
            self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _runs(pid: str) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # empty for one that has ended
    except OSError:
        return False


def token(user: str) -> str:
    """A token of this user's that it takes (RFC 7519)."""
    now = int(time.time())
    head = {"alg": "HS256", "typ": "JWT"}
    claims = {"sub": user, "iat": now - 60, "nbf": now - 60, "exp": now + 600}
    signed = b".".join(_url(json.dumps(each).encode()) for each in (head, claims))
    signature = hmac.digest(KEY, signed, hashlib.sha256)
    return (signed + b"." + _url(signature)).decode()


def _url(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")
