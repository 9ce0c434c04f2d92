"""How many wrong queries the verdicts catch, and how many right ones they reject.

    python tests/measure_verdicts.py ROWS.jsonl [MORE.jsonl] [--limit 1000] [--list KIND]

ROWS holds lines with sql_context and sql. Each gold is changed once in each way that applies. What
the suite misses is tried on FURTHER databases of another seed: what they do not tell apart either
is counted as the same query, the rest as missed. A join of another kind that provably means the
same is counted as a rewrite. A rewrite in one direction also serves as a gold of its own, whose
rewrite is the other direction. Prints tables and seconds a row.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gemma_lora.neighbours import DATE, constant_query, gold_tree
from gemma_lora.sandbox import SqlJob, SqlWorker, verify_gold
from gemma_lora.seeding import fill_script
from gemma_lora.suites import read_material
from gemma_lora.verdicts import Gold, judge, prepare_gold, score_sql

FURTHER = 60

Change = Callable[[Any, Gold], str | None]


def text(tree: Any) -> str:
    return str(tree.sql(dialect="sqlite", comments=False))


def no_where(tree: Any, _: Gold) -> str | None:
    if not tree.args.get("where"):
        return None
    tree.set("where", None)
    return text(tree)


def aggregate(tree: Any, _: Gold) -> str | None:
    if not isinstance(tree, exp.Select):
        return None
    others = {exp.Sum: exp.Avg, exp.Avg: exp.Sum, exp.Max: exp.Min, exp.Min: exp.Max}
    for node in tree.find_all(exp.AggFunc):
        if type(node) in others and not isinstance(node.this, exp.Distinct):
            node.replace(others[type(node)](this=node.this.copy()))
            return text(tree)
        if isinstance(node, exp.Count) and isinstance(node.this, exp.Column):
            node.replace(exp.Sum(this=node.this.copy()))
            return text(tree)
    return None


def join_kind(tree: Any, _: Gold, columns: Any = None) -> str | None:
    """The first join of another kind of which it is not proven that it means the same."""
    return next((made for made, same in other_joins(tree, columns) if not same), None)


def idle_join_kind(tree: Any, _: Gold, columns: Any = None) -> str | None:
    """A join of another kind that provably means the same, where no other change is left."""
    found = list(other_joins(tree, columns))
    return found[0][0] if found and all(same for _, same in found) else None


def other_joins(tree: Any, columns: Any) -> Iterator[tuple[str, bool]]:
    """(query with one join of another kind, whether that provably changes nothing)."""
    joins = tree.args.get("joins") or []
    source = tree.args.get("from_") or tree.args.get("from")
    if not isinstance(tree, exp.Select) or source is None:
        return
    tables = [source.this, *(join.this for join in joins)]
    qualified(tree, [t for t in tables if isinstance(t, exp.Table)], columns)
    for place, join in enumerate(joins):
        if join.args.get("on") is None or join.side not in ("", "LEFT") or join.kind == "CROSS":
            continue
        old = join.side, join.kind
        for side in (None,) if join.side else ("LEFT", "RIGHT"):
            missing = tables[: place + 1] if side == "RIGHT" else [join.this]
            names = {table.alias_or_name.lower() for table in missing}
            join.set("side", side)
            join.set("kind", None)
            yield text(tree), rejects_missing(tree, joins[place + 1 :], names)
            join.set("side", old[0])
            join.set("kind", old[1])


def rejects_missing(tree: Any, later: list[Any], names: set[str]) -> bool:
    """Whether rows in which these tables are missing (all NULL) never show.

    Null-rejecting conditions, after Galindo-Legaria and Rosenthal, "Outerjoin Simplification and
    Reordering for Query Optimization" (TODS 1997), and aggregates, which skip NULL.
    """
    where = tree.args.get("where")
    conditions = [where.this] if where else []
    conditions += [j.args["on"] for j in later if not j.side and j.args.get("on") is not None]
    if any(null_rejecting(condition, names) for condition in conditions):
        return True
    shown = [one.unalias() for one in tree.expressions]
    skipping = (exp.Sum, exp.Avg, exp.Max, exp.Min, exp.Count)
    return not tree.args.get("group") and all(
        isinstance(one, skipping) and strict(one.this, names) for one in shown
    )


def null_rejecting(condition: Any, names: set[str]) -> bool:
    """Whether a condition is never true where the tables of these names are missing."""
    if isinstance(condition, (exp.Paren, exp.Not)):
        return null_rejecting(condition.this, names)
    if isinstance(condition, exp.And):
        return any(null_rejecting(side, names) for side in condition.flatten())
    if isinstance(condition, exp.Or):
        return all(null_rejecting(side, names) for side in condition.flatten())
    compared = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like)
    if isinstance(condition, compared):
        return strict(condition.this, names) or strict(condition.expression, names)
    return isinstance(condition, (exp.Between, exp.In)) and strict(condition.this, names)


def strict(node: Any, names: set[str]) -> bool:
    """Whether an expression is NULL where the tables of these names are missing."""
    if isinstance(node, exp.Column):
        return node.table.lower() in names
    if isinstance(node, (exp.Add, exp.Sub, exp.Mul, exp.Div)):
        return strict(node.this, names) or strict(node.expression, names)
    plain = (exp.Paren, exp.Neg, exp.Cast, exp.Lower, exp.Upper, exp.TimeToStr, exp.Date)
    return isinstance(node, (*plain, exp.TsOrDsToDate, exp.TsOrDsToTimestamp)) and strict(
        node.this, names
    )


def constant(_: Any, gold: Gold) -> str | None:
    if gold.kind != "select" or gold.result is None:
        return None
    return next(iter(constant_query(gold.result.rows)), None)


def and_or(tree: Any, _: Gold) -> str | None:
    for node in tree.find_all(exp.And, exp.Or):
        if node.find_ancestor(exp.Between, exp.Join):
            continue
        other = exp.Or if isinstance(node, exp.And) else exp.And
        node.replace(other(this=node.this.copy(), expression=node.expression.copy()))
        return text(tree)
    return None


def join_key(tree: Any, _: Gold, columns: Any = None) -> str | None:
    for join in tree.find_all(exp.Join):
        on = join.args.get("on")
        key = on.find(exp.Column) if on is not None else None
        if key is None:
            continue
        for table in columns.values():
            if key.name.lower() in table and len(table) > 1:
                other = table[(table.index(key.name.lower()) + 1) % len(table)]
                key.set("this", exp.to_identifier(other, quoted=True))
                return text(tree)
    return None


def group_by(tree: Any, _: Gold, columns: Any = None) -> str | None:
    group = tree.args.get("group")
    if group is None or not isinstance(group.expressions[0], exp.Column):
        return None
    key = group.expressions[0]
    for table in columns.values():
        if key.name.lower() in table and len(table) > 1:
            other = table[(table.index(key.name.lower()) + 1) % len(table)]
            key.set("this", exp.to_identifier(other, quoted=True))
            return text(tree)
    return None


def subquery_condition(tree: Any, _: Gold) -> str | None:
    for inner in tree.find_all(exp.Subquery, exp.In, exp.Exists):
        where = inner.find(exp.Where)
        if where is None:
            continue
        for node in where.find_all(exp.EQ, exp.GT, exp.LT, exp.GTE, exp.LTE):
            other = {exp.EQ: exp.LT, exp.GT: exp.EQ, exp.LT: exp.EQ, exp.GTE: exp.EQ}
            made = other.get(type(node), exp.EQ)
            node.replace(made(this=node.this.copy(), expression=node.expression.copy()))
            return text(tree)
    return None


def swapped_bounds(tree: Any, _: Gold) -> str | None:
    for node in tree.find_all(exp.Between):
        low, high = node.args["low"], node.args["high"]
        node.replace(exp.Between(this=node.this.copy(), low=high.copy(), high=low.copy()))
        return text(tree)
    return None


def moved_bound(tree: Any, _: Gold) -> str | None:
    """The upper bound of the first BETWEEN in the middle of its range."""
    for node in tree.find_all(exp.Between):
        low, high = node.args["low"], node.args["high"]
        if not (isinstance(low, exp.Literal) and isinstance(high, exp.Literal)):
            continue
        if low.is_int and high.is_int:
            middle = exp.Literal.number((int(low.name) + int(high.name)) // 2)
        elif DATE.fullmatch(low.name) and DATE.fullmatch(high.name):
            days = [datetime.date.fromisoformat(one.name).toordinal() for one in (low, high)]
            middle = exp.Literal.string(str(datetime.date.fromordinal(sum(days) // 2)))
        else:
            continue
        high.replace(middle)
        return text(tree)
    return None


def two_comparisons(tree: Any, _: Gold) -> str | None:
    made = 0
    for node in list(tree.find_all(exp.Between)):
        if node.args.get("symmetric"):
            continue
        low = exp.GTE(this=node.this.copy(), expression=node.args["low"].copy())
        high = exp.LTE(this=node.this.copy(), expression=node.args["high"].copy())
        node.replace(exp.paren(exp.and_(low, high), copy=False))
        made += 1
    return text(tree) if made else None


def one_between(tree: Any, _: Gold) -> str | None:
    for node in tree.find_all(exp.And):
        low, high = node.this, node.expression
        if isinstance(low, exp.GTE) and isinstance(high, exp.LTE) and low.this == high.this:
            node.replace(exp.Between(this=low.this, low=low.expression, high=high.expression))
            return text(tree)
    return None


def closed_dates(tree: Any, _: Gold, columns: Any = None) -> str | None:
    """A half-open range of days as BETWEEN, on a column declared DATE."""
    for node in tree.find_all(exp.And):
        low, high = node.this, node.expression
        if not (isinstance(low, exp.GTE) and isinstance(high, exp.LT) and low.this == high.this):
            continue
        ends = [low.expression, high.expression]
        if not all(one.is_string and DATE.fullmatch(one.name) for one in ends):
            continue
        if low.this.name.lower() not in columns.get("DATE", ()):
            continue
        day = datetime.date.fromisoformat(ends[1].name) - datetime.timedelta(days=1)
        last = exp.Literal.string(str(day))
        node.replace(exp.Between(this=low.this, low=low.expression, high=last))
        return text(tree)
    return None


def either(tree: Any, _: Gold) -> str | None:
    """A list after IN as comparisons."""
    for node in tree.find_all(exp.In):
        values = node.expressions
        if values and not isinstance(node.parent, exp.Not):
            made = [exp.EQ(this=node.this.copy(), expression=one.copy()) for one in values]
            node.replace(exp.paren(exp.or_(*made), copy=False))
            return text(tree)
    return None


def grouped(tree: Any, _: Gold) -> str | None:
    """SELECT DISTINCT as GROUP BY."""
    distinct = tree.args.get("distinct")
    if not isinstance(tree, exp.Select) or not distinct or tree.args.get("group"):
        return None
    if not all(isinstance(one.unalias(), exp.Column) for one in tree.expressions):
        return None
    tree.set("distinct", None)
    return text(tree.group_by(*(one.unalias().copy() for one in tree.expressions)))


def cte(tree: Any, _: Gold) -> str | None:
    """The whole FROM table by way of a common table expression."""
    source = tree.args.get("from_") or tree.args.get("from")
    if not isinstance(tree, exp.Select) or source is None or tree.args.get("with_"):
        return None
    table = source.this
    if not isinstance(table, exp.Table) or tree.find(exp.Subquery):
        return None
    name = table.name
    alias = table.alias or name
    replacement = exp.alias_(exp.to_table("picked"), alias, table=True)
    table.replace(replacement)
    body = text(tree)
    return f'WITH picked AS (SELECT * FROM "{name}") {body}'


def derived(tree: Any, _: Gold) -> str | None:
    """The FROM table as a subquery."""
    source = tree.args.get("from_") or tree.args.get("from")
    if not isinstance(tree, exp.Select) or source is None or not isinstance(source.this, exp.Table):
        return None
    table = source.this
    made = sqlglot.parse_one(f'SELECT * FROM "{table.name}"', read="sqlite")
    table.replace(made.subquery(table.alias or table.name))
    return text(tree)


def in_for_join(tree: Any, _: Gold, columns: Any = None) -> str | None:
    """An inner join with a table that is not shown, on that table's first column, as IN."""
    return semi_join(tree, columns, exists=False)


def exists_for_join(tree: Any, _: Gold, columns: Any = None) -> str | None:
    """The same join as EXISTS."""
    return semi_join(tree, columns, exists=True)


def qualified(tree: Any, tables: list[Any], columns: dict[str, list[str]]) -> bool:
    """Name the table of every column, as far as that can be done; whether it could."""
    done = True
    for column in tree.find_all(exp.Column):
        homes = [t for t in tables if column.name.lower() in columns.get(t.name.lower(), ())]
        if not column.table and len(homes) == 1:
            column.set("table", exp.to_identifier(homes[0].alias_or_name))
        done = done and bool(column.table)
    return done and not any(isinstance(s.parent, exp.Select) for s in tree.find_all(exp.Star))


def semi_join(tree: Any, columns: dict[str, list[str]], exists: bool) -> str | None:
    """An inner join with a table that is not shown, on its key, as IN or EXISTS.

    Of a query that shows no row twice any column serves as key.
    """
    joins = tree.args.get("joins") or []
    source = tree.args.get("from_") or tree.args.get("from")
    if not isinstance(tree, exp.Select) or not joins or any(join.side for join in joins):
        return None
    tables = [source.this, *(join.this for join in joins)]
    plain = all(isinstance(t, exp.Table) for t in tables)
    plain = plain and all(isinstance(join.args.get("on"), exp.EQ) for join in joins)
    if not plain or tree.find(exp.Subquery) or not qualified(tree, tables, columns):
        return None
    where = tree.args.get("where")
    parts = list(where.this.flatten()) if where and isinstance(where.this, exp.And) else []
    parts = parts or ([where.this] if where else [])
    for place in range(len(joins) - 1, -1, -1):
        left = [join for join in joins if join is not joins[place]]
        out = without_table(
            tree, joins[place], joins[place].this, source.this, left, parts, columns, exists
        )
        if out:
            return out
    return without_table(
        tree, joins[0], source.this, joins[0].this, joins[1:], parts, columns, exists
    )


def belongs(node: Any, table: Any) -> bool:
    name = table.alias_or_name.lower()
    return any(c.table.lower() == name for c in node.find_all(exp.Column))


def without_table(
    tree: Any, join: Any, inner: Any, first: Any, left: list[Any], parts: list[Any], columns: Any,
    exists: bool,
) -> str | None:  # fmt: skip
    """The query with `inner` moved into a condition, `first` in FROM; None where it is needed."""
    on = join.args["on"]
    key, other = on.this, on.expression
    if belongs(other, inner):
        key, other = other, key
    names = columns.get(inner.name.lower(), [""])
    if not (isinstance(key, exp.Column) and isinstance(other, exp.Column)):
        return None
    if not belongs(key, inner) or belongs(other, inner):
        return None
    if key.name.lower() != names[0] and not tree.args.get("distinct"):
        return None
    used = [tree.args.get(k) for k in ("group", "order", "having")]
    used += [*tree.expressions, *(one.args["on"] for one in left)]
    mine = [p for p in parts if belongs(p, inner)]
    theirs = {c.table.lower() for p in mine for c in p.find_all(exp.Column)}
    if any(belongs(node, inner) for node in filter(None, used)) or len(theirs) > 1:
        return None
    inside = [f"({text(p)})" for p in mine]
    if exists:
        where = " AND ".join([text(on), *inside])
        condition = f"EXISTS (SELECT 1 FROM {text(inner)} WHERE {where})"
    else:
        where = f" WHERE {' AND '.join(inside)}" if inside else ""
        condition = f"{text(other)} IN (SELECT {text(key)} FROM {text(inner)}{where})"
    conditions = [f"({text(p)})" for p in parts if not belongs(p, inner)] + [condition]
    new = tree.copy()
    new.set("joins", [one.copy() for one in left])
    (new.args.get("from_") or new.args["from"]).set("this", first.copy())
    new.set("where", exp.Where(this=sqlglot.parse_one(" AND ".join(conditions), read="sqlite")))
    return text(new)


def join_for_in(tree: Any, _: Gold) -> str | None:
    for node in tree.find_all(exp.In):
        query = node.args.get("query")
        if query is None or isinstance(node.parent, exp.Not):
            continue
        select = query.find(exp.Select)
        if select is None or len(select.expressions) != 1 or select.args.get("limit"):
            continue
        chosen = select.expressions[0]
        if not isinstance(chosen, exp.Column):
            continue
        inner = text(select)
        node.replace(
            sqlglot.parse_one(
                f"EXISTS (SELECT 1 FROM ({inner}) AS picked "
                f'WHERE picked."{chosen.name}" = {text(node.this)})',
                read="sqlite",
            )
        )
        if not node.this.table and text(node.this).strip('"').lower() == chosen.name.lower():
            return None
        return text(tree)
    return None


def count_key(tree: Any, gold: Gold, columns: Any = None) -> str | None:
    """COUNT(*) as a count of the first column of a single table, where that looks like its key."""
    tables = list(tree.find_all(exp.Table))
    if len(tables) != 1:
        return None
    names = columns.get(tables[0].name.lower(), [])
    if not names or not re.search(r"(^|_)id$", names[0]):
        return None
    for node in tree.find_all(exp.Count):
        if isinstance(node.this, exp.Star):
            node.set("this", exp.column(names[0], quoted=True))
            return text(tree)
        if isinstance(node.this, exp.Column) and node.this.name.lower() == names[0]:
            node.set("this", exp.Star())
            return text(tree)
    return None


def filtered(tree: Any, _: Gold) -> str | None:
    """An aggregate's CASE as FILTER, and a filter over everything."""
    for node in tree.find_all(exp.AggFunc):
        case = node.this
        if isinstance(node, (exp.Sum, exp.Count)) and isinstance(case, exp.Case):
            ifs, default = case.args["ifs"], case.args.get("default")
            if len(ifs) != 1 or case.this is not None:
                continue
            if isinstance(node, exp.Sum) and text(default) if default is not None else False:
                if text(default) != "0":
                    continue
                inner = f"TOTAL({text(ifs[0].args['true'])}) FILTER (WHERE {text(ifs[0].this)})"
                node.replace(sqlglot.parse_one(inner, read="sqlite"))
                return text(tree)
            if isinstance(node, exp.Count) and default is None:
                inner = f"COUNT({text(ifs[0].args['true'])}) FILTER (WHERE {text(ifs[0].this)})"
                node.replace(sqlglot.parse_one(inner, read="sqlite"))
                return text(tree)
    return None


def case_for_where(tree: Any, _: Gold) -> str | None:
    """A single aggregate ... WHERE as an aggregate of CASE over all rows."""
    return unfiltered(tree, "{name}({distinct}CASE WHEN {condition} THEN {counted} END)")


def filter_for_where(tree: Any, _: Gold) -> str | None:
    """A single aggregate ... WHERE as an aggregate with FILTER over all rows."""
    return unfiltered(tree, "{whole} FILTER (WHERE {condition})")


def unfiltered(tree: Any, shape: str) -> str | None:
    where = tree.args.get("where")
    if not isinstance(tree, exp.Select) or where is None or tree.args.get("group"):
        return None
    if len(tree.expressions) != 1 or tree.args.get("having"):
        return None
    only = tree.expressions[0].unalias()
    if not isinstance(only, (exp.Count, exp.Sum, exp.Avg, exp.Max)):
        return None
    inner, distinct = only.this, ""
    if isinstance(inner, exp.Distinct):
        inner, distinct = inner.expressions[0], "DISTINCT "
    counted = "1" if isinstance(inner, exp.Star) else text(inner)
    name = type(only).__name__.upper()
    made = shape.format(
        whole=text(only), name=name, distinct=distinct, condition=text(where.this), counted=counted
    )
    tree.set("where", None)
    only.replace(sqlglot.parse_one(made, read="sqlite"))
    return text(tree)


MUTATIONS: dict[str, Any] = {
    "WHERE dropped": no_where, "another aggregate": aggregate, "join kind": join_kind,
    "the gold's constant": constant, "AND for OR": and_or, "wrong join key": join_key,
    "another GROUP BY column": group_by, "a subquery's condition": subquery_condition,
    "BETWEEN bounds swapped": swapped_bounds, "a BETWEEN bound moved": moved_bound,
}  # fmt: skip
REWRITES: dict[str, Any] = {
    "join kind, provably the same": idle_join_kind,
    "BETWEEN as two comparisons": two_comparisons, "two comparisons as BETWEEN": one_between,
    "half-open days as BETWEEN": closed_dates,
    "table as CTE": cte, "table as subquery": derived, "JOIN as IN": in_for_join,
    "JOIN as EXISTS": exists_for_join, "IN as EXISTS": join_for_in,
    "COUNT(*) / COUNT(key)": count_key, "CASE as FILTER": filtered,
    "WHERE as CASE": case_for_where, "WHERE as FILTER": filter_for_where,
    "IN list as OR": either, "DISTINCT as GROUP BY": grouped,
    "that IN as JOIN": lambda tree, _: None, "that IN as EXISTS": lambda tree, _: None,
}  # fmt: skip
NEED_COLUMNS = (
    "join kind", "join kind, provably the same", "wrong join key", "another GROUP BY column",
    "COUNT(*) / COUNT(key)", "JOIN as IN", "JOIN as EXISTS", "half-open days as BETWEEN",
)  # fmt: skip


class Tally(NamedTuple):
    """Outcomes of one kind, one a row."""

    plain: list[bool]
    suite: list[bool]
    differs: list[bool]  # of what passes the suite: whether further databases tell it apart


def read_rows(path: Path, limit: int) -> list[dict[str, Any]]:
    """Rows whose gold runs, in SQLite's words."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][:limit]
    facts = verify_gold([(r["sql_context"], r["sql"]) for r in rows])
    return [
        {
            "id": str(i),
            "context": f["context"],
            "completion": f["gold"],
            "prompt": "",
            "type": "sql",
        }
        for i, f in enumerate(facts)
        if f["gold_runs"]
        and f["gold_returns_rows"] | (f["gold_kind"] in ("insert", "update", "delete"))
    ]


def context_columns(context: str) -> dict[str, list[str]]:
    found = {}
    for tree in sqlglot.parse(context, read="sqlite", error_level=sqlglot.ErrorLevel.IGNORE):
        if isinstance(tree, exp.Create) and (table := tree.find(exp.Table)):
            declared = list(tree.find_all(exp.ColumnDef))
            found[table.name.lower()] = [c.name.lower() for c in declared]
            days = (c.name.lower() for c in declared if c.kind and c.kind.sql().upper() == "DATE")
            found.setdefault("DATE", []).extend(days)
    return found


def changed(row: dict[str, Any], gold: Gold) -> Iterator[tuple[str, str]]:
    """(kind, statement) for every change that applies."""
    columns = context_columns(row["context"])
    for kind, change in (MUTATIONS | REWRITES).items():
        tree = gold_tree(gold.sql)
        if tree is None:
            return
        try:
            made = change(tree, gold, columns) if kind in NEED_COLUMNS else change(tree, gold)
        except (sqlglot.errors.SqlglotError, AttributeError, TypeError, ValueError):
            continue
        if made:
            yield kind, made


def differs(context: str, gold: Gold, sql: str, worker: SqlWorker) -> bool:
    """Whether further databases tell a statement from the gold."""
    width = len(gold.result.columns) if gold.result else 0
    plan = read_material(context, gold.sql, width, worker, 2.0).plan
    scripts = [fill_script(plan, number, "further")[0] for number in range(FURTHER)]
    jobs = [SqlJob(script, one) for script in scripts for one in (gold.sql, sql)]
    results = list(worker.run_many(jobs))
    return any(
        right.status == "ok" and judge(made, right, gold.order) is not None
        for right, made in zip(results[::2], results[1::2], strict=True)
    )


def chained(row: dict[str, Any], gold: Gold, made: dict[str, str], worker: SqlWorker) -> Any:
    """(kind, verdict) of the JOIN and the EXISTS that mean what an IN made of a gold means.

    The IN is a gold of its own here, with a suite of its own.
    """
    if "JOIN as IN" not in made:
        return
    other = prepare_gold({**row, "completion": made["JOIN as IN"]}, worker, 42, 2.0)  # type: ignore[typeddict-item]
    pairs = (("that IN as JOIN", gold.sql), ("that IN as EXISTS", made.get("JOIN as EXISTS")))
    for kind, sql in pairs:
        if other.suite and sql:
            yield kind, sql, score_sql(sql, "stop", other, row, worker, 2.0)  # type: ignore[arg-type]


class Spent(NamedTuple):
    """Seconds of each gold and each answer, and what the suites tell apart."""

    golds: list[float]
    answers: list[float]
    told: list[int]
    known: list[int]


def measure_row(
    row: Any, worker: SqlWorker, tallies: dict[str, Tally], spent: Spent, listed: list[str]
) -> None:
    """Judge every change of one gold."""
    start = time.perf_counter()
    gold = prepare_gold(row, worker, 42, 2.0)
    spent.golds.append(time.perf_counter() - start)
    if gold.suite is None:
        return
    spent.told.append(gold.suite.facts["told_apart"])
    spent.known.append(gold.suite.facts["neighbours"])
    made = dict(changed(row, gold))
    judged = []
    for kind, sql in made.items():
        start = time.perf_counter()
        judged.append((kind, sql, score_sql(sql, "stop", gold, row, worker, 2.0)))
        spent.answers.append(time.perf_counter() - start)
    for kind, sql, out in [*judged, *chained(row, gold, made, worker)]:
        if not out["executes"] and kind in MUTATIONS:
            continue
        tally = tallies[kind]
        tally.plain.append(out["match"])
        tally.suite.append(bool(out["suite_match"]))
        if out["suite_match"] and kind in MUTATIONS:
            tally.differs.append(differs(row["context"], gold, sql, worker))
        if bool(out["suite_match"]) == (kind in MUTATIONS) and kind in listed:
            case = {"c": row["context"], "gold": gold.sql, "made": sql, "e": out["error"]}
            print(json.dumps(case), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--list", default="", help="print the surprising cases of these kinds (;)")
    flags = parser.parse_args()
    tallies: dict[str, Tally] = defaultdict(lambda: Tally([], [], []))
    spent = Spent([], [], [], [])
    with SqlWorker(still=True) as worker:
        for row in (row for path in flags.rows for row in read_rows(path, flags.limit)):
            measure_row(row, worker, tallies, spent, flags.list.split(";"))
    n = len(spent.golds)
    print(
        f"{n} rows, {len(spent.told)} with a suite; {sum(spent.golds) / n:.3f} s a row to build "
        f"(most {max(spent.golds):.2f}), {sum(spent.answers) / len(spent.answers):.4f} s an answer;"
        f" neighbours told apart {sum(spent.told)}/{sum(spent.known)}"
    )
    print_table("mutation", {k: tallies[k] for k in MUTATIONS})
    print_table("rewrite", {k: tallies[k] for k in REWRITES})


def print_table(title: str, tallies: dict[str, Tally]) -> None:
    """One line a kind, and their sum; "missed" is what further databases tell apart."""
    parts = zip(*tallies.values(), strict=True)
    tallies["all"] = Tally(*(list(itertools.chain(*part)) for part in parts))
    print(f"| {title} | n | other by execution | other by the suite | missed | the same |")
    for kind, (plain, suite, found) in tallies.items():
        if n := len(plain):
            shares = f"{plain.count(False) / n:.1%} | {suite.count(False) / n:.1%}"
            print(f"| {kind} | {n} | {shares} | {found.count(True)} | {found.count(False)} |")


if __name__ == "__main__":
    main()
