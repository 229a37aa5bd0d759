"""Policy ``dkim``: signs messages (RFC 6376), with RSA, Ed25519 (RFC 8463) or both.

A message is signed by the keys of the domain in From, or of the closest domain above it: that is
what receivers compare (RFC 7489 3.1).  Where From has several mailboxes, the first one counts.
Where there is no such key, the domain ``default`` signs, if it is given.

What is signed is what leaves: the header section as all policies left it, without the fields that
change on the way, and the body as those before this policy left it.  So it stands behind all
policies that change a message at its end.  From and its like are listed once more than they are
there, so that nobody adds another one to a signed message.

A message is not signed where From is missing, twice, or malformed, where another line is no field,
where no domain has a key, or above 200 fields to sign; ``unsigned`` says what becomes of it:
``pass``, with an event, or ``refuse`` with 550 5.7.1.  Where there are keys and none of them can be
read, ``refuse`` is 451 4.3.0.

The body is hashed as it goes by and is never held.  Keys are read again when their files have
changed, and at SIGHUP; one that is no longer good leaves the one before in use, and an event says
so.  Files are looked at, and signatures made, in threads.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import attrs
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from submitd import events
from submitd.envelope import Envelope
from submitd.equality import sameDomain
from submitd.interfaces import (
    IChecked,
    IHeaderPolicy,
    IMessagePolicy,
    IReceivedMessage,
    IReloaded,
    IRunning,
    ISigning,
)
from submitd.message.dkim import (
    MAX_SIGNED,
    NEVER_SIGNED,
    OVERSIGNED,
    SIGNED,
    BodyHash,
    Identity,
    Selection,
    select,
    signature,
)
from submitd.message.dkimkeys import KeyFile, SigningKey
from submitd.message.header import Header
from submitd.message.mailboxes import readMailboxes
from submitd.policies.addresses import domainOrNothing
from submitd.session import Session
from submitd.threads import Run, inThreadsOf
from submitd.typed import Seconds
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, Reply

NOT_SIGNED = Reply(550, "5.7.1", "Message cannot be signed for the domain in From")

# RFC 5322 2.2: a field name, here in the characters that h= can list (RFC 6376 3.5).
_NAME = re.compile(r"[!-9<-~]+")


def _isThere(instance: object, attribute: object, value: str) -> None:
    if not value:
        raise ValueError("must not be empty")


def _names(names: Any) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


def _canBeSigned(instance: object, attribute: object, names: tuple[str, ...]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f'must be names of header fields, and "{name}" is none')
        if name in NEVER_SIGNED:
            raise ValueError(f'"{name}" cannot be signed: it is changed on the way')


@attrs.frozen
class Key:
    """A key: ``[[policy.key]]``."""

    domain: str = attrs.field(
        converter=sameDomain,
        validator=[_isThere, domainOrNothing],
        metadata={"help": "The domain that signs (d=)."},
    )
    selector: str = attrs.field(
        converter=sameDomain,
        validator=[_isThere, domainOrNothing],
        metadata={"help": "What stands before ._domainkey.DOMAIN in the DNS (s=)."},
    )
    file: Path = attrs.field(
        converter=Path,
        metadata={"help": "The private key, PEM, RSA or Ed25519; others may not read it."},
    )


@attrs.define(eq=False)
class _Signer:
    """A key with its file."""

    who: Identity
    file: KeyFile


@attrs.define(eq=False)
class _Begun:
    """A message whose header section has been seen; policies behind may still change it."""

    header: Header
    body: BodyHash


@implementer(IHeaderPolicy, IMessagePolicy, IRunning, IReloaded, ISigning, IChecked)
@attrs.define(eq=False)
class DKIM:
    """Signs messages.

    :ivar seconds: tells the time, in seconds since 1970.
    :raise ValueError: where there is no key, two have the same name, or ``default`` has none.
    """

    name: ClassVar[str] = "dkim"

    key: tuple[Key, ...] = attrs.field(
        converter=tuple, metadata={"help": "The keys; all of a domain sign."}
    )
    default: str = attrs.field(
        default="",
        converter=sameDomain,
        validator=domainOrNothing,
        metadata={
            "help": "The domain that signs where the one in From has no key. Empty for none."
        },
    )
    subdomains: bool = attrs.field(
        default=True,
        metadata={"help": "Whether a domain signs for those below it that have no key."},
    )
    unsigned: Literal["pass", "refuse"] = attrs.field(
        default="pass",
        metadata={"help": "What becomes of a message that cannot be signed."},
    )
    headers: tuple[str, ...] = attrs.field(
        default=(),
        converter=_names,
        validator=_canBeSigned,
        metadata={
            "help": "Header fields that are signed; From always is. Empty for those of RFC 6376 "
            "5.4.1."
        },
    )
    oversigned: tuple[str, ...] = attrs.field(
        default=(),
        converter=_names,
        validator=_canBeSigned,
        metadata={
            "help": "Those of which another one, added on the way, breaks the signature; From "
            "always does. Empty for the most important ones."
        },
    )
    timestamp: bool = attrs.field(
        default=True, metadata={"help": "Whether a signature says when it was made (t=)."}
    )
    expires: Seconds = attrs.field(
        default=Seconds(0.0),
        metadata={"help": "How long a signature is valid (x=); 0 for no end."},
    )
    seconds: Callable[[], float] = attrs.field(init=False, default=time.time, repr=False)
    _names: tuple[tuple[str, ...], tuple[str, ...]] = attrs.field(init=False, repr=False)
    _signers: dict[str, list[_Signer]] = attrs.field(init=False, repr=False, factory=dict)
    _begun: WeakKeyDictionary[Envelope, _Begun] = attrs.field(
        init=False, repr=False, factory=WeakKeyDictionary
    )
    _run: Run = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._run = _atOnce
        self._names = (
            ("from", *(self.headers or SIGNED)),
            ("from", *(self.oversigned or OVERSIGNED)),
        )
        if not self.key:
            raise ValueError("has no key")
        names = set()
        for each in self.key:
            who = Identity(each.domain, each.selector)
            if who in names:
                raise ValueError(f'two keys are "{who.selector}" of {who.domain}')
            names.add(who)
            self._signers.setdefault(who.domain, []).append(_Signer(who, KeyFile(each.file)))
        if self.default and self.default not in self._signers:
            raise ValueError(f'there is no key for the default, "{self.default}"')

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        return [said for signer in self._all() for said in signer.file.check()]

    def _all(self) -> list[_Signer]:
        return [signer for signers in self._signers.values() for signer in signers]

    def start(self, reactor: Any, run: Run | None = None) -> Deferred[None]:
        """Read the keys.

        :param reactor: whose threads are used.
        :param run: runs a function in a thread, in place of the reactor's own.
        """
        self._run = run or inThreadsOf(reactor)
        return self.reload()

    def stop(self) -> Deferred[None]:
        """Nothing is under way any more."""
        return succeed(None)

    def reload(self) -> Deferred[None]:
        """Read the keys again, changed or not."""
        signers = self._all()

        def read() -> None:
            for signer in signers:
                signer.file.key(again=True)

        return self._run(read).addCallback(lambda _: _tell(signers))

    # A message.

    def headerReceived(self, session: Session, envelope: Envelope, header: Header) -> None:
        """Begin to hash the body."""
        assert envelope.message is not None
        body = BodyHash()
        envelope.message.observeBody(body.update)
        self._begun[envelope] = _Begun(header, body)

    def messageReceived(
        self, session: Session, envelope: Envelope, message: IReceivedMessage
    ) -> Deferred[None] | None:
        """Sign.

        :raise Refused: 550 5.7.1, where it cannot be, and that matters.
        """
        begun = self._begun.pop(envelope)
        prepended = Header(b"".join(reversed(message.prepended)))
        try:
            author = authorDomain(begun.header, prepended)
            signers = self._signersFor(author)
            selection = select((*prepended.fields, *begun.header.fields), *self._names)
            if len(selection.names) > MAX_SIGNED:
                raise ValueError("too many header fields to sign")
        except ValueError as error:
            self._pass(session, envelope, str(error), NOT_SIGNED)
            return None
        work = self._run(self._sign, signers, selection, begun.body.digest(), int(self.seconds()))
        return work.addCallback(self._signed, session, envelope, message, signers)

    def _signersFor(self, author: str) -> list[_Signer]:
        domain = author
        while domain not in self._signers:
            domain = domain.partition(".")[2] if self.subdomains else ""
            if not domain:
                if not self.default:
                    raise ValueError(f"no key for {author}")
                domain = self.default
        return self._signers[domain]

    def _sign(
        self, signers: list[_Signer], selection: Selection, bodyHash: bytes, now: int
    ) -> list[bytes]:
        """In a thread: one field for each key that there is."""
        signed = now if self.timestamp else None
        expires = now + int(self.expires) if self.expires else None
        keys: list[tuple[Identity, SigningKey | None]] = [
            (signer.who, signer.file.key()) for signer in signers
        ]
        return [
            signature(who, key, selection, bodyHash, signed, expires)
            for who, key in keys
            if key is not None
        ]

    def _signed(
        self,
        fields: list[bytes],
        session: Session,
        envelope: Envelope,
        message: IReceivedMessage,
        signers: list[_Signer],
    ) -> None:
        _tell(signers)
        for field in fields:
            message.prepend(field)
        if not fields:
            said = f"no key of {signers[0].who.domain} can be read"
            self._pass(session, envelope, said, LOCAL_ERROR)

    def _pass(self, session: Session, envelope: Envelope, cause: str, reply: Reply) -> None:
        """Let a message go unsigned, or refuse it."""
        if self.unsigned == "refuse":
            raise Refused(reply, cause)
        events.emit(events.NOT_SIGNED, session=session.id, id=envelope.id, cause=cause)


def authorDomain(*headers: Header) -> str:
    """The domain of the author, that is of the first mailbox in From, in A-labels.

    :raise ValueError: where readers could see different ones; says why.
    """
    if any(header.isMalformed for header in headers):
        raise ValueError("a line of the header is malformed")
    found = [field for header in headers for field in header.named(b"from")]
    if len(found) != 1:
        raise ValueError("more than one From" if found else "no From")
    try:
        authors = readMailboxes(found[0].value)
    except ValueError as error:
        raise ValueError(f"From is malformed: {error}") from None
    if not authors:  # an empty group (RFC 6854)
        raise ValueError("From names nobody")
    return sameDomain(authors[0].domain)


def _tell(signers: list[_Signer]) -> None:
    for signer in signers:
        signer.file.tell()


def _atOnce(call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Before the start there are no threads."""
    return succeed(call(*arguments))
