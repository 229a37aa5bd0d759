"""Who owns which addresses, asked of an SQL data base.

The query is the operator's (query.py); its parameters are ``:login``, ``:address`` and ``:domain``.
Each row is an address that the login may send from, or a pattern as in addresses.py, and perhaps a
second column: ``as`` (also NULL) or ``on-behalf``.  No rows mean no right.  The address is asked as
equality.py writes it, in lower case and with A-labels.

Its answer is remembered for a short time.  A row that makes no sense gives no right, and the log
says so.  When the data base does not answer, that is 451 4.3.0, and the next message asks again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from submitd import events
from submitd.equality import sameAddress
from submitd.policies.addresses import Addresses, readPattern
from submitd.policies.rights import RIGHTS, Right, best, give
from submitd.query import NoAnswer, Query, Rows
from submitd.threads import Run, deferToThread
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR

PARAMETERS = frozenset({"login", "address", "domain"})

MAX_REMEMBERED = 10_000
"""Answers that are remembered at one time."""

Asked = tuple[tuple[str, str], ...]


class OwnersQuery:
    """The query, and its latest answers.

    :param url: the data base, as SQLAlchemy writes it, such as ``"postgresql:///mail"``.
    :param query: the statement.
    :param keep: seconds for which an answer is remembered.
    :param run: runs a function in a thread and gives a Deferred.
    :param seconds: tells the time.
    :raise ValueError: for a URL or a statement that cannot be used; says why.
    """

    def __init__(
        self,
        url: str,
        query: str,
        keep: float,
        run: Run = deferToThread,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._query = Query(url, query, PARAMETERS, run)
        self._keep = keep
        self._seconds = seconds
        self._known: OrderedDict[Asked, tuple[float, Addresses[Right]]] = OrderedDict()

    @property
    def name(self) -> str:
        """The data base as logs show it; a password is not shown."""
        return self._query.name

    def check(self) -> list[str]:
        """Ask once; what is wrong, in sentences; for ``IChecked``."""
        return self._query.check()

    async def right(self, login: str, mailbox: Mailbox) -> Right:
        """What the login may do with an address.

        :raise Refused: 451 4.3.0 when the data base does not say.
        """
        localPart, domain = sameAddress(mailbox)
        values = {"login": login, "address": f"{localPart}@{domain}", "domain": domain}
        asked = tuple((name, values[name]) for name in self._query.parameters)
        until, answer = self._known.get(asked, (0.0, None))
        if answer is None or until < self._seconds():
            answer = await self._ask(asked)
        return best(answer.find(mailbox))

    async def _ask(self, asked: Asked) -> Addresses[Right]:
        try:
            rows = await self._query.ask(dict(asked))
        except NoAnswer as error:
            raise Refused(LOCAL_ERROR, str(error)) from None
        return self._remember(asked, self._read(rows))

    def _remember(self, asked: Asked, answer: Addresses[Right]) -> Addresses[Right]:
        self._known[asked] = (self._seconds() + self._keep, answer)
        self._known.move_to_end(asked)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return answer

    def _read(self, rows: Rows) -> Addresses[Right]:
        answer: Addresses[Right] = Addresses()
        broken = 0
        for address, *kind in rows:
            try:
                right = RIGHTS[kind[0] if kind and kind[0] is not None else "as"]
                give(answer, readPattern(address.encode("utf-8")), right)
            except (ValueError, KeyError, AttributeError):
                broken += 1
        if broken:
            problem = f"{broken} rows of the query make no sense"
            events.emit(events.FILE_PROBLEM, file=self.name, problem=problem)
        return answer
