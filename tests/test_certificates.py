"""Tests of :mod:`submitd.certificates`: what stands in files, and what stays when they change."""

from __future__ import annotations

import base64
import datetime
import os
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd import certificates
from submitd.certificates import (
    Identity,
    Kept,
    TLSMistake,
    lacksChain,
    outOfTime,
    selfSigned,
)

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class KeptTests(SynchronousTestCase):
    """What has been read of a file, and the file's changes."""

    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.write_text("one")
        self.reads = 0
        self.kept = Kept([self.file], self.read)

    def read(self) -> str:
        """Give the text; a text that begins with "bad" is a mistake."""
        self.reads += 1
        text = self.file.read_text() if self.file.exists() else "bad: gone"
        if text.startswith("bad"):
            raise TLSMistake("certificate", text)
        return text

    def put(self, text: str) -> None:
        """Replace the file as a careful program does; its size is the same."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.file)

    def test_unchanged(self) -> None:
        """A file that has not changed is looked at, and not read."""
        self.assertFalse(self.kept.refresh())
        self.assertEqual(self.reads, 1)

    def test_changed(self) -> None:
        """A file that has is read once."""
        self.put("two")
        self.assertTrue(self.kept.refresh())
        self.assertEqual(self.kept.value, "two")
        self.assertFalse(self.kept.refresh())
        self.assertEqual(self.reads, 2)

    def test_broken(self) -> None:
        """A broken file keeps what was there, and is news once for as long as it is the same."""
        self.put("bad")
        self.assertTrue(self.kept.refresh())
        self.assertFalse(self.kept.refresh())
        self.assertEqual((self.kept.value, str(self.kept.mistake)), ("one", "certificate: bad"))
        self.put("bad in another way")
        self.assertTrue(self.kept.refresh())
        self.put("two")
        self.assertTrue(self.kept.refresh())
        self.assertEqual((self.kept.value, self.kept.mistake), ("two", None))

    def test_gone(self) -> None:
        """A file that is gone is a mistake like another, until it is there again."""
        self.file.unlink()
        self.assertTrue(self.kept.refresh())
        self.assertFalse(self.kept.refresh())
        self.put("one")
        self.assertTrue(self.kept.refresh())
        self.assertIsNone(self.kept.mistake)

    def test_sameTime(self) -> None:
        """After a failure a file is read again whatever its time: perhaps it was too fast."""
        status = self.file.stat()
        self.file.write_text("bad")
        os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        self.assertTrue(self.kept.refresh())
        self.file.write_text("two")
        os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        self.assertTrue(self.kept.refresh())
        self.assertEqual(self.kept.value, "two")

    def test_always(self) -> None:
        """Who asks for it has the file read in any case."""
        self.assertTrue(self.kept.refresh(always=True))
        self.assertEqual(self.reads, 2)

    def test_fromTheBeginning(self) -> None:
        """Nothing can be kept when there never was anything good."""
        self.put("bad")
        self.assertRaises(TLSMistake, Kept, [self.file], self.read)


class IdentityTests(SynchronousTestCase):
    """A certificate and a key."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        now = datetime.datetime.now(datetime.UTC)
        self.certificate, self.key = selfSigned(self.directory, now)

    def test_read(self) -> None:
        """Both are read; when it expires is the first of the chain to expire."""
        identity = Identity.read(self.certificate, self.key)
        [certificate] = identity.certificates
        self.assertEqual(identity.expires, certificate.not_valid_after_utc)

    def test_lacksChain(self) -> None:
        """A public authority's certificate without the intermediate one is found out."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "x")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(NOW)
            .not_valid_after(NOW + datetime.timedelta(days=90))
        )
        private = builder.sign(key, hashes.SHA256())
        where = x509.AccessDescription(
            x509.oid.AuthorityInformationAccessOID.CA_ISSUERS,
            x509.UniformResourceIdentifier("http://ca.example/i.der"),
        )
        access = x509.AuthorityInformationAccess([where])
        public = builder.add_extension(access, critical=False).sign(key, hashes.SHA256())
        self.assertIn("no chain behind it", lacksChain([public]))
        # A kind of name that the library does not know (EDIPartyName), in whatever extension.
        names = x509.UnrecognizedExtension(
            x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3006a504a1020c00")
        )
        strange = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
        for good in ([private], [public, private], [strange], []):
            self.assertEqual(lacksChain(good), "")

    def test_outOfTime(self) -> None:
        """The last tenth of the time is said, thirty days of it at most, and what is over."""
        [certificate] = Identity.read(self.certificate, self.key).certificates
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        at, day = f"{end:%Y-%m-%d %H:%M UTC}", datetime.timedelta(days=1)
        for now, said in (
            (begin - day, f"is not valid before {begin:%Y-%m-%d %H:%M UTC}; is the clock right?"),
            (begin, ""),
            (end - 30 * day, ""),
            (end - 29 * day, f"expires on {at}"),
            (end, f"has expired on {at}"),
        ):
            self.assertEqual(outOfTime([certificate], now), said)
        short = selfSigned(self.directory / "later", end)[0]
        [later] = certificates.readCertificates(short)
        chain = f"has in its chain one that has expired on {at}"
        self.assertEqual(outOfTime([later, certificate], end + 2 * day), chain)
        self.assertEqual(outOfTime([], end), "")

    def test_shortLived(self) -> None:
        """One that is made for days is not spoken of while most of them are left."""
        key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), NOW
        hour = datetime.timedelta(hours=1)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + 100 * hour)
        ).sign(key, hashes.SHA256())
        self.assertEqual(outOfTime([certificate], now + 89 * hour), "")
        self.assertIn("expires", outOfTime([certificate], now + 91 * hour))

    def test_secret(self) -> None:
        """The key is not shown where an identity is."""
        self.assertNotIn("key=", repr(Identity.read(self.certificate, self.key)))

    def test_section(self) -> None:
        """Mistakes are named with the section of the configuration that they are in."""
        for one, two, key in (
            ("none", self.key, "certificate"),
            (self.certificate, "none", "private_key"),
            (self.certificate, self.otherKey(), "private_key"),
        ):
            with self.assertRaises(TLSMistake) as caught:
                Identity.read(Path(one), Path(two), 'sni."a.example".')
            self.assertEqual(caught.exception.key, f'sni."a.example".{key}')

    def otherKey(self) -> Path:
        """The key of another certificate."""
        _, key = selfSigned(Path(self.mktemp()), datetime.datetime.now(datetime.UTC))
        return key

    def test_unknownKind(self) -> None:
        """A certificate whose own key is of no known kind is a mistake, not a traceback."""
        data = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(
            certificates.serialization.Encoding.DER
        )
        # The object identifier of the curve P-256; its last octet then names none.
        curve = bytes.fromhex("06082a8648ce3d030107")
        self.assertEqual(data.count(curve), 1)
        self.certificate.write_text(_pem(data.replace(curve, curve[:-1] + b"\x7f")))
        with self.assertRaises(TLSMistake) as caught:
            Identity.read(self.certificate, self.key)
        self.assertIn("cannot be read", str(caught.exception))

    def test_authorityRefused(self) -> None:
        """An authority that OpenSSL does not take is a mistake, not a traceback."""
        data = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(
            certificates.serialization.Encoding.DER
        )
        # A name that says it is UTF-8 and is not.
        self.certificate.write_text(_pem(data.replace(b"localhost", b"localhos\xff")))
        with self.assertRaises(TLSMistake) as caught:
            certificates.readAuthorities(self.certificate)
        self.assertRegex(str(caught.exception), "^client_ca: OpenSSL refuses it: ")

    def test_trustRefused(self) -> None:
        """Whom we are to trust is held to the same, for connections of ours."""
        data = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(
            certificates.serialization.Encoding.DER
        )
        # A version that there is not, and a name that says it is UTF-8 and is not.
        for before, after, said in (
            (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", "holds no certificate"),
            (b"localhost", b"localhos\xff", "OpenSSL refuses it"),
        ):
            self.certificate.write_text(_pem(data.replace(before, after)))
            with self.assertRaises(ValueError) as caught:
                certificates.trustOf(self.certificate)
            self.assertIn(str(self.certificate), str(caught.exception))
            self.assertIn(said, str(caught.exception))

    @settings(deadline=None, max_examples=150)
    @given(st.integers(0, 10_000), st.integers(1, 255), st.booleans())
    def test_damaged(self, at: int, change: int, inKey: bool) -> None:
        """A file with any octet changed is still good, or a mistake; nothing else is raised."""
        path = self.key if inKey else self.certificate
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[at % len(whole)] ^= change
        path.write_bytes(damaged)
        try:
            Identity.read(self.certificate, self.key)
            certificates.readAuthorities(self.certificate)
            certificates.trustOf(self.certificate)
        except TLSMistake:
            pass
        finally:
            path.write_bytes(whole)


def _pem(der: bytes) -> str:
    text = base64.encodebytes(der).decode("ascii")
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


class SelfSignedTests(SynchronousTestCase):
    """The demonstration's certificate."""

    def test_made(self) -> None:
        """It is P-256, for this machine's own names, and its key is for the owner alone."""
        certificate, key = selfSigned(Path(self.mktemp()) / "deep", NOW)
        [found] = certificates.readCertificates(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        public = found.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        self.assertEqual(public.curve.name, "secp256r1")
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost"])
        addresses = names.get_values_for_type(x509.IPAddress)
        self.assertEqual([str(address) for address in addresses], ["127.0.0.1", "::1"])
        self.assertEqual(stat.S_IMODE(os.stat(key).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(key.parent).st_mode), 0o700)

    def test_kept(self) -> None:
        """The same certificate serves the next start, so that a client may pin it."""
        directory = Path(self.mktemp())
        certificate, _ = selfSigned(directory, NOW)
        before = certificate.read_bytes()
        selfSigned(directory, NOW + datetime.timedelta(days=300))
        self.assertEqual(certificate.read_bytes(), before)

    def test_renewed(self) -> None:
        """A certificate about to expire is replaced, key and all."""
        directory = Path(self.mktemp())
        certificate, key = selfSigned(directory, NOW)
        before = certificate.read_bytes(), key.read_bytes()
        later = NOW + datetime.timedelta(days=340)
        selfSigned(directory, later)
        self.assertNotEqual(certificate.read_bytes(), before[0])
        self.assertNotEqual(key.read_bytes(), before[1])
        self.assertGreater(certificates.readCertificates(certificate)[0].not_valid_after_utc, later)

    def test_broken(self) -> None:
        """A damaged file is replaced as well: the demonstration always starts."""
        directory = Path(self.mktemp())
        certificate, key = selfSigned(directory, NOW)
        key.write_bytes(b"")
        key.with_suffix(".new").write_bytes(b"left by a crash")
        selfSigned(directory, NOW)
        self.assertEqual(len(Identity.read(certificate, key).certificates), 1)
