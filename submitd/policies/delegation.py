"""Policy ``delegation``: asks a policy server in the protocol of Postfix (SMTPD_POLICY_README).

At each of ``stages`` the server at ``endpoint`` is told all attributes of Postfix 3.x, and what it
answers is done: ``OK`` and ``DUNNO`` are no objection (the policies behind this one are asked in
either case); ``REJECT``, ``DEFER``, ``DEFER_IF_PERMIT``, ``4NN`` and ``5NN`` refuse; ``HOLD`` keeps
the message in the spool, ``DISCARD`` answers 250 and drops it, ``PREPEND`` puts a header field in
front of it, ``BCC`` sends a blind copy; ``INFO`` and ``WARN`` are logged, and so is
``DEFER_IF_REJECT``, which refuses nothing: what later policies refuse stays refused.  All others,
``FILTER`` and ``REDIRECT`` among them, are logged and count as a failure.

What a failure means is ``on_failure``: ``tempfail`` is 451 4.3.0, ``reject`` 554 5.7.1, ``permit``
goes on.  A server that is away, silent for longer than ``timeout``, or answers nonsense is a
failure, and an event says so once, and once when it is back.  At the greeting 4yz is 421 and 5yz
554, which close.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import attrs
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from twisted.internet.defer import CancelledError, Deferred, succeed
from zope.interface import implementer

from submitd import __version__, events
from submitd.endpoint import clientEndpoint, mistake
from submitd.envelope import Envelope, Recipient
from submitd.interfaces import (
    IChecked,
    IConnectionPolicy,
    IDataPolicy,
    IDelays,
    IHelloPolicy,
    IMessagePolicy,
    IReceivedMessage,
    IRecipientPolicy,
    IRunning,
    ISenderPolicy,
)
from submitd.policies.holding import tellHeld
from submitd.policies.policyserver import PolicyServer, Unavailable
from submitd.session import Session, TLSInfo
from submitd.typed import Count, Seconds
from submitd.wire.address import readMailbox
from submitd.wire.command import encodeXtext
from submitd.wire.errors import Refused
from submitd.wire.policyrequest import Action, formatRequest, headerField, refusal
from submitd.wire.reply import LOCAL_ERROR, Reply

REJECTED = Reply(554, "5.7.1", "Access denied")

# Header fields that are put in front of one message at most.
MAX_FIELDS = 100

# What the attributes mean, for servers that ask; RFC 5321 has no such number.
COMPATIBILITY_LEVEL = "3.6"

_NO_OBJECTION = frozenset({"OK", "DUNNO", "PERMIT"})
_LOGGED = frozenset({"INFO", "WARN", "DEFER_IF_REJECT"})

Stage = Literal["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE"]


@attrs.define(eq=False)
class _Effects:
    """What the server wants to be done to one message, behind its end."""

    envelope: Envelope
    fields: list[bytes] = attrs.field(factory=list)
    discard: str = ""


@attrs.frozen(eq=False)
class _Question:
    """What is asked about."""

    stage: str
    session: Session
    envelope: Envelope | None = None
    values: dict[str, str | int] = attrs.field(factory=dict)


@implementer(
    IConnectionPolicy,
    IHelloPolicy,
    ISenderPolicy,
    IRecipientPolicy,
    IDataPolicy,
    IMessagePolicy,
    IRunning,
    IChecked,
    IDelays,
)
@attrs.define(eq=False)
class Delegation:
    """Asks a policy server; for the parameters see their help."""

    name: ClassVar[str] = "delegation"

    endpoint: str = attrs.field(
        metadata={
            "help": 'Where the server is, a Twisted client endpoint: "tcp:127.0.0.1:10023" or '
            '"unix:/run/policy.sock".'
        }
    )
    stages: tuple[Stage, ...] = attrs.field(
        default=("RCPT",),
        converter=tuple,
        metadata={"help": "When it is asked."},
    )
    timeout: Seconds = attrs.field(
        default=Seconds(10.0),
        validator=attrs.validators.gt(Seconds(0.0)),
        metadata={"help": "How long an answer is waited for, connecting included."},
    )
    on_failure: Literal["tempfail", "permit", "reject"] = attrs.field(
        default="tempfail",
        metadata={
            "help": 'Without an answer, or with one that cannot be obeyed: "tempfail" (451), '
            '"permit" or "reject" (554).'
        },
    )
    connections: Count = attrs.field(
        default=Count(20),
        validator=attrs.validators.ge(Count(1)),
        metadata={"help": "How many connections there are at most."},
    )
    context: str = attrs.field(
        default="",
        metadata={"help": "The attribute policy_context, by which a server tells policies apart."},
    )
    _server: PolicyServer | None = attrs.field(init=False, repr=False, default=None)
    _note: str = attrs.field(init=False, repr=False)
    _isAway: bool = attrs.field(init=False, repr=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._note = f"{self.name} {id(self)}"  # there may be several of these

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        found = [] if self.stages else ["stages: is empty: it would never be asked"]
        if mistake(self.endpoint):
            found.append(f"endpoint: {mistake(self.endpoint)}")
        return found

    def delays(self) -> dict[str, float]:
        """See :meth:`submitd.interfaces.IDelays.delays`; where the stage's end says the same, none.

        Behind a stage that is over first, ``on_failure`` would never decide.
        """
        return {} if self.on_failure == "tempfail" else {"timeout": self.timeout}

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`; nothing is connected yet."""
        endpoint = clientEndpoint(reactor, self.endpoint)
        self._server = PolicyServer(endpoint, reactor, self.timeout, self.connections)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.stop`."""
        if self._server is not None:
            self._server.close()
        return succeed(None)

    # The stages.

    def connectionMade(self, session: Session) -> Deferred[None] | None:
        """Ask at CONNECT."""
        return self._at("CONNECT", session)

    def helloReceived(self, session: Session, domain: str) -> Deferred[None] | None:
        """Ask at EHLO."""
        return self._at("EHLO", session, helo_name=domain)

    def validateFrom(self, session: Session, envelope: Envelope) -> Deferred[None] | None:
        """Ask at MAIL."""
        return self._at("MAIL", session, envelope)

    def validateTo(
        self, session: Session, envelope: Envelope, recipient: Recipient
    ) -> Deferred[None] | None:
        """Ask at RCPT."""
        return self._at("RCPT", session, envelope, recipient=str(recipient.mailbox))

    def dataRequested(self, session: Session, envelope: Envelope) -> Deferred[None] | None:
        """Ask at DATA."""
        return self._at("DATA", session, envelope, **_recipients(envelope))

    def messageReceived(
        self, session: Session, envelope: Envelope, message: IReceivedMessage
    ) -> Deferred[None] | None:
        """Ask at END-OF-MESSAGE, and do to the message what was answered at any stage."""
        about = {**_recipients(envelope), "size": message.byteLength}
        waiting = self._at("END-OF-MESSAGE", session, envelope, **about)
        if waiting is None:
            self._finish(session, envelope, message)
            return None
        return waiting.addCallback(lambda _: self._finish(session, envelope, message))

    def _at(
        self, stage: str, session: Session, envelope: Envelope | None = None, **about: str | int
    ) -> Deferred[None] | None:
        if stage not in self.stages:
            return None
        values = {**attributes(session, envelope), "policy_context": self.context, **about}
        question = _Question(stage, session, envelope, {**values, "protocol_state": stage})
        return Deferred.fromCoroutine(self._verdict(question))

    async def _verdict(self, question: _Question) -> None:
        try:
            action = await self._ask(formatRequest(question.values))
        except CancelledError:  # who is asked about has gone
            raise
        except Exception as error:
            self._failed(error, question)
            return
        if self._isAway:
            self._isAway = False
            events.emit(events.DELEGATION_BACK, policy=self._who)
        self._obey(action, question)

    def _ask(self, request: bytes) -> Deferred[Action]:
        if self._server is None:
            raise Unavailable("the policy has not been started")
        return self._server.ask(request)

    @property
    def _who(self) -> str:
        return f"{self.name} {self.endpoint}"

    # The answer.

    def _failed(self, error: Exception, question: _Question) -> None:
        cause = f"{type(error).__name__}: {error}"
        if not self._isAway:
            self._isAway = True
            events.emit(
                events.DELEGATION_AWAY, policy=self._who, cause=cause, verdict=self.on_failure
            )
        self._fallBack(question, cause)

    def _fallBack(self, question: _Question, cause: str) -> None:
        if self.on_failure == "tempfail":
            self._refuse(LOCAL_ERROR, question, cause)
        if self.on_failure == "reject":
            self._refuse(REJECTED, question, cause)

    def _refuse(self, reply: Reply, question: _Question, cause: str) -> None:
        if question.stage == "CONNECT":  # RFC 5321 3.1, 3.8: nothing else can stand for 220
            reply = attrs.evolve(reply, code=421 if reply.isTransient else 554)
        raise Refused(reply, f"{self._who}: {cause}")

    def _obey(self, action: Action, question: _Question) -> None:
        reply = refusal(action)
        if reply is not None:
            self._refuse(reply, question, str(action))
        if action.name in _NO_OBJECTION or str(action).isdigit():  # access(5): all digits are OK
            return
        if action.name in _LOGGED:
            self._log(action, question)
            return
        try:
            self._do(action, question)
        except ValueError as error:
            self._log(action, question, str(error))
            self._fallBack(question, f"{action}: {error}")
        else:
            self._log(action, question)

    def _log(self, action: Action, question: _Question, problem: str = "") -> None:
        session, envelope = question.session, question.envelope
        fields = {"problem": problem} if problem else {}
        events.emit(
            events.DELEGATION_ACTION,
            session=session.id,
            id=None if envelope is None else envelope.id,
            peer=session.remoteAddress,
            user=None if session.user is None else session.user.avatarId,
            policy=self._who,
            stage=question.stage,
            action=str(action),
            **fields,
        )

    def _do(self, action: Action, question: _Question) -> None:
        """Do something to the message.

        :raise ValueError: when that cannot be done.
        """
        envelope = question.envelope
        act = _ACTIONS.get(action.name)
        if act is None:
            raise ValueError("no action that is supported")
        if envelope is None:
            raise ValueError("there is no message yet")
        act(self._effects(question.session, envelope), action.text)
        if action.name == "HOLD":
            tellHeld(question.session, envelope)

    def _effects(self, session: Session, envelope: Envelope) -> _Effects:
        found: _Effects | None = session.notes.get(self._note)
        if found is None or found.envelope is not envelope:
            found = session.notes[self._note] = _Effects(envelope)
        return found

    def _finish(self, session: Session, envelope: Envelope, message: IReceivedMessage) -> None:
        found: _Effects | None = session.notes.pop(self._note, None)
        if found is None or found.envelope is not envelope:
            return
        for field in found.fields:
            message.prepend(field)
        if found.discard:
            message.discard(found.discard)


# What is done to a message.


def _hold(effects: _Effects, text: str) -> None:
    effects.envelope.hold = f"{Delegation.name}: {text or 'HOLD'}"


def _discard(effects: _Effects, text: str) -> None:
    effects.discard = f"{Delegation.name}: {text or 'DISCARD'}"


def _prepend(effects: _Effects, text: str) -> None:
    field = headerField(text, effects.envelope.smtpUtf8)
    if field in effects.fields:  # asked at each recipient, or at a second DATA, many say the same
        return
    if len(effects.fields) >= MAX_FIELDS:
        raise ValueError(f"more than {MAX_FIELDS} header fields")
    effects.fields.append(field)


def _blindCopy(effects: _Effects, text: str) -> None:
    mailbox = readMailbox(text.removeprefix("<").removesuffix(">").encode())
    if not mailbox.isAscii and not effects.envelope.smtpUtf8:
        raise ValueError("an address that needs SMTPUTF8")
    if all(each.mailbox != mailbox for each in effects.envelope.blind):
        effects.envelope.blind += (Recipient(mailbox, notify=("NEVER",)),)


_ACTIONS = {"HOLD": _hold, "DISCARD": _discard, "PREPEND": _prepend, "BCC": _blindCopy}


# The attributes.


def attributes(session: Session, envelope: Envelope | None) -> dict[str, str | int]:
    """What there is to be said, by the names of the protocol; at which stage is left out."""
    name = session.clientHostname
    name = "unknown" if not name or name.startswith("[") else name
    values: dict[str, str | int] = {
        "request": "smtpd_access_policy",
        "protocol_name": _protocol(session),
        "client_address": session.remoteAddress,
        "client_name": name,
        "reverse_client_name": name,
        "client_port": session.remotePort or "",
        "server_address": session.localAddress,
        "server_port": session.localPort or "",
        "helo_name": session.heloName,
        "instance": session.id,
        "compatibility_level": COMPATIBILITY_LEVEL,
        "mail_version": f"submitd-{__version__}",
    }
    if session.user is not None:
        values["sasl_method"] = session.mechanism
        values["sasl_username"] = session.user.avatarId
    if session.tls is not None:
        values.update(_secure(session.tls))
    if envelope is not None:
        mailbox = envelope.reversePath.mailbox
        values["sender"] = "" if mailbox is None else str(mailbox)
        values["queue_id"] = values["instance"] = envelope.id
        values["size"] = envelope.size or 0
        values["sasl_sender"] = "" if envelope.auth in (None, "<>") else str(envelope.auth)
    return values


def _protocol(session: Session) -> str:
    if session.openingCommand == "LHLO":
        return "LMTP"
    return "ESMTP" if session.openingCommand == "EHLO" else "SMTP"


def _recipients(envelope: Envelope) -> dict[str, str | int]:
    """At DATA and behind it: how many, and who it is where there is one alone."""
    count = len(envelope.recipients)
    only = str(envelope.recipients[0].mailbox) if count == 1 else ""
    return {"recipient_count": count, "recipient": only}


def _secure(tls: TLSInfo) -> dict[str, str | int]:
    values: dict[str, str | int] = {
        "encryption_protocol": tls.version,
        "encryption_cipher": tls.cipher,
        "encryption_keysize": tls.bits,
    }
    if tls.peerCertificate is None:
        return values
    try:
        certificate = tls.peerCertificate.to_cryptography()
        key = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashes.Hash(hashes.SHA256())
        digest.update(key)
        values["ccert_fingerprint"] = _colons(certificate.fingerprint(hashes.SHA256()))
        values["ccert_pubkey_fingerprint"] = _colons(digest.finalize())
        if tls.verified:  # as with Postfix, a name that nobody vouches for is not told
            values["ccert_subject"] = _commonName(certificate.subject)
            values["ccert_issuer"] = _commonName(certificate.issuer)
    except Exception:  # a certificate may be broken in any way, and then says nothing
        return {name: value for name, value in values.items() if name.startswith("encryption")}
    return values


def _commonName(name: Any) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return encodeXtext(str(found[0].value).encode("utf-8")).decode("ascii") if found else ""


def _colons(digest: bytes) -> str:
    return digest.hex(":").upper()
