"""Policy ``login-throttle``: guessing passwords becomes slow, and then ends for a while.

Failed logins are counted per client address, per network (the /64 of an IPv6 address) and per
login, in moving windows.  After a few, each further attempt waits before its password is even
looked at, twice as long each time.  When a window is full, 421 4.7.0 ends the connection, and new
ones are refused with it, until the window has room again; the reply says when.  A login is counted
under the name that was tried, whether there is such a user or not, so nothing tells which.

- The same wrong password again, as from an old telephone, counts once per address and once per
  login in the time of the longest window.  What is remembered of it is a keyed digest in memory.
- A success takes nothing off the count: a guesser with an account of his own cannot begin anew.
- From ``except_from`` failures are counted per login alone, and nobody is known there.
- A login that has succeeded from an address is known there for ``remember``.  It is then counted
  for itself, as the address is, and whatever others have done, from there or to that login, does
  not keep it out: the owner still gets in where he has been before.

A login that is under way may fail, so it takes up room until it is over: who tries many passwords
at one moment tries no more than one after the other.  Where only such logins are in the way, the
next one waits for one of them to end.  They are counted in this process alone.

Only so many sessions wait at one time; beyond that, those that would have to wait get 421.  Counts
are kept in memory, or in a Redis that several nodes share.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events
from submitd.counters.counters import Counters
from submitd.counters.memory import Memory
from submitd.counters.names import addressOf, networkOf
from submitd.counters.shared import SharedCounts
from submitd.counters.windows import Room, Storage, Taken, Want, Window, parseWindows
from submitd.interfaces import (
    IChecked,
    IConnectionPolicy,
    IDelays,
    ILoginObserver,
    ILoginPolicy,
    IRehearsed,
    IRunning,
    IShared,
    ISubmitter,
)
from submitd.session import Session
from submitd.typed import Count, Rates, Seconds
from submitd.waiting import then
from submitd.wire.errors import Refused
from submitd.wire.network import Networks
from submitd.wire.reply import LOGIN_UNAVAILABLE, TOO_MANY_LOGIN_FAILURES, Reply

Scopes = dict[str, str]
"""Scope -> who is counted there."""


@implementer(
    IConnectionPolicy,
    ILoginPolicy,
    ILoginObserver,
    IRunning,
    IShared,
    IRehearsed,
    IChecked,
    IDelays,
)
@attrs.define(eq=False)
class LoginThrottle:
    """Slows down and blocks those who guess passwords.

    :raise ValueError: for rates or a storage that are none.
    """

    name: ClassVar[str] = "login-throttle"

    per_address: Rates = attrs.field(
        default=Rates("10/15minute, 50/day"),
        metadata={
            "help": "Failed logins from one address, and of a login from an address where it is "
            "known. Beyond, there is a block until the window has room again."
        },
    )
    per_network: Rates = attrs.field(
        default=Rates("30/15minute, 150/day"),
        metadata={"help": "The same for one network: the /64 of an IPv6 address."},
    )
    per_login: Rates = attrs.field(
        default=Rates("30/15minute, 300/day"),
        metadata={
            "help": "The same for one login, wherever it is tried from. Its owner can be kept out "
            "by it, at addresses where he has not been before."
        },
    )
    free: Count = attrs.field(
        default=Count(2), metadata={"help": "Failed logins after which the next is delayed."}
    )
    delay: Seconds = attrs.field(
        default=Seconds(1.0), metadata={"help": "The first delay; each further one is double."}
    )
    max_delay: Seconds = attrs.field(
        default=Seconds(15.0),
        validator=attrs.validators.le(Seconds(30.0)),
        metadata={"help": "The longest delay, 30 s at most: clients give up."},
    )
    max_waiting: Count = attrs.field(
        default=Count(200), metadata={"help": "How many sessions may wait at one time."}
    )
    remember: Seconds = attrs.field(
        default=Seconds(30 * 86400.0),
        validator=attrs.validators.ge(Seconds(1.0)),
        metadata={"help": "How long a login is known at an address where it has succeeded."},
    )
    except_from: tuple[str, ...] = attrs.field(
        default=(),
        converter=tuple,
        metadata={
            "help": "Networks from which failures are counted per login alone, such as that of a "
            "webmail: all its users come from one address, and one of them would block the others."
        },
    )
    storage: str = attrs.field(
        default="memory",
        repr=False,
        metadata={"help": 'Where counts are kept: "memory", or the URL of a Redis.'},
    )
    on_failure: Literal["open", "closed"] = attrs.field(
        default="open",
        metadata={
            "help": 'While the Redis is away: "open" lets everybody try, "closed" nobody (454).'
        },
    )
    timeout: Seconds = attrs.field(
        default=Seconds(1.0),
        validator=attrs.validators.gt(Seconds(0.0)),
        metadata={"help": "How long an answer of the Redis is waited for."},
    )
    _windows: dict[str, tuple[Window, ...]] = attrs.field(init=False, repr=False)
    _shortest: tuple[str, ...] = attrs.field(init=False, repr=False)
    _known: Window = attrs.field(init=False, repr=False)
    _excepted: Networks = attrs.field(init=False, repr=False)
    _counters: Counters = attrs.field(init=False, repr=False)
    # Passwords that were wrong: not in a Redis, for a digest can be guessed by who has it.
    _wrong: Storage = attrs.field(init=False, repr=False, factory=Memory)
    _key: bytes = attrs.field(init=False, repr=False, factory=lambda: os.urandom(32))
    _waiting: int = attrs.field(init=False, repr=False, default=0)
    # Logins under way, and those that wait for one of them to end, by the keys of the counts.
    _underWay: dict[str, int] = attrs.field(init=False, repr=False, factory=dict)
    _queues: dict[str, deque[Deferred[None]]] = attrs.field(init=False, repr=False, factory=dict)
    _note: str = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._windows = {
            "address": parseWindows(self.per_address),
            "network": parseWindows(self.per_network),
            "login": parseWindows(self.per_login),
            "known": parseWindows(self.per_address),
        }
        self._shortest = tuple(
            _prefix(scope, windows[0]) for scope, windows in self._windows.items() if windows
        )
        self._known = Window(1, int(self.remember), "")
        try:
            self._excepted = Networks.parse(self.except_from)
        except ValueError as error:
            raise ValueError(f"except_from: {error}") from None
        self._note = f"{self.name} {id(self)}"  # there may be several of these
        self._counters = Counters(
            self.storage, self.on_failure, self.timeout, self.name, LOGIN_UNAVAILABLE
        )

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        return self._counters.check()

    def delays(self) -> dict[str, float]:
        """See :meth:`submitd.interfaces.IDelays.delays`."""
        return {"max_delay": self.max_delay} if self.delay else {}

    def share(self, storage: SharedCounts) -> None:
        """See :meth:`submitd.interfaces.IShared.share`."""
        self._counters.share(storage)
        self._wrong, self._key = storage, storage.secret

    def rehearse(self, directory: Path) -> None:
        """See :meth:`submitd.interfaces.IRehearsed.rehearse`."""
        self._counters.rehearse()

    def start(self, reactor: Any, run: Any = None) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`.

        :param run: runs a function in a thread, in place of the reactor's own.
        """
        self._counters.start(reactor, run)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.stop`."""
        return succeed(None)

    # The stages.

    def connectionMade(self, session: Session) -> Any:
        """Refuse an address that is blocked, unless somebody is known there.

        :raise Refused: 421 4.7.0.
        """
        whence = self._whence(session)
        if not whence:
            return None
        wants = [self._isKnown(whence["address"]), *self._wants(whence)]
        try:
            rooms = self._counters.rooms(wants)
        except Refused:
            return None  # the storage is away, which is said to a login
        if isinstance(rooms, Deferred):
            rooms.addErrback(_unlessRefused)
        return then(rooms, self._greet, wants)

    def _greet(self, rooms: list[Room] | None, wants: list[Want]) -> None:
        if rooms is not None and not rooms[0].used:
            self._refuseFull(rooms[1:], wants[1:])

    def loginRequested(self, session: Session, credentials: Any) -> Any:
        """Refuse who is blocked, and delay who has failed before.

        :raise Refused: 421 4.7.0.
        """
        self.loginEnded(session)
        attempt = Attempt(_loginOf(credentials), self._whence(session))
        session.notes[self._note] = attempt
        return then(self._rooms(attempt), self._consider, attempt)

    def _rooms(self, attempt: Attempt) -> Any:
        own, others = self._wants(attempt.own), self._wants(attempt.others)
        return self._counters.rooms([self._isKnown(attempt.pair), *own, *others])

    def _consider(self, rooms: list[Room] | None, attempt: Attempt) -> Deferred[None] | None:
        if rooms is None:
            return None
        rooms, wants = self._concerning(rooms, attempt)
        self._refuseFull(rooms, wants)
        ofLate = [
            room.used
            for room, want in zip(rooms, wants, strict=True)
            if want.key.startswith(self._shortest)
        ]
        seconds = self._delayAfter(max(ofLate, default=0))
        full = "" if seconds else self._begin(attempt, rooms, wants)
        return self._wait(attempt, seconds, full) if seconds or full else None

    def _concerning(self, rooms: list[Room], attempt: Attempt) -> tuple[list[Room], list[Want]]:
        """The windows in which this one is counted if it fails."""
        own, others = self._wants(attempt.own), self._wants(attempt.others)
        attempt.isKnown = rooms[0].used > 0
        split = 1 + len(own)
        return (rooms[1:split], own) if attempt.isKnown else (rooms[split:], others)

    def _refuseFull(self, rooms: list[Room], wants: list[Want]) -> None:
        full = [
            (room.until, want) for room, want in zip(rooms, wants, strict=True) if room.left < 1
        ]
        if full:
            until, want = max(full)
            said = f"Too many failed logins; try again after {self._counters.shown(until)}"
            scope = want.key.split("/")[1]
            raise Refused(Reply(421, "4.7.0", said), f"blocked by {scope}: {want.window.text}")

    def _delayAfter(self, failures: int) -> float:
        over = failures - self.free
        return 0.0 if over < 0 else min(self.delay * 2.0 ** min(over, 30), self.max_delay)

    def _wait(self, attempt: Attempt, seconds: float, full: str) -> Deferred[None]:
        if self._waiting >= self.max_waiting:
            raise Refused(TOO_MANY_LOGIN_FAILURES, f"{self._waiting} sessions wait already")
        self._waiting += 1
        waiting = Deferred.fromCoroutine(self._waitFor(attempt, seconds, full))
        return waiting.addBoth(self._waited)

    async def _waitFor(self, attempt: Attempt, seconds: float, full: str) -> None:
        """Wait for the delay, and then until there is room beside those that are under way."""
        if seconds:
            await _after(self._counters.clock, seconds)
            full = await self._lookAgain(attempt)
        while full:
            await self._turn(full)
            before, full = full, ""
            try:
                full = await self._lookAgain(attempt)
            finally:
                if full != before and before not in attempt.underWay:
                    self._callNext(before)  # the room that it was called for is left to others

    async def _lookAgain(self, attempt: Attempt) -> str:
        rooms = self._rooms(attempt)
        if isinstance(rooms, Deferred):
            rooms = await rooms
        if rooms is None:
            return ""
        rooms, wants = self._concerning(rooms, attempt)
        self._refuseFull(rooms, wants)
        return self._begin(attempt, rooms, wants)

    def _begin(self, attempt: Attempt, rooms: list[Room], wants: list[Want]) -> str:
        """Let it go on, if there is room should all that are under way fail.

        :return: the key of a window where there is none; else empty.
        """
        for room, want in zip(rooms, wants, strict=True):
            if room.left <= self._underWay.get(want.key, 0):
                return want.key
        attempt.underWay = tuple(want.key for want in wants)
        for key in attempt.underWay:
            self._underWay[key] = self._underWay.get(key, 0) + 1
        return ""

    def _turn(self, key: str) -> Deferred[None]:
        """Fires when one has ended there, and this is the next."""
        queue = self._queues.setdefault(key, deque())
        turn: Deferred[None] = Deferred(lambda _: self._leave(key, turn))
        queue.append(turn)
        return turn

    def _leave(self, key: str, turn: Deferred[None]) -> None:
        queue = self._queues[key]
        queue.remove(turn)
        if not queue:
            del self._queues[key]

    def _callNext(self, key: str) -> None:
        # Later, for one that finds no room calls the next: a long queue would be a deep stack.
        if key in self._queues:
            self._counters.clock.callLater(0, self._call, key)

    def _call(self, key: str) -> None:
        if key in self._queues:
            turn = self._queues[key][0]
            self._leave(key, turn)
            turn.callback(None)

    def _waited(self, result: Any) -> Any:
        self._waiting -= 1
        return result

    def loginSucceeded(self, session: Session, avatar: ISubmitter) -> Any:
        """Remember that this login is at home at this address."""
        attempt = session.notes.get(self._note)
        if attempt is None or not attempt.whence:
            return None
        wants = [self._isKnown(attempt.pair), self._isKnown(attempt.whence["address"])]
        return self._count(wants, _ignored)

    def loginFailed(self, session: Session, credentials: Any, failure: Failure) -> Any:
        """Count a failure, unless it has been counted before."""
        attempt = session.notes.get(self._note)
        if attempt is None:
            return None
        scopes = attempt.own if attempt.isKnown else attempt.others
        secret = _secretOf(credentials)
        if secret is not None:
            scopes = {
                scope: name
                for scope, name in scopes.items()
                if self._isNew(scope, name, attempt.login, secret)
            }
        wants = self._wants(scopes)
        return self._count(wants, self._counted, wants, session, credentials)

    def loginEnded(self, session: Session) -> None:
        """It takes up no more room than its failure, if that was counted."""
        attempt = session.notes.pop(self._note, None)
        if attempt is None:
            return
        for key in attempt.underWay:
            self._underWay[key] -= 1
            if not self._underWay[key]:
                del self._underWay[key]
            self._callNext(key)

    def _count(self, wants: list[Want], call: Callable[..., None], *arguments: Any) -> Any:
        """Count each; a storage that is away changes nothing about the answer to a login."""
        if not wants:
            return None
        try:
            taken = self._counters.take(wants, together=False)
        except Refused:
            return None
        if isinstance(taken, Deferred):
            taken.addErrback(_unlessRefused)
        return then(taken, call, *arguments)

    def _counted(
        self, taken: Taken | None, wants: list[Want], session: Session, credentials: Any
    ) -> None:
        for at in () if taken is None else taken.marked:
            events.emit(
                events.LOGIN_BLOCKED,
                session=session.id,
                peer=session.remoteAddress,
                scope=wants[at].key.split("/")[1],
                limit=wants[at].window.text,
                user=getattr(credentials, "username", b""),
            )

    def _isNew(self, scope: str, name: str, login: str, secret: bytes) -> bool:
        """Whether this secret has not been counted there in the longest window's time."""
        windows = self._windows[scope]
        if not windows:
            return False
        told = repr((scope, name, login, secret)).encode("ascii", "backslashreplace")
        digest = hashlib.blake2b(told, key=self._key, digest_size=16).hexdigest()
        once = Want(digest, Window(1, windows[-1].seconds, ""))
        try:
            return self._wrong.take([once], self._counters.now(), True).shortage is None
        except (sqlite3.Error, OSError):
            return True  # what workers share is away, which the counters say

    # What is counted.

    def _whence(self, session: Session) -> Scopes:
        return {} if session.remoteAddress in self._excepted else _whence(session)

    def _wants(self, scopes: Scopes) -> list[Want]:
        return [
            Want(_prefix(scope, window) + name, window, 1, window.amount)
            for scope, name in scopes.items()
            for window in self._windows[scope]
        ]

    def _isKnown(self, name: str) -> Want:
        return Want(f"known/{name}", self._known)


@attrs.define(eq=False)
class Attempt:
    """One login.

    :param login: the name that was tried, as a digest: people type passwords in its place; empty
        where the credentials have none, which are all not one login.
    :param whence: the address and the network it comes from.
    :ivar isKnown: whether this login is known at this address.
    :ivar underWay: the keys under which it takes up room.
    """

    login: str
    whence: Scopes
    isKnown: bool = False
    underWay: Sequence[str] = ()

    @property
    def pair(self) -> str:
        """The login at the address, as a name."""
        return f"{self.whence.get('address', '')}/{self.login}"

    @property
    def own(self) -> Scopes:
        """Where its failures are counted when it is known there."""
        return {"known": self.pair}

    @property
    def others(self) -> Scopes:
        """Where they are counted otherwise."""
        return {**self.whence, "login": self.login} if self.login else self.whence


def _prefix(scope: str, window: Window) -> str:
    return f"failed/{scope}/{window.amount}/{window.seconds}/"


def _whence(session: Session) -> Scopes:
    address = session.remoteAddress
    return {"address": addressOf(address), "network": networkOf(address)} if address else {}


def _loginOf(credentials: Any) -> str:
    """The name that is tried, without case, which most back ends do not care for."""
    username: bytes = getattr(credentials, "username", b"")
    return hashlib.blake2b(username.lower(), digest_size=16).hexdigest() if username else ""


def _secretOf(credentials: Any) -> bytes | None:
    """The password or token; ``None`` where each attempt has another answer (CRAM-MD5, SCRAM)."""
    for name in ("password", "token"):
        secret = getattr(credentials, name, None)
        if isinstance(secret, bytes):
            return secret
    return None


def _after(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Fires so much later; can be cancelled."""
    waiting: Deferred[None] = Deferred(lambda _: call.cancel())
    call = clock.callLater(seconds, waiting.callback, None)
    return waiting


def _unlessRefused(failure: Failure) -> None:
    failure.trap(Refused)


def _ignored(taken: Taken | None) -> None:
    """Whether it was known before does not matter."""
