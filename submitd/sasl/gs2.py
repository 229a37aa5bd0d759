"""How SCRAM and OAUTHBEARER begin: with the header of GS2 (RFC 5801 4).

It says whether the login is bound to the connection, and whom the client wants to be or act as.
"""

from __future__ import annotations

import re

# saslname = 1*(UTF8-char-safe / "=2C" / "=3D"), and strings of ABNF have no case.
# U+0001 stands between the pairs of OAUTHBEARER, and nobody has it in a name.
_NAME = rb"(?:[^\x00\x01,=]|=2[Cc]|=3[Dd])+"
# gs2-header = [gs2-nonstd-flag ","] gs2-cb-flag "," [gs2-authzid] ","
# The flag in front of it is for mechanisms of GSS-API.
HEADER = rb"(?P<flag>[ny]|p=(?P<kind>[A-Za-z0-9.-]+)),(?:a=(?P<identity>" + _NAME + rb"))?,"
"""The pattern of it: the flag, the kind of the binding where it is one, and the name."""

_ESCAPED = re.compile(rb"=(?:(2C)|3D)", re.IGNORECASE)


def unescaped(name: bytes) -> bytes:
    """A name as it was before it was sent."""
    return _ESCAPED.sub(lambda found: b"," if found[1] else b"=", name)
