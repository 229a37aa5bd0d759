"""Policy ``sender-owner``: who may send as whom (RFC 6409 6.1, 8.1).

MAIL FROM must belong to the login, and with ``header`` so must every mailbox in From and Sender of
the message.  A login that is an address owns it.  More addresses come from a file, from an SQL
query, and from what the back end knows about the person: its attributes ``addresses`` and
``on_behalf_of``, lists of addresses.  With ``subaddress`` who owns ``user@example.com`` owns
``user+anything@example.com``.

Each line of the file is ``ADDRESS LOGIN [LOGIN ...]``.  ``@DOMAIN`` stands for all addresses of a
domain, ``@*.DOMAIN`` for those of all domains below it; ``#`` begins a comment.  ``on-behalf:``
between the logins says that those behind it may send on behalf of the address, ``as:`` ends that.
The file is read again when it changes.

The query has bound parameters, ``:login`` and perhaps ``:address`` and ``:domain``; each of its
rows is an address or pattern that the login may use, and perhaps ``as`` or ``on-behalf``.

Who sends on behalf of somebody is named by Sender: it is added, or put in the place of another that
is not the login's own.  Addresses are compared without case, and an A-label is the same as its
U-label; so are logins that are addresses, and other logins letter by letter.

Refused: without a login 530 5.7.0; somebody else's address, and the null reverse-path unless
``allow_null``, 553 5.7.1 at MAIL, and 550 5.7.1 behind the message, with the field named; a header
section in which From cannot be told for certain, or that has more than 100 mailboxes there, 550
5.6.0.  A message without From claims nothing; message-fixups refuses it.  The reply never tells
whose an address is.  A data base that does not answer is 451 4.3.0.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import attrs
from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.interfaces import IChecked, IHeaderPolicy, ISenderPolicy, ISubmitter, IWarns
from submitd.message.header import Header
from submitd.message.mailboxes import readMailboxes
from submitd.policies.addresses import Addresses, WatchedFile, readPattern
from submitd.policies.logins import sameLogin
from submitd.policies.ownersquery import OwnersQuery
from submitd.policies.rights import RIGHTS, Right, best, give
from submitd.session import Session
from submitd.typed import Seconds
from submitd.wire.address import Mailbox, readMailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import LOGIN_REQUIRED, UTF8_ADDRESS, Reply

NOT_OWNED = Reply(553, "5.7.1", "Sender address rejected: not owned by user")
FROM_NOT_OWNED = Reply(550, "5.7.1", "Address in From rejected: not owned by user")
SENDER_NOT_OWNED = Reply(550, "5.7.1", "Address in Sender rejected: not owned by user")
NO_OWN_ADDRESS = Reply(550, "5.7.1", "Sending on behalf of others needs a sender of your own")
MALFORMED = Reply(550, "5.6.0", "Header is malformed")

MAX_MAILBOXES = 100
"""Mailboxes in From or Sender; each of them is looked up."""

Owned = dict[str, Right]
Rights = dict[Mailbox, Right]


@implementer(ISenderPolicy, IHeaderPolicy, IChecked, IWarns)
@attrs.define(eq=False)
class SenderOwner:
    """Refuses senders that do not belong to the login.

    :param map: a file that gives logins more addresses; ``None`` for none.
    :param url: a data base to ask; empty for none.
    :param query: what it is asked.
    :param cache: seconds for which its answers are remembered.
    :param subaddress: what separates a user from the rest of a local part; empty for nothing.
    :param header: whether From and Sender of the message are looked at.
    :param allow_null: whether ``MAIL FROM:<>`` may be used, as for reports.
    :raise ValueError: for a URL without a query, or one of them that cannot be used.
    """

    name: ClassVar[str] = "sender-owner"

    map: Path | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(Path),
        metadata={
            "help": "A file of lines ADDRESS LOGIN [LOGIN ...] that gives more addresses; logins "
            'behind the word "on-behalf:" may send on behalf of the address.'
        },
    )
    url: str = attrs.field(
        default="",
        repr=False,
        metadata={
            "help": 'A data base that gives more addresses, such as "postgresql://user@host/mail" '
            "or another URL of SQLAlchemy's."
        },
    )
    query: str = attrs.field(
        default="",
        metadata={
            "help": "What it is asked; :login, :address and :domain are bound. Each row is an "
            'address, "@DOMAIN" or "@*.DOMAIN", and perhaps "as" or "on-behalf".'
        },
    )
    cache: Seconds = attrs.field(
        default=Seconds(60.0),
        metadata={"help": "How long an answer of the data base is remembered."},
    )
    subaddress: str = attrs.field(
        default="",
        metadata={
            "help": 'What separates user and detail in a local part, such as "+"; the owner of '
            "user@domain owns user+detail@domain then. Empty for nothing."
        },
    )
    header: bool = attrs.field(
        default=True,
        metadata={
            "help": "Whether the addresses in From and Sender of the message must belong to the "
            "login, too."
        },
    )
    allow_null: bool = attrs.field(
        default=False,
        metadata={
            "help": "Whether anybody may use the null sender <>, as mail programs do for read "
            "receipts (RFC 8098)."
        },
    )
    _file: WatchedFile[Owned] | None = attrs.field(init=False, repr=False)
    _database: OwnersQuery | None = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if bool(self.url) is not bool(self.query):
            raise ValueError("url and query belong together: one of them is missing")
        self._file = None if self.map is None else WatchedFile(self.map, readLine)
        self._database = OwnersQuery(self.url, self.query, self.cache) if self.url else None

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        sources = (self._file, self._database)
        return [each for source in sources if source is not None for each in source.check()]

    def warnings(self) -> list[str]:
        """See :meth:`submitd.interfaces.IWarns.warnings`."""
        return [] if self._file is None else self._file.warnings()

    def validateFrom(
        self, session: Session, envelope: Envelope
    ) -> Coroutine[Any, Any, None] | None:
        """Refuse an address that the login does not own.

        :raise Refused: 530 5.7.0 or 553 5.7.1.
        """
        user, mailbox = _userOf(session), envelope.reversePath.mailbox
        if mailbox is None:
            if not self.allow_null:
                raise Refused(NOT_OWNED, "null sender")
            return None
        if user.owns(mailbox):
            return None

        def judge(rights: Rights) -> None:
            if rights[mailbox] is Right.NONE:
                raise _notOwned(NOT_OWNED, user, mailbox)

        return self._decide(user, (mailbox,), judge)

    def headerReceived(
        self, session: Session, envelope: Envelope, header: Header
    ) -> Coroutine[Any, Any, None] | None:
        """Refuse an author or sender that the login does not own; name who sends on behalf.

        :raise Refused: 530 5.7.0, 550 5.7.1 or 550 5.6.0.
        """
        if not self.header:
            return None
        user = _userOf(session)
        if header.isMalformed:
            raise Refused(MALFORMED, "a line that is no field")
        authors, senders = _mailboxes(header, b"from"), _mailboxes(header, b"sender")
        asked = [*authors, *senders]
        if all(map(user.owns, asked)):
            return None
        if envelope.reversePath.mailbox is not None:
            asked.append(envelope.reversePath.mailbox)
        judge = partial(self._judge, user, envelope, header, authors, senders)
        return self._decide(user, asked, judge)

    def _judge(
        self,
        user: ISubmitter,
        envelope: Envelope,
        header: Header,
        authors: list[Mailbox],
        senders: list[Mailbox],
        rights: Rights,
    ) -> None:
        for reply, mailboxes in ((FROM_NOT_OWNED, authors), (SENDER_NOT_OWNED, senders)):
            for mailbox in mailboxes:
                if rights[mailbox] is Right.NONE:
                    raise _notOwned(reply, user, mailbox)
        ownAuthors = all(rights[each] is Right.AS for each in authors)
        ownSenders = all(rights[each] is Right.AS for each in senders)
        if ownSenders and (senders or ownAuthors):
            return
        _setSender(header, _ownAddress(user, envelope, rights), envelope)

    # Rights.

    def _decide(
        self, user: ISubmitter, mailboxes: Iterable[Mailbox], judge: Callable[[Rights], None]
    ) -> Coroutine[Any, Any, None] | None:
        """Have ``judge`` told about all these mailboxes, at once where nobody has to be asked."""
        rights = {mailbox: self._right(user, mailbox) for mailbox in mailboxes}
        if self._database is None or all(right is Right.AS for right in rights.values()):
            judge(rights)
            return None
        return self._ask(self._database, user.avatarId, rights, judge)

    async def _ask(
        self, database: OwnersQuery, login: str, rights: Rights, judge: Callable[[Rights], None]
    ) -> None:
        for mailbox in rights:
            for form in self._forms(mailbox):
                if rights[mailbox] is not Right.AS:
                    rights[mailbox] = max(rights[mailbox], await database.right(login, form))
        judge(rights)

    def _right(self, user: ISubmitter, mailbox: Mailbox) -> Right:
        if user.owns(mailbox):
            return Right.AS
        forms = self._forms(mailbox)
        if any(user.owns(form) for form in forms[1:]):
            return Right.AS
        return best(right for form in forms for right in self._given(user, form))

    def _given(self, user: ISubmitter, mailbox: Mailbox) -> Iterable[Right]:
        content = None if self._file is None else self._file.content()
        if content is not None:
            login = sameLogin(user.avatarId)
            for owned in content.find(mailbox):
                yield owned.get(login, Right.NONE)
        if user.attributes:
            yield from _fromAttributes(user).find(mailbox)

    def _forms(self, mailbox: Mailbox) -> tuple[Mailbox, ...]:
        """The address, and the one that it is a subaddress of."""
        if not self.subaddress:
            return (mailbox,)
        user, separator, _ = mailbox.localPart.partition(self.subaddress)
        return (mailbox, Mailbox(user, mailbox.domain)) if separator and user else (mailbox,)


def readLine(words: list[bytes], owners: Addresses[Owned]) -> None:
    """Take a line of the file of owners.

    :raise ValueError: when it is broken; says why.
    """
    pattern, right = readPattern(words[0]), Right.AS
    given: Owned = {}
    for word in words[1:]:
        try:
            text = word.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("login is not UTF-8") from None
        if text.endswith(":"):
            if text[:-1] not in RIGHTS:
                raise ValueError(f"neither of {', '.join(f'{each}:' for each in RIGHTS)}")
            right = RIGHTS[text[:-1]]
        elif "," in text:
            raise ValueError("a comma in a login")
        else:
            login = sameLogin(text)
            given[login] = max(right, given.get(login, Right.NONE))
    if not given:
        raise ValueError("no login behind the address")
    before = owners.get(pattern) or {}
    logins = before.keys() | given.keys()
    owners.set(
        pattern, {each: best(x[each] for x in (before, given) if each in x) for each in logins}
    )


def _fromAttributes(user: ISubmitter) -> Addresses[Right]:
    own = user.attributes.get("addresses", ())
    behalf = user.attributes.get("on_behalf_of", ())
    return _addressesOf(tuple(map(str, own)), tuple(map(str, behalf)))


@lru_cache(maxsize=1024)
def _addressesOf(own: tuple[str, ...], behalf: tuple[str, ...]) -> Addresses[Right]:
    """What attributes say; what is no address in them gives nothing."""
    found: Addresses[Right] = Addresses()
    for right, texts in ((Right.AS, own), (Right.ON_BEHALF, behalf)):
        for text in texts:
            try:
                give(found, readPattern(text.encode("utf-8", "surrogatepass")), right)
            except ValueError:
                continue
    return found


def _userOf(session: Session) -> ISubmitter:
    if session.user is None:
        raise Refused(LOGIN_REQUIRED)
    return session.user


def _notOwned(reply: Reply, user: ISubmitter, mailbox: Mailbox) -> Refused:
    return Refused(reply, f"{mailbox} does not belong to {user.avatarId}")


def _mailboxes(header: Header, name: bytes) -> list[Mailbox]:
    """All mailboxes of all fields of a name: whichever of them a reader shows is looked at."""
    found: list[Mailbox] = []
    for field in header.named(name):
        try:
            mailboxes = readMailboxes(field.value, MAX_MAILBOXES)
        except ValueError as error:
            _malformed(name, str(error))
        if not mailboxes:
            _malformed(name, "no mailbox")
        found += mailboxes
        if len(found) > MAX_MAILBOXES:
            _malformed(name, "too many mailboxes")
    return found


def _malformed(name: bytes, reason: str) -> NoReturn:
    raise Refused(Reply(550, "5.6.0", f"{name.decode('ascii').title()} is malformed: {reason}"))


def _ownAddress(user: ISubmitter, envelope: Envelope, rights: Rights) -> Mailbox:
    """The address that names the login: the reverse-path where it is his own, or the login."""
    reverse = envelope.reversePath.mailbox
    if reverse is not None and rights[reverse] is Right.AS:
        return reverse
    try:
        mailbox = readMailbox(user.avatarId.encode("utf-8"))
    except ValueError:
        mailbox = None
    if mailbox is None or not mailbox.domain or not user.owns(mailbox):
        raise Refused(NO_OWN_ADDRESS, f"{user.avatarId} is no address")
    return mailbox


def _setSender(header: Header, mailbox: Mailbox, envelope: Envelope) -> None:
    if not (mailbox.isAscii or envelope.smtpUtf8):
        raise Refused(UTF8_ADDRESS, "the address for Sender is not ASCII")
    field = b"Sender: <%s>\r\n" % bytes(mailbox)
    if len(header.named(b"sender")) == 1:
        header.rewrite(b"sender", lambda _: field)
    else:
        header.remove(b"sender")
        header.append(field)
