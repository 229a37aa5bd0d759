"""Tests of the services that reload: by the clock, by SIGHUP, and asked by a program."""

from __future__ import annotations

import datetime
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd import events, service
from submitd.connections import Connections
from submitd.deliveries.discard import Discard
from submitd.interfaces import IHelloPolicy, IReloaded
from submitd.reload import DATES, TICKET_KEYS, HangUp, Renewal
from submitd.settings import AuthSettings, Component, ListenerSettings, LogSettings, Settings
from submitd.tls import ServerTLS, TLSSettings, selfSigned
from submitd.typed import Seconds

PLAIN = ListenerSettings(endpoint="unix:/nowhere", tls="off", require_tls=False)


class ReactorClock(Clock):
    """A clock that takes calls from signals and threads, and makes them when told."""

    def __init__(self) -> None:
        super().__init__()
        self.fromThread: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[[], object]) -> None:
        """Note the call."""
        self.fromThread.append(call)


class Files(SynchronousTestCase):
    """A certificate, and a clock."""

    def setUp(self) -> None:
        self.clock = ReactorClock()
        self.directory = Path(self.mktemp())
        certificate, key = selfSigned(self.directory, datetime.datetime.now(datetime.UTC))
        self.settings = TLSSettings(certificate=certificate, private_key=key)
        self.tls = ServerTLS(self.settings)

    def change(self) -> None:
        """Put another certificate in the place of the one that is there."""
        for file in self.directory.iterdir():
            file.unlink()
        selfSigned(self.directory, datetime.datetime.now(datetime.UTC))


class RenewalTests(Files):
    """The clock."""

    def started(self, **changes: Any) -> Renewal:
        """The service, running."""
        self.tls = ServerTLS(attrs.evolve(self.settings, **changes))
        renewal = Renewal(self.tls, self.clock)  # type: ignore[arg-type]
        renewal.startService()
        self.addCleanup(renewal.stopService)
        return renewal

    def test_changed(self) -> None:
        """A changed certificate is in use after one interval, and not before."""
        self.started(reload_interval=Seconds(60.0))
        before = self.tls.getContext()
        self.change()
        self.clock.advance(59)
        self.assertIs(self.tls.getContext(), before)
        self.clock.advance(1)
        self.assertIsNot(self.tls.getContext(), before)

    def test_never(self) -> None:
        """With an interval of 0 the files are left alone."""
        self.started(reload_interval=Seconds(0.0))
        before = self.tls.getContext()
        self.change()
        self.clock.advance(3600)
        self.assertIs(self.tls.getContext(), before)

    def test_tickets(self) -> None:
        """The keys of session tickets live for a day."""
        self.started(reload_interval=Seconds(0.0))
        before = self.tls.connectionOver(None).get_context()
        self.clock.advance(TICKET_KEYS)
        self.assertIsNot(self.tls.connectionOver(None).get_context(), before)

    def test_stopped(self) -> None:
        """A service that has stopped leaves nothing behind that would be called."""
        renewal = self.started()
        renewal.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        renewal.startService()
        self.assertEqual(len(self.clock.getDelayedCalls()), 3)

    def test_dates(self) -> None:
        """What is served and has expired is said each day, also where files are left alone."""
        said: list[str] = []
        self.patch(events, "emit", lambda event, **fields: said.append(fields["problem"]))
        now = datetime.datetime.now(datetime.UTC)
        old = self.directory / "old"
        certificate, key = selfSigned(old, now - datetime.timedelta(days=400))
        self.settings = TLSSettings(certificate=certificate, private_key=key)
        self.started(reload_interval=Seconds(0.0))
        selfSigned(old, now)  # which nobody looks at
        self.clock.pump([DATES, DATES])
        self.assertEqual(len(said), 2)
        self.assertIn(f"tls.certificate: {certificate} has expired on ", said[0])

    def test_datesOfWorkers(self) -> None:
        """Workers leave it to the first of them, or each would say it."""
        said: list[str] = []
        self.patch(ServerTLS, "lookAtDates", lambda tls: said.append("looked"))
        renewal = Renewal(self.tls, self.clock, isAlone=False)
        renewal.startService()
        self.addCleanup(renewal.stopService)
        self.clock.advance(DATES)
        self.assertEqual(said, [])

    def test_fails(self) -> None:
        """Should looking ever fail in an unforeseen way, the log says that nobody looks now."""
        said: list[str] = []
        self.patch(events, "emit", lambda event, **fields: said.append(fields["problem"]))
        self.started()
        self.patch(self.tls, "_report", lambda news: 1 / 0)
        self.change()
        self.clock.advance(60)
        self.assertEqual(said, ["certificates are no longer looked at"])


class HangUpTests(Files):
    """SIGHUP."""

    def setUp(self) -> None:
        super().setUp()
        self.reloads = 0
        before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.hangUp = HangUp(self.clock, self.reload)  # type: ignore[arg-type]

    def reload(self) -> None:
        """Count."""
        self.reloads += 1

    def test_signal(self) -> None:
        """The signal is taken, and the work is done by the reactor on its next turn."""
        self.hangUp.startService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(self.reloads, 0)
        [call] = self.clock.fromThread
        call()
        self.assertEqual(self.reloads, 1)

    def test_stopped(self) -> None:
        """What was there before is put back, unless somebody else has taken the signal."""
        self.hangUp.startService()
        self.hangUp.stopService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)
        self.hangUp.startService()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.hangUp.stopService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)

    def test_notStarted(self) -> None:
        """A service that never started has nothing to put back."""
        self.hangUp.stopService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)

    def test_draining(self) -> None:
        """While the last clients are served the signal does not end the process."""

        class Busy:
            remoteAddress = "192.0.2.1"

            def drain(self) -> None:
                """Go on: a transaction is under way."""

        connections: Any = Connections(self.clock)
        made = service.SubmissionService("mail.example.com", connections, 30)
        made.hangUp = self.hangUp
        made.startService()
        busy: Any = Busy()
        connections.add(busy)
        stopped = made.stopService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(len(self.clock.fromThread), 1)
        connections.remove(busy)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)

    def test_otherThread(self) -> None:
        """Started in another thread, which may take no signals, it leaves them alone."""
        thread = threading.Thread(target=self.hangUp.startService)
        thread.start()
        thread.join()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)


@implementer(IHelloPolicy, IReloaded)
class Rereading:
    """A policy with files, and nothing that runs."""

    def __init__(self, answer: Callable[[], Deferred[None]] = lambda: succeed(None)) -> None:
        self.times = 0
        self.answer = answer

    def helloReceived(self, session: Any, domain: str) -> None:
        """Never called."""

    def reload(self) -> Deferred[None]:
        self.times += 1
        return self.answer()


def broken() -> Deferred[None]:
    """Raises where a Deferred is due."""
    raise ZeroDivisionError


class ReloadTests(Files):
    """The service as a whole."""

    def made(self, tls: TLSSettings | None) -> Any:
        """What a configuration makes."""
        settings = Settings(
            hostname="mail.example.com",
            listener=(PLAIN,),
            tls=tls,
            auth=AuthSettings(required=False),
            delivery=Component("discard"),
        )
        return service.makeService(settings, self.clock)

    def kinds(self, made: Any) -> list[type]:
        """The services that are part of it."""
        return [type(each) for each in made]

    def test_makeService(self) -> None:
        """A configured service looks at its files and takes SIGHUP."""
        made = self.made(self.settings)
        self.assertIn(Renewal, self.kinds(made))
        self.assertIsInstance(made.hangUp, HangUp)
        made.reload()

    def test_withoutTLS(self) -> None:
        """Without TLS there is nothing to look at, and SIGHUP does no harm."""
        made = self.made(None)
        self.assertNotIn(Renewal, self.kinds(made))
        self.assertIsInstance(made.hangUp, HangUp)
        made.reload()

    def test_log(self) -> None:
        """The JSON log is opened again, where it may have been moved away."""
        settings = Settings(
            hostname="mail.example.com",
            listener=(PLAIN,),
            auth=AuthSettings(required=False),
            delivery=Component("discard"),
            log=LogSettings(json=self.mktemp(), together=False),
        )
        made = service.makeService(settings, self.clock)
        [log] = made._logs
        log.open()
        self.addCleanup(log.close)
        os.unlink(settings.log.json)
        made.reload()
        self.assertTrue(os.path.exists(settings.log.json))

    def test_policies(self) -> None:
        """Policies read their files again; one that cannot is logged, and keeps nobody from it."""
        logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=logged.append))
        answers = (lambda: fail(RuntimeError()), broken)
        policies = [Rereading(), *map(Rereading, answers), Rereading()]
        made = service.submissionService(
            self.clock,
            [PLAIN],
            self.tls,
            delivery=Discard(),
            policies=policies,
            loginRequired=False,
        )
        made.reload()
        self.assertEqual([each.times for each in policies], [1, 1, 1, 1])
        said = [each["problem"] for each in logged if each["event"] == "service-problem"]
        self.assertEqual(said, ["not read again"] * 2)

    def test_submissionService(self) -> None:
        """A program's service looks at the files too, leaves signals alone, and can be asked."""
        made = service.submissionService(
            self.clock, [PLAIN], self.tls, delivery=Discard(), loginRequired=False
        )
        self.assertIn(Renewal, self.kinds(made))
        self.assertNotIn(HangUp, self.kinds(made))
        before = self.tls.getContext()
        self.change()
        made.reload()
        self.assertIsNot(self.tls.getContext(), before)
