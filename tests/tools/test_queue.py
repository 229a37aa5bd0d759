"""submitd-queue, on a queue of its own and beside a running one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from submitd.counters.history import HistoryFile
from submitd.deliveries.spool import Spool
from submitd.spool.records import Filter, Settlement, State
from submitd.tools import queue as tool
from submitd.typed import Seconds
from tests.spool.damage import spoil
from tests.spool.support import SpoolCase, makeEnvelope, makeSession


class CommandTests(SpoolCase):
    """Each command on an open queue."""

    def run_(self, *words: str, answer: str = "") -> str:
        """What a command prints."""
        arguments = tool.parser().parse_args(["--spool", str(self.path), *words])
        self.out, self.err = io.StringIO(), io.StringIO()
        command = tool.Command(self.queue, arguments, self.out, self.err, "operator test")
        with patch.object(sys, "stdin", io.StringIO(answer)):
            self.successResultOf(Deferred.fromCoroutine(command.run()))
        return self.out.getvalue()

    def refused(self, *words: str, answer: str = "") -> str:
        """Why a command is not done."""
        arguments = tool.parser().parse_args(["--spool", str(self.path), *words])
        self.out, self.err = io.StringIO(), io.StringIO()
        command = tool.Command(self.queue, arguments, self.out, self.err, "operator test")
        with patch.object(sys, "stdin", io.StringIO(answer)):
            failure = self.failureResultOf(Deferred.fromCoroutine(command.run()), tool.Problem)
        return str(failure.value)

    def states(self) -> dict[str, list[str]]:
        """The states of all recipients that are not final, by queue id."""
        page = self.successResultOf(self.queue.messages(Filter(states=tuple(State))))
        return {listed.id: [each.state.value for each in listed.recipients] for listed in page}

    def test_list(self) -> None:
        """A line for each message, oldest first, and one for each recipient."""
        self.send("A-1", "bob@example.net", "carol@example.org")
        self.send("B-1", "dave@example.net", sender="")
        lines = self.run_("list").splitlines()
        self.assertEqual(len(lines), 5)
        self.assertRegex(lines[0], r"^A-1  20\d\d-\S+ \S+ +\d+  <alice@example.com>  alice$")
        self.assertRegex(lines[1], r"^    queued +bob@example.net due 20")
        self.assertIn("<>", lines[3])

    def test_filters(self) -> None:
        """Each filter means what it says, and several at once all must hold."""
        self.send("A-1", "bob@example.net", sender="alice@example.com")
        self.time.now += 7200
        self.send("B-1", "carol@example.org", sender="")
        for words, expected in (
            (["--domain", "example.org"], ["B-1"]),
            (["--domain", "EXAMPLE.ORG"], ["B-1"]),
            (["--recipient", "bob@example.net"], ["A-1"]),
            (["--sender", "alice@example.com"], ["A-1"]),
            (["--sender", ""], ["B-1"]),
            (["--login", "alice"], ["A-1", "B-1"]),
            (["--login", "mallory"], []),
            (["--older-than", "1h"], ["A-1"]),
            (["--younger-than", "1h"], ["B-1"]),
            (["--state", "held"], []),
            (["--state", "queued", "--older-than", "3600"], ["A-1"]),
            (["--limit", "1"], ["A-1"]),
        ):
            found = [
                json.loads(line)["id"]
                for line in self.run_("list", "--json", *words).split("\n")
                if line
            ]
            self.assertEqual(found, expected, words)

    def test_pages(self) -> None:
        """More messages than a page holds are all listed, and all changed with progress."""
        with patch.object(tool, "PAGE", 2):
            ids = [self.send(f"A-{number}") for number in range(5)]
            found = [json.loads(line)["id"] for line in self.run_("list", "--json").splitlines()]
            self.assertEqual(found, ids)
            self.assertIn("5 recipient(s)", self.run_("hold", "--all", "--yes"))
            self.assertEqual(self.err.getvalue().splitlines()[-1], "5 of 5 messages")
            self.assertEqual(set(self.states()["A-4"]), {"held"})
            self.assertEqual(self.run_("list", "--json", "--limit", "3").count("\n"), 3)

    def test_givesWay(self) -> None:
        """Between two pages of a change there is a moment for the service to write."""
        for number in range(5):
            self.send(f"A-{number}")
        arguments = tool.parser().parse_args(["hold", "--all", "--yes"])
        moments: list[Deferred[None]] = []

        def giveWay() -> Deferred[None]:
            moments.append(Deferred())
            return moments[-1]

        out = io.StringIO()
        command = tool.Command(self.queue, arguments, out, out, "operator test", giveWay)
        with patch.object(tool, "PAGE", 2):
            running = Deferred.fromCoroutine(command.run())
            for count in (2, 4):
                held = [states for states in self.states().values() if states == ["held"]]
                self.assertEqual(len(held), count)
                moments[-1].callback(None)
            self.successResultOf(running)
        self.assertEqual(len(moments), 2)

    def test_brake(self) -> None:
        """A login that is braked is let go with its messages, or without any; others are not."""
        usual = self.path.with_name("usual.sqlite")
        file = self.path.with_name("submitd.toml")
        file.write_text(
            f'[delivery]\nuse = "spool"\npath = "{self.path.absolute()}"\n'
            f'[[policy]]\nuse = "require-tls"\n'
            f'[[policy]]\nuse = "brake"\nlisteners = ["inside"]\npath = "{usual.absolute()}"\n'
        )
        history = HistoryFile(usual)
        self.addCleanup(history.close)

        def release(*words: str) -> str:
            arguments = tool.parser().parse_args(["--config", str(file), "release", *words])
            self.out, self.err = io.StringIO(), io.StringIO()
            command = tool.Command(self.queue, arguments, self.out, self.err, "operator test")
            try:
                self.successResultOf(Deferred.fromCoroutine(command.run()))
            except self.failureException as failure:
                return str(failure)
            return self.out.getvalue()

        self.assertIn("no message is meant", release("--login", "alice", "--yes"))
        self.assertFalse(usual.exists())
        history.brake("alice", 2e9, "too much")
        history.brake("bob", 2e9, "too much")
        self.assertEqual(release("--login", "alice", "--yes"), "alice is no longer braked\n")
        self.assertEqual((history.read("alice").braked, history.read("bob").braked), (0.0, 2e9))
        self.assertGreater(history.read("alice").trusted, time.time() + 86000)
        self.send("A-1", session=makeSession("bob"))
        self.run_("hold", "A-1")
        self.assertEqual(
            release("--login", "bob", "--yes").splitlines(),
            ["bob is no longer braked", "release: 1 recipient(s) changed"],
        )
        self.run_("hold", "A-1")
        history.brake("bob", 2e9, "too much")
        self.assertEqual(release("A-1"), "release: 1 recipient(s) changed\n")
        self.assertEqual(history.read("bob").braked, 2e9)
        broken = self.path.with_name("broken.sqlite")
        broken.write_bytes(b"no data base" * 100)
        file.write_text(file.read_text().replace(str(usual.absolute()), str(broken.absolute())))
        self.assertIn("file is not a database", release("--login", "bob", "--yes"))
        file.write_text('[[policy]]\nuse = "brake"\n')
        self.assertIn("policy[0].path: is missing", release("--login", "bob", "--yes"))

    def test_show(self) -> None:
        """Envelope, header and history with each reply, as text and as JSON."""
        self.send("A-1", text=b"Subject: hello\r\n\r\nbody\r\n")
        [work] = self.lease()
        self.settle(work, State.DELAYED, "450 4.2.0 later")
        text = self.run_("show", "A-1")
        for part in ("<alice@example.com>", "bob@example.net", "Subject: hello", "450 4.2.0 later"):
            self.assertIn(part, text)
        self.assertNotIn("body", text)
        shown = json.loads(self.run_("show", "A-1", "--json"))
        self.assertEqual(shown["recipients"][0]["state"], "delayed")
        self.assertEqual(shown["history"][-1]["text"], "450 4.2.0 later")
        self.assertEqual(self.refused("show", "X-1"), "there is no message X-1")

    def test_terminal(self) -> None:
        """What a sender or a next hop has written commands no terminal."""
        self.send("A-1", text="Subject: \x1b[2J\r\nX: \u202eabc\r\n\r\nx\r\n".encode())
        [work] = self.lease()
        self.settle(work, State.DELAYED, "450 \x1b]0;owned\x07")
        self.assertRegex(self.run_("list"), r"\\x1b\]0;owned\\x07")
        text = self.run_("show", "A-1")
        self.assertIn("Subject: \\x1b[2J", text)
        self.assertIn("X: \\u202eabc", text)
        self.assertTrue(text.replace("\n", "").replace("\t", "").isprintable())

    def test_body(self) -> None:
        """The message as it would be sent, our Received in front."""
        self.send("A-1", text=b"Subject: hello\r\n\r\nbody\r\n")
        self.assertTrue(self.run_("body", "A-1").endswith("Subject: hello\r\n\r\nbody\r\n"))

    def test_counts(self) -> None:
        """The numbers by domain and state."""
        self.send("A-1", "bob@example.net", "carol@example.net", "dave@example.org")
        self.assertRegex(self.run_("counts"), r"^ +2  queued +20\S+ \S+  example.net\n +1  queued")
        counts = json.loads(self.run_("counts", "--json"))
        self.assertEqual([each["recipients"] for each in counts], [2, 1])

    def test_changes(self) -> None:
        """Hold, release, retry, expire and delete do what they say, and are on record."""
        self.send("A-1")
        self.run_("hold", "A-1")
        self.assertEqual(self.states(), {"A-1": ["held"]})
        self.assertEqual(self.lease(), [])
        self.run_("release", "A-1")
        [work] = self.lease()
        self.settle(work, State.DELAYED)
        self.assertEqual(self.lease(), [])
        self.run_("retry", "A-1")
        [work] = self.lease()
        self.settle(work, State.DELAYED)
        self.run_("expire", "A-1")
        [work] = self.lease()
        self.assertIsNotNone(work.recipients[0].expires)
        self.successResultOf(self.queue.giveBack(work))
        history = json.loads(self.run_("show", "A-1", "--json"))["history"]
        who = {entry["event"]: entry["who"] for entry in history}
        for action in ("hold", "release", "retry", "expire"):
            self.assertEqual(who[action], "operator test")
        self.run_("delete", "A-1")
        self.assertEqual(self.states(), {})

    def test_logged(self) -> None:
        """Who deleted what is in the system's log, for the message takes its history along."""
        lines: list[str] = []
        self.patch(tool.syslog, "syslog", lambda level, line: lines.append(line))
        self.patch(tool, "react", lambda run: None)
        tool.main(["--spool", str(self.path), "list"])
        self.addCleanup(globalLogPublisher.removeObserver, tool.toSyslog)
        self.send("A-1")
        self.run_("list")
        self.run_("delete", "A-1")
        said = 'queue changed: id=A-1 action=delete who="operator test" recipients=1'
        self.assertEqual(lines, [said])

    def test_logFile(self) -> None:
        """With the configuration at hand it is in the log of the service, too; list writes none."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        config, log = directory / "submitd.toml", directory / "events"
        config.write_text('[log]\njson = "events"\n')

        def where(*words: str) -> Path | None:
            return tool.jsonLogOf(tool.parser().parse_args(words))

        self.assertIsNone(where("--config", str(config), "list"))
        self.assertIsNone(where("--spool", str(self.path), "delete", "A-1"))
        path = where("--config", str(config), "delete", "A-1")
        self.assertEqual(path, log)
        self.send("A-1")
        with tool.recorded(path):
            self.run_("list")
            self.run_("delete", "A-1")
        [line] = log.read_text().splitlines()
        said = json.loads(line)
        self.assertEqual((said["event"], said["id"]), ("queue-changed", "A-1"))
        self.assertEqual((said["who"], said["action"]), ("operator test", "delete"))
        self.assertEqual(log.stat().st_mode & 0o777, 0o600)
        with self.assertRaises(tool.Problem), tool.recorded(directory):
            self.fail("a change without a record")  # pragma: no cover
        with tool.recorded(None):
            self.send("B-1")
            self.run_("delete", "B-1")
        self.assertEqual(len(log.read_text().splitlines()), 1)

    def test_newLogFile(self) -> None:
        """Made by root, it is the service's all the same, or that would not start again."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        given: list[tuple[int, int]] = []
        self.patch(os, "geteuid", lambda: 0)
        self.patch(os, "fchown", lambda file, user, group: given.append((user, group)))
        found = directory.stat()
        for _ in range(2):
            with tool.recorded(directory / "events"):
                pass
            self.assertEqual(given, [(found.st_uid, found.st_gid)])
        (directory / "link").symlink_to(directory / "elsewhere")
        with self.assertRaises(tool.Problem), tool.recorded(directory / "link"):
            self.fail("a file where a link leads to")  # pragma: no cover
        self.assertFalse((directory / "elsewhere").exists())

    def test_newLogFileNotGiven(self) -> None:
        """One that cannot be given to the service is not left behind."""
        log = Path(self.mktemp()).absolute()

        def refused(*arguments: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "geteuid", lambda: 0)
        self.patch(os, "fchown", refused)
        with self.assertRaises(tool.Problem), tool.recorded(log):
            self.fail("nobody may write it")  # pragma: no cover
        self.assertFalse(log.exists())

    def test_asks(self) -> None:
        """What is meant by a filter is asked about; without a yes nothing happens."""
        self.send("A-1")
        self.send("B-1")
        said = self.refused("delete", "--login", "alice", answer="n\n")
        self.assertEqual(said, "nothing was changed")
        self.assertEqual(self.err.getvalue(), "delete 2 recipient(s) of 2 message(s)? [y/N] ")
        self.assertEqual(self.refused("delete", "--all"), "nothing was changed")
        self.assertEqual(len(self.states()), 2)
        self.run_("delete", "--login", "alice", answer="y\n")
        self.assertEqual(self.states(), {})

    def test_nothingMeant(self) -> None:
        """A change of nothing in particular is refused, and so is one that means nobody."""
        self.assertIn("--all", self.refused("delete"))
        self.assertEqual(self.refused("delete", "--all"), "no message is meant")
        self.assertEqual(self.refused("hold", "X-1"), "no message is meant")

    def test_underWay(self) -> None:
        """What is being delivered right now is left alone, and that is said."""
        self.send("A-1")
        self.lease()
        self.assertIn("under way", self.refused("delete", "A-1"))

    def test_damaged(self) -> None:
        """A damaged message is listed as such, and does not stop the rest."""
        self.send("A-1")
        self.send("B-1")
        self.sql("UPDATE message SET envelope = 'nonsense' WHERE id = 'A-1'")
        lines = self.run_("list").splitlines()
        self.assertRegex(lines[0], "^A-1  damaged: ")
        self.assertTrue(any(line.startswith("B-1") for line in lines))
        self.assertIn("damage", self.run_("show", "A-1"))

    def test_unreadable(self) -> None:
        """Nor does one that the data base cannot give; it is named, and no change fails for it."""
        ids = [self.send(f"M-{n:03d}", f"{'x' * 60}@{'y' * 60}.example") for n in range(60)]
        spoil(self.queue, self.path, "recipient", b"M-030")
        said = self.refused("list")
        self.assertIn("cannot be read, for the data base is damaged", said)
        heads = [line.split() for line in self.out.getvalue().splitlines() if line[0] == "M"]
        self.assertEqual([words[0] for words in heads], ids)
        damaged = {words[0] for words in heads if words[1] == "damaged:"}
        self.assertIn("M-030", damaged)
        self.assertTrue(said.startswith(f"{len(damaged)} message(s)"))
        self.refused("list", "--limit", "40", "--json")
        lines = [json.loads(line) for line in self.out.getvalue().splitlines()]
        self.assertEqual({each["id"] for each in lines if each["damage"]}, damaged)
        self.assertEqual(len(lines), 40)
        done = self.run_("expire", "--all", "--yes")
        self.assertIn(f"expire: {len(ids) - len(damaged)} recipient(s) changed", done)
        self.assertEqual(self.err.getvalue().count("left as it is"), len(damaged))


class CommandLineTests(SynchronousTestCase):
    """The command as people run it."""

    def run_(self, *words: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """A process of its own."""
        root = Path(__file__).parents[2]
        return subprocess.run(
            [sys.executable, "-c", "from submitd.tools.queue import main; main()", *words],
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=60,
            **changes,
        )

    def test_help(self) -> None:
        """--help explains every command."""
        said = self.run_("--help").stdout
        for command in ("list", "show", "body", "counts", "retry", "hold", "release", "delete"):
            self.assertIn(f"\n  {command}", said)

    def test_readerGone(self) -> None:
        """Whoever reads the answer may stop at any time, as head does, and hears no complaint."""
        path = Path(self.mktemp()).absolute()
        path.mkdir(mode=0o700)
        spool = Spool(path)
        self.successResultOf(spool.queue.runIn(maybeDeferred, maybeDeferred))
        message = spool.begin(makeSession(), makeEnvelope("A-1"))
        message.dataReceived(b"Subject: x\r\n\r\nx\r\n")
        self.successResultOf(message.eomReceived())
        self.successResultOf(spool.stop())
        reader, writer = os.pipe()
        os.close(reader)
        root = Path(__file__).parents[2]
        code = "from submitd.tools.queue import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "--spool", str(path), "list"],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (1, b""))

    def test_configuration(self) -> None:
        """The queue is found by the configuration; what is wrong is one sentence, status 1."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        file = directory / "submitd.toml"
        for text, said in (
            ('[delivery]\nuse = "spool"\npath = "q"\n', "there is no queue"),
            ('[delivery]\nuse = "discard"\n', 'delivery.use is "discard", which has no queue'),
            ("[delivery]\n", "needs path, a directory for the queue, or url, a data base"),
            ('[delivery]\npath = "q"\nurl = "postgresql:///q"\n', "path and url are both given"),
            ("[", "is not TOML"),
        ):
            file.write_text(text)
            done = self.run_("--config", str(file), "list")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(said, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
        done = self.run_("--config", str(directory / "none.toml"), "list")
        self.assertIn("No such file", done.stderr)

    def test_realQueue(self) -> None:
        """Beside nothing that runs: an empty queue lists nothing, and a change says so."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(mode=0o700)
        done = self.run_("--spool", str(directory), "list")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("there is no queue", done.stderr)
        self.assertEqual(list(directory.iterdir()), [])  # root's would keep the service out
        spool = Spool(directory)
        self.successResultOf(spool.queue.runIn(maybeDeferred, maybeDeferred))
        self.successResultOf(spool.stop())
        done = self.run_("--spool", str(directory), "list")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        done = self.run_("--spool", str(directory), "delete", "--all", "--yes")
        self.assertEqual(
            (done.returncode, done.stderr), (1, "submitd-queue: no message is meant\n")
        )

    def test_keeps(self) -> None:
        """A look at the queue clears nothing away that the service keeps."""
        directory = Path(self.mktemp()).absolute()
        spool = Spool(directory, keep=Seconds(3600.0))
        self.successResultOf(spool.queue.runIn(maybeDeferred, maybeDeferred))
        message = spool.begin(makeSession(), makeEnvelope("A-1"))
        message.dataReceived(b"Subject: x\r\n\r\nx\r\n")
        self.successResultOf(message.eomReceived())
        [work] = self.successResultOf(spool.queue.lease(1, 60.0))
        delivered = Settlement(position=0, state=State.DELIVERED, reply="250 kept")
        self.successResultOf(spool.queue.settle(work, [delivered]))
        self.successResultOf(spool.stop())
        for _ in range(2):
            done = self.run_("--spool", str(directory), "list", "--state", "delivered")
            self.assertIn("A-1", done.stdout)

    def test_usage(self) -> None:
        """Wrong usage is status 2."""
        for words in (
            [],
            ["list", "--older-than", "soon"],
            ["list", "--state", "lost"],
            ["list", "--limit", "-1"],
            ["show"],
        ):
            self.assertEqual(self.run_(*words).returncode, 2)
