"""One SELECT of a query, the tables that it names, and what in a schema is most like a name.

What `mending` works on: sqlglot's nodes, and the tables as the schema writes them.
"""

from __future__ import annotations

import difflib
import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gemma_lora.schema_reading import Link
from gemma_lora.table_links import Schema

OTHER_LIKENESS = 0.75  # of a table, or of a column of any table (difflib's ratio)


def drop_aliases(tree: Any) -> None:
    """Call each table by its name that a query names once: `T1.city` becomes `people.city`."""
    exp = importlib.import_module("sqlglot").exp
    tables = list(tree.find_all(exp.Table))
    times = Counter(table.name.lower() for table in tables)
    aliases = Counter(table.alias_or_name.lower() for table in tables)
    for table in tables:
        alias = table.alias.lower()
        free = times[table.name.lower()] == 1 and aliases[alias] == 1
        if not alias or not free or times[alias]:
            continue
        for column in tree.find_all(exp.Column):
            if column.table.lower() == alias:
                column.set("table", exp.to_identifier(table.name))
        table.set("alias", None)


@dataclass
class Block:
    """One SELECT that is being mended."""

    select: Any
    schema: Schema
    named: list[Any]  # its tables, as sqlglot's nodes
    needed: list[str]  # the tables that it needs, as they are stored; first that of FROM
    outer: list[str]  # those of the SELECTs around it
    changes: list[str] = field(default_factory=list)
    owners: dict[int, str] = field(default_factory=dict)  # id of a column's node -> its table


def tables_in(select: Any) -> list[Any]:
    """The nodes in FROM and JOIN."""
    source = select.args.get("from_") or select.args.get("from")
    joins = select.args.get("joins") or []
    return [source.this, *(join.this for join in joins)] if source is not None else []


def read_block(select: Any, schema: Schema) -> Block | None:
    """A SELECT and its tables; None where one is like none, or its columns unknown."""
    exp = importlib.import_module("sqlglot").exp
    named = tables_in(select)
    if not named or not all(isinstance(t, exp.Table) and t.alias in ("", t.name) for t in named):
        return None
    block = Block(select, schema, named, [], [])
    for node in named:
        table = schema.table(node.name)
        if table is None:
            table = most_alike(
                node.name, [t for t, held in schema.columns.items() if held], OTHER_LIKENESS
            )
            if table is None:
                return None
            block.changes.append(f"{table} for {node.name}")
        if not schema.columns[table]:
            return None
        if table not in block.needed:
            block.needed.append(table)
    around = select.parent_select
    while around is not None:
        names = (schema.table(t.name) for t in tables_in(around) if isinstance(t, exp.Table))
        block.outer += [name for name in names if name]
        around = around.parent_select
    return block


def most_alike(name: str, names: Sequence[str], likeness: float) -> str | None:
    """The one of some names that looks most like another."""
    lower = {n.lower(): n for n in reversed(names)}
    found = difflib.get_close_matches(name.lower(), list(lower), 1, likeness)
    return lower[found[0]] if found else None


def nearest(block: Block, tables: Sequence[str]) -> str | None:
    """The one of some tables that the fewest keys lead to; None where two are as near, or none."""
    ways = [(len(way), t) for t in tables if (way := block.schema.way(block.needed, t)) is not None]
    ways.sort()
    alone = len(ways) == 1 or (len(ways) > 1 and ways[0][0] < ways[1][0])
    return ways[0][1] if alone else None


def show_once(block: Block, links: Sequence[Link]) -> None:
    """Show each row once where joining along some keys repeats it: a supplier's goods, once sold.

    What is counted or put in groups stays; so does what the lowest table shows.
    """
    exp = importlib.import_module("sqlglot").exp
    select = block.select
    shown = [c for one in select.expressions for c in one.find_all(exp.Column)]
    grouped = select.args.get("group") or select.args.get("distinct")
    if grouped or not shown or any(one.find(exp.AggFunc, exp.Star) for one in select.expressions):
        return
    once = {block.owners.get(id(column)) for column in shown}
    for _ in links:  # what a row that is shown belongs to is there once for it
        once |= {link.parent for link in links if link.child in once}
    if any(link.child not in once for link in links):
        select.set("distinct", exp.Distinct())
        block.changes.append("each shown once")
