"""Is this SQL right: running it, on a suite of databases too, the error classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from gemma_lora.comparison import TieGroup, compare_rows, same_bag
from gemma_lora.neighbours import NO_CHANGE
from gemma_lora.orderings import ranked_queries, tie_groups
from gemma_lora.replies import extract_sql
from gemma_lora.sandbox import SqlResult, SqlWorker
from gemma_lora.splits import Row
from gemma_lora.sql_reader import TooLong
from gemma_lora.sql_text import (
    normal_sql,
    order_columns,
    parse_sql,
    sqlglot_is_there,
    statement_kind,
    uses_clock,
)
from gemma_lora.suites import TOO_LONG, NoSuite, Suite, passes_suite, suite_of

# Of a result a sample keeps so many rows and columns, and so many characters of a value.
KEPT_ROWS, KEPT_COLUMNS, KEPT_TEXT = 10, 12, 200

BAD_CONTEXT = "the database does not load"
STATUS_ERRORS = {
    "timeout": "timed out",
    "refused": "refused by the sandbox",
    "too_large": "result too large",
}
SQL_ERRORS = {
    "no such table": "no such table",
    "no such column": "no such column",
    "no such function": "no such function",
    "syntax error": "syntax",
    "incomplete input": "syntax",
    "unrecognized token": "syntax",
    "several statements": "several statements",
}


@dataclass(frozen=True)
class Gold:
    """What a row's reference does on its database, and its test suite."""

    sql: str
    kind: str = "other"
    excluded: str | None = None  # why the row cannot be scored by execution
    empty: bool = False  # the gold returns nothing, or changes nothing
    result: SqlResult | None = None
    order: tuple[int, ...] | None = None
    groups: list[TieGroup] | None = None  # rows that tie, where that can be told
    suite: Suite | None = None
    no_suite: str | None = None  # why not; None too where the gold is excluded or empty
    normal: str | None = None  # in one spelling; None when sqlglot did not read it in time


def prepare_gold(
    row: Row, worker: SqlWorker, seed: int, timeout_sec: float, cache: Path | None = None
) -> Gold:
    """Run a row's reference; find out whether and how answers can be compared with it.

    `cache` is the folder that keeps suites between runs, if any does.
    """
    sql = extract_sql(row["completion"]) or row["completion"]
    context = row.get("context")
    gold = Gold(sql, statement_kind(sql), normal=read_gold(sql, worker))
    if not context:
        return replace(gold, excluded="no database")
    result = worker.run(context, sql, timeout_sec)
    if excluded := exclusion(sql, result):
        return replace(gold, excluded=excluded)
    empty = shows_nothing(result, context, worker, timeout_sec)
    gold = replace(gold, result=result, empty=empty)
    if gold.normal is None:
        return replace(gold, no_suite=None if empty else TOO_LONG)
    order, groups = gold_orders(context, sql, result, worker, timeout_sec)
    gold = replace(gold, order=order, groups=groups)
    if empty:
        return gold
    if gold.kind == "ddl":
        return replace(gold, no_suite="it makes or drops tables, views or indexes")

    try:
        same = partial(agree, order=order)
        suite = suite_of(context, sql, result, worker, same, str(seed), timeout_sec, cache)
    except NoSuite as reason:
        return replace(gold, no_suite=str(reason))
    return replace(gold, suite=suite)


def exclusion(sql: str, result: SqlResult) -> str | None:
    """Why answers cannot be compared with what a gold did; None when they can."""
    if result.stage == "context" and result.status != "ok":
        return BAD_CONTEXT
    if result.status != "ok":
        return "the gold does not run"
    if result.truncated:
        return "the gold's result is too large"
    return "the gold reads the clock or random numbers" if uses_clock(sql) else None


def read_gold(sql: str, worker: SqlWorker) -> str | None:
    """`normal_sql` of a gold; None when sqlglot does not read it in time."""
    try:
        return worker.reader.ask(normal_sql, sql)
    except TooLong:
        return None


def gold_orders(
    context: str, sql: str, result: SqlResult, worker: SqlWorker, timeout_sec: float
) -> tuple[tuple[int, ...] | None, list[TieGroup] | None]:
    """(`order_columns` of a gold, its ties), None where they cannot be told."""
    try:
        order = worker.reader.ask(order_columns, sql, result.columns)
        queries = worker.reader.ask(ranked_queries, sql, result.columns) if result.rows else []
    except TooLong:
        return None, None
    return order, tie_groups(context, queries, result, worker, timeout_sec)


def shows_nothing(result: SqlResult, context: str, worker: SqlWorker, timeout_sec: float) -> bool:
    """Whether a statement returned nothing but NULLs, or left the database as it was."""
    if result.state is None:
        return all(value is None for row in result.rows for value in row)
    return result.state == worker.run(context, NO_CHANGE, timeout_sec).state


def judge(
    result: SqlResult,
    gold: SqlResult,
    order: Sequence[int] | None,
    groups: Sequence[TieGroup] | None = None,
) -> str | None:
    """None when a result matches the gold's, else what is wrong with it."""
    if result.status == "ok":
        if gold.state is not None or result.state is not None:
            return None if same_state(gold, result) else "wrong rows"
        labels = (gold.columns, result.columns)
        said = "wrong rows"
        if not result.truncated:
            said = compare_rows(gold.rows, result.rows, order, labels, groups)
        return None if said == "match" else said
    message = (result.error or "").lower()
    by_message = (name for marker, name in SQL_ERRORS.items() if marker in message)
    return STATUS_ERRORS.get(result.status) or next(by_message, "other error")


def same_state(gold: SqlResult, other: SqlResult) -> bool:
    """Whether two statements left the same database: numbers with the tolerance of results.

    Tables must hold the same rows under the same definitions. Of a view its rows count, not how
    they are selected.
    """
    if gold.state is None or other.state is None or gold.state == other.state:
        return gold.state == other.state
    ours, theirs = gold.contents, other.contents
    if ours is None or theirs is None or ours.definitions != theirs.definitions:
        return False
    return (
        ours.tables.keys() == theirs.tables.keys()
        and ours.views.keys() == theirs.views.keys()
        and all(same_bag(rows, theirs.tables[name]) for name, rows in ours.tables.items())
        and all(
            len(labels) == len(theirs.views[name][0])
            and compare_rows(rows, theirs.views[name][1], None, (labels, theirs.views[name][0]))
            == "match"
            for name, (labels, rows) in ours.views.items()
        )
    )


def text_facts(sql: str) -> tuple[bool | None, str]:
    """(whether a text is a SQL statement of a known kind, its one spelling)."""
    return parse_sql(sql) is not None if sqlglot_is_there() else None, normal_sql(sql)


def read_reply(sql: str, gold: Gold, worker: SqlWorker) -> tuple[bool | None, bool]:
    """(whether a reply's SQL is valid: None if that is not known; whether it is the gold's)."""
    try:
        valid, normal = worker.reader.ask(text_facts, sql)
    except TooLong:
        return None, sql == gold.sql
    return valid, bool(sql) and normal == gold.normal


class ResultPreview(TypedDict):
    """The beginning of a result as a sample keeps it, and how large the whole was."""

    columns: list[str]  # labels, at most KEPT_COLUMNS
    rows: list[list[Any]]  # at most KEPT_ROWS
    n_columns: int
    n_rows: int  # counting ends at SqlJob.max_rows


class SqlVerdict(TypedDict):
    """What is said of one reply to a SQL row."""

    sql: str  # '' when the reply holds none
    valid_sql: bool | None  # None without sqlglot, or when it did not read it in time
    executes: bool
    exact_match: bool
    match: bool  # returns what the gold returns
    suite_match: bool | None  # on every database of the suite too; None without a suite
    error: str | None  # the class of what went wrong
    message: str | None  # SQLite's own, where it does not run
    result: ResultPreview | None  # None where it does not run


def agree(one: SqlResult, other: SqlResult, order: Sequence[int] | None) -> bool:
    """Whether two results say the same, in an order that these keys allow."""
    return judge(one, other, order) is None


def score_sql(
    reply: str,
    finish_reason: str | None,
    gold: Gold,
    row: Row,
    worker: SqlWorker,
    timeout_sec: float,
) -> SqlVerdict:
    """One model's verdict on one row: the fields of a sample's outputs."""
    context = row.get("context")
    sql = extract_sql(reply, context or row["prompt"])
    valid, exact = read_reply(sql, gold, worker)
    out: SqlVerdict = {
        "sql": sql,
        "valid_sql": valid,
        "executes": False,
        "exact_match": exact,
        "match": False,
        "suite_match": None,
        "error": None,
        "message": None,
        "result": None,
    }
    if not context or gold.excluded == BAD_CONTEXT:
        return out
    result = worker.run(context, sql, timeout_sec) if sql else None
    if result and result.status == "ok":
        out |= {"executes": True, "result": preview(result)}
    out["message"] = result.error[:KEPT_TEXT] if result and result.error else None
    if gold.result is None:
        return out
    out["error"] = "no SQL in the reply"
    if result:
        out["error"] = judge(result, gold.result, gold.order, gold.groups)
    out["match"] = out["error"] is None
    if gold.suite:
        out["suite_match"] = out["match"] and passes_suite(
            sql, gold.suite, worker, partial(agree, order=gold.order), timeout_sec
        )
    if out["error"] and sql and finish_reason == "length" and reply.rstrip().endswith(sql):
        out["error"] = "cut off at the length limit"
    return out


def preview(result: SqlResult) -> ResultPreview:
    """What a sample keeps of a result, as JSON can hold it; a text that goes on ends with "..."."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        text = value.hex() if isinstance(value, bytes) else value
        long = isinstance(text, str) and len(text) > KEPT_TEXT
        return text[:KEPT_TEXT] + "..." if long else text

    return {
        "columns": [plain(label) for label in result.columns[:KEPT_COLUMNS]],
        "rows": [[plain(v) for v in row[:KEPT_COLUMNS]] for row in result.rows[:KEPT_ROWS]],
        "n_columns": len(result.columns),
        "n_rows": len(result.rows),
    }
