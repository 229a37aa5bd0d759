"""SASL mechanisms (RFC 4422, RFC 4954): what a client sends becomes Cred's credentials.

One file per mechanism and one line in :data:`REGISTRY`.  A mechanism knows nothing of base64, of
replies or of users: the dialogue decodes, a checker decides.  A malformed response is refused with
501 5.5.2 whether or not such a user exists; a well-formed one always becomes credentials.
"""

from __future__ import annotations

import importlib

from zope.interface import Invalid
from zope.interface.verify import verifyObject

from submitd.interfaces import IMechanism

REGISTRY: dict[str, str] = {
    "PLAIN": "submitd.sasl.plain:Plain",
    "LOGIN": "submitd.sasl.login:Login",
    "CRAM-MD5": "submitd.sasl.crammd5:CramMD5",
    "XOAUTH2": "submitd.sasl.xoauth2:XOAuth2",
    "OAUTHBEARER": "submitd.sasl.oauthbearer:OAuthBearer",
    "EXTERNAL": "submitd.sasl.external:External",
    "SCRAM-SHA-256-PLUS": "submitd.sasl.scram:ScramPlus",
    "SCRAM-SHA-256": "submitd.sasl.scram:Scram",
}


def mechanism(name: str) -> IMechanism:
    """Make the mechanism of that name.

    :param name: a name of :data:`REGISTRY`, in any case, or ``"package.module:Class"``.
    :raise LookupError: when there is no such mechanism, and the text names those that exist; or
        when it cannot be imported or made, or is none.
    """
    where = name if ":" in name else REGISTRY.get(name.upper())
    if where is None:
        raise LookupError(f"no SASL mechanism {name!r}; known are {', '.join(REGISTRY)}")
    module, _, attribute = where.partition(":")
    try:
        made: IMechanism = getattr(importlib.import_module(module), attribute)()
        verifyObject(IMechanism, made)
    except Invalid as error:
        raise LookupError(f"no SASL mechanism {name!r}: it lacks some of IMechanism") from error
    except Exception as error:
        # Whatever somebody's module does when it is imported is one mistake among the others.
        said = f"{type(error).__name__}: {error}"
        raise LookupError(f"no SASL mechanism {name!r}: {said}") from error
    return made
