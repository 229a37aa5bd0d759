"""Credential back ends: who somebody is, by Cred's ``ICredentialsChecker``.

A back end is one file here and one line in ``twisted/plugins/submitd_cred.py``.  Its contract:

- ``requestAvatarId(credentials)`` gives a Deferred of the avatarId, the user's name in UTF-8 as the
  back end writes it (the client may have written it in another case).
- "No" is ``twisted.cred.error.UnauthorizedLogin``, after the same work whether or not there is such
  a user.  "I cannot tell now" is :class:`LoginUnavailable`, and never "no".
- User names are compared octet by octet, ASCII letters without case (:func:`foldName`).
- The constructor never fails for the state of the world; ``check()`` (``IChecked``) tells of it.
- ``revision()`` (``IRevised``) changes as soon as an earlier answer may be wrong.
"""

from __future__ import annotations

from submitd.wire import reply
from submitd.wire.errors import Refused

# What ICredentialsChecker promises; the empty tuple is Cred's anonymous, and never ours.
AvatarId = bytes | tuple[()]


class LoginUnavailable(Refused):
    """A back end cannot tell now: 454 4.7.0 (RFC 4954 6), not 535, or clients ask for a password.

    :param cause: what the log says about it.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(reply.LOGIN_UNAVAILABLE, cause)


def foldName(name: bytes) -> bytes:
    """The key under which a user name is looked up: ``Alice`` and ``alice`` are one person."""
    return name.lower()
