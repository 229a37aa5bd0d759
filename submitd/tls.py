"""TLS of the listeners: versions and ciphers, a certificate per name, client certificates, reload.

A :class:`ServerTLS` is made once from :class:`TLSSettings` and makes the connection of every
handshake, whichever transport asks (``startTLS``, or TLS from the first octet).  What it promises:
nothing below TLS 1.2, no compression (CRIME), no renegotiation, session tickets without a cache in
memory, no buffers kept for idle connections, and, unless other ciphers are asked for, forward
secrecy and authenticated ciphers alone.

A client that names the server (SNI, RFC 6066 3) gets the certificate of that name, and for a name
that is not known the one of ``[tls]`` itself: that recommends to go on, and the client is the one
who can tell whether it will do.  Choosing is one look into a dictionary, and is not even asked for
where there are no names.

Files are read when the object is made, so before privileges are dropped and before any port opens;
it fails with :class:`TLSMistake`, and :func:`mistakes` finds all of them at once.  Later they are
read again by ``reload`` and, when they have changed, by ``refresh``: a pair that is broken then is
one line in the log, and the old one stays.  Connections that are there keep what they began with.
"""

from __future__ import annotations

import datetime
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from zope.interface import implementer

from submitd import events
from submitd.certificates import (
    UNREADABLE,
    Identity,
    Kept,
    TLSMistake,
    lacksChain,
    outOfTime,
    readAuthorities,
    readCertificates,
    readPrivateKey,
    selfSigned,
    trust,
)
from submitd.equality import sameDomain
from submitd.transport import IConnectionsOverSockets
from submitd.typed import Seconds
from submitd.wire import abnf

__all__ = [
    "CertificateSettings",
    "ServerTLS",
    "TLSMistake",
    "TLSSettings",
    "isVerified",
    "mistakes",
    "selfSigned",
    "warnings",
]

Version = Literal["TLSv1.2", "TLSv1.3"]

VERSIONS: dict[str, int] = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}

# RFC 9325 4.2: ECDHE with an AEAD.  The suites of TLS 1.3 are all of that kind already.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# First the one that all have (RFC 8446 9.1): with SHA-384, whose schedule of keys takes longer, a
# handshake costs a twentieth more.
CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

OPTIONS = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_SINGLE_ECDH_USE
)

_SERVER_NAME = re.compile(rf"(?:\*\.)?{abnf.ASCII_DOMAIN}")


@attrs.frozen(kw_only=True)
class CertificateSettings:
    """``[tls.sni."NAME"]``: the certificate for clients that ask for this name."""

    certificate: Path = attrs.field(
        metadata={"help": "PEM file: the certificate for this name, then the chain up to the root."}
    )
    private_key: Path = attrs.field(
        metadata={"help": "PEM file: the certificate's private key, without a passphrase."}
    )


@attrs.frozen(kw_only=True)
class TLSSettings:
    """``[tls]``: certificates, and which versions and ciphers are spoken."""

    certificate: Path = attrs.field(
        metadata={"help": "PEM file: the server's certificate, then the chain up to the root."}
    )
    private_key: Path = attrs.field(
        metadata={"help": "PEM file: the certificate's private key, without a passphrase."}
    )
    client_certificate: Literal["no", "request", "require"] = attrs.field(
        default="no",
        metadata={
            "help": 'Whether clients are asked for a certificate. "request": they may have one, '
            "and EXTERNAL and policies see whether it was verified; sessions are not resumed then. "
            '"require": without a good one the handshake fails.'
        },
    )
    client_ca: Path | None = attrs.field(
        default=None,
        metadata={
            "help": "PEM file: the authorities that client certificates are verified with. "
            'Required where client_certificate is not "no".'
        },
    )
    minimum_version: Version = attrs.field(
        default="TLSv1.2",
        metadata={"help": "The oldest version of TLS that is spoken (RFC 8996 forbids older)."},
    )
    maximum_version: Version = attrs.field(
        default="TLSv1.3", metadata={"help": "The newest version of TLS that is spoken."}
    )
    ciphers: str = attrs.field(
        default=CIPHERS,
        metadata={
            "help": "The cipher suites of TLS 1.2, as an OpenSSL cipher list; best first. "
            "The default is forward secret and authenticated (RFC 9325)."
        },
    )
    ciphersuites: str = attrs.field(
        default=CIPHERSUITES,
        metadata={"help": "The cipher suites of TLS 1.3, by their names; best first."},
    )
    reload_interval: Seconds = attrs.field(
        default=Seconds(60.0),
        metadata={
            "help": "How often the files are looked at; changed ones serve the handshakes from "
            "then on, and a broken one is logged and leaves the old one. 0 for never; SIGHUP "
            "reads them in any case. The user that the service becomes must be able to read them."
        },
    )
    sni: dict[str, CertificateSettings] = attrs.field(
        factory=dict,
        metadata={
            "help": "Other certificates for clients that ask for other names (SNI, RFC 6066): a "
            'section for each. NAME is a host name, or one such as "*.example.com"; for any other '
            "name the certificate above is used."
        },
    )


# Connections whose client certificate was let in although it could not be verified.
_unverified: weakref.WeakSet[SSL.Connection] = weakref.WeakSet()


def isVerified(connection: SSL.Connection) -> bool:
    """Whether a certificate that the client may have shown was verified."""
    return connection not in _unverified


def _letIn(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int
) -> bool:
    if not good:
        _unverified.add(connection)
    return True


class _Served:
    """A certificate as it is served: what was read of its files, and the context made of it."""

    def __init__(
        self, name: str, kept: Kept[Identity], make: Callable[[Identity], SSL.Context]
    ) -> None:
        self.name = name
        self.kept = kept
        self._make = make
        self.remake()

    def remake(self) -> None:
        """Make a fresh context of what has been read."""
        self.context = self._make(self.kept.value)

    def refresh(self, always: bool) -> bool:
        """See :meth:`Kept.refresh`."""
        isNews = self.kept.refresh(always)
        if isNews and self.kept.mistake is None:
            self.remake()
        return isNews


@implementer(IOpenSSLContextFactory, IOpenSSLServerConnectionCreator, IConnectionsOverSockets)
class ServerTLS:
    """The server's side of every handshake.

    :param settings: which files and versions.
    :raise TLSMistake: when no context can be made of them.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self.settings = settings
        for check in (_checkClients, _checkNames):
            for mistake in check(settings):
                raise mistake
        authorities = [settings.client_ca] if settings.client_ca is not None else []
        self._authorities = Kept(authorities, lambda: _readAuthorities(settings))
        _checkedContext(settings)
        self._default = self._serve(settings.certificate, settings.private_key, "")
        self._named = {
            serverName(name).encode("ascii"): self._serve(
                each.certificate, each.private_key, _section(name)
            )
            for name, each in settings.sni.items()
        }
        # A context's ticket keys cannot be given to another: the one that they belong to begins
        # all connections, and those that are presented from then on are put in its place.
        self._tickets = self._default.context

    def _serve(self, certificate: Path, key: Path, section: str) -> _Served:
        def read() -> Identity:
            return Identity.read(certificate, key, section, self.settings.ciphers)

        name = f"tls.{section}certificate: {certificate}"
        return _Served(name, Kept([certificate, key], read), self._makeContext)

    def _makeContext(self, identity: Identity) -> SSL.Context:
        settings = self.settings
        context = _checkedContext(settings)
        context.set_options(OPTIONS)
        # 34 KB less for each idle connection.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        # Tickets hold the session at the client; a cache here would be memory that clients control.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # Without it, resuming fails as soon as client certificates are asked for.
        context.set_session_id(b"submitd")
        if settings.client_certificate != "no":
            _askForCertificate(context, settings.client_certificate, self._authorities.value)
        if settings.sni:
            context.set_tlsext_servername_callback(self._choose)
        identity.put(context)
        return context

    def _choose(self, connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").lower()
        served = self._named.get(name) or self._named.get(b"*." + name.partition(b".")[2])
        if served is not None:
            connection.set_context(served.context)

    def getContext(self) -> SSL.Context:
        """The context of the certificate for no name; sessions of before a reload do not resume."""
        return self._default.context

    def connectionOver(self, socket: Any) -> SSL.Connection:
        """See :class:`IConnectionsOverSockets`; with ``None`` for a socket it is in memory."""
        connection = SSL.Connection(self._tickets, socket)
        if self._tickets is not self._default.context:
            connection.set_context(self._default.context)
        return connection

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """See ``IOpenSSLServerConnectionCreator``: the same in memory, for Twisted's transports."""
        return self.connectionOver(None)

    def reload(self) -> list[TLSMistake]:
        """Read all files again, and serve what is good in them from the next handshake on.

        :return: what is wrong; it is logged too, and the old ones stay in its place.
        """
        self._read(always=True)
        return [kept.mistake for kept in self._all() if kept.mistake is not None]

    def refresh(self) -> None:
        """Read again what has changed, and what was wrong the last time.

        A mistake is logged when it is found, and not again for as long as it stays the same.
        """
        self._read(always=False)

    def renewTickets(self) -> None:
        """Have new keys for session tickets; those given so far no longer resume a session.

        Whoever learns the keys can read all sessions that were resumed by them (RFC 9325 3.4).
        """
        self._default.remake()
        self._tickets = self._default.context

    def lookAtDates(self) -> None:
        """Say which of the certificates that are served have expired, or soon will."""
        now = datetime.datetime.now(datetime.UTC)
        for served in self._served():
            problem = outOfTime(served.kept.value.certificates, now)
            if problem:
                events.emit(events.TLS_OUT_OF_TIME, problem=f"{served.name} {problem}")

    def _all(self) -> Iterator[Kept[Any]]:
        yield self._authorities
        for served in self._served():
            yield served.kept

    def _served(self) -> Iterator[_Served]:
        yield self._default
        yield from self._named.values()

    def _read(self, always: bool) -> None:
        news: list[Kept[Any]] = []
        if self._authorities.refresh(always) and self.settings.client_ca is not None:
            news.append(self._authorities)
        for served in self._served():
            if served.refresh(always):
                news.append(served.kept)
        if self._authorities in news and self._authorities.mistake is None:
            for served in self._served():
                served.remake()
            # A resumed session is not verified again, and the old authorities may be gone.
            self._tickets = self._default.context
        self._report(news)

    def _report(self, news: list[Kept[Any]]) -> None:
        good = [kept for kept in news if kept.mistake is None]
        if good:
            events.emit(
                events.TLS_RELOADED,
                files=len(good),
                expires=f"{min(each.kept.value.expires for each in self._served()):%Y-%m-%d}",
            )
        for kept in news:
            if kept.mistake is not None:
                events.emit(events.TLS_NOT_RELOADED, problem=f"tls.{kept.mistake}")


def warnings(settings: TLSSettings) -> list[TLSMistake]:
    """Which certificates have expired, or soon will, or lack their chain.

    What cannot be read is left to others.
    """
    now, found = datetime.datetime.now(datetime.UTC), []
    files = {"": settings.certificate}
    files |= {_section(name): each.certificate for name, each in settings.sni.items()}
    for section, file in files.items():
        try:
            certificates = readCertificates(file)
        except UNREADABLE:
            continue
        problems = filter(None, (outOfTime(certificates, now), lacksChain(certificates)))
        found += [TLSMistake(f"{section}certificate", f"{file} {each}") for each in problems]
    return found


def mistakes(settings: TLSSettings) -> list[TLSMistake]:
    """All that is wrong with the settings, without changing or opening anything.

    :return: the mistakes, those of other names behind those of ``[tls]`` itself; empty when a
        :class:`ServerTLS` can be made.
    """
    found: list[TLSMistake] = []

    def attempt(step: Callable[[], object]) -> bool:
        try:
            step()
        except TLSMistake as mistake:
            found.append(mistake)
            return False
        return True

    def attemptPair(certificate: Path, key: Path, section: str) -> None:
        files = [
            attempt(lambda: readCertificates(certificate, f"{section}certificate")),
            attempt(lambda: readPrivateKey(key, f"{section}private_key")),
        ]
        if all(files):
            attempt(lambda: Identity.read(certificate, key, section, ciphers))

    good = attempt(lambda: _setCiphers(SSL.Context(SSL.TLS_SERVER_METHOD), settings))
    ciphers = settings.ciphers if good else ""
    ofCiphers, found = found, []
    attemptPair(settings.certificate, settings.private_key, "")
    found += _checkClients(settings)
    attempt(lambda: _readAuthorities(settings))
    attempt(lambda: _setVersions(SSL.Context(SSL.TLS_SERVER_METHOD), settings))
    found += ofCiphers
    attempt(lambda: _setCiphersuites(SSL.Context(SSL.TLS_SERVER_METHOD), settings))
    found += _checkNames(settings)
    for name, each in settings.sni.items():
        attemptPair(each.certificate, each.private_key, _section(name))
    return found


def serverName(name: str) -> str:
    """A name of ``[tls.sni]`` as clients send it: A-labels in lower case."""
    return f"*.{sameDomain(name[2:])}" if name.startswith("*.") else sameDomain(name)


def _section(name: str) -> str:
    return f'sni."{name}".'


def _checkNames(settings: TLSSettings) -> Iterator[TLSMistake]:
    seen: dict[str, str] = {}
    for name in settings.sni:
        asked = serverName(name)
        if not _SERVER_NAME.fullmatch(asked):
            said = 'must be a host name such as "mail.example.com" or "*.example.com"'
            yield TLSMistake(f'sni."{name}"', said)
        elif asked in seen:
            yield TLSMistake(f'sni."{name}"', f'is the same name as "{seen[asked]}"')
        seen[asked] = name


def _checkClients(settings: TLSSettings) -> Iterator[TLSMistake]:
    if settings.client_certificate != "no" and settings.client_ca is None:
        yield TLSMistake(
            "client_ca",
            f'is missing: with client_certificate = "{settings.client_certificate}" it must name'
            " the authorities",
        )


def _readAuthorities(settings: TLSSettings) -> list[x509.Certificate]:
    if settings.client_ca is None:
        return []
    return readAuthorities(settings.client_ca)


def _checkedContext(settings: TLSSettings) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _setVersions(context, settings)
    _setCiphers(context, settings)
    _setCiphersuites(context, settings)
    return context


def _setVersions(context: SSL.Context, settings: TLSSettings) -> None:
    low, high = VERSIONS[settings.minimum_version], VERSIONS[settings.maximum_version]
    if low > high:
        raise TLSMistake(
            "minimum_version",
            f"{settings.minimum_version} is newer than maximum_version,"
            f" {settings.maximum_version}; no client could connect",
        )
    context.set_min_proto_version(low)
    context.set_max_proto_version(high)


def _setCiphers(context: SSL.Context, settings: TLSSettings) -> None:
    try:
        context.set_cipher_list(settings.ciphers.encode("utf-8"))
    except SSL.Error:
        raise TLSMistake("ciphers", f'OpenSSL knows no cipher of "{settings.ciphers}"') from None


def _setCiphersuites(context: SSL.Context, settings: TLSSettings) -> None:
    # One by one first: a name that OpenSSL does not know among others is left out without a word,
    # and no name at all leaves TLS 1.3 without a cipher.
    for name in settings.ciphersuites.split(":"):
        try:
            if not name:
                raise SSL.Error
            context.set_tls13_ciphersuites(name.encode("utf-8"))
        except SSL.Error:
            said = f'OpenSSL knows no cipher suite "{name}" of TLS 1.3'
            raise TLSMistake("ciphersuites", said) from None
    context.set_tls13_ciphersuites(settings.ciphersuites.encode("utf-8"))


def _askForCertificate(context: SSL.Context, how: str, authorities: list[x509.Certificate]) -> None:
    trust(context, authorities)
    if how == "require":
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        return
    context.set_verify(SSL.VERIFY_PEER, _letIn)
    # Whether a certificate was verified is not kept in a ticket: a resumed session would have a
    # stranger's look verified.
    context.set_options(SSL.OP_NO_TICKET)
