"""Is this SQL right: running it, a perturbed copy of the data, the error classes."""

from __future__ import annotations

import importlib
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from gemma_lora.comparison import TieGroup, compare_rows, same_bag
from gemma_lora.database import sql_literal
from gemma_lora.orderings import tie_groups
from gemma_lora.replies import extract_sql
from gemma_lora.sandbox import SqlResult, SqlWorker
from gemma_lora.splits import Row
from gemma_lora.sql_text import (
    normal_sql,
    order_columns,
    parse_sql,
    sql_trees,
    sqlglot_is_there,
    statement_kind,
    uses_clock,
)

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
NO_CHANGE = 'DROP TABLE IF EXISTS "no such table"'  # runs as a change and leaves all as it was


def context_tables(context: str) -> dict[str, set[str]]:
    """{table as SQL: names, lower case, of its declared key columns} of the CREATE TABLEs."""
    trees = sql_trees(context, "execution_accuracy_strict", lenient=True)
    if not trees:
        return {}
    exp = importlib.import_module("sqlglot").exp
    tables: dict[str, set[str]] = {}
    for tree in trees:
        table = tree.find(exp.Table)
        if not isinstance(tree, exp.Create) or tree.kind != "TABLE" or table is None:
            continue
        keys: set[str] = set()
        for column in tree.find_all(exp.ColumnDef):
            kinds = (exp.PrimaryKeyColumnConstraint, exp.UniqueColumnConstraint)
            if column.find(*kinds):
                keys.add(column.name.lower())
        for many in tree.find_all(exp.PrimaryKey, exp.UniqueColumnConstraint):
            keys |= {name.name.lower() for name in many.find_all(exp.Identifier)}
        tables[table.sql(dialect="sqlite")] = keys
    return tables


def perturb_rows(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], keys: set[str], seed: str
) -> list[tuple[Any, ...]]:
    """Shuffle, change and add rows of one table; key columns keep unique values.

    Keys are the declared ones and, where their values are unique, columns named id or *_id. Other
    columns are shuffled (every second one), rows made of existing values are added, and one of
    them gets a NULL.
    """
    draw = random.Random(seed)
    values = [[row[i] for row in rows] for i in range(len(columns))]
    unique = [
        name.lower() in keys
        or (re.search(r"(^|_)id$", name.lower()) is not None and len(set(column)) == len(column))
        for name, column in zip(columns, values, strict=True)
    ]
    extra = max(2, len(rows) // 2)
    made = []
    for column, key in zip(values, unique, strict=True):
        if key:
            made.append(column + [_fresh(column, n) for n in range(extra)])
            continue
        kept = draw.sample(column, len(column)) if draw.random() < 0.5 else list(column)
        made.append(kept + [_varied(draw.choice(column), column, draw) for _ in range(extra)])
    free = [i for i, key in enumerate(unique) if not key]
    if free:
        made[draw.choice(free)][-1] = None
    return list(zip(*made, strict=True))


def _fresh(column: Sequence[Any], n: int) -> Any:
    """A value that a key column does not hold yet."""
    numbers = [v for v in column if isinstance(v, (int, float)) and math.isfinite(v)]
    if numbers and not any(isinstance(v, (str, bytes)) or v is None for v in column):
        return int(max(numbers)) + n + 1
    return f"{column[n % len(column)]}-{n + 1}"


def _varied(value: Any, column: Sequence[Any], draw: random.Random) -> Any:
    """An existing value; a number is nudged every second time, unless the column is like a flag."""
    if isinstance(value, (int, float)) and len(set(column)) > 2 and draw.random() < 0.5:
        return value + draw.randint(1, 9) if isinstance(value, int) else round(value * 1.5 + 1, 2)
    return value


@dataclass(frozen=True)
class Gold:
    """What a row's reference does on its database and on a perturbed copy of it."""

    sql: str
    kind: str = "other"
    excluded: str | None = None  # why the row cannot be scored by execution
    empty: bool = False  # the gold returns nothing, or changes nothing
    result: SqlResult | None = None
    order: tuple[int, ...] | None = None
    groups: list[TieGroup] | None = None  # rows that tie, where that can be told
    copy: str | None = None  # context of the perturbed copy, None when it serves no purpose
    copy_result: SqlResult | None = None


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
    groups = tie_groups(context, sql, result, worker, timeout_sec) if result.rows else None
    gold = Gold(sql, kind, None, empty, result, order_columns(sql, result.columns), groups)
    copy = None if empty else perturbed_context(context, worker, f"{seed} {row['id']}", timeout_sec)
    if copy is None:
        return gold
    again = worker.run(copy, sql, timeout_sec)
    if again.status != "ok" or again.truncated or shows_nothing(again, copy, worker, timeout_sec):
        return gold
    return replace(gold, copy=copy, copy_result=again)


def shows_nothing(result: SqlResult, context: str, worker: SqlWorker, timeout_sec: float) -> bool:
    """Whether a statement returned nothing but NULLs, or left the database as it was."""
    if result.state is None:
        return all(value is None for row in result.rows for value in row)
    return result.state == worker.run(context, NO_CHANGE, timeout_sec).state


def perturbed_context(context: str, worker: SqlWorker, seed: str, timeout_sec: float) -> str | None:
    """The context with its tables' rows replaced by perturbed ones; None when there are none."""
    changes = []
    for table, keys in context_tables(context).items():
        found = worker.run(context, f"SELECT * FROM {table}", timeout_sec)
        if found.status == "ok" and found.rows and not found.truncated:
            rows = perturb_rows(found.columns, found.rows, keys, f"{seed} {table}")
            values = ",\n".join(f"({', '.join(map(sql_literal, row))})" for row in rows)
            # A row that breaks a constraint is left out; the others serve.
            changes.append(f"DELETE FROM {table};\nINSERT OR IGNORE INTO {table} VALUES {values};")
    return "\n".join([context.rstrip().rstrip(";") + ";", *changes]) if changes else None


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


class SqlVerdict(TypedDict):
    """What is said of one reply to a SQL row."""

    sql: str  # '' when the reply holds none
    valid_sql: bool | None  # None without sqlglot
    executes: bool
    exact_match: bool
    match: bool  # returns what the gold returns
    strict_match: bool | None  # on the perturbed copy too; None when there is none
    error: str | None  # the class of what went wrong
    rows: list[list[Any]] | None  # the first of its result


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
    out: SqlVerdict = {
        "sql": sql,
        "valid_sql": parse_sql(sql) is not None if sqlglot_is_there() else None,
        "executes": False,
        "exact_match": bool(sql) and normal_sql(sql) == normal_sql(gold.sql),
        "match": False,
        "strict_match": None,
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
    out["error"] = "no SQL in the reply"
    if result:
        out["error"] = judge(result, gold.result, gold.order, gold.groups)
    out["match"] = out["error"] is None
    if gold.copy and gold.copy_result:
        again = worker.run(gold.copy, sql, timeout_sec) if out["match"] else None
        out["strict_match"] = (
            again is not None and judge(again, gold.copy_result, gold.order) is None
        )
    if out["error"] and sql and finish_reason == "length" and reply.rstrip().endswith(sql):
        out["error"] = "cut off at the length limit"
    return out


def first_rows(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The first rows of a result, as JSON can hold them."""

    def plain(value: Any) -> Any:
        odd = isinstance(value, float) and not math.isfinite(value)
        return value.hex() if isinstance(value, bytes) else str(value) if odd else value

    return [[plain(value) for value in row] for row in rows[:PREVIEW_ROWS]]
