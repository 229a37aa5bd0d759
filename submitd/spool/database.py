"""The data base: SQLite in a directory of ours, or PostgreSQL.

SQLite keeps a write-ahead log that is synced at each commit (``synchronous=FULL``); a transaction
that writes takes the lock when it begins, so that two processes wait for each other instead of
failing in the middle.  PostgreSQL must have ``fsync`` and ``synchronous_commit`` on.

Nothing is opened before the first :class:`Link` is used.  A failure closes the link, and the next
use opens it again: so the service goes on when the disk has room again or the server is back.
:func:`asRefused` says which reply a failure is: 452 4.3.1 for a full disk, 451 4.3.0 for all else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from submitd.databases import alone, readUrl, shownUrl
from submitd.files import FULL
from submitd.spool import schema
from submitd.spool.records import Damaged
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, STORAGE_FULL

T = TypeVar("T")

FILE = "spool.db"

MINIMUM_FREE = 4 * 1024 * 1024
"""Octets that must be free on the disk for a start; a queue that has filled its own has more."""

RESERVE = 8 * 1024 * 1024
"""Octets on the disk that new messages leave free.

Without them the queue could not get emptier: to delete takes room, too, before it gives any.
"""

LOCK_TIMEOUT = 10.0
"""Seconds that SQLite waits while another process writes."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for PostgreSQL to take a connection."""

SILENCE = 30
"""Seconds after which a connection to a PostgreSQL that acknowledges nothing is given up.

Also while it has the question: it is asked whether it is still there when it has been silent for a
third of that.
"""

ELSEWHERE = "the file was removed or replaced while it was open; put it back, or start anew"
"""Why nothing more is added to a data base; what is in it is still delivered."""

EMPTIED = "the file was emptied while it was open; put it back, or start anew"
"""The same, but of what was in it there is no more than what memory still has."""

LOG_REMOVED = (
    f"{FILE}-wal was removed while it was open; stop the service, which saves what is in it, and"
    " start it again"
)
"""The same; a crash now would lose the latest that was written."""

# What one row may give where others are well: SQLITE_CORRUPT, which is also what a sector that
# cannot be read becomes, or text that is none, which is no error of SQLite's own.
_SQLITE_DAMAGE = frozenset({11, 0})
_SQLITE_FULL = 13
_SQLITE_NOTADB = 26
# PostgreSQL, appendix A: disk_full; data_corrupted and index_corrupted.
_POSTGRES_FULL = "53100"
_POSTGRES_DAMAGE = frozenset({"XX001", "XX002"})

# What every SQLite connection is told.  journal_size_limit: a log that one large message made long
# is cut again.  secure_delete: what is deleted is overwritten where that costs nothing; Debian's
# SQLite would write each freed page once more, for which a full disk has no room.  cache_size:
# 16 MiB, so that the inner pages of all indexes stay in memory.
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA secure_delete=FAST",
    "PRAGMA cache_size=-16384",
)


class Unusable(Exception):
    """The data base cannot be used as it is; the text is a sentence."""


@attrs.define(eq=False)
class Database:
    """Where the spool is.

    :param path: the directory of an SQLite data base.
    :param url: or a PostgreSQL data base, as SQLAlchemy or libpq write it.
    :raise ValueError: unless exactly one of them is given, and understood.
    """

    path: Path | None = None
    url: str = attrs.field(default="", repr=False)
    _engine: sa.Engine = attrs.field(init=False, repr=False)
    _preparing: threading.Lock = attrs.field(init=False, repr=False, factory=threading.Lock)
    _isPrepared: bool = attrs.field(init=False, repr=False, default=False)
    _opened: tuple[int, int] | None = attrs.field(init=False, repr=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.path is None and not self.url:
            raise ValueError("needs path, a directory for the queue, or url, a data base")
        if self.path is not None and self.url:
            raise ValueError("path and url are both given, and the queue is in one place")
        self._engine = _postgres(self.url) if self.path is None else _sqlite(self.path / FILE)

    @property
    def name(self) -> str:
        """What it is called in a sentence; a password is not shown."""
        if self.path is not None:
            return str(self.path / FILE)
        return shownUrl(self._engine.url)

    def connect(self) -> sa.Connection:
        """A new connection to a data base whose schema is up to date.

        :raise Unusable: when it is not ours, or newer, or another one than before.
        :raise OSError: when its directory cannot be made.
        :raise sa.exc.SQLAlchemyError: when it cannot be opened.
        """
        with self._preparing:
            if missing := self._missing():
                # To open it would make another one, in which nothing is of what we have.
                raise Unusable(missing)
            if not self._isPrepared:
                self._prepare()
                self._isPrepared = True
        return self._engine.connect()

    def doubt(self) -> None:
        """Something went wrong: look at the schema again when the next connection is made."""
        self._isPrepared = False

    def _prepare(self) -> None:
        if self.path is None:
            self._migrate()
            return
        self.path.mkdir(mode=0o700, exist_ok=True)
        with alone(self.path):
            _makePrivate(self.path / FILE)
            self._migrate()
            self._opened = _identity((self.path / FILE).stat())

    def _migrate(self) -> None:
        try:
            with self._engine.connect() as connection, writing(connection):
                schema.migrate(connection)
        except schema.SchemaMistake as mistake:
            raise Unusable(f"{self.name} {mistake}") from None

    def _missing(self) -> str:
        """Why the file that we have opened is not found under its name; empty when it is."""
        if self.path is None or self._opened is None:
            return ""
        try:
            found = (self.path / FILE).stat()
        except FileNotFoundError:
            return ELSEWHERE
        except OSError as error:
            return cause(error)
        if _identity(found) != self._opened:
            return ELSEWHERE
        return "" if found.st_size else EMPTIED

    def check(self, needsRoom: bool = True) -> list[str]:
        """What is wrong, in sentences, without making anything.

        :param needsRoom: whether something is to be added.
        """
        if self.path is None:
            return list(self.examine())
        return list(_examinePath(self, needsRoom))

    def examine(self) -> Iterator[str]:
        """What is wrong with a data base that is there."""
        try:
            with self._engine.connect() as connection:
                schema.versionOf(connection)
                yield from _unsafe(connection)
        except schema.SchemaMistake as mistake:
            yield f"{self.name} {mistake}"
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            if _code(error) == _SQLITE_NOTADB:
                yield f"{self.name} is not a data base"
            else:
                yield f"{self.name} cannot be opened: {cause(error)}"

    def requireRoom(self, connection: sa.Connection, size: int) -> None:
        """Look whether there is room for more, where it is our own disk.

        What was removed or replaced while it was open has room, but not for long: it is gone with
        the last process that has it open, and all that was written to it.

        :param size: octets to be added: first to the log, then to the file.
        :raise Refused: when they would take what the queue needs to get emptier, or would not be
            there at the next start.
        """
        if self.path is None:
            return
        if missing := self._missing() or _logMissing(self.path, connection):
            raise Refused(LOCAL_ERROR, f"{self.name}: {missing}")
        found = os.statvfs(self.path)
        free = found.f_bavail * found.f_frsize
        if free < RESERVE + 2 * size and free < RESERVE + size + max(0, size - _unused(connection)):
            raise Refused(STORAGE_FULL, f"{self.path}: only {free // 1024} KiB are free")

    def shrink(self, connection: sa.Connection) -> bool:
        """Have the log of SQLite take no room; outside of a transaction.

        :return: whether it took any before.
        """
        if self.path is None or not _sizeOf(self.path / f"{FILE}-wal"):
            return False
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return not _sizeOf(self.path / f"{FILE}-wal")

    def dispose(self) -> None:
        """Forget all that the engine keeps, and which file it was."""
        self._opened, self._isPrepared = None, False
        self._engine.dispose()


def _sqlite(file: Path) -> sa.Engine:
    # One connection for each Link; a pool would take time on each transaction.
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(file)),
        poolclass=NullPool,
        connect_args={"timeout": LOCK_TIMEOUT, "check_same_thread": False},
    )
    sa.event.listen(engine, "connect", _tell)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _tell(connection: Any, record: Any) -> None:
    # sqlite3 would begin transactions by itself, and too late.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        # Closed, or it is "in progress" for a Python that does not count references.
        connection.execute(pragma).close()


def _begin(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _postgres(url: str) -> sa.Engine:
    parsed = readUrl(url, "postgresql:///submitd")
    if parsed.drivername.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError(f'url must be one of PostgreSQL, not of "{parsed.drivername}"')
    try:
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT,
                "keepalives_idle": SILENCE // 3,
                "keepalives_interval": SILENCE // 6,
                "tcp_user_timeout": SILENCE * 1000,
            },
        )
    except ImportError:
        raise ValueError("PostgreSQL needs psycopg: pip install submitd[postgresql]") from None


def _unused(connection: sa.Connection) -> int:
    """Octets of the file that wait to be used again."""
    names = ("freelist_count", "page_size")
    count, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names)
    return int(count) * int(size)


def _logMissing(path: Path, connection: sa.Connection) -> str:
    """Why what is written would be gone with this process; empty when it would not.

    While anybody has the data base open, its log is there, and is the same.
    """
    try:
        found = _identity((path / f"{FILE}-wal").stat())
    except FileNotFoundError:
        # There is none at all where the file system cannot have it.
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return LOG_REMOVED if mode == "wal" else ""
    # Where it was removed, whoever else looks at the data base makes another one.
    return "" if connection.info.setdefault("log", found) == found else LOG_REMOVED


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Which file it is, whatever its name."""
    return found.st_dev, found.st_ino


def _sizeOf(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _makePrivate(file: Path) -> None:
    """Make the file 0600; its log files take the mode from it.

    A file that is there is not opened: closing any descriptor of it would drop the locks that
    SQLite holds for this process (fcntl(2), advisory locks).  Whoever closed the data base next
    would take himself for the last one, and remove the log that we go on writing to.
    """
    if file.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))
    with contextlib.suppress(FileExistsError):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(file, flags, 0o600))


def writing(connection: sa.Connection) -> sa.RootTransaction:
    """Begin a transaction that writes; as a context it commits, or rolls back."""
    if not connection.get_execution_options().get("writing"):
        connection.execution_options(writing=True)
    return connection.begin()


@contextlib.contextmanager
def _reading(connection: sa.Connection) -> Iterator[None]:
    # Behind a page that cannot be read, SQLite commits nothing, though nothing was written.
    with connection.begin() as transaction:
        yield
        transaction.rollback()


class Link:
    """One connection that is kept open, for one thread.

    :param database: where to.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sa.Connection | None = None

    @property
    def isOpen(self) -> bool:
        """Whether there is a connection to close."""
        return self._connection is not None

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Do something in a transaction that has been committed when this returns.

        Whatever ``work`` raises rolls back, and is raised.  Where there is no room, the log is cut
        and it is run once more.
        """
        try:
            return self._run(work, writing)
        except Refused as refused:
            if refused.reply is not STORAGE_FULL or not self._shrink():
                raise
        return self._run(work, writing)

    def _shrink(self) -> bool:
        assert self._connection is not None, "there was one to find the disk full"
        try:
            return self._database.shrink(self._connection)
        except (sa.exc.SQLAlchemyError, sqlite3.Error):
            self.close()
            return False

    def look(self, work: Callable[[sa.Connection], T]) -> T:
        """Do something that only reads, in a transaction."""
        return self._run(work, _reading)

    def _run(self, work: Callable[[sa.Connection], T], begin: Callable[..., Any]) -> T:
        try:
            if self._connection is None:
                self._connection = self._database.connect()
            with begin(self._connection):
                return work(self._connection)
        except (sa.exc.SQLAlchemyError, Damaged):
            # Behind damage, too: what the disk gave back is in the memory of the connection.
            self.close()
            self._database.doubt()
            raise

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sa.exc.SQLAlchemyError:
                connection.invalidate()


def cause(error: BaseException | None) -> str:
    """Why, in one line; without the statement and its values, which SQLAlchemy would add."""
    origin = getattr(error, "orig", None) or error
    return " ".join(str(origin).split()) or type(origin).__name__


def isFull(error: BaseException) -> bool:
    """Whether there was no room."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return _code(error) == _SQLITE_FULL or _sqlstate(error) == _POSTGRES_FULL


def isDamage(error: BaseException | None) -> bool:
    """Whether it may be what was read that is wrong, and not what passes, as a full disk does.

    A PostgreSQL that is away has no code of SQLite's either, and is none.
    """
    origin = getattr(error, "orig", None) or error
    if isinstance(origin, sqlite3.Error):
        return _code(error) in _SQLITE_DAMAGE
    return _sqlstate(error) in _POSTGRES_DAMAGE


@contextlib.contextmanager
def readable(connection: sa.Connection, id: str, what: str = "") -> Iterator[None]:
    """Read something of a message that may be damaged; all else can still be read afterwards.

    :param what: its name in the sentence, with a space behind it.
    :raise Damaged: when it is.
    """
    try:
        # PostgreSQL answers nothing more in a transaction that has failed.
        with connection.begin_nested():
            yield
    except sa.exc.DatabaseError as error:
        # What passes is no reason to hold a message for good.
        if not isDamage(error):
            raise
        raise Damaged(id, f"{what}cannot be read: {cause(error)}") from error


def _code(error: BaseException | None) -> int:
    """SQLite's primary code of an error, which stands in the last octet of an extended one.

    :return: 0 where it is not one of SQLite's own.
    """
    origin = getattr(error, "orig", None) or error
    code: int = getattr(origin, "sqlite_errorcode", 0)
    return code & 0xFF


def _sqlstate(error: BaseException | None) -> str:
    """PostgreSQL's code of an error; empty where it is not one of its own."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def asRefused(error: BaseException, name: str) -> Refused:
    """What a failure of the data base means for whoever wanted something of it.

    :param name: the data base, for the log.
    """
    return Refused(STORAGE_FULL if isFull(error) else LOCAL_ERROR, f"{name}: {cause(error)}")


def _examinePath(database: Database, needsRoom: bool) -> Iterator[str]:
    path = database.path
    assert path is not None
    try:
        isThere = _isThere(path)
    except OSError as error:
        yield f"cannot look at {path}: {error.strerror}"
        return
    if isThere:
        if not path.is_dir():
            yield f"{path} is not a directory"
            return
        if _isElses(path):
            # Before its mode is looked at: nobody is to be told to close /tmp to others.
            yield f"{path} is not a queue: other files are in it, and no {FILE}"
            return
        directory, problems = path, list(_notOurs(path))
    else:
        directory, problems = path.parent, []
        if not directory.is_dir():
            yield f"{path} cannot be made, for {directory} is not a directory"
            return
        if not os.access(directory, os.W_OK | os.X_OK):
            problems.append(f"{path} cannot be made: no permission to write to {directory}")
    yield from problems
    if needsRoom:
        yield from _short(directory)
    if not problems:
        yield from _examineFile(database, path / FILE)


def _isThere(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _isElses(directory: Path) -> bool:
    try:
        names = set(os.listdir(directory)) - {"lost+found"}
    except OSError:
        return False
    return bool(names) and FILE not in names


def _notOurs(path: Path) -> Iterator[str]:
    """The messages of many people are in there, so nobody else may look."""
    found = path.stat()
    # Root looks at it before it becomes somebody else (twistd --uid).
    if os.geteuid() != 0 and found.st_uid != os.geteuid():
        yield f"{path} belongs to another user (uid {found.st_uid}, we are {os.geteuid()})"
    elif not os.access(path, os.R_OK | os.W_OK):
        yield f"{path}: no permission to read and write it"
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield (
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}): chmod go= {path}"
        )


def _short(directory: Path) -> Iterator[str]:
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < MINIMUM_FREE:
        yield (
            f"{directory} is on a full disk: {free // 1024} KiB are free, and"
            f" {MINIMUM_FREE // 1024} KiB is the least to start with"
        )
    elif found.f_files and not found.f_favail:
        yield f"{directory} is on a full disk: there is no room for one more file"


def _examineFile(database: Database, file: Path) -> Iterator[str]:
    if not os.path.lexists(file):
        return
    if not file.is_file():
        yield f"{file} is not a file"
        return
    problems = list(_notOurs(file))
    yield from problems
    if problems:
        return
    if file.stat().st_size:  # an empty one is made into ours; read by SQLite alone, see above
        yield from database.examine()


def _unsafe(connection: sa.Connection) -> Iterator[str]:
    if connection.dialect.name != "postgresql":
        return
    for setting in ("fsync", "synchronous_commit"):
        if connection.exec_driver_sql(f"SHOW {setting}").scalar() == "off":
            yield f"PostgreSQL has {setting} = off: a message could be lost after its 250"
