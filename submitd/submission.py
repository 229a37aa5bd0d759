"""What all sessions of one listener have in common.

A :class:`Submission` is made once, from the configuration or by a program that embeds the service,
and never changes.  It is the list of objects that a dialogue is given: nothing is fetched from a
global, nobody subclasses the core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IReactorTime
from zope.interface.interface import InterfaceClass

from submitd.interfaces import STAGES, IDelivery, IExtension, IMechanism, IReverseResolver
from submitd.wire.network import NO_LOGINS, NONE, NetworkLogins, Networks
from submitd.wire.reply import LOGIN_REQUIRED


@attrs.frozen
class Limits:
    """Bounds on what one connection may use; sizes in octets, times in seconds, 0 for no limit.

    :param messageSize: largest message, announced by SIZE (RFC 1870).
    :param headerSize: largest header section kept for message policies.
    :param recipients: recipients of one message (RFC 5321 4.5.3.1.8 wants 100 at least).
    :param transactions: mail transactions of one connection.
    :param commandsBeforeLogin: commands a client may give before it has logged in, where login is
        required.
    :param unrecognized: unknown or malformed commands, RCPT aside, before the connection is closed.
    :param refusals: commands of any kind that may be refused before the connection is closed.
    :param loginFailures: failed logins before the connection is closed.
    :param idle: seconds without a whole command from the client, or without an octet of a message
        (RFC 5321 4.5.3.2.7 wants 300).
    :param handshake: seconds that a TLS handshake may take, or the header of a proxy.
    :param login: seconds from a connection to its login, where one is required.
    :param message: seconds from 354 to the end of the message.
    :param stage: seconds that a policy, a login or a delivery may take; with 0 a client waits for
        one that hangs until the service stops.
    """

    messageSize: int = 25 * 1024 * 1024
    headerSize: int = 256 * 1024
    recipients: int = 1000
    transactions: int = 0
    commandsBeforeLogin: int = 20
    unrecognized: int = 10
    refusals: int = 1000
    loginFailures: int = 3
    idle: float = 300.0
    handshake: float = 60.0
    login: float = 180.0
    message: float = 3600.0
    stage: float = 60.0


_REMEDY = "give an object and not its class, and name the interface to @implementer of the class"


def isPolicy(made: object) -> bool:
    """Whether something would be asked anything: it provides a stage interface."""
    return any(stage.providedBy(made) for stage in STAGES)


# What is no policy would be asked nothing, and what it was to refuse would be let through.
def _arePolicies(submission: Submission, attribute: object, policies: tuple[Any, ...]) -> None:
    for at, policy in enumerate(policies):
        if not isPolicy(policy):
            raise TypeError(
                f"policies[{at}], {policy!r}, provides no stage interface of submitd.interfaces;"
                f" {_REMEDY}"
            )


def _isDelivery(submission: Submission, attribute: object, delivery: IDelivery) -> None:
    if not IDelivery.providedBy(delivery):
        raise TypeError(f"delivery, {delivery!r}, does not provide IDelivery; {_REMEDY}")


def _eachProvides(interface: InterfaceClass, remedy: str) -> Callable[..., None]:
    def look(submission: Submission, attribute: attrs.Attribute[Any], found: Sequence[Any]) -> None:
        for at, each in enumerate(found):
            if not interface.providedBy(each):
                name = interface.__name__
                said = f"{attribute.name}[{at}], {each!r}, does not provide {name}"
                raise TypeError(f"{said}; {remedy}")

    return look


def _several(given: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(given)  # tuple itself has a type that mypy's attrs cannot read


def _inUpperCase(names: Iterable[str]) -> frozenset[str]:
    if isinstance(names, str):
        raise TypeError(f"there must be several names, in a set or a list, not {names!r}")
    return frozenset(map(str.upper, names))


@attrs.frozen(kw_only=True, eq=False)
class Submission:
    """What all sessions of one listener have in common.

    :param hostname: our own name, in the greeting, EHLO and Received.
    :param delivery: where an accepted message goes.
    :param clock: what tells the time and calls later; the reactor, or a ``Clock`` in tests.
    :param timeOfDay: seconds since 1970, for dates that clients name and see; the clock's own where
        nothing is said.
    :param portal: who checks a login; ``None`` offers none.
    :param policies: objects that provide one or more of the stage interfaces, in their order.
    :param mechanisms: the SASL mechanisms to offer, best first.
    :param extensions: the ESMTP extensions, in the order EHLO shows them.
    :param banner: text behind the host name in the greeting.
    :param startTLS: whether STARTTLS can be had.
    :param requireTLS: no AUTH and no MAIL before TLS.
    :param loginRequired: no MAIL before a login.
    :param loginRequiredText: what 530 says then.
    :param insecureLogin: passwords may travel in the clear; for tests and closed networks alone.
    :param lmtp: speak LMTP (RFC 2033) instead of SMTP.
    :param helloText: what follows our name in the answer to EHLO; ``{client}`` is the client's.
    :param hiddenExtensions: keywords that EHLO does not show although they work.
    :param disabledVerbs: verbs that are answered 502 and not offered.
    :param maxHold: for how many seconds a message may be held back (RFC 4865); 0 offers none.
    :param minDeliverBy: the shortest time, in seconds, in which a message can be asked to be
        delivered or else returned (RFC 2852); 0 for any.
    :param priorityProfile: the registered name of what the priorities mean (RFC 6710), such as
        ``"MIXER"``; empty for none.
    :param xclientFrom: the proxies that may say by XCLIENT whom they speak for.
    :param xclientLogin: whether LOGIN= of XCLIENT logs somebody in, by the Portal's checker for
        ``ITrustedLogin``.
    :param xforwardFrom: the proxies that may say by XFORWARD where a message came from.
    :param loginByAddress: whose login a client has that needs one and has not logged in, by the
        Portal's checker for ``ITrustedLogin``.
    :param proxyFrom: the peers that begin with a PROXY header, and have no login by their own
        address.
    :param resolver: looks up the name of a client's address; ``None`` for no look-up.
    :param lookupLimit: seconds that the greeting waits for the name at most.
    :param refusalIds: gives the id that each refusal shows, such as a
        :class:`submitd.refusals.RefusalIds`; ``None`` for refusals without.
    :raise TypeError: for a delivery, a mechanism or an extension that does not provide its
        interface, and for a policy that provides no stage interface.
    """

    hostname: str
    delivery: IDelivery = attrs.field(validator=_isDelivery)
    clock: IReactorTime
    portal: Portal | None = None
    policies: Sequence[Any] = attrs.field(default=(), converter=tuple, validator=_arePolicies)
    mechanisms: Sequence[IMechanism] = attrs.field(
        default=(),
        converter=_several,
        validator=_eachProvides(IMechanism, 'submitd.sasl.mechanism("PLAIN") makes one of a name'),
    )
    extensions: Sequence[IExtension] = attrs.field(
        default=(), converter=_several, validator=_eachProvides(IExtension, _REMEDY)
    )
    banner: str = ""
    startTLS: bool = False
    requireTLS: bool = True
    loginRequired: bool = True
    loginRequiredText: str = LOGIN_REQUIRED.lines[0]
    insecureLogin: bool = False
    lmtp: bool = False
    helloText: str = "greets {client}"
    hiddenExtensions: frozenset[str] = attrs.field(default=(), converter=_inUpperCase)
    disabledVerbs: frozenset[str] = attrs.field(default=(), converter=_inUpperCase)
    maxHold: float = 30 * 86400.0
    minDeliverBy: int = 0
    priorityProfile: str = ""
    xclientFrom: Networks = NONE
    xclientLogin: bool = False
    xforwardFrom: Networks = NONE
    loginByAddress: NetworkLogins = NO_LOGINS
    proxyFrom: Networks = NONE
    resolver: IReverseResolver | None = None
    lookupLimit: float = 2.0
    refusalIds: Callable[[], str] | None = None
    limits: Limits = attrs.field(factory=Limits, validator=attrs.validators.instance_of(Limits))
    timeOfDay: Callable[[], float] = attrs.field(
        default=attrs.Factory(lambda self: self.clock.seconds, takes_self=True)
    )
