"""People's questions about their own database, judged by what the queries return on the file.

The file is asked itself, read-only, so that a score is about the data that people have. There is no
suite of altered databases here: what returns the right rows by luck counts as right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from gemma_lora.database import FILE_TIMEOUT_SEC, DatabaseFile
from gemma_lora.own_database import read_examples
from gemma_lora.prompts import render_example, sql_prompt
from gemma_lora.sandbox import SqlJob, SqlResult, SqlWorker
from gemma_lora.schema_reading import read_only, user_tables
from gemma_lora.splits import Row
from gemma_lora.sql_text import statement_kind, uses_clock
from gemma_lora.verdicts import Gold, gold_orders, read_gold, shows_nothing

ROWS_COMPARED = 20_000  # people ask for whole tables of their database, which is no toy


class FileWorker(SqlWorker):
    """Runs queries on a SQLite file whatever context they come with; the file is only read."""

    def __init__(self, path: Path, timeout_sec: float = FILE_TIMEOUT_SEC) -> None:
        super().__init__()
        self.database = DatabaseFile(path, timeout_sec)

    def run_many(self, jobs: Iterable[SqlJob]) -> Iterator[SqlResult]:
        """What each query does on the file; one that would write is refused."""
        for job in jobs:
            found = self.database.run(job.sql, max(job.max_rows, ROWS_COMPARED))
            yield SqlResult(
                "refused" if found.status == "writes" else found.status,
                found.rows,
                found.columns,
                found.truncated,
                found.error or found.note,
                kind=statement_kind(job.sql),
                seconds=found.seconds,
            )

    def close(self) -> None:
        """End both processes."""
        self.database.close()
        super().close()


def question_rows(path: Path, database: Path) -> list[Row]:
    """People's questions as rows without a context; prompts come later. Raises UserError."""
    rows: list[Row] = []
    for number, one in enumerate(read_examples(path, database), 1):
        prompt = sql_prompt(one.question, None)
        rows.append(
            {
                "id": str(number),
                "text": render_example(prompt, one.sql),
                "prompt": prompt,
                "completion": one.sql,
                "type": "sql",
                "question": one.question,
                "context": None,
                "source": path.name,
            }
        )
    return rows


def on_database(rows: list[Row], database: Path) -> list[Row]:
    """The rows with the file's schema as their context."""
    with read_only(database) as connection:
        schema = ";\n".join(sql for sql in user_tables(connection).values() if sql)
    return [{**row, "context": schema} for row in rows]


def prepare_file_gold(row: Row, worker: SqlWorker, timeout_sec: float) -> Gold:
    """Run a row's reference on the file."""
    sql, context = row["completion"], row["context"] or ""
    kind = statement_kind(sql)
    result = worker.run(context, sql, timeout_sec)
    if result.status != "ok" or result.truncated:
        long = "the gold's result is too large" if result.truncated else "the gold does not run"
        return Gold(sql, kind, long)
    if uses_clock(sql):
        return Gold(sql, kind, "the gold reads the clock or random numbers")
    empty = shows_nothing(result, context, worker, timeout_sec)
    order, groups = gold_orders(context, sql, result, worker, timeout_sec)
    return Gold(sql, kind, None, empty, result, order, groups, normal=read_gold(sql, worker))
