"""Tests of :mod:`submitd.preflight.logins`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from submitd.settings import AuthSettings, ListenerSettings
from tests.preflight.support import DATA, ExamineTestCase


class LoginTests(ExamineTestCase):
    """Mechanisms, and the checkers for them."""

    def test_hashesAlone(self) -> None:
        """A mechanism that some users cannot log in by, and programs try first, is a warning."""
        hashes, secrets = f"htpasswd:{DATA}/passwd", f"secrets:{self.secrets()}"
        mechanisms = ("PLAIN", "CRAM-MD5", "SCRAM-SHA-256")

        def found(*checkers: str, **keys: Any) -> list[str]:
            auth = AuthSettings(
                required=False, checkers=checkers, mechanisms=keys.get("mechanisms", mechanisms)
            )
            return self.said(auth=auth)

        said = "warning: auth.mechanisms[{}]: the users of auth.checkers[{}] cannot log in by {}, "
        both = found(secrets, hashes)
        self.assertEqual(
            [each.partition("and programs")[0] for each in both],
            [said.format(1, 1, "CRAM-MD5"), said.format(2, 1, "SCRAM-SHA-256")],
        )
        self.assertEqual(found(secrets), [])
        self.assertEqual(found(secrets, hashes, mechanisms=("PLAIN", "LOGIN")), [])
        self.assertTrue(all("no checker can verify" in each for each in found(hashes)))

    def secrets(self) -> Path:
        """A file of secrets."""
        file = Path(self.mktemp()).absolute()
        file.write_text("alice:secret\n")
        file.chmod(0o600)
        return file

    def test_externalOnce(self) -> None:
        """A mechanism that nobody is asked a certificate for is warned of once."""
        auth = AuthSettings(
            required=False, checkers=(f"htpasswd:{DATA}/passwd",), mechanisms=("PLAIN", "EXTERNAL")
        )
        [found] = self.said(auth=auth)
        self.assertIn("EXTERNAL is not offered: no client is asked", found)

    def test_passwordFile(self) -> None:
        """A file of a back end that others can read is a warning; what is no file is none."""
        file = Path(self.mktemp())
        file.write_text("alice:wonderland\n")
        for mode, warnings in ((0o640, 0), (0o644, 1)):
            file.chmod(mode)
            checkers = (f"file:{file}", "memory:a:b")
            found = self.said(auth=AuthSettings(checkers=checkers, required=False))
            self.assertEqual(len(found), warnings, found)
            self.assertTrue(all("auth.checkers[0]" in each for each in found))

    def test_loginByProxy(self) -> None:
        """Where proxies vouch for everybody, no other checker is needed."""
        listener = ListenerSettings(
            endpoint="tcp:587",
            tls="off",
            require_tls=False,
            xclient_from=("10.0.0.1",),
            xclient_login=True,
        )
        self.assertEqual(self.said(listener=(listener,), auth=AuthSettings()), [])
