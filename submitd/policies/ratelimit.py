"""Policy ``rate-limit``: how many messages and recipients in which time.

Counted per login, per client address, per network (the /64 of an IPv6 address), per domain of the
reverse-path, and in all; each in any number of moving windows at once, such as ``"100/hour,
1000/day"``.  What has no login, address or domain is not counted there.  With ``logins`` it is for
some logins alone, with ``except_logins`` for all others: they are neither counted nor refused.

At MAIL it looks how much room there is, and refuses with 450 4.7.1 when there is none.  A recipient
beyond the room is refused with 452 4.5.3, and the others go on.  Both say until when.  At DATA the
message and its recipients are counted in all windows together, or in none.  So what was refused
before, or given up, has cost nothing; from DATA on a message counts, whatever becomes of it.

LIMITS (RFC 9422) tells the client how many recipients and messages there is room for.  When a
window is filled to the part that is called ``warn_at``, an event says so, once in its time.  Counts
are kept in memory, or in a Redis that several nodes share (``storage``); without it,
``on_failure`` decides.  Nothing waits.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from submitd import events
from submitd.counters.counters import Counters
from submitd.counters.names import addressOf, networkOf, shortened
from submitd.counters.shared import SharedCounts
from submitd.counters.windows import Room, Taken, Want, Window, parseWindows
from submitd.envelope import Envelope, Recipient
from submitd.equality import sameDomain
from submitd.interfaces import (
    IChecked,
    IDataPolicy,
    IHelloPolicy,
    IRecipientPolicy,
    IRehearsed,
    IRunning,
    ISenderPolicy,
    IShared,
)
from submitd.policies.addresses import Addresses
from submitd.policies.logins import includes, readLogins
from submitd.session import Session
from submitd.typed import Rates, Seconds
from submitd.waiting import then
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

# How many warnings are remembered, so that each comes once in its window.
_MAX_WARNED = 10_000

_WHOSE = {
    "login": "this login",
    "address": "this address",
    "network": "this network",
    "domain": "this sender domain",
    "all": "all senders",
}


# No rates at all.
ANY = Rates("")


@attrs.frozen
class Limit:
    """One window of one scope.

    :param scope: ``login``, ``address``, ``network``, ``domain`` or ``all``.
    :param what: ``messages`` or ``recipients``.
    :param mark: the count at which to warn; 0 for never.
    :param whose: what its counts are kept apart by, of a section that is not for everybody.
    """

    scope: str
    what: str
    window: Window
    mark: int
    whose: str = ""
    prefix: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        window = self.window
        prefix = f"{self.what}/{self.scope}/{window.amount}/{window.seconds}/{self.whose}"
        object.__setattr__(self, "prefix", prefix)

    def want(self, name: str, cost: int) -> Want:
        """What is asked of the counters for somebody."""
        return Want(self.prefix + name, self.window, cost, self.mark)

    def refusal(self, code: int, status: str, until: str) -> Refused:
        """The refusal for somebody who has no room."""
        said = f"Too many {self.what}: {self.window.text} for {_WHOSE[self.scope]}"
        return Refused(Reply(code, status, f"{said}; try again after {until}"))


Asked = list[tuple[Limit, str]]
"""The limits that concern somebody, each with whom it counts."""


@attrs.define(eq=False)
class Look:
    """What was seen at MAIL.

    :param id: of the envelope.
    :param asked: which limits concern it.
    :param wants: what a message to one recipient wants of them.
    :param least: the limit with the least room for recipients, where there is one.
    """

    id: str
    asked: Asked
    wants: list[Want]
    least: tuple[Limit, Room] | None = None


@implementer(
    IHelloPolicy,
    ISenderPolicy,
    IRecipientPolicy,
    IDataPolicy,
    IRunning,
    IShared,
    IRehearsed,
    IChecked,
)
@attrs.define(eq=False)
class RateLimit:
    """Refuses what is too much.

    :raise ValueError: for rates or a storage that are none.
    """

    name: ClassVar[str] = "rate-limit"

    messages_per_login: Rates = attrs.field(
        default=ANY, metadata={"help": "Messages of one login."}
    )
    messages_per_address: Rates = attrs.field(
        default=ANY, metadata={"help": "Messages from one client address."}
    )
    messages_per_network: Rates = attrs.field(
        default=ANY,
        metadata={
            "help": "Messages from one network: the /64 of an IPv6 address, or one IPv4 address."
        },
    )
    messages_per_domain: Rates = attrs.field(
        default=ANY, metadata={"help": "Messages of one domain of senders."}
    )
    messages_in_all: Rates = attrs.field(
        default=ANY, metadata={"help": "Messages of everybody together."}
    )
    recipients_per_login: Rates = attrs.field(
        default=ANY, metadata={"help": "Recipients of one login."}
    )
    recipients_per_address: Rates = attrs.field(
        default=ANY, metadata={"help": "Recipients from one client address."}
    )
    recipients_per_network: Rates = attrs.field(
        default=ANY, metadata={"help": "Recipients from one network."}
    )
    recipients_per_domain: Rates = attrs.field(
        default=ANY, metadata={"help": "Recipients of one domain of senders."}
    )
    recipients_in_all: Rates = attrs.field(
        default=ANY, metadata={"help": "Recipients of everybody together."}
    )
    logins: tuple[str, ...] = attrs.field(
        default=(),
        converter=tuple,
        metadata={
            "help": 'For whom this section is: logins, "@DOMAIN" or "@*.DOMAIN". Empty for all.'
        },
    )
    except_logins: tuple[str, ...] = attrs.field(
        default=(),
        converter=tuple,
        metadata={"help": "Logins for whom it is not, written in the same way."},
    )
    warn_at: float = attrs.field(
        default=0.8,
        validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)],
        metadata={"help": "The part of a window at which an event warns; 0 for never."},
    )
    storage: str = attrs.field(
        default="memory",
        repr=False,
        metadata={
            "help": 'Where counts are kept: "memory", or the URL of a Redis, such as '
            '"redis://127.0.0.1:6379/0" or "redis+unix:///run/redis/redis.sock".'
        },
    )
    on_failure: Literal["open", "closed"] = attrs.field(
        default="open",
        metadata={"help": 'While the Redis is away: "open" lets all pass, "closed" nothing.'},
    )
    timeout: Seconds = attrs.field(
        default=Seconds(1.0),
        validator=attrs.validators.gt(Seconds(0.0)),
        metadata={"help": "How long an answer of the Redis is waited for."},
    )
    _limits: tuple[Limit, ...] = attrs.field(init=False, repr=False)
    _logins: Addresses[bool] = attrs.field(init=False, repr=False)
    _others: Addresses[bool] = attrs.field(init=False, repr=False)
    _counters: Counters = attrs.field(init=False, repr=False)
    _note: str = attrs.field(init=False, repr=False)
    _warned: OrderedDict[str, float] = attrs.field(init=False, repr=False, factory=OrderedDict)

    def __attrs_post_init__(self) -> None:
        self._logins = readLogins("logins", self.logins)
        self._others = readLogins("except_logins", self.except_logins)
        whose = self._whose()
        self._limits = tuple(
            Limit(scope, what, window, math.ceil(self.warn_at * window.amount), whose)
            for what in ("messages", "recipients")
            for scope in _WHOSE
            for window in parseWindows(self._said(what, scope))
        )
        self._counters = Counters(self.storage, self.on_failure, self.timeout, self.name)
        self._note = f"{self.name} {id(self)}"  # there may be several of these

    @property
    def _isForAll(self) -> bool:
        return not (self.logins or self.except_logins)

    def _whose(self) -> str:
        # Two sections for others may have the same rates, and the same Redis.
        if self._isForAll:
            return ""
        said = repr((sorted(self.logins), sorted(self.except_logins)))
        return f"{hashlib.blake2b(said.encode(), digest_size=8).hexdigest()}/"

    def _said(self, what: str, scope: str) -> str:
        said: str = getattr(self, f"{what}_{'in' if scope == 'all' else 'per'}_{scope}")
        return said

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        found = [] if self._limits else ["limits nothing: there are no rates"]
        return found + self._counters.check()

    def share(self, storage: SharedCounts) -> None:
        """See :meth:`submitd.interfaces.IShared.share`."""
        self._counters.share(storage)

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

    def helloReceived(self, session: Session, domain: str) -> Any:
        """Have LIMITS show how much room there is; nobody is refused for saying hello."""
        if self._isForAll:  # who has not logged in yet will not have more than that
            for limit in self._limits:
                self._announce(session, limit, limit.window.amount)
        asked = self._concerning(session, None)
        if not asked:
            return None
        try:
            rooms = self._counters.rooms(_wants(asked))
        except Refused:
            return None
        if isinstance(rooms, Deferred):
            return rooms.addCallbacks(self._seen, _pass, (session, asked))
        return self._seen(rooms, session, asked)

    def _seen(self, rooms: list[Room] | None, session: Session, asked: Asked) -> None:
        for (limit, _), room in zip(asked, rooms or (), strict=False):
            self._announce(session, limit, room.left)

    def _announce(self, session: Session, limit: Limit, left: int) -> None:
        left = max(left, 1)  # RFC 9422 3: no value is 0
        if limit.what == "messages":
            left += session.transactions
            session.mailMax = min(session.mailMax or left, left)
        else:
            session.rcptMax = min(session.rcptMax or left, left)

    def validateFrom(self, session: Session, envelope: Envelope) -> Any:
        """Look how much room there is for this message.

        :raise Refused: 450 4.7.1 when there is none.
        """
        session.notes.pop(self._note, None)
        asked = self._concerning(session, envelope)
        if not asked:
            return None
        look = session.notes[self._note] = Look(envelope.id, asked, _wants(asked))
        return then(self._counters.rooms(look.wants), self._admit, look)

    def _admit(self, rooms: list[Room] | None, look: Look) -> None:
        if rooms is None:
            return
        least = None
        for (limit, _), room in zip(look.asked, rooms, strict=True):
            if room.left < 1:
                raise limit.refusal(450, "4.7.1", self._counters.shown(room.until))
            if limit.what == "recipients" and (least is None or room.left < least[1].left):
                least = limit, room
        look.least = least

    def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """Refuse a recipient for whom there was no room at MAIL.

        :raise Refused: 452 4.5.3.
        """
        look = session.notes.get(self._note)
        if look is None or look.least is None:
            return
        limit, room = look.least
        if len(envelope.recipients) >= room.left:
            # Of an empty window, the first to leave will be those of this message.
            until = room.until if room.used else room.until + limit.window.seconds
            raise limit.refusal(452, "4.5.3", self._counters.shown(until))

    def dataRequested(self, session: Session, envelope: Envelope) -> Any:
        """Count the message and its recipients.

        :raise Refused: 450 4.7.1 when others have taken the room since MAIL.
        """
        look = session.notes.get(self._note)
        if look is None or look.id != envelope.id:
            return None
        count = len(envelope.recipients)
        wants = look.wants if count == 1 else _wants(look.asked, count)
        return then(self._counters.take(wants), self._counted, session, look.asked)

    def _counted(self, taken: Taken | None, session: Session, asked: Asked) -> None:
        if taken is None:
            return
        if taken.shortage is not None:
            until = self._counters.shown(taken.until)
            raise asked[taken.shortage][0].refusal(450, "4.7.1", until)
        for at in taken.marked:
            self._warn(session, *asked[at])

    def _warn(self, session: Session, limit: Limit, name: str) -> None:
        key, now = limit.want(name, 1).key, self._counters.now()
        if self._warned.get(key, 0.0) > now:
            return
        self._warned[key] = now + limit.window.seconds
        self._warned.move_to_end(key)
        if len(self._warned) > _MAX_WARNED:
            self._warned.popitem(last=False)
        events.emit(
            events.LIMIT_NEAR,
            session=session.id,
            peer=session.remoteAddress,
            user=session.user.avatarId if session.user is not None else None,
            scope=f"{limit.scope} {name}".rstrip(),
            what=limit.what,
            limit=limit.window.text,
            used=f"{limit.mark} or more",
        )

    def _isFor(self, session: Session) -> bool:
        if session.user is None:
            return not self.logins
        login = session.user.avatarId
        if self.logins and not includes(self._logins, login):
            return False
        return not (self.except_logins and includes(self._others, login))

    def _concerning(self, session: Session, envelope: Envelope | None) -> Asked:
        if not self._isFor(session):
            return []
        names: dict[str, str] = {"all": ""}
        if session.user is not None:
            names["login"] = shortened(session.user.avatarId)
        if session.remoteAddress:
            names["address"] = addressOf(session.remoteAddress)
            names["network"] = networkOf(session.remoteAddress)
        if envelope is not None and envelope.reversePath.mailbox is not None:
            names["domain"] = shortened(sameDomain(envelope.reversePath.mailbox.domain))
        return [(limit, names[limit.scope]) for limit in self._limits if limit.scope in names]


def _wants(asked: Asked, recipients: int = 1) -> list[Want]:
    return [
        limit.want(name, recipients if limit.what == "recipients" else 1) for limit, name in asked
    ]


def _pass(failure: Any) -> None:
    """What cannot be told is not announced."""
