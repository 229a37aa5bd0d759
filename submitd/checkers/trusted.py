"""The back end for logins without a secret: LOGIN= of XCLIENT, and those of networks.

The proxy has checked the login, and its word is enough; or the configuration says whose login
comes from which network.  It is in the Portal only where a listener has ``xclient_login`` or
``login_by_address``, and nothing else makes credentials of this kind.
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
        """The name that the proxy gave, or the configuration."""
        return succeed(credentials.username)
