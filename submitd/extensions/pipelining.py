"""PIPELINING (RFC 2920): the protocol reads on; the order of replies is the dialogue's rule 1."""

from __future__ import annotations

from submitd.extensions.extension import Extension


class Pipelining(Extension):
    """Commands may come in groups."""

    keyword = "PIPELINING"
