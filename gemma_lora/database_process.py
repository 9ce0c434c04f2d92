"""Inside the process that asks a user's SQLite file: how it opens it, what it gives up, answers.

Promises: the main file and its write-ahead log are never written to, no other file is, and a query
that a model wrote ends at its deadline and within its memory.

Covered, from the outside in:
- One process for each file (see `database`), started with spawn. A kernel timer ends it at the
  deadline, even inside a single opcode; the one that asks starts a new one.
- From the operating system, after the file was opened and read: no core dump, a bound on the
  address space (Linux only), on the size of temporary files, and so few new file descriptors as
  SQLite needs: a rollback journal that persists is opened for each read, large sorts go to disk.
- In SQLite: the file is opened with `mode=ro`, `query_only` is on, and so is defensive mode where
  Python offers it (3.12); a heap limit; an authorizer that allows reading and nothing else: no
  ATTACH, no extension, no PRAGMA but the two that full-text tables read. (`trusted_schema` stays
  on: without it SQLite 3.40 refuses a view on a full-text table.)

How the file is opened, and what that leaves beside it, says `database_files`.

Not covered: a flaw in SQLite that lets SQL run machine code; a file system that hangs.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gemma_lora.confinement import (
    _DENIED_FUNCTIONS,
    SQL_LENGTH,
    WRITING_KINDS,
    _arm,
    _as_text,
    _peak_bytes,
)
from gemma_lora.database_files import open_reading
from gemma_lora.sql_text import is_empty_statement, statement_kind

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

HEAP_BYTES = 1_000_000_000
TEMPORARY_BYTES = 4_000_000_000  # of one temporary file
CACHE_KB = 64_000
FREE_DESCRIPTORS = 8
BUSY_SEC = 3.0  # how long a writer's lock is waited for
BATCH_ROWS, BATCH_BYTES = 2000, 2_000_000  # a message on the pipe ends with the first passed

_READING = (sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
_ASKED_BY_FULL_TEXT = ("data_version", "page_size")  # FTS5 and FTS4, in the midst of a query
_WRITING = frozenset(
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        *"INSERT UPDATE DELETE ALTER_TABLE REINDEX ANALYZE CREATE_VTABLE DROP_VTABLE".split(),
        *(
            f"{verb}_{kind}"
            for verb in ("CREATE", "DROP", "CREATE_TEMP", "DROP_TEMP")
            for kind in ("TABLE", "INDEX", "VIEW", "TRIGGER")
        ),
    )
)
_NO_MEMORY = ("out of memory", "too big", "too large")


class Job(NamedTuple):
    """One thing to answer: a query, or with None what tables and views there are."""

    sql: str | None
    timeout_sec: float  # until the first batch, and from each to the next
    max_rows: int | None  # None: all, in batches


class Batch(NamedTuple):
    """Rows of an answer, in order, and what became of it; crosses to the one who asked."""

    status: str  # "ok" | "error" | "timeout" | "refused" | "writes" | "too_large"
    columns: list[str]
    rows: list[tuple[Any, ...]]
    more: bool  # another batch follows
    truncated: bool  # there are more rows than max_rows
    error: str | None  # one line
    seconds: float


class Opened(NamedTuple):
    """The first message of a process: whether it could open the file."""

    error: str | None
    note: str | None  # how, when not as usual


def connect_read_only(address: str) -> sqlite3.Connection:
    """Open the file behind a URI, settle what PRAGMA can settle, and read from it once."""
    connection = sqlite3.connect(
        address, uri=True, isolation_level=None, cached_statements=0, timeout=BUSY_SEC
    )
    connection.text_factory = _as_text
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, SQL_LENGTH)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    for setting in ("query_only=1", f"cache_size=-{CACHE_KB}", f"hard_heap_limit={HEAP_BYTES}"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    with contextlib.closing(connection.execute("SELECT COUNT(*) FROM sqlite_master")) as cursor:
        cursor.fetchall()  # its log and shared memory are open from here on
    return connection


def open_file(path: Path, nothing_in_log: bool) -> tuple[sqlite3.Connection, str | None]:
    """(connection, note) of a file, for reading only. Raises sqlite3.Error."""
    connection, current = open_reading(path, connect_read_only, lambda: nothing_in_log)
    if current:
        return connection, None
    return connection, "its folder cannot be written to: changes from now on are not seen"


def read_ahead(connection: sqlite3.Connection) -> None:
    """Do what needs files while they can be opened: the time zone, modules of virtual tables."""
    connection.execute("SELECT random(), datetime('now', 'localtime')").fetchall()
    virtual = connection.execute(
        "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%'"
    ).fetchall()
    for (name,) in virtual:
        quoted = name.replace('"', '""')
        with contextlib.suppress(sqlite3.Error):  # of a module that is not here
            connection.execute(f'SELECT 1 FROM "{quoted}" LIMIT 0').fetchall()


def confine() -> int:
    """Give up for good what reading never needs; returns the resident bytes at which to stop."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    lowest_free = os.dup(0)
    os.close(lowest_free)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: TEMPORARY_BYTES,
        resource.RLIMIT_NOFILE: lowest_free + FREE_DESCRIPTORS,
    }
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + 3 * HEAP_BYTES
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # the system may not offer it
            resource.setrlimit(limit, (value, value))
    return _peak_bytes() + 2 * HEAP_BYTES


class Guard:
    """The callbacks of the connection, and what they saw of one query."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.begin(0.0)

    def begin(self, timeout_sec: float) -> None:
        """Forget the last query; the next one has so long."""
        self.refused, self.writes, self.timed_out, self.swollen = "", False, False, False
        self.limit_sec = timeout_sec
        self.wind()

    def wind(self) -> None:
        """Let the deadline run from now."""
        self.deadline = time.monotonic() + self.limit_sec
        _arm(max(self.limit_sec, 0.001))

    def authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        """SQLite's question before each action of a statement."""
        if action in _READING:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and str(second).lower() not in _DENIED_FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA and first in _ASKED_BY_FULL_TEXT and second is None:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
            return sqlite3.SQLITE_OK  # how a virtual table is declared to each connection; SQLite
            # itself refuses statements that would change this table
        self.writes = self.writes or action in _WRITING
        self.refused = " ".join(filter(None, (first, second))) or "this statement"
        return sqlite3.SQLITE_DENY

    def progress(self) -> bool:
        """Whether the query must stop."""
        self.timed_out = time.monotonic() > self.deadline
        self.swollen = _peak_bytes() > self.max_bytes
        return self.timed_out or self.swollen

    def classify(self, error: BaseException) -> tuple[str, str]:
        """Status and one line for an exception raised under this guard."""
        message = " ".join(str(error).split())[:500]
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if self.timed_out:
            return "timeout", late(self.limit_sec)
        if self.writes:
            return "writes", "this would change the data"
        if self.refused:
            return "refused", f"not allowed: {self.refused[:200]}"
        if "one statement" in message:
            return "error", "several statements"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return "error", f"another program is writing to the file (waited {BUSY_SEC:g} s)"
        if code == sqlite3.SQLITE_FULL:
            limit = f"{TEMPORARY_BYTES / 1e9:g} GB"
            return "too_large", f"a temporary file passed {limit}, or the disk is full"
        short = self.swollen or isinstance(error, MemoryError) or code == sqlite3.SQLITE_NOMEM
        if short or any(text in message for text in _NO_MEMORY):
            return "too_large", f"the query needs more than {HEAP_BYTES / 1e9:g} GB of memory"
        return "error", message


def late(seconds: float) -> str:
    """What is said of a query that passed its deadline."""
    return f"the deadline of {seconds:g} s passed"


@contextlib.contextmanager
def unguarded(connection: sqlite3.Connection, guard: Guard) -> Iterator[None]:
    """Run statements of our own without the authorizer."""
    connection.set_authorizer(None)
    try:
        yield
    finally:
        connection.set_authorizer(guard.authorize)


def list_relations(connection: sqlite3.Connection, guard: Guard) -> list[tuple[Any, ...]]:
    """(name, kind, CREATE statement) in stored order, less SQLite's own and shadow tables.

    What PRAGMA table_list calls a shadow belongs to a virtual table; only it can tell `docs_data`,
    made by full-text table `docs`, from `docs_tags`, made by a person.
    """
    with unguarded(connection, guard):
        listed = connection.execute("PRAGMA table_list").fetchall()
        kinds = {row[1]: row[2] for row in listed if row[0] == "main"}
        found = connection.execute(
            "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view') "
            "AND sql IS NOT NULL ORDER BY rowid"
        ).fetchall()
    shown = ((name, kinds.get(name, kind), sql) for name, kind, sql in found)
    return [r for r in shown if r[1] != "shadow" and not r[0].lower().startswith("sqlite_")]


def execute(connection: sqlite3.Connection, sql: str, guard: Guard) -> sqlite3.Cursor:
    """Run a query as far as its first row. Raises sqlite3.Error.

    After another program changed the schema, SQLite declares virtual tables anew, and an R*Tree
    then prepares its INSERT and DELETE: that is let happen without the guard, and asked again.
    """
    try:
        return connection.execute(sql)
    except sqlite3.Error:
        if not guard.writes:
            raise
        with unguarded(connection, guard):
            read_ahead(connection)
        guard.refused, guard.writes = "", False
        return connection.execute(sql)


def batches(connection: sqlite3.Connection, job: Job, guard: Guard) -> Iterator[Batch]:
    """The answer to a job in batches. Whatever the query does, the last one says more=False."""
    start, columns = time.perf_counter(), list[str]()
    guard.begin(job.timeout_sec)
    try:
        if job.sql is None:
            rows = list_relations(connection, guard)
            yield Batch("ok", ["name", "kind", "sql"], rows, False, False, None, since(start))
            return
        if statement_kind(job.sql) in WRITING_KINDS:
            yield Batch("writes", [], [], False, False, "this would change the data", 0.0)
            return
        if is_empty_statement(job.sql):
            raise sqlite3.ProgrammingError("empty statement")
        with contextlib.closing(execute(connection, job.sql.rstrip("; \t\r\n"), guard)) as cursor:
            columns = [column[0] for column in cursor.description or ()]
            for rows, more, truncated in portions(cursor, job.max_rows):
                yield Batch("ok", columns, rows, more, truncated, None, since(start))
                guard.wind()
    except (sqlite3.Error, MemoryError, OverflowError, ValueError, UnicodeError) as problem:
        status, error = guard.classify(problem)
        yield Batch(status, [], [], False, False, error, since(start))


def since(start: float) -> float:
    """Seconds since a reading of perf_counter."""
    return time.perf_counter() - start


def portions(
    cursor: sqlite3.Cursor, max_rows: int | None
) -> Iterator[tuple[list[tuple[Any, ...]], bool, bool]]:
    """(rows, more, truncated) until max_rows are out or there are none left."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    for given, row in enumerate(cursor):
        if given == max_rows:
            yield rows, False, True
            return
        if len(rows) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield rows, True, False
            rows, size = [], 0
        rows.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
    yield rows, False, False


def serve(pipe: Connection, path: Path, nothing_in_log: bool) -> None:
    """Open the file, then answer jobs until the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends this process
    try:
        connection, note = open_file(path, nothing_in_log)
        read_ahead(connection)
    except sqlite3.Error as error:
        pipe.send(Opened(" ".join(str(error).split()), None))
        return
    max_bytes = confine()
    guard = Guard(max_bytes)
    _arm(0)
    connection.set_authorizer(guard.authorize)
    connection.set_progress_handler(guard.progress, 4000)
    with contextlib.suppress(EOFError, OSError), contextlib.closing(connection):
        pipe.send(Opened(None, note))
        while True:
            for batch in batches(connection, pipe.recv(), guard):
                _arm(0)  # how long the other side takes is not the query's time
                pipe.send(batch)
            if _peak_bytes() > max_bytes:
                return  # a peak never falls: a new process measures from the start
