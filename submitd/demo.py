"""The demonstration: what ``twistd submitd`` runs without a configuration.

A safe service for trying things out, and a sink for the mail of a program that is being written:
127.0.0.1 only, TLS with a certificate of its own, one user with a random password, messages in a
Maildir.  All of it is kept in one state directory that nobody else can read, so that the next start
has the same certificate and password.

It fails with ``OSError`` when the state directory cannot be written.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

import attrs

from submitd.settings import (
    AuthSettings,
    Component,
    ListenerSettings,
    RefusalSettings,
    Settings,
)
from submitd.tls import TLSSettings, selfSigned

USER = "demo"
PORTS = (2587, 2465)


@attrs.frozen(kw_only=True)
class Demo:
    """A demonstration that is ready to start.

    :param state: the directory that holds it.
    :param ports: the ports for STARTTLS and for implicit TLS.
    :param password: of the user ``demo``.
    """

    state: Path
    ports: tuple[int, int]
    password: str
    settings: Settings

    @property
    def maildir(self) -> Path:
        """Where the messages go."""
        return self.state / "Maildir"

    def words(self) -> str:
        """What is printed at the start: who may log in, and lines to paste into a shell."""
        starttls, implicit = self.ports
        certificate = str(self.state / "tls" / "certificate.pem")
        return WORDS.format(
            starttls=starttls,
            implicit=implicit,
            user=USER,
            password=self.password,
            maildir=self.maildir,
            certificate=certificate,
            quoted=shlex.quote(certificate),
        )


WORDS = """\
submitd demonstration: no configuration was given (--config FILE), so it listens on 127.0.0.1 only.

  STARTTLS      127.0.0.1 port {starttls}
  implicit TLS  127.0.0.1 port {implicit}
  user          {user}
  password      {password}
  certificate   {certificate}
  messages      {maildir}

Send a message with any of these:

swaks --server 127.0.0.1 --port {starttls} --tls --auth PLAIN --auth-user {user} \
--auth-password '{password}' --from me@example.org --to you@example.net

printf 'Subject: hello\\r\\n\\r\\nfrom curl\\r\\n' | curl --ssl-reqd --cacert {quoted} \
--user '{user}:{password}' --mail-from me@example.org --mail-rcpt you@example.net \
--upload-file - smtp://127.0.0.1:{starttls}

openssl s_client -quiet -crlf -CAfile {quoted} -connect 127.0.0.1:{implicit}

python3 - <<'END'
import smtplib, ssl
context = ssl.create_default_context(cafile={certificate!r})
with smtplib.SMTP_SSL('127.0.0.1', {implicit}, context=context) as client:
    client.login('{user}', '{password}')
    client.sendmail('me@example.org', ['you@example.net'], 'Subject: hello\\n\\nfrom Python\\n')
END
"""


def stateDirectory(environment: Mapping[str, str]) -> Path:
    """Where state belongs to by the XDG base directory rules.

    :param environment: ``os.environ``; a relative ``XDG_STATE_HOME`` does not count.
    """
    named = environment.get("XDG_STATE_HOME", "")
    base = Path(named) if os.path.isabs(named) else Path.home() / ".local" / "state"
    return base / "submitd-demo"


def prepare(state: Path, ports: tuple[int, int], now: datetime.datetime) -> Demo:
    """Make what is missing in the state directory, and the settings of the demonstration.

    :param now: the time, with its zone; the certificate is renewed when it is about to expire.
    :raise OSError: when the directory cannot be written.
    """
    state = state.absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, key = selfSigned(state / "tls", now)
    password = _password(state / "secrets")
    settings = Settings(
        hostname="localhost",
        banner="submitd demonstration",
        listener=(
            ListenerSettings(endpoint=_endpoint(ports[0]), tls="starttls"),
            ListenerSettings(endpoint=_endpoint(ports[1]), tls="implicit"),
        ),
        tls=TLSSettings(certificate=certificate, private_key=key),
        auth=AuthSettings(
            mechanisms=("PLAIN", "LOGIN", "CRAM-MD5"), checkers=(f"secrets:{state / 'secrets'}",)
        ),
        delivery=Component("maildir", {"path": str(state / "Maildir")}),
        refusals=RefusalSettings(file=state / "refusals.jsonl"),
    )
    return Demo(state=state, ports=ports, password=password, settings=settings)


def _endpoint(port: int) -> str:
    return f"tcp:{port}:interface=127.0.0.1"


def _password(file: Path) -> str:
    try:
        user, _, password = file.read_text("ascii").strip().partition(":")
    except (OSError, UnicodeDecodeError):
        user = password = ""  # nosec B105
    if user == USER and password:
        file.chmod(0o600)
        return password
    # Hexadecimal: a password that begins with "-" would be an option to swaks.
    password = secrets.token_hex(12)
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
        made.write(f"{USER}:{password}\n")
    return password
