"""Tables, their columns, and the keys that lead from one to another.

Of a SQLite file by its reading, which looks at every value; of SQL text, whose rows are too few to
tell a key from chance, by declarations and names. In 829 contexts of gretel's set that were read
so, hardly any key is declared: `store_id` of two tables, the first column of one of them, is how
people say it.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from gemma_lora.cli import UserError
from gemma_lora.database import declared_relations
from gemma_lora.name_reading import name_words, singular
from gemma_lora.schema_reading import Link, read_database, read_only, user_tables
from gemma_lora.sql_text import PARSER_TRIPS
from gemma_lora.tables import declared_references, declared_tables, definitions, is_named_id

LARGEST_READ = 100_000_000  # bytes: read in two or three seconds
LONGEST_TEXT = 100_000  # characters of CREATE statements: sqlglot reads them in a second


class Schema(NamedTuple):
    """The tables of a database with their columns, as they are stored, and the keys between."""

    columns: Mapping[str, tuple[str, ...]]  # none of what is empty, or made in another way
    links: tuple[Link, ...]

    def table(self, name: str) -> str | None:
        """A table's name as it is stored."""
        return next((t for t in self.columns if t.lower() == name.lower()), None)

    def column(self, table: str, name: str) -> str | None:
        """A column's name as it is stored, None where the table has no such column."""
        return next((c for c in self.columns[table] if c.lower() == name.lower()), None)

    def way(self, joined: Sequence[str], table: str) -> list[Link] | None:
        """The fewest keys from some tables to another, in order; None where none lead there."""
        came: dict[str, tuple[str, Link] | None] = dict.fromkeys(joined)
        waiting = deque(joined)
        while waiting and table not in came:
            here = waiting.popleft()
            for link in self.links:
                if here in (link.child, link.parent):
                    there = link.parent if here == link.child else link.child
                    if there not in came:
                        came[there] = (here, link)
                        waiting.append(there)
        if table not in came:
            return None
        found: list[Link] = []
        step = came[table]
        while step is not None:
            found.insert(0, step[1])
            step = came[step[0]]
        return found


def schema_of_file(path: Path) -> Schema:
    """The schema of a SQLite file; an empty one, by which nothing is mended, where reading fails.

    A file of over LARGEST_READ is known by its CREATE statements: all values of 1 GB take half a
    minute, for which nobody waits in a chat. A view on a table that is gone ends the reading of a
    file of which all else can be asked.
    """
    try:
        with read_only(path) as connection:
            created = user_tables(connection)
        if path.stat().st_size > LARGEST_READ:
            return schema_of_text("".join(f"{sql};\n" for sql in created.values()))
        reading = read_database(path)
    except (OSError, sqlite3.Error, UserError):
        return Schema({}, ())
    unread: dict[str, tuple[str, ...]] = dict.fromkeys(created, ())
    return Schema(unread | {t.name: t.held for t in reading.tables}, tuple(reading.links))


def schema_of_text(sql: str) -> Schema:
    """The schema that SQL text makes, as far as its CREATE TABLE statements can be read."""
    created = definitions(sql)
    if len(created) > LONGEST_TEXT:
        return Schema({}, ())
    unread: dict[str, tuple[str, ...]] = {r.name: () for r in declared_relations(created)}
    try:
        known = declared_schema(declared_tables(created))
        return Schema({**unread, **known.columns}, known.links)
    except (LookupError, *PARSER_TRIPS):  # of a tree unlike any that it makes of whole statements
        return Schema({}, ())


def declared_schema(declared: Mapping[str, Any]) -> Schema:
    """The schema of {table as SQL: sqlglot's tree of its CREATE TABLE}."""
    exp = importlib.import_module("sqlglot").exp
    names = {written: tree.find(exp.Table).name for written, tree in declared.items()}
    columns = {
        names[written]: tuple(c.name for c in tree.find_all(exp.ColumnDef))
        for written, tree in declared.items()
    }
    links = [
        Link(names[r.table], r.column, names[r.other_table], r.other)
        for r in declared_references(declared)
        if r.other_table in names
    ]
    keys = {names[written]: key_of(tree) for written, tree in declared.items()}
    for pair in combinations(columns, 2):
        if not any({one.child, one.parent} == set(pair) for one in links):
            links += link_by_names(pair, columns, keys)
    return Schema(columns, tuple(links))


def key_of(tree: Any) -> str | None:
    """The column that tells a declared table's rows apart: its primary key, else its first."""
    exp = importlib.import_module("sqlglot").exp
    for column in tree.find_all(exp.ColumnDef):
        if column.find(exp.PrimaryKeyColumnConstraint):
            return str(column.name)
    for key in tree.find_all(exp.PrimaryKey):
        together = [one.name for one in key.find_all(exp.Identifier)]
        return together[0] if len(together) == 1 else None
    return next((str(c.name) for c in tree.find_all(exp.ColumnDef)), None)


def link_by_names(
    pair: tuple[str, str],
    columns: Mapping[str, tuple[str, ...]],
    keys: Mapping[str, str | None],
) -> list[Link]:
    """The key between two tables that their columns' names tell of; [] for none or several."""
    for child, parent in (pair, pair[::-1]):
        key = keys[parent]
        found = [c for c in columns[child] if key and names_key(c, key, parent)]
        if key and len(found) == 1:
            return [Link(child, found[0], parent, key)]
    child, parent = pair
    there = {c.lower(): c for c in columns[parent]}
    both = [c for c in columns[child] if c.lower() in there and is_named_id(c)]
    both = [c for c in both if c.lower() != "id"]
    return [Link(child, both[0], parent, there[both[0].lower()])] if len(both) == 1 else []


def names_key(column: str, key: str, table: str) -> bool:
    """Whether a column is called as what holds a table's key: `store_id` of `id` in `stores`."""
    theirs, ours = name_words(key), name_words(column)
    if column.lower() == key.lower():
        return theirs not in (["id"], ["name"])
    own = theirs in (["id"], [*row_words(table), "id"])
    return own and len(ours) > 1 and ours[-1] == "id" and ours[:-1] == row_words(table)


def row_words(table: str) -> list[str]:
    """What a row of a table is called, in words."""
    return singular(name_words(table)).split()
