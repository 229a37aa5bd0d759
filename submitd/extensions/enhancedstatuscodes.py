"""ENHANCEDSTATUSCODES (RFC 2034): every reply that takes a code of RFC 3463 has one."""

from __future__ import annotations

from submitd.extensions.extension import Extension


class EnhancedStatusCodes(Extension):
    """Replies carry a status code; wire/reply.py holds them."""

    keyword = "ENHANCEDSTATUSCODES"
