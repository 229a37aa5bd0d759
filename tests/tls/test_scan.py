"""sslscan and testssl.sh against both listeners: they find what is promised, and nothing weak."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from tests.clients.running import HOST
from tests.tls.case import LISTENERS, TLSTestCase

_OLD = {("ssl", "2"), ("ssl", "3"), ("tls", "1.0"), ("tls", "1.1")}


class ScanTests(TLSTestCase):
    """The defaults, as a scanner sees them."""

    program = "sslscan"

    def scan(self, listener: str) -> ElementTree.Element:
        """What sslscan finds."""
        starttls = ["--starttls-smtp"] if listener == "starttls" else []
        target = f"{HOST}:{self.service.ports[listener]}"
        report = self.directory / f"{listener}.xml"
        ran = self.runProgram("sslscan", *starttls, f"--xml={report}", target)
        self.assertEqual(ran.returncode, 0, ran.stdout)
        found = ElementTree.parse(report).find("ssltest")
        assert found is not None, ran.stdout
        return found

    def test_versions(self) -> None:
        """SSL, TLS 1.0 and TLS 1.1 are not spoken; TLS 1.2 and TLS 1.3 are."""
        for listener in LISTENERS:
            spoken = {
                (each.attrib["type"], each.attrib["version"]): each.attrib["enabled"] == "1"
                for each in self.scan(listener).iter("protocol")
            }
            expected = {**dict.fromkeys(_OLD, False), ("tls", "1.2"): True, ("tls", "1.3"): True}
            self.assertEqual(spoken, expected)

    def test_ciphers(self) -> None:
        """Every cipher is authenticated encryption with forward secrecy, of 128 bits at least."""
        for listener in LISTENERS:
            ciphers = [each.attrib for each in self.scan(listener).iter("cipher")]
            self.assertGreater(len(ciphers), 4)
            for each in ciphers:
                self.assertRegex(each["cipher"], r"^(TLS|ECDHE)[-_].*(GCM|POLY1305)")
                self.assertGreaterEqual(int(each["bits"]), 128)
                self.assertIn(each["strength"], ("strong", "acceptable"))
                self.assertIn("curve", each)

    def test_groups(self) -> None:
        """No group is weaker than 112 bits (RFC 9325 4.4)."""
        for listener in LISTENERS:
            groups = [each.attrib for each in self.scan(listener).iter("group")]
            self.assertGreater(len(groups), 2)
            for each in groups:
                self.assertGreaterEqual(int(each["bits"]), 112, each)

    def test_flaws(self) -> None:
        """No Heartbleed, no compression, and no renegotiation of any kind."""
        for listener in LISTENERS:
            found = self.scan(listener)
            bleeding = [each.attrib["vulnerable"] for each in found.iter("heartbleed")]
            self.assertEqual(bleeding, ["0", "0"])
            for each in found.iter("renegotiation"):
                self.assertEqual(each.attrib["supported"], "0")
            for each in found.iter("compression"):
                self.assertEqual(each.attrib["supported"], "0")

    def test_certificate(self) -> None:
        """The certificate is signed with nothing weak."""
        for listener in LISTENERS:
            [signature] = {each.text for each in self.scan(listener).iter("signature-algorithm")}
            self.assertIn("SHA256", signature or "")

    def test_log(self) -> None:
        """A scan is two lines at most for each connection."""
        self.scan("implicit")
        closed = self.logged.count("connection closed")
        self.assertGreater(closed, 10)
        self.assertLessEqual(self.logged.count("\n"), 2 * closed)


class FindingTests(TLSTestCase):
    """testssl.sh: protocols, ciphers, forward secrecy, and every flaw that it knows."""

    program = "testssl"

    def test_findings(self) -> None:
        """Nothing is found that is more than information."""
        with ThreadPoolExecutor() as both:
            for ran, report in both.map(self.scan, LISTENERS):
                self.judge(ran, json.loads(report.read_text("utf-8")))

    def scan(self, listener: str) -> tuple[subprocess.CompletedProcess[bytes], Path]:
        """Run testssl.sh, which takes its time."""
        report = self.directory / f"testssl-{listener}.json"
        starttls = ["--starttls", "smtp"] if listener == "starttls" else []
        ran = self.runProgram(
            *("testssl", "--warnings", "batch", "--fast", "--color", "0", "--nodns", "none"),
            *("--protocols", "--std", "--fs", "--vulnerable", "--jsonfile", str(report)),
            *starttls,
            f"{HOST}:{self.service.ports[listener]}",
            seconds=300,
        )
        return ran, report

    def judge(self, ran: subprocess.CompletedProcess[bytes], found: list[dict[str, str]]) -> None:
        """No finding is a fault of ours."""
        self.assertGreater(len(found), 30, ran.stdout)
        # "WARN" says that testssl could not look, as for RC4 with an OpenSSL that has none.
        bad = [
            f"{each['id']}: {each['finding']}"
            for each in found
            if each["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")
            # One of the tests has no known authority, no long life and no place for CRLs.
            and not each["id"].startswith("cert_")
        ]
        self.assertEqual(bad, [])
