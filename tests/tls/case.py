"""What the tests of TLS on real sockets have in common: certificates, and openssl as the client."""

from __future__ import annotations

import datetime
import re
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.clients.authority import Authority, write
from tests.clients.case import CONFIG, ClientTestCase
from tests.clients.running import HOST

LISTENERS = ("starttls", "implicit")
VERSIONS = ("-tls1_2", "-tls1_3")

DAY = datetime.timedelta(days=1)


class TLSTestCase(ClientTestCase):
    """A service with more to say in ``[tls]``.

    :cvar tls: what is added to the configuration, behind the keys of ``[tls]``.
    :cvar loginRequired: whether mail needs a login.
    """

    program = "openssl"
    tls: ClassVar[str] = ""
    loginRequired: ClassVar[bool] = True

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        required = str(cls.loginRequired).lower()
        cls.config = CONFIG.replace("\n[auth]\n", f"{cls.tls}\n[auth]\nrequired = {required}\n", 1)

    @classmethod
    def prepare(cls, directory: Path) -> None:
        """Make the certificates of the service and of its clients as well."""
        super().prepare(directory)
        cls.ours = Authority.make(directory, "clients")
        cls.others = Authority.make(directory, "others")
        for stem, name in (("example", "mail.example.net"), ("wild", "*.example.com")):
            serverPair(cls.ours, directory, stem, name)
        clientPair(cls.ours, directory, "good")
        clientPair(cls.others, directory, "stranger-client")
        clientPair(cls.ours, directory, "expired", begin=-2 * DAY, end=-DAY)

    ours: ClassVar[Authority]
    others: ClassVar[Authority]

    def talk(
        self, listener: str, *more: str, stdin: bytes = b"QUIT\r\n"
    ) -> subprocess.CompletedProcess[bytes]:
        """Have openssl shake hands, say something, and show what it saw."""
        port = self.service.ports[listener]
        starttls = ["-starttls", "smtp"] if listener == "starttls" else []
        return self.runProgram(
            *("openssl", "s_client", "-connect", f"{HOST}:{port}", "-ign_eof"),
            *starttls,
            *more,
            stdin=stdin,
        )

    def subject(self, listener: str, *more: str) -> str:
        """The common name of the certificate that the service shows."""
        output = self.talk(listener, *more).stdout.decode("utf-8", "replace")
        found = re.search(r"^subject=CN = (.*)$", output, re.MULTILINE)
        assert found is not None, output
        return found[1]

    def serial(self, listener: str, *more: str) -> str:
        """Which certificate the service shows."""
        output = self.talk(listener, *more).stdout
        begin = output.index(b"-----BEGIN CERTIFICATE-----")
        end = output.index(b"-----END CERTIFICATE-----") + 25
        return f"{x509.load_pem_x509_certificate(output[begin:end]).serial_number:x}"

    def waitForLog(self, said: str, count: int = 1) -> None:
        """Wait until the service has said something so often in this test."""
        until = time.monotonic() + 20
        while self.logged.count(said) < count:
            if time.monotonic() > until:
                self.fail(f"{said!r} was not said {count} times:\n{self.logged}")
            time.sleep(0.02)


def serverPair(authority: Authority, directory: Path, stem: str, name: str) -> tuple[Path, Path]:
    """A certificate for a name, in ``STEM.pem`` and ``STEM.key``."""
    pair = authority.sign(name, [x509.DNSName(name)], ExtendedKeyUsageOID.SERVER_AUTH)
    return write(directory / f"{stem}.pem", directory / f"{stem}.key", *pair)


def clientPair(authority: Authority, directory: Path, stem: str, **more: Any) -> None:
    """A client's certificate, in ``STEM.pem`` and ``STEM.key``."""
    names = [x509.RFC822Name(f"{stem}@example.org")]
    pair = authority.sign(stem, names, ExtendedKeyUsageOID.CLIENT_AUTH, **more)
    write(directory / f"{stem}.pem", directory / f"{stem}.key", *pair)
