"""A SQLite file as a person sees it: its tables, and the keys between them, declared or not.

The file is only read. What a table's columns are for is the matter of `table_reading`.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from gemma_lora.cli import UserError
from gemma_lora.database_files import read_only
from gemma_lora.name_reading import name_words
from gemma_lora.table_reading import (
    KEPT_VALUES,
    ColumnReading,
    TableReading,
    quoted,
    read_table,
)

VIEW_SECONDS = 5.0  # a view that takes longer is left out
MOST_BY_CHANCE = 10  # texts that may be another table's names without meaning its rows


NUMBERING = {"id", "key", "number"}  # how a key's name ends
ABOVE = {"manager", "boss", "supervisor", "superior", "parent", "reports"}


class Link(NamedTuple):
    """A key from a child's row to its parent's."""

    child: str
    child_column: str
    parent: str
    parent_column: str


@dataclass(frozen=True)
class DatabaseReading:
    """All of a file that questions are made from."""

    tables: tuple[TableReading, ...]
    links: tuple[Link, ...]
    schema_hash: str
    called: str = ""  # the file's name as people say it: 'europe'
    failing: dict[str, str] = field(default_factory=dict)  # views that are left out, and why

    def table(self, name: str) -> TableReading:
        """The table of that name."""
        return next(t for t in self.tables if t.name == name)

    def all_parents(self, table: str) -> list[Link]:
        """Keys that lead from a row of `table` to another table's."""
        return [k for k in self.links if k.child == table and k.parent != table]

    def parents(self, table: str) -> list[Link]:
        """Of these the first to each table: the one meant where nobody says 'delivery address'."""
        return list({k.parent: k for k in reversed(self.all_parents(table))}.values())[::-1]

    def is_said(self, link: Link) -> bool:
        """Whether people name a parent's row to tell which of the child's rows they mean.

        Where the parent's name itself is the key, they speak of the child's column, unless that is
        one which nobody says.
        """
        label = self.table(link.parent).label
        unsaid = not self.table(link.child).column(link.child_column).words
        return bool(label) and not (unsaid and label == (link.parent_column,))

    def children(self, table: str) -> list[Link]:
        """Keys that lead to `table` from another table, the first of each."""
        found = [k for k in self.links if k.parent == table and k.child != table]
        return list({k.child: k for k in reversed(found)}.values())[::-1]


@contextmanager
def in_time(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Queries in this block are interrupted after so many seconds."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def read_tables(
    connection: sqlite3.Connection, names: Sequence[str], links: Sequence[Link]
) -> list[TableReading]:
    """Read the tables and views that hold anything, knowing the keys between them.

    What is a key in a table is one in a view that shows it.
    """
    views = view_names(connection)
    keys = {name: {k.child_column for k in links if name in (k.child, *views)} for name in names}
    tables = [
        replace(read_table(connection, name, keys[name]), is_view=name in views) for name in names
    ]
    return [t for t in tables if t.rows and t.columns]


def view_names(connection: sqlite3.Connection) -> list[str]:
    """The views of a file."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")
    return [name for (name,) in found.fetchall()]


def hidden_links(tables: Sequence[TableReading], known: Sequence[Link]) -> list[Link]:
    """The keys that nobody declared.

    None leads to a view or from it: a view has joined what it shows already, and what is unique in
    it, as the customers of a quarter, is so by chance.
    """
    tables = [t for t in tables if not t.is_view]
    found = undeclared_links(tables, known)
    found += own_keys(tables, [*known, *found])
    return found + same_names(tables, [*known, *found])


def declared_links(connection: sqlite3.Connection, tables: Sequence[str]) -> list[Link]:
    """Foreign keys that the schema declares and that lead somewhere."""
    links = []
    known = {t.lower(): t for t in tables}
    for table in tables:
        info = connection.execute(f"PRAGMA foreign_key_list({quoted(table)})").fetchall()
        columns = {
            t: [c[1] for c in connection.execute(f"PRAGMA table_info({quoted(t)})")] for t in tables
        }
        together = Counter(number for number, *_ in info)
        for number, _, parent, child_column, parent_column, *_ in info:
            there = known.get(parent.lower())
            if there is None or together[number] > 1:
                continue  # one column alone of a key of two leads to other rows too
            if parent_column is None:
                keys = connection.execute(f"PRAGMA table_info({quoted(there)})").fetchall()
                parent_column = next((c[1] for c in keys if c[5]), None)
            found = {c.lower(): c for c in columns[there]}.get(str(parent_column).lower())
            if found:
                links.append(Link(table, child_column, there, found))
    return links


def undeclared_links(tables: Sequence[TableReading], known: Sequence[Link]) -> list[Link]:
    """Keys that nobody declared: a column named as another table's key, its values among those."""
    taken = {(k.child, k.child_column) for k in known}
    links = []
    backwards = {(k.parent, k.parent_column, k.child) for k in known}
    for parent, key in possible_keys(tables):
        for child in tables:
            for column in child.columns:
                if child is parent or (child.name, column.name) in taken:
                    continue
                if (child.name, column.name, parent.name) in backwards:
                    continue  # each row there has one here: a key one way is enough
                if names_key(column.name, key.name, parent.words[0]) and holds(column, key):
                    links.append(Link(child.name, column.name, parent.name, key.name))
                    taken.add((child.name, column.name))
                    backwards.add((parent.name, key.name, child.name))
    return links


def possible_keys(tables: Sequence[TableReading]) -> list[tuple[TableReading, ColumnReading]]:
    """Unique columns and their tables; first those named after their own table.

    Where 'state_name' is unique in the tables of states and of their heights, a city's is a state.
    Neither a day nor a price tells which row is meant, unique as it may be.
    """
    found = [
        (table, column)
        for table in tables
        for column in table.columns
        if len(column.values) >= min(table.rows, KEPT_VALUES)
        and column.role not in ("date", "year")
        and not any(isinstance(v, float) and v % 1 for v in column.values)
    ]
    return sorted(found, key=lambda pair: not is_named_after(*pair))


def is_named_after(table: TableReading, column: ColumnReading) -> bool:
    """Whether a column's name begins with what a row of its table is called."""
    owner = table.words[0].split()
    return name_words(column.name)[: len(owner)] == owner


def own_keys(tables: Sequence[TableReading], known: Sequence[Link]) -> list[Link]:
    """Keys from a table to itself that nobody declared: the manager's number of an employee."""
    taken = {(k.child, k.child_column) for k in known}
    links = []
    for table in tables:
        unique = [c for c in table.columns if len(c.values) == table.rows and c.role == "key"]
        for key in unique[:1]:
            for column in table.columns:
                above = ABOVE & set(name_words(column.name))
                if column is key or (table.name, column.name) in taken:
                    continue
                if above and holds(column, key):
                    links.append(Link(table.name, column.name, table.name, key.name))
    return links


def same_names(tables: Sequence[TableReading], known: Sequence[Link]) -> list[Link]:
    """Texts that nobody called a key and that all name rows of one other table: rivers' states."""
    taken = {(k.child, k.child_column) for k in known}
    links = []
    for parent in tables:
        if len(parent.label) != 1 or len(parent.names) < max(MOST_BY_CHANCE, parent.rows):
            continue
        if (parent.name, parent.label[0]) in taken:
            continue  # it is named by another table's rows, and so is what is named by it
        key = parent.column(parent.label[0])
        for child in tables:
            for column in child.columns:
                text = column.role in ("category", "code") and column.name not in child.label
                if child is parent or not text or (child.name, column.name) in taken:
                    continue
                if len(column.values) > MOST_BY_CHANCE and holds(column, key):
                    links.append(Link(child.name, column.name, parent.name, key.name))
                    taken.add((child.name, column.name))
    return links


def names_key(column: str, key: str, row_word: str) -> bool:
    """Whether a column's name says that it holds `key` of the table whose rows are so called."""
    theirs, ours = name_words(key), name_words(column)
    if column.lower() == key.lower():
        return theirs != ["id"] and theirs != ["name"]
    if theirs[-1] not in NUMBERING:
        return False
    what = without_numbering(ours)  # 'PickBrNo' -> ['pick', 'branch'], which ends with the owner
    owners = (row_word.split(), without_numbering(theirs))
    return any(owner and what[-len(owner) :] == owner for owner in owners)


def without_numbering(words: Sequence[str]) -> list[str]:
    """The words without 'id' and the like at their end."""
    kept = list(words)
    while kept and kept[-1] in NUMBERING:
        kept.pop()
    return kept


def holds(column: ColumnReading, key: ColumnReading) -> bool:
    """Whether nearly all values of a column are values of the key."""
    there = set(key.values)
    return len(column.values) > 1 and (
        sum(v in there for v in column.values) >= 0.9 * len(column.values)
    )


def user_tables(connection: sqlite3.Connection) -> dict[str, str]:
    """{name: CREATE statement} of tables and views, less those that SQLite and FTS keep."""
    listed = connection.execute("PRAGMA table_list").fetchall()
    kinds = {name: kind for schema, name, kind, *_ in listed if schema == "main"}
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid"
    )
    return {
        name: sql
        for name, sql in found.fetchall()
        if kinds.get(name) != "shadow" and not name.startswith("sqlite_")
    }


def failing_views(connection: sqlite3.Connection) -> dict[str, str]:
    """{name: why} of the views that cannot be read, or not in VIEW_SECONDS."""
    failing = {}
    for name in view_names(connection):
        try:
            with in_time(connection, VIEW_SECONDS):
                connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()
        except sqlite3.Error as error:
            slow = str(error) == "interrupted"
            failing[name] = f"it takes over {VIEW_SECONDS:g} s" if slow else str(error)
    return failing


def hash_of_schema(created: dict[str, str]) -> str:
    """A short hash of CREATE statements that does not depend on their order or spacing."""
    text = "\n".join(sorted(" ".join((sql or name).split()) for name, sql in created.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def called_as_named(tables: Sequence[TableReading]) -> list[TableReading]:
    """A stock named by its medicines holds medicines, and what has a breed is an animal."""
    taken = {word for table in tables for word in table.words}

    def words_of(table: TableReading) -> tuple[str, ...]:
        label = table.column(table.label[0]).words[0] if len(table.label) == 1 else ""
        named = [re.sub(" (?:name|title|description)$", "", label)]
        parts = table.words[0].split()
        more = [w for w in named if len(parts) > 1 and w in parts and w not in taken]
        animals = {"species", "breed"} & {w for c in table.columns for w in c.words}
        beside = [w for w in ("animal", "pet") if animals and w not in taken]
        return (*more, *table.words, *beside)

    return [replace(table, words=words_of(table)) for table in tables]


def read_database(path: Path) -> DatabaseReading:
    """Read a SQLite file as a person would; raises UserError when it holds nothing to ask."""
    with read_only(path) as connection:
        created = user_tables(connection)
        failing = failing_views(connection)
        names = [name for name in created if name not in failing]
        links = declared_links(connection, names)
        tables = read_tables(connection, names, links)
        if found := hidden_links(tables, links):
            links += found
            tables = read_tables(connection, names, links)
    if not tables:
        raise UserError(f"'{path}' has no table with rows: there is nothing to ask about")
    tables = called_as_named(tables)
    held = {(t.name, c.name) for t in tables for c in t.columns}  # less what has no value at all
    usable = [
        k
        for k in links
        if (k.child, k.child_column) in held and (k.parent, k.parent_column) in held
    ]
    said = " ".join(name_words(path.stem))
    said = said if re.fullmatch("[a-z]{3,}( [a-z]{3,})?", said) else ""  # not 'backup 2026 11'
    return DatabaseReading(tuple(tables), tuple(usable), hash_of_schema(created), said, failing)
