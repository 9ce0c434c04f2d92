"""A few rows of each table, as a prompt shows them beside its CREATE statement.

What a small model lacks most is how values are spelt and which column they are in. The rows come
from running the context, or from the user's file: the same thing for a row that trains, a row that
is scored and a question in the chat. Values are clipped, so that a long text costs no more than a
short one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from gemma_lora.database import Database, Relation, declared_relations, sql_literal
from gemma_lora.prompts import CONTROL_CHARACTERS
from gemma_lora.sandbox import SqlJob, SqlWorker
from gemma_lora.sql_text import schema_of
from gemma_lora.table_reading import quoted

ROWS_SHOWN = 3
VALUE_CHARACTERS = 32
ANSWER_ROOM = 96  # tokens kept free for an answer, which is not known when a question is asked
Rows = Sequence[Sequence[Any]]
Item = TypeVar("Item")


class Shown(NamedTuple):
    """A table or view, and the rows of it that may be shown."""

    relation: Relation
    rows: Rows


def shown_of(context: str | None, form: str) -> str | None:
    """What a prompt of this form shows of a context, without running it.

    "schema" shows the CREATE statements ("rows" begins with them, too), "full" all, "none" nothing.
    A context without a CREATE statement (a list of columns, say) is shown as it is.
    """
    if form == "none" or not context:
        return None
    return context if form == "full" else schema_of(context) or context


def declaration(relation: Relation) -> str:
    """A relation's CREATE statement on one line, without comments."""
    return schema_of(relation.sql) or f"{' '.join(relation.sql.split())};"


def first_rows_of(relation: Relation) -> str:
    """The query for the rows that are shown: those that come first unasked; none of a view."""
    name = relation.name.replace('"', '""')  # always in quotes: it may be a word of SQL
    return f'SELECT * FROM "{name}" LIMIT {ROWS_SHOWN}'


def clipped(value: Any) -> Any:
    """A value short enough to be shown; a text or blob keeps its beginning."""
    if isinstance(value, bytes):
        return value[: VALUE_CHARACTERS // 2]
    if not isinstance(value, str):
        return value
    line = " ".join(CONTROL_CHARACTERS.sub("", value).split())
    return line if len(line) <= VALUE_CHARACTERS else line[: VALUE_CHARACTERS - 3].rstrip() + "..."


def written(name: str, rows: Rows) -> str:
    """Rows of a table as one INSERT statement on a line; empty for none."""
    lines = (f"({', '.join(sql_literal(clipped(value)) for value in row)})" for row in rows)
    values = ", ".join(lines)
    return f"INSERT INTO {quoted(name)} VALUES {values};" if values else ""


def with_rows(found: Sequence[Shown], count: int) -> str:
    """The CREATE statements, a line each, and below each at most `count` of its rows."""
    lines = []
    for relation, rows in found:
        lines.append(declaration(relation))
        if inserted := written(relation.name, rows[:count]):
            lines.append(inserted)
    return "\n".join(lines)


def fewer_and_fewer(found: Sequence[Shown]) -> list[str]:
    """The texts with at most three rows of each table, then two, one and none."""
    texts = (with_rows(found, count) for count in range(ROWS_SHOWN, -1, -1))
    return list(dict.fromkeys(texts))


def first_rows(database: Database | None, relation: Relation) -> Rows:
    """The first rows of a table; none of a view, or where they cannot be read."""
    if database is None or relation.kind == "view":
        return ()
    return database.run(first_rows_of(relation), max_rows=ROWS_SHOWN).rows


def rows_of_contexts(
    contexts: Iterable[str], worker: SqlWorker, timeout_sec: float
) -> Iterator[list[Shown]]:
    """For each context its relations with their first rows, in order, as the contexts come."""
    waiting: deque[list[Relation]] = deque()

    def jobs() -> Iterator[SqlJob]:
        for context in contexts:
            waiting.append(declared_relations(context))
            tables = [r for r in waiting[-1] if r.kind != "view"]
            yield from (
                SqlJob(context, first_rows_of(table), timeout_sec, ROWS_SHOWN) for table in tables
            )
            yield SqlJob(None, "SELECT 1")  # ends the context's turn, which may be empty

    found: list[Rows] = []
    for result in worker.run_many(jobs()):
        relations = waiting[0]
        if len(found) < sum(r.kind != "view" for r in relations):
            found.append(result.rows)
            continue
        rows = iter(found)
        yield [Shown(r, [] if r.kind == "view" else next(rows)) for r in relations]
        waiting.popleft()
        found = []


def shown_with_rows(
    items: Iterable[Item],
    context_of: Callable[[Item], str | None],
    worker: SqlWorker,
    timeout_sec: float,
    fits: Callable[[Item, str], bool],
) -> Iterator[tuple[Item, str | None]]:
    """Each item with what a prompt of the form "rows" shows of its context.

    Three rows of each table, or two, one or none where the prompt does not fit. None: the context
    makes no table, and is shown as other forms show it.
    """
    waiting: deque[Item] = deque()

    def contexts() -> Iterator[str]:
        for item in items:
            waiting.append(item)
            yield context_of(item) or ""

    for found in rows_of_contexts(contexts(), worker, timeout_sec):
        item = waiting.popleft()
        texts = fewer_and_fewer(found)
        yield item, next((t for t in texts if fits(item, t)), texts[-1]) if found else None
