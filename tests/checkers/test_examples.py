"""Tests for ``etc/*.example``: the sample files say what is so."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import attrs
import sqlalchemy as sa
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from twisted.internet.defer import execute

from submitd.checkers.certificates import CertificatesChecker
from submitd.checkers.htpasswd import HtpasswdChecker
from submitd.checkers.issuer import JWTSettings
from submitd.checkers.jwt import JWTChecker
from submitd.checkers.oauth import OAuthChecker, OAuthSettings
from submitd.checkers.secrets import SecretsChecker
from submitd.checkers.sql import SQLChecker, SQLSettings
from submitd.checkers.tokens import TokensChecker
from submitd.sasl.credentials import BearerToken, CertificateLogin, UsernamePassword
from submitd.session import TLSInfo
from submitd.typed import readObject
from tests.checkers.files import HASHES, FileTestCase
from tests.clients.authority import Authority

ETC = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "etc"
)
NOW = 1_800_000_000.0


class ExampleTests(FileTestCase):
    """Each sample is empty as it stands, and works once a user's line is uncommented."""

    def uncomment(self, name: str, user: str) -> list[str]:
        """Write the sample with the lines of that user; what was logged about it."""
        with open(os.path.join(ETC, name), encoding="ascii") as file:
            lines = file.read().splitlines()
        self.assertEqual([line for line in lines if not line.startswith("#")], [])
        self.write(
            *[line.removeprefix("#") if line.startswith(f"#{user}:") else line for line in lines]
        )
        return [line for line in lines if line.startswith(f"#{user}:")]

    def assertLetsIn(self, checker: Any, credentials: Any) -> None:
        """The user of the sample can log in."""
        self.assertEqual(checker.check(), [])
        self.assertLogin(checker.requestAvatarId(credentials), credentials.username)

    def test_passwd(self) -> None:
        """The password of passwd.example is the one it names."""
        self.uncomment("passwd.example", "alice@example.com")
        credentials = UsernamePassword(b"alice@example.com", b"change me")
        self.assertLetsIn(HtpasswdChecker(self.path, execute), credentials)
        self.assertEqual(self.problems(), [])

    def test_secrets(self) -> None:
        """Both ways to write the secret of secrets.example are the secret it names."""
        lines = self.uncomment("secrets.example", "scanner")
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.write(line.removeprefix("#"))
            self.assertLetsIn(SecretsChecker(self.path), UsernamePassword(b"scanner", b"change me"))

    def test_keys(self) -> None:
        """The keys of secrets.example are those of the secret it names."""
        self.uncomment("secrets.example", "bob@example.com")
        credentials = UsernamePassword(b"bob@example.com", b"change me")
        self.assertLetsIn(SecretsChecker(self.path, execute), credentials)
        self.assertEqual(self.problems(), [])

    def test_tokens(self) -> None:
        """The token of tokens.example is the one it names, with an expiry that can be read."""
        self.uncomment("tokens.example", "webapp")
        checker = TokensChecker(self.path, seconds=lambda: NOW)
        self.assertLetsIn(checker, BearerToken(b"webapp", b"change-me"))
        self.assertEqual(self.problems(), [])

    def test_certificates(self) -> None:
        """The certificate of its address is the user's."""
        self.uncomment("certificates.example", "scanner")
        directory = Path(self.mktemp())
        directory.mkdir()
        authority = Authority.make(directory, "authority")
        names = [x509.RFC822Name("scanner@example.org")]
        certificate, _ = authority.sign("scanner", names, ExtendedKeyUsageOID.CLIENT_AUTH)
        shown = crypto.X509.from_cryptography(certificate)
        tls = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", peerCertificate=shown, verified=True)
        self.assertLetsIn(CertificatesChecker(self.path), CertificateLogin(b"scanner", tls))

    def keysOf(self, name: str, kind: type) -> list[str]:
        """The lines of a sample's keys, which are all that there are."""
        with open(os.path.join(ETC, name), encoding="ascii") as file:
            keys = [line[1:] for line in file.read().splitlines() if re.match(r"#\w+ = ", line)]
        fields = [field.name for field in attrs.fields(kind)]
        self.assertEqual([key.partition(" = ")[0] for key in keys], fields)
        return keys

    def test_oauth(self) -> None:
        """The sample of OAuth has all keys with their defaults, and is good with a provider."""
        keys = self.keysOf("oauth.example", OAuthSettings)
        chosen = ("introspection", "client_id", "client_secret_file", "ca_file")
        self.write(*[key for key in keys if not key.startswith(chosen)])
        self.assertEqual(readObject(Path(self.path), OAuthSettings), OAuthSettings())
        self.write(keys[0])
        self.assertEqual(OAuthChecker(self.path).check(), [])

    def test_jwt(self) -> None:
        """So has that of signed tokens, which is good with an audience."""
        keys = self.keysOf("jwt.example", JWTSettings)
        chosen = ("keys_file", "ca_file")
        self.write(*[key for key in keys if not key.startswith(chosen)])
        issuer = "https://id.example.com/realms/example"
        self.assertEqual(readObject(Path(self.path), JWTSettings), JWTSettings(issuer=issuer))
        self.write(keys[0], 'audience = "submission.example.com"')
        self.assertEqual(JWTChecker(self.path).check(), [])

    def test_sql(self) -> None:
        """The sample of SQL has all keys, and a query that is one."""
        with open(os.path.join(ETC, "sql.example"), encoding="ascii") as file:
            lines = file.read().splitlines()
        keys = [line for line in lines if line.startswith(("#url = ", "#query = "))]
        self.assertEqual(len(keys), len(attrs.fields(SQLSettings)))
        base = f"sqlite:///{os.path.abspath(self.mktemp())}"
        table = "CREATE TABLE mailbox AS SELECT :hash password, :name username, 1 active"
        with sa.create_engine(base, poolclass=sa.NullPool).begin() as connection:
            connection.execute(sa.text(table), {"hash": HASHES["bcrypt"], "name": "alice"})
        self.write(f"url = {base!r}", *[line[1:] for line in keys if "query" in line])
        self.assertLetsIn(SQLChecker(self.path, execute), UsernamePassword(b"alice", b"wonder"))
