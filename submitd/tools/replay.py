"""A recorded session, said again in a rehearsal: where does it go another way now?

:func:`readSession` reads one, a :class:`Replay` goes through it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

import attrs

from submitd.tools.rehearsal import Rehearsal, Step, Verdict

_MARK = re.compile(r" \(id [A-Z2-7]{8}\)$")
_MANY = re.compile(r"[0-9]{3}-\*")
_QUEUED = re.compile(r"queued as \S+")


@attrs.define
class Turn:
    """One step of a recorded session.

    :param sent: the lines of the client as they are shown.
    :param octets: what it sends; empty for a handshake.
    :param heard: what it heard then, line by line.
    """

    sent: list[str] = attrs.Factory(list)
    octets: bytearray = attrs.Factory(bytearray)
    heard: list[str] = attrs.Factory(list)

    @property
    def isHandshake(self) -> bool:
        """Whether TLS begins here."""
        return self.sent == ["TLS"] and not self.octets


def readSession(text: str) -> list[Turn]:
    """Read a recorded session.

    Lines are ``C: TEXT`` for what the client said, ``C> OCTETS`` for octets with Python's escapes,
    ``S: TEXT`` for what it heard, where ``*`` stands for anything and ``250-*`` for any number of
    such lines, and ``TLS`` for a handshake.
    Empty lines and those that begin with ``#`` are passed over.

    :raise ValueError: for any other line.
    """
    turns = [Turn()]
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, said = line[:2], line[3:]
        if line == "TLS":
            turns += [Turn(sent=["TLS"]), Turn()]
        elif kind == "S:":
            turns[-1].heard.append(said)
        elif kind in ("C:", "C>"):
            if turns[-1].heard:
                turns.append(Turn())
            turns[-1].sent.append(said)
            turns[-1].octets += _octets(kind, said)
        else:
            raise ValueError(f"line {number} begins neither with C:, C>, S: nor TLS: {line[:60]}")
    return [turn for turn in turns if turn.sent or turn.heard]


def _octets(kind: str, said: str) -> bytes:
    """What a line of the client's, ``C:`` or ``C>``, is on the wire."""
    if kind == "C:":
        return said.encode("utf-8", "surrogateescape") + b"\r\n"
    return said.encode("latin-1", "replace").decode("unicode_escape").encode("latin-1")


@attrs.frozen
class Difference:
    """Where a session went another way.

    :param said: the client's last line before it.
    :param recorded: what was heard then.
    :param now: what is heard now.
    :param verdicts: of those who objected.
    """

    said: str
    recorded: tuple[str, ...]
    now: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


class Replay:
    """A recorded session.

    :param rehearsal: has been entered, and nothing has been said.  Where its client has a login, no
        password of the session is looked at: the first AUTH logs in as that.
    :param turns: the session.
    :ivar differences: where it went another way.
    :ivar isCut: whether it ended early, for what followed would have made no sense any more.
    """

    def __init__(self, rehearsal: Rehearsal, turns: Sequence[Turn]) -> None:
        self.rehearsal = rehearsal
        self.turns = list(turns)
        self.differences: list[Difference] = []
        self.isCut = False

    async def run(self) -> None:
        """Go through it."""
        if not self.turns or self.turns[0].sent:
            self.turns.insert(0, Turn(heard=["220 *"]))
        greeting = self.turns.pop(0)
        self._compare(greeting, await self.rehearsal.connect())
        while self.turns and not self.isCut:
            await self._take(self.turns.pop(0))

    async def _take(self, turn: Turn) -> None:
        if turn.isHandshake:
            session = self.rehearsal.protocol.dialogue.session
            if self.rehearsal.wire.startedTLS and not session.secure:
                self.rehearsal.handshake()
            return
        said = turn.sent[-1] if turn.sent else ""
        if self.rehearsal.client.login and said[:5].upper() == "AUTH ":
            while _endsIn(turn.heard, "334") and self.turns:
                turn = self.turns.pop(0)
            self._compare(attrs.evolve(turn, sent=[said[:5]]), await self.rehearsal.logIn())
            return
        count = sum(line[3:4] != "-" for line in turn.heard)
        step = await self.rehearsal.send(bytes(turn.octets), said, count)
        self._compare(turn, step)

    def _compare(self, turn: Turn, step: Step) -> None:
        now = step.lines
        if not _isAlike(turn.heard, now):
            objections = tuple(each for each in step.verdicts if each.outcome != "passed")
            self.differences.append(Difference(step.said, tuple(turn.heard), now, objections))
            # Where text, a response or a handshake was to follow, it would be taken for commands.
            waits = _endsIn(turn.heard, "3") or turn.sent[-1:] == ["STARTTLS"]
            # And who was turned away hears no more than that in all the rest.
            isTurnedAway = self.rehearsal.protocol.dialogue.turnedAway is not None
            self.isCut = waits or not now or (isTurnedAway and bool(self.turns))
        if self.rehearsal.wire.isClosed and self.turns:
            self.isCut = True


def _endsIn(heard: Sequence[str], code: str) -> bool:
    return bool(heard) and heard[-1].startswith(code)


def _isAlike(recorded: Sequence[str], now: Sequence[str]) -> bool:
    """Whether the lines match; ``250-*`` and its like stand for one line or several in a row."""
    # All ways at once: one after the other, those to share many lines out are without number.
    ends = {0}
    for line in recorded:
        ends = _behind(line, now, ends)
    return len(now) in ends


def _behind(line: str, now: Sequence[str], ends: set[int]) -> set[int]:
    """How many of the lines may be matched with this one too.

    :param ends: how many may be matched without it.
    """
    isMany = _MANY.fullmatch(line) is not None
    pattern = _plain(line).replace("[", "[[]")
    behind: set[int] = set()
    for at, heard in enumerate(now):
        mayBegin = at in ends or (isMany and at in behind)
        if mayBegin and fnmatch.fnmatchcase(_plain(heard), pattern):
            behind.add(at + 1)
    return behind


def _plain(line: str) -> str:
    """Without what is another one each time: the ids of refusals and messages."""
    return _QUEUED.sub("queued as *", _MARK.sub("", line))
