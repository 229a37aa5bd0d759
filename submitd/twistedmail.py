"""Realms written for Twisted's own mail server, unchanged.

Such a realm gives avatars that provide ``twisted.mail.smtp.IMessageDelivery``, or
``IMessageDeliveryFactory`` for a new one with each message.  :func:`adaptAvatar` makes an
:class:`~submitd.interfaces.ISubmitter` of it, which is asked at MAIL and RCPT and takes the message
itself.  It is called as Twisted's server calls it: ``validateFrom((name, address), Address)``,
``validateTo(User)``, ``receivedHeader`` once per recipient, then each ``IMessageSMTP`` gets the
lines without their ends.  What Twisted waits for is waited for here, be it a Deferred or a
coroutine: ``validateFrom``, ``validateTo`` and ``eomReceived``.  The other methods answer at once.

``SMTPBadSender``, ``SMTPBadRcpt`` and ``SMTPServerError`` are refusals with their code and text;
any other exception is 451 4.3.0, where Twisted's server says 550 once the message is there.  When
some recipients' messages fail at the end and others don't, each has its own reply.

What differs: ``User.protocol`` is ``None``, for there is no Twisted SMTP protocol here (what it
would tell of the connection is in the realm's ``mind``, the session); a line longer than Twisted's
16384 octets refuses the message with 554.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.mail import smtp
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from submitd import events
from submitd.envelope import Envelope, Recipient
from submitd.equality import isAddressOf
from submitd.interfaces import (
    IDelivery,
    IMessage,
    IRecipientPolicy,
    ISenderPolicy,
    ISubmitter,
    ITraceField,
)
from submitd.session import Session
from submitd.waiting import promised
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, OK, Reply

# LineOnlyReceiver.MAX_LENGTH, which bounds the lines that an IMessageSMTP is given by Twisted.
MAX_LINE = 16384

TOO_LONG = Reply(554, "5.6.0", f"Message has a line longer than {MAX_LINE} octets")
BAD_ADDRESS = Reply(553, "5.1.3", "Address not supported here")

_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3}) +")
_NOTE = "twisted.mail"

Outcome = str | Sequence[Reply] | None
Maker = Callable[[], Any]


def adaptAvatar(interface: InterfaceClass, avatar: Any, avatarId: str) -> ISubmitter:
    """The avatar as a submitter.

    :param interface: what ``Portal.login`` said it is: ``ISubmitter`` or one of the two.
    :param avatar: a submitter is given back as it is.
    :param avatarId: the name for logs.
    :raise TypeError: for any other interface.
    """
    if interface.isOrExtends(ISubmitter):
        submitter: ISubmitter = avatar
        return submitter
    if interface.isOrExtends(smtp.IMessageDeliveryFactory):
        return TwistedSubmitter(avatarId, avatar.getMessageDelivery)
    if interface.isOrExtends(smtp.IMessageDelivery):
        return TwistedSubmitter(avatarId, lambda: avatar)
    raise TypeError(f"no submitter can be made of {interface.__name__}")


@attrs.define(eq=False)
class Transaction:
    """What the avatar has said in one mail transaction; kept in ``envelope.extensions``.

    :ivar origin: the sender, as the avatar gave it back.
    :ivar accepted: each recipient with the address and what makes its message.
    """

    helo: tuple[bytes, bytes]
    delivery: Any = None
    origin: Any = None
    accepted: list[tuple[Recipient, smtp.User, Maker]] = attrs.field(factory=list)
    headerGiven: bool = False


@implementer(ISubmitter, ISenderPolicy, IRecipientPolicy, IDelivery, ITraceField)
@attrs.define(eq=False)
class TwistedSubmitter:
    """One of Twisted's avatars as a submitter.

    :param avatarId: the name for logs.
    :param newDelivery: gives the ``IMessageDelivery`` for a message.
    """

    avatarId: str
    newDelivery: Callable[[], Any]
    attributes: dict[str, Any] = attrs.field(factory=dict, init=False)

    def owns(self, mailbox: Mailbox) -> bool:
        """Whether the login is that address; the avatar has its own say at MAIL."""
        return isAddressOf(self.avatarId, mailbox)

    def validateFrom(self, session: Session, envelope: Envelope) -> Deferred[None] | None:
        """Ask the avatar about the reverse-path.

        :raise Refused: as the avatar says.
        """
        helo = (session.heloName.encode("utf-8"), session.remoteAddress.encode("utf-8"))
        transaction = Transaction(helo)
        envelope.extensions[_NOTE] = transaction
        origin = _address(smtp.Address, bytes(envelope.reversePath))

        def validate() -> Any:
            transaction.delivery = self.newDelivery()
            return transaction.delivery.validateFrom(helo, origin)

        def validated(result: Any) -> None:
            if result is None:
                # Twisted's server then takes no recipient: "Must have sender before recipient".
                raise TypeError("validateFrom gave no address")
            transaction.origin = result

        return _ask(validated, validate)

    def validateTo(
        self, session: Session, envelope: Envelope, recipient: Recipient
    ) -> Deferred[None] | None:
        """Ask the avatar about a forward-path.

        :raise Refused: as the avatar says.
        """
        transaction = _transaction(envelope)
        path = b"<%b>" % bytes(recipient.mailbox)
        user = _address(smtp.User, path, transaction.helo, None, transaction.origin)

        def validated(maker: Any) -> None:
            if not callable(maker):
                raise TypeError("validateTo gave nothing that makes a message")
            transaction.accepted.append((recipient, user, maker))

        return _ask(validated, transaction.delivery.validateTo, user)

    def begin(self, session: Session, envelope: Envelope) -> TwistedMessage:
        """Make the recipients' messages, and give each its Received header.

        :raise Refused: when one of them cannot be made; then the others are told to forget it.
        """
        transaction = _transaction(envelope)
        message = TwistedMessage(session.id, envelope.id)
        try:
            for recipient, user, maker in transaction.accepted:
                # A policy behind us may have refused one that the avatar took.
                if any(recipient is each for each in envelope.recipients):
                    self._add(message, transaction, user, maker)
        except Exception as error:
            message.connectionLost()
            raise _translated(error) from error
        return message

    def _add(
        self, message: TwistedMessage, transaction: Transaction, user: smtp.User, maker: Maker
    ) -> None:
        target = maker()
        message.targets.append(target)
        header = transaction.delivery.receivedHeader(transaction.helo, transaction.origin, [user])
        if header:
            transaction.headerGiven = True
            data = header.encode("utf-8") if isinstance(header, str) else header
            for line in data.splitlines():
                target.lineReceived(line)

    def receivedField(self, session: Session, envelope: Envelope) -> bytes | None:
        """Nothing, when the avatar's own is already there; else ``None``, for the service's."""
        return b"" if _transaction(envelope).headerGiven else None


@implementer(IMessage)
@attrs.define(eq=False)
class TwistedMessage:
    """A message on its way to several ``IMessageSMTP``, one per recipient.

    :param session: the session's id, for logs.
    :param id: the queue id, for logs.
    """

    session: str
    id: str
    targets: list[Any] = attrs.field(factory=list, init=False)
    _rest: bytes = attrs.field(default=b"", init=False)

    def dataReceived(self, chunk: bytes) -> None:
        """Cut into lines.

        :raise Refused: as a target says, or 554 when a line is too long.
        """
        lines = (self._rest + chunk).split(b"\r\n")
        self._rest = lines.pop()
        # One octet more: the CR of a CRLF whose LF has not come yet.
        if len(self._rest) > MAX_LINE + 1:
            raise Refused(TOO_LONG)
        for line in lines:
            self._feed(line)

    def _feed(self, line: bytes) -> None:
        if len(line) > MAX_LINE:
            raise Refused(TOO_LONG)
        try:
            for target in self.targets:
                target.lineReceived(line)
        except smtp.SMTPServerError as error:
            raise _translated(error) from error

    def prepend(self, fields: bytes) -> None:
        """Header fields can't go in front of lines that were handed on.

        :raise Refused: 451 4.3.0.
        """
        raise Refused(LOCAL_ERROR, "an IMessageDelivery takes no header fields afterwards")

    def eomReceived(self) -> Deferred[Outcome]:
        """Have every target commit, and wait for all.

        :raise Refused: as the first one says, when all fail.
        """
        if self._rest:  # BDAT may end without CRLF
            self._feed(self._rest)
        waiting = [maybeDeferred(target.eomReceived) for target in self.targets]
        return DeferredList(waiting, consumeErrors=True).addCallback(self._committed)

    def _committed(self, results: list[tuple[bool, Any]]) -> Outcome:
        refusals = [None if success else self._refusal(value) for success, value in results]
        failed = [refused for refused in refusals if refused is not None]
        if not failed:
            return None
        if len(failed) == len(refusals):
            raise failed[0]
        return [OK if refused is None else refused.reply for refused in refusals]

    def _refusal(self, failure: Failure) -> Refused:
        error = _translated(failure.value)
        if isinstance(error, Refused):
            return error
        events.emit(
            events.POLICY_FAILED, session=self.session, origin="IMessageSMTP", failure=failure
        )
        return Refused(LOCAL_ERROR, f"{type(error).__name__} at the end of the message")

    def connectionLost(self) -> None:
        """Have every target forget it; one that fails keeps none from being told."""
        targets, self.targets = self.targets, []
        for target in targets:
            maybeDeferred(target.connectionLost).addErrback(self._failedToForget)

    def _failedToForget(self, failure: Failure) -> None:
        events.emit(
            events.POLICY_FAILED, session=self.session, origin="IMessageSMTP", failure=failure
        )


def _transaction(envelope: Envelope) -> Transaction:
    transaction: Transaction = envelope.extensions[_NOTE]
    return transaction


def _address(kind: Callable[..., Any], *arguments: Any) -> Any:
    """One of Twisted's addresses, which are ASCII and know fewer of them than RFC 5321."""
    try:
        return kind(*arguments)
    except smtp.AddressError as error:
        raise Refused(BAD_ADDRESS, str(error)) from error


def _ask(
    validated: Callable[[Any], None], call: Callable[..., Any], *arguments: Any
) -> Deferred[None] | None:
    """Call the avatar, and look at what it says now or later."""
    try:
        result = call(*arguments)
    except smtp.SMTPServerError as error:
        raise _translated(error) from error
    result = promised(result)
    if isinstance(result, Failure):  # maybeDeferred, by which Twisted asks, takes it for raised
        result = fail(result)
    if isinstance(result, Deferred):
        return result.addCallbacks(validated, _translateFailure)
    validated(result)
    return None


def _translateFailure(failure: Failure) -> Failure:
    error = _translated(failure.value)
    return failure if error is failure.value else Failure(error)


def _translated(error: BaseException | None) -> BaseException:
    """The refusal that one of Twisted's exceptions stands for, or the exception as it is."""
    assert error is not None  # a Failure's value, by its type
    if not isinstance(error, smtp.SMTPServerError):
        return error
    text = error.resp.decode("utf-8", "replace") if isinstance(error.resp, bytes) else error.resp
    if not 400 <= error.code <= 599:
        return Refused(LOCAL_ERROR, f"refusal with code {error.code}: {text}")
    # RFC 3463 3.2, 3.1: "other address status", "other undefined status"
    subject = 1 if isinstance(error, smtp.SMTPBadSender | smtp.SMTPBadRcpt) else 0
    status = f"{error.code // 100}.{subject}.0"
    given = _STATUS.match(text)
    if given is not None and given[1][0] == status[0]:
        status, text = given[1], text[given.end() :]
    return Refused(Reply(error.code, status, text), type(error).__name__)
