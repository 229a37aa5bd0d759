"""The back end for LOGIN= of XCLIENT: the proxy has checked the login, and its word is enough.

It is in the Portal only where the configuration lets a trusted proxy log people in
(``xclient_login``).  Nothing but that command makes credentials of this kind.
"""

from __future__ import annotations

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from submitd.checkers import AvatarId
from submitd.interfaces import ITrustedLogin


@implementer(ICredentialsChecker)
class TrustedProxy:
    """Believes the name."""

    credentialInterfaces = (ITrustedLogin,)

    def requestAvatarId(self, credentials: ITrustedLogin) -> Deferred[AvatarId]:
        """The name that the proxy gave."""
        return succeed(credentials.username)
