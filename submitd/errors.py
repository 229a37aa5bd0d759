"""The error with which a start ends: a port, a file or a certificate that cannot be had.

A mistake in the configuration is none of these: :class:`submitd.config.ConfigurationError` has all
of them, and no service is made.
"""

from __future__ import annotations


class CannotStart(SystemExit, Exception):
    """The service cannot start; the text is one sentence.

    As an ``Exception`` it makes twistd remove its pid file and tell the waiting parent; as a
    ``SystemExit`` it ends the process with the sentence on stderr and status 1, no traceback.
    """
