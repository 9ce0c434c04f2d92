"""Tables, their columns, and the keys that lead from one to another.

Of a SQLite file by its reading, which looks at every value; of SQL text, whose rows are too few to
tell a key from chance, by declarations and names. Of 161 contexts of gretel's set with several
tables 4 declare a key; with names, as `store_id` of `stores`, 141 have one.
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
from gemma_lora.name_reading import table_words
from gemma_lora.schema_reading import Link, names_key, read_database, read_only, user_tables
from gemma_lora.sql_text import PARSER_TRIPS
from gemma_lora.tables import declared_references, declared_tables, definitions, is_named_id

LARGEST_READ = 100_000_000  # bytes
LONGEST_TEXT = 100_000  # characters of CREATE statements that are read
MOST_COMPARED = 100  # tables whose names are compared, each with each


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

    A file of over LARGEST_READ is known by its CREATE statements: to read all values of 1 GB took
    85 s beside other work, for which nobody waits in a chat. A view on a table that is gone ends
    the reading of a file of which all else can be asked.
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
    if len(columns) <= MOST_COMPARED:
        links += links_by_names(columns, keys, links)
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


def links_by_names(
    columns: Mapping[str, tuple[str, ...]], keys: Mapping[str, str | None], known: Sequence[Link]
) -> list[Link]:
    """The keys that names tell of, between tables that no other key leads from one to the other."""
    row_words = {table: table_words(table)[0] for table in columns}
    joined = {frozenset((one.child, one.parent)) for one in known}
    found = []
    for pair in combinations(columns, 2):
        if frozenset(pair) in joined:
            continue
        links = [
            Link(child, column, parent, key)
            for child, parent in (pair, pair[::-1])
            if (key := keys[parent]) is not None
            for column in columns[child]
            if names_key(column, key, row_words[parent])
        ]
        one_way = [one for one in links if one.child == links[0].child] or shared_ids(pair, columns)
        found += one_way if len(one_way) == 1 else []
    return found


def shared_ids(pair: tuple[str, str], columns: Mapping[str, tuple[str, ...]]) -> list[Link]:
    """Links by what both tables call alike and as what identifies something."""
    child, parent = pair
    there = {c.lower(): c for c in columns[parent]}
    return [
        Link(child, column, parent, there[column.lower()])
        for column in columns[child]
        if column.lower() in there and column.lower() != "id" and is_named_id(column)
    ]
