"""What a filter wants changed in a message, behind its end.

:class:`Changes` looks at each change as it comes: what makes no sense, or was not negotiated, or is
too much, is :class:`submitd.wire.milter.MilterError`, and then nothing is done.  When the filter
has had its last word all of them are done, in their order, or none.

Places are those of the message as it is then, so that what is removed or added moves what stands
below it.  The service's own Received field has place 0, cannot be changed, and is not counted among
the fields of its name.  At place 0 a field is put above it, and is not seen by policies behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from submitd.envelope import Envelope, Recipient
from submitd.equality import sameAddress
from submitd.extensions.dsn import DSN
from submitd.interfaces import IHeldMessage
from submitd.message.header import Header
from submitd.wire import milter
from submitd.wire.address import Mailbox
from submitd.wire.command import parseMail, parseRcpt
from submitd.wire.errors import Refused
from submitd.wire.milter import Action, MilterError, Negotiated, Step

# Changes that a filter may want of one message, without those of the body, and their octets.
MAX_CHANGES = 1000
MAX_CHANGED = 1024 * 1024
# Characters of the reason for which a message is held.
MAX_REASON = 200

_BARE_LF = re.compile(rb"(?<!\r)\n")
_BARE_CR = re.compile(rb"\r(?!\n)")


class Changes:
    """What a filter wants changed in one message.

    :param envelope: its mail transaction.
    :param header: its header section.
    :param negotiated: what the filter may do.
    :param held: the message, where it is kept back.
    :ivar quarantine: why the message is to be held, or ``None``.
    """

    def __init__(
        self,
        envelope: Envelope,
        header: Header,
        negotiated: Negotiated,
        held: IHeldMessage | None,
    ) -> None:
        self.quarantine: str | None = None
        self._envelope = envelope
        self._header = header
        self._actions = negotiated.actions
        self._separator = b":" if negotiated.steps & Step.LEADING_SPACE else b": "
        self._held = held
        self._calls: list[Callable[[], object]] = []
        # Each with what it is compared by, for there may be a thousand, and as many changes.
        self._recipients = [(sameAddress(each.mailbox), each) for each in envelope.recipients]
        self._octets = 0
        self._body = _WholeLines(isBinary=envelope.bodyType == "BINARYMIME")
        self._read: Mapping[type, Callable[[Any], Callable[[], object]]] = {
            milter.AddHeader: self._addHeader,
            milter.InsertHeader: self._insertHeader,
            milter.ChangeHeader: self._changeHeader,
            milter.ChangeSender: self._changeSender,
            milter.AddRecipient: self._addRecipient,
            milter.DeleteRecipient: self._deleteRecipient,
            milter.Quarantine: self._quarantine,
        }

    def add(self, change: milter.Modification) -> None:
        """Look at one change.

        :raise MilterError: when it makes no sense, or the filter has not negotiated it.
        :raise Refused: when a body cannot be kept.
        """
        if not milter.NEEDED[type(change)] & self._actions:
            raise MilterError(f"{type(change).__name__}, which it did not negotiate")
        if isinstance(change, milter.ReplaceBody):
            assert self._held is not None
            self._held.replaceBody(self._body.feed(change.octets))
            return
        self._octets += sum(len(each) for each in attrs.astuple(change) if type(each) is not int)
        if len(self._calls) >= MAX_CHANGES or self._octets > MAX_CHANGED:
            raise MilterError("too many changes")
        try:
            self._calls.append(self._read[type(change)](change))
        except (ValueError, Refused) as error:
            raise MilterError(f"{type(change).__name__}: {error}") from None

    def apply(self) -> None:
        """The filter agrees to the message: do it all.

        :raise MilterError: when the body that it sent cannot be one; nothing has been done.
        """
        rest = self._body.finish()
        if rest:
            assert self._held is not None
            self._held.replaceBody(rest)
        for call in self._calls:
            call()
        envelope, recipients = self._envelope, [each for _, each in self._recipients]
        if recipients != envelope.recipients:
            envelope.asked = envelope.known
            envelope.recipients = recipients

    # Header fields.

    def _field(self, name: bytes, value: bytes) -> bytes:
        """A header field as messages have it.

        :raise ValueError: when it would be none, or more than one.
        """
        value = value.replace(b"\r\n", b"\n").rstrip(b"\n").replace(b"\n", b"\r\n")
        field = name + self._separator + value + b"\r\n"
        Header(b"").append(field)
        if not field.isascii() and not self._envelope.smtpUtf8:
            raise ValueError("is not ASCII and SMTPUTF8 was not asked for")
        return field

    def _addHeader(self, change: milter.AddHeader) -> Callable[[], object]:
        field = self._field(change.name, change.value)
        return lambda: self._header.append(field)

    def _insertHeader(self, change: milter.InsertHeader) -> Callable[[], object]:
        field = self._field(change.name, change.value)
        if change.index > 0:
            return lambda: self._header.insert(change.index - 1, field)
        message = self._envelope.message
        assert message is not None
        return lambda: message.prepend(field)

    def _changeHeader(self, change: milter.ChangeHeader) -> Callable[[], object]:
        field = self._field(change.name, change.value) if change.value else b""

        def apply() -> None:
            found = self._header.change(change.name.lower(), max(change.index, 1), field)
            if field and not found:
                self._header.append(field)

        return apply

    # The envelope.

    def _changeSender(self, change: milter.ChangeSender) -> Callable[[], object]:
        envelope = self._envelope
        path, parameters = parseMail(b"FROM:" + _bracketed(change.path, change.parameters))
        self._mustBeAscii(path.mailbox)
        _parameters(parameters, DSN.mailParameters, attrs.evolve(envelope))

        def apply() -> None:
            envelope.reversePath = path
            _parameters(parameters, DSN.mailParameters, envelope)

        return apply

    def _addRecipient(self, change: milter.AddRecipient) -> Callable[[], object]:
        mailbox, parameters = parseRcpt(b"TO:" + _bracketed(change.path, change.parameters))
        self._mustBeAscii(mailbox)
        recipient = Recipient(mailbox, parameters)
        _parameters(parameters, DSN.rcptParameters, self._envelope, recipient)

        same = sameAddress(mailbox)

        def apply() -> None:
            if all(other != same for other, _ in self._recipients):
                self._recipients.append((same, recipient))

        return apply

    def _deleteRecipient(self, change: milter.DeleteRecipient) -> Callable[[], object]:
        same = sameAddress(parseRcpt(b"TO:" + _bracketed(change.path))[0])

        def apply() -> None:
            self._recipients = [each for each in self._recipients if each[0] != same]

        return apply

    def _mustBeAscii(self, mailbox: Mailbox | None) -> None:
        if mailbox is not None and not mailbox.isAscii and not self._envelope.smtpUtf8:
            raise ValueError("is not ASCII and SMTPUTF8 was not asked for")

    def _quarantine(self, change: milter.Quarantine) -> Callable[[], object]:
        shown = "".join(each if each.isprintable() else "?" for each in change.reason[:MAX_REASON])

        def apply() -> None:
            self.quarantine = shown

        return apply


def _bracketed(path: bytes, parameters: bytes = b"") -> bytes:
    whole = path if path.startswith(b"<") else b"<" + path + b">"
    return whole + b" " + parameters if parameters else whole


def _parameters(parameters: Mapping[str, str | None], known: Any, *where: Any) -> None:
    """Apply ESMTP parameters: those of DSN (RFC 3461), which nobody else needs to have offered.

    :raise ValueError: for any other.
    :raise Refused: for a value that it cannot have.
    """
    for keyword, value in parameters.items():
        if keyword not in known:
            raise ValueError(f"parameter {keyword}")
        known[keyword](None, *where, value)


class _WholeLines:
    """The body that a filter sends, its lines ended with CRLF: some end them with LF alone.

    :param isBinary: whether it may have anything in it (RFC 3030).
    """

    def __init__(self, isBinary: bool) -> None:
        self._isBinary = isBinary
        self._last = b""

    def feed(self, octets: bytes) -> bytes:
        """Some more of it.

        :raise MilterError: for a CR that ends no line, and for a NUL.
        """
        if self._isBinary:
            return octets
        if self._last == b"\r":  # kept back until what follows it had come
            octets = self._last + octets
        self._last = octets[-1:] or self._last
        whole = octets.removesuffix(b"\r") if self._last == b"\r" else octets
        if b"\0" in whole or _BARE_CR.search(whole):
            raise MilterError("a body with a NUL, or a CR that ends no line")
        return _BARE_LF.sub(b"\r\n", whole)

    def finish(self) -> bytes:
        """What is missing at its end.

        :raise MilterError: as :meth:`feed`.
        """
        if self._last == b"\r" and not self._isBinary:
            raise MilterError("a body that ends with a CR")
        return b"" if self._isBinary or self._last in (b"", b"\n") else b"\r\n"


# What the filter may do to a message that must be kept back until then.
HOLDS = Action.ADD_HEADER | Action.CHANGE_HEADER | Action.CHANGE_BODY
