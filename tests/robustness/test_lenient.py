"""The checks can fail: servers that are lenient, and one that is careless, are found out."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.authority import Authority
from tests.clients.running import HOST, freePorts
from tests.robustness import __main__ as program
from tests.robustness import peer
from tests.robustness.careless import PASSWORD, USER, Careless
from tests.robustness.checks import Target

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from aiosmtpd.controller import Controller
    from aiosmtpd.handlers import Sink


@contextlib.contextmanager
def lenient() -> Iterator[int]:
    """aiosmtpd as it comes, which takes what clients send; its port."""
    with freePorts(1) as [port]:
        controller = Controller(Sink(), hostname=HOST, port=port)
        controller.start()
    try:
        yield port
    finally:
        controller.stop(no_assert=True)


def wrong(target: Target, only: str) -> Counter[str]:
    """How many checks of each family find something wrong; each input goes out whole."""
    return Counter(
        result.family
        for result in program.run(target, only, quick=True)
        if result.verdict == program.BAD
    )


class LenientTests(SynchronousTestCase):
    """aiosmtpd, a server for tests, which is kind to its clients."""

    def setUp(self) -> None:
        """Have the server."""
        self.patch(peer, "PATIENCE", 2.0)
        context = lenient()
        self.port = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.target = Target(port=self.port)

    def test_endOfData(self) -> None:
        """It takes messages with bare CR, bare LF and NUL."""
        self.assertGreaterEqual(wrong(self.target, "end of data: lookalike")["end of data"], 15)

    def test_allMixes(self) -> None:
        """The check of every mix finds the first it takes."""
        self.assertEqual(wrong(self.target, "allMixes")["end of data"], 1)

    def test_commandLines(self) -> None:
        """It takes a bare LF for the end of a command."""
        self.assertGreaterEqual(wrong(self.target, "command lines: broken")["command lines"], 5)

    def test_addresses(self) -> None:
        """It takes controls in addresses."""
        found = wrong(self.target, "addresses and parameters: badSender")
        self.assertGreaterEqual(found["addresses and parameters"], 10)

    def test_characters(self) -> None:
        """It takes broken UTF-8, which nobody asked for."""
        self.assertGreaterEqual(wrong(self.target, "characters")["characters"], 10)

    def test_program(self) -> None:
        """The program names what it found, counts it, and ends with status 1."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = program.main(["--port", str(self.port), "--only", "command lines", "--quick"])
        self.assertEqual(status, 1)
        self.assertRegex(said.getvalue(), r"(?m)^WRONG .* broken: RSET LF NOOP .* 250 ")
        self.assertRegex(said.getvalue(), r"(?m)^ok .* partial")
        self.assertRegex(said.getvalue(), r"\n[0-9]+ ok, [0-9]+ wrong, [0-9]+ not offered\n$")

    def test_programGood(self) -> None:
        """Where nothing is wrong the status is 0."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            status = program.main(["--port", str(self.port), "--only", "partial", "--quick"])
        self.assertEqual((status, "1 ok, 0 wrong" in said.getvalue()), (0, True))

    def test_list(self) -> None:
        """All checks can be named without a server."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(program.main(["--port", "1", "--list"]), 0)
        self.assertGreater(len(said.getvalue().splitlines()), 400)


class CarelessTests(SynchronousTestCase):
    """A server of our own that makes the mistakes that aiosmtpd does not make."""

    def setUp(self) -> None:
        """Have the server."""
        self.patch(peer, "PATIENCE", 2.0)
        directory = Path(tempfile.mkdtemp(dir=self.mktempDirectory()))
        Authority.make(directory, "authority").issue(directory)
        careless = Careless(directory)
        careless.__enter__()
        self.addCleanup(careless.__exit__, None, None, None)
        self.target = Target(
            port=careless.port, implicit=careless.implicit, user=USER, password=PASSWORD
        )

    def mktempDirectory(self) -> str:
        """A fresh directory."""
        path = Path(self.mktemp())
        path.mkdir(parents=True)
        return str(path)

    def assertFound(self, family: str, check: str, least: int = 1) -> None:
        """So many checks of a name find something."""
        self.assertGreaterEqual(wrong(self.target, f"{family}: {check}")[family], least)

    def test_smuggling(self) -> None:
        """The data that end at LF . LF let text give commands."""
        self.assertFound("end of data", "lookalike: LF dot LF", 1)

    def test_chunking(self) -> None:
        """A size that int() or float() can read, and text behind one that cannot be read."""
        self.assertFound("BDAT", "unreadable", 8)
        self.assertFound("BDAT", "beforeRecipient")
        self.assertFound("BDAT", "mixedWithData")
        self.assertFound("BDAT", "brokenText", 3)

    def test_starttls(self) -> None:
        """Commands that were sent in the clear and count under TLS."""
        self.assertFound("STARTTLS", "injected: NOOP")
        self.assertFound("STARTTLS", "injected: EHLO")
        for check in ("forgotten", "argument", "loginFirst"):
            self.assertFound("STARTTLS", check)

    def test_tls(self) -> None:
        """Versions that nobody should speak."""
        self.assertFound("TLS", "oldVersion", 2)

    def test_login(self) -> None:
        """Malformed logins that work, guessing without an end, one challenge for everybody."""
        self.assertFound("AUTH", "malformed:", 6)
        for check in ("twice", "guessing", "sameAnswer", "freshChallenges", "failedAndPipelined"):
            self.assertFound("AUTH", check)

    def test_userNames(self) -> None:
        """A back end that speaks to the client."""
        self.assertFound("user names", "strange:", 15)

    def test_proxies(self) -> None:
        """XCLIENT of everybody."""
        self.assertFound("proxies", "xclientUntrusted", 5)
        self.assertFound("proxies", "untrusted: version 1", 2)

    def test_heavy(self) -> None:
        """Recipients without an end."""
        self.assertFound("heavy input", "manyRecipients")
