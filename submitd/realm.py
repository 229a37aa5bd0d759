"""Cred's realm: an avatarId becomes a :class:`Submitter`, the one who is logged in.

A login that is an address owns that address; equality.py says when two addresses are one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import attrs
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from submitd.equality import isAddressOf
from submitd.interfaces import ISubmitter
from submitd.waiting import promised
from submitd.wire.address import Mailbox

Login = tuple[type[Interface], "Submitter", Callable[[], None]]
Attributes = Mapping[str, Any]


@implementer(ISubmitter)
@attrs.frozen
class Submitter:
    """Who is logged in.

    :param avatarId: the name the checker knows this person by.
    :param attributes: what the back end knows about this person.
    """

    avatarId: str
    attributes: dict[str, Any] = attrs.field(factory=dict, eq=False)

    def owns(self, mailbox: Mailbox) -> bool:
        """Whether this person's login is that address."""
        return isAddressOf(self.avatarId, mailbox)


@implementer(IRealm)
@attrs.frozen
class SubmissionRealm:
    """Makes a :class:`Submitter` of any avatarId.

    :param attributes: gives what is known about an avatarId, at once or as a Deferred or coroutine;
        ``None`` for nothing.
    """

    attributes: (
        Callable[[str], Attributes | Deferred[Any] | Coroutine[Any, Any, Attributes]] | None
    ) = None

    def requestAvatar(
        self, avatarId: bytes | str | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> Login | Deferred[Any]:
        """The avatar with its logout, which has nothing to do.

        :return: a Deferred of them where ``attributes`` takes its time.
        :raise NotImplementedError: when ``interfaces`` does not name :class:`ISubmitter`.
        :raise UnauthorizedLogin: for the anonymous; mail is from somebody.
        """
        if ISubmitter not in interfaces:
            raise NotImplementedError("this realm gives submitters (ISubmitter) and nothing else")
        if not avatarId:
            raise UnauthorizedLogin("nobody submits without a name")
        name = avatarId.decode("utf-8") if isinstance(avatarId, bytes) else str(avatarId)
        known = promised(self.attributes(name)) if self.attributes else {}
        if isinstance(known, Deferred):
            return known.addCallback(partial(_login, name))
        return _login(name, known)


def _login(name: str, known: Attributes) -> Login:
    return ISubmitter, Submitter(name, dict(known)), _logout


def _logout() -> None:
    """Nothing is held for a submitter who is logged in."""
