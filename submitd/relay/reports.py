"""Reports to the sender: RFC 3464 in the frame of RFC 6522, for UTF-8 as RFC 6533 has it.

A report has a text for a person, a part for programs, and the message's header, or with RET=FULL
the whole of it when it is small enough.  It has the null sender, and none is made about a message
that has it (RFC 5321 6.1): so no report is about a report.  NOTIFY decides who is told what (RFC
3461 4.1), ENVID and ORCPT are given back, and so are the times of DELIVERBY and FUTURERELEASE.

A report is ASCII unless its receiver's own address is not, or a whole message that is given back is
8-bit: what can be read everywhere arrives everywhere.
"""

from __future__ import annotations

import email
import email.charset
import email.policy
import enum
import io
import ipaddress
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.encoders import encode_quopri
from email.generator import BytesGenerator
from email.header import Header, decode_header, make_header
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import formatdate

import attrs

from submitd.envelope import Envelope, Recipient
from submitd.extensions.deliverby import KEYWORD as DELIVERBY
from submitd.extensions.deliverby import DeliverBy
from submitd.extensions.futurerelease import KEYWORD as FUTURERELEASE
from submitd.relay.capabilities import originalRecipient
from submitd.relay.outgoing import Outcome
from submitd.wire.address import NULL_PATH
from submitd.wire.command import encodeUtf8AddrXtext
from submitd.wire.reply import Reply

# Characters of the subject that the text quotes.
MAX_SUBJECT = 200

# Characters of a reply that are quoted, and octets of a line (RFC 5321 4.5.3.1.6).
MAX_REPLY = 800
MAX_LINE = 998

# Delivery time expired, which RFC 2852 4.1.3 asks for whatever the next hop has said.
LATE = "4.4.7"

# Fields and bodies stay as they are: what is given back is to be what it was.
_LEFT_ALONE = email.policy.compat32.clone(linesep="\r\n", max_line_length=None)


class Action(enum.Enum):
    """What is reported of a recipient (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"  # in the mailbox
    RELAYED = "relayed"  # at a next hop


@attrs.frozen(kw_only=True)
class Told:
    """One recipient of a report.

    :param recipient: who.
    :param action: what became of it.
    :param outcome: of the last attempt.
    :param retryUntil: for a delay, when it will be given up, in seconds since 1970.
    :param isLate: for a delay, whether it is told since the time of by-mode N is over (RFC 2852).
    """

    recipient: Recipient
    action: Action
    outcome: Outcome
    retryUntil: float | None = None
    isLate: bool = False


@attrs.frozen(kw_only=True, eq=False)
class Original:
    """The message that is reported on.

    :param envelope: its sender, ENVID, RET.
    :param arrived: when it was accepted, in seconds since 1970.
    :param content: its header section, or all of it.
    :param isWhole: whether it is all of it.
    """

    envelope: Envelope
    arrived: float
    content: bytes
    isWhole: bool = False


def isWanted(action: Action, recipient: Recipient, envelope: Envelope) -> bool:
    """Whether the sender wants to be told this of a recipient (RFC 3461 4.1).

    Without NOTIFY failures and delays are reported, and success is not.
    """
    if envelope.reversePath.isNull:
        return False
    notify = recipient.notify or ("FAILURE", "DELAY")
    wish = {Action.FAILED: "FAILURE", Action.DELAYED: "DELAY"}.get(action, "SUCCESS")
    return wish in notify


def returnsWhole(envelope: Envelope, size: int, limit: int) -> bool:
    """Whether a report of failure gives back the whole message, and not its header alone.

    :param size: octets of the message.
    :param limit: octets that are given back at most.
    """
    # Not what has to travel by TLS alone (RFC 8689 5), nor what no report could carry.
    plain = envelope.bodyType != "BINARYMIME" and not envelope.requireTLS
    return envelope.ret == "FULL" and plain and size <= limit


@attrs.frozen(kw_only=True)
class Reporter:
    """Writes reports.

    :param hostname: our own name.
    """

    hostname: str

    def report(
        self, id: str, original: Original, told: Sequence[Told], now: float
    ) -> tuple[Envelope, bytes]:
        """A report about some recipients of a message, all with the same action.

        :param id: the queue id of the report.
        :param now: the time, in seconds since 1970.
        :return: its envelope and its octets.
        """
        told = [self._placed(each) for each in told]
        sender = original.envelope.reversePath.mailbox
        assert sender is not None, "no report about a report"
        utf8 = not sender.isAscii
        kind = "global-delivery-status" if utf8 else "delivery-status"
        report = MIMEMultipart("report")
        report.set_param("report-type", kind)
        report["From"] = f"Mail Delivery System <MAILER-DAEMON@{self.hostname}>"
        report["To"] = f"<{sender}>"
        report["Subject"] = _SUBJECTS[told[0].action]
        report["Date"] = formatdate(now)
        report["Message-ID"] = f"<{id}@{self.hostname}>"
        # RFC 3834 5: so that nobody's holiday notice answers it.
        report["Auto-Submitted"] = "auto-replied"
        messageId = _headerOf(original.content).get("Message-ID", "")
        if _isPlain(messageId):
            report["References"] = messageId
        report.attach(self._text(original, told))
        report.attach(self._status(original, told, kind, utf8))
        report.attach(_returned(original, utf8))
        content = _flattened(report, utf8)
        envelope = Envelope(id, NULL_PATH, recipients=[Recipient(sender, notify=("NEVER",))])
        envelope.bodyType = "7BIT" if content.isascii() else "8BITMIME"
        envelope.smtpUtf8 = utf8
        # RFC 8689 5: what reports on such a message is one itself.
        envelope.requireTLS = original.envelope.requireTLS
        return envelope, content

    def _placed(self, told: Told) -> Told:
        # A next hop behind a socket is at our own host, and its path is nobody else's business.
        if "/" not in told.outcome.host:
            return told
        return attrs.evolve(told, outcome=attrs.evolve(told.outcome, host=self.hostname))

    def _text(self, original: Original, told: Sequence[Told]) -> Message:
        action = told[0].action
        subject = _subject(original.content)
        about = f'"{subject}"' if subject else "without a subject"
        lines = [
            f"This is the mail system at {self.hostname}.",
            "",
            f"Your message {about},",
            f"which we accepted on {formatdate(original.arrived)},",
            *_EXPLANATIONS[action],
            "",
        ]
        for each in told:
            lines += [f"  <{each.recipient.mailbox}>", f"    {_reason(each)}", ""]
        if action is Action.DELAYED and told[0].retryUntil is not None:
            lines += [f"We go on trying until {formatdate(told[0].retryUntil)}."]
            lines += ["There is nothing you have to do.", ""]
        text = "\n".join(lines)
        return _mimeText(text)

    def _status(self, original: Original, told: Iterable[Told], kind: str, utf8: bool) -> Message:
        envelope = original.envelope
        block = Message()
        if envelope.envid is not None:
            block["Original-Envelope-Id"] = envelope.envid
        block["Reporting-MTA"] = f"dns; {self.hostname}"
        block["Arrival-Date"] = formatdate(original.arrived)
        deliverBy: DeliverBy | None = envelope.extensions.get(DELIVERBY)
        if deliverBy is not None:
            block["Deliver-By-Date"] = formatdate(deliverBy.deadline)
        if FUTURERELEASE in envelope.extensions:
            block["Future-Release-Request"] = _holdRequest(envelope)
        blocks = [_recipientBlock(each, utf8) for each in told]
        part = MIMEBase("message", kind)
        if utf8:
            # The email package knows message/delivery-status as a list of blocks, and this not.
            lines = ["\n".join(f"{n}: {v}" for n, v in each.items()) for each in blocks]
            block.set_payload(_raw("\n\n".join(lines) + "\n"))
            blocks = []
        part.set_payload([block, *blocks])
        return part


_SUBJECTS = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.DELIVERED: "Your message has been delivered",
    Action.RELAYED: "Your message has been passed on",
}

_EXPLANATIONS = {
    Action.FAILED: ("could not be delivered to the recipients below. It will not be tried again.",),
    Action.DELAYED: ("has not been delivered yet to the recipients below.",),
    Action.DELIVERED: ("has been delivered to the recipients below.",),
    Action.RELAYED: (
        "has been passed on for the recipients below to another mail system, which",
        "may not confirm its delivery.",
    ),
}


def _reason(told: Told) -> str:
    outcome = told.outcome
    said = " ".join(filter(None, outcome.reply.lines))[:MAX_REPLY] or "no reason given"
    if told.action in (Action.DELIVERED, Action.RELAYED):
        return f"taken over by {outcome.host or 'the mailbox'}"
    who = f"{outcome.host} said" if outcome.isRemote and outcome.host else "reason"
    return f"{who}: {outcome.reply.code} {outcome.reply.status} {said}".replace("  ", " ")


def _holdRequest(envelope: Envelope) -> str:
    """The hold, in the client's own words (RFC 4865 5.1.2); those of a program are not known."""
    if seconds := envelope.parameters.get("HOLDFOR"):
        return f"for;{seconds}"
    if until := envelope.parameters.get("HOLDUNTIL"):
        return f"until;{until}"
    release = datetime.fromtimestamp(envelope.extensions[FUTURERELEASE], UTC)
    return f"until;{release:%Y-%m-%dT%H:%M:%SZ}"


def _recipientBlock(told: Told, utf8: bool) -> Message:
    block = Message()
    recipient, outcome = told.recipient, told.outcome
    if recipient.orcpt is not None:
        block["Original-Recipient"] = _originalRecipient(recipient.orcpt, utf8)
    block["Final-Recipient"] = _finalRecipient(recipient, utf8)
    block["Action"] = told.action.value
    block["Status"] = LATE if told.isLate else statusOf(outcome.reply, told.action)
    if outcome.host:
        # RFC 3461 6.3 (h): wherever one was reached, as before a message is given up.
        block["Remote-MTA"] = f"dns; {_domain(outcome.host)}"
    reply = outcome.reply if outcome.isRemote else outcome.saidLast
    if outcome.host and reply is not None:
        said = " ".join(reply.lines)[:MAX_REPLY]
        code = f"{reply.code} {reply.status}".strip()
        # ``smtp`` is what a next hop has said; our own words go into the text alone.
        block["Diagnostic-Code"] = f"smtp; {code} {said}".strip()
    if told.retryUntil is not None and told.action is Action.DELAYED:
        block["Will-Retry-Until"] = formatdate(told.retryUntil)
    return block


def _domain(host: str) -> str:
    """A host as RFC 3464 2.1.2 has it: an address stands in brackets, as in a mailbox."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return f"[IPv6:{host}]" if address.version == 6 else f"[{host}]"


def _originalRecipient(orcpt: tuple[str, str], utf8: bool) -> str:
    kind, address = orcpt
    # Only a command needs xtext; but the type utf-8 is written so in ASCII (RFC 6533 3).
    if utf8 or (address.isascii() and kind.lower() != "utf-8"):
        return f"{kind};{address}"
    return originalRecipient(orcpt).decode("ascii")


def _finalRecipient(recipient: Recipient, utf8: bool) -> str:
    mailbox = recipient.mailbox
    if mailbox.isAscii:
        return f"rfc822; {mailbox}"
    if utf8:
        return f"utf-8; {mailbox}"
    return "utf-8; " + encodeUtf8AddrXtext(str(mailbox)).decode("ascii")


def statusOf(reply: Reply, action: Action) -> str:
    """The status code of a recipient (RFC 3463), of the class that its action has."""
    digit = {Action.FAILED: "5", Action.DELAYED: "4"}.get(action, "2")
    if not reply.status:
        return f"{digit}.0.0"
    # A delay that has become a failure keeps its reason (RFC 3463 2).
    return digit + reply.status[1:]


def _mimeText(text: str) -> Message:
    if text.isascii():
        return MIMEText(text, "plain", "us-ascii")
    charset = email.charset.Charset("utf-8")
    charset.body_encoding = email.charset.QP
    part = MIMEText("", "plain", "utf-8")
    del part["Content-Transfer-Encoding"]
    part.set_payload(text, charset)
    return part


def _returned(original: Original, utf8: bool) -> Message:
    if original.isWhole:
        message = email.message_from_bytes(original.content)
        return MIMEMessage(message, "global" if utf8 else "rfc822")
    part = MIMEBase("message", "global-headers") if utf8 else MIMEBase("text", "rfc822-headers")
    part.set_payload(original.content.decode("ascii", "surrogateescape"))
    if not original.content.isascii() or _hasLongLine(original.content):
        encode_quopri(part)
    return part


def _hasLongLine(content: bytes) -> bool:
    return any(len(line) > MAX_LINE for line in content.split(b"\r\n"))


def _headerOf(content: bytes) -> Message:
    head, _, _ = content.partition(b"\r\n\r\n")
    return email.message_from_string(head.decode("utf-8", "replace") + "\r\n\r\n")


def _subject(content: bytes) -> str:
    try:
        said = str(make_header(decode_header(str(_headerOf(content).get("Subject", "")))))
    except (ValueError, LookupError):
        return ""
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return said if len(said) <= MAX_SUBJECT else said[: MAX_SUBJECT - 3] + "..."


def _isPlain(messageId: str | Header) -> bool:
    text = str(messageId)
    return text.isascii() and text.isprintable() and 2 < len(text) < 250 and text[0] == "<"


def _flattened(report: Message, utf8: bool) -> bytes:
    out = io.BytesIO()
    if utf8:
        _rawHeaders(report)
    BytesGenerator(out, mangle_from_=False, maxheaderlen=0, policy=_LEFT_ALONE).flatten(report)
    content = out.getvalue()
    return content if content.endswith(b"\r\n") else content + b"\r\n"


def _raw(text: str) -> str:
    """Text whose UTF-8 is written as it is."""
    return text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")


def _rawHeaders(report: Message) -> None:
    """Have UTF-8 in fields written as it is (RFC 6532), in place of encoded words."""
    for part in report.walk():
        part._headers = [  # type: ignore[attr-defined]
            (name, _raw(value) if isinstance(value, str) else value)
            for name, value in part._headers  # type: ignore[attr-defined]
        ]
