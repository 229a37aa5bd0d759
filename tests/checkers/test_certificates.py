"""Tests for :mod:`submitd.checkers.certificates`."""

from __future__ import annotations

import base64
import datetime
import smtplib
import ssl
from pathlib import Path
from unittest import mock

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from twisted.cred.checkers import ICredentialsChecker
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.checkers.certificates import CertificatesChecker, Mark, parseMark
from submitd.checkers.userfile import BadLine
from submitd.interfaces import IChecked, IRevised, IWarns
from submitd.sasl.credentials import CertificateLogin
from submitd.session import TLSInfo
from tests.checkers.files import FileTestCase
from tests.clients.authority import Authority, write
from tests.clients.running import RunningService

DAY = datetime.timedelta(days=1)
NAMES = (x509.RFC822Name("Ada@Example.org"), x509.DNSName("printer.example.org"))

CONFIG = """\
hostname = "localhost"
[[listener]]
endpoint = "tcp:$starttls:interface=127.0.0.1"
[[listener]]
endpoint = "tcp:$implicit:interface=127.0.0.1"
tls = "implicit"
[tls]
certificate = "certificate.pem"
private_key = "private_key.pem"
client_certificate = "request"
client_ca = "authority.pem"
[auth]
mechanisms = ["EXTERNAL"]
checkers = ["certificates:certificates"]
[[policy]]
use = "login-throttle"
[delivery]
use = "maildir"
path = "Maildir"
"""


class CertificatesTestCase(FileTestCase):
    """Clients with certificates of one authority."""

    def setUp(self) -> None:
        """An authority; no file yet."""
        super().setUp()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.authority = Authority.make(self.directory, "authority")

    def shown(self, common: str = "printer", end: datetime.timedelta = DAY) -> TLSInfo:
        """What TLS says of a client with a certificate."""
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        certificate, _ = self.authority.sign(common, NAMES, usage, begin=-2 * DAY, end=end)
        shown = crypto.X509.from_cryptography(certificate)
        return TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", peerCertificate=shown, verified=True)


class CertificatesCheckerTests(CertificatesTestCase):
    """:class:`submitd.checkers.certificates.CertificatesChecker`."""

    def test_interfaces(self) -> None:
        """It provides what the Portal and the start ask for."""
        for interface in (ICredentialsChecker, IChecked, IRevised, IWarns):
            verifyObject(interface, CertificatesChecker(self.path))

    def test_marks(self) -> None:
        """Each mark of the certificate makes it the user's, who need not be named."""
        tls = self.shown()
        plain = tls.peerFingerprint
        colons = ":".join(plain[at : at + 2] for at in range(0, 64, 2)).upper()
        for mark in (
            f"sha256:{plain}",
            f"sha256:{colons}",
            "email:Ada@example.ORG",
            "dns:PRINTER.example.org",
            "subject:CN=printer",
        ):
            self.write(f"Printer:{mark}", "other:email:bob@example.org", "other:subject:CN=print")
            checker = CertificatesChecker(self.path)
            for name in (b"", b"printer", b"PRINTER"):
                login = checker.requestAvatarId(CertificateLogin(name, tls))
                self.assertLogin(login, b"Printer")
            for name in (b"other", b"nobody"):
                self.assertRefused(checker.requestAvatarId(CertificateLogin(name, tls)))
        self.assertEqual(self.problems(), [])

    def test_several(self) -> None:
        """Of several users with one certificate, the client must say which."""
        self.write("a:subject:CN=printer", "b:dns:printer.example.org", "a:email:Ada@example.org")
        checker = CertificatesChecker(self.path)
        tls = self.shown()
        self.assertRefused(checker.requestAvatarId(CertificateLogin(b"", tls)))
        for name in (b"a", b"b"):
            self.assertLogin(checker.requestAvatarId(CertificateLogin(name, tls)), name)

    def test_changed(self) -> None:
        """A line that is gone counts from the next login on."""
        self.write("a:subject:CN=printer", "b:subject:CN=scanner")
        checker = CertificatesChecker(self.path)
        login = CertificateLogin(b"", self.shown())
        self.assertLogin(checker.requestAvatarId(login), b"a")
        self.write("b:subject:CN=scanner")
        self.assertRefused(checker.requestAvatarId(login))

    def test_changedMeanwhile(self) -> None:
        """What was read before a change is not taken for what the file says behind it."""
        self.write("a:subject:CN=printer")
        checker, revision = CertificatesChecker(self.path), CertificatesChecker.revision

        def changed(checker: CertificatesChecker) -> int:
            self.write("b:subject:CN=scanner")
            return revision(checker)

        login = CertificateLogin(b"", self.shown())
        self.assertLogin(checker.requestAvatarId(login), b"a")
        with mock.patch.object(CertificatesChecker, "revision", changed):
            checker.requestAvatarId(login).addErrback(lambda failure: None)  # either may be right
        self.assertRefused(checker.requestAvatarId(login))

    def test_expired(self) -> None:
        """A session that was resumed does not outlive the certificate."""
        self.write("a:subject:CN=printer")
        checker = CertificatesChecker(self.path)
        self.assertRefused(checker.requestAvatarId(CertificateLogin(b"", self.shown(end=-DAY))))

    def test_noFile(self) -> None:
        """Without a file nobody is told that a certificate is wrong."""
        checker = CertificatesChecker(self.path)
        self.assertUnavailable(checker.requestAvatarId(CertificateLogin(b"", self.shown())))


class ParseMarkTests(SynchronousTestCase):
    """:func:`submitd.checkers.certificates.parseMark`."""

    def test_good(self) -> None:
        """Two spellings of one mark are the same."""
        for text, mark in (
            ("email:A@B.example", Mark("email", "A@b.example")),
            ("dns:A.example ", Mark("dns", "a.example")),
            ("subject:CN=x,O=Y: Z", Mark("subject", "CN=x,O=Y: Z")),
            (f"sha256:{'AB' * 32}", Mark("sha256", "ab" * 32)),
        ):
            self.assertEqual(parseMark(text.encode()), mark)

    def test_bad(self) -> None:
        """What is no mark is said, without being repeated."""
        for text, why in (
            (b"CN=printer", "must begin with"),
            (b"sha1:AB", "must begin with"),
            (b"sha256:ab:cd", "not 64 hexadecimal digits"),
            (b"sha256:" + b"zz" * 32, "not 64 hexadecimal digits"),
            (b"email:", "nothing behind email:"),
            (b"dns:\xff", "not UTF-8"),
        ):
            self.assertIn(why, str(self.assertRaises(BadLine, parseMark, text)))


class ServiceTests(CertificatesTestCase):
    """A running service, and clients over real TLS."""

    def setUp(self) -> None:
        """Start it, with one user."""
        super().setUp()
        self.authority.issue(self.directory)
        file = self.directory / "certificates"
        file.write_text("printer@example.org:subject:CN=printer\n")
        file.chmod(0o600)
        self.service = RunningService(self.directory, CONFIG).start()
        self.addCleanup(self.service.stop)

    def client(self, implicit: bool, common: str) -> smtplib.SMTP:
        """A client that has shown a certificate, or none."""
        context = ssl.create_default_context(cafile=str(self.authority.file))
        if common:
            signed = self.authority.sign(common, NAMES, ExtendedKeyUsageOID.CLIENT_AUTH)
            files = self.directory / f"{common}.pem", self.directory / f"{common}.key"
            context.load_cert_chain(*write(*files, *signed))
        if implicit:
            port = self.service.ports["implicit"]
            client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, timeout=30, context=context)
        else:
            client = smtplib.SMTP("localhost", self.service.ports["starttls"], timeout=30)
            client.starttls(context=context)
        self.addCleanup(client.close)
        client.ehlo()
        return client

    def test_login(self) -> None:
        """The certificate's user can send, over both kinds of TLS, named or not."""
        for implicit in (False, True):
            for name in ("=", base64.b64encode(b"printer@example.org").decode(), ""):
                client = self.client(implicit, "printer")
                self.assertEqual(client.esmtp_features["auth"].split(), ["EXTERNAL"])
                code, said = client.docmd("AUTH", f"EXTERNAL {name}".rstrip())
                if not name:
                    self.assertEqual((code, said), (334, b""))
                    code, said = client.docmd("")
                self.assertEqual(code, 235, said)
                client.sendmail("printer@example.org", ["b@example.net"], "Subject: x\n\nx\n")
        log = self.service.log
        self.assertIn("user=printer@example.org mechanism=EXTERNAL", log)
        self.assertEqual(len(list((self.directory / "Maildir" / "new").iterdir())), 6)

    def test_refused(self) -> None:
        """Nobody's certificate is 535, as often as it is tried; without one it is not offered."""
        client = self.client(True, "stranger")
        for _ in range(2):
            code, _said = client.docmd("AUTH", "EXTERNAL =")
            self.assertEqual(code, 535)
        self.assertIn("not the certificate of such a user: CN=stranger", self.service.log)
        client = self.client(True, "")
        self.assertNotIn("auth", client.esmtp_features)
        code, _said = client.docmd("AUTH", "EXTERNAL =")
        self.assertEqual(code, 504)
