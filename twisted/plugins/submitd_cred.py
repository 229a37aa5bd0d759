"""The credential back ends, for Twisted's ``strcred``: one :class:`CheckerFactory` each."""

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword

from submitd.checkers.factory import CheckerFactory
from submitd.interfaces import IBearerToken, ICertificateLogin, IScramProof

htpasswd = CheckerFactory(
    authType="htpasswd",
    checker="submitd.checkers.htpasswd:HtpasswdChecker",
    argStringFormat="the path of a file with a line name:hash for each user",
    authHelp="""\
A file of password hashes in the format of Apache's htpasswd, kept with submitd-passwd. Taken are
argon2, bcrypt, scrypt, sha512_crypt, sha256_crypt and pbkdf2, and a passwd-file of Dovecot's with
such hashes. It is read again when it changes.""",
    credentialInterfaces=(IUsernamePassword,),
    argumentIsFile=True,
)

secrets = CheckerFactory(
    authType="secrets",
    checker="submitd.checkers.secrets:SecretsChecker",
    argStringFormat="the path of a file with a line name:secret for each user",
    authHelp="""\
A file of secrets in the clear, which CRAM-MD5 needs, or of keys for SCRAM-SHA-256, kept with
submitd-passwd --secrets. A secret may be written as {base64}..., keys are {SCRAM-SHA-256}...; the
file must have mode 0600. It is read again when it changes.""",
    credentialInterfaces=(IUsernamePassword, IUsernameHashedPassword, IScramProof),
    argumentIsFile=True,
)

tokens = CheckerFactory(
    authType="tokens",
    checker="submitd.checkers.tokens:TokensChecker",
    argStringFormat="the path of a file with a line name:digest[:expiry] for each token",
    authHelp="""\
A file with the SHA-256 of bearer tokens for XOAUTH2 and OAUTHBEARER, kept with submitd-passwd
--tokens. It is read again when it changes.""",
    credentialInterfaces=(IBearerToken,),
    argumentIsFile=True,
)

oauth = CheckerFactory(
    authType="oauth",
    checker="submitd.checkers.oauth:OAuthChecker",
    argStringFormat="the path of a file of TOML that says which provider is asked, and how",
    authHelp="""\
Bearer tokens of an OAuth 2.0 provider, for OAUTHBEARER and XOAUTH2. The file has one of two keys:
introspection, the URL of RFC 7662, with client_id and client_secret_file; or userinfo, the URL of
OpenID Connect.""",
    credentialInterfaces=(IBearerToken,),
    argumentIsFile=True,
)

jwt = CheckerFactory(
    authType="jwt",
    checker="submitd.checkers.jwt:JWTChecker",
    argStringFormat="the path of a file of TOML that says whose tokens are taken, and for whom",
    authHelp="""\
Bearer tokens that an OAuth 2.0 provider has signed (RFC 9068), for OAUTHBEARER and XOAUTH2; they
are verified here, with the provider's published keys, or with keys in a file. The file has the keys
issuer and audience, at least.""",
    credentialInterfaces=(IBearerToken,),
    argumentIsFile=True,
)

sql = CheckerFactory(
    authType="sql",
    checker="submitd.checkers.sql:SQLChecker",
    argStringFormat="the path of a file of TOML with the url of a data base and the query",
    authHelp="""\
Password hashes in PostgreSQL, SQLite, or any other data base that SQLAlchemy has a driver for. The
file has two keys: url, such as "postgresql://submitd@db.example.com/mail", and query, such as
"SELECT password, username FROM mailbox WHERE username = :login AND active".""",
    credentialInterfaces=(IUsernamePassword,),
    argumentIsFile=True,
)

certificates = CheckerFactory(
    authType="certificates",
    checker="submitd.checkers.certificates:CertificatesChecker",
    argStringFormat="the path of a file with a line name:mark for each certificate of a user",
    authHelp="""\
A file that says whose certificates the clients have, for EXTERNAL. A mark is the fingerprint
(sha256:AB:CD...), a name in the certificate (email:..., dns:...), or its subject (subject:CN=...).
It is read again when it changes.""",
    credentialInterfaces=(ICertificateLogin,),
    argumentIsFile=True,
)

dovecot = CheckerFactory(
    authType="dovecot",
    checker="submitd.checkers.dovecot:DovecotChecker",
    argStringFormat="the path of the socket of Dovecot's auth service, or a client endpoint",
    authHelp="""\
The users of a Dovecot, be they in LDAP, SQL, PAM or a file, as Postfix has them with
smtpd_sasl_type = dovecot. Its auth service is asked over a unix socket, or an endpoint such as
tcp:host=127.0.0.1:port=12345: about passwords by PLAIN, about bearer tokens by OAUTHBEARER or
XOAUTH2.""",
    credentialInterfaces=(IUsernamePassword, IBearerToken),
    argument="SOCKET",
)
