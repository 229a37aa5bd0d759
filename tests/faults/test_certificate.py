"""A certificate that is replaced by garbage."""

from __future__ import annotations

import os
import signal
import ssl

from tests.clients.authority import Authority
from tests.clients.running import HOST
from tests.faults.case import FaultCase


class CertificateTests(FaultCase):
    """Reloads."""

    def shown(self) -> str:
        """The certificate that a new client sees."""
        return ssl.get_server_certificate((HOST, self.service.ports["implicit"]))

    def test_garbage(self) -> None:
        """The old one stays in use and the log says why; a good one is taken at the next reload."""
        self.serve()
        before = self.shown()
        file = self.service.directory / "certificate.pem"
        for garbage in (b"\xff not a certificate\n", b""):
            problems = self.logged("certificate.pem")
            file.write_bytes(garbage)
            os.kill(self.service.pid, signal.SIGHUP)
            self.waitFor(lambda told=problems: self.logged("certificate.pem") > told, "it is said")
            self.assertEqual(self.shown(), before)
            self.assertEqual(self.send(), "250")
        Authority.make(self.service.directory, "authority").issue(self.service.directory)
        os.kill(self.service.pid, signal.SIGHUP)
        self.waitFor(lambda: self.shown() != before, "the new one is shown")
        self.assertEqual(self.send(), "250")
