"""Running SQL that a model wrote, from the side that asks: workers, jobs, results, gold queries.

Promises: nothing in a statement raises here, and every job is answered in order, whatever the
ones before it did to their process. What confines the process is `confinement`.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypedDict

from gemma_lora.cli import UserError
from gemma_lora.confinement import KILL_GRACE_SEC, SQL_LENGTH, DatabaseContents, _worker_main
from gemma_lora.sql_reader import SqlReader
from gemma_lora.sql_text import statement_kind, uses_clock

CHUNK_JOBS = 64  # jobs sent to a worker at once: one pickle and one wake-up for all of them
START_SEC = 60.0


@dataclass(frozen=True)
class SqlJob:
    """One statement for a fresh in-memory database made by `context` (None: an empty one)."""

    context: str | None
    sql: str
    timeout_sec: float = 2.0
    max_rows: int = 1000
    reverse: bool = False  # rows come in reverse where SQL leaves their order open


@dataclass(frozen=True)
class SqlResult:
    """What became of one SqlJob."""

    status: str  # "ok" | "error" | "timeout" | "refused" | "too_large"
    rows: list[tuple[Any, ...]] = field(default_factory=list)  # at most max_rows; [] unless ok
    columns: list[str] = field(default_factory=list)
    truncated: bool = False  # more than max_rows rows existed
    error: str | None = None  # one line
    stage: str = "query"  # "context" when the context failed to load
    kind: str = "other"  # "select" | "insert" | "update" | "delete" | "ddl" | "other"
    state: str | None = None  # sha256 of the database a writing statement left behind
    seconds: float = 0.0
    context_used: str | None = None  # the translated context; None: as given
    sql_used: str | None = None  # the translated statement; None: as given
    contents: DatabaseContents | None = None  # beside `state`, unless there is too much of it


class GoldFacts(TypedDict):
    """What running a gold query told of it."""

    gold_runs: bool
    gold_returns_rows: bool
    gold_kind: str
    uses_clock: bool
    gold: str | None  # the statement that ran, perhaps translated; None when none did
    context: str | None  # the one it ran on, or as given
    error: str | None


class SqlWorker:
    """One reused worker process; started at the first job, replaced after a kill or a crash.

    With `translate`, what fails as it stands is tried again as sqlglot rewrites it for SQLite.
    With `still`, the clock stands and chance is seeded (see `clock`): results can be compared.
    `reader` is a second process, for what only sqlglot can tell; it starts when it is asked.
    Use it as a context manager, from one thread at a time. UserError when no process can start.
    """

    def __init__(self, *, translate: bool = False, still: bool = False) -> None:
        self._translate = translate
        self._still = still
        self._process: Any = None
        self._pipe: Any = None
        self._busy = threading.Lock()
        self.reader = SqlReader()

    def __enter__(self) -> SqlWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> Any:
        """End the processes; returns this one's exit code, None if none ran. Safe to repeat."""
        self.reader.close()
        return self._end_process()

    def _end_process(self) -> Any:
        if self._process is None:
            return None
        process, self._process = self._process, None
        self._pipe.close()
        process.join(0.2)
        process.kill()
        process.join()
        return process.exitcode

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        arguments = (theirs, self._translate, self._still)
        self._process = spawn.Process(target=_worker_main, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            if self._pipe.poll(START_SEC):
                self._pipe.recv()
                return
        code = self._end_process()
        raise UserError(
            f"The process that runs SQL did not start (exit code {code}); in a script of your own, "
            'call this under `if __name__ == "__main__":`'
        )

    def run(
        self, context: str | None, sql: str, timeout_sec: float = 2.0, max_rows: int = 1000
    ) -> SqlResult:
        """Run one statement; see run_sql."""
        [result] = self.run_many([SqlJob(context, sql, timeout_sec, max_rows)])
        return result

    def run_many(self, jobs: Iterable[SqlJob]) -> Iterator[SqlResult]:
        """One result per job, in order, while the jobs are read in chunks."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this SqlWorker is busy: finish its last run_many, or use another")
        try:
            source = iter(jobs)
            while chunk := list(itertools.islice(source, CHUNK_JOBS)):
                yield from self._run_chunk(deque(chunk))
        finally:
            self._busy.release()

    def _run_chunk(self, jobs: deque[SqlJob]) -> Iterator[SqlResult]:
        batch = len(jobs)
        waiting = False
        try:
            while jobs:
                if problem := _problem(jobs[0]):
                    jobs.popleft()
                    yield problem
                    continue
                sent = list(itertools.takewhile(lambda job: not _problem(job), jobs))[:batch]
                self._ensure_process()
                waiting, expected = True, len(jobs) - len(sent)
                try:
                    self._send(sent)
                    while len(jobs) > expected:
                        for payload in self._pipe.recv():
                            jobs.popleft()
                            yield SqlResult(*payload)
                except (EOFError, OSError):
                    self._process.join(START_SEC)  # it is on its way out: wait for the reason
                    exit_code = self._end_process()
                    if exit_code and batch == 1:
                        yield _obituary(jobs.popleft(), exit_code)
                        batch = len(jobs)
                    elif exit_code:
                        batch = 1  # one of those sent ended it: find it one by one
                waiting = False
        finally:
            if waiting:  # the caller stopped early, with answers still on their way
                self._end_process()

    def _ensure_process(self) -> None:
        if self._process is None or not self._process.is_alive():
            self._end_process()
            self._start()

    def _send(self, jobs: list[SqlJob]) -> None:
        self._pipe.send(
            [(j.context or "", j.sql, j.timeout_sec, j.max_rows, j.reverse) for j in jobs]
        )


def _problem(job: SqlJob) -> SqlResult | None:
    """The answer to a job that no worker needs to see."""
    for stage, text in (("context", job.context or ""), ("query", job.sql)):
        if not isinstance(text, str):
            message = f"expected text, got {type(text).__name__}"
            return SqlResult("error", error=message, stage=stage)
        if len(text) > SQL_LENGTH:
            message = f"{len(text):,} characters, more than {SQL_LENGTH:,}"
            return SqlResult("too_large", error=message, stage=stage)
    return None


def _obituary(job: SqlJob, exit_code: int) -> SqlResult:
    late = exit_code == -signal.SIGALRM
    error = "killed at the deadline" if late else f"the SQL process died (exit code {exit_code})"
    kind, seconds = statement_kind(job.sql), job.timeout_sec + KILL_GRACE_SEC if late else 0.0
    return SqlResult("timeout" if late else "error", error=error, kind=kind, seconds=seconds)


def run_sql(
    context: str | None,
    sql: str,
    *,
    worker: SqlWorker | None = None,
    timeout_sec: float = 2.0,
    max_rows: int = 1000,
) -> SqlResult:
    """Load `context` into a fresh in-memory SQLite database and run the one statement `sql`.

    Never raises for anything in the two texts: see SqlResult.status. Without a worker, a process
    is started for this one call (about 0.1 s). `timeout_sec` covers context and statement.
    """
    if worker is not None:
        return worker.run(context, sql, timeout_sec, max_rows)
    with SqlWorker() as once:
        return once.run(context, sql, timeout_sec, max_rows)


def verify_gold(
    rows: Iterable[tuple[str | None, str]], workers: int = 1, timeout_sec: float = 2.0
) -> Iterator[GoldFacts]:
    """Run gold statements, `workers` at a time: facts on each (context, sql) pair, in order."""
    idle: queue.SimpleQueue[SqlWorker] = queue.SimpleQueue()
    translate = True
    try:
        import sqlglot  # noqa: F401
    except ImportError:
        translate = False
        print("foreign SQL is not translated to SQLite: pip install sqlglot", file=sys.stderr)

    def run(pairs: list[tuple[str | None, str]]) -> list[GoldFacts]:
        worker = idle.get()
        try:
            results = worker.run_many(SqlJob(*pair, timeout_sec, max_rows=1) for pair in pairs)
            return [_facts(*pair, result) for pair, result in zip(pairs, results, strict=True)]
        finally:
            idle.put(worker)

    source, pending = iter(rows), deque[Future[list[GoldFacts]]]()
    with contextlib.ExitStack() as stack:
        for _ in range(max(workers, 1)):
            idle.put(stack.enter_context(SqlWorker(translate=translate)))
        pool = stack.enter_context(ThreadPoolExecutor(max(workers, 1)))
        stack.callback(lambda: pool.shutdown(cancel_futures=True))
        while pairs := list(itertools.islice(source, 4 * CHUNK_JOBS)):
            pending.append(pool.submit(run, pairs))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _facts(context: str | None, sql: str, result: SqlResult) -> GoldFacts:
    runs = result.status == "ok"
    gold = (result.sql_used or sql) if runs else None
    return {
        "gold_runs": runs,
        "gold_returns_rows": bool(result.rows),
        "gold_kind": result.kind,
        "uses_clock": uses_clock(gold or sql) if isinstance(sql, str) else False,
        "gold": gold,
        "context": result.context_used or context,
        "error": result.error,
    }
