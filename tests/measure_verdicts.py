"""How many wrong queries the verdicts catch, and how many right ones they reject.

    python tests/measure_verdicts.py ROWS.jsonl [--limit 1000] [--list KIND]

ROWS holds lines with sql_context and sql. Each gold is changed once in each way that applies. What
the suite misses is tried on FURTHER databases of another seed: what they do not tell apart either
is counted as the same query, the rest as missed. Prints tables and seconds a row.
"""

from __future__ import annotations

import argparse
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

from gemma_lora.neighbours import constant_query, gold_tree
from gemma_lora.sandbox import SqlJob, SqlWorker, verify_gold
from gemma_lora.seeding import fill_script, make_plan
from gemma_lora.suites import read_tables
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


def join_kind(tree: Any, _: Gold) -> str | None:
    for join in tree.find_all(exp.Join):
        if join.args.get("on") is not None and join.side in ("", "LEFT"):
            join.set("side", None if join.side else "LEFT")
            join.set("kind", None)
            return text(tree)
    return None


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


def between_bound(tree: Any, _: Gold) -> str | None:
    for node in tree.find_all(exp.Between):
        low = node.args["low"]
        node.replace(exp.LTE(this=node.this.copy(), expression=low.copy()))
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
    """Name the table of every column; whether that could be done."""
    for column in tree.find_all(exp.Column):
        homes = [t for t in tables if column.name.lower() in columns.get(t.name.lower(), ())]
        if not column.table and len(homes) == 1:
            column.set("table", exp.to_identifier(homes[0].alias_or_name))
        if not column.table:
            return False
    return not any(isinstance(star.parent, exp.Select) for star in tree.find_all(exp.Star))


def semi_join(tree: Any, columns: dict[str, list[str]], exists: bool) -> str | None:
    """An inner join of two tables whose key side is not shown, as IN or EXISTS."""
    joins = tree.args.get("joins") or []
    source = tree.args.get("from_") or tree.args.get("from")
    if not isinstance(tree, exp.Select) or len(joins) != 1 or joins[0].side:
        return None
    on, tables = joins[0].args.get("on"), [source.this, joins[0].this]
    plain = all(isinstance(t, exp.Table) for t in tables) and isinstance(on, exp.EQ)
    if not plain or tree.find(exp.Subquery) or not qualified(tree, tables, columns):
        return None
    where = tree.args.get("where")
    parts = list(where.this.flatten()) if where and isinstance(where.this, exp.And) else []
    parts = parts or ([where.this] if where else [])
    for inner, outer in (tables[::-1], tables):
        made = without_table(tree, inner, outer, on, parts, columns, exists)
        if made:
            return made
    return None


def without_table(
    tree: Any, inner: Any, outer: Any, on: Any, parts: list[Any], columns: Any, exists: bool
) -> str | None:
    """The query with `inner` moved from FROM into a condition, None where it is needed."""

    def of(node: Any, table: Any) -> bool:
        name = table.alias_or_name.lower()
        return any(c.table.lower() == name for c in node.find_all(exp.Column))

    sides = {side.table.lower(): side for side in (on.this, on.expression) if side.name}
    key = sides.get(inner.alias_or_name.lower())
    other = sides.get(outer.alias_or_name.lower())
    names = columns.get(inner.name.lower(), [""])
    if key is None or other is None or key.name.lower() != names[0]:
        return None
    shown = [tree.args.get(k) for k in ("group", "order", "having")]
    if any(of(node, inner) for node in [*tree.expressions, *filter(None, shown)]):
        return None
    mine = [p for p in parts if of(p, inner)]
    if any(of(p, outer) for p in mine):
        return None
    inside = [f"({text(p)})" for p in mine]
    if exists:
        where = " AND ".join([text(on), *inside])
        condition = f"EXISTS (SELECT 1 FROM {text(inner)} WHERE {where})"
    else:
        where = f" WHERE {' AND '.join(inside)}" if inside else ""
        condition = f"{text(other)} IN (SELECT {text(key)} FROM {text(inner)}{where})"
    conditions = [f"({text(p)})" for p in parts if not of(p, inner)] + [condition]
    new = tree.copy()
    new.set("joins", [])
    (new.args.get("from_") or new.args["from"]).set("this", outer.copy())
    condition_tree = sqlglot.parse_one(" AND ".join(conditions), read="sqlite")
    new.set("where", exp.Where(this=condition_tree))
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
    """A plain COUNT(*) ... WHERE as a count of CASE or FILTER over all rows."""
    where = tree.args.get("where")
    if not isinstance(tree, exp.Select) or where is None or tree.args.get("group"):
        return None
    if len(tree.expressions) != 1 or tree.args.get("having"):
        return None
    only = tree.expressions[0].unalias()
    if not isinstance(only, (exp.Count, exp.Sum, exp.Avg, exp.Max)) or only.find(exp.Distinct):
        return None
    condition = text(where.this)
    if isinstance(only, exp.Count):
        counted = "1" if isinstance(only.this, exp.Star) else text(only.this)
        made = f"COUNT(CASE WHEN {condition} THEN {counted} END)"
    else:
        made = f"{text(only)} FILTER(WHERE {condition})"
    tree.set("where", None)
    only.replace(sqlglot.parse_one(made, read="sqlite"))
    return text(tree)


MUTATIONS: dict[str, Any] = {
    "WHERE dropped": no_where, "another aggregate": aggregate, "join kind": join_kind,
    "the gold's constant": constant, "AND for OR": and_or, "wrong join key": join_key,
    "another GROUP BY column": group_by, "a subquery's condition": subquery_condition,
    "a BETWEEN bound lost": between_bound,
}  # fmt: skip
REWRITES: dict[str, Any] = {
    "BETWEEN as two comparisons": two_comparisons, "two comparisons as BETWEEN": one_between,
    "table as CTE": cte, "table as subquery": derived, "JOIN as IN": in_for_join,
    "JOIN as EXISTS": exists_for_join, "IN as EXISTS": join_for_in,
    "COUNT(*) / COUNT(key)": count_key, "CASE / FILTER": filtered,
    "WHERE as CASE / FILTER": case_for_where,
}  # fmt: skip
NEED_COLUMNS = (
    "wrong join key", "another GROUP BY column", "COUNT(*) / COUNT(key)", "JOIN as IN",
    "JOIN as EXISTS",
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
            found[table.name.lower()] = [c.name.lower() for c in tree.find_all(exp.ColumnDef)]
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
    tables, declared = read_tables(context, worker, 2.0)
    plan = make_plan(context, gold_tree(gold.sql), tables, declared)
    scripts = [fill_script(plan, number, "further")[0] for number in range(FURTHER)]
    jobs = [SqlJob(script, one) for script in scripts for one in (gold.sql, sql)]
    results = list(worker.run_many(jobs))
    return any(
        right.status == "ok" and judge(made, right, gold.order) is not None
        for right, made in zip(results[::2], results[1::2], strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--list", default="", help="print the surprising cases of this kind")
    flags = parser.parse_args()
    tallies: dict[str, Tally] = defaultdict(lambda: Tally([], [], []))
    rows = read_rows(flags.rows, flags.limit)
    build, judging, suited, answers, told, known = 0.0, 0.0, 0, 0, 0, 0
    most = 0.0
    with SqlWorker() as worker:
        for row in rows:
            start = time.perf_counter()
            gold = prepare_gold(row, worker, 42, 2.0)
            took = time.perf_counter() - start
            build, most = build + took, max(most, took)
            if gold.suite is None:
                continue
            suited += 1
            told += gold.suite.facts["told_apart"]
            known += gold.suite.facts["neighbours"]
            for kind, sql in changed(row, gold):
                start = time.perf_counter()
                out = score_sql(sql, "stop", gold, row, worker, 2.0)
                judging, answers = judging + time.perf_counter() - start, answers + 1
                if not out["executes"] and kind in MUTATIONS:
                    continue
                tally = tallies[kind]
                tally.plain.append(out["match"])
                tally.suite.append(bool(out["suite_match"]))
                if out["suite_match"] and kind in MUTATIONS:
                    tally.differs.append(differs(row["context"], gold, sql, worker))
                surprising = bool(out["suite_match"]) == (kind in MUTATIONS)
                if surprising and kind in flags.list.split(";"):
                    print(
                        json.dumps(
                            {"c": row["context"], "gold": gold.sql, "made": sql, "e": out["error"]}
                        )
                    )
    print(
        f"{len(rows)} rows, {suited} with a suite; {build / len(rows):.3f} s a row to build "
        f"(most {most:.2f}), {judging / max(answers, 1):.4f} s an answer; "
        f"neighbours told apart {told}/{known}"
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
