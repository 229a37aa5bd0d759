"""A credential back end: one login that a container is given in its environment.

In the configuration::

    [auth]
    checkers = ["environment:SMTP_LOGIN"]

The variable holds ``name:password``.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from zope.interface import implementer

from submitd.interfaces import IChecked


@implementer(ICredentialsChecker, IChecked)
class EnvironmentChecker:
    """Knows one user.

    :param variable: the name of the environment variable.
    :param environment: where it is looked up.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, variable: str, environment: Mapping[str, str] = os.environ) -> None:
        self._variable = variable
        name, _, password = environment.get(variable, "").partition(":")
        self._name, self._password = name.encode(), password.encode()

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        good = self._name and self._password
        return [] if good else [f"{self._variable} does not hold name:password"]

    def requestAvatarId(self, credentials: Any) -> bytes:
        """The user's name.

        :raise UnauthorizedLogin: for another name or another password, in the same time.
        """
        isName = hmac.compare_digest(credentials.username, self._name)
        isPassword = credentials.checkPassword(self._password)
        # An empty name is Cred's anonymous: a variable that is not set must let nobody in.
        if not (isName and isPassword and self._name and self._password):
            raise UnauthorizedLogin()
        return self._name
