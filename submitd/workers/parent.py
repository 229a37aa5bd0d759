"""The parent: it opens the ports, and sees that workers serve them.  It serves nobody itself.

Workers are forked from a :class:`submitd.workers.template.Template`, a process of its own for each
time the configuration is read.  All of them accept from the same open sockets, which are the
parent's: a connection that waits in one is lost with no worker.

A worker that ends is replaced, at once after a long life, else after a wait that doubles.  At
SIGHUP the configuration is read again, by a new template.  When there is a mistake in it, each is
logged and all stays as it was; ports that are new are opened first, or all stays as it was, too.
Otherwise the workers are replaced one after the other: the new one serves before the old one takes
no more connections, and those it has go on to their end, or for the time to drain.  The same is
done each day, for new keys of session tickets.  The relay is one process: the new one begins when
the old one has ended.

At the end all workers are told to end; those that have not within the time to drain, and some
seconds, are killed.  A worker whose parent is gone ends by itself.
"""

# mypy: allow-untyped-calls
# Twisted's services are not annotated throughout.

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall

from submitd import events
from submitd.errors import CannotStart
from submitd.jsonlog import JSONLog
from submitd.metrics import Counts
from submitd.reload import TICKET_KEYS, HangUp
from submitd.settings import ListenerSettings, Settings
from submitd.workers import channel
from submitd.workers.backoff import Backoff
from submitd.workers.channel import Channel, Message
from submitd.workers.common import Common
from submitd.workers.listeners import Listeners
from submitd.workers.logs import relog, relogLines
from submitd.workers.template import CHANNEL, PROGRAM

if TYPE_CHECKING:
    from submitd.metricspage import MetricsService

RELAY = "relay"
"""The name of the worker that delivers from the spool; the others are called 1, 2, 3."""

PATIENCE = 10.0
"""Seconds beyond the time to drain until a worker is killed."""

START = 120.0
"""Seconds that a configuration may take to be read, and a worker to serve."""


@attrs.frozen
class Source:
    """Where the configuration is, and what the command line says besides.

    :param file: the configuration.
    :param json: the log, in place of the configuration's.
    :param reactor: which one workers have; empty for the usual one.
    :param logs: what workers do with the text log: ``"direct"``, they write it to standard output;
        ``"lines"``, the parent writes their lines; ``"events"``, the parent logs their events.
    """

    file: Path
    json: str | None = None
    reactor: str = ""
    logs: str = "events"


class _Exit(ProcessProtocol):
    """A template's end is seen by its channel; what remains is to have it waited for."""


@attrs.define(eq=False)
class Template:
    """The parent's side of a template.

    :ivar about: what it has said of its configuration; nothing before.
    :ivar workers: those of it that have not ended, by process id.
    """

    channel: Channel | None = None
    about: Message = attrs.field(factory=dict)
    workers: dict[int, Worker] = attrs.field(factory=dict)
    overdue: IDelayedCall | None = None

    @property
    def names(self) -> list[str]:
        """The posts that its configuration has."""
        names = [str(at + 1) for at in range(self.about["workers"])]
        return [*names, RELAY] if self.about["relay"] else names


@attrs.define(eq=False)
class Worker:
    """The parent's side of a worker.

    :param post: what it is for.
    :param number: its page of the tally; no other has it as long as it lives.
    :ivar pid: its process id; 0 before the template has told.
    :ivar isEnding: whether it has been told to end.
    """

    post: Post
    number: int
    template: Template
    pid: int = 0
    isEnding: bool = False
    hasEnded: bool = False
    cause: str = ""
    channel: Channel | None = None
    overdue: IDelayedCall | None = None


@attrs.define(eq=False)
class Post:
    """One of the places to be filled: a number, or the relay.

    :ivar worker: who serves there.
    :ivar next: who is to serve there, and does not yet.
    :ivar waiting: the call that fills it.
    """

    name: str
    backoff: Backoff
    worker: Worker | None = None
    next: Worker | None = None
    waiting: IDelayedCall | None = None


class WorkersService(MultiService):
    """The parent as a service.

    :param settings: the configuration as it is at the start.
    :param source: where it is read again.
    :param reactor: starts processes, listens, tells the time and calls later.
    """

    def __init__(self, settings: Settings, source: Source, reactor: Any) -> None:
        super().__init__()
        self._settings = settings
        self._source = source
        self._reactor = reactor
        self._listeners = Listeners(settings.listener, reactor)
        self._listeners.setServiceParent(self)
        self._posts: dict[str, Post] = {}
        self._template: Template | None = None
        self._candidate: Template | None = None
        self._isAskedAgain = False
        self._isDue = False
        self._replacing: list[Post] = []
        self._isReload = False
        self._workers: dict[int, Worker] = {}
        self._logTarget = settings.log.json
        self._log = JSONLog(self._logTarget, reactor)
        self._stopped: Deferred[None] | None = None
        self._drain = float(settings.limits.drain)
        self._common: Common | None = None
        self._retry = Backoff(reactor.seconds)
        self._later: IDelayedCall | None = None
        self._counts = Counts()
        self._metrics: MetricsService | None = None
        self._looker: Worker | None = None  # who has told last how long the queue is
        if settings.metrics.endpoint:
            from submitd.metricspage import MetricsService

            self._metrics = MetricsService(
                settings.metrics.endpoint, reactor, self._counts, self._gauges
            )
            self._metrics.setServiceParent(self)
        self._renewing = LoopingCall(self._renew)
        self._renewing.clock = reactor
        self._hangUp = HangUp(reactor, self.reload)

    # The beginning and the end.

    def privilegedStartService(self) -> None:
        """Open all ports, or none.

        :raise CannotStart: when one cannot be opened, or is none that processes can share; when no
            process can be started.
        """
        self._open(super().privilegedStartService)
        # The certificate's key may be for those alone who have not given up their rights yet.
        self._candidate = self._candidate or self._beginFirst()

    def startService(self) -> None:
        """Have the workers begin.

        :raise CannotStart: as before, or when there is nothing to count together in.
        """
        self._open(super().startService)
        self._hangUp.startService()
        self._common = Common()
        self._candidate = self._candidate or self._beginFirst()
        self._renewing.start(TICKET_KEYS, now=False)

    def _open(self, start: Callable[[], None]) -> None:
        if self._logTarget:
            self._log.open()
        if self._metrics is not None:
            self._counts.open()
        try:
            start()
        except CannotStart:
            self._log.close()
            self._counts.close()
            raise

    def stopService(self) -> Deferred[None]:
        """Close the ports, and have all workers end.

        :return: fires when they have.
        """
        if self._renewing.running:
            self._renewing.stop()
        if self._later is not None and self._later.active():
            self._later.cancel()
        return Deferred.fromCoroutine(self._end(super().stopService()))

    async def _end(self, closing: Deferred[Any]) -> None:
        self._stopped = Deferred()
        self._replacing.clear()
        if self._candidate is not None:
            self._drop(self._candidate)
        for post in self._posts.values():
            if post.waiting is not None and post.waiting.active():
                post.waiting.cancel()
        for worker in list(self._workers.values()):
            self._dismiss(worker)
        self._tellIfDone()
        await closing
        await self._stopped
        if self._template is not None:
            self._drop(self._template)
        if self._common is not None:
            self._common.close()
        # Not before: the signal would end the process, and leave the workers to themselves.
        self._hangUp.stopService()
        events.emit(events.SERVICE_STOPPED, hostname=self._settings.hostname)
        self._log.close()
        self._counts.close()

    def _gauges(self) -> dict[str, float]:
        connections = self._common.connections if self._common is not None else 0
        return {"connections": connections, "workers": len(self._workers)}

    def _tellIfDone(self) -> None:
        if self._stopped is not None and not self._workers and not self._stopped.called:
            self._stopped.callback(None)

    # Reading the configuration.

    def reload(self) -> None:
        """Read the configuration again, and replace the workers; or log what is wrong with it."""
        if self._stopped is not None:
            return
        self._log.reopen()
        if self._candidate is not None:
            self._isAskedAgain = True
        else:
            self._beginAgain()

    def _changeLog(self, target: str) -> None:
        """Go on in another file, as the new configuration has it."""
        log = JSONLog(target, self._reactor)
        try:
            if target:
                log.open()
        except CannotStart as error:
            events.emit(events.SERVICE_PROBLEM, problem=str(error))
            return
        self._log.close()
        self._log, self._logTarget = log, target

    def _renew(self) -> None:
        """Have workers with new keys for session tickets."""
        if self._template is None or self._template.channel is None:
            return  # the next one has new keys
        if self._candidate is None and not self._replacing:
            self._template.channel.send({"renew": True})
            self._replacing = [post for post in self._posts.values() if post.name != RELAY]
            self._isReload = False
            self._next()

    def _beginFirst(self) -> Template:
        """Start a template while there are no workers."""
        try:
            return self._begin()
        except OSError as error:
            raise CannotStart(_notStarted(error)) from None

    def _beginAgain(self) -> None:
        """Start a template while there are workers; where there can be none, they go on."""
        try:
            self._candidate = self._begin()
        except OSError as error:
            # Whom --uid names may have no right to run the Python that root began with.
            events.emit(events.SERVICE_NOT_RELOADED, problem=_notStarted(error))

    def _begin(self) -> Template:
        """Start a template.

        :raise OSError: when there can be none.
        """
        template = Template()
        ours, theirs = channel.pair()
        template.channel = Channel(
            ours,
            self._reactor,
            lambda message: self._heard(template, message),
            lambda: self._lost(template),
        )
        words = {"file": str(self._source.file), "json": self._source.json}
        with theirs:
            self._reactor.spawnProcess(
                _Exit(),
                sys.executable,
                [sys.executable, "-P", "-c", PROGRAM, json.dumps(words)],
                {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                childFDs={0: 0, 1: 1, 2: 2, CHANNEL: theirs.fileno()},
            )
        template.overdue = self._reactor.callLater(START, self._drop, template)
        return template

    def _heard(self, template: Template, message: Message) -> None:
        """A template has said something."""
        if "problems" in message:
            for problem in message["problems"]:
                self._complain(problem)
        elif "workers" in message:
            template.about = message
            _cancel(template.overdue)
            self._change(template)
        elif "forked" in message:
            worker = self._workers.get(message["forked"])
            if worker is not None:
                worker.pid = message["pid"]
                template.workers[worker.pid] = worker
        elif "ended" in message:
            worker = template.workers.pop(message["ended"], None)
            if worker is not None:
                worker.cause = message["cause"]
                self._gone(worker)

    def _complain(self, problem: str) -> None:
        events.emit(events.SERVICE_NOT_RELOADED, problem=f"{self._source.file}: {problem}")

    def _drop(self, template: Template) -> None:
        if template.channel is not None:
            template.channel.close()

    def _lost(self, template: Template) -> None:
        """A template is gone; its workers are not, unless they have told so themselves."""
        _cancel(template.overdue)
        template.channel = None
        for worker in list(self._workers.values()):
            if worker.template is template and worker.channel is None:
                self._gone(worker)
        if template is self._candidate:
            self._candidate = None
            if self._template is None and self._stopped is None:
                # There is nothing yet that could stay as it was.
                self._tryAgain()
            self._goOn()
        elif template is self._template and self._stopped is None:
            # Nothing can be forked from it any more; those it was to replace stay until another is.
            self._template = None
            self._replacing.clear()
            events.emit(events.SERVICE_PROBLEM, problem="the template process has ended")
            self._tryAgain()

    def _tryAgain(self) -> None:
        def begin() -> None:
            if self._candidate is None and self._stopped is None:
                self._retry.started()
                self._beginAgain()
                if self._candidate is None:
                    self._tryAgain()

        self._later = self._reactor.callLater(max(1.0, self._retry.ended()), begin)

    def _change(self, template: Template) -> None:
        """A configuration is good: have it served, unless a port of it cannot be had."""
        about, before = template.about, self._template
        try:
            self._listeners.open(
                ListenerSettings(endpoint=endpoint, tls=how)
                for endpoint, how in zip(about["endpoints"], about["tls"], strict=True)
            )
        except CannotStart as error:
            self._complain(str(error))
            self._drop(template)
            return
        if about["log"] != self._logTarget:
            self._changeLog(about["log"])
        self._candidate, self._template = None, template
        self._drain = about["drain"]
        for name in template.names:
            if name not in self._posts:
                self._posts[name] = Post(name, Backoff(self._reactor.seconds))
        self._replacing = [self._posts[name] for name in template.names]
        self._isReload = before is not None
        if before is not None:
            self._dropIfIdle(before)
        self._next()

    # Replacing the workers, one after the other.

    def _next(self) -> None:
        """Fill the next post with a worker of the template; behind the last, clear up."""
        while self._replacing:
            post = self._replacing[0]
            if post.name == RELAY and post.worker is not None:
                # Two of them would be twice as many connections as the settings allow.
                if not post.worker.isEnding:
                    self._dismiss(post.worker)
                return
            if post.worker is None:
                # There is nobody to wait for: all of them at once.
                del self._replacing[0]
                self._fill(post)
                continue
            self._fill(post)
            return
        self._clearUp()

    def _clearUp(self) -> None:
        assert self._template is not None
        about = self._template.about
        for name in [each for each in self._posts if each not in self._template.names]:
            post = self._posts.pop(name)
            _cancel(post.waiting)
            if post.worker is not None:
                self._retire(post.worker)
        self._listeners.keep(about["endpoints"])
        if self._isReload:
            events.emit(events.SERVICE_RELOADED, workers=about["workers"])
        self._goOn()

    def _goOn(self) -> None:
        if self._isAskedAgain and self._stopped is None:
            self._isAskedAgain = False
            self.reload()

    def _dropIfIdle(self, template: Template) -> None:
        if template is not self._template and not template.workers:
            self._drop(template)

    # One worker.

    def _fill(self, post: Post) -> None:
        """Fork a worker for a post."""
        template = self._template
        _cancel(post.waiting)
        if template is None or template.channel is None or self._stopped is not None:
            return  # when there is a template, all posts are filled
        if post.next is not None and post.next.template is template:
            return
        post.next = worker = self._numbered(post, template)
        post.backoff.started()
        ours, theirs = channel.pair()
        worker.channel = Channel(
            ours,
            self._reactor,
            lambda message: self._said(worker, message),
            lambda: self._closed(worker),
        )
        worker.overdue = self._reactor.callLater(START, self._kill, worker)
        with theirs:
            template.channel.send(*self._beginning(worker, theirs.fileno()))

    def _numbered(self, post: Post, template: Template) -> Worker:
        """A new worker, with a page of the tally that no other has."""
        assert self._common is not None
        number = self._common.number(self._workers)
        worker = self._workers[number] = Worker(post, number, template)
        return worker

    def _beginning(self, worker: Worker, file: int) -> tuple[Message, list[int]]:
        """What a worker begins with: the order, and the files that go with it.

        :param file: its end of the channel.
        """
        assert self._common is not None
        name = worker.post.name
        isRelay = name == RELAY
        endpoints = () if isRelay else worker.template.about["endpoints"]
        log = self._log.fileno()
        order = {
            "number": worker.number,
            "name": name,
            "isRelay": isRelay,
            **self._common.order(),
            "reactor": self._source.reactor,
            "logs": self._source.logs,
            "hasLog": log is not None,
            "identity": [os.geteuid(), os.getegid(), *os.getgroups()],
        }
        ports = self._listeners.files(endpoints)
        return order, [file, self._common.file, *ports, *([] if log is None else [log])]

    def _said(self, worker: Worker, message: Message) -> None:
        """A worker has said something."""
        if "log" in message:
            relog(message["log"])
        elif "lines" in message:
            relogLines(message["lines"], self._reactor.seconds())
        elif "counted" in message:
            self._counts.add(message["counted"])
        elif "queue" in message:
            # Of one who is ending the next may have told already, perhaps of another queue.
            if self._metrics is not None and not worker.isEnding:
                self._metrics.show(message["queue"])
                self._looker = worker
        elif "due" in message:
            relay = self._posts.get(RELAY)
            if relay is not None and relay.worker is not None and relay.worker.channel is not None:
                relay.worker.channel.send(message)
            else:
                self._isDue = True  # the next relay may have looked already
        elif "problem" in message:
            events.emit(events.SERVICE_PROBLEM, problem=message["problem"])
        elif "serving" in message:
            # Its template may have ended before it could tell.
            worker.pid = worker.pid or message["serving"]
            self._serves(worker)

    def _serves(self, worker: Worker) -> None:
        post = worker.post
        if post.next is worker:
            post.next = None
        if worker.template is not self._template and post.worker is not None:
            self._dismiss(worker)
            return
        _cancel(worker.overdue)
        if worker.template is self._template:
            _cancel(post.waiting)
        events.emit(events.WORKER_STARTED, worker=post.name, process=worker.pid)
        before, post.worker = post.worker, worker
        if before is not None:
            self._retire(before)
        if post.name == RELAY and self._isDue and worker.channel is not None:
            self._isDue = False
            worker.channel.send({"due": 0.0})
        if self._stopped is not None or self._posts.get(post.name) is not post:
            self._dismiss(worker)
        elif self._replacing and self._replacing[0] is post:
            del self._replacing[0]
            self._next()

    def _retire(self, worker: Worker) -> None:
        """Have a worker end with its last connection; the time to drain is for those there are."""
        self._order(worker, {"retire": self._drain}, 2 * self._drain)

    def _dismiss(self, worker: Worker) -> None:
        """Have a worker end its connections, and then itself."""
        self._order(worker, {"end": True}, self._drain)

    def _order(self, worker: Worker, message: Message, seconds: float) -> None:
        worker.isEnding = True
        if worker.channel is not None:
            worker.channel.send(message)
        _cancel(worker.overdue)
        worker.overdue = self._reactor.callLater(seconds + PATIENCE, self._kill, worker)

    def _kill(self, worker: Worker) -> None:
        if not worker.pid:
            # The template does not do what it is told; a worker of it would see its channel closed.
            self._drop(worker.template)
            self._gone(worker)
        elif not worker.hasEnded:
            events.emit(
                events.SERVICE_PROBLEM, problem=f"worker {worker.post.name} has to be killed"
            )
            _signal(worker.pid)

    def _closed(self, worker: Worker) -> None:
        """A worker's channel is closed: it has ended, or is about to."""
        worker.channel = None
        if worker.template.channel is None:
            self._gone(worker)

    def _gone(self, worker: Worker) -> None:
        """A worker has ended."""
        if worker.channel is not None:
            # The template may be heard before what the worker has logged and counted at its end.
            worker.channel.receiveRest()
        if worker.hasEnded:
            return
        self._forget(worker)
        post = worker.post
        hadPost = worker in (post.worker, post.next)
        isExpected = worker.isEnding or self._stopped is not None
        if isExpected:
            events.emit(events.WORKER_ENDED, worker=post.name, process=worker.pid)
        if post.worker is worker:
            post.worker = None
        if post.next is worker:
            post.next = None
        self._tellIfDone()
        if self._stopped is not None or self._posts.get(post.name) is not post:
            return
        if not isExpected:
            self._died(worker, hadPost)
        if hadPost and post.worker is None and self._replacing[:1] == [post]:
            if not isExpected:
                del self._replacing[0]  # it is filled after the wait
            self._next()

    def _forget(self, worker: Worker) -> None:
        worker.hasEnded = True
        if worker.channel is not None:
            worker.channel.close()
        _cancel(worker.overdue)
        worker.template.workers.pop(worker.pid, None)
        del self._workers[worker.number]
        if self._common is not None:
            self._common.wipe(worker.number)
        self._dropIfIdle(worker.template)
        if self._metrics is not None and worker is self._looker:
            self._metrics.show({})

    def _died(self, worker: Worker, hadPost: bool) -> None:
        """A worker has ended by itself: fill its post again, unless somebody else is there."""
        post = worker.post
        wait = post.backoff.ended() if hadPost else 0.0
        events.emit(
            events.WORKER_DIED,
            worker=post.name,
            process=worker.pid,
            cause=worker.cause or "unknown",
            again=wait,
        )
        if hadPost and post.next is None:
            _cancel(post.waiting)
            post.waiting = self._reactor.callLater(wait, self._fill, post)


def _notStarted(error: OSError) -> str:
    said = f"cannot start {sys.executable}: {error.strerror}"
    # The system closes no descriptor for a new process that is above the limit.
    isLimit = error.errno == errno.EBADF
    return f"{said}; is one open above the limit (ulimit -n)?" if isLimit else said


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
