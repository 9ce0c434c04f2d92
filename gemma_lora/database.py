"""A user's database, from the side that asks: its tables, and queries on the file itself.

`DatabaseFile` asks a SQLite file through a process of its own (see `database_process`);
`DatabaseText` asks SQL text through the sandbox. Both have one shape, `Database`.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gemma_lora.cli import UserError
from gemma_lora.confinement import KILL_GRACE_SEC, SQL_LENGTH
from gemma_lora.database_files import explain, log_is_empty
from gemma_lora.database_process import Batch, Job, Opened, late, serve
from gemma_lora.sandbox import SqlResult, SqlWorker
from gemma_lora.sql_text import schema_of, sql_tokens

FILE_TIMEOUT_SEC = 30.0
START_SEC = 60.0
CREATE_WORDS = frozenset("create table view virtual temp temporary if not exists".split())
DECLARED = ("CREATE TABLE", "CREATE VIRTUAL TABLE", "CREATE VIEW", "CREATE TEMP")


def sql_literal(value: Any) -> str:
    """A value of SQLite as SQL text."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, float) and not math.isfinite(value):
        return "9e999" if value > 0 else "-9e999"
    return (
        repr(value)
        if isinstance(value, (int, float))
        else "'" + str(value).replace("'", "''") + "'"
    )


class Relation(NamedTuple):
    """A table or view that can be asked."""

    name: str
    kind: str  # "table" | "view" | "virtual"
    sql: str  # its CREATE statement


@dataclass(frozen=True)
class QueryResult:
    """What became of one query."""

    status: str  # "ok" | "error" | "timeout" | "refused" | "writes" | "too_large"
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    truncated: bool = False  # there are more rows than were asked for
    error: str | None = None  # one line
    seconds: float = 0.0
    note: str | None = None  # what to say instead of rows


class Database(Protocol):
    """What can be asked."""

    def relations(self) -> list[Relation]:
        """Its tables and views, in stored order."""

    def run(self, sql: str, max_rows: int) -> QueryResult:
        """The first rows of a query."""

    def stream(self, sql: str) -> Iterator[QueryResult]:
        """All rows of a query, in batches; the last one tells how it ended."""


class DatabaseFile:
    """A SQLite file, read and never written, asked through one process; a killed one is replaced.

    Use it as a context manager, from one thread at a time. Raises UserError, at first use, when
    the file cannot be read. Nothing in a query raises: see QueryResult.status.
    """

    def __init__(self, path: Path, timeout_sec: float = FILE_TIMEOUT_SEC) -> None:
        self.path, self.timeout_sec = path, timeout_sec
        self.note: str | None = None  # how the file was opened, when not as usual
        self._process: Any = None
        self._pipe: Any = None
        self._opened: tuple[int, int] | None = None  # device and inode
        self._owes = False  # rows of a stream that nobody read to its end

    def __enter__(self) -> DatabaseFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> Any:
        """End the process; returns its exit code, None if there was none. Safe to repeat."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        self._pipe.close()
        process.join(0.2)
        process.kill()
        process.join()
        return process.exitcode

    def relations(self) -> list[Relation]:
        """Its tables and views, in stored order, less SQLite's own; UserError when not readable."""
        [result] = self._ask(Job(None, self.timeout_sec, None))
        if result.status != "ok":
            raise UserError(f"cannot read the tables of {self.path}: {result.error}")
        return [Relation(*row) for row in result.rows]

    def run(self, sql: str, max_rows: int = 1000) -> QueryResult:
        """The first `max_rows` rows of a query, which has `timeout_sec`."""
        rows: list[tuple[Any, ...]] = []
        for result in self._ask(Job(sql, self.timeout_sec, max_rows)):
            rows += result.rows
        return QueryResult(
            result.status, result.columns, rows if result.status == "ok" else [],
            result.truncated, result.error, result.seconds,
        )  # fmt: skip

    def stream(self, sql: str) -> Iterator[QueryResult]:
        """All rows of a query, in batches; the time runs anew for each."""
        for batch in self._ask(Job(sql, self.timeout_sec, None)):
            yield QueryResult(
                batch.status, batch.columns, batch.rows, error=batch.error, seconds=batch.seconds
            )

    def _ask(self, job: Job) -> Iterator[Batch]:
        """The batches of one job; the last one is an obituary when the process died of it."""
        if job.sql is not None and len(job.sql) > SQL_LENGTH:
            error = f"{len(job.sql):,} characters, more than {SQL_LENGTH:,}"
            yield Batch("too_large", [], [], False, False, error, 0.0)
            return
        for last_try in (False, True):
            started = False
            try:
                for batch in self._exchange(job):
                    started = True
                    yield batch
                return
            except (EOFError, OSError) as error:
                hangs, code = isinstance(error, TimeoutError), self.close()
            if code or started or last_try:
                yield obituary(-signal.SIGALRM if hangs else code, job.timeout_sec)
                return
            # It had retired after its last answer, for the memory that it held: ask a new one.

    def _exchange(self, job: Job) -> Iterator[Batch]:
        """Send a job, yield its batches. EOFError or OSError when the process ends before."""
        self._ensure_process()
        process, pipe = self._process, self._pipe
        self._owes = more = True
        try:
            pipe.send(job)
            while more:
                if not pipe.poll(job.timeout_sec + START_SEC):
                    raise TimeoutError  # the kernel could not end it: a file system that hangs
                batch = pipe.recv()
                self._owes = more = batch.more
                yield batch
        except (EOFError, OSError):
            more = False
            raise
        finally:
            if more and process is self._process:
                self.close()  # interrupted, or the caller stopped early: rows are on their way

    def _ensure_process(self) -> None:
        opened = identity(self.path)
        alive = self._process is not None and self._process.is_alive()
        if alive and opened == self._opened and not self._owes:
            return
        self.close()
        self._opened, self._owes = opened, False
        nothing_in_log = log_is_empty(self.path)  # here: see its docstring
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=serve, args=(theirs, self.path, nothing_in_log), daemon=True
        )
        self._process.start()
        theirs.close()
        opening = Opened("the process that reads it did not start", None)
        try:
            if self._pipe.poll(START_SEC):
                opening = self._pipe.recv()
        except (EOFError, OSError):
            pass
        except BaseException:
            self.close()
            raise
        if opening.error:
            self.close()
            raise UserError(f"cannot read the database '{self.path}': {explain(opening.error)}")
        self.note = opening.note


def identity(path: Path) -> tuple[int, int]:
    """(device, inode) of a regular file; UserError when there is none."""
    try:
        status = path.stat()
        if not path.is_file():  # a pipe would be waited for, a device has no end
            raise UserError(f"cannot read the database '{path}': it is not a file")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the database '{path}': {error}") from None
    return status.st_dev, status.st_ino


def obituary(exit_code: int | None, timeout_sec: float) -> Batch:
    """What is said of a query whose process ended."""
    if exit_code == -signal.SIGALRM:
        seconds = timeout_sec + KILL_GRACE_SEC
        return Batch("timeout", [], [], False, False, late(timeout_sec), seconds)
    why = "was killed, perhaps for its memory" if exit_code == -signal.SIGKILL else "ended"
    error = f"the process that reads the file {why} (exit code {exit_code})"
    return Batch("error", [], [], False, False, error, 0.0)


@dataclass
class DatabaseText:
    """SQL text that makes a database: each query runs on a copy of its own, in the sandbox."""

    sql: str
    worker: SqlWorker
    timeout_sec: float

    def relations(self) -> list[Relation]:
        """The tables and views that the text makes."""
        return declared_relations(self.sql)

    def run(self, sql: str, max_rows: int = 1000) -> QueryResult:
        """The first rows of a query, or what a writing statement did."""
        return from_sandbox(self.worker.run(self.sql, sql, self.timeout_sec, max_rows))

    def stream(self, sql: str) -> Iterator[QueryResult]:
        """All rows at once, as far as the sandbox gives them."""
        yield self.run(sql, max_rows=10_000_000)


def declared_relations(sql: str) -> list[Relation]:
    """The tables and views that SQL text makes."""
    return [
        Relation(name_of(line), "view" if "VIEW" in line[:18].upper() else "table", line)
        for line in schema_of(sql).split("\n")
        if line.upper().startswith(DECLARED)
    ]


def name_of(create: str) -> str:
    """The name in a CREATE statement, without its quotes."""
    words = iter(sql_tokens(create))
    names = (text for group, text in words if not (group == "word" and text in CREATE_WORDS))
    name = next(names, "")
    if next(names, "") == ".":
        name = next(names, "")
    quoted = len(name) > 1 and name[0] in "\"'`["
    return name[1:-1].replace(name[0] * 2, name[0]) if quoted else name


def from_sandbox(result: SqlResult) -> QueryResult:
    """The sandbox's result as one of a database."""
    note = None
    if result.status == "ok" and result.state is not None:
        note = f"this {result.kind} statement ran on a copy; your data are as they were"
    return QueryResult(
        result.status, result.columns, result.rows, result.truncated, result.error,
        result.seconds, note,
    )  # fmt: skip
