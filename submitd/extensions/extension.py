"""What an extension is when it has nothing to say: the base of those that only have some parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from zope.interface import implementer

from submitd.interfaces import IExtension
from submitd.states import Verb

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
