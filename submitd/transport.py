"""The connections: replies sent at once, TLS on the socket.

Twisted's own transports send what is written on the reactor's next turn, and do TLS through memory
BIOs.  These do neither: ``write`` tries the socket first when nothing is queued, and ``startTLS``
puts OpenSSL straight on the socket.  To a protocol they are the same: ITCPTransport, ITLSTransport
and ISSLTransport, producer and consumer, half-close, the same reasons in ``connectionLost``.

What is promised: octets leave in the order of the writes; what was written before ``startTLS``
leaves in the clear and what was written behind it leaves encrypted, whenever the handshake ends;
nothing of a peer's is lost while the protocol pauses; one event reads and sends a bounded amount,
so that a busy client does not starve the others.  A client that had no answer is sending more,
often line by line: as much as has come is read in one event, and acknowledged at once.  After
``loseConnection`` the last octets and close_notify are sent, and what the client still sends is
thrown away for up to ``LINGER`` seconds: closing a socket with unread input resets it, and the
client would not see our last reply.

It fails as Twisted's do: nothing is raised, the protocol's ``connectionLost`` is called, always by
the reactor and never from inside a call that the protocol made.
"""

# mypy: allow-untyped-calls
# Twisted's transports are not annotated throughout.

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import UNIXAddress
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
)
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLContextFactory,
    IProtocol,
    ISSLTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, directlyProvides, implementer

from submitd import openssl
from submitd.openssl import RECORD

# Seconds that a client gets to close its side after we closed ours.
LINGER = 5.0

# Octets of one recv in the clear.
CHUNK = 65536

# Octets read from, and sent to, one connection before the others have their turn.
READ_LIMIT = 262144
SEND_LIMIT = 131072


class Phase(enum.Enum):
    """Where a connection stands, from its first octet to its last."""

    CLEAR = "clear"  # no TLS
    HANDSHAKE = "handshake"  # startTLS was called; writes wait, reads are the handshake's
    SECURE = "secure"  # TLS is on
    SHUT = "shut"  # our last octet has left; what still arrives is thrown away


# Looked up for each event: a module's name is cheaper than an attribute of an Enum.
CLEAR, HANDSHAKE, SECURE, SHUT = Phase


# zope.interface methods have no self; mypy-zope knows it.


class ILookAhead(Interface):
    """A transport that can leave octets on its socket, for whoever reads there next."""

    def lookAhead(wanted: Callable[[bytes], int] | None) -> None:
        """From now on, read no more of what has arrived than is wanted; until TLS is started.

        :param wanted: is shown octets that can be read, and says how many of them to read and give
            to the protocol, one at least; ``None`` for all, as usual.
        """


class IConnectionsOverSockets(Interface):
    """A TLS server that makes its connections itself, rather than to be asked for a context."""

    def connectionOver(socket: socket.socket) -> SSL.Connection:
        """What the next handshake is made with, and all that follows it.

        :param socket: what it reads and writes.
        """


_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux has it

_NOTHING = SSL.Context(SSL.TLS_METHOD)


def _tlsFailure(error: SSL.Error) -> Exception:
    """The reason a connection is lost for, when OpenSSL raised this."""
    if not isinstance(error, SSL.SysCallError):
        return error
    # pyOpenSSL leaves the cause in the thread's error queue, where OpenSSL 3 finds it at the next
    # connection that merely has nothing to read: one client that vanished would end a healthy
    # one.  Failing at something else is the public way to have the queue emptied.
    with contextlib.suppress(SSL.Error):
        _NOTHING.use_certificate_file(os.devnull)
    return CONNECTION_LOST


@implementer(ILookAhead)
class Server(tcp.Server):
    """A TCP connection.

    The flags say what cannot be told from the phase: ``_paused`` is the protocol's wish;
    ``_answered`` says whether something was written behind the last octets that came;
    ``_readWantsWrite`` and ``_writeWantsRead`` are OpenSSL's (a key update has to be answered);
    ``_ended`` means the peer has said that nothing more will come.
    """

    reactor: Any
    producer: Any
    _log = Logger()
    _phase = CLEAR
    _tls: SSL.Connection | None = None
    _clearQueue: bytearray | None = None  # what startTLS found unsent
    _wanted: Callable[[bytes], int] | None = None
    _paused = False
    _readWantsWrite = False
    _writeWantsRead = False
    _ended = False
    _notified = False
    _lingering: IDelayedCall | None = None
    _cause: Exception = CONNECTION_DONE  # what a connection in SHUT ends with
    _shouldShutdown = False  # before close(), which does the same: nobody else has the descriptor

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        self._queue = bytearray()
        self._answered = True
        super().__init__(sock, protocol, client, server, sessionno, reactor)

    # Writing.

    def write(self, data: bytes) -> None:
        """Send octets: at once what the socket takes, the rest as it takes more.

        :raise TypeError: when they are not bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not data or not self._writable:
            return
        self._answered = True
        # A pull producer is asked for more from doWrite, so its octets have to go that way.
        pulling = not self.streamingProducer and self.producer is not None
        if self._queue or pulling or self._phase is HANDSHAKE:
            self._enqueue(data)
            return
        sent = self._send(data)
        if sent == len(data):  # most of the time
            return
        if isinstance(sent, Exception):
            self._loseSoon(sent)
        else:
            self._enqueue(memoryview(data)[sent:])

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write pieces as one."""
        self.write(b"".join(iovec))

    @property
    def _writable(self) -> bool:
        """Whether octets are still taken; a producer may finish after loseConnection."""
        if self.disconnecting and self.producer is None:
            return False
        return not self._aborting and not self._writeDisconnected and self._phase is not SHUT

    def _enqueue(self, data: bytes | memoryview) -> None:
        self._queue += data
        if not self.producerPaused:
            self._maybePauseProducer()
        if self._phase is not HANDSHAKE:
            self._awaitSend()

    def _isSendBufferFull(self) -> bool:
        return len(self._queue) > self.bufferSize

    def _send(self, data: bytes | memoryview) -> int | Exception:
        """Give octets to the socket: how many it took, or why the connection is lost."""
        if self._phase is SECURE:
            return self._sendTLS(data)
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            return 0 if error.errno == errno.ENOBUFS else CONNECTION_LOST

    def _sendTLS(self, data: bytes | memoryview) -> int | Exception:
        # OpenSSL has encrypted what it could not send, and wants the same octets again; more may
        # follow them, elsewhere in memory.  The queue keeps them at its head, and pyOpenSSL's
        # contexts are set for a buffer that moves.
        assert self._tls is not None
        try:
            return openssl.write(self._tls, data)
        except SSL.WantWriteError:
            return 0
        except SSL.WantReadError:
            self._writeWantsRead = True
            return 0
        except SSL.Error as error:
            return _tlsFailure(error)

    def _drain(self, queue: bytearray) -> Exception | None:
        """Send from the head of a queue what the socket takes and one event may."""
        left = SEND_LIMIT
        while queue and left > 0:
            # Never shorter than in an attempt before: OpenSSL refuses that (see _sendTLS).
            with memoryview(queue) as whole, whole[:SEND_LIMIT] as head:
                sent = self._send(head)
            if isinstance(sent, Exception):
                return sent
            if not sent:
                break
            del queue[:sent]
            left -= sent
        return None

    def _awaitSend(self) -> None:
        """Have the reactor say when the queue can go on."""
        if self._writeWantsRead:
            # Writable it is already: waiting for that would turn the reactor in circles.
            self.stopWriting()
            self.startReading()
        else:
            self.startWriting()

    def doWrite(self) -> Exception | None:  # type: ignore[override]
        """The socket takes octets again."""
        if self._aborting or self._phase is SHUT:
            self.stopWriting()  # taking a producer away has begun it, and would turn the reactor
            return None
        if self._phase is HANDSHAKE:
            return self._handshake()
        if self._readWantsWrite:
            self._readWantsWrite = False
            self._readSoon()
        if self._writeWantsRead:
            # Not without need: one attribute more, and each has a dictionary of its own kind.
            self._writeWantsRead = False
        failed = self._drain(self._queue)
        if failed is not None:
            return failed
        if self._queue:
            self._awaitSend()
            return None
        self.stopWriting()
        return self._drained()

    def _drained(self) -> Exception | None:
        """All has left: ask for more, or do what was put off until now."""
        if self.producer is not None and (self.producerPaused or not self.streamingProducer):
            self.producerPaused = False
            self.producer.resumeProducing()
        elif self.disconnecting and self.producer is None:
            return self._finish()
        elif self._writeDisconnecting and not self._writeDisconnected:
            if not self._closeNotify():
                self.startWriting()
            else:
                self._writeDisconnected = True
                self._closeWriteConnection()
        return None

    # Reading.

    @property
    def _receptive(self) -> bool:
        """Whether the protocol wants, and may have, what arrives."""
        if self._paused or self.disconnecting or self._aborting or self._ended:
            return False
        return self._phase is CLEAR or self._phase is SECURE

    def doRead(self) -> Exception | None:  # type: ignore[override]
        """Something has arrived."""
        if self._writeWantsRead:
            failed = self.doWrite()
            if failed is not None:
                return failed
        if self._receptive:
            return self._readClear() if self._tls is None else self._readTLS(self._tls)
        if self._phase is HANDSHAKE:
            return self._handshake()
        if self._phase is SHUT:
            return self._discard()
        # Here, and not in pauseProducing: a pause that ends before anything comes costs nothing.
        if not self._writeWantsRead:
            self.stopReading()
        return None

    def lookAhead(self, wanted: Callable[[bytes], int] | None) -> None:
        """See :class:`ILookAhead`."""
        self._wanted = wanted

    def _readWanted(self, wanted: Callable[[bytes], int]) -> Exception | None:
        try:
            data = self.socket.recv(CHUNK, socket.MSG_PEEK)
            if data:
                data = self.socket.recv(wanted(data))
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        # What is left stays readable, and the reactor says so again.
        self.protocol.dataReceived(data)
        return None

    def _readClear(self) -> Exception | None:
        if self._wanted is not None:
            return self._readWanted(self._wanted)
        left = READ_LIMIT
        while left > 0:
            try:
                data = self.socket.recv(CHUNK)
            except BlockingIOError:
                return None
            except OSError:
                return CONNECTION_LOST
            if not data:
                return CONNECTION_DONE
            self._answered = False
            self.protocol.dataReceived(data)
            if len(data) < CHUNK:
                if not self._answered and self._receptive:
                    self._acknowledge()
                return None
            if not self._receptive:
                return None
            left -= CHUNK
        return None

    def _readTLS(self, tls: SSL.Connection) -> Exception | None:
        for _ in range(READ_LIMIT // RECORD):
            try:
                data = openssl.read(tls)
            except SSL.WantReadError:
                if not self._answered:
                    self._acknowledge()
                return None
            except SSL.WantWriteError:
                # A key update to be answered first; reading again before that can only fail again.
                self._readWantsWrite = True
                self.stopReading()
                self.startWriting()
                return None
            except SSL.ZeroReturnError:
                return CONNECTION_DONE
            except SSL.Error as error:
                return _tlsFailure(error)
            self._answered = False
            self.protocol.dataReceived(data)
            if not self._receptive:
                return None
            if self._answered and len(data) < RECORD and not tls.pending():
                return None
        if tls.pending():
            self._readSoon()
        return None

    def _acknowledge(self) -> None:
        """Acknowledge what has come, where no answer does.

        Without that the kernel waits up to 40 ms for an answer to send it with, and a client that
        writes in pieces, with Nagle's algorithm, keeps the rest of its message back until then.
        """
        if _QUICKACK is not None:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _readSoon(self) -> None:
        """Read what OpenSSL holds already: the socket's next event may never come."""
        self.reactor.callLater(0, self._readNow)

    def _readNow(self) -> None:
        if not self._receptive:
            return
        self.startReading()
        try:
            why = self.doRead()
        except Exception as error:
            self._log.failure("in dataReceived")
            why = error
        if why is not None:
            self._lose(why)

    def _discard(self) -> Exception | None:
        """Throw away what comes behind our end, until the client's own."""
        try:
            return None if self.socket.recv(CHUNK) else self._cause
        except BlockingIOError:
            return None
        except OSError:
            return self._cause

    def pauseProducing(self) -> None:
        """Hold back what arrives."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on with what arrives, and with what had arrived before the pause."""
        self._paused = False
        if self._receptive:
            self._resumeReading()

    def _resumeReading(self) -> None:
        self.startReading()
        if self._tls is not None and self._tls.pending():
            self._readSoon()

    # TLS.

    def startTLS(self, contextFactory: IOpenSSLContextFactory, normal: bool = True) -> None:
        """Begin a handshake behind what has been written.

        :param contextFactory: its ``getContext`` gives the ``OpenSSL.SSL.Context``, unless it
            provides :class:`IConnectionsOverSockets`.
        :param normal: whether this is the TLS server, as it is the TCP server.
        :raise TypeError: when it has no ``getContext``; connection creators are made for Twisted's
            memory BIOs.
        :raise RuntimeError: when TLS is on already.
        """
        if not self._writable:
            return
        if self._tls is not None:
            raise RuntimeError("TLS is on already")
        tls = self._connectionOf(contextFactory, normal)
        if normal:
            tls.set_accept_state()
        else:
            tls.set_connect_state()
        self._tls = tls
        self._phase = HANDSHAKE
        self.TLS = True
        directlyProvides(self, ISSLTransport)
        if self._queue:
            self._clearQueue, self._queue = self._queue, bytearray()
        if self._clearQueue or not normal:
            self.stopReading()
            self.startWriting()
        else:
            self.startReading()

    def _connectionOf(self, contextFactory: Any, normal: bool) -> SSL.Connection:
        if normal and IConnectionsOverSockets.providedBy(contextFactory):
            made: SSL.Connection = contextFactory.connectionOver(self.socket)
            return made
        getContext = getattr(contextFactory, "getContext", None)
        if getContext is None:
            raise TypeError(f"{contextFactory!r} has no getContext()")
        return SSL.Connection(getContext(), self.socket)

    def _handshake(self) -> Exception | None:
        assert self._tls is not None
        if self._clearQueue:
            failed = self._drain(self._clearQueue)
            if failed is not None or self._clearQueue:
                return failed
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self.stopWriting()
            self.startReading()
            return None
        except SSL.WantWriteError:
            self.stopReading()
            self.startWriting()
            return None
        except SSL.Error as error:
            return self._failed(_tlsFailure(error))
        self._phase = SECURE
        return self._secured()

    def _failed(self, why: Exception) -> Exception | None:
        """The handshake has failed: let the client read the alert that says why."""
        if why is CONNECTION_LOST:
            return why
        self._cause = why.with_traceback(None)  # whose frames would hold us, in a circle
        self.disconnecting = True
        self.stopWriting()
        return self._shut()

    def _secured(self) -> Exception | None:
        """The handshake is over: say so, and send what has waited for it.

        The handshake may have ended in a read or in a write event.  Nothing is left to the next
        event: for a greeting that waits here, none would come.
        """
        self._resumeReading()
        if IHandshakeListener.providedBy(self.protocol):
            self.protocol.handshakeCompleted()
        return self.doWrite()

    def getHandle(self) -> Any:
        """The ``OpenSSL.SSL.Connection`` once TLS has been started, before that the socket."""
        return self.socket if self._tls is None else self._tls

    def getPeerCertificate(self) -> Any:
        """The client's certificate, an ``OpenSSL.crypto.X509``, or ``None``."""
        return None if self._tls is None else self._tls.get_peer_certificate()

    # A producer is ours and not another protocol's, with TLS as without.
    registerProducer = FileDescriptor.registerProducer
    unregisterProducer = FileDescriptor.unregisterProducer

    # The end.

    def loseConnection(self) -> None:
        """Close the connection once all is sent and no producer is left."""
        if not self.connected or self.disconnecting or self._aborting:
            return
        if self._phase is HANDSHAKE and not self._queue and self.producer is None:
            # There is nothing to say, and close_notify cannot be said yet.
            self.abortConnection()
            return
        self.disconnecting = True
        if self._phase is HANDSHAKE or self._queue or self.producer is not None:
            return
        why = self._finish()
        if why is not None:
            self._loseSoon(why)

    def abortConnection(self) -> None:
        """Drop the connection and all that is queued."""
        self._loseSoon(ConnectionAborted())

    def _finish(self) -> Exception | None:
        """Say that we are done, and wait for the client's end."""
        if not self._closeNotify():
            self.startWriting()
            return None
        return self._shut()

    def _shut(self) -> Exception | None:
        self._phase = SHUT
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return self._cause
        if self._ended:
            return self._cause
        self.startReading()
        self._lingering = self.reactor.callLater(LINGER, self._lose, self._cause)
        return None

    def _closeNotify(self) -> bool:
        """Send close_notify where there is TLS; false when the socket does not take it yet."""
        if self._tls is None or self._notified:
            return True
        try:
            self._tls.shutdown()
        except SSL.WantWriteError:
            return False
        except SSL.Error as error:
            # The peer is gone, and there is nobody to say it to.
            _tlsFailure(error)
        self._notified = True
        return True

    def _loseSoon(self, why: Exception) -> None:
        """Lose the connection on the reactor's next turn."""
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self.stopReading()
        self.stopWriting()
        if self.producer is not None and self.streamingProducer:
            # What it writes is ignored from here on: in a loop of its own it would never end.
            self.producer.pauseProducing()
        self.reactor.callLater(0, self.connectionLost, Failure(why))

    def _lose(self, why: Exception) -> None:
        """Lose the connection as the reactor does when an event says so."""
        self.stopReading()
        if isinstance(why, ConnectionDone):
            self.readConnectionLost(Failure(why))
        else:
            self.connectionLost(Failure(why))

    def readConnectionLost(self, reason: Failure) -> None:
        """The peer will send no more; a protocol that can half-close may go on writing."""
        self._ended = True
        if self._phase in (SHUT, HANDSHAKE):
            self.connectionLost(reason)
        else:
            super().readConnectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone; the protocol is told."""
        if self.disconnected:
            return
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        # An answer to the peer's close_notify; after a truncated reply it would be a lie.
        if self._phase is SECURE and reason.check(ConnectionDone) and not self._queue:
            self._closeNotify()
        self._phase = SHUT
        try:
            super().connectionLost(reason)
        finally:
            # The descriptor's number is free, and may be another connection's from now on.
            self._tls = None


class UNIXServer(Server):
    """A connection on a unix socket; it passes no descriptors."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        super().__init__(sock, protocol, (client, None), server, sessionno, reactor)

    def getHost(self) -> UNIXAddress:
        """The path of the socket we listen on."""
        return UNIXAddress(self.socket.getsockname())

    def getPeer(self) -> UNIXAddress:
        """The path of the client's socket; most have none."""
        path: Any = self.hostname
        return UNIXAddress(path or None)

    def _acknowledge(self) -> None:
        """There is no TCP here, and nothing to acknowledge."""

    def getTcpNoDelay(self) -> bool:
        """There is no TCP here, and no such delay."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no TCP here: nothing to set."""
