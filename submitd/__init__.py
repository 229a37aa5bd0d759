"""submitd: an authenticated mail submission service (RFC 6409) on Twisted."""

__version__ = "0.1.0"
