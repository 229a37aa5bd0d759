"""submitd-why: from the reply of a running service to who refused it, and why."""

from __future__ import annotations

import argparse
import io
import json
import os
import smtplib
import ssl
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from submitd import service
from submitd.config import load
from submitd.tools import why as tool

DATA = Path(__file__).parents[1] / "data"
PASSWORD = "correct horse"
CONFIGURATION = """
hostname = "mail.example.com"

[[listener]]
endpoint = "tcp:0:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "{data}/certificate.pem"
private_key = "{data}/private_key.pem"

[auth]
checkers = ["secrets:secrets"]

[[policy]]
use = "sender-owner"

[[policy]]
use = "recipients"
most = 1

[delivery]
{delivery}
"""


def told(*words: str) -> tuple[int, str, str]:
    """What the tool makes of a command line: exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            tool.main(words)
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def kept(**changes: Any) -> str:
    """A line of a file of refusals."""
    record = {
        "time": "2026-01-01T00:00:00.000Z",
        "event": "refused",
        "session": "S",
        "refusal": "AAAAAAAA",
    }
    return json.dumps({**record, **changes}) + "\n"


class ServiceTests(TestCase):
    """With a real service over a real port."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        secrets = self.directory / "secrets"
        secrets.write_text(f"alice@example.com:{PASSWORD}\n")
        secrets.chmod(0o600)
        self.file = self.directory / "submitd.toml"

    def start(self, delivery: str) -> int:
        """Start a service with that delivery.

        :return: its port.
        """
        self.file.write_text(CONFIGURATION.format(data=DATA, delivery=delivery))
        made: Any = service.makeService(load(self.file).settings, reactor)
        made.privilegedStartService()
        made.startService()
        self.addCleanup(made.stopService)
        port: int = made.addresses[0].port
        return port

    def client(self, port: int) -> smtplib.SMTP_SSL:
        """A client that has logged in."""
        trusting = ssl.create_default_context(cafile=str(DATA / "certificate.pem"))
        client = smtplib.SMTP_SSL("127.0.0.1", port, context=trusting, timeout=30)
        client.login("alice@example.com", PASSWORD)
        return client

    async def test_spool(self) -> None:
        """Out of the box: what the client was told leads to policy, stage, rule and login."""

        def submit(port: int) -> str:
            with self.client(port) as client:
                return client.mail("mallory@example.com")[1].decode()

        said = await deferToThread(submit, self.start('use = "spool"\npath = "spool"'))
        status, out, err = told("--config", str(self.file), said)
        self.assertEqual((status, err), (0, ""))
        lines = dict(line.split(None, 1) for line in out.splitlines())
        self.assertEqual(lines["policy"], "sender-owner")
        self.assertEqual(lines["stage"], "sender")
        self.assertEqual(lines["login"], "alice@example.com")
        self.assertEqual(lines["client"], "127.0.0.1")
        self.assertEqual(lines["command"], "MAIL <mallory@example.com>")
        self.assertTrue(lines["reply"].startswith("553 5.7.1 "), out)
        self.assertRegex(lines["after"], r"^\d+\.\d+ s of the session$")
        file = self.directory / "spool" / "refusals.jsonl"
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.assertNotIn(PASSWORD, file.read_text())

    async def test_login(self) -> None:
        """A login that failed is found too, and neither password nor name typed is kept."""

        def submit(port: int) -> str:
            trusting = ssl.create_default_context(cafile=str(DATA / "certificate.pem"))
            with smtplib.SMTP_SSL("127.0.0.1", port, context=trusting, timeout=30) as client:
                try:
                    client.login("nobody@example.com", "sesame")
                except smtplib.SMTPAuthenticationError as error:
                    return str(error.smtp_error)
            raise AssertionError("logged in")

        said = await deferToThread(
            submit, self.start('use = "discard"\n[refusals]\nfile = "refusals"')
        )
        status, out, _ = told("--config", str(self.file), "--json", said)
        self.assertEqual(status, 0)
        record = json.loads(out)
        self.assertEqual((record["command"], record["origin"]), ("AUTH", ""))
        self.assertTrue(record["cause"])
        text = (self.directory / "refusals").read_text()
        for secret in ("sesame", "nobody@"):
            self.assertNotIn(secret, text)

    async def test_off(self) -> None:
        """With ids = false replies end as they always did, and nothing is kept."""

        def submit(port: int) -> str:
            with self.client(port) as client:
                return client.mail("mallory@example.com")[1].decode()

        port = self.start('use = "spool"\npath = "spool"\n[refusals]\nids = false')
        self.assertNotIn("(id", await deferToThread(submit, port))
        self.assertFalse((self.directory / "spool" / "refusals.jsonl").exists())


class ToolTests(SynchronousTestCase):
    """The command line and the files."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def file(self, text: str, name: str = "refusals") -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def test_id(self) -> None:
        """The id may be typed in small letters, or come with all of the reply."""
        for text in ("7bqk2zxa", " 7BQK2ZXA ", "550 5.7.1 No (id 7BQK2ZXA)", "(ID 7bqk2zxa)"):
            self.assertEqual(tool.idOf(text), "7BQK2ZXA")
        for text in ("", "7BQK2ZX", "7BQK2ZX1", "550 no"):
            self.assertRaises(argparse.ArgumentTypeError, tool.idOf, text)
        self.assertEqual(told("no sense")[0], 2)

    def test_notFound(self) -> None:
        """What is not found is a sentence with all the places, and status 1."""
        there, gone = self.file(kept()), str(self.directory / "gone")
        status, out, err = told("BBBBBBBB", "--log", there, "--log", gone)
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(
            err, f"submitd-why: there is no refusal BBBBBBBB in {there}, {gone} (not there)\n"
        )

    def test_several(self) -> None:
        """What two files have is shown once; what merely shares the id, in the order of time."""
        first = self.file(kept() + kept(time="2026-01-03T00:00:00.000Z", session="U"))
        log = self.file(kept() + kept(time="2026-01-02T00:00:00.000Z", session="T"), "log")
        _, out, _ = told("AAAAAAAA", "--log", first, "--log", log, "--json")
        self.assertEqual([json.loads(line)["session"] for line in out.splitlines()], list("STU"))
        _, out, _ = told("AAAAAAAA", "--log", first, "--log", log)
        self.assertEqual(out.count("refusal "), 3)

    def test_facts(self) -> None:
        """All that is known is said, and what is not known does not stop it."""
        file = self.file(
            kept(origin="my at policy at data", id="S-1", sender="<a@b>", recipients=2, size=None)
            + kept(waited=1.5, waits="x at data 1.500 s", refusal="AAAAAAAB", peer="")
        )
        _, out, _ = told("AAAAAAAA", "--log", file)
        self.assertIn("policy     my at policy\nstage      data\n", out)
        self.assertIn("message    S-1 from <a@b> to 2 recipient(s), size unknown", out)
        _, out, _ = told("AAAAAAAB", "--log", file)
        self.assertIn("policy     none: the service itself\n", out)
        self.assertIn("client     a unix socket", out)
        self.assertIn("waited     1.5 s for this command\npolicies   x at data 1.500 s\n", out)

    def test_configuration(self) -> None:
        """The configuration says where to look: the file, the one before it, and the JSON log."""
        config = self.file('[delivery]\npath = "q"\n[log]\njson = "log"\n', "submitd.toml")
        arguments = tool.parser().parse_args(["AAAAAAAA", "--config", config])
        self.assertEqual(
            tool.files(arguments),
            [self.directory / name for name in ("log", "q/refusals.jsonl.1", "q/refusals.jsonl")],
        )

    def test_wrongConfiguration(self) -> None:
        """A configuration that says nothing of it, or cannot be read, is one sentence."""
        for text, said in (
            ('delivery = 1\nlog = {json = "-"}', "keeps refusals nowhere"),
            ("[refusals]\nsize = 1", "refusals"),
            ("[log]\njson = 1", "log.json: must be a string"),
            ("x", "is not TOML"),
        ):
            config = self.file(text, "submitd.toml")
            status, _, err = told("AAAAAAAA", "--config", config)
            self.assertEqual(status, 1)
            self.assertIn(said, err)
            self.assertTrue(err.startswith(f"submitd-why: {config}: "), err)
        _, _, err = told("AAAAAAAA", "--config", str(self.directory / "none"))
        self.assertIn("No such file or directory; name a file with --log", err)

    def test_unreadable(self) -> None:
        """A file that is there and cannot be read is no "not found"."""
        status, _, err = told("AAAAAAAA", "--log", str(self.directory))
        self.assertEqual((status, err), (1, f"submitd-why: {self.directory}: Is a directory\n"))

    def test_nothingNamed(self) -> None:
        """Without a word it is the configuration of the system, or else the demonstration."""
        arguments = tool.parser().parse_args(["AAAAAAAA"])
        config = Path(self.file('[delivery]\npath = "q"\n', "submitd.toml"))
        with patch.object(tool, "CONFIGURATION", config):
            self.assertEqual(tool.files(arguments)[-1], self.directory / "q" / "refusals.jsonl")
        state = {"XDG_STATE_HOME": str(self.directory)}
        gone = self.directory / "none"
        with patch.object(tool, "CONFIGURATION", gone), patch.dict(os.environ, state):
            self.assertEqual(
                tool.files(arguments)[-1], self.directory / "submitd-demo" / "refusals.jsonl"
            )
