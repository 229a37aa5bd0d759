"""Every interface that an extension author meets.

A policy provides any subset of the stage interfaces.  A stage method returns ``None`` (no
objection), raises :class:`submitd.wire.errors.Refused`, or returns a Deferred or coroutine of
either.  Any other exception is logged with the session's id and becomes 451 4.3.0, or 454 4.7.0
from an :class:`IIdentityPolicy`: it fails closed.  Policies run in the order of the configuration;
the first refusal wins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface
from zope.interface.interface import InterfaceClass

if TYPE_CHECKING:
    from pathlib import Path

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from submitd.dialogue import Command, Dialogue
    from submitd.envelope import Envelope, Recipient
    from submitd.message.header import Header
    from submitd.session import Session, TLSInfo
    from submitd.spool.records import (
        Action,
        Count,
        Filter,
        Listed,
        NewMessage,
        Settlement,
        Shown,
        Totals,
        Work,
    )
    from submitd.states import Verb
    from submitd.typed import Table
    from submitd.wire.address import Mailbox
    from submitd.wire.reply import Reply

    Verdict = Deferred[None] | Coroutine[Any, Any, None] | None
    Outcome = str | Reply | Sequence[Reply] | None

# zope.interface methods have no self; mypy-zope knows it.
#
# What may fire with one of several is Deferred[Any]: a Deferred[str] is no Deferred[str | None] to
# a type checker, and an author's own method would not pass for ours.


class IConnectionPolicy(Interface):
    """May refuse a connection, in place of the greeting: 421, which closes it, or 554.

    Behind any reply for good, the client can only say QUIT, and has ten seconds for that; one for
    later is sent as 421.
    """

    def connectionMade(session: Session) -> Verdict:
        """Once, after a PROXY header and implicit TLS, before 220."""


class IHelloPolicy(Interface):
    """May refuse what a client calls itself."""

    def helloReceived(session: Session, domain: str) -> Verdict:
        """At each well-formed EHLO, HELO or LHLO.

        :param domain: the argument, a ``str``; also kept as ``session.heloName`` once accepted.
        """


class ISecurePolicy(Interface):
    """May refuse a client by its TLS: version, cipher, server name, certificate."""

    def handshakeCompleted(session: Session) -> Verdict:
        """After either kind of TLS handshake; ``session.tls`` has the facts.

        After STARTTLS a refusal is the answer to the next command, for no reply is due at once.
        """


class ILoginPolicy(Interface):
    """Is asked before a login, and told how it went."""

    def loginRequested(session: Session, credentials: Any) -> Verdict:
        """Before the checker: a refusal here keeps the password from being tried."""

    def loginSucceeded(session: Session, avatar: ISubmitter) -> Verdict:
        """After the checker said yes, before 235; may still refuse."""

    def loginFailed(session: Session, credentials: Any, failure: Failure) -> Verdict:
        """After the checker said no; a refusal replaces the 535, or the checker's own reply.

        "No" is ``UnauthorizedLogin``, or a ``Refused`` that is permanent.  Where the checker cannot
        tell (``LoginUnavailable``, or any other failure: 454) nothing has failed that could be
        counted, and this is not called.
        """


class IIdentityPolicy(Interface):
    """May allow somebody to act as somebody else (PLAIN's authorization identity, RFC 4616 2).

    Without a policy at this stage nobody may; with several, none must object.
    """

    def identityRequested(session: Session, avatar: ISubmitter, identity: str) -> Verdict:
        """After the checker said yes to the login itself.

        :param avatar: who has logged in.
        :param identity: the avatarId to act as; the realm is then asked for its avatar.
        """


class ILoginObserver(Interface):
    """Is told that a login is over."""

    def loginEnded(session: Session) -> Verdict:
        """Once for each login of which ``loginRequested`` was asked, however it ended.

        Also where the checker could not tell, a policy objected, or the client is gone.  Nobody
        waits for a Deferred or coroutine.
        """


class ISenderPolicy(Interface):
    """May refuse a reverse-path."""

    def validateFrom(session: Session, envelope: Envelope) -> Verdict:
        """At MAIL, its parameters applied."""


class IRecipientPolicy(Interface):
    """May refuse a forward-path."""

    def validateTo(session: Session, envelope: Envelope, recipient: Recipient) -> Verdict:
        """At each RCPT, its parameters applied; ``recipient`` is not yet in the envelope.

        A policy may change it for those behind, and put ``recipient.others`` beside it, each with
        itself as ``placedBy``: the policies behind are asked about these as well, and the client
        has one reply for all.
        """


class IDataPolicy(Interface):
    """May refuse a transaction before the message is sent."""

    def dataRequested(session: Session, envelope: Envelope) -> Verdict:
        """At DATA before 354, or at the first BDAT."""


class IHeaderPolicy(Interface):
    """May refuse a message by its header section, or change the section."""

    def headerReceived(session: Session, envelope: Envelope, header: Header) -> Verdict:
        """Once the header section is whole, before any of the message goes to the delivery.

        A refusal is the answer to the end of the data, for no reply is due before.  Where a policy
        takes part, header sections above ``limits.header_size`` are refused with 552 5.3.4.

        :param header: a :class:`submitd.message.header.Header`; it goes on as the policies leave
            it.
        """


class IMessagePolicy(Interface):
    """May refuse a message, or put header fields in front of it."""

    def messageReceived(session: Session, envelope: Envelope, message: IReceivedMessage) -> Verdict:
        """After the end of the data, before the commit.

        :param message: an :class:`IReceivedMessage`.
        """


class IDisconnectObserver(Interface):
    """Is told that a connection is gone."""

    def connectionLost(session: Session, reason: Failure) -> Verdict:
        """Once per connection; nobody waits for a Deferred or coroutine.

        :param reason: a ``twisted.python.failure.Failure``.
        """


STAGES = (
    IConnectionPolicy,
    IHelloPolicy,
    ISecurePolicy,
    ILoginPolicy,
    IIdentityPolicy,
    ILoginObserver,
    ISenderPolicy,
    IRecipientPolicy,
    IDataPolicy,
    IHeaderPolicy,
    IMessagePolicy,
    IDisconnectObserver,
)
"""The stage interfaces: a policy provides one of them at least."""


class IReceivedMessage(Interface):
    """A message that has been read to its end, as message policies see it."""

    byteLength: int = Attribute("octets received, after dot-unstuffing; an int")
    sizeExceeded: bool = Attribute("whether the size limit was passed; a bool")
    header: bytes = Attribute(
        "the header section as it goes to the delivery, up to the limit of header octets; bytes"
    )
    prepended: list[bytes] = Attribute(
        "what has been put in front of the message so far; the last one will stand on top; a list"
    )

    def prepend(field: bytes) -> None:
        """Put a header field in front of the message.

        :param field: whole lines, each ended with CRLF; bytes.
        :raise ValueError: when the field is not made of whole lines.
        """

    def observeBody(observe: Callable[[bytes], Deferred[None] | None]) -> None:
        """Have a function called with each part of the body, as earlier policies have left it.

        May be called at the stage *header* alone, on ``envelope.message``.  When the policy's own
        ``messageReceived`` is called, it has been given the whole body.

        :param observe: takes octets behind the empty line; may raise ``Refused``, and may give a
            Deferred that fires when the next octets may come.
        """

    def holdBody(observe: Callable[[bytes], Deferred[None] | None]) -> IHeldMessage:
        """The same, and keep the message back until the policy lets it go.

        :return: an :class:`IHeldMessage`.
        """

    def discard(reason: str) -> None:
        """Have the message dropped in place of the commit, and answered as if it was kept.

        :param reason: why, for the log.
        """


class IHeldMessage(Interface):
    """A message that a policy keeps back, header and body, to change it at its end."""

    header: Header = Attribute("the header section; it goes on as it is when it is let go")

    def replaceBody(octets: bytes) -> None:
        """Put other octets in the place of the body; the first call drops the one that came.

        :raise Refused: 552 5.3.4 above the largest size of a message, 452 4.3.1 without space.
        """

    def keepBody() -> None:
        """Forget what was put in the place of the body: the one that came stays."""

    def release() -> Deferred[None]:
        """Let header and body go on to the policies behind this one, and to the delivery.

        Must be called in ``messageReceived``: what is held cannot be committed.

        :return: fires when all of it has gone on.
        """


class IDelivery(Interface):
    """Where an accepted message goes."""

    def begin(
        session: Session, envelope: Envelope
    ) -> IMessage | Deferred[Any] | Coroutine[Any, Any, IMessage]:
        """Begin to take a message; before 354.

        :return: an :class:`IMessage`, or a Deferred or coroutine of one.  It is cancelled when it
            takes too long, or when the client has gone: what it had begun by then is its own to
            clear away, for Twisted throws away what a cancelled Deferred is given later.
        :raise Refused: when it cannot be taken now.
        """


class IExtendedDelivery(IDelivery):
    """A delivery that also acts on what some extensions ask for.

    FUTURERELEASE, MT-PRIORITY and DELIVERBY are offered only where the delivery names them here:
    accepting a promise that nobody keeps would be a lie.  What was asked for is in
    ``envelope.extensions``, see :class:`submitd.envelope.Envelope`.
    """

    extensions: Collection[str] = Attribute("the keywords of these extensions, in upper case")


class IHoldingDelivery(IDelivery):
    """A delivery that keeps a message back where ``envelope.hold`` says why.

    Such a message is kept safe, and stays until an operator lets it go.  A message that is to be
    held is refused where the delivery is none of these.
    """


class IMayHold(Interface):
    """A policy that may set ``envelope.hold``: it needs a delivery that holds."""


class IBlindCopyDelivery(IDelivery):
    """A delivery that delivers to ``envelope.blind`` as well, and tells nobody of it.

    A message with such recipients is refused where the delivery is none of these.
    """


class IMayBlindCopy(Interface):
    """A policy that adds to ``envelope.blind``: it needs a delivery that delivers to these."""


class IBringsDelivery(Interface):
    """A policy that has a delivery of its own, named in its section of the configuration."""

    delivery: Table | None = Attribute("what the configuration says of it; None for none")
    sink: IDelivery | None = Attribute("the delivery itself, which is set once it has been made")


class IMessage(Interface):
    """A message on its way into a delivery: begin, write, then commit or abort."""

    def dataReceived(chunk: bytes) -> Verdict:
        """Take some octets of the message; lines end with CRLF, dots are unstuffed.

        :return: ``None``, or a Deferred or coroutine that ends when the next chunk may come.
        """

    def prepend(fields: bytes) -> None:
        """Put header fields in front of everything; at most once, just before the commit.

        Not a coroutine: whatever takes its time can wait for ``eomReceived``.
        """

    def eomReceived() -> Outcome | Deferred[Any] | Coroutine[Any, Any, Outcome]:
        """Commit.  When this returns (or its Deferred fires), the message is safe.

        :return: the queue id as ``str``, ``None`` for the envelope's own, a
            :class:`submitd.wire.reply.Reply` for all recipients, or one for each, in order; or a
            Deferred or coroutine of one of these.
        :raise Refused: when it cannot be kept; then nothing of it is left behind.
        """

    def connectionLost() -> Verdict:
        """Abort: leave nothing behind.  The client went, or the message was refused.

        Nobody waits for a Deferred or coroutine.
        """


class IRunning(Interface):
    """A delivery, policy or back end with something of its own running beside the connections."""

    def start(reactor: Any) -> Deferred[None]:
        """Begin, once the process has become who it will be; the ports are open by then.

        That of a program without the service is started by that program.  When this fails, it is
        logged, and the service runs on: the delivery, policy or back end refuses for itself.

        :param reactor: the service's, with clock and threads.
        """

    def stop() -> Deferred[None]:
        """End, after the last connection.

        When this fails, it is logged, and the others are stopped all the same.
        """


class INamesHost(Interface):
    """A policy that tells others the name of this service."""

    hostname = Attribute("""str: the name, as the greeting says it; set before the start.""")


class IShared(Interface):
    """A policy that counts or remembers something, and can do so together with other workers."""

    def share(storage: Any) -> None:
        """Several processes serve from now on; called before the start, and not where it is one.

        :param storage: a :class:`submitd.counters.shared.SharedCounts` of one's own: what one
            worker counts in it, the others see.
        """


class IRehearsed(Interface):
    """A policy that changes something outside of its process, and can do without that.

    ``submitd-policy try`` asks a configuration what it would do, beside the running service.
    """

    def rehearse(directory: Path) -> None:
        """Leave everything as it is from now on; called before the start, if at all.

        What has to be written is written in the directory.

        :param directory: an empty one of this process, which is removed at its end.
        """


class IReloaded(Interface):
    """A policy that reads its files again when it is told to (SIGHUP)."""

    def reload() -> Deferred[None]:
        """Read them again; what is wrong with them is logged, and what was read before stays."""


class ISigning(Interface):
    """A policy that signs messages: no message policy may stand behind it and change them."""


class IChecked(Interface):
    """An object of the configuration that can say beforehand whether it will work."""

    def check() -> list[str]:
        """Look at files, directories and keys without opening a port or changing anything.

        :return: what is wrong, a list of sentences; empty when all is well.
        """


class IWarns(Interface):
    """An object of the configuration that can say beforehand what it will do without."""

    def warnings() -> list[str]:
        """Look as ``IChecked`` does, for what is unwise or left out; a start goes on all the same.

        :return: a list of sentences; empty when there is nothing to say.
        """


class IIncapable(Interface):
    """A checker that may be unable to verify some of the credentials that it takes."""

    def cannotVerify() -> dict[Any, str]:
        """What it cannot verify as things are; asked by ``--check`` and before a start.

        :return: interface of credentials -> why not; empty when all is well.
        """


class IDelays(Interface):
    """A policy that has somebody wait, on purpose or for a server, until it decides itself."""

    def delays() -> dict[str, float]:
        """How long at most, so that a stage can be found to have no time for it before a start.

        :return: key of its section that says so -> seconds; empty where nobody waits.
        """


class IRevised(Interface):
    """A checker that can tell whether an earlier answer of its may be wrong by now."""

    def revision() -> object:
        """What is unequal after any change of users or passwords; asked at each login, so cheap."""


class ISubmitter(Interface):
    """The avatar: who is logged in.  It may itself provide stage interfaces, and then runs last.

    It takes part in what comes behind its login: a further EHLO, MAIL, RCPT, DATA, the header
    section, the message, and the end of the connection.  Connection, TLS and the stages of the
    login itself, ``ILoginPolicy`` and ``IIdentityPolicy``, are over by then.
    """

    avatarId: str = Attribute("the name the checker knows this person by; a str")
    attributes: Mapping[str, Any] = Attribute("what the back end knows about this person; a dict")

    def owns(mailbox: Mailbox) -> bool:
        """Whether this person may send as the mailbox; a bool."""


class IMechanism(Interface):
    """One SASL mechanism (RFC 4422)."""

    name: str = Attribute("as EHLO lists it; a str in upper case")
    credentialsInterface: InterfaceClass = Attribute(
        "what its exchange makes; an Interface of Cred's"
    )
    needsTLS: bool = Attribute("whether a password would be readable on the way; a bool")

    def server(hostname: str) -> IExchange:
        """A fresh :class:`IExchange` for one login.

        :param hostname: the server's own name; a str.
        """


class ITLSMechanism(Interface):
    """A mechanism that takes part of TLS: a client's certificate, or a channel to bind to."""

    def over(tls: TLSInfo | None) -> IMechanism | None:
        """The mechanism for one connection; ``None`` where it cannot be used, and is not listed.

        :param tls: what the handshake agreed on; ``None`` without TLS.
        """


class IMechanismAmong(Interface):
    """A mechanism to which it matters what else is offered (SCRAM: a client cannot see less)."""

    def among(names: Collection[str]) -> IMechanism:
        """The mechanism for one connection.

        :param names: all mechanisms that EHLO lists there, this one among them.
        """


class IExchange(Interface):
    """One SASL exchange, the server's side."""

    def respond(response: bytes | None) -> Any:
        """Take a response of the client.

        :param response: the decoded octets, or ``None`` where AUTH came without an initial
            response.
        :return: a challenge as bytes, an :class:`IQuestion`, or credentials.  Where these have a
            ``username``, bytes, a failed login is logged and counted under it.
        :raise Refused: when the response is malformed.
        """


class IQuestion(Interface):
    """Something that an exchange has to know of a user before it can give its challenge."""

    credentialsInterface: InterfaceClass = Attribute(
        "the Portal's checker of these credentials is asked; an Interface of Cred's"
    )

    def ask(checker: Any) -> Deferred[bytes] | Coroutine[Any, Any, bytes]:
        """Ask, and make the challenge of the answer.

        When it fails, the client is told that no login is possible now (454).

        :param checker: an ``ICredentialsChecker``.
        :return: a Deferred or coroutine of the challenge.
        """


class ISuccessChallenge(Interface):
    """An exchange that has one more challenge to send when a login succeeds (SCRAM)."""

    def loginSucceeded() -> bytes:
        """What to send, as bytes, before the 235.

        The client is logged in only once it has answered with an empty response.
        """


class IFailureChallenge(Interface):
    """An exchange that has one more challenge to send when a login fails (OAUTHBEARER)."""

    def loginFailed(failure: Failure) -> bytes:
        """What to send, as bytes, before the 535; the client's answer is thrown away."""


class IScramProof(Interface):
    """Credentials: a user name with the proof of a password's keys (SCRAM-SHA-256, RFC 5802).

    A checker of these provides :class:`IScramSalts` too.
    """

    username: bytes = Attribute("who it is said to be; bytes")

    def checkKeys(storedKey: bytes, serverKey: bytes) -> bool:
        """Whether the proof was made with the password that these keys were made of.

        Where it was, the server's own proof is made with them: a checker that says yes has called
        this with the user's keys.
        """


class IScramSalts(Interface):
    """A checker of :class:`IScramProof`, which can say what a password is to be salted with."""

    def saltOf(username: bytes) -> Deferred[Any] | Coroutine[Any, Any, Any]:
        """Salt and iterations of a user.

        Of an unknown user, too: what looks like the others', always the same for a name.

        :return: a Deferred or coroutine of a :class:`submitd.checkers.salts.Salt`.
        """


class IBearerToken(Interface):
    """Credentials: a bearer token of OAuth 2.0 (RFC 6750), with a user name or without.

    A checker that refuses one may fail with :class:`submitd.sasl.bearer.TokenRefused`, which says
    what the client is to be told.
    """

    username: bytes = Attribute(
        "who it is said to be; bytes, empty where the checker is to say whose the token is"
    )
    token: bytes = Attribute(
        "the access token; bytes, empty where a client only asks what would be accepted (RFC 7628 "
        "4.3): that is refused like a wrong one"
    )


class ICertificateLogin(Interface):
    """Credentials: the certificate that the client has shown, which TLS has verified (EXTERNAL)."""

    username: bytes = Attribute("who the client wants to be, bytes; empty for whose it is")
    tls: TLSInfo = Attribute("what the handshake agreed on")


class ITrustedLogin(Interface):
    """Credentials: a user name for which a trusted proxy vouches (LOGIN= of XCLIENT).

    Or the configuration does, for a client's network (``login_by_address``).  They come without a
    secret: a checker that takes them believes either.
    """

    username: bytes = Attribute("who is said to have logged in; bytes")


class IReverseResolver(Interface):
    """Finds the name of a client's address; the name is believed when its address is the client's.

    What it gives is data from outside: what is no domain is passed over.  Whatever it raises means
    that it cannot tell now, and is logged; a name that does not exist is an empty list.
    """

    def namesOf(
        address: str,
    ) -> Sequence[str] | Deferred[Any] | Coroutine[Any, Any, Sequence[str]]:
        """The names that an address is said to have (PTR), the best first.

        :param address: IPv4 or IPv6, as text.
        """

    def addressesOf(
        name: str, version: int
    ) -> Sequence[str] | Deferred[Any] | Coroutine[Any, Any, Sequence[str]]:
        """The addresses that a name has (A, AAAA).

        :param version: 4 or 6, the IP version that is asked for.
        """


class ITraceField(Interface):
    """A delivery that writes the Received field itself (Twisted's IMessageDelivery does)."""

    def receivedField(session: Session, envelope: Envelope) -> bytes | None:
        """The whole field, ended with CRLF, as bytes; ``None`` for the service's own."""


class IExtension(Interface):
    """One ESMTP extension (RFC 5321 2.2): its EHLO line, its parameters, its verbs.

    Its functions are given the :class:`submitd.dialogue.Dialogue`, like those of commands.py: it
    holds the session, the submission and the pipeline, and no transport.
    """

    keyword: str = Attribute("the EHLO keyword; a str")

    def advertise(dialogue: Dialogue) -> str | None:
        """The line EHLO shows now, such as ``"SIZE 1000"``, or ``None`` for no line."""

    mailParameters: Mapping[str, Callable[..., None]] = Attribute(
        "keyword of MAIL -> function(dialogue, envelope, value), which raises Refused; a dict"
    )
    rcptParameters: Mapping[str, Callable[..., None]] = Attribute(
        "keyword of RCPT -> function(dialogue, envelope, recipient, value); a dict"
    )
    verbs: tuple[tuple[Verb, Command], ...] = Attribute(
        "(states.Verb, function(dialogue, argument)) for each; a tuple"
    )


class ISpool(Interface):
    """The durable queue, as the relay sees it.

    Work is taken by lease: it is ours until the lease ends, and then anybody's, so that the work of
    a process that died is done by another.  Every method may be called on the reactor's thread
    alone, works in another one and gives a Deferred, which fails with
    :class:`submitd.wire.errors.Refused` when the data base cannot be used now; nothing is changed
    then, and the same call may be made again later.  Times are seconds since 1970.
    """

    owner: str = Attribute("who holds the leases of this process: host, pid, random; a str")

    def lease(limit: int, seconds: float) -> Deferred[list[Work]]:
        """Take what is due, the highest priority first, then the longest due.

        All due recipients of a message are taken together, so a message with many may pass the
        limit.  A damaged message is put on hold and left out.

        :param limit: how many recipients, about.
        :param seconds: how long the lease is to last.
        """

    def extend(work: Work, seconds: float) -> Deferred[Work]:
        """Have a lease end so many seconds from now, for those that have not been settled.

        :raise LeaseLost: when it has ended and somebody else took it.
        """

    def giveBack(work: Work) -> Deferred[None]:
        """End a lease without an attempt: it is due again at once, for anybody.

        What is no longer ours is left alone.
        """

    def read(messageId: str, holds: bool = True) -> IBody:
        """The message's octets, its header fields first, one chunk at a time.

        :param holds: whether it is put on hold when it is damaged, and is nobody's lease any more;
            not by a report, which is made without it.
        """

    def settle(
        work: Work, outcomes: Sequence[Settlement], reports: Sequence[NewMessage] = ()
    ) -> Deferred[None]:
        """Say what came of recipients, and queue what is to be reported; both happen or neither.

        Recipients of the lease without an outcome stay leased.  The message is deleted with the
        last recipient that is delivered or failed.

        :param reports: messages of our own making.
        :raise LeaseLost: when recipients are no longer ours, and which; then nothing has been
            changed, and the others may be settled without them.
        :raise Damaged: when the data base is damaged where that would be written; the message is
            not leased again by this process.
        """

    def hasten(latest: float) -> Deferred[None]:
        """Somebody has set the time of day back: have nothing wait for the time it was before.

        What has been tried is due at that time at the latest, and what has only come, now.  What
        is on hold, or was to wait by its sender's own wish, is left alone.
        """

    def nextDue() -> Deferred[float | None]:
        """When something is due next (also leases that end); ``None`` when nothing waits."""

    def whenDue(told: Callable[[float], None]) -> None:
        """Call a function whenever this process has committed something to do.

        It is called on the reactor's thread with the time when the first of it is due, which may
        have passed.  What other processes add is found by asking :meth:`lease` now and then.
        """

    def start(reactor: Any) -> Deferred[None]:
        """Open the data base and bring its schema up to date.

        Nothing else may be called before; when this fails, everything may be called all the same,
        and opens the data base if it can by then.

        :param reactor: what the threads tell their results to.
        """

    def stop() -> Deferred[None]:
        """Finish what is under way and close the data base; leases end, or stay until they end."""


class IBody(Interface):
    """The octets of a message, in order, in bounded chunks."""

    def next() -> Deferred[bytes]:
        """The next chunk; ``b""`` at the end.  Ask again only when the last one has come.

        :raise Damaged: when a part is missing, cannot be read or is not what it was; the message
            has been put on hold, unless whoever reads it did not want that.
        :raise LookupError: when there is no such message (any more).
        """


class ISpoolOperations(Interface):
    """The durable queue, as operators see it, while the service runs or not.

    The same threads and failures as in :class:`ISpool`.
    """

    def messages(which: Filter, limit: int = 100, after: str = "") -> Deferred[list[Listed]]:
        """Messages with recipients that the filter means, the oldest first.

        :param after: the last id of the page before.
        """

    def show(messageId: str) -> Deferred[Shown | None]:
        """All about one message but its body; ``None`` when there is none."""

    def read(messageId: str, holds: bool = True) -> IBody:
        """As :meth:`ISpool.read`."""

    def change(action: Action, which: Filter, who: str) -> Deferred[int]:
        """Do something to the recipients that the filter means, in one transaction.

        The ids must be named: a tool goes from page to page of :meth:`messages`, and can show how
        far it is.  Recipients that are being delivered right now are left alone, and so are those
        that are final.  Each change is on record with ``who``.

        :return: how many recipients were changed.
        :raise ValueError: when the filter names no ids.
        """

    def counts() -> Deferred[list[Count]]:
        """How many recipients each domain has in each state.  Reads the whole queue."""

    def totals() -> Deferred[Totals]:
        """How long the queue is.  Reads the whole queue."""
