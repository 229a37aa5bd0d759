"""Reading and writing of a TLS connection, with OpenSSL's own functions.

pyOpenSSL makes a buffer of the size of a record for each read, and after each call looks for errors
where there are none; for a command and its reply that costs as much as all that OpenSSL and the
kernel do.  Here one buffer serves all connections, and pyOpenSSL is called when something is wrong.

This needs names of pyOpenSSL that are not public, and no other module uses them.  Where they are
missing, its public methods do the same.  To be called by the reactor's thread alone.
"""

from __future__ import annotations

from typing import Any, NoReturn

from OpenSSL import SSL

# The most that one TLS record holds (RFC 8446 5.1).
RECORD = 16384

_inner: Any = SSL
try:
    _read, _write = _inner._lib.SSL_read, _inner._lib.SSL_write
    _wasReused = _inner._lib.SSL_session_reused
    _buffer = _inner._ffi.new("char[]", RECORD)
    _octets = _inner._ffi.buffer(_buffer)
    _Known: Any = SSL.Connection
    _Known._raise_ssl_error  # noqa: B018
except AttributeError:  # pragma: no cover
    _Known = None


def read(connection: Any) -> bytes:
    """The octets of the next record, at most :data:`RECORD`.

    :raise OpenSSL.SSL.Error: as ``recv`` of an ``OpenSSL.SSL.Connection``.
    """
    if type(connection) is not _Known:
        received: bytes = connection.recv(RECORD)
        return received
    count = _read(connection._ssl, _buffer, RECORD)
    if count <= 0:
        _raise(connection, count)
    octets: bytes = _octets[:count]
    return octets


def write(connection: Any, data: bytes | memoryview) -> int:
    """Send octets; how many were sent.

    :raise OpenSSL.SSL.Error: as ``send`` of an ``OpenSSL.SSL.Connection``.
    """
    if type(connection) is not _Known or type(data) is not bytes:
        return int(connection.send(data))
    count: int = _write(connection._ssl, data, len(data))
    if count <= 0:
        _raise(connection, count)
    return count


def _raise(connection: Any, result: int) -> NoReturn:
    connection._raise_ssl_error(connection._ssl, result)
    # Going on would give away what another connection has left in the buffer.
    raise SSL.Error([("", "", "neither octets nor an error")])


def wasResumed(connection: Any) -> bool:
    """Whether an earlier session was resumed; pyOpenSSL has no method for it."""
    return type(connection) is _Known and bool(_wasReused(connection._ssl))
