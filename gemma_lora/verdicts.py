"""Is this SQL right: comparing results, on a suite of databases too, the error classes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from gemma_lora.neighbours import NO_CHANGE
from gemma_lora.sandbox import SqlResult, SqlWorker
from gemma_lora.splits import Row
from gemma_lora.sql_text import (
    extract_sql,
    normal_sql,
    order_columns,
    parse_sql,
    sqlglot_is_there,
    statement_kind,
    uses_clock,
)
from gemma_lora.suites import Suite, build_suite, passes_suite

# Numbers match when both are whole and equal, or when they differ by at most one part in a million.
REL_TOL, ABS_TOL = 1e-6, 1e-9
PREVIEW_ROWS = 3

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


def same_value(a: Any, b: Any) -> bool:
    """NULL equals NULL, 1 equals 1.0, text is compared as text, floats with a tolerance."""
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        whole = isinstance(a, int) and isinstance(b, int)
        return a == b if whole else math.isclose(a, b, rel_tol=REL_TOL, abs_tol=ABS_TOL)
    return type(a) is type(b) and bool(a == b)


def _shape(row: Sequence[Any]) -> tuple[Any, ...]:
    """What must be equal exactly in a row; numbers are left to `same_value`."""
    return tuple("number" if isinstance(v, (int, float)) else (type(v).__name__, v) for v in row)


def same_bag(gold: Sequence[Sequence[Any]], predicted: Sequence[Sequence[Any]]) -> bool:
    """Whether two results hold the same rows equally often, in any order."""
    if len(gold) != len(predicted):
        return False
    groups: dict[Any, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((gold, predicted)):
        for row in rows:
            groups[_shape(row)][side].append(tuple(v for v in row if isinstance(v, (int, float))))
    return all(_same_numbers(sorted(g), sorted(p)) for g, p in groups.values())


def _same_numbers(gold: list[Any], predicted: list[Any]) -> bool:
    """Match sorted number rows one to one: in step, or else each to the first that fits."""
    if len(gold) != len(predicted):
        return False

    def same(a: Any, b: Any) -> bool:
        return all(same_value(x, y) for x, y in zip(a, b, strict=True))

    if all(same(a, b) for a, b in zip(gold, predicted, strict=True)):
        return True
    left = list(predicted)
    for row in gold:
        fit = next((i for i, other in enumerate(left) if same(row, other)), None)
        if fit is None:
            return False
        left.pop(fit)
    return True


def align_columns(
    gold: Sequence[Sequence[Any]], predicted: Sequence[Sequence[Any]]
) -> tuple[int, ...] | None:
    """The predicted column for each gold column, None when the results cannot match.

    Columns in the same places win. Another order is accepted only if the contents leave no choice:
    each gold column equals exactly one predicted column.
    """
    width = len(gold[0])
    if any(len(row) != width for row in predicted) or len(gold) != len(predicted):
        return None
    if same_bag(gold, predicted):
        return tuple(range(width))
    chosen = []
    for i in range(width):
        column = [(row[i],) for row in gold]
        fits = [j for j in range(width) if same_bag(column, [(row[j],) for row in predicted])]
        if len(fits) != 1:
            return None
        chosen.append(fits[0])
    moved = [tuple(row[j] for j in chosen) for row in predicted]
    return tuple(chosen) if len(set(chosen)) == width and same_bag(gold, moved) else None


def compare_rows(
    gold: Sequence[Sequence[Any]],
    predicted: Sequence[Sequence[Any]],
    order: Sequence[int] | None = None,
) -> str:
    """'match', 'wrong rows' or 'wrong order'; `order` is what `order_columns` gave for the gold."""
    if not gold or not predicted:
        return "match" if not gold and not predicted else "wrong rows"
    columns = align_columns(gold, predicted)
    if columns is None:
        return "wrong rows"
    in_order = all(
        same_value(g[i], p[columns[i]])
        for g, p in zip(gold, predicted, strict=True)
        for i in order or ()
    )
    return "match" if in_order else "wrong order"


@dataclass(frozen=True)
class Gold:
    """What a row's reference does on its database, and its test suite."""

    sql: str
    kind: str = "other"
    excluded: str | None = None  # why the row cannot be scored by execution
    empty: bool = False  # the gold returns nothing, or changes nothing
    result: SqlResult | None = None
    order: tuple[int, ...] | None = None
    suite: Suite | None = None  # None too where the gold is excluded, empty or DDL


def prepare_gold(row: Row, worker: SqlWorker, seed: int, timeout_sec: float) -> Gold:
    """Run a row's reference; find out whether and how answers can be compared with it."""
    sql = extract_sql(row["completion"]) or row["completion"]
    kind = statement_kind(sql)
    context = row.get("context")
    if not context:
        return Gold(sql, kind, "no database")
    result = worker.run(context, sql, timeout_sec)
    if result.stage == "context" and result.status != "ok":
        return Gold(sql, kind, BAD_CONTEXT)
    if result.status != "ok" or result.truncated:
        return Gold(
            sql,
            kind,
            "the gold's result is too large" if result.truncated else "the gold does not run",
        )
    if uses_clock(sql):
        return Gold(sql, kind, "the gold reads the clock or random numbers")
    empty = shows_nothing(result, context, worker, timeout_sec)
    gold = Gold(sql, kind, None, empty, result, order_columns(sql, result.columns))
    if empty:
        return gold

    def same(one: SqlResult, other: SqlResult) -> bool:
        return judge(one, other, gold.order) is None

    return replace(
        gold, suite=build_suite(context, sql, result, worker, same, str(seed), timeout_sec)
    )


def shows_nothing(result: SqlResult, context: str, worker: SqlWorker, timeout_sec: float) -> bool:
    """Whether a statement returned nothing but NULLs, or left the database as it was."""
    if result.state is None:
        return all(value is None for row in result.rows for value in row)
    return result.state == worker.run(context, NO_CHANGE, timeout_sec).state


def judge(result: SqlResult, gold: SqlResult, order: Sequence[int] | None) -> str | None:
    """None when a result matches the gold's, else what is wrong with it."""
    if result.status == "ok":
        if gold.state is not None or result.state is not None:
            return None if gold.state == result.state else "wrong rows"
        said = "wrong rows" if result.truncated else compare_rows(gold.rows, result.rows, order)
        return None if said == "match" else said
    message = (result.error or "").lower()
    by_message = (name for marker, name in SQL_ERRORS.items() if marker in message)
    return STATUS_ERRORS.get(result.status) or next(by_message, "other error")


class SqlVerdict(TypedDict):
    """What is said of one reply to a SQL row."""

    sql: str  # '' when the reply holds none
    valid_sql: bool | None  # None without sqlglot
    executes: bool
    exact_match: bool
    match: bool  # returns what the gold returns
    suite_match: bool | None  # on every database of the suite too; None without a suite
    error: str | None  # the class of what went wrong
    rows: list[list[Any]] | None  # the first of its result


def score_sql(
    reply: str,
    finish_reason: str,
    gold: Gold,
    row: Row,
    worker: SqlWorker,
    timeout_sec: float,
) -> SqlVerdict:
    """One model's verdict on one row: the fields of a sample's outputs."""
    sql, context = extract_sql(reply, row["prompt"]), row.get("context")
    out: SqlVerdict = {
        "sql": sql,
        "valid_sql": parse_sql(sql) is not None if sqlglot_is_there() else None,
        "executes": False,
        "exact_match": bool(sql) and normal_sql(sql) == normal_sql(gold.sql),
        "match": False,
        "suite_match": None,
        "error": None,
        "rows": None,
    }
    if not context or gold.excluded == BAD_CONTEXT:
        return out
    result = worker.run(context, sql, timeout_sec) if sql else None
    if result and result.status == "ok":
        out |= {"executes": True, "rows": first_rows(result.rows)}
    if gold.result is None:
        return out
    out["error"] = judge(result, gold.result, gold.order) if result else "no SQL in the reply"
    out["match"] = out["error"] is None
    if gold.suite:
        out["suite_match"] = out["match"] and passes_suite(
            sql, gold.suite, worker, lambda one, other: judge(one, other, gold.order) is None,
            timeout_sec,
        )  # fmt: skip
    if out["error"] and sql and finish_reason == "length" and reply.rstrip().endswith(sql):
        out["error"] = "cut off at the length limit"
    return out


def first_rows(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The first rows of a result, as JSON can hold them."""

    def plain(value: Any) -> Any:
        odd = isinstance(value, float) and not math.isfinite(value)
        return value.hex() if isinstance(value, bytes) else str(value) if odd else value

    return [[plain(value) for value in row] for row in rows[:PREVIEW_ROWS]]
