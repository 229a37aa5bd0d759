"""The parts of the workers, without processes: waits, channel, reactor to come, and the parent."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import sys
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import Mock, patch

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from submitd import events
from submitd.counters import shared
from submitd.errors import CannotStart
from submitd.refusals import RefusalIds
from submitd.session import newId, numberIds
from submitd.settings import (
    AuthSettings,
    Component,
    ListenerSettings,
    MetricsSettings,
    Settings,
)
from submitd.typed import Workers, WrongValue, parseWorkers
from submitd.workers import channel, later, listeners, logs, parent, template, worker
from submitd.workers.backoff import LONG_LIFE, LONGEST, Backoff
from submitd.workers.channel import MAX_MESSAGE, Channel
from submitd.workers.common import Common
from submitd.workers.logs import LinesToParent, portable, relog, relogLines
from submitd.workers.parent import Source, WorkersService


class Reactor(Clock):
    """A clock that starts nothing, and knows who wants to read and to write."""

    running = True

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.spawned: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def callFromThread(self, call: Any) -> None:
        call()

    def spawnProcess(self, *arguments: Any, childFDs: dict[int, int], **others: Any) -> None:
        """Keep the other end of the channel."""
        self.spawned.append(socket.socket(fileno=os.dup(childFDs[3])))

    def read(self) -> None:
        """Have all readers read what is there."""
        for reader in list(self.readers):
            why = reader.doRead()
            if why is not None:
                self.removeReader(reader)
                reader.connectionLost(Failure(why))


class BackoffTests(SynchronousTestCase):
    """Waits."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.backoff = Backoff(self.clock.seconds)

    def life(self, seconds: float) -> float:
        """One life; the wait behind it."""
        self.backoff.started()
        self.clock.advance(seconds)
        return self.backoff.ended()

    def test_double(self) -> None:
        """Short lives: twice as long each time, and never longer than a minute."""
        waits = [self.life(1) for _ in range(40)]
        self.assertEqual(waits[:7], [1, 2, 4, 8, 16, 32, LONGEST])
        self.assertEqual(set(waits[7:]), {LONGEST})

    def test_reset(self) -> None:
        """A long life is no failure, and those before it are forgotten."""
        for _ in range(5):
            self.life(1)
        self.assertEqual(self.life(LONG_LIFE), 0)
        self.assertEqual(self.life(1), 1)


class NumberTests(SynchronousTestCase):
    """Ids, and the setting."""

    def test_ids(self) -> None:
        """Two workers cannot have the same id of a session, whatever the time and the chance."""
        self.addCleanup(setattr, sys.modules["submitd.session"], "_worker", None)
        self.patch(sys.modules["submitd.session"].time, "time_ns", lambda: 1)
        found = []
        for number in (0, 1, 255):
            numberIds(number)
            found.append({newId() for _ in range(100)})
        for at, one in enumerate(found):
            for other in found[at + 1 :]:
                self.assertEqual(one & other, set())

    def test_refusals(self) -> None:
        """Nor can they have the same id of a refusal."""
        one, two = (RefusalIds(lambda size: b"x" * size, worker) for worker in (1, 2))
        ones, twos = ({ids() for _ in range(1000)} for ids in (one, two))
        self.assertEqual((len(ones), len(twos), ones & twos), (1000, 1000, set()))

    def test_setting(self) -> None:
        """A number in bounds, or the cores there are."""
        self.assertEqual(parseWorkers(3), Workers(3))
        self.assertEqual(parseWorkers("auto"), min(len(os.sched_getaffinity(0)), 60))
        for wrong in (0, -1, 61, True, 1.5, "2", "AUTO"):
            self.assertRaises(WrongValue, parseWorkers, wrong)


class ChannelTests(SynchronousTestCase):
    """Messages between processes."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        ours, self.theirs = channel.pair()
        self.addCleanup(self.theirs.close)
        self.received: list[Any] = []
        self.lost = 0
        self.channel = Channel(ours, self.reactor, self.received.append, self.gone)
        self.addCleanup(self.channel.close)

    def gone(self) -> None:
        """Count."""
        self.lost += 1

    def test_messages(self) -> None:
        """Messages keep their bounds, in both directions, and bring open files with them."""
        channel.send(self.theirs, {"a": 1})
        channel.send(self.theirs, {"b": "ä"})
        self.reactor.read()
        self.reactor.read()
        self.assertEqual(self.received, [{"a": 1}, {"b": "ä"}])
        with open(__file__) as file:
            self.channel.send({"c": []}, [file.fileno()])
        message, [got] = channel.receive(self.theirs)
        self.assertEqual(message, {"c": []})
        with open(got) as again:
            self.assertTrue(again.readline().startswith('"""'))
        self.assertIsNone(self.channel.doRead())
        self.assertEqual(self.channel.logPrefix(), "workers")

    def test_full(self) -> None:
        """What the other side has no room for waits until it has, in order."""
        for number in range(1000):
            self.channel.send({"n": number, "text": "x" * 5000})
        self.assertEqual(self.reactor.writers, {self.channel})
        for number in range(1000):
            message, _ = channel.receive(self.theirs)
            assert message is not None
            self.assertEqual(message["n"], number)
            self.channel.doWrite()
        self.assertEqual(self.reactor.writers, set())

    def test_end(self) -> None:
        """The end of the other side is told once, behind its last message."""
        channel.send(self.theirs, {"last": 1})
        self.theirs.close()
        self.channel.send({"late": 1})
        self.reactor.read()
        self.reactor.read()
        self.assertEqual((self.received, self.lost), ([{"last": 1}], 1))
        self.channel.close()
        self.channel.send({"later": 1})
        self.assertEqual(self.lost, 1)

    def test_close(self) -> None:
        """The other side is told of ours."""
        self.channel.close()
        self.assertEqual(channel.receive(self.theirs), (None, []))
        self.assertEqual(self.lost, 1)


class WorkerTests(SynchronousTestCase):
    """A worker, without a process."""

    def test_lastWords(self) -> None:
        """What it has to tell at its end reaches a parent that has not read for a while."""
        ours, theirs = channel.pair()
        settings = Settings(
            hostname="mail.example.com",
            listener=(),
            auth=AuthSettings(required=False),
            delivery=Component("discard"),
            metrics=MetricsSettings(endpoint="tcp:9587"),
        )
        beginning = worker.Beginning(settings, None, {}, [ours.detach()])
        made: Any = worker.Worker(beginning, Reactor())
        made._isEnding, made._service = True, Mock(stopService=lambda: succeed(None))
        for number in range(1000):
            made.channel.send({"log": number, "text": "x" * 5000})
        made._counts.counted["refused"] = 7
        received: list[Any] = []

        def read() -> None:
            while (message := channel.receive(theirs)[0]) is not None:
                received.append(message)

        parentsSide = Thread(target=read)
        parentsSide.start()
        made._stop()
        made.channel.close()
        parentsSide.join()
        theirs.close()
        self.assertEqual(len(received), 1001)
        self.assertEqual(received[-1], {"counted": {"refused": 7}})


class LaterTests(SynchronousTestCase):
    """A reactor to come."""

    def test_later(self) -> None:
        """What has been imported before becomes the reactor, and has nothing until then."""
        real = sys.modules.pop(later.NAME, None)
        package: Any = sys.modules["twisted.internet"]
        try:
            later.install()
            imported = sys.modules[later.NAME]
            self.assertRaises(AttributeError, getattr, imported, "callLater")
            removed = later.remove()
            self.assertIs(removed, imported)
            clock = Clock()
            removed.become(clock)
            self.assertEqual(removed.seconds(), 0)
        finally:
            if real is not None:
                sys.modules[later.NAME] = package.reactor = real


class LogTests(SynchronousTestCase):
    """Events on their way from a worker to the parent's log."""

    def test_portable(self) -> None:
        """An event is the same behind the channel, its traceback included."""
        seen: list[dict[str, Any]] = []
        observer: Any = seen.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        events.emit(events.SERVICE_PROBLEM, problem="x y", failure=Failure(ValueError("why")))
        relog(json.loads(json.dumps(portable(seen[0]))))
        events.log.info("of {who}", who="another")
        relog(json.loads(json.dumps(portable(seen[2]))))
        self.flushLoggedErrors(ValueError)
        one, same, foreign, again = seen
        self.assertEqual(same["log_text"].partition("\n")[0], one["log_text"])
        self.assertIn("ValueError: why", same["log_text"])
        self.assertEqual((same["event"], same["problem"]), ("service-problem", "x y"))
        self.assertEqual(same["log_level"], LogLevel.warn)
        self.assertEqual(again["log_text"], "of another")
        self.assertTrue(again["log_worker"])
        self.assertNotIn("log_worker", foreign)

    def test_cut(self) -> None:
        """What is too long for the channel is cut, and the parent still knows what it was."""
        event: dict[str, Any] = {
            "event": "x",
            "log_fields": ["sender"],
            "log_text": "x" * 9000,
            "sender": "y" * 9000,
        }
        said = portable(event)
        self.assertEqual(len(said["text"]), logs.MAX_TEXT)
        self.assertTrue(said["text"].endswith("x..."))
        self.assertEqual((said["event"], said["fields"]), ("x", {}))

    def test_lines(self) -> None:
        """Lines that a worker has formatted are written as they are, and do not wait again."""
        reactor: Any = Reactor()
        reactor.addSystemEventTrigger = lambda *_: None
        file = io.StringIO()
        log = events.textObserver(file, reactor)
        self.patch(logs, "globalLogPublisher", log)
        relogLines("one: {x}\ntwo\n", 1.0)
        self.assertEqual(file.getvalue(), "one: {x}\ntwo\n")

    def test_bounds(self) -> None:
        """A message has whole lines, as many as it has room for, and a long line has several."""
        sent: list[Any] = []
        channel: Any = type("Sink", (), {"send": sent.append})
        lines = [f"{number} {'x' * 3000}\n" for number in range(7)] + [
            "\N{GRINNING FACE}" * 20000 + "\n"
        ]
        LinesToParent(channel).write("".join(lines))
        pieces = [message["lines"] for message in sent]
        self.assertEqual("".join(pieces), "".join(lines))
        self.assertEqual([piece.count("\n") for piece in pieces], [2, 2, 2, 1, 0, 0, 1])
        longest = max(len(json.dumps(message)) for message in sent)
        self.assertLess(longest, MAX_MESSAGE)

    def test_long(self) -> None:
        """Nor is an event that somebody else has logged longer than a message may be."""
        sent: list[Any] = []
        one: Any = object.__new__(worker.Worker)
        one.channel = type("Sink", (), {"send": sent.append})
        one({"log_format": "{x}", "x": "\N{GRINNING FACE}" * 100000})
        one(
            {
                "log_text": "short",
                "log_fields": ["x"],
                "event": "own",
                "x": ["y" * 100] * 5000,
            }
        )
        self.assertLess(max(len(json.dumps(each)) for each in sent), MAX_MESSAGE)
        self.assertEqual(sent[1]["log"]["fields"], {})


class TemplateTests(SynchronousTestCase):
    """Rights that the parent has given up, and the template gives up with it."""

    def become(self, own: tuple[int, int], identity: list[int]) -> list[Any]:
        """What is done by a template that is ``own``, when its parent is ``identity``."""
        done: list[Any] = []
        self.patch(os, "geteuid", lambda: own[0])
        self.patch(os, "getegid", lambda: own[1])
        for name in ("setgroups", "setgid", "setuid"):
            self.patch(os, name, lambda value, name=name: done.append((name, value)))
        template._become(identity)
        return done

    def test_rights(self) -> None:
        """Group and user, the group alone, and nothing where there is nothing to give up."""
        every = [("setgroups", [7, 8]), ("setgid", 7), ("setuid", 5)]
        self.assertEqual(self.become((0, 0), [5, 7, 7, 8]), every)
        group = [("setgroups", []), ("setgid", 7), ("setuid", 0)]
        self.assertEqual(self.become((0, 0), [0, 7]), group)
        self.assertEqual(self.become((0, 7), [0, 7, 7]), [])
        self.assertEqual(self.become((5, 7), [5, 7]), [])


class ParentTests(SynchronousTestCase):
    """The parent, with templates and workers that are sockets of the test."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.patch(events, "emit", lambda event, **fields: self.said.append((event.name, fields)))
        self.path = Path(self.mktemp()).absolute()
        settings = Settings(
            hostname="mail.example.com",
            workers=Workers(2),
            listener=(ListenerSettings(endpoint=f"unix:{os.path.relpath(self.path)}", tls="off"),),
            auth=AuthSettings(required=False),
            delivery=Component("discard"),
        )
        self.endpoint = settings.listener[0].endpoint
        self.service = WorkersService(settings, Source(Path("submitd.toml")), self.reactor)
        self.kills: list[int] = []
        self.patch(parent, "_signal", self.kills.append)
        self.pid = 1000
        self.workers: dict[str, list[tuple[int, socket.socket]]] = {}
        self.stopping: Any = None
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Have all end."""
        stopping = self.stopping or self.service.stopService()
        for sock in self.reactor.spawned:
            sock.close()
        for workers in self.workers.values():
            for _, sock in workers:
                sock.close()
        for _ in range(3):
            self.reactor.advance(0)
            self.reactor.read()
        self.successResultOf(stopping)

    def names(self) -> list[str]:
        """The events that were logged since the last time."""
        said, self.said = self.said, []
        return [name for name, _ in said]

    def about(self, workers: int = 2, **changes: Any) -> dict[str, Any]:
        """What a template says of a good configuration."""
        said = {
            "endpoints": [self.endpoint],
            "tls": ["off"],
            "relay": False,
            "drain": 30,
            "log": "",
        }
        return {**said, "workers": workers, **changes}

    def tell(self, message: dict[str, Any], template: int = -1) -> None:
        """A template says something."""
        channel.send(self.reactor.spawned[template], message)
        self.reactor.read()

    def fork(self, template: int = -1, serve: bool = True) -> str:
        """Do as the template is told; the name of the worker."""
        sock = self.reactor.spawned[template]
        order, files = channel.receive(sock)
        assert order is not None
        self.pid += 1
        name: str = order["name"]
        self.workers.setdefault(name, []).append((self.pid, socket.socket(fileno=files[0])))
        for file in files[1:]:
            os.close(file)
        self.tell({"forked": order["number"], "pid": self.pid}, template)
        if serve:
            self.say(name, {"serving": self.pid})
        return name

    def say(self, name: str, message: dict[str, Any], which: int = -1) -> None:
        """A worker says something."""
        channel.send(self.workers[name][which][1], message)
        self.reactor.read()

    def told(self, name: str, which: int = 0) -> list[str]:
        """What a worker has been told."""
        sock = self.workers[name][which][1]
        sock.setblocking(False)
        found = []
        try:
            while True:
                message, _ = channel.receive(sock)
                if message is None:
                    return found
                found += list(message)
        except BlockingIOError:
            return found

    def end(self, name: str, which: int = 0, template: int = -1, cause: str = "signal 9") -> None:
        """A worker ends."""
        pid, sock = self.workers[name].pop(which)
        sock.close()
        self.reactor.read()
        if self.service._template is not None:
            self.tell({"ended": pid, "cause": cause}, template)

    def begin(self, **changes: Any) -> None:
        """A good configuration, and its workers."""
        self.tell(self.about(**changes))
        for _ in range(self.about(**changes)["workers"]):
            self.fork()

    def test_start(self) -> None:
        """All workers begin at once, and each has the ports."""
        self.begin()
        self.assertEqual(sorted(self.workers), ["1", "2"])
        self.assertEqual(self.names(), ["service-listening", "worker-started", "worker-started"])

    def test_died(self) -> None:
        """One that dies again and again is started with more and more time in between."""
        self.begin()
        for wait in (1, 2, 4, 8):
            self.names()
            self.end("1")
            self.assertEqual(self.said[-1][1]["again"], wait)
            self.assertEqual(self.said[-1][1]["cause"], "signal 9")
            self.reactor.advance(wait - 0.5)
            self.assertRaises(BlockingIOError, self.peek)
            self.reactor.advance(0.5)
            self.assertEqual(self.fork(), "1")

    def test_lastWords(self) -> None:
        """What a worker has said is heard, although its template tells of its end first."""
        self.begin()
        heard: list[str] = []
        self.patch(parent, "relogLines", lambda lines, now: heard.append(lines))
        pid, sock = self.workers["1"].pop()
        for lines in ("a", "b", "c"):
            channel.send(sock, {"lines": lines})
        sock.close()
        channel.send(self.reactor.spawned[-1], {"ended": pid, "cause": "exit status 0"})
        template: Any = self.service._template
        template.channel.doRead()
        self.assertEqual(heard, ["a", "b", "c"])
        self.assertEqual(self.names()[-1], "worker-died")

    def peek(self) -> None:
        """See whether the template has been told anything."""
        self.reactor.spawned[-1].recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)

    def test_reload(self) -> None:
        """One after the other: the next begins when the one before serves, and the old retires."""
        self.begin()
        self.service.reload()
        self.assertEqual(len(self.reactor.spawned), 2)
        self.tell(self.about(3, log=""))
        self.assertEqual(self.fork(serve=False), "1")
        self.assertRaises(BlockingIOError, self.peek)
        self.assertEqual(self.told("1"), [])
        self.say("1", {"serving": 1})
        self.assertEqual(self.told("1"), ["retire"])
        self.assertEqual(self.fork(), "2")
        self.assertEqual(self.fork(), "3")
        self.assertIn("service-reloaded", self.names())
        self.end("1", template=0)
        self.end("2", template=0)
        self.assertEqual(self.names(), ["worker-ended", "worker-ended"])
        # With the last of its workers, the old template goes.
        self.assertEqual(channel.receive(self.reactor.spawned[0])[0], None)

    def test_reloadFewer(self) -> None:
        """Those that are too many retire behind the others."""
        self.begin()
        self.service.reload()
        self.tell(self.about(1))
        self.fork()
        self.assertEqual((self.told("1"), self.told("2")), (["retire"], ["retire"]))
        self.end("1", template=0)
        self.end("2", template=0)

    def test_broken(self) -> None:
        """Mistakes are logged, and nobody is told anything; another try is free."""
        self.begin()
        self.names()
        self.service.reload()
        self.service.reload()
        self.tell({"problems": ["a: is wrong", "b: is wrong"]})
        self.assertEqual(self.names(), ["service-not-reloaded"] * 2)
        self.reactor.spawned[-1].close()
        self.reactor.read()
        # The second request was not forgotten.
        self.assertEqual(len(self.reactor.spawned), 3)
        self.assertEqual(self.told("1") + self.told("2"), [])

    def test_port(self) -> None:
        """A port that cannot be had is a mistake of the configuration."""
        self.begin()
        self.names()
        self.service.reload()
        self.tell(self.about(endpoints=[self.endpoint, "unix:/nowhere/at/all"], tls=["off"] * 2))
        self.assertEqual(self.names(), ["service-not-reloaded"])
        self.assertEqual(self.told("1"), [])

    def test_newPorts(self) -> None:
        """A port that is new is logged with the TLS that its listener has."""
        self.begin()
        self.said.clear()
        self.service.reload()
        new = [f"unix:{os.path.relpath(self.mktemp())}" for _ in range(2)]
        kinds = ["off", "implicit", "starttls"]
        self.tell(self.about(1, endpoints=[self.endpoint, *new], tls=kinds))
        self.assertEqual(
            [(fields["endpoint"], fields["tls"]) for _, fields in self.said],
            list(zip(new, kinds[1:], strict=True)),
        )

    def test_noFirstTemplate(self) -> None:
        """Where no process can be started there is no service, and its end says why."""
        settings = Settings(delivery=Component("discard"))
        for error, why in (
            (PermissionError(errno.EACCES, "No"), "No"),
            (OSError(errno.EBADF, "Bad"), "Bad; is one open above the limit (ulimit -n)?"),
        ):
            service = WorkersService(settings, Source(Path("submitd.toml")), self.reactor)
            with (
                patch.object(self.reactor, "spawnProcess", side_effect=error),
                self.assertRaises(CannotStart) as caught,
            ):
                service.privilegedStartService()
            self.assertEqual(str(caught.exception), f"cannot start {sys.executable}: {why}")

    def test_queue(self) -> None:
        """How long the queue is goes with the worker that has told it, and with no other."""
        self.begin()
        shown: list[Any] = []
        self.service._metrics = Mock(show=shown.append, stopService=lambda: succeed(None))
        self.say("1", {"queue": {"queue_messages": 5}})
        self.end("2")
        self.assertEqual(shown, [{"queue_messages": 5}])
        self.end("1")
        self.assertEqual(shown, [{"queue_messages": 5}, {}])

    def test_queueReloaded(self) -> None:
        """Who ends expectedly tells no more of it; what he has told goes where nobody follows."""
        self.begin()
        shown: list[Any] = []
        self.service._metrics = Mock(show=shown.append)
        self.say("1", {"queue": {"queue_messages": 5}})
        self.service.reload()
        self.tell(self.about())
        self.fork()
        self.say("1", {"queue": {"queue_messages": 6}}, 0)
        self.assertEqual(shown, [{"queue_messages": 5}])
        self.end("1", template=0, cause="")
        self.assertEqual(shown, [{"queue_messages": 5}, {}])

    def test_noTemplate(self) -> None:
        """Where Python cannot be started any more, the log says so, and the old ones go on."""
        self.begin()
        self.said.clear()
        refused = PermissionError(errno.EACCES, "Permission denied")
        with patch.object(self.reactor, "spawnProcess", side_effect=refused):
            self.service.reload()
        self.reactor.read()
        problem = f"cannot start {sys.executable}: Permission denied"
        self.assertEqual(self.said, [("service-not-reloaded", {"problem": problem})])
        self.assertEqual(self.told("1") + self.told("2"), [])
        self.service.reload()
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_noTemplateLater(self) -> None:
        """Another template is tried for until Python can be started again."""
        self.begin()
        refused = PermissionError(errno.EACCES, "Permission denied")
        self.reactor.spawned[0].close()
        with patch.object(self.reactor, "spawnProcess", side_effect=refused):
            self.reactor.read()
            self.said.clear()
            self.reactor.advance(2)
        self.assertEqual(self.names(), ["service-not-reloaded"])
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_newFails(self) -> None:
        """While the new ones die, the old ones go on; a configuration that is better takes over."""
        self.begin()
        self.service.reload()
        self.tell(self.about())
        self.fork(serve=False)
        self.end("1", 1)
        self.assertEqual(self.told("1"), [])
        self.reactor.advance(1)
        self.fork(serve=False)
        self.service.reload()
        self.tell(self.about())
        self.assertEqual(self.fork(), "1")
        self.assertEqual(self.told("1"), ["retire"])
        self.fork()
        self.end("1", 1, template=1)
        self.end("1", 0, template=0)
        self.end("2", 0, template=0)

    def test_relay(self) -> None:
        """There is one relay at a time, and it is told of what the others have taken."""
        self.tell(self.about(relay=True))
        for _ in range(3):
            self.fork()
        self.say("2", {"due": 7.0})
        self.assertEqual(self.told("relay"), ["due"])
        self.service.reload()
        self.tell(self.about(relay=True))
        self.fork()
        self.fork()
        self.assertEqual(self.told("relay"), ["end"])
        self.assertRaises(BlockingIOError, self.peek)
        self.say("2", {"due": 8.0})
        self.end("relay", template=0)
        self.assertEqual(self.fork(), "relay")
        for name in "12":
            self.end(name, template=0)

    def test_relayAway(self) -> None:
        """What comes while there is no relay, the next one is told when it serves."""
        self.tell(self.about(relay=True))
        for _ in range(3):
            self.fork(serve=False)
        self.say("1", {"due": 7.0})
        for name in ("1", "2", "relay"):
            self.say(name, {"serving": 1})
        self.assertEqual(self.told("relay"), ["due"])

    def test_hurried(self) -> None:
        """One that retires since the last reload ends in the next: that is no reason for two."""
        self.begin()
        self.service.reload()
        self.tell(self.about())
        self.fork()
        self.fork()
        self.service.reload()
        self.tell(self.about())
        self.assertEqual(self.fork(serve=False), "1")
        self.end("1", template=0)
        self.assertRaises(BlockingIOError, self.peek)
        self.say("1", {"serving": 1})
        self.assertEqual(self.fork(), "2")
        self.reactor.advance(5)
        self.assertRaises(BlockingIOError, self.peek)
        self.end("1", template=1)
        self.end("2", template=0)
        self.end("2", template=1)

    def test_superseded(self) -> None:
        """One of the configuration before that dies at its start is not replaced twice."""
        self.begin()
        self.service.reload()
        self.tell(self.about())
        self.fork(serve=False)
        self.service.reload()
        self.tell(self.about())
        self.assertEqual(self.fork(serve=False), "1")
        self.names()
        self.end("1", 1, template=1)
        self.assertEqual(self.names(), ["worker-died"])
        self.reactor.advance(10)
        self.assertRaises(BlockingIOError, self.peek)
        self.say("1", {"serving": 1})
        self.assertEqual(self.told("1"), ["retire"])
        self.fork()
        # The template in between has no worker, and goes.
        self.assertEqual(channel.receive(self.reactor.spawned[1])[0], None)
        self.end("1", 0, template=0)
        self.end("2", 0, template=0)

    def test_diesMeanwhile(self) -> None:
        """The old one dies while the new one begins: the others are replaced, and it serves."""
        self.begin()
        self.service.reload()
        self.tell(self.about())
        self.fork(serve=False)
        self.end("1", template=0)
        self.assertEqual(self.fork(), "2")
        self.say("1", {"serving": 1})
        self.reactor.advance(5)
        self.assertRaises(BlockingIOError, self.peek)
        self.end("2", template=0)

    def test_diesWaiting(self) -> None:
        """A worker that dies is replaced although the new ones of another post die, too."""
        self.begin()
        self.service.reload()
        self.tell(self.about())
        self.fork(serve=False)
        self.end("1", 1)
        self.end("2", template=0)
        self.reactor.advance(1)
        self.assertEqual({self.fork(), self.fork()}, {"1", "2"})
        self.reactor.advance(5)
        self.assertRaises(BlockingIOError, self.peek)
        self.end("1", template=0)

    def test_reloadAtTheEnd(self) -> None:
        """SIGHUP behind SIGTERM begins nothing, and does not end the parent before its workers."""
        self.begin()
        before = signal.getsignal(signal.SIGHUP)
        self.stopping = self.service.stopService()
        self.service.reload()
        self.assertEqual(len(self.reactor.spawned), 1)
        self.assertIs(signal.getsignal(signal.SIGHUP), before)

    def test_neverForked(self) -> None:
        """A template that does not do what it is told keeps nobody from ending."""
        self.tell(self.about())
        self.stopping = self.service.stopService()
        self.reactor.advance(30 + parent.PATIENCE)
        self.assertEqual((self.kills, self.service._workers), ([], {}))

    def test_keys(self) -> None:
        """Each day there are workers with new keys for tickets; the configuration is not read."""
        self.begin()
        self.reactor.advance(parent.TICKET_KEYS)
        self.assertEqual(channel.receive(self.reactor.spawned[0])[0], {"renew": True})
        self.fork()
        self.fork()
        self.assertEqual(len(self.reactor.spawned), 1)
        self.assertEqual((self.told("1"), self.told("2")), (["retire"], ["retire"]))
        self.end("1")
        self.end("2")

    def test_killed(self) -> None:
        """One that does not end in time is killed, and so is one that never serves."""
        self.begin()
        self.stopping = self.service.stopService()
        self.assertEqual(self.told("1"), ["end"])
        self.reactor.advance(30 + parent.PATIENCE)
        self.assertEqual(len(self.kills), 2)

    def test_template(self) -> None:
        """Without its template the service goes on, and has another one soon."""
        self.begin()
        self.names()
        self.reactor.spawned[0].close()
        self.reactor.read()
        self.assertEqual(self.names(), ["service-problem"])
        self.end("1")
        self.reactor.advance(2)
        self.tell(self.about())
        self.assertEqual(self.fork(), "1")
        self.assertEqual(self.fork(), "2")
        self.end("2")

    def test_templateLostHalfway(self) -> None:
        """Nor is a worker missed that dies when a template was lost amid its replacements."""
        self.begin()
        self.service.reload()
        self.tell(self.about())
        self.reactor.spawned[1].close()
        self.reactor.read()
        for name in ("1", "2"):
            [(pid, _)] = self.workers[name]
            self.end(name)
            self.tell({"ended": pid, "cause": "signal 9"}, 0)
        self.reactor.advance(2)
        self.tell(self.about())
        self.assertEqual({self.fork(), self.fork()}, {"1", "2"})

    def test_problem(self) -> None:
        """What a worker could not do, and what it has logged, is in the parent's log."""
        logged: list[parent.Message] = []
        self.patch(parent, "relog", logged.append)
        self.begin()
        self.names()
        self.say("1", {"problem": "cannot"})
        self.say("1", {"log": {"text": "x"}})
        self.assertEqual((self.names(), logged), (["service-problem"], [{"text": "x"}]))

    def test_noRoom(self) -> None:
        """A parent whose workers could not count together does not start."""
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.patch(shared, "prepare", Mock(side_effect=full))
        said = str(self.assertRaises(CannotStart, Common))
        self.assertIn("No space left", said)
        self.assertIn("TMPDIR may name another one", said)

    def test_notShared(self) -> None:
        """A port that has no descriptor cannot be handed to workers."""

        class Port:
            """None of the system's."""

        class Listener:
            """Has one."""

            port = Port()
            settings = ListenerSettings(endpoint="odd:")

        odd: Any = Listener()
        self.assertRaises(CannotStart, listeners.handOver, odd)
