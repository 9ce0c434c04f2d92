"""Inside the process that runs SQL a model wrote: what it gives up, allows and answers.

Threat model. Context (CREATE and INSERT statements) and query are untrusted text: a language
model or a public data set wrote them. Nothing in them may touch a file, outlive its deadline,
exhaust the machine's memory, end the run, or leak into the next row.

Covered, from the outside in:
- One worker process for each SqlWorker (see `sandbox`), started with spawn and reused. A kernel
  timer (SIGALRM, never handled) ends it at a job's deadline even inside a single opcode, which
  SQLite's progress handler cannot interrupt. It needs no help from the parent, so a busy orphan
  ends too; an idle orphan ends when the pipe from its parent closes. The parent reports the row
  and goes on with a new worker.
- From the operating system: no new file descriptor (so no file can be opened), no file growth, no
  core dump, a bound on the address space (Linux only).
- In SQLite: a fresh in-memory database for each job, a process-wide heap limit, a page limit,
  temporary storage in memory, low limits on lengths, columns, depth and attached databases, and
  an authorizer that allows a list of actions and nothing else: no ATTACH, DETACH, PRAGMA, VACUUM,
  virtual table or extension anywhere, no transaction statement in the query.
- The progress handler as an earlier, cheaper deadline, and as a bound on resident memory where
  SQLite was built without memory statistics (Apple's own build). Caps on rows and bytes returned.

Not covered: a flaw in SQLite itself that lets SQL run machine code (the worker is the same user;
use a container against that); about 1 GB of memory for the length of one deadline; Windows.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import itertools
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gemma_lora.clock import stop_clock
from gemma_lora.dialects import DIALECTS, translate_to_sqlite
from gemma_lora.sql_text import (
    is_empty_statement,
    sql_tokens,
    statement_kind,
    uses_clock,
)

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SQL_LENGTH = 1_000_000  # characters of a context or a query, bytes of a single value
RESULT_BYTES = 8_000_000
STATE_ROWS, VIEW_ROWS = 20_000, 1000
HEAP_BYTES = 256_000_000
ANSWER_SEC = 0.01  # a worker answers this often: what a kill loses is run again
TRANSLATE_SEC = 5.0
KILL_GRACE_SEC = 0.25  # the progress handler goes first, because a kill costs a new process
WRITING_KINDS = ("insert", "update", "delete", "ddl")

_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: SQL_LENGTH,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: SQL_LENGTH,
    sqlite3.SQLITE_LIMIT_COLUMN: 256,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 500,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 200,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 1_000_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 100,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_SETTINGS = "PRAGMA max_page_count=16384; PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF"
_OBJECTS = ("TABLE", "INDEX", "VIEW", "TRIGGER")
_ALLOWED = frozenset(
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        *"READ SELECT INSERT UPDATE DELETE RECURSIVE ALTER_TABLE REINDEX ANALYZE".split(),
        *(f"{verb}_{thing}" for verb in ("CREATE", "DROP") for thing in _OBJECTS),
        *(f"{verb}_TEMP_{thing}" for verb in ("CREATE", "DROP") for thing in _OBJECTS),
    )
)
_TRANSACTIONS = (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT)
_DENIED_FUNCTIONS = frozenset("load_extension readfile writefile edit fts3_tokenizer".split())
_TOO_LARGE = ("too big", "too large", "too many", "is full", "out of memory", "interrupted")
_FOREIGN = (
    "syntax error", "no such function", "unknown database", "unrecognized token",
    *(f"no such column: {unit}" for unit in ("year", "quarter", "month", "week", "day", "hour")),
)  # fmt: skip  # the last as in DATEADD(year, -1, GETDATE())
_DEFINITIONS = """SELECT 'main', type, name, sql FROM sqlite_master UNION ALL
    SELECT 'temp', type, name, sql FROM sqlite_temp_master ORDER BY 1, 2, 3 COLLATE NOCASE"""
_as_text = functools.partial(str, encoding="utf-8", errors="replace")


class DatabaseContents(NamedTuple):
    """What a writing statement left, to be compared with a tolerance; `state` has none."""

    definitions: str  # sha256 of all but the rows
    tables: dict[str, list[tuple[Any, ...]]]
    views: dict[str, tuple[list[str], list[tuple[Any, ...]]]]  # labels and rows


class WorkerReply(NamedTuple):
    """What became of one job; crosses to the parent, who makes a SqlResult of it."""

    status: str
    rows: list[tuple[Any, ...]]
    columns: list[str]
    truncated: bool
    error: str | None
    stage: str
    kind: str
    state: str | None
    seconds: float
    context_used: str | None = None
    sql_used: str | None = None
    contents: DatabaseContents | None = None


def _confine() -> int:
    """Give up for good what SQL never needs; returns the resident bytes at which to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it closes the pipe
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA hard_heap_limit={HEAP_BYTES}")
        # Read the time zone and the random seed while files can still be opened.
        connection.execute("SELECT random(), datetime('now', 'localtime')").fetchall()
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: 0}
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + 4 * HEAP_BYTES
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # the system may not offer it
            resource.setrlimit(limit, (value, value))
    return _peak_bytes() + 2 * HEAP_BYTES  # Linux hands the parent's peak down: count growth only


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _Guard:
    """The callbacks of one connection, and what they saw."""

    def __init__(self, timeout_sec: float, max_bytes: int) -> None:
        self.deadline, self.max_bytes = time.monotonic() + timeout_sec, max_bytes
        self.stage, self.refused, self.timed_out = "context", "", False

    def authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in _ALLOWED:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and str(second).lower() not in _DENIED_FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action in _TRANSACTIONS and self.stage == "context":
            return sqlite3.SQLITE_OK
        self.refused = " ".join(filter(None, (first, second))) or "this statement"
        return sqlite3.SQLITE_DENY

    def progress(self) -> bool:
        self.timed_out = time.monotonic() > self.deadline
        return self.timed_out or _peak_bytes() > self.max_bytes

    def classify(self, error: BaseException) -> tuple[str, str]:
        """Status and one line for an exception raised under this guard."""
        message = " ".join(str(error).split())[:500] or "out of memory"
        if self.timed_out:
            return "timeout", "the deadline passed"
        if self.refused:
            return "refused", f"not allowed: {self.refused[:200]}"
        if "one statement" in message:
            return "error", "several statements"
        # Not of Python: its 3.11.2 calls an endless deadline a "timestamp too large".
        told = isinstance(error, sqlite3.Error) and any(text in message for text in _TOO_LARGE)
        large = isinstance(error, MemoryError) or told
        return ("too_large" if large else "error"), message


def _open(guard: _Guard, reverse: bool, builtin: sqlite3.Connection | None) -> sqlite3.Connection:
    """A confined connection; with `builtin`, whose functions ours call, its clock stands still."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    connection.text_factory = _as_text
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.execute(f"PRAGMA reverse_unordered_selects={int(reverse)}")
    connection.executescript(_SETTINGS)  # PRAGMA works only until the authorizer is there
    if builtin:
        connection.execute("PRAGMA trusted_schema=ON")  # its views and defaults call our functions
        stop_clock(connection, builtin)
    connection.set_authorizer(guard.authorize)
    connection.set_progress_handler(guard.progress, 4000)
    return connection


def _fetch(cursor: sqlite3.Cursor, max_rows: int) -> list[tuple[Any, ...]]:
    """At most max_rows + 1 rows; MemoryError when they hold more than RESULT_BYTES."""
    rows, size = [], 0
    for row in itertools.islice(cursor, max_rows + 1):
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if size > RESULT_BYTES:
            raise MemoryError("result too large")
        rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    """1.0 and 1 alike, and no noise in a float's last digits."""
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() and abs(value) < 1e15 else rounded


def _state(connection: sqlite3.Connection, kind: str) -> tuple[str | None, DatabaseContents | None]:
    """(sha256 of all definitions and of every table's rows as a sorted bag, the contents).

    Rowids do not count. Views are read only when the statement was one of definition. The contents
    are None when they hold more than STATE_ROWS rows or RESULT_BYTES.
    """
    if kind not in WRITING_KINDS:
        return None, None
    whole, definitions = hashlib.sha256(), hashlib.sha256()
    tables: dict[str, list[tuple[Any, ...]]] = {}
    views = {}
    for schema, thing, name, sql in connection.execute(_DEFINITIONS).fetchall():
        if name.startswith("sqlite_"):
            continue
        words = (text if g == "text" else text.strip('"`[]').lower() for g, text in sql_tokens(sql))
        line = f"{schema} {thing} {' '.join(words)}\n"
        whole.update(line.encode())
        source = f'{schema}."{name.replace(chr(34), chr(34) * 2)}"'
        if thing == "table":
            tables[source.lower()] = connection.execute(f"SELECT * FROM {source}").fetchall()
            lines = [repr([_plain(value) for value in row]) for row in tables[source.lower()]]
            whole.update("\n".join(sorted(lines)).encode())
        if thing == "view" and kind == "ddl" and (shows := _view(connection, source)):
            views[source.lower()], line = shows, f"{schema} view {name.lower()}\n"
        definitions.update(line.encode())
    contents = DatabaseContents(definitions.hexdigest(), tables, views)
    return whole.hexdigest(), contents if _fits(tables) else None


def _fits(tables: dict[str, list[tuple[Any, ...]]]) -> bool:
    """Whether rows are few and small enough to be sent to the parent."""
    if sum(map(len, tables.values())) > STATE_ROWS:
        return False
    values = (value for rows in tables.values() for row in rows for value in row)
    return sum(len(v) for v in values if isinstance(v, str | bytes)) <= RESULT_BYTES


def _view(
    connection: sqlite3.Connection, source: str
) -> tuple[list[str], list[tuple[Any, ...]]] | None:
    """Labels and rows of a view; None when it cannot be read or has too many."""
    try:
        cursor = connection.execute(f"SELECT * FROM {source}")
        rows = cursor.fetchmany(VIEW_ROWS + 1)
    except sqlite3.Error as error:
        if "interrupted" in str(error):
            raise  # the deadline is the whole job's
        return None
    labels = [column[0] for column in cursor.description]
    cursor.close()
    return (labels, rows) if len(rows) <= VIEW_ROWS else None


def _arm(seconds: float) -> None:
    """From here on the kernel ends this process after so long; 0 takes it back."""
    signal.setitimer(signal.ITIMER_REAL, seconds + KILL_GRACE_SEC if seconds else 0)


def _execute(
    context: str,
    sql: str,
    timeout_sec: float,
    max_rows: int,
    max_bytes: int,
    reverse: bool = False,
    builtin: sqlite3.Connection | None = None,
) -> WorkerReply:
    """Answer one job; `builtin` is there when the clock must stand still."""
    start, guard, kind = time.perf_counter(), _Guard(timeout_sec, max_bytes), "other"
    rows: list[tuple[Any, ...]] = []
    columns: list[str] = []
    status, error, state, contents = "ok", None, None, None
    try:
        _arm(max(timeout_sec, 0.001))
        kind = statement_kind(sql)
        still = builtin if uses_clock(context) or uses_clock(sql) else None
        with contextlib.closing(_open(guard, reverse, still)) as connection:
            connection.executescript(context)
            guard.stage = "query"
            if kind == "other" and is_empty_statement(sql):
                raise ValueError("empty statement")
            cursor = connection.execute(sql.rstrip("; \t\r\n"))
            rows = _fetch(cursor, max_rows)
            columns = [column[0] for column in cursor.description or ()]
            cursor.close()
            state, contents = _state(connection, kind)
    except Exception as problem:  # whatever one row does, the next one runs
        rows, columns = [], []
        status, error = guard.classify(problem)
    seconds = time.perf_counter() - start
    truncated = len(rows) > max_rows
    return WorkerReply(
        status, rows[:max_rows], columns, truncated, error, guard.stage, kind, state, seconds,
        contents=contents,
    )  # fmt: skip


def _execute_translated(
    context: str, sql: str, timeout_sec: float, max_rows: int, max_bytes: int, reverse: bool = False
) -> WorkerReply:
    """As _execute; text that SQLite cannot read is tried again as sqlglot translates it."""
    first = result = _execute(context, sql, timeout_sec, max_rows, max_bytes, reverse)
    used = context
    if _is_foreign(first) and first.stage == "context":
        for used in _readings(context):
            result = _execute(used, sql, timeout_sec, max_rows, max_bytes)
            if result.stage == "query":
                break
    context_used = used if used != context else None
    renamed = context_used and result.status == "error"  # its tables have lost their prefix
    if result.stage == "query" and (renamed or _is_foreign(result)):
        for statement in _readings(sql):
            result = _execute(used, statement, timeout_sec, max_rows, max_bytes)
            if result.status == "ok":
                return result._replace(context_used=context_used, sql_used=statement)
    return result._replace(context_used=context_used) if result.status == "ok" else first


def _is_foreign(result: WorkerReply) -> bool:
    """Whether the failure can be one of dialect; a missing column stays missing when translated."""
    message = result.error or ""
    return result.status == "error" and any(text in message for text in _FOREIGN)


def _readings(sql: str) -> Iterator[str]:
    """Translations of a text, one by one: the second costs as much time as the first."""
    seen = {sql}
    for dialect in DIALECTS:
        _arm(TRANSLATE_SEC)
        translated = translate_to_sqlite(sql, dialect)
        if translated and translated not in seen:
            seen.add(translated)
            yield translated


def _worker_main(pipe: Connection, translate: bool, still: bool = False) -> None:
    """WorkerReply lists of jobs, in lists, until the parent's end of the pipe closes."""
    if translate:  # import sqlglot while files can still be opened
        for dialect in DIALECTS:
            translate_to_sqlite("SELECT 1", dialect)
        gc.freeze()  # syntax trees are many small objects: collecting took a tenth of the time
        gc.set_threshold(100_000)
    builtin = sqlite3.connect(":memory:") if still else None
    execute = _execute_translated if translate else functools.partial(_execute, builtin=builtin)
    max_bytes = _confine()
    answers: list[WorkerReply] = []
    with contextlib.suppress(EOFError, OSError):
        pipe.send(answers)
        while True:
            jobs, sent_at = pipe.recv(), time.monotonic()
            for number, (context, sql, timeout_sec, max_rows, reverse) in enumerate(jobs, start=1):
                answers.append(execute(context, sql, timeout_sec, max_rows, max_bytes, reverse))
                large = answers[-1].status == "too_large"
                if number == len(jobs) or large or time.monotonic() - sent_at > ANSWER_SEC:
                    _arm(0)
                    pipe.send(answers)
                    answers, sent_at = [], time.monotonic()
                    if _peak_bytes() > max_bytes:
                        return  # a peak never falls: a new process measures from the start
