"""Base64 (RFC 4648), read strictly: each string of octets has one form, and no other is taken.

Two spellings of one password would be two things to whoever counts or compares them.
"""

from __future__ import annotations

import base64
import binascii


def decodeBase64(text: bytes) -> bytes:
    """The octets.

    :raise ValueError: for what is no base64, or not the one canonical form (RFC 4648 3.5); says
        which, and quotes nothing.
    """
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not valid base64") from None
    if base64.b64encode(octets) != text:
        raise ValueError("not canonical base64")
    return octets
