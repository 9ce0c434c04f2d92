"""Seeded rows for the tables of a context, made to tell a query from others like it.

Promises: the rows depend on context, gold and seed alone; a table's declared constraints decide
what stays of them. Columns that serve as keys get no NULL, and keep unique values.
"""

from __future__ import annotations

import datetime
import importlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from gemma_lora.database import sql_literal
from gemma_lora.neighbours import moved_text
from gemma_lora.tables import (
    Column,
    Reference,
    Table,
    declared_references,
    definitions,
    gold_literals,
    joined_columns,
    names_its_rows,
)

ROWS = 12
CROWDED_ROWS = {4: 8, 5: 6}  # by tables in the gold: a neighbour may join all with all
POOL = 9  # values that joined columns draw from


class Style(NamedTuple):
    """How the rows of one database are drawn."""

    distinct: bool  # numbers and dates without ties
    nulls: float  # share in columns that are no keys
    orphans: bool  # keys without partner
    rows: float  # share of the usual number
    literal: float  # share of values taken from the gold's literals and beside them


STYLES = (
    Style(True, 0, True, 1, 0.45),
    Style(False, 0, True, 1, 0.6),
    Style(True, 0.15, True, 1, 0.6),
    Style(True, 0, False, 0.5, 0.3),
    Style(False, 0.1, False, 1.5, 0.75),
    Style(True, 0, True, 1.5, 0.85),
)


def _number(column: Column, literals: Sequence[Any]) -> tuple[list[Any], Callable[[Any], Any]]:
    """Values at and beside the literals, and a way to draw unseen ones."""
    known = [v for v in literals if isinstance(v, (int, float)) and math.isfinite(v)]
    near = [v + step for v in known for step in (0, 1, -1)]
    seen = [v for v in column.seen if isinstance(v, (int, float)) and math.isfinite(v)]
    numbers = [*seen, *known] or [1, 50]
    low, high = min(numbers), max(numbers)
    span = max(high - low, abs(high) / 2, 20)
    bottom, top = low - span / 3, high + span / 3
    bottom = max(0, bottom) if low >= 0 else bottom
    if column.kind == "int":
        near = [int(v) for v in near]
        return near, lambda draw: draw.randint(int(bottom), int(top))
    return near, lambda draw: round(draw.uniform(bottom, top), 2)


def _text(column: Column, literals: Sequence[Any]) -> tuple[list[Any], Callable[[Any], Any]]:
    words = [v for v in literals if isinstance(v, str)]
    cores = [w.strip("%").replace("_", "a") for w in words if "%" in w]
    near = [w for w in words if "%" not in w]
    for core in filter(None, cores):
        core = core.replace("%", " ")
        near += [core, f"{core} one", f"one {core}", f"one {core} two"]
    seen = [v for v in column.seen if isinstance(v, (str, int, float))]
    fresh = [f"{column.name} {n}" for n in range(1, 30 if column.key else 6)]
    return near, lambda draw: draw.choice([*seen, *fresh])


def _day(column: Column, literals: Sequence[Any]) -> tuple[list[Any], Callable[[Any], Any]]:
    clock = " 10:30:00" if column.kind == "moment" else ""
    if clock and column.seen and isinstance(column.seen[0], str):
        clock = column.seen[0][10:]
    days = []
    for text in (str(v) for v in (*literals, *column.seen)):
        stamp = text[:10]
        if re.fullmatch(r"(19|20)\d\d", text):
            stamp = f"{text}-03-14"
        elif re.fullmatch(r"(19|20)\d\d-\d\d%?", text):
            stamp = f"{text[:7]}-14"
        elif re.fullmatch(r"(19|20)\d\d.*%", text):
            stamp = f"{text[:4]}-03-14"
        with suppress(ValueError):
            days.append(datetime.date.fromisoformat(stamp))
    asked = days[: len(days) - len(column.seen)] if literals else []
    near = [text + clock for day in asked for text in (str(day), *moved_text(str(day)))]
    days = days or [datetime.date(2022, 6, 1)]
    first = max(min(days).toordinal() - 200, 1)
    last = min(max(days).toordinal() + 200, datetime.date.max.toordinal())
    return near, lambda draw: str(datetime.date.fromordinal(draw.randint(first, last))) + clock


def value_source(
    column: Column, literals: Sequence[Any]
) -> tuple[list[Any], Callable[[random.Random], Any]]:
    """(values at the gold's literals, a function that draws any value of the column's kind)."""
    if column.kind == "flag":
        return [v for v in literals if v in (0, 1)], lambda draw: draw.randint(0, 1)
    if column.kind in ("int", "real"):
        return _number(column, literals)
    return (_day if column.kind in ("date", "moment") else _text)(column, literals)


def key_values(columns: Sequence[Column], literals: Sequence[Any]) -> list[Any]:
    """POOL or more values that joined columns share: literals, seen ones, fresh ones."""
    found = dict.fromkeys(v for column in columns for v in column.seen[:POOL])
    kind = columns[0].kind
    if kind in ("int", "real", "flag"):
        numbers = [v for v in found if isinstance(v, (int, float))]
        wanted = dict.fromkeys(v for v in literals if isinstance(v, (int, float)))
        top = int(max(filter(math.isfinite, numbers), default=0))
        return [*(wanted | dict.fromkeys(numbers))][:POOL] + [top + n for n in range(1, 5)]
    words: dict[Any, None] = dict.fromkeys(
        v for v in literals if isinstance(v, str) and "%" not in v
    )
    return [*(words | found)][:POOL] + [f"{columns[0].name} {n}" for n in range(1, 5)]


class Plan(NamedTuple):
    """All that the databases of one gold are drawn from."""

    script: str  # makes the empty tables
    tables: tuple[Table, ...]
    literals: Mapping[str, Sequence[Any]]
    pools: Mapping[str, Sequence[Any]]  # {column name: the values of its joined set}
    references: tuple[Reference, ...]
    rows: int


def make_plan(
    context: str, tree: Any, tables: Sequence[Table], declared: Mapping[str, Any]
) -> Plan:
    """What is known of a gold and its tables."""
    exp = importlib.import_module("sqlglot").exp
    literals = gold_literals(tree)
    pools: dict[str, Sequence[Any]] = {}
    for names in joined_columns(tree, declared):
        columns = [c for t in tables for c in t.columns if c.name.lower() in names]
        if columns:
            wanted = [v for name in sorted(names) for v in literals.get(name, ())]
            pools |= dict.fromkeys(names, key_values(columns, wanted))
    keyed = [with_joined_keys(t, [o for o in tables if o is not t], pools) for t in tables]
    many = len(list(tree.find_all(exp.Table)))
    rows = CROWDED_ROWS.get(min(many, 5), ROWS)
    references = tuple(declared_references(declared))
    return Plan(definitions(context), tuple(keyed), literals, pools, references, rows)


def with_joined_keys(
    table: Table, others: Sequence[Table], pools: Mapping[str, Sequence[Any]]
) -> Table:
    """The table with the keys that nobody declared but everybody would read as such.

    They are columns that others join on, whose values are unique in the context: the first one,
    and those called after the table's rows. One row or none shows nothing of uniqueness: then the
    first column is a key where it meets no other table's first.
    """
    columns = list(table.columns)
    for place, column in enumerate(columns):
        pool = pools.get(column.name.lower())
        if pool is None or column.key or not (column.singular and column.given):
            continue
        meets_first = any(pools.get(t.columns[0].name.lower()) is pool for t in others if t.columns)
        named = names_its_rows(table.name, column.name)
        if named or (place == 0 and (table.rows > 1 or not meets_first)):
            columns[place] = column._replace(key=True, nullable=False)
    given = [column for column in columns if column.given]
    old = [column for column in table.columns if column.given]
    keys = [(i,) for i, (new, was) in enumerate(zip(given, old, strict=True)) if new.key > was.key]
    return table._replace(columns=tuple(columns), unique=(*table.unique, *keys))


def unique_as_seen(plan: Plan) -> Plan:
    """The plan with every column unique whose values are so in the context, two rows or more.

    For golds to which a repeated value leaves open what they show, as `= (SELECT id ... WHERE name
    = 'x')` does: a person who reads the context expects none there.
    """
    tables = []
    for table in plan.tables:
        columns = tuple(
            c._replace(key=c.key or (table.rows > 1 and c.singular and c.kind != "flag"))
            for c in table.columns
        )
        given = [column for column in columns if column.given]
        keys = tuple((place,) for place, column in enumerate(given) if column.key)
        unique = tuple(dict.fromkeys((*table.unique, *keys)))
        tables.append(table._replace(columns=columns, unique=unique))
    return plan._replace(tables=tuple(tables))


def draw_rows(plan: Plan, table: Table, style: Style, draw: random.Random) -> list[tuple[Any, ...]]:
    """Rows of one table, values in the order of its columns that may be inserted."""
    count = max(3, round(plan.rows * style.rows))
    hot = [draw.random() < style.literal for _ in range(count)]
    made = []
    for column in (c for c in table.columns if c.given):
        name = column.name.lower()
        pool = plan.pools.get(name)
        if pool and column.key:
            share = 0.6 if style.orphans else 1  # some partners are missing
            values = draw.sample(pool, min(math.ceil(len(pool) * share), count))
            values += [None] * (count - len(values))
        elif pool:
            some = draw.sample(pool, max(3, len(pool) * 2 // 3))  # some keys have no row here
            values = [draw.choice(some) for _ in range(count)]
        else:
            values = _draw_column(column, plan.literals.get(name, ()), style, hot, draw)
        bound = any(r.column.lower() == name for r in plan.references) and not column.key
        if style.nulls and (bound or (column.nullable and not pool)):
            values = [None if draw.random() < style.nulls else v for v in values]
        made.append(values)
    return without_twins(list(zip(*made, strict=True)), table.unique)


def without_twins(
    rows: Sequence[tuple[Any, ...]], unique: Sequence[Sequence[int]]
) -> list[tuple[Any, ...]]:
    """Rows whose keys are there and new: which of two to keep must not depend on their order."""
    taken: set[tuple[Any, ...]] = set()
    kept = []
    for row in rows:
        keys = {(i, *(row[place] for place in places)) for i, places in enumerate(unique)}
        if not keys & taken and all(None not in key for key in keys):
            taken |= keys
            kept.append(row)
    return kept


def _draw_column(
    column: Column, literals: Sequence[Any], style: Style, hot: Sequence[bool], draw: random.Random
) -> list[Any]:
    near, fresh = value_source(column, literals)
    few = [fresh(draw) for _ in range(4)]
    values: list[Any] = []
    for warm in hot:
        value: Any = None
        for _ in range(8):
            if near and draw.random() < (0.85 if warm else 0.3):
                value = draw.choice(near)
            else:
                value = fresh(draw) if style.distinct or column.key else draw.choice(few)
            ties = column.key or (style.distinct and column.kind in ("int", "real", "date"))
            if not ties or value not in values:
                break
        values.append(value)
    return values


def fill_script(plan: Plan, number: int, seed: str) -> tuple[str, str]:
    """Database `number` as a script, and the same with the rows of each table in reverse.

    A row that breaks a constraint is left out; the others serve.
    """
    style, draw = STYLES[number % len(STYLES)], random.Random(f"{seed} {number}")
    forward, backward = [plan.script], [plan.script]
    for table in plan.tables:
        rows = draw_rows(plan, table, style, draw)
        if not rows:
            continue
        given = (c for c in table.columns if c.given)
        names = ", ".join('"' + c.name.replace('"', '""') + '"' for c in given)
        lines = [f"({', '.join(map(sql_literal, row))})" for row in rows]
        head = f"INSERT OR IGNORE INTO {table.name} ({names}) VALUES "
        forward.append(head + ",".join(lines) + ";\n")
        backward.append(head + ",".join(reversed(lines)) + ";\n")
    ends = without_orphans(plan.references)
    return "".join([*forward, ends]), "".join([*backward, ends])


def without_orphans(references: Sequence[Reference]) -> str:
    """Deletes the rows whose declared partner is missing; again for those that needed them."""
    one = "".join(
        f'DELETE FROM {r.table} WHERE "{r.column}" NOT IN '
        f'(SELECT "{r.other}" FROM {r.other_table} WHERE "{r.other}" IS NOT NULL);\n'
        for r in references
    )
    return one * min(len(references), 3)
