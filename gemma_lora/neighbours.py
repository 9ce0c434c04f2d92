"""Neighbours of a query: the same statement with one small mistake in it.

After Zhong, Yu and Klein, "Semantic Evaluation for Text-to-SQL with Distilled Test Suites" (EMNLP
2020). Not made: AND for OR, another join key, another GROUP BY column. Whether a neighbour means
something else than the query is for a database to show.
"""

from __future__ import annotations

import datetime
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gemma_lora.database import sql_literal
from gemma_lora.sql_text import PARSER_TRIPS, sql_trees

LONGEST_GOLD = 6000  # characters; sqlglot's time grows with them
MAX_NEIGHBOURS = 60
CONSTANT_ROWS = 20  # longer results are not what somebody guesses
SUITE_COSTS = "test_suite_accuracy"
DATE = re.compile(r"\d{4}-\d\d-\d\d")
NO_CHANGE = 'DROP TABLE IF EXISTS "no such table"'  # runs as a change and leaves all as it was


def gold_tree(sql: str) -> Any | None:
    """sqlglot's tree of one statement that may have a suite; None for any other text."""
    if len(sql) > LONGEST_GOLD:
        return None
    trees = sql_trees(sql, SUITE_COSTS)
    if len(trees) != 1:
        return None
    exp = importlib.import_module("sqlglot").exp
    known = (exp.Query, exp.Insert, exp.Update, exp.Delete)
    return trees[0] if isinstance(trees[0], known) else None


def moved_text(value: str) -> list[str]:
    """Texts beside a text: the days around a date, else the text with a letter more."""
    if DATE.fullmatch(value):
        with suppress(ValueError, OverflowError):
            day = datetime.date.fromisoformat(value)
            return [str(day + datetime.timedelta(days=step)) for step in (1, -1)]
    return [f"{value}x"]


def _moved_constant(node: Any) -> Iterator[Any]:
    literal = importlib.import_module("sqlglot").exp.Literal
    if node.is_string:
        yield from (literal.string(text) for text in moved_text(node.name))
        return
    with suppress(ValueError):
        number = float(node.name) if not node.is_int else int(node.name)
        yield from (literal.number(number + step) for step in (1, -1))


def _moved_comparison(node: Any) -> Iterator[Any]:
    exp = importlib.import_module("sqlglot").exp
    others = {
        exp.GT: (exp.GTE, exp.LT), exp.GTE: (exp.GT, exp.LTE), exp.LT: (exp.LTE, exp.GT),
        exp.LTE: (exp.LT, exp.GTE), exp.EQ: (exp.NEQ, exp.GTE), exp.NEQ: (exp.EQ,),
    }  # fmt: skip
    if isinstance(node, exp.EQ) and isinstance(node.parent, (exp.Join, exp.Update)):
        return
    if isinstance(node.parent, exp.Join):
        return
    for other in others.get(type(node), ()):
        yield other(this=node.this.copy(), expression=node.expression.copy())


def _other_aggregate(node: Any) -> Iterator[Any]:
    exp = importlib.import_module("sqlglot").exp
    inner = node.this
    if isinstance(node, exp.Count):
        if isinstance(inner, exp.Distinct):
            yield exp.Count(this=inner.expressions[0].copy())
        elif isinstance(inner, exp.Column):
            yield exp.Count(this=exp.Distinct(expressions=[inner.copy()]))
    if inner is None or isinstance(inner, (exp.Star, exp.Distinct)):
        return
    for other in (exp.Sum, exp.Avg, exp.Max, exp.Min, exp.Count):
        if not isinstance(node, other):
            yield other(this=inner.copy())


def _changed_query(node: Any) -> Iterator[Any]:
    """A SELECT with DISTINCT toggled, or without its order."""
    exp = importlib.import_module("sqlglot").exp
    new = node.copy()
    new.set("distinct", None if node.args.get("distinct") else exp.Distinct())
    yield new
    if node.args.get("order"):
        new = node.copy()
        new.set("order", None)
        yield new


def _changed_join(node: Any) -> Iterator[Any]:
    if node.args.get("on") is None and node.args.get("using") is None:
        return
    for side in (None,) if node.side else ("LEFT", "RIGHT"):  # SQLite has RIGHT from 3.39 on
        new = node.copy()
        new.set("side", side)
        new.set("kind", None)
        yield new


def _changed_direction(node: Any) -> Iterator[Any]:
    new = node.copy()
    new.set("desc", not node.args.get("desc"))
    new.set("nulls_first", None)
    yield new


def _dropped_condition(node: Any) -> Iterator[Any]:
    exp = importlib.import_module("sqlglot").exp
    if isinstance(node, (exp.And, exp.Or)):
        yield node.this.copy()
        yield node.expression.copy()
    elif isinstance(node, exp.Not):
        yield node.this.copy()
    else:  # WHERE, HAVING
        new = node.copy()
        new.set("this", exp.true())
        yield new


def _changed_union(node: Any) -> Iterator[Any]:
    new = node.copy()
    new.set("distinct", not node.args.get("distinct"))
    yield new


def _dropped_limit(node: Any) -> Iterator[Any]:
    exp = importlib.import_module("sqlglot").exp
    new = node.copy()
    new.set("expression", exp.Literal.number(1_000_000))
    yield new


def _makers() -> list[tuple[Any, Callable[[Any], Iterator[Any]]]]:
    """(classes of node, what is made of one), the telling ones first."""
    exp = importlib.import_module("sqlglot").exp
    return [
        ((exp.Where, exp.Having, exp.And, exp.Or, exp.Not), _dropped_condition),
        ((exp.Sum, exp.Avg, exp.Max, exp.Min, exp.Count), _other_aggregate),
        (exp.Join, _changed_join),
        (exp.Select, _changed_query),
        (exp.SetOperation, _changed_union),
        ((exp.GT, exp.GTE, exp.LT, exp.LTE, exp.EQ, exp.NEQ), _moved_comparison),
        (exp.Ordered, _changed_direction),
        (exp.Limit, _dropped_limit),
        (exp.Literal, _moved_constant),
    ]


def _exchanged_column(node: Any, columns: Mapping[str, Sequence[str]]) -> Iterator[Any]:
    """Up to two columns that stand near this one in its table; none in GROUP BY or a join's key."""
    exp = importlib.import_module("sqlglot").exp
    if node.find_ancestor(exp.Group, exp.Join):
        return
    for names in columns.values():
        if node.name.lower() not in names:
            continue
        place = names.index(node.name.lower())
        for other in (names[(place + 1) % len(names)], names[place - 1]):
            if other != node.name.lower():
                new = node.copy()
                new.set("this", exp.to_identifier(other, quoted=True))
                yield new
        return


def neighbours(tree: Any, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """At most MAX_NEIGHBOURS statements beside a gold; `columns`: {table: lower-case names}."""
    exp = importlib.import_module("sqlglot").exp
    nodes = list(tree.walk())
    edits = [
        (node, new)
        for classes, make in _makers()
        for node in nodes
        if isinstance(node, classes)
        for new in make(node)
    ]
    for node in nodes:
        if isinstance(node, exp.Column):
            edits += [(node, new) for new in _exchanged_column(node, columns)]
    found = dict.fromkeys([tree.sql(dialect="sqlite", comments=False)])
    for node, new in edits:
        if len(found) > MAX_NEIGHBOURS:
            break
        with suppress(*PARSER_TRIPS):
            if node.parent is None:
                found[new.sql(dialect="sqlite", comments=False)] = None
                continue
            node.replace(new)
            try:
                found[tree.sql(dialect="sqlite", comments=False)] = None
            finally:
                new.replace(node)
    return list(found)[1:]


def constant_query(rows: Sequence[Sequence[Any]]) -> list[str]:
    """The query that holds a result word for word; none for an empty or a long one."""
    if not 0 < len(rows) <= CONSTANT_ROWS or not rows[0]:
        return []
    selects = (f"SELECT {', '.join(map(sql_literal, row))}" for row in rows)
    return [" UNION ALL ".join(selects)]


def tie_breakers(tree: Any, width: int) -> list[str]:
    """The gold with what ties under its ORDER BYs put one way, and the other way.

    `width` is the number of result columns. Where the two differ, SQL leaves the result open:
    SQLite itself would show one of them only.
    """
    exp = importlib.import_module("sqlglot").exp
    made = []
    for falling in (False, True):
        new, changed = tree.copy(), False
        for order in list(new.find_all(exp.Order)):
            query = order.parent
            if not isinstance(query, exp.Query):
                continue
            shown = width if query is new else len(query.selects) if not query.is_star else 0
            for place in range(1, shown + 1):
                order.append(
                    "expressions", exp.Ordered(this=exp.Literal.number(place), desc=falling)
                )
                changed = True
        if changed:
            made.append(str(new.sql(dialect="sqlite", comments=False)))
    return made
