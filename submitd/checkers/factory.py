"""How ``twisted/plugins/submitd_cred.py`` names a back end: one object, nothing imported.

Twisted imports every plug-in file at each start of ``twistd``, whatever the command; so the file
holds strings, and a back end is imported when a checker of its kind is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import (
    ICheckerFactory,
    InvalidAuthArgumentString,
    InvalidAuthType,
    findCheckerFactory,
)
from twisted.plugin import IPlugin
from zope.interface import Interface, implementer


@implementer(IPlugin, ICheckerFactory)
@attrs.frozen
class CheckerFactory:
    """Makes a checker of a string such as ``htpasswd:/etc/submitd/passwd``.

    :param authType: what stands before the colon.
    :param checker: ``"package.module:Class"``, called with what stands after it.
    :param argStringFormat: one line that says what that is.
    :param authHelp: what the back end does, for the manual, and for commands that list them.
    :param credentialInterfaces: what it can check.
    :param argumentIsFile: whether what follows the colon is the path of a file, as
        :func:`takesFile` asks.
    :param argument: what follows the colon, in a word, for the documentation.
    """

    authType: str
    checker: str
    argStringFormat: str
    authHelp: str
    credentialInterfaces: Sequence[type[Interface]]
    argumentIsFile: bool = False
    argument: str = "FILE"

    def generateChecker(self, argstring: str) -> ICredentialsChecker:
        """Make the checker.

        :raise InvalidAuthArgumentString: when nothing follows the colon.
        """
        if not argstring.strip():
            raise InvalidAuthArgumentString(
                f"{self.authType}: needs {self.argStringFormat} behind the colon"
            )
        module, _, name = self.checker.partition(":")
        made: ICredentialsChecker = getattr(importlib.import_module(module), name)(argstring)
        return made


def takesFile(authType: str) -> bool:
    """Whether what follows the colon is the path of a file, for checkers of that name.

    It is for those whose factory says so, be it ours or somebody's: by a true attribute
    ``argumentIsFile``.
    """
    try:
        factory = findCheckerFactory(authType)
    except InvalidAuthType:
        return False
    # Twisted's own "file" has no such attribute.
    return bool(getattr(factory, "argumentIsFile", authType == "file"))
