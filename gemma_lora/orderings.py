"""Which orders and which choices of rows a gold query allows.

A gold with ORDER BY or LIMIT is asked again, without its LIMIT and with the rank of each row under
its own ORDER BY (SQLite computes it, with its collations and its place for NULLs). Rows of one
rank tie. What sqlglot cannot rewrite, or what then answers otherwise than the gold, has no groups.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from gemma_lora.comparison import TieGroup, follows_groups
from gemma_lora.sandbox import SqlResult, SqlWorker
from gemma_lora.sql_text import PARSER_TRIPS, parse_sql

RANKED_ROWS = 5000  # rows looked at behind a LIMIT; a query with more keeps the order it showed


class RankedQuery(NamedTuple):
    """A query whose last column is the row's rank, and what the original shows of its rows."""

    sql: str
    offset: int
    limit: int | None


def tie_groups(
    context: str,
    queries: Sequence[RankedQuery],
    result: SqlResult,
    worker: SqlWorker,
    timeout_sec: float,
) -> list[TieGroup] | None:
    """The groups of rows that tie in a gold's result; None when that cannot be told.

    `queries` are the `ranked_queries` of the gold.
    """
    width = len(result.columns)
    for query in queries:
        ranked = worker.run(context, query.sql, timeout_sec, RANKED_ROWS)
        if ranked.status != "ok" or ranked.truncated:
            continue
        groups, place = [], 0
        end = None if query.limit is None else query.offset + query.limit
        for _, members in groupby(ranked.rows, key=lambda row: row[-1]):
            rows = [row[:width] for row in members]
            last = place + len(rows) if end is None else min(place + len(rows), end)
            shown = last - max(place, query.offset)
            place += len(rows)
            if shown > 0:
                groups.append(TieGroup(rows, shown))
        if follows_groups(groups, result.rows):
            return groups
    return None


def ranked_queries(sql: str, columns: Sequence[str]) -> list[RankedQuery]:
    """The query with ranks, as it is most likely meant first; [] without ORDER BY or LIMIT."""
    trees = parse_sql(sql)
    return list(_ranked(trees[0], columns)) if trees and len(trees) == 1 else []


def _ranked(tree: Any, columns: Sequence[str]) -> Iterator[RankedQuery]:
    exp = importlib.import_module("sqlglot").exp
    order, limit = tree.args.get("order"), tree.args.get("limit")
    if not isinstance(tree, exp.Query) or (order is None and limit is None):
        return
    counts = [_count(node) for node in (limit, tree.args.get("offset"))]
    if "unknown" in counts:
        return
    plain = tree.copy()
    for name in ("order", "limit", "offset"):
        plain.set(name, None)
    keys = order.expressions if order else []
    for make in (_with_keys, _with_keys_named, _with_labels):
        try:
            found = make(plain.copy(), keys, columns)
        except (LookupError, *PARSER_TRIPS):
            continue
        if found is not None:
            inner, terms = found
            by = ", ".join(terms) or "1"
            text = inner.sql(dialect="sqlite", comments=False)
            ranked = f"SELECT *, DENSE_RANK() OVER (ORDER BY {by}) AS rank_of_row FROM ({text})"
            bounds = [c if isinstance(c, int) else None for c in counts]
            yield RankedQuery(f"{ranked} ORDER BY rank_of_row", bounds[1] or 0, bounds[0])


def _count(node: Any) -> int | str | None:
    """The number of a LIMIT or OFFSET; None where there is none (or -1), 'unknown' for others."""
    if node is None:
        return None
    try:
        number = int(node.expression.sql())
    except PARSER_TRIPS:
        return "unknown"
    return None if number < 0 else number


def _term(item: Any, name: str) -> str:
    """An ORDER BY term with its direction, NULLs and collation, of a column by name."""
    exp = importlib.import_module("sqlglot").exp
    term = item.copy()
    column = exp.column(name, quoted=True)
    if isinstance(term.this, exp.Collate):
        term.this.set("this", column)
    else:
        term.set("this", column)
    return str(term.sql(dialect="sqlite"))


def _with_keys(tree: Any, keys: Sequence[Any], columns: Sequence[str], named: bool = False) -> Any:
    """(the SELECT with its keys as further columns, terms that sort by them)."""
    exp = importlib.import_module("sqlglot").exp
    if not isinstance(tree, exp.Select) or tree.args.get("distinct"):
        return None
    shown = list(tree.expressions)
    aliases = {p.alias.lower(): p.this for p in reversed(shown) if isinstance(p, exp.Alias)}

    def resolved(node: Any) -> Any:
        alone = isinstance(node, exp.Column) and not node.table
        return aliases[node.name.lower()].copy() if alone and node.name.lower() in aliases else node

    terms = []
    for number, item in enumerate(keys):
        key = item.this.this if isinstance(item.this, exp.Collate) else item.this
        if key.is_int:
            if any(p.is_star for p in shown):
                return None
            expression = shown[int(key.name) - 1].unalias()
        else:
            expression = key.transform(resolved) if named else resolved(key)
        name = f"order key {number}"
        tree.select(exp.alias_(expression.copy(), name, quoted=True), copy=False)
        terms.append(_term(item, name))
    return tree, terms


def _with_keys_named(tree: Any, keys: Sequence[Any], columns: Sequence[str]) -> Any:
    """As _with_keys, with the query's own labels inside its expressions: SQLite allows them."""
    return _with_keys(tree, keys, columns, named=True)


def _with_labels(tree: Any, keys: Sequence[Any], columns: Sequence[str]) -> Any:
    """(the query as it is, terms that sort by its labels): of DISTINCT, UNION and the like."""
    exp = importlib.import_module("sqlglot").exp
    labels = [column.lower() for column in columns]
    shown = [p.unalias().sql(dialect="sqlite").lower() for p in tree.selects]
    terms = []
    for item in keys:
        key = item.this.this if isinstance(item.this, exp.Collate) else item.this
        text = key.sql(dialect="sqlite").lower()
        if key.is_int:
            label = labels[int(key.name) - 1]
        elif text in shown and len(shown) == len(labels):
            label = labels[shown.index(text)]
        else:
            label = key.name.lower() or text
        if labels.count(label) != 1:
            return None
        terms.append(_term(item, columns[labels.index(label)]))
    return tree, terms
