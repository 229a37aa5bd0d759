"""What an extension is when it has nothing to say: the base of those that only have some parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from zope.interface import implementer

from submitd.interfaces import IExtendedDelivery, IExtension
from submitd.states import Verb
from submitd.wire.errors import Refused
from submitd.wire.reply import UNKNOWN_PARAMETER

if TYPE_CHECKING:
    from submitd.dialogue import Command, Dialogue


@implementer(IExtension)
class Extension:
    """An extension without parameters and verbs, shown by its keyword alone."""

    keyword: ClassVar[str] = ""
    mailParameters: Mapping[str, Callable[..., None]] = {}
    rcptParameters: Mapping[str, Callable[..., None]] = {}
    verbs: tuple[tuple[Verb, Command], ...] = ()

    def advertise(self, dialogue: Dialogue) -> str | None:
        """The keyword; for the sake of EHLO only."""
        return self.keyword


def isHonoured(dialogue: Dialogue, keyword: str) -> bool:
    """Whether the session's delivery acts on an extension; what nobody acts on is not offered."""
    delivery = dialogue.delivery
    return IExtendedDelivery.providedBy(delivery) and keyword in delivery.extensions


def require(isOffered: bool, keyword: str) -> None:
    """Refuse a parameter of an extension that is not offered, like one that nobody knows.

    :raise Refused: 555 5.5.4.
    """
    if not isOffered:
        raise Refused(UNKNOWN_PARAMETER, f"{keyword} is not offered: no delivery acts on it")
